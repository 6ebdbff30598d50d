"""`run.py evaluate --protocol exact` as a user types it: the whole job, a kill, a full table, and what it refuses."""

import json

import pytest
import torch
from cli import EXPERTS, kill_when, lines_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import run
from bpc.data import load_dataset
from bpc.seeding import make_generator
from bpc.selection import build_coreset, select

NETWORK = ["--dataset", "digits", "--width", "4", "--depth", "1"]
SHORT = ["--chains", "2", "--warmup", "10", "--samples", "12", "--leapfrog-steps", "2", "--test-images", "60"]
REFERENCE = ["--reference-warmup", "2", "--reference-samples", "8", "--reference", "reference"]


@pytest.fixture(scope="module")
def coreset(tmp_path_factory):
    """A random coreset of digits, in a file."""
    digits = load_dataset("digits")
    index = select("random", digits.train.labels, 1, 10, generator=make_generator("cpu", 0))
    path = tmp_path_factory.mktemp("coreset") / "coreset.safetensors"
    build_coreset(digits, index, method="random", seed=0).save(path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """run.py in this process: exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BPC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens: offline

    def call(*arguments):
        try:
            code = run.main([*map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err

    return call


def rows(folder):
    cells = [line.split(",") for line in (folder / "rows.csv").read_text().splitlines()[1:]]
    return sorted((c[3], c[6], c[8], c[9], c[10]) for c in cells)  # method, sampler, seed, metric, value


@pytest.mark.slow
def test_the_whole_job_and_a_kill(place):
    """Killed in the reference's chains, in the coreset's, and finished: the rows of a run that nobody disturbed."""
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
    done = place(
        *command, "--reference-warmup", "2", "--reference-samples", "8", "--reference", "ref-a", "--out", whole, check=0
    )
    assert "about" in done.stderr and "It is kept in ref-a" in done.stderr
    for words in ("Agreement", "R-hat", "BPC-fKL †", "Random †", "Full data †", "have not mixed"):
        assert words in done.stdout + done.stderr, words
    for name in ("page.png", "page.pdf", "inference-fkl-hmc-exact-scaled-0.nc", "tables/comparison.md"):
        assert (whole / name).stat().st_size > 1000, name
    assert (whole / "tables/comparison.md").read_text().startswith("# BPC-fKL on digits")

    again = [*command, "--reference-warmup", "2", "--reference-samples", "8", "--reference", "ref-b", "--out", killed]
    assert kill_when(place.start(*again), lambda: list((place.path / "ref-b").glob("chains-*.safetensors")))
    assert kill_when(place.start(*again), lambda: list(killed.glob("chains-*.safetensors")))
    place(*again, check=0)
    assert rows(killed) == rows(whole)
    assert json.loads((killed / "run.json").read_text())["status"] == "done"
    # the reference is there now, and is not sampled again
    other = place(*again[:-1], place.path / "c", "--seed", "7", check=0)
    assert "Sampling the posterior of all" not in other.stderr


@pytest.mark.parametrize(
    ("sampler", "more"), [("pt", {"log_evidence", "swap_rate_min", "communication_barrier"}), ("smc", {"log_evidence"})]
)
def test_tempering_and_smc_write_what_only_they_know(here, coreset, tmp_path, sampler, more):
    """Their evidence and swaps are rows and columns."""
    command = ["evaluate", *NETWORK, *SHORT, "--coreset", coreset, "--protocol", "exact", "--no-beside-random"]
    command += ["--reference", "none", "--levels", "3"]
    code, said = here(*command, "--sampler", sampler, "--out", tmp_path / "a")
    assert code == 0, said
    found = {metric: float(value) for _, name, _, metric, value in rows(tmp_path / "a") if name == sampler}
    assert more <= set(found)
    assert found["log_evidence"] < 0
    if sampler == "pt":
        assert 0 < found["swap_rate_min"] < 1 and 0 < found["communication_barrier"] < 2
    text = (tmp_path / "a" / "tables" / "comparison.md").read_text()
    assert "Log evidence" in text and ("Least swap rate" in text) == (sampler == "pt")


def test_a_reference_is_found_by_the_flags_that_made_it(here, coreset, tmp_path, capsys):
    """By `run.py reference` first, in the folder that evaluate looks in; cold, and quick where no number is given."""
    flags = [*NETWORK, "--temperature", "0.5", "--quick", "--chains", "2", "--leapfrog-steps", "2"]
    flags += ["--reference-samples", "8", "--reference-warmup", "3"]
    code, said = here("reference", *flags)
    assert code == 0, said
    assert "training images, twice, by hmc: 2 chains x 11 draws x 2 gradients, about" in said
    assert "Run 2 on 500 test images: accuracy" in said and "The two runs: agreement" in said
    (folder,) = tmp_path.glob("runs/reference-*")
    assert json.loads((folder / "run.json").read_text())["config"]["temperature"] == 0.5
    command = ["evaluate", *flags, "--samples", "8", "--test-images", "60", "--coreset", coreset, "--protocol", "exact"]
    code, said = here(*command, "--no-beside-random", "--out", tmp_path / "e")
    assert code == 0, said
    assert "Sampling random by hmc: 2 chains x 58 draws x 2 gradients, about" in said
    assert "Sampling the posterior of all" not in said
    assert "temperature 0.5" in json.loads((tmp_path / "e" / "run.json").read_text())["scale"]
    assert {"tv", "accuracy"} <= {metric for method, _, _, metric, _ in rows(tmp_path / "e") if method == "random"}
    code, said = here("reference", *flags, "--out", tmp_path / "e")
    assert code == 2 and "holds a run of evaluate, not a reference" in said


@pytest.mark.slow
def test_the_memory_budget_changes_no_bit(here, tmp_path):
    """float32 sums in other pieces grow apart along a chain: 0.588 became 0.618 under the same hash."""
    digits = load_dataset("digits")
    index = select("random", digits.train.labels, 2, 10, generator=make_generator("cpu", 0))
    build_coreset(digits, index, method="random", seed=0).save(tmp_path / "two.safetensors")
    command = ["evaluate", *NETWORK, *SHORT, "--coreset", tmp_path / "two.safetensors", "--protocol", "exact-scaled"]
    command += ["--seeds", "2", "--no-beside-random"]
    for name, budget in (("whole", "1"), ("small", "1e-5")):  # 1e-5 GiB: an image or two at a time
        out, reference = tmp_path / name, tmp_path / f"reference-{name}"
        options = ["--memory-budget", budget, "--reference-warmup", "2", "--reference-samples", "4"]
        assert here(*command, *options, "--reference", reference, "--out", out)[0] == 0
    for kind in ("reference-", ""):
        assert rows(tmp_path / f"{kind}whole") == rows(tmp_path / f"{kind}small")
    predictives = [
        load_file(tmp_path / name / "predictive-random-hmc-exact-scaled-1.safetensors") for name in ("whole", "small")
    ]
    assert torch.equal(predictives[0]["probs"], predictives[1]["probs"])


@pytest.mark.slow
def test_one_reference_answers_for_other_images_too(here, coreset, tmp_path):
    """First the test images, then corrupted ones: keyed by names, the second run failed after all sampling."""
    command = ["evaluate", *NETWORK, *SHORT, "--coreset", coreset, "--protocol", "exact", "--no-beside-random"]
    command += ["--reference-sampler", "sghmc", "--reference-warmup", "2", "--reference-samples", "4"]
    assert here(*command, "--out", tmp_path / "a")[0] == 0
    (folder,) = tmp_path.glob("runs/reference-*")
    before = (folder / "weights-0.safetensors").stat().st_mtime_ns
    code, said = here(*command, "--corruptions", "--corruption-images", "100", "--out", tmp_path / "b")
    assert code == 0, said
    assert "Sampling the posterior of all" not in said
    assert list(tmp_path.glob("runs/reference-*")) == [folder]
    assert (folder / "weights-0.safetensors").stat().st_mtime_ns == before
    for name in ("a", "b"):
        metrics = {metric for _, _, _, metric, _ in rows(tmp_path / name)}
        assert {"tv", "tv_corrupted", "heat"} <= metrics
    assert {"accuracy@fog-3", "mce"} <= metrics


@pytest.mark.slow
def test_corruptions_have_their_own_table(here, coreset, tmp_path):
    command = ["evaluate", *NETWORK, "--coreset", coreset, "--iterations", "4", "--burn-in", "2", "--seeds", "2"]
    out = tmp_path / "r"
    code, said = here(*command, "--corruptions", "--corruption-images", "10", "--out", out)
    assert code == 0 and "generated, 15 corruptions" in said
    text = (out / "tables" / "corruptions.md").read_text()
    assert r"gaussian\_noise" in text and "mCE" in text
    assert "@" not in (out / "tables" / "comparison.md").read_text()
    assert lines_of(out / "rows.csv") == 1 + 2 * (12 + 1 + 3 * 75)


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
        (["--protocol", "exact", "--sampler", "pt", "--levels", "1"], ["--levels", "at least 2"]),
        (["--protocol", "exact", "--sampler", "smc", "--backend", "pyro"], ["hmc or nuts"]),
        (["--protocol", "exact", "--prior-std", "0"], ["--prior-std", "above 0"]),
        (["--protocol", "exact", "--prior-std", "nan"], ["finite"]),
        (["--protocol", "exact", "--prior", "flat"], ["'flat'", "fan-in, isotropic"]),
        (["--protocol", "exact", "--mass", "dense"], ["'dense'", "diagonal, prior"]),
        (["--protocol", "exact", "--backend", "pyro", "--mass", "prior"], ["pyro", "--mass prior"]),
        (["--protocol", "exact", "--temperature", "0"], ["--temperature", "above 0"]),
        (["--protocol", "exact", "--reference-samples", "3"], ["at least 4"]),
        (["--protocol", "exact", "--reference-sampler", "gibbs"], ["gibbs"]),
        (["--protocol", "exact", "--width", "8", "--coreset", "missing"], ["missing"]),
        (["--protocol", "exactly"], ["exactly", "exact-scaled"]),
    ],
)
def test_nonsense_is_one_line(here, coreset, arguments, words):
    code, said = here("evaluate", *NETWORK, "--coreset", coreset, *SHORT, *REFERENCE, *arguments)
    assert code == 2
    assert said.count("error: ") == 1 and said.splitlines()[-1].startswith("error: "), said
    for word in words:
        assert word in said


def test_a_coreset_that_does_not_fit_is_refused(here, coreset, tmp_path):
    tensors = load_file(coreset)
    metadata = safe_open(coreset, "pt").metadata()
    changes = {
        "shape": ({"points": torch.zeros(10, 1, 9, 9)}, {}, "images are"),
        "mean": ({"mean": torch.tensor([0.5])}, {}, "normalisation"),
        "classes": ({}, {"num_classes": "12"}, "classes"),
        "labels": ({"labels": torch.full((10,), 11)}, {}, "labels run"),
        "nan": ({"points": tensors["points"] * float("nan")}, {}, "nan"),
        "weights": ({"weights": torch.ones(3)}, {}, "weights"),
    }
    for name, (tensor, meta, word) in changes.items():
        path = tmp_path / f"{name}.safetensors"
        save_file({**tensors, **tensor}, path, {**metadata, **meta})
        code, said = here("evaluate", *NETWORK, "--coreset", path, "--protocol", "exact", *SHORT, *REFERENCE)
        assert code == 2 and word in said.lower(), (name, said)
        assert len(said.splitlines()) == 1, said


@pytest.mark.slow
def test_another_reference_in_the_folder_is_refused(here, coreset, tmp_path):
    command = ["evaluate", *NETWORK, *SHORT, "--coreset", coreset, "--protocol", "exact"]
    assert here(*command, *REFERENCE, "--out", tmp_path / "a")[0] == 0
    code, said = here(*command, "--reference", "reference", "--reference-samples", "9", "--out", tmp_path / "b")
    assert code == 2
    assert "reference" in said.splitlines()[-1] and "samples" in said.splitlines()[-1]
