"""Facility location against brute force, plain greedy, and itself under other budgets."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bpc.errors import ConfigError, DataError
from bpc.seeding import make_generator
from bpc.selection.facility import BLOCK, FacilityLocation, facility_location, plan_blocks

seeds = st.integers(0, 10_000)


def cloud(seed: int, n: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=make_generator("cpu", seed))


def lattice(seed: int, n: int, side: int = 12) -> Tensor:
    """Integers on a short line: many duplicates, many equal gains, and every distance exact."""
    return torch.randint(side, (n, 1), generator=make_generator("cpu", seed)).float()


def distances(points: Tensor) -> np.ndarray:
    rows = points.double().tolist()
    return np.array([[math.dist(a, b) for b in rows] for a in rows])


def bound(points: Tensor) -> float:
    """How far s0 is from every point: twice the largest distance from the mean."""
    x = points.double()
    return 2.0 * float((x - x.mean(0)).norm(dim=1).max())


def plain_greedy(points: Tensor, count: int) -> list[int]:
    """Every gain anew at every step."""
    d = distances(points)
    nearest = np.full(len(d), bound(points))
    chosen: list[int] = []
    for _ in range(count):
        gains = [-1.0 if j in chosen else math.fsum(np.maximum(nearest - d[j], 0)) for j in range(len(d))]
        gains = np.round(gains, 9).tolist()  # the bound may be irrational
        chosen.append(int(np.argmax(gains)))
        nearest = np.minimum(nearest, d[chosen[-1]])
    return chosen


def lazy(points: Tensor, count: int, **options: int) -> FacilityLocation:
    return facility_location(points, count, method="lazy", **options)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(3, 12), count=st.integers(1, 3))
def test_greedy_is_near_the_best_of_all_subsets(seed: int, n: int, count: int) -> None:
    points = cloud(seed, n, 2)
    d, far = distances(points), bound(points)

    def value(chosen: list[int]) -> float:
        return float((far - d[chosen].min(0)).sum())

    found = lazy(points, count)
    best = max(value(list(c)) for c in itertools.combinations(range(n), count))
    assert value(found.indices.tolist()) >= (1 - 1 / math.e) * best - 1e-9
    assert float(found.gains.sum()) == pytest.approx(value(found.indices.tolist()), rel=1e-8)
    if count == 1:  # then greedy is the best: the medoid
        assert found.indices.tolist() == [int(d.sum(0).argmin())]


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(1, 40), share=st.floats(0, 1), ties=st.booleans())
def test_lazy_greedy_is_plain_greedy(seed: int, n: int, share: float, ties: bool) -> None:
    points, count = (lattice if ties else cloud)(seed, n), max(1, round(share * n))
    found = lazy(points, count)
    assert found.indices.tolist() == plain_greedy(points, count)
    assert found.indices.dtype == torch.int64 and found.gains.dtype == torch.float64
    assert (found.gains[1:] <= found.gains[:-1]).all()  # submodular


def test_more_than_a_first_pass_is_stale() -> None:
    """Enough points that bounds are re-evaluated 8, 16, 32 ... at a time, down to the last that is left."""
    points = lattice(0, 300, 200)
    assert lazy(points, 300).indices.tolist() == plain_greedy(points, 300)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(2, 40), ties=st.booleans())
def test_weights_are_the_sizes_of_the_clusters(seed: int, n: int, ties: bool) -> None:
    points = (lattice if ties else cloud)(seed, n)
    count = 1 + n // 3
    found = lazy(points, count)
    chosen = found.indices.tolist()
    d = distances(points)[chosen]
    owner = d.argmin(0)  # the first chosen of equally near ones,
    owner[chosen] = range(count)  # but a chosen point belongs to itself
    assert found.weights.tolist() == np.bincount(owner, minlength=count).tolist()
    assert float(found.weights.sum()) == n and float(found.weights.min()) >= 1


@settings(max_examples=30, deadline=None)
@given(seed=seeds, d=st.integers(1, 12), count=st.integers(1, 20))
def test_the_sum_is_approximated_within_the_bound(seed: int, d: int, count: int) -> None:
    """The point of CRAIG: |sum_i g_i - sum_j gamma_j g_j| <= sum_i min_j |g_i - g_j|."""
    points = cloud(seed, 40, d).double()
    found = lazy(points, count)
    error = (points.sum(0) - found.weights.double() @ points[found.indices]).norm()
    limit = torch.cdist(points, points[found.indices]).min(1).values.sum()
    assert float(error) <= float(limit) + 1e-9


@pytest.mark.parametrize("method", ["lazy", "stochastic"])
@pytest.mark.parametrize("points", [cloud(1, 200), lattice(1, 200)], ids=["cloud", "lattice"])
def test_blocks_change_nothing(method: str, points: Tensor) -> None:
    def run(budget: int) -> FacilityLocation:
        generator = make_generator("cpu", 0)
        return facility_location(points, 40, method=method, generator=generator, memory_budget_bytes=budget)

    assert plan_blocks(200, 2**20)[1] and not plan_blocks(200, 300_000)[1]
    whole = run(2**20)
    for budget in (300_000, 1600, 3 * 1600 + 7):  # 187 rows at once, one, three
        for a, b in zip(run(budget), whole, strict=True):
            assert torch.equal(a, b)


@given(n=st.integers(1, 10**6), budget=st.integers(0, 2**40))
def test_what_is_held_fits_the_budget(n: int, budget: int) -> None:
    if budget < 8 * n:
        with pytest.raises(ConfigError, match=f"{8 * n} bytes or more; got {budget}"):
            plan_blocks(n, budget)
        return
    rows, kept = plan_blocks(n, budget)
    assert 1 <= rows <= max(1, BLOCK // n) and 8 * n * (rows + n * kept) <= budget


MEASURE = """
import torch
from bpc.selection.facility import facility_location
def peak():  # of this program; getrusage's is at least that of the process it was forked from
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) // 1024
points = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
facility_location(points[:500], 50, method="lazy")  # what code and libraries need
start = peak()
for budget in (8, 512):
    facility_location(points, 2, method="lazy", memory_budget_bytes=budget * 2**20)
    print(peak() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_stays_within_the_budget() -> None:
    """The distances of 4,000 points are 122 MiB: not with a budget of 8, but with one of 512."""
    output = subprocess.run([sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, check=True).stdout
    little, much = map(int, output.split())
    assert little <= 40, "more than the budget, a few vectors of n, and what the allocator rounds up"
    assert much >= 100


def test_near_points_far_from_the_origin() -> None:
    """Squared distances by |a|^2 + |b|^2 - 2ab would all be zero here."""
    points = torch.tensor([[0.0], [1.0], [2.0], [50.0], [51.0], [52.0]], dtype=torch.float64) * 1e-6 + 1e3
    found = lazy(points, 2)
    assert found.indices.tolist() == [2, 4] and found.weights.tolist() == [3, 3]


def test_equal_points() -> None:
    found = lazy(torch.ones(5, 2), 3)
    assert found.indices.tolist() == [0, 1, 2] and found.weights.tolist() == [3, 1, 1]
    assert found.gains.tolist() == [0, 0, 0]
    assert lazy(torch.ones(1, 4), 1).weights.tolist() == [1]


def test_stochastic_greedy() -> None:
    points = cloud(3, 600, 5)
    best = float(lazy(points, 60).gains.sum())

    def run(seed: int) -> FacilityLocation:
        return facility_location(points, 60, method="stochastic", generator=make_generator("cpu", seed))

    first, again, other = run(0), run(0), run(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.indices, other.indices)
    for found in (first, other):
        assert len(set(found.indices.tolist())) == 60 and float(found.weights.sum()) == 600
        d = torch.cdist(points.double(), points.double()[found.indices]).min(1).values
        assert float(found.gains.sum()) == pytest.approx(float((bound(points) - d).sum()), rel=1e-8)
        assert float(found.gains.sum()) > 0.99 * best
    everything = facility_location(points, 600, method="stochastic", generator=make_generator("cpu", 0))
    assert sorted(everything.indices.tolist()) == list(range(600))


def test_stochastic_greedy_with_all_points_in_its_sample_is_greedy() -> None:
    """n / m log 10 >= n for m = 2."""
    points = lattice(5, 50)
    found = facility_location(points, 2, method="stochastic", generator=make_generator("cpu", 0))
    assert found.indices.tolist() == plain_greedy(points, 2)


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    points = cloud(0, 30)
    assert torch.equal(facility_location(points, 5).indices, lazy(points, 5).indices)
    monkeypatch.setattr("bpc.selection.facility.LAZY_UP_TO", 29)
    with pytest.raises(ConfigError, match="give a generator"):
        facility_location(points, 5)
    stochastic = facility_location(points, 5, method="stochastic", generator=make_generator("cpu", 2))
    assert torch.equal(facility_location(points, 5, generator=make_generator("cpu", 2)).indices, stochastic.indices)


def test_errors() -> None:
    points = cloud(0, 4)
    for count in (0, 5):
        with pytest.raises(ConfigError, match=f"1 to 4; got {count}"):
            facility_location(points, count)
    with pytest.raises(ConfigError, match="Did you mean 'lazy'"):
        facility_location(points, 1, method="lasy")
    for bad in (torch.zeros(0, 2), torch.zeros(3)):
        with pytest.raises(DataError, match=r"shape \(n, d\)"):
            facility_location(bad, 1)
    points[1, 2] = torch.nan
    with pytest.raises(DataError, match="1 of 4 points are NaN"):
        facility_location(points, 1)
