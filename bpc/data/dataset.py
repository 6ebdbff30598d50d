"""An image classification dataset in memory: uint8 images, so CIFAR-10 is 180 MB and not 740."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.errors import DataError

__all__ = ["Dataset", "ImageParts", "Split", "normalise"]


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Pixels (n, c, h, w), uint8 in 0..255 or float in [0, 1], as float32 with each channel's mean and std removed."""
    if images.dtype == torch.uint8:
        images = images.float().div_(255.0)
    shape = (1, -1, 1, 1)
    offset = torch.tensor(mean, dtype=images.dtype, device=images.device).view(shape)
    scale = torch.tensor(std, dtype=images.dtype, device=images.device).view(shape)
    return (images - offset) / scale


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images (n, c, h, w) uint8 and labels (n,) int64."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise DataError(
                f"Images must be uint8 of shape (n, c, h, w); got {self.images.dtype} {tuple(self.images.shape)}."
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise DataError(
                f"Labels must be int64 of shape ({len(self.images)},); "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """16 hex digits of every pixel and label, in order: what a cache of anything made from this split is keyed by."""
        found = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.dtype}".encode())
        found.update(self.images.detach().cpu().contiguous().numpy().tobytes())
        found.update(self.labels.detach().cpu().long().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def take(self, index: Tensor) -> Split:
        """The examples at `index`, in that order."""
        return Split(images=self.images[index], labels=self.labels[index])

    def to(self, device: torch.device | str) -> Split:
        """The same split on `device`."""
        return Split(images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A training and a test split with the channel statistics that images are normalised by.

    Attributes:
        name: the name it is loaded by, e.g. ``cifar10``.
        train, test: the splits.
        mean, std: one number a channel, on pixels in [0, 1].
        class_names: one name a class, in label order.
    """

    name: str
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        channels = self.train.images.shape[1]
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {tuple(self.train.images.shape[1:])} and test images "
                f"{tuple(self.test.images.shape[1:])}; they must agree."
            )
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise DataError(f"{self.name}: mean and std need {channels} numbers each, std positive.")
        for part, split in (("training", self.train), ("test", self.test)):
            if len(split) == 0:
                raise DataError(f"{self.name}: the {part} split is empty.")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.num_classes:
                raise DataError(
                    f"{self.name}: {part} labels run from {low} to {high}; expected 0 to {self.num_classes - 1}."
                )

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        c, h, w = self.train.images.shape[1:]
        return int(c), int(h), int(w)

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels (n, c, h, w), uint8 or float in [0, 1], as the network sees them."""
        return normalise(images, self.mean, self.std)

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset on `device`, still uint8."""
        return dataclasses.replace(self, train=self.train.to(device), test=self.test.to(device))

    def hold_out(self, fraction: float, generator: torch.Generator) -> Dataset:
        """Replace the test split by a stratified `fraction` of the training split, which loses those images.

        Settings are chosen on such a split, so the test set is touched once.
        """
        if not 0 < fraction < 1:
            raise DataError(f"The validation fraction must lie between 0 and 1; got {fraction}.")
        held: list[Tensor] = []
        kept: list[Tensor] = []
        labels = self.train.labels.cpu()
        for y in range(self.num_classes):
            members = torch.nonzero(labels == y).flatten()
            members = members[torch.randperm(len(members), generator=generator)]
            cut = max(1, round(fraction * len(members))) if len(members) > 1 else 0
            held.append(members[:cut])
            kept.append(members[cut:])
        test_index, train_index = torch.cat(held).sort().values, torch.cat(kept).sort().values
        return dataclasses.replace(self, train=self.train.take(train_index), test=self.train.take(test_index))


class ImageParts(NamedTuple):
    """Images (n, c, h, w), uint8 or float32 in [0, 1], of the training, validation and test split."""

    train: Tensor
    validation: Tensor
    test: Tensor
