"""Few labels and many images without: how a dataset is divided for semi-supervised learning."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bpc.data import Dataset, Split
from bpc.errors import ConfigError
from bpc.seeding import make_generator

__all__ = ["SemiSupervised", "batch_of", "divide", "pixels"]


class SemiSupervised(NamedTuple):
    """A labelled and an unlabelled part of the training images, disjoint, and the test images."""

    name: str
    labelled: Split
    unlabelled: Split  # its labels are there for reports on pseudo-labels; training does not look at them
    test: Split
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        c, h, w = self.labelled.images.shape[1:]
        return int(c), int(h), int(w)

    def to(self, device: torch.device | str) -> SemiSupervised:
        """The same on `device`, still uint8."""
        parts = {name: getattr(self, name).to(device) for name in ("labelled", "unlabelled", "test")}
        return self._replace(**parts)


def divide(dataset: Dataset, labelled: int, *, seed: int, unlabelled: int = 0) -> SemiSupervised:
    """Draw `labelled` training images, equally many of each class; the others (or `unlabelled` of them) lose their labels.

    Raises:
        ConfigError: the number is not a positive multiple of the number of classes, or too many are asked for.
    """
    classes = dataset.num_classes
    if labelled < classes or labelled % classes:
        raise ConfigError(
            f"--labelled must be a multiple of the {classes} classes of {dataset.name}, at least {classes}; got {labelled}."
        )
    generator = make_generator("cpu", seed, "labelled", dataset.name)
    labels = dataset.train.labels.cpu()
    order = torch.randperm(len(labels), generator=generator)
    each = labelled // classes
    chosen = []
    for y in range(classes):
        members = order[labels[order] == y]
        if len(members) < each:
            raise ConfigError(f"{dataset.name} has {len(members)} training images of class {y}; {each} were asked for.")
        chosen.append(members[:each])
    index = torch.cat(chosen)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[index] = False
    others = order[rest[order]]
    if not 0 <= unlabelled <= len(others) or len(others) == 0:
        raise ConfigError(f"{dataset.name} has {len(others)} images left for the unlabelled part; got {unlabelled}.")
    others = others[: unlabelled or len(others)]
    return SemiSupervised(
        dataset.name, dataset.train.take(index), dataset.train.take(others), dataset.test, dataset.num_classes
    )


def pixels(images: Tensor) -> Tensor:
    """uint8 images as the model sees them: float32 in [0, 1]."""
    return images.float().div_(255.0)


def batch_of(split: Split, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """`size` images in [0, 1] and their labels, drawn with replacement by `rng` (on the split's device)."""
    index = torch.randint(len(split), (size,), generator=rng, device=split.images.device)
    return pixels(split.images[index]), split.labels[index]
