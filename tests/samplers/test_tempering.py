"""Parallel tempering: modes that HMC cannot leave, evidence in closed form, swaps, levels, batches, checkpoints, cost."""

import math

import pytest
import torch
from targets import as_posterior, conjugate, first_mode, linear_regression, mixture, one_point, per_chain, starts

from bpc.errors import ConfigError
from bpc.samplers import (
    HMCConfig,
    TemperingConfig,
    WarmupConfig,
    hmc,
    parallel_tempering,
    run,
    state_from_tensors,
    state_to_tensors,
    warmed_up,
)
from bpc.samplers.tempered import Replicas
from bpc.samplers.tempering import _swap, tuned, tuning_ends
from bpc.seeding import ChainGenerators, SharedGenerator, make_generator

CHAINS = 48


def generators(k, *names):
    return ChainGenerators.from_seeds("cpu", range(k), "tempering", *names)


def sampled(kernel, start, *, before, kept, name):
    """Draws (s, k, p), and the info of the last."""
    stream = SharedGenerator(make_generator("cpu", 0, name), len(start))
    chains = run(kernel, start, steps=before + kept, burn_in=before, generators=stream)
    states = [(state.params, info) for state, info in chains]
    return torch.stack([params for params, _ in states]), states[-1][1]


def test_hmc_stays_in_a_mode_and_tempering_finds_their_weights():
    target = mixture()
    assert 0.05 < float(target.weights[0]) < 0.95
    start = starts(CHAINS, 2)
    local = warmed_up(
        hmc(target.posterior, HMCConfig(leapfrog_steps=10, jitter=0.2)),
        target.posterior,
        WarmupConfig(warmup=50, adapt_mass=False),
    )
    alone = first_mode(sampled(local, start, before=50, kept=150, name="hmc")[0])
    assert ((alone == 0) | (alone == 1)).all(), "HMC crosses by itself: this mixture is no test"

    config = TemperingConfig(levels=6, leapfrog_steps=8, warmup=80)
    draws, info = sampled(parallel_tempering(target.posterior, config), start, before=80, kept=300, name="pt")
    found = first_mode(draws)
    error = float(found.std()) / CHAINS**0.5
    assert error < 0.02
    assert float(found.mean()) == pytest.approx(float(target.weights[0]), abs=4 * error)
    assert ((found > 0) & (found < 1)).all(), "a chain never crossed"
    evidence = info.log_evidence
    assert float(evidence.mean()) == pytest.approx(
        target.log_evidence, abs=4 * float(evidence.std()) / CHAINS**0.5 + 0.02
    )
    assert float(info.swap_rate_min.mean()) > 0.3


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_evidence_and_moments_of_a_linear_model(scale):
    posterior, mean, variance, log_evidence = conjugate(scale)
    config = TemperingConfig(levels=8, leapfrog_steps=12, jitter=0.3, warmup=160)
    draws, info = sampled(
        parallel_tempering(posterior, config), starts(CHAINS, 3, 1.0), before=160, kept=200, name="lm"
    )
    of_chains = draws.mean(0)
    error = of_chains.std(0) / CHAINS**0.5
    assert ((of_chains.mean(0) - mean).abs() < 4.5 * error).all()
    assert (error < 0.1 * variance.sqrt()).all()
    squares = (draws - mean).square().mean(0)
    assert ((squares.mean(0) - variance).abs() < 4.5 * squares.std(0) / CHAINS**0.5).all()
    spread = float(info.log_evidence.std())
    assert spread < 1.0
    assert float(info.log_evidence.mean()) == pytest.approx(
        log_evidence, abs=4 * spread / CHAINS**0.5 + 0.5 * spread**2
    )


def test_tuning_makes_swap_rates_equal():
    """A likelihood far narrower than the prior: at the first levels some pair hardly swaps."""
    narrow = one_point(lambda theta, points, labels: -0.5 * (theta / 0.02).square().sum(1, keepdim=True), 1.0)
    rates = []
    for warmup in (0, 160):
        config = TemperingConfig(levels=10, step_size=0.02, leapfrog_steps=8, warmup=warmup)
        chains = run(
            parallel_tempering(narrow, config), starts(16, 4, 0.02), steps=320, burn_in=160, generators=generators(16)
        )
        rates.append(torch.stack([info.swap_prob for _, info in chains]).mean((0, 1)))
    before, after = rates
    assert float(before.max() - before.min()) > 0.4
    assert float(after.max() - after.min()) < 0.2
    assert float(after.min()) > 2 * float(before.min())


def test_tuned_levels_share_the_barrier():
    beta = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    new = tuned(beta, torch.tensor([[0.6, 0.2]], dtype=torch.float64))
    assert new[0, 0] == 0 and new[0, 2] == 1
    assert float(new[0, 1]) == pytest.approx(0.5 * 0.4 / 0.6, abs=1e-3)
    assert tuning_ends(160) == {80, 40, 20, 10}
    assert tuning_ends(10) == set()


@pytest.mark.parametrize(
    ("parity", "order"), [(0, [1, 0, 3, 2, 4, 5, 6, 7, 8, 9]), (1, [0, 2, 1, 4, 3, 5, 6, 7, 8, 9])]
)
def test_swaps_take_turns_and_stay_within_a_chain(parity, order):
    """Two chains of five levels: the first swaps whatever is its turn, the second never."""
    rows = torch.arange(10.0)
    prob = torch.tensor([[1.0] * 4, [0.0] * 4], dtype=torch.float64)
    swapped = _swap(Replicas(rows.unsqueeze(1), rows, rows.unsqueeze(1)), prob, torch.full((2, 4), 0.5), parity)
    assert swapped.log_likelihood.tolist() == order
    assert swapped.params.flatten().tolist() == order and swapped.grad.flatten().tolist() == order


def test_levels_sample_their_own_power():
    """Of a Gaussian likelihood of variance v under N(0, 1): variance 1 / (1 + beta / v) at every level."""
    gaussian = one_point(lambda theta, points, labels: -0.5 * (theta / 0.2).square().sum(1, keepdim=True), 1.0)
    config = TemperingConfig(levels=5, leapfrog_steps=8, jitter=0.3, warmup=100)
    kernel = parallel_tempering(gaussian, config)
    states = [s for s, _ in run(kernel, starts(64, 1, 0.2), steps=300, burn_in=100, generators=generators(64, "own"))]
    theta = torch.stack([s.replicas.params.view(64, 5) for s in states])
    found = theta.square().mean(0) * (1 + states[-1].beta / 0.04)  # 1 at every level
    torch.testing.assert_close(found.mean(0), torch.ones(5, dtype=torch.float64), atol=0.08, rtol=0)
    for state in states[-3:]:
        ends = state.replicas.params.view(64, 5)[:, -1:]
        torch.testing.assert_close(state.params, ends)
        torch.testing.assert_close(state.log_density, gaussian(ends))


def test_k_chains_together_equal_k_alone():
    posterior, start = per_chain(3), starts(3, 3, 1.0)
    config = TemperingConfig(levels=4, leapfrog_steps=4, warmup=20)
    together = [s for s, _ in run(parallel_tempering(posterior, config), start, steps=30, generators=generators(3))]
    for i in range(3):
        kernel = parallel_tempering(posterior.chain(i), config)
        own = ChainGenerators.from_seeds("cpu", [i], "tempering")
        alone = [s for s, _ in run(kernel, start[i : i + 1], steps=30, generators=own)]
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one.params[0], all_of_them.params[i])
            torch.testing.assert_close(one.beta[0], all_of_them.beta[i])


def test_state_survives_a_checkpoint():
    kernel = parallel_tempering(per_chain(2), TemperingConfig(levels=3, leapfrog_steps=3, warmup=40))
    state = kernel.init(starts(2, 3), generators(2))
    for t in range(15):
        state, _ = kernel.step(state, generators(2, t))
    again = state_from_tensors(kernel.init(starts(2, 3), generators(2)), state_to_tensors(state))
    for t in range(15, 50):
        state, info = kernel.step(state, generators(2, t))
        again, same = kernel.step(again, generators(2, t))
    assert torch.equal(state.params, again.params)
    assert torch.equal(info.log_evidence, same.log_evidence)


def test_a_draw_costs_what_it_says():
    """Gradients of parameter vectors, counted: (levels - 1) * leapfrog_steps + 1 for each chain."""
    seen = 0

    def log_likelihood(theta, points, labels):
        nonlocal seen
        seen += len(theta)
        return -theta.square().sum(1, keepdim=True)

    kernel = parallel_tempering(one_point(log_likelihood, 1.0), TemperingConfig(levels=5, leapfrog_steps=7))
    state = kernel.init(starts(3, 2), generators(3))
    seen = 0
    _, info = kernel.step(state, generators(3))
    assert seen == 3 * (4 * 7 + 1)
    assert info.leapfrogs.tolist() == [4 * 7 + 1] * 3


def test_a_likelihood_that_is_not_finite_swaps_with_nobody():
    def log_likelihood(theta, points, labels):
        return torch.where(theta[:, :1] > 0, theta.new_tensor(math.nan), -theta.square().sum(1, keepdim=True))

    kernel = parallel_tempering(one_point(log_likelihood, 1.0), TemperingConfig(levels=4, leapfrog_steps=3))
    for state, _ in run(kernel, torch.full((8, 2), -1.0).double(), steps=30, generators=generators(8)):
        assert torch.isfinite(state.log_density).all()


def test_it_asks_the_posterior_for_its_parts():
    """Likelihood and prior apart add up to the density, and a repeated posterior is its chains' own."""
    posterior, theta = per_chain(2), starts(2, 3)
    value, grad = posterior.value_and_gradient(theta)
    log_lik, of_likelihood = posterior.likelihood_and_gradient(theta)
    torch.testing.assert_close(value, log_lik + posterior.log_prior(theta))
    torch.testing.assert_close(grad, of_likelihood + posterior.prior_gradient(theta))
    torch.testing.assert_close(posterior.repeated(3)(theta.repeat_interleave(3, 0)), value.repeat_interleave(3))
    shared = linear_regression().log_density
    assert shared.repeated(3) is shared
    drawn = as_posterior(linear_regression(), 3.0).draw_prior(generators(4), 5000, 2)
    assert drawn.shape == (4, 5000, 2)
    assert float(drawn.std()) == pytest.approx(3.0, rel=0.02)


def test_errors():
    with pytest.raises(ConfigError, match="2 levels"):
        TemperingConfig(levels=1)
    with pytest.raises(ConfigError, match="positive step size"):
        TemperingConfig(step_size=0.0)
