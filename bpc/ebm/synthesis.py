"""Labelled images from the model, and which of them to believe: class-conditional Langevin, the entropic filter, pseudo-labels.

Pooladzandi et al. (2022), Sections 2.2 and 2.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.data import Split
from bpc.ebm.data import pixels
from bpc.ebm.model import LatentEBM, entropy, sample_prior
from bpc.errors import ConfigError
from bpc.selection import last_layer_gradients

__all__ = ["PseudoLabels", "Synthetic", "gradients_of", "pseudo_label", "synthesise"]

CHAINS = 5_000  # at once: the energy's activations then fit a processor's cache


class Synthetic(NamedTuple):
    """Class-conditional samples, one class after the other."""

    images: Tensor  # (n, c, h, w) uint8
    labels: Tensor  # (n,) int64, the class each chain was run for
    latents: Tensor  # (n, d)
    entropies: Tensor  # (n,) float64, nats: of softmax F(z) at the sample's own z (Eq. 4)
    agrees: Tensor  # (n,) bool: whether the largest F(z)[k] is the label's; the filter does not look at it

    def take(self, index: Tensor) -> Synthetic:
        """The samples at `index` (or of a mask)."""
        return Synthetic(*(part[index] for part in self))

    def filtered(self, threshold: float) -> Synthetic:
        """Those whose entropy is below `threshold` nats (Eq. 5)."""
        return self.take(self.entropies < threshold)

    def split(self) -> Split:
        """Images and labels alone."""
        return Split(images=self.images, labels=self.labels)


@torch.no_grad()
def synthesise(
    model: LatentEBM,
    count: int,
    rng: torch.Generator,
    *,
    steps: int,
    step_size: float,
    temperature: float = 1.0,
    noise: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> Synthetic:
    """`count` samples, equally many of each class: z by Langevin on p(y, z) from N(0, I) (Eq. 2), x = g(z) (Eq. 3).

    Args:
        model: in evaluation mode.
        count: L; rounded up to a multiple of the classes.
        rng: on the model's device.
        steps: T_LD.
        step_size: s.
        temperature: T of Appendix D, a soft filter: lower T, lower entropies.
        noise: add the pixel noise sigma eps that p(x | z) has; without it the mean image is taken, as is usual for pictures.
        report: called with how many are done.

    Raises:
        ConfigError: a negative temperature, no samples, no steps.
    """
    if count < 1 or steps < 1 or step_size <= 0 or temperature < 0:
        raise ConfigError(
            f"Synthesis needs a positive number of samples, steps and step size, and a temperature of 0 or more; got {count}, "
            f"{steps}, {step_size}, {temperature}."
        )
    device = next(model.parameters()).device
    each = -(-count // model.num_classes)
    labels = torch.arange(model.num_classes, device=device).repeat_interleave(each)
    parts = []
    for own in labels.split(CHAINS):
        start = torch.randn(len(own), model.config.latent, generator=rng, device=device)
        z = sample_prior(model, start, rng, steps=steps, step_size=step_size, labels=own, temperature=temperature)
        x = torch.cat([model.generator(few) for few in z.split(1000)])
        if noise:
            x = x + model.config.sigma * torch.randn(x.shape, generator=rng, device=device)
        logits = model.energy(z)
        found = (x.clamp(0, 1) * 255.0).round().to(torch.uint8), own, z, entropy(logits), logits.argmax(1) == own
        parts.append(Synthetic(*found))
        report(sum(len(p.labels) for p in parts))
    return Synthetic(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def _logits_at_mean(model: LatentEBM, images: Tensor) -> Tensor:
    """F at the mean of q(z | x), (n, y), of uint8 images."""
    return torch.cat([model.energy(model.encoder(pixels(part))[0]) for part in images.split(1000)])


class PseudoLabels(NamedTuple):
    """Unlabelled images the classifier is sure about."""

    indices: Tensor  # (n,) int64, into the unlabelled images
    labels: Tensor  # (n,) int64, predicted
    entropies: Tensor  # (n,) float64, nats


@torch.no_grad()
def pseudo_label(model: LatentEBM, images: Tensor, threshold: float) -> PseudoLabels:
    """Label uint8 images (n, c, h, w) by F at the mean of q(z | x), keeping entropies below `threshold` nats (Section 3)."""
    logits = _logits_at_mean(model, images)
    found = entropy(logits)
    index = torch.nonzero(found < threshold).flatten()
    return PseudoLabels(index, logits[index].argmax(1), found[index])


@torch.no_grad()
def gradients_of(model: LatentEBM, split: Split) -> tuple[Tensor, Tensor]:
    """Last-layer gradients p - y of the cross-entropy (n, y) at the mean of q(z | x), without a backward pass, and p itself."""
    logits = _logits_at_mean(model, split.images)
    return last_layer_gradients(logits, split.labels), logits.softmax(1)
