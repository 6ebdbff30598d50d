"""SVHN, house numbers cropped to one digit, in the official MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bpc.data.dataset import Dataset, Split
from bpc.data.mat import read_mat
from bpc.data.records import DATASETS, DatasetRecord, DefaultSettings
from bpc.data.sources import RemoteFile, Source, bad_file

__all__ = ["SVHN", "load_svhn"]

TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"
BASE = "http://ufldl.stanford.edu/housenumbers/"

SVHN = Source(
    name="svhn",
    folders=("svhn", "SVHN"),
    markers=(TRAIN, TEST),
    contents=f"{TRAIN} and {TEST} (the cropped digits)",
    remotes=(
        RemoteFile(url=BASE + TRAIN, md5="e26dedcc434d2e4c54c9b2d4a06d8373"),
        RemoteFile(url=BASE + TEST, md5="eb5a983be6a315427106f1b164d9cef3"),
    ),
    archive=False,
    megabytes=246,
)


def load_svhn(folder: Path) -> Dataset:
    """Read SVHN, images (n, 3, 32, 32), without the extra training images. The files' label 10 is the digit 0.

    Raises:
        DataError: a file is missing or damaged, or its arrays are not images (32, 32, 3, n) and labels (n, 1), 1 to 10.
    """
    return Dataset(
        name="svhn",
        train=_read(folder / TRAIN),
        test=_read(folder / TEST),
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        class_names=tuple(str(y) for y in range(10)),
    )


def _read(path: Path) -> Split:
    arrays = read_mat(path, ("X", "y"))
    images, labels = arrays["X"], arrays["y"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise bad_file(path, f"X is {images.dtype} {images.shape}", "uint8 (32, 32, 3, n)")
    n = images.shape[3]
    if labels.size != n or labels.dtype.kind not in "ui":
        raise bad_file(path, f"y is {labels.dtype} {labels.shape}", f"integers ({n}, 1), one for each image")
    labels = labels.reshape(-1).astype(np.int64)
    if labels.min() < 1 or labels.max() > 10:
        raise bad_file(path, f"labels from {labels.min()} to {labels.max()}", "labels 1 to 10, where 10 is the digit 0")
    pixels = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
    return Split(images=torch.from_numpy(pixels), labels=torch.from_numpy(labels % 10))


DATASETS.register(
    DatasetRecord(
        name="svhn",
        read=load_svhn,
        source=SVHN,
        defaults=DefaultSettings(ssl_preset="pooladzandi2022"),
    )
)
