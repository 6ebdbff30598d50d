"""Published tables and figures as plans: which commands of run.py make them, at which scale, and how their rows are tabulated.

Every command skips what is done, so a plan is resumed by calling it again. Nothing here runs anything: `run.py reproduce` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from bpc.errors import unknown_name
from bpc.files import write_text
from evaluation.compare import load_runs, moments_of
from evaluation.moments import Moments, moments
from evaluation.plan import Command, Step, plan_of
from evaluation.published import load_published
from evaluation.ssl.studies import SSL_SCALES, table1
from evaluation.table import Cell, Column, Table, TableRow, tables_to_markdown
from evaluation.tables import METRIC_COLUMNS, PUBLISHED
from evaluation.vae.studies import VAE_PLANS, VAE_SCALES, VaeScale

__all__ = ["SCALES", "TARGETS", "Scale", "Target", "demo_plan", "find_target", "tabulate", "variants"]

LEARNED = ("fkl", "rkl", "wasserstein")
SELECTED = ("random", "herding", "kcenter", "craig", "adacore")
VARIANT_METRICS = ("accuracy", "nll", "nll_kim2022", "ece", "brier")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done; None leaves a published setting alone."""

    dataset: str
    width: int | None
    num_experts: int
    epochs: int
    ipcs: tuple[int, ...]
    seeds: int
    protocol: str
    test_images: int = 0
    steps: dict[int, int] = field(default_factory=dict)
    max_start_epoch: dict[int, int] = field(default_factory=dict)
    corruption_images: int = 0
    grid: tuple[float, ...] = (0.0, 1e-5, 1e-3, 1e-2, 1e-1)  # C.2's standard deviations
    draws: tuple[int, ...] = (1, 10, 30, 50)  # and its S


SCALES = {
    # digits with its own preset: minutes, and not the paper's job
    "smoke": Scale(
        dataset="digits",
        width=None,
        num_experts=10,
        epochs=6,
        ipcs=(1,),
        seeds=5,
        protocol="kim2022-scaled",
        corruption_images=100,
        grid=(0.0, 1e-3, 1e-2, 1e-1),
    ),
    # CIFAR-10 on two cores: hours, smaller in everything
    "cpu": Scale(
        dataset="cifar10",
        width=32,
        num_experts=4,
        epochs=8,
        ipcs=(10, 1),
        seeds=5,
        protocol="kim2022-scaled",
        test_images=2000,
        steps={1: 300, 10: 200},
        max_start_epoch={1: 2, 10: 6},
        corruption_images=100,
        grid=(0.0, 1e-2),
        draws=(1, 30),
    ),
    "full": Scale(
        dataset="cifar10", width=None, num_experts=100, epochs=50, ipcs=(1, 10, 20), seeds=10, protocol="kim2022"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One published table or figure.

    Attributes:
        what: in a line.
        commands: (name of the scale, folder, common flags) -> commands, in an order that works.
        published: rows of Table 4 of `evaluation.published` to stand beside variants of one method, by the variant's name.
    """

    what: str
    commands: Callable[[str, Path, Command], Iterable[Command | tuple[str, Command]]]
    published: dict[str, tuple[str, str]] = field(default_factory=dict)

    def steps(self, scale: str, out: Path, common: Command) -> list[Step]:
        """The plan at a scale.

        Raises:
            ConfigError: an unknown scale.
        """
        if scale not in SCALES:
            raise unknown_name("scale", scale, SCALES)
        return plan_of(self.commands(scale, out, common))


def _network(scale: Scale) -> Command:
    return ["--dataset", scale.dataset, *(["--width", str(scale.width)] if scale.width else [])]


def _experts(scale: Scale, out: Path) -> Command:
    return [
        *("--experts", str(out / "experts"), "--num-experts", str(scale.num_experts)),
        *("--epochs", str(scale.epochs), *_network(scale)),
    ]


def _distil(scale: Scale, out: Path, common: Command, method: str, ipc: int, name: str, *extra: str) -> Command:
    options = ["--steps", str(scale.steps[ipc])] if ipc in scale.steps else []
    options += ["--max-start-epoch", str(scale.max_start_epoch[ipc])] if ipc in scale.max_start_epoch else []
    where = ["--out", str(out / "coresets" / name), "--no-evaluate"]
    return [
        "distill",
        "--divergence",
        method,
        "--ipc",
        str(ipc),
        *options,
        *extra,
        *where,
        *_experts(scale, out),
        *common,
    ]


def _score(
    scale: Scale, out: Path, common: Command, coresets: Sequence[str], sampler: str, name: str, *extra: str
) -> Command:
    paths = [str(out / "coresets" / coreset) for coreset in coresets]
    options = ["--sampler", sampler, "--protocol", scale.protocol, "--seeds", str(scale.seeds), "--no-table"]
    options += ["--test-images", str(scale.test_images), *_network(scale), *extra, *common]
    return ["evaluate", "--coreset", *paths, *options, "--out", str(out / "scores" / name)]


def _baseline(scale: Scale, out: Path, common: Command, method: str, ipc: int) -> tuple[list[str], list[Command]]:
    names = [f"{method}-{ipc}-{seed}" for seed in range(scale.seeds if method == "random" else 1)]
    made = []
    for seed, name in enumerate(names):
        where = ["--seed", str(seed), "--out", str(out / "coresets" / name)]
        made.append(["select", "--method", method, "--ipc", str(ipc), *where, *_experts(scale, out), *common])
    return names, made


def _comparison(
    scale: Scale,
    out: Path,
    common: Command,
    *,
    ipcs: Sequence[int],
    samplers: Sequence[str],
    baselines: Sequence[str] = (),
    learned: Sequence[str] = LEARNED,
    extra: Sequence[str] = (),
) -> Iterator[Command]:
    """Learned coresets and chosen ones of each size, by each sampler, in one comparison."""
    yield ["experts", *_experts(scale, out), *common]
    for ipc in ipcs:
        made: dict[str, list[str]] = {}
        for method in learned:
            made[method] = [f"{method}-{ipc}"]
            yield _distil(scale, out, common, method, ipc, made[method][0])
        for method in baselines:
            made[method], chosen = _baseline(scale, out, common, method, ipc)
            yield from chosen
        for sampler in samplers:
            for method, coresets in made.items():
                yield _score(scale, out, common, coresets, sampler, f"{method}-{ipc}-{sampler}", *extra)
    yield ["compare", str(out / "coresets"), str(out / "scores"), "--out", str(out / "comparison")]


def _table1(scale: Scale, out: Path, common: Command) -> Iterator[Command]:
    yield from _comparison(scale, out, common, ipcs=scale.ipcs, samplers=("hmc", "asghmc"), baselines=SELECTED)


def _table4(scale: Scale, out: Path, common: Command) -> Iterator[Command]:
    yield ["experts", *_experts(scale, out), *common]
    for ipc in [k for k in scale.ipcs if k < 20]:
        variants: dict[str, tuple[str, ...]] = {f"W-{ipc}": (), f"W-diagonal-{ipc}": ("--diagonal",)}
        for name, extra in variants.items():
            yield _distil(scale, out, common, "wasserstein", ipc, name, *extra)
            yield _score(scale, out, common, [name], "asghmc", name)


def _table6(scale: Scale, out: Path, common: Command) -> Iterator[Command]:
    ipc = 10 if 10 in scale.ipcs else scale.ipcs[-1]
    yield from _comparison(scale, out, common, ipcs=(ipc,), samplers=("hmc",), baselines=SELECTED)


def _table7(scale: Scale, out: Path, common: Command) -> Iterator[Command]:
    small = scale.dataset == "digits"
    for dataset in ("digits",) if small else ("cifar100", "imagenette"):
        mine = replace(scale, dataset=dataset)
        yield from _comparison(
            mine, out / dataset, common, ipcs=(1,), samplers=("hmc",), baselines=("random",), extra=()
        )


def _figure4(scale: Scale, out: Path, common: Command) -> Iterator[Command]:
    ipc = 10 if 10 in scale.ipcs else scale.ipcs[-1]
    extra = ("--corruptions", "--corruption-images", str(scale.corruption_images))
    yield from _comparison(
        scale, out, common, ipcs=(ipc,), samplers=("hmc", "asghmc"), baselines=("random",),
        learned=("fkl", "wasserstein"), extra=extra,
    )  # fmt: skip


def _figure5(scale: Scale, out: Path, common: Command) -> Iterator[Command]:
    ipc = 10 if 10 in scale.ipcs and scale.dataset != "digits" else scale.ipcs[-1]
    yield ["experts", *_experts(scale, out), *common]
    settings: dict[str, tuple[str, ...]] = {f"S={s}": ("--draws", str(s)) for s in scale.draws}
    for core in scale.grid:
        for expert in scale.grid:
            settings[f"sigma_u={core:g}, sigma_x={expert:g}"] = (
                "--sigma-core",
                str(core),
                "--sigma-expert",
                str(expert),
            )
    for name, extra in settings.items():
        folder = name.replace(", ", "-").replace("=", "")
        yield _distil(scale, out, common, "fkl", ipc, folder, *extra)
        yield _score(scale, out, common, [folder], "hmc", folder)


def _kim2022(
    plan: Callable[[Scale, Path, Command], Iterator[Command]], tabulated: str = ""
) -> Callable[[str, Path, Command], Iterator[Command]]:
    """A plan at one of `SCALES`; `tabulated` is the target's name where the variants of one method become a table."""

    def commands(scale: str, out: Path, common: Command) -> Iterator[Command]:
        yield from plan(SCALES[scale], out, common)
        if tabulated:
            yield ["tabulate", tabulated, f"{out}/"]

    return commands


def _vae(
    plan: Callable[[VaeScale, Path, Command], Iterator[Command]],
) -> Callable[[str, Path, Command], Iterator[Command]]:
    return lambda scale, out, common: plan(VAE_SCALES[scale], out, common)


def _study(name: str) -> Callable[[str, Path, Command], list[Command]]:
    """A study where the truth is known: independent coresets per size by scale."""
    repeats = {"smoke": "1", "cpu": "3", "full": "10"}
    return lambda scale, out, common: [["study", name, "--repeats", repeats[scale], "--out", f"{out}/"]]


def _demo(scale: str, out: Path, common: Command, seed: int = 0) -> Iterator[tuple[str, Command]]:
    """Five independent coresets of each kind, one chain each: the spread is over everything that is random."""
    digits = ["--dataset", "digits", *common]
    experts = ["--experts", str(out / "experts"), "--num-experts", "10", "--epochs", "6"]
    made: dict[str, list[str]] = {}

    def coreset(method: str, number: int) -> Command:
        path = str(out / "coresets" / f"{method}-{number}")
        made.setdefault(method, []).append(path)
        return ["--ipc", "1", "--seed", str(number), "--out", path, *digits, *experts]

    yield "1. Experts:      run.py experts --dataset digits --num-experts 10 --epochs 6", ["experts", *digits, *experts]
    for place, method in enumerate(LEARNED, start=2):
        stage = f"{place}. Pseudocoreset: run.py distill --dataset digits --divergence {method} --ipc 1 --seed 0 .. 4"
        for number in range(seed, seed + 5):
            yield stage, ["distill", "--divergence", method, "--no-evaluate", *coreset(method, number)]
    names = "|".join(SELECTED)
    stage = f"5. Baselines:    run.py select --dataset digits --method {names} --ipc 1 --seed 0 .. 4"
    for method in SELECTED:
        for number in range(seed, seed + 5):
            yield stage, ["select", "--method", method, *coreset(method, number)]
    stage = (
        "6. Scores:       run.py evaluate --dataset digits --coreset ... --sampler hmc|asghmc --protocol kim2022-scaled"
    )
    # Table 3's 20 iterations at ipc 1 end long before A-SGHMC has mixed here: it gets the 100 of the other rows
    for sampler, length in {"hmc": [], "asghmc": ["--iterations", "100", "--burn-in", "50"]}.items():
        for method, paths in made.items():
            options = ["--protocol", "kim2022-scaled", "--seed", str(seed), "--seeds", "5", "--no-table", *length]
            where = ["--out", str(out / "scores" / f"{method}-{sampler}")]
            yield stage, ["evaluate", "--coreset", *paths, "--sampler", sampler, *options, *where, *digits]
    where = ["--out", str(out / "comparison"), "--title", "Demo"]
    yield "7. Comparison:   run.py compare demo", ["compare", str(out / "coresets"), str(out / "scores"), *where]


def demo_plan(out: Path, seed: int, common: Sequence[str]) -> list[Step]:
    """The plan of `run.py demo`."""
    return plan_of(_demo("smoke", out, list(common), seed))


TARGETS = {
    "demo": Target(what="what run.py demo does: every method on digits, HMC and A-SGHMC", commands=_demo),
    "kim2022-table1": Target(what="Table 1: three divergences and random, HMC and A-SGHMC", commands=_kim2022(_table1)),
    "kim2022-table4": Target(
        what="Table 4 (C.1): Wasserstein with equal and with diagonal covariances, A-SGHMC",
        commands=_kim2022(_table4, "kim2022-table4"),
        published={
            "W-1": ("BPC-W", "1"),
            "W-10": ("BPC-W", "10"),
            "W-diagonal-1": ("BPC-W with diagonal covariances", "1"),
            "W-diagonal-10": ("BPC-W with diagonal covariances", "10"),
        },
    ),
    "kim2022-table6": Target(
        what="Table 6: herding and k-center, ECE and Brier score, HMC", commands=_kim2022(_table6)
    ),
    "kim2022-table7": Target(
        what="Table 7: CIFAR-100 and ImageNette, 1 image per class (smoke: digits)", commands=_kim2022(_table7)
    ),
    "kim2022-fig4": Target(
        what="Figure 4: forward KL and Wasserstein on CIFAR-10-C, HMC and A-SGHMC", commands=_kim2022(_figure4)
    ),
    "kim2022-fig5": Target(
        what="Figure 5 (C.2): number and standard deviations of the Gaussian draws of forward KL",
        commands=_kim2022(_figure5, "kim2022-fig5"),
    ),
    "kim2022-fig6": Target(
        what="Figures 6 and 7 (C.5): Gaussian data, divergences in closed form", commands=_study("gaussian")
    ),
    "kim2022-fig7": Target(what="the same study as kim2022-fig6", commands=_study("gaussian")),
    "regression-linear": Target(
        what="Bayesian linear regression (diabetes), weighted points by reverse KL, exact KL",
        commands=_study("linear"),
    ),
    "regression-logistic": Target(
        what="Bayesian logistic regression (breast cancer), weighted points by reverse KL, KL by cubature",
        commands=_study("logistic"),
    ),
    **{name: Target(what=what, commands=_vae(plan)) for name, (what, plan) in VAE_PLANS.items()},
    "pooladzandi2022-table1": Target(
        what="Table 1: few labels and generated images, by filter and selection (smoke: digits, cpu: MNIST, full: SVHN)",
        commands=lambda scale, out, common: table1(SSL_SCALES[scale], out, common),
    ),
}


def find_target(name: str) -> Target:
    """The target of a name.

    Raises:
        ConfigError: unknown.
    """
    if name not in TARGETS:
        raise unknown_name("target", name, TARGETS)
    return TARGETS[name]


def tabulate(target: Target, out: Path) -> list[Table]:
    """The scored variants of one method: a row for each, with the published numbers where the paper has them.

    Returns:
        A table for each dataset, sampler and protocol, as in ``variants.md``. ``variants.csv`` has the columns setting, dataset,
        sampler, protocol, metric, mean, std, n, n_nonfinite, mean_finite (`evaluation.moments`), published, published_std.
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
    chains = " to ".join(dict.fromkeys(f"{n:,}" for n in (part["n"].min(), part["n"].max())))
    note = f"Mean ± standard deviation over {chains} chains (seeds) on one learned coreset each."
    return Table(
        caption=caption,
        columns=tuple(columns),
        blocks=(tuple(lines),),
        notes=(note,),
        repeats="chains",
    )
