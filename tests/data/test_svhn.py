"""SVHN in MATLAB files written here, and MATLAB files that are no good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import io

from bpc.data import load_dataset
from bpc.data.mat import read_mat
from bpc.errors import DataError


def write_svhn(folder: Path, count: int = 12, **changes: np.ndarray) -> np.ndarray:
    """Two official files; the images are returned as (n, h, w, c)."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
    for part in ("train", "test"):
        arrays = {"X": np.ascontiguousarray(images.transpose(1, 2, 3, 0)), "y": labels, **changes}
        io.savemat(folder / f"{part}_32x32.mat", arrays, do_compression=True)
    return images


@pytest.mark.parametrize("folder", ["svhn", "SVHN", "."])
def test_round_trip(tmp_path: Path, cache: Path, folder: str) -> None:
    images = write_svhn(tmp_path / folder)
    dataset = load_dataset("svhn", data_root=tmp_path)
    assert dataset.image_shape == (3, 32, 32) and dataset.num_classes == 10
    for i, c, h, w in ((0, 0, 0, 0), (11, 2, 31, 5), (4, 1, 7, 30)):
        assert int(dataset.train.images[i, c, h, w]) == images[i, h, w, c]
    assert np.array_equal(dataset.test.images.permute(0, 2, 3, 1).numpy(), images)


def test_label_ten_is_the_digit_zero(tmp_path: Path, cache: Path) -> None:
    write_svhn(tmp_path / "svhn")
    labels = load_dataset("svhn", data_root=tmp_path).train.labels.tolist()
    assert labels == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": np.zeros((12, 32, 32, 3), np.uint8)}, r"X is uint8 \(12, 32, 32, 3\); expected uint8 \(32, 32, 3, n\)"),
        ({"X": np.zeros((32, 32, 3, 12))}, "X is float64"),
        ({"y": np.ones((11, 1), np.uint8)}, r"y is uint8 \(11, 1\); expected integers \(12, 1\)"),
        ({"y": np.ones((12, 1))}, "y is float64"),
        ({"y": np.zeros((12, 1), np.uint8)}, "labels from 0 to 0; expected labels 1 to 10"),
        ({"y": np.full((12, 1), 11, np.uint8)}, "labels from 11 to 11"),
        ({"y": np.array(["text"])}, "y is <U4"),
    ],
)
def test_bad_arrays(tmp_path: Path, cache: Path, changes: dict[str, np.ndarray], message: str) -> None:
    write_svhn(tmp_path / "svhn", **changes)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("svhn", data_root=tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path, cache: Path) -> None:
    write_svhn(tmp_path / "svhn")
    (tmp_path / "svhn" / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"test_32x32\.mat: there is no such file"):
        load_dataset("svhn", data_root=tmp_path)
    (tmp_path / "svhn" / "train_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"svhn is missing.*train_32x32\.mat and test_32x32\.mat"):
        load_dataset("svhn", data_root=tmp_path, download=False)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kept", [0, 3, 100, 129, 0.3, 0.9, -1])
def test_truncated_mat(tmp_path: Path, compress: bool, kept: float) -> None:
    path = tmp_path / "some.mat"
    io.savemat(path, {"a": np.arange(500.0), "b": np.ones(300)}, do_compression=compress)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(DataError, match=r"some\.mat: .*; expected") as caught:
        read_mat(path, ("a", "b"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"MATLAB 7.3 MAT-file, made by somebody".ljust(124) + b"\x00\x02IM" + bytes(400), "HDF"),
        (b"this is a text file, and a longer one than a MATLAB header would be. " * 9, "expected a whole MATLAB file"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "some.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_mat(path, ("a",))


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "some.mat"
    io.savemat(path, {"a": np.arange(4.0), "cells": np.array([1, "x"], dtype=object), "nothing": np.zeros((0, 3))})
    found = read_mat(path, ("a",))
    assert list(found) == ["a"] and np.array_equal(found["a"], [[0, 1, 2, 3]])
    for name, message in (("cells", "cells is object"), ("nothing", "nothing is float64"), ("c", "no variable c")):
        with pytest.raises(DataError, match=message):
            read_mat(path, ("a", name))
