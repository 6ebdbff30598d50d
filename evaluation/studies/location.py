r"""The conjugate model of Kim et al. (2022), Appendix C.5, with the gradient of each divergence and its exact value.

x_n ~ N(theta, Sigma), n = 1..N, theta ~ N(theta_0, Sigma_0). With P = Sigma^-1 and weights w, W = sum_m w_m, the coreset
posterior is N(theta_u, Sigma_u) (Eq. 28 and 29, where every w is 1):

    Sigma_u = (Sigma_0^-1 + W P)^-1,    theta_u = Sigma_u (Sigma_0^-1 theta_0 + P sum_m w_m u_m),

so that d theta_u/d u_m = w_m Sigma_u P,  d theta_u/d w_m = Sigma_u P (u_m - theta_u),  d Sigma_u/d w_m = -Sigma_u P Sigma_u.

Reverse KL: -w_m Cov_{pi_u}[grad f(u_m), f(x) - f(u)] (Eq. 4) by `bpc.divergences.reverse_kl_gradient` from draws of pi_u.
Forward KL: E_{pi_u}[grad f] - E_{pi_x}[grad f] (Eq. 17) by `bpc.divergences.forward_kl_gradient` from draws of both.
Wasserstein: Eq. 15 differentiated through the three derivatives above; with T the optimal transport from pi_u to pi_x,

    grad_{u_m} W_2^2 = 2 w_m P Sigma_u (theta_u - theta_x),
    d W_2^2 / d w_m  = 2 (theta_u - theta_x)' Sigma_u P (u_m - theta_u) - tr((I - T) Sigma_u P Sigma_u).

Floor. The covariance Sigma_u knows of the points only W. With a weight of 1 a point, as in the paper, W = M: however well the
points are placed, the posterior stays as wide as M observations leave it, and every divergence stays above its value for equal
means. The floor is zero only at M = N, or once the weights are N / M or learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.divergences import LearnedCoreset, RealBatch, forward_kl_gradient, reverse_kl_gradient
from bpc.errors import unknown_name
from bpc.likelihood import GaussianLocation
from evaluation.studies.learning import Gradient
from evaluation.studies.normal import Normal, draw, kl, transport, wasserstein_squared

__all__ = ["DIVERGENCES", "METHODS", "LocationModel", "exact_divergences"]

METHODS = ("rkl", "wasserstein", "fkl")
DIVERGENCES = ("reverse_kl", "w2_squared", "forward_kl")


def exact_divergences(core: Normal, truth: Normal) -> dict[str, float]:
    """By name: KL[pi_u || pi_x] (nats), squared W_2, KL[pi_x || pi_u] (nats)."""
    values = (kl(core, truth), wasserstein_squared(core, truth), kl(truth, core))
    return dict(zip(DIVERGENCES, map(float, values), strict=True))


class LocationModel:
    """x ~ N(theta, covariance), theta ~ prior: a mean with a known covariance.

    Args:
        covariance: Sigma, (d, d).
        prior: N(theta_0, Sigma_0).
    """

    def __init__(self, covariance: Tensor, prior: Normal) -> None:
        self.precision = torch.linalg.inv(covariance)
        self.prior, self.prior_precision = prior, torch.linalg.inv(prior.covariance)
        self.log_likelihood = GaussianLocation(covariance)

    def posterior(self, points: Tensor, weights: Tensor) -> Normal:
        """Of points (m, d) with weights (m,): Eq. 28 and 29."""
        covariance = torch.linalg.inv(self.prior_precision + weights.sum() * self.precision)
        natural = self.prior_precision @ self.prior.mean + self.precision @ (weights @ points)
        return Normal(covariance @ natural, covariance)

    def floors(self, total_weight: float, truth: Normal) -> dict[str, float]:
        """The least that any points whose weights add up to `total_weight` can reach: equal means."""
        covariance = torch.linalg.inv(self.prior_precision + total_weight * self.precision)
        return exact_divergences(Normal(truth.mean, covariance), truth)

    def gradient(self, method: str, data: Tensor, samples: int) -> Gradient:
        """Of one divergence between the posteriors of a coreset and of `data` (n, d), as `learn` wants it.

        Args:
            method: ``rkl``, ``wasserstein`` (exact, draws nothing) or ``fkl``.
            data: the full data.
            samples: S, draws of each posterior that an estimate takes.
        """
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
        truth = self.posterior(data, torch.ones(len(data), dtype=data.dtype))
        real = RealBatch(data, torch.zeros(len(data), dtype=torch.long), len(data))

        def reverse(coreset: LearnedCoreset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            draws = draw(self.posterior(coreset.points, coreset.weights), samples, generator)
            return reverse_kl_gradient(self.log_likelihood, coreset, draws, real, reduction="sum")[:2]

        def forward(coreset: LearnedCoreset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            core = draw(self.posterior(coreset.points, coreset.weights), samples, generator)
            full = draw(truth, samples, generator)
            answer = forward_kl_gradient(self.log_likelihood, coreset, core, full, reduction="sum")
            return answer.points, answer.weights

        def wasserstein(coreset: LearnedCoreset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return self.wasserstein_gradient(coreset.points, coreset.weights, truth)

        return {"rkl": reverse, "fkl": forward, "wasserstein": wasserstein}[method]

    def wasserstein_gradient(self, points: Tensor, weights: Tensor, truth: Normal) -> tuple[Tensor, Tensor]:
        """Of the squared W_2 with respect to points (m, d) and weights (m,); see the head of this file."""
        mean, covariance = self.posterior(points, weights)
        pull = 2 * self.precision @ covariance @ (mean - truth.mean)
        widening = torch.eye(len(mean), dtype=mean.dtype) - transport(Normal(mean, covariance), truth)
        spread = (widening @ covariance @ self.precision @ covariance).trace()
        return weights.unsqueeze(1) * pull, (points - mean) @ pull - spread
