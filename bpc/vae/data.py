"""Images for density estimation: training, validation and test, as the VAE papers split and binarise them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bpc.data import dataset_names, load_dataset, load_unlabelled, unlabelled_names
from bpc.errors import unknown_name
from bpc.vae.likelihoods import PixelLikelihood

__all__ = ["LIMIT", "ImageData", "ImageSplit", "batches", "image_dataset_names", "load_images", "present"]

LIMIT = 20_000


@dataclass(frozen=True)
class ImageSplit:
    """Images (n, c, h, w) float32 in [0, 1] and labels (n,) int64 (-1 where the dataset has none)."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> ImageSplit:
        """The same on `device`."""
        return ImageSplit(self.images.to(device), self.labels.to(device))

    def take(self, index: Tensor) -> ImageSplit:
        """The images at `index`."""
        return ImageSplit(self.images[index], self.labels[index])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageData:
    """A dataset for density estimation."""

    name: str
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        c, h, w = self.train.images.shape[1:]
        return int(c), int(h), int(w)

    def to(self, device: torch.device | str) -> ImageData:
        """The same on `device`."""
        return ImageData(self.name, self.train.to(device), self.validation.to(device), self.test.to(device))


def batches(n: int, size: int, order: torch.Generator | None) -> Iterator[Tensor]:
    """Indices of 0 .. n - 1 in batches, shuffled by `order` if it is given; the last one may be smaller."""
    index = torch.arange(n) if order is None else torch.randperm(n, generator=order)
    yield from index.split(size)


def present(split: ImageSplit, index: Tensor, likelihood: PixelLikelihood, generator: torch.Generator) -> Tensor:
    """The images at `index` as the model sees them: for a binary likelihood each pixel is drawn with its grey value as
    probability (dynamic binarisation; images that are binary already stay what they are).
    """
    x = split.images[index.to(split.images.device)]
    if not likelihood.binary:
        return x
    return (torch.rand(x.shape, generator=generator, device=x.device) < x).to(x.dtype)


def image_dataset_names() -> tuple[str, ...]:
    """The names that `load_images` knows."""
    return (*dataset_names(), *unlabelled_names())


def load_images(name: str, data_root: Path | None = None, seed: int = 0, *, limit: int = LIMIT) -> ImageData:
    """Load a dataset by name, split as in the papers.

    Validation images are the published ones where there are such (static_mnist, caltech101_silhouettes, histopathology,
    celeba), drawn from `seed` for omniglot (1,345 of 24,345) and frey_faces (200, and 200 to test, of 1,965), and else
    the last sixth of the training images, so 10,000 of MNIST's.

    Args:
        name: one of `image_dataset_names()`; mnist is binarised anew at every look (`present`), static_mnist never.
        data_root: where its folder is looked for first; see `bpc.data.load_dataset`.
        seed: of the random splits.
        limit: of celeba only: at most so many training images, and a quarter as many each of the validation and the test
            images, evenly spaced, since 30,000 of its images take 1.5 GB and all of them 10 GB; 0 takes all.

    Raises:
        ConfigError: an unknown name.
        DataError: the files are missing and cannot be downloaded, or are truncated or corrupt.
    """
    if name not in image_dataset_names():
        raise unknown_name("dataset", name, image_dataset_names())
    if name in unlabelled_names():
        parts = load_unlabelled(name, data_root=data_root, seed=seed, limit=limit)
        splits = [_split(images, torch.full((len(images),), -1)) for images in parts]
    else:
        data = load_dataset(name, data_root=data_root)
        train, test = (_split(part.images, part.labels) for part in (data.train, data.test))
        held = len(train) // 6
        kept, last = torch.arange(len(train)).split((len(train) - held, held))
        splits = [train.take(kept), train.take(last), test]
    return ImageData(name, splits[0], splits[1], splits[2])


def _split(images: Tensor, labels: Tensor) -> ImageSplit:
    return ImageSplit(images.float() / 255.0 if images.dtype == torch.uint8 else images, labels)


def pick(split: ImageSplit, count: int) -> ImageSplit:
    """`count` images evenly spaced over the split; all for 0."""
    if count < 1 or count >= len(split):
        return split
    return split.take(torch.linspace(0, len(split) - 1, count).round().long().to(split.images.device))
