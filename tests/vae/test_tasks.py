"""Neighbours, paths, augmentation, scores: against brute force and by what has to hold."""

from __future__ import annotations

import math

import pytest
import torch

from bpc.errors import ConfigError, DataError
from bpc.vae.data import ImageData, ImageSplit, pick
from bpc.vae.likelihoods import make_likelihood
from bpc.vae.models import ModelConfig, build_model, draw_normal
from bpc.vae.priors import PRIORS, PriorConfig, build_prior
from evaluation.vae.score import score
from evaluation.vae.tasks import augment, companions, embed, interpolate, knn_accuracy, latents, samples_of

SHAPE = (1, 6, 6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def labelled(images):
    """Bumps on the left are 0, on the right 1."""
    columns = images.mean((1, 2)) @ torch.linspace(-1, 1, images.shape[-1])
    return ImageSplit(images, (columns > 0).long())


@pytest.fixture
def data(grey):
    parts = [labelled(grey(n, SHAPE, seed)) for seed, n in enumerate((60, 20, 30))]
    return ImageData("bumps", *parts)


def tiny(name="vae", likelihood="mse"):
    return build_model(
        ModelConfig(name=name, latent=2, hidden=8, width=4), SHAPE, make_likelihood(likelihood), seeded(5)
    )


def a_prior(name, data):
    return build_prior(PriorConfig(name=name, components=5), 2, data.train.images, seeded(1))


def test_nearest_neighbours_by_brute_force():
    train, test = torch.randn(60, 3, generator=seeded()), torch.randn(40, 3, generator=seeded(1))
    centres = torch.randn(3, 3, generator=seeded(2))
    train_labels, test_labels = torch.cdist(train, centres).argmin(1), torch.cdist(test, centres).argmin(1)
    found = knn_accuracy(train, train_labels, test, test_labels, (1, 3, 8))
    assert list(found) == [1, 3, 8]
    for k, accuracy in found.items():
        right = 0
        for row, label in zip(test, test_labels, strict=True):
            votes = train_labels[(train - row).square().sum(1).argsort()[:k]].bincount(minlength=3)
            right += int(votes.argmax()) == int(label)
        assert accuracy == pytest.approx(right / 40)
    assert 0.5 < found[3] < 1.0


def test_neighbours_need_labels():
    with pytest.raises(DataError, match="labels"):
        knn_accuracy(torch.zeros(3, 2), torch.full((3,), -1), torch.zeros(3, 2), torch.zeros(3))


@pytest.mark.parametrize("name", ["vae", "hvae"])
def test_paths_end_at_the_reconstructions(name, data):
    model, x = tiny(name), data.test.images
    paths = interpolate(model, x[:4], x[4:8], steps=5)
    assert paths.shape == (4, 5, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(paths[:, 0], model.reconstruct(x[:4]))
        torch.testing.assert_close(paths[:, -1], model.reconstruct(x[4:8]))
        middle = (model.encode(x[:4])[0] + model.encode(x[4:8])[0]) / 2
        torch.testing.assert_close(paths[:, 2], model.likelihood.mean(model.decode(middle)))


def test_latents_are_posterior_means(grey):
    model, images = tiny(), grey(1003, SHAPE)
    torch.testing.assert_close(latents(model, images), model.encode(images)[0].detach())


def test_samples_come_from_their_components(data):
    model, prior = tiny(), a_prior("bype", data)
    with torch.no_grad():
        prior.log_var.fill_(-20.0)  # every draw is its component's mean
    images, chosen = samples_of(model, prior, 600, seeded())
    assert images.shape == (600, *SHAPE) and not images.requires_grad
    expected = model.likelihood.mean(model.decode(prior.components(model).means)).detach()
    torch.testing.assert_close(images, expected[chosen], atol=1e-3, rtol=1e-3)


def test_maps_are_two_dimensional_and_repeatable(data):
    points = torch.randn(12, 4, generator=seeded())  # fewer than the usual perplexity
    first = embed(points, 0)
    assert first.shape == (12, 2)
    assert (first == embed(points, 0)).all()


SETTINGS = {"epochs": 4, "lr": 1e-2, "batch_size": 20, "seed": 0}


def test_real_images_alone_do_not_know_the_model(data):
    """Lambda 1 is the same for every prior and model, and different from lambda 0."""
    errors = set()
    for prior_name, model_name in (("gaussian", "vae"), ("bype", "hvae")):
        model = tiny(model_name)
        (result,) = augment(
            model, a_prior(prior_name, data), data.train, data.test, weights=(1.0,), way="posterior", **SETTINGS
        )
        assert (result.weight, result.way) == (1.0, "posterior")
        errors.add(result.test_error)
    assert len(errors) == 1
    (error,) = errors
    assert error < 0.25  # left from right is easy
    noise = tiny()
    with torch.no_grad():
        noise.decoder[-1].weight.zero_()  # generated images that say nothing
    alone, mixed = augment(
        noise, a_prior("gaussian", data), data.train, data.test, weights=(0.0, 0.5), way="posterior", **SETTINGS
    )
    assert alone.test_error > 0.3
    assert mixed.test_error < 0.25


def test_generated_images_teach_too(data, monkeypatch):
    """Perfect companions are as good as the images themselves, whatever lambda."""
    monkeypatch.setattr("evaluation.vae.tasks.companions", lambda model, prior, x, way, generator: x)
    results = augment(
        tiny(), a_prior("gaussian", data), data.train, data.test, weights=(0.0, 1.0), way="posterior", **SETTINGS
    )
    errors = [r.test_error for r in results]
    assert errors[0] == errors[1] < 0.25


def test_companions_are_drawn_around_the_image(data):
    model, prior, x = tiny(), a_prior("bype", data), data.train.images[:6]
    with torch.no_grad():
        prior.log_var.fill_(0.7)
        mean, log_var = model.encode(x)
        posterior = model.generate(draw_normal(mean, log_var, seeded()), seeded())
        component = model.generate(draw_normal(mean, torch.full_like(mean, 0.7), seeded()), seeded())
    torch.testing.assert_close(companions(model, prior, x, "posterior", seeded()), posterior)
    torch.testing.assert_close(companions(model, prior, x, "prior", seeded()), component)


@pytest.mark.parametrize("name", PRIORS.names())
def test_which_priors_have_a_component_on_an_image(name, data):
    results = augment(
        tiny(), a_prior(name, data), data.train, data.test, weights=(0.5,), way="prior", **{**SETTINGS, "epochs": 1}
    )
    if name in ("exemplar", "bype"):
        assert 0 <= next(results).test_error <= 1
    else:
        with pytest.raises(DataError, match="no component on an image"):
            next(results)


def test_augmentation_reports_and_refuses(data):
    prior, done = a_prior("gaussian", data), []
    list(
        augment(
            tiny(), prior, data.train, data.test, weights=(0.5, 1.0), way="posterior", report=done.append, **SETTINGS
        )
    )
    assert done == list(range(1, 9))
    with pytest.raises(ConfigError, match="way"):
        next(augment(tiny(), prior, data.train, data.test, weights=(0.5,), way="both", **SETTINGS))
    blank = ImageSplit(data.train.images, torch.full((60,), -1))
    with pytest.raises(DataError, match="labels"):
        next(augment(tiny(), prior, blank, data.test, weights=(0.5,), way="posterior", **SETTINGS))


def test_picked_images_are_evenly_spaced(data):
    split = ImageSplit(data.test.images, torch.arange(30))
    assert pick(split, 4).labels.tolist() == [0, 10, 19, 29]
    for count in (0, 30, 99):
        assert pick(split, count) is split


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
def test_scores(data, likelihood):
    model, prior = tiny(likelihood=likelihood), a_prior("vampprior", data)
    done = []
    found = score(model, prior, data, samples=30, test_images=8, seed=0, report=done.append)
    metrics = found.metrics
    assert found.log_likelihoods.shape == (8,) and done[-1] == 8
    assert metrics["nll_is"] == pytest.approx(-float(found.log_likelihoods.mean()))
    assert metrics["elbo"] == pytest.approx(metrics["reconstruction"] - metrics["kl"])
    assert metrics["active_units"] in (0.0, 1.0, 2.0)
    bits = metrics["nll_is"] / (36 * math.log(2))
    assert metrics.get("bits_per_dim") == (pytest.approx(bits) if likelihood == "logistic" else None)
    accuracy = knn_accuracy(
        latents(model, data.train.images), data.train.labels, latents(model, data.test.images), data.test.labels, (5,)
    )
    assert metrics["knn_accuracy@5"] == accuracy[5]
    again = score(model, prior, data, samples=30, test_images=8, seed=0)
    assert torch.equal(again.log_likelihoods, found.log_likelihoods)
    blank = ImageData("bumps", ImageSplit(data.train.images, torch.full((60,), -1)), data.validation, data.test)
    assert not any(k.startswith("knn") for k in score(model, prior, blank, samples=1, test_images=2, seed=0).metrics)
