"""The No-U-Turn Sampler (Hoffman & Gelman 2014) with multinomial weights (Betancourt 2017), k chains at once.

The tree of each doubling is walked leaf by leaf instead of by recursion (Phan, Pradhan & Jankowiak 2019, section 3): every leaf
is one leapfrog step of all chains together, and a U-turn inside the tree is found by comparing the new leaf with the first leaves
of the subtrees that it completes, of which at most one for each level is kept. A chain whose tree is finished waits for the
others.

All random numbers of a draw are drawn at its start, so a chain's path does not depend on how long the chains beside it go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.posterior import Posterior
from bpc.samplers.adaptation import WarmupConfig, warmed_up
from bpc.samplers.base import Kernel, LogDensity, value_and_grad
from bpc.samplers.hmc import DIVERGENCE_ENERGY, HMCState, draw_momentum, initial_state, kinetic_energy, leapfrog
from bpc.samplers.record import EXACT_SAMPLERS, ExactSampler, ExactSettings
from bpc.seeding import ChainGenerators

__all__ = ["NUTSConfig", "NUTSInfo", "nuts"]


@dataclass(frozen=True, kw_only=True)
class NUTSConfig:
    """Settings of `nuts`.

    Attributes:
        step_size: initial leapfrog step; the state carries its own, (k,), so that a warm-up can adapt it.
        max_tree_depth: a trajectory has at most 2^max_tree_depth - 1 leapfrog steps.
        momentum_scale: s; the mass starts at s^2.
        width: of each parameter, (p,) or one number: the mass starts at (s / width)^2.
    """

    step_size: float = 1e-2
    max_tree_depth: int = 10
    momentum_scale: float = 1.0
    width: Tensor | float = 1.0

    def __post_init__(self) -> None:
        if self.step_size <= 0 or not 1 <= self.max_tree_depth <= 20 or self.momentum_scale <= 0:
            raise ConfigError(f"NUTS needs a positive step size and momentum scale and a depth of 1 to 20; got {self}.")


class NUTSInfo(NamedTuple):
    """What happened in one draw of each chain."""

    accept_prob: Tensor  # (k,), mean over the trajectory of min(1, exp(H_start - H)): what the step size is adapted to
    accepted: Tensor  # (k,) bool: whether the chain moved
    energy_change: Tensor  # (k,), H(new state) - H(current), nats
    energy: Tensor  # (k,), H of the new state, nats
    diverged: Tensor  # (k,) bool: the trajectory ended at an energy error beyond `DIVERGENCE_ENERGY`
    leapfrogs: Tensor  # (k,) leapfrog steps of the chain's own tree
    depth: Tensor  # (k,) doublings


class _Point(NamedTuple):
    """A point in phase space."""

    params: Tensor  # (k, p)
    momentum: Tensor  # (k, p)
    grad: Tensor  # (k, p)


class _Draw(NamedTuple):
    """A candidate for the next state."""

    params: Tensor  # (k, p)
    log_density: Tensor  # (k,)
    grad: Tensor  # (k, p)
    energy: Tensor  # (k,) float64


def _choose(condition: Tensor, yes: NamedTuple, no: NamedTuple) -> list[Tensor]:
    """Field by field: `yes` for the chains where `condition` (k,) holds."""
    wide = condition.unsqueeze(1)
    return [torch.where(wide if a.ndim == 2 else condition, a, b) for a, b in zip(yes, no, strict=True)]


def _turns(inverse_mass: Tensor, first: Tensor, last: Tensor, total: Tensor) -> Tensor:
    """(k,) bool: a trajectory whose momenta sum to `total` no longer gets longer at one of its ends (Betancourt 2017, A.4.2).

    Half of each end's momentum is left out of the sum, which makes it the trapezoidal rule for the distance travelled.
    """
    distance = (total - 0.5 * (first + last)) * inverse_mass
    return ((first * distance).sum(1) <= 0) | ((last * distance).sum(1) <= 0)


def nuts(log_density: LogDensity, config: NUTSConfig) -> Kernel[HMCState, NUTSInfo]:
    """Trajectories are doubled, forwards or backwards in time at random, until they turn back on themselves."""

    def init(params: Tensor, generators: ChainGenerators) -> HMCState:
        return initial_state(log_density, params, config.step_size, config.momentum_scale, config.width)

    def step(state: HMCState, generators: ChainGenerators) -> tuple[HMCState, NUTSInfo]:
        levels, mass = config.max_tree_depth, state.inverse_mass
        momentum = draw_momentum(mass, generators)
        forward = generators.uniform(levels) < 0.5
        take_subtree, take_leaf = generators.uniform(levels).double(), generators.uniform(2**levels).double()

        start_energy = kinetic_energy(momentum, mass) - state.log_density.double()
        here = _Point(state.params, momentum, state.grad)
        left, right, total = here, here, momentum
        draw = _Draw(state.params, state.log_density, state.grad, start_energy)
        log_weight = torch.zeros_like(start_energy)  # of the tree; the start has weight exp(0)
        accept_sum = torch.zeros_like(start_energy)
        leapfrogs = torch.zeros_like(start_energy)
        depth = torch.zeros_like(start_energy)
        growing = torch.isfinite(start_energy)
        diverged = torch.zeros_like(growing)
        moved = torch.zeros_like(growing)

        for level in range(levels):
            if not bool(growing.any()):
                break
            way = forward[:, level]
            signed_step = torch.where(way, state.step_size, -state.step_size).unsqueeze(1)
            edge = _Point(*_choose(way, right, left))
            sub_total = torch.zeros_like(momentum)
            sub_weight = torch.full_like(log_weight, -torch.inf)
            sub_draw = draw
            alive = growing  # chains that still build this subtree
            firsts: list[tuple[Tensor, Tensor]] = []  # momentum of, and sum up to, the first leaf of each open subtree
            for leaf in range(2**level):
                params, end, value, grad = leapfrog(
                    lambda theta: value_and_grad(log_density, theta), *edge, signed_step, 1, mass
                )
                energy = kinetic_energy(end, mass) - value.double()
                change = torch.nan_to_num(energy - start_energy, nan=torch.inf)
                leapfrogs = leapfrogs + alive
                accept_sum = accept_sum + torch.where(alive, torch.exp(-change.clamp(min=0.0)), 0.0)
                diverges = alive & (change > DIVERGENCE_ENERGY)
                diverged, alive = diverged | diverges, alive & ~diverges
                edge = _Point(*_choose(alive, _Point(params, end, grad), edge))
                sub_total = torch.where(alive.unsqueeze(1), sub_total + end, sub_total)
                grown = torch.logaddexp(sub_weight, -change)
                take = alive & (take_leaf[:, 2**level - 1 + leaf].log() < -change - grown)
                sub_draw = _Draw(*_choose(take, _Draw(params, value, grad, energy), sub_draw))
                sub_weight = torch.where(alive, grown, sub_weight)
                if leaf % 2 == 0:
                    firsts.append((end, sub_total))
                else:  # this leaf closes as many subtrees as its number has trailing ones
                    closed = (~leaf & (leaf + 1)).bit_length() - 1
                    for first, before in firsts[len(firsts) - closed :]:
                        alive = alive & ~_turns(mass, first, end, sub_total - before + first)
                    # the largest of them stays open as the left half of its parent
                    del firsts[len(firsts) - closed + 1 :]
                if not bool(alive.any()):
                    break
            # a subtree that turned or diverged within is left out; otherwise its draw is preferred to the tree's
            take = alive & (take_subtree[:, level].log() < sub_weight - log_weight)
            draw, moved = _Draw(*_choose(take, sub_draw, draw)), moved | take
            log_weight = torch.where(alive, torch.logaddexp(log_weight, sub_weight), log_weight)
            total = torch.where(alive.unsqueeze(1), total + sub_total, total)
            right = _Point(*_choose(alive & way, edge, right))
            left = _Point(*_choose(alive & ~way, edge, left))
            depth = depth + alive
            growing = alive & ~_turns(mass, left.momentum, right.momentum, total)

        new = state._replace(params=draw.params, log_density=draw.log_density, grad=draw.grad)
        accept_prob = accept_sum / leapfrogs.clamp(min=1.0)
        info = NUTSInfo(accept_prob, moved, draw.energy - start_energy, draw.energy, diverged, leapfrogs, depth)
        return new, info

    return Kernel(init, step)


def _exact(posterior: Posterior, settings: ExactSettings) -> Kernel[Any, Any]:
    config = NUTSConfig(
        step_size=settings.step_size,
        max_tree_depth=settings.max_tree_depth,
        momentum_scale=1.0 / posterior.prior.scale,
        width=posterior.prior.width,
    )
    return warmed_up(nuts(posterior, config), posterior, WarmupConfig.of(settings))


EXACT_SAMPLERS.register(
    ExactSampler(
        name="nuts",
        label="NUTS",
        kernel=_exact,
        gradients=lambda settings: 2**settings.max_tree_depth,
        backends=("native", "pyro"),
    )
)
