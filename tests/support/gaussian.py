"""The conjugate model of Appendix C.5, where every posterior and divergence is known: x ~ N(theta, Sigma), theta ~ N(0, S0)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

D = 2
SIGMA = torch.tensor([[1.0, 0.3], [0.3, 0.6]], dtype=torch.float64)
PRIOR = torch.tensor([[2.0, -0.4], [-0.4, 1.5]], dtype=torch.float64)


def posterior(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) given weighted points (m, d)."""
    precision = torch.linalg.inv(SIGMA)
    covariance = torch.linalg.inv(torch.linalg.inv(PRIOR) + weights.sum() * precision)
    return covariance @ precision @ (weights @ points), covariance


def kl(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """KL[N(a) || N(b)], nats."""
    inverse = torch.linalg.inv(b[1])
    gap = b[0] - a[0]
    return 0.5 * (torch.trace(inverse @ a[1]) + gap @ inverse @ gap - D + torch.logdet(b[1]) - torch.logdet(a[1]))


def cubature(mean: Tensor, covariance: Tensor) -> Tensor:
    """Twelve equally weighted points whose moments are those of the Gaussian up to degree 5, (12, 2): averages of
    polynomials up to that degree are expectations, so Monte Carlo tests become exact.

    In two dimensions E r^2 = 2 and E r^4 = 8: half of the points at radius 0, half on a hexagon at radius 2.
    """
    angles = torch.arange(6, dtype=torch.float64) * math.pi / 3
    hexagon = 2.0 * torch.stack([angles.cos(), angles.sin()], dim=1)
    white = torch.cat([torch.zeros(6, 2, dtype=torch.float64), hexagon])
    return mean + white @ torch.linalg.cholesky(covariance).T


def finite_differences(function, at: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of a scalar function, of the shape of `at`."""
    gradient = torch.zeros_like(at)
    flat = gradient.view(-1)
    for i in range(at.numel()):
        shift = torch.zeros_like(at)
        shift.view(-1)[i] = step
        flat[i] = (function(at + shift) - function(at - shift)) / (2 * step)
    return gradient


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Full data (n, d), coreset points (m, d) and unequal weights (m,)."""
    generator = torch.Generator().manual_seed(seed)
    full = torch.randn(30, D, generator=generator, dtype=torch.float64) + torch.tensor([1.0, -0.5])
    points = torch.randn(4, D, generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(4, generator=generator, dtype=torch.float64) * 3
    return full, points, weights
