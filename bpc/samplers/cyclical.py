r"""Cyclical SGHMC (Zhang, Li, Zhang, Chen & Wilson 2020): Langevin dynamics in cycles, each an exploration and then draws.

Within a cycle the step falls from h_0 to nearly 0: h(r) = h_0 cos(pi r / 2) at the fraction r of the cycle, whose square, the
learning rate of SGD with momentum, is the published (alpha_0 / 2) (cos(pi r) + 1). Up to r = `explore` nothing is kept: the
temperature falls geometrically from `hot` to the target's in the first two thirds of that, where long steps and heat carry the
chain over barriers, and the last third settles. From there on it is `bpc.samplers.sghmc` at the target's temperature, and
every draw counts. `hot` = 0 explores by SGD with momentum throughout, as published; with exact gradients that goes to the
nearest mode and no farther.

**Bias.** There is no Metropolis test. Within a mode the error is that of SGHMC, O(h^2) and, for noisy gradients, the measured
heat, and what a slow direction keeps of the exploration's heat when the draws begin: longer draws or cycles mend that. Between
modes it does not vanish with the step: a cycle ends in the mode where its exploration happened to cool, so modes weigh what the
cooling gives them, not their mass (a wide basin more, a narrow one less), and draws of one cycle are nearly always in one mode.
It finds modes; `pt` and `smc` weigh them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.posterior import Posterior
from bpc.samplers.base import Kernel
from bpc.samplers.record import EXACT_SAMPLERS, ExactSampler, ExactSettings
from bpc.samplers.sghmc import GradientEstimator, SGHMCConfig, exact_config, exact_gradient, measured_heat, move
from bpc.seeding import ChainGenerators

__all__ = ["CycleConfig", "CyclicalInfo", "CyclicalState", "cyclical_sghmc"]

COOLED = 2 / 3  # of the exploration, after which the temperature is the target's


@dataclass(frozen=True, kw_only=True)
class CycleConfig:
    """A cycle of `cyclical_sghmc`.

    Attributes:
        draws: kept of each cycle.
        explore: fraction of the cycle's moves, before the first draw; it is rounded up to whole draws' worth of moves.
        hot: temperature at the start of a cycle, in units of the target's; 1 is never hotter, 0 explores by SGD with momentum.
    """

    draws: int = 20
    explore: float = 0.5
    hot: float = 10.0

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 <= self.explore < 1 or self.hot < 0:
            raise ConfigError(
                f"A cycle needs 1 draw or more, a fraction in [0, 1) that explores and a temperature of 0 or more; got {self}."
            )

    @property
    def explored(self) -> int:
        """Moves before the first draw of a cycle, in units of a draw's."""
        return math.ceil(self.draws * self.explore / (1.0 - self.explore) - 1e-9)

    @property
    def blocks(self) -> int:
        """Of moves in a cycle, each a draw's worth."""
        return self.draws + self.explored

    def temperature(self, done: float) -> float:
        """In units of the target's, at a fraction of the cycle."""
        left = 1.0 - done * self.blocks / self.explored if done * self.blocks < self.explored else 0.0
        if self.hot == 0:
            return float(left == 0)
        return self.hot ** max(0.0, 1.0 - (1.0 - left) / COOLED)


class CyclicalState(NamedTuple):
    """Where k chains stand."""

    params: Tensor  # (k, p)
    momentum: Tensor  # (k, p)
    log_density: Tensor  # (k,) nats, exact where the estimator knows it
    grad: Tensor  # (k, p), the gradient that goes with it
    step_size: Tensor  # (k,), of the last move
    direction: Tensor  # (k, p), as of `SGHMCState`
    draws: int


class CyclicalInfo(NamedTuple):
    """What happened in one draw of each chain, and in the exploration before the first of a cycle."""

    accept_prob: Tensor  # (k,), 1: there is no test
    accepted: Tensor  # (k,) bool
    diverged: Tensor  # (k,) bool: the chain met numbers that are not finite
    leapfrogs: Tensor  # (k,) gradients, those at anchors among them
    heat: Tensor  # (k,), excess temperature measured in this draw; nan without noise


def cyclical_sghmc(
    gradient: GradientEstimator, config: SGHMCConfig, cycle: CycleConfig
) -> Kernel[CyclicalState, CyclicalInfo]:
    """SGHMC in cycles; see the module's text.

    Args:
        gradient: the target's.
        config: dynamics; its step size is h_0, a draw has its `steps`. Its warm-up and max_heat are not looked at: the schedule
            is the step's, and draws before the first that counts go through cycles as all others do.
        cycle: the schedule.
    """

    def block(state: CyclicalState, number: int, generators: ChainGenerators) -> CyclicalState:
        """A draw's worth of moves, block `number` of the cycle."""
        params, momentum, step_size = state.params, state.momentum, state.step_size
        for j in range(config.steps):
            done = (number + (j + 0.5) / config.steps) / cycle.blocks
            step_size = torch.full_like(step_size, config.step_size * math.cos(0.5 * math.pi * done))
            warm = replace(config, temperature=config.temperature * cycle.temperature(done))
            params, momentum = move(gradient, warm, params, momentum, state.params, state.grad, step_size, generators)
        value, grad = gradient.exact(params)
        return state._replace(params=params, momentum=momentum, log_density=value, grad=grad, step_size=step_size)

    def init(params: Tensor, generators: ChainGenerators) -> CyclicalState:
        momentum = config.momentum_unit / config.width * generators.normal(params.shape[1])
        value, grad = gradient.exact(params)
        steps = torch.full((len(params),), config.step_size, dtype=torch.float64, device=params.device)
        return CyclicalState(params.detach(), momentum.to(params.dtype), value, grad, steps, torch.zeros_like(grad), 0)

    def step(state: CyclicalState, generators: ChainGenerators) -> tuple[CyclicalState, CyclicalInfo]:
        number, blocks = state.draws % cycle.draws, 1
        if number == 0:
            blocks += cycle.explored
            for explored in range(cycle.explored):
                state = block(state, explored, generators)
        start, state = state, block(state, cycle.explored + number, generators)
        heat, direction = torch.full_like(state.step_size, torch.nan), state.direction
        if gradient.noisy:
            heat, direction = measured_heat(
                gradient, config, state.params, start.params, start.grad, direction, state.step_size, generators
            )
        ones = torch.ones_like(state.step_size)
        diverged = ~torch.isfinite(state.params).all(1)
        state = state._replace(direction=direction, draws=state.draws + 1)
        return state, CyclicalInfo(ones, ones.bool(), diverged, blocks * (config.steps + 1) * ones, heat)

    return Kernel(init, step)


def _exact(posterior: Posterior, settings: ExactSettings) -> Kernel[Any, Any]:
    config = exact_config(posterior, settings)
    return cyclical_sghmc(exact_gradient(posterior, settings), config, CycleConfig(draws=settings.cycle))


def _gradients(settings: ExactSettings) -> int:
    """Of a draw, on average, rounded up."""
    cycle = CycleConfig(draws=settings.cycle)
    return math.ceil((settings.leapfrog_steps + 1) * cycle.blocks / cycle.draws)


EXACT_SAMPLERS.register(ExactSampler(name="csghmc", label="Cyclical SGHMC", kernel=_exact, gradients=_gradients))
