"""A progress bar on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["Bar", "progress_bar"]


class Bar:
    """One task of a rich progress display, with the four members that pooch asks of a progress bar."""

    def __init__(self, progress: Progress, description: str, total: int | None) -> None:
        self._progress = progress
        self._total = total
        self._task = progress.add_task(description, total=total)

    @property
    def total(self) -> int | None:
        """How many steps there are in all; None while unknown."""
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        self._total = value or None
        self._progress.update(self._task, total=self._total)

    def update(self, steps: int) -> None:
        """Move on by `steps`."""
        self._progress.advance(self._task, steps)

    def reset(self) -> None:
        """Go back to zero."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Nothing to do: the display closes with its context."""


@contextmanager
def progress_bar(description: str, total: int | None = None, *, in_bytes: bool = False) -> Iterator[Bar]:
    """Show a bar while the block runs; it disappears afterwards, and is not shown outside a terminal."""
    console = Console(stderr=True)
    count: ProgressColumn = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, description, total)
