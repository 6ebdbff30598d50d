"""Differentiable siamese augmentation: one random transformation, replayable on several batches of images.

Zhao and Bilen (2021), "Dataset Condensation with Differentiable Siamese Augmentation",
https://arxiv.org/abs/2102.08259.

`draw` makes every random number there is, `apply` is a pure function of images and draw. So the same
transformation can be applied to coreset and real images (that is the siamese part), stored, and replayed inside
any autograd graph.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.errors import ConfigError, unknown_name

__all__ = [
    "AUGMENT_NONE",
    "OPERATIONS",
    "Augment",
    "AugmentConfig",
    "AugmentDraw",
    "apply",
    "draw",
    "parse_strategy",
]

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
AUGMENT_NONE = "none"

# One uniform number in each column for every image, whichever operations are listed or chosen: the amount of
# randomness taken from the generator depends on n alone, so changing a ratio does not shift later draws.
_COLUMNS = (
    "brightness",
    "saturation",
    "contrast",
    "crop_y",
    "crop_x",
    "cutout_y",
    "cutout_x",
    "flip",
    "scale_y",
    "scale_x",
    "angle",
)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Which operations are applied, and how strongly. The defaults are the published setting.

    Attributes:
        operations: some of `OPERATIONS`, in the order in which they are applied.
        mode: ``single`` applies one of them, drawn for each call; ``all`` applies every one.
        flip_probability: of a left-right flip.
        scale_ratio: each axis is scaled by a factor uniform on [1 / scale_ratio, scale_ratio].
        rotate_degrees: the angle is uniform on [-rotate_degrees, rotate_degrees].
        crop_ratio: the image is moved by up to this fraction of its side, filled with zeros.
        cutout_ratio: side of the hole as a fraction of the image's.
        brightness: a number uniform on [-brightness / 2, brightness / 2] is added.
        saturation: distance from the mean over channels is multiplied by a number uniform on [0, saturation].
        contrast: distance from the image's mean is multiplied by a number uniform on [contrast, contrast + 1].

    Raises:
        ConfigError: unknown operation or mode, none or one twice, or a number out of range.
    """

    operations: tuple[str, ...] = OPERATIONS
    mode: Literal["single", "all"] = "single"
    flip_probability: float = 0.5
    scale_ratio: float = 1.2
    rotate_degrees: float = 15.0
    crop_ratio: float = 0.125
    cutout_ratio: float = 0.5
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5

    def __post_init__(self) -> None:
        for name in self.operations:
            if name not in OPERATIONS:
                raise unknown_name("augmentation", name, OPERATIONS)
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise ConfigError(
                f"Augmentation needs one or more different operations; got {self.operations!r}. "
                f"For no augmentation use the strategy {AUGMENT_NONE!r}."
            )
        if self.mode not in ("single", "all"):
            raise unknown_name("augmentation mode", self.mode, ("single", "all"))
        limits = {
            "flip_probability": (0.0, 1.0),
            "scale_ratio": (1.0, math.inf),
            "rotate_degrees": (0.0, 180.0),
            "crop_ratio": (0.0, 1.0),
            "cutout_ratio": (0.0, 1.0),
            "brightness": (0.0, math.inf),
            "saturation": (0.0, math.inf),
            "contrast": (0.0, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high or math.isinf(value):
                raise ConfigError(f"Augmentation {name} must lie in [{low:g}, {high:g}]; got {value}.")

    @property
    def strategy(self) -> str:
        """The operations as `parse_strategy` reads them, e.g. ``color_crop_flip``."""
        return "_".join(self.operations)


@dataclass(frozen=True, kw_only=True, eq=False)
class AugmentDraw:
    """One drawn transformation of r images, to be replayed by `apply`. r is 1 where all images share it.

    Only the tensors of the listed operations are needed. ``AugmentDraw()`` is the identity.

    Attributes:
        operations: applied in this order.
        brightness: (r,), added.
        saturation: (r,), factor of the distance from the mean over channels.
        contrast: (r,), factor of the distance from the mean over channels and pixels.
        crop: (r, 2) int64, pixels (dy, dx): out[y, x] = in[y + dy, x + dx], zero where that lies outside.
        cutout: (r, 2) int64, the hole's centre (y, x): it covers [y - side // 2, y - side // 2 + side), and so for x.
        cutout_size: the hole's sides in pixels, (height, width).
        flip: (r,) bool, left-right.
        scale: (r, 2), factors (sy, sx) of the sampling grid about the centre: above 1 the image looks smaller.
        angle: (r,) radians, positive is counter-clockwise on the screen: for a square image pi / 2 is
            ``torch.rot90(images, 1, (-2, -1))``.
    """

    operations: tuple[str, ...] = ()
    brightness: Tensor | None = None
    saturation: Tensor | None = None
    contrast: Tensor | None = None
    crop: Tensor | None = None
    cutout: Tensor | None = None
    cutout_size: tuple[int, int] = (0, 0)
    flip: Tensor | None = None
    scale: Tensor | None = None
    angle: Tensor | None = None

    def __post_init__(self) -> None:
        for name in self.operations:
            if name not in OPERATIONS:
                raise unknown_name("augmentation", name, OPERATIONS)
            for part in _PARTS[name]:
                if getattr(self, part) is None:
                    raise ConfigError(f"A draw with the operation {name!r} needs the tensor {part!r}.")
        if len({len(t) for t in self._tensors().values()}) > 1:
            sizes = {name: len(t) for name, t in self._tensors().items()}
            raise ConfigError(f"All tensors of a draw must be for the same number of images; got {sizes}.")

    def _tensors(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @property
    def rows(self) -> int:
        """r: how many images it tells apart; 1 for a shared or an identity draw."""
        return max((len(t) for t in self._tensors().values()), default=1)

    def to(self, device: torch.device | str) -> AugmentDraw:
        """The same draw with its tensors on `device`."""
        moved: dict[str, Any] = {name: t.to(device) for name, t in self._tensors().items()}
        return dataclasses.replace(self, **moved)


_PARTS = {
    "color": ("brightness", "saturation", "contrast"),
    "crop": ("crop",),
    "cutout": ("cutout",),
    "flip": ("flip",),
    "scale": ("scale",),
    "rotate": ("angle",),
}


def draw(
    config: AugmentConfig,
    n: int,
    image_shape: tuple[int, int, int],
    generator: torch.Generator,
    *,
    shared: bool = False,
    device: torch.device | str | None = None,
) -> AugmentDraw:
    """Draw the transformation of n images.

    In mode ``single`` the operation itself is common to the call, as published; its numbers are each image's own,
    unless `shared`.

    Args:
        config: what may be drawn.
        n: how many images.
        image_shape: (c, h, w).
        generator: on the CPU or a device. A CPU one gives the same numbers whatever the device, and waits for none.
        shared: one transformation for the whole batch; the draw then fits any number of images.
        device: where the tensors go; default: the generator's.
    """
    _, h, w = image_shape
    rows = 1 if shared else n
    chosen = config.operations
    if config.mode == "single":
        pick = torch.randint(len(chosen), (1,), generator=generator, device=generator.device)
        chosen = (chosen[int(pick)],)
    table = torch.rand((rows, len(_COLUMNS)), generator=generator, device=generator.device)
    if device is not None:
        table = table.to(device)
    u = dict(zip(_COLUMNS, table.unbind(1), strict=True))
    parts: dict[str, Any] = {}
    cutout_size = (0, 0)
    if "color" in chosen:
        parts["brightness"] = (u["brightness"] - 0.5) * config.brightness
        parts["saturation"] = u["saturation"] * config.saturation
        parts["contrast"] = u["contrast"] + config.contrast
    if "crop" in chosen:
        pad_y, pad_x = _round(config.crop_ratio * h), _round(config.crop_ratio * w)
        dy = _integers(u["crop_y"], 2 * pad_y + 1) - pad_y
        dx = _integers(u["crop_x"], 2 * pad_x + 1) - pad_x
        parts["crop"] = torch.stack((dy, dx), 1)
    if "cutout" in chosen:
        cutout_size = _round(config.cutout_ratio * h), _round(config.cutout_ratio * w)
        # an even hole may also be centred on the far edge: its centre lies between two pixels
        y = _integers(u["cutout_y"], h + 1 - cutout_size[0] % 2)
        x = _integers(u["cutout_x"], w + 1 - cutout_size[1] % 2)
        parts["cutout"] = torch.stack((y, x), 1)
    if "flip" in chosen:
        parts["flip"] = u["flip"] < config.flip_probability
    if "scale" in chosen:
        low = 1.0 / config.scale_ratio
        parts["scale"] = low + torch.stack((u["scale_y"], u["scale_x"]), 1) * (config.scale_ratio - low)
    if "rotate" in chosen:
        parts["angle"] = (2.0 * u["angle"] - 1.0) * math.radians(config.rotate_degrees)
    return AugmentDraw(operations=chosen, cutout_size=cutout_size, **parts)


def apply(images: Tensor, draw: AugmentDraw) -> Tensor:
    """The transformed images: pure, no randomness, differentiable in `images`.

    A draw for r images fits k * r of them (k batches one after the other, each transformed alike); a shared one
    fits any number.

    Args:
        images: (..., c, h, w), channel-normalised, so that a zero is the mean colour.
        draw: from `draw`, or made by hand.

    Returns:
        The same shape.

    Raises:
        ConfigError: the draw is for another number of images.
    """
    if not draw.operations:
        return images
    shape = images.shape
    flat = images.reshape(-1, *shape[-3:])
    if len(flat) % draw.rows:
        raise ConfigError(
            f"This augmentation was drawn for {draw.rows} images and got {len(flat)} (shape {tuple(shape)}); "
            "expected that number, a multiple of it, or a shared draw."
        )
    for name in draw.operations:
        flat = _apply_one(name, flat, draw)
    return flat.reshape(shape)


class Augment:
    """`draw` and `apply` in one call, for where nothing is replayed.

    Args:
        config: None leaves images as they are and takes nothing from the generator.
    """

    def __init__(self, config: AugmentConfig | None) -> None:
        self.config = config

    def __call__(self, images: Tensor, generator: torch.Generator, *, shared: bool = False) -> Tensor:
        """Images (..., c, h, w), transformed independently, or all alike where `shared`."""
        if self.config is None:
            return images
        c, h, w = images.shape[-3:]
        n = math.prod(images.shape[:-3])
        return apply(images, draw(self.config, n, (c, h, w), generator, shared=shared, device=images.device))


def parse_strategy(strategy: str, *, mode: Literal["single", "all"] = "single") -> AugmentConfig | None:
    """The config for operations joined by underscores, e.g. ``color_crop_flip``; ``none`` gives None.

    Raises:
        ConfigError: an operation is unknown or listed twice.
    """
    if strategy.lower() == AUGMENT_NONE:
        return None
    return AugmentConfig(operations=tuple(strategy.lower().split("_")), mode=mode)


def _round(x: float) -> int:
    return int(x + 0.5)


def _integers(uniform: Tensor, count: int) -> Tensor:
    """Integers 0 .. count - 1 from numbers in [0, 1)."""
    return (uniform * count).floor().long().clamp(max=count - 1)


def _apply_one(name: str, images: Tensor, draw: AugmentDraw) -> Tensor:
    """One operation on images (n, c, h, w)."""
    n, device = len(images), images.device

    def rows(values: Tensor | None) -> Tensor:
        """Values (r, ...) as (1, ...) or (n, ...) beside the images."""
        assert values is not None  # AugmentDraw checked it
        values = values.to(device)
        return values if len(values) in (1, n) else values.repeat(n // len(values), *[1] * (values.ndim - 1))

    if name == "color":
        brightness, saturation, contrast = (
            rows(v).to(images.dtype).view(-1, 1, 1, 1) for v in (draw.brightness, draw.saturation, draw.contrast)
        )
        return _color(images, brightness, saturation, contrast)
    if name == "crop":
        return _translate(images, rows(draw.crop))
    if name == "cutout":
        return _cutout(images, rows(draw.cutout), draw.cutout_size)
    if name == "flip":
        return torch.where(rows(draw.flip).view(-1, 1, 1, 1), images.flip(-1), images)
    if name == "scale":
        scale = rows(draw.scale).to(images.dtype)
        zero = torch.zeros_like(scale[:, 0])
        return _resample(images, torch.stack((scale[:, 1], zero, zero, scale[:, 0]), 1).view(-1, 2, 2))
    angle = rows(draw.angle).to(images.dtype)
    cos, sin = angle.cos(), angle.sin()
    return _resample(images, torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2))


def _color(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    images = images + brightness
    grey = images.mean(-3, keepdim=True)
    images = (images - grey) * saturation + grey
    mean = images.mean((-3, -2, -1), keepdim=True)
    return (images - mean) * contrast + mean


def _translate(images: Tensor, shift: Tensor) -> Tensor:
    """out[y, x] = in[y + dy, x + dx], zero outside; shift (1 or n, 2)."""
    n, c, h, w = images.shape
    y = torch.arange(h, device=images.device) + shift[:, :1]  # (r, h)
    x = torch.arange(w, device=images.device) + shift[:, 1:]  # (r, w)
    inside = ((y >= 0) & (y < h))[:, :, None] & ((x >= 0) & (x < w))[:, None, :]  # (r, h, w)
    index = y.clamp(0, h - 1)[:, :, None] * w + x.clamp(0, w - 1)[:, None, :]
    # The gradient adds every pixel's at most one non-zero term, so its sum has the same bits in any order.
    moved = images.reshape(n, c, h * w).gather(2, index.view(-1, 1, h * w).expand(n, c, -1)).view(n, c, h, w)
    return moved.masked_fill(~inside[:, None], 0.0)


def _cutout(images: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Zero a hole of `size` (height, width) about each centre (1 or n, 2), clipped at the border."""
    h, w = images.shape[-2:]
    y = torch.arange(h, device=images.device) - (centre[:, :1] - size[0] // 2)
    x = torch.arange(w, device=images.device) - (centre[:, 1:] - size[1] // 2)
    hole = ((y >= 0) & (y < size[0]))[:, None, :, None] & ((x >= 0) & (x < size[1]))[:, None, None, :]
    return images.masked_fill(hole, 0.0)


def _resample(images: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear samples at matrix @ (x, y), in pixels from the centre, zero outside; matrix (1 or n, 2, 2)."""
    n, _, h, w = images.shape
    # grid_sample's coordinates run from -1 to 1 on both axes; a true rotation needs equal units on both
    units = torch.tensor([[1.0, h / w], [w / h, 1.0]], dtype=images.dtype, device=images.device)
    theta = F.pad(matrix * units, (0, 1))
    grid = F.affine_grid(theta, [len(theta), 1, h, w], align_corners=False)
    if images.is_cuda and images.requires_grad:
        return _sample_by_products(images, grid)
    return F.grid_sample(images, grid.expand(n, -1, -1, -1), padding_mode="zeros", align_corners=False)


def _sample_by_products(images: Tensor, grid: Tensor) -> Tensor:
    """What ``grid_sample`` computes, by matrix products with the interpolation weights of rows and columns.

    On CUDA the gradient of ``grid_sample`` adds up in an order that changes from run to run; this one's does not,
    so a resumed distillation ends with the bits of an uninterrupted one.

    Args:
        images: (n, c, h, w).
        grid: (1 or n, h, w, 2), coordinates (x, y) in -1 .. 1 between the outer edges.
    """
    n, c, h, w = images.shape
    x = ((grid[..., 0] + 1.0) * w - 1.0).flatten(1) / 2.0  # (r, hw), pixels
    y = ((grid[..., 1] + 1.0) * h - 1.0).flatten(1) / 2.0
    columns = torch.arange(w, dtype=x.dtype, device=x.device)[:, None]
    rows = torch.arange(h, dtype=y.dtype, device=y.device)[:, None]
    weight_x = (1.0 - (x[:, None] - columns).abs()).clamp(min=0.0)  # (r, w, hw)
    weight_y = (1.0 - (y[:, None] - rows).abs()).clamp(min=0.0)  # (r, h, hw)
    along_x = (images.reshape(n, c * h, w) @ weight_x).view(n, c, h, h * w)
    return (along_x * weight_y[:, None]).sum(2).view(n, c, h, w)
