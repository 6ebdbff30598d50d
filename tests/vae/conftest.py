"""Tiny models and the linear-Gaussian VAE, in which everything is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bpc.vae.likelihoods import Gaussian
from bpc.vae.models import LatentModel, ModelConfig

STD = 0.3


class IdentityGaussian(Gaussian):
    """N(raw, std^2): no sigmoid between the decoder and the mean."""

    def mean(self, raw: Tensor) -> Tensor:
        return raw[..., 0, :, :, :]


class LinearVAE(LatentModel):
    """Probabilistic PCA: x = W z + b + noise, z ~ N(0, I). W has orthogonal columns of unequal length, so the exact posterior is
    diagonal, and q is that posterior, moved by `shift` and with its variances multiplied by `widen`.
    """

    shift, widen = 0.0, 1.0

    def build(self) -> None:
        generator = torch.Generator().manual_seed(3)
        d, p = self.config.latent, self.pixels
        directions = torch.linalg.qr(torch.randn(p, d, generator=generator, dtype=torch.float64))[0]
        self.weight = nn.Parameter(directions * torch.linspace(0.4, 1.2, d, dtype=torch.float64))
        self.offset = nn.Parameter(0.3 + 0.4 * torch.rand(p, generator=generator, dtype=torch.float64))

    def posterior(self, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d) of z given weighted points (m, c, h, w), the prior N(0, I)."""
        eye = torch.eye(self.config.latent, dtype=torch.float64)
        covariance = torch.linalg.inv(eye + weights.sum() * self.weight.T @ self.weight / STD**2)
        gap = weights @ (points.flatten(1) - self.offset)
        return (covariance @ self.weight.T @ gap / STD**2).detach(), covariance.detach()

    def marginal(self) -> torch.distributions.MultivariateNormal:
        """Of flat images."""
        covariance = self.weight @ self.weight.T + STD**2 * torch.eye(self.pixels, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.offset, covariance)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        variance = 1.0 / (1.0 + self.weight.square().sum(0) / STD**2)
        mean = (x.flatten(1) - self.offset) @ self.weight / STD**2 * variance
        return mean + self.shift, (self.widen * variance).log().expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.weight.T + self.offset).view(len(z), 1, *self.image_shape)


@pytest.fixture
def linear_vae() -> LinearVAE:
    """Two latents, images 1 x 2 x 3, float64."""
    return LinearVAE(ModelConfig(latent=2), (1, 2, 3), IdentityGaussian(STD)).double()


def grey_images(n: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Smooth images (n, c, h, w) on 256 grey levels: random bumps, so there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    c, h, w = shape
    place = torch.rand(n, 2, 1, 1, 1, generator=generator)
    y, x = torch.linspace(0, 1, h).view(1, 1, h, 1), torch.linspace(0, 1, w).view(1, 1, 1, w)
    square = (y - place[:, 0]).square() + (x - place[:, 1]).square()
    bump = torch.exp(-square / 0.08).expand(n, c, h, w)
    noise = 0.05 * torch.rand(n, c, h, w, generator=generator)
    return ((bump * 0.9 + noise) * 255).round() / 255


@pytest.fixture(scope="session")
def grey():
    """The function `grey_images`."""
    return grey_images


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean and four standard errors, for Monte Carlo tests."""
    return float(values.mean()), 4.0 * float(values.std()) / math.sqrt(len(values))


@pytest.fixture(scope="session")
def estimate():
    """The function `mean_and_error`."""
    return mean_and_error
