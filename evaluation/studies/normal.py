"""Divergences of two Gaussians, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Normal", "draw", "grid_axis", "kl", "square_root", "transport", "wasserstein_squared"]


class Normal(NamedTuple):
    """N(mean, covariance)."""

    mean: Tensor  # (p,)
    covariance: Tensor  # (p, p), positive definite


def kl(a: Normal, b: Normal) -> Tensor:
    """KL[a || b], nats, a scalar."""
    factor_a, factor_b = torch.linalg.cholesky(a.covariance), torch.linalg.cholesky(b.covariance)
    ratio = torch.linalg.solve_triangular(factor_b, factor_a, upper=False)
    gap = torch.linalg.solve_triangular(factor_b, (b.mean - a.mean).unsqueeze(1), upper=False)
    log_ratio = factor_b.diagonal().log().sum() - factor_a.diagonal().log().sum()
    return 0.5 * (ratio.square().sum() + gap.square().sum() - len(a.mean)) + log_ratio


def square_root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix (p, p)."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T


def wasserstein_squared(a: Normal, b: Normal) -> Tensor:
    """The squared 2-Wasserstein distance (Eq. 15 of Kim et al. 2022, which calls it W_2), in squared units of the parameters."""
    root = square_root(a.covariance)
    cross = square_root(root @ b.covariance @ root)
    traces = a.covariance.trace() + b.covariance.trace() - 2 * cross.trace()
    # two nearly equal covariances: the difference of traces rounds to either side of zero
    return (a.mean - b.mean).square().sum() + traces.clamp(min=0.0)


def transport(a: Normal, b: Normal) -> Tensor:
    """The matrix of the optimal map from `a` to `b`, (p, p): A^(-1/2) (A^(1/2) B A^(1/2))^(1/2) A^(-1/2).

    I minus it is the gradient of `wasserstein_squared` with respect to the covariance of `a`.
    """
    root = square_root(a.covariance)
    inverse = torch.linalg.inv(root)
    return inverse @ square_root(root @ b.covariance @ root) @ inverse


def draw(normal: Normal, count: int, generator: torch.Generator) -> Tensor:
    """(count, p) independent draws."""
    white = torch.randn(count, len(normal.mean), generator=generator, dtype=normal.mean.dtype)
    return normal.mean + white @ torch.linalg.cholesky(normal.covariance).T


def grid_axis(normal: Normal, i: int, count: int, reach: float = 5.0) -> Tensor:
    """(count,) values of parameter `i`, evenly over `reach` standard deviations to either side of its mean."""
    centre, spread = float(normal.mean[i]), reach * float(normal.covariance[i, i].sqrt())
    return torch.linspace(centre - spread, centre + spread, count, dtype=normal.mean.dtype)
