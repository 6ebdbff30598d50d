"""Reliability, risk against coverage, and entropies of predictives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from evaluation.calibration import RiskCoverage, entropy
from evaluation.metrics import MetricSums, Reliability, reliability
from evaluation.plots.base import FONT, GREY, SMALL, legend_below, new_figure, require, save, style_of

__all__ = ["plot_reliability"]

RELIABLE_EXAMPLES = 20
ENTROPY_BINS = 24


def plot_reliability(results: Mapping[str, MetricSums | Reliability], path: Path | str) -> list[Path]:
    """Accuracy against confidence, and how often each confidence occurs (Guo et al., 2017).

    Bins of fewer than `RELIABLE_EXAMPLES` examples get no point: their accuracy says nothing. They count in the error.

    Args:
        results: label to sums or to a reliability diagram. Chains are pooled; the calibration error in the
            legend is the mean of the chains' own.
        path: PNG; a PDF is written beside it.
    """
    require(results, "results")
    rows = math.ceil((len(results) + 1) / 2)
    figure, (top, bottom) = new_figure(4.8, 5.4 + 0.2 * rows, 2, 1, height_ratios=[3, 1], sharex=True)
    draw_reliability(top, results)
    for label, result in results.items():
        look = style_of(label, list(results))
        diagram = reliability(result) if isinstance(result, MetricSums) else result
        count = diagram.examples.reshape(-1, diagram.examples.shape[-1]).sum(0)
        share = (count / count.sum()).cpu().numpy()
        bottom.stairs(
            share,
            diagram.edges.cpu().numpy(),
            color=look.color,
            fill=len(results) == 1,
            linewidth=1.6,
            linestyle=look.line,
        )
    top.set_ylabel("accuracy (fraction)", fontsize=FONT)
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("confidence (fraction)", fontsize=FONT)
    bottom.set_ylabel("fraction of\nexamples", fontsize=FONT)
    legend_below(figure, top, 2)
    return save(figure, path)


def draw_reliability(axes: Axes, results: Mapping[str, MetricSums | Reliability]) -> None:
    """The diagram alone, with its curves named for a legend."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated")
    for label, result in results.items():
        look = style_of(label, list(results))
        diagram = reliability(result) if isinstance(result, MetricSums) else result
        error = float(diagram.ece.mean())
        count = diagram.examples.reshape(-1, diagram.examples.shape[-1])
        # an empty bin's nan counts for nothing; a diverged chain's nan stays
        right, sure = (
            torch.where(count > 0, count * v.reshape(count.shape), 0.0).sum(0)
            for v in (diagram.accuracy, diagram.confidence)
        )
        count = count.sum(0)
        # nan compares false, and no point is drawn for it
        filled = count >= min(RELIABLE_EXAMPLES, float(torch.nan_to_num(count).max()))
        axes.plot(
            (sure / count)[filled].cpu(),
            (right / count)[filled].cpu(),
            color=look.color,
            marker=look.marker,
            linestyle=look.line,
            markersize=5,
            linewidth=1.6,
            label=f"{look.name}, ECE {error:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))


def draw_risk_coverage(axes: Axes, curves: Mapping[str, RiskCoverage]) -> None:
    """Fraction wrong against the fraction answered, the surest first (Geifman and El-Yaniv, 2017), with axis labels.

    Args:
        axes: where.
        curves: label to `evaluation.calibration.risk_coverage`. The mean over chains is drawn; the legend has its area.
    """
    top = 0.0
    for label, curve in curves.items():
        look = style_of(label, list(curves))
        risk = curve.risk.reshape(-1, curve.risk.shape[-1]).mean(0).cpu().numpy()
        n = len(risk)
        # below 2 % of the examples, and below ten of them, the fraction is noise that would set the scale
        first = min(max(10, n // 50), n) - 1
        coverage = curve.coverage.cpu().numpy()
        every = max(n // 6, 1)
        axes.plot(
            coverage[first:],
            risk[first:],
            color=look.color,
            marker=look.marker,
            linestyle=look.line,
            markersize=4,
            markevery=(every // 2, every),
            linewidth=1.6,
            label=f"{look.name}, area {risk.mean():.3f}",
        )
        top = max(top, float(np.nanmax(risk[first:], initial=0.0)))
    axes.set(xlim=(0, 1), ylim=(0, top * 1.05 or 1.0))
    axes.set_xlabel("coverage (fraction answered)", fontsize=FONT)
    axes.set_ylabel("risk (fraction wrong)", fontsize=FONT)


def draw_entropy(
    all_axes: Sequence[Axes],
    shown: Sequence[str],
    clean: Mapping[str, Tensor],
    corrupted: Mapping[str, Tensor],
    reference: str | None,
    columns: int,
) -> None:
    """How unsure each method is on clean and on corrupted images: one panel for each of `shown`, row by row.

    Args:
        all_axes: panels; those left over are taken away.
        shown: labels in `clean`.
        clean: label to probabilities (*lead, n, y); chains are pooled.
        corrupted: the same labels, on corrupted images; may be empty.
        reference: the label whose histograms are repeated in every panel as thin black lines.
        columns: panels in a row.
    """
    most = math.log(next(iter(clean.values())).shape[-1])
    edges = np.linspace(0, most, ENTROPY_BINS + 1)

    def share(probs: Tensor) -> np.ndarray:
        values = entropy(probs).flatten().cpu().numpy()
        # rounding can lift log y over the last edge; a diverged chain's nan is in no bin
        count, _ = np.histogram(np.minimum(values, most), edges)
        return count / max(len(values), 1)

    for place, axes in enumerate(all_axes):
        if place >= len(shown):
            axes.remove()
            continue
        label = shown[place]
        look = style_of(label, list(clean))
        color = look.color
        axes.stairs(share(clean[label]), edges, color=color, fill=True, alpha=0.35, label="clean")
        if label in corrupted:
            axes.stairs(share(corrupted[label]), edges, color=color, linewidth=1.6, label="corrupted")
        if reference in clean and label != reference:
            axes.stairs(share(clean[str(reference)]), edges, color="black", linewidth=0.8, label="reference, clean")
        if reference in corrupted and label != reference:
            stairs = share(corrupted[str(reference)])
            axes.stairs(stairs, edges, color="black", linewidth=0.8, linestyle=":", label="reference, corrupted")
        axes.set_title(look.name, fontsize=SMALL, pad=3)
        axes.set(xlim=(0, most))
        axes.set_ylim(bottom=0)
        if place + columns >= len(shown):
            axes.set_xlabel("entropy (nats)", fontsize=SMALL)
            axes.tick_params(labelbottom=True)
        if place % columns == 0:
            axes.set_ylabel("fraction of inputs", fontsize=SMALL)
