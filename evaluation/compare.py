"""The rows of many runs in one summary: mean and spread over seeds, gain over random, published numbers."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import bpc.divergences  # they register their methods
import bpc.selection  # noqa: F401
from bpc.errors import DataError
from bpc.methods import METHODS
from bpc.runs import RECORD, read_run
from evaluation.metrics import METRICS
from evaluation.moments import Moments, moments, welch_error
from evaluation.protocols import EXACT_PROTOCOLS, KIM2022_PROTOCOLS
from evaluation.published import published_value
from evaluation.rows import COLUMNS, read_rows

__all__ = [
    "SUMMARY_COLUMNS",
    "GroupKey",
    "beside_full_data",
    "clean_rows",
    "groups",
    "load_runs",
    "method_label",
    "method_labels",
    "moments_of",
    "summarise",
]

# protocols that may stand beside the published numbers; what else differs, the caption and the notes say
_TABLE = ["dataset", "architecture", "sampler", "protocol"]
_BASELINE = [*_TABLE, "ipc", "metric"]
_CELL = ["dataset", "architecture", "method", "augment", "ipc", "sampler", "protocol"]
_CONTEXT: dict[str, Any] = {"augment": False, "scale": "", "coreset": ""}

SUMMARY_COLUMNS = [
    *_CELL,
    "metric",
    "unit",
    "higher_is_better",
    "mean",
    "std",
    "n",
    "n_nonfinite",
    "mean_finite",
    "coresets",
    "gain_over_random",
    "gain_se",
    "published",
    "published_std",
    "runs",
    "seconds",
    "device",
    "scale",
    "values",
]


class GroupKey(NamedTuple):
    """What one table or figure is about; its rows differ only in method and size."""

    dataset: str
    architecture: str
    sampler: str
    protocol: str


def method_labels() -> dict[str, str]:
    """What a reader sees of each registered method, by its name, in the order of a table."""
    return {method.name: method.label for method in sorted(METHODS, key=lambda method: method.place)}


def method_label(method: str, augment: bool = False) -> str:
    """The method as a reader sees it; `augment` marks a coreset learned with augmentation, as in Table 1.

    ``fkl+labels+weights``: what was learned beside the points stands behind the divergence's name.
    """
    base, *more = method.split("+")
    more = [*(word.capitalize() for word in more), *(["Aug"] if augment else [])]
    return method_labels().get(base, base) + (f" (+{', '.join(more)})" if more else "")


def load_runs(paths: Iterable[Path | str]) -> pd.DataFrame:
    """The rows of runs, with the columns `augment`, `scale` and `coreset` (which one a row is of) from their `run.json`.

    Args:
        paths: runs' folders, `rows.csv` files, or folders that are searched for them. A run given twice
            counts once.

    Raises:
        DataError: nothing found, or two different values for the same row.
        FileFormatError: a file that is not a `rows.csv`.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    files: dict[Path, None] = {}  # an ordered set
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(path.rglob("rows.csv"))
            if not found and not any(path.rglob("coreset.safetensors")):  # coresets alone are there for their pictures
                raise DataError(f"No rows.csv in {path} or below it; expected the folder of an evaluated run.")
            files.update(dict.fromkeys(p.resolve() for p in found))
        elif path.is_file():
            files[path.resolve()] = None
        else:
            raise DataError(f"No such run: {path}; expected a run's folder, its rows.csv, or a folder of runs.")
    if not files:
        raise DataError("No evaluated run was given to compare; expected at least one folder with a rows.csv.")
    frames = [_in_context(file) for file in files]
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        raise DataError(f"{', '.join(map(str, files))}: no rows yet; the runs have not been evaluated.")
    return _refuse_conflicts(rows)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each dataset, architecture, method, ipc, sampler, protocol and metric, over its seeds.

    Coresets learned with and without augmentation are kept apart (`augment`). The random coreset that each
    distillation evaluates beside its own counts once where several runs hold the same numbers for the same
    seed; other repeated seeds are pooled with a warning. Metrics on one corruption (`accuracy@fog-3`) are left out: hundreds
    of columns, whose table is `evaluation.shift.corruption_table`.

    Returns:
        `SUMMARY_COLUMNS`:
        mean, std: over seeds, std with n - 1 (nan for one seed); `coresets` says of how many different coresets they are (0
            where nobody knows): only with as many as seeds is the spread one over coresets. Both are nan as soon as one
            chain is not finite: leaving a diverged chain out would flatter the method. `mean_finite` is the mean of the
            others.
        n, n_nonfinite: values, and how many of them are not finite.
        gain_over_random: mean minus the mean of `random` at the same place (above 0 is better only where
            higher is), and `gain_se`, its standard error sqrt(std^2/n + std_random^2/n_random) (Welch); nan
            with one seed on either side.
        published, published_std: under the protocols of `KIM2022_PROTOCOLS` only.
        runs, seconds: how many runs and how much wall time it took (sum over distinct seeds); values: tuple,
            one per seed.
    """
    rows = clean_rows(rows)
    rows = rows[~rows["metric"].str.contains("@", regex=False)]
    records = [_record(key, group) for key, group in rows.groupby([*_CELL, "metric"], sort=False)]
    summary = pd.DataFrame(records, columns=SUMMARY_COLUMNS)
    _add_gain(summary)
    order = pd.DataFrame(
        {
            **{name: summary[name] for name in _TABLE},
            "full": summary["method"] == "full",
            "ipc": summary["ipc"],
            "method": summary["method"].map(_base).map(_rank(method_labels())).fillna(len(METHODS)),
            "augment": summary["augment"],
            "metric": summary["metric"].map(_rank(METRICS)).fillna(len(METRICS)),
        }
    )
    return summary.loc[order.sort_values(list(order.columns), kind="stable").index].reset_index(drop=True)


def clean_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `augment` and `scale`, each seed once: what every table is made of.

    Raises:
        DataError: a column is missing, or a row is there with two values.
    """
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise DataError(f"Rows to summarise lack the columns {', '.join(missing)}.")
    rows = rows.assign(**{name: value for name, value in _CONTEXT.items() if name not in rows.columns})
    # Real points are not learned: the random coreset beside an augmented distillation is the same random
    # coreset.
    rows = rows.assign(
        augment=rows["augment"].astype(bool) & rows["method"].map(_base).isin([m.name for m in METHODS if m.learned])
    )
    return _drop_repeats(_refuse_conflicts(rows))


def beside_full_data(summary: pd.DataFrame) -> pd.DataFrame:
    """Put the full data's row into every exact table of its dataset and network, whatever it was sampled by.

    A posterior is the same by any sampler that is exact, so the reference stands below the coresets. Its own sampler is
    written into `scale`, which captions print.
    """
    exact = summary["protocol"].isin(EXACT_PROTOCOLS)
    full = summary[exact & (summary["method"] == "full")]
    others = summary[~(exact & (summary["method"] == "full"))]
    parts = [others]
    places = others.loc[others["protocol"].isin(EXACT_PROTOCOLS), _TABLE].drop_duplicates()
    for _, place in places.iterrows():
        mine = full[(full["dataset"] == place["dataset"]) & (full["architecture"] == place["architecture"])]
        note = mine["sampler"].map("full data by {}".format)
        parts.append(mine.assign(sampler=place["sampler"], protocol=place["protocol"], scale=note, seconds=0.0))
    if places.empty:
        return summary
    return pd.concat(parts, ignore_index=True)


def groups(summary: pd.DataFrame) -> Iterator[tuple[GroupKey, pd.DataFrame]]:
    """The parts of a summary that make one table each."""
    for key, part in summary.groupby(_TABLE, sort=True):
        yield GroupKey(*map(str, key)), part.reset_index(drop=True)


def moments_of(row: pd.Series) -> Moments:
    """What a row of a summary says of its seeds."""
    return Moments(*(row[name] for name in Moments._fields))


def _record(key: tuple[Any, ...], group: pd.DataFrame) -> dict[str, Any]:
    cell = dict(zip([*_CELL, "metric"], key, strict=True))
    values = [float(value) for value in group["value"]]
    published = None
    if cell["protocol"] in KIM2022_PROTOCOLS:
        published = published_value(
            cell["dataset"],
            cell["method"],
            cell["sampler"],
            bool(cell["augment"]),
            int(cell["ipc"]),
            cell["metric"],
        )
    return {
        **cell,
        "unit": group["unit"].iloc[0],
        "higher_is_better": bool(group["higher_is_better"].iloc[0]),
        **moments(values)._asdict(),
        "coresets": 0 if (group["coreset"] == "").any() else group["coreset"].nunique(),
        "published": published[0] if published else math.nan,
        "published_std": published[1] if published else math.nan,
        "runs": group["run"].nunique(),
        "seconds": group["seconds"].sum(min_count=1),
        "device": _join(group["device"]),
        "scale": _join(group["scale"]),
        "values": tuple(values),
    }


def _add_gain(summary: pd.DataFrame) -> None:
    """Fill `gain_over_random` and `gain_se` in place."""
    random = summary[summary["method"] == "random"].set_index(_BASELINE)
    gains, errors = [], []
    for _, row in summary.iterrows():
        key = tuple(row[name] for name in _BASELINE)
        if row["method"] == "random" or key not in random.index:
            gains.append(math.nan)
            errors.append(math.nan)
            continue
        base = random.loc[key]
        gains.append(row["mean"] - base["mean"])
        errors.append(welch_error(moments_of(row), moments_of(base)))
    summary["gain_over_random"], summary["gain_se"] = gains, errors


def _drop_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """Count a seed once where several runs hold the same numbers for it, as for random beside each run."""
    seen: dict[tuple[Any, ...], list[dict[str, str]]] = {}
    keep: list[int] = []
    pooled: set[str] = set()
    for key, block in rows.groupby([*_CELL, "seed", "run", "config_hash"], sort=False):
        # nine digits: the last bits depend on which chains ran beside it
        numbers = dict(zip(block["metric"], block["value"].map("{:.9g}".format), strict=True))
        known = seen.setdefault(key[: len(_CELL) + 1], [])
        shared = [(other, numbers.keys() & other.keys()) for other in known]
        same = [other for other, common in shared if common and all(other[m] == numbers[m] for m in common)]
        if not same and any(common for _, common in shared):
            pooled.add(f"{key[2]} at {key[4]} ipc on {key[0]} ({key[5]}, {key[6]})")
        fresh = [metric not in {m for other in same for m in other} for metric in block["metric"]]
        keep.extend(block.index[fresh])
        known.append(numbers)
    if pooled:
        warnings.warn(
            f"Several runs hold different numbers for the same seed and are pooled: "
            f"{'; '.join(sorted(pooled))}. "
            "Name the runs to be compared one by one to keep them apart.",
            stacklevel=3,
        )
    return rows.loc[sorted(keep)]


def _refuse_conflicts(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop rows that are there twice, with a warning; refuse the same row with two values."""
    identity = ["run", "config_hash", *(name for name in _CELL if name in rows.columns), "seed", "metric"]
    again = rows.duplicated(identity, keep="first")
    if not again.any():
        return rows
    differing = rows.drop_duplicates([*identity, "value"]).duplicated(identity)
    if differing.any():
        row = rows.loc[differing[differing].index[0]]
        raise DataError(
            f"Run {row['run']} has two values for {row['metric']} of {row['method']}, ipc {row['ipc']}, "
            f"seed {row['seed']}; expected one. Give only one of its copies, or evaluate it again."
        )
    warnings.warn(f"{int(again.sum())} rows are there twice and count once.", stacklevel=3)
    return rows[~again]


def _in_context(rows_file: Path) -> pd.DataFrame:
    """The rows with `augment`, `scale` and `coreset` of the run that they belong to; defaults without a `run.json`."""
    rows = read_rows(rows_file)
    run = read_run(rows_file.parent, needs=()) if (rows_file.parent / RECORD).exists() else {}
    augment = run.get("augment", run.get("config", {}).get("augment", False))
    scale = run.get("scale") or ""
    if isinstance(augment, str):  # the names of the augmentations
        augment = augment.lower() not in ("", "none", "false")
    return rows.assign(
        augment=bool(augment),
        scale=scale if isinstance(scale, str) else json.dumps(scale),
        coreset=[_coreset(run, method, seed) for method, seed in zip(rows["method"], rows["seed"], strict=True)],
    )


def _coreset(run: dict[str, Any], method: str, seed: int) -> str:
    """Which coreset a row is of: the run's own (one, or one for each seed), or a random one that is scored beside it."""
    config = run.get("config", {})
    own, files = config.get("method", config.get("divergence")), config.get("coreset")
    if method == "full" or own is None:
        return ""
    if method != own:
        return f"{method}-{seed}"
    if not isinstance(files, list):  # learned by the run itself
        return str(run.get("config_hash", ""))
    return str(files[0] if len(files) == 1 else files[seed - int(run.get("seed") or 0)])


def _base(method: str) -> str:
    """The registered method of ``fkl+labels``."""
    return str(method).split("+")[0]


def _rank(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _join(texts: Sequence[str] | pd.Series) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
