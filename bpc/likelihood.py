"""log p(point | parameters) for a batch of parameters: all that a divergence or a sampler knows of a model."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.models.network import Network

__all__ = ["Classifier", "GaussianLocation", "LinearRegression", "LogLikelihood", "LogisticRegression", "is_soft"]


def is_soft(labels: Tensor) -> bool:
    """Whether labels are probabilities, (n, y) or (k, n, y), of a classifier."""
    return labels.is_floating_point() and labels.ndim > 1


class LogLikelihood(Protocol):
    """Log-likelihood of each point under each of k parameter vectors, in nats."""

    def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """(k, p), points (n, ...) shared or (k, n, ...) one set each, labels (n,) or (k, n) -> (k, n) nats.

        A classifier also takes probabilities (n, y) or (k, n, y) as labels.
        """
        ...


class Classifier:
    """log softmax(network(image))[label]; of a soft label q, sum_c q_c log softmax(network(image))[c].

    A soft label is y points at one image, one of each class, of weights q: what has soft labels is a weighted coreset still.
    """

    def __init__(self, network: Network) -> None:
        self.network = network

    def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """(k, n) nats; see `LogLikelihood`."""
        logits = self.network(params, points)
        k, n, y = logits.shape
        if is_soft(labels):
            return (logits.log_softmax(-1) * labels).sum(-1)
        losses = F.cross_entropy(logits.reshape(k * n, y), labels.expand(k, n).reshape(k * n), reduction="none")
        return -losses.view(k, n)


class GaussianLocation:
    """x ~ N(theta, Sigma) with Sigma known: the conjugate model of Appendix C.5 of Kim et al. (2022).

    Args:
        covariance: Sigma, (d, d).
    """

    def __init__(self, covariance: Tensor) -> None:
        self.cholesky = torch.linalg.cholesky(covariance)
        self.log_normaliser = -0.5 * covariance.shape[0] * math.log(2 * math.pi) - float(
            self.cholesky.diagonal().log().sum()
        )

    def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """(k, n) nats of points (n, d) or (k, n, d); labels are not used."""
        residual = points - params.unsqueeze(1)  # (k, n, d)
        white = torch.linalg.solve_triangular(self.cholesky, residual.transpose(1, 2), upper=False)
        return self.log_normaliser - 0.5 * white.square().sum(1)


class LinearRegression:
    """y ~ N(x . theta, noise_std^2). A point is (x, y) in one row of d + 1 numbers, so that both can be learned."""

    def __init__(self, noise_std: float = 1.0) -> None:
        self.noise_std = noise_std

    def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """(k, n) nats of points (n, d + 1) or (k, n, d + 1); labels are not used."""
        x, y = points[..., :-1], points[..., -1]
        mean = torch.einsum("nd,kd->kn" if points.ndim == 2 else "knd,kd->kn", x, params)
        z = (y - mean) / self.noise_std
        return -0.5 * z.square() - math.log(self.noise_std) - 0.5 * math.log(2 * math.pi)


class LogisticRegression:
    """Binary labels 0 or 1 with P(1) = sigmoid(x . theta), the setting of Manousakas et al. (2020)."""

    def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """(k, n) nats of points (n, d) or (k, n, d) with labels (n,) or (k, n)."""
        logits = torch.einsum("nd,kd->kn" if points.ndim == 2 else "knd,kd->kn", points, params)
        return F.logsigmoid(torch.where(labels.bool(), logits, -logits))
