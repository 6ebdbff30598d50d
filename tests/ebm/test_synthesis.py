"""Class-conditional samples, the entropic filter, pseudo-labels, last-layer gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from latent import SHAPE, made_up_pool, seeded, stripes, tiny, with_linear_energy

from bpc.data import Split
from bpc.ebm import synthesis
from bpc.ebm.data import pixels
from bpc.ebm.model import entropy, sample_prior
from bpc.ebm.synthesis import gradients_of, pseudo_label, synthesise
from bpc.errors import ConfigError


def three_corners():
    """Classes at the corners of a triangle: cold samples are sure ones."""
    return with_linear_energy(tiny(), torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]]))


@pytest.mark.parametrize(("count", "made"), [(12, 12), (10, 12), (1, 3)])
def test_equal_numbers_of_each_class(count, made):
    done = []
    found = synthesise(tiny(), count, seeded(), steps=3, step_size=0.1, report=done.append)
    assert found.labels.tolist() == [y for y in range(3) for _ in range(made // 3)]
    assert found.images.shape == (made, *SHAPE) and found.images.dtype == torch.uint8
    assert found.latents.shape == (made, 2)
    assert done == [made]


def test_what_is_reported_of_a_sample_is_the_models_word_for_it():
    model = three_corners()
    found = synthesise(model, 60, seeded(), steps=5, step_size=0.2)
    logits = model.energy(found.latents).detach()
    torch.testing.assert_close(found.entropies, entropy(logits))
    assert torch.equal(found.agrees, logits.argmax(1) == found.labels)
    assert 0 < int(found.agrees.sum()) < 60
    shades = (model.generator(found.latents).detach() * 255).round()
    assert float((found.images.float() - shades).abs().max()) <= 1  # a shade may fall on the other side of a half
    assert float((found.images.float() != shades).float().mean()) < 0.01


def test_latents_come_from_noise_by_class_conditional_langevin():
    model = three_corners()
    found = synthesise(model, 30, seeded(3), steps=5, step_size=0.2, temperature=0.5)
    rng = seeded(3)
    start = torch.randn(30, 2, generator=rng)
    z = sample_prior(model, start, rng, steps=5, step_size=0.2, labels=found.labels, temperature=0.5)
    assert torch.equal(found.latents, z)


def test_latents_are_where_their_class_is():
    model = three_corners()
    found = synthesise(model, 3000, seeded(), steps=60, step_size=0.1)
    for y, corner in enumerate([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]]):
        mean = found.latents[found.labels == y].mean(0)
        torch.testing.assert_close(mean, torch.tensor(corner), rtol=0.0, atol=4 * 1.03 / 1000**0.5)


@pytest.mark.parametrize("noise", [False, True])
def test_same_generator_same_bits(noise):
    made = [synthesise(tiny(), 9, seeded(s), steps=3, step_size=0.1, noise=noise) for s in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(made[0], made[1], strict=True))
    assert not torch.equal(made[0].latents, made[2].latents)
    assert not torch.equal(made[0].images, made[2].images)


def test_noise_is_that_of_the_likelihood():
    """N(g(z), sigma^2) at latents that noise leaves as they are; pixels near a half, so that none is clipped."""
    model = tiny()
    with torch.no_grad():
        for p in model.generator.parameters():
            p.zero_()
    plain, noisy = (synthesise(model, 600, seeded(1), steps=1, step_size=0.1, noise=n) for n in (False, True))
    assert torch.equal(plain.latents, noisy.latents)
    assert torch.equal(plain.images, torch.full_like(plain.images, 128))
    change = noisy.images.double() / 255 - 0.5
    assert abs(float(change.mean())) < 4 * 0.15 / 9600**0.5 + 1e-3
    assert float(change.std()) == pytest.approx(model.config.sigma, rel=0.04)


def test_chains_in_blocks(monkeypatch):
    """As many of each class, in order, each about its own class, however many run at once."""
    monkeypatch.setattr(synthesis, "CHAINS", 7)
    model, done = three_corners(), []
    found = synthesise(model, 30, seeded(), steps=60, step_size=0.1, temperature=0.01, report=done.append)
    assert done == [7, 14, 21, 28, 30]
    assert found.labels.tolist() == [y for y in range(3) for _ in range(10)]
    assert found.agrees.all()


def test_colder_samples_have_lower_entropy():
    model = three_corners()
    means = [
        float(synthesise(model, 600, seeded(), steps=60, step_size=0.1, temperature=t).entropies.mean())
        for t in (0.0, 0.3, 1.0, 3.0)
    ]
    assert means == sorted(means)
    assert means[0] < 0.2 * means[2]


def test_the_filter_is_strict():
    pool = made_up_pool(9)
    pool = pool._replace(entropies=torch.tensor([0.5, 0.1, 0.3, 0.2, 0.2, 0.0, 0.9, 0.2, 0.1], dtype=torch.float64))
    kept = pool.filtered(0.2)
    assert kept.entropies.tolist() == [0.1, 0.0, 0.1]
    index = torch.tensor([1, 5, 8])
    assert all(torch.equal(part, whole[index]) for part, whole in zip(kept, pool, strict=True))
    assert len(pool.filtered(0.0).labels) == 0
    assert len(pool.filtered(1e9).labels) == 9
    assert torch.equal(kept.split().images, kept.images) and torch.equal(kept.split().labels, kept.labels)


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"steps": 0}, {"step_size": 0.0}, {"step_size": -1.0}, {"temperature": -0.1}],
)
def test_refused_synthesis(wrong):
    count = wrong.pop("count", 3)
    with pytest.raises(ConfigError, match="Synthesis needs"):
        synthesise(tiny(), count, seeded(), **{"steps": 1, "step_size": 0.1, **wrong})


def test_pseudo_labels():
    """At the mean of q, where the entropy is below the threshold, whatever the order and number of images."""
    model, images = tiny(scale=4.0), stripes(1100).images  # more than one block
    with torch.no_grad():
        logits = model.energy(model.encoder(pixels(images))[0])
    entropies = entropy(logits)
    threshold = float(entropies.median())
    found = pseudo_label(model, images, threshold)
    expected = [i for i in range(1100) if float(entropies[i]) < threshold]
    assert 0 < len(expected) < 1100
    assert abs(len(found.indices) - len(expected)) <= 2  # of rounding at the threshold
    assert torch.equal(found.labels, logits[found.indices].argmax(1))
    assert (found.entropies < threshold).all()
    torch.testing.assert_close(found.entropies, entropies[found.indices], rtol=1e-3, atol=1e-6)
    assert len(pseudo_label(model, images, 0.0).indices) == 0
    assert pseudo_label(model, images, 10.0).indices.tolist() == list(range(1100))


def test_last_layer_gradients_are_autograds():
    model, split = tiny(scale=3.0), stripes(1100, seed=7)
    gradients, probabilities = gradients_of(model, split)
    with torch.no_grad():
        logits = model.energy(model.encoder(pixels(split.images))[0])
    leaf = logits.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(F.cross_entropy(leaf, split.labels, reduction="sum"), leaf)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(probabilities, logits.softmax(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients.sum(1), torch.zeros(1100), rtol=0.0, atol=1e-6)
    other = Split(images=split.images, labels=(split.labels + 1) % 3)
    assert not torch.allclose(gradients_of(model, other)[0], gradients)
