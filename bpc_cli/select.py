"""`run.py select`: a coreset of real points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bpc_cli.flags import AtLeast, DataFlags, ExpertFlags, NetworkFlags, RunFlags, flag, group, names
from bpc_cli.setting import experts_for, prepare, short_hash

__all__ = ["Select", "run_select"]


@dataclass(frozen=True, kw_only=True)
class Select:
    """Choose real points: at random, by a trained network's features (herding, k-center) or its gradients (CRAIG, AdaCore)."""

    method: Annotated[
        str,
        flag(
            """How to choose. The points of craig and adacore are weighted by how many of their class each stands for.""",
            names("selection"),
        ),
    ]
    ipc: Annotated[int, flag("Images per class.", "INT"), AtLeast(1)]
    data: Annotated[DataFlags, group("Which images are chosen from.")] = DataFlags()
    network: Annotated[NetworkFlags, group("The network whose features or gradients choose.")] = NetworkFlags()
    experts: Annotated[ExpertFlags, group("Its training (one expert is enough; random needs none).")] = ExpertFlags()
    where: Annotated[RunFlags, group("Where things are kept, and how a run goes on.")] = RunFlags()


EXAMPLES = """\
run.py select --dataset digits --method herding --ipc 1
run.py select --method random --ipc 10 --seed 3                            CIFAR-10; no network is trained
run.py select --method craig --ipc 10 --width 32 --epochs 8                by a narrow network's gradients"""


def run_select(args: Select) -> Path:
    """Choose, save, draw; returns the coreset's file."""
    from bpc.data import default_settings
    from bpc.runs import Run, check_folder, default_out
    from bpc.seeding import make_generator
    from bpc.selection import SELECTIONS, build_coreset, class_members, last_layer_gradients, select
    from bpc_cli.show import draw_coreset
    from evaluation.features import trained_features, trained_logits

    if args.where.out is not None:
        check_folder(args.where.out)  # before experts are trained
    looks_at = SELECTIONS.get(args.method).looks_at
    setting = prepare(args.data, args.network, args.where, args.experts.augment)
    dataset, labels, seed = setting.dataset, setting.dataset.train.labels.cpu(), args.data.seed
    class_members(
        labels, dataset.num_classes, args.ipc
    )  # refuses an ipc that a class has not, before a network is trained
    features, source = None, ""
    if looks_at != "nothing":
        needed = args.experts.epochs or default_settings(args.data.dataset).epochs
        store, count = experts_for(
            args.data, args.experts, args.where, setting, needed=needed, count=args.experts.num_experts or 1
        )
        expert = seed % count
        params = store.snapshots(expert, needed, needed).to(setting.device)
        if looks_at == "gradients":
            features = last_layer_gradients(trained_logits(setting.network, params, dataset), labels)
        else:
            features = trained_features(setting.network, params, dataset)
        source = f"expert {expert} of {store.path.name} at epoch {needed}"
    config = {**setting.config, "method": args.method, "ipc": args.ipc, "features": source}
    out = args.where.out or default_out(
        "select", dataset.name, args.method, f"ipc{args.ipc}", short_hash({"job": "select", **config})
    )
    with Run(out, "select", config, setting.device, seed=seed, resume=args.where.resume) as run:
        chosen = select(
            args.method,
            labels,
            args.ipc,
            dataset.num_classes,
            features=features,
            generator=make_generator("cpu", seed, "select", args.method),
        )
        coreset = build_coreset(dataset, chosen, method=args.method, seed=seed, config_hash=run.hash)
        more = {"features": source, "class_names": dataset.class_names}
        coreset = coreset.replace(provenance={**coreset.provenance, **more})
        coreset.save(run.file("coreset.safetensors"))
        draw_coreset(run, coreset)
        run.record("done")
    return out / "coreset.safetensors"
