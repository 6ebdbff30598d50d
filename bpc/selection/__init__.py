"""Coresets of real points: choose ipc of each class instead of learning them."""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.selection.adacore import adacore, select_adacore
from bpc.selection.base import Selection, build_coreset, class_members, unweighted
from bpc.selection.craig import craig, last_layer_gradients, select_craig
from bpc.selection.facility import FacilityLocation, facility_location
from bpc.selection.herding import select_herding
from bpc.selection.kcenter import select_kcenter
from bpc.selection.random_subset import random_fraction, select_random
from bpc.selection.record import SELECTIONS, SelectionRecord, Selector

__all__ = [
    "SELECTIONS",
    "FacilityLocation",
    "Selection",
    "SelectionRecord",
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


def select(
    method: str,
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None = None,
    generator: torch.Generator,
) -> Selection:
    """Choose by the method's name, one of `SELECTIONS`.

    Args:
        method: the name.
        labels: (n,) int64.
        ipc: points per class.
        num_classes: y.
        features: (n, d): what the method's record says it looks at: inputs of a trained network's last layer, its
            `last_layer_gradients`, or nothing.
        generator: ``herding`` and ``kcenter`` take nothing from it.

    Returns:
        ipc * num_classes points, class 0's first. Their weights are one, or (CRAIG, AdaCore) how many points of the class each
        stands for.

    Raises:
        ConfigError: unknown method, or features missing.
        DataError: features of another shape or not finite, a class smaller than ipc.
    """
    return SELECTIONS.get(method).select(labels, ipc, num_classes, features=features, generator=generator)
