"""What a prior is: a weighted mixture of Gaussians over the top latent, and rules for what of it is learned, how and when.

A new prior is one new file with one class: say what the components are. Everything else (density, draws, importance sampling,
checkpoints) follows from that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bpc.coreset import Pseudocoreset
from bpc.vae.models import LatentModel

__all__ = ["Components", "Prior", "TrainingData", "log_mixture"]


class TrainingData(NamedTuple):
    """What a prior may look at: images (n, c, h, w) in [0, 1], on the device."""

    images: Tensor


class Components(NamedTuple):
    """A mixture of k Gaussians.

    `log_vars` is (k, d), or (1, 1) for one isotropic variance that all share, which costs less.
    """

    means: Tensor  # (k, d)
    log_vars: Tensor
    log_weights: Tensor  # (k,), need not be normalised
    origin: Tensor | None = None  # (k,) which training image each came from, where leaving it out matters


def log_mixture(z: Tensor, mixture: Components, own: Tensor | None = None) -> Tensor:
    """Log density of the mixture, log sum_k w_k N(z; mu_k, Lambda_k) / sum_k w_k, (n,) nats, of z (n, d).

    Squared distances are matrix products: the cost is that of one (n, d) x (d, k) product, not of an (n, k, d) array.

    Args:
        z: (n, d).
        mixture: its components.
        own: (n,) the training image each row belongs to: components made from it are left out.
    """
    means, log_vars, log_weights, origin = mixture
    d = z.shape[1]
    if log_vars.numel() == 1:
        # centred first, so that large common offsets do not cancel
        centre = means.detach().mean(0)
        a, b = z - centre, means - centre
        square = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2.0 * a @ b.T
        log_prob = -0.5 * square.clamp(min=0.0) * (-log_vars).exp() - 0.5 * d * (math.log(2 * math.pi) + log_vars)
    else:
        centre = means.detach().mean(0)
        a, b = z - centre, means - centre
        precision = (-log_vars).exp()
        scaled = b * precision
        square = a.square() @ precision.T - 2.0 * a @ scaled.T + (b * scaled).sum(1)
        log_prob = -0.5 * (square.clamp(min=0.0) + log_vars.sum(1) + d * math.log(2 * math.pi))
    log_prob = log_prob + log_weights
    if own is None or origin is None:
        return log_prob.logsumexp(1) - log_weights.logsumexp(0)
    left_out = origin == own.unsqueeze(1)
    kept = log_weights.expand_as(log_prob).masked_fill(left_out, -math.inf)
    return log_prob.masked_fill(left_out, -math.inf).logsumexp(1) - kept.logsumexp(1)


class Prior(nn.Module):
    """p(z) of the top latent.

    Parameters (`nn.Parameter`) are learned with the model by the bound; buffers are state that the prior changes itself in
    `begin_epoch`. Both go into checkpoints.

    Attributes:
        name: in tables and files.
    """

    name: str

    def components(self, model: LatentModel) -> Components:
        """The mixture as it is now, with a graph to whatever is learned."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int, model: LatentModel, data: TrainingData, generator: torch.Generator) -> None:
        """Before epoch 1, 2, ...: choose exemplars, update a coreset; most priors do nothing."""

    def log_prob(self, z: Tensor, model: LatentModel, own: Tensor | None = None) -> Tensor:
        """Log p(z), (n,) nats; `own` as for `log_mixture`."""
        return log_mixture(z, self.components(model), own)

    def sample(self, n: int, model: LatentModel, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """N draws (n, d), and which component each came from, (n,)."""
        means, log_vars, log_weights, _ = self.components(model)
        device = means.device
        chosen = torch.multinomial(log_weights.softmax(0), n, replacement=True, generator=generator)
        noise = torch.randn(n, means.shape[1], generator=generator, device=device)
        scale = (0.5 * log_vars).exp()
        return means[chosen] + (scale if log_vars.numel() == 1 else scale[chosen]) * noise, chosen

    def pseudo_inputs(self) -> tuple[Tensor, Tensor] | None:
        """Images (k, c, h, w) that the components stand on and their weights (k,), for pictures; None if there are none."""
        return None

    def image_log_var(self) -> Tensor | None:
        """Log variance of the component N(mu(x), sigma^2 I) that stands on an image x; None if there is none."""
        return None

    def pseudocoreset(self, dataset: str) -> Pseudocoreset | None:
        """The weighted images that the prior has learned, to be saved and handed on; None if it learns none.

        Args:
            dataset: the name of what the prior was trained on.
        """
        return None
