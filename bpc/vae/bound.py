"""The evidence lower bound and the importance-sampled log-likelihood of images."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.vae.models import LatentModel
from bpc.vae.priors import Components, Prior
from bpc.vae.priors.base import log_mixture

__all__ = ["Bound", "active_units", "elbo", "log_likelihood"]


class Bound(NamedTuple):
    """Per image, (n,) nats: elbo = reconstruction - kl."""

    reconstruction: Tensor  # E_q log p(x | latents), one draw
    kl: Tensor  # E_q [log q(latents | x) - log p(latents)], the same draw

    @property
    def elbo(self) -> Tensor:
        """(n,) nats."""
        return self.reconstruction - self.kl


def elbo(model: LatentModel, prior: Prior, x: Tensor, generator: torch.Generator, own: Tensor | None = None) -> Bound:
    """The bound's two terms at one draw of the latents (Eq. 9 of Ai et al. 2021; Eq. 3 of Tomczak and Welling 2018).

    Args:
        model, prior: what is evaluated.
        x: (n, c, h, w) in [0, 1]; binary where the likelihood is.
        generator: of the draw.
        own: (n,) training images that x are, whose own exemplars are left out.
    """
    terms = model.terms(x, generator)
    return Bound(terms.log_lik, terms.log_q - terms.inner - prior.log_prob(terms.z, model, own))


@torch.no_grad()
def log_likelihood(
    model: LatentModel,
    prior: Prior,
    x: Tensor,
    generator: torch.Generator,
    *,
    samples: int = 5000,
    rows: int = 20_000,
    mixture: Components | None = None,
) -> Tensor:
    """Log-likelihood log p(x) by importance sampling from q, (n,) nats: log 1/S sum_s p(x, z_s) / q(z_s | x) (Burda et al. 2016).

    A lower bound in expectation, which tightens as `samples` grows. The prior's components are computed once.

    Args:
        model, prior, x, generator: as for `elbo`.
        samples: S, importance samples of each x.
        rows: draws held at once; bounds the memory.
        mixture: the prior's components, if the caller has them.
    """
    mixture = prior.components(model) if mixture is None else mixture
    n = len(x)
    each = max(1, min(samples, rows // n))
    total, done = torch.full((n,), -math.inf, device=x.device, dtype=torch.float64), 0
    while done < samples:
        count = min(each, samples - done)
        terms = model.terms(x, generator, repeats=count)
        log_weight = terms.log_lik + terms.inner - terms.log_q + log_mixture(terms.z, mixture)
        total = torch.logaddexp(total, log_weight.double().view(n, count).logsumexp(1))
        done += count
    return total - math.log(samples)


@torch.no_grad()
def active_units(model: LatentModel, x: Tensor, threshold: float = 0.01) -> Tensor:
    """Which coordinates of the top latent carry information, (d,): Cov_x[E_q z] > threshold (Burda et al. 2016)."""
    means = torch.cat([model.encode(part)[0] for part in x.split(1000)])
    return means.var(0) > threshold
