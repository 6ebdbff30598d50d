"""The three networks of the latent energy-based model, by the size of the images."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from bpc.errors import ConfigError

__all__ = ["Encoder", "EnergyMLP", "WideResNet", "build_encoder", "build_generator"]

SLOPE = 0.2  # of the leaky ReLUs, as in DCGAN
MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -8.0, 2.0


class EnergyMLP(nn.Module):
    """F_alpha: latents (..., d) to conditional negative energies (..., y), three layers. Smooth, so that Langevin has a gradient
    everywhere.
    """

    def __init__(self, latent: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = self.layers(z)
        return found


class _Residual(nn.Module):
    """Two 3x3 convolutions, each after normalisation and activation, beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.GroupNorm(_groups(c_in), c_in), nn.GroupNorm(_groups(c_out), c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if stride > 1 or c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.first(x), SLOPE)
        kept = x if self.shortcut is None else self.shortcut(h)
        h = F.leaky_relu(self.second(self.conv1(h)), SLOPE)
        found: Tensor = kept + self.conv2(h)
        return found


def _groups(channels: int) -> int:
    return 8 if channels % 8 == 0 else 1


class WideResNet(nn.Module):
    """WRN-depth-width (Zagoruyko and Komodakis 2016) without its classifier: (b, c, h, w) to (b, 64 width).

    Groups are normalised instead of batches: a batch here is at times real, at times labelled, at times generated, and no
    image's class should depend on its neighbours.

    Args:
        c_in: channels of the images.
        depth: 6 k + 4.
        width: factor of 16, 32 and 64 channels.
    """

    def __init__(self, c_in: int, depth: int = 28, width: int = 2) -> None:
        super().__init__()
        if (depth - 4) % 6 or width < 1:
            raise ConfigError(f"A Wide ResNet has depth 6 k + 4 and width 1 or more; got {depth}, {width}.")
        blocks: list[nn.Module] = [nn.Conv2d(c_in, 16, 3, 1, 1, bias=False)]
        c = 16
        for stage in range(3):
            c_out = 16 * width * 2**stage
            for i in range((depth - 4) // 6):
                blocks.append(_Residual(c, c_out, 2 if i == 0 and stage > 0 else 1))
                c = c_out
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.GroupNorm(_groups(c), c)
        self.features = c

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.last(self.blocks(x)), SLOPE).mean((2, 3))


class Encoder(nn.Module):
    """q_phi(z | x) = N(mean, diag exp(log variance)): images (b, c, h, w) to (b, d) twice."""

    def __init__(self, body: nn.Module, features: int, latent: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(features, 2 * latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.head(self.body(x)).chunk(2, dim=-1)
        return mean, log_var.clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)


def build_encoder(image_shape: tuple[int, int, int], latent: int, width: int) -> Encoder:
    """For 32x32 a WRN-28-`width`; for other multiples of 4 from 16 up, two convolutions of 16 `width` and 32 `width` channels;
    below that, dense layers.
    """
    c, h, w = image_shape
    if (h, w) == (32, 32):
        resnet = WideResNet(c, width=width)
        return Encoder(resnet, resnet.features, latent)
    if h % 4 == 0 and w % 4 == 0 and min(h, w) >= 16:
        few, many, hidden = 16 * width, 32 * width, 128 * width
        body = nn.Sequential(
            nn.Conv2d(c, few, 4, 2, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(few, many, 4, 2, 1), nn.LeakyReLU(SLOPE),
            nn.Flatten(), nn.Linear(many * h * w // 16, hidden), nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        return Encoder(body, hidden, latent)
    hidden = 128 * width
    dense = nn.Sequential(
        nn.Flatten(), nn.Linear(c * h * w, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE)
    )
    return Encoder(dense, hidden, latent)


def build_generator(image_shape: tuple[int, int, int], latent: int, width: int) -> nn.Module:
    """g_beta: latents (b, d) to mean images (b, c, h, w) in [0, 1].

    For 32x32 the four transposed convolutions of DCGAN (256, 128 and 64 channels times `width`); for other multiples of 4 from 16
    up, two dense layers and two transposed convolutions; below that, dense layers.
    """
    c, h, w = image_shape
    if (h, w) == (32, 32):
        sizes = [256 * width, 128 * width, 64 * width, c]
        layers: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1)), nn.ConvTranspose2d(latent, sizes[0], 4, 1, 0)]
        for c_in, c_out in pairwise(sizes):
            layers += [nn.LeakyReLU(SLOPE), nn.ConvTranspose2d(c_in, c_out, 4, 2, 1)]
        return nn.Sequential(*layers, nn.Sigmoid())
    hidden = 128 * width
    start = [nn.Linear(latent, hidden), nn.LeakyReLU(SLOPE)]
    if h % 4 == 0 and w % 4 == 0 and min(h, w) >= 16:
        few, many = 16 * width, 32 * width
        return nn.Sequential(
            *start, nn.Linear(hidden, many * h * w // 16), nn.LeakyReLU(SLOPE), nn.Unflatten(1, (many, h // 4, w // 4)),
            nn.ConvTranspose2d(many, few, 4, 2, 1), nn.LeakyReLU(SLOPE), nn.ConvTranspose2d(few, c, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip
    return nn.Sequential(
        *start, nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, c * h * w), nn.Unflatten(1, image_shape),
        nn.Sigmoid(),
    )  # fmt: skip
