"""Types that the divergences share. A divergence answers with a gradient, not a loss."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["CoresetGradient", "Divergence", "ExpertWindow", "LearnedCoreset", "RealBatch"]


class LearnedCoreset(NamedTuple):
    """What is being learned: the tensors a divergence needs of a coreset, plus BPC-W's inner learning rate."""

    points: Tensor  # (m, ...), in the space the network sees
    labels: Tensor  # (m,)
    weights: Tensor  # (m,), non-negative
    student_lr: Tensor  # scalar: step size of the inner SGD


class ExpertWindow(NamedTuple):
    """Consecutive snapshots of one expert, theta_x^(r) .. theta_x^(r + L_x)."""

    snapshots: Tensor  # (L_x + 1, p)

    @property
    def start(self) -> Tensor:
        """theta^(r), (p,): where the inner trajectory begins."""
        return self.snapshots[0]

    @property
    def end(self) -> Tensor:
        """theta^(r + L_x), (p,): the centre of q_x."""
        return self.snapshots[-1]


class RealBatch(NamedTuple):
    """B real points and their labels, drawn from a dataset of `total` points."""

    points: Tensor  # (b, ...)
    labels: Tensor  # (b,)
    total: int  # N


class CoresetGradient(NamedTuple):
    """d divergence / d what is learned: subtract it to improve."""

    points: Tensor  # (m, ...)
    weights: Tensor  # (m,)
    student_lr: Tensor  # scalar; zero where the method does not learn it
    value: Tensor  # scalar; nan where only the gradient is known


class Divergence(Protocol):
    """One of BPC-rKL, BPC-W, BPC-fKL: pure, tensors in and tensors out."""

    needs_real: bool  # whether `real` is looked at
    expert_epochs: int  # L_x: how many snapshots after the start the window holds

    def gradient(
        self, coreset: LearnedCoreset, experts: ExpertWindow, real: RealBatch | None, generator: torch.Generator
    ) -> CoresetGradient:
        """The gradient at `coreset`; every random number comes from `generator`."""
        ...
