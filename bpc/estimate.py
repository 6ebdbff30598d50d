"""Seconds that a step of learning will take, from a few short ones, before a long run begins."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from bpc.divergences import Divergence, ExpertWindow, LearnedCoreset, RealBatch
from bpc.seeding import make_generator

__all__ = ["step_seconds", "synchronise"]


def step_seconds(
    divergence: Divergence, coreset: LearnedCoreset, experts: ExpertWindow, real: RealBatch | None
) -> float | None:
    """Seconds of one gradient: the same one with fewer inner steps and fewer draws, extrapolated, for it is linear in both.

    Returns:
        None for a divergence that is no dataclass with a `config` that has `inner_steps` (and `samples`).
    """
    config: Any = getattr(divergence, "config", None)
    steps, draws = getattr(config, "inner_steps", None), getattr(config, "samples", 0)
    if steps is None or not dataclasses.is_dataclass(divergence):
        return None

    def timed(inner_steps: int, samples: int) -> float:
        changes = {"inner_steps": inner_steps, **({"samples": samples} if draws else {})}
        short: Any = dataclasses.replace(divergence, config=dataclasses.replace(config, **changes))
        generator = make_generator(coreset.points.device, 0, "estimate")
        synchronise(coreset.points.device)
        started = time.perf_counter()
        short.gradient(coreset, experts, real, generator)
        synchronise(coreset.points.device)
        return time.perf_counter() - started

    timed(1, 2)  # warm-up
    base, longer = timed(1, 2), timed(3, 2)
    seconds = base + max(longer - base, 0.0) / 2 * (steps - 1)
    if draws:
        seconds += max(timed(1, 4) - base, 0.0) / 2 * (draws - 2)
    return seconds


def synchronise(device: torch.device) -> None:
    """Wait until `device` has done what it was given: a GPU works on after the call that gave it work returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
