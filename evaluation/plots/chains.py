"""Whether chains mixed, to look at: traces and ranks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from bpc.errors import ConfigError
from evaluation.plots.base import GREY, SMALL, shades

__all__ = ["draw_ranks", "draw_trace"]

RANK_BINS = 20
TRACE_POINTS = 1000  # a trace has no more pixels than that


def draw_trace(axes: Axes, chains: npt.ArrayLike, color: str) -> None:
    """Values by draw: a thin line for each of the chains (c, s), in shades of `color`."""
    values = _chains(chains)
    every = -(-values.shape[1] // TRACE_POINTS)
    draws = np.arange(values.shape[1])[::every]
    for chain, shade in zip(values, shades(color, len(values)), strict=True):
        axes.plot(draws, chain[::every], color=shade, linewidth=0.6)
    axes.set_xlim(0, max(values.shape[1] - 1, 1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    lost = int((~np.isfinite(values)).any(1).sum())
    if lost:
        axes.text(0.99, 0.03, f"{lost} not finite", transform=axes.transAxes, fontsize=SMALL - 1, ha="right")


def draw_ranks(axes: Axes, chains: npt.ArrayLike, color: str) -> None:
    """Histograms of the ranks of each chain's draws among all draws (Vehtari et al., 2021, Section 4.1).

    Chains that sample the same distribution have flat histograms, at the grey line.

    Args:
        axes: where; a row for each chain.
        chains: (c, s).
        color: of the method; chains have shades of it, the same as in `draw_trace`.
    """
    values = _chains(chains)
    c, s = values.shape
    bins = max(min(RANK_BINS, s // 5), 1)
    # a value that is not finite has no rank and is in no bar
    ranks = rankdata(np.where(np.isfinite(values), values, np.nan).ravel(), nan_policy="omit").reshape(c, s)
    edges = np.linspace(0.5, c * s + 0.5, bins + 1)
    colors = shades(color, c)
    for i in range(c):
        height = np.histogram(ranks[i][np.isfinite(ranks[i])], edges)[0] * bins / s  # 1 where flat
        # half a row is the flat height; what is more than twice it would run into the next chain
        tops = c - 1 - i + 0.42 * np.minimum(height, 2.0)
        axes.stairs(tops, edges, baseline=c - 1 - i, fill=True, color=colors[i])
        axes.axhline(c - 1 - i + 0.42, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_yticks([c - 1 - i + 0.42 for i in range(c)], [str(i + 1) for i in range(c)], fontsize=SMALL)
    axes.set(xlim=(0, c * s), ylim=(0, c))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def _chains(chains: npt.ArrayLike) -> np.ndarray:
    values = np.asarray(chains, dtype=float)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ConfigError(f"Chains to be drawn must be (c, s), c chains of at least two draws; got {values.shape}.")
    return values
