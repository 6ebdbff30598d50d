"""Published tables and figures as studies: which commands of run.py make them, at which scale, and how their rows are tabulated.

A study is a list of commands, each of which skips what is done, so a study is resumed by calling it again; or a function, where
the truth is known in closed form. Nothing here runs anything: `run.py reproduce` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bpc.errors import unknown_name
from bpc.files import write_atomic
from evaluation.compare import load_runs
from evaluation.published import load_published
from evaluation.ssl.studies import SSL_SCALES, table1
from evaluation.vae.studies import VAE_PLANS, VAE_SCALES, VaeScale

__all__ = ["SCALES", "TARGETS", "Scale", "Target", "commands", "find_target", "tabulate"]

LEARNED = ("fkl", "rkl", "wasserstein")
SELECTED = ("random", "herding", "kcenter", "craig", "adacore")
Command = list[str]


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
        plan: (scale, out, common flags) -> commands, in order; None for a closed-form study.
        own_plan: (name of the scale, out, common flags) -> commands, for a paper with scales of its own.
        study: name of the function in `evaluation.studies`, for those.
        variants: whether settings of one method are compared: then folders below ``scores/`` become a table's rows.
        published: table of `evaluation.published` to stand beside variants, by the variant's name.
    """

    what: str
    plan: Callable[[Scale, Path, Command], Iterator[Command]] | None = None
    own_plan: Callable[[str, Path, Command], Iterator[Command]] | None = None
    study: str = ""
    variants: bool = False
    published: dict[str, tuple[str, str]] = field(default_factory=dict)


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
    from dataclasses import replace

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


def _vae(
    plan: Callable[[VaeScale, Path, Command], Iterator[Command]],
) -> Callable[[str, Path, Command], Iterator[Command]]:
    return lambda scale, out, common: plan(VAE_SCALES[scale], out, common)


TARGETS = {
    "kim2022-table1": Target(what="Table 1: three divergences and random, HMC and A-SGHMC", plan=_table1),
    "kim2022-table4": Target(
        what="Table 4 (C.1): Wasserstein with equal and with diagonal covariances, A-SGHMC",
        plan=_table4,
        variants=True,
        published={
            "W-1": ("BPC-W", "1"),
            "W-10": ("BPC-W", "10"),
            "W-diagonal-1": ("BPC-W with diagonal covariances", "1"),
            "W-diagonal-10": ("BPC-W with diagonal covariances", "10"),
        },
    ),
    "kim2022-table6": Target(what="Table 6: herding and k-center, ECE and Brier score, HMC", plan=_table6),
    "kim2022-table7": Target(what="Table 7: CIFAR-100 and ImageNette, 1 image per class (smoke: digits)", plan=_table7),
    "kim2022-fig4": Target(what="Figure 4: forward KL and Wasserstein on CIFAR-10-C, HMC and A-SGHMC", plan=_figure4),
    "kim2022-fig5": Target(
        what="Figure 5 (C.2): number and standard deviations of the Gaussian draws of forward KL",
        plan=_figure5,
        variants=True,
    ),
    "kim2022-fig6": Target(what="Figures 6 and 7 (C.5): Gaussian data, divergences in closed form", study="gaussian"),
    "kim2022-fig7": Target(what="the same study as kim2022-fig6", study="gaussian"),
    "regression-linear": Target(
        what="Bayesian linear regression (diabetes), weighted points by reverse KL, exact KL", study="linear"
    ),
    "regression-logistic": Target(
        what="Bayesian logistic regression (breast cancer), weighted points by reverse KL, KL by cubature",
        study="logistic",
    ),
    **{name: Target(what=what, own_plan=_vae(plan)) for name, (what, plan) in VAE_PLANS.items()},
    "pooladzandi2022-table1": Target(
        what="Table 1: few labels and generated images, by filter and selection (smoke: digits, cpu: MNIST, full: SVHN)",
        own_plan=lambda scale, out, common: table1(SSL_SCALES[scale], out, common),
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


def commands(target: Target, scale: str, out: Path, common: Command) -> list[Command]:
    """Every run.py command of a study, in order.

    Raises:
        ConfigError: an unknown scale.
    """
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    if target.own_plan is not None:
        return list(target.own_plan(scale, out, common))
    return [] if target.plan is None else list(target.plan(SCALES[scale], out, common))


def tabulate(target: Target, out: Path) -> pd.DataFrame:
    """The scored variants of one method: a row for each, with the published numbers where the paper has them.

    Returns:
        Columns setting, dataset, sampler, protocol, metric, mean, std, n, published, published_std; written to
        ``variants.csv`` and ``variants.md`` in `out`.
    """
    published = load_published()
    records = []
    for folder in sorted(p for p in (out / "scores").iterdir() if (p / "rows.csv").is_file()):
        rows = load_runs([folder])
        for (dataset, sampler, protocol, metric), group in rows.groupby(["dataset", "sampler", "protocol", "metric"]):
            if metric not in ("accuracy", "nll", "nll_kim2022", "ece", "brier"):
                continue
            record = {"setting": folder.name, "dataset": dataset, "sampler": sampler, "protocol": protocol}
            record |= {"metric": metric, "mean": group["value"].mean(), "std": group["value"].std(), "n": len(group)}
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
    table = pd.DataFrame(records)
    for name in ("published", "published_std"):
        if name not in table:
            table[name] = float("nan")
    write_atomic(out / "variants.csv", lambda stream: stream.write(table.to_csv(index=False).encode()))
    write_atomic(out / "variants.md", lambda stream: stream.write(_markdown(table, target).encode()))
    return table


def _markdown(table: pd.DataFrame, target: Target) -> str:
    def cell(row: pd.Series, value: str, spread: str) -> str:
        return (
            ""
            if pd.isna(row[value])
            else f"{row[value]:.4f}" + ("" if pd.isna(row[spread]) else f" ± {row[spread]:.4f}")
        )

    metrics = list(dict.fromkeys(table["metric"]))
    printed = [m for m in metrics if table.loc[table["metric"] == m, "published"].notna().any()]
    header = ["setting", *(x for m in metrics for x in ([m, "published"] if m in printed else [m]))]
    place = table.iloc[0]
    lines = [
        f"# {target.what}",
        "",
        f"{place['dataset']}, sampler {place['sampler']}, protocol {place['protocol']}; mean ± standard deviation over "
        f"{place['n']} chains (seeds) on one learned coreset each.",
        "",
        "| " + " | ".join(header) + " |",
        "|:--|" + "--:|" * (len(header) - 1),
    ]
    for setting, rows in table.groupby("setting", sort=False):
        by = {row["metric"]: row for _, row in rows.iterrows()}
        cells = [str(setting)]
        for m in metrics:
            cells.append(cell(by[m], "mean", "std"))
            cells.extend([cell(by[m], "published", "published_std")] if m in printed else [])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
