"""Rank correlations against scipy's and against orders that are known; their intervals."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from bpc.errors import ConfigError
from evaluation.ranks import kendall, rank_correlation, spearman

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("digits", [1, 6])  # with ties and without
def test_both_are_scipy_s(digits):
    x = RNG.normal(size=40).round(digits)
    y = (0.5 * x + RNG.normal(size=40)).round(digits)
    assert spearman(x, y) == pytest.approx(float(spearmanr(x, y).statistic), rel=1e-12)
    assert kendall(x, y) == pytest.approx(float(kendalltau(x, y).statistic), rel=1e-12)


def test_an_order_between_sizes_does_not_count_within_them():
    """Large and small things are in one order, and the reverse of it among their own: Simpson's paradox."""
    size = np.repeat([0.0, 100.0, 200.0], 8)
    within = np.tile(np.arange(8.0), 3)
    together = rank_correlation(size + within, size - within, resamples=50)
    apart = rank_correlation(size + within, size - within, strata=list(size), resamples=50)
    assert together.spearman.value > 0.7
    assert apart.spearman.value == pytest.approx(-1) and apart.kendall.value == pytest.approx(-1)
    assert apart.pairs == 24


def test_the_interval_covers_as_often_as_it_says():
    """Of bivariate normal pairs, whose Kendall's tau is 2 / pi arcsin(rho)."""
    rho, covered = 0.6, 0
    tau = 2 / math.pi * math.asin(rho)
    for repeat in range(100):
        x = RNG.normal(size=40)
        y = rho * x + math.sqrt(1 - rho**2) * RNG.normal(size=40)
        low, high = rank_correlation(x, y, resamples=100, seed=repeat).kendall[1:]
        covered += low <= tau <= high
    assert 85 <= covered <= 100


def test_what_is_not_finite_is_counted_out_and_too_little_is_nan():
    found = rank_correlation([1.0, 2.0, 3.0, math.nan], [1.0, 2.0, 3.0, 4.0], resamples=20)
    assert found.pairs == 3 and found.spearman.value == 1.0
    assert math.isnan(rank_correlation([1.0, 2.0], [1.0, 2.0]).spearman.value)
    assert math.isnan(rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], resamples=5).kendall.value)
    with pytest.raises(ConfigError, match="one length"):
        rank_correlation([1.0], [1.0, 2.0])


def test_the_seed_decides():
    x, y = RNG.normal(size=20), RNG.normal(size=20)
    assert rank_correlation(x, y, seed=1, resamples=50) == rank_correlation(x, y, seed=1, resamples=50)
