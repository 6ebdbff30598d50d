"""The record of a selection method: what tables show of it, and what it chooses by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from bpc.methods import METHODS, Method
from bpc.registry import Registry
from bpc.selection.base import Selection

__all__ = ["SELECTIONS", "SelectionRecord", "Selector"]


class Selector(Protocol):
    """Chooses ipc * num_classes real points, class 0's first, and their weights."""

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


@dataclass(frozen=True, kw_only=True)
class SelectionRecord(Method):
    """A method that chooses real points.

    Attributes:
        select: chooses.
        looks_at: what its features are: the inputs of a trained network's last layer, its `last_layer_gradients`, or nothing.
    """

    select: Selector
    looks_at: Literal["nothing", "features", "gradients"]


SELECTIONS: Registry[SelectionRecord] = Registry("selection method", part_of=METHODS)
