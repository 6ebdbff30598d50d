"""What a posterior's predictive is asked about: the test set, corrupted images, foreign images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from bpc.data import Dataset, Split
from bpc.seeding import derive_seed
from evaluation.predictive import pick_images

__all__ = ["CORRUPTED", "FOREIGN", "MIXED_CLEAN_IMAGES", "Inputs", "every_corruption", "foreign", "mixed_corruptions"]

FOREIGN, CORRUPTED = "foreign", "corrupted"  # names of inputs
MIXED_IMAGES = 750  # ten for each of 15 corruptions at 5 severities
MIXED_CLEAN_IMAGES = 200  # the images these are made of, where they are generated


class Inputs(NamedTuple):
    """Images with a name: ``test``, ``corrupted``, ``foreign``, or ``fog-3`` for a corruption and its severity."""

    name: str
    split: Split


def mixed_corruptions(corruptions: Iterable[tuple[str, int, Split]], count: int = MIXED_IMAGES) -> Inputs:
    """One set of about `count` images, the same number of every corruption and severity.

    The images of a combination are other ones than its neighbour's, so that the set covers the test images.
    """
    parts = list(corruptions)
    each = max(1, count // len(parts))
    taken = []
    for i, (_, _, split) in enumerate(parts):
        index = (torch.arange(each) + i * each) % len(split)
        taken.append(split.take(index.to(split.images.device)))
    return Inputs(CORRUPTED, _join(taken))


def every_corruption(corruptions: Iterable[tuple[str, int, Split]], images: int) -> list[Inputs]:
    """Each corruption and severity for itself, on `images` images, evenly spaced (0: all)."""
    return [Inputs(f"{name}-{severity}", pick_images(split, images)) for name, severity, split in corruptions]


def foreign(split: Split, dataset: Dataset, count: int = 500) -> Inputs:
    """Inputs that show nothing: images of `split` with their pixels in one random order, the same for all.

    They have the statistics of the data, pixel for pixel and channel for channel, and no object; they need no second dataset,
    so the number means the same everywhere. The labels are those of the images before, and mean nothing.
    """
    picked = pick_images(split, count)
    images = picked.images
    c, h, w = dataset.image_shape
    generator = torch.Generator().manual_seed(derive_seed(0, "foreign", c, h, w))
    order = torch.randperm(h * w, generator=generator).to(images.device)
    shuffled = images.reshape(len(images), c, h * w)[:, :, order].reshape(images.shape)
    return Inputs(FOREIGN, Split(images=shuffled, labels=picked.labels))


def _join(splits: list[Split]) -> Split:
    return Split(images=torch.cat([s.images for s in splits]), labels=torch.cat([s.labels for s in splits]))
