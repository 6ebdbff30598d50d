"""Leapfrog against the exact flow of an oscillator, HMC against Gaussians with known moments."""

import math

import pytest
import torch
from targets import linear_regression

from bpc.errors import ConfigError
from bpc.samplers import (
    EXACT_SAMPLERS,
    ExactSettings,
    HMCConfig,
    WarmupConfig,
    hmc,
    leapfrog,
    run,
    state_from_tensors,
    state_to_tensors,
    value_and_grad,
    warmed_up,
)
from bpc.seeding import ChainGenerators

COVARIANCE = torch.tensor([[1.0, 0.8, 0.0], [0.8, 2.0, -0.3], [0.0, -0.3, 0.25]])
MEAN = torch.tensor([1.0, -2.0, 0.5])
PRECISION = torch.linalg.inv(COVARIANCE)


def gaussian(params):
    gap = params - MEAN
    return -0.5 * torch.einsum("ki,ij,kj->k", gap, PRECISION, gap)


def standard(params):
    return -0.5 * params.square().sum(1)


def generators(k, seed=0):
    return ChainGenerators.from_seeds("cpu", [seed * 1000 + i for i in range(k)])


def collect(kernel, params, *, steps, burn_in, seed=0):
    draws = [
        s.params for s, _ in run(kernel, params, steps=steps, burn_in=burn_in, generators=generators(len(params), seed))
    ]
    return torch.stack(draws)  # (s, k, p)


def test_leapfrog_follows_the_exact_flow():
    """Of H = theta^2 / 2 + r^2 / 2: theta(t) = cos t, r(t) = -sin t. The error is of second order; without a half step of the
    momentum it would be of first order (5e-3 here)."""
    theta, r = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    end, momentum, value, grad = leapfrog(lambda x: value_and_grad(standard, x), theta, r, -theta, 0.01, 100)
    assert float(end) == pytest.approx(math.cos(1.0), abs=2e-5)
    assert float(momentum) == pytest.approx(-math.sin(1.0), abs=2e-5)
    assert float(value) == pytest.approx(-0.5 * float(end) ** 2)
    assert float(grad) == pytest.approx(-float(end))


def test_leapfrog_is_reversible():
    theta = torch.randn(4, 3, dtype=torch.float64)
    r = torch.randn(4, 3, dtype=torch.float64)

    def target(x):
        return value_and_grad(lambda y: -y.pow(4).sum(1), x)

    grad = target(theta)[1]
    end, momentum, _, end_grad = leapfrog(target, theta, r, grad, 0.05, 7, 2.0)
    back, r_back, _, _ = leapfrog(target, end, -momentum, end_grad, 0.05, 7, 2.0)
    torch.testing.assert_close(back, theta)
    torch.testing.assert_close(-r_back, r)


def test_energy_error_is_of_second_order():
    def error(step):
        theta, r = torch.full((1, 1), 1.3, dtype=torch.float64), torch.full((1, 1), 0.4, dtype=torch.float64)
        end, momentum, _, _ = leapfrog(lambda x: value_and_grad(standard, x), theta, r, -theta, step, round(0.8 / step))
        return abs(float(end**2 + momentum**2 - theta**2 - r**2))

    assert error(0.1) / error(0.05) == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("momentum_scale", [1.0, 0.5])
def test_moments_of_a_correlated_gaussian(momentum_scale):
    """512 chains, so the standard error of each mean is the standard deviation over sqrt(512 * effective draws)."""
    config = HMCConfig(step_size=0.25 * momentum_scale, leapfrog_steps=8, momentum_scale=momentum_scale, jitter=0.2)
    draws = collect(hmc(gaussian, config), MEAN.expand(512, 3) + 3.0, steps=60, burn_in=30).flatten(0, 1)
    torch.testing.assert_close(draws.mean(0), MEAN, atol=0.05, rtol=0)
    torch.testing.assert_close(draws.T.cov(), COVARIANCE, atol=0.08, rtol=0.05)


def test_a_coarse_step_is_put_right_by_the_acceptance_test():
    """At step size 1.7 a third of the proposals must be rejected; a wrong sign or no test gives another variance."""
    kernel = hmc(standard, HMCConfig(step_size=1.7, leapfrog_steps=1))
    accept, draws = [], []
    for state, info in run(kernel, torch.zeros(4096, 1), steps=80, burn_in=40, generators=generators(4096)):
        draws.append(state.params)
        accept.append(info.accept_prob.mean())
        assert torch.equal(state.log_density, standard(state.params))
    variance = float(torch.stack(draws).var())
    assert 0.3 < float(torch.stack(accept).mean()) < 0.9
    assert variance == pytest.approx(1.0, abs=0.03)


def test_info_reports_the_energy_error():
    kernel = hmc(gaussian, HMCConfig(step_size=0.3, leapfrog_steps=4))
    for _, info in run(kernel, MEAN.expand(8, 3).clone(), steps=5, generators=generators(8)):
        torch.testing.assert_close(info.accept_prob, torch.exp(-info.energy_change.clamp(min=0)))
        assert not info.diverged.any()


def test_divergence_is_counted_and_rejected():
    kernel = hmc(gaussian, HMCConfig(step_size=1e6, leapfrog_steps=3))
    start = MEAN.expand(3, 3).clone()
    for state, info in run(kernel, start, steps=3, generators=generators(3)):
        assert info.diverged.all()
        assert not info.accepted.any()
        assert torch.equal(state.params, start)


def test_nan_density_is_a_rejection_not_an_accident():
    kernel = hmc(lambda x: torch.where(x[:, 0] > 0, torch.log(-x[:, 0].abs()), -(x[:, 0] ** 2) / 2), HMCConfig())
    start = torch.full((4, 1), -1e-4)
    for state, _ in run(kernel, start, steps=20, generators=generators(4)):
        assert torch.isfinite(state.params).all()


def test_k_chains_together_equal_k_alone():
    kernel = hmc(gaussian, HMCConfig(step_size=0.2, leapfrog_steps=5))
    start = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    together = torch.stack([s.params for s, _ in run(kernel, start, steps=10, generators=generators(3))])
    for i in range(3):
        alone = run(kernel, start[i : i + 1], steps=10, generators=ChainGenerators.from_seeds("cpu", [i]))
        torch.testing.assert_close(torch.cat([s.params for s, _ in alone]), together[:, i])


def test_step_size_adapts_to_the_target():
    scales = torch.logspace(-1, 1, 20)

    def density(x):
        return -0.5 * (x / scales).square().sum(1)

    base = hmc(density, HMCConfig(step_size=3.0, leapfrog_steps=5))
    kernel = warmed_up(base, density, WarmupConfig(warmup=300, target=0.8))
    warm, after, steps = [], [], []
    for t, (state, info) in enumerate(run(kernel, torch.zeros(16, 20), steps=400, generators=generators(16))):
        (warm if t < 300 else after).append(info.accept_prob.mean())
        steps.append(state.step_size)
    # the iterates meet the target on average; their averaged log step, used afterwards, is known to be a little cautious
    assert float(torch.stack(warm[100:]).mean()) == pytest.approx(0.8, abs=0.03)
    assert 0.75 < float(torch.stack(after).mean()) < 0.95
    assert torch.equal(steps[300], steps[-1]), "the step size still changes after warm-up"


def pooled_run(pooled, chains, seeds, *, adapt_mass=False, warmup=60):
    """HMC on Gaussians of two widths, chain by chain in turn: the wider one accepts more of a common step."""
    widths = torch.tensor([1.0, 3.0]).repeat(chains // 2).unsqueeze(1)

    def density(params):
        return -0.5 * (params / widths).square().sum(1)

    base = hmc(density, HMCConfig(step_size=0.1, leapfrog_steps=3))
    kernel = warmed_up(base, density, WarmupConfig(warmup=warmup, adapt_mass=adapt_mass, pooled=pooled))
    start = torch.zeros(chains, 5)
    return [
        state for state, _ in run(kernel, start, steps=warmup + 5, generators=ChainGenerators.from_seeds("cpu", seeds))
    ]


def test_chains_of_a_posterior_share_a_step_and_no_others():
    together = pooled_run(2, 4, [0, 1, 2, 3])
    steps = torch.stack([state.step_size for state in together])
    assert torch.equal(steps[:, 0], steps[:, 1]) and torch.equal(steps[:, 2], steps[:, 3])
    assert not torch.equal(steps[:, 0], steps[:, 2])  # another posterior
    alone = pooled_run(2, 2, [2, 3])
    torch.testing.assert_close(together[-1].params[2:], alone[-1].params)
    apart = pooled_run(1, 2, [2, 3])[-1].step_size
    assert apart[0] < alone[-1].step_size[0] < apart[1]  # a common step lies between those of each


def test_the_mass_is_the_prior_s_where_it_is_not_adapted():
    assert torch.equal(pooled_run(2, 2, [0, 1])[-1].chain.inverse_mass, torch.ones(2, 5))
    adapted = pooled_run(2, 2, [0, 1], adapt_mass=True)[-1]
    assert adapted.chain.inverse_mass[1].mean() > 2 * adapted.chain.inverse_mass[0].mean()
    assert adapted.step_size[0] == adapted.step_size[1]


@pytest.mark.parametrize("sampler", ["hmc", "nuts"])
def test_settings_choose_mass_and_pooling(sampler):
    target = linear_regression(prior_std=0.5).log_density
    for mass, pool_step in (("prior", True), ("diagonal", False)):
        settings = ExactSettings(
            sampler=sampler, chains=2, warmup=25, mass=mass, pool_step=pool_step, leapfrog_steps=2, max_tree_depth=3
        )
        kernel = EXACT_SAMPLERS.get(sampler).kernel(target, settings)
        start = torch.zeros(4, 3, dtype=torch.float64)
        state = [s for s, _ in run(kernel, start, steps=25, generators=generators(4))][-1]
        prior_mass = torch.full_like(state.chain.inverse_mass, 0.25)
        assert torch.allclose(state.chain.inverse_mass, prior_mass) == (mass == "prior")
        assert (state.step_size[0] == state.step_size[1]) == pool_step
        assert state.step_size[0] != state.step_size[2]


def test_state_survives_a_checkpoint():
    kernel = warmed_up(hmc(gaussian, HMCConfig()), gaussian, WarmupConfig(warmup=5))
    state = kernel.init(torch.zeros(2, 3), generators(2))
    for _ in range(3):
        state, _ = kernel.step(state, generators(2))
    again = state_from_tensors(kernel.init(torch.zeros(2, 3), generators(2)), state_to_tensors(state))
    assert again.draws == 3
    a, _ = kernel.step(state, generators(2, 5))
    b, _ = kernel.step(again, generators(2, 5))
    assert torch.equal(a.params, b.params)


def test_errors():
    with pytest.raises(ConfigError):
        HMCConfig(step_size=-1.0)
