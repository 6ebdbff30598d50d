"""hamiltorch's HMC (Cobb & Jalaian 2021), chain after chain; its step size is adapted by what it calls HMC_NUTS.

`Sampler.HMC_NUTS` is HMC with a fixed number of leapfrog steps and dual averaging, not the No-U-Turn sampler, so ``nuts`` is
refused here. It has no mass adaptation and takes no generator. What it computes in each iteration but does not hand out, the
state it starts from and the energy error, is overheard (`_Overheard`): from these come acceptance and divergences.

A warm-up and the samples cannot be one call: when the first draw after ``burn`` is rejected, its sampler goes back to the very
first state of the chain (with a target of 0.8 one chain in five would lose its warm-up). So the warm-up's last state is the one
from which one more iteration starts, and sampling is a second call.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import hamiltorch
    from hamiltorch import samplers

from bpc.errors import ConfigError
from bpc.samplers.backends.base import BackendSettings, ChainDraws, Counted, Density
from bpc.samplers.hmc import DIVERGENCE_ENERGY

__all__ = ["sample"]


class _Overheard:
    """Listens to hamiltorch's sampler: one entry of both lists for each iteration."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []  # (p,), before the iteration
        self.log_accept: list[float] = []  # H(current) - H(proposal), nats; -inf where it is not a number

    @contextlib.contextmanager
    def listening(self, started: Callable[[int], None]) -> Iterator[None]:
        """Its functions that draw a momentum and that compare two energies report here; `started` gets the iteration."""
        draw_momentum, compare = samplers.gibbs, samplers.acceptance

        def gibbs(params: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            started(len(self.states))
            self.states.append(params.detach().clone())
            self.log_accept.append(-math.inf)  # stays so when the density is not finite: the comparison is never made
            return draw_momentum(params, *args, **kwargs)

        def acceptance(h_old: Tensor, h_new: Tensor) -> float:
            ratio = compare(h_old.detach(), h_new.detach())
            # nan passes its Metropolis test, because min(0., nan) is 0.
            self.log_accept[-1] = -math.inf if math.isnan(ratio) else ratio
            return self.log_accept[-1]

        samplers.gibbs, samplers.acceptance = gibbs, acceptance
        try:
            yield
        finally:
            samplers.gibbs, samplers.acceptance = draw_momentum, compare


def sample(
    densities: Sequence[Density],
    initial: Tensor,
    settings: BackendSettings,
    seeds: Sequence[int],
    report: Callable[[int, str], None],
) -> ChainDraws:
    """See `bpc.samplers.backends.sample`. A gradient more than the leapfrog steps is taken for each draw."""
    if settings.sampler != "hmc":
        raise ConfigError("hamiltorch has no NUTS (its HMC_NUTS is HMC with dual averaging); use --sampler hmc.")
    if settings.warmup < 2:
        raise ConfigError(f"hamiltorch adapts its step size in 2 or more draws of warm-up; got {settings.warmup}.")
    k, s = len(initial), settings.samples
    params = torch.empty(k, s, initial.shape[1], dtype=initial.dtype)
    log_density, accept = torch.empty(k, s, dtype=torch.float64), torch.empty(k, s, dtype=torch.float64)
    diverged = torch.zeros(k, s, dtype=torch.bool)
    steps, gradients, sampling = (torch.zeros(k, dtype=torch.float64) for _ in range(3))
    started, sampling_seconds = time.perf_counter(), 0.0
    for i, seed in enumerate(seeds):
        counted = Counted(densities[i])

        def log_prob(theta: Tensor, counted: Counted = counted) -> Tensor:
            return counted(theta.unsqueeze(0)).squeeze(0)

        def run(
            start: Tensor, count: int, burn: int, step_size: float, adapt: bool, done: int
        ) -> tuple[list[Tensor], float, _Overheard]:
            overheard = _Overheard()
            with contextlib.redirect_stdout(io.StringIO()), overheard.listening(lambda t: report(done + t, "")):
                draws, info = hamiltorch.sample(
                    log_prob_func=log_prob,
                    params_init=start,
                    num_samples=count,
                    num_steps_per_sample=settings.leapfrog_steps,
                    step_size=step_size,
                    burn=burn,
                    sampler=hamiltorch.Sampler.HMC_NUTS if adapt else hamiltorch.Sampler.HMC,
                    desired_accept_rate=settings.target,
                    store_on_GPU=start.device.type == "cuda",
                    debug=2,
                    verbose=False,
                )
            return draws, float(info), overheard

        hamiltorch.set_random_seed(seed % 2**32)
        done = i * (settings.warmup + s)
        start = initial[i].detach().clone()
        _, step_size, warm = run(start, settings.warmup + 1, settings.warmup - 1, settings.step_size, True, done)
        before, clock = counted.gradients, time.perf_counter()
        # burn = -1 keeps every draw
        draws, _, overheard = run(warm.states[-1], s, -1, step_size, False, done + settings.warmup)
        sampling_seconds += time.perf_counter() - clock
        kept = torch.stack([d.cpu() for d in draws])  # (s + 1, p), the start first
        params[i] = kept[1:]
        log_accept = torch.tensor(overheard.log_accept, dtype=torch.float64)
        accept[i], diverged[i] = log_accept.clamp(max=0.0).exp(), log_accept < -DIVERGENCE_ENERGY
        steps[i], gradients[i], sampling[i] = step_size, counted.gradients, counted.gradients - before
        with torch.no_grad():
            for j in range(s):
                log_density[i, j] = densities[i](params[i, j : j + 1].to(initial.device))[0]
        report(done + settings.warmup + s, "")
    seconds = time.perf_counter() - started
    return ChainDraws(params, log_density, accept, diverged, steps, gradients, sampling, seconds, sampling_seconds)
