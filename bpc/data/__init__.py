"""Datasets in their official formats, checksummed downloads, corruptions, and a user's own images."""

from bpc.data.cifar import CORRUPTIONS, EXTRA_CORRUPTIONS, CorruptedCifar10
from bpc.data.corrupted import GeneratedCorruptions, load_corrupted
from bpc.data.corruptions import corrupt
from bpc.data.dataset import Dataset, ImageParts, Split, normalise
from bpc.data.records import DATASETS, UNLABELLED, DatasetRecord, DefaultSettings, UnlabelledRecord, default_settings
from bpc.data.registry import (
    DatasetStatus,
    dataset_names,
    describe_datasets,
    load_cifar10c,
    load_dataset,
    load_unlabelled,
    unlabelled_names,
)

__all__ = [
    "CORRUPTIONS",
    "DATASETS",
    "EXTRA_CORRUPTIONS",
    "UNLABELLED",
    "CorruptedCifar10",
    "Dataset",
    "DatasetRecord",
    "DatasetStatus",
    "DefaultSettings",
    "GeneratedCorruptions",
    "ImageParts",
    "Split",
    "UnlabelledRecord",
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
