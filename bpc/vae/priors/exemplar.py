"""Exemplar prior: the training images themselves, or a random part of them (Norouzi et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bpc.errors import ConfigError
from bpc.vae.models import LatentModel
from bpc.vae.neighbours import Search
from bpc.vae.priors.base import Components, Prior, TrainingData, log_mixture
from bpc.vae.priors.record import PRIORS, PriorRecord

__all__ = ["ExemplarPrior"]

ENCODE_BATCH = 1000


class ExemplarPrior(Prior):
    """p(z) = 1/k sum_j N(z; mu(x_j), sigma^2 I) over k training images; an image's own component is left out in training.

    The exemplars are drawn anew before every epoch. With `neighbours` only those nearest to z enter the sum (their means are
    looked up in an index that is rebuilt every epoch, and computed anew with a graph), which is a lower bound.

    Args:
        images: all training images, (n, c, h, w); kept by reference, not in checkpoints.
        exemplars: k; 0 is all.
        neighbours: how many nearest exemplars of each z a training step uses; 0 is all.
    """

    name = "exemplar"

    def __init__(self, images: Tensor, exemplars: int = 0, neighbours: int = 0) -> None:
        super().__init__()
        n = len(images)
        if exemplars != 0 and not 2 <= exemplars <= n:  # of one, leaving an image's own out leaves nothing
            raise ConfigError(f"{exemplars} exemplars of {n} training images; give 0 (all) or 2 to {n}.")
        if neighbours < 0:
            raise ConfigError(f"{neighbours} nearest exemplars; give 0 (all) or more.")
        self._images = images
        count = exemplars or n
        self.neighbours = min(neighbours, count)
        self.log_var = nn.Parameter(torch.zeros(1, 1, device=images.device))
        self.register_buffer("index", torch.arange(count, device=images.device))
        self._search: Search | None = None

    def begin_epoch(self, epoch: int, model: LatentModel, data: TrainingData, generator: torch.Generator) -> None:
        index: Tensor = self.index  # type: ignore[assignment]
        if len(index) < len(self._images):
            chosen = torch.randperm(len(self._images), generator=generator, device=generator.device)[: len(index)]
            index.copy_(chosen.to(index.device))
        if self.neighbours:
            self._search = Search(self._means(model, graph=False))

    def _means(self, model: LatentModel, *, graph: bool) -> Tensor:
        with torch.set_grad_enabled(graph):
            index: Tensor = self.index  # type: ignore[assignment]
            parts = self._images[index].split(ENCODE_BATCH)
            return torch.cat([model.encode(part)[0] for part in parts])

    def components(self, model: LatentModel) -> Components:
        means = self._means(model, graph=torch.is_grad_enabled())
        index: Tensor = self.index  # type: ignore[assignment]
        return Components(means, self.log_var, means.new_zeros(len(means)), index)

    def log_prob(self, z: Tensor, model: LatentModel, own: Tensor | None = None) -> Tensor:
        if self._search is None or not self.training:
            return super().log_prob(z, model, own)
        index: Tensor = self.index  # type: ignore[assignment]
        # the batch's neighbours together; one more each in training, for an image's own exemplar is left out
        count = min(self.neighbours + (own is not None), len(index))
        near = self._search.nearest(z.detach(), count).unique()
        near = near[near >= 0]
        means = model.encode(self._images[index[near]])[0]
        mixture = Components(means, self.log_var, means.new_zeros(len(means)), index[near])
        # the mean over the neighbours that were kept becomes their sum over all exemplars that could have been
        kept, total = torch.full_like(z[:, 0], float(len(near))), torch.full_like(z[:, 0], float(len(index)))
        if own is not None:
            kept -= torch.isin(own, index[near]).to(z.dtype)
            total -= torch.isin(own, index).to(z.dtype)
        return log_mixture(z, mixture, own) + kept.log() - total.log()

    def image_log_var(self) -> Tensor:
        return self.log_var

    def pseudo_inputs(self) -> tuple[Tensor, Tensor]:
        index: Tensor = self.index  # type: ignore[assignment]
        return self._images[index], torch.full((len(index),), 1.0 / len(index), device=index.device)


PRIORS.register(
    PriorRecord(
        name="exemplar",
        label="Exemplar",
        build=lambda config, latent, images, generator: ExemplarPrior(images, config.components, config.neighbours),
        place=50,
        published={"ai2021": "Exemplar prior"},
        on_images=True,
    )
)
