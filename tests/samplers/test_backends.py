"""Pyro and hamiltorch against our own samplers, on the same density objects, and all of them against known moments."""

import dataclasses
import random
import sys

import arviz as az
import numpy as np
import pytest
import torch
from targets import TARGETS, linear_regression

from benchmarks.native import available, sample
from bpc.errors import ConfigError
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.posterior import Posterior
from bpc.samplers import HMCConfig, hmc, run
from bpc.samplers import backends as foreign
from bpc.samplers.backends import INSTALL, BackendSettings, Counted, isolated_randomness
from bpc.samplers.hmc import kinetic_energy
from bpc.seeding import ChainGenerators, make_generator
from bpc.weight_prior import isotropic

CONJUGATE = ("gaussian", "linear regression", "logistic regression")


def need(backend):
    if not available(backend):
        pytest.skip(f"{backend} is not installed: {INSTALL[backend]}")


def z_of_means(draws, target_mean):
    """Distance of the mean of (k, s) from the truth in Monte Carlo standard errors (ArviZ)."""
    return abs(float(draws.mean()) - target_mean) / float(az.mcse(draws))


def worst_z(params, target):
    """Of all means and variances of draws (k, s, p)."""
    x = params.double().numpy()
    mean, variance = target.mean.numpy(), target.variance.numpy()
    return max(
        z
        for j in range(len(mean))
        for z in (z_of_means(x[..., j], mean[j]), z_of_means((x[..., j] - mean[j]) ** 2, variance[j]))
    )


# four steps per draw: without mass adaptation, six of the adapted size are a whole period of a target's narrowest direction
MOMENTS = BackendSettings(warmup=100, samples=150, leapfrog_steps=4, step_size=0.1)


@pytest.mark.parametrize("name", CONJUGATE)
@pytest.mark.parametrize(
    ("backend", "sampler"),
    [("native", "hmc"), ("native", "nuts"), ("pyro", "hmc"), ("pyro", "nuts"), ("hamiltorch", "hmc")],
)
def test_moments_within_monte_carlo_error(backend, sampler, name):
    need(backend)
    target = TARGETS[name]
    k = 2 if backend != "native" else 8
    settings = dataclasses.replace(MOMENTS, sampler=sampler)
    draws = sample(backend, target.log_density, target.start(k), settings, seeds=range(k))
    assert draws.params.shape == (k, 150, len(target.mean))
    assert worst_z(draws.params, target) < 4.5
    # small enough for the mistakes below to be seen
    assert max(float(az.mcse(x.numpy())) for x in (draws.params / target.variance.sqrt()).unbind(2)) < 0.15
    torch.testing.assert_close(draws.log_density[0], target.log_density(draws.params[0]).double(), rtol=1e-6, atol=1e-6)
    assert 0.5 < float(draws.accept_prob.mean()) <= 1.0
    assert not draws.diverged.any()
    assert (draws.gradients > draws.sampling_gradients).all()
    if sampler == "hmc":
        # hamiltorch takes the gradient at the start of each trajectory anew
        each = 5 if backend == "hamiltorch" else 4
        assert draws.sampling_gradients.tolist() == [150.0 * each] * k


def test_the_moments_see_a_wrong_prior_and_a_flipped_kinetic_sign(monkeypatch):
    """The same bound, eight chains: what one backend would show if its target or its acceptance test were another one."""
    truth, wrong = linear_regression(prior_std=0.7), linear_regression(prior_std=0.49)
    draws = sample("native", wrong.log_density, wrong.start(8), MOMENTS, seeds=range(8))
    assert worst_z(draws.params, wrong) < 4.5 < worst_z(draws.params, truth)
    # at a constant step size, because adaptation would not know when to stop
    target, kernel = (
        TARGETS["gaussian"],
        hmc(TARGETS["gaussian"].log_density, HMCConfig(step_size=0.3, leapfrog_steps=5)),
    )

    def worst():
        generators = ChainGenerators.from_seeds("cpu", range(8))
        chains = run(kernel, target.start(8), steps=400, burn_in=150, generators=generators)
        return worst_z(torch.stack([state.params for state, _ in chains], dim=1), target)

    right = worst()
    module = sys.modules["bpc.samplers.hmc"]  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "kinetic_energy", lambda r, inverse_mass: -kinetic_energy(r, inverse_mass))
    assert right < 4.5 < worst()


@pytest.mark.parametrize(
    ("backend", "sampler"),
    [("native", "hmc"), ("native", "nuts"), ("pyro", "hmc"), ("pyro", "nuts"), ("hamiltorch", "hmc")],
)
def test_a_trajectory_into_nan_is_a_divergence_and_never_a_draw(backend, sampler):
    """Beyond 0 the gradient is nan and the density is not: momentum, energy and the next parameters become nan."""
    need(backend)

    def density(x):
        return -0.5 * x.square().sum(1) + 0.0 * (x.abs() - x).sqrt().sum(1)

    settings = dataclasses.replace(MOMENTS, sampler=sampler, samples=100)
    draws = sample(backend, density, torch.full((2, 1), -1.0, dtype=torch.float64), settings, seeds=range(2))
    assert float(draws.params.max()) <= 0.0
    assert draws.diverged.any() and not draws.diverged.all()
    if sampler == "hmc":
        assert float(draws.accept_prob[draws.diverged].max()) < 1e-9
        stayed = (draws.params[:, 1:] == draws.params[:, :-1]).all(2)
        assert torch.equal(stayed | ~draws.diverged[:, 1:], torch.ones_like(stayed))
        # the probabilities are those by which the chain moved
        assert 1 - float(stayed.double().mean()) == pytest.approx(float(draws.accept_prob.mean()), abs=0.08)


@pytest.mark.parametrize("backend", ["native", *INSTALL])
def test_samples_start_where_the_warm_up_ended(backend):
    """From a thousand standard deviations away, one leapfrog step per draw: no chain may go back there. (hamiltorch's sampler
    does so when it rejects the first draw after its burn-in, here in four chains of twenty.)"""
    need(backend)
    settings = BackendSettings(warmup=300, samples=1, leapfrog_steps=1)
    start = torch.full((12, 1), 1000.0, dtype=torch.float64)
    draws = sample(backend, lambda x: -0.5 * x.square().sum(1), start, settings, seeds=range(12))
    assert float(draws.params.abs().max()) < 5.0


@pytest.mark.slow
def test_a_small_network_s_posterior(digits):
    """Predictive probabilities, because weights have symmetries: native and Pyro agree within their Monte Carlo errors."""
    need("pyro")
    net = ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)
    index = torch.stack([torch.nonzero(digits.train.labels == y)[0, 0] for y in range(10)])
    points, labels = digits.normalise(digits.train.images[index]), digits.train.labels[index]
    posterior = Posterior(Classifier(net), points, labels, torch.full((10,), 20.0), prior=isotropic(0.3))
    test = digits.normalise(digits.test.images[:20])
    settings = BackendSettings(sampler="hmc", warmup=60, samples=100, leapfrog_steps=8, step_size=0.02)
    found = {}
    for backend in ("native", "pyro"):
        k = 3
        start = 0.3 * torch.stack([net.init(1, make_generator("cpu", i))[0].sign() * 0.1 for i in range(k)])
        draws = sample(backend, posterior, start, settings, seeds=range(k))
        with torch.no_grad():
            probs = net(draws.params.flatten(0, 1), test).softmax(-1).view(k, 100, 20, 10)
        found[backend] = probs.gather(-1, digits.test.labels[:20].view(1, 1, -1, 1).expand(k, 100, 20, 1))[
            ..., 0
        ].numpy()
    z = []
    for i in range(20):
        a, b = found["native"][..., i], found["pyro"][..., i]
        error = (float(az.mcse(a)) ** 2 + float(az.mcse(b)) ** 2) ** 0.5
        z.append(abs(float(a.mean() - b.mean())) / error)
    assert max(z) < 4.5, z
    spread = found["native"].mean((0, 1))
    assert spread.max() - spread.min() > 0.3, "the posterior says nothing, so agreement would mean nothing"


@pytest.mark.parametrize("backend", ["native", *INSTALL])
def test_same_seed_same_bits_and_the_caller_s_randomness_is_left_alone(backend):
    need(backend)
    target = TARGETS["gaussian"]
    settings = BackendSettings(warmup=10, samples=10, leapfrog_steps=3)

    def seed_everything():
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)

    def both():
        return sample(backend, target.log_density, target.start(2), settings, seeds=[3, 4]).params

    seed_everything()
    first = both()
    after = torch.rand(1), np.random.rand(), random.random()
    seed_everything()
    assert after == (torch.rand(1), np.random.rand(), random.random())
    assert torch.equal(first, both())
    assert not torch.equal(first[0], first[1])


def test_the_shield_holds_when_something_fails():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), isolated_randomness():
        torch.manual_seed(123)
        raise KeyError
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_are_counted_where_they_are_taken():
    counted = Counted(lambda x: -x.square().sum(1))
    x = torch.ones(1, 2, requires_grad=True)
    counted(x)
    with torch.no_grad():
        counted(x)
    assert counted.gradients == 0
    counted(x).sum().backward()
    assert counted.gradients == 1


def test_refusals():
    target, settings = TARGETS["gaussian"], BackendSettings(sampler="nuts")
    with pytest.raises(ConfigError, match="choose from"):
        sample("stan", target.log_density, target.start(1), settings, seeds=[0])
    with pytest.raises(ConfigError, match="2 seeds for 1 chains"):
        foreign.sample("pyro", [target.log_density], target.start(1), settings, seeds=[0, 1])
    with pytest.raises(ConfigError, match="1 densities for 2 chains"):
        foreign.sample("pyro", [target.log_density], target.start(2), settings, seeds=[0, 1])
    with pytest.raises(ConfigError, match="sampler"):
        BackendSettings(sampler="gibbs")
    need("hamiltorch")
    with pytest.raises(ConfigError, match="no NUTS"):
        sample("hamiltorch", target.log_density, target.start(1), settings, seeds=[0])


def test_a_missing_package_is_named(monkeypatch):
    import importlib

    def missing(name):
        raise ImportError("No module named 'hamiltorch'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match="pip install"):
        sample("hamiltorch", lambda x: x, torch.zeros(1, 1), BackendSettings(), seeds=[0])
