"""Does one measure put things in the order of another? Rank correlations with bootstrap intervals."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from bpc.errors import ConfigError

__all__ = ["Estimate", "RankCorrelation", "kendall", "percentile_interval", "rank_correlation", "spearman"]

RESAMPLES = 1000
LEVEL = 0.95
LEAST = 3  # of two points every order is perfect

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with a 95 % percentile bootstrap interval; nan where there is none."""

    value: float
    low: float
    high: float


class RankCorrelation(NamedTuple):
    """Of two measures on the same things.

    Attributes:
        pairs: things with both numbers finite.
        spearman: correlation of ranks, -1 to 1.
        kendall: tau-b, concordant less discordant pairs as a fraction of those not tied.
    """

    pairs: int
    spearman: Estimate
    kendall: Estimate


def spearman(x: Array, y: Array) -> float:
    """Pearson's correlation of the ranks, ties with their mean rank; nan where one is constant."""
    a, b = rankdata(x) - (len(x) + 1) / 2, rankdata(y) - (len(y) + 1) / 2
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def kendall(x: Array, y: Array) -> float:
    """Kendall's tau-b; nan where one is constant."""
    a, b = (
        np.sign(np.subtract.outer(x, x)),
        np.sign(np.subtract.outer(y, y)),
    )  # many times faster than scipy's for few pairs
    scale = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else math.nan


def rank_correlation(
    x: ArrayLike, y: ArrayLike, *, strata: Sequence[object] | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> RankCorrelation:
    """Spearman's and Kendall's correlation of two measures, with intervals from resampled pairs.

    A pair of which a number is not finite is left out; `RankCorrelation.pairs` says how many are there. Resampled pairs repeat,
    and so tie, which draws the interval a little towards zero for few pairs.

    Args:
        x, y: (n,) each.
        strata: of each pair. Given, the correlation is the mean of those within the strata that have 3 pairs or more, weighted by
            their pairs, and pairs are resampled within them: an order between sizes, which anything has, does not count.
        seed: of the resampling.
        resamples: how many.
    """
    first, second = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or (strata is not None and len(strata) != len(first)):
        raise ConfigError(
            f"Rank correlation needs two lists of one length; got shapes {first.shape} and {second.shape}."
        )
    names = (("",) * len(first)) if strata is None else tuple(map(str, strata))
    return _correlate(tuple(first), tuple(second), names, seed, resamples)


@functools.lru_cache(256)  # a table and a figure ask for the same ones
def _correlate(
    x: tuple[float, ...], y: tuple[float, ...], names: tuple[str, ...], seed: int, resamples: int
) -> RankCorrelation:
    """`rank_correlation` of checked lists."""
    first, second = np.array(x), np.array(y)
    finite = np.isfinite(first) & np.isfinite(second)
    parts = [np.flatnonzero(finite & np.array([name == own for name in names])) for own in dict.fromkeys(names)]
    parts = [part for part in parts if len(part) >= LEAST]
    count = sum(map(len, parts))
    if not parts:
        nothing = Estimate(math.nan, math.nan, math.nan)
        return RankCorrelation(0, nothing, nothing)

    def mean_of(measure: Callable[[Array, Array], float], chosen: list[NDArray[np.int64]]) -> float:
        values = [measure(first[index], second[index]) for index in chosen]
        weights = np.array([len(index) for index in chosen], dtype=float)
        return float(np.average(values, weights=weights))

    generator = np.random.default_rng(seed)
    again = [[generator.choice(part, len(part)) for part in parts] for _ in range(resamples)]
    found = []
    for measure in (spearman, kendall):
        scattered = np.array([mean_of(measure, chosen) for chosen in again])
        found.append(Estimate(mean_of(measure, parts), *percentile_interval(scattered)))
    return RankCorrelation(count, *found)


def percentile_interval(values: Array) -> tuple[float, float]:
    """The middle `LEVEL` of bootstrap values; those not defined (all of a resample tied) are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
