"""Tempered SMC: the weights of modes, evidence in closed form, temperatures, resampling, batches, checkpoints, cost."""

import math

import pytest
import torch
from targets import conjugate, first_mode, mixture, one_point, per_chain, starts

from bpc.errors import ConfigError
from bpc.samplers import SMCConfig, run, smc, state_from_tensors, state_to_tensors
from bpc.samplers.smc import next_beta, systematic
from bpc.seeding import ChainGenerators

POPULATIONS = 48


def generators(k, *names):
    return ChainGenerators.from_seeds("cpu", range(k), "smc", *names)


def sampled(posterior, config, k, p, name):
    """All particles (n, k, p), and the info of the last."""
    steps = config.warmup + config.particles
    chains = run(
        smc(posterior, config), starts(k, p), steps=steps, burn_in=config.warmup, generators=generators(k, name)
    )
    states = [(state.params, info) for state, info in chains]
    return torch.stack([params for params, _ in states]), states[-1][1]


def close_in_log(log_values, expected):
    """The mean of exp(log_values) is exp(expected) within 4 standard errors."""
    ratio = (log_values - expected).exp()
    return abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / len(ratio) ** 0.5


def test_the_weights_of_two_modes():
    target = mixture()
    config = SMCConfig(particles=300, leapfrog_steps=8, warmup=10)
    draws, info = sampled(target.posterior, config, POPULATIONS, 2, "modes")
    found = first_mode(draws)
    error = float(found.std()) / POPULATIONS**0.5
    assert error < 0.02
    assert float(found.mean()) == pytest.approx(float(target.weights[0]), abs=4 * error)
    assert close_in_log(info.log_evidence, target.log_evidence)
    assert (info.beta == 1).all()


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_evidence_and_moments_of_a_linear_model(scale):
    posterior, mean, variance, log_evidence = conjugate(scale)
    config = SMCConfig(particles=200, leapfrog_steps=12, moves=3, jitter=0.3, warmup=5)  # fewer than there are stages
    draws, info = sampled(posterior, config, POPULATIONS, 3, "lm")
    of_chains = draws.mean(0)
    error = of_chains.std(0) / POPULATIONS**0.5
    assert ((of_chains.mean(0) - mean).abs() < 4.5 * error).all()
    assert (error < 0.1 * variance.sqrt()).all()
    squares = (draws - mean).square().mean(0)
    slack = 0.05 * variance  # of the order of 1 / particles for every stage
    assert ((squares.mean(0) - variance).abs() - slack < 4.5 * squares.std(0) / POPULATIONS**0.5).all()
    assert close_in_log(info.log_evidence, log_evidence)


def test_temperatures_keep_the_effective_sample_size():
    log_lik = -torch.rand(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 400
    log_lik[2] /= 1e6  # hardly a likelihood: straight to 1
    beta = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    new = next_beta(log_lik, beta, 0.5)
    share = ((new - beta).unsqueeze(1) * log_lik).softmax(1)
    ess = 1 / share.square().sum(1)
    torch.testing.assert_close(ess[:2], torch.full((2,), 25.0, dtype=torch.float64), rtol=1e-6, atol=0)
    assert new[2] == 1 and (new[:2] < 1).all()


def test_a_likelihood_that_is_nowhere_finite_ends():
    log_lik = torch.full((1, 8), -math.inf, dtype=torch.float64)
    assert next_beta(log_lik, torch.zeros(1, dtype=torch.float64), 0.5) == 1
    nowhere = one_point(lambda theta, points, labels: theta[:, :1] * math.nan, 1.0)
    state, _ = (kernel := smc(nowhere, SMCConfig(particles=8))).step(
        kernel.init(starts(1, 2), generators(1)), generators(1)
    )
    assert state.beta == 1 and not torch.isfinite(state.log_evidence)


def test_systematic_resampling_takes_each_as_often_as_it_weighs():
    weights = torch.tensor([[0.5, 0.25, 0.0, 0.25], [0.3, 0.3, 0.3, 0.1]], dtype=torch.float64)
    for u in (0.0, 0.4, 0.99):
        index = systematic(weights.log(), torch.full((2,), u, dtype=torch.float64))
        assert index[0].tolist() == [0, 0, 1, 3]
        counts = index[1].bincount(minlength=4)
        assert ((counts == (4 * weights[1]).floor()) | (counts == (4 * weights[1]).ceil())).all()
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    many = systematic(weights[1:].log().expand(40_000, -1), uniform)
    mean = torch.stack([(many == j).sum(1).double().mean() for j in range(4)])
    torch.testing.assert_close(mean, 4 * weights[1], atol=0.01, rtol=0)


def test_populations_together_equal_populations_alone():
    posterior, config = per_chain(3), SMCConfig(particles=20, leapfrog_steps=3, warmup=6)
    together, info = sampled(posterior, config, 3, 3, "same")
    assert not torch.equal(together[:, 0], together[:, 1])
    for i in range(3):
        own = ChainGenerators.from_seeds("cpu", [i], "smc", "same")
        chain = run(smc(posterior.chain(i), config), starts(1, 3), steps=26, burn_in=6, generators=own)
        states = [(state.params[0], found) for state, found in chain]
        torch.testing.assert_close(torch.stack([params for params, _ in states]), together[:, i])
        torch.testing.assert_close(states[-1][1].log_evidence[0], info.log_evidence[i])


def test_state_survives_a_checkpoint():
    kernel = smc(per_chain(2), SMCConfig(particles=20, leapfrog_steps=3, warmup=8))
    state = kernel.init(starts(2, 3), generators(2))
    for t in range(2):
        state, _ = kernel.step(state, generators(2, t))
    assert (state.beta < 1).all()
    again = state_from_tensors(kernel.init(starts(2, 3), generators(2)), state_to_tensors(state))
    for t in range(2, 20):
        state, _ = kernel.step(state, generators(2, t))
        again, _ = kernel.step(again, generators(2, t))
    assert torch.equal(state.params, again.params)
    assert torch.equal(state.log_evidence, again.log_evidence)


def test_it_costs_what_it_says():
    """Gradients of particles, counted, through five stages at least."""
    seen = stages = 0

    def log_likelihood(theta, points, labels):
        nonlocal seen
        seen += len(theta)
        return -0.5 * (theta / 0.01).square().sum(1, keepdim=True)

    config = SMCConfig(particles=30, leapfrog_steps=4, moves=3, warmup=100)
    kernel = smc(one_point(log_likelihood, 1.0), config)
    state = kernel.init(starts(1, 3), generators(1))
    for t in range(101):
        beta = state.beta
        state, info = kernel.step(state, generators(1, t))
        stages += int(state.beta > beta)
    assert stages >= 5
    assert seen == 30 * (1 + stages * 3 * 4)
    assert float(info.leapfrogs) == 1 + stages * 3 * 4
    torch.testing.assert_close(state.params, state.particles.params[:1])


def test_errors():
    with pytest.raises(ConfigError, match="2 particles"):
        SMCConfig(particles=1)
    with pytest.raises(ConfigError, match="positive step size"):
        SMCConfig(leapfrog_steps=0)
