"""What a user may do to a run: kill it, feed it garbage, ask for nonsense, fill the disk."""

import json
import os
import shutil
import subprocess

import pytest
import torch
from cli import EXPERTS, kill_when, lines_of, one_line_error
from safetensors.torch import load_file, save_file

DISTILL = [*EXPERTS, "--ipc", "1", "--steps", "40", "--no-evaluate", "--checkpoint-seconds", "0"]


@pytest.mark.slow
def test_kill_9_in_experts(place):
    whole, killed = place.path / "a", place.path / "b"
    more = [*EXPERTS[:-1], "12", "--together", "2"]
    place("experts", *more, "--experts", whole, check=0)
    process = place.start("experts", *more, "--experts", killed)
    assert kill_when(process, lambda: lines_of(killed / "expert_0000.jsonl") > 5)
    place("experts", *more, "--experts", killed, check=0)
    for e in range(2):
        assert (killed / f"expert_{e:04d}.f32").read_bytes() == (whole / f"expert_{e:04d}.f32").read_bytes()
        assert (killed / f"expert_{e:04d}.jsonl").read_text() == (whole / f"expert_{e:04d}.jsonl").read_text()
    record = json.loads((killed / "run.json").read_text())
    assert (record["status"], record["num_experts"], record["epochs"]) == ("done", 2, 12)
    place("experts", *more[:-3], "14", "--experts", killed, check=0)  # and extended
    assert json.loads((killed / "run.json").read_text())["epochs"] == 14


@pytest.mark.slow
@pytest.mark.parametrize("divergence", ["fkl", "rkl", "wasserstein"])
def test_kill_9_in_distil(place, divergence):
    whole, killed = place.path / "a", place.path / "b"
    place("distill", "--divergence", divergence, *DISTILL, "--out", whole, check=0)
    process = place.start("distill", "--divergence", divergence, *DISTILL, "--out", killed)
    assert kill_when(process, lambda: lines_of(killed / "log.jsonl") > 10)
    assert json.loads((killed / "run.json").read_text())["status"] == "running"
    done = place("distill", "--divergence", divergence, *DISTILL, "--out", killed, check=0)
    assert "Going on from step" in done.stderr
    a, b = load_file(whole / "coreset.safetensors"), load_file(killed / "coreset.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)
    steps = [json.loads(line)["step"] for line in (killed / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 41))
    again = place("distill", "--divergence", divergence, *DISTILL, "--out", killed, check=0)
    assert "already, finished" in again.stderr


@pytest.mark.slow
def test_kill_9_in_evaluate(place):
    coreset = place("select", *EXPERTS, "--method", "random", "--ipc", "1", check=0).stdout.strip()
    command = ["evaluate", "--dataset", "digits", "--width", "4", "--depth", "1", "--coreset", coreset]
    command += ["--seeds", "3", "--chains-at-once", "1", "--checkpoint-seconds", "0"]
    whole, killed = place.path / "a", place.path / "b"
    place(*command, "--out", whole, check=0)
    process = place.start(*command, "--out", killed)
    # in the middle of the second chain: the rows of the first are there
    assert kill_when(process, lambda: lines_of(killed / "rows.csv") > 5 and list(killed.glob("chains-*-1-1.*")))
    place(*command, "--out", killed, check=0)

    def rows(folder):
        cells = [line.split(",") for line in (folder / "rows.csv").read_text().splitlines()[1:]]
        return sorted((c[8], c[9], c[10]) for c in cells)  # seed, metric, value

    assert rows(killed) == rows(whole)
    assert len(rows(whole)) == 3 * 12


def test_no_data_and_no_network(place):
    done = place("distill", "--divergence", "fkl", "--ipc", "10")
    one_line_error(done, "cifar10", "--data-root", "BPC_DATA_ROOT", "--dataset digits")
    assert len(done.stderr.splitlines()) == 1
    assert not (place.path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distill", "--divergence", "fkll", "--ipc", "1"], ["divergence", "fkll", "fkl, rkl, rkl-path, wasserstein"]),
        (["distill", "--divergence", "fkl"], ["--ipc"]),
        (["distil"], ["distil", "distill"]),
        (["distill", "--divergence", "fkl", "--ipc", "x"], ["ipc"]),
        (["experts", "--dataset", "cifar11"], ["dataset", "cifar11", "cifar10"]),
        (["select", "--dataset", "digits", "--method", "best", "--ipc", "1"], ["method", "best", "herding"]),
        (["distill", "--dataset", "digits", "--divergence", "fkl", "--ipc", "1", "--preset", "kim"], ["preset"]),
        (["select", "--dataset", "digits", "--method", "random", "--ipc", "500"], ["500"]),
        (["select", "--dataset", "digits", "--method", "random", "--ipc", "0"], ["--ipc"]),
        (["experts", "--dataset", "digits", "--device", "cuda:7"], ["cuda:7"]),
        (["experts", "--dataset", "digits", "--device", "tpu"], ["tpu"]),
        (["experts", "--dataset", "digits", "--depth", "9"], ["depth"]),
        (["experts", "--dataset", "digits", "--model", "resnet"], ["model", "resnet"]),
        (["distill", "--dataset", "digits", "--divergence", "fkl", "--ipc", "1", "--augment", "crop_blur"], ["blur"]),
        (["distill", "--dataset", "digits", "--divergence", "fkl", "--ipc", "1", "--seeds", "0"], ["--seeds", "got 0"]),
        (["distill", "--dataset", "digits", "--divergence", "fkl", "--ipc", "1", "--lr", "nan"], ["--lr", "finite"]),
        (["distill", "--dataset", "digits", "--divergence", "fkl", "--ipc", "1", "--steps", "0"], ["steps"]),
        (["experts", "--dataset", "digits", "--num-experts", "0"], ["--num-experts"]),
        (["evaluate", "--coreset", "nowhere.safetensors"], ["nowhere.safetensors"]),
        (["compare", "nowhere"], ["nowhere"]),
    ],
)
def test_nonsense_is_one_line_and_exit_code_2(arguments, words, capsys, monkeypatch, tmp_path):
    """In this process, for speed: `main` is all that run.py runs."""
    import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPC_CACHE", str(tmp_path / "cache"))
    try:
        code = run.main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1, captured.err
    for word in words:
        assert word in lines[0], lines[0]
    assert not list(tmp_path.rglob("coreset.safetensors"))


def test_help_teaches(capsys):
    import run

    assert run.main(["distill", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--divergence", "--ipc", "--data-root", "Images per class", "Table"):
        assert word in text


@pytest.fixture
def coreset(tmp_path, monkeypatch):
    """A random coreset's file, made in this process."""
    import run

    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    assert (
        run.main(
            ["select", "--dataset", "digits", "--method", "random", "--ipc", "1", "--out", str(tmp_path / "coreset")]
        )
        == 0
    )
    return tmp_path / "coreset" / "coreset.safetensors"


@pytest.mark.parametrize("damage", ["truncated", "foreign", "nan", "shape", "labels", "empty", "pickle"])
def test_damaged_coresets(coreset, damage, tmp_path, capsys):
    import run

    tensors = load_file(coreset)
    header = json.loads(coreset.read_bytes()[8 : 8 + int.from_bytes(coreset.read_bytes()[:8], "little")])
    bad = tmp_path / "bad.safetensors"
    if damage == "truncated":
        bad.write_bytes(coreset.read_bytes()[:-100])
    elif damage == "foreign":
        save_file({"weights": torch.zeros(3)}, bad)
    elif damage == "empty":
        bad.write_bytes(b"")
    elif damage == "pickle":
        torch.save(tensors, bad)
    else:
        if damage == "nan":
            tensors["points"][0, 0, 0, 0] = float("nan")
        elif damage == "shape":
            tensors["labels"] = tensors["labels"][:-1]
        else:
            tensors["labels"][0] = 99
        save_file(tensors, bad, metadata=header["__metadata__"])
    assert run.main(["evaluate", "--dataset", "digits", "--coreset", str(bad)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "bad.safetensors" in error


def test_a_coreset_of_another_dataset(coreset, data_root, capsys):
    import run

    code = run.main(["evaluate", "--dataset", "mnist", "--data-root", str(data_root), "--coreset", str(coreset)])
    assert code == 2
    assert "(1, 8, 8)" in capsys.readouterr().err


def test_out_of_another_run_is_refused(coreset, tmp_path, capsys):
    import run

    arguments = ["select", "--dataset", "digits", "--method", "random", "--ipc", "2", "--out", str(coreset.parent)]
    before = coreset.read_bytes()
    assert run.main(arguments) == 2
    assert "another run" in capsys.readouterr().err
    assert coreset.read_bytes() == before


def test_diverging_run_keeps_its_last_checkpoint(tmp_path, capsys):
    import run

    out = tmp_path / "run"
    arguments = [
        "distill",
        "--divergence",
        "wasserstein",
        *DISTILL,
        "--experts",
        str(tmp_path / "e"),
        "--out",
        str(out),
    ]
    assert run.main([*arguments, "--lr", "1e38"]) == 2
    error = capsys.readouterr().err
    assert "diverged at step" in error
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert not (out / "coreset.safetensors").exists()
    kept = load_file(out / "checkpoint.safetensors")
    assert all(torch.isfinite(kept[f"coreset.{name}"]).all() for name in ("points", "weights", "student_lr"))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root to make a small disk")
def test_full_disk(place):
    """A real one: a file system of 1 MB."""
    disk = place.path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        more = [*EXPERTS[:-1], "300", "--experts", disk / "experts"]
        one_line_error(place("experts", *more), "disk is full")
        from expert_trajectories import TrajectoryStore

        store = TrajectoryStore.open(disk / "experts")
        assert store.epochs(0) > 3
        assert torch.isfinite(store.snapshots(0, 0, store.epochs(0))).all()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_same_command_same_bits(tmp_path):
    import run

    made = []
    for name in ("a", "b"):
        arguments = ["distill", "--divergence", "fkl", *DISTILL, "--experts", str(tmp_path / "e")]
        assert run.main([*arguments, "--out", str(tmp_path / name)]) == 0
        made.append((tmp_path / name / "coreset.safetensors").read_bytes())
    assert made[0] == made[1]
