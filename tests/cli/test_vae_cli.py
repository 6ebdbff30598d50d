"""run.py vae ...: the whole job on digits, a kill, mistakes."""

import json

import pytest
from cli import kill_when, lines_of, one_line_error

from bpc.coreset import load_coreset

TRAIN = [
    "vae",
    "train",
    "--dataset",
    "digits",
    "--components",
    "20",
    "--hidden",
    "16",
    "--latent",
    "4",
    "--train-images",
    "200",
]
SCORE = ["--samples", "5", "--test-images", "20"]


def test_train_score_sample_augment_compare(place):
    folders = []
    for prior in ("gaussian", "bype"):
        folder = place.path / prior
        more = ["--interval", "1", "--coreset-steps", "2"] if prior == "bype" else []
        place(*TRAIN, *SCORE, *more, "--prior", prior, "--epochs", "3", "--out", folder, check=0)
        folders.append(folder)
        assert {"model.safetensors", "rows.csv", "samples.png", "learning.png", "latent-map.png"} <= {
            p.name for p in folder.iterdir()
        }
        assert {"learning.png", "learning.pdf"} <= set((folder / ".files").read_text().split("\n"))
    assert (place.path / "bype" / "pseudo-inputs.png").exists()
    coreset = load_coreset(place.path / "bype")  # what the prior has learned, to be handed on
    assert (coreset.method, coreset.dataset, len(coreset)) == ("bype", "digits", 20)
    assert float(coreset.weights.sum()) == pytest.approx(200)
    again = place("vae", "evaluate", *folders, *SCORE, "--no-pictures", check=0)
    assert "already" in again.stderr
    place("vae", "sample", folders[1], "--count", "7", "--seed", "3", check=0)
    assert (folders[1] / "samples-3.png").exists()
    place("vae", "augment", folders[1], "--way", "prior", "--weights", "0", "0.5", "--epochs", "1", check=0)
    one_line_error(place("vae", "augment", folders[0], "--way", "prior", "--epochs", "1"), "gaussian", "posterior")
    done = place("vae", "compare", *folders, "--out", "table", check=0)
    assert all(word in done.stdout for word in ("Gaussian", "ByPE", "Test error"))
    table = (place.path / "table" / "comparison.md").read_text()
    assert "| Gaussian | 1 |" in table and "| ByPE | 1 |" in table
    assert (place.path / "table" / "comparison.csv").exists()


def test_kill_9_keeps_model_and_pseudocoreset(place):
    common = [
        *TRAIN,
        "--prior",
        "bype",
        "--interval",
        "2",
        "--coreset-steps",
        "2",
        "--epochs",
        "8",
        "--no-evaluate",
        "--checkpoint-seconds",
        "0",
    ]
    place(*common, "--out", "whole", check=0)
    process = place.start(*common, "--out", "killed")
    log = place.path / "killed" / "log.jsonl"
    running = kill_when(process, lambda: lines_of(log) >= 4)
    place(*common, "--out", "killed", check=0)
    assert running, "it had finished before it could be killed"
    whole, killed = ((place.path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    # the files differ in nothing but the run they name, which is the same configuration
    assert whole == killed
    epochs = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert epochs == list(range(1, 9))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prior", "vamp"], ["vamp", "vampprior"]),
        (["--model", "pixelcnn"], ["pixelcnn"]),
        (["--likelihood", "poisson"], ["poisson", "bernoulli"]),
        (["--preset", "none"], ["none", "ai2021"]),
        (["--dataset", "mnits"], ["mnits", "mnist"]),
        (["--components", "5000"], ["5000", "200"]),
        (["--epochs", "0"], ["epochs"]),
        (["--interval", "0"], ["interval"]),
    ],
)
def test_mistakes_are_one_line(arguments, words, capsys, monkeypatch, tmp_path):
    import run

    monkeypatch.setenv("BPC_RUNS", str(tmp_path))
    assert run.main([*TRAIN, *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for word in words:
        assert word in error


def test_a_folder_that_is_no_model(tmp_path, capsys):
    import run

    assert run.main(["vae", "evaluate", str(tmp_path)]) == 2
    assert "vae train" in capsys.readouterr().err


def test_a_command_loads_its_images_once(tmp_path, monkeypatch):
    """`vae train` read its dataset again to score what it had trained."""
    import run
    from bpc.vae import data, job

    job._images.cache_clear()
    loads = []
    real = data.load_dataset
    monkeypatch.setattr(data, "load_dataset", lambda *args, **options: loads.append(args) or real(*args, **options))
    small = ["--latent", "2", "--hidden", "4", "--train-images", "50", "--test-images", "10", "--samples", "10"]
    command = ["vae", "train", "--dataset", "digits", "--prior", "gaussian", "--epochs", "1", *small]
    assert run.main([*command, "--out", str(tmp_path / "v")]) == 0
    assert len(loads) == 1
