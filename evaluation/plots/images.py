"""Pictures of coresets and their spectra."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from bpc.coreset import Pseudocoreset
from bpc.errors import ConfigError
from evaluation.compare import method_label
from evaluation.plots.base import FONT, SMALL, legend_below, new_figure, require, save, style_of

__all__ = ["fourier_log_amplitude", "plot_coreset_grid", "plot_coresets_side_by_side", "plot_fourier_diagonal"]


MOST_ABREAST = 4  # coresets in a row
GRID_WIDTH = 9.0  # inches


def plot_coreset_grid(
    coreset: Pseudocoreset,
    path: Path | str,
    *,
    class_names: Sequence[str] | None = None,
    max_ipc: int = 10,
) -> list[Path]:
    """The images of a coreset, one row per class (Kim et al., 2022, Figure 8).

    Args:
        coreset: shown as pixels in [0, 1].
        path: PNG; a PDF is written beside it.
        class_names: one per class; the number of the class otherwise.
        max_ipc: images shown of each class.
    """
    if class_names is not None and len(class_names) != coreset.num_classes:
        raise ConfigError(f"{len(class_names)} class names for {coreset.num_classes} classes; expected one per class.")
    names = list(class_names) if class_names is not None else [f"class {c}" for c in range(coreset.num_classes)]
    rows, kept = _by_class(coreset, max_ipc)
    columns = max(map(len, rows))
    title = f"{method_label(coreset.method)}, {coreset.ipc} ipc, {coreset.dataset}"
    if columns < coreset.ipc:
        title += f" (first {columns} of each class)"

    cell = 0.55  # inches an image
    left = 0.3 + 0.085 * max(len(names[c]) for c in kept)
    width = max(left + cell * columns + 0.2, 0.095 * len(title) + 0.3)
    figure, (axes,) = new_figure(width, cell * len(rows) + 0.5, 1, 1)
    mosaic, pitch, size = _mosaic(coreset.images, rows, columns)
    _show(axes, mosaic)
    axes.set_yticks([row * pitch + size / 2 for row in range(len(rows))], [names[c] for c in kept], fontsize=SMALL)
    figure.suptitle(title, fontsize=FONT)
    return save(figure, path, pdf=False)


def plot_coresets_side_by_side(
    coresets: Sequence[Pseudocoreset],
    path: Path | str,
    *,
    per_class: int = 1,
    titles: Sequence[str] | None = None,
) -> list[Path]:
    """Several coresets beside one another, at most four to a row (Kim et al., 2022, Figure 1).

    Args:
        coresets: one panel each, in this order.
        path: PNG; a PDF is written beside it.
        per_class: images of each class; 1 folds the classes into a block, more give one row per class.
        titles: of the panels; method and ipc otherwise.
    """
    if not coresets or (titles is not None and len(titles) != len(coresets)):
        raise ConfigError(f"Expected one title a coreset and at least one coreset; got {len(coresets)} coresets.")
    panels = []
    for coreset in coresets:
        rows, _ = _by_class(coreset, per_class)
        if max(map(len, rows)) == 1:
            flat = [row[0] for row in rows]
            columns = math.ceil(math.sqrt(2 * len(flat)))  # about twice as wide as high
            rows = [flat[start : start + columns] for start in range(0, len(flat), columns)]
        panels.append(rows)
    lines = math.ceil(len(panels) / MOST_ABREAST)
    abreast = math.ceil(len(panels) / lines)
    widest = max(len(row) for rows in panels for row in rows)
    tallest = max(map(len, panels))
    # a page is no wider than a text is: there the letters can be read
    cell = min(0.45, (GRID_WIDTH / abreast - 0.15) / widest)
    width, height = max(cell * widest + 0.15, 1.5), cell * tallest + 0.35
    figure, all_axes = new_figure(width * abreast, height * lines, lines, abreast, wspace=0.06)
    for place, axes in enumerate(all_axes):
        if place >= len(panels):
            axes.remove()
            continue
        coreset = coresets[place]
        _show(axes, _mosaic(coreset.images, panels[place], max(map(len, panels[place])))[0])
        axes.set_yticks([])
        axes.set_anchor("N")
        title = titles[place] if titles is not None else f"{method_label(coreset.method)}, {coreset.ipc} ipc"
        axes.set_title(title, fontsize=FONT)
    return save(figure, path)


def fourier_log_amplitude(images: Tensor) -> tuple[Tensor, Tensor]:
    """Log amplitude on the diagonal of the 2-D Fourier transform, over frequency 0 (Park and Kim, 2022).

    The diagonal runs from the centre of the shifted transform (both frequencies 0) to its corner (both pi);
    the logarithm is averaged over images and channels, then its value at frequency 0 is subtracted. Above
    another curve at the high end means noisier images.

    Args:
        images: (m, c, h, h).

    Returns:
        (h // 2 + 1,) frequencies in units of pi, rising from 0, and as many log amplitudes in nats, 0 at
        frequency 0.
    """
    if images.ndim != 4 or images.shape[-1] != images.shape[-2] or images.numel() == 0:
        raise ConfigError(f"Expected square images (m, c, h, h); got {tuple(images.shape)}.")
    size = images.shape[-1]
    amplitude = torch.fft.fft2(images.detach().cpu().double()).abs()
    # An amplitude that is 0 but for rounding gets the rounding's size, so that its logarithm exists.
    peak = amplitude.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    log_amplitude = torch.maximum(amplitude, peak * torch.finfo(torch.float64).eps).log()
    # Index i of the unshifted transform is the i-th step from the centre of the shifted one; h / 2 is pi.
    steps = torch.arange(size // 2 + 1)
    diagonal = log_amplitude[..., steps, steps].mean(dim=(0, 1))
    return 2.0 * steps.double() / size, diagonal - diagonal[0]


def plot_fourier_diagonal(images: Mapping[str, Tensor], path: Path | str) -> list[Path]:
    """Noise of images by frequency (Kim et al., 2022, Figure 2), see `fourier_log_amplitude`.

    Args:
        images: label (a method's name gets its colour) to (m, c, h, h).
        path: PNG; a PDF is written beside it.
    """
    require(images, "images")
    figure, (axes,) = new_figure(5.6, 3.6 + 0.2 * math.ceil(len(images) / 4), 1, 1)
    for label, batch in images.items():
        look = style_of(label, list(images))
        frequency, log_amplitude = fourier_log_amplitude(batch)
        axes.plot(
            frequency,
            log_amplitude,
            color=look.color,
            marker=look.marker,
            linestyle=look.line,
            markersize=4,
            linewidth=1.6,
            label=look.name,
        )
    axes.set_xlabel("frequency (units of π)", fontsize=FONT)
    axes.set_ylabel("Δ log amplitude (nats)", fontsize=FONT)
    legend_below(figure, axes, 4)
    return save(figure, path)


def _by_class(coreset: Pseudocoreset, most: int) -> tuple[list[list[int]], list[int]]:
    """Indices of the first `most` points of each class that has any, and these classes."""
    if most < 1:
        raise ConfigError(f"Expected at least one image a class to be shown; got {most}.")
    labels = coreset.classes.tolist()
    rows = {c: [i for i, label in enumerate(labels) if label == c][:most] for c in range(coreset.num_classes)}
    kept = [c for c, row in rows.items() if row]
    return [rows[c] for c in kept], kept


def _mosaic(images: Tensor, rows: list[list[int]], columns: int) -> tuple[NDArray[np.float32], int, int]:
    """Images on white, with a gap between them.

    Returns:
        (height, width, 3) pixels, the distance between two rows, and the height of an image, both in pixels.
    """
    pixels = images.detach().float().cpu()
    factor = -(-64 // pixels.shape[-1])  # nearest neighbour, so that a gap can be thinner than a pixel of the image
    pixels = pixels.repeat_interleave(factor, -2).repeat_interleave(factor, -1).permute(0, 2, 3, 1)
    pixels = pixels.expand(*pixels.shape[:3], 3) if pixels.shape[-1] == 1 else pixels[..., :3]
    height, width = pixels.shape[1:3]
    gap = max(height // 16, 2)
    canvas = torch.ones((height + gap) * len(rows) - gap, (width + gap) * columns - gap, 3)
    for y, row in enumerate(rows):
        for x, index in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            canvas[top : top + height, left : left + width] = pixels[index]
    return canvas.numpy(), height + gap, height


def _show(axes: Axes, picture: NDArray[np.float32]) -> None:
    """A picture without a frame; tick labels stay possible."""
    axes.imshow(picture, interpolation="nearest", extent=(0, picture.shape[1], picture.shape[0], 0))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
