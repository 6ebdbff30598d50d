"""Bayesian logistic regression on scikit-learn's breast-cancer data, in two designs.

``pca2``: two standardised principal components and an intercept, three parameters: both KL divergences exactly, by cubature.
``full``: all 30 features and an intercept, 31 parameters: KL divergences between Laplace approximations, and named so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bpc.divergences import LearnedCoreset
from bpc.errors import ConfigError, unknown_name
from bpc.files import write_text
from bpc.posterior import Posterior
from bpc.progress import plural
from bpc.samplers import HMCConfig
from bpc.seeding import derive_seed
from evaluation.studies.cubature import Cubature, cubature, kl_from, log_density_in_parts
from evaluation.studies.logistic_model import CoresetChains, LogisticModel
from evaluation.studies.normal import grid_axis, kl
from evaluation.studies.predictive import PREDICTIVE, class_measures, logistic_probabilities, plot_ranks, rank_table
from evaluation.studies.regression import cancer_data, ends, learning_curve, random_subset
from evaluation.studies.regression_figures import OnGrid, plot_contours, plot_regression
from evaluation.studies.tables import StudyResult, divergence, study_table, write_csv
from evaluation.table import Table, tables_to_markdown

__all__ = ["DESIGNS", "LogisticStudy", "run_logistic_study"]

DESIGNS: dict[str, int | None] = {"pca2": 2, "full": None}  # principal components, or None for all features
EXACT = {"reverse_kl": "KL(core‖full)", "forward_kl": "KL(full‖core)"}
LAPLACE = {"laplace_reverse_kl": "Laplace KL(core‖full)", "laplace_forward_kl": "Laplace KL(full‖core)"}
GRID, INTERCEPT_GRID = 51, 25


@dataclass(frozen=True, kw_only=True)
class LogisticStudy:
    """Settings, all ours.

    Attributes:
        prior_std: of every coefficient and of the intercept; features are standardised.
        chains, draws: HMC chains, and draws of each for one gradient.
        leapfrog_steps, step_size: of HMC, in units of the Laplace approximation's standard deviations.
        lr_points, lr_weights: Adam's step sizes (see `learn`).
        track: at about how many steps the divergences are computed.
    """

    prior_std: float = 1.0
    chains: int = 32
    draws: int = 4
    leapfrog_steps: int = 4
    step_size: float = 0.4
    lr_points: float = 0.1
    lr_weights: float = 0.05
    track: int = 13

    def __post_init__(self) -> None:
        if self.prior_std <= 0 or self.chains * self.draws < 2 or self.track < 2:
            raise ConfigError(f"A logistic study needs a positive prior, 2 samples and 2 tracked steps; got {self}.")
        if min(self.lr_points, self.lr_weights) <= 0:
            raise ConfigError(f"A logistic study needs positive step sizes; got {self}.")


class Judge:
    """How far a coreset posterior is from that of the data.

    Args:
        model: the model.
        points, labels: the data.
        exact: also by cubature.
    """

    def __init__(self, model: LogisticModel, points: Tensor, labels: Tensor, *, exact: bool) -> None:
        self.model, self.points = model, points
        ones = torch.ones(len(points), dtype=points.dtype)
        self.density, self.laplace = model.posterior(points, labels, ones), model.laplace(points, labels, ones)
        self.truth = cubature(self.density, self.laplace) if exact else None
        self.probs = logistic_probabilities(self.truth or self.laplace, points)

    def __call__(self, coreset: LearnedCoreset) -> dict[str, float]:
        """Divergences by column, nats; distances between predictives at the data's points; the weights' sum."""
        values = (coreset.points, coreset.labels, coreset.weights)
        laplace = self.model.laplace(*values)
        found, known = {}, None
        if self.truth is not None:
            density = self.model.posterior(*values)
            known = core = cubature(density, laplace)
            found["reverse_kl"] = float(kl_from(core, self.density, self.truth.log_normaliser))
            found["forward_kl"] = float(kl_from(self.truth, density, core.log_normaliser))
        found["laplace_reverse_kl"] = float(kl(laplace, self.laplace))
        found["laplace_forward_kl"] = float(kl(self.laplace, laplace))
        found |= class_measures(logistic_probabilities(known or laplace, self.points), self.probs)
        return {**found, "total_weight": float(coreset.weights.sum())}


def run_logistic_study(
    out: Path | str,
    *,
    seed: int = 0,
    steps: int = 300,
    sizes: Sequence[int] = (5, 10, 20, 50),
    repeats: int = 3,
    designs: Sequence[str] = ("pca2", "full"),
    settings: LogisticStudy | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> StudyResult:
    """Learn coresets of the breast-cancer data under the reverse KL, from HMC draws of the coreset posterior.

    Writes ``logistic.csv`` (the rows) and ``logistic-steps.csv``, and for each design ``logistic-<design>.md``,
    ``logistic-<design>.png``, ``logistic-<design>-predictive.png`` (distances of predictives against KL) and, for ``pca2``,
    ``logistic-contours.png`` (data, learned points, posteriors of two coefficients).

    Args:
        out: a folder.
        seed: repeat r has a subset and chains of its own, derived from `seed` and r alone.
        steps: of learning.
        sizes: M, at least 2.
        repeats: how many random subsets.
        designs: of `DESIGNS`.
        settings: the rest.
        report: called with the learning steps done, how many there are, and a note.

    Returns:
        The tables, and the rows, one for each design, repeat, size and method (``random``, the subset with weights N / M that
        learning starts from, and ``rkl``): design, repeat, size, method, steps, reverse_kl and forward_kl (by cubature; nan
        under ``full``), laplace_reverse_kl, laplace_forward_kl (all nats), predictive_tv (fraction) and predictive_sym_kl
        (nats; by cubature, under ``full`` of the Laplace approximations), total_weight, and acceptance (fraction; HMC's, the
        mean over learning).
    """
    settings = settings or LogisticStudy()
    for design in designs:
        if design not in DESIGNS:
            raise unknown_name("design", design, DESIGNS)
    if not sizes or not designs or repeats < 1:
        raise ConfigError(
            f"A study needs a size, a design and a repeat; got {list(sizes)}, {list(designs)}, {repeats}."
        )
    ended, tables, curves, done = [], [], [], 0
    total = len(designs) * len(sizes) * repeats * steps
    for design in designs:
        points, labels = cancer_data(DESIGNS[design])
        model = LogisticModel(settings.prior_std)
        judge = Judge(model, points, labels, exact=design == "pca2")
        rows: list[dict[str, Any]] = []
        shown: dict[int, tuple[LearnedCoreset, LearnedCoreset]] = {}  # size -> random and learned, of the first repeat
        for repeat in range(repeats):
            own_seed = derive_seed(seed, "logistic study", design, repeat)
            for size in sizes:
                index = random_subset(len(points), size, own_seed, labels)
                weights = torch.full((size,), len(points) / size, dtype=points.dtype)
                start = LearnedCoreset(points[index], labels[index], weights)
                curve, end = _learn(start, model, points, labels, judge, steps, settings, derive_seed(own_seed, size))
                rows += [{"design": design, "repeat": repeat, **row} for row in curve]
                if repeat == 0:
                    shown[size] = (start, end)
                done += steps
                report(done, total, f"{design}, repeat {repeat}, M = {size}")
        along = pd.DataFrame(rows)
        ended.append(ends(along, steps))
        curves.append(along)
        kinds = EXACT if design == "pca2" else LAPLACE
        what = f"Bayesian logistic regression on breast cancer, {len(judge.laplace.mean)} parameters"
        mine = [
            _table(design, ended[-1], len(judge.laplace.mean), seed, steps, settings),
            rank_table(ended[-1], kinds, what=what, seed=seed),
        ]
        tables += mine
        _write_design(Path(out), design, mine, ended[-1], along, len(judge.laplace.mean))
        if design == "pca2":
            size = max(shown) if max(shown) < 20 else min(s for s in shown if s >= 10)
            _draw_contours(Path(out), judge, (points, labels), *shown[size])
    rows = pd.concat(ended, ignore_index=True)
    write_csv(Path(out), "logistic", rows, pd.concat(curves, ignore_index=True))
    return StudyResult(rows, tables)


def _learn(
    start: LearnedCoreset,
    model: LogisticModel,
    points: Tensor,
    labels: Tensor,
    judge: Judge,
    steps: int,
    settings: LogisticStudy,
    seed: int,
) -> tuple[list[dict[str, Any]], LearnedCoreset]:
    """The learning curve and the learned coreset."""
    config = HMCConfig(step_size=settings.step_size, leapfrog_steps=settings.leapfrog_steps, jitter=0.3)
    chains = CoresetChains(model, chains=settings.chains, draws=settings.draws, config=config, seed=seed)

    def gradient(coreset: LearnedCoreset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return model.gradient(coreset, points, labels, chains(coreset))

    curve, end = learning_curve(
        start,
        gradient,
        judge,
        steps=steps,
        track=settings.track,
        lr_points=settings.lr_points,
        lr_weights=settings.lr_weights,
        seed=seed,
    )
    acceptance = sum(chains.accepted) / len(chains.accepted)
    return [{**row, "acceptance": acceptance} for row in curve], end


def _table(design: str, rows: pd.DataFrame, parameters: int, seed: int, steps: int, settings: LogisticStudy) -> Table:
    exact = design == "pca2"
    what = (
        "two standardised principal components and an intercept (3 parameters): KL divergences by cubature"
        if exact
        else f"all standardised features and an intercept ({parameters} parameters): KL divergences between the Laplace "
        "approximations"
    )
    caption = (
        f"Bayesian logistic regression on breast cancer (569 points), {what} of the posteriors of a coreset of M points and of "
        f"the data; mean ± standard deviation over {plural(rows['repeat'].nunique(), 'random subset')} (seed {seed})."
    )
    notes = [
        f"BPC-rKL learns features and weights from that subset, labels fixed, in {steps} steps of Adam by the covariance "
        f"estimator with {settings.chains * settings.draws} HMC draws of the coreset posterior per step. The setting is that of "
        f"Manousakas et al. (2020); data and settings are ours: prior N(0, {settings.prior_std:g}² I), HMC's mean acceptance "
        f"{rows['acceptance'].mean():.2f}.",
        "Random: a uniform subset that has both labels, with weights N / M. It is where learning starts.",
    ]
    if exact:
        notes.append(
            "Laplace: the same divergences between Laplace approximations, all that the study of 31 parameters has."
        )
    notes.append(
        "Predictive: distances between the predicted probabilities of the two posteriors, means over the 569 inputs, "
        + ("by cubature." if exact else "under the Laplace approximations.")
    )
    columns = {name: divergence(title) for name, title in (EXACT | LAPLACE).items()} | PREDICTIVE
    return study_table(rows, keys=["size", "method"], columns=columns, caption=caption, notes=notes)


def _write_design(
    out: Path, design: str, tables: list[Table], rows: pd.DataFrame, along: pd.DataFrame, parameters: int
) -> None:
    write_text(out / f"logistic-{design}.md", tables_to_markdown(tables))
    columns = EXACT if design == "pca2" else LAPLACE
    plot_regression(rows, along, out / f"logistic-{design}.png", columns=columns, parameters=parameters)
    title = f"Logistic regression, {parameters} parameters: do predictives rank coresets as the KL does?"
    plot_ranks(rows, columns, out / f"logistic-{design}-predictive.png", title=title)


def _marginal(density: Posterior, found: Cubature) -> OnGrid:
    """The density of the two coefficients, up to a constant, the intercept summed out."""
    intercept = grid_axis(found.moments, 0, INTERCEPT_GRID)
    first, second = grid_axis(found.moments, 1, GRID), grid_axis(found.moments, 2, GRID)
    values = log_density_in_parts(density, torch.cartesian_prod(intercept, first, second))
    return OnGrid(first, second, torch.exp(values - values.max()).view(INTERCEPT_GRID, GRID, GRID).sum(0))


def _draw_contours(
    out: Path, judge: Judge, data: tuple[Tensor, Tensor], start: LearnedCoreset, end: LearnedCoreset
) -> None:
    """Posteriors of the two coefficients, and the learned points among the data."""
    assert judge.truth is not None  # only drawn for the design that has it
    posteriors = {"full": (judge.density, judge.truth)}
    for name, coreset in (("random", start), ("rkl", end)):
        values = (coreset.points, coreset.labels, coreset.weights)
        density = judge.model.posterior(*values)
        posteriors[name] = (density, cubature(density, judge.model.laplace(*values)))
    plot_contours(
        {name: _marginal(density, found) for name, (density, found) in posteriors.items()},
        out / "logistic-contours.png",
        names=("coefficient of component 1", "coefficient of component 2"),
        title=f"50 % and 95 % of the posterior, M = {len(end.points)}",
        data=data,
        core=(end.points, end.labels, end.weights),
        data_names=("principal component 1 (standardised)", "principal component 2 (standardised)"),
    )
