"""Selection of real points against brute force on tiny sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bpc.data.dataset import Dataset, Split
from bpc.errors import ConfigError, DataError
from bpc.seeding import make_generator
from bpc.selection import (
    SELECTIONS,
    build_coreset,
    class_members,
    last_layer_gradients,
    select,
    select_herding,
    select_kcenter,
    select_random,
    unweighted,
)

seeds = st.integers(0, 10_000)


def problem(seed: int, n: int = 60, d: int = 3, num_classes: int = 3) -> tuple[Tensor, Tensor]:
    """Labels (n,) in random order, every class there, and features (n, d)."""
    generator = make_generator("cpu", seed)
    labels = torch.arange(n) % num_classes
    labels = labels[torch.randperm(n, generator=generator)]
    features = torch.randn(n, d, generator=generator) + 5.0 * labels[:, None]
    return labels, features


def seen_by(method: str, features: Tensor, labels: Tensor) -> Tensor:
    """Features, or for AdaCore, which takes nothing but p - y, gradients made of them as logits."""
    return last_layer_gradients(features, labels) if method == "adacore" else features


@pytest.mark.parametrize("method", SELECTIONS.names())
def test_class_balance_and_no_duplicates(method: str) -> None:
    labels, features = problem(0)
    features = seen_by(method, features, labels)
    chosen, weights = select(method, labels, 7, 3, features=features, generator=make_generator("cpu", 0))
    assert chosen.dtype == torch.int64 and weights.dtype == torch.float32 and weights.shape == (21,)
    assert (float(weights.sum()), float(weights.min()) >= 1) == (
        60 if SELECTIONS.get(method).looks_at == "gradients" else 21,
        True,
    )
    assert labels[chosen].tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert len(set(chosen.tolist())) == 21


@pytest.mark.parametrize("method", SELECTIONS.names())
def test_duplicated_points_are_not_chosen_twice(method: str) -> None:
    """All features alike: an index is still chosen once, and ties go to the lowest index."""
    labels = torch.tensor([1, 0, 0, 1, 0, 1])
    features = seen_by(method, torch.ones(6, 2), labels)
    chosen, _ = select(method, labels, 3, 2, features=features, generator=make_generator("cpu", 0))
    assert sorted(chosen[:3].tolist()) == [1, 2, 4] and sorted(chosen[3:].tolist()) == [0, 3, 5]
    if method != "random":
        assert chosen.tolist() == [1, 2, 4, 0, 3, 5]


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_every_herding_step_is_the_best(seed: int) -> None:
    labels, features = problem(seed, n=24, num_classes=2)
    chosen = select_herding(labels, 6, 2, features=features).indices.tolist()
    points = features.double().numpy()
    for y, own in enumerate((chosen[:6], chosen[6:])):
        members = np.flatnonzero(labels.numpy() == y)
        mean = points[members].mean(0)
        for t in range(6):
            distances = {
                int(i): float(np.linalg.norm(points[[*own[:t], i]].mean(0) - mean)) for i in members if i not in own[:t]
            }
            assert distances[own[t]] <= min(distances.values()) + 1e-9


def test_herding_follows_the_mean_better_than_chance() -> None:
    labels, features = problem(1, n=600)

    def error(chosen: Tensor) -> float:
        return sum(
            float((features[chosen[10 * y : 10 * y + 10]].mean(0) - features[labels == y].mean(0)).norm())
            for y in range(3)
        )

    herded = error(select_herding(labels, 10, 3, features=features).indices)
    random = [error(select_random(labels, 10, 3, generator=make_generator("cpu", s)).indices) for s in range(20)]
    assert herded < 0.2 * min(random)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, k=st.integers(1, 4))
def test_kcenter_radius_is_at_most_twice_the_optimum(seed: int, k: int) -> None:
    labels, features = problem(seed, n=10, d=2, num_classes=1)
    distances = torch.cdist(features.double(), features.double()).numpy()
    chosen = select_kcenter(labels, k, 1, features=features).indices.tolist()
    best = min(distances[:, list(c)].min(1).max() for c in itertools.combinations(range(10), k))
    assert distances[:, chosen].min(1).max() <= 2.0 * best + 1e-9


def test_kcenter_starts_at_the_mean_and_goes_to_the_farthest() -> None:
    features = torch.tensor([[-4.0], [0.0], [10.0], [1.0], [3.0], [3.0]])  # mean 2.17: 3 is nearest, twice
    chosen = select_kcenter(torch.zeros(6, dtype=torch.int64), 6, 1, features=features)
    assert chosen.indices.tolist() == [4, 0, 2, 1, 3, 5]


@pytest.mark.parametrize("method", ["herding", "kcenter", "craig"])
def test_classes_do_not_see_each_other_and_the_answer_does_not_move(method: str) -> None:
    labels, features = problem(3)
    args = {"generator": make_generator("cpu", 0)}

    def run(own: Tensor, classes: int, seen: Tensor) -> Tensor:
        return SELECTIONS.get(method).select(own, 4, classes, features=seen, **args).indices

    chosen = run(labels, 3, features)
    assert torch.equal(chosen, run(labels, 3, features))
    members = torch.nonzero(labels == 1).flatten()
    alone = run(torch.zeros(len(members), dtype=torch.int64), 1, features[members])
    assert torch.equal(members[alone], chosen[4:8])
    # far from the origin float32 sums would decide otherwise
    assert torch.equal(chosen, run(labels, 3, features.double() + 1e6))


def test_random_depends_on_its_generator_alone() -> None:
    labels, _ = problem(0)
    draws = [select_random(labels, 5, 3, generator=make_generator("cpu", s)).indices.tolist() for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_random_is_uniform() -> None:
    labels = torch.tensor([0, 1] * 5)
    generator = make_generator("cpu", 0)
    counts = torch.zeros(10)
    for _ in range(2000):
        counts[select_random(labels, 2, 2, generator=generator).indices] += 1
    assert (counts - 800).abs().max() < 120  # standard deviation 22


@pytest.mark.parametrize("method", SELECTIONS.names())
def test_ipc_larger_than_a_class(method: str) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    features = seen_by(method, torch.randn(5, 2), labels)
    generator = make_generator("cpu", 0)
    assert len(select(method, labels, 2, 2, features=features, generator=generator).indices) == 4
    with pytest.raises(DataError, match="ipc 3 is more than class 1 has: 2 points; choose an ipc of at most 2"):
        select(method, labels, 3, 2, features=features, generator=generator)
    with pytest.raises(DataError, match="class 2 has: 0 points"):
        select(method, labels, 1, 3, features=features, generator=generator)
    with pytest.raises(ConfigError, match="got 0"):
        select(method, labels, 0, 2, features=features, generator=generator)


def test_class_members() -> None:
    members = class_members(torch.tensor([1, 0, 1, 2]), 3, 1)
    assert [m.tolist() for m in members] == [[1], [0, 2], [3]]
    with pytest.raises(DataError, match="run from 0 to 2; expected 0 to 1"):
        class_members(torch.tensor([1, 0, 1, 2]), 2, 1)


@pytest.mark.parametrize("method", ["herding", "kcenter", "craig", "adacore"])
def test_bad_features(method: str) -> None:
    labels, features = problem(0)
    generator = make_generator("cpu", 0)
    with pytest.raises(ConfigError, match=r"needs the points' (features|gradients)"):
        select(method, labels, 2, 3, generator=generator)
    with pytest.raises(DataError, match=r"\(60, d\); got \(59, 3\)"):
        select(method, labels, 2, 3, features=features[1:], generator=generator)
    features[4, 1] = torch.nan
    features[5] = torch.inf
    with pytest.raises(DataError, match="2 of 60 points are NaN"):
        select(method, labels, 2, 3, features=features, generator=generator)


def test_unknown_method() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'herding'"):
        select("herdin", torch.tensor([0]), 1, 1, generator=make_generator("cpu", 0))


@pytest.fixture
def dataset() -> Dataset:
    generator = make_generator("cpu", 0)
    images = torch.randint(256, (12, 2, 4, 4), dtype=torch.uint8, generator=generator)
    split = Split(images=images, labels=torch.arange(12) % 3)
    return Dataset(name="tiny", train=split, test=split, mean=(0.4, 0.5), std=(0.2, 0.3), class_names=("a", "b", "c"))


def test_build_coreset(dataset: Dataset) -> None:
    chosen = select_random(dataset.train.labels, 2, 3, generator=make_generator("cpu", 0))
    coreset = build_coreset(dataset, chosen, method="random", seed=5, config_hash="abc", preset="p")
    assert len(coreset) == 6 and coreset.ipc == 2 and coreset.seed == 5 and coreset.method == "random"
    assert coreset.config_hash == "abc" and coreset.preset == "p" and coreset.dataset == "tiny"
    assert torch.equal(coreset.weights, torch.ones(6))
    assert torch.equal(coreset.labels, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert torch.equal((coreset.images * 255).round().byte(), dataset.train.images[chosen.indices])
    assert coreset.provenance["indices"] == chosen.indices.tolist()
    weighted = build_coreset(dataset, chosen._replace(weights=torch.arange(6.0)), method="craig", seed=5)
    assert torch.equal(weighted.weights, torch.arange(6.0))


@pytest.mark.parametrize("indices", [[], [0, 12], [-1], [3, 3]])
def test_build_coreset_refuses_bad_indices(dataset: Dataset, indices: list[int]) -> None:
    with pytest.raises(DataError, match="different indices from 0 to 11"):
        build_coreset(dataset, unweighted(torch.tensor(indices, dtype=torch.int64)), method="random", seed=0)
