"""The contract of every sampler: (init, step) over k chains on the leading axis, a density that is already batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from bpc.seeding import ChainGenerators

__all__ = ["Kernel", "LogDensity", "run", "state_from_tensors", "state_to_tensors", "value_and_grad"]

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
