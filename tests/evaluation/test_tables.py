"""Tables: what is shown, what is bold, and that every format can be read."""

from __future__ import annotations

import csv
import io
import math
import re

import pandas as pd
import pytest
from rich.console import Console

from bpc.errors import DataError
from evaluation.compare import summarise
from evaluation.rows import Row
from evaluation.tables import render_console, to_csv, to_latex, to_markdown, write_tables


def summary_of(values, **changes):
    """`values`: {(method, ipc, metric): [value per seed]}."""
    base = {
        "run": "r",
        "config_hash": "c",
        "dataset": "cifar10",
        "architecture": "convnet_w32",
        "sampler": "hmc",
    }
    base |= {"protocol": "kim2022", "device": "CPU (2 threads)"} | changes
    rows = [
        Row(**base, method=method, ipc=ipc, metric=metric, seed=seed, value=value)
        for (method, ipc, metric), numbers in values.items()
        for seed, value in enumerate(numbers)
    ]
    return summarise(pd.DataFrame([vars(row) for row in rows]))


VALUES = {
    ("fkl", 10, "accuracy"): [0.43, 0.45],
    ("random", 10, "accuracy"): [0.24, 0.26],
    ("rkl", 10, "accuracy"): [0.30, math.nan],
    ("fkl", 10, "nll"): [1.7, 1.8],
    ("random", 10, "nll"): [2.1, 2.2],
    ("fkl", 10, "nll_kim2022"): [1.71, 1.81],
    ("random", 10, "nll_kim2022"): [2.11, 2.21],
    ("full", 0, "accuracy"): [0.74, 0.75],
}


def markdown_rows(text):
    """{method: {column: cell}} of the first table; repeated columns get the place in their name."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    header = [f"{name} {i}" if cells[0].count(name) > 1 else name for i, name in enumerate(cells[0])]
    assert all(len(row) == len(header) for row in cells)
    return {row[0]: dict(zip(header, row, strict=True)) for row in cells[2:]}


def test_markdown():
    text = to_markdown(summary_of(VALUES), title="Digits | demo", scale="2,000 test images, width 32")
    rows = markdown_rows(text)
    assert list(rows) == ["Random", "BPC-rKL", "BPC-fKL", "Full data"]
    fkl = rows["BPC-fKL"]
    assert fkl["Accuracy ↑"] == "**0.4400 ±0.0141**"
    assert fkl["published 3"] == "0.4294 ±0.0101"
    assert fkl["gain over random"] == "+0.1900 ±0.0141"
    assert fkl["NLL ↓"] == "**1.7500 ±0.0707**"
    assert list(fkl)[5:8] == ["NLL ↓", "NLL (kim2022) ↓", "published 7"]  # beside the variant, not beside NLL
    assert fkl["published 7"] == "1.7292 ±0.0248"
    assert rows["Random"]["NLL ↓"] == "2.1500 ±0.0707"
    assert rows["Full data"]["ipc"] == "all" and "**" not in rows["Full data"]["Accuracy ↑"]
    assert "# Digits \\| demo" in text and "convnet\\_w32" in text
    assert "2 seeds; CPU (2 threads); 2,000 test images, width 32" in text


def test_a_diverged_chain_is_a_dash_and_a_note():
    text = to_markdown(summary_of(VALUES))
    assert markdown_rows(text)["BPC-rKL"]["Accuracy ↑"] == "—"
    assert "BPC-rKL at 10 ipc: 1 of 2 chains not finite; mean of the others: Accuracy 0.3000." in text
    values = {("fkl", 10, "accuracy"): [math.nan], ("random", 10, "accuracy"): [math.nan]}
    text = to_markdown(summary_of(values))
    assert "—" in text and "nan" not in text and "mean of the others" not in text


def test_ties_at_the_digits_shown_are_both_bold_within_a_size_only():
    values = {
        ("fkl", 1, "ece"): [0.10001],
        ("rkl", 1, "ece"): [0.10004],
        ("wasserstein", 1, "ece"): [0.1002],
        ("fkl", 10, "ece"): [0.5],
    }
    text = to_markdown(summary_of(values))
    assert text.count("**0.1000**") == 2 and "**0.1002**" not in text
    assert "**0.5000**" not in text  # alone


def test_a_caption_says_once_what_the_device_is():
    rows = [summary_of(VALUES).assign(scale="CPU run; 2,000 test images"), summary_of(VALUES, device="an H100")]
    first, second = (to_markdown(part.assign(scale="CPU run; 2,000 test images")).splitlines()[2] for part in rows)
    assert first.endswith("seeds; CPU (2 threads); 2,000 test images.**")
    assert second.endswith("seeds; an H100; CPU run; 2,000 test images.**")  # what it does not know, it does not judge


def test_the_exact_protocol_has_no_published_column():
    text = to_markdown(summary_of(VALUES, protocol="exact"))
    assert "| published" not in text and "Published" not in text
    assert "gain over random" in text


def test_seeds_that_differ_are_a_range():
    values = VALUES | {("random", 10, "accuracy"): [0.2, 0.3, 0.4]}
    assert "2 to 3 seeds" in to_markdown(summary_of(values))
    assert "1 seed;" in to_markdown(summary_of({("fkl", 1, "nll"): [1.0]}))


def test_latex_is_escaped_and_balanced():
    summary = summary_of(VALUES, dataset="own_data", device="a&b 100%")
    text = to_latex(summary, title="Own #1")
    for rule in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"convnet\_w32",
        r"a\&b 100\%",
        r"Own \#1",
        r"own\_data",
    ):
        assert rule in text
    assert r"\textbf{0.4400 $\pm$0.0141}" in text and "---" in text
    assert text.count("{") == text.count("}")
    assert not set("±↑↓—") & set(text)
    assert len(re.findall(r"\\midrule", text)) == 2  # under the head, and before the full data
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1


def test_csv_holds_every_digit():
    summary = summary_of(VALUES)
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    assert len(rows) == len(summary)
    first = next(r for r in rows if r["method"] == "fkl" and r["metric"] == "accuracy")
    assert float(first["mean"]) == summary[summary["method"] == "fkl"]["mean"].iloc[0]
    assert first["values"] == "0.43 0.45"
    assert first["gain_over_random"] and not next(r for r in rows if r["method"] == "random")["gain_over_random"]


def test_files_are_written(tmp_path):
    paths = write_tables(summary_of(VALUES), tmp_path / "out", title="T", device="d", scale="s")
    assert [p.name for p in paths] == ["comparison.md", "comparison.csv", "comparison.tex"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in paths)
    assert "2 seeds; d; s." in paths[0].read_text()


@pytest.mark.parametrize("width", [40, 80, 160])
def test_console_fits_and_cuts_no_number(width):
    more = {(m, 10, metric): [0.81234, 0.8] for m in ("fkl", "random") for metric in ("ece", "ece_kim2022", "brier")}
    stream = io.StringIO()
    Console(width=width, file=stream).print(render_console(summary_of(VALUES | more), title="[demo]"))
    text = stream.getvalue()
    lines = [line for line in text.splitlines() if re.match(" (Random|BPC-|Full data) ", line)]
    numbers = {word for line in lines for word in line.split() if re.search(r"[\d±+]", word)} - {"10"}
    assert len(numbers) > 15 and all(re.fullmatch(r"[±+-]?\d\.\d{3}", number) for number in numbers), numbers
    assert "[demo]" in text and "0.440" in text and "±0.014" in text and "0.806" in text and "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_several_groups_make_several_tables():
    summary = pd.concat([summary_of(VALUES), summary_of(VALUES, protocol="exact")], ignore_index=True)
    assert to_markdown(summary).count("| Method") == 2
    assert to_latex(summary).count(r"\begin{table}") == 2


def test_nothing_to_show_is_an_error():
    with pytest.raises(DataError, match="no rows"):
        to_markdown(summary_of(VALUES).iloc[:0])
    with pytest.raises(DataError, match="got acceptance"):
        to_markdown(summary_of({("fkl", 1, "acceptance"): [1.0]}))
