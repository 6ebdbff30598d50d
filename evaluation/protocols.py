"""Evaluation protocols: which density is sampled how, for a coreset and a network. Two families, never mixed.

`kim2022` is the published evaluation as its authors ran it (Algorithms 2 and 3, Table 3 of Kim et al. 2022); its potential is
M (mean CE + lambda ||theta||_2) with the norm, not its square. The penalty was chosen for 320,010 parameters and drives a much
smaller network to zero: `kim2022-scaled` multiplies lambda by sqrt(p / 320010), so that the pull on each parameter is the
published one, and iterations and burn-in by (320010 / p)^(1/4), so that a small network has fitted its points when it is
sampled (`bpc.samplers.kim2022_presets.for_network`). The published chain starts from N(0, 0.1^2) for every parameter, a norm's
gains included: `kim2022-default-init` and `kim2022-scaled-default-init` differ in that alone, they start from `Network.init`.

`exact` samples sum_m w_m log p(u_m | theta) + log prior(theta) by textbook HMC or NUTS (or SGHMC,
whose error shrinks with its step), several chains for every seed. `exact-scaled` is the same with the weights scaled to sum to N,
the number of training images: the posterior of a coreset that stands in for all of them, where `exact` takes its weights (usually
1 a point) as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.augment import AugmentConfig, apply, draw
from bpc.budget import exact_pairs_at_once
from bpc.likelihood import Classifier
from bpc.models import Network
from bpc.posterior import Posterior
from bpc.samplers import BACKENDS, EXACT_SAMPLERS, KIM2022_SAMPLERS, ExactSettings, Kernel
from bpc.samplers.base import LogDensity
from bpc.samplers.kim2022_presets import KIM2022_PROTOCOLS, SamplingPreset, for_network
from bpc.seeding import ChainGenerators
from bpc.weight_prior import WEIGHT_PRIORS

__all__ = [
    "BACKENDS",
    "EXACT_PROTOCOLS",
    "EXACT_SAMPLERS",
    "KIM2022_PROTOCOLS",
    "KIM2022_SAMPLERS",
    "ChainPlan",
    "ExactSettings",
    "exact_plan",
    "exact_posterior",
    "kim2022_density",
    "kim2022_plan",
    "kim2022_settings",
    "mean_cross_entropy",
]

EXACT_PROTOCOLS = ("exact", "exact-scaled")


class ChainPlan(NamedTuple):
    """What is needed to run chains: a kernel, where they start, and which draws count."""

    kernel: Kernel[Any, Any]
    start: Callable[[Tensor], Tensor]  # theta^(0) (k, p) from unit Gaussian noise
    iterations: int
    burn_in: int  # samples are kept from this iteration on
    own_start: Callable[[ChainGenerators], Tensor] | None = None  # theta^(0) (k, p), in place of `start`
    cross_entropy: Callable[[Tensor], Tensor] | None = (
        None  # (k, p) -> (k,) nats, weighted mean over the coreset's points
    )


def kim2022_settings(protocol: str, sampler: str, ipc: int, num_params: int, **changes: Any) -> SamplingPreset:
    """Table 3's row for `sampler` at `ipc`, with penalty and time scaled under ``kim2022-scaled`` and its sibling.

    `changes` (None values are ignored) override the row; an altered row is no longer the published protocol, and the
    caller's caption has to say so. Iterations or burn-in that are given are taken as given, and the other one as published.
    """
    record = KIM2022_SAMPLERS.get(sampler, hint="The kim2022 protocol has no other.")
    published = record.preset(ipc)
    preset = for_network(published, protocol, num_params)
    changes = {k: v for k, v in changes.items() if v is not None}
    if {"iterations", "burn_in"} & changes.keys():
        changes = {"iterations": published.iterations, "burn_in": published.burn_in, **changes}
    return dataclasses.replace(preset, **changes)


def mean_cross_entropy(network: Network, points: Tensor, labels: Tensor, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """(k, p) -> (k,) nats: the weighted mean over a coreset's points, as `kim2022_plan` takes them."""
    log_likelihood = Classifier(network)
    share = weights / weights.sum(-1, keepdim=True)
    return lambda params: -(log_likelihood(params, points, labels) * share).sum(1)


def kim2022_density(mean_ce: Callable[[Tensor], Tensor], m: int, penalty: float) -> LogDensity:
    """-M U(theta) = -M (mean CE + lambda ||theta||), (k,) nats: the log of the density that the published chains claim."""
    return lambda params: -m * (mean_ce(params) + penalty * torch.linalg.vector_norm(params, dim=1))


def kim2022_plan(
    sampler: str,
    network: Network,
    points: Tensor,
    labels: Tensor,
    weights: Tensor,
    settings: SamplingPreset,
    augment: AugmentConfig | None,
    *,
    default_init: bool = False,
) -> ChainPlan:
    """Algorithm 2 (`hmc`) or 3 (`asghmc`) on a coreset.

    Args:
        sampler: one of `KIM2022_SAMPLERS`.
        network: the classifier.
        points: (m, c, h, w) shared by all chains, or (k, m, c, h, w).
        labels: (m,), or soft: (m, y), or (k, m, y).
        weights: (m,), or (k, m), each chain's own; only their ratios count, since the potential has the (weighted) mean CE.
        settings: from `kim2022_settings`.
        augment: of the coreset at every gradient of A-SGHMC; HMC never augments.
        default_init: start from the network's usual initialisation, in place of N(0, sigma_theta^2).
    """
    m = weights.shape[-1]

    def density_of(seen: Tensor) -> LogDensity:
        return kim2022_density(mean_cross_entropy(network, seen, labels, weights), m, settings.penalty)

    log_density = density_of(points)

    def augmented_density(params: Tensor, generators: ChainGenerators) -> Tensor:
        if augment is None:
            return log_density(params)
        each = points.unbind(0) if points.ndim == 5 else [points] * len(params)
        shape = (int(points.shape[-3]), int(points.shape[-2]), int(points.shape[-1]))
        views = [
            apply(x, draw(augment, m, shape, g, device=points.device))
            for x, g in zip(each, generators.generators, strict=True)
        ]
        return density_of(torch.stack(views))(params)

    kernel = KIM2022_SAMPLERS.get(sampler).kernel(log_density, augmented_density, settings)

    def usual(generators: ChainGenerators) -> Tensor:
        return torch.cat([network.init(1, g) for g in generators.generators])

    return ChainPlan(
        kernel,
        lambda noise: settings.init_scale * noise,
        settings.iterations,
        settings.burn_in,
        own_start=usual if default_init else None,
        cross_entropy=torch.no_grad()(mean_cross_entropy(network, points, labels, weights)),
    )


def exact_posterior(
    network: Network,
    points: Tensor,
    labels: Tensor,
    weights: Tensor,
    settings: ExactSettings,
    *,
    per_chain: bool = False,
) -> Posterior:
    """What the exact protocols sample: [prod_m p(u_m | theta)^{w_m} prior(theta)]^{1/T}.

    To the power 1/T a weight w is w / T and a Gaussian of width s one of width s sqrt(T), its mean unchanged.

    Args:
        network, points, labels, weights, per_chain: as for `Posterior`.
        settings: prior, its scale, and T.
    """
    prior = WEIGHT_PRIORS.get(settings.prior).build(network, settings.prior_std).tempered(settings.temperature)
    return Posterior(
        Classifier(network),
        points,
        labels,
        weights if settings.temperature == 1 else weights / settings.temperature,
        prior=prior,
        per_chain=per_chain,
        points_at_once=exact_pairs_at_once(network, points.device),
    )


def exact_plan(posterior: Posterior, settings: ExactSettings) -> ChainPlan:
    """One of our own samplers on a posterior. Chains of a superchain lie side by side and start where its first one does."""
    kernel = EXACT_SAMPLERS.get(settings.sampler).kernel(posterior, settings)
    group = settings.superchain

    def start(noise: Tensor) -> Tensor:
        return posterior.prior.draw(noise if group == 1 else noise[::group].repeat_interleave(group, 0))

    return ChainPlan(kernel, start, settings.warmup + settings.samples, settings.warmup)
