"""Figures as PNG files, each on its own canvas: no global state of matplotlib is changed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from bpc.coreset import Pseudocoreset
from bpc.errors import ConfigError, DataError
from bpc.files import write_atomic
from evaluation.compare import METHODS, GroupKey, groups, method_label
from evaluation.metrics import MetricSums, Reliability, reliability

__all__ = [
    "fourier_log_amplitude",
    "plot_comparison",
    "plot_coreset_grid",
    "plot_coresets_side_by_side",
    "plot_distill_curve",
    "plot_fourier_diagonal",
    "plot_learning_curves",
    "plot_reliability",
]

DPI = 150
# One colour (Okabe and Ito, told apart by colour-blind readers) and one marker for each method, in every
# figure.
STYLES = {
    "random": ("#7F7F7F", "o"),
    "herding": ("#CC79A7", "v"),
    "kcenter": ("#56B4E9", "^"),
    "craig": ("#D55E00", "<"),
    "adacore": ("#8C6D00", ">"),
    "rkl": ("#009E73", "D"),
    "wasserstein": ("#E69F00", "s"),
    "fkl": ("#0072B2", "p"),
    "full": ("#000000", "*"),
}
_OTHERS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
_FONT, _SMALL = 10.0, 9.0
_GREY = "#595959"
RELIABLE_EXAMPLES = 20


def plot_coreset_grid(
    coreset: Pseudocoreset,
    path: Path | str,
    *,
    class_names: Sequence[str] | None = None,
    max_ipc: int = 10,
) -> None:
    """The images of a coreset, one row a class (Kim et al., 2022, Figure 8).

    Args:
        coreset: shown as pixels in [0, 1].
        path: PNG.
        class_names: one a class; the number of the class otherwise.
        max_ipc: images shown of each class.
    """
    if class_names is not None and len(class_names) != coreset.num_classes:
        raise ConfigError(f"{len(class_names)} class names for {coreset.num_classes} classes; expected one a class.")
    names = list(class_names) if class_names is not None else [f"class {c}" for c in range(coreset.num_classes)]
    rows, kept = _by_class(coreset, max_ipc)
    columns = max(map(len, rows))
    title = f"{method_label(coreset.method)}, {coreset.ipc} ipc, {coreset.dataset}"
    if columns < coreset.ipc:
        title += f" (first {columns} of each class)"

    cell = 0.55  # inches an image
    left = 0.3 + 0.085 * max(len(names[c]) for c in kept)
    width = max(left + cell * columns + 0.2, 0.095 * len(title) + 0.3)
    figure, (axes,) = _figure(width, cell * len(rows) + 0.5, 1, 1)
    mosaic, pitch, size = _mosaic(coreset.images, rows, columns)
    _show(axes, mosaic)
    axes.set_yticks([row * pitch + size / 2 for row in range(len(rows))], [names[c] for c in kept], fontsize=_SMALL)
    figure.suptitle(title, fontsize=_FONT)
    _save(figure, path)


def plot_coresets_side_by_side(
    coresets: Sequence[Pseudocoreset],
    path: Path | str,
    *,
    per_class: int = 1,
    titles: Sequence[str] | None = None,
) -> None:
    """Several coresets beside one another (Kim et al., 2022, Figure 1).

    Args:
        coresets: one panel each, in this order.
        path: PNG.
        per_class: images of each class; 1 folds the classes into a block, more give one row a class.
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
    widths = [max(map(len, rows)) for rows in panels]
    cell = 0.45
    figure, all_axes = _figure(
        max(cell * sum(widths) + 0.3 * len(panels), 1.3 * len(panels)),
        cell * max(map(len, panels)) + 0.4,
        1,
        len(panels),
        width_ratios=[max(w, 2) for w in widths],
    )
    for place, (coreset, rows, axes) in enumerate(zip(coresets, panels, all_axes, strict=True)):
        _show(axes, _mosaic(coreset.images, rows, widths[place])[0])
        axes.set_yticks([])
        axes.set_anchor("N")
        title = titles[place] if titles is not None else f"{method_label(coreset.method)}, {coreset.ipc} ipc"
        axes.set_title(title, fontsize=_FONT)
    _save(figure, path)


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


def plot_fourier_diagonal(images: Mapping[str, Tensor], path: Path | str) -> None:
    """Noise of images by frequency (Kim et al., 2022, Figure 2), see `fourier_log_amplitude`.

    Args:
        images: label (a method's name gets its colour) to (m, c, h, h).
        path: PNG.
    """
    _require(images, "images")
    figure, (axes,) = _figure(5.2, 3.6, 1, 1)
    for label, batch in images.items():
        color, marker, name = _style(label, list(images))
        frequency, log_amplitude = fourier_log_amplitude(batch)
        axes.plot(frequency, log_amplitude, color=color, marker=marker, markersize=4, linewidth=1.6, label=name)
    axes.set_xlabel("frequency (units of π)", fontsize=_FONT)
    axes.set_ylabel("Δ log amplitude (nats)", fontsize=_FONT)
    axes.legend(fontsize=_SMALL, frameon=False)
    _save(figure, path)


def plot_reliability(results: Mapping[str, MetricSums | Reliability], path: Path | str) -> None:
    """Accuracy against confidence, and how often each confidence occurs (Guo et al., 2017).

    Bins of fewer than `RELIABLE_EXAMPLES` examples get no point: their accuracy says nothing. They count in the error.

    Args:
        results: label to sums or to a reliability diagram. Chains are pooled; the calibration error in the
            legend is the mean of the chains' own.
        path: PNG.
    """
    _require(results, "results")
    figure, (top, bottom) = _figure(4.6, 5.6, 2, 1, height_ratios=[3, 1], sharex=True)
    top.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="calibrated")
    for label, result in results.items():
        color, marker, name = _style(label, list(results))
        diagram = reliability(result) if isinstance(result, MetricSums) else result
        error = float(diagram.ece.mean())
        count = diagram.examples.reshape(-1, diagram.examples.shape[-1])
        # an empty bin's nan counts for nothing; a diverged chain's nan stays
        right, sure = (
            torch.where(count > 0, count * v.reshape(count.shape), 0.0).sum(0)
            for v in (diagram.accuracy, diagram.confidence)
        )
        count = count.sum(0)
        filled = count >= min(
            RELIABLE_EXAMPLES, float(torch.nan_to_num(count).max())
        )  # nan compares false, and no point is drawn for it
        top.plot(
            (sure / count)[filled].cpu(),
            (right / count)[filled].cpu(),
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1.6,
            label=f"{name}, ECE {error:.3f}",
        )
        share = (count / count.sum()).cpu().numpy()
        bottom.stairs(share, diagram.edges.cpu().numpy(), color=color, fill=len(results) == 1, linewidth=1.6)
    top.set(xlim=(0, 1), ylim=(0, 1))
    top.set_ylabel("accuracy (fraction)", fontsize=_FONT)
    top.legend(fontsize=_SMALL, frameon=False, loc="upper left")
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("confidence (fraction)", fontsize=_FONT)
    bottom.set_ylabel("share of\nexamples", fontsize=_FONT)
    _save(figure, path)


def plot_learning_curves(log: pd.DataFrame, path: Path | str) -> None:
    """Loss and accuracy of experts by epoch: a thin line each and their mean.

    Args:
        log: columns expert, epoch, and any of train_loss, test_loss (nats), train_accuracy, test_accuracy
            (fractions).
        path: PNG.
    """
    _require_columns(log, ["expert", "epoch"], "learning curves")
    panels = [
        (f"{quantity} ({unit})", shown)
        for quantity, unit in (("loss", "nats"), ("accuracy", "fraction"))
        if (shown := [name for name in (f"train_{quantity}", f"test_{quantity}") if name in log.columns])
    ]
    if not panels:
        raise DataError("Learning curves need train_loss, test_loss, train_accuracy or test_accuracy.")
    figure, all_axes = _figure(4.4 * len(panels), 3.4, 1, len(panels))
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
        axes.set_xlabel("epoch", fontsize=_FONT)
        axes.set_ylabel(label, fontsize=_FONT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=_SMALL, frameon=False, title=f"mean of {experts} experts" if experts > 1 else None)
    _save(figure, path)


def plot_distill_curve(log: pd.DataFrame, path: Path | str) -> None:
    """Value and gradient norm by step of a distillation; no panel for a value always nan (reverse KL).

    Args:
        log: columns step, value, grad_norm.
        path: PNG.
    """
    _require_columns(log, ["step", "value", "grad_norm"], "a distillation curve")
    labels = {"value": "value of the objective", "grad_norm": "norm of the gradient"}
    shown = [name for name in labels if np.isfinite(log[name].to_numpy(dtype=float)).any()]
    if not shown:
        raise DataError("A distillation curve needs a finite value or grad_norm; got none.")
    figure, all_axes = _figure(4.4 * len(shown), 3.2, 1, len(shown))
    for axes, name in zip(all_axes, shown, strict=True):
        values = log[name].to_numpy(dtype=float)
        window = max(len(values) // 50, 1)
        axes.plot(log["step"], values, color="#0072B2", linewidth=0.7, alpha=0.4 if window > 1 else 1.0)
        if window > 1:
            smooth = log[name].rolling(window, center=True, min_periods=1).median()
            axes.plot(log["step"], smooth, color="#0072B2", linewidth=2, label=f"median of {window} steps")
            axes.legend(fontsize=_SMALL, frameon=False)
        if name == "grad_norm" and np.nanmax(values) > 10 * np.nanmin(values) > 0:
            axes.set_yscale("log")
        axes.set_xlabel("step", fontsize=_FONT)
        axes.set_ylabel(labels[name], fontsize=_FONT)
    _save(figure, path)


def plot_comparison(summary: pd.DataFrame, path: Path | str, *, metrics: Sequence[str] | None = None) -> list[Path]:
    """Methods side by side: mean and standard deviation, each seed as a dot, published values hollow.

    Args:
        summary: from `compare.summarise`. One figure shows one dataset, network, sampler and protocol; with
            several of them each has its own file, its name lengthened by what differs
            (``comparison-hmc-exact.png``).
        path: PNG.
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
    written = []
    for key, part in parts:
        names = [re.sub(r"[^\w.]+", "_", name) for name, differs in zip(key, differing, strict=True) if differs]
        written.append(path.with_name("-".join([path.stem, *names]) + path.suffix))
        _comparison_figure(key, part, written[-1], metrics)
    return written


def _comparison_figure(key: GroupKey, part: pd.DataFrame, path: Path, metrics: Sequence[str] | None) -> None:
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
    figure, all_axes = _figure(max(width, 4.6), 2.5 * len(metrics) + 1.2, len(metrics), len(sizes), sharey="row")
    for place, axes in enumerate(all_axes):
        metric, ipc = metrics[place // len(sizes)], sizes[place % len(sizes)]
        _comparison_panel(axes, rows[(rows["metric"] == metric) & rows["ipc"].isin([ipc])], metric)
        if len(part):
            for _, entry in full[full["metric"] == metric].iterrows():
                axes.axhline(entry["mean"], color=STYLES["full"][0], linewidth=1, linestyle=":")
        if place < len(sizes) and len(part):
            axes.set_title(f"{ipc} ipc", fontsize=_FONT)
        if place // len(sizes) < len(metrics) - 1:
            axes.tick_params(labelbottom=False)
        if place % len(sizes) == 0:
            axes.set_ylabel(
                f"{_metric_label(metric)}\n({rows.loc[rows['metric'] == metric, 'unit'].iloc[0]})",
                fontsize=_FONT,
            )
    handles: list[Any] = [
        all_axes[0].plot([], [], "o", color=_GREY, ms=7, label="mean ± std over seeds")[0],
        all_axes[0].plot([], [], "o", color=_GREY, ms=3, alpha=0.6, label="one seed")[0],
    ]
    if rows[rows["metric"].isin(list(metrics))]["published"].notna().any():
        handles += all_axes[0].plot([], [], "o", color=_GREY, ms=7, mfc="white", label="published")
    if len(part) and len(full):
        handles += all_axes[0].plot([], [], ":", color="black", label=METHODS["full"])
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=_SMALL, frameon=False)
    figure.suptitle(f"{key.dataset}, {key.architecture}\n{key.sampler}, protocol {key.protocol}", fontsize=_FONT)
    _save(figure, path)


def _comparison_panel(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    names = []
    for place, (_, entry) in enumerate(rows.iterrows()):
        color, marker = STYLES.get(entry["method"], (_GREY, "o"))
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
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=_SMALL)
    axes.set_xlim(-0.6, max(len(names), 1) - 0.4)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.6)


def _metric_label(metric: str) -> str:
    name = metric.removesuffix("_kim2022")
    label = {"nll": "NLL", "ece": "ECE"}.get(name, name)
    return f"{label}, kim2022 variant" if metric != name else label


def _style(label: str, labels: list[str]) -> tuple[str, str, str]:
    """Colour, marker and shown name of a label: a method's own, or the next of the palette."""
    if label in STYLES:
        return (*STYLES[label], METHODS[label])
    for method, name in METHODS.items():
        if label.removesuffix(" (+Aug)") == name:
            return (*STYLES[method], label)
    place = labels.index(label)
    return _OTHERS[place % len(_OTHERS)], "osD^vp*"[place % 7], label


def _by_class(coreset: Pseudocoreset, most: int) -> tuple[list[list[int]], list[int]]:
    """Indices of the first `most` points of each class that has any, and these classes."""
    if most < 1:
        raise ConfigError(f"Expected at least one image a class to be shown; got {most}.")
    labels = coreset.labels.tolist()
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


def _figure(width: float, height: float, rows: int, columns: int, **layout: Any) -> tuple[Figure, list[Axes]]:
    """A figure of its own (inches) and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    shared = {name: layout.pop(name) for name in ("sharex", "sharey") if name in layout}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=layout, **shared)
    all_axes = [axes for line in grid for axes in line]
    for axes in all_axes:
        axes.tick_params(labelsize=_SMALL)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, all_axes


def _save(figure: Figure, path: Path | str) -> None:
    # no date and no version in the file: the same picture is the same bytes
    write_atomic(path, lambda stream: figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None}))


def _require(items: Mapping[str, Any], what: str) -> None:
    if not items:
        raise DataError(f"Nothing to plot: expected {what} under at least one label.")


def _require_columns(log: pd.DataFrame, names: list[str], what: str) -> None:
    missing = [name for name in names if name not in log.columns]
    if missing or log.empty:
        raise DataError(
            f"For {what} the log must have rows and the columns {', '.join(names)}; it has {len(log)} "
            f"rows and lacks {', '.join(missing) or 'no column'}."
        )
