"""Coresets of real points: choose ipc of each class instead of learning them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bpc.errors import unknown_name
from bpc.selection.base import build_coreset, class_members
from bpc.selection.herding import select_herding
from bpc.selection.kcenter import select_kcenter
from bpc.selection.random_subset import select_random

__all__ = [
    "METHODS",
    "Selector",
    "build_coreset",
    "class_members",
    "select",
    "select_herding",
    "select_kcenter",
    "select_random",
]


class Selector(Protocol):
    """A selection method: indices (ipc * num_classes,) int64 of real points, class 0's first."""

    def __call__(
        self,
        labels: Tensor,
        ipc: int,
        num_classes: int,
        *,
        features: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        """Choose; labels (n,) int64, features (n, d)."""
        ...


METHODS: dict[str, Selector] = {
    "random": select_random,
    "herding": select_herding,
    "kcenter": select_kcenter,
}


def select(
    method: str,
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Choose by the method's name, one of `METHODS`.

    Args:
        method: the name.
        labels: (n,) int64.
        ipc: points a class.
        num_classes: y.
        features: (n, d); ``random`` needs none.
        generator: ``herding`` and ``kcenter`` take nothing from it.

    Returns:
        (ipc * num_classes,) int64 indices, class 0's first.

    Raises:
        ConfigError: unknown method, or features missing.
        DataError: features of another shape or not finite, a class smaller than ipc.
    """
    if method not in METHODS:
        raise unknown_name("selection method", method, METHODS)
    return METHODS[method](labels, ipc, num_classes, features=features, generator=generator)
