"""Warm-up for HMC and NUTS: step size by dual averaging, diagonal mass by windows of growing length.

Step size: Hoffman & Gelman (2014), Algorithm 4 for a first guess and section 3.2.1 for the adaptation. Mass: the variance of each
parameter over a window, in Stan's schedule (fast, slow windows that double, fast). Chains share nothing but a batch, unless
`WarmupConfig.pooled` gives those of one posterior one step size: k chains together are k chains (or groups of them) alone up to
the rounding of the density's sums, see `bpc.posterior.Posterior`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.samplers.base import Kernel, LogDensity, value_and_grad
from bpc.samplers.hmc import HMCState, draw_momentum, kinetic_energy, leapfrog
from bpc.samplers.record import ExactSettings
from bpc.seeding import ChainGenerators

__all__ = [
    "AdaptiveState",
    "DualAveraging",
    "Variance",
    "WarmupConfig",
    "dual_averaging_init",
    "dual_averaging_update",
    "slow_windows",
    "warmed_up",
]

# the constants of Hoffman & Gelman (2014)
GAMMA, T0, KAPPA = 0.05, 10.0, 0.75
MOST_DOUBLINGS = 60  # of the first guess: 2^60 either way, after which the density has no scale at all


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    """What is adapted, and for how long.

    Attributes:
        warmup: draws with adaptation; they are not samples.
        target: acceptance probability aimed at (0.8 is Stan's default).
        adapt_mass: the diagonal mass as well as the step size.
        pooled: chains side by side in the batch that share a step size: it follows their mean acceptance, and starts at the
            geometric mean of their first guesses. What is fixed after warm-up is the same for all of them.
        find_step: double or halve the first step size until an acceptance of 1/2 is crossed; otherwise it is taken as given.
    """

    warmup: int
    target: float = 0.8
    adapt_mass: bool = True
    pooled: int = 1
    find_step: bool = True

    def __post_init__(self) -> None:
        if self.warmup < 0 or not 0 < self.target < 1 or self.pooled < 1:
            raise ConfigError(f"Warm-up needs a number of draws of 0 or more and a target in (0, 1); got {self}.")

    @classmethod
    def of(cls, settings: ExactSettings) -> WarmupConfig:
        """As the exact protocols set it."""
        return cls(
            warmup=settings.warmup,
            target=settings.target,
            adapt_mass=settings.mass == "diagonal",
            pooled=settings.chains if settings.pool_step else 1,
        )


class DualAveraging(NamedTuple):
    """State of the step size's adaptation, each (k,) but `draws`."""

    mu: Tensor  # log(10 * first step size): where the iterates are pulled to
    error: Tensor  # running mean of target - acceptance
    log_step: Tensor  # log of the step size to try next
    log_average: Tensor  # log of the averaged step size, for use after warm-up
    draws: int  # taken in so far


def dual_averaging_init(step_size: Tensor) -> DualAveraging:
    """Start from a first guess (k,)."""
    zero = torch.zeros_like(step_size, dtype=torch.float64)
    start = step_size.double().log()
    return DualAveraging(math.log(10.0) + start, zero, start, zero, 0)


def dual_averaging_update(state: DualAveraging, accept_prob: Tensor, target: float) -> DualAveraging:
    """Take in the acceptance probabilities (k,) of one draw made with ``exp(state.log_step)``."""
    t = state.draws + 1
    rate = 1.0 / (t + T0)
    error = (1.0 - rate) * state.error + rate * (target - accept_prob.double())
    log_step = state.mu - math.sqrt(t) / GAMMA * error
    forget = t**-KAPPA
    log_average = forget * log_step + (1.0 - forget) * state.log_average
    return DualAveraging(state.mu, error, log_step, log_average, t)


class Variance(NamedTuple):
    """Running mean and variance of each parameter of each chain (Welford 1962)."""

    mean: Tensor  # (k, p)
    squares: Tensor  # (k, p), sum of squared deviations
    draws: int

    @classmethod
    def empty(cls, params: Tensor) -> Variance:
        """Nothing seen yet."""
        return cls(torch.zeros_like(params), torch.zeros_like(params), 0)

    def update(self, params: Tensor) -> Variance:
        """Take in one draw, (k, p)."""
        gap = params - self.mean
        mean = self.mean + gap / (self.draws + 1)
        return Variance(mean, self.squares + gap * (params - mean), self.draws + 1)

    def inverse_mass(self) -> Tensor:
        """(k, p): the variance, shrunk towards a thousandth of its mean over the parameters.

        The weights are Stan's, n / (n + 5); its target, 1e-3, supposes parameters of order 1, this one has their scale.
        """
        n = self.draws
        variance = self.squares / max(n - 1, 1)
        return (n * variance + 5e-3 * variance.mean(1, keepdim=True)) / (n + 5)


def slow_windows(warmup: int) -> list[tuple[int, int]]:
    """Windows [first, last) of draws whose variance becomes the mass: Stan's schedule of 75, 25 * 2^i ..., 50.

    A short warm-up gives 15 % and 10 % to its fast ends; below 20 draws there is no slow window.
    """
    if warmup < 20:
        return []
    begin, size, end = 75, 25, 50
    if begin + size + end > warmup:
        begin, end = int(0.15 * warmup), int(0.1 * warmup)
        size = warmup - begin - end
    windows, last = [], warmup - end
    while begin < last:
        # a window that would leave less than its double behind takes the rest
        stop = begin + size if begin + 3 * size <= last else last
        windows.append((begin, stop))
        begin, size = stop, 2 * size
    return windows


class AdaptiveState(NamedTuple):
    """A chain's state with the adaptation that drives it."""

    chain: HMCState
    step: DualAveraging
    variance: Variance
    draws: int  # done so far, warm-up included

    @property
    def params(self) -> Tensor:
        """(k, p)."""
        return self.chain.params

    @property
    def log_density(self) -> Tensor:
        """(k,) nats."""
        return self.chain.log_density

    @property
    def step_size(self) -> Tensor:
        """(k,)."""
        return self.chain.step_size


def first_step_size(log_density: LogDensity, state: HMCState, generators: ChainGenerators) -> Tensor:
    """(k,): doubled or halved from the state's until one leapfrog step's acceptance crosses 1/2 (Algorithm 4)."""
    momentum = draw_momentum(state.inverse_mass, generators)
    energy = kinetic_energy(momentum, state.inverse_mass) - state.log_density.double()
    step_size = state.step_size.clone()
    direction = torch.zeros_like(step_size)
    searching = torch.ones_like(step_size, dtype=torch.bool)
    for _ in range(MOST_DOUBLINGS):
        _, end, value, _ = leapfrog(
            lambda theta: value_and_grad(log_density, theta),
            state.params,
            momentum,
            state.grad,
            step_size.unsqueeze(1),
            1,
            state.inverse_mass,
        )
        log_accept = energy - (kinetic_energy(end, state.inverse_mass) - value.double())
        good = torch.nan_to_num(log_accept, nan=-torch.inf) > math.log(0.5)
        wanted = torch.where(good, 1.0, -1.0).to(step_size.dtype)
        direction = torch.where(direction == 0, wanted, direction)
        searching = searching & (wanted == direction)
        if not bool(searching.any()):
            break
        step_size = torch.where(searching, step_size * torch.exp2(direction), step_size)
    return step_size


def warmed_up(base: Kernel[HMCState, Any], log_density: LogDensity, config: WarmupConfig) -> Kernel[AdaptiveState, Any]:
    """Let `base` (HMC or NUTS) adapt its step size and mass for the first `config.warmup` draws, then fix them.

    Draws made before are not samples: the chain is not Markov while it adapts.

    Args:
        base: a kernel over `HMCState`, whose step size and inverse mass this sets.
        log_density: the one that `base` samples.
        config: what is adapted.
    """
    windows = slow_windows(config.warmup) if config.adapt_mass else []
    ends = {last for _, last in windows}
    slow = range(windows[0][0], windows[-1][1]) if windows else range(0)

    def pool(values: Tensor) -> Tensor:
        """(k,): each group's mean."""
        if config.pooled == 1:
            return values
        return values.view(-1, config.pooled).mean(1).repeat_interleave(config.pooled)

    def with_first_step(chain: HMCState, generators: ChainGenerators) -> HMCState:
        if not config.find_step or config.warmup == 0:
            return chain
        step_size = first_step_size(log_density, chain, generators)
        return chain._replace(step_size=pool(step_size.log()).exp() if config.pooled > 1 else step_size)

    def init(params: Tensor, generators: ChainGenerators) -> AdaptiveState:
        chain = with_first_step(base.init(params, generators), generators)
        return AdaptiveState(chain, dual_averaging_init(chain.step_size), Variance.empty(chain.params), 0)

    def step(state: AdaptiveState, generators: ChainGenerators) -> tuple[AdaptiveState, Any]:
        chain, info = base.step(state.chain, generators)
        done = state.draws + 1
        if state.draws >= config.warmup:
            return state._replace(chain=chain, draws=done), info
        adaptation, variance = dual_averaging_update(state.step, pool(info.accept_prob), config.target), state.variance
        chain = chain._replace(step_size=adaptation.log_step.exp().to(chain.step_size.dtype))
        if state.draws in slow:
            variance = variance.update(chain.params)
        if done in ends:
            chain = with_first_step(chain._replace(inverse_mass=variance.inverse_mass()), generators)
            adaptation, variance = dual_averaging_init(chain.step_size), Variance.empty(chain.params)
        elif done == config.warmup:
            chain = chain._replace(step_size=adaptation.log_average.exp().to(chain.step_size.dtype))
        return AdaptiveState(chain, adaptation, variance, done), info

    return Kernel(init, step)
