"""The published samplers: what they do is pinned down, right or not, because the tables depend on it."""

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from bpc.samplers import ASGHMCConfig, Kim2022HMCConfig, asghmc, kim2022_hmc, run
from bpc.seeding import ChainGenerators


def standard(params):
    return -0.5 * params.square().sum(1)


def generators(k):
    return ChainGenerators.from_seeds("cpu", list(range(k)))


def test_the_flipped_kinetic_sign_is_there():
    """Textbook HMC on a standard normal has variance 1; with exp((U_old - U_new) + (K_new - K_old)) it has about 0.34.

    The momentum scale is 1 and the orbit is long, so nothing else can bring the variance down.
    """
    kernel = kim2022_hmc(standard, Kim2022HMCConfig(step_size=0.1, leapfrog_steps=15, momentum_scale=1.0))
    draws = torch.stack(
        [s.params for s, _ in run(kernel, torch.randn(2000, 1), steps=80, burn_in=40, generators=generators(2000))]
    )
    assert float(draws.var()) == pytest.approx(0.34, abs=0.04)


def test_one_iteration_by_hand():
    step, scale = 0.3, 0.7
    start = torch.tensor([[0.9]])
    rng = ChainGenerators.from_seeds("cpu", [4])
    r = scale * rng.normal(1)
    u = float(rng.uniform())
    half = r - 0.5 * step * start
    proposal = start + step * half
    end = half - 0.5 * step * proposal
    exponent = float((start**2 - proposal**2) / 2 + (end**2 - r**2) / 2)
    kernel = kim2022_hmc(standard, Kim2022HMCConfig(step_size=step, leapfrog_steps=1, momentum_scale=scale))
    state, info = next(run(kernel, start, steps=1, generators=ChainGenerators.from_seeds("cpu", [4])))
    probability = min(1.0, float(np.exp(exponent)))
    assert float(info.accept_prob) == pytest.approx(probability, abs=1e-6)
    torch.testing.assert_close(state.params, proposal if u <= probability else start)


def test_asghmc_has_the_stationary_covariance_of_its_recursion():
    """On a Gaussian Algorithm 3 is linear: z' = A z + noise with A from theta += eps r; r = (1 - alpha) r - eps theta' + N(0,
    2 alpha T). Its stationary covariance solves a Lyapunov equation."""
    eps, alpha, temperature = 0.3, 0.2, 0.5
    a = np.array([[1.0, eps], [-eps, 1.0 - alpha - eps**2]])
    exact = solve_discrete_lyapunov(a, np.diag([0.0, 2 * alpha * temperature]))
    config = ASGHMCConfig(step_size=eps, leapfrog_steps=5, momentum_scale=1.0, friction=alpha, temperature=temperature)
    kernel = asghmc(lambda x, g: standard(x), config)
    states = [s for s, _ in run(kernel, torch.zeros(4000, 1), steps=60, burn_in=20, generators=generators(4000))]
    theta, r = torch.stack([s.params for s in states]), torch.stack([s.momentum for s in states])
    assert float(theta.var()) == pytest.approx(exact[0, 0], rel=0.05)
    assert float(r.var()) == pytest.approx(exact[1, 1], rel=0.05)


def test_asghmc_calls_a_fresh_density_at_every_step():
    calls = []

    def density(params, rng):
        calls.append(float(rng.uniform()[0]))
        return standard(params)

    kernel = asghmc(density, ASGHMCConfig(leapfrog_steps=4))
    list(run(kernel, torch.zeros(1, 2), steps=3, generators=generators(1)))
    assert len(calls) == 12
    assert len(set(calls)) == 12


def test_chains_together_equal_chains_alone():
    for make in (
        lambda: kim2022_hmc(standard, Kim2022HMCConfig()),
        lambda: asghmc(lambda x, g: standard(x), ASGHMCConfig()),
    ):
        start = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
        together = torch.stack([s.params for s, _ in run(make(), start, steps=6, generators=generators(3))])
        for i in range(3):
            alone = run(make(), start[i : i + 1], steps=6, generators=ChainGenerators.from_seeds("cpu", [i]))
            assert torch.equal(torch.cat([s.params for s, _ in alone]), together[:, i])


def test_a_chain_that_leaves_the_finite_numbers_is_not_accepted():
    kernel = kim2022_hmc(lambda x: standard(x) * 1e30, Kim2022HMCConfig(step_size=1e10))
    state, _ = next(run(kernel, torch.ones(2, 2), steps=1, generators=generators(2)))
    assert torch.isfinite(state.params).all()
