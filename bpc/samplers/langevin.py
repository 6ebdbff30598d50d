"""Langevin dynamics: overdamped (`langevin`), and underdamped with gradients that may be noisy (`sghmc`); k chains at once."""

from __future__ import annotations

from collections.abc import Callable
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
    "SGHMCConfig",
    "SGHMCInfo",
    "SGHMCState",
    "StochasticLogDensity",
    "langevin",
    "sghmc",
]

StochasticLogDensity = Callable[[Tensor, ChainGenerators], Tensor]
"""(params (k, p), generators) -> (k,) nats whose gradient is unbiased: a minibatch, an augmented coreset."""


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


@dataclass(frozen=True, kw_only=True)
class SGHMCConfig:
    """Settings of `sghmc`.

    Attributes:
        step_size: h, in units of time: theta moves by h times the velocity.
        friction: gamma, per unit of time; the momentum's memory is 1 / gamma. 1 / h or more is overdamped.
        temperature: T; the target is density^(1 / T).
        momentum_scale: s; the mass is s^2.
        steps: moves per draw.
    """

    step_size: float = 1e-2
    friction: float = 1.0
    temperature: float = 1.0
    momentum_scale: float = 1.0
    steps: int = 10

    def __post_init__(self) -> None:
        if min(self.step_size, self.friction, self.momentum_scale) <= 0 or self.temperature < 0 or self.steps < 1:
            raise ConfigError(f"SGHMC needs positive step size, friction, momentum scale and steps; got {self}.")


class SGHMCState(NamedTuple):
    """Where k chains stand."""

    params: Tensor  # (k, p)
    momentum: Tensor  # (k, p)
    log_density: Tensor  # (k,) nats, the (noisy) value at the last gradient


class SGHMCInfo(NamedTuple):
    """What happened in one draw of each chain."""

    accept_prob: Tensor  # (k,), 1: there is no test
    accepted: Tensor  # (k,) bool
    diverged: Tensor  # (k,) bool: the chain met numbers that are not finite


def sghmc(log_density: StochasticLogDensity, config: SGHMCConfig) -> Kernel[SGHMCState, SGHMCInfo]:
    """Stochastic-gradient HMC (Chen, Fox & Guestrin 2014): dtheta = r / s^2 dt, dr = (grad - gamma r) dt + noise.

    The step is split symmetrically (half drift, half kick, exact friction and noise, half kick, half drift; Leimkuhler &
    Matthews 2013, "ABOBA"), with one gradient a step, taken in the middle. With exact gradients the error is O(h^2); a noisy
    gradient of variance V adds about h V / (2 gamma) of heat, which a smaller h removes.

    Args:
        log_density: deterministic densities fit as ``lambda params, generators: density(params)``.
        config: settings.
    """
    h, inverse_mass = config.step_size, 1.0 / config.momentum_scale**2
    keep = torch.tensor(-config.friction * h, dtype=torch.float64).exp().item()
    noise_scale = config.momentum_scale * (config.temperature * (1.0 - keep**2)) ** 0.5

    def init(params: Tensor, generators: ChainGenerators) -> SGHMCState:
        momentum = config.momentum_scale * config.temperature**0.5 * generators.normal(params.shape[1])
        unknown = torch.full((len(params),), torch.nan, dtype=params.dtype, device=params.device)
        return SGHMCState(params.detach(), momentum.to(params.dtype), unknown)

    def step(state: SGHMCState, generators: ChainGenerators) -> tuple[SGHMCState, SGHMCInfo]:
        params, momentum, value = state
        for _ in range(config.steps):
            params = params + 0.5 * h * inverse_mass * momentum
            value, grad = value_and_grad(lambda theta: log_density(theta, generators), params)
            noise = generators.normal(params.shape[1]).to(params.dtype)
            momentum = keep * (momentum + 0.5 * h * grad) + noise_scale * noise + 0.5 * h * grad
            params = params + 0.5 * h * inverse_mass * momentum
        ones = torch.ones(len(params), dtype=torch.float64, device=params.device)
        diverged = ~torch.isfinite(params).all(1)
        return SGHMCState(params, momentum, value), SGHMCInfo(ones, ones.bool(), diverged)

    return Kernel(init, step)
