"""One page on an exact evaluation, as one would put in a paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from bpc.errors import ConfigError
from evaluation.calibration import risk_coverage
from evaluation.fidelity import Fidelity
from evaluation.metrics import empty_sums, update
from evaluation.plots.base import FONT, SMALL, legend_below, plain, require, save, style_of
from evaluation.plots.calibration import draw_entropy, draw_reliability, draw_risk_coverage
from evaluation.plots.chains import draw_ranks, draw_trace
from evaluation.plots.fidelity import draw_fidelity

__all__ = ["plot_page"]

_TINY = SMALL - 2
MOST_POSTERIORS = 4  # whose chains fit side by side


def plot_page(
    path: Path | str,
    *,
    probs: Mapping[str, Tensor],
    labels: Tensor,
    corrupted: Mapping[str, Tensor],
    measures: Mapping[str, Fidelity],
    ceiling: Fidelity | None,
    log_density: Mapping[str, npt.ArrayLike],
    energy: Mapping[str, npt.ArrayLike],
    reference: str | None = "full",
    title: str = "",
) -> list[Path]:
    """(a) reliability, (b) fidelity with its ceiling, (c) entropies on clean and corrupted images, (d) risk against
    coverage, (e) ranks of the log density in each chain, (f) traces of log density and energy.

    A part whose mapping is empty is left white; only `probs` must have something.

    Args:
        path: PNG; a PDF is written beside it.
        probs: method (a name in `bpc.methods.METHODS` gets its colour) to the predictive (*lead, n, y) on the test set.
        labels: (n,) int64.
        corrupted: method to the predictive on corrupted images, (*lead, n', y).
        measures: method to its fidelity to the reference, the random coreset among them.
        ceiling: the fidelity of two independent runs of the reference to each other.
        log_density: posterior to (c, s) nats, at most four of them.
        energy: posterior to (c, s) nats, of those in `log_density`.
        reference: the key of the reference in `probs` and `corrupted`, drawn behind the others in (c).
        title: of the page.

    Returns:
        The two files.
    """
    require(probs, "predictives")
    if len(log_density) > MOST_POSTERIORS:
        raise ConfigError(f"A page has room for the chains of {MOST_POSTERIORS} posteriors; got {len(log_density)}.")
    unknown = [name for name in energy if name not in log_density]
    if unknown:
        raise ConfigError(f"Energies of {', '.join(unknown)}, whose log density was not given.")
    heights = [3.4, 3.4]
    if log_density:
        heights += [1.1 + 0.22 * max(np.shape(chains)[0] for chains in log_density.values()), 2.6 if energy else 1.6]
    figure = Figure(figsize=(8.3, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    bands = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    upper = bands[0].subfigures(1, 2, width_ratios=[1, 1.55])
    middle = bands[1].subfigures(1, 2, width_ratios=[1.55, 1])

    axes = plain(upper[0].subplots())
    draw_reliability(axes, {name: update(empty_sums(p.shape[:-2]), p, labels) for name, p in probs.items()})
    axes.set_xlabel("confidence (fraction)", fontsize=SMALL)
    axes.set_ylabel("accuracy (fraction)", fontsize=SMALL)
    legend_below(upper[0], axes, 2, _TINY)
    _head(upper[0], "(a) reliability")

    if measures:
        draw_fidelity([plain(a) for a in upper[1].subplots(2, 2, sharey=True).flat], measures, ceiling)
        _head(upper[1], "(b) fidelity to the reference")

    shown = [name for name in probs if name != reference] or list(probs)
    columns = math.ceil(len(shown) / math.ceil(len(shown) / 3))
    panels = middle[0].subplots(math.ceil(len(shown) / columns), columns, sharex=True, sharey=True, squeeze=False)
    draw_entropy([plain(a) for a in panels.flat], shown, probs, corrupted, reference, columns)
    legend_below(middle[0], panels.flat[0], 4, _TINY)
    _head(middle[0], "(c) predictive entropy")

    axes = plain(middle[1].subplots())
    draw_risk_coverage(axes, {name: risk_coverage(p, labels) for name, p in probs.items()})
    axes.xaxis.label.set_fontsize(SMALL)
    axes.yaxis.label.set_fontsize(SMALL)
    legend_below(middle[1], axes, 2, _TINY)
    _head(middle[1], "(d) risk and coverage")

    if log_density:
        _page_ranks(bands[2], log_density)
        _page_traces(bands[3], log_density, energy)
    if title:
        figure.suptitle(title, fontsize=FONT)
    return save(figure, path)


def _page_ranks(band: SubFigure, log_density: Mapping[str, npt.ArrayLike]) -> None:
    row = band.subplots(1, len(log_density), squeeze=False)[0]
    for axes, (name, chains) in zip(row, log_density.items(), strict=True):
        look = style_of(name, list(log_density))
        draw_ranks(plain(axes), chains, look.color)
        axes.set_title(look.name, fontsize=SMALL, pad=3)
        axes.set_xlabel("rank of log density", fontsize=SMALL)
    row[0].set_ylabel("chain", fontsize=SMALL)
    _head(band, "(e) ranks by chain")


def _page_traces(
    band: SubFigure, log_density: Mapping[str, npt.ArrayLike], energy: Mapping[str, npt.ArrayLike]
) -> None:
    rows = {"log density\n(nats)": log_density, **({"energy\n(nats)": energy} if energy else {})}
    grid = band.subplots(len(rows), len(log_density), squeeze=False)
    for line, (label, chains) in zip(grid, rows.items(), strict=True):
        last = chains is list(rows.values())[-1]
        for axes, name in zip(line, log_density, strict=True):
            if name not in chains:
                axes.text(0.5, 0.5, "no energy", transform=axes.transAxes, fontsize=SMALL, ha="center")
                axes.set_axis_off()
                continue
            draw_trace(plain(axes), chains[name], style_of(name, list(log_density)).color)
            axes.tick_params(labelbottom=last or name not in energy)
            if last or name not in energy:
                axes.set_xlabel("draw", fontsize=SMALL)
        line[0].set_ylabel(label, fontsize=SMALL)
    for axes, name in zip(grid[0], log_density, strict=True):
        axes.set_title(style_of(name, list(log_density)).name, fontsize=SMALL, pad=3)
    _head(band, "(f) traces")


def _head(part: SubFigure, text: str) -> None:
    part.suptitle(text, fontsize=FONT, x=0.01, ha="left", fontweight="bold")
