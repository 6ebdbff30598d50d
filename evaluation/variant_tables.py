"""The scored variants of one method as a table: a row for each, with the published numbers where the paper has them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bpc.files import write_text
from evaluation.compare import load_runs, moments_of
from evaluation.moments import Moments, moments, spread_over
from evaluation.plan import Target
from evaluation.published import load_published
from evaluation.table import Cell, Column, Table, TableRow, tables_to_markdown
from evaluation.tables import METRIC_COLUMNS, PUBLISHED

__all__ = ["tabulate", "variants"]

VARIANT_METRICS = ("accuracy", "nll", "nll_kim2022", "ece", "brier")


def tabulate(target: Target, out: Path) -> list[Table]:
    """The scored variants of one method: a row for each, with the published numbers where the paper has them.

    Returns:
        A table for each dataset, sampler and protocol, as in ``variants.md``. ``variants.csv`` has the columns setting, dataset,
        sampler, protocol, metric, mean, std, n, n_nonfinite, mean_finite (`evaluation.moments`), coresets, published,
        published_std.
    """
    rows = variants(target, out)
    keys = ["dataset", "sampler", "protocol"]
    tables = [
        _variants_table(f"{target.what}: {dataset}, sampler {sampler}, protocol {protocol}.", part)
        for (dataset, sampler, protocol), part in rows.groupby(keys, sort=False)
    ]
    write_text(out / "variants.csv", rows.to_csv(index=False))
    write_text(out / "variants.md", tables_to_markdown(tables))
    return tables


def variants(target: Target, out: Path) -> pd.DataFrame:
    """A row for each folder below ``scores/``, dataset, sampler, protocol and metric: what ``variants.csv`` has."""
    published = load_published()
    records = []
    for folder in sorted(p for p in (out / "scores").iterdir() if (p / "rows.csv").is_file()):
        rows = load_runs([folder])
        for (dataset, sampler, protocol, metric), group in rows.groupby(["dataset", "sampler", "protocol", "metric"]):
            if metric not in VARIANT_METRICS:
                continue
            record = {"setting": folder.name, "dataset": dataset, "sampler": sampler, "protocol": protocol}
            record |= {"metric": metric, **moments(group["value"])._asdict()}
            record |= {"coresets": 0 if (group["coreset"] == "").any() else group["coreset"].nunique()}
            record |= {"published": math.nan, "published_std": math.nan}
            method, ipc = target.published.get(folder.name, ("", ""))
            # the published NLL is the variant by batches
            paper = published[
                (published["method"] == method)
                & (published["ipc"].astype(str) == ipc)
                & (published["table"] == "Table 4")
                & (published["metric"] == {"nll_kim2022": "nll", "nll": "", "ece": ""}.get(str(metric), metric))
            ]
            if len(paper) and dataset == "cifar10":
                record |= {"published": paper["value"].iloc[0], "published_std": paper["std"].iloc[0]}
            records.append(record)
    return pd.DataFrame(records)


def _variants_table(caption: str, part: pd.DataFrame) -> Table:
    """A row for each setting, with the metrics that any of them has."""
    metrics = [metric for metric in VARIANT_METRICS if metric in set(part["metric"])]
    printed = {m for m in metrics if part.loc[part["metric"] == m, "published"].notna().any()}
    columns = [Column(name="Setting", key=True, left=True)]
    for metric in metrics:
        columns += [replace(METRIC_COLUMNS[metric], ranked=False), *([PUBLISHED] if metric in printed else [])]
    lines = []
    for setting, rows in part.groupby("setting", sort=False):
        by_metric = {row["metric"]: row for _, row in rows.iterrows()}
        cells: list[Cell] = [str(setting)]
        for metric in metrics:
            entry = by_metric.get(metric)
            cells.append(None if entry is None else moments_of(entry))
            if metric in printed:
                cells.append(None if entry is None else Moments(entry["published"], entry["published_std"]))
        lines.append(TableRow(tuple(cells)))
    spreads = {spread_over(int(row["n"]), int(row["coresets"])) for _, row in part.iterrows()}
    counts = " to ".join(dict.fromkeys(f"{n:,}" for n in (part["n"].min(), part["n"].max())))
    note = f"Mean ± standard deviation over {' or '.join(sorted(spreads))} ({counts})."
    return Table(
        caption=caption,
        columns=tuple(columns),
        blocks=(tuple(lines),),
        notes=(note,),
        repeats="chains",
    )
