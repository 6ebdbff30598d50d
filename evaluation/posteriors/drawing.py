"""Marks, axes and legends that the figures of the study of posteriors share. What has not mixed is hollow and has a dagger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from evaluation.plots.base import FONT, GREY, SMALL, style_of
from evaluation.posteriors.collect import cell_of
from evaluation.posteriors.words import DAGGER

__all__ = [
    "KEY",
    "LINES",
    "LOGARITHMIC",
    "MEASURES",
    "SIZES",
    "any_unmixed",
    "draw_cell",
    "draw_line",
    "full_label",
    "legend_of",
    "log_x",
    "log_y",
    "mark_unmixed",
    "shifts_of",
    "title_of",
]

MEASURES = {
    "tv": "total variation (fraction)",
    "agreement": "agreement (fraction)",
    "sym_kl": "symmetric KL (nats)",
    "accuracy": "accuracy (fraction)",
    "nll": "NLL (nats)",
    "ece": "ECE (fraction)",
}
LINES: dict[str, Any] = {"N/M": "-", "1": ":", "learned, sum N": "--", "learned": "-."}
SIZES = {"N/M": 5.5, "1": 3.5, "learned, sum N": 5.5, "learned": 3.5}  # of marks: small ones are small totals of weight
LOGARITHMIC = ("tv", "sym_kl")
WIDE = 2.2  # decades of a logarithmic axis that has powers of ten alone
LEGEND_COLUMN = 2.0  # inches
KEY = "mean over coresets; thick bar: ± Monte Carlo error, thin: ± std over coresets"


def draw_cell(axes: Axes, x: float, part: pd.DataFrame, metric: str, **style: Any) -> float:
    """Mean of a cell with both errors; hollow and with a dagger if a posterior has not mixed. Returns the mean."""
    cell = cell_of(part, metric)
    if cell is None or math.isnan(cell.over_coresets.mean):
        return math.nan
    mean, color = cell.over_coresets.mean, style["color"]
    spread = 0.0 if math.isnan(cell.over_coresets.std) else cell.over_coresets.std
    error = 0.0 if math.isnan(cell.monte_carlo) else cell.monte_carlo
    axes.errorbar(x, mean, spread, color=color, linewidth=0.8, capsize=2, zorder=2)
    axes.errorbar(x, mean, error, color=color, linewidth=2.8, zorder=2)
    face = "white" if cell.unmixed else color
    axes.plot(x, mean, linestyle="", ms=style.get("size", 5.5), color=color, mfc=face, marker=style["marker"], zorder=3)
    if cell.unmixed:
        mark_unmixed(axes, (x, mean), color)
    return mean


def mark_unmixed(axes: Axes, place: tuple[float, float], color: str) -> None:
    """A dagger to the upper right of a mark."""
    axes.annotate(DAGGER, place, (3, 2), textcoords="offset points", fontsize=FONT, color=color, annotation_clip=False)


def draw_line(
    axes: Axes,
    frame: pd.DataFrame,
    over: str,
    metric: str,
    method: str,
    *,
    shift: float = 1.0,
    line: str = "-",
    size: float = 5.5,
) -> None:
    """A metric of one method against a column, on a logarithmic axis; `shift` multiplies x, so that bars do not hide bars."""
    look = style_of(method, [method])
    places = [(float(x) * shift, part) for x, part in frame.groupby(over, sort=True)]
    means = [draw_cell(axes, x, part, metric, color=look.color, marker=look.marker, size=size) for x, part in places]
    axes.plot([x for x, _ in places], means, line, color=look.color, linewidth=1.3, zorder=1)


def shifts_of(names: Sequence[str], step: float = 1.035) -> dict[str, float]:
    """A factor for each method, around 1."""
    return {name: step ** (place - (len(names) - 1) / 2) for place, name in enumerate(names)}


def log_x(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x with its own values as ticks."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    distinct = sorted(set(values))
    axes.set_xticks(distinct, [f"{value:g}" for value in distinct])


def log_y(axes: Axes) -> None:
    """A logarithmic y with plain numbers; call it when everything is drawn."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(10.0, subs=(1.0, 2.0, 5.0) if math.log10(high / low) < WIDE else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend_of(figure: Figure, methods: Sequence[str], more: Sequence[Line2D] = (), *, unmixed: bool) -> None:
    """Methods, then what else there is to tell apart, under everything."""
    handles = []
    for method in methods:
        look = style_of(method, list(methods))
        handles.append(Line2D([], [], color=look.color, marker=look.marker, ms=5.5, label=look.name))
    handles += more
    if unmixed:
        handles.append(
            Line2D([], [], color=GREY, marker="o", mfc="white", linestyle="", ms=5.5, label=f"{DAGGER} not mixed")
        )
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), int(figure.get_figwidth() / LEGEND_COLUMN)),
        fontsize=SMALL,
        frameon=False,
    )


def title_of(figure: Figure, title: str, frame: pd.DataFrame, note: str = KEY) -> None:
    """The question, what it was measured on, and how to read the marks."""
    place = f"{frame['dataset'].iloc[0]}, {frame['architecture'].iloc[0]}"
    figure.suptitle(f"{title} {place}\n{note}", fontsize=FONT)


def full_label(posteriors: pd.DataFrame, words: str) -> str:
    """What a legend calls a line of the full data: with a dagger where one of its runs has not mixed."""
    return f"{words} {DAGGER}" if any_unmixed(posteriors[posteriors["method"] == "full"]) else words


def any_unmixed(frame: pd.DataFrame) -> bool:
    """Whether chains of one of the posteriors have not mixed."""
    return "mixed" in frame and bool((frame["mixed"] == 0.0).any())
