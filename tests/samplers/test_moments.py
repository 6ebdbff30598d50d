"""One suite for every sampler: targets whose moments are known. Chains are independent, so their spread is the standard error."""

from collections.abc import Callable

import pytest
import torch
from targets import TARGETS, NoisyDensity, Target, as_posterior

from bpc.samplers import (
    ExactGradient,
    HMCConfig,
    Kernel,
    LangevinConfig,
    NUTSConfig,
    SGHMCConfig,
    SMCConfig,
    TemperingConfig,
    WarmupConfig,
    hmc,
    langevin,
    nuts,
    parallel_tempering,
    run,
    sghmc,
    smc,
    warmed_up,
)
from bpc.seeding import ChainGenerators

CHAINS = 192


def noisy(target: Target):
    """Unbiased gradient with noise of a standard deviation of 1: what a minibatch does."""

    def density(params, generators):
        value = target.log_density(params)
        return value + (params * generators.normal(params.shape[1]).to(params.dtype)).sum(1)

    return density


# name -> (kernel, draws before, draws kept, relative bias of the variance that the method's own theory allows)
SAMPLERS: dict[str, tuple[Callable[[Target], Kernel], int, int, float]] = {
    "hmc": (
        lambda t: hmc(t.log_density, HMCConfig(step_size=1.5 * t.step_size, leapfrog_steps=8, jitter=0.3)),
        60, 100, 0.0,
    ),
    "hmc, warmed up": (
        lambda t: warmed_up(
            hmc(t.log_density, HMCConfig(step_size=5.0, leapfrog_steps=8, jitter=0.3)),
            t.log_density,
            WarmupConfig(warmup=120),
        ),
        120, 100, 0.0,
    ),
    "nuts, warmed up": (
        lambda t: warmed_up(nuts(t.log_density, NUTSConfig(step_size=5.0)), t.log_density, WarmupConfig(warmup=120)),
        120, 80, 0.0,
    ),
    "mala": (
        lambda t: langevin(t.log_density, LangevinConfig(step_size=2.0 * t.step_size, adjusted=True, steps=8)),
        80, 120, 0.0,
    ),
    "langevin": (lambda t: langevin(t.log_density, LangevinConfig(step_size=t.step_size, steps=12)), 80, 150, 0.03),
    "sghmc": (
        lambda t: sghmc(ExactGradient(t.log_density), SGHMCConfig(step_size=t.step_size, steps=12)),
        60, 120, 0.02,
    ),
    "sghmc, noisy gradients": (
        lambda t: sghmc(NoisyDensity(noisy(t)), SGHMCConfig(step_size=0.2 * t.step_size, friction=3.0, steps=30)),
        60, 80, 0.03,
    ),
    "parallel tempering": (
        lambda t: parallel_tempering(
            as_posterior(t), TemperingConfig(levels=3, leapfrog_steps=8, jitter=0.3, warmup=100)
        ),
        100, 120, 0.0,
    ),
    "smc": (
        lambda t: smc(
            as_posterior(t), SMCConfig(particles=120, leapfrog_steps=8, jitter=0.3, moves=4, warmup=30)
        ),
        30, 120, 0.03,  # populations of n particles have a bias of the order of 1 / n
    ),
}  # fmt: skip


def z_scores(draws: torch.Tensor, target: Target, slack: float) -> torch.Tensor:
    """Of the means and variances, (2, p): distance in standard errors, after the bias that is allowed for the variance."""
    per_chain = draws.mean(0)  # draws (s, k, p)
    squares = (draws - target.mean).square().mean(0)
    root = draws.shape[1] ** 0.5
    mean = (per_chain.mean(0) - target.mean).abs() / (per_chain.std(0) / root)
    gap = (squares.mean(0) - target.variance).abs() - slack * target.variance
    return torch.stack([mean, gap.clamp(min=0) / (squares.std(0) / root)])


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_moments(sampler, target):
    """Fourteen numbers a sampler: none is 4.5 standard errors away, and the standard errors are small enough to matter."""
    make, before, kept, slack = SAMPLERS[sampler]
    if target.name == "funnel":
        slack += 0.03  # a constant step size undersamples the neck; the bound is what we vouch for
    generators = ChainGenerators.from_seeds("cpu", range(CHAINS), "moments", sampler)
    kernel, start = make(target), target.start(CHAINS)
    steps = run(kernel, start, steps=before + kept, burn_in=before, generators=generators)
    draws = torch.stack([state.params for state, _ in steps])
    z = z_scores(draws, target, slack)
    assert float(z.max()) < 4.5, f"{sampler} on {target.name}: z of means {z[0].tolist()}, of variances {z[1].tolist()}"
    error = (draws.mean(0).std(0) / CHAINS**0.5) / target.variance.sqrt()
    assert float(error.max()) < 0.05


def broken_hmc(target: Target, *, kinetic_sign: float = 1.0, last_kick: float = 0.5, momentum: float = 1.0):
    """HMC in one line too many, with the mistakes that the suite has to see."""
    g = torch.Generator().manual_seed(0)
    x, step, draws = target.start(CHAINS), 2.5 * target.step_size, []
    value_and_grad = torch.func.grad_and_value(lambda q: target.log_density(q).sum())
    for t in range(300):
        r0 = momentum * torch.randn(x.shape, generator=g, dtype=x.dtype)
        q, r = x, r0 + 0.5 * step * value_and_grad(x)[0]
        for i in range(6):
            q = q + step * r
            r = r + (step if i < 5 else last_kick * step) * value_and_grad(q)[0]
        change = target.log_density(q) - target.log_density(x) + kinetic_sign * 0.5 * (r0.square() - r.square()).sum(1)
        accept = torch.rand(len(x), generator=g, dtype=x.dtype) < change.exp()
        x = torch.where(accept[:, None], q, x)
        if t >= 100:
            draws.append(x)
    return torch.stack(draws)


@pytest.mark.parametrize(
    ("mistake", "seen"),
    [({}, False), ({"kinetic_sign": -1.0}, True), ({"last_kick": 1.0}, True), ({"momentum": 0.7}, True)],
)
def test_the_suite_sees_mistakes(mistake, seen):
    """A flipped kinetic sign, a whole step for the last half step, momenta that the kinetic energy does not describe."""
    worst = max(float(z_scores(broken_hmc(t, **mistake), t, 0.0).max()) for t in TARGETS.values() if t.name != "funnel")
    assert (worst > 6.0) == seen, f"largest z {worst:.1f}"
