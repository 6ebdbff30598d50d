"""What all selection methods share: the members of each class, checked features, the coreset of the chosen points."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.coreset import Pseudocoreset
from bpc.data.dataset import Dataset
from bpc.errors import ConfigError, DataError

__all__ = [
    "Selection",
    "build_coreset",
    "by_class",
    "check_features",
    "class_members",
    "part_of",
    "select_by_class",
    "unweighted",
]


class Selection(NamedTuple):
    """m points of a dataset, class 0's first, and how much each counts."""

    indices: Tensor  # (m,) int64
    weights: Tensor  # (m,) float32: ones, or the number of points of its class that each stands for


def unweighted(indices: Tensor) -> Selection:
    """Points of weight one each."""
    return Selection(indices, torch.ones(len(indices), device=indices.device))


def by_class(labels: Tensor, num_classes: int) -> list[Tensor]:
    """The indices (n_y,) of each class's points, ascending, some perhaps empty; labels (n,), n > 0.

    Raises:
        DataError: a label is no class.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(f"Labels run from {low} to {high}; expected 0 to {num_classes - 1}.")
    return [torch.nonzero(labels == y).flatten() for y in range(num_classes)]


def part_of(fraction: float, size: int) -> int:
    """How many points a fraction of `size` > 0 is: rounded, at least one."""
    return max(1, int(fraction * size + 0.5))


def class_members(labels: Tensor, num_classes: int, ipc: int) -> list[Tensor]:
    """The indices (n_y,) of each class's points, ascending, one tensor per class.

    Args:
        labels: (n,) int64 in 0 .. num_classes - 1.
        num_classes: y.
        ipc: points wanted from each class.

    Raises:
        ConfigError: ipc below 1.
        DataError: a class has fewer than ipc points, or a label is no class.
    """
    if ipc < 1:
        raise ConfigError(f"ipc (images per class) must be 1 or more; got {ipc}.")
    if labels.ndim != 1 or len(labels) == 0:
        raise DataError(f"Labels must have shape (n,), n > 0; got {tuple(labels.shape)}.")
    members = by_class(labels, num_classes)
    smallest = min(range(num_classes), key=lambda y: len(members[y]))
    if len(members[smallest]) < ipc:
        size = len(members[smallest])
        advice = f"choose an ipc of at most {size}" if size else "leave the empty class out of the dataset"
        raise DataError(f"ipc {ipc} is more than class {smallest} has: {size} points; {advice}.")
    return members


def select_by_class(
    labels: Tensor,
    ipc: int,
    num_classes: int,
    features: Tensor | None,
    choose: Callable[[Tensor, int], Tensor],
    *,
    method: str,
) -> Selection:
    """Run `choose` on each class's own features, centred at the class's mean.

    Args:
        labels: (n,) int64.
        ipc: points to choose from each class.
        num_classes: y.
        features: (n, d).
        choose: from float64 features (n_y, d) of mean zero and ipc to ipc different row numbers.
        method: for error messages.

    Returns:
        ipc * num_classes points of weight one, class 0's first.

    Raises:
        ConfigError: no features.
        DataError: features of another shape or not finite, a class smaller than ipc.
    """
    features = check_features(features, labels, method)
    chosen = []
    for index in class_members(labels, num_classes, ipc):
        # float64, one class at a time: near-ties are then decided by the points and not by rounding
        own = features.detach()[index.to(features.device)].double()
        rows = choose(own - own.mean(0), ipc)
        chosen.append(index[rows.to(index.device)])
    return unweighted(torch.cat(chosen))


def check_features(features: Tensor | None, labels: Tensor, method: str, what: str = "features") -> Tensor:
    """The features (n, d) of points with these labels (n,), if they are what selection by `method` needs.

    Raises:
        ConfigError: no features.
        DataError: features of another shape or not finite.
    """
    if features is None:
        raise ConfigError(f"Selection by {method} needs the points' {what} (n, d); got none.")
    if features.ndim != 2 or len(features) != len(labels):
        raise DataError(f"{what.capitalize()} must have shape ({len(labels)}, d); got {tuple(features.shape)}.")
    if not bool(torch.isfinite(features).all()):
        bad = int((~torch.isfinite(features)).any(1).sum())
        raise DataError(
            f"{what.capitalize()} of {bad} of {len(features)} points are NaN or infinite; selection by {method} needs finite "
            "ones. Check the images and the network that made them."
        )
    return features


def build_coreset(
    dataset: Dataset,
    selection: Selection,
    *,
    method: str,
    seed: int,
    config_hash: str = "",
    preset: str = "",
) -> Pseudocoreset:
    """The chosen training points as a coreset with the selection's weights.

    Args:
        dataset: the points are of its training split.
        selection: indices, all different, kept in the provenance under ``indices``; weights as they are.
        method: name for the coreset and its rows.
        seed: of the run.
        config_hash: of the run.
        preset: of the run.

    Raises:
        DataError: an index is out of range or comes twice.
    """
    n, indices = len(dataset.train), selection.indices
    numbers = [int(i) for i in indices.tolist()]
    if not numbers or min(numbers) < 0 or max(numbers) >= n or len(set(numbers)) < len(numbers):
        raise DataError(
            f"A coreset of {dataset.name} needs different indices from 0 to {n - 1}; got {len(numbers)}, "
            f"{len(set(numbers))} of them different" + (f", from {min(numbers)} to {max(numbers)}." if numbers else ".")
        )
    chosen = dataset.train.take(indices.to(dataset.train.images.device))
    return Pseudocoreset(
        points=dataset.normalise(chosen.images),
        labels=chosen.labels,
        weights=selection.weights.to(chosen.images.device, torch.float32),
        mean=dataset.mean,
        std=dataset.std,
        dataset=dataset.name,
        method=method,
        num_classes=dataset.num_classes,
        preset=preset,
        config_hash=config_hash,
        seed=seed,
        provenance={"indices": numbers},
    )
