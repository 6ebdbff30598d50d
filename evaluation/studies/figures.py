"""Figures of the studies, each on its own canvas: no global state of matplotlib is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatterSciNotation, LogLocator

from bpc.methods import METHODS
from evaluation.plots.base import FONT, SMALL, legend_below, new_figure, save
from evaluation.studies.tables import NAMES

__all__ = ["STYLES", "draw_spread", "log_axis", "plot_gaussian_sizes", "plot_gaussian_steps", "tighten"]

# a method looks as in every figure of the project; the exact gradient is a darker reverse KL
STYLES = {**{method.name: (method.colour, method.marker) for method in METHODS}, "rkl-exact": ("#00513B", "d")}
FLOOR: dict[str, Any] = {"color": "black", "linestyle": (0, (4, 2)), "linewidth": 1.2, "zorder": 3}
NOTHING, LEAST = 1e-12, 1e-5  # zero up to rounding; where a logarithmic axis ends
TITLES = {
    "reverse_kl": (r"reverse KL($\pi_u$ ‖ $\pi_x$)", "nats"),
    "w2_squared": (r"squared Wasserstein distance $W_2^2$", "units of θ²"),
    "forward_kl": (r"forward KL($\pi_x$ ‖ $\pi_u$)", "nats"),
}


def draw_spread(
    axes: Axes, part: pd.DataFrame, x: str, y: str, method: str, *, shift: float = 0.0, **options: Any
) -> None:
    """Mean over the repeats against `x`, with a band from the least to the greatest.

    Args:
        part: rows of one method.
        shift: added to x, so that curves that coincide can be told apart.
        options: of the line.
    """
    color, marker = STYLES[method]
    grouped = part.groupby(x)[y]
    mean, low, high = grouped.mean(), grouped.min(), grouped.max()
    options = {"marker": marker, "ms": 4.5, "linewidth": 1.6, "label": NAMES[method], **options}
    axes.fill_between(mean.index + shift, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(mean.index + shift, mean, color=color, **options)


def plot_gaussian_steps(rows: pd.DataFrame, path: Path | str) -> list[Path]:
    """Figure 6: each divergence by step, a colour for what was minimised; below, if weights are fixed, what exceeds the floor.

    Args:
        rows: of one size and kind of weights: method, repeat, steps, the divergences and their floors.
        path: PNG; a PDF is written beside it.
    """
    fixed = float(rows["floor_reverse_kl"].iloc[0]) > NOTHING
    figure, all_axes = new_figure(10.0, 5.8 if fixed else 3.4, 2 if fixed else 1, 3, sharex=True)
    size, repeats = rows["size"].iloc[0], rows["repeat"].nunique()
    for column, (name, (title, unit)) in enumerate(TITLES.items()):
        top = all_axes[column]
        _draw_steps(top, rows, name, f"divergence ({unit})")
        top.set_title(title, fontsize=FONT)
        if fixed:
            floor = rows[f"floor_{name}"].iloc[0]
            top.axhline(floor, label=f"least possible with weight 1 per point (M = {size})", **FLOOR)
            _draw_steps(
                all_axes[column + 3],
                rows.assign(**{name: rows[name] - floor}),
                name,
                f"above the least possible ({unit})",
            )
        all_axes[-3 + column].set_xlabel("training step", fontsize=SMALL)
    legend_below(figure, all_axes[0], 4)
    figure.suptitle(f"M = {size}; mean and range over {repeats} data set{'s' if repeats > 1 else ''}", fontsize=SMALL)
    return save(figure, path)


def _draw_steps(axes: Axes, rows: pd.DataFrame, name: str, label: str) -> None:
    """A line for each method on a logarithmic axis."""
    for place, (method, part) in enumerate(rows.groupby("method", sort=False)):
        line: dict[str, Any] = {"marker": "", "linestyle": ("-", "--", "-.")[place % 3], "linewidth": 1.8}
        draw_spread(axes, part.assign(**{name: part[name].clip(lower=NOTHING)}), "steps", name, str(method), **line)
    log_axis(axes)
    axes.set_ylabel(label, fontsize=SMALL)
    tighten(axes, rows[name], LEAST)


def plot_gaussian_sizes(table: pd.DataFrame, path: Path | str) -> list[Path]:
    """Figure 7: each divergence at the end of learning by size, a colour for what was minimised.

    Args:
        table: of one kind of weights: method, repeat, size, the divergences and their floors.
        path: PNG; a PDF is written beside it.
    """
    figure, all_axes = new_figure(10.0, 3.7, 1, 3)
    repeats, clipped = table["repeat"].nunique(), False
    for axes, (name, (title, unit)) in zip(all_axes, TITLES.items(), strict=True):
        clipped |= bool((table[name] < LEAST).any())
        for place, (method, part) in enumerate(table.groupby("method", sort=False)):
            shown = part.assign(**{name: part[name].clip(lower=LEAST)})
            draw_spread(axes, shown, "size", name, str(method), shift=1.2 * (place - 1), linewidth=1.2)
        floor = table.groupby("size")[f"floor_{name}"].first()
        if float(floor.max()) > NOTHING:
            axes.plot(floor.clip(lower=LEAST), label="least possible with weight 1 per point", **FLOOR)
        log_axis(axes)
        axes.set_xticks(sorted(table["size"].unique()))
        axes.set_title(title, fontsize=FONT)
        axes.set_ylabel(f"divergence ({unit})", fontsize=SMALL)
        axes.set_xlabel("coreset size M", fontsize=SMALL)
    legend_below(figure, all_axes[0], 5)
    # zero has no place on a logarithmic axis, and rounding errors deserve no decades of it
    note = "; what is less than $10^{-5}$ is drawn there" if clipped else ""
    figure.suptitle(f"mean and range over {repeats} data set{'s' if repeats > 1 else ''}{note}", fontsize=SMALL)
    return save(figure, path)


def log_axis(axes: Axes) -> None:
    """A logarithmic y with powers of ten as numbers, and a few between them where it spans no more than one."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10.0, numticks=7))
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1.0, 0.4)))


def tighten(axes: Axes, values: pd.Series, least: float) -> None:
    """A logarithmic axis that starts at `least` where some values are smaller: rounding errors deserve no decades."""
    if len(values) and values.min() < least < values.max():
        axes.set_ylim(bottom=least)
