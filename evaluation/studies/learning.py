"""The outer loop of the studies: Adam on the points and on the logarithm of the weights.

`bpc.distill` is plain SGD, whose step size has to be found anew for every divergence, size and dataset. Here some hundred small
problems are solved one after another, and gradients of one problem span five orders of magnitude between its start and its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bpc.divergences import LearnedCoreset
from bpc.errors import ConfigError, NumericalError
from bpc.seeding import make_generator

__all__ = ["Gradient", "descend", "steps_to_track", "unlabelled"]

# d divergence / d points (m, ...) and / d weights (m,), as a divergence gives them
Gradient = Callable[[LearnedCoreset, torch.Generator], tuple[Tensor, Tensor]]


def descend(
    coreset: LearnedCoreset,
    gradient: Gradient,
    *,
    steps: int,
    lr_points: float,
    lr_weights: float,
    seed: int,
) -> Iterator[LearnedCoreset]:
    """Yield the coreset before the first step and after each: ``steps + 1`` coresets, each a copy.

    A weight w = exp(v) is learned through v, with gradient w d/dw: it cannot become negative, and a step changes it by a
    fraction, so that 1 and N / M are a few dozen steps apart whatever N is. Step sizes fall to zero along a cosine, which
    averages the noise of a stochastic gradient out.

    Args:
        coreset: where learning starts; its weights must be positive.
        gradient: of the divergence, given a generator for its draws.
        steps: how many.
        lr_points: Adam's step size for the points, in their own units.
        lr_weights: for the logarithm of the weights; 0 leaves them as they are.
        seed: of the draws: step t depends on `seed` and t alone.

    Raises:
        ConfigError: a weight that is not positive, or no steps.
        NumericalError: the coreset left the finite numbers.
    """
    if steps < 1 or not bool((coreset.weights > 0).all()):
        raise ConfigError(
            f"Learning needs at least 1 step and positive weights; got {steps} and {coreset.weights.min()}."
        )
    points = coreset.points.detach().clone()
    log_weights = coreset.weights.detach().log()
    groups = [{"params": [points], "lr": lr_points}, {"params": [log_weights], "lr": lr_weights}]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: 0.5 * (1 + math.cos(math.pi * t / steps)))
    current = coreset._replace(points=points.clone(), weights=coreset.weights.detach().clone())
    yield current
    for step in range(steps):
        points.grad, slope = gradient(current, make_generator(points.device, seed, "study", step))
        log_weights.grad = slope * current.weights
        optimiser.step()
        schedule.step()
        weights = log_weights.exp() if lr_weights else coreset.weights
        if not bool(torch.isfinite(points).all() & torch.isfinite(weights).all()):
            raise NumericalError(f"Learning diverged at step {step + 1}; lower lr_points or lr_weights.")
        current = current._replace(points=points.clone(), weights=weights.detach().clone())
        yield current


def steps_to_track(steps: int, count: int) -> list[int]:
    """About `count` steps from 0 to `steps`, both included, closer together at the start where more happens."""
    if steps < 1 or count < 2:
        raise ConfigError(f"Tracking needs at least 1 step and 2 places; got {steps} and {count}.")
    return sorted({round(steps * (i / (count - 1)) ** 2) for i in range(count)})


def unlabelled(points: Tensor, weights: Tensor) -> LearnedCoreset:
    """A coreset of a model without labels."""
    labels = torch.zeros(len(points), dtype=torch.long)
    return LearnedCoreset(points, labels, weights)
