"""Coresets of real points: choose ipc of each class instead of learning them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bpc.errors import unknown_name
from bpc.selection.adacore import adacore, select_adacore
from bpc.selection.base import Selection, build_coreset, class_members, unweighted
from bpc.selection.craig import craig, last_layer_gradients, select_craig
from bpc.selection.facility import FacilityLocation, facility_location
from bpc.selection.herding import select_herding
from bpc.selection.kcenter import select_kcenter
from bpc.selection.random_subset import random_fraction, select_random

__all__ = [
    "BY_GRADIENT",
    "METHODS",
    "FacilityLocation",
    "Selection",
    "Selector",
    "adacore",
    "build_coreset",
    "class_members",
    "craig",
    "facility_location",
    "last_layer_gradients",
    "random_fraction",
    "select",
    "select_adacore",
    "select_craig",
    "select_herding",
    "select_kcenter",
    "select_random",
    "unweighted",
]


class Selector(Protocol):
    """A selection method: ipc * num_classes real points, class 0's first, and their weights."""

    def __call__(
        self,
        labels: Tensor,
        ipc: int,
        num_classes: int,
        *,
        features: Tensor | None,
        generator: torch.Generator,
    ) -> Selection:
        """Choose; labels (n,) int64, features (n, d)."""
        ...


METHODS: dict[str, Selector] = {
    "random": select_random,
    "herding": select_herding,
    "kcenter": select_kcenter,
    "craig": select_craig,
    "adacore": select_adacore,
}
BY_GRADIENT = ("craig", "adacore")  # their features are `last_layer_gradients`, and their points are weighted


def select(
    method: str,
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None = None,
    generator: torch.Generator,
) -> Selection:
    """Choose by the method's name, one of `METHODS`.

    Args:
        method: the name.
        labels: (n,) int64.
        ipc: points a class.
        num_classes: y.
        features: (n, d): inputs of a trained network's last layer, or for the methods in `BY_GRADIENT` its
            `last_layer_gradients`; ``random`` needs none.
        generator: ``herding`` and ``kcenter`` take nothing from it.

    Returns:
        ipc * num_classes points, class 0's first. Their weights are one, or for `BY_GRADIENT` how many points of the class each
        stands for.

    Raises:
        ConfigError: unknown method, or features missing.
        DataError: features of another shape or not finite, a class smaller than ipc.
    """
    if method not in METHODS:
        raise unknown_name("selection method", method, METHODS)
    return METHODS[method](labels, ipc, num_classes, features=features, generator=generator)
