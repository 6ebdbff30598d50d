"""Pictures of a VAE: samples, reconstructions, pseudo-inputs, paths, maps, histograms, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from evaluation.plots.base import OTHERS, new_figure, save

__all__ = ["plot_curves", "plot_histogram", "plot_images", "plot_knn", "plot_map", "plot_pseudo_inputs"]


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


def plot_images(images: Tensor, path: Path, *, columns: int, title: str, rows: Sequence[str] = ()) -> None:
    """A sheet of images (n, c, h, w), `columns` to a row; `rows` names the rows."""
    sheet = _grid(images, columns)
    size = 7.0
    height = size * sheet.shape[0] / sheet.shape[1]
    figure, (axis,) = new_figure(size, height + 0.4, 1, 1)
    axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.set_xticks([])
    if rows:
        step = sheet.shape[0] / len(rows)
        axis.set_yticks([step * (i + 0.5) for i in range(len(rows))], rows, fontsize=8)
    else:
        axis.set_yticks([])
    axis.spines[:].set_visible(False)
    save(figure, path)


def plot_pseudo_inputs(images: Tensor, weights: Tensor, path: Path, *, title: str, count: int = 50) -> None:
    """The pseudo-inputs of largest weight, and how the weights are distributed."""
    order = weights.argsort(descending=True)[:count]
    columns = min(10, len(order))
    sheet = _grid(images[order], columns)
    figure, (left, right) = new_figure(10, 4.2, 1, 2, width_ratios=(1.6, 1))
    left.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    left.set_title(f"{title}: the {len(order)} of largest weight of {len(images)}", fontsize=10)
    left.set_axis_off()
    relative = (weights * len(weights)).cpu().numpy()
    right.hist(relative, bins=40, color="#0072B2")
    right.set_xlabel("weight relative to equal weights")
    right.set_ylabel("pseudo-inputs")
    save(figure, path)


def plot_map(points: np.ndarray, labels: Tensor, path: Path, *, title: str) -> None:
    """A t-SNE map (n, 2), coloured by label."""
    figure, (axis,) = new_figure(6, 5.4, 1, 1)
    y = labels.cpu().numpy()
    classes = int(y.max()) + 1 if y.max() >= 0 else 1
    colours = mpl.colormaps["tab10"].resampled(classes)
    dots = axis.scatter(points[:, 0], points[:, 1], c=y, cmap=colours, s=5, vmin=-0.5, vmax=classes - 0.5, linewidths=0)
    if classes > 1:
        figure.colorbar(dots, ticks=range(classes), label="class")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
    save(figure, path)


def plot_histogram(values: dict[str, Tensor], path: Path, *, title: str) -> None:
    """Histograms of log p(x) of the test images, one for each model."""
    figure, (axis,) = new_figure(6.5, 4, 1, 1)
    everything = torch.cat([v.flatten() for v in values.values()])
    low, high = float(everything.quantile(0.005)), float(everything.max())
    if low == high:  # one image
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 60).tolist()
    for name, found in values.items():
        axis.hist(
            found.cpu().numpy(),
            bins=bins,
            histtype="step",
            density=True,
            label=f"{name} (mean {float(found.mean()):.2f})",
        )
    axis.set_xlabel("log p(x) (nats)")
    axis.set_ylabel("density")
    axis.set_title(title, fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)


def plot_curves(curves: dict[str, pd.DataFrame], path: Path, *, title: str) -> None:
    """Training and validation bound by epoch, one pair of lines for each model."""
    figure, (axis,) = new_figure(6.5, 4, 1, 1)
    lowest = []
    for (name, frame), colour in zip(curves.items(), OTHERS, strict=False):
        axis.plot(frame["epoch"], frame["train_elbo"], ls=":", color=colour)
        axis.plot(frame["epoch"], frame["validation_elbo"], color=colour, label=name)
        lowest.append(frame["validation_elbo"].quantile(0.15))
    axis.set_ylim(bottom=float(min(lowest)))
    axis.set_xlabel("epoch")
    axis.set_ylabel("bound (nats); dotted: training")
    axis.set_title(title, fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)


def plot_knn(rows: pd.DataFrame, path: Path, *, title: str) -> None:
    """Accuracy of K nearest neighbours in latent space against K, mean and range over seeds (Figure 4 of Ai et al. 2021)."""
    figure, (axis,) = new_figure(6, 4, 1, 1)
    rows = rows.assign(k=rows["metric"].str.partition("@")[2].astype(int))
    for (label, group), colour in zip(rows.groupby("label", sort=False), OTHERS, strict=False):
        by_k = group.groupby("k")["value"]
        axis.plot(by_k.mean().index, 100 * by_k.mean(), "o-", ms=4, color=colour, label=label)
        axis.fill_between(by_k.min().index, 100 * by_k.min(), 100 * by_k.max(), color=colour, alpha=0.15, lw=0)
    axis.set_xlabel("K")
    axis.set_ylabel("accuracy (%)")
    axis.set_title(title, fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)
