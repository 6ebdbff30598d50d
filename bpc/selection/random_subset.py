"""Random points of each class: what every other coreset has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.selection.base import Selection, by_class, class_members, part_of, unweighted
from bpc.selection.record import SELECTIONS, SelectionRecord

__all__ = ["random_fraction", "select_random"]


def select_random(
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None = None,
    generator: torch.Generator,
) -> Selection:
    """Choose ipc points of each class uniformly, without replacement.

    Args:
        labels: (n,) int64.
        ipc: points per class.
        num_classes: y.
        features: not used.
        generator: each class takes a permutation of its size from it.

    Returns:
        ipc * num_classes points of weight one, class 0's first.

    Raises:
        DataError: a class has fewer than ipc points.
    """
    chosen = []
    for index in class_members(labels, num_classes, ipc):
        order = torch.randperm(len(index), generator=generator, device=generator.device)
        chosen.append(index[order[:ipc].to(index.device)])
    return unweighted(torch.cat(chosen))


def random_fraction(labels: Tensor, *, fraction: float, num_classes: int, generator: torch.Generator) -> Selection:
    """A fraction of the points of each class, uniformly and at least one where there is one: `craig` without looking.

    Args:
        labels: (n,) int64.
        fraction: in (0, 1].
        num_classes: y.
        generator: each class takes a permutation of its size from it.

    Returns:
        Points of weight one, class 0's first.
    """
    chosen = []
    for index in by_class(labels, num_classes):
        order = torch.randperm(len(index), generator=generator, device=generator.device)
        chosen.append(index[order[: part_of(fraction, len(index))].to(index.device)])
    return unweighted(torch.cat(chosen))


SELECTIONS.register(
    SelectionRecord(
        name="random",
        label="Random",
        colour="#7F7F7F",
        marker="o",
        place=0,
        published={"kim2022": "Random"},
        select=select_random,
        looks_at="nothing",
    )
)
