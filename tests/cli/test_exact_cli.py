"""`run.py evaluate --protocol exact` as a user types it: the whole job, a kill, a full table, and what it refuses."""

import json

import pytest
from cli import EXPERTS, kill_when, lines_of, one_line_error

NETWORK = ["--dataset", "digits", "--width", "4", "--depth", "1"]
SHORT = ["--chains", "2", "--warmup", "10", "--samples", "12", "--leapfrog-steps", "2", "--test-images", "60"]
REFERENCE = ["--reference-samples", "8", "--reference", "reference"]


@pytest.fixture
def coreset(place):
    return place("select", *EXPERTS, "--method", "random", "--ipc", "1", check=0).stdout.strip()


def rows(folder):
    cells = [line.split(",") for line in (folder / "rows.csv").read_text().splitlines()[1:]]
    return sorted((c[3], c[6], c[8], c[9], c[10]) for c in cells)  # method, sampler, seed, metric, value


@pytest.mark.slow
def test_the_whole_job_and_a_kill(place):
    """Killed in the coreset's chains, in the reference's, and finished: the rows of a run that nobody disturbed."""
    learned = place(
        "distill", *EXPERTS, "--divergence", "fkl", "--ipc", "1", "--steps", "3", "--no-evaluate", check=0
    ).stdout.strip()
    whole, killed = place.path / "a", place.path / "b"
    command = [
        "evaluate",
        *NETWORK,
        *SHORT,
        "--coreset",
        learned,
        "--protocol",
        "exact-scaled",
        "--checkpoint-seconds",
        "0",
    ]
    done = place(*command, "--reference-samples", "8", "--reference", "ref-a", "--out", whole, check=0)
    assert "about" in done.stderr and "It is kept in ref-a" in done.stderr
    for words in ("Agreement", "R-hat", "BPC-fKL †", "Random †", "Full data †", "have not mixed"):
        assert words in done.stdout + done.stderr, words
    for name in ("page.png", "page.pdf", "inference-fkl-hmc-exact-scaled-0.nc", "tables/comparison.md"):
        assert (whole / name).stat().st_size > 1000, name

    again = [*command, "--reference-samples", "8", "--reference", "ref-b", "--out", killed]
    assert kill_when(place.start(*again), lambda: list(killed.glob("chains-*.safetensors")))
    assert kill_when(place.start(*again), lambda: list((place.path / "ref-b").glob("chains-*.safetensors")))
    place(*again, check=0)
    assert rows(killed) == rows(whole)
    assert json.loads((killed / "run.json").read_text())["status"] == "done"
    # the reference is there now, and is not sampled again
    other = place(*again[:-1], place.path / "c", "--seed", "7", check=0)
    assert "Sampling the posterior of all" not in other.stderr


@pytest.mark.slow
def test_corruptions_have_their_own_table(place, coreset):
    command = ["evaluate", *NETWORK, "--coreset", coreset, "--iterations", "4", "--burn-in", "2", "--seeds", "2"]
    out = place.path / "r"
    done = place(*command, "--corruptions", "--corruption-images", "10", "--out", out, check=0)
    assert "generated, 15 corruptions" in done.stderr
    assert "frost is drawn" in done.stderr
    text = (out / "tables" / "corruptions.md").read_text()
    assert "gaussian_noise" in text and "mCE" in text
    assert "@" not in (out / "tables" / "comparison.md").read_text()
    assert lines_of(out / "rows.csv") == 1 + 2 * (8 + 1 + 3 * 75)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "exact", "--sampler", "asghmc"], ["asghmc", "no exact version"]),
        (["--protocol", "kim2022", "--sampler", "nuts"], ["nuts", "asghmc, hmc"]),
        (["--protocol", "kim2022", "--backend", "pyro"], ["pyro", "--protocol exact"]),
        (["--protocol", "exact", "--backend", "stan"], ["stan", "hamiltorch"]),
        (["--protocol", "exact", "--backend", "pyro", "--sampler", "sghmc"], ["hmc or nuts"]),
        (["--protocol", "exact", "--chains", "0"], ["--chains", "at least 1"]),
        (["--protocol", "exact", "--samples", "2"], ["at least 4"]),
        (["--protocol", "exact", "--prior-std", "0"], ["positive prior_std"]),
        (["--protocol", "exact", "--prior-std", "nan"], ["finite"]),
        (["--protocol", "exact", "--reference-sampler", "gibbs"], ["gibbs"]),
        (["--protocol", "exact", "--width", "8", "--coreset", "missing"], ["missing"]),
        (["--protocol", "exactly"], ["exactly", "exact-scaled"]),
    ],
)
def test_nonsense_is_one_line(place, coreset, arguments, words):
    command = ["evaluate", *NETWORK, "--coreset", coreset, *SHORT, *REFERENCE]
    done = place(*command, *arguments)
    one_line_error(done, *words)


def test_a_coreset_of_another_dataset_is_refused(place, coreset):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(coreset)
    with open(coreset, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        metadata = json.loads(stream.read(size))["__metadata__"]
    changes = {
        "shape": ({"points": torch.zeros(10, 1, 9, 9)}, {}, "images are"),
        "mean": ({"mean": torch.tensor([0.5])}, {}, "normalised"),
        "classes": ({}, {"num_classes": "12"}, "classes"),
        "labels": ({"labels": torch.full((10,), 11)}, {}, "labels run"),
        "nan": ({"points": tensors["points"] * float("nan")}, {}, "nan"),
        "weights": ({"weights": torch.ones(3)}, {}, "weights"),
    }
    for name, (tensor, meta, word) in changes.items():
        path = place.path / f"{name}.safetensors"
        save_file({**tensors, **tensor}, path, {**metadata, **meta})
        done = place("evaluate", *NETWORK, "--coreset", path, "--protocol", "exact", *SHORT, *REFERENCE)
        assert done.returncode == 2 and word.lower() in done.stderr.lower(), (name, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.slow
def test_another_reference_in_the_folder_is_refused(place, coreset):
    command = ["evaluate", *NETWORK, *SHORT, "--coreset", coreset, "--protocol", "exact"]
    place(*command, *REFERENCE, "--out", place.path / "a", check=0)
    done = place(*command, "--reference", "reference", "--reference-samples", "9", "--out", place.path / "b")
    one_line_error(done, "reference", "samples")
