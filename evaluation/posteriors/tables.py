"""Tables of the study of posteriors: a question each, every number with its Monte Carlo error and its spread over coresets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from evaluation.moments import Moments
from evaluation.posteriors.collect import exact, main_setting, method_order
from evaluation.posteriors.relations import points_table, ranks_table
from evaluation.posteriors.words import (
    CALIBRATION,
    CALIBRATION_TITLE,
    DIVERGED,
    FIDELITY,
    FIDELITY_TITLE,
    IPC,
    MC,
    METHOD,
    MIXING,
    MIXING_TITLE,
    PLACES,
    SPREAD,
    UNMIXED,
    WARMTH,
    WARMTH_TITLE,
    WEIGHTS,
    any_diverged,
    caption_of,
    number_of,
    posterior_label,
    weights_label,
)
from evaluation.table import Column, Table, TableRow
from evaluation.tables import METRIC_COLUMNS

__all__ = ["tables_of"]


def _columns(metrics: Sequence[str], ending: str = "", *, ranked: bool = True) -> list[Column]:
    """Of metrics, each with its Monte Carlo error; `ending` names the inputs."""
    found = []
    for metric in metrics:
        column = METRIC_COLUMNS[metric]
        found += [replace(column, name=column.name + ending, ranked=ranked and column.ranked), MC]
    return found


def _notes(frame: pd.DataFrame, *more: str) -> tuple[str, ...]:
    unmixed = "mixed" in frame and bool((frame["mixed"] == 0.0).any())
    return (SPREAD, *more, *((UNMIXED,) if unmixed else ()), *((DIVERGED,) if any_diverged(frame) else ()))


def _cells(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The parts of one value of `keys`, methods in the order of tables, the full data in none of them."""
    for key, part in frame[frame["method"] != "full"].groupby(list(keys), sort=True):
        for method in method_order(list(part["method"])):
            yield key, part[part["method"] == method]


def _fidelity(frame: pd.DataFrame, places: Sequence[str]) -> Table | None:
    """By weights and size, on some kinds of inputs."""
    posteriors = main_setting(frame)
    places = [place for place in places if f"tv{place}" in posteriors]
    if posteriors.empty or not places:
        return None
    metrics = [f"{name}{place}" for place in places for name in FIDELITY if f"{name}{place}" in posteriors]
    columns = [WEIGHTS, METHOD, IPC]
    for place in places:
        names = [name for name in FIDELITY if f"{name}{place}" in posteriors]
        columns += _columns(names, f", {PLACES[place]}" if place else "")
    blocks: dict[Any, list[TableRow]] = {}
    for key, part in _cells(posteriors, ["protocol", "learned_weights", "ipc"]):
        weights = weights_label(str(key[0]), bool(key[1]))
        label = posterior_label(part)
        cells = [cell for metric in metrics for cell in number_of(part, metric)]
        blocks.setdefault(key, []).append(TableRow((weights, label, str(key[2]), *cells), f"{label} at {key[2]} ipc"))
    full = posteriors[posteriors["method"] == "full"]
    if len(full):
        cells = [cell for metric in metrics for cell in number_of(full, metric)]
        blocks["full"] = [TableRow(("", f"{posterior_label(full)}, second run", "all", *cells))]
    inputs = " and ".join(PLACES[place] for place in places)
    return Table(
        caption=caption_of(
            FIDELITY_TITLE, posteriors, f"Distance of the predictive to the full data's posterior's, {inputs} inputs:"
        ),
        columns=tuple(columns),
        blocks=tuple(map(tuple, blocks.values())),
        notes=_notes(posteriors, "The full data's row is its second run against the first: the ceiling."),
        repeats="coresets",
    )


def _warmth(frame: pd.DataFrame) -> Table | None:
    """The cross of temperatures and priors."""
    posteriors = exact(frame)
    posteriors = posteriors[posteriors["protocol"].eq("exact-scaled") | posteriors["method"].eq("full")]
    if posteriors.empty or len(posteriors[["temperature", "prior_std"]].drop_duplicates()) < 2:
        return None
    grid = (
        posteriors.groupby(["method", "ipc"])[["temperature", "prior_std"]].transform(lambda x: x.nunique()).max(axis=1)
        > 1
    )
    posteriors = posteriors[grid & ~posteriors["learned_weights"]]
    metrics = [m for m in WARMTH if m in posteriors]
    blocks: dict[Any, list[TableRow]] = {}
    for method in ["full", *[m for m in method_order(list(posteriors["method"])) if m != "full"]]:
        mine = posteriors[posteriors["method"] == method]
        for (temperature, std), part in mine.groupby(["temperature", "prior_std"], sort=True):
            cells = [cell for metric in metrics for cell in number_of(part, metric)]
            ipc = "all" if method == "full" else str(part["ipc"].iloc[0])
            keys = (posterior_label(part), ipc, f"{temperature:g}", f"{std:g}")
            blocks.setdefault(method, []).append(TableRow((*keys, *cells), ", ".join(keys)))
    columns = (
        METHOD,
        IPC,
        Column(name="T", key=True),
        Column(name="prior std", key=True),
        *_columns(metrics, ranked=False),
    )
    note = "TV is to the full data's posterior at the same temperature and prior; the full data's own is between its two runs."
    return Table(
        caption=caption_of(
            WARMTH_TITLE, posteriors, "Exact posteriors, weights N/M, to the power 1/T, by prior width:"
        ),
        columns=columns,
        blocks=tuple(map(tuple, blocks.values())),
        notes=_notes(posteriors, note),
        repeats="coresets",
    )


def _calibration(frame: pd.DataFrame) -> Table | None:
    """Clean columns, and corrupted ones apart."""
    posteriors = main_setting(frame)
    if posteriors.empty:
        return None
    posteriors = posteriors[posteriors["protocol"].eq("exact-scaled") | posteriors["method"].eq("full")]
    metrics = [f"{m}{place}" for place in ("", "_corrupted") for m in CALIBRATION if f"{m}{place}" in posteriors]
    columns = [WEIGHTS, METHOD, IPC]
    for place, ending in (("", ""), ("_corrupted", ", corrupted")):
        columns += _columns([m for m in CALIBRATION if f"{m}{place}" in posteriors], ending)
    blocks: dict[Any, list[TableRow]] = {}
    for key, part in _cells(posteriors, ["learned_weights", "ipc"]):
        label = posterior_label(part)
        cells = [cell for metric in metrics for cell in number_of(part, metric)]
        weights = weights_label("exact-scaled", bool(key[0]))
        blocks.setdefault(key, []).append(TableRow((weights, label, str(key[1]), *cells), f"{label} at {key[1]} ipc"))
    full = posteriors[posteriors["method"] == "full"]
    if len(full):
        cells = [cell for metric in metrics for cell in number_of(full, metric)]
        blocks["full"] = [TableRow(("", posterior_label(full), "all", *cells))]
    note = (
        "NLL, best temperature: of the predictive softened or sharpened by one number that is fitted on other images. Corrupted "
        "images stand apart: a posterior that is right for the clean data need not be good there (Izmailov et al., 2021)."
    )
    return Table(
        caption=caption_of(
            CALIBRATION_TITLE, posteriors, "Exact posteriors, weights N/M, clean and corrupted test images:"
        ),
        columns=tuple(columns),
        blocks=tuple(map(tuple, blocks.values())),
        notes=_notes(posteriors, note),
        repeats="coresets",
    )


def _mixing(frame: pd.DataFrame) -> Table | None:
    """The least favourable diagnostics of each cell."""
    posteriors = exact(frame)
    metrics = [m for m in MIXING if m in posteriors]
    if posteriors.empty or "mixed" not in posteriors:
        return None
    worst = {"ess_bulk_predictions": "min", "acceptance": "min"}
    lines = []
    keys = ["method", "learned_weights", "ipc", "protocol", "temperature", "prior_std"]
    order = method_order(list(posteriors["method"]))
    for _, part in sorted(posteriors.groupby(keys, sort=True), key=lambda found: order.index(str(found[0][0]))):
        method, learned, ipc, protocol, temperature, std = (part[key].iloc[0] for key in keys)
        cells = [Moments(float(getattr(part[m], worst.get(m, "max"))())) for m in metrics]
        names = (posterior_label(part), "all" if method == "full" else str(ipc))
        weights = "" if method == "full" else weights_label(str(protocol), bool(learned))
        mixed = f"{int((part['mixed'] == 1.0).sum())} of {len(part)}"
        lines.append(TableRow((weights, *names, f"{temperature:g}", f"{std:g}", mixed, *cells)))
    columns = [
        WEIGHTS,
        METHOD,
        IPC,
        Column(name="T", key=True),
        Column(name="prior std", key=True),
        Column(name="mixed"),
    ]
    columns += [METRIC_COLUMNS.get(m, Column(name=m.capitalize(), digits=2)) for m in metrics]
    note = "The worst posterior of each row: largest R-hat, smallest ESS, largest TV between halves of the chains."
    caption = caption_of(MIXING_TITLE, posteriors, "Diagnostics of every exact posterior:")
    return Table(caption=caption, columns=tuple(columns), blocks=(tuple(lines),), notes=(note, UNMIXED, DIVERGED))


def tables_of(frame: pd.DataFrame) -> list[Table]:
    """Every table that the posteriors of a study (`collect`) allow."""
    made = (
        _fidelity(frame, [""]),
        _fidelity(frame, ["_corrupted", "_foreign"]),
        points_table(frame),
        ranks_table(frame),
        _warmth(frame),
        _calibration(frame),
        _mixing(frame),
    )
    return [table for table in made if table is not None]
