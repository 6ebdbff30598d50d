"""`run.py study`: studies where the truth is known, and of the published chain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bpc_cli.flags import AtLeast, DataFlags, NetworkFlags, PlaceFlags, Seed, flag, group, names

__all__ = ["Study", "run_study"]


@dataclass(frozen=True, kw_only=True)
class ChainFlags(PlaceFlags):
    """Only for chain, the study of the published chain."""

    coreset: Annotated[
        tuple[Path, ...],
        flag("Coresets (coreset.safetensors or a run's folder), one block of the tables each.", "PATH ..."),
    ] = ()
    dataset: Annotated[str, flag("Whose test images are scored.", names("dataset"))] = "cifar10"
    validation_fraction: Annotated[
        float, flag("Score on this fraction of the training images, held out, and not on the test set.", "FLOAT")
    ] = 0.0
    protocol: Annotated[
        str,
        flag(
            "Whose settings the published chain has: kim2022, or kim2022-scaled for a network smaller than the published one.",
            "kim2022|kim2022-scaled",
        ),
    ] = "kim2022-scaled"
    reference: Annotated[
        Path | None,
        flag("The full data's posterior, made by run.py reference: adds the total variation to it.", "DIR"),
    ] = None
    chains: Annotated[int, flag("Of every step; their spread is the Monte Carlo error.", "INT"), AtLeast(2)] = 8
    warmup: Annotated[
        int, flag("Draws that exact chains adapt in; the claimed density has twice as many.", "INT"), AtLeast(0)
    ] = 100
    samples: Annotated[int, flag("Draws kept of each exact chain.", "INT"), AtLeast(4)] = 300
    test_images: Annotated[int, flag("Score on this many test images, evenly spaced; 0 is all.", "INT"), AtLeast(0)] = 0


@dataclass(frozen=True, kw_only=True)
class Study:
    """Coresets of models whose posterior is known, with exact divergences; and the published chain, step by step."""

    name: Annotated[tyro.conf.Positional[str], flag("gaussian, linear, logistic or chain.", "NAME")]
    out: Annotated[Path | None, flag("Where tables and figures go. Default: runs/study-NAME.", "DIR")] = None
    repeats: Annotated[int, flag("Independent coresets per size.", "INT"), AtLeast(1)] = 3
    seed: Seed = 0
    chain: Annotated[ChainFlags, group("Only for chain, the study of the published chain.")] = ChainFlags()
    network: Annotated[NetworkFlags, group("Only for chain: the network.")] = NetworkFlags()


EXAMPLES = """\
run.py study gaussian        Gaussian data, three divergences in closed form (Kim et al. 2022, Figures 6 and 7)
run.py study linear          Bayesian linear regression on the diabetes data
run.py study logistic        Bayesian logistic regression on the breast-cancer data
run.py study chain --dataset digits --width 8 --coreset a/ b/     from the published chain to the exact posterior"""


def run_study(args: Study) -> Path:
    """Run it and print its tables; returns the folder."""
    from bpc.errors import ConfigError, unknown_name
    from bpc.progress import progress
    from bpc.runs import default_out
    from bpc_cli.show import print_tables
    from evaluation.studies import STUDIES

    if args.name == "chain":
        return _run_chain(args)
    if args.name not in STUDIES:
        raise unknown_name("study", args.name, [*STUDIES, "chain"])
    if args.chain != ChainFlags() or args.network != NetworkFlags():
        raise ConfigError(
            f"The study {args.name} has no coresets, chains or network to choose; they are of run.py study chain."
        )
    out = args.out or default_out("study", args.name)
    study = STUDIES[args.name]
    with progress(study.what, 1) as report:
        found = study.run(
            out,
            seed=args.seed,
            repeats=args.repeats,
            report=lambda done, total, note: report.update(done, note, total=total),
        )
    print_tables(*found.tables)
    return out


def _run_chain(args: Study) -> Path:
    """The study of the published chain; returns its folder."""
    from bpc.coreset import check_coreset, load_coreset
    from bpc.errors import ConfigError, unknown_name
    from bpc.progress import progress, say
    from bpc.runs import default_out, device_name
    from bpc.samplers import ExactSettings
    from bpc_cli.setting import prepare
    from bpc_cli.show import print_tables
    from evaluation.inputs import Inputs
    from evaluation.predictive import pick_images
    from evaluation.reference import load_reference
    from evaluation.studies.chain import ChainStudy
    from evaluation.studies.chain_report import run_chain_study

    flags = args.chain
    if not flags.coreset:
        raise ConfigError("The study chain needs coresets: --coreset PATH ..., from run.py distill or select.")
    if flags.protocol not in ("kim2022", "kim2022-scaled"):
        raise unknown_name("protocol", flags.protocol, ("kim2022", "kim2022-scaled"))
    study = ChainStudy(
        protocol=flags.protocol,
        chains=flags.chains,
        exact=ExactSettings(chains=flags.chains, warmup=flags.warmup, samples=flags.samples),
        claimed_warmup=2 * flags.warmup,
        claimed_samples=flags.samples,
        test_images=flags.test_images,
    )
    coresets = [load_coreset(path) for path in flags.coreset]
    data = DataFlags(dataset=flags.dataset, validation_fraction=flags.validation_fraction, seed=args.seed)
    setting = prepare(data, args.network, flags)
    for coreset in coresets:
        check_coreset(coreset, setting.dataset, setting.network)
    reference = None
    if flags.reference is not None:
        made = load_reference(flags.reference, setting.network, setting.dataset)
        made.warn()
        picked = pick_images(setting.dataset.test, flags.test_images)
        reference = made.predictive(0, Inputs("test", picked))
    out = args.out or default_out("study", "chain", setting.dataset.name, setting.network.name)
    with progress("The published chain", 1) as report:
        found = run_chain_study(
            out, setting.network, setting.dataset, coresets, study,
            seed=args.seed, reference=reference, device=device_name(setting.device),
            report=lambda done, total, note: report.update(done, note, total=total),
        )  # fmt: skip
    say(f"Rows, tables and figures are in {out}.")
    print_tables(*found.tables)
    return out
