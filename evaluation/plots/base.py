"""Colours, canvases and files that every figure shares: no global state of matplotlib is touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

import bpc.divergences  # they register their methods
import bpc.selection  # noqa: F401
from bpc.errors import DataError
from bpc.files import write_atomic
from bpc.methods import METHODS

DPI = 150
OTHERS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
FONT, SMALL = 10.0, 9.0
GREY = "#595959"


def style_of(label: str, labels: list[str]) -> tuple[str, str, str]:
    """Colour, marker and shown name of a label: a method's own, or the next of the palette."""
    for method in METHODS:
        if label == method.name:
            return method.colour, method.marker, method.label
        if label.removesuffix(" (+Aug)") == method.label:
            return method.colour, method.marker, label
    place = labels.index(label)
    return OTHERS[place % len(OTHERS)], "osD^vp*"[place % 7], label


def new_figure(width: float, height: float, rows: int, columns: int, **layout: Any) -> tuple[Figure, list[Axes]]:
    """A figure of its own (inches) and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    shared = {name: layout.pop(name) for name in ("sharex", "sharey") if name in layout}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=layout, **shared)
    return figure, [plain(axes) for line in grid for axes in line]


def plain(axes: Axes) -> Axes:
    """The same axes with small ticks and without a frame."""
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def legend_below(figure: Figure | SubFigure, axes: Axes, columns: int, size: float = SMALL) -> None:
    """The legend of `axes` under everything in `figure`, where it hides no curve."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize=size,
        frameon=False,
        borderpad=0,
        labelspacing=0.3,
        columnspacing=1.2,
        handlelength=1.8,
    )


def save(figure: Figure, path: Path | str) -> None:
    """Write a PNG, or a PDF where `path` ends so."""
    # no date and no version in the file: the same picture is the same bytes
    if Path(path).suffix == ".pdf":
        options: dict[str, Any] = {"format": "pdf", "metadata": dict.fromkeys(["Creator", "Producer", "CreationDate"])}
    else:
        options = {"format": "png", "dpi": DPI, "metadata": {"Software": None}}
    write_atomic(path, lambda stream: figure.savefig(stream, **options))


def require(items: Mapping[str, Any], what: str) -> None:
    """Refuse to draw nothing."""
    if not items:
        raise DataError(f"Nothing to plot: expected {what} under at least one label.")


def require_columns(log: pd.DataFrame, names: list[str], what: str) -> None:
    """Refuse a log without rows or without one of these columns."""
    missing = [name for name in names if name not in log.columns]
    if missing or log.empty:
        raise DataError(
            f"For {what} the log must have rows and the columns {', '.join(names)}; it has {len(log)} "
            f"rows and lacks {', '.join(missing) or 'no column'}."
        )
