"""`run.py study`: studies where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bpc_cli.flags import AtLeast, Seed, flag

__all__ = ["Study", "run_study"]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Learn coresets of models whose posterior is known, and compute every divergence exactly or by cubature."""

    name: Annotated[tyro.conf.Positional[str], flag("gaussian, linear or logistic.", "NAME")]
    out: Annotated[Path | None, flag("Where tables and figures go. Default: runs/study-NAME.", "DIR")] = None
    repeats: Annotated[int, flag("Independent coresets per size.", "INT"), AtLeast(1)] = 3
    seed: Seed = 0


EXAMPLES = """\
run.py study gaussian        Gaussian data, three divergences in closed form (Kim et al. 2022, Figures 6 and 7)
run.py study linear          Bayesian linear regression on the diabetes data
run.py study logistic        Bayesian logistic regression on the breast-cancer data"""


def run_study(args: Study) -> Path:
    """Run it and print its tables; returns the folder."""
    from bpc.errors import unknown_name
    from bpc.progress import progress
    from bpc.runs import default_out
    from bpc_cli.show import print_tables
    from evaluation.studies import STUDIES

    if args.name not in STUDIES:
        raise unknown_name("study", args.name, STUDIES)
    out = args.out or default_out("study", args.name)
    study = STUDIES[args.name]
    with progress(study.what, 1) as report:
        found = study.run(
            out,
            seed=args.seed,
            repeats=args.repeats,
            report=lambda done, total, note: report.update(done, note, total=total),
        )
    print_tables(*found.tables)
    return out
