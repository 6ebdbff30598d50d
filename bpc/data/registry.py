"""Datasets by name: found in the data root or the user cache, else downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from bpc.data.celeba import CELEBA, load_celeba
from bpc.data.cifar import CIFAR10, CIFAR10C, CIFAR100, CorruptedCifar10, load_cifar10, load_cifar100
from bpc.data.dataset import Dataset
from bpc.data.digits import load_digits
from bpc.data.download import DownloadError, install
from bpc.data.folders import IMAGENETTE, load_imagenette
from bpc.data.idx import FASHION_MNIST, MNIST, load_fashion_mnist, load_mnist
from bpc.data.own import load_own, own_path
from bpc.data.sources import Source, find_archive, find_folder, resolve_root, search_places
from bpc.data.svhn import SVHN, load_svhn
from bpc.data.unlabelled import (
    CALTECH101_SILHOUETTES,
    FREY_FACES,
    HISTOPATHOLOGY,
    OMNIGLOT,
    STATIC_MNIST,
    ImageParts,
    load_caltech101_silhouettes,
    load_frey_faces,
    load_histopathology,
    load_omniglot,
    load_static_mnist,
)
from bpc.errors import ConfigError, DataError, StorageError, unknown_name
from bpc.seeding import make_generator

__all__ = [
    "DatasetStatus",
    "dataset_names",
    "describe_datasets",
    "load_cifar10c",
    "load_dataset",
    "load_unlabelled",
    "unlabelled_names",
]

_IN_FILES: dict[str, tuple[Source, Callable[[Path], Dataset]]] = {
    source.name: (source, read)
    for source, read in (
        (CIFAR10, load_cifar10),
        (CIFAR100, load_cifar100),
        (MNIST, load_mnist),
        (FASHION_MNIST, load_fashion_mnist),
        (IMAGENETTE, load_imagenette),
        (SVHN, load_svhn),
    )
}

# Images for density estimation, each read with a generator for its random split and a limit of training images.
_UNLABELLED: dict[str, tuple[Source, Callable[[Path, torch.Generator, int], ImageParts]]] = {
    STATIC_MNIST.name: (STATIC_MNIST, lambda folder, generator, limit: load_static_mnist(folder)),
    FREY_FACES.name: (FREY_FACES, lambda folder, generator, limit: load_frey_faces(folder, generator)),
    OMNIGLOT.name: (OMNIGLOT, lambda folder, generator, limit: load_omniglot(folder, generator)),
    CALTECH101_SILHOUETTES.name: (
        CALTECH101_SILHOUETTES,
        lambda folder, generator, limit: load_caltech101_silhouettes(folder),
    ),
    HISTOPATHOLOGY.name: (HISTOPATHOLOGY, lambda folder, generator, limit: load_histopathology(folder)),
    CELEBA.name: (CELEBA, lambda folder, generator, limit: load_celeba(folder, limit)),
}


class DatasetStatus(NamedTuple):
    """Whether a dataset's files are at hand, and where they are or could come from."""

    name: str
    found: bool
    where: str


def dataset_names() -> tuple[str, ...]:
    """The names that `load_dataset` knows; it also takes a path to own data."""
    return ("digits", *_IN_FILES)


def unlabelled_names() -> tuple[str, ...]:
    """The names that `load_unlabelled` knows."""
    return tuple(_UNLABELLED)


def load_dataset(
    name: str,
    *,
    data_root: Path | None = None,
    validation_fraction: float = 0.0,
    seed: int = 0,
    download: bool = True,
) -> Dataset:
    """Load a dataset by name, or a user's own by path.

    Args:
        name: one of `dataset_names()`, or a path as `bpc.data.own.load_own` takes it; ``path@64`` scales the
            images of a folder to 64x64.
        data_root: the folder that holds the datasets' folders (or is one itself); without it
            ``BPC_DATA_ROOT``. The user cache comes next, a download last.
        validation_fraction: in (0, 1), this share of each class's training images takes the place of the test
            split, drawn from `seed`; 0 keeps the test split.
        seed: of that draw, and of nothing else.
        download: whether to download what is not found. A data root that does not exist is a mistake to be
            corrected, so nothing is downloaded then either.

    Returns:
        The dataset on the CPU.

    Raises:
        ConfigError: the name is neither known nor a path, or the fraction is out of range.
        DataError: the files are missing and cannot be downloaded, or are truncated or corrupt.
    """
    if not 0 <= validation_fraction < 1:
        raise ConfigError(f"The validation fraction is {validation_fraction}; expected 0 (none) or more, below 1.")
    if name == "digits":
        dataset = load_digits()
    elif name in _IN_FILES:
        source, read = _IN_FILES[name]
        dataset = read(_locate(source, data_root, download=download))
    elif name in _UNLABELLED:
        raise ConfigError(
            f"Dataset {name} has no labels: it is for `run.py vae`. Choose from {', '.join(dataset_names())}."
        )
    else:
        own = own_path(name)
        if own is None and (os.sep in name or Path(name).suffix):
            raise DataError(
                f"There is no file or folder {name}. Check the path, or choose from {', '.join(dataset_names())}."
            )
        if own is None:
            raise unknown_name("dataset", name, dataset_names(), hint="A path to your own data also works.")
        dataset = load_own(own[0], side=own[1])
    if validation_fraction > 0:
        dataset = dataset.hold_out(validation_fraction, make_generator("cpu", seed, "validation", dataset.name))
    return dataset


def load_unlabelled(
    name: str, *, data_root: Path | None = None, seed: int = 0, limit: int = 0, download: bool = True
) -> ImageParts:
    """Load the training, validation and test images of a dataset for density estimation, split as in the papers.

    Args:
        name: one of `unlabelled_names()`.
        data_root: see `load_dataset`.
        seed: of the random split of frey_faces and omniglot; the others come split.
        limit: see `load_celeba`; the others are small and always whole.
        download: see `load_dataset`.

    Raises:
        ConfigError: an unknown name, or a negative limit.
        DataError: the files are missing and cannot be downloaded, or are truncated or corrupt.
    """
    if name not in _UNLABELLED:
        raise unknown_name("dataset", name, unlabelled_names())
    if limit < 0:
        raise ConfigError(f"The limit of training images is {limit}; expected 0 (all) or more.")
    source, read = _UNLABELLED[name]
    generator = make_generator("cpu", seed, "split", name)
    return read(_locate(source, data_root, download=download), generator, limit)


def load_cifar10c(
    data_root: Path | None = None, *, corruptions: Sequence[str] | None = None, download: bool = True
) -> CorruptedCifar10:
    """CIFAR-10-C, an iterable of (corruption, severity, `Split`); the search is that of `load_dataset`.

    Args:
        data_root: see `load_dataset`.
        corruptions: which ones; the standard 15 by default.
        download: whether to download what is not found (2.9 GB).

    Raises:
        ConfigError: an unknown corruption.
        DataError: files are missing, truncated or of another shape.
    """
    return CorruptedCifar10(_locate(CIFAR10C, data_root, download=download), corruptions)


def describe_datasets(data_root: Path | None = None) -> list[DatasetStatus]:
    """What is at hand: a row for each dataset, CIFAR-10-C and each of `unlabelled_names()`. Reads no file."""
    rows = [DatasetStatus("digits", True, "comes with scikit-learn")]
    labelled, unlabelled = ([source for source, _ in group.values()] for group in (_IN_FILES, _UNLABELLED))
    for source in (*labelled, CIFAR10C, *unlabelled):
        size = f"{source.megabytes:,} MB" if source.megabytes else "small"
        folder = find_folder(source, data_root)
        archive = find_archive(source, data_root)
        if folder is not None:
            rows.append(DatasetStatus(source.name, True, str(folder)))
        elif archive is not None:
            rows.append(DatasetStatus(source.name, True, f"{archive}, to be unpacked"))
        elif not source.remotes:
            rows.append(DatasetStatus(source.name, False, f"not downloadable: {source.by_hand}"))
        else:
            rows.append(DatasetStatus(source.name, False, f"downloaded at first use ({size})"))
    return rows


def _locate(source: Source, data_root: Path | None, *, download: bool) -> Path:
    """The dataset's folder, installed into the cache if need be."""
    folder = find_folder(source, data_root)
    if folder is not None:
        return folder
    archive = find_archive(source, data_root)
    if archive is not None:
        return install(source, archive)
    root = resolve_root(data_root)
    if not source.remotes:
        reason = f"It cannot be downloaded from here: {source.by_hand}."
    elif not download:
        reason = "Downloading is turned off."
    elif root is not None and not root.is_dir():
        reason = f"Nothing is downloaded, because the data root {root} does not exist."
    else:
        try:
            return install(source)
        except DownloadError as error:
            reason = f"The download from {source.remotes[0].url} failed ({error})."
        except StorageError as error:
            reason = f"It cannot be downloaded: {str(error).rstrip('.')}."
    raise DataError(
        f"Dataset {source.name} is missing. Looked for a folder {source.folders[0]}/ with {source.contents}, "
        f"in: {', '.join(search_places(source, data_root))}. {reason} Put the files in a folder and name it "
        "with --data-root or BPC_DATA_ROOT; --dataset digits needs no files."
    )
