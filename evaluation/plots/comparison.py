"""Methods side by side, with their seeds and the published values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bpc.errors import ConfigError, DataError
from bpc.methods import METHODS
from evaluation.compare import GroupKey, groups, method_label
from evaluation.plots.base import FONT, GREY, SMALL, new_figure, save

__all__ = ["plot_comparison"]


def plot_comparison(summary: pd.DataFrame, path: Path | str, *, metrics: Sequence[str] | None = None) -> list[Path]:
    """Methods side by side: mean and standard deviation, each seed as a dot, published values hollow.

    Args:
        summary: from `compare.summarise`. One figure shows one dataset, network, sampler and protocol; with
            several of them each has its own file, its name lengthened by what differs
            (``comparison-hmc-exact.png``).
        path: PNG; a PDF is written beside it.
        metrics: one row of panels each; accuracy and NLL otherwise (`nll_kim2022` where there is one, because
            only that has a published counterpart). Columns are sizes.

    Returns:
        The files written.
    """
    path = Path(path)
    parts = list(groups(summary))
    if not parts:
        raise DataError("Nothing to plot: the summary has no rows.")
    differing = [len(set(values)) > 1 for values in zip(*(key for key, _ in parts), strict=True)]
    written: list[Path] = []
    for key, part in parts:
        names = [re.sub(r"[^\w.]+", "_", name) for name, differs in zip(key, differing, strict=True) if differs]
        written += _comparison_figure(key, part, path.with_name("-".join([path.stem, *names]) + path.suffix), metrics)
    return written


def _comparison_figure(key: GroupKey, part: pd.DataFrame, path: Path, metrics: Sequence[str] | None) -> list[Path]:
    there = set(part["metric"])
    if metrics is None:
        metrics = [m for m in ("accuracy", "nll_kim2022" if "nll_kim2022" in there else "nll") if m in there]
    unknown = [m for m in metrics if m not in there]
    if unknown or not metrics:
        wanted = ", ".join(unknown) or "accuracy and nll"
        raise ConfigError(f"The summary lacks {wanted}; it has {', '.join(sorted(there))}.")
    full = part[part["method"] == "full"]
    part = part[part["method"] != "full"]
    sizes = sorted(part["ipc"].unique()) or [0]
    rows = part if len(part) else full

    most = max(len(rows[rows["ipc"] == ipc].groupby(["method", "augment"])) for ipc in rows["ipc"].unique())
    width = max(0.62 * most + 0.6, 2.2) * len(sizes) + 0.6
    figure, all_axes = new_figure(max(width, 4.6), 2.5 * len(metrics) + 1.2, len(metrics), len(sizes), sharey="row")
    for place, axes in enumerate(all_axes):
        metric, ipc = metrics[place // len(sizes)], sizes[place % len(sizes)]
        _comparison_panel(axes, rows[(rows["metric"] == metric) & rows["ipc"].isin([ipc])], metric)
        if len(part):
            for _, entry in full[full["metric"] == metric].iterrows():
                axes.axhline(entry["mean"], color=METHODS.get("full").colour, linewidth=1, linestyle=":")
        if place < len(sizes) and len(part):
            axes.set_title(f"{ipc} ipc", fontsize=FONT)
        if place // len(sizes) < len(metrics) - 1:
            axes.tick_params(labelbottom=False)
        if place % len(sizes) == 0:
            axes.set_ylabel(
                f"{_metric_label(metric)}\n({rows.loc[rows['metric'] == metric, 'unit'].iloc[0]})",
                fontsize=FONT,
            )
    handles: list[Line2D] = [
        all_axes[0].plot([], [], "o", color=GREY, ms=7, label="mean ± std over seeds")[0],
        all_axes[0].plot([], [], "o", color=GREY, ms=3, alpha=0.6, label="one seed")[0],
    ]
    if rows[rows["metric"].isin(list(metrics))]["published"].notna().any():
        handles += all_axes[0].plot([], [], "o", color=GREY, ms=7, mfc="white", label="published")
    if len(part) and len(full):
        handles += all_axes[0].plot([], [], ":", color="black", label=METHODS.get("full").label)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=SMALL, frameon=False)
    figure.suptitle(f"{key.dataset}, {key.architecture}\n{key.sampler}, protocol {key.protocol}", fontsize=FONT)
    return save(figure, path)


def _comparison_panel(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    names = []
    for place, (_, entry) in enumerate(rows.iterrows()):
        base = str(entry["method"]).split("+")[0]
        known = METHODS.get(base) if base in METHODS else None
        color, marker = (known.colour, known.marker) if known else (GREY, "o")
        names.append(method_label(entry["method"], bool(entry["augment"])).replace(" (", "\n("))
        values = np.array([v for v in entry["values"] if math.isfinite(v)])
        spread = np.linspace(-0.09, 0.09, len(values)) if len(values) > 1 else np.zeros(len(values))
        axes.plot(place + 0.2 + spread, values, ".", color=color, ms=4, alpha=0.55, zorder=2)
        if math.isfinite(entry["mean"]):
            error = entry["std"] if math.isfinite(entry["std"]) else None
            axes.errorbar(place - 0.05, entry["mean"], error, fmt=marker, color=color, ms=7, capsize=3, zorder=3)
        else:
            foot = axes.get_xaxis_transform()  # data across, the panel's bottom up
            axes.text(
                place - 0.05,
                0.02,
                "not finite",
                rotation=90,
                fontsize=8,
                color=color,
                ha="center",
                transform=foot,
            )
        if math.isfinite(entry["published"]):
            error = entry["published_std"] if math.isfinite(entry["published_std"]) else None
            axes.errorbar(
                place - 0.3,
                entry["published"],
                error,
                fmt=marker,
                color=color,
                mfc="white",
                ms=7,
                lw=1,
                zorder=3,
            )
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=SMALL)
    axes.set_xlim(-0.6, max(len(names), 1) - 0.4)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.6)


def _metric_label(metric: str) -> str:
    name = metric.removesuffix("_kim2022")
    label = {"nll": "NLL", "ece": "ECE"}.get(name, name)
    return f"{label}, kim2022 variant" if metric != name else label
