"""Our own kernels measured as the foreign backends are: `sample` takes any of the three."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from bpc.samplers import EXACT_SAMPLERS, ExactSettings
from bpc.samplers import backends as foreign
from bpc.samplers.backends import BackendSettings, ChainDraws, Counted, Density
from bpc.seeding import ChainGenerators
from bpc.weight_prior import isotropic

__all__ = ["available", "sample"]


def available(backend: str) -> bool:
    """Whether the backend is here; ``native`` always is."""
    return backend == "native" or foreign.available(backend)


def sample(
    backend: str, density: Density, initial: Tensor, settings: BackendSettings, *, seeds: Sequence[int]
) -> ChainDraws:
    """Draws from one density by one chain per seed. Native chains are one batch, the others run one after the other.

    A batched evaluation counts as one gradient of every chain.
    """
    if backend == "native":
        return _native(density, initial, settings, seeds)
    return foreign.sample(backend, [density] * len(initial), initial, settings, seeds=seeds)


class _WithUnitMass(Counted):
    """The kernels start from the mass of a posterior's prior, and their step size is in its units: here the parameters' own."""

    prior = isotropic(1.0)


def _native(density: Density, initial: Tensor, settings: BackendSettings, seeds: Sequence[int]) -> ChainDraws:
    counted, k = _WithUnitMass(density), len(initial)
    exact = ExactSettings(
        sampler=settings.sampler,
        warmup=settings.warmup,
        leapfrog_steps=settings.leapfrog_steps,
        max_tree_depth=settings.max_tree_depth,
        step_size=settings.step_size,
        target=settings.target,
        mass="diagonal",  # what the other backends adapt
        pool_step=False,
    )
    kernel = EXACT_SAMPLERS.get(settings.sampler).kernel(counted, exact)  # type: ignore[arg-type]
    generators = ChainGenerators.from_seeds(initial.device, seeds, "native")
    begun = time.perf_counter()
    state = kernel.init(initial, generators)
    for _ in range(settings.warmup):
        state, _info = kernel.step(state, generators)
    warm, warm_gradients = time.perf_counter(), counted.gradients
    draws = []
    for _ in range(settings.samples):
        state, info = kernel.step(state, generators)
        draws.append([x.cpu() for x in (state.params, state.log_density, info.accept_prob, info.diverged)])
    ended = time.perf_counter()
    params, log_density, accept_prob, diverged = (torch.stack(field, dim=1) for field in zip(*draws, strict=True))
    return ChainDraws(
        params,
        log_density.double(),
        accept_prob.double(),
        diverged,
        state.step_size.double().cpu(),
        torch.full((k,), float(counted.gradients), dtype=torch.float64),
        torch.full((k,), float(counted.gradients - warm_gradients), dtype=torch.float64),
        ended - begun,
        ended - warm,
    )
