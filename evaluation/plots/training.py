"""Curves of experts and of a distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bpc.errors import DataError
from evaluation.compare import method_label
from evaluation.plots.base import FONT, draw_curve, legend_below, new_figure, require_columns, save, whole_ticks

__all__ = ["plot_distill_curve", "plot_learning_curves"]

# what is descended, and its unit; the squared distance to the expert's end is a fraction of the expert's own way
OBJECTIVES = {
    "fkl": ("surrogate of the forward KL", "nats"),
    "rkl": ("reverse KL", "nats"),
    "wasserstein": ("squared distance", "relative"),
}


def plot_learning_curves(log: pd.DataFrame, path: Path | str) -> list[Path]:
    """Loss and accuracy of experts by epoch: a thin line each and their mean.

    Args:
        log: columns expert, epoch, and any of train_loss, test_loss (nats), train_accuracy, test_accuracy
            (fractions).
        path: PNG; a PDF is written beside it.
    """
    require_columns(log, ["expert", "epoch"], "learning curves")
    panels = [
        (f"{quantity} ({unit})", shown)
        for quantity, unit in (("loss", "nats"), ("accuracy", "fraction"))
        if (shown := [name for name in (f"train_{quantity}", f"test_{quantity}") if name in log.columns])
    ]
    if not panels:
        raise DataError("Learning curves need train_loss, test_loss, train_accuracy or test_accuracy.")
    figure, all_axes = new_figure(4.4 * len(panels), 3.4, 1, len(panels))
    experts = log["expert"].nunique()
    for axes, (label, names) in zip(all_axes, panels, strict=True):
        for name in names:
            color, style = ("#0072B2", "-") if name.startswith("train") else ("#D55E00", "--")
            if experts > 1:
                for _, curve in log.groupby("expert"):
                    axes.plot(curve["epoch"], curve[name], color=color, linewidth=0.6, alpha=0.3)
            mean = log.groupby("epoch")[name].mean()
            what = {"train": "training images", "test": "test images"}[name.split("_")[0]]
            draw_curve(axes, mean.index, mean, color=color, linestyle=style, linewidth=2, label=what)
        axes.set_xlabel("epoch", fontsize=FONT)
        axes.set_ylabel(label, fontsize=FONT)
        whole_ticks(axes, log["epoch"])
    if experts > 1:
        figure.suptitle(f"mean of {experts} experts; thin lines: each of them", fontsize=FONT)
    legend_below(figure, all_axes[0], 2)
    return save(figure, path)


def plot_distill_curve(log: pd.DataFrame, path: Path | str, *, method: str = "") -> list[Path]:
    """Value and gradient norm by step of a distillation; no panel for a value always nan (reverse KL).

    Args:
        log: columns step, value, grad_norm.
        path: PNG; a PDF is written beside it.
        method: the divergence, whose name and unit the axes carry.
    """
    require_columns(log, ["step", "value", "grad_norm"], "a distillation curve")
    value, unit = OBJECTIVES.get(method, ("objective", "its own unit"))
    # points are standardised, so that a gradient by them has the objective's unit
    labels = {"value": f"{value} ({unit})", "grad_norm": f"norm of the gradient ({unit})"}
    shown = [name for name in labels if np.isfinite(log[name].to_numpy(dtype=float)).any()]
    if not shown:
        raise DataError("A distillation curve needs a finite value or grad_norm; got none.")
    figure, all_axes = new_figure(4.4 * len(shown), 3.2, 1, len(shown))
    window = max(len(log) // 50, 1)
    for axes, name in zip(all_axes, shown, strict=True):
        values = log[name].to_numpy(dtype=float)
        thin = {"linewidth": 0.7, "alpha": 0.4} if window > 1 else {"linewidth": 1.0}
        draw_curve(axes, log["step"], values, color="#0072B2", label="each step", **thin)
        if window > 1:
            smooth = log[name].rolling(window, center=True, min_periods=1).median()
            axes.plot(log["step"], smooth, color="#0072B2", linewidth=2, label=f"median of {window} steps")
        if name == "grad_norm" and np.nanmax(values) > 10 * np.nanmin(values) > 0:
            axes.set_yscale("log")
        axes.set_xlabel("step", fontsize=FONT)
        axes.set_ylabel(labels[name], fontsize=FONT)
        whole_ticks(axes, log["step"], 6)
    if method:
        figure.suptitle(method_label(method), fontsize=FONT)
    if window > 1:
        legend_below(figure, all_axes[0], 2)
    return save(figure, path)
