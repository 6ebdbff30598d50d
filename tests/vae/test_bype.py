"""The pseudocoreset's gradient against the exact KL of a linear-Gaussian decoder, its steps against Adam's, its weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from gaussian import cubature, finite_differences, kl
from torch import nn

from bpc.coreset import load_coreset
from bpc.errors import ConfigError
from bpc.vae.likelihoods import LIKELIHOODS, make_likelihood
from bpc.vae.models import ModelConfig, build_model
from bpc.vae.priors import BypePrior, DecoderLikelihood, TrainingData

N, M = 30, 4


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def case(linear_vae, monkeypatch):
    """A decoder in general position, N images, M points with unequal weights that sum to N, and the exact posterior's moments as
    draws: the two posteriors of Eq. 15 are then Gaussians, and averages over the draws are expectations.
    """
    with torch.no_grad():
        linear_vae.weight.copy_(0.3 * torch.randn(6, 2, generator=seeded(1), dtype=torch.float64))
    data = 0.2 + 0.5 * torch.rand(N, 1, 2, 3, generator=seeded(2), dtype=torch.float64)
    prior = BypePrior(0.9 - 0.8 * data[:M], N, step=0.05, batch=10).double()
    prior.weights.copy_(torch.tensor([2.0, 15.0, 9.0, 4.0]))

    def exact_draws(count, model, generator):
        return cubature(*model.posterior(prior.points, prior.centred_weights())), None

    monkeypatch.setattr(prior, "sample", exact_draws)
    return linear_vae, prior, data


def divergence(model, points, weights, data):
    """KL[p(z | U, w) || p(z | X)], nats."""
    return kl(model.posterior(points, weights), model.posterior(data, torch.ones(len(data), dtype=torch.float64)))


def test_gradient_is_that_of_the_exact_kl(case):
    model, prior, data = case
    du, dw = prior.gradient(model, data, seeded())
    exact_u = finite_differences(lambda u: divergence(model, u, prior.weights, data), prior.points)
    exact_w = finite_differences(lambda w: divergence(model, prior.points, w, data), prior.weights)
    assert float(exact_u.abs().max()) > 0.1 and float(exact_w.abs().max()) > 1e-3
    torch.testing.assert_close(du, exact_u, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dw, exact_w, rtol=1e-6, atol=1e-6)


def test_a_minibatch_counts_for_all_images(case):
    model, prior, data = case
    whole = prior.gradient(model, data, seeded())
    thirds = [prior.gradient(model, part, seeded()) for part in data.split(10)]
    for i in range(2):
        torch.testing.assert_close(sum(t[i] for t in thirds) / 3, whole[i])


def test_updates_bring_the_posteriors_together(case):
    model, prior, data = case
    before = {k: v.clone() for k, v in model.state_dict().items()}
    values = [float(divergence(model, prior.points, prior.centred_weights(), data))]
    for epoch in range(4):
        prior.update(model, TrainingData(data), seeded(epoch))
        values.append(float(divergence(model, prior.points, prior.centred_weights(), data)))
    assert values[0] > 1.0
    assert all(after < earlier for earlier, after in itertools.pairwise(values[:3]))
    assert values[-1] < 0.25 * values[0]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert int(prior.taken) == 4 * 3  # N / B steps per update
    assert float(prior.points.min()) >= 0 and float(prior.points.max()) <= 1


def test_decoder_likelihood(linear_vae):
    z = torch.randn(3, 2, generator=seeded(), dtype=torch.float64)
    x = torch.rand(4, 1, 2, 3, generator=seeded(), dtype=torch.float64)
    found = DecoderLikelihood(linear_vae)(z, x, torch.zeros(4))
    expected = torch.distributions.Normal(linear_vae.decode(z), linear_vae.likelihood.std).log_prob(x).sum((2, 3, 4))
    torch.testing.assert_close(found, expected)


def test_steps_are_adams_with_a_falling_size(case, monkeypatch):
    """Against torch's optimiser: afresh every update, gamma / t over all updates, weights in units of N / m."""
    model, prior, data = case
    draws = seeded(7)
    fed = [
        (torch.randn(prior.points.shape, generator=draws).double(), torch.randn(M, generator=draws).double())
        for _ in range(6)
    ]
    gradients = iter(fed)
    monkeypatch.setattr(prior, "gradient", lambda *_: next(gradients))
    points, weights = nn.Parameter(prior.points.clone()), nn.Parameter(prior.weights.clone())
    t = 0
    for update in range(2):
        weights.data += N / M - weights.data.mean()  # line 2 of Algorithm 2
        adam = torch.optim.Adam([{"params": [points]}, {"params": [weights]}])
        for du, dw in fed[3 * update : 3 * update + 3]:
            t += 1
            adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = 0.05 / t, 0.05 / t * N / M
            points.grad, weights.grad = du, dw
            adam.step()
            points.data.clamp_(0, 1)
            weights.data.clamp_(min=0)
        prior.update(model, TrainingData(data), seeded())
        torch.testing.assert_close(prior.points, points.data)
        torch.testing.assert_close(prior.weights, weights.data)


def test_epochs_of_updates(case, monkeypatch):
    model, prior, data = case
    prior.interval = 3
    happened, epoch = [], 0
    monkeypatch.setattr(prior, "update", lambda *_: happened.append(epoch))
    for epoch in range(1, 11):
        prior.begin_epoch(epoch, model, TrainingData(data), seeded())
    assert happened == [4, 7, 10]


def test_centred_weights_by_hand():
    prior = BypePrior(torch.zeros(3, 1, 2, 2), 6)
    assert prior.centred_weights().tolist() == [2.0, 2.0, 2.0]
    prior.weights.copy_(torch.tensor([0.0, 1.0, 8.0]))  # mean 3, wanted 2: -1 0 7, clipped, scaled
    assert prior.centred_weights().tolist() == pytest.approx([0.0, 0.0, 6.0])
    prior.weights.copy_(torch.tensor([11.0, 12.0, 13.0]))
    assert prior.centred_weights().tolist() == pytest.approx([1.0, 2.0, 3.0])
    torch.testing.assert_close(prior.pseudo_inputs()[1], torch.tensor([1.0, 2.0, 3.0]) / 6)


def test_centred_weights_are_weights():
    generator = seeded()
    prior = BypePrior(torch.zeros(7, 1, 2, 2), 50)
    for scale in (0.1, 5.0, 500.0):
        prior.weights.copy_(scale * torch.rand(7, generator=generator).pow(4))
        found = prior.centred_weights()
        assert float(found.min()) >= 0
        assert float(found.sum()) == pytest.approx(50, rel=1e-5)


def test_a_point_without_weight_has_no_component(grey):
    model = build_model(ModelConfig(latent=2, hidden=8), (1, 6, 6), make_likelihood("mse"), seeded())
    images = grey(3, (1, 6, 6))
    three, two = BypePrior(images, 6), BypePrior(images[1:], 6)
    three.weights.copy_(torch.tensor([0.0, 1.0, 5.0]))
    two.weights.copy_(torch.tensor([1.0, 5.0]))
    z = torch.randn(4, 2, generator=seeded())
    found = three.log_prob(z, model)
    torch.testing.assert_close(found, two.log_prob(z, model))
    gradients = torch.autograd.grad(found.sum(), [three.log_var, model.mean.weight])
    assert all(torch.isfinite(g).all() for g in gradients)
    assert not (three.sample(500, model, seeded())[1] == 0).any()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_moves_points_and_weights(name, grey):
    images = grey(20, (1, 6, 6))
    model = build_model(ModelConfig(latent=2, hidden=8), (1, 6, 6), make_likelihood(name), seeded())
    prior = BypePrior(images[:5], 20, batch=5, samples=12, steps=2)
    prior.update(model, TrainingData(images), seeded())
    assert int(prior.taken) == 2
    assert torch.isfinite(prior.points).all() and torch.isfinite(prior.weights).all()
    assert float((prior.points - images[:5]).abs().max()) > 0.01
    assert float((prior.weights - 4.0).abs().max()) > 0.01


@pytest.mark.parametrize("change", [{"interval": 0}, {"step": -1.0}, {"samples": 1}, {"batch": 0}])
def test_refused_settings(change):
    with pytest.raises(ConfigError, match="ByPE needs"):
        BypePrior(torch.zeros(3, 1, 2, 2), 6, **change)


def test_the_pseudocoreset_is_handed_on(grey, tmp_path):
    images = grey(20, (1, 6, 6))
    model = build_model(ModelConfig(latent=2, hidden=8), (1, 6, 6), make_likelihood("mse"), seeded())
    prior = BypePrior(images[:5], 20, batch=5, samples=12, steps=2)
    prior.update(model, TrainingData(images), seeded())
    prior.pseudocoreset("mnist").save(tmp_path / "coreset.safetensors")
    found = load_coreset(tmp_path / "coreset.safetensors")
    torch.testing.assert_close(found.images, prior.points)
    torch.testing.assert_close(found.weights, prior.centred_weights())
    assert (found.method, found.dataset, found.num_classes) == ("bype", "mnist", 1)


def test_files_that_hold_adam_s_moments_are_read():
    """As earlier versions wrote them."""
    prior, again = BypePrior(torch.rand(3, 1, 2, 2), 6), BypePrior(torch.zeros(3, 1, 2, 2), 6)
    assert not any("mean" in name or "square" in name for name in prior.state_dict())
    more = {f"{name}_{moment}": torch.ones(3) for name in ("points", "weights") for moment in ("mean", "square")}
    again.load_state_dict(prior.state_dict() | more)
    assert torch.equal(again.points, prior.points)
