"""Pictures of a VAE: samples, reconstructions, pseudo-inputs, paths, maps, histograms, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bpc.vae.priors import PRIORS
from evaluation.plots.base import FONT, SMALL, draw_curve, legend_below, new_figure, save, styles_of, whole_ticks

__all__ = ["plot_curves", "plot_histogram", "plot_images", "plot_knn", "plot_map", "plot_pseudo_inputs", "prior_labels"]


def prior_labels() -> dict[str, str]:
    """What a reader sees of each registered prior, by its name, in the order of a table."""
    return {prior.name: prior.label for prior in sorted(PRIORS, key=lambda prior: prior.place)}


# ten classes that colour-blind readers tell apart (Petroff, 2021: arXiv 2107.02270)
CLASS_COLORS = (
    "#3F90DA", "#FFA90E", "#BD1F01", "#94A4A2", "#832DB6", "#A96B59", "#E76300", "#B9AC70", "#717581", "#92DADD",
)  # fmt: skip
MOST_BINS = 40
SHORT = 5  # epochs that are all shown


def _grid(images: Tensor, columns: int, gap: int = 1) -> np.ndarray:
    """Images (n, c, h, w) in [0, 1] side by side, (H, W) or (H, W, 3), white between them."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    sheet = torch.ones(c, rows * (h + gap) - gap, columns * (w + gap) - gap)
    for i, image in enumerate(images.detach().cpu().clamp(0, 1)):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[:, y : y + h, x : x + w] = image
    array = sheet.permute(1, 2, 0).numpy()
    return array[..., 0] if c == 1 else array


def plot_images(images: Tensor, path: Path, *, columns: int, title: str, rows: Sequence[str] = ()) -> list[Path]:
    """A sheet of images (n, c, h, w), `columns` to a row; `rows` names the rows."""
    sheet = _grid(images, columns)
    # as wide as a title needs, and images no larger than an inch
    width = max(min(7.0, 1.0 * columns), 0.085 * max(map(len, title.split("\n"))) + 0.4)
    figure, (axis,) = new_figure(width, width * sheet.shape[0] / sheet.shape[1] + 0.4, 1, 1)
    axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=FONT)
    axis.set_xticks([])
    axis.tick_params(length=0)
    if rows:
        step = sheet.shape[0] / len(rows)
        axis.set_yticks([step * (i + 0.5) for i in range(len(rows))], rows, fontsize=SMALL)
        axis.set_ylabel("class", fontsize=FONT)
    else:
        axis.set_yticks([])
    axis.spines[:].set_visible(False)
    return save(figure, path)


def plot_pseudo_inputs(images: Tensor, weights: Tensor, path: Path, *, title: str, count: int = 50) -> list[Path]:
    """The pseudo-inputs of largest weight, and how the weights are distributed."""
    order = weights.argsort(descending=True)[:count]
    columns = min(10, len(order))
    sheet = _grid(images[order], columns)
    height = min(max(6.0 * sheet.shape[0] / sheet.shape[1], 2.0), 6.0)
    figure, (left, right) = new_figure(10, height + 1.2, 1, 2, width_ratios=(1.7, 1))
    left.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    left.set_title(f"the {len(order)} of largest weight of {len(images)}", fontsize=FONT)
    left.set_axis_off()
    left.set_anchor("N")
    relative = (weights * len(weights)).cpu().numpy()
    right.hist(relative, bins=_bins(relative, lowest=0.0), color="#0072B2")
    right.set_title("all weights", fontsize=FONT)
    right.set_xlabel("weight (multiples of an equal share)", fontsize=FONT)
    right.set_ylabel("number of pseudo-inputs", fontsize=FONT)
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.suptitle(title, fontsize=FONT)
    return save(figure, path)


def plot_map(points: np.ndarray, labels: Tensor, path: Path, *, title: str) -> list[Path]:
    """A t-SNE map (n, 2), coloured by label; each class's number stands at the median of its points."""
    figure, (axis,) = new_figure(6, 5.6, 1, 1)
    y = labels.cpu().numpy()
    classes = int(y.max()) + 1 if y.max() >= 0 else 1
    many = classes > len(CLASS_COLORS)
    colors = mpl.colormaps["viridis"].resampled(classes) if many else ListedColormap(CLASS_COLORS[:classes])
    axis.scatter(points[:, 0], points[:, 1], c=y, cmap=colors, s=6, vmin=-0.5, vmax=classes - 0.5, linewidths=0)
    if classes > 1:
        halo = [withStroke(linewidth=3, foreground="white")]
        for label in np.unique(y[y >= 0]):
            x, height = np.median(points[y == label], axis=0)
            axis.text(x, height, str(label), fontsize=FONT + 2, fontweight="bold", ha="center", va="center",
                      path_effects=halo)  # fmt: skip
    axis.set_title(title + ("\nnumbers: classes" if classes > 1 else ""), fontsize=FONT)
    axis.set_axis_off()
    return save(figure, path)


def _bins(values: np.ndarray, *, lowest: float = 0.005) -> list[float]:
    """Edges of bins: as many as the square root of the values' number, without this fraction of the lowest."""
    low, high = float(np.quantile(values, lowest)), float(values.max())
    if low == high:  # one value, or equal ones
        low, high = low - 0.5, high + 0.5
    count = min(max(int(np.sqrt(values.size)), 5), MOST_BINS) | 1  # odd: equal values stand in the middle of theirs
    return np.linspace(low, high, count + 1).tolist()


def plot_histogram(values: dict[str, Tensor], path: Path, *, title: str) -> list[Path]:
    """Histograms of log p(x) of the test images, one for each model."""
    figure, (axis,) = new_figure(6.5, 4.2, 1, 1)
    looks = styles_of(list(values), list(prior_labels().values()))
    edges = _bins(torch.cat([v.flatten() for v in values.values()]).cpu().numpy())
    for label, found in values.items():
        look = looks[label]
        heights, _ = np.histogram(found.cpu().numpy(), edges, density=True)
        axis.stairs(
            heights, edges, color=look.color, linestyle=look.line, linewidth=1.6, baseline=None,
            label=f"{label} (mean {float(found.mean()):.2f})",
        )  # fmt: skip
    axis.set_ylim(bottom=0)
    axis.set_xlabel("log p(x) (nats)", fontsize=FONT)
    axis.set_ylabel("density of images (1/nat)", fontsize=FONT)
    axis.set_title(title, fontsize=FONT)
    legend_below(figure, axis, 2)
    return save(figure, path)


def plot_curves(curves: dict[str, pd.DataFrame], path: Path, *, title: str) -> list[Path]:
    """Training and validation bound by epoch, one pair of lines for each model."""
    figure, (axis,) = new_figure(6.5, 4.2, 1, 1)
    looks = styles_of(list(curves), list(prior_labels().values()))
    lowest, epochs = [], 0
    for label, frame in curves.items():
        look = looks[label]
        draw_curve(axis, frame["epoch"], frame["train_elbo"], color=look.color, linewidth=1.0, alpha=0.5)
        draw_curve(
            axis,
            frame["epoch"],
            frame["validation_elbo"],
            color=look.color,
            linestyle=look.line,
            label=label,
        )
        lowest.append(float(frame["validation_elbo"].quantile(0.15)))
        epochs = max(epochs, len(frame))
    if epochs > SHORT:  # the first epochs would set the scale
        axis.set_ylim(bottom=min(lowest))
    whole_ticks(axis, (epoch for frame in curves.values() for epoch in frame["epoch"]))
    axis.set_xlabel("epoch", fontsize=FONT)
    axis.set_ylabel("bound on log p(x) (nats per image)", fontsize=FONT)
    axis.set_title(f"{title}\nvalidation images; pale: training images", fontsize=FONT)
    legend_below(figure, axis, 3)
    return save(figure, path)


def plot_knn(rows: pd.DataFrame, path: Path, *, title: str) -> list[Path]:
    """Accuracy of K nearest neighbours in latent space against K, mean and range over seeds (Figure 4 of Ai et al. 2021)."""
    figure, (axis,) = new_figure(6, 4.2, 1, 1)
    rows = rows.assign(k=rows["metric"].str.partition("@")[2].astype(int))
    looks = styles_of(list(dict.fromkeys(rows["label"])), list(prior_labels().values()))
    for label, group in rows.groupby("label", sort=False):
        look = looks[str(label)]
        by_k = group.groupby("k")["value"]
        axis.plot(
            by_k.mean().index, 100 * by_k.mean(), color=look.color, marker=look.marker, ms=5, linestyle=look.line,
            linewidth=1.6, label=label,
        )  # fmt: skip
        axis.fill_between(
            by_k.min().index, 100 * by_k.min(), 100 * by_k.max(), color=look.color, alpha=0.15, linewidth=0
        )
    axis.set_xticks(sorted(rows["k"].unique()))
    axis.set_xlabel("K (neighbours)", fontsize=FONT)
    axis.set_ylabel("test accuracy (%)", fontsize=FONT)
    several = rows.groupby("label")["seed"].nunique().max() > 1 if "seed" in rows else False
    axis.set_title(title + ("\nmean and range over seeds" if several else ""), fontsize=FONT)
    legend_below(figure, axis, 3)
    return save(figure, path)
