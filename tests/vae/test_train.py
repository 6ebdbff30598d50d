"""Normalised Adam, warm-up, early stopping, and runs that go on from a checkpoint bit for bit."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import nn

from bpc.errors import ConfigError, FileFormatError, NumericalError
from bpc.vae.data import ImageSplit
from bpc.vae.likelihoods import make_likelihood
from bpc.vae.models import ModelConfig, build_model
from bpc.vae.priors import PriorConfig, build_prior
from bpc.vae.train import NormalisedAdam, TrainConfig, load_state, new_state, save_state, train, validate

training = importlib.import_module("bpc.vae.train")  # the package's `train` is the function
SHAPE = (1, 6, 6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def splits(grey):
    return tuple(ImageSplit(grey(n, SHAPE, seed), torch.zeros(n, dtype=torch.long)) for seed, n in enumerate((50, 20)))


def fresh(config, splits, prior="gaussian", model="vae", likelihood="bernoulli", **settings):
    start = seeded(9)
    net = build_model(ModelConfig(name=model, latent=2, hidden=8, width=4), SHAPE, make_likelihood(likelihood), start)
    chosen = PriorConfig(name=prior, **{"components": 6, "interval": 2, "coreset_batch": 20, **settings})
    return new_state(net, build_prior(chosen, 2, splits[0].images, start), config)


def test_normalised_adam_is_adam_on_unit_gradients():
    generator = seeded()
    start = [torch.randn(4, 3, generator=generator), torch.randn(5, generator=generator), torch.randn(2)]
    mine, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    optimiser, adam = NormalisedAdam(mine, 1e-2), torch.optim.Adam(theirs, lr=1e-2)
    for step in range(5):
        gradients = [torch.randn(t.shape, generator=generator) * 10.0**step for t in start[:2]]
        optimiser.step((*gradients, None))
        for p, g in zip(theirs, gradients, strict=False):
            p.grad = g / g.norm()
        adam.step()
    for a, b, s in zip(mine, theirs, start, strict=True):
        torch.testing.assert_close(a, b)
        assert torch.equal(a, s) == (s is start[2])  # without a gradient nothing moves


def test_a_gradient_of_zero_is_no_step():
    p = nn.Parameter(torch.ones(3))
    NormalisedAdam([p], 0.1).step((torch.zeros(3),))
    assert torch.equal(p, torch.ones(3))


def test_warm_up():
    config = TrainConfig(warmup=4)
    assert [config.factor(epoch) for epoch in (1, 2, 4, 5, 900)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert TrainConfig(warmup=0).factor(1) == 1.0


@pytest.mark.parametrize("prior", ["gaussian", "exemplar"])
def test_the_first_step_by_hand(splits, prior):
    """The KL has the warm-up's weight, and an image does not see its own exemplar."""
    config = TrainConfig(lr=1e-2, batch_size=50, epochs=1, warmup=5)
    state, twin = (fresh(config, splits, prior, likelihood="mse", components=0) for _ in range(2))
    next(train(state, *splits, config, seed=3))
    x = splits[0].images
    order = next(iter(training.batches(50, 50, training.make_generator("cpu", 3, "vae", "order", 1))))
    found = training.elbo(twin.model, twin.prior, x[order], training.make_generator("cpu", 3, "vae", "epoch", 1), order)
    loss = (0.2 * found.kl - found.reconstruction).mean()
    learned = [*twin.model.parameters(), *twin.prior.parameters()]
    adam = torch.optim.Adam(learned, lr=1e-2)
    loss.backward()
    for p in learned:
        p.grad /= p.grad.norm() + 1e-7
    adam.step()
    for a, b in zip(state.optimiser.params, learned, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_training_raises_the_bound(splits):
    config = TrainConfig(lr=1e-2, batch_size=10, epochs=15, warmup=0)
    state = fresh(config, splits, likelihood="mse")
    records = list(train(state, *splits, config, seed=0))
    assert [r.epoch for r in records] == list(range(1, 16))
    assert records[-1].validation_elbo > records[0].validation_elbo + 0.5
    for r in records:
        assert r.train_elbo == pytest.approx(r.reconstruction - r.kl)
    assert state.best_elbo == max(r.validation_elbo for r in records)
    assert state.best_epoch == max(r.epoch for r in records if r.best)
    state.restore(state.best)
    assert validate(state.model, state.prior, splits[1], seed=0)[0] == state.best_elbo


def test_validation_is_a_mean_whatever_the_batches(splits):
    state = fresh(TrainConfig(), splits, likelihood="mse")
    means = torch.tensor(
        [validate(state.model, state.prior, splits[1], seed, batch) for batch in (20, 7) for seed in range(300)],
        dtype=torch.float64,
    )
    torch.testing.assert_close(means[:300].mean(0), means[300:].mean(0), rtol=0.01, atol=0.02)
    assert validate(state.model, state.prior, splits[1], 0) == validate(state.model, state.prior, splits[1], 0)


def test_validation_images_have_no_exemplar_of_their_own(splits):
    state = fresh(TrainConfig(), splits, "exemplar", likelihood="mse")
    bound, reconstruction, kl = validate(state.model, state.prior, splits[1], seed=7)
    generator = training.make_generator("cpu", 7, "validation")
    with torch.no_grad():
        found = training.elbo(state.model, state.prior, splits[1].images, generator)
    assert (reconstruction, kl) == pytest.approx((float(found.reconstruction.mean()), float(found.kl.mean())))
    assert bound == pytest.approx(reconstruction - kl)


@pytest.mark.parametrize(
    ("bounds", "warmup", "stops"),
    [
        ([1.0, 2.0, 1.5, 1.9, 1.0, 1.0, 9.0], 0, 5),  # three epochs without a better one than the second
        ([9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 3, 6),  # the look-ahead starts after the warm-up
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 0, 8),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 0, 4),  # as good is not better
    ],
)
def test_early_stopping(splits, monkeypatch, bounds, warmup, stops):
    answers = iter(bounds)
    monkeypatch.setattr(training, "validate", lambda *_: (next(answers), 0.0, 0.0))
    config = TrainConfig(epochs=8, patience=3, warmup=warmup)
    state = fresh(config, splits)
    records = list(train(state, *splits, config, seed=0))
    assert len(records) == stops
    best = max(range(stops), key=lambda i: bounds[i])
    assert (state.best_epoch, state.best_elbo) == (best + 1, bounds[best])
    assert [r.epoch for r in records if r.best][-1] == best + 1
    assert list(train(state, *splits, config, seed=0)) == []


def test_the_best_is_a_copy(splits, monkeypatch):
    answers = iter([2.0, 1.0])
    monkeypatch.setattr(training, "validate", lambda *_: (next(answers), 0.0, 0.0))
    config = TrainConfig(epochs=2)
    state = fresh(config, splits, "vampprior")
    epochs = train(state, *splits, config, seed=0)
    next(epochs)
    first = {k: v.clone() for k, v in state.current().items()}
    next(epochs)
    assert all(torch.equal(state.best[k], first[k]) for k in first)
    assert not torch.equal(state.current()["prior.inputs"], first["prior.inputs"])


@pytest.mark.parametrize(
    ("prior", "settings"),
    [
        ("bype", {}),
        ("vampprior", {}),
        ("vampprior-weighted", {}),
        ("mog", {}),
        ("exemplar", {"components": 20}),
        ("exemplar", {"components": 0, "neighbours": 3}),
    ],
)
@pytest.mark.parametrize("model", ["vae", "convhvae"])
def test_going_on_gives_the_same_bits(splits, tmp_path, model, prior, settings):
    config = TrainConfig(lr=5e-3, batch_size=20, epochs=6, warmup=2)
    whole = fresh(config, splits, prior, model, **settings)
    all_at_once = list(train(whole, *splits, config, seed=4))

    first = fresh(config, splits, prior, model, **settings)
    epochs = train(first, *splits, config, seed=4)
    records = [next(epochs) for _ in range(3)]
    save_state(first, tmp_path / "c.safetensors", "abc")
    second = fresh(config, splits, prior, model, **settings)
    with torch.no_grad():
        for p in [*second.model.parameters(), *second.prior.parameters()]:
            p.add_(1.0)  # nothing of the fresh objects may survive
    load_state(second, tmp_path / "c.safetensors", "abc")
    records += list(train(second, *splits, config, seed=4))

    numbers = [r._replace(seconds=0.0, prior_seconds=0.0) for r in all_at_once]
    assert numbers == [r._replace(seconds=0.0, prior_seconds=0.0) for r in records]
    for a, b in (
        (whole.current(), second.current()),
        (whole.best, second.best),
        (whole.optimiser.state(), second.optimiser.state()),
    ):
        assert a.keys() == b.keys() and a
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert (whole.best_epoch, whole.best_elbo) == (second.best_epoch, second.best_elbo)
    if prior == "bype":
        assert int(second.prior.taken) == 2 * 2  # in epochs 3 and 5, N // B steps each
        begun = fresh(config, splits, prior, model).prior
        assert not torch.equal(second.prior.points, begun.points)


def test_a_checkpoint_of_an_untrained_state(splits, tmp_path):
    config = TrainConfig(epochs=1)
    state, other = fresh(config, splits), fresh(config, splits)
    save_state(state, tmp_path / "c.safetensors", "abc")
    load_state(other, tmp_path / "c.safetensors", "abc")
    assert (other.epoch, other.best, other.best_elbo) == (0, {}, -math.inf)


def test_anothers_checkpoint_is_refused(splits, tmp_path):
    state = fresh(TrainConfig(), splits)
    save_state(state, tmp_path / "c.safetensors", "abc")
    before = {k: v.clone() for k, v in state.current().items()}
    with pytest.raises(FileFormatError, match="another configuration"):
        load_state(state, tmp_path / "c.safetensors", "abd")
    assert all(torch.equal(before[k], v) for k, v in state.current().items())


def test_divergence_is_an_error(splits):
    config = TrainConfig(lr=1e-3, epochs=3)
    state = fresh(config, splits)
    with torch.no_grad():
        next(state.model.parameters()).fill_(float("nan"))
    with pytest.raises(NumericalError, match=r"epoch 1; lower the learning rate \(now 0.001\)"):
        next(train(state, *splits, config, seed=0))
    assert state.epoch == 0 and state.best == {}


@pytest.mark.parametrize("change", [{"lr": 0.0}, {"batch_size": 0}, {"epochs": 0}, {"patience": 0}, {"warmup": -1}])
def test_refused_settings(change):
    with pytest.raises(ConfigError, match="Training needs"):
        TrainConfig(**change)
