"""The tables of a study: every row as CSV, means and spreads as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bpc.files import write_atomic

__all__ = ["NAMES", "number", "summary_markdown", "write_csv", "write_markdown"]

ROUNDING = 1e-12  # divergences are differences of numbers of order 1 to 1,000
# our names and what a reader sees
NAMES = {
    "random": "Random",
    "rkl": "BPC-rKL",
    "rkl-exact": "BPC-rKL, exact gradient",
    "wasserstein": "BPC-W",
    "fkl": "BPC-fKL",
}


def number(value: float) -> str:
    """Three significant digits, whole from 1,000 on, with an exponent below 0.001; what is zero up to rounding is 0."""
    size = abs(value)
    if size < ROUNDING:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1e}" if size < 1e-3 else f"{value:#.3g}".rstrip(".")


def summary_markdown(
    table: pd.DataFrame, *, keys: Sequence[str], titles: Mapping[str, str], caption: str, notes: Sequence[str]
) -> str:
    """One row for each combination of `keys`, mean ± standard deviation (n - 1) of every column named in `titles`.

    Args:
        table: a row for each repeat; a column ``floor_<name>`` is printed once beside ``<name>``.
        keys: columns that tell rows apart, shown first.
        titles: column to heading.
        caption: above the table.
        notes: below it.
    """
    header = [key.capitalize() if key != "size" else "M" for key in keys]
    for name, title in titles.items():
        header += [title, "floor"] if f"floor_{name}" in table else [title]
    lines = [
        caption,
        "",
        "| " + " | ".join(header) + " |",
        "|" + " :-- |" * len(keys) + " --: |" * (len(header) - len(keys)),
    ]
    for values, part in table.groupby(list(keys), sort=False):
        cells = [NAMES.get(str(value), str(value)) for value in values]
        for name in titles:
            mean, spread = part[name].mean(), part[name].std()
            missing = part[name].isna().all()
            cells.append("" if missing else number(mean) if pd.isna(spread) else f"{number(mean)} ± {number(spread)}")
            if f"floor_{name}" in table:
                cells.append(number(part[f"floor_{name}"].iloc[0]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def write_csv(out: Path, name: str, table: pd.DataFrame, along: pd.DataFrame) -> None:
    """Write ``<name>.csv`` (`table`) and ``<name>-steps.csv`` (`along`) into `out`, every digit."""
    _write_text(out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    _write_text(out / f"{name}-steps.csv", along.to_csv(index=False, lineterminator="\n"))


def write_markdown(
    path: Path,
    table: pd.DataFrame,
    *,
    keys: Sequence[str],
    titles: Mapping[str, str],
    caption: str,
    notes: Sequence[str],
) -> None:
    """Write `summary_markdown` to `path`."""
    _write_text(path, summary_markdown(table, keys=keys, titles=titles, caption=caption, notes=notes))


def _write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda stream: stream.write(text.encode()))
