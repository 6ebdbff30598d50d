r"""Distances between predictive distributions in closed form or by quadrature, beside the exact KL of the posteriors.

Coresets of networks can only be judged by what their posteriors predict. Here the posteriors themselves are known, so that it can
be asked whether that judgement puts coresets in the order that the KL divergence does.

Linear regression and Gaussian data predict Gaussians. Two of them in one dimension, N(m, s^2) and N(n, t^2), have equal densities
at the roots a < b of log p - log q, a quadratic, and

    TV = |[F_p(b) - F_p(a)] - [F_q(b) - F_q(a)]|,

since p - q keeps its sign between the roots and has the other one outside; with s = t one root is infinite. Logistic regression
predicts probabilities, integrals of a sigmoid over the posterior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from evaluation.fidelity import fidelity
from evaluation.plots.base import FONT, SMALL, legend_below, new_figure, save
from evaluation.ranks import RankCorrelation, rank_correlation
from evaluation.studies.cubature import Cubature
from evaluation.studies.figures import STYLES
from evaluation.studies.normal import Normal, kl
from evaluation.studies.regression import with_ones
from evaluation.studies.tables import NAMES, divergence
from evaluation.table import Column, Table, TableRow

__all__ = [
    "PREDICTIVE",
    "class_measures",
    "linear_measures",
    "location_measures",
    "logistic_probabilities",
    "normal_tv",
    "plot_ranks",
    "rank_table",
]

PREDICTIVE = {
    "predictive_tv": divergence("TV, predictive", "fraction"),
    "predictive_sym_kl": divergence("Sym. KL, predictive"),
}
# trapezoidal rule over a standard normal: the error is exp(-2 pi^2 / (spread spacing)) for the sigmoid, whose poles are at i pi
REACH, SPACING = 8.0, 0.05
LEAST = 1e-12  # drawn there: zero has no place on a logarithmic axis


def normal_tv(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """Total variation of N(mean, std^2) and N(other_mean, other_std^2), element by element, fraction."""
    gap, ratio = (other_mean - mean) / std, other_std / std  # in units of the first, which is N(0, 1)
    # log p - log q = a x^2 + b x + c
    a = 0.5 * (1 / ratio**2 - 1)
    b = -gap / ratio**2
    c = 0.5 * gap**2 / ratio**2 + ratio.log()
    root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
    q = -0.5 * (b + torch.where(b < 0, -root, root))  # no difference of nearly equal numbers
    roots = torch.stack([q / a, c / q])
    mine = torch.special.ndtr(roots)
    others = torch.special.ndtr((roots - gap) / ratio)
    tv = ((mine[0] - mine[1]) - (others[0] - others[1])).abs()
    same = (gap == 0) & (ratio == 1)
    return torch.where(same, torch.zeros_like(tv), tv)


def _normal_sym_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """Mean of both KL divergences, nats, element by element."""
    p, q, gap = std**2, other_std**2, (mean - other_mean) ** 2
    return 0.25 * ((p + gap) / q + (q + gap) / p - 2)


def linear_measures(core: Normal, truth: Normal, features: Tensor, noise_std: float) -> dict[str, float]:
    """Means over inputs of the distances between p(y | x) under two posteriors of a linear regression.

    Args:
        core, truth: of intercept and coefficients, p of them.
        features: (n, p - 1).
        noise_std: of the response.
    """
    x = with_ones(features)
    parts = []
    for normal in (core, truth):
        variance = noise_std**2 + ((x @ normal.covariance) * x).sum(1)
        parts += [x @ normal.mean, variance.sqrt()]
    return {
        "predictive_tv": float(normal_tv(*parts).mean()),
        "predictive_sym_kl": float(_normal_sym_kl(*parts).mean()),
    }


def location_measures(core: Normal, truth: Normal, noise: Tensor) -> dict[str, float]:
    """Of Gaussian data of covariance `noise` (d, d), whose mean the posteriors are of.

    Symmetric KL of the predictives of a new datum, in d dimensions; total variation, which has a closed form in one dimension
    only, as a mean over the coordinates.
    """
    p, q = (Normal(normal.mean, normal.covariance + noise) for normal in (core, truth))
    stds = [normal.covariance.diagonal().sqrt() for normal in (p, q)]
    return {
        "predictive_tv": float(normal_tv(p.mean, stds[0], q.mean, stds[1]).mean()),
        "predictive_sym_kl": 0.5 * float(kl(p, q) + kl(q, p)),
    }


def logistic_probabilities(posterior: Cubature | Normal, features: Tensor) -> Tensor:
    """(n, 2) p(y | x), the sigmoid's mean over a posterior: on the nodes of a cubature, else by the trapezoidal rule over
    x . theta, which is Gaussian. The nodes of a cubature are 0.6 standard deviations apart, which is 10^-7 off where x . theta
    spreads by 2 and 10^-4 where it spreads by 4.
    """
    x = with_ones(features)
    if isinstance(posterior, Cubature):
        one = sum(
            torch.sigmoid(x @ nodes.T) @ mass
            for nodes, mass in zip(posterior.nodes.split(2048), posterior.mass.split(2048), strict=True)
        )
    else:
        nodes = torch.linspace(-REACH, REACH, 2 * int(REACH / SPACING) + 1, dtype=x.dtype)
        spread = ((x @ posterior.covariance) * x).sum(1, keepdim=True).sqrt()
        one = torch.sigmoid((x @ posterior.mean).unsqueeze(1) + spread * nodes) @ torch.softmax(-0.5 * nodes**2, 0)
    assert isinstance(one, Tensor)
    one = one.clamp(0, 1)
    return torch.stack([1 - one, one], 1)


def class_measures(core: Tensor, truth: Tensor) -> dict[str, float]:
    """Of predicted probabilities (n, y), as networks are judged by (`evaluation.fidelity`)."""
    found = fidelity(core, truth)
    return {"predictive_tv": float(found.tv), "predictive_sym_kl": float(found.sym_kl)}


def rank_table(rows: pd.DataFrame, columns: Mapping[str, str], *, what: str, seed: int) -> Table:
    """Rank correlation of KL divergences and predictive distances over all coresets of a study, sizes together and within them.

    Args:
        rows: of the study, one for each coreset.
        columns: columns of KL divergences and what a reader sees.
        what: the study, for the caption.
        seed: of the bootstrap.
    """
    lines = []
    for name, title in columns.items():
        for measure, column in PREDICTIVE.items():
            cells: list[str] = [title, column.name]
            for strata in (None, list(rows["size"])):
                found = rank_correlation(rows[name], rows[measure], strata=strata, seed=seed)
                cells += [_interval(found, "spearman"), _interval(found, "kendall"), str(found.pairs)]
            lines.append(TableRow(tuple(cells)))
    places = ("", ", within M")
    numbers = [Column(name=f"{n}{place}") for place in places for n in ("Spearman", "Kendall", "coresets")]
    return Table(
        caption=f"{what}: do distances between predictives put coresets in the order of the KL between posteriors?",
        columns=(Column(name="KL", key=True, left=True), Column(name="Predictive", key=True, left=True), *numbers),
        blocks=(tuple(lines),),
        notes=(
            "Rank correlation over all coresets (random ones and learned ones) with 95 % bootstrap intervals over coresets; "
            "within M: the mean of the correlations among coresets of one size.",
        ),
    )


def _interval(found: RankCorrelation, name: str) -> str:
    value, low, high = getattr(found, name)
    return "" if math.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def plot_ranks(rows: pd.DataFrame, columns: Mapping[str, str], path: Path | str, *, title: str) -> list[Path]:
    """Each coreset's predictive total variation against its exact KL divergences, on logarithmic axes.

    Args:
        rows: method, size, the KL divergences and ``predictive_tv``.
        columns: as for `rank_table`; a panel each.
        path: PNG; a PDF is written beside it.
        title: of the figure.
    """
    figure, all_axes = new_figure(4.2 * len(columns), 3.9, 1, len(columns), sharey=True)
    sizes: Sequence[int] = sorted(rows["size"].unique())
    for axes, (name, label) in zip(all_axes, columns.items(), strict=True):
        for method, part in rows.groupby("method", sort=False):
            color, marker = STYLES[str(method)]
            area = [14 + 60 * sizes.index(size) / max(len(sizes) - 1, 1) for size in part["size"]]
            axes.scatter(
                part[name].clip(lower=LEAST), part["predictive_tv"].clip(lower=LEAST), s=area, color=color,
                marker=marker, alpha=0.75, linewidths=0, label=NAMES[str(method)],
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(f"{label} of the posteriors (nats)", fontsize=SMALL)
        found = rank_correlation(rows[name], rows["predictive_tv"])
        axes.set_title(f"Spearman {_interval(found, 'spearman')}", fontsize=SMALL)
    all_axes[0].set_ylabel("total variation of the predictives (fraction)", fontsize=SMALL)
    legend_below(figure, all_axes[0], 4)
    marks = f"a mark a coreset, larger for more points (M = {', '.join(map(str, sizes))})"
    figure.suptitle(f"{title}\n{marks}", fontsize=FONT)
    return save(figure, path)
