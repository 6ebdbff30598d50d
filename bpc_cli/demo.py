"""`run.py demo`: the whole job on digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bpc_cli.flags import Seed, flag

__all__ = ["Demo", "run_demo"]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole job on the embedded digits: experts, three divergences, baselines, HMC and A-SGHMC, a posterior, pictures."""

    out: Annotated[Path, flag("Where everything goes.", "DIR")] = Path("demo")
    seed: Seed = 0
    device: Annotated[str, flag("auto (a CUDA GPU if there is one), cpu, or cuda.", "NAME")] = "auto"


EXAMPLES = """\
run.py demo                   3 to 3.5 minutes on two cores; everything goes to demo/
run.py reproduce demo --dry-run    the same job as a list of commands"""


def run_demo(args: Demo) -> Path:
    """Every step of the plan `demo`; returns the table."""
    import time

    from bpc.progress import say
    from bpc_cli.plan import run_plan
    from evaluation.reproduce import demo_plan

    started = time.monotonic()
    say(
        "Digits (1,797 images of 8x8, embedded), ConvNet of 10,986 parameters, 1 image per class, 5 coresets of each kind."
    )
    run_plan(demo_plan(args.out, args.seed, ("--device", args.device)))
    say(f"Done in {time.monotonic() - started:.0f} s. Tables and pictures are in {args.out / 'comparison'}.")
    return args.out / "comparison" / "comparison.md"
