"""Long work in a run's folder: one way to report progress, log, checkpoint by the clock, and save when it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["drive"]

T = TypeVar("T")


def drive(
    steps: Iterable[T],
    *,
    took: Callable[[T], None],
    save: Callable[[], None],
    checkpoint_seconds: float,
    whole: Callable[[], bool],
) -> None:
    """Take every step of `steps`; checkpoints come by the clock, and where they can on Ctrl-C or SIGTERM.

    Args:
        steps: does the work when it is iterated.
        took: takes a step in: keeps it, logs it, reports it.
        save: writes a checkpoint of what `took` has taken in.
        checkpoint_seconds: at most this much work is lost by a kill, and the step under way.
        whole: whether what `save` would write is whole when a stop comes, maybe in the middle of a step. It is not where work
            changes its state in place: there a stop loses what came after the last checkpoint.
    """
    saved = time.monotonic()
    try:
        for step in steps:
            took(step)
            if time.monotonic() - saved > checkpoint_seconds:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        if whole():
            save()
        raise
