"""The posterior that every sampler and backend targets: one object, so that they cannot differ in what they sample."""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.likelihood import LogLikelihood
from bpc.pieces import params_gradient
from bpc.seeding import ChainGenerators

__all__ = ["Posterior"]


class Posterior:
    """log N(theta; 0, prior_std^2 I) + sum_m w_m log p(u_m | theta), nats, without the prior's normalising constant.

    Args:
        log_likelihood: of the model.
        points: (m, ...) shared by all chains, or (k, m, ...) with `per_chain`.
        labels: (m,).
        weights: (m,); a coreset's weights, or ones for data. (k, m) with `per_chain` where they differ as well.
        prior_std: of the Gaussian prior on every parameter.
        per_chain: each chain has points of its own (another coreset with the same labels).
        points_at_once: pairs of chain and point per pass of `value_and_gradient`, which bounds its memory and changes nothing
            else; 0 is all.
    """

    def __init__(
        self,
        log_likelihood: LogLikelihood,
        points: Tensor,
        labels: Tensor,
        weights: Tensor,
        *,
        prior_std: float,
        per_chain: bool = False,
        points_at_once: int = 0,
    ) -> None:
        if prior_std <= 0:
            raise ConfigError(f"The prior's standard deviation must be positive; got {prior_std}.")
        allowed = [labels.shape, *([points.shape[:2]] if per_chain else [])]
        if points.shape[1 if per_chain else 0] != len(labels) or weights.shape not in allowed:
            raise ConfigError(
                f"Points {tuple(points.shape)}, labels {tuple(labels.shape)} and weights {tuple(weights.shape)} do not "
                f"fit; expected {'(k, m, ...)' if per_chain else '(m, ...)'}, (m,) and (m,){' or (k, m)' if per_chain else ''}."
            )
        self.log_likelihood, self.points, self.labels, self.weights = log_likelihood, points, labels, weights
        self.prior_std, self.points_at_once = prior_std, points_at_once
        self._per_chain = per_chain

    def log_prior(self, params: Tensor) -> Tensor:
        """(k,) nats, up to a constant."""
        return -0.5 * params.square().sum(1) / self.prior_std**2

    def __call__(self, params: Tensor) -> Tensor:
        """(k, p) -> (k,) nats."""
        log_lik = (self.log_likelihood(params, self.points, self.labels) * self.weights).sum(1)
        return log_lik + self.log_prior(params)

    def value_and_gradient(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """(k,) and (k, p), piece by piece."""
        value, gradient = params_gradient(
            self.log_likelihood,
            params,
            self.points,
            self.labels,
            self.weights,
            each=self._per_chain,
            at_once=self.points_at_once,
        )
        return value + self.log_prior(params.detach()), gradient - params.detach() / self.prior_std**2

    def chain(self, i: int) -> Posterior:
        """The density of chain i alone, on (1, p)."""
        if not self._per_chain:
            return self
        return Posterior(
            self.log_likelihood,
            self.points[i],
            self.labels,
            self.weights[i] if self.weights.ndim == 2 else self.weights,
            prior_std=self.prior_std,
            points_at_once=self.points_at_once,
        )

    def minibatch(self, params: Tensor, generators: ChainGenerators, size: int) -> Tensor:
        """An unbiased estimate of the density, (k,): each chain draws `size` points of its own, with replacement."""
        m = len(self.labels)
        index = (generators.uniform(size) * m).long().clamp(max=m - 1)  # (k, size)
        total = self.log_prior(params)
        log_lik = [
            self.log_likelihood(params[i : i + 1], self.points[i][row] if self._per_chain else self.points[row], self.labels[row])
            * (self.weights[i][row] if self.weights.ndim == 2 else self.weights[row])
            for i, row in enumerate(index)
        ]  # fmt: skip
        return total + m / size * torch.cat(log_lik).sum(1)
