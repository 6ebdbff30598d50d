"""Run the chains of a plan to the end: one draw after another into a recorder, a checkpoint now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bpc.drive import drive
from bpc.files import load_own_tensors, own_content, save_tensors
from bpc.samplers import state_from_tensors, state_to_tensors
from bpc.seeding import ChainGenerators
from evaluation.protocols import ChainPlan

__all__ = ["Recorder", "run_chains"]


class Recorder(Protocol):
    """What becomes of the draws that count; it survives a kill through `state` and `load`."""

    def add(self, state: Any, info: Any) -> None:
        """Take in one draw of every chain."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's `state`."""
        ...


def run_chains(
    plan: ChainPlan,
    recorder: Recorder,
    *,
    seeds: Sequence[int],
    num_params: int,
    device: torch.device,
    checkpoint: Path | None,
    checkpoint_seconds: float,
    config_hash: str,
    report: Callable[[int, str], None],
) -> None:
    """One chain per seed, from the plan's initial distribution; draws from `plan.burn_in` on go to `recorder`.

    Randomness of iteration t of a chain derives from its seed and t, so a killed run goes on from its checkpoint with the same
    bits.

    Args:
        plan: kernel, start, iterations.
        recorder: takes the draws.
        seeds: one per chain.
        num_params: p.
        device: where chains live.
        checkpoint: file, or None.
        checkpoint_seconds: at most this much work is lost by a kill.
        config_hash: of the run that the checkpoint belongs to.
        report: called with the iterations done (of all chains together) and a note.

    Raises:
        FileFormatError: the checkpoint is of another run.
    """

    def generators(name: str | int) -> ChainGenerators:
        return ChainGenerators.from_seeds(device, seeds, "chain", name)

    init = generators("init")
    begin = plan.start(init.normal(num_params)) if plan.own_start is None else plan.own_start(init)
    state = plan.kernel.init(begin, init)
    done = 0
    if checkpoint is not None and checkpoint.exists():
        tensors, metadata = load_own_tensors(checkpoint, config_hash, what="a checkpoint of chains")
        with own_content(checkpoint):
            done = int(metadata["iteration"])
            state = state_from_tensors(state, {k[6:]: v for k, v in tensors.items() if k.startswith("state.")})
            recorder.load({k[9:]: v for k, v in tensors.items() if k.startswith("recorder.")})

    whole = True

    def draws() -> Iterator[tuple[int, Any, Any]]:
        current = state
        for t in range(done, plan.iterations):
            current, info = plan.kernel.step(current, generators(t))
            yield t, current, info

    def took(draw: tuple[int, Any, Any]) -> None:
        nonlocal done, state, whole
        t, current, info = draw
        whole = False  # until state and recorder have both taken it in
        if t >= plan.burn_in:
            recorder.add(current, info)
        done, state = t + 1, current
        whole = True
        report(len(seeds) * done, f"accepting {float(info.accept_prob.mean()):.2f}")

    def save() -> None:
        if checkpoint is None:
            return
        tensors = {
            **{f"state.{key}": v for key, v in state_to_tensors(state).items()},
            **{f"recorder.{key}": v for key, v in recorder.state().items()},
        }
        save_tensors(checkpoint, tensors, {"config_hash": config_hash, "iteration": str(done)})

    drive(draws(), took=took, save=save, checkpoint_seconds=checkpoint_seconds, whole=lambda: whole)
