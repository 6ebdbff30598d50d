r"""ByPE: a prior on a weighted Bayesian pseudocoreset of the training images (Ai et al. 2021, Eq. 12 and 15-19, Algorithm 2).

    p(z | U, w) = sum_m w_m / N  N(z; mu(u_m), sigma^2 I)

The pseudocoreset minimises KL[p(z | U, w) || p(z | X)], both read as posteriors of z under the decoder. Its gradient is the
reverse-KL covariance estimator of `bpc.divergences.reverse_kl`, with z in the place of a network's weights and the decoder as the
likelihood: this file calls it and adds nothing to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bpc.coreset import Pseudocoreset
from bpc.divergences import LearnedCoreset, RealBatch
from bpc.divergences.reverse_kl import reverse_kl_gradient
from bpc.errors import ConfigError
from bpc.vae.models import LatentModel
from bpc.vae.priors.base import Components, Prior, TrainingData
from bpc.vae.priors.record import PRIORS, PriorRecord, some_images

__all__ = ["BypePrior", "DecoderLikelihood"]


class DecoderLikelihood:
    """log p(x | z) as a `bpc.likelihood.LogLikelihood`: a latent is what a parameter vector is elsewhere."""

    def __init__(self, model: LatentModel) -> None:
        self.model = model

    def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """Latents (k, d) and images (m, c, h, w) -> (k, m) nats; labels are not used."""
        return self.model.likelihood.pairwise(points, self.model.decode(params))


def _without_moments(module: nn.Module, tensors: dict[str, Any], prefix: str, *_: Any) -> None:
    """Files of earlier versions hold the moments of Adam, which no update looks at: it starts afresh."""
    for name in ("points", "weights"):
        for moment in ("mean", "square"):
            tensors.pop(f"{prefix}{name}_{moment}", None)


class BypePrior(Prior):
    """The weighted pseudocoreset.

    Every `interval` epochs it is updated by one pass over the training images in minibatches, each a step of Adam on points and
    weights, of size gamma_t = `step` / t in pixels and gamma_t N / m in weight (t counts all steps so far), weights kept
    non-negative and pixels in [0, 1]. The weights are centred to sum to N before every update and when they are used. Adam is
    the authors' choice; the paper prints a plain step, which at gradients that grow with N would need another size for every N.

    Args:
        images: where the points start: m training images (m, c, h, w); their weights start at N / m.
        total: N.
        interval: k, epochs between updates.
        step: gamma, the first step size.
        samples: S, draws of p(z | U, w) per step; 0 is m.
        batch: B, training images per step.
        steps: of Adam an update; 0 is one pass, N / B.
    """

    name = "bype"
    points: Tensor
    weights: Tensor
    taken: Tensor  # steps so far

    def __init__(
        self,
        images: Tensor,
        total: int,
        *,
        interval: int = 10,
        step: float = 0.1,
        samples: int = 0,
        batch: int = 100,
        steps: int = 0,
    ) -> None:
        super().__init__()
        if interval < 1 or step < 0 or samples == 1 or batch < 1:
            raise ConfigError(f"ByPE needs interval and batch of at least 1, step of at least 0, samples of 0 or above 1; got "
                              f"{interval}, {batch}, {step}, {samples}.")  # fmt: skip
        m = len(images)
        self.total, self.interval, self.step = total, interval, step
        self.draws, self.batch, self.steps = samples or max(m, 2), batch, steps
        self.log_var = nn.Parameter(torch.zeros(1, 1, device=images.device))
        self.register_buffer("points", images.clone())
        self.register_buffer("weights", torch.full((m,), total / m, device=images.device))
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))
        self.register_load_state_dict_pre_hook(_without_moments)

    def centred_weights(self) -> Tensor:
        """W + (N / m - mean w), clipped at 0 and scaled to sum to N: line 2 of Algorithm 2."""
        centred = (self.weights + self.total / len(self.weights) - self.weights.mean()).clamp(min=0.0)
        return centred * (self.total / centred.sum())

    def components(self, model: LatentModel) -> Components:
        return Components(model.encode(self.points)[0], self.log_var, self.centred_weights().log())

    def begin_epoch(self, epoch: int, model: LatentModel, data: TrainingData, generator: torch.Generator) -> None:
        if epoch > 1 and (epoch - 1) % self.interval == 0:
            self.update(model, data, generator)

    def update(self, model: LatentModel, data: TrainingData, generator: torch.Generator) -> None:
        """One update (lines 4 to 17 of Algorithm 2); the model does not change."""
        n = len(data.images)
        with torch.no_grad():
            self.weights.copy_(self.centred_weights())
        batch = min(self.batch, n)
        order = torch.randperm(n, generator=generator, device=generator.device).to(data.images.device)
        # Adam starts afresh: the model has moved on since the last update
        adam = torch.optim.Adam([{"params": [self.points]}, {"params": [self.weights]}])
        for i in range(self.steps or max(1, n // batch)):
            chosen = order[(torch.arange(batch, device=order.device) + i * batch) % n]
            self._descend(adam, self.gradient(model, data.images[chosen], generator))

    def gradient(self, model: LatentModel, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """D KL / d points and d KL / d weights from `samples` draws of the prior and a batch of training images (Eq. 18, 19)."""
        with torch.no_grad():
            z, _ = self.sample(self.draws, model, generator)
        labels = torch.zeros(len(self.points), dtype=torch.long, device=z.device)
        coreset = LearnedCoreset(self.points, labels, self.weights)
        real = RealBatch(batch, labels.new_zeros(len(batch)), self.total)
        return reverse_kl_gradient(DecoderLikelihood(model), coreset, z, real, reduction="sum")[:2]

    @torch.no_grad()
    def _descend(self, adam: torch.optim.Adam, gradients: tuple[Tensor, Tensor]) -> None:
        self.taken += 1
        gamma = self.step / float(self.taken)
        for group, gradient, unit in zip(
            adam.param_groups, gradients, (1.0, self.total / len(self.weights)), strict=True
        ):
            group["lr"] = gamma * unit
            group["params"][0].grad = gradient
        adam.step()
        adam.zero_grad()
        self.weights.clamp_(min=0.0)
        self.points.clamp_(0.0, 1.0)

    def pseudocoreset(self, dataset: str) -> Pseudocoreset:
        """The weighted points as a coreset of pixels in [0, 1]; they stand for images without labels, so all are of one class.

        Args:
            dataset: the name of what the prior was trained on.
        """
        channels = self.points.shape[1]
        return Pseudocoreset(
            points=self.points.clone(),
            labels=torch.zeros(len(self.points), dtype=torch.long, device=self.points.device),
            weights=self.centred_weights(),
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            dataset=dataset,
            method=self.name,
            num_classes=1,
        )

    def image_log_var(self) -> Tensor:
        return self.log_var

    def pseudo_inputs(self) -> tuple[Tensor, Tensor]:
        return self.points, self.centred_weights() / self.total


PRIORS.register(
    PriorRecord(
        name="bype",
        label="ByPE",
        build=lambda config, latent, images, generator: BypePrior(
            some_images(images, config.components, generator),
            len(images),
            interval=config.interval,
            step=config.step,
            samples=config.samples,
            batch=config.coreset_batch,
            steps=config.coreset_steps,
        ),
        place=60,
        published={"ai2021": "ByPE"},
        on_images=True,
    )
)
