"""Evaluation protocols: which density is sampled how, for a coreset and a network. Two families, never mixed.

`kim2022` is the published evaluation as its authors ran it (Algorithms 2 and 3, Table 3 of Kim et al. 2022); its potential is
M (mean CE + lambda ||theta||_2) with the norm, not its square. The penalty was chosen for 320,010 parameters and drives a much
smaller network to zero: `kim2022-scaled` multiplies lambda by sqrt(p / 320010), so that the pull on each parameter is the
published one. `exact` samples sum_m w_m log p(u_m | theta) + log N(theta; 0, prior_std^2 I) by textbook HMC or NUTS (or SGHMC,
whose error shrinks with its step), several chains for every seed. `exact-scaled` is the same with the weights scaled to sum to N,
the number of training images: the posterior of a coreset that stands in for all of them, where `exact` takes its weights (usually
1 a point) as they are.
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
from bpc.posterior import ControlVariates, Posterior
from bpc.samplers import (
    ASGHMCConfig,
    ExactGradient,
    HMCConfig,
    Kernel,
    Kim2022HMCConfig,
    NUTSConfig,
    SGHMCConfig,
    WarmupConfig,
    asghmc,
    hmc,
    kim2022_hmc,
    nuts,
    sghmc,
    warmed_up,
)
from bpc.samplers.kim2022_presets import REFERENCE_PARAMS, SamplingPreset, sampling_preset
from bpc.seeding import ChainGenerators

__all__ = [
    "BACKENDS",
    "EXACT_PROTOCOLS",
    "EXACT_SAMPLERS",
    "KIM2022_PROTOCOLS",
    "KIM2022_SAMPLERS",
    "ChainPlan",
    "ExactSettings",
    "exact_plan",
    "kim2022_plan",
    "kim2022_settings",
]

KIM2022_PROTOCOLS = ("kim2022", "kim2022-scaled")
KIM2022_SAMPLERS = ("hmc", "asghmc")
EXACT_PROTOCOLS = ("exact", "exact-scaled")
EXACT_SAMPLERS = ("hmc", "nuts", "sghmc")
BACKENDS = ("native", "pyro", "hamiltorch")


class ChainPlan(NamedTuple):
    """What is needed to run chains: a kernel, where they start, and which draws count."""

    kernel: Kernel[Any, Any]
    init_scale: float  # theta^(0) ~ N(0, init_scale^2)
    iterations: int
    burn_in: int  # samples are kept from this iteration on


@dataclass(frozen=True, kw_only=True)
class ExactSettings:
    """Settings of the exact protocols.

    Attributes:
        sampler: ``hmc``, ``nuts`` or ``sghmc``.
        backend: ``native``, or ``pyro`` / ``hamiltorch`` on the same density object.
        chains: for every seed; their predictive is pooled, and R-hat compares them.
        warmup: draws before the first that counts; HMC and NUTS adapt step size and diagonal mass in them.
        samples: draws kept.
        leapfrog_steps: per draw of HMC and SGHMC.
        max_tree_depth: of NUTS; a draw costs up to 2^depth gradients.
        step_size: in units of the prior's standard deviation over the momentum's: the first guess of HMC and NUTS, the step of
            SGHMC.
        prior_std: of the Gaussian prior on every parameter; chains start from it.
        target: acceptance probability aimed at.
        friction: of SGHMC, per unit of time.
        batch: points per gradient of SGHMC; 0 is all.
        max_heat: of SGHMC with a batch: the step shrinks in warm-up until the noise of the gradients heats the noisiest direction
            by less than this fraction; 0 keeps the step as it is, whatever its heat.
        predictive_draws: of each chain, evenly spaced, that enter the predictive; the diagnostics see every draw.
    """

    sampler: str = "hmc"
    backend: str = "native"
    chains: int = 4
    warmup: int = 200
    samples: int = 200
    leapfrog_steps: int = 20
    max_tree_depth: int = 8
    step_size: float = 0.02
    prior_std: float = 0.1
    target: float = 0.8
    friction: float = 5.0
    batch: int = 0
    max_heat: float = 0.05
    predictive_draws: int = 100

    def __post_init__(self) -> None:
        if self.sampler not in EXACT_SAMPLERS:
            hint = "A-SGHMC has no exact version." if self.sampler == "asghmc" else ""
            raise unknown_name("sampler", self.sampler, EXACT_SAMPLERS, hint=hint)
        if self.backend not in BACKENDS:
            raise unknown_name("backend", self.backend, BACKENDS)
        if self.backend != "native" and self.sampler == "sghmc":
            raise ConfigError(f"The {self.backend} backend samples with hmc or nuts; got sghmc.")
        if min(self.chains, self.samples, self.leapfrog_steps, self.max_tree_depth, self.predictive_draws) < 1:
            raise ConfigError("The exact protocols need chains, samples, leapfrog steps and tree depth of at least 1.")
        if self.samples < 4:
            raise ConfigError(f"Diagnostics split every chain in two: keep at least 4 samples; got {self.samples}.")
        if min(self.warmup, self.batch, self.max_heat) < 0:
            raise ConfigError("warmup, batch and max_heat must be 0 or more.")
        if min(self.prior_std, self.step_size, self.friction) <= 0 or not 0 < self.target < 1:
            raise ConfigError(
                "The exact protocols need a positive prior_std, step_size, friction and a target in (0, 1)."
            )

    @property
    def label(self) -> str:
        """The sampler as rows name it: another backend's is marked."""
        return self.sampler if self.backend == "native" else f"{self.sampler}@{self.backend}"


def kim2022_settings(protocol: str, sampler: str, ipc: int, num_params: int, **changes: Any) -> SamplingPreset:
    """Table 3's row for `sampler` at `ipc`, with the penalty scaled under ``kim2022-scaled``.

    `changes` (None values are ignored) override the row; an altered row is no longer the published protocol, and the
    caller's caption has to say so.
    """
    if protocol not in KIM2022_PROTOCOLS:
        raise unknown_name("protocol", protocol, KIM2022_PROTOCOLS)
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
        sampler: one of `KIM2022_SAMPLERS`.
        network: the classifier.
        points: (m, c, h, w) shared by all chains, or (k, m, c, h, w).
        labels: (m,).
        weights: (m,), or (k, m), each chain's own; only their ratios count, since the potential has the (weighted) mean CE.
        settings: from `kim2022_settings`.
        augment: of the coreset at every gradient of A-SGHMC; HMC never augments.
    """
    log_likelihood = Classifier(network)
    m = len(labels)
    share = weights / weights.sum(-1, keepdim=True)

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
        raise unknown_name("sampler", sampler, KIM2022_SAMPLERS)
    return ChainPlan(kernel, settings.init_scale, settings.iterations, settings.burn_in)


def exact_plan(posterior: Posterior, settings: ExactSettings) -> ChainPlan:
    """Our own HMC, NUTS or SGHMC on a posterior.

    The mass starts at the prior's precision, so that a step size of 1 is of the order of the prior's width.
    """
    momentum_scale = 1.0 / settings.prior_std
    warmup = WarmupConfig(warmup=settings.warmup, target=settings.target)
    if settings.sampler == "hmc":
        config = HMCConfig(
            step_size=settings.step_size,
            leapfrog_steps=settings.leapfrog_steps,
            momentum_scale=momentum_scale,
            jitter=0.1,
        )
        kernel: Kernel[Any, Any] = warmed_up(hmc(posterior, config), posterior, warmup)
    elif settings.sampler == "nuts":
        tree = NUTSConfig(
            step_size=settings.step_size, max_tree_depth=settings.max_tree_depth, momentum_scale=momentum_scale
        )
        kernel = warmed_up(nuts(posterior, tree), posterior, warmup)
    else:
        noisy = 0 < settings.batch < len(posterior.labels)
        kernel = sghmc(
            ControlVariates(posterior, settings.batch) if noisy else ExactGradient(posterior),
            SGHMCConfig(
                step_size=settings.step_size,
                friction=settings.friction,
                momentum_scale=momentum_scale,
                steps=settings.leapfrog_steps,
                warmup=settings.warmup,
                max_heat=settings.max_heat or None,
            ),
        )
    return ChainPlan(kernel, settings.prior_std, settings.warmup + settings.samples, settings.warmup)
