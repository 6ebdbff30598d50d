"""From rows to a summary: means, spreads, gains, and what counts once."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest

from bpc.errors import DataError, FileFormatError
from evaluation.compare import SUMMARY_COLUMNS, groups, load_runs, method_label, summarise
from evaluation.moments import spread_over
from evaluation.rows import Row, RowWriter
from evaluation.tables import to_markdown

ACCURACY = {"random": [0.20, 0.24, 0.22], "fkl": [0.40, 0.46]}


def write_run(folder, values, *, info=None, **changes):
    """`values` is {method: [value per seed]} or {(method, metric): [...]}."""
    base = {
        "run": folder.name,
        "config_hash": "c",
        "dataset": "cifar10",
        "architecture": "convnet",
        "ipc": 10,
        "sampler": "hmc",
        "protocol": "kim2022",
        "seconds": 2.0,
        "device": "cpu",
    } | changes
    with RowWriter(folder / "rows.csv") as writer:
        for key, numbers in values.items():
            method, metric = key if isinstance(key, tuple) else (key, "accuracy")
            for seed, value in enumerate(numbers):
                writer.write(Row(**base, method=method, metric=metric, seed=seed, value=value))
    if info is not None:
        (folder / "run.json").write_text(json.dumps(info))
    return folder


def cell(summary, method, metric="accuracy", **where):
    for name, value in where.items():
        summary = summary[summary[name] == value]
    found = summary[(summary["method"] == method) & (summary["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(autouse=True)
def _no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_mean_std_gain_and_published(tmp_path):
    summary = summarise(load_runs([write_run(tmp_path / "a", ACCURACY)]))
    assert list(summary.columns) == SUMMARY_COLUMNS
    assert summary["method"].tolist() == ["random", "fkl"]
    random, fkl = cell(summary, "random"), cell(summary, "fkl")
    assert (random["mean"], random["n"], random["n_nonfinite"]) == (pytest.approx(0.22), 3, 0)
    assert random["std"] == pytest.approx(0.02)  # ddof 1
    assert fkl["std"] == pytest.approx(0.06 / math.sqrt(2))
    assert fkl["gain_over_random"] == pytest.approx(0.43 - 0.22)
    assert fkl["gain_se"] == pytest.approx(math.sqrt(0.0018 / 2 + 0.0004 / 3))
    assert math.isnan(random["gain_over_random"])
    assert (fkl["published"], fkl["published_std"]) == (0.4294, 0.0101)
    assert (random["published"], fkl["values"], fkl["seconds"]) == (0.2807, (0.40, 0.46), 4.0)


def test_lower_is_better_keeps_its_sign(tmp_path):
    values = {("random", "nll"): [2.2, 2.2], ("fkl", "nll"): [1.7, 1.7]}
    row = cell(summarise(load_runs([write_run(tmp_path / "a", values)])), "fkl", "nll")
    assert row["gain_over_random"] == pytest.approx(-0.5) and not row["higher_is_better"]
    assert math.isnan(row["published"])  # the published NLL is nll_kim2022


def test_one_seed_has_no_spread(tmp_path):
    row = cell(summarise(load_runs([write_run(tmp_path / "a", {"random": [0.2], "fkl": [0.4]})])), "fkl")
    assert math.isnan(row["std"]) and math.isnan(row["gain_se"])
    assert row["gain_over_random"] == pytest.approx(0.2)


def test_a_gain_is_over_random_at_the_same_place(tmp_path):
    write_run(tmp_path / "a", ACCURACY)
    for name, change in (
        ("b", {"ipc": 1}),
        ("c", {"protocol": "exact"}),
        ("d", {"sampler": "asghmc"}),
        ("e", {"dataset": "digits"}),
        ("f", {"architecture": "wide"}),
    ):
        write_run(tmp_path / name, {"fkl": [0.3]}, **change)
    summary = summarise(load_runs([tmp_path]))
    gains = summary[summary["method"] == "fkl"]["gain_over_random"]
    assert len(gains) == 6 and gains.notna().sum() == 1
    assert math.isnan(cell(summary, "fkl", protocol="exact")["published"])
    assert len(list(groups(summary))) == 5


def test_a_diverged_chain_is_counted_and_not_left_out(tmp_path):
    row = cell(summarise(load_runs([write_run(tmp_path / "a", {"fkl": [0.4, math.nan, 0.5]})])), "fkl")
    assert (row["n"], row["n_nonfinite"]) == (3, 1)
    assert math.isnan(row["mean"]) and math.isnan(row["std"])
    assert row["mean_finite"] == pytest.approx(0.45)


def test_a_run_given_twice_counts_once(tmp_path):
    run = write_run(tmp_path / "runs" / "a", ACCURACY)
    rows = load_runs([run, run / "rows.csv", tmp_path / "runs", tmp_path / "runs" / ".." / "runs" / "a"])
    assert len(rows) == 5


def test_a_copied_run_counts_once_with_a_warning(tmp_path):
    write_run(tmp_path / "x" / "a", ACCURACY)
    write_run(tmp_path / "y" / "a", ACCURACY)
    with pytest.warns(UserWarning, match="5 rows are there twice"):
        assert len(load_runs([tmp_path])) == 5


def test_the_same_row_with_two_values_is_refused(tmp_path):
    write_run(tmp_path / "x" / "a", {"fkl": [0.4]})
    write_run(tmp_path / "y" / "a", {"fkl": [0.5]})
    with pytest.raises(DataError, match="two values for accuracy of fkl"):
        load_runs([tmp_path])


def test_the_random_coreset_beside_each_run_counts_once(tmp_path):
    beside = ACCURACY["random"]
    write_run(tmp_path / "a", {"fkl": [0.4, 0.5], "random": beside})
    # the last bits may differ, and one run may have written one metric more
    more = {
        "rkl": [0.3, 0.3],
        "random": [v * (1 + 1e-14) for v in beside],
        ("random", "acceptance"): [0.9] * 3,
    }
    write_run(tmp_path / "b", more)
    summary = summarise(load_runs([tmp_path]))
    assert cell(summary, "random")["n"] == 3
    assert cell(summary, "random", "acceptance")["n"] == 3
    assert cell(summary, "rkl")["gain_over_random"] == pytest.approx(0.08)


def test_repeated_seeds_with_other_numbers_are_pooled_with_a_warning(tmp_path):
    write_run(tmp_path / "a", {"fkl": [0.4, 0.5]})
    write_run(tmp_path / "b", {"fkl": [0.6, 0.7]})
    with pytest.warns(UserWarning, match="fkl at 10 ipc on cifar10"):
        row = cell(summarise(load_runs([tmp_path])), "fkl")
    assert (row["n"], row["runs"], row["mean"]) == (4, 2, pytest.approx(0.55))


@pytest.mark.parametrize(
    "info,expected",
    [
        ({"augment": True, "config": {}}, True),
        ({"config": {"augment": "color_crop"}}, True),
        ({"config": {"augment": "none"}}, False),
        ({"config": {}}, False),
        (None, False),
    ],
)
def test_augmented_runs_stay_apart_but_real_points_do_not(tmp_path, info, expected):
    write_run(tmp_path / "a", ACCURACY, info={"config": {}, "scale": "width 32"})
    write_run(tmp_path / "b", {"wasserstein": [0.36], "random": ACCURACY["random"]}, info=info)
    summary = summarise(load_runs([tmp_path]))
    row = cell(summary, "wasserstein")
    assert bool(row["augment"]) is expected
    assert row["published"] == (0.3646 if expected else 0.3535)
    assert row["gain_over_random"] == pytest.approx(0.14)
    assert cell(summary, "random")["n"] == 3 and cell(summary, "fkl")["scale"] == "width 32"
    assert method_label("wasserstein", expected) == ("BPC-W (+Aug)" if expected else "BPC-W")


def test_order_of_rows(tmp_path):
    methods = ["fkl", "full", "kcenter", "wasserstein", "random", "rkl", "herding"]
    write_run(tmp_path / "b", {m: [0.5] for m in methods if m != "full"}, ipc=10)
    write_run(tmp_path / "a", {m: [0.5] for m in methods if m != "full"}, ipc=1)
    write_run(tmp_path / "c", {"full": [0.7]}, ipc=0)
    summary = summarise(load_runs([tmp_path]))
    order = ["random", "herding", "kcenter", "rkl", "wasserstein", "fkl"]
    assert summary["method"].tolist() == [*order, *order, "full"]
    assert summary["ipc"].tolist() == [1] * 6 + [10] * 6 + [0]


def test_what_cannot_be_compared_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match="No such run"):
        load_runs([tmp_path / "missing"])
    with pytest.raises(DataError, match=r"No rows\.csv"):
        load_runs([tmp_path])
    (tmp_path / "coresets").mkdir()
    (tmp_path / "coresets" / "coreset.safetensors").touch()  # learned, not scored: nothing of it stands in a table
    for nothing in ([], [tmp_path / "coresets"]):
        with pytest.raises(DataError, match="No evaluated run was given"):
            load_runs(nothing)
    RowWriter(tmp_path / "a" / "rows.csv").close()
    with pytest.raises(DataError, match="no rows yet"):
        load_runs([tmp_path])
    (tmp_path / "a" / "rows.csv").write_text("x,y\n")
    with pytest.raises(FileFormatError, match="header"):
        load_runs([tmp_path / "a"])
    with pytest.raises(DataError, match="lack the columns run"):
        summarise(pd.DataFrame({"value": np.ones(2)}))


def test_spread_over_coresets_and_spread_over_chains_are_told_apart(tmp_path):
    """Five chains on one learned coreset are not five coresets: the summary counts them, the table's note says which."""
    values = {("fkl", "accuracy"): [0.4, 0.5], ("random", "accuracy"): [0.2, 0.3]}
    config = {"method": "fkl", "coreset": ["aaa"]}
    one = write_run(tmp_path / "one", values, info={"config": config, "config_hash": "h", "seed": 0})
    several = write_run(
        tmp_path / "several",
        values,
        info={"config": config | {"coreset": ["aaa", "bbb"]}, "config_hash": "h", "seed": 0},
    )
    learned = write_run(
        tmp_path / "learned", values, info={"config": {"divergence": "fkl"}, "config_hash": "h", "seed": 0}
    )
    unknown = write_run(tmp_path / "unknown", values)
    found = {run.name: summarise(load_runs([run])) for run in (one, several, learned, unknown)}
    counts = {name: tuple(cell(s, method)["coresets"] for method in ("fkl", "random")) for name, s in found.items()}
    assert counts == {"one": (1, 2), "several": (2, 2), "learned": (1, 2), "unknown": (0, 0)}
    assert "deviation over independent coresets, one seed each; gain" in to_markdown(found["several"])
    assert (
        "over independent coresets, one seed each (Random); over seeds on one coreset (BPC-fKL); gain"
        in to_markdown(found["one"])
    )
    assert "deviation over seeds; gain" in to_markdown(found["unknown"])
    assert spread_over(10, 5) == "seeds on 5 coresets"


def test_a_run_that_begins_at_another_seed_knows_its_coresets(tmp_path):
    rows = {("fkl", "accuracy"): [0.4, 0.5]}
    run = write_run(
        tmp_path / "a",
        rows,
        info={"config": {"method": "fkl", "coreset": ["aaa", "bbb"]}, "config_hash": "h", "seed": 0},
    )
    assert load_runs([run])["coreset"].tolist() == ["aaa", "bbb"]
