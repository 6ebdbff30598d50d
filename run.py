#!/usr/bin/env python3
"""The command line: parses, wires, prints. No algorithm lives here; `python run.py --help` teaches."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from bpc.flags import COMMANDS, Compare, Demo, Distill, Doctor, Evaluate, Experts, Reproduce, Select, check_flags
from bpc.ssl_flags import SSL_COMMANDS
from bpc.vae_flags import VAE_COMMANDS

# What every command builds from its flags ---------------------------------------------------------------------------------


@dataclass
class Setting:
    """Dataset, network, device and augmentation of one command."""

    dataset: Any
    network: Any
    device: Any
    augment_name: str
    augment: Any
    config: dict[str, Any] = field(default_factory=dict)


def prepare(args: Any) -> Setting:
    """Load the data, build the network, pick the device; defaults that depend on the dataset are settled here."""
    from bpc.augment import parse_strategy
    from bpc.data import load_dataset
    from bpc.models import ConvNetConfig, build_network
    from bpc.runs import resolve_device

    device = resolve_device(args.device)
    dataset = load_dataset(args.dataset, data_root=args.data_root, validation_fraction=args.validation_fraction)
    small = args.dataset == "digits"
    depth = args.depth or {"digits": 2, "imagenette": 5}.get(args.dataset, 3)
    width = args.width or (32 if small else 128)
    convnet = ConvNetConfig(width=width, depth=depth, norm=args.norm, activation=args.activation)
    network = build_network(args.model, dataset.image_shape, dataset.num_classes, convnet)
    name = getattr(args, "augment", None)
    if name is None:
        name = "none" if small else "color_crop_cutout_flip_scale_rotate"
    config = {"dataset": dataset.name, "network": network.name, "validation_fraction": args.validation_fraction}
    return Setting(dataset.to(device), network, device, name, parse_strategy(name), {**config, "seed": args.seed})


def scale_note(setting: Setting, *parts: str) -> str:
    """The caption's words on scale: everything below the published setting is named."""
    notes = [p for p in parts if p]
    if setting.device.type == "cpu":
        notes.insert(0, "CPU run")
    if setting.config["validation_fraction"]:
        notes.append(f"scored on {len(setting.dataset.test):,} held-out training images, not on the test set")
    return "; ".join(notes)


def expert_store(args: Any, setting: Setting, *, needed: int) -> Any:
    """The trajectory store, trained until it holds what is asked for; says what it does and for how long."""
    import pandas as pd

    from bpc.budget import pairs_at_once
    from bpc.errors import ConfigError
    from bpc.progress import duration, progress, say
    from bpc.runs import Run, check_folder, default_out, read_run
    from evaluation.plots import plot_learning_curves
    from expert_trajectories import ExpertConfig, TrajectoryStore, estimate_seconds, store_meta, train_experts

    small = args.dataset == "digits"
    config = ExpertConfig(
        lr=args.expert_lr or (0.05 if small else 0.01),
        batch_size=args.expert_batch or (64 if small else 256),
        augment=setting.augment,
    )
    meta = store_meta(setting.dataset, setting.network, config, args.expert_seed)
    path = args.experts or default_out("experts", setting.dataset.name, setting.network.name, short_hash(meta))
    check_folder(path, TrajectoryStore.files_in(path))
    if (path / "run.json").exists() and (job := read_run(path)["job"]) != "experts":
        raise ConfigError(f"{path} holds a run of {job}, not experts; choose another --experts folder.")
    store = TrajectoryStore.create(path, setting.network.num_params, meta)
    if isinstance(args, Experts) and not args.resume:
        for e in range(store.num_experts):
            store.truncate(e, 0)
    long_enough = len(store.experts_with(max(needed, 1)))
    count = args.num_experts or long_enough or (10 if small else 100)
    epochs = max(args.epochs or needed, needed) if long_enough < count or args.epochs else needed
    missing = [e for e in range(count) if store.epochs(e) < epochs]
    if not missing:
        return store, count
    together = args.together or (1 if setting.device.type == "cpu" else 10)
    own = TrajectoryStore.files_in(path)
    with store.lock(), Run(path, "experts", store.meta, setting.device, seed=args.expert_seed, beside=own) as run:
        left = sum(epochs - max(store.epochs(e), 0) for e in missing)
        at_once = pairs_at_once(setting.network, setting.device, args.memory_budget)
        seconds = estimate_seconds(setting.network, setting.dataset, config, together, at_once) * left
        say(
            f"Training {len(missing)} experts ({setting.network.name}, {setting.network.num_params:,} parameters) to "
            f"{epochs} epochs first: about {duration(seconds)} here. They are kept in {path}; fewer: --num-experts."
        )
        run.record("running", num_experts=count, epochs=epochs)
        with progress("Training experts", left) as report:
            done = 0
            for step in train_experts(
                store,
                setting.network,
                setting.dataset,
                config,
                num_experts=count,
                epochs=epochs,
                seed=args.expert_seed,
                together=together,
                at_once=at_once,
            ):
                done += len(step.experts)
                accuracy = sum(r["test_accuracy"] for r in step.records) / len(step.records)
                report.update(done, f"epoch {step.epoch}, test accuracy {accuracy:.3f}")
                for expert, record in zip(step.experts, step.records, strict=True):
                    run.log(expert=expert, epoch=step.epoch, **record, seconds=round(run.seconds, 3))
        run.record("done", num_experts=count, epochs=epochs)
        plot_learning_curves(pd.DataFrame(store.curves()), path / "learning_curves.png")
    return store, count


def short_hash(config: dict[str, Any]) -> str:
    """8 hex digits of a configuration, for a folder's name."""
    from bpc.runs import config_hash

    return config_hash(config)[:8]


def scoring(args: Any, sampler: str) -> Any:
    """The evaluation's settings from flags: an `EvaluationConfig` (as published) or an `ExactConfig`."""
    from bpc.errors import unknown_name
    from evaluation.evaluate import EvaluationConfig
    from evaluation.exact import ExactConfig
    from evaluation.protocols import EXACT_PROTOCOLS, KIM2022_PROTOCOLS, ExactSettings

    backend = getattr(args, "backend", "native")
    if args.protocol in EXACT_PROTOCOLS:
        changes = {k: v for k in ("leapfrog_steps", "step_size") if (v := getattr(args, k)) is not None}
        same = {k: getattr(args, k) for k in ("chains", "warmup", "samples", "max_tree_depth", "prior_std")}
        settings = ExactSettings(sampler=sampler, backend=backend, **same, **changes)
        args.seeds = args.seeds or len(getattr(args, "coreset", (None,)))
        return ExactConfig(protocol=args.protocol, settings=settings, test_images=args.test_images)
    if args.protocol not in KIM2022_PROTOCOLS:
        raise unknown_name("protocol", args.protocol, KIM2022_PROTOCOLS + EXACT_PROTOCOLS)
    if backend != "native":
        raise unknown_name("backend", backend, ("native",), hint=f"{args.protocol} has no other; use --protocol exact.")
    args.seeds = args.seeds or 5
    names = ("iterations", "burn_in", "leapfrog_steps", "step_size", "penalty")
    overrides = {k: getattr(args, k) for k in names}
    return EvaluationConfig(sampler=sampler, protocol=args.protocol, test_images=args.test_images, overrides=overrides)


def scoring_record(args: Any, config: Any) -> dict[str, Any]:
    """What of the scoring names a run."""
    record = {**config.record(), "seeds": args.seeds}
    if args.corruptions:
        record["corruption_images"] = args.corruption_images
    if is_exact(config):
        record |= {"beside_random": args.beside_random, "reference": args.reference}
        record |= {"reference_sampler": args.reference_sampler, "reference_samples": args.reference_samples}
        record["reference_warmup"] = args.reference_warmup
    return record


def is_exact(config: Any) -> bool:
    """Whether a scoring is by one of the exact protocols."""
    from evaluation.protocols import EXACT_PROTOCOLS

    return config.protocol in EXACT_PROTOCOLS


def scoring_notes(args: Any, config: Any) -> list[str]:
    """Say where the scoring is not at full scale or not as published."""
    notes = [f"{args.test_images:,} test images"] if args.test_images else []
    if is_exact(config):
        s = config.settings
        return [
            *notes,
            f"{s.chains} chains of {s.samples} draws after {s.warmup} of warm-up, prior N(0, {s.prior_std}^2)",
        ]
    changed = {k: v for k, v in config.overrides.items() if v is not None}
    if changed:
        notes.append("sampler settings changed: " + ", ".join(f"{k} {v}" for k, v in changed.items()))
    return notes


def shifted_inputs(args: Any, setting: Setting) -> Any:
    """Corrupted test images, official or generated; says which."""
    from bpc.data import load_corrupted
    from bpc.progress import say
    from evaluation.inputs import MIXED_CLEAN_IMAGES

    shifted = load_corrupted(
        setting.dataset,
        data_root=args.data_root,
        official=not args.validation_fraction,
        images=args.corruption_images if args.corruptions else MIXED_CLEAN_IMAGES,
    )
    say(f"Corrupted images: {shifted.source}, {len(shifted.corruptions)} corruptions, 5 severities.")
    return shifted


def score_all(args: Any, setting: Setting, run: Any, coresets: list[Any], config: Any, *, beside_random: bool) -> None:
    """Score a coreset (or one for each seed), and random ones of its size where wanted, into the run's folder."""
    from evaluation.score import score

    seeds = list(range(args.seed, args.seed + args.seeds))
    groups = [coresets]
    if beside_random and coresets[0].method not in ("random", "full"):
        groups.append(random_coresets(setting, coresets[0].ipc, seeds, run.hash))
    if is_exact(config):
        score_exactly(args, setting, run, groups, config, seeds)
        return
    from evaluation.inputs import every_corruption

    extra = every_corruption(shifted_inputs(args, setting), args.corruption_images) if args.corruptions else []
    for group in groups:
        score(
            run,
            setting.network,
            setting.dataset,
            group,
            config,
            seeds=seeds,
            augment=setting.augment,
            extra=[i._replace(split=i.split.to(setting.device)) for i in extra],
            chains_at_once=args.chains_at_once,
            memory_budget=args.memory_budget,
            checkpoint_seconds=args.checkpoint_seconds,
        )


def score_exactly(args: Any, setting: Setting, run: Any, groups: list[Any], config: Any, seeds: list[int]) -> None:
    """Posteriors of coresets, of random ones, of the full data; fidelity; one page of figures."""
    from bpc.progress import say
    from bpc.runs import default_out
    from evaluation.exact_report import write_page
    from evaluation.exact_score import add_fidelity, score_coresets
    from evaluation.inputs import Inputs, every_corruption, foreign, mixed_corruptions
    from evaluation.predictive import pick_images
    from evaluation.reference import make_reference, reference_record, reference_settings

    network, dataset, device = setting.network, setting.dataset, setting.device
    weights = [round(float(group[0].weights.sum())) for group in groups]
    if config.protocol == "exact" and len(set(weights)) > 1:
        n = len(dataset.train)
        say(
            f"The coreset's weights sum to {weights[0]:,}, a random one's to {weights[1]:,}; exact-scaled makes both {n:,}."
        )
    picked = pick_images(dataset.test, config.test_images)
    shifted = shifted_inputs(args, setting)
    asked = [Inputs("test", picked), mixed_corruptions(shifted), foreign(picked, dataset)]
    more = every_corruption(shifted, args.corruption_images) if args.corruptions else []
    common, more = ([i._replace(split=i.split.to(device)) for i in part] for part in (asked, more))
    reference = None
    if args.reference != "none":
        settings = reference_settings(
            config.settings,
            len(dataset.train),
            sampler=args.reference_sampler,
            warmup=args.reference_warmup,
            samples=args.reference_samples,
            leapfrog_steps=None if args.reference_sampler == "sghmc" else config.settings.leapfrog_steps,
        )
        record = reference_record(network, dataset, settings)
        path = Path(args.reference) if args.reference != "auto" else default_out(
            "reference", dataset.name, network.name, settings.label, short_hash(record)
        )  # fmt: skip
        reference = make_reference(
            path,
            network,
            dataset,
            settings,
            device=device,
            memory_budget=args.memory_budget,
            checkpoint_seconds=args.checkpoint_seconds,
        )
    for group in groups:
        score_coresets(
            run, network, dataset, group, config, seeds=seeds, inputs=[*common, *more],
            memory_budget=args.memory_budget,
            checkpoint_seconds=args.checkpoint_seconds,
        )  # fmt: skip
    if reference is not None:
        add_fidelity(run, reference, common)
    title = f"{groups[0][0].method} on {dataset.name}"
    run.own(write_page(run.path, reference, title=title, inputs=common))


def random_coresets(setting: Setting, ipc: int, seeds: list[int], config_hash: str) -> list[Any]:
    """One random subset for each seed."""
    from bpc.seeding import make_generator
    from bpc.selection import build_coreset, select

    dataset, found = setting.dataset, []
    for seed in seeds:
        generator = make_generator("cpu", seed, "select", "random")
        chosen = select("random", dataset.train.labels.cpu(), ipc, dataset.num_classes, generator=generator)
        found.append(build_coreset(dataset, chosen, method="random", seed=seed, config_hash=config_hash))
    return found


def show_table(
    paths: list[Path], folder: Path | None, *, title: str, scale: str | None = None, figures: bool = False
) -> None:
    """Summarise runs, print the table, and write it (and figures) where asked."""
    from evaluation.compare import beside_full_data, load_runs, summarise
    from evaluation.plots import plot_comparison
    from evaluation.shift import write_shift
    from evaluation.tables import render_console, write_tables

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = load_runs(paths)
        summary = beside_full_data(summarise(rows))
        print_tables(render_console(summary, title=title, scale=scale))
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            print(f"note: {warning.message}", file=sys.stderr)
    if folder is not None:
        write_tables(summary, folder, title=title, scale=scale)
        write_shift(rows, folder)
        if figures:
            plot_comparison(summary, folder / "comparison.png")


def print_tables(tables: Any) -> None:
    """Print rich renderables to stdout, wide enough for a table when stdout is a file."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for table in tables if isinstance(tables, (list, tuple)) else [tables]:
        console.print(table)


# The commands ---------------------------------------------------------------------------------------------------------------


def run_experts(args: Experts) -> Path:
    from bpc.progress import say

    setting = prepare(args)
    if args.epochs is None:
        args.epochs = 6 if args.dataset == "digits" else 50
    if args.num_experts is None:
        args.num_experts = 10 if args.dataset == "digits" else 100
    if args.out is not None and args.experts is None:
        args.experts = args.out
    store, count = expert_store(args, setting, needed=args.epochs)
    last = [store.journal(e)[args.epochs] for e in range(count)]
    mean = sum(r["test_accuracy"] for r in last) / len(last)
    say(f"{count} experts of {args.epochs} epochs in {store.path}; test accuracy of the last snapshots {mean:.3f}.")
    return Path(store.path)


def run_distill(args: Distill) -> Path:
    from bpc.augment import AUGMENT_NONE
    from bpc.budget import pairs_at_once
    from bpc.coreset import Pseudocoreset
    from bpc.distill import OuterConfig, initial_coreset, real_batches
    from bpc.errors import unknown_name
    from bpc.learn import learn
    from bpc.likelihood import Classifier
    from bpc.presets import DIVERGENCES, distill_preset, make_divergence
    from bpc.progress import say
    from bpc.runs import Run, default_out

    if args.divergence not in DIVERGENCES:
        raise unknown_name("divergence", args.divergence, DIVERGENCES)
    name = args.preset or ("digits" if args.dataset == "digits" else "kim2022")
    preset = distill_preset(name, args.divergence, args.ipc)
    changes: dict[str, Any] = {
        "steps": args.steps,
        "lr_points": args.lr,
        "momentum": args.momentum,
        "max_start_epoch": args.max_start_epoch,
        "inner_steps": args.inner_steps,
        "expert_epochs": args.expert_epochs if args.divergence != "rkl" else None,
        "student_lr": args.student_lr,
        "lr_student": args.lr_student,
        "samples": args.draws,
        "sigma_core": args.sigma if args.sigma_core is None else args.sigma_core,
        "sigma_expert": args.sigma if args.sigma_expert is None else args.sigma_expert,
        "real_batch": args.real_batch,
    }
    preset = dataclasses.replace(preset, **{k: v for k, v in changes.items() if v is not None})
    evaluation = scoring(args, "hmc")
    setting = prepare(args)
    dataset, network = setting.dataset, setting.network
    initial = initial_coreset(
        dataset,
        args.ipc,
        source=args.init,
        student_lr=preset.student_lr,
        total_weight=float(len(dataset.train)) if args.reduction == "sum" else None,
        seed=args.seed,
    )
    store, count = expert_store(args, setting, needed=preset.epochs_needed)
    config = {
        **setting.config,
        "divergence": args.divergence,
        "ipc": args.ipc,
        "preset": {k: v for k, v in dataclasses.asdict(preset).items() if k != "note"},
        "augment": setting.augment_name,
        "init": args.init,
        "diagonal": args.diagonal,
        "reduction": args.reduction,
        "learn_weights": args.learn_weights,
        "lr_weights": args.lr_weights if args.learn_weights else 0.0,
        "experts": {**store.meta, "num_experts": count},
        "evaluation": scoring_record(args, evaluation) if args.evaluate else None,
    }
    out = args.out or default_out(
        "distill", dataset.name, args.divergence, f"ipc{args.ipc}", short_hash({"job": "distill", **config})
    )
    published = distill_preset(preset.name, args.divergence, args.ipc)
    changed = {k: v for k, v in dataclasses.asdict(preset).items() if v != getattr(published, k)}
    training = ", ".join([f"{count} experts", *(f"{k} {v}" for k, v in changed.items())])
    scale = scale_note(
        setting, f"{args.divergence} ipc {args.ipc} learned with {training}", *scoring_notes(args, evaluation)
    )
    with Run(out, "distill", config, setting.device, seed=args.seed, resume=args.resume, scale=scale) as run:
        if run.done:
            say(f"{out} holds this run already, finished.")
        else:
            if preset.note and args.evaluate:
                say(f"Preset {preset.name}: {preset.note}")
            at_once = pairs_at_once(
                network, setting.device, args.memory_budget, second_order=args.divergence == "wasserstein"
            )
            divergence = make_divergence(
                args.divergence,
                preset,
                Classifier(network),
                setting.augment,
                diagonal=args.diagonal,
                reduction=args.reduction,
                at_once=at_once,
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
                seed=args.seed,
                provenance={
                    "augment": setting.augment_name,
                    "network": network.name,
                    "class_names": dataset.class_names,
                    "training": training,
                },
            )
            coreset = learn(
                run,
                initial,
                divergence,
                store.sampler(preset.max_start_epoch, divergence.expert_epochs, setting.device, list(range(count))),
                real_batches(dataset, preset.real_batch) if divergence.needs_real else None,
                OuterConfig(
                    lr_points=preset.lr_points,
                    momentum=preset.momentum,
                    lr_student=preset.lr_student,
                    lr_weights=args.lr_weights if args.learn_weights else 0.0,
                ),
                steps=preset.steps,
                seed=args.seed,
                template=template,
                checkpoint_seconds=args.checkpoint_seconds,
            )
            draw_coreset(run, coreset)
            if args.evaluate:
                score_all(args, setting, run, [coreset], evaluation, beside_random=True)
            run.record("done", augment=setting.augment_name != AUGMENT_NONE)
    if args.evaluate:
        show_table([out], out / "tables", title=f"{args.divergence} on {dataset.name}")
    return out / "coreset.safetensors"


def draw_coreset(run: Any, coreset: Any) -> None:
    """coreset.png, and the learning curve where there is a log."""
    import pandas as pd

    from evaluation.plots import plot_coreset_grid, plot_distill_curve

    plot_coreset_grid(coreset, run.file("coreset.png"), class_names=coreset.provenance.get("class_names"))
    log = run.path / "log.jsonl"
    if log.exists():
        plot_distill_curve(pd.read_json(log, lines=True), run.file("learning.png"))


def run_select(args: Select) -> Path:
    from bpc.errors import unknown_name
    from bpc.runs import Run, default_out
    from bpc.seeding import make_generator
    from bpc.selection import BY_GRADIENT, METHODS, build_coreset, last_layer_gradients, select
    from evaluation.features import trained_features, trained_logits

    if args.method not in METHODS:
        raise unknown_name("method", args.method, METHODS)
    setting = prepare(args)
    dataset, labels = setting.dataset, setting.dataset.train.labels.cpu()
    features, source = None, ""
    if args.method != "random":
        args.num_experts = args.num_experts or 1
        needed = args.epochs or (6 if args.dataset == "digits" else 50)
        store, count = expert_store(args, setting, needed=needed)
        expert = args.seed % count
        params = store.snapshots(expert, needed, needed).to(setting.device)
        if args.method in BY_GRADIENT:
            features = last_layer_gradients(trained_logits(setting.network, params, dataset), labels)
        else:
            features = trained_features(setting.network, params, dataset)
        source = f"expert {expert} of {store.path.name} at epoch {needed}"
    config = {**setting.config, "method": args.method, "ipc": args.ipc, "features": source}
    out = args.out or default_out(
        "select", dataset.name, args.method, f"ipc{args.ipc}", short_hash({"job": "select", **config})
    )
    with Run(out, "select", config, setting.device, seed=args.seed, resume=args.resume) as run:
        chosen = select(
            args.method,
            labels,
            args.ipc,
            dataset.num_classes,
            features=features,
            generator=make_generator("cpu", args.seed, "select", args.method),
        )
        coreset = build_coreset(dataset, chosen, method=args.method, seed=args.seed, config_hash=run.hash)
        more = {"features": source, "class_names": dataset.class_names}
        coreset = coreset.replace(provenance={**coreset.provenance, **more})
        coreset.save(run.file("coreset.safetensors"))
        draw_coreset(run, coreset)
        run.record("done")
    return out / "coreset.safetensors"


def run_evaluate(args: Evaluate) -> Path:
    from bpc.augment import AUGMENT_NONE, parse_strategy
    from bpc.coreset import load_coreset
    from bpc.progress import say
    from bpc.runs import Run, default_out
    from evaluation.evaluate import check_coreset

    coresets = [load_coreset(path) for path in args.coreset]
    evaluation = scoring(args, args.sampler)
    setting = prepare(args)
    for coreset in coresets:
        check_coreset(coreset, setting.dataset, setting.network)
    first = coresets[0]
    trained_with = str(first.provenance.get("augment", AUGMENT_NONE))
    if args.augment is None:
        default = "crop_scale_rotate" if args.dataset == "digits" else setting.augment_name
        setting.augment_name = default if trained_with == AUGMENT_NONE else trained_with
        setting.augment = parse_strategy(setting.augment_name)
    config = {
        **setting.config,
        "coreset": [fingerprint(path) for path in args.coreset],
        "method": first.method,
        "ipc": first.ipc,
        "augment": trained_with,
        "sampler_augment": setting.augment_name if args.sampler == "asghmc" else AUGMENT_NONE,
        "evaluation": scoring_record(args, evaluation),
    }
    out = args.out or default_out(
        "evaluate", setting.dataset.name, first.method, f"ipc{first.ipc}", evaluation.sampler, args.protocol,
        short_hash({"job": "evaluate", **config}),
    )  # fmt: skip
    training = first.provenance.get("training", "")
    learned = f"{first.method} ipc {first.ipc} learned with {training}" if training else ""
    scale = scale_note(setting, learned, *scoring_notes(args, evaluation))
    with Run(out, "evaluate", config, setting.device, seed=args.seed, resume=args.resume, scale=scale) as run:
        if run.done:
            say(f"{out} holds this run already, finished.")
        else:
            beside_random = is_exact(evaluation) and args.beside_random
            score_all(args, setting, run, coresets, evaluation, beside_random=beside_random)
            run.record("done", augment=trained_with != AUGMENT_NONE)
    if args.table:
        show_table([out], out / "tables", title=f"{first.method} on {setting.dataset.name}")
    return out / "rows.csv"


def fingerprint(path: Path) -> str:
    """A coreset file's content, in 12 hex digits: the same file under another name is the same input."""
    import hashlib

    file = path / "coreset.safetensors" if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def run_compare(args: Compare) -> Path:
    from evaluation.report import write_figures

    show_table(list(args.runs), args.out, title=args.title, scale=args.scale, figures=True)
    write_figures(list(args.runs), args.out)
    return args.out


def run_reproduce(args: Reproduce) -> Path | None:
    import shlex
    import signal

    from bpc.progress import progress, say
    from bpc.runs import default_out
    from evaluation import studies
    from evaluation.reproduce import TARGETS, commands, find_target, tabulate

    if not args.target:
        for name, target in TARGETS.items():
            print(f"{name:20s} {target.what}")
        return None
    target = find_target(args.target)
    out = args.out or default_out("reproduce", f"{args.target}-{args.scale}")
    common = ["--device", args.device, *(["--data-root", str(args.data_root)] if args.data_root else [])]
    plan = commands(target, args.scale, out, common)
    if args.dry_run:
        for command in plan:
            print(shlex.join(["run.py", *command]))
        return None
    if args.stop_after is not None:

        def stop(signum: int, frame: Any) -> None:
            raise TimeIsUp

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, args.stop_after)
    for i, command in enumerate(plan):
        say(f"[{i + 1}/{len(plan)}] run.py {shlex.join(command)}")
        step = parse(command)
        check_flags(step)
        HANDLERS[type(step)](step)
    if target.variants:
        print_tables(tabulate(target, out).to_string(index=False))
        return out / "variants.md"
    if target.study:
        small = {"repeats": 1} if args.scale == "smoke" else {"repeats": 10} if args.scale == "full" else {}
        with progress(target.what, 1) as report:
            study = getattr(studies, f"run_{target.study}_study")
            print_tables(study(out, seed=args.seed, report=report.update, **small).to_string(index=False))
        return out
    return out / "comparison"


def run_vae(args: Any) -> Path | None:
    from evaluation.vae.jobs import run_vae as run

    return run(args)


def run_ssl(args: Any) -> Path | None:
    from evaluation.ssl.jobs import run_ssl as run

    return run(args)


class TimeIsUp(KeyboardInterrupt):
    """`reproduce --stop-after` has used its seconds: like Ctrl-C, running work leaves a checkpoint."""


def run_doctor(args: Doctor) -> None:
    from evaluation.doctor import report

    print_tables(report(args.data_root))


def run_demo(args: Demo) -> Path:
    """Five independent coresets of each kind, one chain each: the spread is over everything that is random."""
    import time

    from bpc.progress import say

    started = time.monotonic()
    seeds = range(args.seed, args.seed + 5)
    shared: dict[str, Any] = {"dataset": "digits", "device": args.device}
    experts: dict[str, Any] = {"experts": args.out / "experts", "num_experts": 10, "epochs": 6}
    say(
        "Digits (1,797 images of 8x8, embedded), ConvNet of 10,986 parameters, 1 image per class, 5 coresets of each kind."
    )
    say("1. Experts:      run.py experts --dataset digits --num-experts 10 --epochs 6")
    run_experts(Experts(**shared, **experts))
    made: dict[str, list[Path]] = {}
    for number, method in enumerate(("fkl", "wasserstein", "rkl"), start=2):
        say(f"{number}. Pseudocoreset: run.py distill --dataset digits --divergence {method} --ipc 1 --seed 0 .. 4")
        for seed in seeds:
            out = args.out / "coresets" / f"{method}-{seed}"
            distil = Distill(**shared, **experts, divergence=method, ipc=1, seed=seed, out=out, evaluate=False)
            made.setdefault(method, []).append(run_distill(distil))
    baselines = ("random", "herding", "kcenter", "craig", "adacore")
    say(f"5. Baselines:    run.py select --dataset digits --method {'|'.join(baselines)} --ipc 1 --seed 0 .. 4")
    for method in baselines:
        for seed in seeds:
            out = args.out / "coresets" / f"{method}-{seed}"
            made.setdefault(method, []).append(
                run_select(Select(**shared, **experts, method=method, ipc=1, seed=seed, out=out))
            )
    say(
        "6. Scores:       run.py evaluate --dataset digits --coreset ... --sampler hmc|asghmc --protocol kim2022-scaled"
    )
    # Table 3's 20 iterations at ipc 1 end long before A-SGHMC has mixed here: it gets the 100 of the other rows
    lengths: dict[str, dict[str, Any]] = {"hmc": {}, "asghmc": {"iterations": 100, "burn_in": 50}}
    for sampler, length in lengths.items():
        for method, paths in made.items():
            out = args.out / "scores" / f"{method}-{sampler}"
            run_evaluate(
                Evaluate(
                    **shared,
                    coreset=tuple(paths),
                    sampler=sampler,
                    protocol="kim2022-scaled",
                    seed=args.seed,
                    seeds=5,
                    out=out,
                    table=False,
                    **length,
                )
            )
    say("7. Comparison:   run.py compare demo")
    run_compare(Compare(runs=(args.out,), out=args.out / "comparison", title="Demo"))
    say(f"Done in {time.monotonic() - started:.0f} s. Tables and pictures are in {args.out / 'comparison'}.")
    return args.out / "comparison" / "comparison.md"


HANDLERS: dict[type, Callable[[Any], Path | None]] = {
    Demo: run_demo,
    Doctor: run_doctor,
    Experts: run_experts,
    Distill: run_distill,
    Select: run_select,
    Evaluate: run_evaluate,
    Compare: run_compare,
    Reproduce: run_reproduce,
    **dict.fromkeys(VAE_COMMANDS.values(), run_vae),
    **dict.fromkeys(SSL_COMMANDS.values(), run_ssl),
}

GROUPS = {"vae": VAE_COMMANDS, "ssl": SSL_COMMANDS}  # commands of their own: run.py vae train


def parse(arguments: list[str]) -> Any:
    """The command's flags; a mistake is one line on stderr and exit code 2, like every other error of the user's."""
    caught = io.StringIO()
    group = arguments[0] if arguments and arguments[0] in GROUPS else ""
    commands, rest, prog = (GROUPS[group], arguments[1:] or ["--help"], f"run.py {group}") if group else (
        COMMANDS, arguments, "run.py"
    )  # fmt: skip
    try:
        with contextlib.redirect_stderr(caught):
            return tyro.extras.subcommand_cli_from_dict(
                commands, args=rest, prog=prog, description=commands_text(group)
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [re.sub(r"[╭╮╰╯─│]+", " ", line).strip() for line in caught.getvalue().splitlines()]
        text = " ".join(" ".join(lines).split())
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(2) from None


DESCRIPTION = """Bayesian pseudocoresets: small synthetic datasets whose posterior stands in for the full data's.

First steps:  run.py demo;  run.py doctor;  run.py distill --divergence fkl --ipc 10 --data-root DIR"""


def commands_text(group: str) -> str:
    """The description over a list of commands."""
    return str(COMMANDS[group].__doc__) if group else DESCRIPTION


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        return execute(parse(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def execute(args: Any) -> int:
    """Do what parsed flags ask for; an error of the user's is one line on stderr."""
    from bpc.errors import BpcError
    from bpc.files import explain_os_error
    from bpc.runtime import keep_freed_memory, repeatable_kernels

    keep_freed_memory()
    repeatable_kernels()
    try:
        check_flags(args)
        made = HANDLERS[type(args)](args)
        if made is not None:
            print(made)
        return 0
    except BpcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"error: {explain_os_error(error, error.filename or 'a file')}", file=sys.stderr)
        return 2
    except TimeIsUp:
        print("time is up; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 75
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    os.environ.setdefault("KMP_WARNINGS", "0")
    sys.exit(main())
