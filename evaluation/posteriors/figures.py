"""Figures of the study of posteriors: each answers the question in its title. What has not mixed is hollow and has a dagger."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from evaluation.plots.base import FONT, GREY, SMALL, new_figure, save
from evaluation.posteriors.collect import cell_of, exact, main_setting, method_order
from evaluation.posteriors.drawing import (
    KEY,
    LINES,
    LOGARITHMIC,
    MEASURES,
    SIZES,
    any_unmixed,
    draw_line,
    full_label,
    legend_of,
    log_x,
    log_y,
    shifts_of,
    title_of,
)
from evaluation.posteriors.relation_figures import draw_points, draw_ranks
from evaluation.posteriors.relations import ceiling_of
from evaluation.posteriors.words import CALIBRATION_TITLE, FIDELITY_TITLE, PLACES, WARMTH, WARMTH_TITLE, weights_label

__all__ = ["draw_figures"]


def _fidelity(frame: pd.DataFrame, path: Path) -> list[Path]:
    """TV, agreement and symmetric KL by size, on each kind of inputs."""
    posteriors = main_setting(frame)
    places = [place for place in PLACES if f"tv{place}" in posteriors]
    if posteriors.empty or not places:
        return []
    measures = ("tv", "agreement", "sym_kl")
    methods = method_order([m for m in posteriors["method"] if m != "full"])
    shifts = shifts_of(methods)
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
                draw_line(
                    axes,
                    part,
                    "ipc",
                    metric,
                    str(method),
                    shift=shifts[str(method)],
                    line=LINES[weights],
                    size=SIZES[weights],
                )
            best = ceiling_of(posteriors, metric)
            if not math.isnan(best):
                axes.axhline(best, color="black", linewidth=1, linestyle=(0, (4, 2)))
            log_x(axes, list(mine["ipc"]))
            if measure in LOGARITHMIC:
                log_y(axes)
            axes.set_ylabel(f"{MEASURES[measure]}, {PLACES[place]}", fontsize=SMALL)
            if row == len(places) - 1:
                axes.set_xlabel("images per class", fontsize=SMALL)
    more = [
        Line2D([], [], color=GREY, linestyle=LINES[w], marker="o", ms=SIZES[w], label=f"weights {w}")
        for w in LINES
        if w in drawn
    ]
    more.append(
        Line2D([], [], color="black", linestyle=(0, (4, 2)), label=full_label(posteriors, "two runs on the full data"))
    )
    legend_of(figure, methods, more, unmixed=any_unmixed(mine))
    title_of(figure, FIDELITY_TITLE, posteriors)
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
    unmixed, ipcs = False, set()
    for column, (arm, part) in enumerate(lines.items()):
        varied = part.groupby(["method", "ipc"])[arm].transform("nunique") > 1
        part = part[varied]
        unmixed |= any_unmixed(part)
        ipcs |= set(part.loc[part["method"] != "full", "ipc"])
        methods = method_order(list(part["method"]))
        names |= dict.fromkeys(methods)
        for row, metric in enumerate(metrics):
            axes = all_axes[row * len(lines) + column]
            for method in methods:
                mine = part[part["method"] == method]
                draw_line(axes, mine, arm, metric, method, shift=shifts_of(methods)[method])
            log_x(axes, list(part[arm]))
            axes.axvline(centre[arm], color="#CCCCCC", linewidth=0.8, zorder=0)
            if metric in ("tv", "nll"):
                log_y(axes)
            if column == 0:
                axes.set_ylabel(MEASURES[metric], fontsize=SMALL)
            if row == len(metrics) - 1:
                other = arms[arm]
                words = {"temperature": "temperature T", "prior_std": "prior standard deviation"}
                axes.set_xlabel(f"{words[arm]} ({words[other]} {centre[other]:g})", fontsize=SMALL)
    legend_of(figure, method_order(list(names)), unmixed=unmixed)
    title_of(
        figure,
        WARMTH_TITLE,
        posteriors,
        f"coresets at {', '.join(map(str, sorted(ipcs)))} ipc; TV to the full data's posterior at the same setting\n{KEY}",
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
    shifts = shifts_of(methods)
    figure, all_axes = new_figure(4.6 * len(places) + 0.6, 6.2, 2, len(places), sharex=True, sharey="row")
    for column, place in enumerate(places):
        for row, measure in enumerate(("nll", "ece")):
            axes = all_axes[row * len(places) + column]
            curves = {f"nll{place}": "-", f"nll_calibrated{place}": ":"} if measure == "nll" else {f"ece{place}": "-"}
            for metric, line in curves.items():
                for method in methods:
                    part = mine[mine["method"] == method]
                    draw_line(axes, part, "ipc", metric, method, shift=shifts[method], line=line)
                cell = cell_of(full, metric) if len(full) else None
                if cell is not None:
                    axes.axhline(cell.over_coresets.mean, color="black", linewidth=1, linestyle=line)
            log_x(axes, list(mine["ipc"]))
            if column == 0:
                axes.set_ylabel(MEASURES[measure], fontsize=SMALL)
            if row == 0:
                axes.set_title(f"{PLACES[place]} images", fontsize=FONT)
            else:
                axes.set_xlabel("images per class", fontsize=SMALL)
    more = [
        Line2D([], [], color="black", label=full_label(posteriors, "full data")),
        Line2D([], [], color=GREY, linestyle=":", label="at its best temperature"),
    ]
    legend_of(figure, methods, more, unmixed=any_unmixed(mine))
    title_of(figure, CALIBRATION_TITLE, posteriors)
    return save(figure, path)


FIGURES = {
    "posteriors-divergence": _fidelity,
    "posteriors-points": draw_points,
    "posteriors-ranks": draw_ranks,
    "posteriors-warmth": _warmth,
    "posteriors-calibration": _calibration,
}


def draw_figures(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Every figure that the posteriors of a study (`collect`) allow, as PNG and PDF."""
    return [path for name, draw in FIGURES.items() for path in draw(frame, folder / f"{name}.png")]
