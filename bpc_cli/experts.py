"""`run.py experts`: train and store trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bpc_cli.flags import DataFlags, ExpertFlags, NetworkFlags, RunFlags, group
from bpc_cli.setting import experts_for, prepare

__all__ = ["Experts", "run_experts"]


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Train expert SGD trajectories and store a snapshot after every epoch; run again to extend or resume.

    Training goes on where the store ends: the same command with more --num-experts or --epochs extends it.
    """

    data: Annotated[DataFlags, group("Which images they are trained on.")] = DataFlags()
    network: Annotated[NetworkFlags, group("Which network.")] = NetworkFlags()
    experts: Annotated[ExpertFlags, group("How many trajectories, and how they are trained.")] = ExpertFlags()
    where: Annotated[RunFlags, group("Where they are kept (--out is another name for --experts here).")] = RunFlags()


EXAMPLES = """\
run.py experts --dataset digits                                            10 experts of 6 epochs, seconds
run.py experts --dataset cifar10 --width 32 --num-experts 4 --epochs 8     a small machine
run.py experts --dataset cifar10 --width 32 --expert-init prior            from where the published chains start
run.py experts --dataset cifar10 --num-experts 100 --epochs 50             as published, on a GPU"""


def run_experts(args: Experts) -> Path:
    """Train what is missing; returns the store's folder."""
    from bpc.data import default_settings
    from bpc.progress import plural, say
    from bpc_cli.patience import ask_patience, smaller_experts

    usual = default_settings(args.data.dataset)
    setting = prepare(args.data, args.network, args.where, args.experts.augment)
    epochs = args.experts.epochs or usual.epochs
    store, count = experts_for(
        args.data,
        args.experts,
        args.where,
        setting,
        needed=epochs,
        count=args.experts.num_experts or usual.num_experts,
        path=args.experts.experts or args.where.out,
        start_over=not args.where.resume,
        before=lambda seconds: ask_patience(
            seconds, setting.device, args.experts.yes, lambda: smaller_experts(setting, args.data, args.where)
        ),
    )
    last = [store.journal(e)[epochs] for e in range(count)]
    mean = sum(r["test_accuracy"] for r in last) / len(last)
    say(
        f"{plural(count, 'expert')} of {plural(epochs, 'epoch')} in {store.path}; test accuracy of the last snapshots {mean:.3f}."
    )
    return Path(store.path)
