"""Run the steps of a plan, here, in order. A step that is done says so and takes no time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.plan import Step

__all__ = ["run_plan"]


def run_plan(steps: Sequence[Step]) -> None:
    """Every step as the command it is; consecutive steps of one stage are announced once."""
    from bpc.progress import say
    from bpc_cli.main import call

    stage = ""
    for number, step in enumerate(steps, start=1):
        if step.stage and step.stage != stage:
            say(step.stage)
        elif not step.stage:
            say(f"[{number}/{len(steps)}] run.py {shlex.join(step.command)}")
        stage = step.stage
        call(list(step.command))
