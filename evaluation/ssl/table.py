"""Runs of semi-supervised learning side by side: accuracy by setting and number of samples, as Table 1 of the paper prints it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pandas as pd

from bpc.ebm.train import SETTINGS
from bpc.errors import DataError
from bpc.files import own_content, write_text
from bpc.runs import read_run
from evaluation.moments import Moments, moments
from evaluation.rows import read_rows
from evaluation.ssl.pictures import NAMES, plot_accuracy
from evaluation.table import Cell, Column, Table, TableRow, tables_to_markdown, unique_clauses
from evaluation.variants import differences

__all__ = ["compare", "published"]

_SETTING = Column(name="Setting", key=True, left=True)
_SPREAD = "Mean ± standard deviation over seeds."


def published() -> pd.DataFrame:
    """Table 1 of Pooladzandi et al. (2022): columns setting (our names), samples (L), value, std; percent, on SVHN."""
    with (files("evaluation") / "published" / "pooladzandi2022_entropic.csv").open() as stream:
        rows = pd.read_csv(stream)
    rows = rows[rows["table"] == "Table 1"]
    samples = rows["setting"].str.removeprefix("L=").astype(int)
    words = {"H": "entropy", "H & CRAIG": "entropy-craig", "H & CRAIG & PL": "entropy-craig-pl"}
    setting = (
        rows["method"].map(words).fillna("baseline").where(samples.eq(0) | rows["method"].ne("Baseline"), "unfiltered")
    )
    return pd.DataFrame({"setting": setting, "samples": samples, "value": rows["value"], "std": rows["std"]})


def _load(paths: Sequence[Path]) -> pd.DataFrame:
    frames = []
    for folder in dict.fromkeys(p.parent for path in paths for p in sorted(path.rglob("rows.csv"))):
        record = read_run(folder, needs=()) if (folder / "run.json").exists() else {}
        if record.get("job") != "ssl":
            continue
        config = record.get("config", {})
        with own_content(folder / "run.json"):
            augment, samples, labelled = config["augment"], config["augment"]["samples"], config["labelled"]
            phase = {k: v for part in ("learn", "model") for k, v in config.get(part, {}).items()}
        phase |= {k: config.get(k) for k in ("unlabelled", "validation_fraction")}
        counts = {k: record.get(k) for k in ("generated", "agreed", "kept", "kept_agreed")}
        frames.append(
            read_rows(folder / "rows.csv").assign(
                samples=samples,
                labelled=labelled,
                scale=record.get("scale", ""),
                **{f"phase.{k}": v for k, v in phase.items()},
                **{f"augment.{k}": v for k, v in augment.items() if k not in ("setting", "samples")},
                **counts,
            )
        )
    if not frames:
        raise DataError(
            f"No scored run of run.py ssl in {', '.join(map(str, paths))}; run.py ssl evaluate writes the scores."
        )
    rows = pd.concat(frames, ignore_index=True)
    rows["label"] = rows["method"].map(NAMES)
    rows["phase"] = ""
    for _, group in rows.groupby(["dataset", "labelled"]):
        rows.loc[group.index, "phase"] += differences(group, "phase.")
        generating = group[group["method"] != "baseline"]  # which has none of the settings of augmentation
        rows.loc[generating.index, "label"] += differences(generating, "augment.")
    return rows


def compare(paths: Sequence[Path], out: Path, title: str) -> list[Table]:
    """Write ``comparison.md``, ``.csv`` and a figure for each dataset, number of labels and protocol; returns the tables.

    Raises:
        DataError: no scored run is there.
    """
    rows = _load(paths)
    several = rows["protocol"].nunique() > 1
    tables = []
    for number, ((dataset, labelled, protocol, phase), group) in enumerate(
        rows.groupby(["dataset", "labelled", "protocol", "phase"], sort=True)
    ):
        words = f"{dataset}, {labelled:,} labels{phase}" + (f", {protocol}" if several else "")
        accuracy = group[group["metric"] == "accuracy"]
        order = [label for s in SETTINGS for label in sorted(set(accuracy.loc[accuracy["method"] == s, "label"]))]
        tables += [_accuracy_table(words, accuracy, order), _details_table(words, group, order)]
        name = f"accuracy-{dataset}-{labelled}" + (f"-{protocol}" if several else "") + (f"-{number}" if phase else "")
        plot_accuracy(accuracy, out / f"{name}.png", title=words)
    tables.append(_published_table())
    write_text(out / "comparison.md", tables_to_markdown(tables, title))
    write_text(out / "comparison.csv", rows.to_csv(index=False))
    return tables


def _accuracy_table(words: str, accuracy: pd.DataFrame, order: Sequence[str]) -> Table:
    """Settings down, L across, as the paper prints it."""
    sizes = sorted(set(accuracy["samples"]))
    lines = []
    for setting in order:
        mine = accuracy[accuracy["label"] == setting]
        cells = [moments(100 * mine.loc[mine["samples"] == size, "value"]) for size in sizes]
        lines.append(TableRow((setting, str(mine["seed"].nunique()), *cells), setting))
    scale = unique_clauses(accuracy["scale"])
    return Table(
        caption="; ".join(filter(None, [f"{words}: test accuracy (%) by L, the number of generated images", scale]))
        + ".",
        columns=(
            _SETTING,
            Column(name="seeds"),
            *(Column(name=f"{size:,}", better="higher", digits=2) for size in sizes),
        ),
        blocks=(tuple(lines),),
        notes=(_SPREAD,),
    )


def _details_table(words: str, group: pd.DataFrame, order: Sequence[str]) -> Table:
    """A row for each setting and L: change against the baseline of the same seed, other metrics, what the filter let through."""
    by = {m: group[group["metric"] == m].set_index("seed") for m in ("accuracy", "nll", "ece")}
    baseline = by["accuracy"][by["accuracy"]["method"] == "baseline"]["value"]
    lines = []
    for setting in order:
        for size in sorted(set(group.loc[group["label"] == setting, "samples"])):
            mine = {m: f[(f["label"] == setting) & (f["samples"] == size)] for m, f in by.items()}
            first = mine["accuracy"]
            cells: list[Cell] = [
                None,
                moments(mine["nll"]["value"]),
                moments(100 * mine["ece"]["value"]),
                None,
                None,
                None,
            ]
            if setting != NAMES["baseline"]:
                cells[0] = _change(first["value"], baseline)
                if first["generated"].notna().all():
                    cells[3:] = [
                        moments(100 * first[a] / first[b])._replace(std=math.nan)
                        for a, b in (("agreed", "generated"), ("kept", "generated"), ("kept_agreed", "kept"))
                    ]
            lines.append(TableRow((setting, f"{size:,}", *cells), f"{setting}, L = {size:,}"))
    return Table(
        caption=f"{words}: what generated images change.",
        columns=(
            _SETTING,
            Column(name="L", key=True),
            Column(name="change of accuracy", unit="points", digits=2, sign=True),
            Column(name="NLL", unit="nats", better="lower", digits=3),
            Column(name="ECE", unit="%", better="lower", digits=2),
            *(Column(name=name, unit="%", digits=1, noted=False) for name in ("agreed", "kept", "of those agreed")),
        ),
        blocks=(tuple(lines),),
        notes=(
            f"{_SPREAD[:-1]}; a seed fixes the labelled images, the initial weights and all draws.",
            "Change: against the baseline of the same seed, which shares the first phase, ± standard error.",
            "Agreed: generated images whose own latent the classifier gives the class they were made for; kept: those that pass "
            "the filter (if any), before any selection.",
        ),
    )


def _change(values: pd.Series, baseline: pd.Series) -> Cell:
    """Points, over the seeds that have a baseline, ± standard error."""
    if baseline.index.has_duplicates:
        return None
    pairs = values[values.index.isin(baseline.index)]
    found = moments(100 * (pairs - baseline.reindex(pairs.index)))
    return found._replace(std=found.standard_error)


def _published_table() -> Table:
    table = published()
    sizes = sorted(set(table["samples"]))
    lines = []
    for setting in [s for s in SETTINGS if s in set(table["setting"])]:
        mine = table[table["setting"] == setting].set_index("samples")
        cells = [Moments(mine["value"][s], mine["std"][s]) if s in mine.index else None for s in sizes]
        lines.append(TableRow((NAMES[setting], *cells)))
    return Table(
        caption=(
            "As published: SVHN, 1,000 labels, 1,200,000 iterations (Pooladzandi et al. 2022, Table 1), test accuracy (%) by L."
        ),
        columns=(_SETTING, *(Column(name=f"{size:,}", better="higher", digits=1) for size in sizes)),
        blocks=(tuple(lines),),
    )
