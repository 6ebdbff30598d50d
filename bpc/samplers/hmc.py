"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2010, section 5.3), k chains at once.

H(theta, r) = -log density(theta) + r^T A r / 2,   r ~ N(0, A^-1),   accept with min(1, exp(H_old - H_new)),
where A is the diagonal inverse mass of each chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.posterior import Posterior
from bpc.samplers.base import Kernel, LogDensity, value_and_grad
from bpc.samplers.record import EXACT_SAMPLERS, ExactSampler, ExactSettings
from bpc.seeding import ChainGenerators

__all__ = [
    "DIVERGENCE_ENERGY",
    "HMCConfig",
    "HMCInfo",
    "HMCState",
    "draw_momentum",
    "hmc",
    "initial_state",
    "kinetic_energy",
    "leapfrog",
]

# an energy error beyond this many nats is a divergence (the threshold of Stan and Pyro)
DIVERGENCE_ENERGY = 1000.0


@dataclass(frozen=True, kw_only=True)
class HMCConfig:
    """Settings of `hmc`.

    Attributes:
        step_size: initial leapfrog step; the state carries its own, (k,), so that a warm-up can adapt it.
        leapfrog_steps: per draw.
        momentum_scale: s; the mass starts at s^2: momentum ~ N(0, s^2), and the kinetic energy divides by s^2.
        width: of each parameter, (p,) or one number: the mass starts at (s / width)^2.
        jitter: the step size of each draw is multiplied by 1 + jitter * U(-1, 1), so that no orbit is periodic.
    """

    step_size: float = 1e-2
    leapfrog_steps: int = 10
    momentum_scale: float = 1.0
    width: Tensor | float = 1.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.step_size <= 0 or self.leapfrog_steps < 1 or self.momentum_scale <= 0 or not 0 <= self.jitter < 1:
            raise ConfigError(f"HMC needs positive step size, leapfrog steps and momentum scale; got {self}.")


class HMCState(NamedTuple):
    """Where k chains stand."""

    params: Tensor  # (k, p)
    log_density: Tensor  # (k,) nats
    grad: Tensor  # (k, p), kept, so that a leapfrog step costs one gradient and not two
    step_size: Tensor  # (k,)
    inverse_mass: Tensor  # (k, p), diagonal; a warm-up sets it


class HMCInfo(NamedTuple):
    """What happened in one draw of each chain."""

    accept_prob: Tensor  # (k,)
    accepted: Tensor  # (k,) bool
    energy_change: Tensor  # (k,), H(proposal) - H(current), nats
    energy: Tensor  # (k,), H of the state kept, nats
    diverged: Tensor  # (k,) bool


def leapfrog(
    density_and_grad: Callable[[Tensor], tuple[Tensor, Tensor]],
    params: Tensor,
    momentum: Tensor,
    grad: Tensor,
    step_size: Tensor | float,
    steps: int,
    inverse_mass: Tensor | float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`steps` leapfrog steps: half kick, drift, half kick, with one gradient per step.

    Args:
        density_and_grad: (k, p) -> log density (k,), gradient (k, p).
        params, momentum, grad: (k, p); `grad` is that of the log density at `params`.
        step_size: a number, or (k, 1).
        steps: how many.
        inverse_mass: a number, or broadcastable to (k, p); velocity = momentum * inverse_mass.

    Returns:
        params, momentum, log density, gradient at the end.
    """
    momentum = momentum + 0.5 * step_size * grad
    for i in range(steps):
        params = params + step_size * inverse_mass * momentum
        log_density, grad = density_and_grad(params)
        momentum = momentum + (step_size if i < steps - 1 else 0.5 * step_size) * grad
    return params, momentum, log_density, grad


def draw_momentum(inverse_mass: Tensor, generators: ChainGenerators) -> Tensor:
    """(k, p): momentum ~ N(0, mass), the distribution that `kinetic_energy` describes."""
    return generators.normal(inverse_mass.shape[1]).to(inverse_mass.dtype) * inverse_mass.rsqrt()


def kinetic_energy(momentum: Tensor, inverse_mass: Tensor) -> Tensor:
    """(k,) nats in double precision: the difference of two large sums decides."""
    return 0.5 * (momentum.square() * inverse_mass).sum(1, dtype=torch.float64)


def initial_state(
    log_density: LogDensity, params: Tensor, step_size: float, momentum_scale: float, width: Tensor | float
) -> HMCState:
    """Where HMC and NUTS start."""
    value, grad = value_and_grad(log_density, params)
    return HMCState(
        params.detach(),
        value,
        grad,
        torch.full((len(params),), step_size, device=params.device, dtype=params.dtype),
        torch.full_like(grad, 1.0 / momentum_scale**2) * width**2,
    )


def hmc(log_density: LogDensity, config: HMCConfig) -> Kernel[HMCState, HMCInfo]:
    """Textbook HMC: the momentum is drawn from the distribution that the kinetic energy describes."""

    def init(params: Tensor, generators: ChainGenerators) -> HMCState:
        return initial_state(log_density, params, config.step_size, config.momentum_scale, config.width)

    def step(state: HMCState, generators: ChainGenerators) -> tuple[HMCState, HMCInfo]:
        dtype = state.params.dtype
        momentum = draw_momentum(state.inverse_mass, generators)
        step_size = state.step_size
        if config.jitter:
            step_size = step_size * (1.0 + config.jitter * (2.0 * generators.uniform().to(dtype) - 1.0))
        params, end_momentum, value, grad = leapfrog(
            lambda theta: value_and_grad(log_density, theta),
            state.params,
            momentum,
            state.grad,
            step_size.unsqueeze(1),
            config.leapfrog_steps,
            state.inverse_mass,
        )
        energy = kinetic_energy(momentum, state.inverse_mass) - state.log_density.double()
        end_energy = kinetic_energy(end_momentum, state.inverse_mass) - value.double()
        change = torch.nan_to_num(end_energy - energy, nan=torch.inf)
        accept_prob = torch.exp(-change.clamp(min=0.0))
        accepted = generators.uniform().double() < accept_prob
        keep = accepted.unsqueeze(1)
        new = state._replace(
            params=torch.where(keep, params, state.params),
            log_density=torch.where(accepted, value, state.log_density),
            grad=torch.where(keep, grad, state.grad),
        )
        kept_energy = torch.where(accepted, end_energy, energy)
        return new, HMCInfo(accept_prob, accepted, change, kept_energy, change > DIVERGENCE_ENERGY)

    return Kernel(init, step)


def _exact(posterior: Posterior, settings: ExactSettings) -> Kernel[Any, Any]:
    from bpc.samplers.adaptation import WarmupConfig, warmed_up  # it is built on this file

    config = HMCConfig(
        step_size=settings.step_size,
        leapfrog_steps=settings.leapfrog_steps,
        momentum_scale=1.0 / posterior.prior.scale,
        width=posterior.prior.width,
        jitter=0.1,
    )
    return warmed_up(hmc(posterior, config), posterior, WarmupConfig.of(settings))


EXACT_SAMPLERS.register(
    ExactSampler(
        name="hmc",
        label="HMC",
        kernel=_exact,
        gradients=lambda settings: settings.leapfrog_steps,
        backends=("native", "pyro", "hamiltorch"),
    )
)
