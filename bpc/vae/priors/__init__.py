"""Priors of the top latent, one file each; `PRIORS` names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bpc.errors import ConfigError, unknown_name
from bpc.vae.priors.base import Components, Prior, TrainingData
from bpc.vae.priors.bype import BypePrior, DecoderLikelihood
from bpc.vae.priors.exemplar import ExemplarPrior
from bpc.vae.priors.gaussian import MixtureOfGaussians, StandardGaussian
from bpc.vae.priors.vamp import VampPrior

__all__ = [
    "PRIORS", "BypePrior", "Components", "DecoderLikelihood", "ExemplarPrior", "MixtureOfGaussians", "Prior", "PriorConfig",
    "StandardGaussian", "TrainingData", "VampPrior", "build_prior",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Which prior, and its settings; those of other priors are not looked at.

    Attributes:
        name: a key of `PRIORS`.
        components: mixture components, pseudo-inputs, exemplars or pseudocoreset points; 0 is all training images (exemplar).
        neighbours: exemplar: nearest exemplars that a training step uses; 0 is all.
        interval: bype: epochs between updates of the pseudocoreset (k).
        step: bype: its first step size (gamma).
        samples: bype: draws of the latent a step (S); 0 is `components`.
        coreset_batch: bype: training images a step (B).
        coreset_steps: bype: steps an update; 0 is one pass over the training images.
        real_start: vampprior: pseudo-inputs start at training images; False: at the paper's noise, N(0.5, 0.01^2) about grey.
    """

    name: str = "gaussian"
    components: int = 500
    neighbours: int = 0
    interval: int = 10
    step: float = 0.1
    samples: int = 0
    coreset_batch: int = 100
    coreset_steps: int = 0
    real_start: bool = True


Builder = Callable[[PriorConfig, int, Tensor, torch.Generator], Prior]


def _some(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if not 1 <= count <= len(images):
        raise ConfigError(f"{count} components from {len(images)} training images; give 1 to {len(images)}.")
    return images[torch.randperm(len(images), generator=generator)[:count].to(images.device)]


def _vamp(config: PriorConfig, images: Tensor, generator: torch.Generator, *, learn: bool, weights: bool) -> Prior:
    start = _some(images, config.components, generator)
    if learn and not config.real_start:
        start = (0.5 + 0.01 * torch.randn(start.shape, generator=generator)).to(images.device)
    return VampPrior(start, learn_inputs=learn, learn_weights=weights)


PRIORS: dict[str, Builder] = {
    "gaussian": lambda config, latent, images, g: StandardGaussian(latent),
    "mog": lambda config, latent, images, g: MixtureOfGaussians(latent, config.components, g),
    "vampprior": lambda config, latent, images, g: _vamp(config, images, g, learn=True, weights=False),
    "vampprior-data": lambda config, latent, images, g: _vamp(config, images, g, learn=False, weights=False),
    "vampprior-weighted": lambda config, latent, images, g: _vamp(config, images, g, learn=True, weights=True),
    "exemplar": lambda config, latent, images, g: ExemplarPrior(images, config.components, config.neighbours),
    "bype": lambda config, latent, images, g: BypePrior(
        _some(images, config.components, g),
        len(images),
        interval=config.interval,
        step=config.step,
        samples=config.samples,
        batch=config.coreset_batch,
        steps=config.coreset_steps,
    ),
}


def build_prior(config: PriorConfig, latent: int, images: Tensor, generator: torch.Generator) -> Prior:
    """The prior that `config` describes.

    Args:
        config: name and settings.
        latent: d, of the top latent.
        images: the training images (n, c, h, w) in [0, 1], on the device.
        generator: on the CPU: which images it starts from.
    """
    if config.name not in PRIORS:
        raise unknown_name("prior", config.name, PRIORS)
    return PRIORS[config.name](config, latent, images, generator).to(images.device)
