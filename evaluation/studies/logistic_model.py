"""Bayesian logistic regression: posterior, Laplace approximation, and HMC chains that follow a coreset as it is learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.divergences import LearnedCoreset, RealBatch, reverse_kl_gradient
from bpc.errors import NumericalError
from bpc.likelihood import LogisticRegression
from bpc.posterior import Posterior
from bpc.samplers import HMCConfig, hmc, run
from bpc.seeding import ChainGenerators
from bpc.weight_prior import isotropic
from evaluation.studies.normal import Normal
from evaluation.studies.regression import WithIntercept, with_ones

__all__ = ["CoresetChains", "LogisticModel", "WhitenedPosterior"]

NEWTON_STEPS = 100


class LogisticModel:
    """P(label = 1) = sigmoid(a + x . b), (a, b) ~ N(0, prior_std^2 I)."""

    def __init__(self, prior_std: float) -> None:
        self.prior_std = prior_std
        self.log_likelihood = WithIntercept(LogisticRegression())

    def posterior(self, points: Tensor, labels: Tensor, weights: Tensor) -> Posterior:
        """Of points (m, d) with labels and weights (m,): a density of 1 + d parameters."""
        return Posterior(self.log_likelihood, points, labels, weights, prior=isotropic(self.prior_std))

    def laplace(self, points: Tensor, labels: Tensor, weights: Tensor, start: Tensor | None = None) -> Normal:
        """N(mode, inverse Hessian of the negative log posterior there), by Newton's method with step halving from `start` (p,).

        Raises:
            NumericalError: no mode found; the posterior is log-concave, so only numbers that are not finite do that.
        """
        x = with_ones(points)
        identity = torch.eye(x.shape[1], dtype=x.dtype) / self.prior_std**2
        density = self.posterior(points, labels, weights)

        def curvature(theta: Tensor) -> tuple[Tensor, Tensor]:
            p = torch.sigmoid(x @ theta)
            slope = x.T @ (weights * (labels - p)) - theta / self.prior_std**2
            return slope, (x.T * (weights * p * (1 - p))) @ x + identity

        theta = torch.zeros(x.shape[1], dtype=x.dtype) if start is None else start
        value = density(theta.unsqueeze(0))[0]
        for _ in range(NEWTON_STEPS):
            slope, hessian = curvature(theta)
            step = torch.linalg.solve(hessian, slope)
            decrement = float(slope @ step)
            if decrement < 1e-10:
                break
            size = 1.0
            while size > 1e-8:
                trial = density((theta + size * step).unsqueeze(0))[0]
                if trial > value + 1e-4 * size * decrement:
                    break
                size /= 2
            theta, value = theta + size * step, density((theta + size * step).unsqueeze(0))[0]
        else:
            raise NumericalError(f"Newton's method found no mode of a logistic posterior in {NEWTON_STEPS} steps.")
        covariance = torch.linalg.inv(curvature(theta)[1])
        return Normal(theta, 0.5 * (covariance + covariance.T))

    def gradient(self, coreset: LearnedCoreset, points: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The covariance estimate of the gradient of KL[pi_u || pi_x] from `draws` (s, p) of the coreset posterior."""
        real = RealBatch(points, labels, len(points))
        return reverse_kl_gradient(self.log_likelihood, coreset, draws, real, reduction="sum")[:2]


class WhitenedPosterior:
    """The density of z where the parameters are mean + L z, with L L' the covariance of `centre`.

    Its gradient is in closed form: most of a study's time goes into it.

    Args:
        model: the model.
        coreset: whose posterior this is.
        centre: of the new coordinates.
    """

    def __init__(self, model: LogisticModel, coreset: LearnedCoreset, centre: Normal) -> None:
        sign = 2.0 * coreset.labels.to(coreset.points.dtype) - 1.0
        self.signed, self.weights = sign.unsqueeze(1) * with_ones(coreset.points), coreset.weights
        self.mean, self.factor = centre.mean, torch.linalg.cholesky(centre.covariance)
        self.prior_precision = model.prior_std**-2

    def from_white(self, white: Tensor) -> Tensor:
        """(k, p) -> (k, p)."""
        return self.mean + white @ self.factor.T

    def to_white(self, params: Tensor) -> Tensor:
        """The inverse of `from_white`."""
        return torch.linalg.solve_triangular(self.factor, (params - self.mean).T, upper=False).T

    def __call__(self, params: Tensor) -> Tensor:
        """(k, p), whitened -> (k,) nats, up to a constant."""
        return self.value_and_gradient(params)[0]

    def value_and_gradient(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """(k, p), whitened -> (k,) and (k, p)."""
        theta = self.from_white(params)
        margin = theta @ self.signed.T
        value = F.logsigmoid(margin) @ self.weights - 0.5 * self.prior_precision * theta.square().sum(1)
        slope = (self.weights * torch.sigmoid(-margin)) @ self.signed - self.prior_precision * theta
        return value, slope @ self.factor


class CoresetChains:
    """Draws of a coreset posterior that moves a little at a time: each call goes on from where the chains of the last one ended.

    HMC runs in coordinates in which the Laplace approximation is N(0, I), so that one step size fits every coreset.

    Args:
        model: the model.
        chains: k.
        draws: of each chain in a call.
        config: of the sampler, in those coordinates.
        seed: of the chains.
    """

    def __init__(self, model: LogisticModel, *, chains: int, draws: int, config: HMCConfig, seed: int) -> None:
        self.model, self.draws, self.config = model, draws, config
        self.generators = ChainGenerators.from_seeds("cpu", range(chains), "logistic chains", seed)
        self.params: Tensor | None = None  # (k, p)
        self.mode: Normal | None = None  # of the last coreset
        self.accepted: list[float] = []  # mean acceptance probability of each call

    def __call__(self, coreset: LearnedCoreset) -> Tensor:
        """(k * draws, p)."""
        self.mode = self.model.laplace(
            coreset.points, coreset.labels, coreset.weights, self.mode.mean if self.mode else None
        )
        density = WhitenedPosterior(self.model, coreset, self.mode)
        if self.params is None:  # the chains start at draws of the Laplace approximation
            white = self.generators.normal(len(self.mode.mean)).to(coreset.points.dtype)
        else:
            white = density.to_white(self.params)
        samples, accepted = [], []
        for state, info in run(hmc(density, self.config), white, steps=self.draws, generators=self.generators):
            samples.append(density.from_white(state.params))
            accepted.append(float(info.accept_prob.mean()))
        self.params = samples[-1]
        self.accepted.append(sum(accepted) / len(accepted))
        return torch.cat(samples)
