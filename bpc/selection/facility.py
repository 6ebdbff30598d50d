"""Greedy facility location: points such that every other point is near one of them, and how many each stands for.

L(S) = sum_i min_{j in S} ||g_i - g_j|| is lowered greedily. CRAIG (Mirzasoleiman, Bilmes and Leskovec 2020) states the same as
raising F(S) = L({s0}) - L(S + s0), monotone and submodular, where an auxiliary element s0 is as far from every point as any two
of them can be; the greedy answer therefore has at least 1 - 1/e of the best F (Nemhauser, Wolsey and Fisher 1978).

Distances are rounded to a grid: fine (2^-31 of the farthest that two points can be), yet coarse enough that every sum of them is
an exact integer in float64. An answer then depends neither on the order of a sum, nor on the blocks that memory allows, nor on
which gains a lazy evaluation leaves alone: lazy and plain greedy choose the same points, duplicates included.

Written here and not taken from a package: apricot-select 0.6.1 (2021) and submodlib-py 0.0.3 build the whole n x n matrix (5,000
points on one core: 5 s and 0.5 GB, 7 s and 1.5 GB; here 2 s and 0.3 GB), and neither says how large the clusters are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError, DataError, unknown_name

__all__ = ["MEMORY_BUDGET", "FacilityLocation", "facility_location"]

MEMORY_BUDGET = 256 * 2**20  # bytes: room for the matrix of 4,000 points; more is little faster
METHODS = ("lazy", "stochastic", "auto")
GRID_BITS = 32
LAZY_UP_TO = 10_000  # points; beyond, "auto" is stochastic: choosing 10 % of so many takes 10 s, and 2 s if stochastic
BLOCK = 2**19  # distances computed at once: 4 MiB stay in a cache
SLACK = 0.1  # eps of stochastic greedy: its expected F is at least 1 - 1/e - eps of the best


class FacilityLocation(NamedTuple):
    """m of n points, in the order of choice."""

    indices: Tensor  # (m,) int64
    weights: Tensor  # (m,) float32, points that each stands for, itself among them: at least 1, their sum n
    gains: Tensor  # (m,) float64, what each choice added to F, in units of distance: non-increasing for lazy greedy


def facility_location(
    features: Tensor,
    count: int,
    *,
    method: str = "auto",
    generator: torch.Generator | None = None,
    memory_budget_bytes: int = MEMORY_BUDGET,
) -> FacilityLocation:
    """Choose `count` points that cover all of them in Euclidean distance.

    Of equally good points the one with the lowest index is taken, and none is taken twice; a point that is equally near to two
    chosen ones belongs to the one chosen first.

    Args:
        features: (n, d).
        count: m, from 1 to n.
        method: ``lazy`` is greedy, exactly, and re-evaluates only gains that could be the largest (Minoux 1978); ``stochastic``
            takes the best of (n / m) log(1 / eps) random points at each step, eps 0.1 (Mirzasoleiman et al. 2015); ``auto`` is
            lazy up to 10,000 points.
        generator: of the stochastic choice, which needs one; the lazy one takes nothing from it.
        memory_budget_bytes: for distances, which are kept if all fit and computed by blocks of rows otherwise. The result does
            not depend on it.

    Raises:
        ConfigError: a count out of range, an unknown method, no generator, a budget below one row of distances.
        DataError: features that are not (n, d) or not finite.
    """
    if features.ndim != 2 or len(features) == 0:
        raise DataError(f"Features must have shape (n, d), n > 0; got {tuple(features.shape)}.")
    if not bool(torch.isfinite(features).all()):
        bad = int((~torch.isfinite(features)).any(1).sum())
        raise DataError(f"Features of {bad} of {len(features)} points are NaN or infinite; expected finite ones.")
    if not 1 <= count <= len(features):
        raise ConfigError(f"Choosing from {len(features)} points takes a count of 1 to {len(features)}; got {count}.")
    if method not in METHODS:
        raise unknown_name("method of facility location", method, METHODS)
    if method == "auto":
        method = "lazy" if len(features) <= LAZY_UP_TO else "stochastic"
    if method == "stochastic" and generator is None:
        raise ConfigError("Stochastic greedy draws at random: give a generator, or choose method lazy.")
    cover = _Cover(features.detach(), memory_budget_bytes)
    if method == "lazy":
        _lazy(cover, count)
    else:
        assert generator is not None
        _stochastic(cover, count, generator)
    return cover.result()


class _Cover:
    """The points chosen so far and how well they cover the rest. Distances are whole multiples of `unit`."""

    def __init__(self, features: Tensor, budget: int) -> None:
        n = len(features)
        # float64, and differences are taken before they are squared: near points lose no digits
        points = features.double() - features.double().mean(0)
        bound = 2.0 * float(torch.linalg.vector_norm(points, dim=1).max())  # no two points are farther apart
        bits = min(GRID_BITS, 52 - math.ceil(math.log2(n + 1)))  # n distances then add up to less than 2^53
        self.unit = 2.0 ** (
            math.frexp(bound)[1] - bits
        )  # a power of two keeps what is exact, such as distances of integers
        self.points = points / self.unit
        self.nearest = torch.full(
            (n,), math.ceil(bound / self.unit), dtype=torch.float64, device=features.device
        )  # that of s0
        self.owner = torch.zeros(n, dtype=torch.int64, device=features.device)  # place in the order of choice
        self.free = torch.ones(n, dtype=torch.bool, device=features.device)
        self.chosen: list[int] = []
        self.gains: list[float] = []
        self.rows_at_once, dense = plan_blocks(n, budget)
        self.matrix = self.points.new_empty(n, n) if dense else None
        if self.matrix is not None:
            for rows in torch.arange(n, device=features.device).split(self.rows_at_once):
                self.matrix[rows] = self._compute(rows)

    def _compute(self, rows: Tensor) -> Tensor:
        return torch.cdist(self.points[rows], self.points, compute_mode="donot_use_mm_for_euclid_dist").round_()

    def distances(self, rows: Tensor) -> Tensor:
        """(b, n) distances of a block of points to all, in units: the caller's own copy."""
        return self._compute(rows) if self.matrix is None else self.matrix[rows]

    def gain(self, rows: Tensor) -> Tensor:
        """(b,) what choosing each of these points would add to F, in units: exact integers."""
        found = self.nearest.new_empty(len(rows))
        # in place, into memory that is there already: small tensors between large ones would keep those from being reused
        for part, out in zip(rows.split(self.rows_at_once), found.split(self.rows_at_once), strict=True):
            block = self.distances(part)
            torch.sum(torch.sub(self.nearest, block, out=block).clamp_(min=0.0), 1, out=out)
        return found

    def choose(self, index: int, gain: float) -> None:
        """Add a point and hand it those that are nearer to it than to any other."""
        distance = self.distances(torch.tensor([index], device=self.free.device))[0]
        nearer = distance < self.nearest
        nearer[index] = True  # a duplicate of a chosen point stands for itself at least
        self.owner[nearer] = len(self.chosen)
        self.nearest[nearer] = distance[nearer]
        self.free[index] = False
        self.chosen.append(index)
        self.gains.append(gain * self.unit)

    def result(self) -> FacilityLocation:
        """Where the choice ended."""
        index = torch.tensor(self.chosen, device=self.free.device)
        weights = torch.bincount(self.owner, minlength=len(index)).float()
        return FacilityLocation(index, weights, torch.tensor(self.gains, dtype=torch.float64, device=index.device))


def plan_blocks(n: int, budget: int) -> tuple[int, bool]:
    """Rows of distances to hold at once, and whether the whole matrix is kept as well: 8 n (rows + n if kept) <= budget.

    Raises:
        ConfigError: not even one row fits.
    """
    row = 8 * n
    kept = row * n <= budget // 2
    rows = (budget - row * n * kept) // row
    if rows < 1:
        raise ConfigError(f"Distances of {n} points need a memory budget of {row} bytes or more; got {budget}.")
    return min(n, rows, max(1, BLOCK // n)), kept


def _lazy(cover: _Cover, count: int) -> None:
    """Plain greedy's choice. Gains only fall, so a gain from an earlier step is an upper bound of today's."""
    n = len(cover.free)
    bounds = cover.gain(torch.arange(n, device=cover.free.device))
    fresh = torch.ones_like(cover.free)
    for step in range(count):
        left, width = n - step, 8
        best = int(bounds.argmax())
        while not bool(fresh[best]):
            # re-evaluate the largest bounds, more of them each time: a vectorised pass costs little more than one point
            stale = bounds.masked_fill(fresh, -torch.inf).topk(min(width, left)).indices
            bounds[stale] = cover.gain(stale)
            fresh[stale] = True
            left, width = left - len(stale), 2 * width
            best = int(bounds.argmax())
        # the first of equals: every bound before it is smaller, and no gain after it is larger
        cover.choose(best, float(bounds[best]))
        bounds[best] = -torch.inf
        fresh = ~cover.free


def _stochastic(cover: _Cover, count: int, generator: torch.Generator) -> None:
    """The best of a few random points at each step."""
    sample = math.ceil(len(cover.free) / count * math.log(1.0 / SLACK))
    for _ in range(count):
        left = torch.nonzero(cover.free).flatten()
        draw = torch.randperm(len(left), generator=generator, device=generator.device)[:sample]
        rows = left[draw.sort().values.to(left.device)]  # ascending: ties go to the lowest index
        gains = cover.gain(rows)
        best = int(gains.argmax())
        cover.choose(int(rows[best]), float(gains[best]))
