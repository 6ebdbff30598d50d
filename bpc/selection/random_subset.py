"""Random points of each class: what every other coreset has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.selection.base import class_members

__all__ = ["select_random"]


def select_random(
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Choose ipc points of each class uniformly, without replacement.

    Args:
        labels: (n,) int64.
        ipc: points a class.
        num_classes: y.
        features: not used.
        generator: each class takes a permutation of its size from it.

    Returns:
        (ipc * num_classes,) int64 indices, class 0's first.

    Raises:
        DataError: a class has fewer than ipc points.
    """
    chosen = []
    for index in class_members(labels, num_classes, ipc):
        order = torch.randperm(len(index), generator=generator, device=generator.device)
        chosen.append(index[order[:ipc].to(index.device)])
    return torch.cat(chosen)
