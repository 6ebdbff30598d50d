"""`run.py reproduce`: a published table or figure as a plan of commands; `run.py tabulate`: its last step for variants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import tyro

from bpc_cli.flags import AtLeast, PlaceFlags, Positive, flag

__all__ = ["Reproduce", "Tabulate", "run_reproduce", "run_tabulate"]


@dataclass(frozen=True, kw_only=True)
class Reproduce(PlaceFlags):
    """A published table or figure, as a list of commands that skip what is done: call it again to resume."""

    target: Annotated[tyro.conf.Positional[str], flag("Which one; without it, the list is printed.", "TARGET")] = ""
    scale: Annotated[
        str,
        flag(
            "smoke: digits, minutes. cpu: made small for two cores, hours. full: as published, on a GPU.",
            "smoke|cpu|full",
        ),
    ] = "smoke"
    out: Annotated[Path | None, flag("Where everything goes. Default: runs/reproduce-TARGET-SCALE.", "DIR")] = None
    stop_after: Annotated[
        float | None,
        flag("Stop in time for a scheduler (exit code 75); the next call goes on from the checkpoint.", "SECONDS"),
        Positive(),
    ] = None
    jobs: Annotated[
        int,
        flag(
            """Steps at once, each a process with its share of the cores (or OMP_NUM_THREADS); what they say goes to logs/ in the
            folder. 1: one after the other, here.""",
            "INT",
        ),
        AtLeast(1),
    ] = 1
    dry_run: Annotated[bool, flag("Print the commands and run nothing.")] = False


EXAMPLES = """\
run.py reproduce                                                  what there is
run.py reproduce kim2022-table1                                   on digits, minutes
run.py reproduce kim2022-table1 --scale full --stop-after 540     a GPU that is to be had for ten minutes at a time
run.py reproduce posterior-digits --scale cpu --jobs 2            two steps at once, a core each
run.py reproduce kim2022-fig6 --dry-run                           the commands"""


@dataclass(frozen=True, kw_only=True)
class Tabulate:
    """The tables and figures of a plan's folder: the last step of some plans of reproduce."""

    target: Annotated[tyro.conf.Positional[str], flag("The plan's name.", "TARGET")]
    folder: Annotated[tyro.conf.Positional[Path], flag("The plan's folder.", "DIR")]


def run_reproduce(args: Reproduce) -> Path | None:
    """Run or print a plan; returns where its result is."""
    import shlex
    import signal

    from bpc.runs import default_out
    from bpc_cli.jobs import run_jobs
    from bpc_cli.main import TimeIsUp
    from bpc_cli.plan import run_plan
    from evaluation.reproduce import ELSEWHERE, TARGETS, find_target

    if not args.target:
        for name, target in TARGETS.items():
            print(f"{name:24s} {target.what}")
        print("\nNot plans of their own:")
        for name, where in ELSEWHERE.items():
            print(f"{name:24s} {where}")
        return None
    target = find_target(args.target)
    out = args.out or default_out("reproduce", f"{args.target}-{args.scale}")
    common = ["--device", args.device, *(["--data-root", str(args.data_root)] if args.data_root else [])]
    steps = target.steps(args.scale, out, common)
    if args.dry_run:
        for step in steps:
            print(shlex.join(["run.py", *step.command]))
        return None
    if args.stop_after is not None:

        def stop(signum: int, frame: FrameType | None) -> None:
            raise TimeIsUp

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, args.stop_after)
    try:
        if args.jobs > 1 and len(steps) > 1:
            run_jobs(steps, args.jobs, out / "logs")
        else:
            run_plan(steps)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return steps[-1].out


def run_tabulate(args: Tabulate) -> Path:
    """Write and print variants.md, or the target's own tables; returns the page."""
    from bpc_cli.show import print_tables
    from evaluation.reproduce import find_target
    from evaluation.variant_tables import tabulate

    target = find_target(args.target)
    if target.tables is not None:
        print_tables(*target.tables(args.folder))
        return args.folder / "posteriors.md"
    print_tables(*tabulate(target, args.folder))
    return args.folder / "variants.md"
