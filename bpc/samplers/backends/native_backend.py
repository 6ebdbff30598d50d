"""Our own HMC and NUTS: all chains in one batch where they share a density."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bpc.samplers.adaptation import WarmupConfig, warmed_up
from bpc.samplers.backends.base import BackendSettings, ChainDraws, Counted, Density
from bpc.samplers.base import Kernel
from bpc.samplers.hmc import HMCConfig, HMCState, hmc
from bpc.samplers.nuts import NUTSConfig, nuts
from bpc.seeding import ChainGenerators

__all__ = ["sample"]


def sample(
    densities: Density | Sequence[Density],
    initial: Tensor,
    settings: BackendSettings,
    seeds: Sequence[int],
    report: Callable[[int, str], None],
) -> ChainDraws:
    """See `bpc.samplers.backends.sample`. A batched evaluation counts as one gradient of every chain."""
    if callable(densities):
        return _batch(densities, initial, settings, seeds, report)
    iterations = settings.warmup + settings.samples
    each = [
        _batch(
            density,
            initial[i : i + 1],
            settings,
            seeds[i : i + 1],
            lambda done, note, i=i: report(i * iterations + done, note),  # type: ignore[misc]
        )
        for i, density in enumerate(densities)
    ]
    joined = [torch.cat(field) for field in zip(*(d[:-2] for d in each), strict=True)]
    return ChainDraws._make([*joined, sum(d.seconds for d in each), sum(d.sampling_seconds for d in each)])


def _batch(
    density: Density,
    initial: Tensor,
    settings: BackendSettings,
    seeds: Sequence[int],
    report: Callable[[int, str], None],
) -> ChainDraws:
    counted = Counted(density)
    if settings.sampler == "hmc":
        config = HMCConfig(step_size=settings.step_size, leapfrog_steps=settings.leapfrog_steps)
        base: Kernel[HMCState, Any] = hmc(counted, config)
    else:
        base = nuts(counted, NUTSConfig(step_size=settings.step_size, max_tree_depth=settings.max_tree_depth))
    warmup = WarmupConfig(warmup=settings.warmup, target=settings.target, adapt_mass=settings.adapt_mass)
    kernel = warmed_up(base, counted, warmup)
    generators = ChainGenerators.from_seeds(initial.device, seeds, "native")
    k, s = len(initial), settings.samples
    params = torch.empty(k, s, initial.shape[1], dtype=initial.dtype)
    found = {name: torch.empty(k, s, dtype=torch.float64) for name in ("log_density", "accept_prob", "diverged")}
    started = time.perf_counter()
    state = kernel.init(initial, generators)
    warm_seconds, warm_gradients = 0.0, 0
    for t in range(settings.warmup + s):
        if t == settings.warmup:
            warm_seconds, warm_gradients = time.perf_counter() - started, counted.gradients
        state, info = kernel.step(state, generators)
        if t >= settings.warmup:
            i = t - settings.warmup
            params[:, i] = state.params.cpu()
            found["log_density"][:, i] = state.log_density.cpu()
            found["accept_prob"][:, i] = info.accept_prob.cpu()
            found["diverged"][:, i] = info.diverged.cpu().double()
        report(k * (t + 1), "")
    seconds = time.perf_counter() - started
    return ChainDraws(
        params,
        found["log_density"],
        found["accept_prob"],
        found["diverged"] > 0,
        state.step_size.double().cpu(),
        torch.full((k,), float(counted.gradients), dtype=torch.float64),
        torch.full((k,), float(counted.gradients - warm_gradients), dtype=torch.float64),
        seconds,
        seconds - warm_seconds,
    )
