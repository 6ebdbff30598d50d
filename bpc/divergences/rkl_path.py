r"""BPC-rKL-path: reverse KL differentiated through the sampler's own flow, instead of by a covariance.

For samples theta = G(u, noise) of the coreset's posterior pi_u, with the log-likelihoods f_u = sum_m w_m log p(u_m | theta) and
f_x = sum_n log p(x_n | theta),

    KL[pi_u || pi_x] = E[f_u(theta) - f_x(theta)] - log Z_u + log Z_x,
    grad_u KL        = E[ (dtheta / du)^T grad_theta (f_u - f_x) ],

because the derivative of f_u by its own u and that of log Z_u cancel: only the way through theta is left, and it is
-Cov[grad_u f_u, f_x - f_u], the covariance estimator's, in one of its reparameterised forms. G is `bpc.divergences.flow`.

What is kept. With ``reduction="sum"`` and the protocol ``exact`` the formula stands as it is (a batch scaled by N / B), and is
exact as far as the flow's end has the law pi_u: up to the leapfrog's error and to mixing, nothing being rejected. Otherwise the
loss is the data's half, the mean of -log p(x_b | theta): under the published potential the chain is judged while it still
approaches, with no density of its own to speak of. In the space of theta_0 and all momenta the flow is a bijection of volume 1
(shears only), so the entropy of the joint law is that of the noise, whatever u is, and has no gradient; what the mean form drops
is log p(u | theta) (the coreset is not asked to be likely) and the log prior of theta_T (the penalty keeps theta small as it is).

Truncated windows of random place (Feng, Vedantam and others 2023) bias the gradient towards what the last leapfrogs see and keep
it bounded where the flow is chaotic.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpc.divergences.base import (
    REDUCTION,
    CoresetGradient,
    ExpertWindow,
    Extra,
    LearnedCoreset,
    RealBatch,
    Reduction,
)
from bpc.divergences.flow import (
    Dynamics,
    FlowGradient,
    GaussianPull,
    NormPull,
    Potential,
    Pull,
    flow_gradient,
    run_flow,
)
from bpc.divergences.path_settings import PathSettings
from bpc.divergences.record import DIVERGENCES, DistillPreset, DivergenceRecord
from bpc.errors import ConfigError
from bpc.likelihood import LogLikelihood
from bpc.pieces import pieces
from bpc.samplers.kim2022_presets import SamplingPreset, sampling_preset
from bpc.weight_prior import isotropic

__all__ = ["RKLPath", "RKLPathConfig"]


@dataclass(frozen=True, kw_only=True)
class RKLPathConfig:
    """Settings of BPC-rKL-path.

    Attributes:
        path: the chains.
        reduction: "mean" is the mean over the batch of -log p(x | theta); "sum" is the gradient of the KL, ``exact`` only.
        at_once: pairs of network and image in a piece: less memory, the same result to rounding; 0 is all.
    """

    path: PathSettings
    reduction: Reduction = REDUCTION
    at_once: int = 0

    def __post_init__(self) -> None:
        if self.reduction not in ("mean", "sum"):
            raise ConfigError(f"reduction must be 'mean' or 'sum'; got {self.reduction!r}.")
        if self.reduction == "sum" and (self.path.protocol != "exact" or self.path.objective != "expected"):
            raise ConfigError(
                "reduction sum is the gradient of the KL itself: it needs the path protocol exact (there is no posterior in the "
                "published potential) and the objective expected."
            )


@dataclass(frozen=True)
class RKLPath:
    """The divergence object: chains from noise of the sampler's start, the loss at their end, back through a window.

    Of `experts` only the length of a parameter vector is looked at.

    Args:
        log_likelihood: of the model.
        config: settings.
    """

    log_likelihood: LogLikelihood
    config: RKLPathConfig
    needs_real: ClassVar[bool] = True
    expert_epochs: ClassVar[int] = 0
    extras: ClassVar[Mapping[str, Extra]] = {}

    def gradient(
        self, coreset: LearnedCoreset, experts: ExpertWindow, real: RealBatch | None, generator: torch.Generator
    ) -> CoresetGradient:
        """See `Divergence`."""
        if real is None:
            raise ConfigError("BPC-rKL-path needs a batch of real data.")
        path, like = self.config.path, experts.start
        settings = path.chain(len(like))
        potential, dynamics = self._flow(coreset, settings)
        ends_from, chosen_on = path.earliest(settings), generator.device
        choose = torch.randint(ends_from, settings.iterations + 1, (1,), generator=generator, device=chosen_on)
        last = int(choose)

        def noise() -> Tensor:
            half = path.chains // 2 if path.antithetic else path.chains
            drawn = torch.randn(half, len(like), generator=generator, device=like.device, dtype=like.dtype)
            return torch.stack([drawn, -drawn], 1).flatten(0, 1) if path.antithetic else drawn

        window = path.window or last * settings.leapfrog_steps
        keep = min(last, max(path.late, -(-window // settings.leapfrog_steps)))
        start = self._default_init(generator, like) if path.default_init else settings.init_scale * noise()
        ends = run_flow(potential, dynamics, start, noise, last, keep)
        late = list(range(len(ends) - path.late, len(ends)))
        value, slopes = self._loss(torch.stack([ends[i].params for i in late]), coreset, real)
        found = flow_gradient(potential, dynamics, ends, dict(zip(late, slopes, strict=True)), window)
        return CoresetGradient(found.points, self._weights(found, coreset), value, labels=found.labels)

    def _default_init(self, generator: torch.Generator, like: Tensor) -> Tensor:
        """The network's own initialisation, (k, p)."""
        network = getattr(self.log_likelihood, "network", None)
        if network is None:
            raise ConfigError("Chains that start from a network's usual initialisation need a network.")
        drawn: Tensor = network.init(self.config.path.chains, generator)
        return drawn.to(like)

    def _flow(self, coreset: LearnedCoreset, settings: SamplingPreset) -> tuple[Potential, Dynamics]:
        """Potential and dynamics."""
        m, weights = len(coreset.weights), coreset.weights.detach()
        if self.config.path.protocol == "exact":
            std = settings.init_scale
            pull: Pull = GaussianPull(isotropic(std))
            coefficients = weights
            dynamics = Dynamics(
                step_size=settings.step_size,
                leapfrog_steps=settings.leapfrog_steps,
                momentum_scale=1.0 / std,
                inverse_mass=std**2,
            )
        else:
            pull, coefficients = NormPull(m * settings.penalty), m * weights / weights.sum()
            dynamics = Dynamics(
                step_size=settings.step_size,
                leapfrog_steps=settings.leapfrog_steps,
                momentum_scale=settings.momentum_scale,
            )
        points = coreset.points.detach()
        at_once = self.config.at_once
        return Potential(self.log_likelihood, points, coreset.labels, coefficients, pull, at_once), dynamics

    def _loss(self, states: Tensor, coreset: LearnedCoreset, real: RealBatch) -> tuple[Tensor, Tensor]:
        """The loss, averaged over chains, and its slopes by the states (late, k, p); both detached."""
        config, (late, k, p) = self.config, states.shape
        b, at_once = len(real.labels), config.at_once
        scale = 1.0 / b if config.reduction == "mean" else real.total / b
        value, slopes = states.new_zeros(()), torch.zeros_like(states)
        together = config.path.objective == "predictive"
        # the states of a chain stay in one piece where they are averaged inside the logarithm
        per_row = late if together else 1
        rows_of = states.transpose(0, 1) if together else states.reshape(late * k, 1, p)
        grads = slopes.transpose(0, 1) if together else slopes.view(late * k, 1, p)
        for rows, columns in pieces(len(rows_of), b, max(1, at_once // per_row) if at_once else 0):
            leaf = rows_of[rows].detach().requires_grad_(True)
            log_lik = self.log_likelihood(leaf.flatten(0, 1), real.points[columns], real.labels[columns])
            log_lik = log_lik.view(len(leaf), per_row, -1).logsumexp(1) - math.log(per_row)
            loss = -scale * log_lik.sum() / len(rows_of)
            grads[rows] += torch.autograd.grad(loss, leaf)[0]
            value = value + loss.detach()
        if config.reduction == "sum":  # the coreset's own term, of its points as they stand
            for rows, columns in pieces(len(rows_of), len(coreset.weights), at_once):
                leaf = rows_of[rows].detach().requires_grad_(True)
                log_lik = self.log_likelihood(
                    leaf.flatten(0, 1), coreset.points[columns].detach(), coreset.labels[columns]
                )
                loss = (log_lik @ coreset.weights[columns].detach()).sum() / len(rows_of)
                grads[rows] += torch.autograd.grad(loss, leaf)[0]
                value = value + loss.detach()
        return value, slopes

    def _weights(self, found: FlowGradient, coreset: LearnedCoreset) -> Tensor:
        """By the weights: under the published potential only their ratios count."""
        if self.config.path.protocol == "exact":
            return found.coefficients
        weights = coreset.weights.detach()
        share = weights / weights.sum()
        return len(weights) / weights.sum() * (found.coefficients - found.coefficients @ share)


_NOTE = (
    "Ours, not published: learned for the chain that scores it, whose potential, start and length it takes from the protocol; no "
    "experts are looked at."
)


def _preset(name: str, ipc: int, path: Mapping[str, Any], **own: Any) -> DistillPreset:
    settings = PathSettings(sampling=dataclasses.replace(sampling_preset("hmc", ipc), note=""), **path)
    return DistillPreset(
        name=name,
        max_start_epoch=1,
        inner_steps=1,
        expert_epochs=0,
        student_lr=0.01,
        optimizer="adam",
        momentum=0.9,
        path=settings,
        note=_NOTE,
        **own,
    )


DIVERGENCES.register(
    DivergenceRecord(
        name="rkl-path",
        label="BPC-rKL-path",
        colour="#7B3294",
        marker="h",
        place=130,
        divergence=RKLPath,
        config=RKLPathConfig,
        presets={
            "path": lambda ipc: _preset("path", ipc, {}, steps=400, real_batch=256, lr_points=0.05),
            "digits": lambda ipc: _preset("digits", ipc, {}, steps=200, real_batch=256, lr_points=0.05),
        },
        second_order=True,
        experts=False,
    )
)
