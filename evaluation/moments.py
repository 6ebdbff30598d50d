"""Mean and spread over seeds, and the one rule for numbers that are not finite: they are never left out of a mean."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

__all__ = ["Moments", "moments", "spread_over", "welch_error"]


class Moments(NamedTuple):
    """What a table prints of the numbers of several seeds, or a mean and a spread that somebody else has printed.

    Attributes:
        mean: nan as soon as one number is not finite: leaving a diverged seed out would flatter the method.
        std: with n - 1; nan for one number, and where the mean is.
        n: how many numbers; 0 for a quoted mean.
        n_nonfinite: how many of them are not finite.
        mean_finite: mean of the others; nan if there are none.
    """

    mean: float
    std: float = math.nan
    n: int = 0
    n_nonfinite: int = 0
    mean_finite: float = math.nan

    @property
    def standard_error(self) -> float:
        """Of the mean: std / sqrt(n); nan for one number."""
        return self.std / math.sqrt(self.n) if self.n else math.nan


def moments(numbers: Iterable[float]) -> Moments:
    """The moments of some numbers; of none they are nan, which a table leaves blank."""
    values = np.asarray(list(numbers), dtype=float)
    finite = values[np.isfinite(values)]
    known = len(values) > 0 and len(finite) == len(values)
    return Moments(
        mean=float(values.mean()) if known else math.nan,
        std=float(values.std(ddof=1)) if known and len(values) > 1 else math.nan,
        n=len(values),
        n_nonfinite=len(values) - len(finite),
        mean_finite=float(finite.mean()) if len(finite) else math.nan,
    )


def welch_error(first: Moments, second: Moments) -> float:
    """The standard error of a difference of two means of unlike spread (Welch); nan with one number on either side."""
    return math.sqrt(first.std**2 / first.n + second.std**2 / second.n)


def spread_over(n: int, coresets: int) -> str:
    """What a standard deviation is over: numbers of one coreset have less spread than those of independent ones.

    Args:
        n: numbers.
        coresets: different ones that they are of; 0 is unknown.
    """
    if coresets == 0:
        return "seeds"
    if coresets >= n:
        return "independent coresets, one seed each"
    return f"seeds on {'one coreset' if coresets == 1 else f'{coresets} coresets'}"
