"""CelebA faces, aligned and cropped, in the official folder of JPEG files and list of partitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bpc.data.dataset import ImageParts
from bpc.data.folders import decode_images
from bpc.data.records import UNLABELLED, DefaultSettings, UnlabelledRecord
from bpc.data.sources import Source, bad_file, reading

__all__ = ["CELEBA", "load_celeba"]

IMAGES, PARTITION = "img_align_celeba", "list_eval_partition.txt"
PARTS = ("training", "validation", "test")
CROP, SIDE = 140, 64

CELEBA = Source(
    name="celeba",
    folders=("celeba", "CelebA"),
    markers=(PARTITION, IMAGES, f"Eval/{PARTITION}", f"Img/{IMAGES}"),
    contents=f"the folder {IMAGES}/ of JPEG files and {PARTITION} (or Img/{IMAGES}/ and Eval/{PARTITION})",
    remotes=(),
    archive=False,
    megabytes=0,
    by_hand=f"get {IMAGES}.zip and {PARTITION} from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unzip",
)


def load_celeba(folder: Path, limit: int) -> ImageParts:
    """Read CelebA: the central 140x140 pixels of each image scaled to 64x64 (antialiased), in its official partition.

    Args:
        folder: with `IMAGES` and `PARTITION`, or with Img/ and Eval/ that hold them.
        limit: take at most so many training images, and a quarter as many of the validation and of the test images,
            evenly spaced over each; 0 takes all 162,770 + 19,867 + 19,962 (2.5 GB as bytes, 10 GB as floats).

    Returns:
        uint8 (n, 3, 64, 64).

    Raises:
        DataError: the list or an image is missing or damaged.
    """
    images, partition = _find(folder, "Img", IMAGES), _find(folder, "Eval", PARTITION)
    members = _read_partition(partition)
    caps = (limit, -(-limit // 4), -(-limit // 4))
    parts = [_decode(images, members[i], caps[i], PARTS[i]) for i in range(3)]
    return ImageParts(*parts)


def _find(folder: Path, inner: str, name: str) -> Path:
    paths = (folder / name, folder / inner / name)
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise bad_file(folder, f"no {name} in it", CELEBA.contents, "Put it there")
    return found


def _read_partition(path: Path) -> list[list[str]]:
    """The file names of the training, validation and test images."""
    members: list[list[str]] = [[], [], []]
    with reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for i, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or fields[1] not in ("0", "1", "2") or Path(fields[0]).name != fields[0]:
            raise bad_file(path, f"line {i} is {line[:60]!r}", "an image's name and 0, 1 or 2")
        members[int(fields[1])].append(fields[0])
    for part, names in zip(PARTS, members, strict=True):
        if not names:
            raise bad_file(path, f"no {part} images", "lines with 0 (training), 1 (validation) and 2 (test)")
    return members


def _decode(folder: Path, names: list[str], cap: int, part: str) -> Tensor:
    if 0 < cap < len(names):
        names = [names[i] for i in np.linspace(0, len(names) - 1, cap).round().astype(int)]
    files = [folder / name for name in names]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise bad_file(missing, "there is no such file", f"the {part} images of {PARTITION}", "Unzip the images again")
    return torch.from_numpy(
        decode_images(files, channels=3, size=(SIDE, SIDE), crop=CROP, what=f"Decoding CelebA, {part}")
    )


UNLABELLED.register(
    UnlabelledRecord(
        name="celeba",
        source=CELEBA,
        read=lambda folder, generator, limit: load_celeba(folder, limit),
        defaults=DefaultSettings(components=240),
        published={"ai2021": "CelebA"},
    )
)
