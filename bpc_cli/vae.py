"""`run.py vae ...`: VAEs whose prior is a coreset."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bpc.errors import unknown_name
from bpc_cli.flags import MOST_SEED, AtLeast, Between, PlaceFlags, Positive, Seed, flag, group, names

if TYPE_CHECKING:
    from bpc.vae.job import VaeSettings

__all__ = [
    "EXAMPLES",
    "VAE_COMMANDS",
    "VaeAugment",
    "VaeCompare",
    "VaeEvaluate",
    "VaeSample",
    "VaeTrain",
    "settings_from",
]


# A default that is None here is the configuration's own (bpc.vae), and is written down only there; the words of a flag repeat it,
# and a test compares them.


@dataclass(frozen=True, kw_only=True)
class PriorFlags:
    """The prior's settings."""

    components: Annotated[
        int | None,
        flag(
            """Pseudo-inputs, exemplars, mixture components or pseudocoreset points; exemplar: 0 is all. Default: 500 (1000 on
            omniglot, 240 on celeba, 100 on digits).""",
            "INT",
        ),
        AtLeast(0),
    ] = None
    neighbours: Annotated[
        int | None,
        flag(
            "exemplar: nearest exemplars that a step uses, found by an approximate index; 0 is all. Default: 0.", "INT"
        ),
        AtLeast(0),
    ] = None
    interval: Annotated[
        int | None, flag("bype: epochs between updates of the pseudocoreset (k). Default: 10.", "INT"), AtLeast(1)
    ] = None
    step: Annotated[
        float | None,
        flag(
            """bype: first step size of the pseudocoreset (gamma; the paper's grid is 0.1 and 0.5). Default: 0.1.""",
            "FLOAT",
        ),
        Positive(),
    ] = None
    draws: Annotated[
        int | None,
        flag("bype: draws of the latent per step (S); 0 is one per component. Default: 0.", "INT"),
        AtLeast(0),
    ] = None
    coreset_steps: Annotated[
        int | None,
        flag("bype: steps per update; 0 is one pass over the training images. Default: 0.", "INT"),
        AtLeast(0),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model's sizes."""

    latent: Annotated[int | None, flag("Units of every stochastic layer. Default: 40.", "INT"), AtLeast(1)] = None
    hidden: Annotated[int | None, flag("Units of the gated layers. Default: 300.", "INT"), AtLeast(1)] = None
    channels: Annotated[int | None, flag("Channels of the convolutional models. Default: 32.", "INT"), AtLeast(1)] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """How it is trained."""

    epochs: Annotated[
        int | None, flag("Stop after this many epochs at the latest. Default: 2000.", "INT"), AtLeast(1)
    ] = None
    lr: Annotated[float | None, flag("Step size of Adam. Default: 0.0005.", "FLOAT"), Positive()] = None
    batch_size: Annotated[int | None, flag("Images per step. Default: 100.", "INT"), AtLeast(1)] = None
    warmup: Annotated[
        int | None,
        flag(
            "Epochs over which the KL's factor rises to 1. Default: 100, or a fifth of --epochs if that is less.", "INT"
        ),
        AtLeast(0),
    ] = None
    patience: Annotated[
        int | None,
        flag("Stop when so many epochs have not bettered the validation bound. Default: 50.", "INT"),
        AtLeast(1),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ScoreFlags:
    """How it is scored."""

    samples: Annotated[int, flag("Importance samples per test image.", "INT"), AtLeast(1)] = 5000
    test_images: Annotated[
        int, flag("Test images for importance sampling, evenly spaced; 0 is all.", "INT"), AtLeast(0)
    ] = 0


@dataclass(frozen=True, kw_only=True)
class FolderFlags(PlaceFlags):
    """Where a model is kept, and how its training goes on."""

    out: Annotated[
        Path | None,
        flag("The model's own folder. Default: under runs/, named by dataset, model, prior and configuration.", "DIR"),
    ] = None
    resume: Annotated[bool, flag("Go on with what the folder holds; --no-resume starts over.")] = True
    checkpoint_seconds: Annotated[
        float,
        flag("Write a checkpoint this often: a kill loses no more, and the epoch under way.", "SECONDS"),
        AtLeast(0),
    ] = 30.0


@dataclass(frozen=True, kw_only=True)
class VaeTrain:
    """Train a VAE with a prior of your choice, then score it; run again to go on."""

    dataset: Annotated[str, flag("Which images; digits needs no file.", names("image set"))] = "mnist"
    prior: Annotated[str, flag("bype is a learned, weighted pseudocoreset.", names("prior"))] = "bype"
    model: Annotated[str, flag("The network of encoder and decoder.", names("model"))] = "vae"
    preset: Annotated[
        str,
        flag(
            """ai2021: squared error on grey pixels. tomczak2018: Bernoulli on binarised pixels, discretised logistic on grey
            ones.""",
            "ai2021|tomczak2018",
        ),
    ] = "ai2021"
    likelihood: Annotated[
        str | None, flag("Of a pixel. Default: the preset's for the dataset.", names("likelihood"))
    ] = None
    train_images: Annotated[int, flag("Train on this many images, evenly spaced; 0 is all.", "INT"), AtLeast(0)] = 0
    seed: Seed = 0
    evaluate: Annotated[bool, flag("Score the model when it is trained.")] = True
    of_prior: Annotated[PriorFlags, group("The prior's settings.")] = PriorFlags()
    of_model: Annotated[ModelFlags, group("The model's sizes.")] = ModelFlags()
    training: Annotated[TrainingFlags, group("How it is trained.")] = TrainingFlags()
    scoring: Annotated[ScoreFlags, group("How it is scored.")] = ScoreFlags()
    where: Annotated[FolderFlags, group("Where it is kept, and how training goes on.")] = FolderFlags()


@dataclass(frozen=True, kw_only=True)
class VaeEvaluate(PlaceFlags):
    """Score trained models: log-likelihood by importance sampling, bound, active units, nearest neighbours; pictures."""

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], flag("Folders of trained models.", "DIR...")]
    samples: Annotated[int, flag("Importance samples per test image.", "INT"), AtLeast(1)] = 5000
    test_images: Annotated[
        int, flag("Test images for importance sampling, evenly spaced; 0 is all.", "INT"), AtLeast(0)
    ] = 0
    pictures: Annotated[
        bool, flag("Draw samples, reconstructions, interpolations, pseudo-inputs and the latent map.")
    ] = True


@dataclass(frozen=True, kw_only=True)
class VaeSample(PlaceFlags):
    """Generate images from a trained model: a picture and a tensor file."""

    model: Annotated[tyro.conf.Positional[Path], flag("The folder of a trained model.", "DIR")]
    count: Annotated[int, flag("How many.", "INT"), AtLeast(1)] = 100
    seed: Annotated[int, flag("Of the draws.", "INT"), Between(0, MOST_SEED)] = 0
    out: Annotated[Path | None, flag("Where they go. Default: the model's folder.", "DIR")] = None


@dataclass(frozen=True, kw_only=True)
class VaeAugment(PlaceFlags):
    """Train a classifier on real and generated images for each weight of the real ones; test errors."""

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], flag("Folders of trained models.", "DIR...")]
    way: Annotated[
        str,
        flag(
            """Where a real image's companion comes from: q(z | x), or the prior's component on it (bype and exemplar).""",
            "posterior|prior",
        ),
    ] = "posterior"
    weights: Annotated[
        tuple[float, ...],
        flag("""Lambda: weights of the real images, one classifier each. The paper's sweep: 0 0.1 0.2 ... 1."""),
    ] = (0.4,)
    epochs: Annotated[int, flag("Of the classifier.", "INT"), AtLeast(1)] = 50
    lr: Annotated[float, flag("Step size of its Adam; it falls to 0 as a cosine.", "FLOAT"), Positive()] = 1e-3
    batch_size: Annotated[int, flag("Images per step.", "INT"), AtLeast(1)] = 100


@dataclass(frozen=True, kw_only=True)
class VaeCompare:
    """Join scored models: tables with the published numbers beside them, and figures."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], flag("Folders of models, or folders to be searched.", "DIR...")
    ]
    out: Annotated[Path, flag("Where tables and figures go.", "DIR")] = Path("runs/vae-compare")
    title: Annotated[str, flag("The table's title.", "TEXT")] = "VAEs by their priors"


PRESETS = ("ai2021", "tomczak2018")


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None: a configuration's own defaults stand for the others."""
    return {name: value for name, value in values.items() if value is not None}


def settings_from(args: VaeTrain) -> VaeSettings:
    """The settings that flags of ``vae train`` mean."""
    from bpc.data import default_settings
    from bpc.vae.job import VaeSettings
    from bpc.vae.models import ModelConfig
    from bpc.vae.priors import PriorConfig
    from bpc.vae.train import TrainConfig

    if args.preset not in PRESETS:
        raise unknown_name("preset", args.preset, PRESETS)
    usual, prior, model, training = default_settings(args.dataset), args.of_prior, args.of_model, args.training
    train = TrainConfig(
        **given(
            lr=training.lr,
            batch_size=training.batch_size,
            epochs=training.epochs,
            warmup=training.warmup,
            patience=training.patience,
        )
    )
    if training.warmup is None:
        train = dataclasses.replace(train, warmup=min(train.warmup, train.epochs // 5))
    return VaeSettings(
        dataset=args.dataset,
        model=ModelConfig(name=args.model, **given(latent=model.latent, hidden=model.hidden, width=model.channels)),
        prior=PriorConfig(
            name=args.prior,
            components=usual.components if prior.components is None else prior.components,
            **given(
                neighbours=prior.neighbours,
                interval=prior.interval,
                step=prior.step,
                samples=prior.draws,
                coreset_steps=prior.coreset_steps,
            ),
        ),
        train=train,
        likelihood=args.likelihood or ("mse" if args.preset == "ai2021" else usual.likelihood),
        train_images=args.train_images,
        seed=args.seed,
    )


def run_train(args: VaeTrain) -> Path:
    """Train, then score; returns the model's folder."""
    from bpc.runs import config_hash, default_out, resolve_device
    from bpc.vae.job import train_job
    from evaluation.vae.jobs import draw_learning

    settings, where = settings_from(args), args.where
    name = config_hash(settings.record())[:8]
    out = where.out or default_out("vae", args.dataset, args.model, args.prior, name)
    train_job(
        settings,
        out,
        resume=where.resume,
        checkpoint_seconds=where.checkpoint_seconds,
        data_root=where.data_root,
        device=resolve_device(where.device),
    )
    if args.evaluate:
        run_evaluate(
            VaeEvaluate(
                models=(out,),
                samples=args.scoring.samples,
                test_images=args.scoring.test_images,
                data_root=where.data_root,
                device=where.device,
            )
        )
        run_compare(VaeCompare(runs=(out,), out=out / "tables", title=out.name))
    else:
        draw_learning(out)
    return out


def run_evaluate(args: VaeEvaluate) -> Path:
    """Score every model; returns the last one's rows.csv."""
    from bpc.runs import resolve_device
    from evaluation.vae.jobs import evaluate_job

    for path in args.models:
        evaluate_job(
            path,
            samples=args.samples,
            test_images=args.test_images,
            pictures=args.pictures,
            data_root=args.data_root,
            device=resolve_device(args.device),
        )
    return args.models[-1] / "rows.csv"


def run_sample(args: VaeSample) -> Path:
    """Generate; returns the picture."""
    from bpc.runs import resolve_device
    from evaluation.vae.jobs import sample_job

    device = resolve_device(args.device)
    return sample_job(args.model, args.out, count=args.count, seed=args.seed, data_root=args.data_root, device=device)


def run_augment(args: VaeAugment) -> Path:
    """Classifiers for every model; returns the last one's rows.csv."""
    from bpc.runs import resolve_device
    from evaluation.vae.jobs import augment_job

    for path in args.models:
        augment_job(
            path,
            way=args.way,
            weights=args.weights,
            epochs=args.epochs,
            lr=args.lr,
            batch_size=args.batch_size,
            data_root=args.data_root,
            device=resolve_device(args.device),
        )
    return args.models[-1] / "rows.csv"


def run_compare(args: VaeCompare) -> Path:
    """Tables and figures; returns the Markdown."""
    from bpc_cli.show import print_tables
    from evaluation.vae.table import compare

    print_tables(*compare(args.runs, args.out, args.title))
    return args.out / "comparison.md"


VAE_COMMANDS: dict[str, tuple[type, Any]] = {
    "train": (VaeTrain, run_train),
    "evaluate": (VaeEvaluate, run_evaluate),
    "sample": (VaeSample, run_sample),
    "augment": (VaeAugment, run_augment),
    "compare": (VaeCompare, run_compare),
}

EXAMPLES = """\
run.py vae train --dataset digits --likelihood bernoulli --prior bype --epochs 200    a minute, no file needed
run.py vae train --dataset mnist --prior vampprior
run.py vae compare runs/                                                              tables beside the published numbers"""
