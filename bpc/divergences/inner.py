"""The inner SGD on the coreset that all three divergences share (Eq. 10 of Kim et al. 2022).

theta^(t+1) = theta^(t) - eta * grad_theta loss(A_t(u), theta^(t)), with loss the weighted mean negative log-likelihood. The
paper prints the sum; its step sizes (0.01 to 0.03) and its authors' code are for the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bpc.augment import AugmentConfig, AugmentDraw, apply, draw
from bpc.divergences.base import LearnedCoreset
from bpc.likelihood import LogLikelihood
from bpc.pieces import params_gradient

__all__ = ["augmentation_draws", "augmented", "inner_trajectory"]


def augmentation_draws(
    config: AugmentConfig | None, points: Tensor, count: int, generator: torch.Generator
) -> list[AugmentDraw | None]:
    """`count` independent augmentations of the coreset's images, drawn now so that they can be replayed."""
    if config is None:
        return [None] * count
    n, c, h, w = points.shape
    return [draw(config, n, (c, h, w), generator, device=points.device) for _ in range(count)]


def augmented(points: Tensor, chosen: AugmentDraw | None) -> Tensor:
    """`points` under one of `augmentation_draws`."""
    return points if chosen is None else apply(points, chosen)


def inner_trajectory(
    log_likelihood: LogLikelihood,
    start: Tensor,
    coreset: LearnedCoreset,
    student_lr: Tensor | float,
    draws: Sequence[AugmentDraw | None],
    *,
    visit: Callable[[Tensor], None] | None = None,
    at_once: int = 0,
) -> Tensor:
    """Run len(draws) steps of inner SGD from `start` without keeping a graph.

    Args:
        log_likelihood: of the model.
        start: (p,).
        coreset: points, labels and weights.
        student_lr: eta.
        draws: the augmentation of each step.
        visit: called with theta^(t) before every step.
        at_once: images in a piece, see `bpc.pieces`; 0 is all.

    Returns:
        theta^(L_u), (p,), detached.
    """
    params = start.detach()
    points = coreset.points.detach()
    shares = coreset.weights.detach() / coreset.weights.detach().sum()
    for chosen in draws:
        if visit is not None:
            visit(params)
        seen = augmented(points, chosen)
        _, ascent = params_gradient(log_likelihood, params.unsqueeze(0), seen, coreset.labels, shares, at_once=at_once)
        params = params + student_lr * ascent[0]
    return params
