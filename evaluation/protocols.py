"""Evaluation protocols: which density is sampled how, for a coreset and a network. Two families, never mixed.

`kim2022` is the published evaluation as its authors ran it (Algorithms 2 and 3, Table 3 of Kim et al. 2022); its potential is
M (mean CE + lambda ||theta||_2) with the norm, not its square. The penalty was chosen for 320,010 parameters and drives a much
smaller network to zero: `kim2022-scaled` multiplies lambda by sqrt(p / 320010), so that the pull on each parameter is the
published one. `exact` is textbook HMC on sum_m w_m log p(u_m | theta) + log N(theta; 0, prior_std^2 I).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.augment import AugmentConfig, apply, draw
from bpc.errors import ConfigError, unknown_name
from bpc.likelihood import Classifier
from bpc.models import Network
from bpc.presets import REFERENCE_PARAMS, SamplingPreset, sampling_preset
from bpc.samplers import (
    ASGHMCConfig,
    HMCConfig,
    Kernel,
    Kim2022HMCConfig,
    adaptive_hmc,
    asghmc,
    kim2022_hmc,
)
from bpc.seeding import ChainGenerators

__all__ = ["PROTOCOLS", "SAMPLERS", "ChainPlan", "ExactSettings", "exact_plan", "kim2022_plan", "kim2022_settings"]

PROTOCOLS = ("kim2022", "kim2022-scaled", "exact")
SAMPLERS = ("hmc", "asghmc")


class ChainPlan(NamedTuple):
    """What is needed to run chains: a kernel, where they start, and which draws count."""

    kernel: Kernel[Any, Any]
    init_scale: float  # theta^(0) ~ N(0, init_scale^2)
    iterations: int
    burn_in: int  # samples are kept from this iteration on
    thin: int


@dataclass(frozen=True, kw_only=True)
class ExactSettings:
    """Settings of the exact protocol.

    Attributes:
        warmup: draws in which the step size is adapted; discarded.
        samples: draws kept.
        thin: keep every so-manieth draw.
        leapfrog_steps: per draw.
        step_size: first guess.
        prior_std: of the Gaussian prior on every parameter; chains start from it.
        target: acceptance probability aimed at.
    """

    warmup: int = 200
    samples: int = 200
    thin: int = 1
    leapfrog_steps: int = 20
    step_size: float = 5e-3
    prior_std: float = 0.1
    target: float = 0.8

    def __post_init__(self) -> None:
        if min(self.warmup, self.samples, self.thin, self.leapfrog_steps) < 1:
            raise ConfigError("The exact protocol needs warmup, samples, thin and leapfrog steps of at least 1.")
        if self.prior_std <= 0 or self.step_size <= 0 or not 0 < self.target < 1:
            raise ConfigError("The exact protocol needs a positive prior_std and step_size and a target in (0, 1).")


def kim2022_settings(protocol: str, sampler: str, ipc: int, num_params: int, **changes: Any) -> SamplingPreset:
    """Table 3's row for `sampler` at `ipc`, with the penalty scaled under ``kim2022-scaled``.

    `changes` (None values are ignored) override the row; an altered row is no longer the published protocol, and the
    caller's caption has to say so.
    """
    if protocol not in ("kim2022", "kim2022-scaled"):
        raise unknown_name("protocol", protocol, PROTOCOLS)
    preset = sampling_preset(sampler, ipc)
    if protocol == "kim2022-scaled":
        preset = dataclasses.replace(preset, penalty=preset.penalty * math.sqrt(num_params / REFERENCE_PARAMS))
    changes = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(preset, **changes)


def kim2022_plan(
    sampler: str,
    network: Network,
    points: Tensor,
    labels: Tensor,
    weights: Tensor,
    settings: SamplingPreset,
    augment: AugmentConfig | None,
) -> ChainPlan:
    """Algorithm 2 (`hmc`) or 3 (`asghmc`) on a coreset.

    Args:
        sampler: one of `SAMPLERS`.
        network: the classifier.
        points: (m, c, h, w) shared by all chains, or (k, m, c, h, w).
        labels, weights: (m,).
        settings: from `kim2022_settings`.
        augment: of the coreset at every gradient of A-SGHMC; HMC never augments.
    """
    log_likelihood = Classifier(network)
    m = len(labels)
    share = weights / weights.sum()

    def log_density(params: Tensor, seen: Tensor = points) -> Tensor:
        """-M U(theta), (k,) nats."""
        mean_ce = -(log_likelihood(params, seen, labels) * share).sum(1)
        return -m * (mean_ce + settings.penalty * torch.linalg.vector_norm(params, dim=1))

    shared = {
        "step_size": settings.step_size,
        "leapfrog_steps": settings.leapfrog_steps,
        "momentum_scale": settings.momentum_scale,
    }
    if sampler == "hmc":
        kernel: Kernel[Any, Any] = kim2022_hmc(log_density, Kim2022HMCConfig(**shared))  # type: ignore[arg-type]
    elif sampler == "asghmc":

        def augmented_density(params: Tensor, generators: ChainGenerators) -> Tensor:
            if augment is None:
                return log_density(params)
            each = points.unbind(0) if points.ndim == 5 else [points] * len(params)
            shape = (int(points.shape[-3]), int(points.shape[-2]), int(points.shape[-1]))
            views = [
                apply(x, draw(augment, m, shape, g, device=points.device))
                for x, g in zip(each, generators.generators, strict=True)
            ]
            return log_density(params, torch.stack(views))

        config = ASGHMCConfig(friction=settings.friction, temperature=settings.temperature, **shared)  # type: ignore[arg-type]
        kernel = asghmc(augmented_density, config)
    else:
        raise unknown_name("sampler", sampler, SAMPLERS)
    return ChainPlan(kernel, settings.init_scale, settings.iterations, settings.burn_in, 1)


def exact_plan(
    sampler: str, network: Network, points: Tensor, labels: Tensor, weights: Tensor, settings: ExactSettings
) -> ChainPlan:
    """Textbook HMC on the coreset's posterior; arguments as for `kim2022_plan`."""
    if sampler != "hmc":
        raise ConfigError(f"The exact protocol samples with hmc; got {sampler!r} (A-SGHMC has no exact version).")
    log_likelihood = Classifier(network)
    precision = 1.0 / settings.prior_std**2

    def log_density(params: Tensor) -> Tensor:
        """Log prior (up to a constant) + sum_m w_m log p(u_m | theta), (k,) nats."""
        log_lik = (log_likelihood(params, points, labels) * weights).sum(1)
        return log_lik - 0.5 * precision * params.square().sum(1)

    config = HMCConfig(step_size=settings.step_size, leapfrog_steps=settings.leapfrog_steps, jitter=0.1)
    kernel = adaptive_hmc(log_density, config, warmup=settings.warmup, target=settings.target)
    iterations = settings.warmup + settings.samples * settings.thin
    return ChainPlan(kernel, settings.prior_std, iterations, settings.warmup, settings.thin)
