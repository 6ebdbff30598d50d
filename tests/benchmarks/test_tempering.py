"""The equal-gradient study: rows cost what they say, their order survives a kill, tables show what rows hold."""

import csv
import json
import sys

import pytest
import torch

from benchmarks import tempering


def arguments(tmp_path, *more):
    return ["tempering.py", "--gradients", "400", "--prior-std", "1", "--width", "4", "--work", str(tmp_path), *more]


def test_rows_have_the_same_number_of_gradients(tmp_path, monkeypatch, capsys):
    """As counted by the likelihood, and not as planned."""
    names = ["hmc, 5 leapfrogs", "csghmc"]
    monkeypatch.setattr(sys, "argv", arguments(tmp_path, "--gradients", "3400", "--only", *names))
    tempering.main()
    rows = {row["row"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    for name in names:
        assert rows[name]["gradients"] == pytest.approx(3400, rel=0.1), name
        assert 0 < rows[name]["nll"] < 20 and rows[name]["ess_bulk_predictions"] > 0


def test_a_row_that_is_there_is_not_sampled_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", arguments(tmp_path, "--only", "hmc, 5 leapfrogs", "hmc, 20 leapfrogs"))
    tempering.main()
    first = (tmp_path / "tempering.md").read_text()
    assert len(capsys.readouterr().out.splitlines()) == 2
    reading = "\n## What it says\n\nNothing yet.\n"
    (tmp_path / "tempering.md").write_text(first + reading)
    tempering.main()
    assert capsys.readouterr().out == "" and (tmp_path / "tempering.md").read_text() == first + reading
    with (tmp_path / "tempering.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["row"] for row in rows] == ["hmc, 5 leapfrogs", "hmc, 20 leapfrogs"]
    for row in rows:
        line = next(line for line in first.splitlines() if line.startswith(f"| {row['row']} |"))
        assert f"{float(row['nll']):.3f}" in line


def test_float64_is_float64_and_leaves_no_trace(tmp_path, monkeypatch):
    seen, asked = [], tempering.Counted.__call__

    def look(self, params, points, labels):
        seen.append(params.dtype)
        return asked(self, params, points, labels)

    monkeypatch.setattr(tempering.Counted, "__call__", look)
    monkeypatch.setattr(sys, "argv", arguments(tmp_path, "--only", "hmc, float64"))
    tempering.main()
    assert set(seen) == {torch.float64} and torch.get_default_dtype() == torch.float32
