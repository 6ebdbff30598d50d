"""Pyro's HMC and NUTS (pyro.infer.mcmc), chain after chain, on minus the log density as potential."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports, at its own versions
    import pyro
    from pyro.infer.mcmc import HMC, NUTS

from bpc.samplers.backends.base import BackendSettings, ChainDraws, Counted, Density

__all__ = ["sample"]


def sample(
    densities: Sequence[Density],
    initial: Tensor,
    settings: BackendSettings,
    seeds: Sequence[int],
    report: Callable[[int, str], None],
) -> ChainDraws:
    """See `bpc.samplers.backends.sample`. Pyro adapts step size and diagonal mass; its divergences are its own count."""
    k, s = len(initial), settings.samples
    params = torch.empty(k, s, initial.shape[1], dtype=initial.dtype)
    log_density, accept = torch.empty(k, s, dtype=torch.float64), torch.empty(k, s, dtype=torch.float64)
    diverged = torch.zeros(k, s, dtype=torch.bool)
    steps, gradients, sampling = (torch.zeros(k, dtype=torch.float64) for _ in range(3))
    started, sampling_seconds = time.perf_counter(), 0.0
    for i, seed in enumerate(seeds):
        counted = Counted(densities[i])

        def potential(values: dict[str, Tensor], counted: Counted = counted) -> Tensor:
            return -counted(values["params"].unsqueeze(0)).squeeze(0)

        pyro.set_rng_seed(seed % 2**32)
        kernel = _kernel(potential, settings)
        kernel.initial_params = {"params": initial[i].detach().clone()}
        kernel.setup(settings.warmup)
        values = kernel.initial_params
        for t in range(settings.warmup + s):
            if t == settings.warmup:
                before, clock, total = counted.gradients, time.perf_counter(), 0.0
            values = kernel.sample(values)
            if t >= settings.warmup:
                j = t - settings.warmup
                params[i, j] = values["params"].detach().cpu()
                # Pyro keeps the mean over draws since warm-up: the draw's own share is what it added
                so_far = float(kernel._mean_accept_prob) * (j + 1)
                accept[i, j], total = min(max(so_far - total, 0.0), 1.0), so_far
            report(i * (settings.warmup + s) + t + 1, "")
        sampling_seconds += time.perf_counter() - clock
        gradients[i], sampling[i] = counted.gradients, counted.gradients - before
        diverged[i, kernel.diagnostics()["divergences"]] = True
        steps[i] = float(kernel.step_size)
        with torch.no_grad():
            for j in range(s):  # Pyro keeps it with the opposite sign and its own cache
                log_density[i, j] = densities[i](params[i, j : j + 1].to(initial.device))[0]
        kernel.cleanup()
    seconds = time.perf_counter() - started
    return ChainDraws(params, log_density, accept, diverged, steps, gradients, sampling, seconds, sampling_seconds)


class _FixedSteps(HMC):
    """Pyro keeps step size times steps constant while the step size adapts; everybody else keeps the steps."""

    fixed_steps = 1

    @property
    def num_steps(self) -> int:
        """Leapfrog steps per draw."""
        return self.fixed_steps


def _kernel(potential: Callable[[dict[str, Tensor]], Tensor], settings: BackendSettings) -> Any:
    shared: dict[str, Any] = {
        "potential_fn": potential,
        "step_size": settings.step_size,
        "adapt_step_size": True,
        "adapt_mass_matrix": settings.adapt_mass,
        "full_mass": False,
        "target_accept_prob": settings.target,
    }
    if settings.sampler == "nuts":
        return NUTS(max_tree_depth=settings.max_tree_depth, **shared)
    kernel = _FixedSteps(num_steps=settings.leapfrog_steps, **shared)
    kernel.fixed_steps = settings.leapfrog_steps
    return kernel
