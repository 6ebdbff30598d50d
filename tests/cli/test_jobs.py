"""A plan's steps in processes of their own: order, number at once, failure, interruption, and the bits of one process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli import ROOT

import run
from bpc_cli.jobs import StepFailed, run_jobs, threads_for
from bpc_cli.main import Terminated, TimeIsUp
from evaluation import reproduce
from evaluation.plan import Step, plan_of

# `python -c STEP WORD.. FOLDER`: notes when it began and ended; saves when it is told to stop
STEP = """
import os, signal, sys, time
word, folder = sys.argv[1], sys.argv[-1]
os.makedirs(folder)
def save(*_):
    open(folder + "/saved", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open(folder + "/began", "w").write(repr(time.time()))
print(word, os.environ["OMP_NUM_THREADS"])
if word == "fail":
    sys.exit("error: no luck")
time.sleep(30 if word == "long" else 0.2)
open(folder + "/ended", "w").write(repr(time.time()))
"""
PROGRAM = (sys.executable, "-S", "-c", STEP)


def step(folder, *needs, word="short"):
    return Step(command=(word, str(folder)), writes=(folder,), needs=needs)


def times(folder):
    return tuple(float((folder / name).read_text()) for name in ("began", "ended"))


def test_a_step_waits_for_what_it_needs_and_no_more_run_than_asked(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    folders = [tmp_path / name for name in "abcde"]
    a, b, c, d, e = folders
    steps = [step(a), step(b, 0), step(c, 0), step(d, 0), step(e, 1, 2, 3)]
    run_jobs(steps, 2, tmp_path / "logs", PROGRAM)
    for i, own in enumerate(steps):
        assert all(times(folders[i])[0] >= times(folders[j])[1] for j in own.needs)
    spans = [times(folder) for folder in folders]
    at_once = [sum(began <= moment < ended for began, ended in spans) for moment, _ in spans]
    assert max(at_once) == 2, "the three in the middle go two by two"
    out, err = capfd.readouterr()
    assert out == "short 3\n", "the last step's output, with the threads that were asked for"
    assert "[1/5] starts: run.py short" in err and "[5/5] done in" in err
    assert sorted(p.name for p in (tmp_path / "logs").iterdir())[1] == "2-short-b.log"


def test_the_cores_are_shared(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert [threads_for(jobs) for jobs in (1, 2, 3, 20)] == [8, 4, 2, 1]


def test_a_failure_stops_the_rest(tmp_path, capfd):
    folders = [tmp_path / name for name in "abc"]
    steps = [step(folders[0], word="long"), step(folders[1], word="fail"), step(folders[2], 1)]
    started = time.monotonic()
    with pytest.raises(StepFailed, match=r"Step 2 of 3, run.py fail .* exit code 1.*2-fail-b.log"):
        run_jobs(steps, 2, tmp_path / "logs", PROGRAM)
    assert time.monotonic() - started < 20, "the long one is not waited for"
    assert not folders[2].exists() and not (folders[0] / "ended").exists()
    assert "  error: no luck" in capfd.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated, TimeIsUp])
def test_a_signal_ends_the_steps_which_save(tmp_path, monkeypatch, error):
    """The handler of whoever called raises, as always, but after the steps have been told."""
    signum = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM, TimeIsUp: signal.SIGALRM}[error]
    folder = tmp_path / "a"

    def raises(signum, frame):
        raise error

    def sleep(seconds, real=time.sleep):
        real(seconds)
        if (folder / "began").exists():
            signal.raise_signal(signum)

    before = signal.signal(signum, raises)
    monkeypatch.setattr("bpc_cli.jobs.time.sleep", sleep)
    try:
        with pytest.raises(error):
            run_jobs([step(folder, word="long"), step(tmp_path / "b", 0)], 2, tmp_path / "logs", PROGRAM)
        assert signal.getsignal(signum) is raises
    finally:
        signal.signal(signum, before)
    assert (folder / "saved").exists() and not (tmp_path / "b").exists()


def _small(scale, out, common):
    experts = ["--experts", str(out / "experts"), "--num-experts", "1", "--epochs", "1"]
    network = ["--dataset", "digits", "--width", "2", "--depth", "1", *common]
    yield ["experts", *experts, *network]
    for seed in range(2):
        yield [
            "select",
            "--method",
            "random",
            "--ipc",
            "1",
            "--seed",
            str(seed),
            "--out",
            str(out / f"{seed}"),
            *experts,
            *network,
        ]


@pytest.mark.slow
def test_the_bits_of_one_process(tmp_path, monkeypatch):
    """Through `reproduce`: the same files by one process and by two."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    target = reproduce.Target(what="", commands=_small)
    monkeypatch.setitem(reproduce.TARGETS, "small", target)
    for jobs in ("1", "2"):
        assert run.main(["reproduce", "small", "--device", "cpu", "--out", str(tmp_path / jobs), "--jobs", jobs]) == 0
    made = [(tmp_path / jobs / "1" / "coreset.safetensors").read_bytes() for jobs in ("1", "2")]
    assert made[0] == made[1]
    assert len(list((tmp_path / "2" / "logs").iterdir())) == 3


def test_a_mistake_in_a_step_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capfd):
    def commands(scale, out, common):
        return [
            ["select", "--method", "nothing", "--out", str(out / "a")],
            ["compare", str(out / "a"), "--out", str(out / "b")],
        ]

    monkeypatch.setitem(reproduce.TARGETS, "wrong", reproduce.Target(what="", commands=commands))
    assert run.main(["reproduce", "wrong", "--out", str(tmp_path), "--jobs", "2"]) == 2
    err = capfd.readouterr().err
    assert "error: Step 1 of 2" in err and "1-select-a.log" in err and not (tmp_path / "b").exists()
    assert plan_of(commands("", Path("x"), []))[1].needs == (0,)


@pytest.mark.slow
def test_sigterm_to_reproduce(tmp_path):
    """The whole chain: the child of a terminated reproduce is gone when it is, and the exit code is the usual one."""
    command = [sys.executable, str(ROOT / "run.py"), "reproduce", "kim2022-table4", "--device", "cpu", "--jobs", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, "--out", str(tmp_path)], env=env, stderr=subprocess.PIPE, text=True) as process:
        assert "[1/" in next(process.stderr)
        store = tmp_path / "experts"
        deadline = time.monotonic() + 60
        while not (store / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        said = process.stderr.read()
    assert process.returncode == 143 and "terminated; the same command goes on" in said
    assert "terminated" in (tmp_path / "logs").glob("*-experts-*.log").__next__().read_text()
