"""Studies: their commands are commands of run.py, their tables are their rows."""

import math
from dataclasses import replace

import pandas as pd
import pytest

import run
from bpc.errors import ConfigError
from bpc_cli.main import parse
from evaluation.kim2022_plan import KIM2022_SCALES
from evaluation.plan import SCALES, plan_of
from evaluation.published import load_published
from evaluation.reproduce import ELSEWHERE, TARGETS, demo_plan, find_target
from evaluation.rows import Row, RowWriter
from evaluation.variant_tables import tabulate


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_step_of_every_plan_is_a_command(target, scale, tmp_path):
    steps = TARGETS[target].steps(scale, tmp_path, ["--device", "cpu"])
    assert steps
    commands = [list(step.command) for step in steps]
    for command in {tuple(w for w in c if w.startswith("--") or w == c[0]): c for c in commands}.values():
        parse(command)  # one of every kind: a command with the same flags parses alike
    folders = [c[c.index("--out") + 1] for c in commands if "--out" in c]
    assert len(set(folders)) == len(folders), "two commands share a folder"


def test_steps_know_what_they_need(tmp_path):
    """Whatever a step reads is written by a step it needs: the demo in any order that `needs` allows is the demo."""
    steps = demo_plan(tmp_path, 0, ["--data-root", str(tmp_path)])
    kinds = [step.command[0] for step in steps]
    assert kinds[0] == "experts" and kinds[-1] == "compare"
    for number, step in enumerate(steps):
        needed = {kinds[i] for i in step.needs}
        assert all(i < number for i in step.needs)
        if step.command[0] in ("distill", "select"):
            assert step.needs == (0,)
        elif step.command[0] == "evaluate":
            assert len(step.needs) == (1 if "exact-scaled" in step.command else 5) and needed <= {"distill", "select"}
        elif step.command[0] == "compare":
            assert needed == {"distill", "select", "evaluate"} and len(step.needs) == len(steps) - 2
    hash(steps[0])  # a value


def test_steps_that_go_on_in_one_folder_follow_each_other():
    train = ["vae", "train", "--out", "a/m/x"]
    evaluate = ["vae", "evaluate", "a/m/x", "--data-root", "b/c"]
    steps = plan_of([train, evaluate, ["vae", "compare", "a/m", "--out", "d/e"]])
    assert [step.needs for step in steps] == [(), (0,), (0, 1)]
    shared = [["ssl", "train", "--out", f"a/{i}", "--base", "a/base"] for i in range(2)]
    assert plan_of(shared)[1].needs == (0,)  # two processes in one first phase would meet


def test_a_row_of_kim2022_is_of_independent_coresets(tmp_path):
    """As many as seeds, each learned with a seed of its own, and scored by one chain each in one command."""
    for target, scale, count in (
        ("kim2022-table1", "cpu", 5),
        ("kim2022-table4", "smoke", 3),
        ("kim2022-table7", "full", 5),
    ):
        steps = TARGETS[target].steps(scale, tmp_path, [])
        scores = [step for step in steps if step.command[0] == "evaluate"]
        assert scores
        for step in scores:
            made = [steps[i] for i in step.needs]
            assert len(made) == count == int(step.command[step.command.index("--seeds") + 1])
            assert [m.command[m.command.index("--seed") + 1] for m in made] == [str(seed) for seed in range(count)]
            assert len({m.out for m in made}) == count


def test_columns_without_augmentation_have_experts_of_their_own(tmp_path):
    """A store of experts is for one augmentation, and Tables 5 and 7 are without."""
    for target in ("kim2022-table1-plain", "kim2022-table5", "kim2022-table7"):
        for step in TARGETS[target].steps("full", tmp_path, []):
            if step.command[0] in ("experts", "distill", "select"):
                assert step.command[step.command.index("--augment") + 1] == "none"
                assert step.command[step.command.index("--experts") + 1].endswith("experts-plain")
    for step in TARGETS["kim2022-table1"].steps("full", tmp_path, []):
        assert "none" not in step.command and "experts-plain" not in " ".join(step.command)


def test_every_posterior_is_measured_by_its_own_networks_reference(tmp_path):
    steps = TARGETS["posterior-digits"].steps("full", tmp_path, [])
    for step in [s for s in steps if s.command[0] == "evaluate"]:
        needed = [steps[i] for i in step.needs]
        assert sorted(s.command[0] for s in needed if s.command[0] != "reference") in (["select"] * 5, ["distill"] * 5)
        (reference,) = (s for s in needed if s.command[0] == "reference")
        width = step.command[step.command.index("--width") + 1]
        assert all(s.command[s.command.index("--width") + 1] == width for s in needed)
        depth = step.command[step.command.index("--depth") + 1]
        assert reference.out == tmp_path / f"width-{width}-depth-{depth}" / "reference"
    assert {s.command[s.command.index("--width") + 1] for s in steps if "--width" in s.command} == {"8", "32"}


def test_unknown_names():
    with pytest.raises(ConfigError, match="kim2022-table1"):
        find_target("kim2022-table9")
    with pytest.raises(ConfigError, match="smoke"):
        TARGETS["kim2022-table1"].steps("huge", None, [])


def test_published_variants_are_in_the_table():
    table4 = load_published().query("table == 'Table 4'")
    there = set(zip(table4["method"], table4["ipc"].astype(str), strict=True))
    assert set(TARGETS["kim2022-table4"].published.values()) <= there


def test_the_list_and_a_dry_run(capsys, tmp_path):
    assert run.main(["reproduce"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in [*TARGETS, *ELSEWHERE])
    assert run.main(["reproduce", "kim2022-fig5", "--dry-run", "--out", str(tmp_path)]) == 0
    assert "--sigma-core 0.1 --sigma-expert 0.01" in capsys.readouterr().out
    assert run.main(["reproduce", "nothing"]) == 2


def test_time_is_up(tmp_path, capsys, monkeypatch):
    """Exit code 75 and a run that says that it was stopped; the next call goes on."""
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    arguments = ["reproduce", "kim2022-table4", "--out", str(tmp_path / "t4"), "--device", "cpu"]
    assert run.main([*arguments, "--stop-after", "0.7"]) == 75
    assert "goes on" in capsys.readouterr().err


def test_variants_side_by_side(tmp_path):
    """Published numbers stand beside, and a diverged chain is never left out of a mean."""
    for name, values in (("W-1", (0.2, 0.4)), ("W-diagonal-1", (0.3, 0.4, math.nan))):
        folder = tmp_path / "scores" / name
        folder.mkdir(parents=True)
        with RowWriter(folder / "rows.csv") as writer:
            for seed, value in enumerate(values):
                writer.write(
                    Row(
                        run=name, config_hash="c", dataset="cifar10", method="wasserstein", architecture="convnet", ipc=1,
                        sampler="asghmc", protocol="kim2022", seed=seed, metric="accuracy", value=value,
                    )
                )  # fmt: skip
    (table,) = tabulate(TARGETS["kim2022-table4"], tmp_path)
    text = (tmp_path / "variants.md").read_text()
    assert table.to_markdown() in text
    assert "| Setting | Accuracy ↑ | published |" in text
    assert "| W-1 | 0.3000 ±0.1414 | 0." in text and "| W-diagonal-1 | — | 0." in text
    assert "- — W-diagonal-1: 1 of 3 chains not finite; mean of the others: Accuracy 0.3500." in text
    rows = pd.read_csv(tmp_path / "variants.csv").set_index("setting")
    assert math.isnan(rows.loc["W-diagonal-1", "mean"]) and list(rows["n_nonfinite"]) == [0, 1]


@pytest.mark.slow
def test_a_closed_form_study_and_a_table_of_variants(tmp_path, monkeypatch):
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    small = replace(KIM2022_SCALES["smoke"], num_experts=1, seeds=2, test_images=40)
    monkeypatch.setitem(KIM2022_SCALES, "smoke", small)
    assert run.main(["reproduce", "kim2022-table4", "--out", str(tmp_path / "t4"), "--device", "cpu"]) == 0
    tabulate(TARGETS["kim2022-table4"], tmp_path / "t4")
    table = pd.read_csv(tmp_path / "t4" / "variants.csv")
    assert set(table["setting"]) == {"W-1", "W-diagonal-1"}
    assert set(table["n"]) == {2}
    text = (tmp_path / "t4" / "variants.md").read_text()
    assert "| W-diagonal-1 |" in text
    # digits is not the paper's dataset: nothing of the paper stands beside it
    assert table["published"].isna().all()
