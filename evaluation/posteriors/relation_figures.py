"""Figures of how two numbers go together: power laws in the number of points, and ranks by published and exact scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from evaluation.plots.base import GREY, SMALL, new_figure, save, style_of
from evaluation.posteriors.collect import main_setting, method_order
from evaluation.posteriors.drawing import (
    MEASURES,
    any_unmixed,
    draw_cell,
    full_label,
    legend_of,
    log_y,
    mark_unmixed,
    shifts_of,
    title_of,
)
from evaluation.posteriors.power_law import PowerLaw
from evaluation.posteriors.relations import ceiling_of, laws_of, paired_scores
from evaluation.posteriors.words import POINTS_TITLE, RANK_PAIRS, RANKS_TITLE, UPWARD
from evaluation.ranks import rank_correlation

__all__ = ["draw_points", "draw_ranks"]

FARTHEST = 30.0  # an extrapolation is drawn up to so many times the largest M


def draw_points(frame: pd.DataFrame, path: Path) -> list[Path]:
    """TV by number of points with its power laws, each extrapolated to the ceiling, dotted where it is."""
    laws = laws_of(frame)
    if not laws:
        return []
    posteriors = main_setting(frame)
    mine = posteriors[(posteriors["protocol"] == "exact-scaled") & ~posteriors["learned_weights"]]
    ceiling = ceiling_of(posteriors, "tv")
    largest = max(law.sizes[1] for law in laws.values())
    figure, (axes,) = new_figure(7.2, 5.2, 1, 1)
    shifts = shifts_of(list(laws))
    for method, law in laws.items():
        _law(axes, method, law, largest)
        part = mine[mine["method"] == method]
        look = style_of(method, list(laws))
        for points, cell in part.groupby("points"):
            draw_cell(axes, float(points) * shifts[method], cell, "tv", color=look.color, marker=look.marker)
    if ceiling > 0:
        axes.axhline(ceiling, color="black", linewidth=1, linestyle=(0, (4, 2)))
    axes.set_xscale("log")
    log_y(axes)
    axes.axvspan(largest, largest * FARTHEST, color="#F2F2F2", zorder=0)
    axes.text(
        largest * 1.05,
        0.985,
        "extrapolated",
        fontsize=SMALL,
        color=GREY,
        va="top",
        transform=axes.get_xaxis_transform(),
    )
    axes.set_xlim(right=largest * FARTHEST)
    axes.set_xlabel("points M", fontsize=SMALL)
    axes.set_ylabel("total variation to the full data's posterior (fraction)", fontsize=SMALL)
    more = [
        Line2D([], [], color=GREY, label="power law, band: 95 % bootstrap"),
        Line2D([], [], color="black", linestyle=(0, (4, 2)), label=full_label(posteriors, "two runs on the full data")),
    ]
    legend_of(figure, list(laws), more, unmixed=any_unmixed(mine))
    title_of(figure, POINTS_TITLE, posteriors)
    return save(figure, path)


def _law(axes: Axes, method: str, law: PowerLaw, largest: float) -> None:
    """The line over the sizes it was fitted to, and on beyond them."""
    color = style_of(method, [method]).color
    inside = np.geomspace(*law.sizes, 30)
    beyond = np.geomspace(law.sizes[1], largest * FARTHEST, 30)
    axes.plot(inside, law.at(inside), color=color, linewidth=1.4)
    axes.plot(beyond, law.at(beyond), color=color, linewidth=1.2, linestyle=":")
    for x, alpha in ((inside, 0.16), (beyond, 0.07)):
        axes.fill_between(x, *law.band(x), color=color, alpha=alpha, linewidth=0)


def draw_ranks(frame: pd.DataFrame, path: Path) -> list[Path]:
    """Every coreset: its published score and the fidelity of its exact posterior."""
    pairs = paired_scores(frame)
    shown = [(score, measure) for score, measure in RANK_PAIRS if f"exact_{measure}" in pairs]
    if len(pairs) < 3 or not shown:
        return []
    figure, all_axes = new_figure(9.0, 7.4, 2, 2)
    sizes = sorted(pairs["ipc"].unique())
    for axes, (score, measure) in zip(all_axes, shown, strict=False):
        for method in method_order(list(pairs["method"])):
            part = pairs[pairs["method"] == method]
            look = style_of(method, list(pairs["method"]))
            for _, one in part.iterrows():
                size = 4 + 6 * sizes.index(one["ipc"]) / max(len(sizes) - 1, 1)
                face = "white" if one["mixed"] == 0.0 else look.color
                place = (one[f"published_{score}"], one[f"exact_{measure}"])
                axes.plot(*place, look.marker, color=look.color, mfc=face, ms=size, alpha=0.8)
                if one["mixed"] == 0.0:
                    mark_unmixed(axes, place, look.color)
        signs = [1 if name in UPWARD else -1 for name in (score, measure)]
        found = rank_correlation(
            signs[0] * pairs[f"published_{score}"], signs[1] * pairs[f"exact_{measure}"], strata=list(pairs["ipc"])
        )
        both = rank_correlation(signs[0] * pairs[f"published_{score}"], signs[1] * pairs[f"exact_{measure}"])
        axes.set_title(
            f"Spearman {both.spearman.value:.2f} [{both.spearman.low:.2f}, {both.spearman.high:.2f}]; within ipc "
            f"{found.spearman.value:.2f} [{found.spearman.low:.2f}, {found.spearman.high:.2f}]",
            fontsize=SMALL - 1,
        )
        axes.set_xlabel(f"{MEASURES[score]} of the published chain", fontsize=SMALL)
        axes.set_ylabel(f"{MEASURES[measure]}, exact", fontsize=SMALL)
    legend_of(figure, method_order(list(pairs["method"])), unmixed=bool((pairs["mixed"] == 0.0).any()))
    note = f"a mark a coreset, larger for more images per class ({', '.join(map(str, sizes))}); correlation 1: the same order"
    title_of(figure, RANKS_TITLE, frame, note)
    return save(figure, path)
