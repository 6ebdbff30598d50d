"""CRAIG and AdaCore: the gradients and curvature they stand on, their weights, classes of any size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.errors import ConfigError, DataError
from bpc.seeding import make_generator
from bpc.selection import adacore, craig, facility_location, last_layer_gradients, select_adacore, select_craig
from bpc.selection.adacore import DAMPING, precondition, softmax_curvature


def problem(seed: int = 0, n: int = 90, y: int = 3) -> tuple[Tensor, Tensor]:
    """Logits (n, y) float64 of a network that is mostly right, and labels (n,)."""
    generator = make_generator("cpu", seed)
    labels = torch.randint(y, (n,), generator=generator)
    logits = 2.0 * torch.randn(n, y, generator=generator, dtype=torch.float64) + 2.0 * F.one_hot(labels, y)
    return logits, labels


def test_gradient_of_cross_entropy_in_the_logits() -> None:
    logits, labels = problem()
    leaf = logits.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(F.cross_entropy(leaf, labels, reduction="sum"), leaf)
    torch.testing.assert_close(last_layer_gradients(logits, labels), expected)
    with pytest.raises(DataError, match=r"\(90, 3\) and \(89,\)"):
        last_layer_gradients(logits, labels[1:])


def test_curvature_is_the_diagonal_of_the_hessian_in_the_logits() -> None:
    logits, labels = problem(n=6, y=4)
    for row, label in zip(logits, labels, strict=True):
        hessian = torch.autograd.functional.hessian(lambda z, label=label: F.cross_entropy(z, label), row)
        p = row.softmax(0)
        torch.testing.assert_close(hessian, torch.diag(p) - torch.outer(p, p))
        torch.testing.assert_close(softmax_curvature(p), hessian.diagonal())
        step = precondition(last_layer_gradients(row[None], label[None]), p[None], damping=0.03)[0]
        damped = torch.diag(hessian.diagonal() + 0.03)
        (gradient,) = torch.autograd.grad(F.cross_entropy(leaf := row.clone().requires_grad_(True), label), leaf)
        torch.testing.assert_close(step, torch.linalg.solve(damped, gradient))


def test_large_damping_is_craig() -> None:
    logits, labels = problem(1)
    g, p = last_layer_gradients(logits, labels), logits.softmax(1)
    shared = {"fraction": 0.2, "num_classes": 3, "generator": make_generator("cpu", 0)}
    expected = craig(g, labels, **shared)
    flat = adacore(g, labels, probabilities=p, damping=1e9, **shared)
    assert torch.equal(flat.indices, expected.indices) and torch.equal(flat.weights, expected.weights)
    assert not torch.equal(adacore(g, labels, probabilities=p, **shared).indices, expected.indices)


@pytest.mark.parametrize("method", ["craig", "adacore"])
def test_select_is_facility_location_in_each_class(method: str) -> None:
    logits, labels = problem(2)
    features = last_layer_gradients(logits, labels)
    select = {"craig": select_craig, "adacore": select_adacore}[method]
    found = select(labels, 4, 3, features=features, generator=make_generator("cpu", 0))
    seen = features if method == "craig" else features / (logits.softmax(1) * (1 - logits.softmax(1)) + DAMPING)
    for y in range(3):
        members = torch.nonzero(labels == y).flatten()
        alone = facility_location(seen[members], 4)
        assert torch.equal(found.indices[4 * y : 4 * y + 4], members[alone.indices])
        assert torch.equal(found.weights[4 * y : 4 * y + 4], alone.weights)
        assert float(found.weights[4 * y : 4 * y + 4].sum()) == len(members)


@pytest.mark.parametrize("float_type", [torch.float32, torch.float64])
def test_adacore_takes_probabilities_from_its_gradients(float_type: torch.dtype) -> None:
    """`select` hands over p - y alone, and float32 may put p outside [0, 1] by a rounding."""
    logits, labels = problem(3)
    g = last_layer_gradients((9.0 * logits).to(float_type), labels)
    found = select_adacore(labels, 3, 3, features=g, generator=make_generator("cpu", 0))
    assert float(found.weights.sum()) == len(labels)


@pytest.mark.parametrize("method", ["craig", "adacore"])
@pytest.mark.parametrize("greedy", ["lazy", "stochastic"])
def test_a_fraction_of_classes_of_any_size(method: str, greedy: str) -> None:
    """100, 16, none and 1 points: 10 % of each, rounded, at least one, weights that add up to the class."""
    sizes = [100, 16, 0, 1]
    labels = torch.cat([torch.full((s,), y) for y, s in enumerate(sizes)])
    labels = labels[torch.randperm(117, generator=make_generator("cpu", 0))]
    logits = torch.randn(117, 4, generator=make_generator("cpu", 1))
    g, extra = last_layer_gradients(logits, labels), {"probabilities": logits.softmax(1)}
    choose = craig if method == "craig" else adacore
    found = choose(
        g,
        labels,
        fraction=0.1,
        num_classes=4,
        generator=make_generator("cpu", 0),
        method=greedy,
        **({} if method == "craig" else extra),
    )
    assert labels[found.indices].tolist() == [0] * 10 + [1, 1, 3]
    assert [float(found.weights[labels[found.indices] == y].sum()) for y in range(4)] == sizes
    assert found.indices.dtype == torch.int64 and found.weights.dtype == torch.float32


def test_all_points_and_none() -> None:
    logits, labels = problem(4, n=20)
    shared = {"num_classes": 3, "generator": make_generator("cpu", 0)}
    g = last_layer_gradients(logits, labels)
    everything = craig(g, labels, fraction=1.0, **shared)
    assert sorted(everything.indices.tolist()) == list(range(20)) and everything.weights.tolist() == [1] * 20
    empty, none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    for found in (
        craig(empty, none, fraction=0.1, **shared),
        adacore(empty, none, probabilities=empty, fraction=0.1, **shared),
    ):
        assert found.indices.shape == found.weights.shape == (0,) and found.indices.dtype == torch.int64


def test_craig_approximates_the_gradient_better_than_chance() -> None:
    logits, labels = problem(5, n=600)
    g = last_layer_gradients(logits, labels)

    def error(indices: Tensor, weights: Tensor) -> float:
        return float((g.sum(0) - weights.double() @ g[indices]).norm())

    found = craig(g, labels, fraction=0.05, num_classes=3, generator=make_generator("cpu", 0))
    m = len(found.indices)
    random = [
        error(torch.randperm(600, generator=make_generator("cpu", s))[:m], torch.full((m,), 600 / m)) for s in range(20)
    ]
    assert error(*found) < 0.5 * sum(random) / 20


def test_errors() -> None:
    logits, labels = problem(n=9)
    g, p = last_layer_gradients(logits, labels), logits.softmax(1)
    shared = {"num_classes": 3, "generator": make_generator("cpu", 0)}
    for fraction in (0.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            craig(g, labels, fraction=fraction, **shared)
    with pytest.raises(DataError, match="expected 0 to 0"):
        craig(g, labels.clamp(min=1), fraction=0.1, num_classes=1, generator=make_generator("cpu", 0))
    with pytest.raises(DataError, match=r"Gradients must have shape \(9, d\)"):
        craig(g[1:], labels, fraction=0.1, **shared)
    with pytest.raises(ConfigError, match="damping must be above 0; got 0"):
        adacore(g, labels, probabilities=p, fraction=0.1, damping=0.0, **shared)
    with pytest.raises(DataError, match="one shape"):
        adacore(g, labels, probabilities=p[1:], fraction=0.1, **shared)
    with pytest.raises(DataError, match="sum to 1"):
        adacore(g, labels, probabilities=logits, fraction=0.1, **shared)
    with pytest.raises(DataError, match=r"shape \(9, 3\); got \(9, 2\)"):
        select_adacore(torch.arange(9) % 3, 1, 3, features=g[:, :2], generator=make_generator("cpu", 0))
