"""Figures of the study of posteriors: each answers the question in its title. What has not mixed is hollow and has a dagger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from evaluation.plots.base import FONT, GREY, SMALL, new_figure, save, style_of
from evaluation.posteriors.collect import cell_of, exact, main_setting, method_order
from evaluation.posteriors.power_law import PowerLaw
from evaluation.posteriors.tables import (
    CALIBRATION_TITLE,
    DAGGER,
    FIDELITY_TITLE,
    PLACES,
    POINTS_TITLE,
    RANK_PAIRS,
    RANKS_TITLE,
    UPWARD,
    WARMTH,
    WARMTH_TITLE,
    ceiling_of,
    laws_of,
    paired_scores,
    weights_label,
)
from evaluation.ranks import rank_correlation

__all__ = ["draw_figures"]

MEASURES = {
    "tv": "total variation (fraction)",
    "agreement": "agreement (fraction)",
    "sym_kl": "symmetric KL (nats)",
    "accuracy": "accuracy (fraction)",
    "nll": "NLL (nats)",
    "ece": "ECE (fraction)",
}
LINES = {"N/M": "-", "1": ":", "learned, sum N": "--", "learned": "-."}
LOGARITHMIC = ("tv", "sym_kl")
KEY = "mean over coresets; thick bar: ± Monte Carlo error, thin: ± std over coresets"
FARTHEST = 30.0  # an extrapolation is drawn up to so many times the largest M


def _dots(axes: Axes, x: float, part: pd.DataFrame, metric: str, **style: Any) -> float:
    """Mean of a cell with both errors; hollow and with a dagger if a posterior has not mixed. Returns the mean."""
    cell = cell_of(part, metric)
    if cell is None or math.isnan(cell.over_coresets.mean):
        return math.nan
    mean, color = cell.over_coresets.mean, style["color"]
    spread = 0.0 if math.isnan(cell.over_coresets.std) else cell.over_coresets.std
    error = 0.0 if math.isnan(cell.monte_carlo) else cell.monte_carlo
    axes.errorbar(x, mean, spread, color=color, linewidth=0.8, capsize=2, zorder=2)
    axes.errorbar(x, mean, error, color=color, linewidth=2.8, zorder=2)
    face = "white" if cell.unmixed else color
    axes.plot(x, mean, linestyle="", ms=5.5, color=color, mfc=face, marker=style["marker"], zorder=3)
    if cell.unmixed:
        axes.annotate(DAGGER, (x, mean), (3, 3), textcoords="offset points", fontsize=SMALL - 1, color=color)
    return mean


def _curve(
    axes: Axes, frame: pd.DataFrame, over: str, metric: str, method: str, *, shift: float = 1.0, line: str = "-"
) -> None:
    """A metric of one method against a column, on a logarithmic axis; `shift` multiplies x, so that bars do not hide bars."""
    look = style_of(method, [method])
    places = [(float(x) * shift, part) for x, part in frame.groupby(over, sort=True)]
    means = [_dots(axes, x, part, metric, color=look.color, marker=look.marker) for x, part in places]
    axes.plot([x for x, _ in places], means, line, color=look.color, linewidth=1.3, zorder=1)


def _shifts(names: Sequence[str], step: float = 1.035) -> dict[str, float]:
    """A factor for each method, around 1."""
    return {name: step ** (place - (len(names) - 1) / 2) for place, name in enumerate(names)}


def _log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x with its own values as ticks."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    distinct = sorted(set(values))
    axes.set_xticks(distinct, [f"{value:g}" for value in distinct])


def _legend(figure: Figure, methods: Sequence[str], more: Sequence[Line2D] = (), *, unmixed: bool) -> None:
    """Methods, then what else there is to tell apart, under everything."""
    handles = []
    for method in methods:
        look = style_of(method, list(methods))
        handles.append(Line2D([], [], color=look.color, marker=look.marker, ms=5.5, label=look.name))
    handles += more
    if unmixed:
        handles.append(
            Line2D([], [], color=GREY, marker="o", mfc="white", linestyle="", ms=5.5, label=f"{DAGGER} not mixed")
        )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 5), fontsize=SMALL, frameon=False
    )


def _title(figure: Figure, title: str, frame: pd.DataFrame, note: str = KEY) -> None:
    place = f"{frame['dataset'].iloc[0]}, {frame['architecture'].iloc[0]}"
    figure.suptitle(f"{title} {place}\n{note}", fontsize=FONT)


def _unmixed(frame: pd.DataFrame) -> bool:
    return "mixed" in frame and bool((frame["mixed"] == 0.0).any())


def _fidelity(frame: pd.DataFrame, path: Path) -> list[Path]:
    """TV, agreement and symmetric KL by size, on each kind of inputs."""
    posteriors = main_setting(frame)
    places = [place for place in PLACES if f"tv{place}" in posteriors]
    if posteriors.empty or not places:
        return []
    measures = ("tv", "agreement", "sym_kl")
    methods = method_order([m for m in posteriors["method"] if m != "full"])
    shifts = _shifts(methods)
    mine = posteriors[posteriors["method"] != "full"]
    drawn = set()
    figure, all_axes = new_figure(10.5, 2.7 * len(places) + 1.2, len(places), 3, sharex=True)
    for row, place in enumerate(places):
        for column, measure in enumerate(measures):
            axes, metric = all_axes[3 * row + column], f"{measure}{place}"
            for (protocol, learned, method), part in mine.groupby(
                ["protocol", "learned_weights", "method"], sort=False
            ):
                weights = weights_label(str(protocol), bool(learned))
                drawn.add(weights)
                _curve(axes, part, "ipc", metric, str(method), shift=shifts[str(method)], line=LINES[weights])
            best = ceiling_of(posteriors, metric)
            if not math.isnan(best):
                axes.axhline(best, color="black", linewidth=1, linestyle=(0, (4, 2)))
            _log_ticks(axes, list(mine["ipc"]))
            if measure in LOGARITHMIC:
                axes.set_yscale("log")
            axes.set_ylabel(f"{MEASURES[measure]}, {PLACES[place]}", fontsize=SMALL)
            if row == len(places) - 1:
                axes.set_xlabel("images per class", fontsize=SMALL)
    more = [Line2D([], [], color=GREY, linestyle=LINES[w], label=f"weights {w}") for w in LINES if w in drawn]
    more.append(Line2D([], [], color="black", linestyle=(0, (4, 2)), label="two runs on the full data"))
    _legend(figure, methods, more, unmixed=_unmixed(mine))
    _title(figure, FIDELITY_TITLE, posteriors)
    return save(figure, path)


def _points(frame: pd.DataFrame, path: Path) -> list[Path]:
    """TV by number of points with its power laws, each extrapolated to the ceiling, dotted where it is."""
    laws = laws_of(frame)
    if not laws:
        return []
    posteriors = main_setting(frame)
    mine = posteriors[(posteriors["protocol"] == "exact-scaled") & ~posteriors["learned_weights"]]
    ceiling = ceiling_of(posteriors, "tv")
    largest = max(law.sizes[1] for law in laws.values())
    figure, (axes,) = new_figure(7.2, 5.2, 1, 1)
    shifts = _shifts(list(laws))
    for method, law in laws.items():
        _law(axes, method, law, largest)
        part = mine[mine["method"] == method]
        look = style_of(method, list(laws))
        for points, cell in part.groupby("points"):
            _dots(axes, float(points) * shifts[method], cell, "tv", color=look.color, marker=look.marker)
    if ceiling > 0:
        axes.axhline(ceiling, color="black", linewidth=1, linestyle=(0, (4, 2)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axvspan(largest, largest * FARTHEST, color="#F2F2F2", zorder=0)
    axes.text(
        largest * 1.05,
        0.985,
        "extrapolated",
        fontsize=SMALL,
        color=GREY,
        va="top",
        transform=axes.get_xaxis_transform(),
    )
    axes.set_xlim(right=largest * FARTHEST)
    axes.set_xlabel("points M", fontsize=SMALL)
    axes.set_ylabel("total variation to the full data's posterior (fraction)", fontsize=SMALL)
    more = [
        Line2D([], [], color=GREY, label="power law, band: 95 % bootstrap"),
        Line2D([], [], color="black", linestyle=(0, (4, 2)), label="two runs on the full data"),
    ]
    _legend(figure, list(laws), more, unmixed=_unmixed(mine))
    _title(figure, POINTS_TITLE, posteriors)
    return save(figure, path)


def _law(axes: Axes, method: str, law: PowerLaw, largest: float) -> None:
    """The line over the sizes it was fitted to, and on beyond them."""
    color = style_of(method, [method]).color
    inside = np.geomspace(*law.sizes, 30)
    beyond = np.geomspace(law.sizes[1], largest * FARTHEST, 30)
    axes.plot(inside, law.at(inside), color=color, linewidth=1.4)
    axes.plot(beyond, law.at(beyond), color=color, linewidth=1.2, linestyle=":")
    for x, alpha in ((inside, 0.16), (beyond, 0.07)):
        axes.fill_between(x, *law.band(x), color=color, alpha=alpha, linewidth=0)


def _ranks(frame: pd.DataFrame, path: Path) -> list[Path]:
    """Every coreset: its published score and the fidelity of its exact posterior."""
    pairs = paired_scores(frame)
    shown = [(score, measure) for score, measure in RANK_PAIRS if f"exact_{measure}" in pairs]
    if len(pairs) < 3 or not shown:
        return []
    figure, all_axes = new_figure(9.0, 7.4, 2, 2)
    sizes = sorted(pairs["ipc"].unique())
    for axes, (score, measure) in zip(all_axes, shown, strict=False):
        for method in method_order(list(pairs["method"])):
            part = pairs[pairs["method"] == method]
            look = style_of(method, list(pairs["method"]))
            for _, one in part.iterrows():
                size = 4 + 6 * sizes.index(one["ipc"]) / max(len(sizes) - 1, 1)
                face = "white" if one["mixed"] == 0.0 else look.color
                place = (one[f"published_{score}"], one[f"exact_{measure}"])
                axes.plot(*place, look.marker, color=look.color, mfc=face, ms=size, alpha=0.8)
                if one["mixed"] == 0.0:
                    axes.annotate(
                        DAGGER, place, (3, 3), textcoords="offset points", fontsize=SMALL - 2, color=look.color
                    )
        signs = [1 if name in UPWARD else -1 for name in (score, measure)]
        found = rank_correlation(
            signs[0] * pairs[f"published_{score}"], signs[1] * pairs[f"exact_{measure}"], strata=list(pairs["ipc"])
        )
        both = rank_correlation(signs[0] * pairs[f"published_{score}"], signs[1] * pairs[f"exact_{measure}"])
        axes.set_title(
            f"Spearman {both.spearman.value:.2f} [{both.spearman.low:.2f}, {both.spearman.high:.2f}]; within ipc "
            f"{found.spearman.value:.2f} [{found.spearman.low:.2f}, {found.spearman.high:.2f}]",
            fontsize=SMALL - 1,
        )
        axes.set_xlabel(f"{MEASURES[score]} of the published chain", fontsize=SMALL)
        axes.set_ylabel(f"{MEASURES[measure]}, exact", fontsize=SMALL)
    _legend(figure, method_order(list(pairs["method"])), unmixed=bool((pairs["mixed"] == 0.0).any()))
    note = f"a mark a coreset, larger for more images per class ({', '.join(map(str, sizes))}); correlation 1: the same order"
    _title(figure, RANKS_TITLE, frame, note)
    return save(figure, path)


def _warmth(frame: pd.DataFrame, path: Path) -> list[Path]:
    """Accuracy, NLL, ECE and TV along both arms of the cross."""
    base = main_setting(frame)
    posteriors = exact(frame)
    posteriors = posteriors[posteriors["protocol"].eq("exact-scaled") | posteriors["method"].eq("full")]
    posteriors = posteriors[~posteriors["learned_weights"]]
    if base.empty:
        return []
    centre = {name: base[name].iloc[0] for name in ("temperature", "prior_std")}
    arms = {"temperature": "prior_std", "prior_std": "temperature"}
    lines = {arm: posteriors[posteriors[other] == centre[other]] for arm, other in arms.items()}
    lines = {arm: part for arm, part in lines.items() if part[arm].nunique() > 1}
    if not lines:
        return []
    metrics = [m for m in WARMTH if m in posteriors]
    figure, all_axes = new_figure(
        4.4 * len(lines) + 0.4, 2.3 * len(metrics) + 1.2, len(metrics), len(lines), sharey="row"
    )
    names: dict[str, None] = {}
    unmixed = False
    for column, (arm, part) in enumerate(lines.items()):
        varied = part.groupby(["method", "ipc"])[arm].transform("nunique") > 1
        part = part[varied]
        unmixed |= _unmixed(part)
        methods = method_order(list(part["method"]))
        names |= dict.fromkeys(methods)
        for row, metric in enumerate(metrics):
            axes = all_axes[row * len(lines) + column]
            for method in methods:
                mine = part[part["method"] == method]
                _curve(axes, mine, arm, metric, method, shift=_shifts(methods)[method])
            _log_ticks(axes, list(part[arm]))
            axes.axvline(centre[arm], color="#CCCCCC", linewidth=0.8, zorder=0)
            if metric in ("tv", "nll"):
                axes.set_yscale("log")
            if column == 0:
                axes.set_ylabel(MEASURES[metric], fontsize=SMALL)
            if row == len(metrics) - 1:
                other = arms[arm]
                words = {"temperature": "temperature T", "prior_std": "prior standard deviation"}
                axes.set_xlabel(f"{words[arm]} ({words[other]} {centre[other]:g})", fontsize=SMALL)
    ipcs = sorted(set(pd.concat(list(lines.values())).query("method != 'full'")["ipc"]))
    _legend(figure, method_order(list(names)), unmixed=unmixed)
    _title(
        figure,
        WARMTH_TITLE,
        posteriors,
        f"coresets at {', '.join(map(str, ipcs))} ipc; TV to the full data's posterior at the same setting\n{KEY}",
    )
    return save(figure, path)


def _calibration(frame: pd.DataFrame, path: Path) -> list[Path]:
    """NLL as it is and at the best temperature, and ECE, by size; corrupted images on the right."""
    posteriors = main_setting(frame)
    if posteriors.empty:
        return []
    mine = posteriors[
        (posteriors["protocol"] == "exact-scaled") & ~posteriors["learned_weights"] & (posteriors["method"] != "full")
    ]
    full = posteriors[posteriors["method"] == "full"]
    places = [place for place in ("", "_corrupted") if f"nll{place}" in posteriors]
    methods = method_order(list(mine["method"]))
    if not methods or not places:
        return []
    shifts = _shifts(methods)
    figure, all_axes = new_figure(4.6 * len(places) + 0.6, 6.2, 2, len(places), sharex=True, sharey="row")
    for column, place in enumerate(places):
        for row, measure in enumerate(("nll", "ece")):
            axes = all_axes[row * len(places) + column]
            curves = {f"nll{place}": "-", f"nll_calibrated{place}": ":"} if measure == "nll" else {f"ece{place}": "-"}
            for metric, line in curves.items():
                for method in methods:
                    part = mine[mine["method"] == method]
                    _curve(axes, part, "ipc", metric, method, shift=shifts[method], line=line)
                cell = cell_of(full, metric) if len(full) else None
                if cell is not None:
                    axes.axhline(cell.over_coresets.mean, color="black", linewidth=1, linestyle=line)
            _log_ticks(axes, list(mine["ipc"]))
            if column == 0:
                axes.set_ylabel(MEASURES[measure], fontsize=SMALL)
            if row == 0:
                axes.set_title(f"{PLACES[place]} images", fontsize=FONT)
            else:
                axes.set_xlabel("images per class", fontsize=SMALL)
    more = [
        Line2D([], [], color="black", label="full data"),
        Line2D([], [], color=GREY, linestyle=":", label="at its best temperature"),
    ]
    _legend(figure, methods, more, unmixed=_unmixed(mine))
    _title(figure, CALIBRATION_TITLE, posteriors)
    return save(figure, path)


FIGURES = {
    "posteriors-divergence": _fidelity,
    "posteriors-points": _points,
    "posteriors-ranks": _ranks,
    "posteriors-warmth": _warmth,
    "posteriors-calibration": _calibration,
}


def draw_figures(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Every figure that the posteriors of a study (`collect`) allow, as PNG and PDF."""
    return [path for name, draw in FIGURES.items() for path in draw(frame, folder / f"{name}.png")]
