"""Corrupted test sets: the official CIFAR-10-C files where they are, else generated from a dataset's own test images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bpc.data.cifar import CIFAR10C, CORRUPTIONS, SEVERITIES, CorruptedCifar10
from bpc.data.corruptions import corrupt
from bpc.data.dataset import Dataset, Split
from bpc.data.frost import use_frost_of
from bpc.data.registry import load_cifar10c
from bpc.data.sources import find_folder
from bpc.errors import DataError, unknown_name

__all__ = ["GeneratedCorruptions", "load_corrupted"]


class GeneratedCorruptions:
    """Corruptions of a split, made when they are asked for; an iterable of (corruption, severity, `Split`).

    Args:
        split: the clean images.
        corruptions: which ones; the standard 15 by default.
        seed: of their randomness.
        index: (n,) the number of each image in a larger set, whose corruptions these images then have; 0 to n - 1 by default.

    Attributes:
        corruptions: in the order of iteration.
        images_per_severity: n.
        source: ``generated``.
    """

    source = "generated"

    def __init__(
        self,
        split: Split,
        corruptions: Sequence[str] | None = None,
        *,
        seed: int = 0,
        index: Sequence[int] | None = None,
    ) -> None:
        self.corruptions = tuple(CORRUPTIONS if corruptions is None else corruptions)
        for corruption in self.corruptions:
            if corruption not in CORRUPTIONS:
                raise unknown_name("corruption", corruption, CORRUPTIONS)
        self.clean, self.seed, self.index = split, seed, index
        self.images_per_severity = len(split)

    def __len__(self) -> int:
        return len(self.corruptions) * len(SEVERITIES)

    def __iter__(self) -> Iterator[tuple[str, int, Split]]:
        for corruption in self.corruptions:
            for severity in SEVERITIES:
                yield corruption, severity, self.split(corruption, severity)

    def split(self, corruption: str, severity: int) -> Split:
        """The images and labels of one corruption at one severity, 1 to 5, on the CPU."""
        images = corrupt(self.clean.images, corruption, severity, seed=self.seed, index=self.index)
        return Split(images=images, labels=self.clean.labels.cpu())


def load_corrupted(
    dataset: Dataset,
    *,
    data_root: Path | str | None = None,
    official: bool = True,
    images: int = 0,
    corruptions: Sequence[str] | None = None,
    seed: int = 0,
) -> CorruptedCifar10 | GeneratedCorruptions:
    """Corrupted test images of a dataset; `source` says which.

    Args:
        dataset: for CIFAR-10 the official CIFAR-10-C files are used where they are found (they are never downloaded here:
            2.9 GB); every other dataset's are generated from its test images.
        data_root: see `bpc.data.load_dataset`.
        official: use the official files; False where `dataset.test` is not the test set (a validation split).
        images: of the test set, evenly spaced, that are corrupted where they are generated; 0 is all. They come out as they
            would among all.
        corruptions: which ones; the standard 15 by default.
        seed: of the generator.

    Raises:
        DataError: images that the generator cannot corrupt.
    """
    if official and dataset.name == "cifar10" and find_folder(CIFAR10C, data_root) is not None:
        return load_cifar10c(None if data_root is None else Path(data_root), corruptions=corruptions, download=False)
    c, h, w = dataset.image_shape
    if c not in (1, 3) or min(h, w) < 8:
        raise DataError(
            f"Corruptions are for images of 1 or 3 channels and 8 pixels a side; {dataset.name} has {(c, h, w)}."
        )
    use_frost_of(data_root)
    split = dataset.test
    if not 0 < images < len(split):
        return GeneratedCorruptions(split, corruptions, seed=seed)
    index = torch.linspace(0, len(split) - 1, images).round().long()
    picked = split.take(index.to(split.images.device))
    return GeneratedCorruptions(picked, corruptions, seed=seed, index=index.tolist())
