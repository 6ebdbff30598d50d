"""MNIST and Fashion-MNIST in the official idx files, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from bpc.data.dataset import Dataset, Split
from bpc.data.records import DATASETS, DatasetRecord, DefaultSettings
from bpc.data.sources import RemoteFile, Source, bad_file, reading
from bpc.data.splits import Int64Array, UInt8Array

__all__ = ["FASHION_MNIST", "MNIST", "load_fashion_mnist", "load_mnist", "read_idx"]

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
STEMS = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in (IMAGES, LABELS))
GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTES = 0x08


def _remotes(base: str, checksums: tuple[str, ...]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(url=f"{base}{stem}.gz", md5=md5) for stem, md5 in zip(STEMS, checksums, strict=True))


def _spellings(stem: str) -> tuple[str, ...]:
    dotted = stem.replace("-idx", ".idx")  # how some unpackers name the files
    return (f"{stem}.gz", stem, f"{dotted}.gz", dotted)


CONTENTS = "the four idx files, " + ", ".join(f"{stem}.gz" for stem in STEMS) + ", gzipped or not"
MARKERS = tuple(spelling for stem in STEMS for spelling in _spellings(stem))

MNIST = Source(
    name="mnist",
    folders=("mnist", "MNIST/raw", "MNIST"),
    markers=MARKERS,
    contents=CONTENTS,
    remotes=_remotes(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    archive=False,
    megabytes=12,
    foreign=("fashion_mnist", "fashion-mnist", "fashionmnist"),
)

FASHION_MNIST = Source(
    name="fashion_mnist",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    markers=MARKERS,
    contents=CONTENTS,
    remotes=_remotes(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    archive=False,
    megabytes=31,
    foreign=("mnist",),
)

FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def load_mnist(folder: Path) -> Dataset:
    """Read MNIST, images (n, 1, 28, 28); a missing, truncated or corrupt file is a `DataError`."""
    return Dataset(
        name="mnist",
        train=_read_split(folder, "train"),
        test=_read_split(folder, "t10k"),
        mean=(0.1307,),
        std=(0.3081,),
        class_names=tuple(str(y) for y in range(10)),
    )


def load_fashion_mnist(folder: Path) -> Dataset:
    """Read Fashion-MNIST, images (n, 1, 28, 28); a missing, truncated or corrupt file is a `DataError`."""
    return Dataset(
        name="fashion_mnist",
        train=_read_split(folder, "train"),
        test=_read_split(folder, "t10k"),
        mean=(0.2860,),
        std=(0.3530,),
        class_names=FASHION_CLASSES,
    )


def _find(folder: Path, stem: str) -> Path:
    paths = [folder / spelling for spelling in _spellings(stem)]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise bad_file(folder, f"no file {stem}.gz or {stem}", "the four idx files of the dataset")
    return found


def _read_split(folder: Path, part: str) -> Split:
    image_path, label_path = _find(folder, f"{part}-{IMAGES}"), _find(folder, f"{part}-{LABELS}")
    images = read_idx(image_path, dimensions=3)
    labels: Int64Array = read_idx(label_path, dimensions=1).astype(np.int64)
    if len(images) != len(labels):
        raise bad_file(
            label_path, f"{len(labels):,} labels", f"{len(images):,}, one for each image of {image_path.name}"
        )
    if labels.max() > 9:
        raise bad_file(label_path, f"labels up to {labels.max()}", "labels 0 to 9")
    return Split(images=torch.from_numpy(images[:, None]), labels=torch.from_numpy(labels))


def read_idx(path: Path, *, dimensions: int) -> UInt8Array:
    """Read an idx file of unsigned bytes, gzipped or not (told by its first bytes, not by its name).

    Args:
        path: the file.
        dimensions: how many the array must have: 3 for images, 1 for labels.

    Raises:
        DataError: the file is missing, corrupt, of another kind, or not as long as its header says.
    """
    with reading(path):
        data = path.read_bytes()
    size = len(data)
    if data[:2] == GZIP_MAGIC:
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise bad_file(path, f"{size:,} bytes of damaged gzip ({error})", "a whole gzip file") from error
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, UNSIGNED_BYTES, dimensions])
    if len(data) < header or data[:4] != magic:
        raise bad_file(
            path,
            f"{len(data):,} bytes starting with {data[:4].hex() or 'nothing'}",
            f"an idx file starting with {magic.hex()} (unsigned bytes, {dimensions} dimensions)",
        )
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4))
    promised = int(np.prod(shape, dtype=object))
    if promised == 0 or len(data) - header != promised:
        raise bad_file(
            path, f"{len(data) - header:,} bytes of content", f"{promised:,} (above 0), for its shape {shape}"
        )
    # A copy, because torch wants to own memory that it may write to.
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape).copy()


DATASETS.register(
    DatasetRecord(
        name="mnist",
        read=load_mnist,
        source=MNIST,
        defaults=DefaultSettings(likelihood="bernoulli"),
        published={"ai2021": "Dynamic MNIST", "tomczak2018": "dynamic MNIST"},
    )
)
DATASETS.register(
    DatasetRecord(
        name="fashion_mnist",
        read=load_fashion_mnist,
        source=FASHION_MNIST,
        published={"ai2021": "Fashion MNIST"},
    )
)
