"""Corruptions around a circle (Kim et al., 2022, Figure 4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.projections.polar import PolarAxes

from bpc.errors import ConfigError, DataError
from evaluation.compare import method_label
from evaluation.plots.base import FONT, GREY, SMALL, save, style_of

__all__ = ["plot_radar"]

_TITLES = {"accuracy": "Accuracy (fraction) ↑", "nll": "NLL (nats) ↓", "ece": "ECE (fraction) ↓"}


def plot_radar(table: pd.DataFrame, path: Path | str, *, metrics: tuple[str, ...] = ("accuracy", "nll")) -> list[Path]:
    """One axis a corruption, one polygon a method, a panel each for accuracy and NLL; the mean over severities and seeds.

    Args:
        table: from `evaluation.shift.corruption_table`, of one dataset, network, size, sampler and protocol (the full data,
            which have no size, may stand beside).
        path: PNG; a PDF is written beside it.
        metrics: one panel each.
    """
    table = table[table["metric"].isin(metrics)]
    if table.empty:
        raise DataError(f"Nothing to plot: the corruption table has none of {', '.join(metrics)}.")
    sized = table[table["method"] != "full"]
    several = [
        name
        for name in ("dataset", "architecture", "ipc", "sampler", "protocol")
        if (sized if name == "ipc" else table)[name].nunique() > 1
    ]
    if several:
        raise ConfigError(
            f"One radar shows one {several[0]}; the table has {table[several[0]].nunique()}. Filter it first."
        )
    shown = [metric for metric in metrics if metric in set(table["metric"])]
    corruptions = list(dict.fromkeys(table["corruption"]))
    if len(corruptions) < 3:
        raise DataError(f"A radar needs three corruptions or more; the table has {', '.join(corruptions)}.")
    angles = np.linspace(0, 2 * np.pi, len(corruptions), endpoint=False)
    # corner labels reach beyond what the layout measures
    figure = Figure(figsize=(4.9 * len(shown), 5.9), layout=ConstrainedLayoutEngine(h_pad=0.18))
    FigureCanvasAgg(figure)
    for place, metric in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), place + 1, projection="polar")
        assert isinstance(axes, PolarAxes)
        part = table[table["metric"] == metric]
        keys = part[["method", "augment"]].drop_duplicates().itertuples(index=False, name=None)
        names = {(m, a): method_label(str(m), bool(a)) for m, a in keys}
        for method, augment in sorted(names, key=lambda key: key[0] == "full"):  # the full data last, as in a table
            name = names[(method, augment)]
            mine = part[(part["method"] == method) & (part["augment"] == augment)].set_index("corruption")["mean"]
            values = mine.reindex(corruptions).to_numpy(dtype=float)
            look = style_of(name, list(names.values()))
            closed = [*range(len(angles)), 0]  # back to the first corner
            axes.plot(
                angles[closed],
                values[closed],
                color=look.color,
                marker=look.marker,
                ms=4,
                linewidth=1.5,
                linestyle=look.line,
                label=name,
            )
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
        axes.set_xticks(angles, [name.replace("_", "\n") for name in corruptions], fontsize=SMALL - 1)
        axes.tick_params(axis="x", pad=14)
        axes.tick_params(axis="y", labelsize=SMALL - 2, labelcolor=GREY)
        axes.grid(color="#DDDDDD", linewidth=0.7)
        axes.spines["polar"].set_color("#BBBBBB")
        axes.set_axisbelow(True)
        axes.set_rlabel_position(180 / len(corruptions))  # between two axes
        low, high = np.nanmin(part["mean"], initial=np.inf), np.nanmax(part["mean"], initial=-np.inf)
        if np.isfinite(low) and np.isfinite(high):
            room = 0.15 * (high - low) or 0.1 * abs(high) or 1.0
            # differences between methods are small beside the values: the centre is not 0
            axes.set_ylim(max(low - 2 * room, 0.0), high + room)
        axes.set_title(_TITLES.get(metric, metric), fontsize=FONT, pad=14)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), fontsize=SMALL, frameon=False)
    first = table.iloc[0]
    size = f", {sized['ipc'].iloc[0]} ipc" if len(sized) else ""
    figure.suptitle(f"{first['dataset']}{size}, {first['sampler']}, protocol {first['protocol']}", fontsize=FONT)
    return save(figure, path)
