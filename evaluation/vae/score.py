"""Numbers of a trained VAE on a test set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.seeding import make_generator
from bpc.vae.bound import active_units, log_likelihood
from bpc.vae.data import ImageData, batches, pick, present
from bpc.vae.models import LatentModel
from bpc.vae.priors import Prior
from bpc.vae.train import validate
from evaluation.vae.tasks import knn_accuracy, latents

__all__ = ["VaeScores", "score"]


class VaeScores(NamedTuple):
    """Metrics by name, and log p(x) of each test image that it was estimated for, nats."""

    metrics: dict[str, float]
    log_likelihoods: Tensor


@torch.no_grad()
def score(
    model: LatentModel,
    prior: Prior,
    data: ImageData,
    *,
    samples: int,
    test_images: int,
    seed: int,
    knn: bool = True,
    report: Callable[[int], None] = lambda done: None,
) -> VaeScores:
    """Bound, its terms and active units on the whole test set; log-likelihood by importance sampling on `test_images` of it.

    Args:
        samples: of importance sampling, S.
        test_images: 0 is all.
        knn: whether to classify latents by their neighbours, where there are labels.
        report: called with test images done.
    """
    model.eval()
    prior.eval()
    elbo, reconstruction, kl = validate(model, prior, data.test, seed)
    few = pick(data.test, test_images)
    generator = make_generator(few.images.device, seed, "importance sampling")
    mixture = prior.components(model)
    found: list[Tensor] = []
    for index in batches(len(few), 50, None):
        x = present(few, index, model.likelihood, generator)
        found.append(log_likelihood(model, prior, x, generator, samples=samples, mixture=mixture).cpu())
        report(sum(map(len, found)))
    log_lik = torch.cat(found)
    metrics = {
        "nll_is": -float(log_lik.mean()),
        "elbo": elbo,
        "reconstruction": reconstruction,
        "kl": kl,
        "active_units": float(active_units(model, data.test.images).sum()),
    }
    if model.likelihood.name == "logistic":
        metrics["bits_per_dim"] = metrics["nll_is"] / (model.pixels * math.log(2))
    if knn and int(data.train.labels.min()) >= 0:
        train, test = latents(model, data.train.images), latents(model, data.test.images)
        accuracy = knn_accuracy(train, data.train.labels, test, data.test.labels)
        metrics |= {f"knn_accuracy@{k}": value for k, value in accuracy.items()}
    return VaeScores(metrics, log_lik)
