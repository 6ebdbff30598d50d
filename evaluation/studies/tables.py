"""The tables of a study: every row as CSV, means and spreads over its repeats as a `Table`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bpc.files import write_text
from evaluation.moments import Moments, moments
from evaluation.table import Cell, Column, Table, TableRow

__all__ = ["NAMES", "StudyResult", "divergence", "study_table", "write_csv"]

# our names and what a reader sees
NAMES = {
    "random": "Random",
    "rkl": "BPC-rKL",
    "rkl-exact": "BPC-rKL, exact gradient",
    "wasserstein": "BPC-W",
    "fkl": "BPC-fKL",
}
_FLOOR = Column(name="floor", digits=None, joined=True)


class StudyResult(NamedTuple):
    """What a study found: every repeat, and the tables made of them."""

    rows: pd.DataFrame
    tables: list[Table]


def divergence(name: str, unit: str = "nats") -> Column:
    """A divergence's column: three significant digits, since they span many orders of magnitude."""
    return Column(name=name, unit=unit, better="lower", digits=None)


def study_table(
    rows: pd.DataFrame, *, keys: Sequence[str], columns: dict[str, Column], caption: str, notes: Sequence[str]
) -> Table:
    """One row for each combination of `keys`, mean ± standard deviation of every column; blocks of one size.

    Args:
        rows: one for each repeat; a column ``floor_<name>`` is printed once beside ``<name>``.
        keys: columns that tell rows apart, shown first; the last tells those of a block apart.
        columns: by the name in `rows`; one that `rows` does not have is left out.
        caption: above the table.
        notes: below it.
    """
    columns = {name: column for name, column in columns.items() if name in rows}
    blocks: dict[tuple[str, ...], list[TableRow]] = {}
    for values, part in rows.groupby(list(keys), sort=False):
        texts = tuple(NAMES.get(str(value), str(value)) for value in values)
        cells: list[Cell] = []
        for name in columns:
            cells.append(moments(part[name]))
            if f"floor_{name}" in part:
                cells.append(Moments(part[f"floor_{name}"].iloc[0]))
        label = ", ".join(f"M = {text}" if key == "size" else text for key, text in zip(keys, texts, strict=True))
        blocks.setdefault(texts[:-1], []).append(TableRow((*texts, *cells), label))
    shown = [Column(name="M" if key == "size" else key.capitalize(), key=True, left=key != "size") for key in keys]
    for name, column in columns.items():
        shown += [column, _FLOOR] if f"floor_{name}" in rows else [column]
    return Table(
        caption=caption,
        columns=tuple(shown),
        blocks=tuple(map(tuple, blocks.values())),
        notes=tuple(notes),
        repeats="repeats",
    )


def write_csv(out: Path, name: str, table: pd.DataFrame, along: pd.DataFrame) -> None:
    """Write ``<name>.csv`` (`table`) and ``<name>-steps.csv`` (`along`) into `out`, every digit."""
    write_text(out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(out / f"{name}-steps.csv", along.to_csv(index=False, lineterminator="\n"))
