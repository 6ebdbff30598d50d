"""Densities with known moments, each known by another way than sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bpc.likelihood import LinearRegression, LogisticRegression, LogLikelihood
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


def as_posterior(target: Target, prior_std: float = 3.0) -> Posterior:
    """The same density as likelihood times prior, for samplers that go from one to the other."""

    def log_likelihood(params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        return (target.log_density(params) + 0.5 * params.square().sum(1) / prior_std**2).unsqueeze(1)

    return one_point(log_likelihood, prior_std)


def one_point(log_likelihood: LogLikelihood, prior_std: float) -> Posterior:
    """A posterior whose likelihood has one term."""
    point = torch.zeros(1, 1, dtype=torch.float64)
    return Posterior(
        log_likelihood, point, torch.zeros(1, dtype=torch.long), point[0] + 1.0, prior=isotropic(prior_std)
    )


class Mixture(NamedTuple):
    posterior: Posterior
    weights: Tensor  # of the posterior's modes; the first coordinate is negative in the first mode
    log_evidence: float


def mixture(prior_std: float = 2.0, std: float = 0.3) -> Mixture:
    """Likelihood 0.9 N(theta; a, std^2 I) + 0.1 N(theta; b, std^2 I) in two dimensions, prior N(0, prior_std^2 I): two modes more
    than ten standard deviations apart, whose weights are the likelihood's times N(centre; 0, std^2 + prior_std^2)."""
    centres = torch.tensor([[-2.8, -2.8], [1.2, 1.2]], dtype=torch.float64)
    shares = torch.tensor([0.9, 0.1], dtype=torch.float64)

    def log_normal(gap: Tensor, variance: float) -> Tensor:
        return -0.5 * gap.square().sum(-1) / variance - math.log(2 * math.pi * variance)

    def log_likelihood(params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        return (shares.log() + log_normal(params.unsqueeze(1) - centres, std**2)).logsumexp(1, keepdim=True)

    joint = shares.log() + log_normal(centres, std**2 + prior_std**2)
    return Mixture(one_point(log_likelihood, prior_std), joint.softmax(0), float(joint.logsumexp(0)))


def first_mode(draws):
    """(k,): fraction of each chain in the mode on the left."""
    return (draws[..., 0] < -0.8).double().mean(0)


def conjugate(scale):
    """Linear regression whose inputs differ in scale by `scale`: posterior widths do too. Mean, variance, log evidence."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(12, 3, generator=g, dtype=torch.float64) * torch.tensor(
        [1.0, scale**0.5, scale], dtype=torch.float64
    )
    y = x.sum(1) * 0.3 + 0.5 * torch.randn(12, generator=g, dtype=torch.float64)
    points, ones = torch.cat([x, y.unsqueeze(1)], 1), torch.ones(12, dtype=torch.float64)
    posterior = Posterior(LinearRegression(0.5), points, torch.zeros(12, dtype=torch.long), ones, prior=isotropic(1.0))
    covariance = torch.linalg.inv(x.T @ x / 0.25 + torch.eye(3, dtype=torch.float64))
    marginal = torch.distributions.MultivariateNormal(torch.zeros_like(y), 0.25 * torch.eye(12) + x @ x.T)
    return posterior, covariance @ x.T @ y / 0.25, covariance.diagonal(), float(marginal.log_prob(y))


def per_chain(k):
    """Chain i has points of its own."""
    g = torch.Generator().manual_seed(5)
    points = torch.randn(k, 6, 4, generator=g, dtype=torch.float64)
    weights = torch.rand(k, 6, generator=g, dtype=torch.float64) + 0.5
    labels = torch.zeros(6, dtype=torch.long)
    return Posterior(LinearRegression(0.7), points, labels, weights, prior=isotropic(1.0), per_chain=True)


def starts(k, p, std=2.0):
    return std * torch.randn(k, p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


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
