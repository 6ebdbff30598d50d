"""Whether chains mixed, to look at: traces, ranks, and energies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from bpc.errors import ConfigError
from evaluation.plots.base import FONT, GREY, OTHERS, SMALL, legend_below, new_figure, require, save, style_of

__all__ = ["plot_energy", "plot_ranks", "plot_traces"]

Chains = Mapping[str, npt.ArrayLike]  # label to (c, s)
RANK_BINS = 20
TRACE_POINTS = 1000  # a trace has no more pixels than that


def plot_traces(values: Chains, path: Path | str, *, quantity: str = "log density (nats)") -> None:
    """Each chain's values by draw, one panel a label.

    Args:
        values: label to (c, s), c chains of s draws.
        path: PNG or PDF.
        quantity: what they are, with the unit.
    """
    require(values, "chains")
    figure, all_axes = new_figure(5.6, 1.7 * len(values) + 0.5, len(values), 1)
    for axes, (label, chains) in zip(all_axes, values.items(), strict=True):
        draw_trace(axes, chains)
        axes.set_title(style_of(label, list(values))[2], fontsize=FONT)
        axes.set_ylabel(quantity.replace(" (", "\n("), fontsize=SMALL)
    all_axes[-1].set_xlabel("draw", fontsize=FONT)
    save(figure, path)


def plot_ranks(values: Chains, path: Path | str, *, quantity: str = "log density") -> None:
    """Histograms of the ranks of each chain's draws among all draws (Vehtari et al., 2021, Section 4.1).

    Chains that sample the same distribution have flat histograms, at the grey line.

    Args:
        values: label to (c, s), c chains of s draws.
        path: PNG or PDF.
        quantity: what is ranked.
    """
    require(values, "chains")
    figure, all_axes = new_figure(2.9 * len(values) + 0.6, 3.4, 1, len(values))
    for axes, (label, chains) in zip(all_axes, values.items(), strict=True):
        draw_ranks(axes, chains)
        axes.set_title(style_of(label, list(values))[2], fontsize=FONT)
        axes.set_xlabel(f"rank of {quantity}", fontsize=FONT)
    all_axes[0].set_ylabel("chain", fontsize=FONT)
    save(figure, path)


def plot_energy(energies: Chains, path: Path | str) -> None:
    """The spread of the energy and of its changes from draw to draw (Betancourt, 2016).

    Changes much narrower than the energy itself mean that the momentum is refreshed too weakly to reach all of it: a small
    E-BFMI.

    Args:
        energies: label to (c, s) nats, c chains of s draws.
        path: PNG or PDF.
    """
    require(energies, "energies")
    figure, all_axes = new_figure(2.9 * len(energies) + 0.6, 3.2, 1, len(energies))
    for axes, (label, chains) in zip(all_axes, energies.items(), strict=True):
        draw_energy(axes, chains, style_of(label, list(energies))[0])
        axes.set_title(style_of(label, list(energies))[2], fontsize=FONT)
        axes.set_xlabel("energy (nats)", fontsize=FONT)
    all_axes[0].set_ylabel("share of draws", fontsize=FONT)
    legend_below(figure, all_axes[0], 2)
    save(figure, path)


def draw_trace(axes: Axes, chains: npt.ArrayLike) -> None:
    """A thin line a chain."""
    values = _chains(chains)
    every = -(-values.shape[1] // TRACE_POINTS)
    draws = np.arange(values.shape[1])[::every]
    for i, chain in enumerate(values):
        axes.plot(draws, chain[::every], color=OTHERS[i % len(OTHERS)], linewidth=0.5, alpha=0.8)
    axes.set_xlim(0, max(values.shape[1] - 1, 1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    lost = int((~np.isfinite(values)).any(1).sum())
    if lost:
        axes.text(0.99, 0.03, f"{lost} not finite", transform=axes.transAxes, fontsize=SMALL - 1, ha="right")


def draw_ranks(axes: Axes, chains: npt.ArrayLike) -> None:
    """A row of bars a chain; the chain's own grey line is a flat histogram."""
    values = _chains(chains)
    c, s = values.shape
    bins = max(min(RANK_BINS, s // 5), 1)
    # a value that is not finite has no rank and is in no bar
    ranks = rankdata(np.where(np.isfinite(values), values, np.nan).ravel(), nan_policy="omit").reshape(c, s)
    edges = np.linspace(0.5, c * s + 0.5, bins + 1)
    for i in range(c):
        height = np.histogram(ranks[i][np.isfinite(ranks[i])], edges)[0] * bins / s  # 1 where flat
        # half a row is the flat height; what is more than twice it would run into the next chain
        tops = c - 1 - i + 0.42 * np.minimum(height, 2.0)
        axes.stairs(tops, edges, baseline=c - 1 - i, fill=True, color=OTHERS[i % len(OTHERS)], alpha=0.75)
        axes.axhline(c - 1 - i + 0.42, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_yticks([c - 1 - i + 0.42 for i in range(c)], [str(i + 1) for i in range(c)], fontsize=SMALL)
    axes.set(xlim=(0, c * s), ylim=(0, c))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def draw_energy(axes: Axes, chains: npt.ArrayLike, color: str) -> None:
    """Both histograms, the energy about each chain's mean."""
    values = _chains(chains)
    level = values - values.mean(1, keepdims=True)
    change = np.diff(values, axis=1)
    level, change = level[np.isfinite(level)], change[np.isfinite(change)]
    if not len(level) or not len(change):
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, fontsize=SMALL, ha="center")
        return
    low, high = np.quantile(np.concatenate([level, change]), [0.001, 0.999]).tolist()
    if low == high:  # energies that never change
        low, high = low - 1.0, high + 1.0
    edges = np.linspace(low, high, 41)
    axes.stairs(
        np.histogram(level, edges)[0] / len(level), edges, fill=True, color=color, alpha=0.35, label="energy − mean"
    )
    axes.stairs(np.histogram(change, edges)[0] / len(change), edges, color=color, linewidth=1.6, label="change by draw")
    axes.set_ylim(bottom=0)


def _chains(chains: npt.ArrayLike) -> np.ndarray:
    values = np.asarray(chains, dtype=float)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ConfigError(f"Chains to be drawn must be (c, s), c chains of at least two draws; got {values.shape}.")
    return values
