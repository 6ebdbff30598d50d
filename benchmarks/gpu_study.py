"""Plans of `run.py reproduce` on a machine that is lent for minutes: small posteriors on its CPU cores, the rest on its GPU.

    python benchmarks/gpu_study.py posteriors:cpu posterior-digits:full:width-32 --out runs/study --seconds 500

A posterior of few points is as fast on one core as on a GPU that launches a kernel for each layer, so both kinds of work run
beside each other, in the order of the plans, each step in a process of its own. At the time limit the steps that run are told
to save; the same command goes on from there, and so does `run.py reproduce`: a step is known by its folder, whatever device it
ran on. A step that fails is reported, and what needs it is left out.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluation.plan import Step
from evaluation.reproduce import find_target

ROOT = Path(__file__).resolve().parents[1]
NO_DEVICE = ("compare", "tabulate")
SMALL = ("experts", "select", "distill")  # on digits: seconds of one core
HEAD_START = 25.0  # seconds until a reference has its folder
FEW = 2  # images per class whose exact posterior a core samples in minutes


@dataclass
class Job:
    """One step of a plan: where it runs, and how far it is."""

    step: Step
    needs: list[Job]
    where: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    state: str = "waiting"
    started: float = 0.0
    seconds: float = 0.0

    @property
    def ready(self) -> bool:
        """Whether it may start."""
        return self.state == "waiting" and all(self._there(job) for job in self.needs)

    def _there(self, job: Job) -> bool:
        """Whether its result is, or will be by the time it is asked for: a posterior is sampled while the reference is."""
        begun = job.state == "running" and time.monotonic() - job.started > HEAD_START
        return job.state == "done" or (
            self.step.command[0] == "evaluate" and job.step.command[0] == "reference" and begun
        )


def place(command: tuple[str, ...]) -> str:
    """`cpu` or `cuda`."""
    if command[0] in NO_DEVICE:
        return "cpu"
    digits = "digits" in command
    if digits and (command[0] in SMALL or (command[0] == "evaluate" and "kim2022" in " ".join(command))):
        return "cpu"
    if digits and command[0] == "evaluate" and "32" not in command:
        first = Path(command[command.index("--coreset") + 1]).name  # METHOD-IPC-SEED
        if int(first.split("-")[-2]) <= FEW:
            return "cpu"
    return "cuda"


def jobs_of(names: list[str], out: Path, common: list[str]) -> list[Job]:
    """All steps of the plans TARGET:SCALE[:WORD], the first plan's first; of a plan with a word only steps that have it."""
    found: dict[Path, Job] = {}
    for name in names:
        target, scale, word = [*name.split(":"), ""][:3]
        steps = find_target(target).steps(scale, out / target, ["--device", "DEVICE", *common])
        mine: dict[int, Job] = {}
        for i, step in enumerate(steps):
            if word in shlex.join(step.command) and all(n in mine for n in step.needs):
                log = out / "logs" / f"{target}-{i:03d}-{step.command[0]}-{step.out.name}.log"
                mine[i] = found.setdefault(step.out, Job(step, [mine[n] for n in step.needs], place(step.command), log))
    return list(found.values())


def run(jobs: list[Job], slots: dict[str, int], seconds: float, gpu: str) -> None:
    """Until all is done, or the time is up."""
    began = time.monotonic()
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | threads | {"PYTHONPATH": path}
    while time.monotonic() - began < seconds:
        running = [job for job in jobs if job.state == "running"]
        for job in running:
            assert job.process is not None
            if (code := job.process.poll()) is not None:
                job.seconds = time.monotonic() - job.started
                job.state = "done" if code == 0 else "failed"
                tail = "" if code == 0 else " | " + job.log.read_text(errors="replace")[-300:].replace("\n", " | ")
                print(f"{time.monotonic() - began:6.0f} s  {job.state} in {job.seconds:4.0f} s on {job.where}: "
                      f"{job.log.stem}{tail}", flush=True)  # fmt: skip
        busy = {where: sum(j.state == "running" and j.where == where for j in jobs) for where in slots}
        for job in sorted(
            jobs, key=lambda job: job.step.command[0] == "evaluate"
        ):  # coresets first: others wait for them
            if job.ready and busy[job.where] < slots[job.where]:
                busy[job.where] += 1
                device = gpu if job.where == "cuda" else "cpu"
                command = [device if word == "DEVICE" else word for word in job.step.command]
                job.log.parent.mkdir(parents=True, exist_ok=True)
                with job.log.open("wb") as stream:
                    stream.write((shlex.join(command) + "\n").encode())
                    stream.flush()
                    job.process = subprocess.Popen(
                        [sys.executable, "-m", "bpc_cli", *command],
                        stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, env=environment,
                    )  # fmt: skip
                job.state, job.started = "running", time.monotonic()
        if not any(job.state == "running" for job in jobs):
            break
        time.sleep(0.2)
    left = [job for job in jobs if job.state == "running"]
    for job in left:
        assert job.process is not None
        job.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 10
    for job in left:
        assert job.process is not None
        try:
            job.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            job.process.kill()
        lines = job.log.read_text(errors="replace").splitlines()[-2:]
        print(
            f"cut after {time.monotonic() - job.started:.0f} s: {job.log.stem} | {' | '.join(lines)[-160:]}", flush=True
        )
    count = {state: sum(job.state == state for job in jobs) for state in ("done", "failed", "waiting", "running")}
    print(f"{time.monotonic() - began:.0f} s: {count}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", help="TARGET:SCALE, or TARGET:SCALE:WORD for the steps with that word")
    parser.add_argument("--gpu", default="cuda", help="the device's name; cpu tries the script")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--data-root")
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--gpu-jobs", type=int, default=6)
    parser.add_argument("--cpu-jobs", type=int, default=9)
    parser.add_argument("--dry-run", action="store_true", help="print what would run where")
    args = parser.parse_args()
    common = ["--data-root", args.data_root] if args.data_root else []
    jobs = jobs_of(args.targets, args.out, common)
    if args.dry_run:
        for job in jobs:
            print(job.where, job.log.stem, shlex.join(job.step.command))
        return
    run(jobs, {"cpu": args.cpu_jobs, "cuda": args.gpu_jobs}, args.seconds, args.gpu)


if __name__ == "__main__":
    main()
