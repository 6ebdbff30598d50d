"""The posterior that every sampler and backend targets: one object, so that they cannot differ in what they sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.graphs import Recordings
from bpc.likelihood import LogLikelihood
from bpc.pieces import params_gradient, pieces
from bpc.seeding import ChainGenerators
from bpc.weight_prior import WeightPrior

__all__ = ["ControlVariates", "Posterior"]

MOST_PIECES = 16  # of a gradient that is recorded as a CUDA graph: more are long enough not to wait for their launches


class Posterior:
    """log prior(theta) + sum_m w_m log p(u_m | theta), nats, without the prior's normalising constant.

    Args:
        log_likelihood: of the model.
        points: (m, ...) shared by all chains, or (k, m, ...) with `per_chain`.
        labels: (m,), or probabilities (m, y).
        weights: (m,); a coreset's weights, or ones for data. (k, m) with `per_chain` where they differ as well.
        prior: of the parameters; it takes the points' device and dtype.
        per_chain: each chain has points of its own (another coreset with the same labels).
        points_at_once: pairs of chain and point per pass of `value_and_gradient`, which bounds its memory; 0 is all.

    The same arguments give the same bits on the same device and threads. k chains together are k chains alone in exact
    arithmetic, and in floating point to rounding: other pieces, and other chains beside a chain, may round its sums otherwise,
    and a long chain turns other last bits into other draws of the same posterior.
    """

    def __init__(
        self,
        log_likelihood: LogLikelihood,
        points: Tensor,
        labels: Tensor,
        weights: Tensor,
        *,
        prior: WeightPrior,
        per_chain: bool = False,
        points_at_once: int = 0,
    ) -> None:
        allowed = [labels.shape[:1], *([points.shape[:2]] if per_chain else [])]
        if points.shape[1 if per_chain else 0] != len(labels) or weights.shape not in allowed:
            raise ConfigError(
                f"Points {tuple(points.shape)}, labels {tuple(labels.shape)} and weights {tuple(weights.shape)} do not "
                f"fit; expected {'(k, m, ...)' if per_chain else '(m, ...)'}, (m,) and (m,){' or (k, m)' if per_chain else ''}."
            )
        self.log_likelihood, self.points, self.labels, self.weights = log_likelihood, points, labels, weights
        self.prior, self.points_at_once = prior.to(points), points_at_once
        self._per_chain = per_chain
        self._whole, self._likelihood = Recordings(), Recordings()

    def log_prior(self, params: Tensor) -> Tensor:
        """(k,) nats, up to a constant."""
        return self.prior.log_density(params)

    def __call__(self, params: Tensor) -> Tensor:
        """(k, p) -> (k,) nats."""
        log_lik = (self.log_likelihood(params, self.points, self.labels) * self.weights).sum(1)
        return log_lik + self.log_prior(params)

    def value_and_gradient(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """(k,) and (k, p), piece by piece; both detached. On a GPU a CUDA graph, see `bpc.graphs`."""

        def eagerly(params: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = self._gradient(params)
            return value + self.log_prior(params), gradient + self.prior_gradient(params)

        value, gradient = self._replayed(self._whole, eagerly, params)
        return value, gradient

    def likelihood_and_gradient(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted log likelihood (k,) nats and its gradient (k, p), without the prior, likewise."""
        value, gradient = self._replayed(self._likelihood, self._gradient, params)
        return value, gradient

    def _replayed(
        self, recordings: Recordings, function: Callable[[Tensor], tuple[Tensor, Tensor]], params: Tensor
    ) -> tuple[Tensor, ...]:
        params = params.detach()
        if params.is_cuda and sum(1 for _ in pieces(len(params), len(self.labels), self.points_at_once)) > MOST_PIECES:
            return function(params)
        return recordings(function, params, self.points, self.labels, self.weights)

    def _gradient(self, params: Tensor) -> tuple[Tensor, Tensor]:
        return params_gradient(
            self.log_likelihood,
            params,
            self.points,
            self.labels,
            self.weights,
            each=self._per_chain,
            at_once=self.points_at_once,
        )

    def prior_gradient(self, params: Tensor) -> Tensor:
        """Gradient (k, p) of the log prior, detached."""
        return self.prior.gradient(params.detach())

    def draw_prior(self, generators: ChainGenerators, *shape: int) -> Tensor:
        """Draws from the prior, (k, *shape); the last axis is p."""
        return self.prior.draw(generators.normal(*shape))

    def repeated(self, times: int) -> Posterior:
        """The density of k * times parameter vectors: those of chain i are rows i * times to (i + 1) * times - 1."""
        if not self._per_chain or times == 1:
            return self
        weights = self.weights.repeat_interleave(times, 0) if self.weights.ndim == 2 else self.weights
        return Posterior(
            self.log_likelihood,
            self.points.repeat_interleave(times, 0),
            self.labels,
            weights,
            prior=self.prior,
            per_chain=True,
            points_at_once=self.points_at_once,
        )

    def chain(self, i: int) -> Posterior:
        """The density of chain i alone, on (1, p)."""
        if not self._per_chain:
            return self
        return Posterior(
            self.log_likelihood,
            self.points[i],
            self.labels,
            self.weights[i] if self.weights.ndim == 2 else self.weights,
            prior=self.prior,
            points_at_once=self.points_at_once,
        )

    def draw_points(self, generators: ChainGenerators, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """`size` points for each chain, drawn with replacement: (k, size, ...), labels and weights (k, size)."""
        m = len(self.labels)
        index = (generators.uniform(size) * m).long().clamp(max=m - 1)  # (k, size)
        if self._per_chain:
            points = torch.stack([own[row] for own, row in zip(self.points, index, strict=True)])
        else:
            points = self.points[index]
        return (
            points,
            self.labels[index],
            self.weights.gather(1, index) if self.weights.ndim == 2 else self.weights[index],
        )


class ControlVariates:
    """Gradients of a posterior from minibatches, as the change since an anchor where the gradient is known exactly.

    An estimate is grad(anchor) + prior'(theta) - prior'(anchor) + (m / size) sum_b w_b [f'_b(theta) - f'_b(anchor)]: unbiased,
    and its noise vanishes as theta nears the anchor (Johnson & Zhang 2013; Baker et al. 2019). A `GradientEstimator`.

    Args:
        posterior: of the full data.
        size: points in a minibatch; each chain draws its own, with replacement.
    """

    noisy = True

    def __init__(self, posterior: Posterior, size: int) -> None:
        if size < 1:
            raise ConfigError(f"A minibatch needs at least one point; got {size}.")
        self.posterior, self.size = posterior, size

    def exact(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Log density (k,) nats and gradient (k, p) by all points."""
        return self.posterior.value_and_gradient(params)

    def estimate(self, params: Tensor, anchor: Tensor, anchor_grad: Tensor, generators: ChainGenerators) -> Tensor:
        """An unbiased gradient (k, p) at `params`, from one minibatch seen by both parameter vectors."""
        posterior, k = self.posterior, len(params)
        points, labels, weights = posterior.draw_points(generators, self.size)
        _, both = params_gradient(
            posterior.log_likelihood,
            torch.cat([params, anchor]),
            torch.cat([points, points]),
            torch.cat([labels, labels]),
            torch.cat([weights, weights]),
            each=True,
            own_labels=True,
            at_once=posterior.points_at_once,
        )
        change = (len(posterior.labels) / self.size) * (both[:k] - both[k:])
        return anchor_grad + change + posterior.prior_gradient(params) - posterior.prior_gradient(anchor)
