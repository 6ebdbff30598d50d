"""The tables of `benchmarks/tempering.py`: rows from its folder to tempering.md and tempering.csv."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bpc.files import load_tensors
from evaluation.fidelity import fidelity
from evaluation.monte_carlo import fidelity_errors

Row = dict[str, Any]
MAIN = "hmc"  # the row that others' predictives are compared with
READING = "## What it says"  # written by hand, below the tables: it stays when they are written again


def write_tables(files: Sequence[Path], out: Path) -> None:
    """Write both files; `files` are the rows in their order, each with its predictive beside it."""
    rows = [json.loads(file.read_text()) for file in files]
    probs = [load_tensors(file.with_suffix(".safetensors"))[0]["probs"] for file in files]
    for row, mine in zip(rows, probs, strict=True):
        for other, truth in zip(rows, probs, strict=True):
            if other["row"] == MAIN and other["prior_std"] == row["prior_std"] and other is not row:
                errors = fidelity_errors(mine, truth)
                row["tv"] = float(fidelity(mine.double().mean(0), truth.double().mean(0)).tv)
                row["tv_mcse"] = math.nan if errors is None else float(errors.tv)
        row["ess_per_1000"] = 1000 * row["ess_bulk_predictions"] / row["gradients"]
    out.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (out / "tempering.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    page = out / "tempering.md"
    _, heading, reading = page.read_text().partition(READING) if page.exists() else ("", "", "")
    page.write_text(_markdown(rows) + (f"\n{heading}{reading}" if heading else ""))


def _number(name: str, digits: int) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        value = row.get(name, math.nan)
        if math.isnan(value):
            return ""
        error = row.get(f"{name}_mcse", math.nan)
        return f"{value:,.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")

    return show


COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("chains x draws", lambda row: f"{row['chains']} x {row['samples']}"),
    ("gradients", lambda row: f"{row['gradients']:,}"),
    ("R-hat, 95 %", _number("rhat_predictions", 3)),
    ("nested", _number("nested_rhat_predictions", 3)),
    ("bulk ESS, 95 %", _number("ess_bulk_predictions", 0)),
    ("ESS / 1,000 gradients", _number("ess_per_1000", 2)),
    ("TV, halves", _number("tv_halves", 3)),
    ("TV to hmc", _number("tv", 3)),
    ("CE, own points", _number("conditioning_ce", 4)),
    ("accuracy", _number("accuracy", 3)),
    ("NLL", _number("nll", 3)),
    ("log evidence", _number("log_evidence", 1)),
    ("least swap rate", _number("swap_rate_min", 2)),
    ("barrier", _number("communication_barrier", 1)),
    ("acceptance", _number("acceptance", 2)),
    ("divergences", _number("divergences", 0)),
    ("step", lambda row: "" if math.isnan(row["step_size"]) else f"{row['step_size']:.2g}"),
    ("CPU s", _number("cpu_seconds", 0)),
    ("s", _number("seconds", 0)),
]


def _markdown(rows: Sequence[Row]) -> str:
    first = rows[0]
    lines = [
        "# Equal gradients: what mixes a coreset's posterior?",
        "",
        f"Digits, coreset: {first['coreset']}, weights scaled to {first['train']:,}; {first['network']}, {first['parameters']:,} "
        f"parameters; {first['held_out']} held-out training images are predicted.",
        f"About {first['budget']:,} gradients a row (one of one parameter vector by all points), all chains and warm-up "
        f"together; seed {first['seed']}; {first['device']}; torch {first['torch']}.",
        "± is a Monte Carlo error, by the jackknife over chains.",
        "R-hat and ESS are of the predictions on 64 held-out images: 95 % are better.",
    ]
    for prior_std in dict.fromkeys(row["prior_std"] for row in rows):
        mine = [row for row in rows if row["prior_std"] == prior_std]
        shown = [(name, show) for name, show in COLUMNS if any(show(row) for row in mine)]
        lines += ["", f"## Prior N(0, {prior_std:g}²)", "", "| row | " + " | ".join(name for name, _ in shown) + " |"]
        lines.append("| :-- |" + " --: |" * len(shown))
        lines += [f"| {row['row']} | " + " | ".join(show(row) for _, show in shown) + " |" for row in mine]
    return "\n".join(lines) + "\n"
