"""The examples run as they stand, from any folder, and say what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.rows import read_rows

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def output(name, folder):
    """What `python examples/NAME` prints, run in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BPC_RUNS": str(folder / "runs")}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_coreset_in_ten_lines(tmp_path):
    lines = output("coreset_in_ten_lines.py", tmp_path)
    assert not list(tmp_path.iterdir())  # nothing is left behind
    accuracy = dict(re.findall(r"(\w+): accuracy (\d\.\d+)", lines))
    assert float(accuracy["fkl"]) > float(accuracy["random"]) + 0.1  # 0.777 and 0.556 when this was written


@pytest.mark.slow
def test_regression_coreset(tmp_path):
    lines = output("regression_coreset.py", tmp_path)
    assert not list(tmp_path.iterdir())
    divergence = [float(value) for value in re.findall(r"= (\d+\.\d+) nats", lines)]
    assert divergence[0] > 100  # the random subset
    assert divergence[-1] < 1


@pytest.mark.slow
def test_new_divergence(tmp_path):
    output("new_divergence.py", tmp_path)
    (rows,) = (tmp_path / "runs").glob("distill-digits-fisher-ipc1-*/rows.csv")
    scores = read_rows(rows).query("metric == 'accuracy'").groupby("method")["value"].mean()
    assert scores["fisher"] > scores["random"] + 0.05  # 0.745 and 0.577 when this was written


def test_every_example_is_tested():
    tested = re.findall(r'output\("(\w+\.py)"', Path(__file__).read_text())
    assert sorted(tested) == sorted(path.name for path in EXAMPLES.glob("*.py"))
