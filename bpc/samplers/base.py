"""The contract of every sampler: (init, step) over k chains on the leading axis, a density that is already batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.seeding import ChainGenerators

__all__ = ["Kernel", "LogDensity", "collect", "run", "state_from_tensors", "state_to_tensors", "value_and_grad"]

State = TypeVar("State")
Info = TypeVar("Info")


class LogDensity(Protocol):
    """Unnormalised log density of k chains, in nats: summed over points, plus the log prior."""

    def __call__(self, params: Tensor) -> Tensor:
        """(k, p) -> (k,)."""
        ...


def value_and_grad(log_density: Callable[[Tensor], Tensor], params: Tensor) -> tuple[Tensor, Tensor]:
    """Log density (k,) and its gradient (k, p), both detached. Chains do not mix: the sum's gradient is each one's own.

    A density with a method ``value_and_gradient(params)`` of its own (in pieces, in closed form) is asked for both.
    """
    own = getattr(log_density, "value_and_gradient", None)
    if own is not None:
        value, gradient = own(params.detach())
        return value, gradient
    leaf = params.detach().requires_grad_(True)
    value = log_density(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


class Kernel(NamedTuple, Generic[State, Info]):
    """A sampler.

    Attributes:
        init: (params (k, p), generators) -> state.
        step: (state, generators) -> (state, info); one draw of every chain.
    """

    init: Callable[[Tensor, ChainGenerators], State]
    step: Callable[[State, ChainGenerators], tuple[State, Info]]


def run(
    kernel: Kernel[Any, Any],
    params: Tensor,
    *,
    steps: int,
    generators: ChainGenerators,
    burn_in: int = 0,
    thin: int = 1,
) -> Iterator[tuple[Any, Any]]:
    """Iterate a kernel from `params` (k, p): yields (state, info) of every `thin`-th step after `burn_in`."""
    state = kernel.init(params, generators)
    for t in range(steps):
        state, info = kernel.step(state, generators)
        if t >= burn_in and (t - burn_in) % thin == 0:
            yield state, info


def collect(
    kernel: Kernel[Any, Any],
    params: Tensor,
    *,
    steps: int,
    generators: ChainGenerators,
    burn_in: int = 0,
    thin: int = 1,
    block: int = 16,
) -> Tensor:
    """Samples (k, s, p) on the CPU, carried off the device in blocks of `block` draws.

    Memory: the result itself, and `block` draws on the device; a thousand samples of 320,010 parameters are 1.3 GB. For a
    predictive, iterate `run` instead and keep no sample.
    """
    kept = len(range(burn_in, steps, thin))
    if kept < 1:
        raise ConfigError(f"{steps} steps with a burn-in of {burn_in} leave no sample.")
    samples = torch.empty(len(params), kept, params.shape[1], dtype=params.dtype)
    waiting: list[Tensor] = []
    done = 0
    for state, _ in run(kernel, params, steps=steps, generators=generators, burn_in=burn_in, thin=thin):
        waiting.append(state.params)
        if len(waiting) == block or done + len(waiting) == kept:
            samples[:, done : done + len(waiting)] = torch.stack(waiting, dim=1).cpu()
            done += len(waiting)
            waiting.clear()
    return samples


def state_to_tensors(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """Flatten a state (NamedTuples of tensors, numbers and NamedTuples) into named tensors for a checkpoint."""
    flat: dict[str, Tensor] = {}
    for name, value in state._asdict().items():
        key = f"{prefix}{name}"
        if hasattr(value, "_asdict"):
            flat.update(state_to_tensors(value, f"{key}."))
        else:
            flat[key] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def state_from_tensors(like: Any, tensors: dict[str, Tensor], prefix: str = "") -> Any:
    """The inverse of `state_to_tensors`: a state of the type, devices and nesting of `like`."""
    fields = {}
    for name, value in like._asdict().items():
        key = f"{prefix}{name}"
        if hasattr(value, "_asdict"):
            fields[name] = state_from_tensors(value, tensors, f"{key}.")
        elif isinstance(value, Tensor):
            fields[name] = tensors[key].to(value.device)
        else:
            fields[name] = type(value)(tensors[key].item())
    return type(like)(**fields)
