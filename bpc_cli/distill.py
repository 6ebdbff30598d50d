"""`run.py distill`: learn a pseudocoreset, then score it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bpc.errors import ConfigError
from bpc_cli.flags import (
    AtLeast,
    Between,
    DataFlags,
    ExactFlags,
    ExpertFlags,
    NetworkFlags,
    Positive,
    RunFlags,
    ScoringFlags,
    flag,
    group,
    names,
)
from bpc_cli.scoring import ScoringPlan, scoring_plan
from bpc_cli.setting import Setting, experts_for, prepare, scale_note, short_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from bpc.divergences import ExpertWindow, LearnedCoreset
    from bpc.divergences.path_settings import PathSettings
    from bpc.presets import DistillPreset
    from bpc.runs import Run
    from expert_trajectories import TrajectoryStore

__all__ = ["Distill", "run_distill"]


@dataclass(frozen=True, kw_only=True)
class LearningFlags:
    """How the coreset is learned; what is not given is the preset's."""

    preset: Annotated[
        str | None,
        flag(
            """Where the settings come from. Default: kim2022, Tables 2 and C.3 of Kim et al. (2022); digits on digits.
            kim2022-code: as the authors' code leaves them.""",
            names("preset"),
        ),
    ] = None
    steps: Annotated[int | None, flag("Outer steps (K).", "INT"), AtLeast(1)] = None
    lr: Annotated[float | None, flag("Outer step size on the images (gamma).", "FLOAT"), Positive()] = None
    momentum: Annotated[float | None, flag("Outer momentum; Adam's beta_1.", "FLOAT"), AtLeast(0)] = None
    optimizer: Annotated[
        str | None,
        flag(
            """The outer optimiser. sgd: as published, steps of about 1000 (10 on digits). adam: every pixel moves by about --lr a
            step, so 0.01 to 0.1. Default: sgd (adam for rkl-path).""",
            "sgd|adam",
        ),
    ] = None
    ema: Annotated[
        float | None,
        flag(
            """Keep the average of the iterates with this decay (0.95: the last 20 or so) instead of the last one: less of the
            gradient's noise is left in the images. Default: 0, the last iterate.""",
            "FRACTION",
        ),
        Between(0, 0.999999),
    ] = None
    clip: Annotated[
        float | None,
        flag("Shorten the images' gradient to this norm where it is longer. Default: 0, never.", "FLOAT"),
        AtLeast(0),
    ] = None
    max_start_epoch: Annotated[
        int | None, flag("Start epochs are drawn from 0 to this less one (T+).", "INT"), AtLeast(1)
    ] = None
    inner_steps: Annotated[int | None, flag("SGD steps on the coreset (L_u).", "INT"), AtLeast(1)] = None
    expert_epochs: Annotated[
        int | None, flag("Expert epochs from the start of a window to its end (L_x).", "INT"), AtLeast(1)
    ] = None
    student_lr: Annotated[
        float | None, flag("Inner step size (eta); where wasserstein's learned one starts.", "FLOAT"), Positive()
    ] = None
    lr_student: Annotated[
        float | None, flag("wasserstein: step size of the learned inner step size.", "FLOAT"), AtLeast(0)
    ] = None
    draws: Annotated[int | None, flag("Gaussian draws (S).", "INT"), AtLeast(1)] = None
    sigma: Annotated[
        float | None,
        flag("Standard deviation of both Gaussians (Sigma_u^1/2 and Sigma_x^1/2).", "FLOAT"),
        AtLeast(0),
    ] = None
    sigma_core: Annotated[float | None, flag("Of the coreset's Gaussian alone (Sigma_u^1/2).", "FLOAT"), AtLeast(0)] = (
        None
    )
    sigma_expert: Annotated[
        float | None, flag("Of the experts' Gaussian alone (Sigma_x^1/2).", "FLOAT"), AtLeast(0)
    ] = None
    real_batch: Annotated[int | None, flag("rkl, rkl-path: real images per step (B).", "INT"), AtLeast(1)] = None
    path_protocol: Annotated[
        str | None,
        flag(
            """rkl-path: the chain that is differentiated. Default: that of --protocol, so that the coreset is learned for the
            chain that scores it.""",
            "kim2022|kim2022-scaled|exact",
        ),
    ] = None
    path_chains: Annotated[
        int | None, flag("rkl-path: chains side by side, each from noise of its own.", "INT"), AtLeast(1)
    ] = None
    path_window: Annotated[
        int | None,
        flag(
            """rkl-path: leapfrogs that are differentiated, back from a random end; 0 is the whole chain. A longer window sees
            more of what a pixel does, costs more and is noisier.""",
            "INT",
        ),
        AtLeast(0),
    ] = None
    path_first_end: Annotated[
        int | None,
        flag("rkl-path: the end is an iteration from this one on. Default: 0, those after burn-in.", "INT"),
        AtLeast(0),
    ] = None
    path_late: Annotated[
        int | None,
        flag("rkl-path: ends of iterations that are scored together, the last one and those before.", "INT"),
        AtLeast(1),
    ] = None
    path_objective: Annotated[
        str | None,
        flag(
            """rkl-path: expected: E[log p(x | theta)], the reverse KL's. predictive: log E[p(x | theta)] over the --path-late
            states of a chain, as scores are made.""",
            "expected|predictive",
        ),
    ] = None
    path_antithetic: Annotated[
        bool | None, flag("rkl-path: chains in pairs of opposite noise. Default: no.")
    ] = None
    path_iterations: Annotated[
        int | None, flag("rkl-path: iterations of the chain. Default: the protocol's.", "INT"), AtLeast(1)
    ] = None
    path_leapfrogs: Annotated[
        int | None, flag("rkl-path: leapfrogs of an iteration. Default: the protocol's.", "INT"), AtLeast(1)
    ] = None
    path_step_size: Annotated[
        float | None,
        flag("rkl-path: leapfrog step; under exact in units of the prior's width. Default: the protocol's.", "FLOAT"),
        Positive(),
    ] = None
    init: Annotated[str, flag("Start from a random subset of the data, or from noise.", "real|noise")] = "real"
    diagonal: Annotated[bool, flag("wasserstein: diagonal covariances (Appendix C.1).")] = False
    reduction: Annotated[
        str,
        flag("fkl, rkl: mean as published, or sum: the gradient of the KL itself, with weights N/M.", "mean|sum"),
    ] = "mean"
    learn_weights: Annotated[bool, flag("Learn the points' weights as well, as in the original pseudocoresets.")] = (
        False
    )
    lr_weights: Annotated[float, flag("Step size of the weights.", "FLOAT"), AtLeast(0)] = 0.1

    def check(self, divergence: str) -> None:
        """Refuse options that the divergence would not look at: they would name another run of the same result.

        Raises:
            ConfigError: an option of other divergences.
        """
        from bpc.divergences import DIVERGENCES, REDUCTION

        def takers(name: str) -> list[str]:
            return [r.name for r in DIVERGENCES if name in {field.name for field in dataclasses.fields(r.config)}]

        for name, given in (("diagonal", self.diagonal), ("reduction", self.reduction != REDUCTION)):
            if given and divergence not in takers(name):
                raise ConfigError(f"--{name} means nothing to {divergence}; it is for {', '.join(takers(name))}.")
        if divergence not in takers("path"):
            for field in dataclasses.fields(self):
                if field.name.startswith("path_") and getattr(self, field.name) is not None:
                    name = field.name.replace("_", "-")
                    raise ConfigError(f"--{name} means nothing to {divergence}; it is for {', '.join(takers('path'))}.")

    def preset_for(self, divergence: str, ipc: int, usual: str, protocol: str, prior_std: float) -> DistillPreset:
        """The preset with what the flags change.

        Args:
            divergence: by name.
            ipc: images per class.
            usual: the preset where none is asked for.
            protocol: that the coreset will be scored by.
            prior_std: of that protocol, where it is exact.
        """
        from bpc.divergences import DIVERGENCES

        record = DIVERGENCES.get(divergence)
        if usual not in record.presets:  # a divergence that has none for this dataset
            usual = next(iter(record.presets))
        preset = record.preset(self.preset or usual, ipc)
        changes: dict[str, Any] = {
            "steps": self.steps,
            "lr_points": self.lr,
            "momentum": self.momentum,
            "max_start_epoch": self.max_start_epoch,
            "inner_steps": self.inner_steps,
            "expert_epochs": self.expert_epochs if preset.expert_epochs else None,  # 0: it does not look at the end
            "student_lr": self.student_lr,
            "lr_student": self.lr_student,
            "samples": self.draws,
            "sigma_core": self.sigma if self.sigma_core is None else self.sigma_core,
            "sigma_expert": self.sigma if self.sigma_expert is None else self.sigma_expert,
            "real_batch": self.real_batch,
            "optimizer": self.optimizer,
            "ema": self.ema,
            "clip": self.clip,
            "path": None if preset.path is None else self._path(preset.path, protocol, prior_std),
        }
        return dataclasses.replace(preset, **{k: v for k, v in changes.items() if v is not None})

    def _path(self, path: PathSettings, protocol: str, prior_std: float) -> PathSettings:
        """The flow with what the flags change, of the potential that scores."""
        from bpc.divergences.path_settings import PATH_PROTOCOLS

        sampling: dict[str, Any] = {
            "iterations": self.path_iterations,
            "leapfrog_steps": self.path_leapfrogs,
            "step_size": self.path_step_size,
        }
        usual = protocol if protocol in PATH_PROTOCOLS else "exact"
        changes: dict[str, Any] = {
            "protocol": self.path_protocol or usual,
            "chains": self.path_chains,
            "window": self.path_window,
            "first_end": self.path_first_end,
            "late": self.path_late,
            "objective": self.path_objective,
            "antithetic": self.path_antithetic,
        }
        if changes["protocol"] == "exact":
            sampling["init_scale"] = prior_std
        if self.path_iterations is not None:
            sampling["burn_in"] = min(path.sampling.burn_in, self.path_iterations - 1)
        row = dataclasses.replace(path.sampling, **{k: v for k, v in sampling.items() if v is not None})
        return dataclasses.replace(path, sampling=row, **{k: v for k, v in changes.items() if v is not None})


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
    from bpc.presets import distill_preset
    from bpc.progress import plural, say
    from bpc.runs import Run, check_folder, default_out
    from bpc_cli.patience import ask_patience, learning_seconds, smaller_distill
    from bpc_cli.show import show_table
    from evaluation.compare import method_label

    if args.where.out is not None:
        check_folder(args.where.out)  # before experts are trained
    learning = args.learning
    preset = learning.preset_for(args.divergence, args.ipc, default_settings(args.data.dataset).preset)
    learning.check(args.divergence)
    plan = scoring_plan(args.scoring, args.exact, "hmc", ipcs=(args.ipc,), seed=args.data.seed)
    setting = prepare(args.data, args.network, args.where, args.experts.augment)
    plan.check(setting)
    dataset = setting.dataset
    initial = initial_coreset(
        dataset,
        args.ipc,
        source=learning.init,
        total_weight=float(len(dataset.train)) if learning.reduction == "sum" else None,
        seed=args.data.seed,
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

    store, count = experts_for(args.data, args.experts, args.where, setting, needed=preset.epochs_needed, before=before)
    config = {
        **setting.config,
        "divergence": args.divergence,
        "ipc": args.ipc,
        "preset": {k: v for k, v in dataclasses.asdict(preset).items() if k != "note"},
        "augment": setting.augment_name,
        "init": learning.init,
        "diagonal": learning.diagonal,
        "reduction": learning.reduction,
        "learn_weights": learning.learn_weights,
        "lr_weights": learning.lr_weights if learning.learn_weights else 0.0,
        "experts": {**store.meta, "num_experts": count},
        "evaluation": plan.record() if args.evaluate else None,
    }
    out = args.where.out or default_out(
        "distill", dataset.name, args.divergence, f"ipc{args.ipc}", short_hash({"job": "distill", **config})
    )
    published = distill_preset(preset.name, args.divergence, args.ipc)
    changed = {k: v for k, v in dataclasses.asdict(preset).items() if v != getattr(published, k)}
    training = ", ".join([plural(count, "expert"), *(f"{k} {v}" for k, v in changed.items())])
    scale = scale_note(setting, f"{args.divergence} ipc {args.ipc} learned with {training}", *plan.notes())
    with Run(out, "distill", config, setting.device, seed=args.data.seed, resume=args.where.resume, scale=scale) as run:
        if run.done:
            say(f"{out} holds this run already, finished.")
        else:
            if not asked and not (out / "checkpoint.safetensors").exists():
                patience(0.0)
            if preset.note and args.evaluate:
                say(f"Preset {preset.name}: {preset.note}")
            _learn(args, setting, run, preset, store, count, initial, training, plan)
            run.record("done", augment=setting.augment_name != AUGMENT_NONE)
    if args.evaluate:
        show_table([out], out / "tables", title=f"{method_label(args.divergence)} on {dataset.name}")
    return out / "coreset.safetensors"


def _learn(
    args: Distill,
    setting: Setting,
    run: Run,
    preset: DistillPreset,
    store: TrajectoryStore,
    count: int,
    initial: LearnedCoreset,
    training: str,
    plan: ScoringPlan,
) -> None:
    """Learn and, where asked, score, in an open run."""
    from bpc.budget import pairs_at_once
    from bpc.coreset import Pseudocoreset
    from bpc.distill import OuterConfig, real_batches
    from bpc.distill_run import distill_into
    from bpc.divergences import DIVERGENCES
    from bpc.likelihood import Classifier
    from bpc.presets import make_divergence
    from bpc_cli.show import draw_coreset

    dataset, network, learning = setting.dataset, setting.network, args.learning
    divergence = make_divergence(
        args.divergence,
        preset,
        Classifier(network),
        setting.augment,
        diagonal=learning.diagonal,
        reduction=learning.reduction,
        at_once=pairs_at_once(
            network,
            setting.device,
            args.where.memory_budget,
            second_order=DIVERGENCES.get(args.divergence).second_order,
        ),
    )
    template = Pseudocoreset(
        points=initial.points,
        labels=initial.labels,
        weights=initial.weights,
        mean=dataset.mean,
        std=dataset.std,
        dataset=dataset.name,
        method=args.divergence,
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
        store.sampler(preset.max_start_epoch, divergence.expert_epochs, setting.device, list(range(count))),
        real_batches(dataset, preset.real_batch) if divergence.needs_real else None,
        OuterConfig(
            lr_points=preset.lr_points,
            momentum=preset.momentum,
            lr_weights=learning.lr_weights if learning.learn_weights else 0.0,
        ),
        steps=preset.steps,
        seed=args.data.seed,
        template=template,
        checkpoint_seconds=args.where.checkpoint_seconds,
    )
    draw_coreset(run, coreset)
    if args.evaluate:
        plan.score(setting, run, [coreset], args.where, beside_random=True)
