r"""How many points a posterior needs: total variation against the number of points M as a power law, and what it extrapolates to.

    log TV = log A - alpha log M + noise,   least squares over all coresets of a method;

the law reaches the ceiling TV_0 (two samplings of the full data's posterior) at M* = (A / TV_0)^(1 / alpha). Intervals are
percentiles of fits to coresets resampled within each M, so that they hold what the coresets' spread leaves open and not whether
the law goes on: M* beyond the largest M is an extrapolation, and is called one wherever it is shown.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.ranks import LEVEL, RESAMPLES, Estimate

__all__ = ["PowerLaw", "fit_power_law"]

Array = NDArray[np.float64]


class PowerLaw(NamedTuple):
    """TV = scale M^-exponent.

    Attributes:
        scale, exponent: at all coresets.
        exponent_interval: 95 %.
        needed: M* with its interval, points in all; infinite where TV does not fall with M, nan without a ceiling.
        fits: (resamples, 2) log scale and exponent of each resample: the band of a figure.
        sizes: of M that it was fitted to, least and greatest.
        coresets: how many.
    """

    scale: float
    exponent: float
    exponent_interval: tuple[float, float]
    needed: Estimate
    fits: Array
    sizes: tuple[float, float]
    coresets: int

    def at(self, points: ArrayLike) -> Array:
        """TV at M."""
        return np.asarray(self.scale * np.asarray(points, dtype=float) ** -self.exponent)

    def band(self, points: ArrayLike) -> tuple[Array, Array]:
        """The 95 % interval of the law at M."""
        x = np.log(np.asarray(points, dtype=float))
        curves = np.exp(self.fits[:, :1] - self.fits[:, 1:] * x)
        low, high = np.quantile(curves, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return low, high


def fit_power_law(
    points: ArrayLike, tv: ArrayLike, *, ceiling: float = math.nan, seed: int = 0, resamples: int = RESAMPLES
) -> PowerLaw | None:
    """The law and its intervals; None with fewer than two M.

    Args:
        points: (n,) M of each coreset.
        tv: (n,) above 0; a coreset whose value is not finite is left out.
        ceiling: TV_0.
        seed: of the resampling.
        resamples: how many.
    """
    m, values = np.asarray(points, dtype=float), np.asarray(tv, dtype=float)
    usable = np.isfinite(values) & (values > 0)
    x, y = np.log(m[usable]), np.log(values[usable])
    if len(np.unique(x)) < 2:
        return None
    groups = [np.flatnonzero(x == size) for size in np.unique(x)]
    generator = np.random.default_rng(seed)
    index = np.concatenate([generator.choice(group, (resamples, len(group))) for group in groups], axis=1)
    scale, exponent = _line(x[None], y[None])[0]
    fits = _line(x[index], y[index])
    needed = _crossing(fits, ceiling)
    low, high = np.quantile(fits[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # of infinite values neighbours only: an average of a finite and an infinite one is no number
    ends = np.quantile(needed, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest") if ceiling > 0 else (math.nan,) * 2
    at_all = float(_crossing(np.array([[scale, exponent]]), ceiling)[0])
    return PowerLaw(
        math.exp(scale),
        float(exponent),
        (float(low), float(high)),
        Estimate(at_all, float(ends[0]), float(ends[1])),
        fits,
        (float(math.exp(x.min())), float(math.exp(x.max()))),
        int(usable.sum()),
    )


def _line(x: Array, y: Array) -> Array:
    """(b, n) each -> (b, 2): log scale and exponent by least squares."""
    gap = x - x.mean(1, keepdims=True)
    slope = (gap * y).sum(1) / (gap * gap).sum(1)
    return np.stack([y.mean(1) - slope * x.mean(1), -slope], 1)


def _crossing(fits: Array, ceiling: float) -> Array:
    """M where each law meets the ceiling."""
    if not ceiling > 0:
        return np.full(len(fits), math.nan)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = np.exp((fits[:, 0] - math.log(ceiling)) / fits[:, 1])
    return np.where(fits[:, 1] > 0, found, math.inf)
