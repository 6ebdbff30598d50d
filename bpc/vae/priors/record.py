"""The record of a prior: what tables show of it, and how it is built from its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.registry import Registry
from bpc.vae.priors.base import Prior

__all__ = ["PRIORS", "PriorConfig", "PriorRecord", "some_images"]


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Which prior, and its settings; those of other priors are not looked at.

    Attributes:
        name: one of `PRIORS`.
        components: mixture components, pseudo-inputs, exemplars or pseudocoreset points; 0 is all training images (exemplar).
        neighbours: exemplar: nearest exemplars that a training step uses; 0 is all.
        interval: bype: epochs between updates of the pseudocoreset (k).
        step: bype: its first step size (gamma).
        samples: bype: draws of the latent per step (S); 0 is `components`.
        coreset_batch: bype: training images per step (B).
        coreset_steps: bype: steps per update; 0 is one pass over the training images.
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


@dataclass(frozen=True, kw_only=True)
class PriorRecord:
    """A prior of the top latent.

    Attributes:
        name: in files and on the command line.
        label: as a reader sees it.
        build: from settings, the latent's size, the training images (n, c, h, w) on the device, and a CPU generator.
        place: priors stand in tables in the order of this number.
        published: its name in the tables of each paper: ``{"ai2021": "ByPE"}``.
        on_images: whether every image has a component of its own, N(mu(x), sigma^2 I), to draw a companion from.
    """

    name: str
    label: str
    build: Callable[[PriorConfig, int, Tensor, torch.Generator], Prior]
    place: int = 500
    published: Mapping[str, str] = field(default_factory=dict)
    on_images: bool = False


PRIORS: Registry[PriorRecord] = Registry("prior")


def some_images(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the training images (n, c, h, w), each at most once.

    Raises:
        ConfigError: none, or more than there are.
    """
    if not 1 <= count <= len(images):
        raise ConfigError(f"{count} components from {len(images)} training images; give 1 to {len(images)}.")
    return images[torch.randperm(len(images), generator=generator)[:count].to(images.device)]
