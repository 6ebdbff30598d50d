"""What a hostile or hurried user types: every command is answered in one line, with exit code 2, and nothing is left behind."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli import EXPERTS, ROOT, lines_of

import run

DIGITS = ["--dataset", "digits", "--width", "4", "--depth", "1"]
FKL = ["distill", *DIGITS, "--divergence", "fkl", "--ipc", "1"]
HERDING = ["select", *DIGITS, "--method", "herding"]

# command, words of the one line
HOSTILE = {
    "no such command": (["distil"], ["Unknown command 'distil'", "Did you mean 'distill'"]),
    "no such command of a group": (["vae", "trane"], ["'trane'", "Did you mean 'train'"]),
    "no such option": ([*FKL, "--wdth", "3"], ["--wdth", "Did you mean --width"]),
    "a word too many": ([*FKL, "now"], ["'now'", "run.py distill --help"]),
    "an option without its value": ([*FKL, "--steps"], ["--steps needs a value"]),
    "a required option is missing": (["distill", "--divergence", "fkl"], ["needs --ipc"]),
    "not a whole number": ([*FKL, "--seed", "1.5"], ["--seed: '1.5' is not a whole number"]),
    "not a number": ([*FKL, "--lr", "fast"], ["--lr: ", "'fast' is not a number"]),
    "a negative step size": ([*FKL, "--lr", "-1"], ["--lr must be above 0"]),
    "a step size of nothing": ([*FKL, "--lr", "0"], ["--lr must be above 0"]),
    "infinite": ([*FKL, "--lr", "inf"], ["--lr must be a finite number"]),
    "a negative seed": ([*FKL, "--seed", "-1"], ["--seed must be from 0 to 4294967295"]),
    "a seed of 2^32": ([*FKL, "--seed", str(2**32)], ["--seed must be from 0 to 4294967295"]),
    "a seed of 2^64": ([*FKL, "--seed", str(2**64)], ["--seed must be from 0 to 4294967295"]),
    "a VAE's seed": (["vae", "train", "--dataset", "digits", "--seed", "-1"], ["--seed must be from 0"]),
    "a VAE's seed of 2^32": (["vae", "train", "--dataset", "digits", "--seed", str(2**32)], ["--seed must be from 0"]),
    "samples' seed": (["vae", "sample", "nowhere", "--seed", "-3"], ["--seed must be from 0"]),
    "few labels' seed": (["ssl", "train", "--dataset", "digits", "--seed", str(2**64)], ["--seed must be from 0"]),
    "experts' seed": (["experts", *DIGITS, "--expert-seed", "-1"], ["--expert-seed must be from 0"]),
    "no memory": ([*FKL, "--memory-budget", "0"], ["--memory-budget must be above 0"]),
    "nothing is left after burn-in": ([*FKL, "--iterations", "6", "--burn-in", "50"], ["burn_in", "5", "50"]),
    "burn-in beyond Table 3": ([*FKL, "--burn-in", "20"], ["burn_in", "20"]),
    "more images than a class has": ([*HERDING, "--ipc", "6000"], ["ipc 6000 is more than class"]),
    "the same of a learned coreset": ([*FKL[:-1], "6000"], ["ipc 6000 is more than class"]),
    "no such divergence": (["distill", *DIGITS, "--divergence", "kl", "--ipc", "1"], ["divergence 'kl'", "fkl"]),
    "no such protocol": ([*FKL, "--protocol", "kim"], ["protocol 'kim'", "kim2022"]),
    "no such scale": (["reproduce", "kim2022-table1", "--scale", "tiny"], ["scale 'tiny'", "smoke"]),
    "no such study": (["study", "cubic"], ["study 'cubic'", "linear"]),
    "experts beyond counting": ([*FKL, "--num-experts", "99999999999999"], ["--num-experts must be from 1 to"]),
    "a window of no epochs": ([*FKL, "--expert-epochs", "0"], ["--expert-epochs must be at least 1"]),
    "no time": (["reproduce", "kim2022-table1", "--stop-after", "0"], ["--stop-after must be above 0"]),
    "resizing to nothing": (["experts", "--dataset", "photos@0"], ["photos@0"]),
    "a file that is a device": (["evaluate", "--dataset", "digits", "--coreset", "/dev/null"], ["/dev/null"]),
    "a folder as a coreset": (["evaluate", "--dataset", "digits", "--coreset", "/"], ["coreset.safetensors"]),
    "no runs": (["compare", "nowhere"], ["nowhere"]),
    "more test images than there are": ([*FKL, "--test-images", "99999"], ["--test-images 99,999", "500"]),
    "diagonal covariances of another divergence": ([*FKL, "--diagonal"], ["--diagonal", "wasserstein"]),
    "a device that is none": ([*FKL, "--device", "tpu"], ["tpu"]),
    "half a character": ([*FKL, "--out", "half\udcff"], ["'half\\udcff' is not UTF-8"]),
    "control characters": ([*FKL, "--augment", "crop\x1b[31m"], ["crop"]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_one_line_and_nothing_left(what, tmp_path, monkeypatch, capsys):
    arguments, words = HOSTILE[what]
    monkeypatch.chdir(tmp_path)
    for name in ("BPC_RUNS", "BPC_CACHE", "BPC_DATA_ROOT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "BPC_DATA_ROOT").mkdir()
    assert run.main(arguments) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), error
    assert "Traceback" not in error and "\x1b" not in error
    for word in words:
        assert word in lines[0], lines[0]
    assert [p.name for p in tmp_path.rglob("*")] == ["BPC_DATA_ROOT"]


def test_help_without_arguments_and_the_version(capsys):
    assert run.main([]) == 0
    overview = capsys.readouterr().out
    assert all(f"\n  {name}" in overview for name in ("demo", "distill", "vae", "ssl")) and "First steps" in overview
    assert run.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bayesian-pseudocoresets ")


@pytest.mark.parametrize("command", [["distill"], ["evaluate"], ["vae", "train"], ["ssl", "train"]])
def test_help_is_whole(command, capsys):
    """No default of None beside a stated default, and no sentence cut where the source breaks a line."""
    assert run.main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "(default: None)" not in text and "{None}" not in text
    assert text.index("(required)") < text.index("--seed") if "(required)" in text else True
    lines = [line.strip(" │|") for line in text.splitlines()]
    ends = [after for before, after in itertools.pairwise(lines) if before.endswith("a folder of images")]
    assert all(after[:1].isalpha() for after in ends)


def start(arguments, place, **more):
    env = {**os.environ, "BPC_RUNS": str(place / "runs"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=place, env=env, stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "stopped")]
)
def test_signals_leave_a_checkpoint(sent, code, word, tmp_path):
    """A scheduler's SIGTERM is like Ctrl-C: the checkpoint is written, the message says so, the same command goes on."""
    arguments = ["distill", *EXPERTS, "--divergence", "fkl", "--ipc", "1", "--steps", "100000", "--no-evaluate"]
    arguments += ["--checkpoint-seconds", "1000", "--out", "out"]
    process = start(arguments, tmp_path, stdout=subprocess.DEVNULL)
    log = tmp_path / "out" / "log.jsonl"
    deadline = time.monotonic() + 60
    while lines_of(log) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert f"{word}; the same command goes on" in error and "Traceback" not in error
    assert (tmp_path / "out" / "checkpoint.safetensors").exists()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "stopped"


def test_stopped_in_the_first_step(tmp_path, monkeypatch, capsys):
    """Ctrl-C before any step has ended still leaves a checkpoint that the next call goes on from."""
    from bpc.divergences import ForwardKL

    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    arguments = ["distill", *EXPERTS, "--divergence", "fkl", "--ipc", "1", "--steps", "2", "--no-evaluate"]
    arguments += ["--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:

        def stop(*args, **kwargs):
            raise KeyboardInterrupt

        patch.setattr(ForwardKL, "gradient", stop)
        assert run.main(arguments) == 130
    assert "goes on from what is saved" in capsys.readouterr().err
    assert (tmp_path / "out" / "checkpoint.safetensors").exists()
    assert run.main(arguments) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_output(tmp_path):
    with open("/dev/full", "w") as full:
        process = start(["--help"], tmp_path, stdout=full)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.startswith("error: ") and "full" in error and "Traceback" not in error


def test_ascii_output(tmp_path):
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "vae", "train", "--help"], env=env, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"--prior" in done.stdout


def test_tables_in_ascii(tmp_path):
    """`compare` prints arrows and ±, which ASCII has not."""
    from evaluation.rows import RowWriter

    with RowWriter(tmp_path / "run" / "rows.csv") as writer:
        for seed in (0, 1):
            row = {
                "run": "run",
                "config_hash": "x",
                "dataset": "digits",
                "method": "fkl",
                "architecture": "convnet",
                "ipc": 1,
            }
            row |= {
                "sampler": "hmc",
                "protocol": "kim2022",
                "seed": seed,
                "metric": "accuracy",
                "value": 0.5 + seed / 10,
            }
            writer.write(row)
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "run.py"), "compare", "run", "--out", "out"]
    done = subprocess.run(command, env=env, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stderr and b"fKL" in done.stdout


def test_long_work_asks_for_patience(monkeypatch, capsys):
    """More than an hour on a CPU: the days, the smaller command, a pause; --yes and a GPU skip it."""
    import torch

    from bpc_cli import patience

    slept = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    for seconds, device, yes in ((3000.0, "cpu", False), (1e6, "cpu", True), (1e6, "cuda", False)):
        patience.ask_patience(seconds, torch.device(device), yes, lambda: "run.py small")
    assert not slept
    patience.ask_patience(1.27e6, torch.device("cpu"), False, lambda: "run.py small")
    said = capsys.readouterr().err
    assert slept == [patience.PAUSE] and "14.7 days" in said and "run.py small" in said and "--yes" in said


@pytest.mark.slow
def test_the_smaller_command_is_a_command(digits, tmp_path):
    from bpc_cli.flags import DataFlags, NetworkFlags, PlaceFlags
    from bpc_cli.main import parse
    from bpc_cli.patience import smaller_distill, smaller_experts
    from bpc_cli.setting import prepare

    data = DataFlags(dataset="digits")
    place = PlaceFlags(device="cpu", data_root=tmp_path / "my data")
    setting = prepare(data, NetworkFlags(), place)
    for words in (
        smaller_experts(setting, data, place),
        *(smaller_distill(setting, data, place, d, 1) for d in ("fkl", "wasserstein")),
    ):
        _, args = parse(shlex.split(words.removeprefix("run.py ")))
        assert args.where.data_root == place.data_root


def test_experts_into_a_run_of_something_else(tmp_path, capsys):
    """Refused, it used to leave store.json and a lock there."""
    import torch

    from bpc.runs import Run

    path = tmp_path / "run"
    with Run(path, "distill", {"a": 1}, torch.device("cpu")) as made:
        made.record("done")
    before = sorted(p.name for p in path.iterdir())
    assert run.main(["experts", *DIGITS, "--num-experts", "1", "--epochs", "1", "--out", str(path)]) == 2
    assert "holds a run of distill, not experts" in capsys.readouterr().err
    assert sorted(p.name for p in path.iterdir()) == before


@pytest.mark.parametrize("command", [FKL, [*HERDING, "--ipc", "1"]])
def test_a_foreign_folder_is_refused_before_experts_are_trained(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("mine")
    assert run.main([*command, "--out", str(thesis)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no run of ours" in error and len(error.splitlines()) == 1
    assert [p.name for p in thesis.iterdir()] == ["thesis.tex"] and not (tmp_path / "runs").exists()


def test_a_coreset_of_another_dataset_is_named(tmp_path, capsys):
    """Equal shapes do not make equal data: the table says what the coreset was made for."""
    from bpc.coreset import load_coreset

    assert run.main(["select", *DIGITS, "--method", "random", "--ipc", "1", "--out", str(tmp_path / "s")]) == 0
    load_coreset(tmp_path / "s").replace(dataset="letters").save(tmp_path / "c.safetensors")
    short = ["--seeds", "1", "--test-images", "20", "--iterations", "3", "--burn-in", "1"]
    arguments = [
        "evaluate",
        *DIGITS,
        "--coreset",
        str(tmp_path / "c.safetensors"),
        *short,
        "--out",
        str(tmp_path / "e"),
    ]
    capsys.readouterr()
    assert run.main(arguments) == 0
    assert "coreset made for letters" in " ".join(capsys.readouterr().out.split())


def test_a_reference_folder_of_something_else_is_refused_first(tmp_path, capsys):
    """It used to leave a run.json in --out, which the next try was then refused for."""
    assert run.main(["select", *DIGITS, "--method", "random", "--ipc", "1", "--out", str(tmp_path / "s")]) == 0
    arguments = [
        "evaluate",
        *DIGITS,
        "--coreset",
        str(tmp_path / "s"),
        "--protocol",
        "exact",
        "--out",
        str(tmp_path / "e"),
    ]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    for folder, words in (("s", "holds a run of select, not a reference"), ("thesis", "no run of ours")):
        capsys.readouterr()
        assert run.main([*arguments, "--reference", str(tmp_path / folder)]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("command", [[], ["distill"], ["evaluate"], ["reproduce"], ["vae"], ["ssl", "train"]])
def test_help_fits_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert run.main([*command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line.rstrip()) > 80 and "run.py" not in line] == []
    assert any("run.py" in line for line in lines)


def test_out_of_memory_is_one_line(monkeypatch, capsys):
    """Python's error and torch's, which has no class of its own; any other RuntimeError stays a bug that is seen."""
    from bpc_cli import doctor, main

    for error in (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] ... can't allocate memory: you tried ..."),
    ):

        def fail(args, error=error):
            raise error

        monkeypatch.setitem(main.COMMANDS, "doctor", main.Command(doctor.Doctor, fail))
        assert run.main(["doctor"]) == 2
        assert capsys.readouterr().err.startswith("error: Out of memory")

    def bug(args):
        raise RuntimeError("a bug")

    monkeypatch.setitem(main.COMMANDS, "doctor", main.Command(doctor.Doctor, bug))
    with pytest.raises(RuntimeError, match="a bug"):
        run.main(["doctor"])
