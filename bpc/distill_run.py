"""One distillation in a run's folder: progress, log, checkpoints, resume, and the coreset file at the end."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bpc.coreset import Pseudocoreset
from bpc.distill import DistillState, OuterConfig, averaged, distill, load_state, save_state, start
from bpc.divergences import Divergence, ExpertWindow, LearnedCoreset, RealBatch
from bpc.drive import drive
from bpc.estimate import step_seconds
from bpc.progress import duration, progress, say
from bpc.runs import Run
from bpc.seeding import make_generator

__all__ = ["distill_into"]

WORTH_ESTIMATING = 100  # steps; below, the progress bar knows as soon


def distill_into(
    run: Run,
    initial: LearnedCoreset,
    divergence: Divergence,
    sample_window: Callable[[torch.Generator], ExpertWindow],
    sample_real: Callable[[torch.Generator], RealBatch] | None,
    outer: OuterConfig,
    *,
    steps: int,
    seed: int,
    template: Pseudocoreset,
    checkpoint_seconds: float = 30.0,
) -> Pseudocoreset:
    """Learn for `steps` steps in the run's folder, going on from its checkpoint if it has one.

    Writes ``checkpoint.safetensors`` now and then, a line of ``log.jsonl`` per step, and ``coreset.safetensors`` at the end.

    Args:
        run: the folder.
        initial: where learning starts.
        divergence, sample_window, sample_real, outer, steps, seed: as for `bpc.distill.distill`.
        template: the coreset whose points, labels and weights are replaced by the learned ones.
        checkpoint_seconds: at most this much work is lost by a kill.
    """
    device = initial.points.device
    checkpoint = run.file("checkpoint.safetensors")
    state: DistillState = start(initial, divergence)
    if checkpoint.exists():
        state = load_state(checkpoint, run.hash, divergence, device)
        if state.step < steps:
            say(f"Going on from step {state.step} of {steps}.")
    run.trim_log("step", state.step)
    if steps - state.step >= WORTH_ESTIMATING:
        choose = make_generator("cpu", seed, "estimate")
        window, real = sample_window(choose), None if sample_real is None else sample_real(choose)
        seconds = step_seconds(divergence, state.coreset, window, real)
        if seconds is not None and seconds * (steps - state.step) > 60:
            left = duration(seconds * (steps - state.step))
            say(
                f"About {seconds:.2g} s per step here, {left} for {steps - state.step:,} steps; checkpoints on the way."
            )
    begun = time.monotonic()

    def took(now: DistillState) -> None:
        nonlocal state
        state = now
        value, norm = float(state.value), float(state.grad_norm)
        run.log(
            step=state.step,
            value=value,
            grad_norm=norm,
            **{name: float(extra) for name, extra in state.coreset.extras.items()},
            seconds=round(run.seconds, 3),
        )
        report.update(state.step, f"gradient {norm:.2g}" if value != value else f"value {value:.4g}")

    def save() -> None:
        save_state(state, checkpoint, run.hash)

    with progress(f"Learning ({template.method}, ipc {template.ipc})", steps, state.step) as report:
        drive(
            distill(state, divergence, sample_window, sample_real, outer, steps=steps, seed=seed),
            took=took,
            save=save,
            checkpoint_seconds=checkpoint_seconds,
            whole=lambda: True,  # a state is a value
        )
    save()
    if time.monotonic() - begun > 20:
        say(f"Learned {template.method} in {duration(time.monotonic() - begun)}.")
    extras = {name: float(extra) for name, extra in state.coreset.extras.items()}
    found = averaged(state, outer)
    learned = template.replace(
        points=found.points,
        labels=found.labels,
        weights=found.weights,
        provenance={**template.provenance, "steps": state.step, **extras},
    )
    learned.save(run.file("coreset.safetensors", promised=True))
    return learned.to("cpu")
