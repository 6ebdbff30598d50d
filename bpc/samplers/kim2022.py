"""The two samplers of Kim et al. (2022) as their authors ran them, needed to stand beside their tables and for nothing else.

`kim2022_hmc` (Algorithm 2) differs from textbook HMC in two ways: the momentum is drawn with scale sigma_r while the dynamics
and the kinetic energy use unit mass, and the acceptance exponent is (U_old - U_new) + (K_new - K_old), in which the kinetic
sign is flipped. A standard normal target sampled so has variance 0.34. `asghmc` (Algorithm 3) has no acceptance test; the
coreset is augmented anew for every gradient. For an answer to believe, use `bpc.samplers.hmc`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.samplers.base import Kernel, LogDensity, value_and_grad
from bpc.samplers.hmc import leapfrog
from bpc.samplers.kim2022_presets import SamplingPreset, sampling_preset
from bpc.samplers.record import KIM2022_SAMPLERS, AugmentedDensity, Kim2022Sampler
from bpc.seeding import ChainGenerators

__all__ = [
    "ASGHMCConfig",
    "ASGHMCState",
    "Kim2022HMCConfig",
    "Kim2022HMCState",
    "Kim2022Info",
    "asghmc",
    "kim2022_hmc",
]


class Kim2022HMCState(NamedTuple):
    """Where k chains of `kim2022_hmc` stand."""

    params: Tensor  # (k, p)
    log_density: Tensor  # (k,) nats, -M U
    grad: Tensor  # (k, p), kept, so that a leapfrog step costs one gradient and not two


class ASGHMCState(NamedTuple):
    """Where k chains of `asghmc` stand."""

    params: Tensor  # (k, p)
    momentum: Tensor  # (k, p)


class Kim2022Info(NamedTuple):
    """What happened in one iteration of each chain."""

    accept_prob: Tensor  # (k,); 1 for A-SGHMC, which has no test
    accepted: Tensor  # (k,) bool


@dataclass(frozen=True, kw_only=True)
class Kim2022HMCConfig:
    """Table 3: `step_size` is epsilon, `leapfrog_steps` m, `momentum_scale` sigma_r."""

    step_size: float = 0.01
    leapfrog_steps: int = 5
    momentum_scale: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ASGHMCConfig:
    """Table 3: as above, with `friction` alpha (momentum decay) and `temperature` T (noise scale)."""

    step_size: float = 0.01
    leapfrog_steps: int = 5
    momentum_scale: float = 0.1
    friction: float = 0.1
    temperature: float = 0.01


def kim2022_hmc(log_density: LogDensity, config: Kim2022HMCConfig) -> Kernel[Kim2022HMCState, Kim2022Info]:
    """Algorithm 2 with the acceptance of the authors' code; `log_density` is minus the potential, -M U(theta)."""

    def init(params: Tensor, generators: ChainGenerators) -> Kim2022HMCState:
        return Kim2022HMCState(params.detach(), *value_and_grad(log_density, params))

    def step(state: Kim2022HMCState, generators: ChainGenerators) -> tuple[Kim2022HMCState, Kim2022Info]:
        momentum = config.momentum_scale * generators.normal(state.params.shape[1])
        params, end_momentum, value, grad = leapfrog(
            lambda theta: value_and_grad(log_density, theta),
            state.params,
            momentum,
            state.grad,
            config.step_size,
            config.leapfrog_steps,
        )
        kinetic_change = 0.5 * (end_momentum.double().square().sum(1) - momentum.double().square().sum(1))
        exponent = (value.double() - state.log_density.double()) + kinetic_change  # the authors' sign, see above
        accept_prob = torch.nan_to_num(torch.exp(exponent.clamp(max=0.0)), nan=0.0)
        accepted = generators.uniform().double() <= accept_prob
        keep = accepted.unsqueeze(1)
        new = Kim2022HMCState(
            torch.where(keep, params, state.params),
            torch.where(accepted, value, state.log_density),
            torch.where(keep, grad, state.grad),
        )
        return new, Kim2022Info(accept_prob, accepted)

    return Kernel(init, step)


def asghmc(
    log_density: Callable[[Tensor, ChainGenerators], Tensor], config: ASGHMCConfig
) -> Kernel[ASGHMCState, Kim2022Info]:
    """Algorithm 3: theta += eps r;  r = (1 - alpha) r + eps grad + N(0, 2 alpha T), m times per iteration.

    Args:
        log_density: (params (k, p), generators) -> (k,): random, because it augments the coreset anew at each call.
        config: settings.
    """
    noise_scale = (2.0 * config.friction * config.temperature) ** 0.5

    def init(params: Tensor, generators: ChainGenerators) -> ASGHMCState:
        return ASGHMCState(params.detach(), config.momentum_scale * generators.normal(params.shape[1]))

    def step(state: ASGHMCState, generators: ChainGenerators) -> tuple[ASGHMCState, Kim2022Info]:
        params, momentum = state
        for _ in range(config.leapfrog_steps):
            params = params + config.step_size * momentum
            _, grad = value_and_grad(lambda theta: log_density(theta, generators), params)
            noise = noise_scale * generators.normal(params.shape[1])
            momentum = (1.0 - config.friction) * momentum + config.step_size * grad + noise
        ones = torch.ones(len(params), device=params.device)
        return ASGHMCState(params, momentum), Kim2022Info(ones, ones.bool())

    return Kernel(init, step)


def _hmc(density: LogDensity, augmented: AugmentedDensity, settings: SamplingPreset) -> Kernel[Any, Any]:
    config = Kim2022HMCConfig(
        step_size=settings.step_size,
        leapfrog_steps=settings.leapfrog_steps,
        momentum_scale=settings.momentum_scale,
    )
    return kim2022_hmc(density, config)


def _asghmc(density: LogDensity, augmented: AugmentedDensity, settings: SamplingPreset) -> Kernel[Any, Any]:
    config = ASGHMCConfig(
        step_size=settings.step_size,
        leapfrog_steps=settings.leapfrog_steps,
        momentum_scale=settings.momentum_scale,
        friction=settings.friction,
        temperature=settings.temperature,
    )
    return asghmc(augmented, config)


KIM2022_SAMPLERS.register(
    Kim2022Sampler(name="hmc", label="HMC", kernel=_hmc, preset=functools.partial(sampling_preset, "hmc"))
)
KIM2022_SAMPLERS.register(
    Kim2022Sampler(
        name="asghmc",
        label="A-SGHMC",
        kernel=_asghmc,
        preset=functools.partial(sampling_preset, "asghmc"),
        augments=True,
    )
)
