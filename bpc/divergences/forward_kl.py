"""BPC-fKL: forward KL by a difference of expectations (Section 3.3, Algorithm 1 and Eq. 20 of Kim et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpc.augment import AugmentConfig
from bpc.divergences.base import (
    REDUCTION,
    CoresetGradient,
    ExpertWindow,
    Extra,
    LearnedCoreset,
    RealBatch,
    Reduction,
)
from bpc.divergences.inner import augmentation_draws, augmented, inner_trajectory
from bpc.divergences.record import DIVERGENCES, DistillPreset, DivergenceRecord, digits_preset, kim2022_preset
from bpc.errors import ConfigError
from bpc.likelihood import LogLikelihood, is_soft
from bpc.pieces import points_gradient

__all__ = ["ForwardKL", "ForwardKLConfig", "forward_kl_gradient"]


@dataclass(frozen=True, kw_only=True)
class ForwardKLConfig:
    """Settings of BPC-fKL (Table 2).

    Attributes:
        inner_steps: L_u.
        student_lr: eta, step size of the inner SGD.
        expert_epochs: L_x.
        samples: S, Gaussian draws around each endpoint.
        sigma_core, sigma_expert: Sigma_u^(1/2) and Sigma_x^(1/2).
        augment: augmentation of the inner SGD and of the coreset in each draw (common to both terms), or None.
        reduction: "mean" divides by the sum of weights, which is what the published step size is for; "sum" is Eq. 20.
        at_once: pairs of network and image in a piece: less memory, the same result to rounding; 0 is all.
    """

    inner_steps: int = 30
    student_lr: float = 0.03
    expert_epochs: int = 1
    samples: int = 30
    sigma_core: float = 0.01
    sigma_expert: float = 0.01
    augment: AugmentConfig | None = None
    reduction: Reduction = REDUCTION
    at_once: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.expert_epochs < 1:
            raise ConfigError(
                f"BPC-fKL needs samples and expert_epochs of at least 1; got {self.samples}, {self.expert_epochs}."
            )
        if self.reduction not in ("mean", "sum"):
            raise ConfigError(f"reduction must be 'mean' or 'sum'; got {self.reduction!r}.")


def forward_kl_gradient(
    log_likelihood: LogLikelihood,
    coreset: LearnedCoreset,
    samples_core: Tensor,
    samples_full: Tensor,
    *,
    views: Tensor | None = None,
    reduction: Reduction = REDUCTION,
    at_once: int = 0,
) -> CoresetGradient:
    """Grad KL[pi_x || pi_u] = E_{pi_u}[grad_u f(u)] - E_{pi_x}[grad_u f(u)] (Eq. 17), f = sum_m w_m log p(u_m | theta).

    Args:
        log_likelihood: of the model.
        coreset: points, labels and weights.
        samples_core, samples_full: (s, p), draws of (approximations of) pi_u and pi_x.
        views: the coreset as seen by each pair of draws, (s, m, ...) with a graph to ``coreset.points``, which then must
            require a gradient; None means the points themselves.
        reduction: "sum" estimates the gradient of the KL; "mean" divides it by sum(w).
        at_once: see `bpc.pieces`.

    Returns:
        The gradient; `value` is the surrogate E_u[f] - E_x[f], nats, which falls as the posteriors agree better but is no
        KL divergence.
    """
    s = len(samples_core)
    weights = coreset.weights.detach()
    total = weights.sum() if reduction == "mean" else torch.ones_like(weights.sum())
    signs = torch.cat([weights.new_ones(s), -weights.new_ones(s)]) / (s * total)
    log_lik, slope, by_labels = points_gradient(
        log_likelihood,
        torch.cat([samples_core, samples_full]),
        coreset.points if views is None else torch.cat([views, views]),  # both terms see the same augmented coreset
        coreset.labels,
        signs.unsqueeze(1) * weights,
        each=views is not None,
        at_once=at_once,
    )
    if views is not None:  # through the augmentation, back to the images
        (slope,) = torch.autograd.grad(views, coreset.points, slope[:s] + slope[s:])
    gaps = signs @ log_lik  # (m,), what a unit of weight adds
    value = gaps @ weights
    grad_weights = gaps - value / total if reduction == "mean" else gaps
    return CoresetGradient(slope, grad_weights, value, labels=by_labels)


@dataclass(frozen=True)
class ForwardKL:
    """The divergence object: q_u around the end of the inner SGD (its gradient stopped), q_x around the expert's.

    Args:
        log_likelihood: of the model.
        config: settings.
    """

    log_likelihood: LogLikelihood
    config: ForwardKLConfig
    needs_real: ClassVar[bool] = False
    extras: ClassVar[Mapping[str, Extra]] = {}

    @property
    def expert_epochs(self) -> int:
        """L_x."""
        return self.config.expert_epochs

    def gradient(
        self, coreset: LearnedCoreset, experts: ExpertWindow, real: RealBatch | None, generator: torch.Generator
    ) -> CoresetGradient:
        """See `Divergence`."""
        config = self.config
        draws = augmentation_draws(config.augment, coreset.points, config.inner_steps, generator)
        end = inner_trajectory(
            self.log_likelihood, experts.start, coreset, config.student_lr, draws, at_once=config.at_once
        )
        points_sum, weights_sum = torch.zeros_like(coreset.points), torch.zeros_like(coreset.weights)
        value = weights_sum.new_zeros(())
        labels_sum = torch.zeros_like(coreset.labels) if is_soft(coreset.labels) else None
        # some draws at a time from the noise on, so that memory does not grow with S
        block = max(1, config.at_once // (2 * len(coreset.labels))) if config.at_once else config.samples
        for first in range(0, config.samples, block):
            count = min(block, config.samples - first)
            points = coreset.points.detach().requires_grad_(True)
            noise, views = [], []
            for _ in range(count):  # draw by draw, so that the numbers do not depend on the block
                noise.append(torch.randn(2, *end.shape, generator=generator, device=end.device, dtype=end.dtype))
                (chosen,) = augmentation_draws(config.augment, points, 1, generator)
                views.append(augmented(points, chosen))
            epsilon = torch.stack(noise)
            part = forward_kl_gradient(
                self.log_likelihood,
                coreset._replace(points=points),
                end + config.sigma_core * epsilon[:, 0],
                experts.end + config.sigma_expert * epsilon[:, 1],
                views=None if config.augment is None else torch.stack(views),
                reduction=config.reduction,
                at_once=config.at_once,
            )
            share = count / config.samples
            points_sum, weights_sum = points_sum + share * part.points, weights_sum + share * part.weights
            value = value + share * part.value
            if labels_sum is not None and part.labels is not None:
                labels_sum = labels_sum + share * part.labels
        return CoresetGradient(points_sum, weights_sum, value, labels=labels_sum)


_NOTE = "Image step size 1000 and momentum 0.5 are from the authors' code; the paper states neither."
_TABLE_2: dict[str, Any] = {"expert_epochs": 1, "samples": 30, "momentum": 0.5, "note": _NOTE}


def _digits(ipc: int) -> DistillPreset:
    return digits_preset(expert_epochs=2, lr_points=10.0, momentum=0.5)


DIVERGENCES.register(
    DivergenceRecord(
        name="fkl",
        label="BPC-fKL",
        colour="#0072B2",
        marker="p",
        place=120,
        published={"kim2022": "BPC-fKL"},
        divergence=ForwardKL,
        config=ForwardKLConfig,
        presets={
            "kim2022": lambda ipc: kim2022_preset(ipc, **_TABLE_2),
            "kim2022-code": lambda ipc: kim2022_preset(ipc, changes_at_10={}, **_TABLE_2),
            "digits": _digits,
        },
    )
)
