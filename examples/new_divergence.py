"""A divergence of your own, registered by name and used by `distill` like the built-in ones (under a minute).

    python examples/new_divergence.py

The Fisher divergence between the two posteriors, E ||d/dtheta [log pi_u(theta) - log pi_x(theta)]||^2 / N^2, over draws around an
expert's end. Both log-likelihoods are means over points, as if the coreset had as many as the data; then the prior cancels.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from bpc.divergences import DIVERGENCES, CoresetGradient, DivergenceRecord, ExpertWindow, LearnedCoreset, RealBatch
from bpc.divergences.record import digits_preset
from bpc.likelihood import LogLikelihood
from bpc_cli.main import main


@dataclass(frozen=True, kw_only=True)
class FisherConfig:
    """Settings: those named as a preset's are filled in from it."""

    expert_epochs: int = 2
    samples: int = 10
    sigma_expert: float = 0.01


@dataclass(frozen=True)
class Fisher:
    """Tensors in, the gradient out."""

    log_likelihood: LogLikelihood
    config: FisherConfig
    needs_real: ClassVar = True  # a batch of real images, please
    extras: ClassVar = {}  # nothing is learned besides points and weights

    @property
    def expert_epochs(self) -> int:
        """How long the window of an expert's trajectory is."""
        return self.config.expert_epochs

    def gradient(
        self, coreset: LearnedCoreset, experts: ExpertWindow, real: RealBatch, generator: torch.Generator
    ) -> CoresetGradient:
        """By points and weights, with the divergence's value."""
        noise = torch.randn(self.config.samples, len(experts.end), generator=generator, device=experts.end.device)
        params = (experts.end + self.config.sigma_expert * noise).requires_grad_(True)
        points = coreset.points.detach().requires_grad_(True)
        weights = coreset.weights.detach().requires_grad_(True)
        core = self.log_likelihood(params, points, coreset.labels) @ weights / weights.sum()
        full = self.log_likelihood(params, real.points, real.labels).mean(1)
        (gap,) = torch.autograd.grad((core - full).sum(), params, create_graph=True)
        value = gap.square().sum(1).mean()
        return CoresetGradient(*torch.autograd.grad(value, (points, weights)), value.detach())


DIVERGENCES.register(
    DivergenceRecord(
        name="fisher",
        label="Fisher",
        colour="#CC79A7",
        marker="X",
        divergence=Fisher,
        config=FisherConfig,
        presets={"digits": lambda ipc: digits_preset(expert_epochs=2, lr_points=10.0, momentum=0.5)},
    )
)

if __name__ == "__main__":
    main("distill --dataset digits --divergence fisher --ipc 1 --protocol kim2022-scaled".split())
