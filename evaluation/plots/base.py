"""Colours, canvases and files that every figure shares: no global state of matplotlib is touched."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

import bpc.divergences  # they register their methods
import bpc.selection  # noqa: F401
from bpc.errors import DataError
from bpc.files import write_atomic
from bpc.methods import METHODS, Method

DPI = 150
PRINT_DPI = 300  # of pixels inside a PDF
AUGMENTED = " (+Aug)"  # see `evaluation.compare.method_label`
FEW = 30  # points of a curve that each get a mark; of a longer one the line says enough
OTHERS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
MARKERS = "osD^vp*"
LINES = ("-", "--", "-.", ":")
FONT, SMALL = 10.0, 9.0
GREY = "#595959"


class Style(NamedTuple):
    """How one label looks in every panel of a figure."""

    color: str
    marker: str
    name: str  # what a reader sees
    line: str  # dashed for what was learned with augmentation, beside the same method without


def style_of(label: str, labels: Sequence[str]) -> Style:
    """The style of one of `labels`: a method's own, or the next of the palette that no method among them has."""
    method = _method_of(label)
    if method is not None:
        augmented = label.endswith(AUGMENTED)
        name = method.label + (AUGMENTED if augmented else "")
        return Style(method.colour, method.marker, name, "--" if augmented else "-")
    taken = {known.colour for known in map(_method_of, labels) if known is not None}
    free = [color for color in OTHERS if color not in taken] or OTHERS
    place = [other for other in labels if _method_of(other) is None].index(label)
    return Style(free[place % len(free)], MARKERS[place % len(MARKERS)], label, "-")


def styles_of(labels: Sequence[str], names: Sequence[str]) -> dict[str, Style]:
    """Styles of labels that are one of `names`, or one of them with a variant after a comma ("ByPE, interval 50").

    A name has the same colour and marker in every figure, whatever stands beside it; its variants differ by their lines.
    """
    looks: dict[str, Style] = {}
    seen = dict.fromkeys(names, 0)
    for label in labels:
        known = max((n for n in names if label == n or label.startswith(f"{n}, ")), key=len, default=None)
        place = len(names) + len(looks) if known is None else list(names).index(known)
        variant = 0 if known is None else seen[known]
        if known is not None:
            seen[known] += 1
        looks[label] = Style(
            OTHERS[place % len(OTHERS)], MARKERS[place % len(MARKERS)], label, LINES[variant % len(LINES)]
        )
    return looks


def _method_of(label: str) -> Method | None:
    """The method that a label (our name or the shown one, augmented or not, whatever is learned beside) stands for."""
    plain = label.split(" (+")[0].split("+")[0]
    return next((method for method in METHODS if plain in (method.name, method.label)), None)


def shades(color: str, count: int) -> list[tuple[float, float, float]]:
    """`count` shades of a colour from dark to light: the chains of one method."""
    own = np.array(to_rgb(color))
    dark, light = 0.55 * own, own + 0.6 * (1.0 - own)
    steps = np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.4])
    return [(float(r), float(g), float(b)) for r, g, b in (dark + step * (light - dark) for step in steps)]


def new_figure(width: float, height: float, rows: int, columns: int, **layout: Any) -> tuple[Figure, list[Axes]]:
    """A figure of its own (inches) and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    shared = {name: layout.pop(name) for name in ("sharex", "sharey") if name in layout}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=layout, **shared)
    return figure, [plain(axes) for line in grid for axes in line]


def draw_curve(axes: Axes, x: ArrayLike, y: ArrayLike, **options: Any) -> None:
    """A line; with a mark at each point where there are few, so that a run of one step is seen as well."""
    finite = int(np.isfinite(np.asarray(y, dtype=float)).sum())
    axes.plot(x, y, **{"marker": "o" if finite <= FEW else "", "ms": 3, "linewidth": 1.6, **options})


def whole_ticks(axes: Axes, values: Iterable[float], most: int = 8) -> None:
    """Ticks of x at whole numbers: at the values themselves where there are no more than `most`, 5 rather than 4.8 and 5.2."""
    distinct = sorted({int(value) for value in values})
    if len(distinct) <= most:
        axes.set_xticks(distinct)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(most, integer=True))


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


def save(figure: Figure, path: Path | str, *, pdf: bool = True) -> list[Path]:
    """Write a figure as PNG and, beside it under the same name, as PDF.

    Both are drawn before either is written, so that a figure that cannot be drawn leaves no file.

    Args:
        figure: what to write.
        path: the name, with either suffix or none.
        pdf: False leaves it out, where pixels are all that there is and hundreds of runs draw one each.

    Returns:
        The files.
    """
    path = Path(path)
    stem = path.stem if path.suffix in (".png", ".pdf") else path.name
    # no date and no version in the files: the same picture is the same bytes
    formats: dict[str, dict[str, Any]] = {
        "png": {"dpi": DPI, "metadata": {"Software": None}},
        "pdf": {"dpi": PRINT_DPI, "metadata": dict.fromkeys(["Creator", "Producer", "CreationDate"])},
    }
    if not pdf:
        del formats["pdf"]
    drawn = {}
    for suffix, options in formats.items():
        stream = io.BytesIO()
        # letters as TrueType, which publishers ask for; the settings are as before once it is drawn
        with rc_context({"pdf.fonttype": 42}):
            figure.savefig(stream, format=suffix, **options)
        drawn[path.with_name(f"{stem}.{suffix}")] = stream.getvalue()
    for file, content in drawn.items():
        write_atomic(file, partial(_write, content))
    return list(drawn)


def _write(content: bytes, stream: BinaryIO) -> None:
    stream.write(content)


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
