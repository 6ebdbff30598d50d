"""Simulation-based calibration (Talts et al. 2018): over data drawn from the prior, the truth's rank among posterior samples is
uniform. Each simulated dataset is one chain of one batch."""

import pytest
import torch
from scipy import stats

from bpc.likelihood import LogisticRegression
from bpc.posterior import Posterior
from bpc.samplers import (
    HMCConfig,
    LangevinConfig,
    NUTSConfig,
    SMCConfig,
    TemperingConfig,
    WarmupConfig,
    hmc,
    langevin,
    nuts,
    parallel_tempering,
    run,
    smc,
    warmed_up,
)
from bpc.seeding import SharedGenerator, make_generator
from bpc.weight_prior import isotropic

SIMULATIONS, POINTS, PRIOR_STD = 640, 6, 1.3
RANKS = 32  # 31 samples have 32 ranks; they make 8 bins of 80


def simulate():
    """Coefficients from the prior, and logistic data: a label of 0 is a point turned round, so all labels are 1."""
    g = torch.Generator().manual_seed(11)
    theta = PRIOR_STD * torch.randn(SIMULATIONS, 2, generator=g, dtype=torch.float64)
    x = torch.randn(SIMULATIONS, POINTS, 2, generator=g, dtype=torch.float64)
    p = torch.sigmoid(torch.einsum("knd,kd->kn", x, theta))
    y = torch.rand(p.shape, generator=g, dtype=torch.float64) < p
    return theta, torch.where(y.unsqueeze(2), x, -x)


def p_values(make_kernel, *, prior_std=PRIOR_STD, thin=6, before=60):
    """Of a chi-squared test of uniform ranks, one for each coefficient."""
    theta, points = simulate()
    posterior = Posterior(
        LogisticRegression(),
        points,
        torch.ones(POINTS, dtype=torch.long),
        torch.ones(POINTS, dtype=torch.float64),
        prior=isotropic(prior_std),
        per_chain=True,
    )
    generators = SharedGenerator(make_generator("cpu", 0, "sbc"), SIMULATIONS)
    steps = before + thin * (RANKS - 1)
    chains = run(
        make_kernel(posterior), torch.zeros_like(theta), steps=steps, burn_in=before, thin=thin, generators=generators
    )
    draws = torch.stack([state.params for state, _ in chains])
    rank = (draws < theta).sum(0)  # (k, p), 0 to 31
    counts = torch.stack([(rank // 4 == b).sum(0) for b in range(RANKS // 4)])
    return stats.chisquare(counts.numpy(), axis=0).pvalue


def warm_hmc(p):
    return warmed_up(hmc(p, HMCConfig(leapfrog_steps=6, jitter=0.3)), p, WarmupConfig(warmup=60))


def tempering(p):
    return parallel_tempering(p, TemperingConfig(levels=3, leapfrog_steps=6, jitter=0.3, warmup=60))


@pytest.mark.parametrize(
    "make_kernel",
    [
        warm_hmc,
        lambda p: warmed_up(nuts(p, NUTSConfig(max_tree_depth=5)), p, WarmupConfig(warmup=60)),
        lambda p: langevin(p, LangevinConfig(step_size=0.9, adjusted=True, steps=6)),
        tempering,
        lambda p: smc(
            p, SMCConfig(particles=192, leapfrog_steps=6, jitter=0.3, warmup=60)
        ),  # one of 6 particles is looked at
    ],
    ids=["hmc", "nuts", "mala", "pt", "smc"],
)
def test_ranks_are_uniform(make_kernel):
    assert p_values(make_kernel).min() > 1e-3


def test_a_wrong_prior_scale_is_seen():
    assert p_values(warm_hmc, prior_std=0.7 * PRIOR_STD).min() < 1e-6


def test_a_flipped_kinetic_sign_is_seen():
    from bpc.samplers import Kim2022HMCConfig, kim2022_hmc  # the published sampler has it

    kernel = lambda p: kim2022_hmc(  # noqa: E731
        p, Kim2022HMCConfig(step_size=0.5, leapfrog_steps=5, momentum_scale=1.0)
    )
    assert p_values(kernel).min() < 1e-6
