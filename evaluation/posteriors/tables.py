"""Tables of the study of posteriors: a question each, every number with its Monte Carlo error and its spread over coresets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from evaluation.compare import method_label
from evaluation.diagnostics import EBFMI_MIN, ESS_MIN, RHAT_MAX
from evaluation.moments import Moments
from evaluation.posteriors.collect import cell_of, exact, main_setting, method_order
from evaluation.posteriors.power_law import PowerLaw, fit_power_law
from evaluation.protocols import KIM2022_PROTOCOLS
from evaluation.ranks import Estimate, rank_correlation
from evaluation.table import Cell, Column, Table, TableRow, significant, unique_clauses
from evaluation.tables import METRIC_COLUMNS

__all__ = [
    "DAGGER",
    "FIDELITY_TITLE",
    "POINTS_TITLE",
    "RANK_PAIRS",
    "ceiling_of",
    "laws_of",
    "paired_scores",
    "posterior_label",
    "tables_of",
    "weights_label",
]

DAGGER = "†"
FIDELITY_TITLE = "Which divergence gives the nearest posterior?"
POINTS_TITLE = "How many points does a posterior need?"
RANKS_TITLE = "Does the published score rank as the posterior does?"
WARMTH_TITLE = "Cold or warm?"
CALIBRATION_TITLE = "Is a coreset's posterior calibrated?"
MIXING_TITLE = "Which rows have mixed?"
FIDELITY = ("tv", "agreement", "sym_kl", "entropy_gap")
PLACES = {"": "clean", "_corrupted": "corrupted", "_foreign": "foreign"}
WARMTH = ("accuracy", "nll", "ece", "tv")
CALIBRATION = ("accuracy", "nll", "nll_calibrated", "ece")
MIXING = ("rhat_predictions", "ess_bulk_predictions", "tv_halves", "tv_halves_error", "acceptance", "divergences")
# of the published chain, of the exact posterior, and whether the same order has the same sign
RANK_PAIRS = (("accuracy", "tv"), ("accuracy", "agreement"), ("nll", "tv"), ("nll", "agreement"))
UPWARD = ("accuracy", "agreement")
SPREAD = (
    "Mean ± standard deviation over coresets; MC: Monte Carlo standard error of one posterior (jackknife over its chains, and "
    "those of the reference where a number compares with it), root mean square over coresets. The deviation holds it too."
)
UNMIXED = (
    f"{DAGGER} chains of at least one posterior have not mixed: R-hat of predictions (95 %) above {RHAT_MAX}, bulk ESS below "
    f"{ESS_MIN}, E-BFMI below {EBFMI_MIN}, a divergence, or a chain that stood still or left the finite numbers."
)
_METHOD = Column(name="Method", key=True, left=True)
_IPC = Column(name="ipc", key=True)
_WEIGHTS = Column(name="Weights", key=True, left=True)
_MC = Column(name="MC", digits=None, joined=True, noted=False)


def weights_label(protocol: str, learned: bool) -> str:
    """Which density is sampled: the likelihood's weights."""
    kind = "N/M" if protocol == "exact-scaled" else "1"
    return ("learned, sum N" if protocol == "exact-scaled" else "learned") if learned else kind


def posterior_label(part: pd.DataFrame) -> str:
    """The method as a reader sees it, with a dagger where one of its posteriors has not mixed."""
    label = method_label(str(part["method"].iloc[0]))
    return f"{label} {DAGGER}" if "mixed" in part and bool((part["mixed"] == 0.0).any()) else label


def _number(part: pd.DataFrame, metric: str) -> list[Cell]:
    """A metric over the coresets of a cell, and its Monte Carlo error."""
    cell = cell_of(part, metric)
    return [None, None] if cell is None else [cell.over_coresets, Moments(cell.monte_carlo)]


def _columns(metrics: Sequence[str], ending: str = "", *, ranked: bool = True) -> list[Column]:
    """Of metrics, each with its Monte Carlo error; `ending` names the inputs."""
    found = []
    for metric in metrics:
        column = METRIC_COLUMNS[metric]
        found += [replace(column, name=column.name + ending, ranked=ranked and column.ranked), _MC]
    return found


def _caption(title: str, frame: pd.DataFrame, what: str) -> str:
    """The question, what is below, and where it was measured."""
    place = f"{frame['dataset'].iloc[0]}, {frame['architecture'].iloc[0]}"
    return f"{title} {what} {place}; {unique_clauses(frame['device'])}."


def _notes(frame: pd.DataFrame, *more: str) -> tuple[str, ...]:
    unmixed = "mixed" in frame and bool((frame["mixed"] == 0.0).any())
    return (SPREAD, *more, *((UNMIXED,) if unmixed else ()))


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
    columns = [_WEIGHTS, _METHOD, _IPC]
    for place in places:
        names = [name for name in FIDELITY if f"{name}{place}" in posteriors]
        columns += _columns(names, f", {PLACES[place]}" if place else "")
    blocks: dict[Any, list[TableRow]] = {}
    for key, part in _cells(posteriors, ["protocol", "learned_weights", "ipc"]):
        weights = weights_label(str(key[0]), bool(key[1]))
        label = posterior_label(part)
        cells = [cell for metric in metrics for cell in _number(part, metric)]
        blocks.setdefault(key, []).append(TableRow((weights, label, str(key[2]), *cells), f"{label} at {key[2]} ipc"))
    full = posteriors[posteriors["method"] == "full"]
    if len(full):
        cells = [cell for metric in metrics for cell in _number(full, metric)]
        blocks["full"] = [TableRow(("", f"{posterior_label(full)}, second run", "all", *cells))]
    inputs = " and ".join(PLACES[place] for place in places)
    return Table(
        caption=_caption(
            FIDELITY_TITLE, posteriors, f"Distance of the predictive to the full data's posterior's, {inputs} inputs:"
        ),
        columns=tuple(columns),
        blocks=tuple(map(tuple, blocks.values())),
        notes=_notes(posteriors, "The full data's row is its second run against the first: the ceiling."),
        repeats="coresets",
    )


def ceiling_of(posteriors: pd.DataFrame, metric: str) -> float:
    """A measure of fidelity between the two runs of the reference; nan where there is one run."""
    full = posteriors[posteriors["method"] == "full"]
    return float(full[metric].mean()) if metric in full else math.nan


def laws_of(frame: pd.DataFrame) -> dict[str, PowerLaw]:
    """By method, TV against M under weights N/M."""
    posteriors = main_setting(frame)
    if posteriors.empty or "tv" not in posteriors:
        return {}
    ceiling = ceiling_of(posteriors, "tv")
    mine = posteriors[(posteriors["protocol"] == "exact-scaled") & ~posteriors["learned_weights"]]
    laws = {}
    for method in method_order([m for m in mine["method"] if m != "full"]):
        part = mine[mine["method"] == method]
        law = fit_power_law(part["points"], part["tv"], ceiling=ceiling)
        if law is not None:
            laws[method] = law
    return laws


def _points(frame: pd.DataFrame) -> Table | None:
    """Exponents and extrapolations."""
    laws = laws_of(frame)
    if not laws:
        return None
    posteriors = main_setting(frame)
    unmixed = {m: posterior_label(posteriors[posteriors["method"] == m]) for m in laws}
    ceiling = ceiling_of(posteriors, "tv")
    lines = []
    for method, law in laws.items():
        span = f"{law.sizes[0]:.0f} to {law.sizes[1]:.0f}"
        low, high = law.exponent_interval
        exponent = f"{law.exponent:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(
            TableRow((unmixed[method], str(law.coresets), span, exponent, significant(law.scale), _reach(law.needed)))
        )
    columns = (
        _METHOD,
        Column(name="coresets"),
        Column(name="M"),
        Column(name="exponent"),
        Column(name="TV at M = 1, by the law"),
        Column(name="M at the ceiling (extrapolated)"),
    )
    notes = (
        f"TV = A M^-exponent by least squares of logarithms over all coresets with weights N/M; the ceiling, two runs on the "
        f"full data, is {significant(ceiling)}."
        if ceiling > 0
        else "No second run of the reference: no ceiling to extrapolate to.",
        "Brackets: 95 % bootstrap over coresets. Beyond the sizes named, the law is an extrapolation that nothing here tests.",
        *([UNMIXED] if any(DAGGER in label for label in unmixed.values()) else []),
    )
    caption = _caption(POINTS_TITLE, posteriors, "Total variation against the number of points, a power law:")
    return Table(caption=caption, columns=columns, blocks=(tuple(lines),), notes=notes)


def _reach(needed: Estimate) -> str:
    if math.isnan(needed.value):
        return ""

    def text(value: float) -> str:
        return "∞" if value > 1e9 else f"{value:,.0f}"

    return f"{text(needed.value)} [{text(needed.low)}, {text(needed.high)}]"


def paired_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """A line for each coreset that has both a published score and an exact posterior (weights N/M).

    Returns:
        method, ipc, mixed, ``published_<metric>`` and ``exact_<metric>`` of `RANK_PAIRS`, and the name of the published protocol.
        Several chains of a coreset count with their mean.
    """
    posteriors = main_setting(frame)
    mine = posteriors[(posteriors["protocol"] == "exact-scaled") & (posteriors["method"] != "full")]
    published = frame[frame["protocol"].isin(KIM2022_PROTOCOLS)]
    if mine.empty or published.empty:
        return pd.DataFrame()
    scores = (
        published.groupby(["coreset", "protocol"])[["accuracy", "nll"]].mean().add_prefix("published_").reset_index()
    )
    names = [name for name in ("tv", "agreement") if name in mine]
    kept = mine[["coreset", "method", "ipc", "mixed", *names]].rename(columns={name: f"exact_{name}" for name in names})
    return kept.merge(scores, on="coreset")


def _ranks(frame: pd.DataFrame) -> Table | None:
    """Spearman and Kendall over all coresets, and within a size."""
    pairs = paired_scores(frame)
    if len(pairs) < 3:
        return None
    lines = []
    for score, measure in RANK_PAIRS:
        if f"exact_{measure}" not in pairs:
            continue
        x = pairs[f"published_{score}"] * (1 if score in UPWARD else -1)
        y = pairs[f"exact_{measure}"] * (1 if measure in UPWARD else -1)
        cells = [f"{METRIC_COLUMNS[score].name}", f"{METRIC_COLUMNS[measure].name}"]
        for strata in (None, list(pairs["ipc"])):
            found = rank_correlation(x, y, strata=strata)
            cells += [_bracketed(found.spearman), _bracketed(found.kendall), str(found.count)]
        lines.append(TableRow(tuple(cells)))
    keys = (Column(name="Published", key=True, left=True), Column(name="Exact", key=True, left=True))
    names = [f"{n}{place}" for place in ("", ", within ipc") for n in ("Spearman", "Kendall", "coresets")]
    unmixed = int((pairs["mixed"] == 0.0).sum())
    notes = (
        "Both turned so that more is better: 1 is the same order. 95 % bootstrap intervals over coresets; within ipc: mean of "
        "the correlations among coresets of one size, which leaves out that more images are better by any measure.",
        "Every coreset has one published chain, whose noise is in these numbers.",
        *((f"{DAGGER} {unmixed} of {len(pairs)} exact posteriors have not mixed.",) if unmixed else ()),
    )
    protocol = str(pairs["protocol"].iloc[0])
    caption = _caption(RANKS_TITLE, frame, f"Score by {protocol} against fidelity of the exact posterior, weights N/M:")
    return Table(
        caption=caption, columns=(*keys, *(Column(name=n) for n in names)), blocks=(tuple(lines),), notes=notes
    )


def _bracketed(found: Estimate) -> str:
    return "" if math.isnan(found.value) else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


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
            cells = [cell for metric in metrics for cell in _number(part, metric)]
            ipc = "all" if method == "full" else str(part["ipc"].iloc[0])
            keys = (posterior_label(part), ipc, f"{temperature:g}", f"{std:g}")
            blocks.setdefault(method, []).append(TableRow((*keys, *cells), ", ".join(keys)))
    columns = (
        _METHOD,
        _IPC,
        Column(name="T", key=True),
        Column(name="prior std", key=True),
        *_columns(metrics, ranked=False),
    )
    note = "TV is to the full data's posterior at the same temperature and prior; the full data's own is between its two runs."
    return Table(
        caption=_caption(WARMTH_TITLE, posteriors, "Exact posteriors, weights N/M, to the power 1/T, by prior width:"),
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
    columns = [_WEIGHTS, _METHOD, _IPC]
    for place, ending in (("", ""), ("_corrupted", ", corrupted")):
        columns += _columns([m for m in CALIBRATION if f"{m}{place}" in posteriors], ending)
    blocks: dict[Any, list[TableRow]] = {}
    for key, part in _cells(posteriors, ["learned_weights", "ipc"]):
        label = posterior_label(part)
        cells = [cell for metric in metrics for cell in _number(part, metric)]
        weights = weights_label("exact-scaled", bool(key[0]))
        blocks.setdefault(key, []).append(TableRow((weights, label, str(key[1]), *cells), f"{label} at {key[1]} ipc"))
    full = posteriors[posteriors["method"] == "full"]
    if len(full):
        cells = [cell for metric in metrics for cell in _number(full, metric)]
        blocks["full"] = [TableRow(("", posterior_label(full), "all", *cells))]
    note = (
        "NLL, best temperature: of the predictive softened or sharpened by one number that is fitted on other images. Corrupted "
        "images stand apart: a posterior that is right for the clean data need not be good there (Izmailov et al., 2021)."
    )
    return Table(
        caption=_caption(
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
    for key, part in posteriors.groupby(keys, sort=False):
        method, learned, ipc, protocol, temperature, std = key
        cells = [Moments(float(getattr(part[m], worst.get(m, "max"))())) for m in metrics]
        names = (posterior_label(part), "all" if method == "full" else str(ipc))
        weights = "" if method == "full" else weights_label(str(protocol), bool(learned))
        mixed = f"{int((part['mixed'] == 1.0).sum())} of {len(part)}"
        lines.append(TableRow((weights, *names, f"{temperature:g}", f"{std:g}", mixed, *cells)))
    columns = [
        _WEIGHTS,
        _METHOD,
        _IPC,
        Column(name="T", key=True),
        Column(name="prior std", key=True),
        Column(name="mixed"),
    ]
    columns += [METRIC_COLUMNS.get(m, Column(name=m.capitalize(), digits=2)) for m in metrics]
    note = "The worst posterior of each row: largest R-hat, smallest ESS, largest TV between halves of the chains."
    caption = _caption(MIXING_TITLE, posteriors, "Diagnostics of every exact posterior:")
    return Table(caption=caption, columns=tuple(columns), blocks=(tuple(lines),), notes=(note, UNMIXED))


def tables_of(frame: pd.DataFrame) -> list[Table]:
    """Every table that the posteriors of a study (`collect`) allow."""
    made = (
        _fidelity(frame, [""]),
        _fidelity(frame, ["_corrupted", "_foreign"]),
        _points(frame),
        _ranks(frame),
        _warmth(frame),
        _calibration(frame),
        _mixing(frame),
    )
    return [table for table in made if table is not None]
