"""Progress of long work on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Reporter", "duration", "plural", "progress", "say"]

LOG_EVERY_SECONDS = 20.0
_console = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """One line to the person who is watching."""
    _console.print(message, markup=False, soft_wrap=True)


class Reporter:
    """What `progress` yields: call `update` with the amount done."""

    def __init__(self, description: str, total: int, done: int, bar: Progress | None) -> None:
        self._description, self._total, self._bar = description, total, bar
        self._task = bar.add_task(description, total=total, completed=done, note="") if bar else None
        self._started, self._first, self._printed = time.monotonic(), done, time.monotonic()

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """`done` of the total is finished; `note` is shown beside it. `total` is for work that knows its size only inside."""
        self._total = total or self._total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self._total, note=note)
            return
        now = time.monotonic()
        if now - self._printed >= LOG_EVERY_SECONDS:
            self._printed = now
            rate = (done - self._first) / (now - self._started)
            left = f", {duration((self._total - done) / rate)} left" if rate > 0 else ""
            say(f"{self._description}: {done}/{self._total}{left}  {note}".rstrip())


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Reporter]:
    """Report progress of `total` units of work, `done` of which were finished before."""
    if not sys.stderr.isatty():
        yield Reporter(description, total, done, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_console, transient=True) as bar:
        yield Reporter(description, total, done, bar)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def plural(count: int, noun: str) -> str:
    """1 expert, 1,000 experts."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
