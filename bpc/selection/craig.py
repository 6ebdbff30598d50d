"""CRAIG: weighted points whose gradients add up to nearly those of all points.

Mirzasoleiman, Bilmes and Leskovec (2020), "Coresets for Data-efficient Training of Machine Learning Models"; as used by
Pooladzandi et al. (2022), section 2.4. Hand each point i to a chosen point s(i), and let gamma_j be how many j was handed. Then

    || sum_i g_i - sum_j gamma_j g_j ||  <=  sum_i || g_i - g_s(i) ||,

whose right side is smallest for the nearest chosen point, and is then facility location's L. Within a class, the distance
between the gradients of a whole network is bounded, up to constants, by that of the last layer (their Eq. 13), which for
cross-entropy is p - y in the logits: no backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bpc.errors import ConfigError, DataError
from bpc.selection.base import Selection, by_class, check_features, class_members, part_of
from bpc.selection.facility import MEMORY_BUDGET, facility_location
from bpc.selection.record import SELECTIONS, SelectionRecord

__all__ = ["cover_by_class", "cover_fraction", "craig", "last_layer_gradients", "select_craig"]


def last_layer_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradients of each point's cross-entropy (nats) in its logits: softmax minus one-hot label.

    Args:
        logits: (n, y).
        labels: (n,) int64.

    Returns:
        (n, y), of the dtype of `logits`; a row's sum is zero.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise DataError(f"Logits (n, y) and labels (n,) must fit; got {tuple(logits.shape)} and {tuple(labels.shape)}.")
    return logits.softmax(1) - torch.nn.functional.one_hot(labels, logits.shape[1]).to(logits)


def craig(
    gradients: Tensor,
    labels: Tensor,
    *,
    fraction: float,
    num_classes: int,
    generator: torch.Generator,
    method: str = "auto",
    memory_budget_bytes: int = MEMORY_BUDGET,
) -> Selection:
    """Choose a fraction of the points of each class by their gradients.

    Args:
        gradients: (n, d), for example from `last_layer_gradients`.
        labels: (n,) int64; classes may differ in size and be empty.
        fraction: of each class, in (0, 1], rounded to whole points; at least one point of a class that has any.
        num_classes: y.
        generator: of stochastic greedy, which large classes need.
        method, memory_budget_bytes: of `facility_location`.

    Returns:
        Points class by class, each in the order of choice, with weights that sum to each class's size. Empty where `labels` is.

    Raises:
        ConfigError: a fraction out of range.
        DataError: gradients of another shape or not finite, a label that is no class.
    """
    return cover_fraction(
        check_features(gradients, labels, "CRAIG", "gradients"),
        labels,
        fraction=fraction,
        num_classes=num_classes,
        generator=generator,
        method=method,
        memory_budget_bytes=memory_budget_bytes,
    )


def select_craig(
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None,
    generator: torch.Generator,
) -> Selection:
    """Choose ipc points of each class by their gradients.

    Args:
        labels: (n,) int64.
        ipc: points per class.
        num_classes: y.
        features: (n, d) gradients, for example from `last_layer_gradients`.
        generator: of stochastic greedy, which classes of more than 10,000 points need.

    Returns:
        ipc * num_classes points, class 0's first, in the order of choice; the weights of a class sum to its size.

    Raises:
        ConfigError: no gradients.
        DataError: gradients of another shape or not finite, a class smaller than ipc.
    """
    gradients = check_features(features, labels, "CRAIG", "gradients")
    members = class_members(labels, num_classes, ipc)
    return cover_by_class(gradients, members, lambda size: ipc, generator=generator)


def cover_fraction(
    features: Tensor,
    labels: Tensor,
    *,
    fraction: float,
    num_classes: int,
    generator: torch.Generator,
    method: str,
    memory_budget_bytes: int,
) -> Selection:
    """`craig` on any features (n, d), finite and as many as labels."""
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"The fraction of points to keep must be above 0 and at most 1; got {fraction}.")
    if len(labels) == 0:
        return Selection(labels.long(), torch.ones(0, device=labels.device))
    return cover_by_class(
        features,
        by_class(labels, num_classes),
        lambda size: part_of(fraction, size),
        generator=generator,
        method=method,
        memory_budget_bytes=memory_budget_bytes,
    )


def cover_by_class(
    features: Tensor,
    members: list[Tensor],
    count: Callable[[int], int],
    *,
    generator: torch.Generator,
    method: str = "auto",
    memory_budget_bytes: int = MEMORY_BUDGET,
) -> Selection:
    """Facility location within each class that has points; `count` says how many of so many."""
    parts = []
    for index in members:
        if len(index):
            found = facility_location(
                features[index.to(features.device)],
                count(len(index)),
                method=method,
                generator=generator,
                memory_budget_bytes=memory_budget_bytes,
            )
            parts.append(Selection(index[found.indices.to(index.device)], found.weights.to(index.device)))
    return Selection(torch.cat([p.indices for p in parts]), torch.cat([p.weights for p in parts]))


SELECTIONS.register(
    SelectionRecord(
        name="craig",
        label="CRAIG",
        colour="#D55E00",
        marker="<",
        place=30,
        select=select_craig,
        looks_at="gradients",
    )
)
