"""`run.py evaluate`: score coresets by MCMC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bpc_cli.flags import DataFlags, ExactFlags, NetworkFlags, RunFlags, ScoringFlags, Yes, flag, group, names
from bpc_cli.scoring import scoring_plan
from bpc_cli.setting import prepare, scale_note, short_hash

__all__ = ["Evaluate", "run_evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score coresets by MCMC: one row per seed and metric in rows.csv, and a table."""

    coreset: Annotated[
        tuple[Path, ...], flag("A coreset.safetensors or a run's folder; several: one per seed.", "PATH ...")
    ]
    sampler: Annotated[
        str,
        flag(
            """hmc; asghmc, altered SGHMC (the coreset is augmented anew for every gradient; kim2022 only); exact
            only: nuts, sghmc, and for posteriors of several modes pt (parallel tempering) and smc.""",
            names("sampler"),
        ),
    ] = "hmc"
    backend: Annotated[
        str,
        flag(
            """exact: who samples. Pyro and hamiltorch get the same density, and need their packages (run.py doctor).""",
            names("backend"),
        ),
    ] = "native"
    augment: Annotated[
        str | None,
        flag(
            """asghmc: its augmentation. Default: the one the coreset was learned with, else
            color_crop_cutout_flip_scale_rotate (crop_scale_rotate on digits).""",
            "OP_OP|none",
        ),
    ] = None
    table: Annotated[bool, flag("Print the table.")] = True
    yes: Yes = False
    data: Annotated[DataFlags, group("Which images it is scored on.")] = DataFlags()
    network: Annotated[NetworkFlags, group("The network whose posterior is sampled.")] = NetworkFlags()
    scoring: Annotated[ScoringFlags, group("How it is scored.")] = ScoringFlags()
    exact: Annotated[ExactFlags, group("Only under --protocol exact and exact-scaled.")] = ExactFlags()
    where: Annotated[RunFlags, group("Where things are kept, and how a run goes on.")] = RunFlags()


EXAMPLES = """\
run.py evaluate --dataset digits --coreset runs/select-digits-random-ipc1-* --protocol kim2022-scaled
run.py evaluate --coreset a/ b/ c/ --sampler asghmc                        three coresets, one seed each
run.py evaluate --dataset digits --coreset a/ --protocol exact-scaled      fidelity to the full data's posterior"""


def run_evaluate(args: Evaluate) -> Path:
    """Score and tabulate; returns rows.csv."""
    from bpc.augment import AUGMENT_NONE
    from bpc.coreset import check_coreset, load_coreset
    from bpc.data import default_settings
    from bpc.progress import say
    from bpc.runs import Run, default_out
    from bpc_cli.show import show_table
    from evaluation.compare import method_label

    coresets = [load_coreset(path) for path in args.coreset]
    seed = args.data.seed
    plan = scoring_plan(
        args.scoring,
        args.exact,
        args.sampler,
        ipcs=sorted({coreset.ipc for coreset in coresets}),
        seed=seed,
        coresets=len(coresets),
        backend=args.backend,
    )
    setting = prepare(args.data, args.network, args.where, args.augment)
    plan.check(setting)
    for coreset in coresets:
        check_coreset(coreset, setting.dataset, setting.network)
    first = coresets[0]
    trained_with = str(first.provenance.get("augment", AUGMENT_NONE))
    if args.augment is None:
        usual = default_settings(args.data.dataset).sampler_augment
        setting = setting.with_augment(usual if trained_with == AUGMENT_NONE else trained_with)
    config = {
        **setting.config,
        "coreset": [fingerprint(path) for path in args.coreset],
        "method": first.method,
        "ipc": first.ipc,
        "augment": trained_with,
        "sampler_augment": setting.augment_name if plan.augments else AUGMENT_NONE,
        "evaluation": plan.record(),
    }
    out = args.where.out or default_out(
        "evaluate", setting.dataset.name, first.method, f"ipc{first.ipc}", plan.config.sampler, plan.config.protocol,
        short_hash({"job": "evaluate", **config}),
    )  # fmt: skip
    training = first.provenance.get("training", "")
    learned = f"{first.method} ipc {first.ipc} learned with {training}" if training else ""
    others = sorted({c.dataset for c in coresets} - {setting.dataset.name})
    elsewhere = f"coreset made for {' and '.join(others)}" if others else ""
    scale = scale_note(setting, elsewhere, learned, *plan.notes())
    with Run(out, "evaluate", config, setting.device, seed=seed, resume=args.where.resume, scale=scale) as run:
        if run.done:
            say(f"{out} holds this run already, finished.")
        else:
            beside_random = plan.is_exact and args.exact.beside_random
            plan.score(setting, run, coresets, args.where, beside_random=beside_random, yes=args.yes)
            run.record("done", augment=trained_with != AUGMENT_NONE)
    if args.table:
        show_table([out], out / "tables", title=f"{method_label(first.method)} on {setting.dataset.name}")
    return out / "rows.csv"


def fingerprint(path: Path) -> str:
    """A coreset file's content, in 12 hex digits: the same file under another name is the same input."""
    import hashlib

    file = path / "coreset.safetensors" if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
