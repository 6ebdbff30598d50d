"""The record of a dataset: how it is read, and what the commands use for it where a flag says nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bpc.data.dataset import Dataset, ImageParts
from bpc.data.sources import Source
from bpc.registry import Registry

__all__ = ["DATASETS", "UNLABELLED", "DatasetRecord", "DefaultSettings", "UnlabelledRecord", "default_settings"]


PUBLISHED_AUGMENT = "color_crop_cutout_flip_scale_rotate"  # of Kim et al. (2022)


@dataclass(frozen=True, kw_only=True)
class DefaultSettings:
    """What a command uses for a dataset where its flag is not given.

    Attributes:
        width, depth: of the ConvNet.
        augment: of experts and coresets.
        sampler_augment: of A-SGHMC, for a coreset that was learned without augmentation.
        expert_lr, expert_batch, epochs, num_experts: of the expert trajectories.
        preset: how coresets are learned.
        ssl_preset: how classifiers are learned from few labels.
        components: of a VAE's prior.
        likelihood: what Tomczak and Welling (2018) model its pixels by: Bernoulli if they are binary or binarised, else a
            discretised logistic.
    """

    width: int = 128
    depth: int = 3
    augment: str = PUBLISHED_AUGMENT
    sampler_augment: str = PUBLISHED_AUGMENT
    expert_lr: float = 0.01
    expert_batch: int = 256
    epochs: int = 50
    num_experts: int = 100
    preset: str = "kim2022"
    ssl_preset: str = "mnist"
    components: int = 500
    likelihood: str = "logistic"


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """A labelled dataset.

    Attributes:
        read: reads it from its folder, or without a folder if it has no `source`.
        source: its files; None for one that comes with an installed package.
        defaults: see `DefaultSettings`.
        published: its name in the tables of each paper: ``{"kim2022": "CIFAR10"}``.
    """

    name: str
    read: Callable[..., Dataset]
    source: Source | None
    defaults: DefaultSettings = field(default_factory=DefaultSettings)
    published: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class UnlabelledRecord:
    """Images for density estimation, split as in the papers.

    Attributes:
        source: its files.
        read: reads it from its folder, with a generator for a random split and a limit of training images.
        defaults, published: as for `DatasetRecord`.
    """

    name: str
    source: Source
    read: Callable[[Path, torch.Generator, int], ImageParts]
    defaults: DefaultSettings = field(default_factory=DefaultSettings)
    published: Mapping[str, str] = field(default_factory=dict)


DATASETS: Registry[DatasetRecord] = Registry("dataset")
UNLABELLED: Registry[UnlabelledRecord] = Registry("dataset")


def default_settings(name: str) -> DefaultSettings:
    """What commands use for a dataset of this name; a path to own data has the defaults of a dataset that sets none."""
    for registry in (DATASETS, UNLABELLED):
        if name in registry:
            return registry.get(name).defaults
    return DefaultSettings()
