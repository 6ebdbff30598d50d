"""MNIST and Fashion-MNIST in idx files written here."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from bpc.data import load_dataset
from bpc.errors import DataError

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, *, zipped: bool, count: int = 12) -> np.ndarray:
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            name = f"{part}-{kind}" + (".gz" if zipped else "")
            (folder / name).write_bytes(gzip.compress(data) if zipped else data)
    return images


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "fashion_mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
def test_round_trip(tmp_path: Path, cache: Path, name: str, folder: str, zipped: bool) -> None:
    images = write_idx(tmp_path / folder, zipped=zipped)
    for root in (tmp_path, tmp_path / folder):
        dataset = load_dataset(name, data_root=root)
        assert dataset.name == name
        assert np.array_equal(dataset.train.images[:, 0].numpy(), images)
        assert dataset.image_shape == (1, 28, 28)
        assert dataset.train.labels.tolist() == [i % 10 for i in range(12)]


def test_one_is_not_taken_for_the_other(tmp_path: Path, cache: Path) -> None:
    write_idx(tmp_path / "mnist", zipped=True)
    with pytest.raises(DataError, match="fashion_mnist is missing"):
        load_dataset("fashion_mnist", data_root=tmp_path / "mnist", download=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes starting with nothing"),
        (b"plain text that is no idx file", "starting with 706c6169"),
        (idx_bytes(np.zeros((12, 28, 28), np.uint8))[:-3], "9,405 bytes of content; expected 9,408"),
        (idx_bytes(np.zeros((12, 28, 28), np.uint8)) + b"x", "9,409 bytes of content; expected 9,408"),
        (idx_bytes(np.zeros((0, 28, 28), np.uint8)), "0 bytes of content"),
        (idx_bytes(np.zeros(12, np.uint8)), "starting with 00000801"),
        (struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "0 bytes of content"),
        (gzip.compress(idx_bytes(np.zeros((12, 28, 28), np.uint8)), mtime=0)[:-9], "damaged gzip"),
        (gzip.compress(bytes(500), mtime=0)[:15] + b"garbage" * 9, "damaged gzip"),
        (b"\x1f\x8b", "damaged gzip"),
    ],
)
def test_bad_images(tmp_path: Path, cache: Path, content: bytes, message: str) -> None:
    write_idx(tmp_path / "mnist", zipped=False)
    (tmp_path / "mnist" / IMAGES).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("mnist", data_root=tmp_path)
    assert IMAGES in str(caught.value) and "\n" not in str(caught.value)


def test_bad_labels(tmp_path: Path, cache: Path) -> None:
    write_idx(tmp_path / "mnist", zipped=False)
    path = tmp_path / "mnist" / LABELS
    path.write_bytes(idx_bytes(np.full(12, 10, np.uint8)))
    with pytest.raises(DataError, match="labels up to 10; expected labels 0 to 9"):
        load_dataset("mnist", data_root=tmp_path)
    path.write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    with pytest.raises(DataError, match="11 labels; expected 12, one for each image"):
        load_dataset("mnist", data_root=tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=f"no file {LABELS}.gz or {LABELS}"):
        load_dataset("mnist", data_root=tmp_path)


def test_real_mnist(data_root: Path) -> None:
    if not (data_root / "mnist").is_dir():
        pytest.skip(f"no MNIST in {data_root}")
    dataset = load_dataset("mnist", data_root=data_root)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert float(dataset.train.images.float().mean()) / 255 == pytest.approx(0.13066, abs=1e-5)
