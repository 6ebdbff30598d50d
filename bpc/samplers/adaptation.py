"""Step size by dual averaging (Hoffman & Gelman 2014, section 3.2.1), one step size a chain."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.samplers.base import Kernel, LogDensity
from bpc.samplers.hmc import HMCConfig, HMCInfo, HMCState, hmc
from bpc.seeding import ChainGenerators

__all__ = ["AdaptiveState", "DualAveraging", "adaptive_hmc", "dual_averaging_init", "dual_averaging_update"]

# the constants of the paper
GAMMA, T0, KAPPA = 0.05, 10.0, 0.75


class DualAveraging(NamedTuple):
    """State of the adaptation, each (k,) but `draws`."""

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


class AdaptiveState(NamedTuple):
    """An HMC state with the adaptation that drives it."""

    hmc: HMCState
    adaptation: DualAveraging
    draws: int  # done so far, warm-up included

    @property
    def params(self) -> Tensor:
        """(k, p)."""
        return self.hmc.params


def adaptive_hmc(
    log_density: LogDensity, config: HMCConfig, *, warmup: int, target: float = 0.8
) -> Kernel[AdaptiveState, HMCInfo]:
    """HMC whose step size is adapted for the first `warmup` draws and then fixed: draws made before are not samples.

    Args:
        log_density: the target.
        config: `step_size` is the first guess.
        warmup: draws with adaptation.
        target: acceptance probability aimed at (0.65 is optimal for HMC in high dimension, 0.8 is Stan's default).
    """
    base = hmc(log_density, config)

    def init(params: Tensor, generators: ChainGenerators) -> AdaptiveState:
        state = base.init(params, generators)
        return AdaptiveState(state, dual_averaging_init(state.step_size), 0)

    def step(state: AdaptiveState, generators: ChainGenerators) -> tuple[AdaptiveState, HMCInfo]:
        inner, info = base.step(state.hmc, generators)
        adaptation, draws = state.adaptation, state.draws + 1
        if draws <= warmup:
            adaptation = dual_averaging_update(adaptation, info.accept_prob, target)
            log_step = adaptation.log_average if draws == warmup else adaptation.log_step
            inner = inner._replace(step_size=log_step.exp().to(inner.step_size.dtype))
        return AdaptiveState(inner, adaptation, draws), info

    return Kernel(init, step)
