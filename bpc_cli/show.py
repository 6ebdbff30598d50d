"""What commands print and draw at their end."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bpc.coreset import Pseudocoreset
    from bpc.runs import Run

__all__ = ["draw_coreset", "print_tables", "show_table"]

PIPE_WIDTH = 160  # columns


def show_table(
    paths: list[Path], folder: Path | None, *, title: str, scale: str | None = None, figures: bool = False
) -> None:
    """Summarise runs, print the table, and write it (and figures) where asked."""
    from evaluation.compare import beside_full_data, load_runs, summarise
    from evaluation.plots import plot_comparison
    from evaluation.shift import write_shift
    from evaluation.tables import render_console, write_tables

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = load_runs(paths)
        summary = beside_full_data(summarise(rows))
        print_tables(render_console(summary, title=title, scale=scale))
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            print(f"note: {warning.message}", file=sys.stderr)
    if folder is not None:
        write_tables(summary, folder, title=title, scale=scale)
        write_shift(rows, folder)
        if figures:
            plot_comparison(summary, folder / "comparison.png")


def print_tables(*tables: RenderableType) -> None:
    """To stdout; where that is neither a terminal nor told its width (COLUMNS), wide enough for most tables."""
    from rich.console import Console

    told = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if told else PIPE_WIDTH, highlight=False)
    for table in tables:
        console.print(table)


def draw_coreset(run: Run, coreset: Pseudocoreset) -> None:
    """coreset.png, and the learning curve where there is a log."""
    import pandas as pd

    from evaluation.plots import plot_coreset_grid, plot_distill_curve

    plot_coreset_grid(coreset, run.file("coreset.png"), class_names=coreset.provenance.get("class_names"))
    log = run.path / "log.jsonl"
    if log.exists():
        plot_distill_curve(pd.read_json(log, lines=True), run.picture("learning.png"), method=coreset.method)
