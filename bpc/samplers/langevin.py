"""Overdamped Langevin dynamics, with or without a Metropolis test; k chains at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.samplers.base import Kernel, LogDensity, value_and_grad
from bpc.seeding import ChainGenerators

__all__ = [
    "LangevinConfig",
    "LangevinInfo",
    "LangevinState",
    "langevin",
]


@dataclass(frozen=True, kw_only=True)
class LangevinConfig:
    """Settings of `langevin`.

    Attributes:
        step_size: epsilon; drift epsilon^2 / 2 * gradient and noise epsilon, as one leapfrog step of HMC has.
        temperature: T; the target is density^(1 / T).
        adjusted: accept or reject each move by Metropolis-Hastings (MALA), which makes the target exact. Without it the
            variance is off by O(epsilon^2): on a Gaussian of variance v it is v / (1 - epsilon^2 / (4 v)) at T = 1.
        steps: moves per draw.
    """

    step_size: float = 1e-2
    temperature: float = 1.0
    adjusted: bool = False
    steps: int = 1

    def __post_init__(self) -> None:
        if self.step_size <= 0 or self.temperature < 0 or self.steps < 1 or (self.adjusted and self.temperature == 0):
            raise ConfigError(f"Langevin needs a positive step size, steps and (if adjusted) temperature; got {self}.")


class LangevinState(NamedTuple):
    """Where k chains stand."""

    params: Tensor  # (k, p)
    log_density: Tensor  # (k,) nats, of the density itself, whatever the temperature
    grad: Tensor  # (k, p)


class LangevinInfo(NamedTuple):
    """What happened in one draw of each chain."""

    accept_prob: Tensor  # (k,), mean over the draw's moves; 1 where they are not adjusted
    accepted: Tensor  # (k,) bool, any move
    diverged: Tensor  # (k,) bool: the chain met numbers that are not finite (unadjusted, it cannot come back)


def langevin(log_density: LogDensity, config: LangevinConfig) -> Kernel[LangevinState, LangevinInfo]:
    """Moves theta' = theta + epsilon^2 / 2 grad log density(theta) + epsilon sqrt(T) N(0, I) (Roberts & Tweedie 1996)."""
    drift, temperature = 0.5 * config.step_size**2, config.temperature
    noise_scale = config.step_size * temperature**0.5

    def init(params: Tensor, generators: ChainGenerators) -> LangevinState:
        return LangevinState(params.detach(), *value_and_grad(log_density, params))

    def step(state: LangevinState, generators: ChainGenerators) -> tuple[LangevinState, LangevinInfo]:
        accept_sum = torch.zeros(len(state.params), dtype=torch.float64, device=state.params.device)
        moved, bad = accept_sum.bool(), accept_sum.bool()
        for _ in range(config.steps):
            noise = generators.normal(state.params.shape[1]).to(state.params.dtype)
            params = state.params + drift * state.grad + noise_scale * noise
            value, grad = value_and_grad(log_density, params)
            new = LangevinState(params, value, grad)
            bad = bad | ~(torch.isfinite(value) & torch.isfinite(grad).all(1))
            if config.adjusted:
                # log q(theta | theta') - log q(theta' | theta), both normal with variance epsilon^2 T
                back = ((state.params - params - drift * grad) / noise_scale).square().sum(1, dtype=torch.float64)
                there = noise.square().sum(1, dtype=torch.float64)
                log_ratio = (value.double() - state.log_density.double()) / temperature - 0.5 * (back - there)
                accept = torch.nan_to_num(log_ratio, nan=-torch.inf).clamp(max=0.0).exp()
                keep = generators.uniform().double() < accept
                new = LangevinState(
                    torch.where(keep.unsqueeze(1), params, state.params),
                    torch.where(keep, value, state.log_density),
                    torch.where(keep.unsqueeze(1), grad, state.grad),
                )
            else:
                accept, keep = torch.ones_like(accept_sum), torch.ones_like(moved)
            accept_sum, moved, state = accept_sum + accept, moved | keep, new
        return state, LangevinInfo(accept_sum / config.steps, moved, bad)

    return Kernel(init, step)
