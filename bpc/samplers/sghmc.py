r"""Stochastic-gradient HMC (Chen, Fox & Guestrin 2014) that measures what the noise of its gradients does.

dtheta = r / s^2 dt,  dr = (gradient - gamma r) dt + noise. The step is split symmetrically (half drift, half kick, exact friction
and noise, half kick, half drift; Leimkuhler & Matthews 2013, "ABOBA"), with one gradient per step, taken in the middle. With
exact gradients the error is O(h^2).

**Heat.** A gradient with noise of covariance V acts as a second source of noise: a direction whose variance is v is sampled at
the temperature 1 + h v / (2 gamma s^2), and its posterior variance comes out too large by that factor. R-hat cannot see it, nor
can two runs that share it. For minibatches of B out of N, scaled by N / B, a direction of data precision K (in units of the
prior's) is heated by h (N / B) K / (2 gamma): 40 times too large a variance at N = 50,000, B = 128, K = 50, h = 0.02, gamma =
5. (For this splitting it is h^2 v / (4 s^2 T tanh(gamma h / 2)), to the same order.) Two things are done about it. The noise is
made small by control variates: the minibatch estimates how the gradient has changed since the start of the draw, where it is
known exactly (Johnson & Zhang 2013; Dubey et al. 2016; Baker et al. 2019). And the heat that is left is measured along the
noisiest direction that is found, and the step follows it in warm-up so that its mean is half of `max_heat`: the mean, since a
network's heat comes in rare bursts that are a hundred times its median. Heat can still grow after a warm-up that was too short;
its mean over the draws that count is what callers report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.posterior import ControlVariates, Posterior
from bpc.samplers.base import Kernel, LogDensity, value_and_grad
from bpc.samplers.record import EXACT_SAMPLERS, ExactSampler, ExactSettings
from bpc.seeding import ChainGenerators

__all__ = [
    "ExactGradient",
    "GradientEstimator",
    "SGHMCConfig",
    "SGHMCInfo",
    "SGHMCState",
    "exact_config",
    "exact_gradient",
    "measured_heat",
    "move",
    "sghmc",
]

SMOOTHING = 0.9  # of the direction that the heat is measured along
GAIN, LEAST = (
    0.02,
    0.2,
)  # of the step's adaptation: log h moves by GAIN (1 - heat / wanted heat), by a factor LEAST at most
ADAPT_AFTER = 5  # draws before the step follows the measured heat: the direction has to be found first


class GradientEstimator(Protocol):
    """Unbiased estimates of a log density's gradient, given what is known at an anchor."""

    noisy: bool  # whether two estimates at one place differ

    def exact(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Log density (k,) nats and gradient (k, p) at `params`, without noise where that is possible: the anchor."""
        ...

    def estimate(self, params: Tensor, anchor: Tensor, anchor_grad: Tensor, generators: ChainGenerators) -> Tensor:
        """A gradient (k, p) at `params`; `anchor_grad` is what `exact` gave at `anchor`."""
        ...


class ExactGradient:
    """The gradient of a density that is known: SGHMC is then Langevin dynamics, with an error of O(h^2)."""

    noisy = False

    def __init__(self, log_density: LogDensity) -> None:
        self.log_density = log_density

    def exact(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """See `GradientEstimator`."""
        return value_and_grad(self.log_density, params)

    def estimate(self, params: Tensor, anchor: Tensor, anchor_grad: Tensor, generators: ChainGenerators) -> Tensor:
        """See `GradientEstimator`."""
        return value_and_grad(self.log_density, params)[1]


@dataclass(frozen=True, kw_only=True)
class SGHMCConfig:
    """Settings of `sghmc`.

    Attributes:
        step_size: h, in units of time: theta moves by h times the velocity. With `max_heat`, the largest step.
        friction: gamma, per unit of time; the momentum's memory is 1 / gamma. 1 / h or more is overdamped.
        temperature: T; the target is density^(1 / T).
        momentum_scale: s; the mass is s^2.
        width: of each parameter, (p,) or one number: the mass is (s / width)^2, and heat is measured in units of the width.
        steps: moves per draw; the anchor of the gradients is renewed once a draw.
        warmup: draws in which the step size follows the measured heat.
        max_heat: excess of temperature, as a fraction, that the step is made small enough for; None leaves the step alone.
    """

    step_size: float = 1e-2
    friction: float = 1.0
    temperature: float = 1.0
    momentum_scale: float = 1.0
    width: Tensor | float = 1.0
    steps: int = 10
    warmup: int = 0
    max_heat: float | None = None

    def __post_init__(self) -> None:
        if min(self.step_size, self.friction, self.momentum_scale) <= 0 or self.temperature < 0 or self.steps < 1:
            raise ConfigError(f"SGHMC needs positive step size, friction, momentum scale and steps; got {self}.")
        if self.warmup < 0 or (self.max_heat is not None and self.max_heat <= 0):
            raise ConfigError(f"SGHMC needs a warm-up of 0 or more draws and a positive max_heat; got {self}.")

    @property
    def momentum_unit(self) -> float:
        """Standard deviation s sqrt(T) of the momentum, where the width is 1."""
        return self.momentum_scale * self.temperature**0.5


class SGHMCState(NamedTuple):
    """Where k chains stand."""

    params: Tensor  # (k, p)
    momentum: Tensor  # (k, p)
    log_density: Tensor  # (k,) nats, exact where the estimator knows it
    grad: Tensor  # (k, p), the gradient that goes with it: the anchor of the next draw
    step_size: Tensor  # (k,)
    direction: Tensor  # (k, p), unit length: the noisiest found so far; zero before the first draw
    log_average: Tensor  # (k,), mean of log step size over the second half of the warm-up so far: the step afterwards
    draws: int


class SGHMCInfo(NamedTuple):
    """What happened in one draw of each chain."""

    accept_prob: Tensor  # (k,), 1: there is no test
    accepted: Tensor  # (k,) bool
    diverged: Tensor  # (k,) bool: the chain met numbers that are not finite
    heat: Tensor  # (k,), excess temperature measured in this draw; its mean over draws is unbiased; nan without noise


def sghmc(gradient: GradientEstimator, config: SGHMCConfig) -> Kernel[SGHMCState, SGHMCInfo]:
    """Underdamped Langevin dynamics with noisy gradients; see the module's text.

    Args:
        gradient: the target's.
        config: settings.
    """
    second_half = max(config.warmup // 2, ADAPT_AFTER)

    def init(params: Tensor, generators: ChainGenerators) -> SGHMCState:
        momentum = config.momentum_unit / config.width * generators.normal(params.shape[1])
        value, grad = gradient.exact(params)
        steps = torch.full((len(params),), config.step_size, dtype=torch.float64, device=params.device)
        return SGHMCState(
            params.detach(),
            momentum.to(params.dtype),
            value,
            grad,
            steps,
            torch.zeros_like(grad),
            torch.zeros_like(steps),
            0,
        )

    def step(state: SGHMCState, generators: ChainGenerators) -> tuple[SGHMCState, SGHMCInfo]:
        params, momentum = state.params, state.momentum
        for _ in range(config.steps):
            params, momentum = move(
                gradient, config, params, momentum, state.params, state.grad, state.step_size, generators
            )
        draws = state.draws + 1
        direction, step_size, log_average = state.direction, state.step_size, state.log_average
        heat = torch.full_like(step_size, torch.nan)
        if gradient.noisy:
            heat, direction = measured_heat(
                gradient, config, params, state.params, state.grad, direction, step_size, generators
            )
            if config.max_heat is not None and draws <= config.warmup and state.draws >= ADAPT_AFTER:
                factor = torch.exp(GAIN * (1.0 - heat / (0.5 * config.max_heat))).clamp(min=LEAST)
                step_size = (step_size * factor).clamp(max=config.step_size)
                if draws > second_half:
                    log_average = log_average + (step_size.log() - log_average) / (draws - second_half)
                if draws == config.warmup:
                    step_size = log_average.exp()
        value, grad = gradient.exact(params)
        ones = torch.ones_like(state.step_size)
        diverged = ~torch.isfinite(params).all(1)
        new_state = SGHMCState(params, momentum, value, grad, step_size, direction, log_average, draws)
        return new_state, SGHMCInfo(ones, ones.bool(), diverged, heat)

    return Kernel(init, step)


def move(
    gradient: GradientEstimator,
    config: SGHMCConfig,
    params: Tensor,
    momentum: Tensor,
    anchor: Tensor,
    anchor_grad: Tensor,
    step_size: Tensor,
    generators: ChainGenerators,
) -> tuple[Tensor, Tensor]:
    """One step of the dynamics, with one gradient: parameters and momentum (k, p).

    Args:
        gradient: estimated in the middle of the step, from what is known at `anchor`.
        config: friction, temperature, mass.
        params, momentum, anchor, anchor_grad: (k, p).
        step_size: (k,) float64.
        generators: one normal draw (k, p) is taken.
    """
    dtype, h = params.dtype, step_size.unsqueeze(1)
    keep = torch.exp(-config.friction * h)
    noise_scale, keep = (config.momentum_unit / config.width * (1.0 - keep**2).sqrt()).to(dtype), keep.to(dtype)
    h, inverse_mass = h.to(dtype), 1.0 / config.momentum_scale**2 * config.width**2
    params = params + 0.5 * h * inverse_mass * momentum
    grad = gradient.estimate(params, anchor, anchor_grad, generators)
    noise = generators.normal(params.shape[1]).to(dtype)
    momentum = keep * (momentum + 0.5 * h * grad) + noise_scale * noise + 0.5 * h * grad
    return params + 0.5 * h * inverse_mass * momentum, momentum


def measured_heat(
    gradient: GradientEstimator,
    config: SGHMCConfig,
    params: Tensor,
    anchor: Tensor,
    anchor_grad: Tensor,
    direction: Tensor,
    step_size: Tensor,
    generators: ChainGenerators,
) -> tuple[Tensor, Tensor]:
    """Excess temperature (k,) along `direction` by two more estimates at `params`, and the direction that they make noisier.

    Args:
        gradient, config, generators: as of `move`.
        params: (k, p), where the chain is now, farthest from the anchor, so that the noise is at its largest.
        anchor, anchor_grad: (k, p).
        direction: (k, p), the noisiest found so far.
        step_size: (k,) float64.
    """
    pair = [gradient.estimate(params, anchor, anchor_grad, generators).double() for _ in range(2)]
    gap = (pair[0] - pair[1]) / 2**0.5 * config.width  # covariance V, where the mass is s^2
    along = (gap * direction.double()).sum(1)
    heat = (
        step_size.square()
        * along.square()
        / (4.0 * torch.tanh(0.5 * config.friction * step_size) * config.momentum_unit**2)
    )
    return heat, _noisiest(direction, gap, along)


def _noisiest(direction: Tensor, gap: Tensor, along: Tensor) -> Tensor:
    """One step of a streaming power iteration (Oja 1982) on the covariance of `gap`, (k, p) unit vectors."""
    size = gap.square().sum(1, keepdim=True).clamp(min=1e-300)
    pulled = (along.unsqueeze(1) / size) * gap  # the projection of the direction on this gap
    first = direction.square().sum(1, keepdim=True) == 0
    new = torch.where(first, gap / size.sqrt(), SMOOTHING * direction.double() + (1.0 - SMOOTHING) * pulled)
    return (new / new.norm(dim=1, keepdim=True).clamp(min=1e-300)).to(direction.dtype)


def exact_gradient(posterior: Posterior, settings: ExactSettings) -> GradientEstimator:
    """By all points, or by minibatches where `settings.batch` makes them smaller than that."""
    noisy = 0 < settings.batch < len(posterior.labels)
    return ControlVariates(posterior, settings.batch) if noisy else ExactGradient(posterior)


def exact_config(posterior: Posterior, settings: ExactSettings) -> SGHMCConfig:
    """The settings of the exact protocols as the dynamics take them: a fixed step, the prior's mass."""
    return SGHMCConfig(
        step_size=settings.step_size,
        friction=settings.friction,
        momentum_scale=1.0 / posterior.prior.scale,
        width=posterior.prior.width,
        steps=settings.leapfrog_steps,
    )


def _exact(posterior: Posterior, settings: ExactSettings) -> Kernel[Any, Any]:
    fixed = exact_config(posterior, settings)
    adapted = replace(fixed, warmup=settings.warmup, max_heat=settings.max_heat or None)
    return sghmc(exact_gradient(posterior, settings), adapted)


EXACT_SAMPLERS.register(
    ExactSampler(
        name="sghmc",
        label="SGHMC",
        kernel=_exact,
        gradients=lambda settings: settings.leapfrog_steps,
        defaults={"step_size": 0.004},  # nothing adapts it: at 0.02 a chain on ten digits of weight 130 went hot
    )
)
