"""Corrupted test images: accuracy and NLL by corruption, and the mean corruption error.

`rows.csv` holds one row for each seed, metric, corruption and severity, its metric named `accuracy@fog-3`. Those rows stay
out of the main tables; the tables here are made of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from bpc.data import CORRUPTIONS
from bpc.errors import DataError
from bpc.files import write_text
from evaluation.compare import _CELL, _TABLE, clean_rows, method_label, method_labels
from evaluation.moments import moments
from evaluation.table import Column, Table, TableRow, tables_to_markdown
from evaluation.tables import METRIC_COLUMNS

__all__ = [
    "corruption_table",
    "mean_corruption_error",
    "shift_tables",
    "to_markdown",
    "write_corruption_tables",
    "write_shift",
]

_NAME = re.compile(r"(?P<base>\w+)@(?P<corruption>\w+)-(?P<severity>\d+)")


def corruption_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Each method by corruption: mean over severities, then mean and standard deviation over seeds.

    Args:
        rows: of `rows.csv` (`evaluation.compare.load_runs`); metrics without an `@` are not looked at. A seed whose numbers
            several runs hold counts once.

    Returns:
        Columns dataset, architecture, method, augment, ipc, sampler, protocol, metric (`accuracy`, `nll` ...), corruption,
        mean, std (n - 1; nan for one seed), n (seeds), severities. A nan of any seed and severity makes its mean nan.

    Raises:
        DataError: no row on corrupted images, or seeds of one method that saw different severities.
    """
    return _corruption_cells(rows).drop(columns="moments")


def mean_corruption_error(rows: pd.DataFrame, *, baseline: str = "random") -> pd.DataFrame:
    """The mean corruption error, as such and against a baseline (Hendrycks and Dietterich, 2019, Section 4).

    Unnormalised: the mean error (1 - accuracy) over corruptions c and severities s. Normalised: mean over c of
    sum_s E_{s,c} / sum_s E^base_{s,c}, the paper's mCE as a fraction, with the baseline's errors averaged over its seeds; below
    1 is better than the baseline. The paper's baseline is AlexNet, ours the coreset of the same size chosen at random: such a
    number compares with other coresets, not with the literature on CIFAR-10-C.

    Args:
        rows: of `rows.csv`; only `accuracy@...` is looked at. 15 corruptions and 5 severities are the standard set; all methods
            of one table must have seen the same.
        baseline: a method.

    Returns:
        Columns dataset, architecture, method, augment, ipc, sampler, protocol, mce, mce_std, relative_mce, relative_mce_std
        (fractions; std over seeds; the relative ones nan without a baseline of the same size), n (seeds), corruptions,
        severities.

    Raises:
        DataError: no accuracy on corrupted images, or methods that saw different corruptions.
    """
    return _error_cells(rows, baseline).drop(columns=["moments", "relative_moments"])


def _corruption_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """`corruption_table` with a column `moments`."""
    parsed = _parse(rows)
    key = [*_CELL, "metric", "corruption"]
    records = []
    for cell, group in parsed.groupby(key, sort=False):
        described = dict(zip(key, cell, strict=True))
        by_seed = _by_seed(group, f"{described['metric']} of {described['method']} on {described['corruption']}")
        means = moments(by_seed.mean(axis=1, skipna=False))
        printed = {"mean": means.mean, "std": means.std, "n": means.n}
        records.append({**described, **printed, "severities": by_seed.shape[1], "moments": means})
    return _sorted(pd.DataFrame(records))


def _error_cells(rows: pd.DataFrame, baseline: str = "random") -> pd.DataFrame:
    """`mean_corruption_error` with columns `moments` and `relative_moments`; the latter are those of no seed where there is no
    baseline, or one whose own seeds are not all finite.
    """
    parsed = _parse(rows)
    parsed = parsed[parsed["metric"] == "accuracy"]
    if parsed.empty:
        raise DataError("A mean corruption error needs rows accuracy@<corruption>-<severity>; there are none.")
    errors = {
        cell: 1.0 - _by_seed(group, f"accuracy of {group['method'].iloc[0]}")
        for cell, group in parsed.groupby(_CELL, sort=False)
    }
    records = []
    for cell, error in errors.items():
        described = dict(zip(_CELL, cell, strict=True))
        base = errors.get(tuple({**described, "method": baseline, "augment": False}.values()))
        against = moments([])
        if base is not None:
            if set(base.columns) != set(error.columns):
                raise DataError(
                    f"{described['method']} was scored on {error.shape[1]} pairs of corruption and severity and {baseline} "
                    f"on {base.shape[1]}, or on others; evaluate both on the same to compare them."
                )
            # means and not sums over severities: the ratio is the same
            expected = _by_corruption(base).mean(axis=0, skipna=False)
            if np.isfinite(expected).all():
                against = moments((_by_corruption(error) / expected).mean(axis=1, skipna=False))
        mce = moments(error.mean(axis=1, skipna=False))
        records.append(
            {
                **described,
                "mce": mce.mean,
                "mce_std": mce.std,
                "relative_mce": against.mean,
                "relative_mce_std": against.std,
                "n": mce.n,
                "corruptions": error.columns.get_level_values("corruption").nunique(),
                "severities": error.columns.get_level_values("severity").nunique(),
                "moments": mce,
                "relative_moments": against,
            }
        )
    return _sorted(pd.DataFrame(records))


def shift_tables(rows: pd.DataFrame) -> list[Table]:
    """For each dataset, network, size, sampler and protocol one table per metric, corruptions down and methods across (mean ±
    standard deviation over seeds of the mean over severities), and the mean corruption errors below the accuracy.
    """
    cells, errors = _corruption_cells(rows), _error_cells(rows)
    tables = []
    for place, ipc, here in _panels(cells):
        mine = errors[(errors[_TABLE] == list(place)).all(axis=1) & errors["ipc"].isin(here["ipc"].unique())]
        for metric, part in here.groupby("metric", sort=False):
            tables.append(_metric_table(place, ipc, str(metric), part, mine if metric == "accuracy" else None))
    return tables


def to_markdown(rows: pd.DataFrame) -> str:
    """`shift_tables` as GitHub Markdown."""
    return tables_to_markdown(shift_tables(rows), "Corrupted images")


def write_corruption_tables(rows: pd.DataFrame, folder: Path | str) -> list[Path]:
    """Write ``corruptions.md``, ``corruptions.csv`` (`corruption_table`) and ``mce.csv`` (`mean_corruption_error`)."""
    texts = {
        "corruptions.md": to_markdown(rows),
        "corruptions.csv": corruption_table(rows).to_csv(index=False, lineterminator="\n"),
        "mce.csv": mean_corruption_error(rows).to_csv(index=False, lineterminator="\n"),
    }
    return [write_text(Path(folder) / name, text) for name, text in texts.items()]


def write_shift(rows: pd.DataFrame, folder: Path | str) -> list[Path]:
    """The tables and a radar for each dataset, network, size, sampler and protocol; nothing without rows on corrupted images."""
    from evaluation.plots import plot_radar

    if not rows["metric"].str.contains("@", regex=False).any():
        return []
    paths = write_corruption_tables(rows, folder)
    table = corruption_table(rows)
    radars = [(place, ipc, part) for place, ipc, part in _panels(table) if part["corruption"].nunique() > 2]
    for place, ipc, part in radars:
        # as in a comparison's figures, only what differs is named
        names = [re.sub(r"[^\w.]+", "_", f"{name}") for name in (*place, f"ipc{ipc}")]
        differs = [len(set(values)) > 1 for values in zip(*((*p, i) for p, i, _ in radars), strict=True)]
        stem = "-".join(["corruptions", *(name for name, shown in zip(names, differs, strict=True) if shown)])
        paths += plot_radar(part, Path(folder) / f"{stem}.png")
    return paths


def _panels(table: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], int, pd.DataFrame]]:
    """What one table or radar shows: its place, its size and its rows. The full data, without a size, stand beside each."""
    for place, part in table.groupby(_TABLE, sort=True):
        full = part["method"] == "full"
        for ipc in sorted(part.loc[~full, "ipc"].unique()) or [0]:
            yield tuple(map(str, place)), int(ipc), part[(part["ipc"] == ipc) | full]


def _metric_table(
    place: tuple[str, ...], ipc: int, metric: str, cells: pd.DataFrame, errors: pd.DataFrame | None
) -> Table:
    """Corruptions down, methods across, and the errors (if any) in a block of their own."""
    rank = {method: i for i, method in enumerate(method_labels())}
    keys = cells[["method", "augment"]].drop_duplicates().itertuples(index=False, name=None)
    methods = sorted(keys, key=lambda key: (rank.get(key[0], len(rank)), *key))

    def line(name: str, frame: pd.DataFrame, value: str = "moments") -> TableRow:
        found = dict(zip(zip(frame["method"], frame["augment"], strict=True), frame[value], strict=True))
        return TableRow((name, *(found.get(method) for method in methods)), name.removesuffix(" ↓"))

    described = METRIC_COLUMNS.get(metric, Column(name=metric))
    blocks = [tuple(line(str(name), part) for name, part in cells.groupby("corruption", sort=False))]
    note = "Mean ± standard deviation over seeds; a corruption's number is the mean over its severities."
    if errors is not None:
        blocks.append((line("mCE ↓", errors),))
        note += " mCE is the mean error"
        if errors["relative_mce"].notna().any():
            blocks[-1] += (line("relative mCE ↓", errors, "relative_moments"),)
            note += ", relative mCE is relative to the random coreset of the same size, corruption by corruption"
        note += "."
    dataset, architecture, sampler, protocol = place
    size = f", {ipc} ipc" if ipc else ""
    return Table(
        caption=f"{dataset}, {architecture}{size}, sampler {sampler}, protocol {protocol}: {described.heading}",
        columns=(
            Column(name="Corruption", key=True, left=True),
            *(Column(name=method_label(str(method), bool(augment))) for method, augment in methods),
        ),
        blocks=tuple(blocks),
        notes=(note,),
        transposed=True,
    )


def _parse(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows on corrupted images, `metric` cut into metric, corruption and severity; each seed once."""
    rows = rows[rows["metric"].str.contains("@", regex=False)] if "metric" in rows.columns else rows
    rows = clean_rows(rows)
    if rows.empty:
        raise DataError("No row on corrupted images (accuracy@fog-3 ...); evaluate with --corruptions.")
    parts = rows["metric"].str.extract(_NAME)
    if parts["base"].isna().any():
        name = rows.loc[parts["base"].isna(), "metric"].iloc[0]
        raise DataError(f"Cannot read the metric {name!r}; expected <metric>@<corruption>-<severity>.")
    return rows.assign(metric=parts["base"], corruption=parts["corruption"], severity=parts["severity"].astype(int))


def _by_seed(group: pd.DataFrame, what: str) -> pd.DataFrame:
    """(seeds, pairs of corruption and severity) values; runs that repeat a seed with other numbers are seeds of their own."""
    pairs = ["corruption", "severity"]
    counts = group.groupby(["run", "config_hash", "seed"])["value"].size()
    expected = group[pairs].drop_duplicates()
    if (counts != len(expected)).any():
        run, _, seed = counts[counts != len(expected)].index[0]
        raise DataError(
            f"Seed {seed} of run {run} has {counts.min()} of {len(expected)} values for {what}; "
            "finish its evaluation, or leave it out: a mean over other severities does not compare."
        )
    return group.pivot(index=["run", "config_hash", "seed"], columns=pairs, values="value")


def _by_corruption(values: pd.DataFrame) -> pd.DataFrame:
    """(seeds, corruptions): mean over severities."""
    return values.T.groupby(level="corruption").mean().where(values.T.notna().groupby(level="corruption").all()).T


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    """In the order of the main tables: methods as in `method_labels`, corruptions as in the benchmark."""
    ranks = {"method": list(method_labels()), "corruption": list(CORRUPTIONS), "metric": list(METRIC_COLUMNS)}
    names = [name for name in (*_TABLE, "ipc", "metric", "method", "augment", "corruption") if name in table.columns]
    order = table[names].copy()
    for name, known in ranks.items():
        if name in order.columns:
            order[name] = order[name].map({value: i for i, value in enumerate(known)}).fillna(len(known))
    return table.loc[order.sort_values(names, kind="stable").index].reset_index(drop=True)
