"""The prior of a network's weights, as an object: an independent Gaussian over the flat parameters.

Log prior, its gradient, where chains start and the mass that samplers start from all come from it. (The priors of latent
variables are another thing: `bpc.vae.priors`.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bpc.errors import ConfigError
from bpc.models.network import HasLayout, Network
from bpc.registry import Registry

__all__ = ["WEIGHT_PRIORS", "WeightPrior", "WeightPriorRecord", "fan_in", "isotropic"]

GAIN_WIDTH = 0.5  # of a norm's gain around 1, and of its shift: a gain changes sign at two of them


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightPrior:
    """theta_i ~ N(mean_i, (scale width_i)^2), independent.

    Attributes:
        scale: one number that multiplies every width.
        mean: (p,); 0.0 for an isotropic prior.
        width: (p,); 1.0 for an isotropic prior, whose arithmetic needs no vector.
    """

    scale: float
    mean: Tensor | float = 0.0
    width: Tensor | float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0) or not bool(torch.all(torch.as_tensor(self.width) > 0)):
            raise ConfigError(f"The prior's standard deviation must be positive; got a scale of {self.scale}.")

    def tempered(self, temperature: float) -> WeightPrior:
        """Its density to the power 1/T: widths times sqrt(T)."""
        return self if temperature == 1 else replace(self, scale=self.scale * math.sqrt(temperature))

    @property
    def std(self) -> Tensor | float:
        """(p,), or one number."""
        return self.scale * self.width

    def to(self, like: Tensor) -> WeightPrior:
        """With the device and dtype of `like`."""
        if not isinstance(self.width, Tensor):
            return self
        return replace(self, mean=torch.as_tensor(self.mean).to(like), width=self.width.to(like))

    def log_density(self, params: Tensor) -> Tensor:
        """(k, p) -> (k,) nats, without the normalising constant."""
        gap = (params - self.mean) / self.width if isinstance(self.width, Tensor) else params
        return -0.5 * gap.square().sum(1) / self.scale**2

    def gradient(self, params: Tensor) -> Tensor:
        """Of `log_density`, (k, p)."""
        return (self.mean - params) / self.std**2

    def draw(self, noise: Tensor) -> Tensor:
        """(k, p) draws from unit Gaussian `noise` (k, p)."""
        return self.mean + self.std * noise if isinstance(self.width, Tensor) else self.std * noise


def isotropic(std: float) -> WeightPrior:
    """N(0, std^2 I)."""
    return WeightPrior(scale=std)


def fan_in(network: Network, scale: float) -> WeightPrior:
    """Widths by layer: what a unit adds up has the same size in every layer (Neal 1996, section 2.1; He et al. 2015).

    A weight has standard deviation scale / sqrt(fan in), a bias `scale` (its unit's input is of that order), a norm's gain is
    N(1, (scale / 2)^2), its shift N(0, (scale / 2)^2): what they act on has variance 1.

    Raises:
        ConfigError: the network does not say which parameter is what.
    """
    if not isinstance(network, HasLayout):
        raise ConfigError(
            f"{network.name} has no layout (see bpc.models.network.ParameterBlock), which --prior fan-in needs; "
            "use --prior isotropic."
        )
    means, widths = [], []
    for block in network.layout:
        size = math.prod(block.shape)
        norm = block.kind in ("gain", "shift")
        means.append(torch.full((size,), 1.0 if block.kind == "gain" else 0.0))
        width = GAIN_WIDTH if norm else 1.0 / math.sqrt(block.fan_in) if block.kind == "weight" else 1.0
        widths.append(torch.full((size,), width))
    return WeightPrior(scale=scale, mean=torch.cat(means), width=torch.cat(widths))


@dataclass(frozen=True, kw_only=True)
class WeightPriorRecord:
    """A family of priors with one scale (`bpc.samplers.ExactSettings` has its default).

    Attributes:
        name: on the command line and in files.
        build: from a network and the scale.
        words: for captions, from the scale.
    """

    name: str
    build: Callable[[Network, float], WeightPrior]
    words: Callable[[float], str]


WEIGHT_PRIORS: Registry[WeightPriorRecord] = Registry("prior")
WEIGHT_PRIORS.register(
    WeightPriorRecord(
        name="isotropic",
        build=lambda network, scale: isotropic(scale),
        words=lambda scale: f"prior N(0, {scale:g}^2)",
    )
)
WEIGHT_PRIORS.register(
    WeightPriorRecord(
        name="fan-in",
        build=fan_in,
        words=lambda scale: f"fan-in prior of scale {scale:g}",
    )
)
