"""`distill --divergence rkl-path`: no experts, the scoring protocol's chain, options that others would not look at refused."""

import json

import pytest

import run
from bpc.coreset import load_coreset

PATH = [
    "distill",
    "--dataset",
    "digits",
    "--width",
    "4",
    "--depth",
    "1",
    "--divergence",
    "rkl-path",
    "--ipc",
    "1",
    "--steps",
    "2",
]
SHORT = ["--path-iterations", "3", "--path-leapfrogs", "2", "--path-window", "3", "--real-batch", "20", "--no-evaluate"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("protocol", "more", "flow"),
    [
        ("kim2022-scaled", ["--ema", "0.5"], "kim2022-scaled"),
        ("exact", ["--reduction", "sum", "--lr", "0.01"], "exact"),
    ],
)
def test_learns_without_experts(tmp_path, protocol, more, flow):
    assert run.main([*PATH, *SHORT, "--protocol", protocol, *more, "--out", str(tmp_path / "out")]) == 0
    coreset = load_coreset(tmp_path / "out")
    assert coreset.method == "rkl-path" and coreset.provenance["steps"] == 2
    assert not list(tmp_path.glob("**/store.json"))
    record = json.loads((tmp_path / "out" / "run.json").read_text())["config"]
    assert record["experts"] is None
    assert record["preset"]["path_protocol"] == flow and record["preset"]["path_iterations"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*PATH, "--reduction", "sum"], "exact"),
        ([*PATH, "--path-antithetic", "--path-chains", "3"], "pairs"),
        ([*PATH, "--protocol", "exact", "--prior", "fan-in"], "isotropic"),
        ([*PATH, "--optimizer", "adamw"], "adamw"),
        (["distill", "--dataset", "digits", "--divergence", "fkl", "--ipc", "1", "--path-window", "3"], "rkl-path"),
        (["distill", "--dataset", "digits", "--divergence", "fkl", "--ipc", "1", "--ema", "1"], "--ema"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_is_made(tmp_path, capsys, arguments, words):
    assert run.main(arguments) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_soft_labels_are_learned_kept_and_scored(tmp_path):
    chain = ["--iterations", "3", "--burn-in", "1", "--leapfrog-steps", "2", "--seeds", "1", "--test-images", "20"]
    arguments = [*PATH, *[a for a in SHORT if a != "--no-evaluate"], *chain, "--learn-labels", "--learn-weights"]
    assert run.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    coreset = load_coreset(tmp_path / "out")
    assert coreset.method == "rkl-path+labels+weights" and coreset.labels.shape == (10, 10)
    assert "(+Labels, Weights)" in (tmp_path / "out" / "tables").joinpath("comparison.md").read_text()
    assert run.main(["evaluate", *PATH[1:7], "--coreset", str(tmp_path / "out"), *chain]) == 0
