"""The comparison of coresets: a summary as tables.

One table for each dataset, network, protocol and sampler; a row for each method, in blocks of one size; mean
+- standard deviation over seeds, and under the protocol `kim2022` the published number beside the metric that
it compares with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType

from bpc.errors import DataError
from bpc.files import write_text
from evaluation.compare import GroupKey, groups, method_label, moments_of
from evaluation.diagnostics import EBFMI_MIN, ESS_MIN, JUDGED, RHAT_MAX, only_diverged
from evaluation.moments import Moments, spread_over
from evaluation.table import Cell, Column, Table, TableRow, tables_to_latex, tables_to_markdown, unique_clauses

__all__ = [
    "METRIC_COLUMNS",
    "PUBLISHED",
    "comparison_tables",
    "render_console",
    "to_csv",
    "to_latex",
    "to_markdown",
    "write_tables",
]


def _diagnostic(name: str, digits: int = 3) -> Column:
    """Nothing is ranked by what says whether chains have mixed; a sampler that lacks one has no footnote for it."""
    return Column(name=name, digits=digits, noted=False)


# four digits, as the published tables print
METRIC_COLUMNS = {
    "accuracy": Column(name="Accuracy", short="Acc.", better="higher", ranked=True),
    "nll": Column(name="NLL", better="lower", ranked=True),
    "nll_calibrated": Column(name="NLL, best temperature", short="NLL best T", better="lower", ranked=True),
    "nll_kim2022": Column(name="NLL (kim2022)", short="NLL kim2022", better="lower", ranked=True),
    "ece": Column(name="ECE", better="lower", ranked=True),
    "ece_kim2022": Column(name="ECE (kim2022)", short="ECE kim2022", better="lower", ranked=True),
    "brier": Column(name="Brier", better="lower", ranked=True),
    "agreement": Column(name="Agreement", better="higher", ranked=True),
    "tv": Column(name="TV", better="lower", ranked=True),
    "sym_kl": Column(name="Sym. KL", better="lower", ranked=True),
    "entropy_gap": Column(name="ΔH", better="zero", ranked=True),
    "agreement_corrupted": Column(name="Agreement, corrupted", better="higher", ranked=True),
    "tv_corrupted": Column(name="TV, corrupted", better="lower", ranked=True),
    "sym_kl_corrupted": Column(name="Sym. KL, corrupted", better="lower", ranked=True),
    "entropy_gap_corrupted": Column(name="ΔH, corrupted", better="zero", ranked=True),
    "tv_foreign": Column(name="TV, foreign", better="lower", ranked=True),
    "sym_kl_foreign": Column(name="Sym. KL, foreign", better="lower", ranked=True),
    "ece_equal_mass": Column(name="ECE (equal mass)", better="lower", ranked=True),
    "ece_classwise": Column(name="ECE (classwise)", better="lower", ranked=True),
    "aurc": Column(name="AURC", better="lower", ranked=True),
    "ood_auroc": Column(name="OOD AUROC", better="higher", ranked=True),
    "mce": Column(name="Mean corruption error", better="lower", ranked=True),
    "temperature_calibrated": _diagnostic("Best temperature", 2),
    "conditioning_ce": _diagnostic("CE, own points"),
    "conditioning_ce_start": _diagnostic("CE, own points, first sample", 2),
    "conditioning_ce_end": _diagnostic("CE, own points, last sample", 2),
    "rhat_predictions_median": _diagnostic("R-hat, predictions (median)"),
    "rhat_predictions": _diagnostic("R-hat, predictions (95 %)"),
    "rhat_predictions_worst": _diagnostic("R-hat, predictions (worst)"),
    "nested_rhat_predictions": _diagnostic("Nested R-hat, predictions (95 %)"),
    "ess_bulk_predictions_median": _diagnostic("Bulk ESS (median)", 0),
    "ess_bulk_predictions": _diagnostic("Bulk ESS (95 %)", 0),
    "ess_bulk_predictions_worst": _diagnostic("Bulk ESS (worst)", 0),
    "ess_tail_predictions_median": _diagnostic("Tail ESS (median)", 0),
    "ess_tail_predictions": _diagnostic("Tail ESS (95 %)", 0),
    "ess_tail_predictions_worst": _diagnostic("Tail ESS (worst)", 0),
    "tv_halves": _diagnostic("TV, halves of the chains"),
    "tv_halves_error": _diagnostic("its Monte Carlo error"),
    "rhat_log_density": _diagnostic("R-hat, log density"),
    "rhat_weights": _diagnostic("R-hat, weights"),
    "ebfmi": _diagnostic("E-BFMI"),
    "divergences": _diagnostic("Divergences", 0),
    "swap_rate_min": _diagnostic("Least swap rate", 2),
    "communication_barrier": _diagnostic("Barrier", 1),
    "log_evidence": _diagnostic("Log evidence", 1),
}
_EXACT_ONLY = ("divergences",)  # the published protocols count none
_UNMIXED, _DIVERGED = "†", "‡"
_METHOD = Column(name="Method", key=True, left=True)
_IPC = Column(name="ipc", key=True)
PUBLISHED = Column(name="published", short="paper", joined=True)
_GAIN = Column(name="gain over random", short="gain", sign=True, joined=True)


def to_markdown(
    summary: pd.DataFrame, *, title: str = "Comparison", device: str | None = None, scale: str | None = None
) -> str:
    """GitHub Markdown. `device` and `scale` ("2,000 test images, width 32") default to the runs' own."""
    return tables_to_markdown(comparison_tables(summary, device=device, scale=scale), title)


def to_latex(
    summary: pd.DataFrame, *, title: str = "Comparison", device: str | None = None, scale: str | None = None
) -> str:
    """LaTeX tables; the document needs the packages booktabs and graphicx (for wide tables)."""
    return tables_to_latex(comparison_tables(summary, title=title, device=device, scale=scale))


def to_csv(summary: pd.DataFrame) -> str:
    """The whole tidy summary, with every digit; `values` are joined by spaces."""
    values = summary["values"].map(lambda numbers: " ".join(map(repr, numbers)))
    return str(summary.assign(values=values).to_csv(index=False, lineterminator="\n"))


def write_tables(
    summary: pd.DataFrame,
    folder: Path | str,
    *,
    title: str = "Comparison",
    device: str | None = None,
    scale: str | None = None,
) -> list[Path]:
    """Write ``comparison.md``, ``.csv`` and ``.tex`` into `folder`, each whole or not at all."""
    texts = {
        "comparison.md": to_markdown(summary, title=title, device=device, scale=scale),
        "comparison.csv": to_csv(summary),
        "comparison.tex": to_latex(summary, title=title, device=device, scale=scale),
    }
    return [write_text(Path(folder) / name, text) for name, text in texts.items()]


def render_console(
    summary: pd.DataFrame, *, title: str = "", device: str | None = None, scale: str | None = None
) -> RenderableType:
    """For ``rich.console.Console.print``: the same tables with three digits, whatever the console's width."""
    return Group(*comparison_tables(summary, title=title, device=device, scale=scale))


def comparison_tables(
    summary: pd.DataFrame, *, title: str = "", device: str | None = None, scale: str | None = None
) -> list[Table]:
    """The tables of a summary (`evaluation.compare.summarise`).

    Args:
        summary: its rows.
        title: before every caption.
        device, scale: for the captions; None for the runs' own.

    Raises:
        DataError: no rows, or none of a metric that has a column.
    """
    if summary.empty:
        raise DataError("Nothing to tabulate: the summary has no rows.")
    tables = []
    for key, part in groups(summary):
        there = set(part["metric"]) - (set() if "mixed" in set(part["metric"]) else set(_EXACT_ONLY))
        metrics = [metric for metric in METRIC_COLUMNS if metric in there]
        if not metrics:
            raise DataError(
                f"Nothing to tabulate for {key.dataset}: expected one of {', '.join(METRIC_COLUMNS)}; "
                f"got {', '.join(sorted(set(part['metric'])))}."
            )
        tables.append(_table(part, metrics, _caption(key, part, title=title, device=device, scale=scale)))
    return tables


def _table(part: pd.DataFrame, metrics: list[str], caption: str) -> Table:
    """One table of the rows of one group."""
    printed = {m for m in metrics if part.loc[part["metric"] == m, "published"].notna().any()}
    gain = "accuracy" in metrics and bool(part.loc[part["metric"] == "accuracy", "gain_over_random"].notna().any())
    columns = [_METHOD, _IPC]
    for metric in metrics:
        columns.append(METRIC_COLUMNS[metric])
        columns.extend([PUBLISHED] if metric in printed else [])
        columns.extend([_GAIN] if metric == "accuracy" and gain else [])

    blocks = []
    for _, block in part.groupby([part["method"] == "full", part["ipc"]], sort=True):
        rows = []
        for (method, augment), cells in block.groupby(["method", "augment"], sort=False):
            by_metric = {row["metric"]: row for _, row in cells.iterrows()}
            label, size = method_label(str(method), bool(augment)), str(block["ipc"].iloc[0])
            mark = "".join(f" {m}" for m in _marks(by_metric))
            line: list[Cell] = [label + mark, "all" if method == "full" else size]
            for metric in metrics:
                entry = by_metric.get(metric)
                line.append(None if entry is None else moments_of(entry))
                if metric in printed:
                    line.append(None if entry is None else Moments(entry["published"], entry["published_std"]))
                if metric == "accuracy" and gain:
                    line.append(None if entry is None else Moments(entry["gain_over_random"], entry["gain_se"]))
            rows.append(TableRow(tuple(line), label if method == "full" else f"{label} at {size} ipc"))
        blocks.append(tuple(rows))
    notes = tuple(_notes(part, metrics, bool(printed), gain))
    return Table(caption=caption, columns=tuple(columns), blocks=tuple(blocks), notes=notes, repeats="chains")


def _marks(by_metric: dict[Any, pd.Series]) -> str:
    """Of a row: a dagger where chains have not mixed, a double one where they only diverged."""
    if "mixed" not in by_metric:
        return ""
    names = [name for name in JUDGED if name in by_metric]
    seeds = [
        dict(zip(names, values, strict=True)) for values in zip(*(by_metric[n]["values"] for n in names), strict=False)
    ]
    diverged = [only_diverged(seed) for seed in seeds]
    unmixed = any(seed["mixed"] != 1.0 and not only for seed, only in zip(seeds, diverged, strict=True))
    return _UNMIXED * unmixed + _DIVERGED * any(diverged)


def _caption(key: GroupKey, part: pd.DataFrame, *, title: str, device: str | None, scale: str | None) -> str:
    low, high = int(part["n"].min()), int(part["n"].max())
    seeds = f"{low} seed{'s' if low != 1 else ''}" if low == high else f"{low} to {high} seeds"
    device = unique_clauses(part["device"]) if device is None else device
    # what older runs have noted of their scale begins with what the device says already
    scale = (
        unique_clauses(part["scale"], {"CPU run"} if device.startswith("CPU") else set()) if scale is None else scale
    )
    where = [
        f"{key.dataset}, {key.architecture}, sampler {key.sampler}, protocol {key.protocol}, {seeds}",
        device,
        scale,
    ]
    return (f"{title}: " if title else "") + "; ".join(text for text in where if text) + "."


def _spread(part: pd.DataFrame) -> str:
    """What the spread of each row is over: methods are named where it is not the same for all."""
    several = part[(part["n"] > 1) & (part["method"] != "full")]
    methods: dict[str, list[str]] = {}
    for _, row in several.drop_duplicates(["method", "augment", "ipc", "n", "coresets"]).iterrows():
        label = method_label(str(row["method"]), bool(row["augment"]))
        methods.setdefault(spread_over(int(row["n"]), int(row["coresets"])), []).append(label)
    if len(methods) <= 1:
        return next(iter(methods), "seeds")
    return "; over ".join(f"{what} ({', '.join(dict.fromkeys(names))})" for what, names in methods.items())


def _notes(part: pd.DataFrame, metrics: list[str], printed: bool, gain: bool) -> list[str]:
    notes = []
    if (part["n"] > 1).any():
        spread = f"Mean ± standard deviation over {_spread(part)}"
        notes.append(f"{spread}; gain in accuracy ± its standard error (Welch)." if gain else f"{spread}.")
    if any(m.endswith("_kim2022") for m in metrics):
        notes.append(
            "The kim2022 columns are batch-by-batch variants as the paper's authors computed them; only "
            "these compare with the published NLL and ECE."
        )
    if printed:
        notes.append(
            "Published: Kim et al. (2022), Tables 1, 5, 6 and 7: ConvNet of width 128, 5,000 steps, 100 experts, ten seeds."
        )
        if part["protocol"].str.startswith("kim2022-scaled").any():
            notes.append(
                "kim2022-scaled: the published sampler with lambda times sqrt(parameters / 320,010), iterations times "
                "(320,010 / parameters)^(1/4) but for HMC at 1 image per class."
            )
        if part["protocol"].str.endswith("default-init").any():
            notes.append("default-init: the chain starts from the network's usual initialisation, not from N(0, 0.1²).")
    if "agreement" in metrics:
        notes.append(
            "Agreement of predicted classes, total variation, half of Jeffreys' divergence (nats) and difference of predictive "
            "entropy ΔH (nats; below 0: surer than the reference) compare the predictive with that of the full data's "
            "posterior, input by input. The full data's row is a second, independent run of it: the ceiling."
        )
    if "mixed" in set(part["metric"]) and (part.loc[part["metric"] == "mixed", "mean"] != 1.0).any():
        notes.append(
            f"{_UNMIXED} chains of at least one seed have not mixed: R-hat of predictions (95 %) above {RHAT_MAX}, their bulk "
            f"ESS (95 %) below {ESS_MIN}, an E-BFMI below {EBFMI_MIN}, or a chain that is stuck or not finite. Read the row as "
            f"what these chains found. {_DIVERGED} transitions of at least one seed diverged (energy error above 1,000 nats) and "
            "were rejected; by every other measure its chains have mixed."
        )
    return notes
