"""Pictures of semi-supervised learning: samples as they come and sorted by entropy, entropies, learning, accuracy against L."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bpc.ebm.synthesis import Synthetic
from evaluation.plots.base import OTHERS, legend_below, new_figure, save
from evaluation.vae.pictures import plot_images

__all__ = ["plot_accuracy", "plot_entropies", "plot_learning", "plot_sheets"]

FLOOR = 1e-16  # entropies below it are drawn there


def plot_sheets(samples: Synthetic, folder: Path, num_classes: int, *, title: str, columns: int = 20) -> None:
    """``unsorted.png`` and ``sorted.png`` (a row a class), ``class-9.png`` (the last class, sorted; Figure 1 of the paper)."""
    rows = {y: samples.take(samples.labels == y) for y in range(num_classes)}
    few = min(columns, min(len(r.labels) for r in rows.values()))
    names = [str(y) for y in rows]
    first = torch.cat([r.images[:few] for r in rows.values()])
    # from the surest to the least sure, evenly through all of the class's samples
    ordered = {y: r.take(r.entropies.argsort()) for y, r in rows.items()}
    spread = torch.cat([r.images[torch.linspace(0, len(r.labels) - 1, few).round().long()] for r in ordered.values()])
    for name, sheet, words in (
        ("unsorted.png", first, "as they come"),
        ("sorted.png", spread, "by entropy, lowest on the left"),
    ):
        plot_images(sheet.float() / 255, folder / name, columns=few, title=f"{title}\n{words}", rows=names)
    last = ordered[num_classes - 1]
    span = f"{float(last.entropies[0]):.1e} to {float(last.entropies[-1]):.1e} nats"
    words = f"{title}\nclass {num_classes - 1}, entropy from {span}"
    plot_images(last.images[:400].float() / 255, folder / f"class-{num_classes - 1}.png", columns=columns, title=words)


def plot_entropies(samples: Synthetic, path: Path, threshold: float | None, *, title: str) -> None:
    """Entropies of samples whose latent class is the one they were made for, and of the others."""
    figure, (axis,) = new_figure(6.5, 4, 1, 1)
    values = samples.entropies.clamp(min=FLOOR).log10().cpu().numpy()
    agrees = samples.agrees.cpu().numpy()
    bins = np.linspace(float(values.min()) - 0.01, max(float(values.max()), float(values.min()) + 1e-3), 60).tolist()
    words = (f"classifier agrees ({agrees.mean():.1%})", f"it says another class ({1 - agrees.mean():.1%})")
    axis.hist([values[agrees], values[~agrees]], bins=bins, stacked=True, color=OTHERS[:2], label=words)
    if threshold is not None and threshold > 0:
        passed = (samples.entropies < threshold).double().mean()
        axis.axvline(
            np.log10(threshold), color="black", ls="--", label=f"threshold {threshold:g} ({float(passed):.1%} pass)"
        )
    axis.set_xlabel("log10 of the entropy (nats)")
    axis.set_ylabel("samples")
    axis.set_title(title, fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)


def plot_learning(log: Path, path: Path, *, title: str) -> None:
    """Losses of the second phase by iteration."""
    figure, axes = new_figure(12, 3.2, 1, 4)
    frame = pd.read_json(log, lines=True) if log.exists() and log.stat().st_size else pd.DataFrame()
    panels = (("reconstruction",), ("kl",), ("energy_gap",), ("labelled_loss", "augmented_loss"))
    for axis, names in zip(axes, panels, strict=True):
        for name, colour in zip(names, OTHERS, strict=False):
            if name in frame and not (name == "augmented_loss" and not frame[name].any()):
                axis.plot(frame["iteration"], frame[name], color=colour, label=name.replace("_", " "))
        axis.set_xlabel("iteration")
        axis.set_ylabel("nats an image")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    axes[3].set_yscale("symlog", linthresh=1e-3)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def plot_accuracy(rows: pd.DataFrame, path: Path, *, title: str) -> None:
    """Change of accuracy against the baseline of the same seed, by L and setting: means, and a dot for each seed.

    Seeds differ in which images are labelled, by far more than settings do. Without any baseline the accuracy itself is drawn.

    Args:
        rows: columns label, samples, seed, value (fraction).
        path: PNG or PDF.
        title: of the figure.
    """
    figure, (axis,) = new_figure(6.5, 4.2, 1, 1)
    base = rows[rows["label"] == "Baseline"].groupby("seed")["value"].mean()
    others = rows[rows["label"] != "Baseline"]
    paired = bool(others["seed"].isin(base.index).any())
    if paired:
        others = others.assign(value=others["value"] - others["seed"].map(base)).dropna(subset="value")
    if not base.empty:
        axis.axhline(
            0.0 if paired else 100 * base.mean(), color="black", lw=1, label=f"Baseline ({100 * base.mean():.2f} %)"
        )
    for i, (name, group) in enumerate(others.groupby("label", sort=False)):
        colour = OTHERS[i % len(OTHERS)]
        shift = 1.0 + 0.04 * (i - 2.5)  # so that points of one L do not hide each other
        means = group.groupby("samples")["value"].mean()
        axis.plot(means.index * shift, 100 * means, "o-", ms=6, color=colour, label=name)
        axis.plot(group["samples"] * shift, 100 * group["value"], ".", ms=5, color=colour, alpha=0.6)
    if not others.empty:
        axis.set_xscale("log")
        sizes = sorted(others["samples"].unique())
        axis.set_xticks(sizes, [f"{int(s):,}" for s in sizes])
        axis.minorticks_off()
    axis.set_xlabel("generated images, before any filter (L)")
    axis.set_ylabel("test accuracy, change in points; dots: seeds" if paired else "test accuracy (%)")
    axis.set_title(title, fontsize=10)
    legend_below(figure, axis, 4)
    save(figure, path)
