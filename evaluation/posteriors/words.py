"""What tables and figures of the study of posteriors have in common: questions, labels, captions and notes."""

from __future__ import annotations

import pandas as pd

from evaluation.compare import method_label
from evaluation.diagnostics import EBFMI_MIN, ESS_MIN, RHAT_MAX
from evaluation.moments import Moments
from evaluation.posteriors.collect import cell_of
from evaluation.table import Cell, Column, unique_clauses

DAGGER, DOUBLE_DAGGER = "†", "‡"
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
# a score of the published chain, a measure of the exact posterior
RANK_PAIRS = (("accuracy", "tv"), ("accuracy", "agreement"), ("nll", "tv"), ("nll", "agreement"))
UPWARD = ("accuracy", "agreement")
SPREAD = (
    "Mean ± standard deviation over coresets; MC: Monte Carlo standard error of one posterior (jackknife over its chains, and "
    "those of the reference where a number compares with it), root mean square over coresets. The deviation holds it too."
)
UNMIXED = (
    f"{DAGGER} chains of at least one posterior have not mixed: R-hat of predictions (95 %) above {RHAT_MAX}, bulk ESS below "
    f"{ESS_MIN}, E-BFMI below {EBFMI_MIN}, or a chain that stood still or left the finite numbers."
)
DIVERGED = (
    f"{DOUBLE_DAGGER} some transitions of at least one posterior diverged (energy error above 1,000 nats) and were rejected; by "
    "every other measure its chains have mixed. The table of mixing counts them."
)
METHOD = Column(name="Method", key=True, left=True)
IPC = Column(name="ipc", key=True)
WEIGHTS = Column(name="Weights", key=True, left=True)
MC = Column(name="MC", joined=True, noted=False)


def weights_label(protocol: str, learned: bool) -> str:
    """Which density is sampled: the likelihood's weights."""
    kind = "N/M" if protocol == "exact-scaled" else "1"
    return ("learned, sum N" if protocol == "exact-scaled" else "learned") if learned else kind


def posterior_label(part: pd.DataFrame) -> str:
    """The method as a reader sees it; a dagger where a posterior has not mixed, a double one where one only diverged."""
    unmixed = "mixed" in part and bool((part["mixed"] == 0.0).any())
    marks = DAGGER * unmixed + DOUBLE_DAGGER * any_diverged(part)
    return f"{method_label(str(part['method'].iloc[0]))} {marks}".rstrip()


def any_diverged(frame: pd.DataFrame) -> bool:
    """Whether divergent transitions alone speak against a posterior."""
    return "diverged" in frame and bool(frame["diverged"].any())


def number_of(part: pd.DataFrame, metric: str) -> list[Cell]:
    """A metric over the coresets of a cell, and its Monte Carlo error."""
    cell = cell_of(part, metric)
    return [None, None] if cell is None else [cell.over_coresets, Moments(cell.monte_carlo)]


def caption_of(title: str, frame: pd.DataFrame, what: str) -> str:
    """The question, what is below, and where it was measured."""
    place = f"{frame['dataset'].iloc[0]}, {frame['architecture'].iloc[0]}"
    return f"{title} {what} {place}; {unique_clauses(frame['device'])}."
