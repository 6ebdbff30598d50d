"""`run.py distill`: learn a pseudocoreset, then score it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bpc_cli.flags import (
    AtLeast,
    DataFlags,
    ExactFlags,
    ExpertFlags,
    NetworkFlags,
    RunFlags,
    ScoringFlags,
    flag,
    group,
    names,
)
from bpc_cli.learning import LearningFlags
from bpc_cli.scoring import ScoringPlan, scoring_plan
from bpc_cli.setting import Setting, experts_for, prepare, scale_note, short_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from bpc.divergences import Divergence, ExpertWindow, LearnedCoreset
    from bpc.presets import DistillPreset
    from bpc.runs import Run

__all__ = ["Distill", "run_distill"]


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Learn a pseudocoreset, then score it by HMC beside a random coreset of the same size and the published row."""

    divergence: Annotated[
        str,
        flag(
            "Forward KL, reverse KL, or Wasserstein distance between the posteriors of coreset and full data.",
            names("divergence"),
        ),
    ]
    ipc: Annotated[int, flag("Images per class.", "INT"), AtLeast(1)]
    evaluate: Annotated[bool, flag("Score the coreset when it is learned.")] = True
    data: Annotated[DataFlags, group("Which images it stands for.")] = DataFlags()
    network: Annotated[NetworkFlags, group("The network whose posterior is meant.")] = NetworkFlags()
    learning: Annotated[LearningFlags, group("How it is learned; what is not given is the preset's.")] = LearningFlags()
    experts: Annotated[
        ExpertFlags, group("The SGD trajectories it is learned from; they are trained when there are none.")
    ] = ExpertFlags()
    scoring: Annotated[ScoringFlags, group("How it is scored.")] = ScoringFlags()
    exact: Annotated[ExactFlags, group("Only under --protocol exact and exact-scaled.")] = ExactFlags()
    where: Annotated[RunFlags, group("Where things are kept, and how a run goes on.")] = RunFlags()


EXAMPLES = """\
run.py distill --dataset digits --divergence fkl --ipc 1                                      a minute, no file needed
run.py distill --divergence fkl --ipc 1 --width 32 --num-experts 2 --max-start-epoch 2 --steps 100 \\
    --test-images 2000 --protocol kim2022-scaled                                              CIFAR-10 on two cores
run.py distill --divergence wasserstein --ipc 10                                              as published, on a GPU"""


def run_distill(args: Distill) -> Path:
    """Experts if there are none, learning, scores, table; returns the coreset's file."""
    from bpc.augment import AUGMENT_NONE
    from bpc.data import default_settings
    from bpc.distill import initial_coreset
    from bpc.distill_run import WORTH_ESTIMATING
    from bpc.divergences import DIVERGENCES, no_experts
    from bpc.presets import distill_preset
    from bpc.progress import plural, say
    from bpc.runs import Run, check_folder, default_out
    from bpc_cli.patience import ask_patience, learning_seconds, smaller_distill
    from bpc_cli.show import show_table
    from evaluation.compare import method_label

    if args.where.out is not None:
        check_folder(args.where.out)  # before experts are trained
    learning = args.learning
    learning.check(args.divergence)
    usual = default_settings(args.data.dataset).preset
    preset = learning.preset_for(args.divergence, args.ipc, usual, args.scoring.protocol, args.exact)
    plan = scoring_plan(args.scoring, args.exact, "hmc", ipcs=(args.ipc,), seed=args.data.seed)
    setting = prepare(args.data, args.network, args.where, args.experts.augment)
    plan.check(setting)
    divergence = _divergence(args, setting, preset)
    dataset = setting.dataset
    initial = initial_coreset(
        dataset,
        args.ipc,
        source=learning.init,
        total_weight=float(len(dataset.train)) if learning.reduction == "sum" else None,
        seed=args.data.seed,
        soft=learning.label_smoothing if learning.learn_labels else 0.0,
    )

    def patience(seconds: float) -> None:
        begun = args.where.out is not None and (args.where.out / "checkpoint.safetensors").exists()
        if begun or args.experts.yes or setting.device.type != "cpu":
            return
        if preset.steps >= WORTH_ESTIMATING:
            seconds += preset.steps * (learning_seconds(setting, args.divergence, preset, args.ipc) or 0.0)
        ask_patience(
            seconds,
            setting.device,
            False,
            lambda: smaller_distill(setting, args.data, args.where, args.divergence, args.ipc),
        )

    asked = False

    def before(seconds: float) -> None:
        nonlocal asked
        asked = True
        patience(seconds)

    record = DIVERGENCES.get(args.divergence)
    sampled: Callable[[torch.Generator], ExpertWindow]
    if record.experts:
        store, count = experts_for(
            args.data, args.experts, args.where, setting, needed=preset.epochs_needed, before=before
        )
        sampled = store.sampler(preset.max_start_epoch, preset.expert_epochs, setting.device, list(range(count)))
        experts = {**store.meta, "num_experts": count}
    else:
        sampled, count, experts = no_experts(setting.network.num_params, setting.device), 0, None
    config = {
        **setting.config,
        "divergence": args.divergence,
        "ipc": args.ipc,
        "preset": preset.record(),
        "augment": setting.augment_name,
        "init": learning.init,
        "diagonal": learning.diagonal,
        "reduction": learning.reduction,
        "learn_weights": learning.learn_weights,
        "lr_weights": learning.lr_weights if learning.learn_weights else 0.0,
        **(
            {"lr_labels": learning.labels_rate(preset.optimizer), "label_smoothing": learning.label_smoothing}
            if learning.learn_labels
            else {}
        ),
        "experts": experts,
        "evaluation": plan.record() if args.evaluate else None,
    }
    out = args.where.out or default_out(
        "distill",
        dataset.name,
        learning.method(args.divergence),
        f"ipc{args.ipc}",
        short_hash({"job": "distill", **config}),
    )
    published = distill_preset(preset.name, args.divergence, args.ipc).record()
    changed = {k: v for k, v in preset.record().items() if v != published.get(k)}
    by = plural(count, "expert") if record.experts else f"preset {preset.name}"
    training = ", ".join([by, *(f"{k} {v}" for k, v in changed.items())])
    scale = scale_note(setting, f"{args.divergence} ipc {args.ipc} learned with {training}", *plan.notes())
    with Run(out, "distill", config, setting.device, seed=args.data.seed, resume=args.where.resume, scale=scale) as run:
        if run.done:
            say(f"{out} holds this run already, finished.")
        else:
            if not asked and not (out / "checkpoint.safetensors").exists():
                patience(0.0)
            if preset.note and args.evaluate:
                say(f"Preset {preset.name}: {preset.note}")
            _learn(args, setting, run, preset, divergence, sampled, initial, training, plan)
            run.record("done", augment=setting.augment_name != AUGMENT_NONE)
    if args.evaluate:
        show_table([out], out / "tables", title=f"{method_label(learning.method(args.divergence))} on {dataset.name}")
    return out / "coreset.safetensors"


def _divergence(args: Distill, setting: Setting, preset: DistillPreset) -> Divergence:
    """What is learned by; settings that it refuses are refused here, before experts are trained."""
    from bpc.budget import pairs_at_once
    from bpc.divergences import DIVERGENCES
    from bpc.likelihood import Classifier
    from bpc.presets import make_divergence

    return make_divergence(
        args.divergence,
        preset,
        Classifier(setting.network),
        setting.augment,
        diagonal=args.learning.diagonal,
        reduction=args.learning.reduction,
        at_once=pairs_at_once(
            setting.network,
            setting.device,
            args.where.memory_budget,
            second_order=DIVERGENCES.get(args.divergence).second_order,
        ),
    )


def _learn(
    args: Distill,
    setting: Setting,
    run: Run,
    preset: DistillPreset,
    divergence: Divergence,
    sampled: Callable[[torch.Generator], ExpertWindow],
    initial: LearnedCoreset,
    training: str,
    plan: ScoringPlan,
) -> None:
    """Learn and, where asked, score, in an open run."""
    from bpc.coreset import Pseudocoreset
    from bpc.distill import OuterConfig, real_batches
    from bpc.distill_run import distill_into
    from bpc_cli.show import draw_coreset

    dataset, network, learning = setting.dataset, setting.network, args.learning
    template = Pseudocoreset(
        points=initial.points,
        labels=initial.labels,
        weights=initial.weights,
        mean=dataset.mean,
        std=dataset.std,
        dataset=dataset.name,
        method=learning.method(args.divergence),
        num_classes=dataset.num_classes,
        preset=preset.name,
        config_hash=run.hash,
        seed=args.data.seed,
        provenance={
            "augment": setting.augment_name,
            "network": network.name,
            "class_names": dataset.class_names,
            "training": training,
            "student_lr": preset.student_lr,
        },
    )
    coreset = distill_into(
        run,
        initial,
        divergence,
        sampled,
        real_batches(dataset, preset.real_batch) if divergence.needs_real else None,
        OuterConfig(
            lr_points=preset.lr_points,
            momentum=preset.momentum,
            lr_weights=learning.lr_weights if learning.learn_weights else 0.0,
            lr_labels=learning.labels_rate(preset.optimizer),
            optimizer=preset.optimizer,
            ema=preset.ema,
            clip=preset.clip,
        ),
        steps=preset.steps,
        seed=args.data.seed,
        template=template,
        checkpoint_seconds=args.where.checkpoint_seconds,
    )
    draw_coreset(run, coreset)
    if args.evaluate:
        plan.score(setting, run, [coreset], args.where, beside_random=True, yes=args.experts.yes)
