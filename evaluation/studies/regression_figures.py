"""Figures of the regression studies: divergence by size and by step, and contours of posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from torch import Tensor

from evaluation.plots.base import FONT, SMALL, legend_below, new_figure, save
from evaluation.studies.figures import FLOOR, LEAST, STYLES, draw_spread, log_axis, tighten
from evaluation.studies.tables import NAMES

__all__ = ["OnGrid", "contour_levels", "plot_contours", "plot_regression"]

REGIONS = (0.95, 0.5)  # of the mass inside a contour
SIZE_COLORS = ("#440154", "#31688E", "#35B779", "#B8C500", "#E66100", "#A50026")


class OnGrid(NamedTuple):
    """A density of two parameters, up to a constant."""

    first: Tensor  # (a,)
    second: Tensor  # (b,)
    density: Tensor  # (a, b)


def plot_regression(
    table: pd.DataFrame, along: pd.DataFrame, path: Path | str, *, columns: Mapping[str, str], parameters: int
) -> list[Path]:
    """Each divergence by size, and the first of them by step.

    Args:
        table: method, repeat, size and the divergences, with ``floor_<divergence>`` where there is one.
        along: the same by steps, of what is learned.
        path: PNG; a PDF is written beside it.
        columns: the divergences' columns and what to call them; all in nats.
        parameters: p, marked on the axis of sizes.
    """
    figure, all_axes = new_figure(3.4 * (len(columns) + 1), 3.8, 1, len(columns) + 1)
    sizes = sorted(table["size"].unique())
    for axes, (name, title) in zip(all_axes, columns.items(), strict=False):
        for method, part in table.groupby("method", sort=False):
            draw_spread(axes, part, "size", name, str(method))
        if f"floor_{name}" in table:
            floor = table.groupby("size")[f"floor_{name}"].first()
            if len(floor[floor > 0]):
                axes.plot(floor[floor > 0], marker="_", ms=9, label="lower bound", **FLOOR)
        axes.axvline(
            parameters, color="#BBBBBB", linewidth=0.8, linestyle=":", zorder=0, label=f"p = {parameters} parameters"
        )
        axes.set_xscale("log")
        log_axis(axes)
        label_sizes(axes, sizes)
        axes.set_title(title, fontsize=FONT)
        axes.set_ylabel("divergence (nats)", fontsize=SMALL)
        axes.set_xlabel("coreset size M", fontsize=SMALL)
        tighten(axes, table[name], LEAST)
    legend_below(figure, all_axes[0], 5)

    name, title = next(iter(columns.items()))
    last = all_axes[-1]
    for place, size in enumerate(sizes):
        grouped = along[(along["size"] == size) & (along["method"] == "rkl")].groupby("steps")[name]
        color = SIZE_COLORS[place % len(SIZE_COLORS)]
        last.fill_between(grouped.mean().index, grouped.min(), grouped.max(), color=color, alpha=0.15, linewidth=0)
        last.plot(grouped.mean(), color=color, linewidth=1.6, label=f"M = {size}")
    log_axis(last)
    last.set_title(f"{title}, BPC-rKL", fontsize=FONT)
    last.set_ylabel("divergence (nats)", fontsize=SMALL)
    last.set_xlabel("training step", fontsize=SMALL)
    last.legend(fontsize=SMALL - 1, frameon=False, loc="upper right", ncols=2, columnspacing=1.0)
    tighten(last, along[name], LEAST)
    # the legend gets a strip of its own above the curves
    low, high = last.get_ylim()
    last.set_ylim(low, high * (high / low) ** 0.25)
    repeats = table["repeat"].nunique()
    figure.suptitle(f"mean and range over {repeats} random subset{'s' if repeats > 1 else ''}", fontsize=SMALL)
    return save(figure, path)


def label_sizes(axes: Axes, sizes: Sequence[int]) -> None:
    """A tick for each size, a number only where it does not run into the one before."""
    labels, last = [], 0.0
    for size in sizes:
        labels.append(str(size) if size > 1.25 * last else "")
        last = size if labels[-1] else last
    axes.set_xticks(list(sizes), labels)
    axes.xaxis.set_minor_locator(NullLocator())


def contour_levels(density: np.ndarray, masses: Sequence[float]) -> list[float]:
    """The heights whose highest-density regions hold `masses` of a density given on a grid, ascending for falling masses."""
    flat = np.sort(density.ravel())[::-1]
    held = np.cumsum(flat) / flat.sum()
    return [float(flat[np.searchsorted(held, mass).clip(max=len(flat) - 1)]) for mass in masses]


def plot_contours(
    densities: Mapping[str, OnGrid],
    path: Path | str,
    *,
    names: tuple[str, str],
    title: str,
    data: tuple[Tensor, Tensor] | None = None,
    core: tuple[Tensor, Tensor, Tensor] | None = None,
    data_names: tuple[str, str] = ("", ""),
) -> list[Path]:
    """Regions of highest density of two parameters, under ``full``, ``random`` and ``rkl``; beside them the points, if given.

    Args:
        densities: each on a grid of its own.
        path: PNG; a PDF is written beside it.
        names: of the two parameters.
        title: of the panel.
        data: points (n, 2) and labels (n,).
        core: learned points (m, 2), labels (m,) and weights (m,).
        data_names: of the points' coordinates.
    """
    figure, all_axes = new_figure(9.2 if data is not None else 5.2, 4.4, 1, 2 if data is not None else 1)
    axes = all_axes[-1]
    handles = []
    for name, density in densities.items():
        x, y, values = density.first.numpy(), density.second.numpy(), density.density.numpy().T
        levels = contour_levels(values, REGIONS)
        color = STYLES[name][0] if name in STYLES else "black"
        if name == "full":
            axes.contourf(x, y, values, levels=[*levels, values.max()], colors=["#D9D9D9", "#B0B0B0"])
        style: Literal["-", "--"] = "--" if name == "random" else "-"
        axes.contour(
            x, y, values, levels=levels, colors=color, linestyles=style, linewidths=1.0 if name == "full" else 1.8
        )
        label = "Full data" if name == "full" else NAMES[name]
        handles.append(Line2D([], [], color=color, linestyle=style, linewidth=1.8, label=label))
    axes.set_xlabel(names[0], fontsize=SMALL)
    axes.set_ylabel(names[1], fontsize=SMALL)
    axes.set_title(title, fontsize=FONT)
    if data is not None and core is not None:
        handles += _draw_points(all_axes[0], data, core, data_names)
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=SMALL, frameon=False)
    return save(figure, path)


def _draw_points(
    axes: Axes, data: tuple[Tensor, Tensor], core: tuple[Tensor, Tensor, Tensor], names: tuple[str, str]
) -> list[Line2D]:
    """Data as dots and coreset points as discs whose area is their weight, coloured by label."""
    points, labels, weights = (tensor.numpy() for tensor in core)
    for label, color in enumerate(("#D55E00", "#56B4E9")):
        mine, learned = data[0][data[1] == label].numpy(), labels == label
        axes.scatter(mine[:, 0], mine[:, 1], s=5, color=color, alpha=0.45, linewidths=0)
        area = 30 + 270 * weights[learned] / weights.max()
        axes.scatter(
            points[learned, 0],
            points[learned, 1],
            s=area,
            color=color,
            alpha=0.9,
            edgecolors="black",
            linewidths=1.0,
            zorder=3,
        )
    axes.set_xlabel(names[0], fontsize=SMALL)
    axes.set_ylabel(names[1], fontsize=SMALL)
    axes.set_title(f"{len(data[0])} data points and {len(points)} learned points", fontsize=FONT)
    shared: dict[str, Any] = {"color": "#888888", "marker": "o", "linestyle": ""}
    return [
        Line2D([], [], ms=3, label="data (colour: label)", **shared),
        Line2D([], [], ms=8, markeredgecolor="black", label="learned point (area: weight)", **shared),
    ]
