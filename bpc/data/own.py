"""A user's own images: a folder of class folders, or arrays in .npz or .safetensors files."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bpc.data.dataset import Dataset, Split
from bpc.data.folders import decode_images, list_classes, read_header, subfolders
from bpc.data.sources import bad_file, reading
from bpc.data.splits import Int64Array, UInt8Array, channel_statistics, stratified_split
from bpc.errors import ConfigError, DataError, FileFormatError
from bpc.files import load_tensors

__all__ = ["load_own", "own_path", "read_arrays"]

ARRAY_SUFFIXES = (".npz", ".safetensors")
TEST_FOLDERS = ("test", "val", "valid", "validation")
LAYOUTS = (
    "a folder with train/<class>/ and test/<class>/ (or val/), a folder of <class>/ folders, a folder with "
    "train and test as .npz or .safetensors, or one .npz or .safetensors with x_train, y_train, x_test and "
    "y_test or with images and labels"
)
FIX_FILE = "Fix the file and run again"


def own_path(name: str) -> tuple[Path, int | None] | None:
    """The path that `name` means, and the side to scale its images to; None when there is no such path.

    ``photos@64`` means the folder ``photos`` with every image scaled and cut to 64x64, unless a path has that
    very name.

    Raises:
        ConfigError: there is the folder, and what follows @ is no size.
    """
    path = Path(name).expanduser()
    if os.path.exists(path):
        return path, None
    stem, at, side = name.rpartition("@")
    if not at or not stem or not os.path.exists(Path(stem).expanduser()):
        return None
    if not re.fullmatch(r"[0-9]{1,4}", side) or int(side) == 0:
        raise ConfigError(
            f"{name}: the size after @ is {side!r}; expected a whole number from 1 to 9999, as in {stem}@64 for 64x64 pixels."
        )
    return Path(stem).expanduser(), int(side)


def load_own(path: Path, *, side: int | None = None) -> Dataset:
    """Load a user's own images.

    Args:
        path: see `LAYOUTS`. Without a test split, a stratified 20 % of each class is held out, always the
            same images. Arrays hold uint8 or floats in [0, 1] (rounded to 256 levels) as (n, c, h, w),
            (n, h, w, c) or (n, h, w), c 1 or 3; labels are integers (n,) from 0. A folder of gray images only
            gives c = 1, any other c = 3.
        side: scale and cut every image of a folder to side x side; without it they must have one size.

    Returns:
        The dataset. Its name is the path's last part and a short hash of the content, so that results of two
        different folders called ``photos`` never mix. Mean and std are those of the training images.

    Raises:
        DataError: the layout, a file, the sizes, the values or the labels are not as above.
    """
    if path.is_dir():
        pairs = [(path / f"train{suffix}", path / f"test{suffix}") for suffix in ARRAY_SUFFIXES]
        for train, test in pairs:
            if train.is_file() or test.is_file():
                return _from_arrays(path, side, {**_read_pair(train, "train"), **_read_pair(test, "test")})
        return _from_folder(path, side)
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _from_arrays(path, side, read_arrays(path))
    raise bad_file(path, f"a file ending in {path.suffix or 'nothing'}", LAYOUTS, "Bring the images into such a form")


# Image folders


def _from_folder(path: Path, side: int | None) -> Dataset:
    inside = {sub.name: subfolders(sub) for sub in subfolders(path)}
    if not inside:
        raise bad_file(path, "a folder without folders of images", LAYOUTS, "Bring the images into such a form")
    # A split holds folders; a class that happens to be called "train" holds images.
    has_train = bool(inside.get("train"))
    test_name = next((name for name in TEST_FOLDERS if inside.get(name)), None)
    if has_train and test_name is not None:
        train, test = list_classes(path / "train"), list_classes(path / test_name)
        unknown = [name for name in test if name not in train]
        if unknown:
            raise bad_file(
                path / test_name / unknown[0],
                "a class without training images",
                f"the {len(train)} classes of {path / 'train'}",
                "Add the class to both or remove it",
            )
    elif has_train or test_name is not None:
        raise bad_file(
            path,
            f"only {'train' if has_train else test_name}/",
            "train/ and test/ (or val/)",
            "Add the other",
        )
    else:
        train, test = list_classes(path), {}
    classes = tuple(train)
    files = [file for part in (train, test) for members in part.values() for file in members]
    labels = np.array(
        [classes.index(name) for part in (train, test) for name, members in part.items() for _ in members],
        dtype=np.int64,
    )
    headers = [read_header(file) for file in files]
    first = headers[0]
    if side is None:
        for file, header in zip(files, headers, strict=True):
            if (header.width, header.height) != (first.width, first.height):
                raise bad_file(
                    file,
                    f"{header.width}x{header.height} pixels",
                    f"{first.width}x{first.height}, the size of {files[0]}",
                    f"Scale the images to one size, or have it done by the name {path}@{min(first[:2])}",
                )
    size = (first.height, first.width) if side is None else (side, side)
    channels = 1 if all(header.gray for header in headers) else 3
    images = decode_images(files, channels=channels, size=size, what=f"Decoding {path.name}")
    train_count = sum(map(len, train.values()))
    parts: dict[str, npt.NDArray[Any]]
    if test:
        parts = {"x_train": images[:train_count], "y_train": labels[:train_count]}
        parts |= {"x_test": images[train_count:], "y_test": labels[train_count:]}
    else:
        parts = {"images": images, "labels": labels}
    return _build(path, side, parts, classes)


# Arrays


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz or .safetensors file by name; a pickle or a damaged file is a `DataError`."""
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    try:
        tensors, _ = load_tensors(path)
    except FileFormatError as error:
        raise DataError(str(error)) from error
    # numpy knows no bfloat16, and no narrower float; in [0, 1] float32 holds them all.
    return {
        name: (tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor).numpy()
        for name, tensor in tensors.items()
    }


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    with reading(path):
        size = path.stat().st_size
        stream = path.open("rb")
    try:
        with stream:  # opened here, because numpy leaves its own open when the archive is damaged
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise bad_file(path, "a single array", "an .npz archive of images and labels", FIX_FILE)
            _refuse_huge(path, archive)
            arrays = {name: archive[name] for name in archive.files}
        # What is in the zip file without being an array comes as bytes.
        return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib, numpy and its header's parser raise at least ten kinds
        if "allow_pickle" in str(error) and zipfile.is_zipfile(path):
            raise bad_file(
                path,
                "an array of Python objects: a pickle, not read because it can run any program",
                "arrays of numbers",
                "Save the images as one uint8 array",
            ) from error
        raise bad_file(
            path,
            f"{size:,} bytes that do not read as .npz",
            "a whole .npz archive",
            "It is truncated or corrupt: write it again",
        ) from error


MOST_BYTES = 2**36  # of one archive's arrays, unpacked: 64 GB


def _refuse_huge(path: Path, archive: np.lib.npyio.NpzFile) -> None:
    """A small archive can unpack to any size: what its members say of their sizes is read before they are."""
    size = sum(member.file_size for member in archive.zip.infolist()) if archive.zip else 0
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > min(MOST_BYTES, free):
        raise bad_file(
            path,
            f"{size / 1e9:,.1f} GB when unpacked, of {path.stat().st_size:,} bytes",
            f"at most {min(MOST_BYTES, free) / 1e9:,.1f} GB, the memory here",
            "Keep fewer or smaller images",
        )


def _read_pair(path: Path, part: str) -> dict[str, npt.NDArray[Any]]:
    arrays = read_arrays(path)
    _require(path, arrays, ("images", "labels"))
    return {f"x_{part}": arrays["images"], f"y_{part}": arrays["labels"]}


def _require(path: Path, arrays: Mapping[str, object], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise bad_file(
            path,
            f"it holds {', '.join(sorted(arrays)) or 'nothing'}",
            f"{', '.join(names)}",
            "Name the arrays so",
        )


def _from_arrays(path: Path, side: int | None, arrays: dict[str, npt.NDArray[Any]]) -> Dataset:
    if side is not None:
        raise DataError(f"{path}@{side}: only folders of image files are scaled. Scale the arrays before saving them.")
    pairs = [("x_train", "y_train"), ("x_test", "y_test")]
    if "x_train" not in arrays and "images" in arrays:
        pairs = [("images", "labels")]
    _require(path, arrays, tuple(name for pair in pairs for name in pair))
    parts: dict[str, npt.NDArray[Any]] = {}
    for x, y in pairs:
        parts[x] = _as_images(path, x, arrays[x])
        parts[y] = _as_labels(path, y, arrays[y], len(parts[x]))
    highest = max(int(parts[y].max()) for _, y in pairs)
    present = np.unique(parts[pairs[0][1]])
    if len(present) != highest + 1:
        missing = next(y for y in range(highest + 1) if y >= len(present) or present[y] != y)
        raise bad_file(
            path,
            f"labels up to {highest}, but no training image of class {missing}",
            "every class from 0 up to have training images",
            "Number the classes from 0 without gaps",
        )
    return _build(path, None, parts, tuple(str(y) for y in range(highest + 1)))


def _as_images(path: Path, name: str, array: npt.NDArray[Any]) -> UInt8Array:
    """Any accepted array of images as uint8 (n, c, h, w)."""
    came = f"{name} is {array.dtype} {array.shape}"
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise bad_file(path, came, "(n, c, h, w), (n, h, w, c) or (n, h, w), none of them 0", FIX_FILE)
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.shape[1] not in (1, 3):
        raise bad_file(path, came, "1 or 3 channels, as (n, c, h, w) or (n, h, w, c)", FIX_FILE)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise bad_file(path, came, "uint8 in 0..255 or floats in [0, 1]", "Convert it, e.g. with .astype('uint8')")
    low, high = float(array.min()), float(array.max())  # NaN if any pixel is
    if not (low >= 0 and high <= 1):
        raise bad_file(
            path,
            f"{name} holds {'NaN' if np.isnan(low) else f'values from {low:g} to {high:g}'}",
            "uint8 in 0..255 or finite floats in [0, 1]",
            "Divide by 255 if they run to 255, or undo their normalisation",
        )
    return np.ascontiguousarray(np.rint(array.astype(np.float32) * 255).astype(np.uint8))


def _as_labels(path: Path, name: str, array: npt.NDArray[Any], count: int) -> Int64Array:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise bad_file(path, f"{name} is {array.dtype} {array.shape}", f"integers of shape ({count},)", FIX_FILE)
    if int(array.min()) < 0 or int(array.max()) >= 2**31:
        raise bad_file(path, f"{name} runs from {array.min()} to {array.max()}", "classes numbered from 0", FIX_FILE)
    return array.astype(np.int64)


# Common


def _build(path: Path, side: int | None, parts: dict[str, npt.NDArray[Any]], classes: tuple[str, ...]) -> Dataset:
    if len(classes) < 2:
        raise bad_file(path, f"{len(classes)} class", "at least 2", "Add images of another class")
    if "images" in parts:
        images, labels = parts["images"], parts["labels"]
        counts = np.bincount(labels, minlength=len(classes)).tolist()
        if min(counts) < 2:
            raise bad_file(
                path,
                f"{min(counts)} image of class {classes[int(np.argmin(counts))]}",
                "at least 2 per class, one of them to test",
                "Add images, or give a test split of your own",
            )
        train, test = stratified_split(labels, [max(1, (2 * count + 5) // 10) for count in counts], seed=0)
        parts = {
            "x_train": images[train],
            "y_train": labels[train],
            "x_test": images[test],
            "y_test": labels[test],
        }
    mean, std = channel_statistics(parts["x_train"])
    train_images, test_images = torch.from_numpy(parts["x_train"]), torch.from_numpy(parts["x_test"])
    return Dataset(
        name=_name(path, side, parts, classes),
        train=Split(images=train_images, labels=torch.from_numpy(parts["y_train"])),
        test=Split(images=test_images, labels=torch.from_numpy(parts["y_test"])),
        mean=mean,
        std=std,
        class_names=classes,
    )


def _name(path: Path, side: int | None, parts: dict[str, npt.NDArray[Any]], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\n".join(classes).encode())
    for name in ("x_train", "y_train", "x_test", "y_test"):
        array = np.ascontiguousarray(parts[name])
        digest.update(f"{array.shape}".encode())
        digest.update(array.data)
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().stem if path.is_file() else path.resolve().name)
    size = f"-{side}" if side is not None else ""
    return f"{stem.strip('-.') or 'own'}{size}-{digest.hexdigest()[:8]}"
