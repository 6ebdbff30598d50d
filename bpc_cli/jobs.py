"""Run the steps of a plan in processes of their own, several at once; each starts when those that it needs are done."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from bpc.errors import BpcError

if TYPE_CHECKING:
    from evaluation.plan import Step

__all__ = ["StepFailed", "run_jobs", "threads_for"]

PROGRAM = (sys.executable, "-P", "-m", "bpc_cli")  # -P: a folder of the caller's named bpc is not ours
POLL_SECONDS = 0.05
TAIL = 15  # lines of a failed step's output that are shown


class StepFailed(BpcError):
    """A step of a plan ended with a mistake; its log says which."""


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]
    log: Path
    started: float


def threads_for(jobs: int) -> int:
    """Threads of each of `jobs` processes: its share of the cores, at least 1; or OMP_NUM_THREADS where it is set."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def run_jobs(steps: Sequence[Step], jobs: int, logs: Path, program: Sequence[str] = PROGRAM) -> None:
    """Every step as the command it is, at most `jobs` at once; what the last one printed (the plan's table) is printed.

    A step's output goes to ``logs/NN-name.log``. Numbers are those of a run in one process with as many threads. Ctrl-C, SIGTERM
    and a timer stop the steps that run (they save) before they stop this.

    Args:
        steps: of the plan.
        jobs: 1 or more.
        logs: folder of the logs; made.
        program: what a step's words are given to.

    Raises:
        StepFailed: a step's exit code was not 0; no new one was started, and those that ran were stopped.
    """
    from bpc.progress import say

    logs.mkdir(parents=True, exist_ok=True)
    environment = _environment(jobs)
    waiting = dict(enumerate(steps))
    running: dict[int, _Running] = {}
    done: set[int] = set()
    log = logs
    with _held_signals() as let_through:
        try:
            while waiting or running:
                ready = [i for i, step in waiting.items() if done.issuperset(step.needs)]
                for i in ready[: jobs - len(running)]:
                    step = waiting.pop(i)
                    log = logs / _log_name(i, step, len(steps))
                    running[i] = _start([*program, *step.command], log, environment)
                    say(f"[{i + 1}/{len(steps)}] starts: run.py {_shown(step)}")
                let_through()
                time.sleep(POLL_SECONDS)
                for i, job in list(running.items()):
                    code = job.process.poll()
                    if code is None:
                        continue
                    del running[i]
                    if code:
                        raise _failed(i, steps, job.log, code)
                    done.add(i)
                    seconds = time.monotonic() - job.started
                    left = f"{len(running)} running, {len(waiting)} to come"
                    say(f"[{i + 1}/{len(steps)}] done in {seconds:.0f} s: {_name(steps[i])}; {left}")
        except BaseException:
            _stop([job.process for job in running.values()])
            raise
    print(log.read_text(errors="replace"), end="")


def _start(command: Sequence[str], log: Path, environment: dict[str, str]) -> _Running:
    """A group of its own: Ctrl-C in a terminal is this process's to pass on, once."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, env=environment, process_group=0
        )
    return _Running(process, log, time.monotonic())


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM, on which a step saves; impatience (a second signal) kills them."""
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


def _environment(jobs: int) -> dict[str, str]:
    """Threads for each, this package's place, and the width of the terminal that the last table is printed on."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    found = os.environ | dict.fromkeys(names, str(threads_for(jobs)))
    here = str(Path(__file__).resolve().parents[1])
    found["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    found["COLUMNS"] = str(shutil.get_terminal_size().columns)
    return found


@contextlib.contextmanager
def _held_signals() -> Iterator[Callable[[], None]]:
    """Signals are remembered until the function that is yielded is called: none comes between a process and its entry here."""
    pending: list[int] = []

    def remember(signum: int, frame: FrameType | None) -> None:
        pending.append(signum)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}

    def let_through() -> None:
        while pending:
            number = pending.pop(0)
            for each, handler in before.items():
                signal.signal(each, handler)  # while the steps save, another signal may interrupt the waiting
            signal.raise_signal(number)

    try:
        yield let_through
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _failed(i: int, steps: Sequence[Step], log: Path, code: int) -> StepFailed:
    from bpc.progress import say

    lines = log.read_text(errors="replace").splitlines()[-TAIL:]
    say("\n".join(["", f"The end of {log}:", *(f"  {line}" for line in lines)]))
    how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
    return StepFailed(
        f"Step {i + 1} of {len(steps)}, run.py {_shown(steps[i])}, ended with {how}; its output is in {log}. "
        "The same command goes on from what is done."
    )


def _name(step: Step) -> str:
    """Command and folder: distill-fkl-1-0."""
    return f"{step.command[0]}-{step.out.name}"


def _log_name(i: int, step: Step, total: int) -> str:
    return f"{i + 1:0{len(str(total))}d}-{_name(step)}.log"


def _shown(step: Step, most: int = 160) -> str:
    """The command, cut where it is long: the whole one is in the folder's run.json."""
    text = shlex.join(step.command)
    return text if len(text) <= most else f"{text[: most - 4]} ..."
