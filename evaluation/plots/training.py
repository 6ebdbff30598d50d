"""Curves of experts and of a distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from bpc.errors import DataError
from evaluation.plots.base import FONT, SMALL, new_figure, require_columns, save

__all__ = ["plot_distill_curve", "plot_learning_curves"]


def plot_learning_curves(log: pd.DataFrame, path: Path | str) -> None:
    """Loss and accuracy of experts by epoch: a thin line each and their mean.

    Args:
        log: columns expert, epoch, and any of train_loss, test_loss (nats), train_accuracy, test_accuracy
            (fractions).
        path: PNG.
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
            color = "#0072B2" if name.startswith("train") else "#D55E00"
            style = "-" if name.startswith("train") else "--"
            if experts > 1:
                for _, curve in log.groupby("expert"):
                    axes.plot(curve["epoch"], curve[name], color=color, linewidth=0.6, alpha=0.3)
            mean = log.groupby("epoch")[name].mean()
            marker = "o" if len(mean) <= 30 else ""
            axes.plot(
                mean.index,
                mean,
                color=color,
                linestyle=style,
                marker=marker,
                ms=3,
                linewidth=2,
                label=name.split("_")[0],
            )
        axes.set_xlabel("epoch", fontsize=FONT)
        axes.set_ylabel(label, fontsize=FONT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=SMALL, frameon=False, title=f"mean of {experts} experts" if experts > 1 else None)
    save(figure, path)


def plot_distill_curve(log: pd.DataFrame, path: Path | str) -> None:
    """Value and gradient norm by step of a distillation; no panel for a value always nan (reverse KL).

    Args:
        log: columns step, value, grad_norm.
        path: PNG.
    """
    require_columns(log, ["step", "value", "grad_norm"], "a distillation curve")
    labels = {"value": "value of the objective", "grad_norm": "norm of the gradient"}
    shown = [name for name in labels if np.isfinite(log[name].to_numpy(dtype=float)).any()]
    if not shown:
        raise DataError("A distillation curve needs a finite value or grad_norm; got none.")
    figure, all_axes = new_figure(4.4 * len(shown), 3.2, 1, len(shown))
    for axes, name in zip(all_axes, shown, strict=True):
        values = log[name].to_numpy(dtype=float)
        window = max(len(values) // 50, 1)
        axes.plot(log["step"], values, color="#0072B2", linewidth=0.7, alpha=0.4 if window > 1 else 1.0)
        if window > 1:
            smooth = log[name].rolling(window, center=True, min_periods=1).median()
            axes.plot(log["step"], smooth, color="#0072B2", linewidth=2, label=f"median of {window} steps")
            axes.legend(fontsize=SMALL, frameon=False)
        if name == "grad_norm" and np.nanmax(values) > 10 * np.nanmin(values) > 0:
            axes.set_yscale("log")
        axes.set_xlabel("step", fontsize=FONT)
        axes.set_ylabel(labels[name], fontsize=FONT)
    save(figure, path)
