"""`run.py compare`: join runs into tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bpc_cli.flags import flag

__all__ = ["Compare", "run_compare"]


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Join runs over methods, sizes, samplers and seeds with the published numbers: tables and figures."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        flag("Run folders, rows.csv files, or folders to be searched.", "RUN..."),
    ]
    out: Annotated[Path, flag("Where tables (.md, .csv, .tex) and figures go.", "DIR")] = Path("runs/compare")
    title: Annotated[str, flag("First words of every caption.", "TEXT")] = "Comparison"
    scale: Annotated[
        str | None, flag("Words on scale for the captions. Default: what the runs themselves say.", "TEXT")
    ] = None


EXAMPLES = """\
run.py compare runs/                                  everything that has scores
run.py compare demo/scores --out report --title Demo"""


def run_compare(args: Compare) -> Path:
    """Tables and figures; returns their folder."""
    from bpc_cli.show import show_table
    from evaluation.report import write_figures

    show_table(list(args.runs), args.out, title=args.title, scale=args.scale, figures=True)
    write_figures(list(args.runs), args.out)
    return args.out
