"""Soft labels: a soft label is y weighted points at one image, and every divergence's gradient by it against differences."""

import dataclasses

import pytest
import torch

from bpc.coreset import Pseudocoreset, common_labels, load_coreset
from bpc.distill import OuterConfig, distill, soft_labels, start
from bpc.divergences import (
    CoresetGradient,
    ExpertWindow,
    ForwardKL,
    ForwardKLConfig,
    LearnedCoreset,
    PathSettings,
    ReverseKL,
    ReverseKLConfig,
    RKLPath,
    RKLPathConfig,
    Wasserstein,
    WassersteinConfig,
)
from bpc.errors import ConfigError, FileFormatError
from bpc.posterior import ControlVariates, Posterior
from bpc.samplers.kim2022_presets import SamplingPreset
from bpc.seeding import ChainGenerators, make_generator
from bpc.weight_prior import isotropic

CHAIN = SamplingPreset(iterations=3, leapfrog_steps=3, burn_in=1, momentum_scale=0.1, step_size=0.05, penalty=0.3)


def made(name, model):
    path = PathSettings(sampling=CHAIN, protocol="kim2022", window=0)
    return {
        "fkl": lambda: ForwardKL(model, ForwardKLConfig(inner_steps=2, samples=3, reduction="sum")),
        "rkl": lambda: ReverseKL(model, ReverseKLConfig(inner_steps=2, samples=4, reduction="sum")),
        "wasserstein": lambda: Wasserstein(model, WassersteinConfig(inner_steps=3)),
        "rkl-path": lambda: RKLPath(model, RKLPathConfig(path=path)),
    }[name]()


def soft_of(coreset):
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(len(coreset.labels), 4, generator=generator, dtype=torch.float64)
    return (soft_labels(coreset.labels, 4, 0.2).double() + noise).log().softmax(1)


def test_a_soft_label_is_weighted_points_at_one_image(small):
    model, coreset, window, _ = small
    soft = soft_of(coreset)
    params = window.snapshots
    points = coreset.points.repeat_interleave(4, 0)
    hard = model(params, points, torch.arange(4).repeat(6)).view(3, 6, 4)
    torch.testing.assert_close(model(params, coreset.points, soft), (hard * soft).sum(-1))
    one_hot = torch.nn.functional.one_hot(coreset.labels, 4).double()
    torch.testing.assert_close(model(params, coreset.points, one_hot), model(params, coreset.points, coreset.labels))
    each = soft.expand(3, 6, 4)
    torch.testing.assert_close(model(params, coreset.points, each), model(params, coreset.points, soft))


@pytest.mark.parametrize("name", ["fkl", "wasserstein", "rkl-path"])
def test_gradient_by_labels_against_finite_differences(small, name):
    """Of losses whose value is known: fKL's surrogate at fixed draws, BPC-W's distance, the path's loss."""
    model, coreset, window, real = small
    coreset = coreset._replace(labels=soft_of(coreset))
    divergence = made(name, model)
    if name == "fkl":  # the draws depend on the labels, with their gradient stopped: fix them
        from bpc.divergences import forward_kl_gradient

        def gradient(c):
            return forward_kl_gradient(model, c, window.snapshots[:2], window.snapshots[1:], reduction="sum")
    else:

        def gradient(c):
            return divergence.gradient(c, window, real, make_generator("cpu", 3))

    got = gradient(coreset)
    direction = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-5
    up, down = (gradient(coreset._replace(labels=coreset.labels + s * h * direction)).value for s in (1, -1))
    slope = (up - down) / (2 * h)
    assert slope.abs() > 1e-6
    torch.testing.assert_close((got.labels * direction).sum(), slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["fkl", "rkl", "wasserstein", "rkl-path"])
def test_one_hot_labels_are_classes_and_pieces_change_nothing(small, name):
    model, coreset, window, real = small
    soft = coreset._replace(labels=torch.nn.functional.one_hot(coreset.labels, 4).double())
    found = []
    for c, at_once in ((coreset, 0), (soft, 0), (soft, 3)):
        divergence = made(name, model)
        divergence = dataclasses.replace(divergence, config=dataclasses.replace(divergence.config, at_once=at_once))
        found.append(divergence.gradient(c, window, real, make_generator("cpu", 3)))
    hard, whole, cut = found
    assert hard.labels is None and whole.labels.shape == (6, 4)
    for other in (whole, cut):
        torch.testing.assert_close(other.points, hard.points, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(other.weights, hard.weights, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(cut.labels, whole.labels, rtol=1e-9, atol=1e-13)


def test_rkl_by_labels_is_the_covariance_of_the_weighted_points(small):
    """A soft label's gradient is w times that of the weight of its point of that class (unit q, sum form)."""
    model, coreset, window, real = small
    soft = soft_of(coreset)
    divergence = made("rkl", model)
    from bpc.divergences import reverse_kl_gradient

    samples = torch.cat([window.snapshots, window.snapshots + 0.01])
    got = reverse_kl_gradient(model, coreset._replace(labels=soft), samples, real, reduction="sum")
    spread = LearnedCoreset(
        coreset.points.repeat_interleave(4, 0),
        torch.arange(4).repeat(6),
        (coreset.weights.unsqueeze(1) * soft).flatten(),
    )
    by_weight = reverse_kl_gradient(model, spread, samples, real, reduction="sum").weights.view(6, 4)
    torch.testing.assert_close(got.labels, coreset.weights.unsqueeze(1) * by_weight, rtol=1e-9, atol=1e-12)
    assert divergence.config.reduction == "sum"


def test_posterior_of_soft_labels(small):
    """Value and gradient are those of the weighted points; minibatches of each chain's own draw them."""
    model, coreset, window, _ = small
    soft, prior = soft_of(coreset), isotropic(0.5)
    got = Posterior(model, coreset.points, soft, coreset.weights, prior=prior, points_at_once=2)
    spread = (coreset.points.repeat_interleave(4, 0), torch.arange(4).repeat(6))
    hard = Posterior(model, *spread, (coreset.weights.unsqueeze(1) * soft).flatten(), prior=prior)
    for a, b in zip(got.value_and_gradient(window.snapshots), hard.value_and_gradient(window.snapshots), strict=True):
        torch.testing.assert_close(a, b)
    generators = ChainGenerators.from_seeds("cpu", [0, 1, 2])
    anchor = window.snapshots + 0.1
    estimator = ControlVariates(got, 50)
    _, grad = estimator.exact(anchor)
    estimate = estimator.estimate(anchor, anchor, grad, generators)
    torch.testing.assert_close(estimate, grad)
    assert torch.isfinite(estimator.estimate(window.snapshots, anchor, grad, generators)).all()


class Pull:
    """Pulls labels to the first class."""

    needs_real, expert_epochs, extras = False, 0, {}

    def gradient(self, coreset, experts, real, generator):
        slope = torch.zeros_like(coreset.labels)
        slope[:, 0] = -1.0
        return CoresetGradient(
            torch.zeros_like(coreset.points), torch.zeros_like(coreset.weights), torch.tensor(0.0), labels=slope
        )


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_labels_learn_by_their_logits(optimizer):
    """Against torch's optimiser on logits z with q = softmax(z)."""
    q = soft_labels(torch.tensor([0, 1, 2]), 3, 0.3)
    torch.testing.assert_close(q.sum(1), torch.ones(3))
    coreset = LearnedCoreset(torch.zeros(3, 2), q, torch.ones(3))
    config = OuterConfig(lr_points=0.1, momentum=0.5, lr_labels=0.4, optimizer=optimizer)
    window = ExpertWindow(torch.zeros(1, 2))
    states = list(distill(start(coreset, Pull()), Pull(), lambda g: window, None, config, steps=3, seed=0))
    z = q.log().requires_grad_(True)
    made_of = {
        "sgd": lambda: torch.optim.SGD([z], lr=0.4, momentum=0.5),
        "adam": lambda: torch.optim.Adam([z], lr=0.4, betas=(0.5, 0.99), eps=1e-12),
    }
    torch_optimizer = made_of[optimizer]()
    for _ in range(3):
        torch_optimizer.zero_grad()
        (-z.softmax(1)[:, 0].sum()).backward()
        torch_optimizer.step()
    torch.testing.assert_close(states[-1].coreset.labels, z.detach().softmax(1), rtol=1e-4, atol=1e-6)


def test_file_and_scoring_take_soft_labels(tmp_path):
    soft = soft_labels(torch.arange(3), 3, 0.3)
    coreset = Pseudocoreset(
        points=torch.zeros(3, 1, 8, 8), labels=soft, weights=torch.ones(3), mean=(0.5,), std=(1.0,), dataset="d",
        method="fkl+labels", num_classes=3,
    )  # fmt: skip
    coreset.save(tmp_path / "c.safetensors")
    loaded = load_coreset(tmp_path / "c.safetensors")
    assert torch.equal(loaded.labels, soft) and loaded.classes.tolist() == [0, 1, 2] and loaded.ipc == 1
    other = coreset.replace(labels=soft_labels(torch.arange(3), 3, 0.1))
    assert common_labels([coreset, coreset]).shape == (3, 3)
    assert common_labels([coreset, other]).shape == (2, 3, 3)
    with pytest.raises(ConfigError, match="same labels"):
        common_labels([coreset, coreset.replace(labels=torch.arange(3))])
    coreset.replace(labels=2 * soft).save(tmp_path / "bad.safetensors")
    with pytest.raises(FileFormatError, match="probabilities"):
        load_coreset(tmp_path / "bad.safetensors")
