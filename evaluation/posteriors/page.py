"""From a study's folder to its files."""

from __future__ import annotations

from pathlib import Path

from bpc.errors import DataError
from bpc.files import write_text
from evaluation.posteriors.collect import cells_of, collect
from evaluation.posteriors.figures import draw_figures
from evaluation.posteriors.tables import tables_of
from evaluation.table import Table, tables_to_latex, tables_to_markdown

__all__ = ["tabulate_posteriors"]


def tabulate_posteriors(folder: Path) -> list[Table]:
    """Write ``posteriors.md``, ``.csv``, ``.tex`` and the figures ``posteriors-*.png`` and ``.pdf``; returns the tables.

    Everything comes from the run folders below ``coresets/``, ``scores/`` and ``grid/``: their ``rows.csv`` and what their
    ``run.json`` says was asked. What they do not hold has no table and no figure.

    Raises:
        DataError: nothing that can be tabulated.
    """
    frame = collect(folder)
    tables = tables_of(frame)
    if not tables:
        raise DataError(f"{folder} holds no exact posterior to tabulate; evaluate with --protocol exact-scaled.")
    figures = draw_figures(frame, folder)
    text = tables_to_markdown(tables, "Posteriors of coresets")
    pictures = "\n".join(f"![{path.stem}]({path.name})\n" for path in figures if path.suffix == ".png")
    write_text(folder / "posteriors.md", f"{text}\n{pictures}" if pictures else text)
    write_text(folder / "posteriors.csv", cells_of(frame).to_csv(index=False, lineterminator="\n"))
    write_text(folder / "posteriors.tex", tables_to_latex(tables))
    return tables
