"""Priors of the top latent, one file each; `PRIORS` names them."""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.vae.priors.base import Components, Prior, TrainingData
from bpc.vae.priors.bype import BypePrior, DecoderLikelihood
from bpc.vae.priors.exemplar import ExemplarPrior
from bpc.vae.priors.gaussian import MixtureOfGaussians, StandardGaussian
from bpc.vae.priors.record import PRIORS, PriorConfig, PriorRecord
from bpc.vae.priors.vamp import VampPrior

__all__ = [
    "PRIORS", "BypePrior", "Components", "DecoderLikelihood", "ExemplarPrior", "MixtureOfGaussians", "Prior", "PriorConfig",
    "PriorRecord", "StandardGaussian", "TrainingData", "VampPrior", "build_prior",
]  # fmt: skip


def build_prior(config: PriorConfig, latent: int, images: Tensor, generator: torch.Generator) -> Prior:
    """The prior that `config` describes.

    Args:
        config: name and settings.
        latent: d, of the top latent.
        images: the training images (n, c, h, w) in [0, 1], on the device.
        generator: on the CPU: which images it starts from.
    """
    return PRIORS.get(config.name).build(config, latent, images, generator).to(images.device)
