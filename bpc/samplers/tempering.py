r"""Parallel tempering (Geyer 1991; Hukushima & Nemoto 1996): replicas of every chain at likelihood^beta * prior, which swap.

beta runs over `levels` values from 0, the prior, to 1, the target. One draw is a round of swaps between neighbours, then an
independent draw from the prior at beta = 0 and a draw of HMC, whose mass is the prior's precision, at every other level, all
replicas of all chains in one batch. What a chain at beta = 1 cannot cross it walks around: down to the prior and up again.

**Swaps** go by the deterministic even-odd scheme: pairs (0, 1), (2, 3) ... at even draws, (1, 2), (3, 4) ... at odd ones. It
is not reversible, and with enough levels a replica's round trip takes of the order of `levels` draws instead of their square
(Okabe et al. 2001; Syed, Bouchard-Côté, Deligiannidis & Doucet 2022).

**Temperatures** are tuned in warm-up to equal rates of swapping (Syed et al. 2022). The barrier up to beta is the sum of the
mean rejections of the pairs below it; the levels are put where it is 0, 1 / (levels - 1) ... of the whole, after 1 / 2^j of
the warm-up for every j that leaves 8 draws. The whole, the *communication barrier*, does not depend on the levels when there
are enough of them: about twice as many as it is make the best use of gradients; with fewer than it hardly any swap is made.

**Evidence** is the stepping-stone estimate (Xie et al. 2011): log Z = sum_i log mean exp((beta_{i+1} - beta_i) log likelihood)
over the draws of level i, the log of the prior's mean of the (weighted) likelihood.

Cost: (levels - 1) * leapfrog_steps + 1 gradients per draw of a chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.posterior import Posterior
from bpc.samplers.adaptation import DualAveraging, dual_averaging_init, dual_averaging_update, first_step_size
from bpc.samplers.base import Kernel
from bpc.samplers.hmc import HMCConfig, HMCInfo
from bpc.samplers.record import EXACT_SAMPLERS, ExactSampler, ExactSettings
from bpc.samplers.tempered import Replicas, RowGenerators, TemperedDensity, move, replicas_at, tempered_state
from bpc.seeding import ChainGenerators

__all__ = ["TemperingConfig", "TemperingInfo", "TemperingState", "parallel_tempering"]

POWER = 5  # levels start at (i / (levels - 1))^5 (Friel & Pettitt 2008): most of the change is near the prior
SHORTEST_ROUND = 8  # draws of warm-up before the levels are moved for the first time
LEAST_REJECTION = 1e-4  # of a pair, so that the barrier grows with beta everywhere


@dataclass(frozen=True, kw_only=True)
class TemperingConfig:
    """Settings of `parallel_tempering`.

    Attributes:
        levels: values of beta, the prior's and the target's among them.
        step_size: first guess, in units of the prior's width; every level of every chain adapts its own.
        leapfrog_steps: per draw of a level.
        jitter: as of `HMCConfig`.
        warmup: draws in which levels and step sizes are adapted; they are not samples.
        target: acceptance probability that step sizes are adapted to.
    """

    levels: int = 20
    step_size: float = 1e-2
    leapfrog_steps: int = 10
    jitter: float = 0.1
    warmup: int = 0
    target: float = 0.8

    def __post_init__(self) -> None:
        if self.levels < 2 or self.warmup < 0 or not 0 < self.target < 1:
            raise ConfigError(
                f"Parallel tempering needs 2 levels or more (the prior and the target), a warm-up of 0 draws or more and a "
                f"target in (0, 1); got {self}."
            )
        self.hmc()  # checks the rest

    def hmc(self) -> HMCConfig:
        """Of the moves."""
        return HMCConfig(step_size=self.step_size, leapfrog_steps=self.leapfrog_steps, jitter=self.jitter)


class TemperingState(NamedTuple):
    """Where the replicas of k chains stand; v levels."""

    replicas: Replicas  # of k * v rows, the levels of a chain side by side in ascending beta
    beta: Tensor  # (k, v) float64
    log_density: Tensor  # (k,) nats, of the target
    step_sizes: Tensor  # (k, v - 1), of the levels above the prior
    adaptation: DualAveraging  # of those
    rejection: Tensor  # (k, v - 1) float64, of neighbours' swaps, summed over `counted` draws
    log_sums: Tensor  # (k, v - 1) float64, log of the stepping stones' sums over `counted` draws
    counted: int  # draws since the levels were last moved, or since the end of warm-up
    draws: int  # done so far, warm-up included

    @property
    def params(self) -> Tensor:
        """(k, p), of the target."""
        return self.replicas.params.unflatten(0, self.beta.shape)[:, -1]

    @property
    def step_size(self) -> Tensor:
        """(k,), of the target."""
        return self.step_sizes[:, -1]


class TemperingInfo(NamedTuple):
    """What happened in one draw of each chain. Acceptance, energy and divergence are the target's.

    The last three are estimates from all draws since the end of warm-up: those of the last draw are the run's.
    """

    accept_prob: Tensor  # (k,)
    accepted: Tensor  # (k,) bool
    energy_change: Tensor  # (k,) nats
    energy: Tensor  # (k,) nats
    diverged: Tensor  # (k,) bool
    leapfrogs: Tensor  # (k,) gradients, of all levels
    swap_prob: Tensor  # (k, v - 1), of each pair of neighbours, whether it was its turn or not
    swap_rate_min: Tensor  # (k,) mean of `swap_prob`, of the pair that swaps least
    barrier: Tensor  # (k,) communication barrier: the sum of the pairs' mean rejections
    log_evidence: Tensor  # (k,) nats


def parallel_tempering(posterior: Posterior, config: TemperingConfig) -> Kernel[TemperingState, TemperingInfo]:
    """Replicas of k chains between prior and posterior; the state's `params` are those at beta = 1."""
    levels, moves = config.levels, config.hmc()
    above = posterior.repeated(levels - 1)
    rounds = tuning_ends(config.warmup)

    def init(params: Tensor, generators: ChainGenerators) -> TemperingState:
        k, p = params.shape
        start = posterior.draw_prior(generators, levels, p).to(params.dtype)
        start[:, -1] = params
        replicas = replicas_at(posterior.repeated(levels), start.flatten(0, 1))
        grid = torch.linspace(0.0, 1.0, levels, dtype=torch.float64, device=params.device) ** POWER
        beta = grid.expand(k, -1).clone()
        step_sizes = torch.full((k, levels - 1), config.step_size, dtype=params.dtype, device=params.device)
        if config.warmup:
            upper = _upper(replicas, levels)
            density = TemperedDensity(above, beta[:, 1:].flatten().to(params.dtype))
            states = tempered_state(density, upper, step_sizes.flatten())
            step_sizes = first_step_size(density, states, RowGenerators(generators, levels - 1)).view_as(step_sizes)
        zero = torch.zeros_like(beta[:, 1:])
        return TemperingState(
            replicas,
            beta,
            _target_density(posterior, replicas, levels),
            step_sizes,
            dual_averaging_init(step_sizes),
            zero,
            torch.full_like(zero, -torch.inf),
            0,
            0,
        )

    def step(state: TemperingState, generators: ChainGenerators) -> tuple[TemperingState, TemperingInfo]:
        dtype = state.replicas.params.dtype
        k = len(state.beta)
        swap_prob = _swap_prob(state.beta, state.replicas.log_likelihood.view_as(state.beta))
        swapped = _swap(state.replicas, swap_prob, generators.uniform(levels - 1).double(), state.draws % 2)

        moved, info = move(
            above,
            _upper(swapped, levels),
            state.beta[:, 1:].flatten().to(dtype),
            state.step_sizes.flatten(),
            moves,
            RowGenerators(generators, levels - 1),
        )
        fresh = replicas_at(posterior, posterior.draw_prior(generators, swapped.params.shape[1]).to(dtype))
        replicas = Replicas(
            *(
                torch.cat([low.unsqueeze(1), high.unflatten(0, (k, levels - 1))], 1).flatten(0, 1)
                for low, high in zip(fresh, moved, strict=True)
            )
        )

        log_lik = replicas.log_likelihood.view_as(state.beta).double()
        new = state._replace(
            replicas=replicas,
            log_density=_target_density(posterior, replicas, levels),
            rejection=state.rejection + (1.0 - swap_prob),
            log_sums=torch.logaddexp(state.log_sums, state.beta.diff(dim=1) * log_lik[:, :-1]),
            counted=state.counted + 1,
            draws=state.draws + 1,
        )
        of_target = HMCInfo(*(x.view(k, levels - 1)[:, -1] for x in info))
        mean_rejection = new.rejection / new.counted
        gradients = torch.full_like(state.beta[:, 0], (levels - 1) * config.leapfrog_steps + 1)
        found = TemperingInfo(
            **of_target._asdict(),
            leapfrogs=gradients,
            swap_prob=swap_prob,
            swap_rate_min=1.0 - mean_rejection.amax(1),
            barrier=mean_rejection.sum(1),
            log_evidence=(new.log_sums - math.log(new.counted)).sum(1),
        )
        if state.draws < config.warmup:
            new = _adapt(new, info.accept_prob.view(k, levels - 1), config, rounds)
        return new, found

    return Kernel(init, step)


def tuning_ends(warmup: int) -> set[int]:
    """After how many draws of warm-up the levels are moved: half of it, a quarter ..., down to `SHORTEST_ROUND` draws."""
    ends, end = set(), warmup // 2
    while end >= SHORTEST_ROUND:
        ends.add(end)
        end //= 2
    return ends


def tuned(beta: Tensor, rejection: Tensor) -> Tensor:
    """Levels (k, v) of equal rejection, from the mean rejection (k, v - 1) of each pair at `beta`; the ends stay 0 and 1."""
    barrier = (rejection + LEAST_REJECTION).cumsum(1)
    barrier = torch.cat([torch.zeros_like(barrier[:, :1]), barrier], 1)
    share = torch.linspace(0.0, 1.0, beta.shape[1], dtype=beta.dtype, device=beta.device)
    new = _interpolate(share * barrier[:, -1:], barrier, beta)
    new[:, 0], new[:, -1] = 0.0, 1.0
    return new


def _adapt(state: TemperingState, accept_prob: Tensor, config: TemperingConfig, rounds: set[int]) -> TemperingState:
    """Step sizes after a draw of warm-up; levels where a round of it ends."""
    adaptation = dual_averaging_update(state.adaptation, accept_prob, config.target)
    moves, ends = state.draws in rounds, state.draws == config.warmup
    log_step = adaptation.log_average if moves or ends else adaptation.log_step
    beta = state.beta
    if moves:
        beta = tuned(state.beta, state.rejection / state.counted)
        known = torch.cat([log_step[:, :1], log_step], 1)  # the prior has no step of its own
        log_step = _interpolate(beta[:, 1:], state.beta, known)
    step_sizes = log_step.exp().to(state.step_sizes.dtype)
    if not moves and not ends:
        return state._replace(adaptation=adaptation, step_sizes=step_sizes)
    return state._replace(
        beta=beta,
        step_sizes=step_sizes,
        adaptation=dual_averaging_init(step_sizes),
        rejection=torch.zeros_like(state.rejection),
        log_sums=torch.full_like(state.log_sums, -torch.inf),
        counted=0,
    )


def _interpolate(x: Tensor, known_x: Tensor, known_y: Tensor) -> Tensor:
    """Piecewise linear, row by row: x (k, n), ascending known_x and known_y (k, v)."""
    right = torch.searchsorted(known_x.contiguous(), x.contiguous()).clamp(1, known_x.shape[1] - 1)
    x0, x1 = known_x.gather(1, right - 1), known_x.gather(1, right)
    y0, y1 = known_y.gather(1, right - 1), known_y.gather(1, right)
    return y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).clamp(0.0, 1.0)


def _upper(replicas: Replicas, levels: int) -> Replicas:
    """The rows of the levels above the prior."""
    return Replicas(*(x.unflatten(0, (-1, levels))[:, 1:].flatten(0, 1) for x in replicas))


def _target_density(posterior: Posterior, replicas: Replicas, levels: int) -> Tensor:
    """(k,) nats at beta = 1."""
    params, log_lik = (x.unflatten(0, (-1, levels))[:, -1] for x in replicas[:2])
    return log_lik + posterior.log_prior(params)


def _swap_prob(beta: Tensor, log_likelihood: Tensor) -> Tensor:
    """(k, v - 1): that neighbours swap. A likelihood that is not finite stays where it is."""
    gain = beta.diff(dim=1) * (log_likelihood[:, :-1] - log_likelihood[:, 1:]).double()
    return torch.nan_to_num(gain, nan=-torch.inf).clamp(max=0.0).exp()


def _swap(replicas: Replicas, swap_prob: Tensor, uniform: Tensor, parity: int) -> Replicas:
    """Swap neighbours (i, i + 1) with i of this parity, each with its probability."""
    k, pairs = swap_prob.shape
    turn = torch.arange(pairs, device=swap_prob.device) % 2 == parity
    yes = (turn & (uniform < swap_prob)).long()
    none = torch.zeros_like(yes[:, :1])
    level = torch.arange(pairs + 1, device=swap_prob.device)
    source = level + torch.cat([yes, none], 1) - torch.cat([none, yes], 1)  # a level is in one pair at most
    rows = (source + (pairs + 1) * torch.arange(k, device=source.device).unsqueeze(1)).flatten()
    return Replicas(*(x[rows] for x in replicas))


def _exact(posterior: Posterior, settings: ExactSettings) -> Kernel[Any, Any]:
    config = TemperingConfig(
        levels=settings.levels,
        step_size=settings.step_size,
        leapfrog_steps=settings.leapfrog_steps,
        warmup=settings.warmup,
        target=settings.target,
    )
    return parallel_tempering(posterior, config)


EXACT_SAMPLERS.register(
    ExactSampler(
        name="pt",
        label="Parallel tempering",
        kernel=_exact,
        gradients=lambda settings: (settings.levels - 1) * settings.leapfrog_steps + 1,
        replicas=lambda settings: settings.levels - 1,
        # every level has a trajectory, and levels are placed in warm-up
        defaults={"warmup": 200, "leapfrog_steps": 20},
    )
)
