"""Published numbers, the comparison of hand-made runs, the pictures, and the published table as commands."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from latent import made_up_pool

from bpc.ebm.train import SETTINGS
from bpc.errors import DataError
from bpc_cli.main import parse
from bpc_cli.ssl import settings_from
from evaluation.rows import Row, RowWriter
from evaluation.ssl.pictures import plot_accuracy, plot_entropies, plot_learning, plot_sheets
from evaluation.ssl.studies import SSL_SCALES, table1
from evaluation.ssl.table import compare, published

TABLE_1 = {  # Pooladzandi et al. (2022), Table 1, percent on SVHN with 1,000 labels
    ("baseline", 0): 92.0,
    ("unfiltered", 10_000): 88.1,
    ("entropy", 10_000): 93.5,
    ("entropy", 40_000): 93.8,
    ("entropy-craig", 10_000): 93.0,
    ("entropy-craig", 40_000): 93.5,
    ("entropy-craig", 100_000): 93.9,
    ("entropy-craig", 200_000): 93.9,
    ("entropy-craig-pl", 40_000): 94.5,
}


def test_published_is_the_printed_table():
    table = published()
    assert dict(zip(zip(table["setting"], table["samples"], strict=True), table["value"], strict=True)) == TABLE_1
    assert len(table) == len(TABLE_1)
    assert set(table["std"]) == {0.1}
    assert set(table["setting"]) < set(SETTINGS)


def fake_run(
    root, setting, samples, seed, accuracy, *, labelled=50, dataset="digits", scale="small", counts=True, temperature=1.0,
    held_out=0.0,
):  # fmt: skip
    """What training and scoring leave of a model with this accuracy."""
    folder = root / f"{dataset}-{labelled}-{setting}-{samples}-{seed}-{temperature}-{held_out}"
    folder.mkdir(parents=True)
    augment = {"setting": setting, "samples": samples, "threshold": 1e-3, "temperature": temperature}
    config = {"labelled": labelled, "validation_fraction": held_out, "learn": {"iterations": 9}, "augment": augment}
    record = {"job": "ssl", "config": config, "scale": scale}
    if counts and setting != "baseline":
        record |= {"generated": 200, "agreed": 150, "kept": 80 + 20 * seed, "kept_agreed": 60}
    (folder / "run.json").write_text(json.dumps(record))
    with RowWriter(folder / "rows.csv") as writer:
        for metric, value in (("accuracy", accuracy), ("nll", 2 - accuracy), ("ece", (1 - accuracy) / 10)):
            writer.write(
                Row(
                    run=folder.name, config_hash="c", dataset=dataset, method=setting, architecture="latent-ebm",
                    ipc=labelled // 10, sampler="encoder", protocol="z8", seed=seed, metric=metric, value=value,
                )
            )  # fmt: skip
    return folder


def written(paths, out, title):
    """The Markdown of a comparison."""
    compare(paths, out, title)
    return (out / "comparison.md").read_text()


def tables(text):
    """Every table of the Markdown, as a list of rows of cells, head first."""
    found = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [c.strip() for c in line.strip("|").split("|")]
            if not set("".join(cells)) <= set(":-"):
                found[-1].append(cells)
        elif found[-1]:
            found.append([])
    return [t for t in found if t]


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    for seed, (base, all_of_them, few, many) in enumerate([(0.90, 0.85, 0.91, 0.94), (0.92, 0.88, 0.95, 0.96)]):
        fake_run(root, "baseline", 0, seed, base)
        fake_run(root, "unfiltered", 100, seed, all_of_them)
        fake_run(root, "entropy-craig", 100, seed, few)
        fake_run(root, "entropy-craig", 400, seed, many)
    return root


def test_means_and_changes_of_pairs(runs, tmp_path):
    text = written([runs], tmp_path / "out", "Chosen samples")
    assert text.startswith(
        "# Chosen samples\n\n**digits, 50 labels: test accuracy (%) by L, the number of generated images; small.**\n"
    )
    accuracy, details, printed = tables(text)
    assert accuracy == [
        ["Setting", "seeds", "0 ↑", "100 ↑", "400 ↑"],
        ["Baseline", "2", "91.00 ±1.41", "", ""],
        ["Unfiltered", "2", "", "86.50 ±2.12", ""],
        ["H & CRAIG", "2", "", "93.00 ±2.83", "95.00 ±1.41"],
    ]
    assert [row[:4] for row in details[1:]] == [
        ["Baseline", "0", "", "1.090 ±0.014"],
        ["Unfiltered", "100", "-4.50 ±0.50", "1.135 ±0.021"],
        # of pairs: +1 and +3 points, not the means' spread
        ["H & CRAIG", "100", "+2.00 ±1.00", "1.070 ±0.028"],
        ["H & CRAIG", "400", "+4.00 ±0.00", "1.050 ±0.014"],
    ]
    assert [row[4] for row in details[1:3]] == ["0.90 ±0.14", "1.35 ±0.21"]
    assert details[1][5:] == ["", "", ""]
    assert details[2][5:] == ["75.0", "45.0", "67.5"]  # 150 of 200; 80 and 100 of 200; 60 of 80 and of 100
    assert printed[0] == ["Setting", "0 ↑", "10,000 ↑", "40,000 ↑", "100,000 ↑", "200,000 ↑"]
    cells = {
        (row[0], size.removesuffix(" ↑")): cell
        for row in printed[1:]
        for size, cell in zip(printed[0][1:], row[1:], strict=True)
    }
    assert cells["Baseline", "0"] == "92.0 ±0.1"
    assert cells["Unfiltered", "10,000"] == "88.1 ±0.1"
    assert cells["H & CRAIG & PL", "40,000"] == "94.5 ±0.1"
    assert sum(cell != "" for cell in cells.values()) == len(TABLE_1)


def test_what_is_written(runs, tmp_path):
    text = written([runs], tmp_path / "out", "t")
    assert (tmp_path / "out" / "comparison.md").read_text() == text
    rows = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert len(rows) == 8 * 3
    assert set(rows["labelled"]) == {50} and set(rows["samples"]) == {0, 100, 400}
    assert (tmp_path / "out" / "accuracy-digits-50.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_named_twice_counts_once(runs, tmp_path):
    once = written([runs], tmp_path / "a", "t")
    assert written([runs, runs / "digits-50-baseline-0-0-1.0-0.0"], tmp_path / "b", "t") == once


def test_runs_that_differ_in_more_than_the_seed_stay_apart(runs, tmp_path):
    before = tables(written([runs], tmp_path / "a", "t"))[0]
    fake_run(runs, "entropy-craig", 100, 0, 0.5, temperature=0.5)
    fake_run(runs, "baseline", 0, 0, 0.2, held_out=0.1)
    text = written([runs], tmp_path / "b", "t")
    assert "**digits, 50 labels, validation fraction 0.1: test accuracy" in text
    tested, details, held_out, *_ = tables(text)
    assert tested[1] == before[1]  # the baseline has no temperature, and the held-out one is no second run of it
    assert tested[3][0] == "H & CRAIG, temperature 0.5" and tested[3][3] == "50.00"
    assert tested[4] == ["H & CRAIG, temperature 1", *before[3][1:]]
    assert [row[2] for row in details if row[0] == "H & CRAIG, temperature 0.5"] == ["-40.00"]
    assert held_out[1:] == [["Baseline", "1", "20.00"]]


def test_changes_without_every_baseline(runs, tmp_path):
    """A seed without a baseline has no change; without any, there is no change at all, and one run has no spread."""
    fake_run(runs, "entropy", 100, 7, 0.5)
    _, details, _ = tables(written([runs], tmp_path / "a", "t"))
    assert next(row for row in details if row[0] == "H")[2] == ""
    for seed in (0, 1):
        for file in ("rows.csv", "run.json"):
            (runs / f"digits-50-baseline-0-{seed}-1.0-0.0" / file).unlink()
    accuracy, details, _ = tables(written([runs], tmp_path / "b", "t"))
    assert "Baseline" not in [row[0] for row in accuracy + details]
    assert {row[2] for row in details[1:]} == {""}
    assert ["H", "1", "50.00", ""] in accuracy


def test_a_diverged_seed_is_never_left_out(tmp_path):
    root = tmp_path / "runs"
    for seed, value in enumerate((0.3, 0.4, float("nan"))):
        fake_run(root, "baseline", 0, seed, 0.5)
        fake_run(root, "entropy", 100, seed, value)
    text = written([root], tmp_path / "out", "t")
    accuracy, details, _ = tables(text)
    assert accuracy[2] == ["H", "3", "", "—"] and "35.00 ±" not in text
    assert "- — H: 1 of 3 seeds not finite; mean of the others: 100 35.00." in text
    assert next(row for row in details if row[0] == "H")[2:5] == ["—", "—", "—"]
    assert "- — H, L = 100: 1 of 3 seeds not finite; mean of the others: change of accuracy -15.00, NLL 1.650" in text


def test_runs_before_counts_were_kept(tmp_path):
    fake_run(tmp_path / "runs", "entropy", 100, 0, 0.9, counts=False)
    _, details, _ = tables(written([tmp_path / "runs"], tmp_path / "out", "t"))
    assert details[1][5:] == ["", "", ""]


def test_a_section_for_each_dataset_and_number_of_labels(tmp_path):
    root = tmp_path / "runs"
    for dataset, labelled, value in (("digits", 50, 0.9), ("digits", 100, 0.95), ("mnist", 100, 0.8)):
        fake_run(root, "baseline", 0, 0, value, dataset=dataset, labelled=labelled)
        fake_run(root, "entropy", 100, 0, value + 0.01, dataset=dataset, labelled=labelled)
    text = written([root], tmp_path / "out", "t")
    heads = [line for line in text.splitlines() if line.startswith("**") and "test accuracy" in line]
    assert [head.partition(":")[0] for head in heads[:3]] == [
        "**digits, 50 labels",
        "**digits, 100 labels",
        "**mnist, 100 labels",
    ]
    found = tables(text)
    assert [t[1][2] for t in found[0:6:2]] == ["90.00", "95.00", "80.00"]
    assert [t[2][2] for t in found[1:6:2]] == ["+1.00"] * 3
    assert len(list((tmp_path / "out").glob("accuracy-*.png"))) == 3


def test_nothing_to_compare(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rows.csv").write_text("")
    (tmp_path / "other" / "run.json").write_text(json.dumps({"job": "vae"}))
    with pytest.raises(DataError, match="ssl evaluate"):
        compare([tmp_path], tmp_path / "out", "Nothing")


def test_pictures(tmp_path):
    pool = made_up_pool(30)
    plot_sheets(pool, tmp_path, 3, title="t", columns=5)
    plot_entropies(pool, tmp_path / "e.png", 1e-3, title="t")
    assert {p.name for p in tmp_path.glob("*.png")} == {"unsorted.png", "sorted.png", "class-2.png", "e.png"}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in tmp_path.glob("*.png"))


def test_sheets_show_what_they_say(tmp_path, monkeypatch):
    """Rows are classes; sorted ones go from the lowest to the highest entropy of the class."""
    seen = {}
    monkeypatch.setattr(
        "evaluation.ssl.pictures.plot_images",
        lambda images, path, *, columns, title, rows=(): (
            seen.update({path.name: (images, columns, title, rows)}) or [path]
        ),
    )
    n = 12
    entropies = torch.tensor([5, 1, 3, 2, 4, 0, 9, 7, 8, 10, 6, 11], dtype=torch.float64) / 10
    shades = (entropies * 100).to(torch.uint8).view(n, 1, 1, 1).expand(n, 1, 2, 2)
    pool = made_up_pool(n)._replace(images=shades, entropies=entropies, labels=torch.arange(2).repeat_interleave(6))
    written = plot_sheets(pool, tmp_path, 2, title="t", columns=3)
    assert [path.name for path in written] == list(seen)

    def values(name):
        return (seen[name][0][:, 0, 0, 0] * 25.5).round().int().tolist()

    assert values("unsorted.png") == [5, 1, 3, 9, 7, 8]
    assert values("sorted.png") == [0, 2, 5, 6, 8, 11]  # first, middle and last of each class
    assert values("class-1.png") == [6, 7, 8, 9, 10, 11]
    assert seen["sorted.png"][1] == 3 and list(seen["sorted.png"][3]) == ["0", "1"]
    assert "6.0e-01 to 1.1e+00 nats" in seen["class-1.png"][2]


def test_pictures_of_extreme_cases(tmp_path):
    """One sample a class, entropies of zero, everybody agrees, no threshold; no log; no baseline; nothing but a baseline."""
    pool = made_up_pool(3)._replace(labels=torch.arange(3), entropies=torch.zeros(3, dtype=torch.float64))
    plot_sheets(pool, tmp_path, 3, title="t")
    plot_entropies(pool._replace(agrees=torch.ones(3, dtype=torch.bool)), tmp_path / "a.png", None, title="t")
    plot_learning(tmp_path / "none.jsonl", tmp_path / "b.png", title="t")
    line = {"iteration": 5, "reconstruction": -1.0, "kl": 2.0, "energy_gap": None, "labelled_loss": 0.5}
    (tmp_path / "log.jsonl").write_text(json.dumps(line | {"augmented_loss": 0.0}) + "\n")
    plot_learning(tmp_path / "log.jsonl", tmp_path / "c.png", title="t")
    rows = pd.DataFrame({"label": ["Baseline", "H"], "samples": [0, 100], "seed": [0, 0], "value": [0.9, 0.95]})
    for i in range(2):
        plot_accuracy(rows[i : i + 1], tmp_path / f"d{i}.png", title="t")
    assert len(list(tmp_path.glob("*.png"))) == 3 + 5


@pytest.mark.parametrize("scale", SSL_SCALES)
def test_the_published_table_as_commands(scale, tmp_path):
    """Every cell of Table 1, in the paper's order of sizes; each setting over the first phase of its seed."""
    plan = [parse(command)[1] for command in table1(SSL_SCALES[scale], tmp_path, ["--device", "cpu"])]
    *trained, pictures, comparison = plan
    settings = [settings_from(step) for step in trained]
    assert len({step.where.out for step in trained}) == len(trained)
    by_base = {}
    for step, own in zip(trained, settings, strict=True):
        by_base.setdefault(step.where.base, []).append(own.base())
    assert all(base == bases[0] for bases in by_base.values() for base in bases)
    firsts = [bases[0] for bases in by_base.values()]
    assert all(a != b for i, a in enumerate(firsts) for b in firsts[:i])
    size = SSL_SCALES[scale].samples
    done = {(s.augment.setting, s.augment.samples * 10_000 // size) for s in settings}
    wanted = {cell for cell in TABLE_1 if cell[1] <= SSL_SCALES[scale].largest * 10_000}
    assert wanted <= done
    assert {s.augment.setting for s in settings} == set(SETTINGS)
    assert pictures.model in [step.where.out for step in trained]
    assert comparison.runs == (tmp_path / "models",)
    if scale == "full":  # the paper's own job
        assert all(s.labelled == 1000 and s.dataset == "svhn" for s in settings)
        assert {(s.learn.iterations, s.learn.augment_at, s.learn.langevin_steps) for s in settings} == {
            (1_200_000, 600_000, 60)
        }
        assert {(s.augment.threshold, s.augment.fraction, s.augment.weight) for s in settings if s.augment.samples} == {
            (1e-6, 0.1, 0.1)
        }
