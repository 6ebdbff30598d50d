"""The photographs of frost behind CIFAR-10-C's corruption of that name, or a drawing where they cannot be had."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bpc.data.download import DownloadError, fetch
from bpc.data.folders import decode_images, read_header
from bpc.data.sources import RemoteFile, cache_folder, resolve_root
from bpc.errors import StorageError
from bpc.files import write_atomic
from bpc.progress import say

__all__ = ["FROST_FILES", "frost_textures", "use_frost_of"]

_BASE = "https://raw.githubusercontent.com/hendrycks/robustness/master/ImageNet-C/create_c/"
# the authors have a sixth, and draw from the first five
FROST_FILES = tuple(
    RemoteFile(url=_BASE + name, md5=md5)
    for name, md5 in (
        ("frost1.png", "6ead634ace1f366d77e87078b465863c"),
        ("frost2.png", "98f0d2b1d74a048d3bc9c7ecfd886939"),
        ("frost3.png", "b3ed8eb147824261888e730f916c0d8b"),
        ("frost4.jpg", "d70b9d6aa0b1fe7bd8133b113787e078"),
        ("frost5.jpg", "50984ae2c871b7df2c28f1d71ca460a0"),
    )
)
# mean and standard deviation of the photographs' pixels; the second and the third show the same
_BRIGHTNESS = ((131, 43), (207, 23), (207, 23), (152, 31), (123, 44))
_root: Path | None = None


def use_frost_of(data_root: Path | str | None) -> None:
    """Look for the photographs in ``<data_root>/frost`` before the user's cache."""
    global _root
    root = resolve_root(data_root)
    if root != _root:
        _root = root
        frost_textures.cache_clear()


@cache
def frost_textures() -> tuple[npt.NDArray[np.float64], ...]:
    """Five textures (h, w, 3) in 0..255: from the data root, the cache, a download of 1.9 MB, or else drawn.

    Drawn ones have the photographs' brightness and contrast, but are not those of the official files; a line says so.

    Raises:
        DataError: a photograph is damaged.
    """
    paths: list[Path] = []
    for remote in FROST_FILES:
        path = _find(remote)
        if path is None:  # one that is missing is enough: the next would wait for the network again
            _say_once(
                "The photographs behind the corruption frost could not be had, so frost is drawn, unlike CIFAR-10-C's. They are "
                f"{_BASE}frost1.png to frost5.jpg: put them into the folder frost of the data root."
            )
            return tuple(_drawn(i) for i in range(len(FROST_FILES)))
        paths.append(path)
    return tuple(_read(path) for path in paths)


def _say_once(message: str) -> None:
    """Say it, and leave it written in the cache, where the next run finds that it was said."""
    told = cache_folder() / "frost" / "drawn.txt"
    if told.is_file():
        return
    say(message)
    with contextlib.suppress(StorageError):
        write_atomic(told, lambda stream: stream.write(f"{message}\n".encode()))


def _find(remote: RemoteFile) -> Path | None:
    root = resolve_root(_root)  # the environment's where none was named
    for folder in ([] if root is None else [root / "frost"]) + [cache_folder() / "frost"]:
        if os.path.isfile(folder / remote.name):
            return folder / remote.name
    try:
        return fetch(remote, cache_folder() / "frost")
    except (DownloadError, StorageError):
        return None


def _read(path: Path) -> npt.NDArray[np.float64]:
    """A photograph (h, w, 3) in 0..255; its transparency is dropped, as by the authors' reader."""
    header = read_header(path)
    pixels = decode_images([path], channels=3, size=(header.height, header.width), what="Reading frost")
    return pixels[0].transpose(1, 2, 0).astype(np.float64)


def _drawn(number: int) -> npt.NDArray[np.float64]:
    """Needles of ice: noise smoothed along two directions, bluish white, of a fixed seed."""
    g = np.random.default_rng(number)
    noise = g.normal(size=(330, 500))
    needles = sum(
        np.abs(ndimage.rotate(ndimage.gaussian_filter(noise, (1.5, 14)), angle, reshape=False, mode="reflect"))
        for angle in (25 + 20 * number, 110 + 20 * number)
    )
    mean, std = _BRIGHTNESS[number]
    white = mean + std * (needles - needles.mean()) / needles.std()
    return np.clip(white[..., None] + np.array([-8.0, 0.0, 8.0]), 0, 255)
