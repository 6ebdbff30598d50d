"""`run.py ssl ...`: learning from few labels and chosen synthetic images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bpc.errors import unknown_name
from bpc_cli.flags import MOST_SEED, AtLeast, Between, PlaceFlags, Positive, Seed, flag, group, names

if TYPE_CHECKING:
    from bpc.ebm.job import SslSettings

__all__ = ["EXAMPLES", "SSL_COMMANDS", "SslCompare", "SslEvaluate", "SslSynthesise", "SslTrain", "settings_from"]


# A default that is None here is the preset's, or else the configuration's own (bpc.ebm), and is written down only there.


@dataclass(frozen=True, kw_only=True)
class SyntheticFlags:
    """Which generated images are learned from."""

    samples: Annotated[int, flag("Generated images, before any filter (L).", "INT"), AtLeast(1)] = 10_000
    threshold: Annotated[
        float | None,
        flag("Entropy in nats below which a generated or pseudo-labelled image is believed.", "FLOAT"),
        AtLeast(0),
    ] = None
    temperature: Annotated[
        float | None,
        flag(
            """Of the Langevin dynamics that generate: below 1 a soft filter, with lower entropies and less variety
            (Appendix D). Default: 1.""",
            "FLOAT",
        ),
        AtLeast(0),
    ] = None
    fraction: Annotated[
        float | None,
        flag("The share of each class's candidates that CRAIG, AdaCore or chance keeps. Default: 0.1.", "FLOAT"),
        Positive(),
    ] = None
    reselect_every: Annotated[int | None, flag("Iterations between selections.", "INT"), AtLeast(1)] = None
    weight: Annotated[
        float | None, flag("Coefficient of the generated images' loss. Default: 0.1.", "FLOAT"), AtLeast(0)
    ] = None
    noise: Annotated[bool, flag("Draw pixels from p(x | z) instead of taking its mean.")] = False


@dataclass(frozen=True, kw_only=True)
class LearnFlags:
    """How it is learned."""

    labelled: Annotated[
        int | None,
        flag(
            "Labelled images, equally many of each class. Default: the preset's (svhn 1000, mnist 100, digits 50).",
            "INT",
        ),
        AtLeast(1),
    ] = None
    unlabelled: Annotated[int, flag("Unlabelled images; 0 is all others.", "INT"), AtLeast(0)] = 0
    iterations: Annotated[int | None, flag("Iterations of learning (T).", "INT"), AtLeast(1)] = None
    augment_at: Annotated[
        int | None, flag("Iteration from which generated images are learned from (T_a).", "INT"), AtLeast(1)
    ] = None
    batch_size: Annotated[
        int | None,
        flag("Unlabelled, labelled and generated images per iteration, each. Default: 100.", "INT"),
        AtLeast(1),
    ] = None
    lr_energy: Annotated[float | None, flag("Adam's step size for the prior (eta_0).", "FLOAT"), Positive()] = None
    lr_elbo: Annotated[float | None, flag("Adam's for encoder and generator (eta_1).", "FLOAT"), Positive()] = None
    lr_supervised: Annotated[
        float | None, flag("Adam's for prior and encoder on labels (eta_2).", "FLOAT"), Positive()
    ] = None
    langevin_steps: Annotated[
        int | None, flag("Steps of short-run Langevin (T_LD). Default: 60.", "INT"), AtLeast(1)
    ] = None
    langevin_step: Annotated[float | None, flag("Its step size (s of Eq. 2). Default: 0.08.", "FLOAT"), Positive()] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class SizeFlags:
    """The model's sizes."""

    latent: Annotated[int | None, flag("Units of z.", "INT"), AtLeast(1)] = None
    hidden: Annotated[int | None, flag("Units of the energy's layers. Default: 200.", "INT"), AtLeast(1)] = None
    width: Annotated[
        int | None,
        flag("Width of encoder and generator (on 32x32 images a WRN-28-width).", "INT"),
        AtLeast(1),
    ] = None
    sigma: Annotated[
        float | None, flag("Standard deviation of a pixel given z, pixels in [0, 1].", "FLOAT"), Positive()
    ] = None


@dataclass(frozen=True, kw_only=True)
class FolderFlags(PlaceFlags):
    """Where runs are kept, and how they go on."""

    out: Annotated[
        Path | None,
        flag("The run's own folder. Default: under runs/, named by dataset, setting and configuration.", "DIR"),
    ] = None
    base: Annotated[
        Path | None,
        flag(
            "Folder of the first phase, up to --augment-at, which all settings of a seed share. Default: under runs/.",
            "DIR",
        ),
    ] = None
    resume: Annotated[
        bool, flag("Go on with what the folder holds; --no-resume starts over (the second phase only).")
    ] = True
    checkpoint_seconds: Annotated[
        float,
        flag("Write a checkpoint this often: a kill loses no more, or 100 iterations if they take longer.", "SECONDS"),
        AtLeast(0),
    ] = 30.0


@dataclass(frozen=True, kw_only=True)
class SslTrain:
    """Learn a classifier and a generator from few labels, then from its own best samples too; run again to go on."""

    dataset: Annotated[str, flag("Which images; svhn is the paper's, digits needs no file.", names("dataset"))] = (
        "mnist"
    )
    setting: Annotated[
        str,
        flag(
            """Which generated images are learned from. baseline: none. unfiltered: all. entropy: those the classifier is
            sure of (H). entropy-craig: H, then a weighted tenth by CRAIG; entropy-adacore, entropy-random: by AdaCore, or
            by chance. entropy-craig-pl: H & CRAIG over generated and pseudo-labelled images.""",
            names("setting"),
        ),
    ] = "entropy-craig"
    preset: Annotated[
        str | None,
        flag(
            """Where the numbers come from. Default: pooladzandi2022 (as published) on 32x32 images, mnist on others, digits
            on digits.""",
            "pooladzandi2022|mnist|digits",
        ),
    ] = None
    validation_fraction: Annotated[
        float,
        flag("Score on this fraction of the training images, held out, and not on the test images.", "FRACTION"),
    ] = 0.0
    seed: Seed = 0
    synthetic: Annotated[SyntheticFlags, group("Which generated images are learned from.")] = SyntheticFlags()
    learning: Annotated[LearnFlags, group("How it is learned; what is not given is the preset's.")] = LearnFlags()
    sizes: Annotated[SizeFlags, group("The model's sizes; what is not given is the preset's.")] = SizeFlags()
    where: Annotated[FolderFlags, group("Where runs are kept, and how they go on.")] = FolderFlags()


@dataclass(frozen=True, kw_only=True)
class SslSynthesise(PlaceFlags):
    """Draw class-conditional images from a trained model: sheets as they come and sorted by entropy, histogram, tensors."""

    model: Annotated[tyro.conf.Positional[Path], flag("The folder of a trained model.", "DIR")]
    count: Annotated[int, flag("How many images, equally many of each class.", "INT"), AtLeast(1)] = 1000
    temperature: Annotated[float, flag("Temperature of the Langevin dynamics.", "FLOAT"), AtLeast(0)] = 1.0
    seed: Annotated[int, flag("Seed of the draws.", "INT"), Between(0, MOST_SEED)] = 0
    out: Annotated[Path | None, flag("Where they go. Default: samples/ in the model's folder.", "DIR")] = None


@dataclass(frozen=True, kw_only=True)
class SslEvaluate(PlaceFlags):
    """Score trained models on the test images: accuracy, NLL, ECE, Brier score, into rows.csv."""

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], flag("Folders of trained models.", "DIR...")]
    draws: Annotated[int, flag("Draws of z per image.", "INT"), AtLeast(1)] = 8


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
    from bpc.ebm.train import SETTINGS, LearnConfig, SyntheticConfig

    name = args.preset or default_settings(args.dataset).ssl_preset
    if name not in SSL_PRESETS:
        raise unknown_name("preset", name, SSL_PRESETS)
    if args.setting not in SETTINGS:
        raise unknown_name("setting", args.setting, SETTINGS)
    preset = SSL_PRESETS[name]

    def config(kind: Any, flags: Any, **more: Any) -> Any:
        """What the flags say, else the preset, else the configuration's own default."""
        fields = {field.name for field in dataclasses.fields(kind)}
        said = {k: v for k, v in vars(flags).items() if k in fields and v is not None}
        return kind(**{k: v for k, v in preset.items() if k in fields} | said | more)

    synthetic = config(SyntheticConfig, args.synthetic, setting=args.setting)
    if not SETTINGS[args.setting].generate:  # flags that change nothing should not name another run
        synthetic = SyntheticConfig(setting=args.setting)
    labelled = args.learning.labelled
    return SslSettings(
        dataset=args.dataset,
        labelled=preset["labelled"] if labelled is None else labelled,
        unlabelled=args.learning.unlabelled,
        validation_fraction=args.validation_fraction,
        model=config(EBMConfig, args.sizes),
        learn=config(LearnConfig, args.learning),
        augment=synthetic,
        seed=args.seed,
    )


def run_train(args: SslTrain) -> Path:
    """Both phases, then the scores; returns the model's folder."""
    from bpc.ebm.job import train_job
    from bpc.runs import config_hash, default_out, resolve_device
    from evaluation.ssl.jobs import draw_learning

    settings, where = settings_from(args), args.where
    name = config_hash(settings.record())[:8]
    out = where.out or default_out("ssl", args.dataset, settings.augment.setting, name)
    base = where.base or default_out("ssl", "base", args.dataset, config_hash(settings.base())[:8])
    train_job(
        settings,
        out,
        base,
        resume=where.resume,
        checkpoint_seconds=where.checkpoint_seconds,
        data_root=where.data_root,
        device=resolve_device(where.device),
    )
    draw_learning(out)
    run_evaluate(SslEvaluate(models=(out,), data_root=where.data_root, device=where.device))
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
