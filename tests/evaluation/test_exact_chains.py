"""Exact sampling: the density, the chains, what is recorded of them."""

import pytest
import torch
import torch.nn.functional as F
from exact_scoring import config, random_coreset

from bpc.errors import ConfigError
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.posterior import Posterior
from bpc.samplers.backends import available
from bpc.selection import build_coreset, unweighted
from bpc.weight_prior import isotropic
from evaluation import exact_chains
from evaluation.exact_chains import ExactConfig, chain_seeds, sample_exact
from evaluation.fidelity import fidelity
from evaluation.inputs import Inputs
from evaluation.predictive import pick_images
from evaluation.protocols import EXACT_SAMPLERS, ExactSettings, exact_plan


@pytest.mark.parametrize("sampler", ["hmc", "nuts"])
def test_the_density_is_log_likelihood_plus_log_prior(net, coreset, sampler):
    weights = torch.arange(1.0, 11.0)
    params = 0.3 * torch.randn(3, net.num_params, generator=torch.Generator().manual_seed(0))
    posterior = Posterior(Classifier(net), coreset.points, coreset.labels, weights, prior=isotropic(0.2))
    settings = ExactSettings(sampler=sampler, prior_std=0.2, warmup=0)
    state = exact_plan(posterior, settings).kernel.init(params, None)
    log_lik = torch.stack(
        [-(weights * F.cross_entropy(o, coreset.labels, reduction="none")).sum() for o in net(params, coreset.points)]
    )
    prior = torch.distributions.Normal(0.0, 0.2)
    constant = prior.log_prob(torch.zeros(net.num_params)).sum()
    expected = log_lik + prior.log_prob(params).sum(1) - constant
    torch.testing.assert_close(state.log_density, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sampler", ["hmc", "nuts", "sghmc", "csghmc", "pt", "smc"])
def test_what_is_recorded_is_what_was_sampled(net, digits, coreset, inputs, sampler, monkeypatch):
    """Predictive and traces against the samples themselves, caught on their way."""
    caught = []
    original = exact_chains._Recorder.add
    monkeypatch.setattr(
        exact_chains._Recorder,
        "add",
        lambda self, state, info: (caught.append(state.params), original(self, state, info)),
    )
    settings = config(sampler=sampler, max_tree_depth=3, batch=4 if sampler == "sghmc" else 0, predictive_draws=4)
    (result,) = sample_exact(net, digits, [coreset], settings, seeds=[3], inputs=inputs)
    samples = torch.stack(caught)  # (s, c, p)
    assert samples.shape == (8, 2, net.num_params)
    x = digits.normalise(inputs[0].split.images)
    probs = torch.stack([net(p, x).double().softmax(-1) for p in samples])
    torch.testing.assert_close(result.probs["test"].double(), probs[1::2].mean(0), atol=1e-6, rtol=0)
    assert set(result.probs) == {i.name for i in inputs}
    of_label = probs.gather(-1, inputs[0].split.labels.view(1, 1, -1, 1).expand(8, 2, 40, 1))[..., 0]
    torch.testing.assert_close(result.traces.prediction.double(), of_label.transpose(0, 1), atol=1e-6, rtol=0)
    posterior = Posterior(Classifier(net), coreset.points, coreset.labels, coreset.weights, prior=isotropic(1.0))
    halves = torch.stack([probs[:4].mean(0), probs[4:].mean(0)], 1)  # (c, 2, t, y)
    torch.testing.assert_close(result.halves, halves, atol=1e-6, rtol=0)
    ce = torch.stack([-posterior.log_likelihood(p, coreset.points, coreset.labels).mean(1) for p in samples]).T
    torch.testing.assert_close(result.traces.cross_entropy, ce, rtol=1e-4, atol=1e-4)  # of ten points of weight 1
    traced = {tuple(column.tolist()) for column in samples.permute(2, 0, 1).flatten(1)}
    for column in result.traces.weight.transpose(0, 1).permute(2, 0, 1).flatten(1):
        assert tuple(column.tolist()) in traced
    if sampler != "sghmc":
        density = torch.stack([posterior(p).double() for p in samples]).T
        torch.testing.assert_close(result.traces.log_density, density, rtol=1e-5, atol=1e-3)


def test_scaled_weights_sum_to_the_training_images(net, digits, coreset, inputs, monkeypatch):
    seen = {}
    original = exact_chains.sample_posterior

    def look(network, dataset, posterior, *args, **options):
        seen["weights"] = posterior.weights
        return original(network, dataset, posterior, *args, **options)

    monkeypatch.setattr(exact_chains, "sample_posterior", look)
    list(sample_exact(net, digits, [coreset], config(), seeds=[0], inputs=inputs))
    assert torch.equal(seen["weights"], coreset.weights)
    list(sample_exact(net, digits, [coreset], config("exact-scaled"), seeds=[0], inputs=inputs))
    assert float(seen["weights"].sum()) == pytest.approx(len(digits.train))


@pytest.mark.parametrize("protocol", ["exact", "exact-scaled"])
def test_seeds_together_equal_seeds_alone(net, digits, inputs, protocol):
    """Each coreset with weights of its own."""
    coresets = [random_coreset(digits, s).replace(weights=1.0 + torch.arange(10.0).roll(s)) for s in range(2)]
    together = list(sample_exact(net, digits, coresets, config(protocol), seeds=[5, 6], inputs=inputs))
    for i, result in enumerate(together):
        (alone,) = sample_exact(net, digits, [coresets[i]], config(protocol), seeds=[5 + i], inputs=inputs)
        # a stronger likelihood lets roundings grow faster along a trajectory
        tolerance = {"rtol": 1e-3, "atol": 1e-5} if protocol == "exact" else {"rtol": 1e-2, "atol": 1e-3}
        torch.testing.assert_close(alone.probs["test"], result.probs["test"], **tolerance)
    assert len({*chain_seeds(5, 4), *chain_seeds(6, 4)}) == 8


@pytest.mark.parametrize("sampler", ["hmc", "nuts", "sghmc", "csghmc", "pt", "smc"])
def test_resumed_is_uninterrupted(net, digits, coreset, inputs, tmp_path, sampler):
    settings = config(sampler=sampler, max_tree_depth=3)
    (whole,) = sample_exact(net, digits, [coreset], settings, seeds=[1], inputs=inputs)
    options = {"seeds": [1], "inputs": inputs, "file": tmp_path.joinpath, "config_hash": "x", "checkpoint_seconds": 0.0}

    def die(done, note):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(sample_exact(net, digits, [coreset], settings, report=die, **options))
    assert list(tmp_path.glob("chains-*.safetensors"))
    (resumed,) = sample_exact(net, digits, [coreset], settings, **options)
    assert all(torch.equal(resumed.probs[name], whole.probs[name]) for name in whole.probs)
    for name, trace in whole.traces._asdict().items():
        assert torch.equal(resumed.traces._asdict()[name].nan_to_num(), trace.nan_to_num()), name
    assert not list(tmp_path.glob("chains-*.safetensors"))


@pytest.mark.parametrize(("backend", "sampler"), [("pyro", "nuts"), ("hamiltorch", "hmc")])
def test_backends_fill_the_same_record(net, digits, coreset, inputs, backend, sampler):
    if not available(backend):
        pytest.skip(f"{backend} is not installed")
    settings = config(backend=backend, sampler=sampler, max_tree_depth=3, mass="diagonal", pool_step=False)
    assert settings.sampler == f"{sampler}@{backend}"
    (result,) = sample_exact(net, digits, [coreset], settings, seeds=[0], inputs=inputs[:1])
    assert result.probs["test"].shape == (2, 40, 10)
    assert torch.isfinite(result.traces.log_density).all()


def test_divergences_are_counted(net, digits, coreset, inputs):
    settings = config(warmup=0, step_size=1e4)
    (result,) = sample_exact(net, digits, [coreset], settings, seeds=[0], inputs=inputs)
    assert result.traces.diverged.all()


def test_an_informative_coreset_is_nearer_to_the_reference(digits):
    """Against the posterior of 200 images: another run, and 100 of them, are nearer than noise."""
    net = ConvNet(ConvNetConfig(width=8, depth=2), (1, 8, 8), 10)
    small = digits.__class__(**{**digits.__dict__, "train": digits.train.take(torch.arange(200))})
    settings = ExactSettings(chains=2, warmup=60, samples=40, leapfrog_steps=8, prior_std=0.3)
    test = [Inputs("test", pick_images(digits.test, 100))]
    whole = build_coreset(small, unweighted(torch.arange(200)), method="random", seed=0)
    half = build_coreset(small, unweighted(torch.arange(100)), method="random", seed=0)
    noise = half.replace(points=torch.randn(half.points.shape, generator=torch.Generator().manual_seed(0)))
    exact = ExactConfig(protocol="exact-scaled", settings=settings)
    found = {}
    for name, coreset, seed in (("again", whole, 1), ("reference", whole, 0), ("half", half, 2), ("noise", noise, 3)):
        (result,) = sample_exact(net, small, [coreset], exact, seeds=[seed], inputs=test)
        found[name] = result.probs["test"].double().mean(0)
    tv = {name: float(fidelity(p, found["reference"]).tv) for name, p in found.items()}
    assert max(tv["again"], tv["half"]) < tv["noise"] - 0.1, tv


def test_settings_that_make_no_sense():
    with pytest.raises(ConfigError, match="A-SGHMC has no exact version"):
        ExactSettings(sampler="asghmc")
    with pytest.raises(ConfigError, match="Unknown backend"):
        ExactSettings(backend="stan")
    with pytest.raises(ConfigError, match="at least 4"):
        ExactSettings(samples=2)
    with pytest.raises(ConfigError, match="sghmc"):
        ExactSettings(sampler="sghmc", backend="pyro")


@pytest.mark.parametrize(("sampler", "cost"), [("pt", 2 * 2 + 1), ("smc", None)])
def test_gradients_are_traced(net, digits, coreset, inputs, sampler, cost):
    settings = config(sampler=sampler, levels=3)
    (result,) = sample_exact(net, digits, [coreset], settings, seeds=[0], inputs=inputs[:1])
    spent = result.traces.leapfrogs
    if cost is None:  # a stage at least, and one gradient at the prior; the same for all particles of a population
        assert (spent == spent[:, :1]).all() and (spent >= 1 + 2 * 2).all()
    else:
        assert (spent == cost).all()
        assert EXACT_SAMPLERS.get(sampler).gradients(settings.settings) == cost
    assert torch.isfinite(result.traces.log_evidence).all()
