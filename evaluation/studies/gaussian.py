"""The synthetic study of Kim et al. (2022), Appendix C.5: Figures 6 and 7, with the floor that fixed weights put under them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bpc.errors import ConfigError, unknown_name
from bpc.files import write_text
from bpc.progress import plural
from bpc.seeding import derive_seed, make_generator
from evaluation.studies.figures import plot_gaussian_sizes, plot_gaussian_steps
from evaluation.studies.learning import descend, steps_to_track, unlabelled
from evaluation.studies.location import DIVERGENCES, METHODS, LocationModel, exact_divergences
from evaluation.studies.normal import Normal, draw
from evaluation.studies.predictive import PREDICTIVE, location_measures, plot_ranks, rank_table
from evaluation.studies.tables import StudyResult, divergence, study_table, write_csv
from evaluation.table import Table, tables_to_markdown

__all__ = ["WEIGHTS", "GaussianStudy", "run_gaussian_study"]

WEIGHTS = ("ones", "scaled", "learned")
DIMENSION, DATA = 10, 100  # the paper's


@dataclass(frozen=True, kw_only=True)
class GaussianStudy:
    """Settings. Dimension and N are the paper's; it gives none of those here.

    Attributes:
        lr_points: Adam's step size for the points.
        lr_weights: for the logarithm of the weights, where they are learned.
        samples: S, draws of each posterior for one gradient of reverse or forward KL.
        eccentricity: the eigenvalues of Sigma run from 1 / eccentricity to eccentricity, evenly in the logarithm, along random
            axes; the prior is N(0, I). The model is the same for every seed, so that the floors are numbers.
        track: at about how many steps the divergences are computed.
    """

    lr_points: float = 0.1
    lr_weights: float = 0.2
    samples: int = 64
    eccentricity: float = 2.0
    track: int = 31

    def __post_init__(self) -> None:
        if self.samples < 2 or self.eccentricity < 1 or self.track < 2 or min(self.lr_points, self.lr_weights) <= 0:
            raise ConfigError(
                f"A Gaussian study needs samples >= 2, eccentricity >= 1, track >= 2 and positive step sizes; got {self}."
            )

    def model(self) -> LocationModel:
        """N(theta, Sigma) and its prior."""
        reach = math.log(self.eccentricity)
        eigenvalues = torch.linspace(-reach, reach, DIMENSION, dtype=torch.float64).exp()
        generator = make_generator("cpu", 0, "axes")
        axes, _ = torch.linalg.qr(torch.randn(DIMENSION, DIMENSION, generator=generator, dtype=torch.float64))
        identity = torch.eye(DIMENSION, dtype=torch.float64)
        return LocationModel((axes * eigenvalues) @ axes.T, Normal(torch.zeros_like(eigenvalues), identity))


def run_gaussian_study(
    out: Path | str,
    *,
    seed: int = 0,
    steps: int = 400,
    sizes: Sequence[int] = (5, 20, 40, 60, 80, 100),
    repeats: int = 3,
    weights: Sequence[str] = ("ones", "learned"),
    settings: GaussianStudy | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> StudyResult:
    """Learn a coreset of every size under every divergence, and compute all three divergences of each exactly.

    Writes ``gaussian.csv`` (the rows), ``gaussian-steps.csv`` (along the way), ``gaussian.md``, ``gaussian-predictive.png``
    (distances of predictives against KL), and for each kind of weights ``gaussian-steps-<kind>.png`` (Figure 6, at the smallest
    size) and ``gaussian-sizes-<kind>.png`` (Figure 7).

    Args:
        out: a folder.
        seed: repeat r has a theta, data, starting points and draws of its own, derived from `seed` and r alone.
        steps: of learning.
        sizes: M, each between 1 and 100.
        repeats: how many data sets.
        weights: ``ones`` (the paper's), ``scaled`` (fixed at N / M) and ``learned`` (from 1 a point).
        settings: the rest.
        report: called with the learning steps done, how many there are, and a note.

    Returns:
        The tables, and the rows, one for each kind of weights, size, repeat and method: weights, size, repeat, method, steps,
        reverse_kl (nats), w2_squared, forward_kl (nats), predictive_tv (fraction), predictive_sym_kl (nats), total_weight, and
        floor_<divergence>, the least that fixed weights allow (zero for learned ones). Method ``random`` is a random subset of
        the data, its weights 1 under ``ones`` and N / M otherwise.
    """
    settings = settings or GaussianStudy()
    for kind in weights:
        if kind not in WEIGHTS:
            raise unknown_name("kind of weights", kind, WEIGHTS)
    if not sizes or not weights or repeats < 1 or not all(1 <= size <= DATA for size in sizes):
        raise ConfigError(f"Sizes must be between 1 and {DATA} and repeats at least 1; got {list(sizes)}, {repeats}.")
    model = settings.model()
    final: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    done, total = 0, len(weights) * len(sizes) * len(METHODS) * repeats * steps
    for repeat in range(repeats):
        own_seed = derive_seed(seed, "gaussian study", repeat)
        data = _draw_data(model, own_seed)
        for kind in weights:
            for size in sizes:
                cell = {"weights": kind, "size": size, "repeat": repeat}
                for method in METHODS:
                    curve = _learning_curve(model, data, method, kind, size, steps, settings, own_seed)
                    curves += [{**cell, **row} for row in curve]
                    final.append(curves[-1])
                    done += steps
                    report(done, total, f"repeat {repeat}, {kind} weights, M = {size}, {method}")
                subset = data[torch.randperm(DATA, generator=make_generator("cpu", own_seed, "random", size))[:size]]
                final.append(
                    {**cell, "method": "random", "steps": 0, **_judge(model, data, subset, _start(kind, size, True))}
                )
    table = _with_floors(pd.DataFrame(final), model)
    along = _with_floors(pd.DataFrame(curves), model)
    return StudyResult(table, _write(Path(out), table, along, seed, settings))


def _draw_data(model: LocationModel, seed: int) -> Tensor:
    """(N, d): a theta of the prior, then data of the model."""
    generator = make_generator("cpu", seed, "data")
    theta = draw(model.prior, 1, generator)[0]
    return draw(Normal(theta, torch.linalg.inv(model.precision)), DATA, generator)


def _start(kind: str, size: int, random: bool = False) -> Tensor:
    """(m,) weights to start from; those of a random subset, which learns nothing, under ``learned`` are N / M."""
    unit = kind == "ones" or (kind == "learned" and not random)
    return torch.full((size,), 1.0 if unit else DATA / size, dtype=torch.float64)


def _judge(model: LocationModel, data: Tensor, points: Tensor, weights: Tensor) -> dict[str, float]:
    """The three divergences, distances between the predictives of a new datum, and the weights' sum."""
    truth = model.posterior(data, torch.ones(len(data), dtype=data.dtype))
    core = model.posterior(points, weights)
    predictive = location_measures(core, truth, torch.linalg.inv(model.precision))
    return {**exact_divergences(core, truth), **predictive, "total_weight": float(weights.sum())}


def _learning_curve(
    model: LocationModel,
    data: Tensor,
    method: str,
    kind: str,
    size: int,
    steps: int,
    settings: GaussianStudy,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for each step tracked; every method and kind of weights starts from the same draws of the prior predictive."""
    prior_predictive = Normal(model.prior.mean, model.prior.covariance + torch.linalg.inv(model.precision))
    points = draw(prior_predictive, size, make_generator("cpu", seed, "start", size))
    tracked = set(steps_to_track(steps, settings.track))
    coresets = descend(
        unlabelled(points, _start(kind, size)),
        model.gradient(method, data, settings.samples),
        steps=steps,
        lr_points=settings.lr_points,
        lr_weights=settings.lr_weights if kind == "learned" else 0.0,
        seed=derive_seed(seed, method, kind, size),
    )
    return [
        {"method": method, "steps": step, **_judge(model, data, coreset.points, coreset.weights)}
        for step, coreset in enumerate(coresets)
        if step in tracked
    ]


def _with_floors(rows: pd.DataFrame, model: LocationModel) -> pd.DataFrame:
    """The rows with a column ``floor_<divergence>`` each; the truth's mean, which the repeats do not share, does not matter."""
    zero = torch.zeros(DATA, DIMENSION, dtype=torch.float64)
    truth = model.posterior(zero, torch.ones(DATA, dtype=torch.float64))
    by_size = {size: model.floors(size, truth) for size in rows["size"].unique()}
    for name in DIVERGENCES:
        unit = [by_size[size][name] for size in rows["size"]]
        rows[f"floor_{name}"] = pd.Series(unit, index=rows.index).where(rows["weights"] == "ones", 0.0)
    return rows


def _write(out: Path, table: pd.DataFrame, along: pd.DataFrame, seed: int, settings: GaussianStudy) -> list[Table]:
    """The files; returns the tables of ``gaussian.md``."""
    repeats = table["repeat"].nunique()
    steps = int(table["steps"].max())
    caption = (
        f"Exact divergences between the posteriors of a coreset of M points and of the {DATA} data points of a "
        f"{DIMENSION}-dimensional Gaussian (Kim et al. 2022, Appendix C.5); mean ± standard deviation over "
        f"{plural(repeats, 'data set')} (seed {seed})."
    )
    notes = [
        f"A divergence is learned by Adam in {steps} steps from points of the prior predictive; the paper fixes dimension, N and "
        f"M only, and the rest is ours: prior N(0, I), eigenvalues of Sigma from {1 / settings.eccentricity:g} to "
        f"{settings.eccentricity:g}, {settings.samples} draws of each posterior per step (the Wasserstein gradient is exact), "
        f"step sizes {settings.lr_points:g} (points) and {settings.lr_weights:g} (log weights).",
        "Floor: the value at equal means, which no coreset with these fixed weights can go below; with learned weights it is 0.",
        "Weights: ones are the paper's 1 per point, scaled ones N / M, learned ones start from 1 per point; a random subset "
        "beside learned ones has N / M.",
        "Predictive: of a new datum, symmetric KL in all dimensions and TV as a mean over coordinates, in closed form.",
        "With weight 1, a random subset of all 100 points is the data: its divergences are 0 up to rounding.",
    ]
    columns = {
        "reverse_kl": divergence("KL(core‖full)"),
        "w2_squared": divergence("W₂²", "θ²"),
        "forward_kl": divergence("KL(full‖core)"),
        **PREDICTIVE,
    }
    summary = study_table(table, keys=["weights", "size", "method"], columns=columns, caption=caption, notes=notes)
    write_csv(out, "gaussian", table, along)
    ranked = {"reverse_kl": "KL(core‖full)", "forward_kl": "KL(full‖core)"}
    tables = [summary, rank_table(table, ranked, what="Gaussian data, all kinds of weights", seed=seed)]
    write_text(out / "gaussian.md", tables_to_markdown(tables))
    title = "Gaussian data: do predictives rank coresets as the KL of their posteriors does?"
    plot_ranks(table, ranked, out / "gaussian-predictive.png", title=title)
    for kind, part in table.groupby("weights"):
        smallest = along[(along["weights"] == kind) & (along["size"] == part["size"].min())]
        plot_gaussian_steps(smallest, out / f"gaussian-steps-{kind}.png")
        plot_gaussian_sizes(part, out / f"gaussian-sizes-{kind}.png")
    return tables
