"""CIFAR-10 and CIFAR-100 in the official binary version, and CIFAR-10-C in the official .npy files.

A CIFAR record is one label byte (CIFAR-100: a coarse and a fine one) and 3,072 pixel bytes: the red, green
and blue planes, each 32x32 and row-major.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bpc.data.dataset import Dataset, Split
from bpc.data.records import DATASETS, DatasetRecord, DefaultSettings
from bpc.data.sources import RESTORE, RemoteFile, Source, bad_file, reading
from bpc.errors import DataError, unknown_name

__all__ = [
    "CIFAR10",
    "CIFAR10C",
    "CIFAR100",
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "CorruptedCifar10",
    "load_cifar10",
    "load_cifar100",
]

PIXELS = 3 * 32 * 32
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))

CIFAR10 = Source(
    name="cifar10",
    folders=("cifar-10-batches-bin",),
    markers=(*TRAIN_FILES, "test_batch.bin"),
    contents="data_batch_1.bin to data_batch_5.bin, test_batch.bin (the binary version, not the Python one)",
    remotes=(
        RemoteFile(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
    archive=True,
    megabytes=170,
)

CIFAR100 = Source(
    name="cifar100",
    folders=("cifar-100-binary",),
    markers=("train.bin", "test.bin"),
    contents="train.bin, test.bin and fine_label_names.txt (the binary version, not the Python one)",
    remotes=(
        RemoteFile(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            md5="03b5dce01913d631647c71ecec9e9cb8",
        ),
    ),
    archive=True,
    megabytes=169,
)

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)

CIFAR10C = Source(
    name="cifar10c",
    folders=("CIFAR-10-C",),
    markers=tuple(f"{corruption}.npy" for corruption in CORRUPTIONS + EXTRA_CORRUPTIONS),
    contents="gaussian_noise.npy and the other corruptions, and labels.npy",
    remotes=(
        RemoteFile(
            url="https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
            md5="56bf5dcef84df0e2308c6dcbcbbd8499",
        ),
    ),
    archive=True,
    megabytes=2918,
)


def load_cifar10(folder: Path) -> Dataset:
    """Read CIFAR-10 from the files of its binary version, images (n, 3, 32, 32).

    Raises:
        DataError: a file is missing, is not a whole number of records, or holds a label above 9.
    """
    official = dict.fromkeys((*TRAIN_FILES, "test_batch.bin"), 10_000)
    counts = _count_records(folder, official, record=1 + PIXELS)
    return Dataset(
        name="cifar10",
        train=_read_records(folder, TRAIN_FILES, counts, label_bytes=1, classes=10),
        test=_read_records(folder, ("test_batch.bin",), counts, label_bytes=1, classes=10),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        class_names=CIFAR10_CLASSES,
    )


def load_cifar100(folder: Path) -> Dataset:
    """Read CIFAR-100 with its 100 fine labels from the files of its binary version, images (n, 3, 32, 32).

    Raises:
        DataError: a file is missing, is not a whole number of records, holds a label above 99, or there are
            not 100 names.
    """
    counts = _count_records(folder, {"train.bin": 50_000, "test.bin": 10_000}, record=2 + PIXELS)
    path = folder / "fine_label_names.txt"
    with reading(path):
        names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
    if len(names) != 100:
        raise bad_file(path, f"{len(names)} class names", "100, one per line")
    return Dataset(
        name="cifar100",
        train=_read_records(folder, ("train.bin",), counts, label_bytes=2, classes=100),
        test=_read_records(folder, ("test.bin",), counts, label_bytes=2, classes=100),
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
        class_names=names,
    )


def _count_records(folder: Path, official: dict[str, int], *, record: int) -> dict[str, int]:
    """Records in each file of a folder, from the sizes alone; checks them all before any is read."""
    counts = {}
    for name, usual in official.items():
        path = folder / name
        with reading(path):
            size = path.stat().st_size
        if size == 0 or size % record:
            raise bad_file(
                path,
                f"{size:,} bytes",
                f"a whole number of {record:,}-byte records (the official file has {usual * record:,} bytes)",
            )
        counts[name] = size // record
    # A file cut at a record's end has no other sign of it than a neighbour of the official size.
    if any(counts[name] == usual for name, usual in official.items()):
        for name, usual in official.items():
            if counts[name] != usual:
                raise bad_file(
                    folder / name,
                    f"{counts[name] * record:,} bytes, {counts[name]:,} images",
                    f"{usual * record:,} bytes, {usual:,} images, since other files have the official size",
                )
    return counts


def _read_records(
    folder: Path, names: Sequence[str], counts: dict[str, int], *, label_bytes: int, classes: int
) -> Split:
    total = sum(counts[name] for name in names)
    images = np.empty((total, PIXELS), dtype=np.uint8)
    labels = np.empty(total, dtype=np.int64)
    start = 0
    for name in names:
        path = folder / name
        with reading(path):
            raw = np.fromfile(path, dtype=np.uint8)
        stop = start + counts[name]
        if raw.size != counts[name] * (label_bytes + PIXELS):
            raise DataError(f"{path} changed its size while it was read. Wait until it is written, and run again.")
        rows = raw.reshape(counts[name], label_bytes + PIXELS)
        images[start:stop] = rows[:, label_bytes:]
        labels[start:stop] = rows[:, label_bytes - 1]  # CIFAR-100's fine label is the second byte
        if labels[start:stop].max() >= classes:
            raise bad_file(
                path,
                f"labels up to {labels[start:stop].max()}",
                f"labels 0 to {classes - 1} in the binary version",
            )
        start = stop
    return Split(images=torch.from_numpy(images).view(total, 3, 32, 32), labels=torch.from_numpy(labels))


class CorruptedCifar10:
    """CIFAR-10-C: iterating gives (corruption, severity, `Split`), severities 1 to 5 of each corruption.

    The files stay on disk until a severity is asked for: the official ones are 150 MB each.

    Args:
        folder: the folder of the official .npy files, uint8 (5 n, 32, 32, 3), and labels.npy, (5 n,).
        corruptions: which ones; the standard 15 by default.

    Attributes:
        corruptions: the corruptions, in the order of iteration.
        images_per_severity: n, read from the files (10,000 in the official ones).
        source: ``official``.

    Raises:
        DataError: a file is missing, truncated, or of another shape.
        ConfigError: an unknown corruption.
    """

    source = "official"

    def __init__(self, folder: Path, corruptions: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.corruptions = tuple(CORRUPTIONS if corruptions is None else corruptions)
        for corruption in self.corruptions:
            if corruption not in CORRUPTIONS + EXTRA_CORRUPTIONS:
                raise unknown_name("corruption", corruption, CORRUPTIONS + EXTRA_CORRUPTIONS)
        path = folder / "labels.npy"
        labels = open_array(path)
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0 or len(labels) % len(SEVERITIES):
            raise bad_file(
                path,
                f"{labels.dtype} {labels.shape}",
                "integers of shape (5 n,), n labels for each of 5 severities",
            )
        if labels.min() < 0 or labels.max() > 9:
            raise bad_file(path, f"labels from {labels.min()} to {labels.max()}", "labels 0 to 9")
        self._labels = np.array(labels, dtype=np.int64)
        self.images_per_severity = len(labels) // len(SEVERITIES)
        self._images = {corruption: self._open(corruption) for corruption in self.corruptions}

    def _open(self, corruption: str) -> npt.NDArray[Any]:
        path = self.folder / f"{corruption}.npy"
        images = open_array(path)
        expected = (len(self._labels), 32, 32, 3)
        if images.dtype != np.uint8 or images.shape != expected:
            raise bad_file(path, f"{images.dtype} {images.shape}", f"uint8 {expected}, as labels.npy says")
        return images

    def __len__(self) -> int:
        return len(self.corruptions) * len(SEVERITIES)

    def __iter__(self) -> Iterator[tuple[str, int, Split]]:
        for corruption in self.corruptions:
            for severity in SEVERITIES:
                yield corruption, severity, self.split(corruption, severity)

    def split(self, corruption: str, severity: int) -> Split:
        """The images (n, 3, 32, 32) and labels of one corruption at one severity, 1 to 5."""
        if corruption not in self.corruptions:
            raise unknown_name("corruption", corruption, self.corruptions)
        if severity not in SEVERITIES:
            raise DataError(f"Severity {severity} does not exist; choose 1 to 5.")
        n = self.images_per_severity
        part = slice((severity - 1) * n, severity * n)
        images = np.ascontiguousarray(self._images[corruption][part].transpose(0, 3, 1, 2))
        return Split(images=torch.from_numpy(images), labels=torch.from_numpy(self._labels[part].copy()))


def open_array(path: Path) -> npt.NDArray[Any]:
    """Map a .npy file without reading it whole; a pickle or a damaged file is a `DataError`."""
    try:
        with reading(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # ValueError and EOFError, but also what the header's parser raises
        raise bad_file(
            path, f"{path.stat().st_size:,} bytes that do not read as an array", "a whole .npy file", RESTORE
        ) from error
    if not isinstance(array, np.ndarray):
        raise bad_file(path, "an .npz archive", "a single .npy array")
    return array


DATASETS.register(
    DatasetRecord(
        name="cifar10",
        read=load_cifar10,
        source=CIFAR10,
        defaults=DefaultSettings(ssl_preset="pooladzandi2022"),
        published={"kim2022": "CIFAR10", "ai2021": "CIFAR10"},
    )
)
DATASETS.register(
    DatasetRecord(
        name="cifar100",
        read=load_cifar100,
        source=CIFAR100,
        defaults=DefaultSettings(ssl_preset="pooladzandi2022"),
        published={"kim2022": "CIFAR100"},
    )
)
