"""The 15 corruptions of CIFAR-10-C (Hendrycks & Dietterich 2019) at 5 severities, with the constants of its authors.

Each corruption is a function of float images (n, h, w, 3) in [0, 255], a severity from 1 to 5 and one random generator per image;
it answers with floats that the caller cuts off to whole pixel values (cut off and not rounded, as the official files were).
The constants belong to 32 x 32 images. Where the authors' code does something odd that is in their files, so does this, and
says so.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from bpc.data.cifar import CORRUPTIONS
from bpc.data.frost import frost_textures
from bpc.errors import DataError, unknown_name
from bpc.seeding import derive_seed

__all__ = ["corrupt"]

Floats = npt.NDArray[np.float64]
Random = Sequence[np.random.Generator]
SMALLEST = 8  # pixels a side
BLOCK_PIXELS = 1 << 18  # at once, 256 images of 32 x 32: the work in doubles fits into memory, whatever the set's size


def corrupt(
    images: Tensor, corruption: str, severity: int, *, seed: int = 0, index: Sequence[int] | None = None
) -> Tensor:
    """Corrupt images; the randomness of image i derives from (seed, corruption, severity, index[i]) and nothing else.

    Args:
        images: (n, c, h, w) uint8 with 1 or 3 channels and at least 8 pixels a side. Grey images are corrupted as grey RGB ones
            and their channels averaged again.
        corruption: one of `bpc.data.CORRUPTIONS`.
        severity: 1 to 5.
        seed: of everything random.
        index: (n,) the number of each image in the set that `images` are part of; 0 to n - 1 by default.

    Returns:
        (n, c, h, w) uint8 on the CPU.

    Raises:
        ConfigError: an unknown corruption.
        DataError: another severity, other images, or an index of another length.
    """
    if corruption not in _BY_NAME:
        raise unknown_name("corruption", corruption, CORRUPTIONS)
    if severity not in range(1, 6):
        raise DataError(f"Severity {severity} does not exist; choose 1 to 5.")
    if images.ndim != 4 or images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
        raise DataError(f"Images to corrupt must be uint8 (n, 1 or 3, h, w); got {images.dtype} {tuple(images.shape)}.")
    if min(images.shape[2:]) < SMALLEST:
        raise DataError(f"Images to corrupt need {SMALLEST} pixels a side; got {tuple(images.shape[2:])}.")
    numbers = range(len(images)) if index is None else index
    if len(numbers) != len(images):
        raise DataError(f"{len(numbers)} numbers came for {len(images)} images to corrupt; give one per image.")
    out = torch.empty(images.shape, dtype=torch.uint8)
    block = max(1, BLOCK_PIXELS // (images.shape[2] * images.shape[3]))
    for start in range(0, len(images), block):
        part = slice(start, start + block)
        random = [np.random.default_rng(derive_seed(seed, corruption, severity, i)) for i in numbers[part]]
        out[part] = _corrupt_block(images[part].cpu(), corruption, severity, random)
    return out


def _corrupt_block(images: Tensor, corruption: str, severity: int, random: Random) -> Tensor:
    pixels = images.permute(0, 2, 3, 1).double().numpy()
    grey = pixels.shape[3] == 1
    result = _BY_NAME[corruption](np.repeat(pixels, 3, axis=3) if grey else pixels, severity, random)
    whole = np.clip(result, 0, 255).astype(np.uint8)
    if grey:
        whole = np.round(whole.mean(axis=3, keepdims=True)).astype(np.uint8)
    return torch.from_numpy(whole).permute(0, 3, 1, 2)


def _each(random: Random, draw: Callable[[np.random.Generator], npt.NDArray[Any] | float]) -> npt.NDArray[Any]:
    """Draws of every image's own generator, stacked."""
    return np.stack([draw(g) for g in random])


# Noise ----------------------------------------------------------------------------------------------------------------------


def gaussian_noise(x: Floats, severity: int, random: Random) -> Floats:
    scale = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return 255 * (x / 255 + scale * _each(random, lambda g: g.normal(size=x.shape[1:])))


def shot_noise(x: Floats, severity: int, random: Random) -> Floats:
    photons = (500, 250, 100, 75, 50)[severity - 1]
    counts = np.stack([g.poisson(image / 255 * photons) for g, image in zip(random, x, strict=True)])
    return 255 * counts / photons


def impulse_noise(x: Floats, severity: int, random: Random) -> Floats:
    """Salt and pepper, each channel of each pixel for itself."""
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    hit = _each(random, lambda g: g.uniform(size=(2, *x.shape[1:])))
    return np.where(hit[:, 0] <= amount, np.where(hit[:, 1] <= 0.5, 255.0, 0.0), x)


# Blur -----------------------------------------------------------------------------------------------------------------------


def defocus_blur(x: Floats, severity: int, random: Random) -> Floats:
    """A disk whose edge is softened by a 3 x 3 Gaussian."""
    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    axis = np.arange(-3, 4)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(float)
    edge = np.exp(-0.5 * (np.arange(-1, 2) / softness) ** 2)
    soft = ndimage.convolve(disk / disk.sum(), np.outer(edge, edge) / edge.sum() ** 2, mode="constant")
    return ndimage.correlate(x, soft[None, :, :, None], mode="mirror")


def glass_blur(x: Floats, severity: int, random: Random) -> Floats:
    """Pixels take the value of a neighbour, between two blurs.

    The authors mean to swap two pixels, but swap views of them, so that the second assignment undoes nothing and one value
    is lost. That is what the official files hold.
    """
    sigma, reach, rounds = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[severity - 1]
    _, h, w, _ = x.shape
    x = np.floor(_gaussian(x, sigma))
    shift = _each(random, lambda g: g.integers(-reach, reach, size=(rounds, h, w, 2)))  # -1 or 0: its bound is open
    every = np.arange(len(x))
    for turn in range(rounds):
        for row in range(h - reach, reach, -1):
            for column in range(w - reach, reach, -1):
                dx, dy = shift[:, turn, row, column].T
                x[:, row, column] = x[every, row + dy, column + dx]
    return _gaussian(x, sigma)


def motion_blur(x: Floats, severity: int, random: Random) -> Floats:
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    angle = _each(random, lambda g: g.uniform(-45, 45, size=()))
    return np.stack([_motion(image, radius, sigma, float(a)) for image, a in zip(x, angle, strict=True)])


def zoom_blur(x: Floats, severity: int, random: Random) -> Floats:
    """The mean of the image and of its enlargements."""
    last = (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1]
    factors = np.arange(1, last, 0.01)
    x = (x / 255).astype(np.float32)
    total = np.zeros_like(x)
    for factor in factors:
        total += _zoom(x, factor)
    return 255.0 * ((x + total) / (len(factors) + 1)).astype(np.float64)


# Weather --------------------------------------------------------------------------------------------------------------------


def snow(x: Floats, severity: int, random: Random) -> Floats:
    mean, std, zoom, least, radius, sigma, share = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    layer = _zoom(_each(random, lambda g: g.normal(mean, std, size=(*x.shape[1:3], 1))), zoom)
    layer = np.floor(255 * np.clip(np.where(layer < least, 0.0, layer), 0, 1))
    angle = _each(random, lambda g: g.uniform(-135, -45, size=()))
    layer = np.stack([_motion(flakes, radius, sigma, float(a)) for flakes, a in zip(layer, angle, strict=True)]) / 255
    x = x / 255
    grey = (x @ np.array([0.299, 0.587, 0.114]))[..., None]
    x = share * x + (1 - share) * np.maximum(x, 1.5 * grey + 0.5)
    return 255 * (x + layer + np.rot90(layer, 2, axes=(1, 2)))


def frost(x: Floats, severity: int, random: Random) -> Floats:
    """A random piece of one of five photographs of frost, a fifth of their size for images of 32 pixels."""
    keep, add = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    _, h, w, _ = x.shape
    out = []
    for image, g in zip(x, random, strict=True):
        texture = frost_textures()[int(g.integers(5))]
        every = max(1, min(5, min(texture.shape[:2]) // (max(h, w) + SMALLEST)))
        small = texture[every // 2 :: every, every // 2 :: every]
        beyond = [(0, max(0, side + 1 - have)) for side, have in zip((h, w), small.shape, strict=False)]
        small = np.pad(small, [*beyond, (0, 0)], mode="symmetric")  # images larger than the photograph see it mirrored
        top, left = int(g.integers(0, small.shape[0] - h)), int(g.integers(0, small.shape[1] - w))
        out.append(keep * image + add * small[top : top + h, left : left + w])
    return np.stack(out)


def fog(x: Floats, severity: int, random: Random) -> Floats:
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    _, h, w, _ = x.shape
    x = x / 255
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    clouds = _each(random, lambda g: _plasma(max(h, w), decay, g)[:h, :w, None])
    return 255 * (x + amount * clouds) * brightest / (brightest + amount)


def brightness(x: Floats, severity: int, random: Random) -> Floats:
    """Adds to the value of HSV at constant hue and saturation: a scaling of RGB, and grey where a pixel was black."""
    amount = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    x = x / 255
    value = x.max(axis=3, keepdims=True)
    new = np.minimum(value + amount, 1)
    return 255 * np.where(value > 0, x / np.where(value > 0, value, 1) * new, new)


# Digital --------------------------------------------------------------------------------------------------------------------


def contrast(x: Floats, severity: int, random: Random) -> Floats:
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    x = x / 255
    mean = x.mean(axis=(1, 2), keepdims=True)
    return 255 * np.clip((x - mean) * factor + mean, 0, 1)


def elastic_transform(x: Floats, severity: int, random: Random) -> Floats:
    """A random affine map, then small random displacements."""
    strength, smooth, affine = (
        (0.0, 0.0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )[severity - 1]
    _, h, w, _ = x.shape
    size = min(h, w)
    centre, third = np.array([h // 2, w // 2]), size // 3
    corners = np.array([centre + third, [centre[0] + third, centre[1] - third], centre - third], dtype=float)
    rows, columns = np.mgrid[:h, :w].astype(float)
    out = []
    for image, g in zip(x / 255, random, strict=True):
        moved = corners + g.uniform(-affine * size, affine * size, size=corners.shape)
        # the affine map of corners to their moved places, in (x, y, 1); the image at a place comes from where the map had it
        back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)
        there = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back
        image = _at(image, there[..., 1], there[..., 0], "mirror")
        shift = [
            strength * size * ndimage.gaussian_filter(g.uniform(-1, 1, size=(h, w)), smooth * size, truncate=3)
            for _ in "xy"
        ]
        out.append(_at(image, rows + shift[1], columns + shift[0], "reflect"))
    return 255 * np.stack(out)


def pixelate(x: Floats, severity: int, random: Random) -> Floats:
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    _, h, w, _ = x.shape

    def one(image: Image.Image) -> Image.Image:
        return image.resize((int(w * share), int(h * share)), Image.Resampling.BOX).resize((w, h), Image.Resampling.BOX)

    return _with_pillow(x, one)


def jpeg_compression(x: Floats, severity: int, random: Random) -> Floats:
    quality = (80, 65, 58, 50, 40)[severity - 1]

    def one(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _with_pillow(x, one)


_FUNCTIONS = (
    gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, frost, fog, brightness,
    contrast, elastic_transform, pixelate, jpeg_compression,
)  # fmt: skip
_BY_NAME = {function.__name__: function for function in _FUNCTIONS}


# What they share ------------------------------------------------------------------------------------------------------------


def _with_pillow(x: Floats, change: Callable[[Image.Image], Image.Image]) -> Floats:
    return np.stack([np.asarray(change(Image.fromarray(image.astype(np.uint8)))) for image in x]).astype(np.float64)


def _gaussian(x: Floats, sigma: float) -> Floats:
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest", truncate=4)


def _at(image: Floats, rows: Floats, columns: Floats, mode: str) -> Floats:
    """(h, w, c): bilinear values at (h, w) places."""
    return np.stack(
        [ndimage.map_coordinates(channel, [rows, columns], order=1, mode=mode) for channel in np.moveaxis(image, 2, 0)],
        axis=2,
    )


def _zoom(x: npt.NDArray[np.floating], factor: float) -> npt.NDArray[np.floating]:
    """(n, h, w, c) enlarged by `factor` about the centre, and cut to its size again."""
    n, h, w, c = x.shape
    rows = (_enlarging(h, factor) @ x.reshape(n, h, w * c)).reshape(n, h, w, c)
    return (_enlarging(w, factor) @ rows).astype(x.dtype)


@cache
def _enlarging(size: int, factor: float) -> Floats:
    """(size, size): the linear map of one axis that cuts out its middle, enlarges it by `factor` and cuts it to `size` again."""
    part = int(np.ceil(size / factor))
    first = (size - part) // 2
    large = ndimage.zoom(np.eye(part), (factor, 1), order=1)
    top = (len(large) - size) // 2
    return np.pad(large[top : top + size], ((0, 0), (first, size - part - first)))


def _motion(image: Floats, radius: int, sigma: float, angle: float) -> Floats:
    """(h, w, c) in whole pixel values, dragged along a line: ImageMagick's motion blur.

    Half a Gaussian of 2 radius + 1 weights, its i-th at i pixels from the pixel towards `angle` degrees, rounded to a pixel;
    beyond the edge the edge goes on. The result is cut off to whole values, as the official files show.
    """
    weights, steps = _half_gaussian(2 * radius + 1, sigma), np.arange(2 * radius + 1)
    down = np.ceil(steps * np.sin(np.deg2rad(angle)) - 0.5).astype(int)
    right = np.ceil(steps * np.cos(np.deg2rad(angle)) - 0.5).astype(int)
    h, w, _ = image.shape
    total = np.zeros_like(image)
    for weight, dy, dx in zip(weights, down, right, strict=True):
        rows, columns = np.clip(np.arange(h) + dy, 0, h - 1), np.clip(np.arange(w) + dx, 0, w - 1)
        total += weight * image[rows][:, columns]
    return np.floor(total + 1e-9)  # cut off, but not for the last bit of the weights' sum


@cache
def _half_gaussian(width: int, sigma: float) -> Floats:
    weights = np.exp(-0.5 * (np.arange(width) / sigma) ** 2)
    return weights / weights.sum()


def _plasma(size: int, decay: float, g: np.random.Generator) -> Floats:
    """Clouds by the diamond-square algorithm on a torus of the next power of two, from 0 to 1.

    The noise of each level is uniform with a bound that is the *square* of the level's, and shrinks by `decay`^2, as in the
    authors' code.
    """
    side = 1 << (size - 1).bit_length()
    field = np.zeros((side, side))
    step, level = side, 100.0
    while step >= 2:
        half = step // 2

        def noisy(total: Floats, level: float = level) -> Floats:
            return total / 4 + level * g.uniform(-level, level, size=total.shape)

        corners = field[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        field[half::step, half::step] = noisy(pairs + np.roll(pairs, -1, axis=1))
        centres = field[half::step, half::step]
        field[::step, half::step] = noisy(
            centres + np.roll(centres, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        )
        field[half::step, ::step] = noisy(
            centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        )
        step, level = half, level / decay
    field -= field.min()
    return field / field.max()
