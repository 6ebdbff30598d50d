"""Herding: points whose mean follows the class mean.

Welling (2009), "Herding dynamical weights to learn"; in the greedy form that Rebuffi et al. (2017), "iCaRL", use to choose
exemplars and that dataset condensation compares with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.selection.base import Selection, select_by_class
from bpc.selection.record import SELECTIONS, SelectionRecord

__all__ = ["select_herding"]


def select_herding(
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None,
    generator: torch.Generator | None = None,
) -> Selection:
    """Add, for each class, the point that brings the mean of the chosen ones nearest to the class mean, ipc times.

    Deterministic; of equally good points the one with the lowest index is taken, and none is taken twice.

    Args:
        labels: (n,) int64.
        ipc: points per class.
        num_classes: y.
        features: (n, d), e.g. the inputs of a trained network's last layer.
        generator: not used.

    Returns:
        ipc * num_classes points of weight one, class 0's first, in the order of choice.

    Raises:
        ConfigError: no features.
        DataError: features of another shape or not finite, a class smaller than ipc.
    """
    return select_by_class(labels, ipc, num_classes, features, _herd, method="herding")


def _herd(features: Tensor, count: int) -> Tensor:
    """`count` rows of features (n, d) of mean zero; O(n d) memory and O(n d) work a row."""
    squared = features.square().sum(1)
    total = torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    rows = []
    for _ in range(count):
        # ||total + x||^2 - ||total||^2; the mean of the chosen ones is that sum over a number common to all x
        distance = squared + 2.0 * (features * total).sum(1)
        row = distance.masked_fill(~free, torch.inf).argmin()
        rows.append(row)
        free[row] = False
        total = total + features[row]
    return torch.stack(rows)


SELECTIONS.register(
    SelectionRecord(
        name="herding",
        label="Herding",
        colour="#CC79A7",
        marker="v",
        place=10,
        published={"kim2022": "Herding"},
        select=select_herding,
        looks_at="features",
    )
)
