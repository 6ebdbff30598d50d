"""`run.py doctor`: what is here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bpc_cli.flags import flag

__all__ = ["Doctor", "run_doctor"]


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what is here: device, versions, datasets, optional parts and how to get them."""

    data_root: Annotated[Path | None, flag("Where datasets are looked for first.", "DIR")] = None


EXAMPLES = """\
run.py doctor
run.py doctor --data-root ~/data"""


def run_doctor(args: Doctor) -> None:
    """Print the report."""
    from bpc_cli.show import print_tables
    from evaluation.doctor import report

    print_tables(*report(args.data_root))
