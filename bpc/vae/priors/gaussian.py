"""N(0, I), and a mixture of Gaussians with free means, variances and weights."""

from __future__ import annotations

import torch
from torch import nn

from bpc.vae.models import LatentModel
from bpc.vae.priors.base import Components, Prior
from bpc.vae.priors.record import PRIORS, PriorRecord

__all__ = ["MixtureOfGaussians", "StandardGaussian"]


class StandardGaussian(Prior):
    """N(0, I)."""

    name = "gaussian"

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1, latent), persistent=False)

    def components(self, model: LatentModel) -> Components:
        return Components(self.zero, self.zero[:, :1], self.zero[:, 0])  # type: ignore[index,arg-type]


class MixtureOfGaussians(Prior):
    """k components with diagonal covariances and free weights, learned by the bound."""

    name = "mog"

    def __init__(self, latent: int, components: int, generator: torch.Generator) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(components, latent, generator=generator))
        self.log_vars = nn.Parameter(torch.zeros(components, latent))
        self.log_weights = nn.Parameter(torch.zeros(components))

    def components(self, model: LatentModel) -> Components:
        return Components(self.means, self.log_vars, self.log_weights)


PRIORS.register(
    PriorRecord(
        name="gaussian",
        label="Gaussian",
        build=lambda config, latent, images, generator: StandardGaussian(latent),
        place=0,
        published={"ai2021": "Gaussian prior", "tomczak2018": "standard"},
    )
)
PRIORS.register(
    PriorRecord(
        name="mog",
        label="Mixture of Gaussians",
        build=lambda config, latent, images, generator: MixtureOfGaussians(latent, config.components, generator),
        place=10,
        published={"tomczak2018": "MoG"},
    )
)
