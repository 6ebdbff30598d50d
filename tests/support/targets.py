"""Densities with known moments, each known by another way than sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bpc.likelihood import LinearRegression, LogisticRegression
from bpc.posterior import Posterior
from bpc.samplers import value_and_grad
from bpc.seeding import ChainGenerators
from bpc.weight_prior import isotropic


class Target(NamedTuple):
    name: str
    log_density: Callable[[Tensor], Tensor]
    mean: Tensor  # (p,)
    variance: Tensor  # (p,)
    start: Callable[[int], Tensor]  # k -> (k, p)
    step_size: float  # for samplers without adaptation: small beside every scale of the target


def _starts(mean: Tensor, std: Tensor, spread: float = 1.5) -> Callable[[int], Tensor]:
    """Wider than the target."""
    return lambda k: (
        mean + spread * std * torch.randn(k, len(mean), generator=torch.Generator().manual_seed(k), dtype=mean.dtype)
    )


def correlated_gaussian() -> Target:
    covariance = torch.tensor([[1.0, 0.8, 0.0], [0.8, 2.0, -0.3], [0.0, -0.3, 0.25]], dtype=torch.float64)
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    precision = torch.linalg.inv(covariance)

    def log_density(params: Tensor) -> Tensor:
        gap = params - mean
        return -0.5 * torch.einsum("ki,ij,kj->k", gap, precision, gap)

    variance = covariance.diagonal()
    return Target("gaussian", log_density, mean, variance, _starts(mean, variance.sqrt()), 0.2)


def funnel() -> Target:
    """v ~ N(0, 1), x_i | v ~ N(0, e^v), i = 1, 2: scales within a factor of e^2 or so of each other, which every sampler here
    can do. (Neal's own, v ~ N(0, 9), none of them can: no constant step size fits its neck.) E x_i^2 = e^(1/2)."""

    def log_density(params: Tensor) -> Tensor:
        v, x = params[:, 0], params[:, 1:]
        return -0.5 * v.square() - 0.5 * x.square().sum(1) * (-v).exp() - v  # -v/2 for each of the two x

    mean = torch.zeros(3, dtype=torch.float64)
    variance = torch.tensor([1.0, math.exp(0.5), math.exp(0.5)], dtype=torch.float64)
    return Target("funnel", log_density, mean, variance, _starts(mean, torch.ones(3, dtype=torch.float64), 1.0), 0.15)


def linear_regression(prior_std: float = 0.7, noise_std: float = 0.5) -> Target:
    """Conjugate: covariance (X' X / s^2 + I / t^2)^-1 (Bishop 2006, Eq. 3.53-3.54)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3))
    y = x @ np.array([0.5, -1.0, 0.2]) + noise_std * rng.normal(size=6)
    covariance = np.linalg.inv(x.T @ x / noise_std**2 + np.eye(3) / prior_std**2)
    mean = covariance @ x.T @ y / noise_std**2
    points = torch.from_numpy(np.column_stack([x, y]))
    labels, ones = torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.float64)
    posterior = Posterior(LinearRegression(noise_std), points, labels, ones, prior=isotropic(prior_std))
    variance = torch.from_numpy(np.diagonal(covariance).copy())
    return Target(
        "linear regression",
        posterior,
        torch.from_numpy(mean),
        variance,
        _starts(torch.from_numpy(mean), variance.sqrt()),
        0.07,
    )


def logistic_regression(prior_std: float = 1.5) -> Target:
    """Two coefficients, weighted points; moments by quadrature on a grid of 801 x 801."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, 2)) + np.array([0.3, 0.0])
    y = (rng.uniform(size=8) < 1 / (1 + np.exp(-x @ np.array([1.5, -1.0])))).astype(int)
    w = rng.uniform(0.5, 2.0, size=8)
    axis = np.linspace(-10, 10, 801)
    a, b = np.meshgrid(axis, axis, indexing="ij")
    log_p = -0.5 * (a**2 + b**2) / prior_std**2
    for (x1, x2), label, weight in zip(x, y, w, strict=True):
        log_p -= weight * np.logaddexp(0.0, -(2 * label - 1) * (a * x1 + b * x2))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = np.array([(p * a).sum(), (p * b).sum()])
    variance = np.array([(p * a**2).sum(), (p * b**2).sum()]) - mean**2
    posterior = Posterior(
        LogisticRegression(), torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(w), prior=isotropic(prior_std)
    )
    start = _starts(torch.from_numpy(mean), torch.from_numpy(variance).sqrt())
    return Target("logistic regression", posterior, torch.from_numpy(mean), torch.from_numpy(variance), start, 0.3)


TARGETS = {t.name: t for t in (correlated_gaussian(), funnel(), linear_regression(), logistic_regression())}


class NoisyDensity:
    """A `GradientEstimator` without control variates: the gradient of a density that is drawn anew at every call."""

    noisy = True

    def __init__(self, log_density: Callable[[Tensor, ChainGenerators], Tensor]) -> None:
        self.log_density = log_density

    def exact(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing is known exactly: nan, which no estimate looks at."""
        return torch.full((len(params),), torch.nan, dtype=params.dtype, device=params.device), torch.zeros_like(params)

    def estimate(self, params: Tensor, anchor: Tensor, anchor_grad: Tensor, generators: ChainGenerators) -> Tensor:
        return value_and_grad(lambda theta: self.log_density(theta, generators), params)[1]
