"""VampPrior: a mixture of the variational posteriors of pseudo-inputs (Tomczak and Welling 2018, Eq. 9 and 16)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bpc.vae.models import LatentModel
from bpc.vae.priors.base import Components, Prior
from bpc.vae.priors.record import PRIORS, PriorConfig, PriorRecord, some_images

__all__ = ["VampPrior"]


class VampPrior(Prior):
    """p(z) = sum_k w_k q(z | u_k).

    Args:
        images: where the pseudo-inputs start, (k, c, h, w) in [0, 1].
        learn_inputs: False is VampPrior-data: training images that stay what they are.
        learn_weights: Eq. 16; False weighs all alike.
    """

    name = "vampprior"

    def __init__(self, images: Tensor, *, learn_inputs: bool = True, learn_weights: bool = False) -> None:
        super().__init__()
        if learn_inputs:
            self.inputs = nn.Parameter(images.clone())
        else:
            self.register_buffer("inputs", images.clone())
        if learn_weights:
            self.log_weights = nn.Parameter(torch.zeros(len(images)))
        else:
            self.register_buffer("log_weights", torch.zeros(len(images)))
        self.name = "vampprior-weighted" if learn_weights else "vampprior" if learn_inputs else "vampprior-data"

    def components(self, model: LatentModel) -> Components:
        means, log_vars = model.encode(self.inputs.clamp(0.0, 1.0))
        return Components(means, log_vars, self.log_weights)

    def pseudo_inputs(self) -> tuple[Tensor, Tensor]:
        return self.inputs.detach().clamp(0.0, 1.0), self.log_weights.detach().softmax(0)


def _build(config: PriorConfig, images: Tensor, generator: torch.Generator, *, learn: bool, weights: bool) -> Prior:
    start = some_images(images, config.components, generator)
    if learn and not config.real_start:
        start = (0.5 + 0.01 * torch.randn(start.shape, generator=generator)).to(images.device)
    return VampPrior(start, learn_inputs=learn, learn_weights=weights)


PRIORS.register(
    PriorRecord(
        name="vampprior",
        label="VampPrior",
        build=lambda config, latent, images, generator: _build(config, images, generator, learn=True, weights=False),
        place=20,
        published={"ai2021": "VampPrior", "tomczak2018": "VampPrior"},
    )
)
PRIORS.register(
    PriorRecord(
        name="vampprior-data",
        label="VampPrior, data",
        build=lambda config, latent, images, generator: _build(config, images, generator, learn=False, weights=False),
        place=30,
        published={"tomczak2018": "VampPrior data"},
    )
)
PRIORS.register(
    PriorRecord(
        name="vampprior-weighted",
        label="VampPrior, weighted",
        build=lambda config, latent, images, generator: _build(config, images, generator, learn=True, weights=True),
        place=40,
    )
)
