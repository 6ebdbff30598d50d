"""p(x | z) of images, given what a decoder puts out: every likelihood of both papers behind one protocol."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.errors import unknown_name

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "DiscretisedLogistic",
    "Gaussian",
    "PixelLikelihood",
    "SquaredError",
    "make_likelihood",
]


class PixelLikelihood(Protocol):
    """A distribution of images (c, h, w), pixels independent.

    Attributes:
        outputs: numbers a decoder gives for each pixel.
        binary: whether images have to be 0 or 1.
    """

    name: str
    outputs: int
    binary: bool

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """Images (..., c, h, w) in [0, 1] and decoder outputs (..., outputs, c, h, w) -> (...) nats; leading axes broadcast."""
        ...

    def pairwise(self, x: Tensor, raw: Tensor) -> Tensor:
        """Each of m images under each of k outputs: (m, c, h, w), (k, outputs, c, h, w) -> (k, m) nats."""
        ...

    def mean(self, raw: Tensor) -> Tensor:
        """(..., outputs, c, h, w) -> (..., c, h, w) in [0, 1]."""
        ...

    def sample(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """One draw, of the shape of `mean`."""
        ...


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device)


class Bernoulli:
    """Binary pixels: log p = x a - softplus(a), a the logit."""

    name, outputs, binary = "bernoulli", 1, True

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        logit = raw[..., 0, :, :, :]
        return (x * logit - F.softplus(logit)).sum((-3, -2, -1))

    def pairwise(self, x: Tensor, raw: Tensor) -> Tensor:
        logit = raw.flatten(1)
        return logit @ x.flatten(1).T - F.softplus(logit).sum(1, keepdim=True)

    def mean(self, raw: Tensor) -> Tensor:
        return raw[..., 0, :, :, :].sigmoid()

    def sample(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        mean = self.mean(raw)
        return (_uniform(mean, generator) < mean).to(mean.dtype)


class SquaredError:
    """log p = -sum (x - mu)^2, mu in [0, 1]: what ByPE-VAE's authors call MSE and report their likelihoods with.

    It is N(mu, 1/2) without its constant -(d / 2) log pi, so its "nats" compare with theirs and with nothing else.
    """

    name, outputs, binary = "mse", 1, False
    precision, constant = 2.0, 0.0  # of one pixel

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        d = math.prod(x.shape[-3:])
        return -0.5 * self.precision * (x - self.mean(raw)).square().sum((-3, -2, -1)) + d * self.constant

    def pairwise(self, x: Tensor, raw: Tensor) -> Tensor:
        x, mean = x.flatten(1), self.mean(raw).flatten(1)
        square = x.square().sum(1) + mean.square().sum(1, keepdim=True) - 2.0 * mean @ x.T
        return -0.5 * self.precision * square + x.shape[1] * self.constant

    def mean(self, raw: Tensor) -> Tensor:
        return raw[..., 0, :, :, :].sigmoid()

    def sample(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """The mean itself: with a standard deviation of 0.7 a draw would hide it (the authors do the same)."""
        return self.mean(raw)


class Gaussian(SquaredError):
    """N(mu, std^2) with its constant: a density over continuous pixels."""

    name = "gaussian"

    def __init__(self, std: float = 0.1) -> None:
        self.std = std
        self.precision = 1.0 / std**2
        self.constant = -0.5 * math.log(2 * math.pi) - math.log(std)

    def sample(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        mean = self.mean(raw)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return (mean + self.std * noise).clamp(0.0, 1.0)


class DiscretisedLogistic:
    """256 grey values: the mass that a logistic with a mean and a scale for each pixel gives to a bin (Kingma et al. 2016)."""

    name, outputs, binary = "logistic", 2, False
    BIN = 1.0 / 256.0
    MIN_LOG_SCALE, MAX_LOG_SCALE = -4.5, 0.0

    def _parts(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean in [0, 1] and inverse scale."""
        scale = raw[..., 1, :, :, :].clamp(self.MIN_LOG_SCALE, self.MAX_LOG_SCALE)
        return raw[..., 0, :, :, :].sigmoid(), (-scale).exp()

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        mean, inverse = self._parts(raw)
        grey = x * 255.0
        # rounded to an integer, with the gradient of the unrounded: a pseudocoreset's pixels are learned through it
        low = (grey + (torch.floor(grey + 0.5) - grey).detach()) * self.BIN  # the bin's lower edge
        a, b = (low - mean) * inverse, (low + self.BIN - mean) * inverse
        # log(sigmoid(b) - sigmoid(a)) without cancellation; the outermost bins take the tails
        inner = F.logsigmoid(b) + F.logsigmoid(-a) + torch.log(-torch.expm1(a - b))
        inner = torch.where(low <= 0.0, F.logsigmoid(b), inner)
        inner = torch.where(low + self.BIN >= 1.0, F.logsigmoid(-a), inner)
        return inner.sum((-3, -2, -1))

    def pairwise(self, x: Tensor, raw: Tensor) -> Tensor:
        return self.log_prob(x, raw.unsqueeze(1))

    def mean(self, raw: Tensor) -> Tensor:
        return self._parts(raw)[0]

    def sample(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        mean, inverse = self._parts(raw)
        u = _uniform(mean, generator).clamp(1e-6, 1.0 - 1e-6)
        value = mean + (u.log() - (-u).log1p()) / inverse
        return (value / self.BIN).floor().clamp(0, 255) / 255.0


LIKELIHOODS: dict[str, Callable[[], PixelLikelihood]] = {
    "bernoulli": Bernoulli,
    "mse": SquaredError,
    "gaussian": Gaussian,
    "logistic": DiscretisedLogistic,
}


def make_likelihood(name: str) -> PixelLikelihood:
    """One of `LIKELIHOODS` by name."""
    if name not in LIKELIHOODS:
        raise unknown_name("likelihood", name, LIKELIHOODS)
    return LIKELIHOODS[name]()
