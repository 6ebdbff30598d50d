"""The study of the published chain for several coresets: rows as they are made, two tables, two figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from bpc.coreset import Pseudocoreset
from bpc.data import Dataset
from bpc.files import write_text
from bpc.models import Network
from bpc.progress import plural
from evaluation.compare import method_label
from evaluation.diagnostics import RHAT_MAX
from evaluation.moments import Moments, moments
from evaluation.plots.base import FONT, SMALL, legend_below, new_figure, save, style_of
from evaluation.studies.chain import CLAIMED, LENGTH, STAIRCASE, STEPS, ChainStudy, chain_rows
from evaluation.studies.tables import StudyResult
from evaluation.table import Cell, Column, Table, TableRow, tables_to_markdown

__all__ = ["run_chain_study"]

_MEASURES = {
    "accuracy": Column(name="Accuracy", better="higher", digits=3),
    "nll": Column(name="NLL", unit="nats", better="lower", digits=3),
    "ece": Column(name="ECE", better="lower", digits=3),
    "tv": Column(name="TV to the full data", better="lower", digits=3),
    "tv_claimed": Column(name="TV to the claimed density", better="lower", digits=3),
}
_SHARED = {
    "conditioning_ce": Column(name="CE, own points", unit="nats", digits=3),
    "rms": Column(name="rms of θ", digits=None),
    "acceptance": Column(name="Acceptance", digits=2),
    "rhat": Column(name="R-hat, predictions (95 %)", digits=2, noted=False),
    "leapfrogs": Column(name="Leapfrogs", digits=0),
}
_SHOWN = {
    "published": "published chain",
    "start": "+ start from the prior",
    "rule": "+ textbook momentum and test",
    "norm": "+ Gaussian prior for the norm",
    "length": "+ adapted step, exact length",
    "weights": "+ weights sum to N",
}


def run_chain_study(
    out: Path | str,
    network: Network,
    dataset: Dataset,
    coresets: Sequence[Pseudocoreset],
    study: ChainStudy,
    *,
    seed: int,
    reference: Tensor | None = None,
    device: str = "",
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> StudyResult:
    """Both parts for every coreset; writes ``chain.csv`` (after each coreset), ``chain.md`` and the figures into `out`.

    Args:
        out: the folder.
        network, dataset, study, seed, reference: as for `evaluation.studies.chain.chain_rows`.
        coresets: of one size, or of several; each is a block of the tables.
        device: for the captions.
        report: called with steps done, all of them, and a note.
    """
    out, frames = Path(out), list[pd.DataFrame]()
    each = len(STEPS) + 1 + len(study.lengths)
    for number, coreset in enumerate(coresets):
        steps = iter(range(number * each, (number + 1) * each))
        name = f"{method_label(coreset.method)}, {coreset.ipc} ipc"
        alike = [i for i, c in enumerate(coresets) if (c.method, c.ipc) == (coreset.method, coreset.ipc)]
        name += f", no. {1 + alike.index(number)}" if len(alike) > 1 else ""
        rows = chain_rows(
            network,
            dataset,
            coreset,
            study,
            seed=seed,
            reference=reference,
            report=lambda note, name=name, steps=steps: report(next(steps), each * len(coresets), f"{name}; {note}"),  # type: ignore[misc]
        )
        frames.append(rows.assign(method=coreset.method, ipc=coreset.ipc, coreset=number, name=name))
        write_text(out / "chain.csv", pd.concat(frames).to_csv(index=False, lineterminator="\n"))
    report(each * len(coresets), each * len(coresets), "")
    rows = pd.concat(frames, ignore_index=True)
    where = f"{dataset.name}, {network.name} ({network.num_params:,} parameters), {study.protocol}"
    where += f", {plural(study.chains, 'chain')}, seed {seed}" + (f"; {device}" if device else "")
    tables = [_staircase_table(rows, where), _length_table(rows, where)]
    write_text(out / "chain.md", tables_to_markdown(tables))
    _plot_staircase(rows, out / "chain-staircase.png")
    _plot_length(rows, out / "chain-length.png")
    return StudyResult(rows, tables)


def _over_chains(values: pd.Series) -> Moments:
    """Mean and its Monte Carlo standard error."""
    found = moments(values)
    return found._replace(std=found.standard_error)


def _cells(part: pd.DataFrame, measures: Sequence[str]) -> list[Cell]:
    shared: list[Cell] = [Moments(float(part[name].iloc[0])) for name in _SHARED]
    return [*(_over_chains(part[name]) for name in measures), *shared]


def _blocks(part: pd.DataFrame, measures: Sequence[str], shown: Callable[[str], str]) -> list[tuple[TableRow, ...]]:
    """A block for each coreset and, where a method and size has several, one with the spread of their means."""
    blocks = []
    for name, rows in part.groupby("name", sort=False):
        steps = rows.groupby("step", sort=False)
        blocks.append(tuple(TableRow((str(name), shown(str(s)), *_cells(r, measures))) for s, r in steps))
    for (method, ipc), rows in part.groupby(["method", "ipc"], sort=False):
        count = rows["coreset"].nunique()
        if count < 2:
            continue
        label, lines = f"{method_label(str(method))}, {ipc} ipc, {count} coresets", []
        for step, mine in rows.groupby("step", sort=False):
            means = mine.groupby("coreset")[[*measures, *_SHARED]].mean()
            cells = [moments(means[name]) if means[name].notna().all() else None for name in means]
            lines.append(TableRow((label, shown(str(step)), *cells)))
        blocks.append(tuple(lines))
    return blocks


def _table(
    rows: pd.DataFrame, measures: list[str], shown: Callable[[str], str], caption: str, notes: list[str]
) -> Table:
    measures = [name for name in measures if rows[name].notna().any()]
    keys = [Column(name="Coreset", left=True), Column(name="Step", key=True, left=True)]
    columns = (*keys, *(_MEASURES[name] for name in measures), *_SHARED.values())
    shared = [
        "Of one coreset: mean over chains of what one chain's predictive scores ± its Monte Carlo standard error. Of several: "
        "mean ± standard deviation over the coresets' means.",
        "CE, acceptance, R-hat: of all chains together; rms θ: root mean square of the parameters at the last draw.",
    ]
    blocks = tuple(_blocks(rows, measures, shown))
    return Table(caption=caption, columns=columns, blocks=blocks, notes=(*notes, *shared), repeats="chains")


def _staircase_table(rows: pd.DataFrame, where: str) -> Table:
    return _table(
        rows[rows["part"] == STAIRCASE],
        ["accuracy", "nll", "ece", "tv"],
        _SHOWN.__getitem__,
        f"From the published chain to the exact posterior, one change at a time, each kept: {where}.",
        [],
    )


def _length_table(rows: pd.DataFrame, where: str) -> Table:
    part = rows[rows["part"] == LENGTH]
    notes = [
        "The claimed density is exp(-M mean CE - M λ ‖θ‖), sampled by textbook HMC; TV to its predictive, chains pooled "
        "(its own row: each chain to the others)."
    ]
    worst = float(part.loc[part["step"] == CLAIMED, "rhat"].max())
    if not worst <= RHAT_MAX:
        notes.append(
            f"The exact chains on the claimed density have not mixed (R-hat up to {worst:.2f}): their row is what they found, "
            "and distances to it are distances to that."
        )
    return _table(
        part,
        ["accuracy", "nll", "ece", "tv", "tv_claimed"],
        str,
        f"The published chain by its length, beside the density that it claims: {where}.",
        notes,
    )


def _plot_staircase(rows: pd.DataFrame, path: Path) -> None:
    part = rows[rows["part"] == STAIRCASE]
    measures = [name for name in ("accuracy", "nll", "ece", "tv") if part[name].notna().any()]
    figure, panels = new_figure(3.1 * len(measures), 3.6, 1, len(measures))
    for axes, measure in zip(panels, measures, strict=True):
        _lines(axes, part, measure, lambda mine: range(len(STEPS)))
        axes.set_xticks(range(len(STEPS)), STEPS, rotation=40, ha="right", fontsize=SMALL)
        axes.set_title(_MEASURES[measure].heading, fontsize=FONT)
    legend_below(figure, panels[0], 3)
    figure.suptitle("What does each departure from an exact sampler do to the published chain's score?", fontsize=FONT)
    save(figure, path)


def _plot_length(rows: pd.DataFrame, path: Path) -> None:
    part = rows[rows["part"] == LENGTH]
    published, claimed = part[part["step"] != CLAIMED], part[part["step"] == CLAIMED]
    measures = [name for name in ("accuracy", "nll", "tv", "tv_claimed") if part[name].notna().any()]
    figure, panels = new_figure(3.1 * len(measures), 3.4, 1, len(measures))
    for axes, measure in zip(panels, measures, strict=True):
        _lines(axes, published, measure, lambda mine: mine["length"].unique())
        axes.set_xscale("log", base=2)
        ticks = sorted(published["length"].unique())
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.set_xlabel("length (published = 1)", fontsize=SMALL)
        axes.set_title(_MEASURES[measure].heading, fontsize=FONT)
        for name, mine in claimed.groupby("name", sort=False):
            color = style_of(str(mine["method"].iloc[0]), list(part["method"].unique())).color
            label = _label(part, str(name), f": {CLAIMED}")
            axes.axhline(mine[measure].mean(), color=color, linestyle="--", linewidth=1.2, label=label)
        if measure == "nll" and part[measure].max() > 20 * part[measure].min():
            axes.set_yscale("log")
    legend_below(figure, panels[0], 2)
    figure.suptitle(
        "Does the published chain come nearer to the density that it claims when it runs longer?", fontsize=FONT
    )
    save(figure, path)


def _lines(axes: Axes, part: pd.DataFrame, measure: str, place: Callable[[pd.DataFrame], Iterable[float]]) -> None:
    """A line with Monte Carlo error bars for each coreset."""
    for name, mine in part.groupby("name", sort=False):
        look = style_of(str(mine["method"].iloc[0]), list(part["method"].unique()))
        found = [_over_chains(values) for _, values in mine.groupby("step", sort=False)[measure]]
        axes.errorbar(
            list(place(mine)), [m.mean for m in found], yerr=[m.std for m in found],
            color=look.color, marker=look.marker, ms=4.5, linewidth=1.4, capsize=2.5, label=_label(part, str(name)),
        )  # fmt: skip


def _label(part: pd.DataFrame, name: str, ending: str = "") -> str:
    """A coreset's in the legend: coresets of one method and size look the same and have one line there."""
    mine = part[part["name"] == name].iloc[0]
    alike = part.loc[(part["method"] == mine["method"]) & (part["ipc"] == mine["ipc"]), "name"].unique()
    if len(alike) == 1:
        return name + ending
    first = f"{name.rpartition(',')[0]}, {len(alike)} coresets{ending}"
    return first if name == alike[0] else "_" + first  # matplotlib's sign for what has no line in a legend
