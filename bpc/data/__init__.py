"""Datasets in their official formats, checksummed downloads, corruptions, and a user's own images."""

from bpc.data.cifar import CORRUPTIONS, EXTRA_CORRUPTIONS, CorruptedCifar10
from bpc.data.corrupted import GeneratedCorruptions, load_corrupted
from bpc.data.corruptions import corrupt
from bpc.data.dataset import Dataset, Split, normalise
from bpc.data.defaults import DefaultSettings, default_settings
from bpc.data.registry import (
    DatasetStatus,
    dataset_names,
    describe_datasets,
    load_cifar10c,
    load_dataset,
    load_unlabelled,
    unlabelled_names,
)
from bpc.data.unlabelled import ImageParts

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "CorruptedCifar10",
    "Dataset",
    "DatasetStatus",
    "DefaultSettings",
    "GeneratedCorruptions",
    "ImageParts",
    "Split",
    "corrupt",
    "dataset_names",
    "default_settings",
    "describe_datasets",
    "load_cifar10c",
    "load_corrupted",
    "load_dataset",
    "load_unlabelled",
    "normalise",
    "unlabelled_names",
]
