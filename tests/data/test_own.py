"""A user's own images, as folders and as arrays."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bpc.data import load_dataset
from bpc.data.folders import decode_images
from bpc.errors import ConfigError, DataError

Arrays = dict[str, Any]


def make_arrays(shape: tuple[int, ...] = (20, 8, 6, 3), classes: int = 4) -> Arrays:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return {"images": images, "labels": np.arange(shape[0]) % classes}


def as_four(arrays: Arrays) -> Arrays:
    return {
        "x_train": arrays["images"][:12],
        "y_train": arrays["labels"][:12],
        "x_test": arrays["images"][12:],
        "y_test": arrays["labels"][12:],
    }


def write_images(root: Path, classes: int = 3, count: int = 5, mode: str = "RGB") -> None:
    for y in range(classes):
        folder = root / f"kind{y}"
        folder.mkdir(parents=True)
        for i in range(count):
            color = (10 * y, i, 200) if mode == "RGB" else 10 * y + i
            Image.new(mode, (9, 7), color).save(folder / f"{i}.png")


# Arrays


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_four_arrays(tmp_path: Path, suffix: str) -> None:
    arrays = as_four(make_arrays())
    path = tmp_path / f"mine{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)
    dataset = load_dataset(str(path))
    assert dataset.name.startswith("mine-") and dataset.class_names == ("0", "1", "2", "3")
    assert np.array_equal(dataset.train.images.permute(0, 2, 3, 1).numpy(), arrays["x_train"])
    assert dataset.test.labels.tolist() == arrays["y_test"].tolist()
    pixels = arrays["x_train"] / 255
    assert dataset.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert dataset.std == pytest.approx(pixels.std(axis=(0, 1, 2)))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_pair_of_files(tmp_path: Path, suffix: str) -> None:
    arrays = make_arrays()
    for part, rows in (("train", slice(0, 12)), ("test", slice(12, 20))):
        half = {name: array[rows] for name, array in arrays.items()}
        path = tmp_path / f"{part}{suffix}"
        if suffix == ".npz":
            np.savez(path, **half)
        else:
            save_file({name: torch.from_numpy(array.copy()) for name, array in half.items()}, path)
    dataset = load_dataset(str(tmp_path))
    assert (len(dataset.train), len(dataset.test)) == (12, 8)
    (tmp_path / f"test{suffix}").unlink()
    with pytest.raises(DataError, match=f"test{suffix}"):
        load_dataset(str(tmp_path))


def test_one_set_is_split_by_class_and_always_alike(tmp_path: Path) -> None:
    arrays = make_arrays((40, 8, 6))
    np.savez(tmp_path / "one.npz", **arrays)
    one, two = load_dataset(str(tmp_path / "one.npz")), load_dataset(str(tmp_path / "one.npz"))
    assert one.test.labels.bincount().tolist() == [2, 2, 2, 2] and len(one.train) == 32
    assert one.image_shape == (1, 8, 6)
    assert torch.equal(one.test.images, two.test.images) and one.name == two.name
    rows = {image.tobytes() for split in (one.train, one.test) for image in split.images.numpy()}
    assert rows == {image.tobytes() for image in arrays["images"]}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20, 8, 6), (1, 8, 6)),
        ((20, 8, 6, 1), (1, 8, 6)),
        ((20, 8, 6, 3), (3, 8, 6)),
        ((20, 1, 8, 6), (1, 8, 6)),
        ((20, 3, 8, 6), (3, 8, 6)),
        ((20, 3, 8, 3), (3, 8, 3)),
    ],
)
def test_layouts(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", **make_arrays(shape))
    assert load_dataset(str(tmp_path / "a.npz")).image_shape == expected


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_come_back_as_the_same_bytes(tmp_path: Path, kind: type) -> None:
    arrays = as_four(make_arrays())
    floats = {name: (a / 255).astype(kind) if name[0] == "x" else a for name, a in arrays.items()}
    np.savez(tmp_path / "a.npz", **floats)
    images = load_dataset(str(tmp_path / "a.npz")).train.images.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, arrays["x_train"])


def test_bfloat16_tensors(tmp_path: Path) -> None:
    tensors = {"images": torch.rand(8, 1, 4, 4).bfloat16(), "labels": torch.arange(8) % 2}
    save_file(tensors, tmp_path / "a.safetensors")
    assert load_dataset(str(tmp_path / "a.safetensors")).image_shape == (1, 4, 4)


def changed(**replacement: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, **replacement}


LABELS = np.arange(20) % 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"images": a["images"]}, "it holds images; expected images, labels"),
        (lambda a: {"x_train": a["images"]}, "it holds x_train; expected x_train, y_train, x_test, y_test"),
        (changed(images=np.full((20, 8, 6), np.nan)), "images holds NaN"),
        (changed(images=np.full((20, 8, 6), 17.5)), "values from 17.5 to 17.5; .*Divide by 255"),
        (changed(images=np.full((20, 8, 6), -0.5)), "values from -0.5"),
        (changed(images=np.full((20, 8, 6), np.inf)), "values from inf"),
        (changed(images=np.zeros((20, 8, 6), np.int64)), r"int64 \(20, 8, 6\); expected uint8"),
        (changed(images=np.zeros((20, 8), np.uint8)), r"uint8 \(20, 8\); expected \(n, c, h, w\)"),
        (changed(images=np.zeros((0, 8, 8), np.uint8)), r"\(0, 8, 8\)"),
        (changed(images=np.zeros((20, 8, 8, 4), np.uint8)), r"\(20, 8, 8, 4\); expected 1 or 3 channels"),
        (changed(labels=LABELS[:-1]), r"labels is int64 \(19,\); expected integers of shape \(20,\)"),
        (changed(labels=LABELS.astype(float)), "labels is float64"),
        (changed(labels=LABELS - 1), "runs from -1 to 2"),
        (changed(labels=LABELS + 1), "no training image of class 0"),
        (changed(labels=LABELS * 1000), "no training image of class 1"),
        (changed(labels=np.zeros(20, int)), "1 class; expected at least 2"),
        (changed(labels=np.array([0] * 19 + [1])), "1 image of class 1; expected at least 2"),
        (changed(labels=np.array([2**63 + 1] * 20, np.uint64)), "classes numbered from 0"),
    ],
)
def test_bad_arrays(tmp_path: Path, change: Callable[[Arrays], Arrays], message: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **change(make_arrays()))
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_only_in_the_test_split(tmp_path: Path) -> None:
    arrays = as_four(make_arrays())
    arrays["y_test"] = arrays["y_test"] + 1
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match="no training image of class 4"):
        load_dataset(str(tmp_path / "a.npz"))


class Trap:
    """Unpickling one of these fails the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("unpickled",))


def test_pickles_are_refused(tmp_path: Path) -> None:
    images = np.empty(20, dtype=object)
    images[:] = [Trap() for _ in range(20)]
    path = tmp_path / "objects.npz"
    np.savez(path, images=images, labels=LABELS)
    with pytest.raises(DataError, match=r"array of Python objects.*uint8"):
        load_dataset(str(path))
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"bytes that do not read as \.npz"):
        load_dataset(str(path))


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **make_arrays())
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (b"", b"text", whole[:middle], whole[:middle] + b"\x00" * 20 + whole[middle + 20 :]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"do not read as \.npz"):
            load_dataset(str(path))
    with open(path, "wb") as stream:
        np.save(stream, LABELS)
    with pytest.raises(DataError, match="a single array"):
        load_dataset(str(path))
    other = tmp_path / "a.safetensors"
    other.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="8 bytes"):
        load_dataset(str(other))
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"a file ending in \.csv; expected a folder with train"):
        load_dataset(str(tmp_path / "a.csv"))


def test_an_archive_that_unpacks_beyond_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by what the archive says of its members, before one is unpacked."""
    path = tmp_path / "bomb.npz"
    zeros = np.zeros((1000, 8, 8), dtype=np.uint8)
    np.savez_compressed(path, x_train=zeros, y_train=np.arange(1000) % 2, x_test=zeros, y_test=np.arange(1000) % 2)
    monkeypatch.setattr("bpc.data.own.MOST_BYTES", 50_000)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, name: pytest.fail("unpacked"))
    with pytest.raises(DataError, match="when unpacked"):
        load_dataset(str(path))


def test_names_that_are_neither(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown dataset 'cifar11'.*'cifar10'.*your own data"):
        load_dataset("cifar11")
    with pytest.raises(DataError, match=r"There is no file or folder .*absent"):
        load_dataset(str(tmp_path / "absent"))


# Folders of images


def test_train_and_val_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "photos" / "train")
    write_images(tmp_path / "photos" / "val", classes=2, count=2)
    (tmp_path / "photos" / "train" / "kind0" / "notes.txt").write_text("no image")
    dataset = load_dataset(str(tmp_path / "photos"))
    assert dataset.name.startswith("photos-")
    assert dataset.class_names == ("kind0", "kind1", "kind2")
    assert dataset.image_shape == (3, 7, 9)
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert dataset.train.images[6, :, 0, 0].tolist() == [10, 1, 200]


def test_class_folders_alone_are_split(tmp_path: Path) -> None:
    write_images(tmp_path, mode="L")
    dataset = load_dataset(str(tmp_path))
    assert dataset.image_shape == (1, 7, 9)
    assert dataset.train.labels.bincount().tolist() == [4, 4, 4]
    assert dataset.test.labels.bincount().tolist() == [1, 1, 1]


def test_gray_among_colour_becomes_colour(tmp_path: Path) -> None:
    write_images(tmp_path)
    Image.new("L", (9, 7), 77).save(tmp_path / "kind0" / "0.png")
    dataset = load_dataset(str(tmp_path))
    assert dataset.image_shape[0] == 3


def test_sizes_must_agree_unless_scaled(tmp_path: Path) -> None:
    write_images(tmp_path)
    Image.new("RGB", (20, 10)).save(tmp_path / "kind1" / "1.png")
    with pytest.raises(DataError, match=r"kind1.1\.png: 20x10 pixels; expected 9x7, the size of .*0\.png.*@7"):
        load_dataset(str(tmp_path))
    scaled = load_dataset(f"{tmp_path}@4")
    assert scaled.image_shape == (3, 4, 4) and "-4-" in scaled.name


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "kind0").rename(tmp_path / "train")
    (tmp_path / "kind1").rename(tmp_path / "test")
    assert load_dataset(str(tmp_path)).class_names == ("kind2", "test", "train")


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder without folders of images"):
        load_dataset(str(tmp_path))
    write_images(tmp_path / "train")
    with pytest.raises(DataError, match="only train/"):
        load_dataset(str(tmp_path))
    write_images(tmp_path / "test", classes=4)
    with pytest.raises(DataError, match="kind3: a class without training images"):
        load_dataset(str(tmp_path))
    (tmp_path / "train" / "kind3").mkdir()
    with pytest.raises(DataError, match="kind3: a class folder without images"):
        load_dataset(str(tmp_path))
    (tmp_path / "train" / "kind3" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(DataError, match=r"x\.png: 15 bytes that do not decode"):
        load_dataset(str(tmp_path))
    Image.fromarray(np.zeros((7, 9), np.uint16)).save(tmp_path / "train" / "kind3" / "x.png")
    with pytest.raises(DataError, match="pixels of kind I;16"):
        load_dataset(str(tmp_path))


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    write_images(tmp_path / "a" / "photos")
    write_images(tmp_path / "b" / "photos", count=6)
    names = {load_dataset(str(tmp_path / part / "photos")).name for part in "ab"}
    assert len(names) == 2


# What hostile folders hold


@pytest.mark.parametrize("side", ["0", "abc", "-3", "1.5", "99999", "", "٣"])
def test_a_size_that_is_none(tmp_path: Path, side: str) -> None:
    write_images(tmp_path / "photos")
    with pytest.raises(ConfigError, match=r"the size after @ .* a whole number from 1 to 9999"):
        load_dataset(f"{tmp_path}/photos@{side}")
    assert load_dataset(f"{tmp_path}/photos@4").image_shape == (3, 4, 4)


@pytest.mark.parametrize("name", ["kind0/0.png", "mine.npz"])
def test_a_pipe_does_not_hang(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "photos")
    path = tmp_path / "photos" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(DataError, match="a pipe, a socket or a device"):
        load_dataset(str(path if name.endswith("npz") else tmp_path / "photos"))


def test_too_many_pixels_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Pillow's DecompressionBombWarning leaked for a PNG of 12000x12000."""
    write_images(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # the images have 63: a warning; above 100 it is an error
    for limit in (50, 30):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=rf"63 pixels.*at most {limit} pixels.*Scale the image down"):
            load_dataset(str(tmp_path))
        with pytest.raises(DataError, match=r"63 pixels"):
            decode_images([tmp_path / "kind0" / "0.png"], channels=3, size=(7, 9), what="x")
    assert not recwarn.list


def test_images_beyond_memory(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(DataError, match=r"GB, more than there is"):
        decode_images([tmp_path / "kind0" / "0.png"], channels=3, size=(10**8, 10**8), what="x")
