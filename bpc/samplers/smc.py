r"""Tempered sequential Monte Carlo (Neal 2001; Del Moral, Doucet & Jasra 2006): particles from the prior to the posterior.

A chain is a population of particles, drawn from the prior. A stage takes them from likelihood^beta * prior to the largest beta
at which their weights, (step of beta) * log likelihood, keep an effective sample size of `ess` of the particles (bisection;
Jasra et al. 2011), resamples them systematically (one uniform number for all), and moves each by HMC, whose mass is the prior's
precision and whose step size, p^(-1/4) of the prior's width at first, follows the population's acceptance. At beta = 1 they are
draws, which the kernel hands out one per step after its warm-up.

Particles of one population have common ancestors, so R-hat compares populations that share nothing, and the particles are
handed out in the order of resampling: relatives stay neighbours, and the ESS of such a "chain" takes them for the correlated
draws that they are.

**Evidence**: log Z = sum over stages of log mean exp(weight), the log of the prior's mean of the (weighted) likelihood; its
exponential has no bias but the one that adapting stages and steps brings, which vanishes with more particles (Beskos, Jasra,
Kantas & Thiéry 2016).

Cost: moves * leapfrog_steps gradients per particle and stage, and one at the prior. How many stages, the posterior decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.posterior import Posterior
from bpc.samplers.base import Kernel
from bpc.samplers.hmc import HMCConfig
from bpc.samplers.record import EXACT_SAMPLERS, ExactSampler, ExactSettings
from bpc.samplers.tempered import Replicas, RowGenerators, move, replicas_at
from bpc.seeding import ChainGenerators

__all__ = ["SMCConfig", "SMCInfo", "SMCState", "next_beta", "smc", "systematic"]

HALVINGS = 60  # of the step of beta: to the last bits of a double
LEAST_STEP = 1e-9  # of beta, so that the stages come to an end whatever the likelihood


@dataclass(frozen=True, kw_only=True)
class SMCConfig:
    """Settings of `smc`.

    Attributes:
        particles: of each population.
        leapfrog_steps: per move.
        moves: of HMC per stage.
        jitter: as of `HMCConfig`.
        ess: effective sample size after a stage's weighting, as a fraction of the particles.
        warmup: steps of the kernel before the first particle is handed out: a stage each until beta is 1, nothing after that;
            the last of them takes all the stages that are left.
        target: acceptance probability that the step size follows.
    """

    particles: int = 100
    leapfrog_steps: int = 10
    moves: int = 2
    jitter: float = 0.1
    ess: float = 0.5
    warmup: int = 0
    target: float = 0.8

    def __post_init__(self) -> None:
        if self.particles < 2 or self.moves < 1 or self.warmup < 0 or not (0 < self.ess < 1 and 0 < self.target < 1):
            raise ConfigError(
                f"SMC needs 2 particles or more, a move, a warm-up of 0 steps or more, and ess and target in (0, 1); got {self}."
            )
        self.hmc()  # checks the rest

    def hmc(self) -> HMCConfig:
        """Of the moves; the state has their step size."""
        return HMCConfig(leapfrog_steps=self.leapfrog_steps, jitter=self.jitter)


class SMCState(NamedTuple):
    """k populations of n particles each, side by side."""

    particles: Replicas  # of k * n rows
    accept_prob: Tensor  # (k * n,), of each particle's last move
    diverged: Tensor  # (k * n,) bool, likewise
    beta: Tensor  # (k,) float64
    step_size: Tensor  # (k,)
    log_evidence: Tensor  # (k,) float64, nats: of likelihood^beta
    gradients: Tensor  # (k,) float64, taken so far, of all particles
    params: Tensor  # (k, p), of the particle handed out last
    log_density: Tensor  # (k,) nats, of the target there
    draws: int  # steps done so far, warm-up included


class SMCInfo(NamedTuple):
    """Of the particle that was handed out; in warm-up, means over the population."""

    accept_prob: Tensor  # (k,), of its last move
    diverged: Tensor  # (k,) bool, likewise
    leapfrogs: Tensor  # (k,) gradients of the whole run so far, per particle
    beta: Tensor  # (k,)
    log_evidence: Tensor  # (k,) nats


def next_beta(log_likelihood: Tensor, beta: Tensor, ess: float) -> Tensor:
    """(k,): the largest power up to 1 at which the weights of (k, n) log likelihoods keep an ESS of `ess` * n (bisection).

    One step is `LEAST_STEP` at least; a population without a finite likelihood goes to 1 at once, and its evidence says so.
    """

    def enough(step: Tensor) -> Tensor:
        share = torch.softmax(step.unsqueeze(1) * log_likelihood, 1)
        return ~(1.0 / share.square().sum(1) < ess * log_likelihood.shape[1])

    room = 1.0 - beta
    low, high = torch.zeros_like(room), room
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        good = enough(middle)
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return torch.where(enough(room) | (low.clamp(min=LEAST_STEP) >= room), 1.0, beta + low.clamp(min=LEAST_STEP))


def systematic(log_weights: Tensor, uniform: Tensor) -> Tensor:
    """(k, n) indices, ascending: particle i is taken floor or ceil of n * weight_i times. `uniform` is (k,)."""
    n = log_weights.shape[1]
    place = (torch.arange(n, dtype=log_weights.dtype, device=log_weights.device) + uniform.unsqueeze(1)) / n
    total = torch.softmax(log_weights, 1).cumsum(1)
    return torch.searchsorted(total, place, right=True).clamp(max=n - 1)  # right: never a particle without weight


def smc(posterior: Posterior, config: SMCConfig) -> Kernel[SMCState, SMCInfo]:
    """Tempered SMC of k populations; after `config.warmup` steps, step i hands out particle i of each, and so round again."""
    n, moves = config.particles, config.hmc()
    of_particles = posterior.repeated(n)

    def init(params: Tensor, generators: ChainGenerators) -> SMCState:
        k, p = params.shape
        start = posterior.draw_prior(generators, n, p).to(params.dtype).flatten(0, 1)
        particles = replicas_at(of_particles, start)
        zero = torch.zeros(k, dtype=torch.float64, device=params.device)
        first = start.view(k, n, p)[:, 0]
        return SMCState(
            particles,
            torch.ones_like(particles.log_likelihood),
            torch.zeros_like(particles.log_likelihood, dtype=torch.bool),
            zero,
            torch.full_like(zero, p**-0.25, dtype=params.dtype),
            zero.clone(),
            zero + n,
            first,
            particles.log_likelihood.view(k, n)[:, 0] + posterior.log_prior(first),
            0,
        )

    def stage(state: SMCState, generators: ChainGenerators) -> SMCState:
        """Weight, resample and move the populations below beta = 1."""
        dtype, active = state.params.dtype, state.beta < 1.0
        k, rows = len(active), RowGenerators(generators, n)
        log_lik = state.particles.log_likelihood.view(k, n).double().nan_to_num(nan=-torch.inf)
        beta = torch.where(active, next_beta(log_lik, state.beta, config.ess), state.beta)
        log_weights = torch.where(active.unsqueeze(1), (beta - state.beta).unsqueeze(1) * log_lik, 0.0)
        ancestors = systematic(log_weights, generators.uniform().double())
        ancestors = torch.where(active.unsqueeze(1), ancestors, torch.arange(n, device=ancestors.device))
        index = (ancestors + n * torch.arange(k, device=ancestors.device).unsqueeze(1)).flatten()
        particles = Replicas(*(x[index] for x in state.particles))
        accept_prob, diverged, step_size = state.accept_prob[index], state.diverged[index], state.step_size
        each = active.repeat_interleave(n)
        for _ in range(config.moves):
            power, step = (x.to(dtype).repeat_interleave(n) for x in (beta, step_size))
            moved, info = move(of_particles, particles, power, step, moves, rows)
            particles = Replicas(
                *(
                    torch.where(each.unsqueeze(1) if new.ndim == 2 else each, new, old)
                    for new, old in zip(moved, particles, strict=True)
                )
            )
            accept_prob = torch.where(each, info.accept_prob.to(accept_prob.dtype), accept_prob)
            diverged = torch.where(each, info.diverged, diverged)
            found = info.accept_prob.view(k, n).mean(1)
            followed = step_size * torch.exp(found - config.target).to(dtype)
            step_size = torch.where(active, followed, step_size)
        return state._replace(
            particles=particles,
            accept_prob=accept_prob,
            diverged=diverged,
            beta=beta,
            step_size=step_size,
            log_evidence=state.log_evidence + log_weights.logsumexp(1) - math.log(n),
            gradients=state.gradients + active * (n * config.moves * config.leapfrog_steps),
        )

    def step(state: SMCState, generators: ChainGenerators) -> tuple[SMCState, SMCInfo]:
        k = len(state.beta)
        last = state.draws + 1 >= config.warmup
        while bool((state.beta < 1.0).any()):
            state = stage(state, generators)
            if not last:
                break
        gradients, done = state.gradients / n, state.draws + 1
        accept_prob, diverged = state.accept_prob.view(k, n), state.diverged.view(k, n)
        if state.draws < config.warmup:
            found = SMCInfo(accept_prob.mean(1), diverged.any(1), gradients, state.beta, state.log_evidence)
            return state._replace(draws=done), found
        i = (state.draws - config.warmup) % n
        params = state.particles.params.unflatten(0, (k, n))[:, i]
        log_density = state.particles.log_likelihood.view(k, n)[:, i] + posterior.log_prior(params)
        found = SMCInfo(accept_prob[:, i], diverged[:, i], gradients, state.beta, state.log_evidence)
        return state._replace(params=params, log_density=log_density, draws=done), found

    return Kernel(init, step)


def _exact(posterior: Posterior, settings: ExactSettings) -> Kernel[Any, Any]:
    config = SMCConfig(
        particles=settings.samples,
        leapfrog_steps=settings.leapfrog_steps,
        warmup=settings.warmup,
        target=settings.target,
    )
    return smc(posterior, config)


def _gradients(settings: ExactSettings) -> int:
    """Per draw, warm-up's among them, with a stage at each draw of warm-up; more only where that many are not enough."""
    all_draws = settings.warmup + settings.samples
    stages = max(settings.warmup, 1) * SMCConfig().moves * settings.leapfrog_steps
    return math.ceil(settings.samples * (stages + 1) / all_draws)


EXACT_SAMPLERS.register(
    ExactSampler(
        name="smc",
        label="Tempered SMC",
        kernel=_exact,
        gradients=_gradients,
        replicas=lambda settings: settings.samples,
        defaults={"leapfrog_steps": 20},  # every particle has a trajectory at every move of every stage
    )
)
