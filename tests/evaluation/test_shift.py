"""Corruption tables: means that can be done by hand, and what must not be averaged."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from bpc.data import CORRUPTIONS
from bpc.errors import ConfigError, DataError
from evaluation.compare import summarise
from evaluation.metrics import METRICS, metric_info
from evaluation.plots import plot_radar
from evaluation.rows import Row, RowWriter, read_rows
from evaluation.shift import (
    corruption_table,
    mean_corruption_error,
    to_markdown,
    write_corruption_tables,
    write_shift,
)
from evaluation.tables import to_csv
from evaluation.tables import to_markdown as main_table


def row(method, metric, value, *, seed=0, ipc=10, run=None, **other):
    fields = {
        "run": run or f"run-{method}",
        "config_hash": "abc",
        "dataset": "cifar10",
        "method": method,
        "architecture": "convnet3-w128",
        "ipc": ipc,
        "sampler": "hmc",
        "protocol": "exact",
        "seed": seed,
        "metric": metric,
        "value": value,
        "device": "cpu",
    }
    return Row(**(fields | other))


def frame(rows):
    return pd.DataFrame([vars(r) for r in rows])


def corrupted(method, accuracy, *, seeds=(0,), corruptions=("fog", "frost", "snow"), severities=range(1, 6), **other):
    """`accuracy` of (corruption, severity, seed); the NLL is ten times as large."""
    return [
        row(method, f"{name}@{c}-{s}", scale * accuracy(c, s, seed), seed=seed, **other)
        for c in corruptions
        for s in severities
        for seed in seeds
        for name, scale in (("accuracy", 1.0), ("nll", 10.0))
    ]


EASY = {"fog": 0.5, "frost": 0.4, "snow": 0.3}


def test_a_corruption_is_the_mean_over_severities_and_the_spread_that_over_seeds():
    rows = frame(corrupted("fkl", lambda c, s, seed: EASY[c] - 0.02 * s + 0.1 * seed, seeds=(0, 1)))
    table = corruption_table(rows).set_index(["metric", "corruption"])
    fog = table.loc[("accuracy", "fog")]
    # severities 1 to 5 have the mean 3; seeds 0 and 1 differ by 0.1
    assert fog["mean"] == pytest.approx(0.5 - 0.06 + 0.05)
    assert fog["std"] == pytest.approx(0.1 / math.sqrt(2))
    assert (fog["n"], fog["severities"]) == (2, 5)
    assert table.loc[("nll", "snow"), "mean"] == pytest.approx(10 * (0.3 - 0.06 + 0.05))
    assert list(table.loc["accuracy"].index) == [c for c in CORRUPTIONS if c in EASY]  # in the benchmark's order


def test_the_corruption_error_by_hand():
    rows = frame(
        corrupted("random", lambda c, s, seed: {"fog": 0.2, "frost": 0.5, "snow": 0.6}[c], seeds=(0, 1))
        + corrupted("fkl", lambda c, s, seed: {"fog": 0.6, "frost": 0.5, "snow": 0.8}[c] + 0.1 * seed, seeds=(0, 1))
    )
    errors = mean_corruption_error(rows).set_index("method")
    assert errors.loc["random", "mce"] == pytest.approx((0.8 + 0.5 + 0.4) / 3)
    assert errors.loc["random", "relative_mce"] == pytest.approx(1.0)
    first, second = (0.4 / 0.8 + 0.5 / 0.5 + 0.2 / 0.4) / 3, (0.3 / 0.8 + 0.4 / 0.5 + 0.1 / 0.4) / 3
    assert errors.loc["fkl", "relative_mce"] == pytest.approx((first + second) / 2)
    assert errors.loc["fkl", "relative_mce_std"] == pytest.approx(abs(first - second) / math.sqrt(2))
    assert errors.loc["fkl", "mce"] == pytest.approx((1.1 / 3 + 0.8 / 3) / 2)
    assert (errors["corruptions"] == 3).all() and (errors["severities"] == 5).all() and (errors["n"] == 2).all()


def test_the_relative_error_sums_over_severities_before_it_divides():
    rows = frame(
        corrupted("random", lambda c, s, seed: 1 - 0.1 * s, corruptions=("fog",))
        + corrupted("fkl", lambda c, s, seed: 1 - 0.02 * s**2, corruptions=("fog",))
    )
    errors = mean_corruption_error(rows).set_index("method")
    assert errors.loc["fkl", "relative_mce"] == pytest.approx(0.02 * 55 / (0.1 * 15))


def test_a_baseline_of_another_size_is_none():
    rows = frame(corrupted("random", lambda c, s, seed: 0.3, ipc=1) + corrupted("fkl", lambda c, s, seed: 0.5, ipc=10))
    errors = mean_corruption_error(rows).set_index("method")
    assert math.isnan(errors.loc["fkl", "relative_mce"]) and errors.loc["fkl", "mce"] == pytest.approx(0.5)


@pytest.mark.parametrize("method", ["fkl", "random"])
def test_nan_is_not_averaged_away(method):
    def accuracy(c, s, seed):
        return math.nan if (c, s, seed) == ("fog", 2, 1) else 0.5

    other = {"fkl": "random", "random": "fkl"}[method]
    rows = frame(corrupted(method, accuracy, seeds=(0, 1)) + corrupted(other, lambda c, s, seed: 0.5, seeds=(0, 1)))
    table = corruption_table(rows).set_index(["method", "metric", "corruption"])
    assert math.isnan(table.loc[(method, "accuracy", "fog"), "mean"])
    assert table.loc[(method, "accuracy", "snow"), "mean"] == pytest.approx(0.5)
    errors = mean_corruption_error(rows).set_index("method")
    assert math.isnan(errors.loc[method, "mce"]) and math.isnan(errors.loc["fkl", "relative_mce"])
    assert errors.loc[other, "mce"] == pytest.approx(0.5)
    text = to_markdown(rows)
    label = {"fkl": "BPC-fKL", "random": "Random"}[method]
    assert f"- — {label}: 1 of 2 seeds not finite; mean of the others: fog 0.5000, mCE 0.5000" in text
    assert f"- — {label}: 1 of 2 seeds not finite; mean of the others: fog 5.0000." in text  # of the NLL
    relative = [line for line in text.splitlines() if line.startswith("| relative mCE")]
    # nothing is relative to a baseline that diverged
    assert relative == (["| relative mCE ↓ | 1.0000 ±0.0000 | — |"] if method == "fkl" else [])


def test_the_random_coreset_of_several_runs_counts_once():
    rows = []
    for run in ("run-a", "run-b"):
        rows += corrupted("random", lambda c, s, seed: EASY[c] - 0.01 * s - 0.1 * seed, seeds=(0, 1), run=run)
    assert (corruption_table(frame(rows))["n"] == 2).all()


def test_unfinished_seeds_are_refused():
    rows = corrupted("fkl", lambda c, s, seed: 0.5, seeds=(0, 1))[:-2]  # the last severity of seed 1 is missing
    with pytest.raises(DataError, match=r"Seed 1 of run run-fkl has 4 of 5 values"):
        corruption_table(frame(rows))
    with pytest.raises(DataError, match="Seed 1 of run run-fkl has 14 of 15"):
        mean_corruption_error(frame(rows))


def test_methods_on_different_corruptions_are_refused():
    rows = frame(
        corrupted("random", lambda c, s, seed: 0.5, corruptions=("fog", "snow"))
        + corrupted("fkl", lambda c, s, seed: 0.5, corruptions=("fog", "frost"))
    )
    with pytest.raises(DataError, match="fkl was scored on 10 pairs"):
        mean_corruption_error(rows)


def test_no_row_on_corrupted_images():
    with pytest.raises(DataError, match="--corruptions"):
        corruption_table(frame([row("fkl", "accuracy", 0.5)]))
    odd = row("fkl", "accuracy@fog", 0.5)
    with pytest.raises(DataError, match="'accuracy@fog'"):
        corruption_table(frame([odd]))
    nll = [r for r in corrupted("fkl", lambda c, s, seed: 0.5) if r.metric.startswith("nll")]
    with pytest.raises(DataError, match="needs rows accuracy@"):
        mean_corruption_error(frame(nll))


@given(st.sampled_from(sorted(METRICS)), st.sampled_from(CORRUPTIONS), st.integers(1, 5))
def test_a_name_on_a_corruption_is_that_of_its_metric(metric, corruption, severity):
    assert metric_info(f"{metric}@{corruption}-{severity}") == METRICS[metric] == metric_info(metric)


@pytest.mark.parametrize("name", ["acuracy@fog-3", "acuracy", "accuracy@", "@fog-3"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ConfigError, match="Unknown metric"):
        metric_info(name)


def test_rows_with_corruptions_go_through_the_file_and_stay_out_of_the_main_table(tmp_path):
    rows = corrupted("random", lambda c, s, seed: 0.3) + corrupted("fkl", lambda c, s, seed: 0.5)
    rows += [row("random", "accuracy", 0.4), row("fkl", "accuracy", 0.6)]
    with RowWriter(tmp_path / "rows.csv") as writer:
        for one in rows:
            writer.write(one)
    read = read_rows(tmp_path / "rows.csv")
    fog = read[read["metric"] == "nll@fog-3"].iloc[0]
    assert fog["unit"] == "nats" and not fog["higher_is_better"]
    summary = summarise(read)
    assert list(summary["metric"].unique()) == ["accuracy"]
    assert "@" not in main_table(summary) and "@" not in to_csv(summary)
    assert "0.6000" in main_table(summary) and "0.5000" not in main_table(summary)
    paths = write_corruption_tables(read, tmp_path)
    assert [p.name for p in paths] == ["corruptions.md", "corruptions.csv", "mce.csv"]
    text = paths[0].read_text()
    assert "| fog | 0.3000 | 0.5000 |" in text and "| fog | 3.0000 | 5.0000 |" in text
    assert "| mCE ↓ | 0.7000 | 0.5000 |" in text
    assert f"| relative mCE ↓ | 1.0000 | {0.5 / 0.7:.4f} |" in text
    assert len(pd.read_csv(paths[1])) == 2 * 2 * 3


def test_the_full_data_stand_beside_every_size():
    rows = [
        *corrupted("full", lambda c, s, seed: 0.9, ipc=0),
        *corrupted("fkl", lambda c, s, seed: 0.5, ipc=1),
        *corrupted("fkl", lambda c, s, seed: 0.6, ipc=10),
    ]
    text = to_markdown(frame(rows))
    assert text.count(": Accuracy ↑**") == 2 and text.count("| fog | 0.5000 | 0.9000 |") == 1
    assert text.count("| fog | 0.6000 | 0.9000 |") == 1
    only_full = to_markdown(frame(rows[: len(rows) // 3]))
    assert "| fog | 0.9000 |" in only_full


def test_radar(tmp_path):
    rows = frame(
        corrupted("random", lambda c, s, seed: 0.3, corruptions=CORRUPTIONS)
        + corrupted("fkl", lambda c, s, seed: 0.5 - 0.01 * len(c), corruptions=CORRUPTIONS)
    )
    table = corruption_table(rows)
    plot_radar(table, tmp_path / "radar.png")
    picture = imread(tmp_path / "radar.png")
    assert picture.shape[1] > 1.5 * picture.shape[0] and picture[..., :3].std() > 0.01
    with pytest.raises(DataError, match="three corruptions"):
        plot_radar(table[table["corruption"] == "fog"], tmp_path / "radar.png")
    with pytest.raises(ConfigError, match="one ipc"):
        plot_radar(pd.concat([table, table.assign(ipc=1)]), tmp_path / "radar.png")
    with pytest.raises(DataError, match="none of accuracy"):
        plot_radar(table.assign(metric="ece"), tmp_path / "radar.png")


def test_everything_a_comparison_writes(tmp_path):
    clean = frame([row("fkl", "accuracy", 0.5)])
    assert write_shift(clean, tmp_path) == [] and not list(tmp_path.iterdir())
    rows = [
        *corrupted("full", lambda c, s, seed: 0.9, ipc=0),
        *corrupted("fkl", lambda c, s, seed: 0.5, ipc=1),
        *corrupted("fkl", lambda c, s, seed: 0.6, ipc=10),
    ]
    names = {path.name for path in write_shift(frame(rows), tmp_path)}
    pictures = {f"corruptions-ipc{ipc}.{suffix}" for ipc in (1, 10) for suffix in ("png", "pdf")}
    assert names == {"corruptions.md", "corruptions.csv", "mce.csv", *pictures}
    assert names == {path.name for path in tmp_path.iterdir()}
    few = frame(corrupted("fkl", lambda c, s, seed: 0.5, corruptions=("fog",)))
    assert len(write_shift(few, tmp_path / "few")) == 3  # one axis makes no radar
