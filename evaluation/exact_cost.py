"""How long exact sampling takes, measured before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from bpc.budget import exact_pairs_at_once
from bpc.estimate import synchronise
from bpc.models import Network
from bpc.posterior import ControlVariates, Posterior
from bpc.progress import duration
from bpc.samplers import EXACT_SAMPLERS
from bpc.seeding import ChainGenerators, make_generator
from evaluation.protocols import ExactSettings, exact_posterior

__all__ = ["cost_words", "sampling_seconds"]

FORWARD = 1 / 3  # of a gradient: a forward pass, where a gradient is one and a backward pass of twice its size
WORTH_SHORTENING = 60.0  # seconds; below, nobody is told of --quick


def sampling_seconds(
    network: Network, points: Tensor, labels: Tensor, settings: ExactSettings, *, chains: int, asked: int = 0
) -> Callable[[ExactSettings], float]:
    """Time gradients of a posterior, as many pairs of chain and point at once as sampling takes.

    What is timed is a piece at most (`exact_pairs_at_once`), and the rest in proportion: seconds on the CPU, for any N.

    Args:
        network: any.
        points, labels: (m, c, h, w), normalised, and (m,), that the posterior is conditioned on.
        settings: of the sampler.
        chains: in all: those of every seed.
        asked: images whose predictive is wanted.

    Returns:
        Seconds of a whole run, from its settings, which may have other lengths than those given.
    """
    record, m = EXACT_SAMPLERS.get(settings.sampler), len(labels)
    at_once = exact_pairs_at_once(network, points.device)
    wanted = chains * record.replicas(settings) if settings.backend == "native" else 1  # others run chain by chain
    columns = min(m, at_once)
    rows = min(wanted, max(1, at_once // columns))
    ones = torch.ones(m, device=points.device)
    piece = exact_posterior(network, points[:columns], labels[:columns], ones[:columns], settings)
    params = network.init(rows, make_generator(points.device, 0))
    pair = _timed(lambda: piece.value_and_gradient(params), points.device) / (rows * columns)
    batched = settings.sampler == "sghmc" and 0 < settings.batch < m
    whole = exact_posterior(network, points, labels, ones, settings)
    noisy = _minibatch_seconds(whole, params[:1], settings) if batched else 0.0

    def seconds(settings: ExactSettings) -> float:
        gradients = 1 if batched else record.gradients(settings)
        draw = gradients * m * pair + noisy * (settings.leapfrog_steps + 2)
        kept = min(settings.predictive_draws, settings.samples)
        return chains * ((settings.warmup + settings.samples) * draw + kept * asked * FORWARD * pair)

    return seconds


def _minibatch_seconds(posterior: Posterior, params: Tensor, settings: ExactSettings) -> float:
    """Of one noisy gradient of one chain."""
    estimator = ControlVariates(posterior, settings.batch)
    generators = ChainGenerators([make_generator(params.device, 0, "timing")])
    zero = torch.zeros_like(params)
    return _timed(lambda: estimator.estimate(params, params, zero, generators), params.device)


def _timed(work: Callable[[], object], device: torch.device, least: float = 0.05) -> float:
    """Seconds of one call: the mean over calls that together take `least`, after one that nobody times."""
    work()
    synchronise(device)
    started, calls = time.perf_counter(), 0
    while calls < 1 or time.perf_counter() - started < least:
        work()
        synchronise(device)
        calls += 1
    return (time.perf_counter() - started) / calls


def cost_words(
    who: str, settings: ExactSettings, seconds: Callable[[ExactSettings], float], quick: ExactSettings | None = None
) -> str:
    """What is about to be sampled, how long that takes here, and what --quick would make of it.

    Args:
        who: the posteriors, as a reader calls them.
        settings: of the run.
        seconds: from `sampling_seconds`.
        quick: the settings that --quick would give; None says nothing of it.
    """
    most = "up to " if settings.sampler == "nuts" else ""
    if settings.sampler == "sghmc" and settings.batch:
        trajectory = f"{settings.leapfrog_steps} gradients of {settings.batch} images"
    else:
        trajectory = f"{most}{EXACT_SAMPLERS.get(settings.sampler).gradients(settings)} gradients"
    text = (
        f"Sampling {who} by {settings.label}: {settings.chains} chains x {settings.warmup + settings.samples} draws x "
        f"{trajectory}, about {duration(seconds(settings))} here"
    )
    if quick is None or seconds(settings) < WORTH_SHORTENING or seconds(quick) >= 0.9 * seconds(settings):
        return f"{text}."
    return f"{text}; --quick takes about {duration(seconds(quick))} and may carry a dagger."
