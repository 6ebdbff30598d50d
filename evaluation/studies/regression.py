"""What the linear and the logistic study share: an intercept, scikit-learn's embedded data, subsets, and a learning curve.

The setting of Manousakas et al. (2020, Bayesian Pseudocoresets): points and weights learned by the reverse KL, from samples of
the coreset posterior, starting at a random subset whose weights are N / M.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import Tensor

from bpc.divergences import LearnedCoreset
from bpc.errors import ConfigError
from bpc.likelihood import LogLikelihood
from bpc.seeding import make_generator
from evaluation.studies.learning import Gradient, descend, steps_to_track

__all__ = ["WithIntercept", "cancer_data", "diabetes_data", "ends", "learning_curve", "random_subset"]

SUBSET_TRIES = 1000


class WithIntercept:
    """A regression's likelihood with a 1 put before every point, so that no coreset can learn another intercept column.

    Args:
        log_likelihood: of points whose first column is the intercept's.
    """

    def __init__(self, log_likelihood: LogLikelihood) -> None:
        self.log_likelihood = log_likelihood

    def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """(k, n) nats of points (n, d) without that column; the first parameter is the intercept."""
        return self.log_likelihood(params, with_ones(points), labels)


def with_ones(points: Tensor) -> Tensor:
    """(..., d) -> (..., 1 + d)."""
    return F.pad(points, (1, 0), value=1.0)


def standardise(columns: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 in each column."""
    return np.asarray((columns - columns.mean(0)) / columns.std(0))


def diabetes_data() -> tuple[Tensor, float]:
    """442 rows of 10 features and the response, (n, 11), all standardised, and the residual standard deviation of least squares,
    which the model takes for known.
    """
    x, y = load_diabetes(return_X_y=True)
    x, y = standardise(x), standardise(y[:, None])[:, 0]
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    noise_std = float(np.sqrt(residual @ residual / (len(y) - x.shape[1] - 1)))
    return torch.from_numpy(np.column_stack([x, y])), noise_std


def cancer_data(components: int | None) -> tuple[Tensor, Tensor]:
    """569 rows and their labels (1 is benign): the 30 standardised features, or their first standardised principal components.

    Args:
        components: how many, or None for all features.

    Returns:
        (n, d) and (n,) int64.
    """
    x, y = load_breast_cancer(return_X_y=True)
    x = standardise(x)
    if components is not None:
        if not 1 <= components <= x.shape[1]:
            raise ConfigError(f"Principal components must be between 1 and {x.shape[1]}; got {components}.")
        _, _, axes = np.linalg.svd(x, full_matrices=False)
        # an axis has no sign of its own: its largest entry is made positive
        axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
        x = standardise(x @ axes[:components].T)
    return torch.from_numpy(x), torch.from_numpy(y).long()


def random_subset(count: int, size: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """`size` of `count` indices, uniformly without replacement; drawn again until both labels occur, if there are labels."""
    if not 1 <= size <= count or (labels is not None and size < 2):
        raise ConfigError(f"A subset must have between {1 if labels is None else 2} and {count} points; got {size}.")
    generator = make_generator("cpu", seed, "subset", size)
    for _ in range(SUBSET_TRIES):
        index = torch.randperm(count, generator=generator)[:size]
        if labels is None or len(labels[index].unique()) > 1:
            break
    return index


def learning_curve(
    start: LearnedCoreset,
    gradient: Gradient,
    judge: Callable[[LearnedCoreset], dict[str, float]],
    *,
    steps: int,
    track: int,
    lr_points: float,
    lr_weights: float,
    seed: int,
    method: str = "rkl",
) -> tuple[list[dict[str, Any]], LearnedCoreset]:
    """Learn, and `judge` at about `track` steps: a row each (method, steps, size and what `judge` says), and the last coreset.

    The first row is the random subset that learning starts from: it is the baseline.
    """
    tracked = set(steps_to_track(steps, track))
    rows: list[dict[str, Any]] = []
    coreset = start
    path = descend(start, gradient, steps=steps, lr_points=lr_points, lr_weights=lr_weights, seed=seed)
    for step, coreset in enumerate(path):
        if step in tracked:
            rows.append({"size": len(start.points), "method": method, "steps": step, **judge(coreset)})
    return rows, coreset


def ends(along: pd.DataFrame, steps: int) -> pd.DataFrame:
    """The first rows of learning curves, as ``random``, and the last, as what learned them."""
    first = along[(along["steps"] == 0) & (along["method"] == "rkl")].assign(method="random")
    table = pd.concat([first, along[along["steps"] == steps]])
    return table.sort_values(["size", "repeat", "steps"], kind="stable").reset_index(drop=True)
