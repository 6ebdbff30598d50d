"""Types that the divergences share. A divergence answers with a gradient, not a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = [
    "REDUCTION",
    "CoresetGradient",
    "Divergence",
    "ExpertWindow",
    "Extra",
    "LearnedCoreset",
    "RealBatch",
    "Reduction",
    "no_experts",
]

Reduction = Literal["mean", "sum"]
REDUCTION: Reduction = "mean"  # what the published step sizes are for
_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class LearnedCoreset(NamedTuple):
    """What is being learned: the tensors of a coreset, and what the divergence learns beside them."""

    points: Tensor  # (m, ...), in the space the network sees
    labels: Tensor  # (m,), or probabilities (m, y), which are then learned too
    weights: Tensor  # (m,), non-negative
    extras: Mapping[str, Tensor] = _NOTHING  # scalars, named as in `Divergence.extras`


class Extra(NamedTuple):
    """A scalar that a divergence learns beside the points: BPC-W's inner step size."""

    start: float
    lr: float  # step size of the outer SGD; 0 leaves it as it is
    minimum: float


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


def no_experts(num_params: int, device: torch.device | str) -> Callable[[torch.Generator], ExpertWindow]:
    """Windows for a divergence that looks at no expert: the length of a parameter vector is all they hold."""
    window = ExpertWindow(torch.zeros(1, num_params, device=device))
    return lambda generator: window


class RealBatch(NamedTuple):
    """B real points and their labels, drawn from a dataset of `total` points."""

    points: Tensor  # (b, ...)
    labels: Tensor  # (b,)
    total: int  # N


class CoresetGradient(NamedTuple):
    """d divergence / d what is learned: subtract it to improve."""

    points: Tensor  # (m, ...)
    weights: Tensor  # (m,)
    value: Tensor  # scalar; nan where only the gradient is known
    extras: Mapping[str, Tensor] = _NOTHING  # of every extra that the divergence declares
    labels: Tensor | None = None  # (m, y), where the coreset's labels are probabilities


class Divergence(Protocol):
    """One of BPC-rKL, BPC-W, BPC-fKL or your own: pure, tensors in and tensors out."""

    @property
    def needs_real(self) -> bool:
        """Whether `real` is looked at."""
        ...

    @property
    def expert_epochs(self) -> int:
        """L_x: how many snapshots after the start the window holds."""
        ...

    @property
    def extras(self) -> Mapping[str, Extra]:
        """What is learned beside points and weights, by name; mostly nothing."""
        ...

    def gradient(
        self, coreset: LearnedCoreset, experts: ExpertWindow, real: RealBatch | None, generator: torch.Generator
    ) -> CoresetGradient:
        """The gradient at `coreset`; every random number comes from `generator`."""
        ...
