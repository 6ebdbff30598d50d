"""A summary as Markdown, LaTeX, CSV, and a table on the console.

One table for each dataset, network, protocol and sampler; a row for each method, in blocks of one size; mean
+- standard deviation over seeds, and under the protocol `kim2022` the published number beside the metric that
it compares with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table as RichTable

from bpc.errors import DataError
from bpc.files import write_atomic
from evaluation.compare import GroupKey, groups, method_label

__all__ = ["render_console", "to_csv", "to_latex", "to_markdown", "write_tables"]

DIGITS = 4  # as the published tables print
_MISSING = "—"  # a mean that does not exist
_TITLES = {
    "accuracy": "Accuracy ↑",
    "nll": "NLL ↓",
    "nll_kim2022": "NLL (kim2022) ↓",
    "ece": "ECE ↓",
    "ece_kim2022": "ECE (kim2022) ↓",
    "brier": "Brier ↓",
    "agreement": "Agreement ↑",
    "tv": "TV ↓",
    "sym_kl": "Sym. KL ↓",
    "entropy_gap": "ΔH →0",
    "agreement_corrupted": "Agreement, corrupted ↑",
    "tv_corrupted": "TV, corrupted ↓",
    "sym_kl_corrupted": "Sym. KL, corrupted ↓",
    "entropy_gap_corrupted": "ΔH, corrupted →0",
    "ece_equal_mass": "ECE (equal mass) ↓",
    "ece_classwise": "ECE (classwise) ↓",
    "aurc": "AURC ↓",
    "ood_auroc": "OOD AUROC ↑",
    "mce": "Mean corruption error ↓",
    "rhat_log_density": "R-hat, log density",
    "rhat_predictions": "R-hat, predictions",
    "ess_bulk": "Bulk ESS",
    "ess_tail": "Tail ESS",
    "ebfmi": "E-BFMI",
    "divergences": "Divergences",
}
_EXACT_ONLY = ("divergences",)  # the published protocols count none
_NOT_RANKED = ("rhat_log_density", "rhat_predictions", "ess_bulk", "ess_tail", "ebfmi", "divergences")
_UNMIXED = "†"
_PUBLISHED, _GAIN = "published", "gain over random"
# A terminal has 80 columns: shorter names, and two tables where the published columns make one too wide.
_CONSOLE_NAMES = {_PUBLISHED: "paper", _GAIN: "gain", "Accuracy ↑": "Acc. ↑"}
_CONSOLE_PARTS = (
    ("accuracy", "nll", "nll_kim2022"),
    ("ece", "ece_kim2022", "brier"),
    ("agreement", "tv", "sym_kl", "entropy_gap"),
    ("agreement_corrupted", "tv_corrupted", "sym_kl_corrupted", "entropy_gap_corrupted"),
    ("ece_equal_mass", "ece_classwise", "aurc", "ood_auroc", "mce"),
    ("rhat_log_density", "rhat_predictions", "ess_bulk", "ess_tail", "ebfmi", "divergences"),
)


@dataclass(frozen=True)
class _Cell:
    text: str = ""
    bold: bool = False


@dataclass(frozen=True)
class _Table:
    """A table before it has a format: `blocks` holds the rows of one size each."""

    caption: str
    header: list[str]
    blocks: list[list[list[_Cell]]]
    notes: list[str] = field(default_factory=list)


def to_markdown(
    summary: pd.DataFrame, *, title: str = "Comparison", device: str | None = None, scale: str | None = None
) -> str:
    """GitHub Markdown. `device` and `scale` ("2,000 test images, width 32") default to the runs' own."""
    parts = [f"# {_escape_markdown(title)}"]
    for table in _tables(summary, title="", device=device, scale=scale):
        lines = [f"**{_escape_markdown(table.caption)}**", ""]
        lines.append("| " + " | ".join(map(_escape_markdown, table.header)) + " |")
        lines.append("| " + " | ".join([":--", *["--:"] * (len(table.header) - 1)]) + " |")
        for block in table.blocks:
            for row in block:
                texts = [_escape_markdown(cell.text) for cell in row]
                texts = [f"**{t}**" if cell.bold else t for t, cell in zip(texts, row, strict=True)]
                lines.append("| " + " | ".join(texts) + " |")
        lines.append("")
        lines.extend(f"- {_escape_markdown(note)}" for note in table.notes)
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def to_latex(
    summary: pd.DataFrame, *, title: str = "Comparison", device: str | None = None, scale: str | None = None
) -> str:
    """LaTeX tables; the document needs the packages booktabs and graphicx (for wide tables)."""
    parts = ["% needs \\usepackage{booktabs,graphicx}"]
    for table in _tables(summary, title=title, device=device, scale=scale):
        blocks = []
        for block in table.blocks:
            lines = []
            for row in block:
                texts = [_escape_latex(cell.text) for cell in row]
                texts = [f"\\textbf{{{t}}}" if cell.bold else t for t, cell in zip(texts, row, strict=True)]
                lines.append("    " + " & ".join(texts) + r" \\")
            blocks.append("\n".join(lines))
        caption = " ".join([table.caption, *table.notes])
        parts.append(
            "\n".join(
                [
                    r"\begin{table}[t]",
                    r"  \centering",
                    f"  \\caption{{{_escape_latex(caption)}}}",
                    r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
                    f"  \\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
                    r"    \toprule",
                    "    " + " & ".join(map(_escape_latex, table.header)) + r" \\",
                    r"    \midrule",
                    "\n    \\midrule\n".join(blocks),
                    r"    \bottomrule",
                    r"  \end{tabular}}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


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
    paths = [Path(folder) / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_atomic(path, _writer(text.encode()))
    return paths


def render_console(
    summary: pd.DataFrame, *, title: str = "", device: str | None = None, scale: str | None = None
) -> RenderableType:
    """For ``rich.console.Console.print``: the same tables with three digits, for 80 columns and more."""
    options: dict[str, Any] = {"title": title, "device": device, "scale": scale, "digits": 3}
    parts: list[RenderableType] = []
    for _, part in groups(summary):
        for table in _tables(part, **options):
            wide = len(table.header) > 8
            shown = [t for only in _CONSOLE_PARTS for t in _tables(part, only=only, **options)] if wide else [table]
            parts.append(escape(table.caption))
            parts.extend(map(_rich_table, shown))
            parts.extend(escape(note) for note in table.notes)
    return Group(*parts)


def _rich_table(table: _Table) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for place, name in enumerate(table.header):
        name = _CONSOLE_NAMES.get(name, name).replace("(kim2022)", "kim2022")
        shown.add_column(escape(name), justify="left" if place == 0 else "right", no_wrap=place == 0)
    for block in table.blocks:
        for row in block:
            shown.add_row(*(f"[bold]{escape(c.text)}[/bold]" if c.bold else escape(c.text) for c in row))
        shown.add_section()
    return shown


def _writer(data: bytes) -> Callable[..., int]:
    return lambda stream: stream.write(data)


def _tables(
    summary: pd.DataFrame,
    *,
    title: str,
    device: str | None,
    scale: str | None,
    digits: int = DIGITS,
    only: Sequence[str] | None = None,
) -> list[_Table]:
    """The tables of a summary, with all metrics or `only` some; one that has none of these is left out."""
    if summary.empty:
        raise DataError("Nothing to tabulate: the summary has no rows.")
    tables = []
    for key, part in groups(summary):
        there = set(part["metric"]) - (set() if "mixed" in set(part["metric"]) else set(_EXACT_ONLY))
        metrics = [m for m in _TITLES if m in there and (only is None or m in only)]
        if metrics:
            tables.append(_table(part, metrics, _caption(key, part, title=title, device=device, scale=scale), digits))
        elif only is None:
            raise DataError(
                f"Nothing to tabulate for {key.dataset}: expected one of {', '.join(_TITLES)}; "
                f"got {', '.join(sorted(set(part['metric'])))}."
            )
    return tables


def _table(part: pd.DataFrame, metrics: list[str], caption: str, digits: int) -> _Table:
    """One table of the rows of one group."""
    printed = {m for m in metrics if part.loc[part["metric"] == m, "published"].notna().any()}
    gain = "accuracy" in metrics and bool(part.loc[part["metric"] == "accuracy", "gain_over_random"].notna().any())
    header = ["Method", "ipc"]
    for metric in metrics:
        header.append(_TITLES[metric])
        header.extend([_PUBLISHED] if metric in printed else [])
        header.extend([_GAIN] if metric == "accuracy" and gain else [])

    blocks = []
    for _, block in part.groupby([part["method"] == "full", part["ipc"]], sort=True):
        rows = []
        for (method, augment), cells in block.groupby(["method", "augment"], sort=False):
            by_metric = {row["metric"]: row for _, row in cells.iterrows()}
            full = method == "full"
            mark = f" {_UNMIXED}" if "mixed" in by_metric and by_metric["mixed"]["mean"] != 1.0 else ""
            row = [
                _Cell(method_label(str(method), bool(augment)) + mark),
                _Cell("all" if full else str(block["ipc"].iloc[0])),
            ]
            for metric in metrics:
                entry = by_metric.get(metric)
                row.append(_measured(entry, block, digits))
                if metric in printed:
                    row.append(_Cell("" if entry is None else _plus_minus(entry, "published", "published_std", digits)))
                if metric == "accuracy" and gain:
                    text = "" if entry is None else _plus_minus(entry, "gain_over_random", "gain_se", digits, sign=True)
                    row.append(_Cell(text))
            rows.append(row)
        blocks.append(rows)
    return _Table(caption, header, blocks, _notes(part, metrics, bool(printed), gain, digits))


def _measured(entry: pd.Series | None, block: pd.DataFrame, digits: int) -> _Cell:
    """Mean +- std, bold where no other method of the block is better at the digits shown."""
    if entry is None:
        return _Cell()
    if math.isnan(entry["mean"]):
        return _Cell(_MISSING)
    if entry["metric"] in _NOT_RANKED:
        return _Cell(_plus_minus(entry, "mean", "std", 0 if entry["unit"] in ("draws", "count") else min(digits, 3)))
    rivals = block.loc[(block["metric"] == entry["metric"]) & block["mean"].notna(), "mean"]
    if entry["metric"].startswith("entropy_gap"):  # signed: near 0 is good
        best, mine = rivals.abs().min(), abs(entry["mean"])
    else:
        best, mine = rivals.max() if entry["higher_is_better"] else rivals.min(), entry["mean"]
    # one method alone is not the best of anything
    bold = len(rivals) > 1 and f"{mine:.{digits}f}" == f"{best:.{digits}f}"
    return _Cell(_plus_minus(entry, "mean", "std", digits), bold)


def _plus_minus(entry: pd.Series, value: str, spread: str, digits: int, *, sign: bool = False) -> str:
    if math.isnan(entry[value]):
        return ""
    text = f"{entry[value]:{'+' if sign else ''}.{digits}f}"
    return text if math.isnan(entry[spread]) else f"{text} ±{entry[spread]:.{digits}f}"


def _caption(key: GroupKey, part: pd.DataFrame, *, title: str, device: str | None, scale: str | None) -> str:
    low, high = int(part["n"].min()), int(part["n"].max())
    seeds = f"{low} seed{'s' if low != 1 else ''}" if low == high else f"{low} to {high} seeds"
    device = _unique(part["device"]) if device is None else device
    scale = _unique(part["scale"]) if scale is None else scale
    where = [
        f"{key.dataset}, {key.architecture}, sampler {key.sampler}, protocol {key.protocol}, {seeds}",
        device,
        scale,
    ]
    return (f"{title}: " if title else "") + "; ".join(text for text in where if text) + "."


def _unique(texts: pd.Series) -> str:
    """Every clause once: runs of one table share most of theirs."""
    return "; ".join(dict.fromkeys(clause for text in texts if text for clause in text.split("; ")))


def _notes(part: pd.DataFrame, metrics: list[str], printed: bool, gain: bool, digits: int) -> list[str]:
    notes = []
    if (part["n"] > 1).any():
        spread = "Mean ± standard deviation over seeds"
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
        if (part["protocol"] == "kim2022-scaled").any():
            notes.append("kim2022-scaled: the published sampler with lambda times sqrt(parameters / 320,010).")
    if "agreement" in metrics:
        notes.append(
            "Agreement of predicted classes, total variation, half of Jeffreys' divergence (nats) and difference of predictive "
            "entropy ΔH (nats; below 0: surer than the reference) compare the predictive with that of the full data's "
            "posterior, input by input. The full data's row is a second, independent run of it: the ceiling."
        )
    if "mixed" in set(part["metric"]) and (part.loc[part["metric"] == "mixed", "mean"] != 1.0).any():
        notes.append(
            f"{_UNMIXED} chains of at least one seed have not mixed: an R-hat above 1.01, an ESS below 100 a chain, an E-BFMI "
            "below 0.3, a divergence, or a chain that is stuck or not finite. Read the row as what these chains found."
        )
    bad = part[(part["n_nonfinite"] > 0) & part["metric"].isin(set(metrics) - set(_NOT_RANKED))]
    for (method, augment, ipc), rows in bad.groupby(["method", "augment", "ipc"], sort=False):
        worst = rows.sort_values("n_nonfinite").iloc[-1]
        place = "" if method == "full" else f" at {ipc} ipc"
        note = f"{_MISSING} {method_label(str(method), bool(augment))}{place}: "
        note += f"{worst['n_nonfinite']} of {worst['n']} chains not finite"
        others = ", ".join(
            f"{_TITLES[r['metric']].rstrip(' ↑↓')} {r['mean_finite']:.{digits}f}"
            for _, r in rows.iterrows()
            if not math.isnan(r["mean_finite"])
        )
        notes.append(f"{note}; mean of the others: {others}." if others else f"{note}.")
    return notes


def _escape_markdown(text: str) -> str:
    for character in "\\|*_`<[":
        text = text.replace(character, "\\" + character)
    return text


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "—": "---",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
