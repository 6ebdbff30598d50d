"""Images in one folder a class, and ImageNette, which comes that way."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from bpc.data.dataset import Dataset, Split
from bpc.data.records import DATASETS, DatasetRecord, DefaultSettings
from bpc.data.sources import RemoteFile, Source, bad_file, cache_folder, reading
from bpc.data.splits import Int64Array, UInt8Array
from bpc.errors import DataError, FileFormatError, StorageError
from bpc.files import load_tensors, save_tensors
from bpc.progress import progress

__all__ = [
    "IMAGENETTE",
    "ImageHeader",
    "decode_images",
    "list_classes",
    "load_imagenette",
    "read_header",
    "subfolders",
]

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
GRAY_MODES = frozenset({"1", "L", "LA", "La"})
DEEP_MODES = ("I", "F")  # 16 or 32 bits per pixel: how they map to 0..255 is the user's to say

# ImageNet's identifiers of the ten classes, in label order, and what they are.
IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGENETTE_SIDE = 128

IMAGENETTE = Source(
    name="imagenette",
    folders=("imagenette2-160", "imagenette2-320", "imagenette2"),
    markers=tuple(f"train/{wnid}" for wnid in IMAGENETTE_CLASSES),
    contents="train/<wnid>/*.JPEG and val/<wnid>/*.JPEG",
    remotes=(
        RemoteFile(
            url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
            md5="e793b78cc4c9e9a4ccc0c1155377a412",
        ),
    ),
    archive=True,
    megabytes=99,
)


class ImageHeader(NamedTuple):
    """What an image file says of itself before its pixels are decoded."""

    width: int
    height: int
    gray: bool


def subfolders(folder: Path) -> list[Path]:
    """The visible subfolders, by name."""
    with reading(folder):
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_classes(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder in `folder`, classes and files by name.

    Raises:
        DataError: there is no class folder, or one without images.
    """
    classes = {}
    for sub in subfolders(folder):
        with reading(sub):
            files = sorted(
                path
                for path in sub.iterdir()
                if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
            )
        if not files:
            raise bad_file(
                sub,
                "a class folder without images",
                f"at least one of {', '.join(sorted(IMAGE_SUFFIXES))}",
                "Add images or remove the folder",
            )
        classes[sub.name] = files
    if not classes:
        raise bad_file(
            folder, "no folders in it", "one folder of images per class", "Sort the images into such folders"
        )
    return classes


@contextmanager
def _decoding() -> Iterator[None]:
    """Around Pillow, in the main thread: an image of too many pixels is an error, and no other warning of its is printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def opened(path: Path, use: Callable[[Image.Image], object]) -> None:
    """Call `use` on an opened image; whatever a damaged file makes decoders raise becomes a `DataError`."""
    try:
        with reading(path):
            path.open("rb").close()
        with Image.open(path) as image:
            use(image)
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise bad_file(
            path,
            str(error).partition(",")[0],
            f"at most {Image.MAX_IMAGE_PIXELS:,} pixels, since a small file can unpack to any size",
            "Scale the image down or remove it",
        ) from error
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        size = path.stat().st_size if path.exists() else 0
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise bad_file(
            path,
            f"{size:,} bytes that do not decode ({reason})",
            "a whole image file",
            "It is truncated or corrupt: replace or remove it",
        ) from error


def read_header(path: Path) -> ImageHeader:
    """Size and colour of an image file."""
    found: list[ImageHeader] = []

    def look(image: Image.Image) -> None:
        if image.mode.startswith(DEEP_MODES):
            raise bad_file(
                path,
                f"pixels of kind {image.mode}",
                "8 bits a channel, gray or RGB",
                "Convert the images to 8 bits",
            )
        found.append(ImageHeader(image.width, image.height, image.mode in GRAY_MODES))

    with _decoding():
        opened(path, look)
    return found[0]


def decode_images(
    files: Sequence[Path], *, channels: int, size: tuple[int, int], what: str, crop: int | None = None
) -> UInt8Array:
    """Decode image files on all cores.

    Args:
        files: n image files.
        channels: 1 converts all to gray, 3 to RGB.
        size: (h, w). An image of another size is scaled (bilinear, antialiased) until it just covers (h, w),
            and its centre is cut out.
        what: what the progress bar says.
        crop: side of the square that is cut out of the centre of each image before it is scaled.

    Returns:
        (n, channels, h, w) uint8.

    Raises:
        DataError: a file does not decode, or is smaller than `crop`.
    """
    mode = "L" if channels == 1 else "RGB"
    try:
        out = np.empty((len(files), channels, *size), dtype=np.uint8)
    except MemoryError:
        gigabytes = len(files) * channels * size[0] * size[1] / 1e9
        raise DataError(
            f"{len(files):,} images of {size[1]}x{size[0]} take {gigabytes:,.0f} GB, more than there is. Take fewer, or scale "
            "them down: a folder's name with @64 at its end is scaled to 64x64."
        ) from None

    def decode(i: int) -> None:
        def store(image: Image.Image) -> None:
            if crop is not None:
                if min(image.size) < crop:
                    raise bad_file(
                        files[i], f"{image.width}x{image.height} pixels", f"at least {crop}x{crop}, to be cut out"
                    )
                left, top = (image.width - crop) // 2, (image.height - crop) // 2
                image = image.crop((left, top, left + crop, top + crop))
            pixels = np.asarray(_fit(image.convert(mode), size))
            out[i] = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)

        opened(files[i], store)

    with _decoding():
        _in_threads(decode, range(len(files)), what)
    return out


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    if image.size == (width, height):
        return image
    scale = max(width / image.width, height / image.height)
    scaled = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    return image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def _in_threads(work: Callable[[int], None], items: Iterable[int], what: str) -> None:
    """Run `work` on each item on all cores, since decoders release the lock; the first error stops it."""
    indices = list(items)
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(what, len(indices)) as report:
        try:
            for done, _ in enumerate(pool.map(work, indices), start=1):
                report.update(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def load_imagenette(folder: Path) -> Dataset:
    """Read ImageNette, images (n, 3, 128, 128): the shorter side scaled to 128, then the centre.

    The decoded images are kept in the user cache, so only the first load of a folder takes long.

    Raises:
        DataError: a class is missing or a file does not decode.
    """
    files: dict[str, list[Path]] = {}
    labels: dict[str, Int64Array] = {}
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise bad_file(folder, f"no folder {part}/", "train/ and val/ as in the official archive")
        classes = list_classes(folder / part)
        missing = [wnid for wnid in IMAGENETTE_CLASSES if wnid not in classes]
        if missing:
            raise bad_file(folder / part, f"no folder {missing[0]}/", f"{len(IMAGENETTE_CLASSES)} classes")
        files[part] = [path for wnid in IMAGENETTE_CLASSES for path in classes[wnid]]
        labels[part] = np.repeat(
            np.arange(len(IMAGENETTE_CLASSES), dtype=np.int64),
            [len(classes[wnid]) for wnid in IMAGENETTE_CLASSES],
        )
    splits = {
        part: Split(images=images, labels=torch.from_numpy(labels[part]))
        for part, images in _decode_cached(folder, files).items()
    }
    return Dataset(
        name="imagenette",
        train=splits["train"],
        test=splits["val"],
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        class_names=tuple(IMAGENETTE_CLASSES.values()),
    )


def _decode_cached(folder: Path, files: dict[str, list[Path]]) -> dict[str, torch.Tensor]:
    """Images of each part, from the cache if these very files (name, size, time) were decoded before."""
    key = hashlib.sha256(f"{IMAGENETTE_SIDE} bilinear centre 1".encode())
    for part, paths in files.items():
        for path in paths:
            with reading(path):
                status = path.stat()
            key.update(f"\n{part}/{path.parent.name}/{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    cached = cache_folder() / f"imagenette-{IMAGENETTE_SIDE}-{key.hexdigest()[:16]}.safetensors"
    shape = (3, IMAGENETTE_SIDE, IMAGENETTE_SIDE)
    if cached.is_file():
        try:
            tensors, _ = load_tensors(cached, what="decoded images")
            if all(part in tensors and tensors[part].shape == (len(files[part]), *shape) for part in files):
                return {part: tensors[part] for part in files}
        except FileFormatError as error:
            logger.warning("Decoding ImageNette again: %s", error)
    images = {
        part: torch.from_numpy(
            decode_images(paths, channels=3, size=shape[1:], what=f"Decoding ImageNette {part} (first time only)")
        )
        for part, paths in files.items()
    }
    try:
        save_tensors(cached, images, {"source": str(folder), "side": str(IMAGENETTE_SIDE)})
    except StorageError as error:  # the images are at hand: a full cache only makes the next load slow
        logger.warning("The decoded images are not kept for the next time: %s", error)
    return images


DATASETS.register(
    DatasetRecord(
        name="imagenette",
        read=load_imagenette,
        source=IMAGENETTE,
        defaults=DefaultSettings(depth=5),
        published={"kim2022": "ImageNette"},
    )
)
