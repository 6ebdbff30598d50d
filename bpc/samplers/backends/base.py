"""What every backend takes and gives, and a shield for the global random state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bpc.errors import ConfigError, unknown_name

__all__ = ["BackendSettings", "ChainDraws", "Counted", "Density", "isolated_randomness"]

Density = Callable[[Tensor], Tensor]
"""(k, p) -> (k,) nats."""


@dataclass(frozen=True, kw_only=True)
class BackendSettings:
    """Settings that all backends understand.

    Attributes:
        sampler: ``hmc`` or ``nuts``.
        warmup, samples: draws of each chain, discarded and kept.
        leapfrog_steps: of HMC.
        step_size: first guess, with unit mass.
        target: acceptance probability that the step size is adapted to.
        max_tree_depth: of NUTS.
        adapt_mass: adapt a diagonal mass too (hamiltorch has no such thing and ignores it).
    """

    sampler: str = "hmc"
    warmup: int = 200
    samples: int = 200
    leapfrog_steps: int = 10
    step_size: float = 0.1
    target: float = 0.8
    max_tree_depth: int = 10
    adapt_mass: bool = True

    def __post_init__(self) -> None:
        if self.sampler not in ("hmc", "nuts"):
            raise unknown_name("sampler", self.sampler, ("hmc", "nuts"))
        if self.warmup < 1 or self.samples < 1 or self.leapfrog_steps < 1 or self.step_size <= 0:
            raise ConfigError(f"A backend needs warm-up, samples, leapfrog steps and a step size above 0; got {self}.")


class ChainDraws(NamedTuple):
    """Samples of k chains and what is known of them; everything but `params` in float64, all on the CPU."""

    params: Tensor  # (k, s, p)
    log_density: Tensor  # (k, s) nats
    accept_prob: Tensor  # (k, s) of each draw; of NUTS the mean over its trajectory
    diverged: Tensor  # (k, s) bool: an energy error above 1000 nats, or one that is not finite
    step_size: Tensor  # (k,), after warm-up
    gradients: Tensor  # (k,) gradient evaluations, warm-up included
    sampling_gradients: Tensor  # (k,) of those, after warm-up
    seconds: float  # of everything
    sampling_seconds: float  # of those, after warm-up, over all chains


class Counted:
    """A density that counts the points it was differentiated at: one for each chain and evaluation that needs a gradient."""

    def __init__(self, density: Density) -> None:
        self.density, self.gradients = density, 0

    def __call__(self, params: Tensor) -> Tensor:
        """(k, p) -> (k,)."""
        value = self.density(params)
        if params.requires_grad and torch.is_grad_enabled():
            # when the backward pass really comes: a value that nobody differentiates is not a gradient
            value.register_hook(self._count)
        return value

    def _count(self, grad: Tensor) -> None:
        self.gradients += 1


@contextmanager
def isolated_randomness() -> Iterator[None]:
    """Leave the global generators of torch, numpy and random as they were found, whatever happens inside."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
