"""Datasets by name: found in the data root or the user cache, else downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bpc.data import celeba, digits, folders, idx, svhn, unlabelled  # noqa: F401  they register their datasets
from bpc.data.cifar import CIFAR10C, CorruptedCifar10
from bpc.data.dataset import Dataset, ImageParts
from bpc.data.download import DownloadError, install
from bpc.data.own import load_own, own_path
from bpc.data.records import DATASETS, UNLABELLED
from bpc.data.sources import Source, find_archive, find_folder, resolve_root, root_problem, search_places
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


class DatasetStatus(NamedTuple):
    """Whether a dataset's files are at hand, and where they are or could come from."""

    name: str
    found: bool
    where: str


def dataset_names() -> tuple[str, ...]:
    """The names that `load_dataset` knows; it also takes a path to own data."""
    return DATASETS.names()


def unlabelled_names() -> tuple[str, ...]:
    """The names that `load_unlabelled` knows."""
    return UNLABELLED.names()


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
    if name in DATASETS:
        record = DATASETS.get(name)
        folder = () if record.source is None else (_locate(record.source, data_root, download=download),)
        dataset = record.read(*folder)
    elif name in UNLABELLED:
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
    record = UNLABELLED.get(name)
    if limit < 0:
        raise ConfigError(f"The limit of training images is {limit}; expected 0 (all) or more.")
    generator = make_generator("cpu", seed, "split", name)
    return record.read(_locate(record.source, data_root, download=download), generator, limit)


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
    rows = []
    for name, source in (
        *((r.name, r.source) for r in DATASETS),
        (CIFAR10C.name, CIFAR10C),
        *((r.name, r.source) for r in UNLABELLED),
    ):
        if source is None:
            rows.append(DatasetStatus(name, True, "needs no file"))
            continue
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
    elif root is not None and (problem := root_problem(root)):
        reason = f"Nothing is downloaded, because the data root {root} {problem}."
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
