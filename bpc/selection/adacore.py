"""AdaCore: CRAIG on gradients that are preconditioned with the curvature of the loss.

Pooladzandi, Davini and Mirzasoleiman (2022), "Adaptive Second Order Coresets for Data-efficient Machine Learning". Two points
are alike if their Newton steps are, H_i^-1 g_i, and not their gradients; the rest is CRAIG: facility location in each class,
weights the clusters' sizes.

Kept: a diagonal of the Hessian for each point, in the last layer; distances between preconditioned gradients; greedy choice;
weights. Replaced: their diagonal is a Hutchinson estimate. In the logits the Hessian of cross-entropy is diag(p) - p p^T, so its
diagonal p (1 - p) is known without noise or a backward pass. Added: damping, since p (1 - p) vanishes where the network is sure.
Left out: their exponential average of the curvature over training steps, which smooths such noise along a trajectory; here one
trained network is looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.errors import ConfigError, DataError
from bpc.selection.base import Selection, check_features, class_members
from bpc.selection.craig import cover_by_class, cover_fraction
from bpc.selection.facility import MEMORY_BUDGET
from bpc.selection.record import SELECTIONS, SelectionRecord

__all__ = ["DAMPING", "adacore", "precondition", "select_adacore", "softmax_curvature"]

DAMPING = 0.1  # p (1 - p) is at most 0.25


def softmax_curvature(probabilities: Tensor) -> Tensor:
    """The diagonal of the Hessian of cross-entropy in the logits, p (1 - p): (..., y) -> (..., y). The label does not enter."""
    return probabilities * (1.0 - probabilities)


def precondition(gradients: Tensor, probabilities: Tensor, *, damping: float = DAMPING) -> Tensor:
    """Damped Newton steps of each point in its logits, g / (p (1 - p) + damping).

    Args:
        gradients: (n, y), p - y.
        probabilities: (n, y), rows summing to one.
        damping: added to the curvature, positive. A large one gives CRAIG's distances (times 1 / damping); a small one lets the
            few points whose label the network finds nearly impossible decide alone: their step grows up to 1 / damping.

    Returns:
        (n, y) float64.

    Raises:
        ConfigError: damping not above zero.
        DataError: the shapes differ, or a row is no distribution.
    """
    if not damping > 0:
        raise ConfigError(f"AdaCore's damping must be above 0; got {damping}.")
    if gradients.shape != probabilities.shape or gradients.ndim != 2:
        raise DataError(
            "AdaCore needs gradients and probabilities of one shape (n, y); got "
            f"{tuple(gradients.shape)} and {tuple(probabilities.shape)}."
        )
    p = probabilities.double()
    if len(p) and not bool(((p >= 0) & (p <= 1)).all() and ((p.sum(1) - 1).abs() < 1e-3).all()):
        raise DataError("AdaCore needs probabilities: every row of numbers from 0 to 1 that sum to 1.")
    return gradients.double() / (softmax_curvature(p) + damping)


def adacore(
    gradients: Tensor,
    labels: Tensor,
    *,
    probabilities: Tensor,
    fraction: float,
    num_classes: int,
    generator: torch.Generator,
    damping: float = DAMPING,
    method: str = "auto",
    memory_budget_bytes: int = MEMORY_BUDGET,
) -> Selection:
    """Choose a fraction of the points of each class by their damped Newton steps.

    Args:
        gradients: (n, y), p - y.
        labels: (n,) int64; classes may differ in size and be empty.
        probabilities: (n, y), p.
        fraction: of each class, in (0, 1], rounded to whole points; at least one point of a class that has any.
        num_classes: y.
        generator: of stochastic greedy, which large classes need.
        damping: see `precondition`.
        method, memory_budget_bytes: of `facility_location`.

    Returns:
        Points class by class, each in the order of choice, with weights that sum to each class's size. Empty where `labels` is.

    Raises:
        ConfigError: a fraction or damping out of range.
        DataError: gradients of another shape or not finite, probabilities that are none, a label that is no class.
    """
    gradients = check_features(gradients, labels, "AdaCore", "gradients")
    return cover_fraction(
        precondition(gradients, probabilities, damping=damping),
        labels,
        fraction=fraction,
        num_classes=num_classes,
        generator=generator,
        method=method,
        memory_budget_bytes=memory_budget_bytes,
    )


def select_adacore(
    labels: Tensor,
    ipc: int,
    num_classes: int,
    *,
    features: Tensor | None,
    generator: torch.Generator,
) -> Selection:
    """Choose ipc points of each class by their damped Newton steps.

    Args:
        labels: (n,) int64.
        ipc: points per class.
        num_classes: y.
        features: (n, y) gradients p - y, from which p follows.
        generator: of stochastic greedy, which classes of more than 10,000 points need.

    Returns:
        ipc * num_classes points, class 0's first, in the order of choice; the weights of a class sum to its size.

    Raises:
        ConfigError: no gradients.
        DataError: gradients of another shape or not finite, a class smaller than ipc.
    """
    gradients = check_features(features, labels, "AdaCore", "gradients")
    members = class_members(labels, num_classes, ipc)
    one_hot = torch.nn.functional.one_hot(labels, num_classes).to(gradients)
    if gradients.shape != one_hot.shape:
        raise DataError(f"AdaCore needs gradients p - y of shape {tuple(one_hot.shape)}; got {tuple(gradients.shape)}.")
    return cover_by_class(
        precondition(gradients, (gradients + one_hot).clamp(0.0, 1.0)), members, lambda size: ipc, generator=generator
    )


SELECTIONS.register(
    SelectionRecord(
        name="adacore",
        label="AdaCore",
        colour="#8C6D00",
        marker=">",
        place=40,
        select=select_adacore,
        looks_at="gradients",
    )
)
