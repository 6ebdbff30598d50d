"""How two numbers of a study go together: total variation with the number of points, published scores with exact fidelity."""

from __future__ import annotations

import math

import pandas as pd

from evaluation.posteriors.collect import main_setting, method_order
from evaluation.posteriors.power_law import PowerLaw, fit_power_law
from evaluation.posteriors.words import (
    DAGGER,
    METHOD,
    POINTS_TITLE,
    RANK_PAIRS,
    RANKS_TITLE,
    UNMIXED,
    UPWARD,
    caption_of,
    posterior_label,
)
from evaluation.protocols import KIM2022_PROTOCOLS
from evaluation.ranks import Estimate, rank_correlation
from evaluation.table import Column, Table, TableRow, significant
from evaluation.tables import METRIC_COLUMNS

__all__ = ["ceiling_of", "laws_of", "paired_scores", "points_table", "ranks_table"]


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


def points_table(frame: pd.DataFrame) -> Table | None:
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
        METHOD,
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
    caption = caption_of(POINTS_TITLE, posteriors, "Total variation against the number of points, a power law:")
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


def ranks_table(frame: pd.DataFrame) -> Table | None:
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
            cells += [_bracketed(found.spearman), _bracketed(found.kendall), str(found.pairs)]
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
    caption = caption_of(
        RANKS_TITLE, frame, f"Score by {protocol} against fidelity of the exact posterior, weights N/M:"
    )
    return Table(
        caption=caption, columns=(*keys, *(Column(name=n) for n in names)), blocks=(tuple(lines),), notes=notes
    )


def _bracketed(found: Estimate) -> str:
    return "" if math.isnan(found.value) else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
