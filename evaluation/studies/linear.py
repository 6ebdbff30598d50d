r"""Bayesian linear regression on scikit-learn's diabetes data, where posteriors and divergences have closed forms.

y ~ N(a + x . b, s^2), (a, b) ~ N(0, t^2 I). With X the points, a 1 before each, the posterior of weighted points is Gaussian with
precision Lambda = I / t^2 + X' diag(w) X / s^2 and mean Lambda^-1 X' diag(w) y / s^2 (Bishop 2006, Eq. 3.53-3.54, with weights).

Floor. With M < p points, X' diag(w) X has rank M at most, so p - M eigenvalues of the coreset posterior's precision stay at the
prior's 1 / t^2. By von Neumann's trace inequality no arrangement beats shared eigenvectors, so that with the eigenvalues
l_1 <= ... <= l_p of the full posterior's precision

    KL[pi_u || pi_x] >= 1/2 sum_{i <= p - M} (r_i - 1 - log r_i),    r_i = l_i t^2,

and KL[pi_x || pi_u] is at least the same with 1 / r_i. From M = p on the floor is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bpc.divergences import LearnedCoreset, RealBatch, reverse_kl_gradient
from bpc.errors import ConfigError
from bpc.files import write_text
from bpc.likelihood import LinearRegression
from bpc.progress import plural
from bpc.seeding import derive_seed
from evaluation.studies.learning import unlabelled
from evaluation.studies.normal import Normal, draw, grid_axis, kl
from evaluation.studies.predictive import PREDICTIVE, linear_measures, plot_ranks, rank_table
from evaluation.studies.regression import WithIntercept, diabetes_data, ends, learning_curve, random_subset, with_ones
from evaluation.studies.regression_figures import OnGrid, plot_contours, plot_regression
from evaluation.studies.tables import StudyResult, divergence, study_table, write_csv
from evaluation.table import Table, tables_to_markdown

__all__ = ["LinearModel", "LinearStudy", "run_linear_study"]

CONTOUR_FEATURES = (2, 8)  # body mass index and serum measurement s5, the two strongest of the ten
TITLES = {"reverse_kl": "KL(core‖full)", "forward_kl": "KL(full‖core)"}
GRID = 101
CONTOUR_NAMES = ("coefficient of body mass index", "coefficient of serum measurement s5")


class LinearModel:
    """The model above.

    Args:
        noise_std: s.
        prior_std: t.
    """

    def __init__(self, noise_std: float, prior_std: float) -> None:
        self.noise_std, self.prior_std = noise_std, prior_std
        self.log_likelihood = WithIntercept(LinearRegression(noise_std))

    def posterior(self, points: Tensor, weights: Tensor) -> Normal:
        """Of rows (m, d + 1), features then response, with weights (m,): a Gaussian of 1 + d parameters."""
        x, y = with_ones(points[:, :-1]), points[:, -1]
        weighted = x.T * weights / self.noise_std**2
        precision = weighted @ x + torch.eye(x.shape[1], dtype=x.dtype) / self.prior_std**2
        covariance = torch.linalg.inv(precision)
        return Normal(covariance @ weighted @ y, 0.5 * (covariance + covariance.T))

    def gradient(self, coreset: LearnedCoreset, data: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The covariance estimate of the gradient of KL[pi_u || pi_x] from `draws` (s, p) of the coreset posterior."""
        real = RealBatch(data, torch.zeros(len(data), dtype=torch.long), len(data))
        return reverse_kl_gradient(self.log_likelihood, coreset, draws, real, reduction="sum")[:2]

    def exact_gradient(self, coreset: LearnedCoreset, truth: Normal) -> tuple[Tensor, Tensor]:
        """The gradient that `gradient` estimates: the closed form, differentiated."""
        points = coreset.points.detach().requires_grad_(True)
        weights = coreset.weights.detach().requires_grad_(True)
        value = kl(self.posterior(points, weights), truth)
        by_points, by_weights = torch.autograd.grad(value, (points, weights))
        return by_points, by_weights

    def floors(self, truth: Normal, size: int) -> dict[str, float]:
        """Lower bounds of both KL divergences for `size` points, nats."""
        eigenvalues = torch.linalg.eigvalsh(torch.linalg.inv(truth.covariance))
        ratio = (eigenvalues * self.prior_std**2)[: max(len(eigenvalues) - size, 0)]
        reverse, forward = (0.5 * (r - 1 - r.log()).sum() for r in (ratio, 1 / ratio))
        return {"floor_reverse_kl": float(reverse), "floor_forward_kl": float(forward)}


@dataclass(frozen=True, kw_only=True)
class LinearStudy:
    """Settings, all ours.

    Attributes:
        prior_std: t; features and response are standardised.
        samples: S, exact draws of the coreset posterior for one gradient.
        lr_points, lr_weights: Adam's step sizes (see `learn`).
        track: at about how many steps the divergences are computed.
    """

    prior_std: float = 1.0
    samples: int = 256
    lr_points: float = 0.03
    lr_weights: float = 0.03
    track: int = 31

    def __post_init__(self) -> None:
        if self.prior_std <= 0 or self.samples < 2 or self.track < 2 or min(self.lr_points, self.lr_weights) <= 0:
            raise ConfigError(f"A linear study needs 2 samples and positive scales and step sizes; got {self}.")


def run_linear_study(
    out: Path | str,
    *,
    seed: int = 0,
    steps: int = 800,
    sizes: Sequence[int] = (5, 10, 11, 20, 50),
    repeats: int = 3,
    settings: LinearStudy | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> StudyResult:
    """Learn coresets of the diabetes data under the reverse KL, and compute both KL divergences in closed form.

    Writes ``linear.csv`` (the rows), ``linear-steps.csv``, ``linear.md``, ``linear.png`` (KL by size and by step),
    ``linear-predictive.png`` (distances of predictives against KL) and ``linear-contours.png`` (posteriors of two coefficients).

    Args:
        out: a folder.
        seed: repeat r has a subset and draws of its own, derived from `seed` and r alone.
        steps: of learning.
        sizes: M.
        repeats: how many random subsets.
        settings: the rest.
        report: called with the learning steps done, how many there are, and a note.

    Returns:
        The tables, and the rows, one for each repeat, size and method: repeat, size, method, steps, reverse_kl, forward_kl,
        their floors (all nats), predictive_tv (fraction), predictive_sym_kl (nats) and total_weight. Methods: ``random``, the
        subset with weights N / M that learning starts from; ``rkl``; and ``rkl-exact``, the same with the closed form's gradient,
        which shows what the estimate's noise costs.
    """
    settings = settings or LinearStudy()
    if not sizes or repeats < 1:
        raise ConfigError(f"A study needs at least one size and one repeat; got {list(sizes)} and {repeats}.")
    data, noise_std = diabetes_data()
    model = LinearModel(noise_std, settings.prior_std)
    truth = model.posterior(data, torch.ones(len(data), dtype=data.dtype))

    def judge(coreset: LearnedCoreset) -> dict[str, float]:
        core = model.posterior(coreset.points, coreset.weights)
        values = {"reverse_kl": float(kl(core, truth)), "forward_kl": float(kl(truth, core))}
        values |= linear_measures(core, truth, data[:, :-1], noise_std)
        return {**values, **model.floors(truth, len(coreset.points)), "total_weight": float(coreset.weights.sum())}

    def estimate(coreset: LearnedCoreset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        core = model.posterior(coreset.points, coreset.weights)
        return model.gradient(coreset, data, draw(core, settings.samples, generator))

    def exact(coreset: LearnedCoreset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return model.exact_gradient(coreset, truth)

    gradients = {"rkl": estimate, "rkl-exact": exact}

    done, total = 0, len(gradients) * len(sizes) * repeats * steps
    rows: list[dict[str, Any]] = []
    shown: dict[int, tuple[Normal, Normal]] = {}  # size -> random and learned posterior of the first repeat
    for repeat in range(repeats):
        own_seed = derive_seed(seed, "linear study", repeat)
        for size in sizes:
            subset = data[random_subset(len(data), size, own_seed)]
            start = unlabelled(subset, torch.full((size,), len(data) / size, dtype=data.dtype))
            for method, gradient in gradients.items():
                curve, end = learning_curve(
                    start,
                    gradient,
                    judge,
                    steps=steps,
                    track=settings.track,
                    lr_points=settings.lr_points,
                    lr_weights=settings.lr_weights,
                    seed=derive_seed(own_seed, "draws", size),
                    method=method,
                )
                rows += [{"repeat": repeat, **row} for row in curve]
                done += steps
                report(done, total, f"repeat {repeat}, M = {size}, {method}")
                if repeat == 0 and method == "rkl":
                    random = model.posterior(start.points, start.weights)
                    shown[size] = (random, model.posterior(end.points, end.weights))
    along = pd.DataFrame(rows)
    table = ends(along, steps)
    ranks = rank_table(table, TITLES, what="Bayesian linear regression on diabetes", seed=seed)
    tables = [_table(table, noise_std, seed, steps, settings), ranks]
    _write(Path(out), table, tables, along, truth, shown)
    return StudyResult(table, tables)


def _table(rows: pd.DataFrame, noise_std: float, seed: int, steps: int, settings: LinearStudy) -> Table:
    caption = (
        "Bayesian linear regression on diabetes (442 points, 11 parameters): exact KL divergences between the posteriors of a "
        f"coreset of M points and of the data; mean ± standard deviation over "
        f"{plural(rows['repeat'].nunique(), 'random subset')} (seed {seed})."
    )
    notes = [
        f"BPC-rKL learns features, responses and weights from that subset in {steps} steps of Adam by the covariance estimator "
        f"with {settings.samples} exact draws of the coreset posterior. The setting is that of Manousakas et al. (2020); data "
        f"and settings are ours: everything standardised, prior N(0, {settings.prior_std:g}² I), noise standard deviation "
        f"{noise_std:.3f} (least squares).",
        "Random: a uniform subset with weights N / M. It is where learning starts.",
        "Exact gradient: the same steps with the closed form's gradient, which a model without one does not have.",
        "Predictive: distances between p(y | x) under both posteriors, in closed form, means over the 442 inputs.",
        "Floor: with fewer points than parameters the coreset posterior is the prior in some directions; no M points do better.",
    ]
    columns = {name: divergence(title) for name, title in TITLES.items()} | PREDICTIVE
    return study_table(rows, keys=["size", "method"], columns=columns, caption=caption, notes=notes)


def _write(
    out: Path,
    table: pd.DataFrame,
    tables: list[Table],
    along: pd.DataFrame,
    truth: Normal,
    shown: dict[int, tuple[Normal, Normal]],
) -> None:
    write_csv(out, "linear", table, along)
    write_text(out / "linear.md", tables_to_markdown(tables))
    plot_regression(table, along, out / "linear.png", columns=TITLES, parameters=len(truth.mean))
    title = "Linear regression: do predictives rank coresets as the KL of their posteriors does?"
    plot_ranks(table, TITLES, out / "linear-predictive.png", title=title)
    # the smallest size that can be exact, if there is one
    size = min((s for s in shown if s >= len(truth.mean)), default=max(shown))
    posteriors = {"full": truth, "random": shown[size][0], "rkl": shown[size][1]}
    pick = (1 + CONTOUR_FEATURES[0], 1 + CONTOUR_FEATURES[1])  # after the intercept
    plot_contours(
        {name: _marginal(posterior, pick) for name, posterior in posteriors.items()},
        out / "linear-contours.png",
        names=CONTOUR_NAMES,
        title=f"50 % and 95 % of the posterior, M = {size}",
    )


def _marginal(posterior: Normal, pick: tuple[int, int]) -> OnGrid:
    """The density of two of the parameters, up to a constant."""
    index = torch.tensor(pick)
    first, second = (grid_axis(posterior, i, GRID) for i in pick)
    gap = torch.cartesian_prod(first, second) - posterior.mean[index]
    precision = torch.linalg.inv(posterior.covariance[index][:, index])
    return OnGrid(first, second, torch.exp(-0.5 * (gap @ precision * gap).sum(1)).view(GRID, GRID))
