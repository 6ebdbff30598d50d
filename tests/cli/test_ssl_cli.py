"""run.py ssl ...: the whole job on digits, first phases that are shared, kills, mistakes."""

import json
import shutil

import pandas as pd
import pytest
import torch
from cli import kill_when, lines_of
from safetensors.torch import load_file

import run
from bpc.data import load_dataset
from bpc.ebm import job
from bpc.ebm.data import divide
from bpc.ebm.model import LatentEBM, entropy
from bpc.ebm.train import SETTINGS, State, train_ebm
from bpc_cli.main import parse
from bpc_cli.ssl import settings_from

SMALL = [
    "ssl", "train", "--dataset", "digits", "--latent", "4", "--hidden", "8", "--labelled", "20", "--unlabelled", "200",
    "--batch-size", "20", "--langevin-steps", "5", "--device", "cpu",
]  # fmt: skip
SHORT = [*SMALL, "--iterations", "40", "--augment-at", "20", "--reselect-every", "10"]
# three nats let everything pass: the entropy of ten classes is below log 10
POOL = ["--samples", "95", "--threshold", "3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a model of every setting, all over one first phase, and what was said."""
    root = tmp_path_factory.mktemp("ssl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPC_RUNS", str(root / "runs"))
        for setting in SETTINGS:
            more = POOL if setting != "baseline" else []
            arguments = [*SHORT, *more, "--setting", setting, "--base", str(root / "base")]
            assert run.main([*arguments, "--out", str(root / "models" / setting)]) == 0
            checkpoint = root / "base" / "checkpoint.safetensors"
            if setting == "baseline":
                first_phase = checkpoint.stat().st_mtime_ns
            assert checkpoint.stat().st_mtime_ns == first_phase, "the first phase was learned again"
    return root


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_training_leaves(trained, setting):
    folder = trained / "models" / setting
    record = record_of(folder)
    assert record["status"] == "done" and record["iterations"] == 40
    assert record["config"]["augment"]["setting"] == setting
    names = {p.name for p in folder.iterdir()}
    assert {"checkpoint.safetensors", "run.json", "log.jsonl", "rows.csv", "learning.png", "tables"} <= names
    assert {"learning.png", "learning.pdf"} <= set((folder / ".files").read_text().split("\n"))
    assert ("pool.safetensors" in names) == (setting != "baseline")
    rows = pd.read_csv(folder / "rows.csv").set_index("metric")
    assert set(rows.index) == {"accuracy", "nll", "ece", "brier"}
    assert set(rows["method"]) == {setting} and set(rows["ipc"]) == {2}
    assert 0 <= rows["value"]["accuracy"] <= 1
    line = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert line["iteration"] == 40
    kept = load_file(folder / "checkpoint.safetensors")
    if setting == "baseline":
        assert line["candidates"] == 0 and "aug.images" not in kept
        return
    pool = load_file(folder / "pool.safetensors")
    assert pool["labels"].bincount().tolist() == [10] * 10  # 95 rounded up
    assert (record["generated"], record["kept"]) == (100, 100)
    assert record["agreed"] == record["kept_agreed"] == int(pool["agrees"].sum())
    pseudo = 200 if setting == "entropy-craig-pl" else 0
    assert line["candidates"] == 100 + pseudo
    chosen = 100 if not SETTINGS[setting].selection else pytest.approx(10 + pseudo / 10, abs=5)
    assert line["augmented"] == len(kept["aug.weights"]) == chosen


def test_the_first_phase_is_everybodys(trained):
    """All pools were drawn by the same model; baseline is the learning that was never interrupted."""
    pools = [load_file(trained / "models" / s / "pool.safetensors") for s in SETTINGS if s != "baseline"]
    assert all(torch.equal(pools[0]["images"], p["images"]) for p in pools)
    settings = settings_from(parse([*SHORT, "--setting", "baseline"])[1])
    data = divide(load_dataset("digits"), 20, seed=0, unlabelled=200)
    state = State(LatentEBM(settings.model, data.image_shape, 10, 0), settings.learn)
    list(train_ebm(state, data, settings.learn, until=40, seed=0))
    kept = load_file(trained / "models" / "baseline" / "checkpoint.safetensors")
    for name, value in state.model.state_dict().items():
        torch.testing.assert_close(kept[f"model.{name}"], value)
    other = load_file(trained / "models" / "unfiltered" / "checkpoint.safetensors")
    assert not torch.equal(other["model.energy.layers.0.weight"], kept["model.energy.layers.0.weight"])


def test_again(trained, capsys):
    """Nothing is learned or scored twice; flags that mean nothing to a baseline do not make it another one."""
    folder = trained / "models" / "baseline"
    before = (folder / "rows.csv").read_text()
    arguments = [*SHORT, "--setting", "baseline", "--base", str(trained / "base"), "--out", str(folder)]
    assert run.main([*arguments, "--threshold", "1", "--samples", "7", "--weight", "0.9"]) == 0
    captured = capsys.readouterr()
    assert "holds this model already" in captured.err and "holds these scores already" in captured.err
    assert "Baseline" in captured.out
    assert "| Baseline | 1 |" in (folder / "tables" / "comparison.md").read_text()
    assert (folder / "rows.csv").read_text() == before


def test_starting_over_keeps_the_first_phase(trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(trained / "models" / "entropy", folder)
    before = {k: v.clone() for k, v in load_file(folder / "checkpoint.safetensors").items()}  # the file is a map
    shutil.copy(trained / "models" / "baseline" / "checkpoint.safetensors", folder)
    arguments = [*SHORT, *POOL, "--setting", "entropy", "--base", str(trained / "base"), "--out", str(folder)]
    assert run.main([*arguments, "--no-resume"]) == 0
    assert "First phase" not in capsys.readouterr().err
    after = load_file(folder / "checkpoint.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_synthesise(trained, tmp_path, capsys):
    model = trained / "models" / "entropy-craig"
    assert run.main(["ssl", "synthesise", str(model), "--count", "25"]) == 0
    capsys.readouterr()
    (model / "samples").rename(tmp_path / "b")  # where they go by default
    for name, more in (("a", []), ("c", ["--seed", "1"]), ("cold", ["--temperature", "0"])):
        assert run.main(["ssl", "synthesise", str(model), "--count", "25", "--out", str(tmp_path / name), *more]) == 0
        assert capsys.readouterr().err.startswith("30 images: of ")
    names = {p.name for p in (tmp_path / "a").iterdir()}
    pictures = {
        f"{name}.{suffix}" for name in ("unsorted", "sorted", "class-9", "entropies") for suffix in ("png", "pdf")
    }
    assert names == {*pictures, "samples.safetensors"}
    a, b, c, cold = (load_file(tmp_path / name / "samples.safetensors") for name in ("a", "b", "c", "cold"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["latents"], c["latents"])
    assert a["images"].shape == (30, 1, 8, 8) and a["labels"].bincount().tolist() == [3] * 10
    assert float(cold["latents"].std()) < float(a["latents"].std())
    kept = load_file(model / "checkpoint.safetensors")
    h = a["latents"]
    for layer in (0, 2, 4):
        h = h @ kept[f"model.energy.layers.{layer}.weight"].T + kept[f"model.energy.layers.{layer}.bias"]
        h = torch.nn.functional.silu(h) if layer < 4 else h
    torch.testing.assert_close(a["entropies"], entropy(h), rtol=1e-4, atol=1e-6)


def test_compare(trained, tmp_path, capsys):
    assert run.main(["ssl", "compare", str(trained / "models"), "--out", str(tmp_path), "--title", "All"]) == 0
    assert "Baseline" in capsys.readouterr().out
    text = (tmp_path / "comparison.md").read_text()
    assert "# All" in text
    scores = {s: pd.read_csv(trained / "models" / s / "rows.csv").set_index("metric")["value"] for s in SETTINGS}
    assert f"| Baseline | 1 | {100 * scores['baseline']['accuracy']:.2f} |  |" in text
    change = 100 * (scores["unfiltered"]["accuracy"] - scores["baseline"]["accuracy"])
    assert f"| Unfiltered | 95 | {change:+.2f} | {scores['unfiltered']['nll']:.3f} |" in text
    assert (tmp_path / "accuracy-digits-20.png").exists()


@pytest.fixture
def scored(trained, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(trained / "models" / "baseline", tmp_path / "scored")


def test_scores_that_a_kill_cut_short_are_completed(scored):
    whole = pd.read_csv(scored / "rows.csv").set_index("metric")["value"]
    lines = (scored / "rows.csv").read_text().splitlines(keepends=True)
    (scored / "rows.csv").write_text("".join(lines[:2]))
    assert run.main(["ssl", "evaluate", str(scored)]) == 0
    assert pd.read_csv(scored / "rows.csv").set_index("metric")["value"].to_dict() == pytest.approx(whole.to_dict())


def test_another_number_of_draws_is_no_other_seed(scored, tmp_path, capsys):
    """Scores of one model under two protocols are not averaged as if they were two models."""
    assert run.main(["ssl", "evaluate", str(scored), "--draws", "1"]) == 0
    rows = pd.read_csv(scored / "rows.csv")
    accuracy = rows[rows["metric"] == "accuracy"].set_index("protocol")["value"]
    assert set(accuracy.index) == {"z1", "z8"}
    assert run.main(["ssl", "compare", str(scored), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "comparison.md").read_text()
    for value in accuracy:
        assert f"| Baseline | 1 | {100 * value:.2f} |" in text
    assert "±" not in text.split("## As published")[0].split("Mean ±")[0]


def mistake(arguments, capsys, *words):
    code = run.main(arguments)
    error = capsys.readouterr().err
    assert code == 2, error
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, error
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--setting", "entropy-crag"], ["setting", "entropy-crag", "entropy-craig"]),
        (["--preset", "none"], ["preset", "none", "pooladzandi2022"]),
        (["--dataset", "digitz"], ["digitz", "digits"]),
        (["--labelled", "15"], ["--labelled", "15", "multiple of the 10 classes"]),
        (["--labelled", "5000"], ["500 were asked for"]),
        (["--unlabelled", "5000"], ["5000"]),
        (["--unlabelled", "-1"], ["-1"]),
        (["--augment-at", "41"], ["augment_at"]),
        (["--augment-at", "0"], ["--augment-at", "at least 1"]),
        (["--samples", "0"], ["--samples"]),
        (["--fraction", "0"], ["fraction"]),
        (["--temperature", "-1"], ["temperature"]),
        (["--weight", "-1"], ["weight"]),
        (["--threshold", "nan"], ["--threshold", "finite"]),
        (["--latent", "0"], ["latent"]),
        (["--sigma", "0"], ["sigma"]),
        (["--lr-energy", "0"], ["--lr-energy", "above 0"]),
        (["--batch-size", "0"], ["batch"]),
        (["--langevin-steps", "0"], ["--langevin-steps", "at least 1"]),
        (["--langevin-step", "0"], ["--langevin-step", "above 0"]),
        (["--reselect-every", "0"], ["--reselect-every", "at least 1"]),
        (["--validation-fraction", "1.5"], ["1.5"]),
        (["--device", "tpu"], ["tpu"]),
    ],
)
def test_mistakes_are_one_line(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    mistake([*SHORT, *POOL, *arguments], capsys, *words)
    assert not list(tmp_path.rglob("checkpoint.safetensors"))


def test_a_threshold_that_nobody_passes(trained, tmp_path, capsys):
    """The first phase stays, and the advice works."""
    arguments = [*SHORT, "--samples", "20", "--setting", "entropy-craig", "--base", str(trained / "base")]
    mistake(
        [*arguments, "--threshold", "1e-30", "--out", str(tmp_path / "a")], capsys,
        "None of 20 samples", "1e-30", "Raise --threshold",
    )  # fmt: skip
    assert record_of(tmp_path / "a")["status"] == "failed"
    assert not (tmp_path / "a" / "pool.safetensors").exists()
    assert run.main([*arguments, "--threshold", "3", "--out", str(tmp_path / "b")]) == 0


def test_a_pool_that_is_gone(trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(trained / "models" / "entropy", folder)
    (folder / "pool.safetensors").unlink()
    record = record_of(folder) | {"status": "stopped"}
    (folder / "run.json").write_text(json.dumps(record))
    arguments = [*SHORT, *POOL, "--setting", "entropy", "--base", str(trained / "base"), "--out", str(folder)]
    mistake(arguments, capsys, "pool.safetensors is missing", "--no-resume")


def test_folders_of_something_else(trained, tmp_path, capsys):
    base, model, out = trained / "base", trained / "models" / "entropy", ["--out", str(tmp_path / "new")]
    mistake(
        [*SHORT, "--setting", "baseline", "--latent", "5", "--base", str(base), *out], capsys, "another run", "model"
    )
    mistake([*SHORT, *POOL, "--setting", "entropy-craig", "--out", str(model)], capsys, "another run", "augment")
    for command in ("evaluate", "synthesise"):
        mistake(["ssl", command, str(base)], capsys, "ssl train")
        mistake(["ssl", command, str(tmp_path / "nowhere")], capsys, "nowhere", "ssl train")
    mistake(["ssl", "compare", str(tmp_path / "nowhere")], capsys, "nowhere", "ssl evaluate")
    unfinished = shutil.copytree(model, tmp_path / "unfinished")
    (unfinished / "run.json").write_text(json.dumps(record_of(model) | {"status": "stopped"}))
    mistake(["ssl", "evaluate", str(unfinished)], capsys, "not trained to its end")
    mistake(["ssl", "synthesise", str(model), "--count", "0", *out], capsys, "0")
    mistake(["ssl", "synthesise", str(model), "--temperature", "-1", *out], capsys, "temperature")
    mistake(["ssl", "evaluate", str(model), "--draws", "0"], capsys, "--draws", "0")


def test_a_dry_run_of_the_published_table(capsys, tmp_path):
    arguments = ["reproduce", "pooladzandi2022-table1", "--scale", "smoke", "--dry-run", "--out", str(tmp_path)]
    assert run.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    for line in lines:
        assert line.startswith("run.py ssl ")
        parse(line.split()[1:] if "--title" not in line else line.split()[1 : line.split().index("--title")])
    assert lines[-1].startswith("run.py ssl compare")


def test_help_teaches(capsys):
    assert run.main(["ssl", "train", "--help"]) == 0
    text = capsys.readouterr().out
    for word in (*SETTINGS, "--threshold", "--labelled"):
        assert word in text


LONG = [*SMALL, *POOL, "--setting", "entropy-craig-pl", "--iterations", "600", "--augment-at", "300"]
LONG += ["--reselect-every", "150", "--checkpoint-seconds", "0"]


def assert_same_runs(place):
    """`whole` and `killed` hold the same, whatever happened on the way."""
    whole, killed = place / "whole", place / "killed"
    for name in ("checkpoint.safetensors", "pool.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    for name, start in (("killed-base", 100), ("killed", 400)):
        lines = (place / name / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["iteration"] for line in lines] == [start, start + 100, start + 200]
    values = [pd.read_csv(folder / "rows.csv")["value"].tolist() for folder in (whole, killed)]
    assert values[0] == values[1] and len(values[0]) == 4
    for key in ("config_hash", "generated", "agreed", "kept", "kept_agreed"):
        assert record_of(whole)[key] == record_of(killed)[key]


def test_stopped_in_either_phase(monkeypatch, tmp_path, capsys):
    """Ctrl-C at the second checkpoint of each; the same command goes on, and ends with the same files."""
    assert run.main([*LONG, "--base", str(tmp_path / "whole-base"), "--out", str(tmp_path / "whole")]) == 0
    real, written = job.save_state, []

    def until_ctrl_c(state, path, config_hash):
        real(state, path, config_hash)
        written.append(state.iteration)
        if written in ([100, 200], [100, 200, 300, 300, 300, 400, 500]):
            raise KeyboardInterrupt

    monkeypatch.setattr(job, "save_state", until_ctrl_c)
    command = [*LONG, "--base", str(tmp_path / "killed-base"), "--out", str(tmp_path / "killed")]
    assert run.main(command) == 130
    assert record_of(tmp_path / "killed")["status"] == record_of(tmp_path / "killed-base")["status"] == "stopped"
    assert run.main(command) == 130
    mistake(["ssl", "evaluate", str(tmp_path / "killed")], capsys, "not trained to its end")
    assert run.main(command) == 0
    error = capsys.readouterr().err
    assert "Going on from iteration 500." in error and "First phase" not in error
    # at the end of each phase once by the clock and once for good; T_a as the start of the second phase in between
    assert written == [100, 200, 300, 300, 300, 400, 500, 600, 600]
    assert_same_runs(tmp_path)


@pytest.mark.slow
def test_kill_9_in_either_phase(place):
    place(*LONG, "--base", "whole-base", "--out", "whole", check=0)
    killed = [*LONG, "--base", "killed-base", "--out", "killed"]
    base_log, log = place.path / "killed-base" / "log.jsonl", place.path / "killed" / "log.jsonl"
    assert kill_when(place.start(*killed), lambda: lines_of(base_log) >= 1), "it had finished before it could be killed"
    assert not log.exists()
    assert kill_when(place.start(*killed), lambda: lines_of(log) >= 1), "it had finished before it could be killed"
    done = place(*killed, check=0)
    assert "Going on from iteration" in done.stderr and "First phase" not in done.stderr
    assert_same_runs(place.path)
