"""k-center: points such that no other point of the class is far from all of them.

Sener and Savarese (2018), "Active Learning for Convolutional
Neural Networks: A Core-Set Approach". The greedy rule is Gonzalez (1985): its radius is at most twice the best possible.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.selection.base import Selection, select_by_class
from bpc.selection.record import SELECTIONS, SelectionRecord

__all__ = ["select_kcenter"]


def select_kcenter(
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None,
    generator: torch.Generator | None = None,
) -> Selection:
    """Start, for each class, from the point nearest to its mean; then add the one farthest from those chosen.

    Deterministic; of equally far points the one with the lowest index is taken, and none is taken twice.

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
    return select_by_class(labels, ipc, num_classes, features, _spread, method="k-center")


def _spread(features: Tensor, count: int) -> Tensor:
    """`count` rows of features (n, d) of mean zero; O(n d) memory and O(n d) work a row."""
    rows = [features.square().sum(1).argmin()]
    nearest = torch.full_like(features[:, 0], torch.inf)  # squared distance to the chosen ones; -1 for themselves
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (features - features[rows[-1]]).square().sum(1))
        nearest[rows[-1]] = -1.0  # below the zero of a free duplicate
        rows.append(nearest.argmax())
    return torch.stack(rows)


SELECTIONS.register(
    SelectionRecord(
        name="kcenter",
        label="K-center",
        colour="#56B4E9",
        marker="^",
        place=20,
        published={"kim2022": "K-center"},
        select=select_kcenter,
        looks_at="features",
    )
)
