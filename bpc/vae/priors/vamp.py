"""VampPrior: a mixture of the variational posteriors of pseudo-inputs (Tomczak and Welling 2018, Eq. 9 and 16)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bpc.vae.models import LatentModel
from bpc.vae.priors.base import Components, Prior

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
