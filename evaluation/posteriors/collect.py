"""The run folders of a study as one table: a posterior on each line, its metrics in columns, and what was asked of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bpc.coreset import load_coreset
from bpc.errors import DataError
from bpc.files import load_tensors, read_bytes
from bpc.methods import METHODS
from bpc.runs import read_run
from evaluation.diagnostics import only_diverged
from evaluation.moments import Moments, moments
from evaluation.monte_carlo import MCSE
from evaluation.protocols import EXACT_PROTOCOLS
from evaluation.rows import read_rows

__all__ = ["CELL", "Cell", "cell_of", "cells_of", "collect", "exact", "main_setting", "method_order"]

CORESETS, SCORES = "coresets", ("scores", "grid")  # folders of a study
SETTING = ["temperature", "prior", "prior_std"]
CELL = [
    "method",
    "learned_weights",
    "ipc",
    "protocol",
    *SETTING,
]  # posteriors of one cell differ in their coreset alone
POSTERIOR = [*CELL, "dataset", "architecture", "sampler", "coreset"]
WEIGHTS = "+weights"  # behind the name of a method that learns them
DISTINGUISHED = 12  # hex digits of a coreset's fingerprint


@dataclass(frozen=True)
class Cell:
    """One metric of one cell, its two uncertainties apart.

    Attributes:
        over_coresets: mean, and standard deviation over coresets. The deviation holds Monte Carlo error as well.
        monte_carlo: standard error over chains of one posterior, root mean square over the coresets; nan where chains are alone.
        unmixed: posteriors whose chains have not mixed, of `over_coresets.n`.
    """

    over_coresets: Moments
    monte_carlo: float
    unmixed: int


def method_order(names: Sequence[str]) -> list[str]:
    """Methods as tables have them, the full data last."""
    known = [method.name for method in sorted(METHODS, key=lambda method: method.place)]
    return sorted(dict.fromkeys(names), key=lambda n: (n == "full", known.index(n) if n in known else len(known), n))


def collect(folder: Path) -> pd.DataFrame:
    """Every posterior below ``scores/`` and ``grid/`` of a study's folder.

    Returns:
        A line for each posterior, with the columns of `POSTERIOR` and one for each metric (nan where it has none). ``coreset`` is
        the fingerprint of its file, and ``run 0`` and ``run 1`` for the full data, which stands in many folders and counts once
        for each temperature and prior. ``fkl+weights`` is ``fkl`` with ``learned_weights``. ``points`` is M, ipc for every class
        where the coreset's file is gone. ``mixed`` is 1 also where nothing but divergent transitions speaks against it;
        ``diverged`` tells which. ``device`` and ``scale`` say where and how much.

    Raises:
        DataError: no scored run there, or posteriors of several datasets or networks.
    """
    points = _points(folder / CORESETS)
    runs = [path.parent for name in SCORES for path in sorted((folder / name).rglob("rows.csv"))]
    lines = [line for run in runs for line in _posteriors(run, points)]
    if not lines:
        raise DataError(f"No scores in {folder / SCORES[0]}: run the plan first (run.py reproduce posteriors).")
    frame = pd.DataFrame(lines)
    if len(frame[["dataset", "architecture"]].drop_duplicates()) > 1:
        raise DataError(f"{folder} holds posteriors of several datasets or networks; give each a folder of its own.")
    # the reference's rows are in the folder of every coreset that was compared with it
    return frame.drop_duplicates(POSTERIOR, keep="first").reset_index(drop=True)


def _points(folder: Path) -> dict[str, float]:
    """M of each coreset, by fingerprint."""
    return {
        _fingerprint(path): float(len(load_coreset(path).labels))
        for path in sorted(folder.glob("*/coreset.safetensors"))
    }


def _fingerprint(path: Path) -> str:
    """As `run.py evaluate` names its inputs."""
    return hashlib.sha256(read_bytes(path, what="a coreset")).hexdigest()[:DISTINGUISHED]


def _classes(folder: Path) -> float:
    """Of the dataset, by a predictive; nan without one."""
    for path in folder.glob("predictive-*.safetensors"):
        return float(load_tensors(path, what="a saved predictive")[0]["probs"].shape[-1])
    return math.nan


def _posteriors(folder: Path, points: dict[str, float]) -> Iterator[dict[str, Any]]:
    """The posteriors of one run."""
    record = read_run(folder)
    config = record["config"]
    asked, names = config["evaluation"], config["coreset"]
    setting = {
        "temperature": asked.get("temperature", 1.0),
        "prior": asked.get("prior", ""),
        "prior_std": asked.get("prior_std"),
    }
    setting["prior_std"] = math.nan if setting["prior_std"] is None else float(setting["prior_std"])
    rows = read_rows(folder / "rows.csv")
    classes = _classes(folder)
    keys = ["method", "ipc", "protocol", "dataset", "architecture", "sampler", "seed"]
    for key, part in rows.groupby(keys, sort=False):
        about = dict(zip(keys, key, strict=True))
        seed = int(about.pop("seed"))
        mine = names[seed - record["seed"]] if len(names) > 1 else names[0]
        coreset = f"run {seed}" if about["method"] == "full" else mine
        found = dict(zip(part["metric"], part["value"], strict=True))
        diverged = only_diverged(found)
        if diverged:
            found["mixed"] = 1.0
        yield {
            **about,
            **setting,
            "coreset": coreset,
            "method": str(about["method"]).replace(WEIGHTS, ""),
            "learned_weights": WEIGHTS in str(about["method"]),
            "points": points.get(coreset, int(about["ipc"]) * classes),
            "device": str(part["device"].iloc[0]),
            "scale": record["scale"],
            "seconds": float(part["seconds"].max()),
            **found,
            "diverged": diverged,
        }


def exact(frame: pd.DataFrame) -> pd.DataFrame:
    """The posteriors that were sampled exactly."""
    return frame[frame["protocol"].isin(EXACT_PROTOCOLS)]


def main_setting(frame: pd.DataFrame) -> pd.DataFrame:
    """The exact posteriors at the temperature and prior that most of them have: all but those of the grid."""
    posteriors = exact(frame)
    if posteriors.empty:
        return posteriors
    most = posteriors.groupby(SETTING).size().idxmax()
    same = np.all([posteriors[name] == value for name, value in zip(SETTING, most, strict=True)], axis=0)
    return posteriors[same]


def cell_of(part: pd.DataFrame, metric: str) -> Cell | None:
    """One metric over the posteriors of one cell; None where none of them has it.

    The fidelity of the full data to itself is its second run's alone.
    """
    if metric not in part:
        return None
    there = part[part[metric].notna()] if (part["method"] == "full").all() else part
    values = there[metric]
    if values.isna().all():
        return None
    errors = there.get(f"{metric}{MCSE}", pd.Series(dtype=float))
    mixed = there.get("mixed", pd.Series(dtype=float))
    return Cell(
        moments(values),
        float(np.sqrt(np.mean(np.square(errors)))) if len(errors) else math.nan,
        int((mixed == 0.0).sum()),
    )


def cells_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Every cell and metric with every digit: what ``posteriors.csv`` has.

    Returns:
        `CELL`, metric, mean, spread (standard deviation over coresets), monte_carlo, n, n_nonfinite, unmixed, seconds (sum over
        posteriors).
    """
    about = {*POSTERIOR, "points", "device", "scale", "seconds", "diverged"}
    metrics = [name for name in frame.columns if name not in about and not name.endswith(MCSE)]
    records = []
    for key, part in frame.groupby(CELL, sort=False, dropna=False):
        for metric in metrics:
            cell = cell_of(part, metric)
            if cell is not None:
                m = cell.over_coresets
                records.append(
                    {
                        **dict(zip(CELL, key, strict=True)),
                        **{"metric": metric, "mean": m.mean, "spread": m.std, "monte_carlo": cell.monte_carlo},
                        **{"n": m.n, "n_nonfinite": m.n_nonfinite, "unmixed": cell.unmixed},
                        "seconds": part["seconds"].sum(),
                    }
                )
    return pd.DataFrame(records)
