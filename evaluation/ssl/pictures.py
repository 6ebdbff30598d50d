"""Pictures of semi-supervised learning: samples as they come and sorted by entropy, entropies, learning, accuracy against L."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bpc.ebm.synthesis import Synthetic
from evaluation.plots.base import (
    FONT,
    GREY,
    OTHERS,
    SMALL,
    draw_curve,
    legend_below,
    new_figure,
    save,
    styles_of,
    whole_ticks,
)
from evaluation.vae.pictures import MOST_BINS, plot_images

__all__ = ["NAMES", "plot_accuracy", "plot_entropies", "plot_learning", "plot_sheets"]

# our names and what a reader sees, in the order of a table
NAMES = {
    "baseline": "Baseline", "unfiltered": "Unfiltered", "entropy": "H", "entropy-random": "H & random",
    "entropy-craig": "H & CRAIG", "entropy-adacore": "H & AdaCore", "entropy-craig-pl": "H & CRAIG & PL",
}  # fmt: skip
FLOOR = 1e-16  # entropies below it are drawn there


def plot_sheets(samples: Synthetic, folder: Path, num_classes: int, *, title: str, columns: int = 20) -> list[Path]:
    """``unsorted.png`` and ``sorted.png`` (one row per class), ``class-9.png`` (the last class, sorted; Figure 1)."""
    written: list[Path] = []
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
        written += plot_images(sheet.float() / 255, folder / name, columns=few, title=f"{title}\n{words}", rows=names)
    last = ordered[num_classes - 1]
    span = f"{float(last.entropies[0]):.1e} to {float(last.entropies[-1]):.1e} nats"
    words = f"{title}\nclass {num_classes - 1}, entropy from {span}"
    target = folder / f"class-{num_classes - 1}.png"
    return written + plot_images(last.images[:400].float() / 255, target, columns=columns, title=words)


def plot_entropies(samples: Synthetic, path: Path, threshold: float | None, *, title: str) -> list[Path]:
    """Entropies of samples whose latent class is the one they were made for, and of the others."""
    figure, (axis,) = new_figure(6.5, 4.3, 1, 1)
    values = samples.entropies.clamp(min=FLOOR).log10().cpu().numpy()
    agrees = samples.agrees.cpu().numpy()
    low, high = float(values.min()) - 0.01, max(float(values.max()), float(values.min()) + 1e-3)
    bins = np.linspace(low, high, min(max(int(np.sqrt(values.size)), 5), MOST_BINS) + 1).tolist()
    words = (f"classifier agrees ({agrees.mean():.1%})", f"it says another class ({1 - agrees.mean():.1%})")
    axis.hist([values[agrees], values[~agrees]], bins=bins, stacked=True, color=OTHERS[:2], label=words)
    if threshold is not None and threshold > 0:
        passed = (samples.entropies < threshold).double().mean()
        words_of_it = f"threshold {threshold:g} nats ({float(passed):.1%} pass)"
        axis.axvline(np.log10(threshold), color="black", ls="--", label=words_of_it)
    axis.set_xlabel("entropy of the classifier's answer (nats)", fontsize=FONT)
    axis.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.set_ylabel("number of samples", fontsize=FONT)
    axis.set_title(title, fontsize=FONT)
    legend_below(figure, axis, 2)
    return save(figure, path)


def _power_of_ten(power: float, _: int) -> str:
    """A tick of log10; what is no whole power is the number itself."""
    return f"$10^{{{power:.0f}}}$" if power == round(power) else f"{10**power:.3g}"


def plot_learning(log: Path, path: Path, *, title: str) -> list[Path]:
    """Losses of the second phase by iteration; each record has a mark where there are few.

    Args:
        log: ``log.jsonl`` of the run. Without a record in it, the panels say so.
        path: PNG; a PDF is written beside it.
        title: of the figure.
    """
    figure, axes = new_figure(12, 3.4, 1, 4)
    frame = pd.read_json(log, lines=True) if log.exists() and log.stat().st_size else pd.DataFrame()
    panels = {
        "reconstruction": ("reconstruction",),
        "KL of the latents": ("kl",),
        "energy gap": ("energy_gap",),
        "classification loss": ("labelled_loss", "augmented_loss"),
    }
    for axis, (head, names) in zip(axes, panels.items(), strict=True):
        for name, colour in zip(names, OTHERS, strict=False):
            if name in frame and frame[name].notna().any() and not (name == "augmented_loss" and not frame[name].any()):
                words = {"labelled_loss": "labelled images", "augmented_loss": "generated images"}.get(name, "")
                draw_curve(axis, frame["iteration"], frame[name], color=colour, label=words)
        if not axis.lines:
            axis.text(0.5, 0.5, "nothing recorded", transform=axis.transAxes, fontsize=SMALL, color=GREY, ha="center")
            axis.set(xticks=[], yticks=[])
        axis.set_title(head, fontsize=FONT)
        axis.set_xlabel("iteration", fontsize=FONT)
        axis.set_ylabel("nats per image", fontsize=FONT)
    if axes[3].lines:
        losses = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes[3].lines])
        if np.nanmax(losses) > 30 * np.nanmin(losses) > 0:
            axes[3].set_yscale("symlog", linthresh=1e-3)
        legend_below(figure, axes[3], 2)
    for axis in axes:
        if axis.lines:
            whole_ticks(axis, frame["iteration"], 4)
    figure.suptitle(title, fontsize=FONT)
    return save(figure, path)


def plot_accuracy(rows: pd.DataFrame, path: Path, *, title: str) -> list[Path]:
    """Change of accuracy against the baseline of the same seed, by L and setting: means, and a dot for each seed.

    Seeds differ in which images are labelled, by far more than settings do. Without any baseline the accuracy itself is drawn.

    Args:
        rows: columns label, samples, seed, value (fraction).
        path: PNG; a PDF is written beside it.
        title: of the figure.
    """
    figure, (axis,) = new_figure(6.8, 4.5, 1, 1)
    base = rows[rows["label"] == "Baseline"].groupby("seed")["value"].mean()
    others = rows[rows["label"] != "Baseline"]
    paired = bool(others["seed"].isin(base.index).any())
    if paired:
        others = others.assign(value=others["value"] - others["seed"].map(base)).dropna(subset="value")
    if not base.empty:
        axis.axhline(
            0.0 if paired else 100 * base.mean(), color="black", lw=1, label=f"Baseline ({100 * base.mean():.2f} %)"
        )
    labels = list(dict.fromkeys(others["label"]))
    # the baseline is the line: the palette is for what is compared with it
    looks = styles_of(labels, [name for name in NAMES.values() if name != NAMES["baseline"]])
    for i, (name, group) in enumerate(others.groupby("label", sort=False)):
        look = looks[str(name)]
        shift = 1.0 + 0.04 * (i - (len(labels) - 1) / 2)  # so that points of one L do not hide each other
        means = group.groupby("samples")["value"].mean()
        axis.plot(
            means.index * shift,
            100 * means,
            color=look.color,
            marker=look.marker,
            ms=6,
            linestyle=look.line,
            label=name,
        )
        axis.plot(group["samples"] * shift, 100 * group["value"], ".", ms=5, color=look.color, alpha=0.6)
    if not others.empty:
        axis.plot([], [], ".", ms=5, color=GREY, alpha=0.6, label="one seed")
        axis.set_xscale("log")
        sizes = sorted(others["samples"].unique())
        axis.set_xticks(sizes, [f"{int(s):,}" for s in sizes])
        axis.minorticks_off()
        axis.set_xlim(min(sizes) / 1.4, max(sizes) * 1.4)
    else:
        axis.set_xticks([])
    axis.set_xlabel("L (generated images, before any filter)", fontsize=FONT)
    axis.set_ylabel("change in test accuracy\n(percentage points)" if paired else "test accuracy (%)", fontsize=FONT)
    axis.set_title(title, fontsize=FONT)
    legend_below(figure, axis, 4)
    return save(figure, path)
