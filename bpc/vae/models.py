"""VAE, HVAE, ConvHVAE, PixelHVAE and a fully convolutional VAE: what is below the prior.

A model has a top latent z (the one the prior is about) and possibly one below it. It answers with the terms of the bound, each
of its own example, and knows nothing of priors:

    log p(x | latents),   log p(z1 | z) - log q(z1 | x, z)  (zero with one layer),   log q(z | x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bpc.errors import ConfigError, unknown_name
from bpc.vae.layers import GatedConv2d, GatedLinear, LogVariance, MaskedConv2d, glorot_
from bpc.vae.likelihoods import PixelLikelihood

__all__ = ["MODELS", "LatentModel", "ModelConfig", "Terms", "build_model", "draw_normal", "log_normal"]


def log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log density of N(mean, diag exp(log_var)) at z, summed over the last axis, nats."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (z - mean).square() * (-log_var).exp()).sum(-1)


def draw_normal(mean: Tensor, log_var: Tensor, generator: torch.Generator) -> Tensor:
    """One reparameterised draw of N(mean, diag exp(log_var))."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (0.5 * log_var).exp() * noise


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes: `latent` of every stochastic layer, `hidden` units of the gated layers, `width` of convolutions."""

    name: str = "vae"
    latent: int = 40
    hidden: int = 300
    width: int = 32

    def __post_init__(self) -> None:
        if self.name not in MODELS:
            raise unknown_name("model", self.name, MODELS)
        if min(self.latent, self.hidden, self.width) < 1:
            raise ConfigError(
                f"latent, hidden and width must be at least 1; got {self.latent}, {self.hidden}, {self.width}."
            )


class Terms(NamedTuple):
    """The bound's terms at one draw of the latents, (n,) each; z is the top latent, (n, d)."""

    z: Tensor
    log_lik: Tensor  # log p(x | latents)
    inner: Tensor  # log p(z1 | z) - log q(z1 | x, z)
    log_q: Tensor  # log q(z | x)


class LatentModel(nn.Module):
    """One stochastic layer: q(z | x) and p(x | z) by the networks that a subclass builds.

    Args:
        config: sizes.
        image_shape: (c, h, w).
        likelihood: of the pixels.
    """

    def __init__(self, config: ModelConfig, image_shape: tuple[int, int, int], likelihood: PixelLikelihood) -> None:
        super().__init__()
        self.config, self.image_shape, self.likelihood = config, image_shape, likelihood
        self.pixels = math.prod(image_shape)
        self.build()

    def build(self) -> None:
        raise NotImplementedError

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), (n, d) each, of images (n, c, h, w)."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Decoder outputs (n, outputs, c, h, w) of latents (n, d): of two layers, with the mean of p(z1 | z) between."""
        raise NotImplementedError

    def below(self, x: Tensor, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Decoder outputs, and log p(z1 | z) - log q(z1 | x, z), (n,), at a draw of q(z1 | x, z)."""
        return self.decode(z), z.new_zeros(len(z))

    def terms(self, x: Tensor, generator: torch.Generator, *, repeats: int = 1) -> Terms:
        """The bound's terms of images (n, c, h, w); `repeats` draws of each give n * repeats rows, an image's own together."""
        mean, log_var = self.encode(x)
        if repeats > 1:
            x, mean, log_var = (t.repeat_interleave(repeats, dim=0) for t in (x, mean, log_var))
        z = draw_normal(mean, log_var, generator)
        raw, inner = self.below(x, z, generator)
        return Terms(z, self.likelihood.log_prob(x, raw), inner, log_normal(z, mean, log_var))

    def generate(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Mean images (n, c, h, w) given the top latent, with a draw of what lies between."""
        return self.likelihood.mean(self.decode(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images at the mean of q(z | x)."""
        return self.likelihood.mean(self.decode(self.encode(x)[0]))

    def _image(self, flat: Tensor) -> Tensor:
        return flat.view(len(flat), self.likelihood.outputs, *self.image_shape)


class VAE(LatentModel):
    """Two gated layers each way."""

    def build(self) -> None:
        h, d = self.config.hidden, self.config.latent
        self.encoder = nn.Sequential(nn.Flatten(), GatedLinear(self.pixels, h), GatedLinear(h, h))
        self.mean, self.log_var = nn.Linear(h, d), LogVariance(h, d)
        self.decoder = nn.Sequential(
            GatedLinear(d, h), GatedLinear(h, h), nn.Linear(h, self.likelihood.outputs * self.pixels)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(x)
        return self.mean(features), self.log_var(features)

    def decode(self, z: Tensor) -> Tensor:
        return self._image(self.decoder(z))


class HVAE(LatentModel):
    """Two stochastic layers: q(z | x) q(z1 | x, z) and p(z1 | z) p(x | z1, z) (Section 4 of Tomczak and Welling 2018)."""

    def build(self) -> None:
        h, d = self.config.hidden, self.config.latent
        self.encoder, features = self.see(deep=True)
        self.mean, self.log_var = nn.Linear(features, d), LogVariance(features, d)
        self.from_x, features = self.see(deep=False)
        self.from_z = GatedLinear(d, h)
        self.joint = GatedLinear(features + h, h)
        self.mean1, self.log_var1 = nn.Linear(h, d), LogVariance(h, d)
        self.prior1 = nn.Sequential(GatedLinear(d, h), GatedLinear(h, h))
        self.prior_mean1, self.prior_log_var1 = nn.Linear(h, d), LogVariance(h, d)
        self.show_z1, self.show_z = GatedLinear(d, h), GatedLinear(d, h)
        self.show = self.draw_image()

    def see(self, *, deep: bool) -> tuple[nn.Module, int]:
        """A network over images, and how many features it gives."""
        h = self.config.hidden
        layers = [nn.Flatten(), GatedLinear(self.pixels, h)] + ([GatedLinear(h, h)] if deep else [])
        return nn.Sequential(*layers), h

    def draw_image(self) -> nn.Module:
        """A network from 2 * hidden features to decoder outputs."""
        h, out = self.config.hidden, self.likelihood.outputs
        return nn.Sequential(
            GatedLinear(2 * h, h), nn.Linear(h, out * self.pixels), nn.Unflatten(1, (out, *self.image_shape))
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(x)
        return self.mean(features), self.log_var(features)

    def _prior1(self, z: Tensor) -> tuple[Tensor, Tensor]:
        features = self.prior1(z)
        return self.prior_mean1(features), self.prior_log_var1(features)

    def outputs(self, z1: Tensor, z: Tensor, x: Tensor | None) -> Tensor:
        """Decoder outputs; x only matters to an autoregressive decoder."""
        raw: Tensor = self.show(torch.cat([self.show_z1(z1), self.show_z(z)], dim=1))
        return raw

    def below(self, x: Tensor, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        features = self.joint(torch.cat([self.from_x(x), self.from_z(z)], dim=1))
        mean, log_var = self.mean1(features), self.log_var1(features)
        z1 = draw_normal(mean, log_var, generator)
        inner = log_normal(z1, *self._prior1(z)) - log_normal(z1, mean, log_var)
        return self.outputs(z1, z, x), inner

    def decode(self, z: Tensor) -> Tensor:
        return self.outputs(self._prior1(z)[0], z, None)

    def generate(self, z: Tensor, generator: torch.Generator) -> Tensor:
        return self.likelihood.mean(self.outputs(draw_normal(*self._prior1(z), generator), z, None))


class ConvHVAE(HVAE):
    """HVAE that sees and draws by gated convolutions."""

    def see(self, *, deep: bool) -> tuple[nn.Module, int]:
        (c, h, w), k = self.image_shape, self.config.width
        first, middle = (7, 5) if deep else (3, 3)
        net = nn.Sequential(
            GatedConv2d(c, k, first),
            GatedConv2d(k, k, 3, 2),
            GatedConv2d(k, 2 * k, middle),
            GatedConv2d(2 * k, 2 * k, 3, 2),
            GatedConv2d(2 * k, 6, 3),
            nn.Flatten(),
        )
        return net, 6 * -(-h // 4) * -(-w // 4)

    def draw_image(self) -> nn.Module:
        c, k = self.image_shape[0], self.config.width
        return nn.Sequential(
            GatedLinear(2 * self.config.hidden, self.pixels),
            nn.Unflatten(1, self.image_shape),
            GatedConv2d(c, 2 * k, 3),
            GatedConv2d(2 * k, 2 * k, 3),
            GatedConv2d(2 * k, 2 * k, 3),
            GatedConv2d(2 * k, 2 * k, 3),
            nn.Conv2d(2 * k, self.likelihood.outputs * c, 1),
            nn.Unflatten(1, (self.likelihood.outputs, c)),
        )


class PixelHVAE(ConvHVAE):
    """ConvHVAE whose decoder also sees the pixels before each one (PixelCNN), so that images are drawn pixel by pixel."""

    def build(self) -> None:
        super().build()
        (c, _, _), k = self.image_shape, self.config.width
        if c > 1:
            raise ConfigError(f"PixelHVAE is for images of one channel; got {c}. Use convhvae.")
        self.pixel_first = MaskedConv2d("A", c, 2 * k, 7)
        self.pixel_more = nn.ModuleList([MaskedConv2d("B", 2 * k, 2 * k, 3) for _ in range(4)])
        self.pixel_out = nn.Conv2d(2 * k, self.likelihood.outputs * c, 1)

    def draw_image(self) -> nn.Module:
        k = self.config.width
        latent = super().draw_image()
        return nn.Sequential(*list(latent)[:-2], nn.Conv2d(2 * k, 2 * k, 1))  # type: ignore[call-overload]

    def outputs(self, z1: Tensor, z: Tensor, x: Tensor | None) -> Tensor:
        condition = super().outputs(z1, z, None)
        if x is None:
            x = self._raster(condition)
        return self._pixels(condition, x)

    def _pixels(self, condition: Tensor, x: Tensor) -> Tensor:
        hidden = torch.relu(self.pixel_first(x) + condition)
        for layer in self.pixel_more:
            hidden = torch.relu(layer(hidden)) + hidden
        return self.pixel_out(hidden).unflatten(1, (self.likelihood.outputs, self.image_shape[0]))

    @torch.no_grad()
    def _raster(self, condition: Tensor) -> Tensor:
        """Images pixel by pixel, each at its mean (a grey level for binary images: no randomness is needed, none is hidden)."""
        _, h, w = self.image_shape
        x = condition.new_zeros(len(condition), *self.image_shape)
        for i in range(h):
            for j in range(w):
                mean = self.likelihood.mean(self._pixels(condition, x))[..., i, j]
                x[..., i, j] = (mean > 0.5).to(x.dtype) if self.likelihood.binary else mean
        return x


class FullyConvVAE(LatentModel):
    """Residual convolutions down to a quarter of the side and back, for images of CelebA's size."""

    BLOCKS = 2

    def build(self) -> None:
        (c, h, w), k, d = self.image_shape, self.config.width, self.config.latent
        if h % 4 or w % 4:
            raise ConfigError(f"fullconv halves the image twice and needs sides divisible by 4; got {h}x{w}.")
        self.small = (6, h // 4, w // 4)
        size = math.prod(self.small)
        self.encoder = nn.Sequential(
            nn.Conv2d(c, k, 3, 2, 1), nn.ELU(), *(_Residual(k) for _ in range(self.BLOCKS)),
            nn.Conv2d(k, 2 * k, 3, 2, 1), nn.ELU(), *(_Residual(2 * k) for _ in range(self.BLOCKS)),
            nn.Conv2d(2 * k, 6, 3, 1, 1), nn.ELU(), nn.Flatten(),
        )  # fmt: skip
        self.mean, self.log_var = nn.Linear(size, d), LogVariance(size, d)
        self.decoder = nn.Sequential(
            nn.Linear(d, size), nn.Unflatten(1, self.small),
            nn.Upsample(scale_factor=2), nn.Conv2d(6, 2 * k, 3, 1, 1), nn.ELU(), *(_Residual(2 * k) for _ in range(self.BLOCKS)),
            nn.Upsample(scale_factor=2), nn.Conv2d(2 * k, k, 3, 1, 1), nn.ELU(), *(_Residual(k) for _ in range(self.BLOCKS)),
            nn.Conv2d(k, self.likelihood.outputs * c, 3, 1, 1), nn.Unflatten(1, (self.likelihood.outputs, c)),
        )  # fmt: skip

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(x)
        return self.mean(features), self.log_var(features)

    def decode(self, z: Tensor) -> Tensor:
        raw: Tensor = self.decoder(z)
        return raw


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(nn.functional.elu(x))


MODELS: dict[str, type[LatentModel]] = {
    "vae": VAE, "hvae": HVAE, "convhvae": ConvHVAE, "pixelhvae": PixelHVAE, "fullconv": FullyConvVAE,
}  # fmt: skip


def build_model(
    config: ModelConfig, image_shape: tuple[int, int, int], likelihood: PixelLikelihood, generator: torch.Generator
) -> LatentModel:
    """A model with Glorot weights drawn from `generator` (on the CPU)."""
    model = MODELS[config.name](config, image_shape, likelihood)
    glorot_(model, generator)
    return model
