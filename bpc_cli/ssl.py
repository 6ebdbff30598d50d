"""`run.py ssl ...`: learning from few labels and chosen synthetic images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bpc.errors import unknown_name
from bpc_cli.flags import MOST_SEED, AtLeast, Between, PlaceFlags, Positive, Seed, flag

if TYPE_CHECKING:
    from bpc.ebm.job import SslSettings

__all__ = ["EXAMPLES", "SSL_COMMANDS", "SslCompare", "SslEvaluate", "SslSynthesise", "SslTrain", "settings_from"]


@dataclass(frozen=True, kw_only=True)
class SslTrain(PlaceFlags):
    """Learn a classifier and a generator from few labels, then from its own best samples too; run again to go on."""

    dataset: Annotated[
        str,
        flag(
            """svhn (the paper's), mnist, fashion_mnist, cifar10, digits (needs no file), or a path to your own images.""",
            "TEXT",
        ),
    ] = "mnist"
    setting: Annotated[
        str,
        flag(
            """Which generated images are learned from. baseline: none. unfiltered: all. entropy: those the classifier is
            sure of (H). entropy-craig: H, then a weighted tenth by CRAIG; entropy-adacore, entropy-random: by
            AdaCore, or by chance. entropy-craig-pl: H & CRAIG over generated and pseudo-labelled images.""",
            "NAME",
        ),
    ] = "entropy-craig"
    samples: Annotated[int, flag("Generated images, before any filter (L).", "INT"), AtLeast(1)] = 10_000
    labelled: Annotated[
        int | None,
        flag(
            """Labelled images, equally many of each class. Default: the preset's (svhn 1000, mnist 100, digits 50).""",
            "INT",
        ),
        AtLeast(1),
    ] = None
    preset: Annotated[
        str | None,
        flag(
            """Where the numbers come from. Default: pooladzandi2022 (as published) on 32x32 images, mnist on others,
            digits on digits.""",
            "pooladzandi2022|mnist|digits",
        ),
    ] = None
    iterations: Annotated[int | None, flag("Of learning (T).", "INT"), AtLeast(1)] = None
    augment_at: Annotated[
        int | None, flag("Iteration from which generated images are learned from (T_a).", "INT"), AtLeast(1)
    ] = None
    threshold: Annotated[
        float | None,
        flag("Entropy in nats below which a generated or pseudo-labelled image is believed.", "FLOAT"),
        AtLeast(0),
    ] = None
    temperature: Annotated[
        float,
        flag(
            """Of the Langevin dynamics that generate: below 1 a soft filter, with lower entropies and less variety
            (Appendix D).""",
            "FLOAT",
        ),
        AtLeast(0),
    ] = 1.0
    fraction: Annotated[
        float, flag("Kept by CRAIG, AdaCore or chance, of each class's candidates.", "FLOAT"), Positive()
    ] = 0.1
    reselect_every: Annotated[int | None, flag("Iterations between selections.", "INT"), AtLeast(1)] = None
    weight: Annotated[float, flag("Coefficient of the generated images' loss.", "FLOAT"), AtLeast(0)] = 0.1
    noise: Annotated[bool, flag("Draw pixels from p(x | z) instead of taking its mean.")] = False
    batch_size: Annotated[
        int, flag("Unlabelled, labelled and generated images an iteration, each.", "INT"), AtLeast(1)
    ] = 100
    unlabelled: Annotated[int, flag("Unlabelled images; 0 is all others.", "INT"), AtLeast(0)] = 0
    latent: Annotated[int | None, flag("Units of z.", "INT"), AtLeast(1)] = None
    hidden: Annotated[int, flag("Units of the energy's layers.", "INT"), AtLeast(1)] = 200
    width: Annotated[
        int | None, flag("Of encoder and generator (on 32x32 images a WRN-28-width).", "INT"), AtLeast(1)
    ] = None
    sigma: Annotated[
        float | None, flag("Standard deviation of a pixel given z, pixels in [0, 1].", "FLOAT"), Positive()
    ] = None
    lr_energy: Annotated[float | None, flag("Adam's step size for the prior (eta_0).", "FLOAT"), Positive()] = None
    lr_elbo: Annotated[float | None, flag("For encoder and generator (eta_1).", "FLOAT"), Positive()] = None
    lr_supervised: Annotated[float | None, flag("For prior and encoder on labels (eta_2).", "FLOAT"), Positive()] = None
    langevin_steps: Annotated[int, flag("Steps of short-run Langevin (T_LD).", "INT"), AtLeast(1)] = 60
    langevin_step: Annotated[float, flag("Its step size (s of Eq. 2).", "FLOAT"), Positive()] = 0.08
    validation_fraction: Annotated[
        float,
        flag(
            """Score on this share of the training images, held out, and not on the test images: for choosing settings.""",
            "FLOAT",
        ),
    ] = 0.0
    seed: Seed = 0
    out: Annotated[
        Path | None,
        flag("The run's own folder. Default: under runs/, named by dataset, setting and configuration.", "DIR"),
    ] = None
    base: Annotated[
        Path | None,
        flag(
            """Folder of the first phase, up to --augment-at, which all settings of a seed share. Default: under runs/.""",
            "DIR",
        ),
    ] = None
    resume: Annotated[
        bool, flag("Go on with what the folder holds; --no-resume starts over (the second phase only).")
    ] = True
    checkpoint_seconds: Annotated[
        float, flag("A kill loses at most this much work, or 100 iterations if they take longer.", "FLOAT"), AtLeast(0)
    ] = 30.0


@dataclass(frozen=True, kw_only=True)
class SslSynthesise(PlaceFlags):
    """Draw class-conditional images from a trained model: sheets as they come and sorted by entropy, histogram, tensors."""

    model: Annotated[tyro.conf.Positional[Path], flag("The folder of a trained model.", "DIR")]
    count: Annotated[int, flag("How many, equally many of each class.", "INT"), AtLeast(1)] = 1000
    temperature: Annotated[float, flag("Of the Langevin dynamics.", "FLOAT"), AtLeast(0)] = 1.0
    seed: Annotated[int, flag("Of the draws.", "INT"), Between(0, MOST_SEED)] = 0
    out: Annotated[Path | None, flag("Where to. Default: samples/ in the model's folder.", "DIR")] = None


@dataclass(frozen=True, kw_only=True)
class SslEvaluate(PlaceFlags):
    """Score trained models on the test images: accuracy, NLL, ECE, Brier score, into rows.csv."""

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], flag("Folders of trained models.", "DIR...")]
    draws: Annotated[int, flag("Of z for each image.", "INT"), AtLeast(1)] = 8


@dataclass(frozen=True, kw_only=True)
class SslCompare:
    """Join runs over settings, numbers of samples and seeds: tables with the published numbers, and figures."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], flag("Folders of models, or folders to be searched.", "DIR...")
    ]
    out: Annotated[Path, flag("Where tables and figures go.", "DIR")] = Path("runs/ssl-compare")
    title: Annotated[str, flag("The table's title.", "TEXT")] = "Semi-supervised learning with chosen samples"


def settings_from(args: SslTrain) -> SslSettings:
    """The settings that flags of ``ssl train`` mean."""
    from bpc.data import default_settings
    from bpc.ebm.job import SslSettings
    from bpc.ebm.model import EBMConfig
    from bpc.ebm.presets import SSL_PRESETS
    from bpc.ebm.train import SETTINGS, AugmentConfig, LearnConfig

    name = args.preset or default_settings(args.dataset).ssl_preset
    if name not in SSL_PRESETS:
        raise unknown_name("preset", name, SSL_PRESETS)
    if args.setting not in SETTINGS:
        raise unknown_name("setting", args.setting, SETTINGS)
    preset = SSL_PRESETS[name]

    def chosen(flag: str) -> Any:
        given = getattr(args, flag)
        return preset[flag] if given is None and flag in preset else given

    def config(kind: Any) -> Any:
        return kind(**{f.name: chosen(f.name) for f in dataclasses.fields(kind) if hasattr(args, f.name)})

    augment = config(AugmentConfig)
    if not SETTINGS[args.setting].generate:  # flags that change nothing should not name another run
        augment = AugmentConfig(setting=args.setting)
    return SslSettings(
        dataset=args.dataset,
        labelled=chosen("labelled"),
        unlabelled=args.unlabelled,
        validation_fraction=args.validation_fraction,
        model=config(EBMConfig),
        learn=config(LearnConfig),
        augment=augment,
        seed=args.seed,
    )


def run_train(args: SslTrain) -> Path:
    """Both phases, then the scores; returns the model's folder."""
    from bpc.ebm.job import train_job
    from bpc.runs import config_hash, default_out, resolve_device
    from evaluation.ssl.jobs import draw_learning

    settings = settings_from(args)
    name = config_hash(settings.record())[:8]
    out = args.out or default_out("ssl", args.dataset, settings.augment.setting, name)
    base = args.base or default_out("ssl", "base", args.dataset, config_hash(settings.base())[:8])
    train_job(
        settings,
        out,
        base,
        resume=args.resume,
        checkpoint_seconds=args.checkpoint_seconds,
        data_root=args.data_root,
        device=resolve_device(args.device),
    )
    draw_learning(out)
    run_evaluate(SslEvaluate(models=(out,), data_root=args.data_root, device=args.device))
    run_compare(SslCompare(runs=(out,), out=out / "tables", title=out.name))
    return out


def run_synthesise(args: SslSynthesise) -> Path:
    """Draw images; returns their folder."""
    from bpc.runs import resolve_device
    from evaluation.ssl.jobs import synthesise_job

    return synthesise_job(
        args.model,
        args.out,
        count=args.count,
        temperature=args.temperature,
        seed=args.seed,
        data_root=args.data_root,
        device=resolve_device(args.device),
    )


def run_evaluate(args: SslEvaluate) -> Path:
    """Score every model; returns the last one's rows.csv."""
    from bpc.runs import resolve_device
    from evaluation.ssl.jobs import evaluate_job

    for path in args.models:
        evaluate_job(path, draws=args.draws, data_root=args.data_root, device=resolve_device(args.device))
    return args.models[-1] / "rows.csv"


def run_compare(args: SslCompare) -> Path:
    """Tables and figures; returns the Markdown."""
    from bpc_cli.show import print_tables
    from evaluation.ssl.table import compare

    print_tables(*compare(args.runs, args.out, args.title))
    return args.out / "comparison.md"


SSL_COMMANDS: dict[str, tuple[type, Any]] = {
    "train": (SslTrain, run_train),
    "synthesise": (SslSynthesise, run_synthesise),
    "evaluate": (SslEvaluate, run_evaluate),
    "compare": (SslCompare, run_compare),
}

EXAMPLES = """\
run.py ssl train --dataset digits --setting entropy-craig      a minute, no file needed
run.py ssl synthesise runs/ssl-digits-entropy-craig-*          its images as they come, and sorted by entropy
run.py ssl compare runs/                                       tables beside the published numbers"""
