"""`run.py vae ...`: VAEs whose prior is a coreset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bpc.errors import unknown_name
from bpc_cli.flags import MOST_SEED, AtLeast, Between, PlaceFlags, Positive, Seed, flag

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


@dataclass(frozen=True, kw_only=True)
class VaeTrain(PlaceFlags):
    """Train a VAE with a prior of your choice, then score it; run again to go on."""

    dataset: Annotated[
        str,
        flag(
            """mnist, static_mnist, fashion_mnist, cifar10, frey_faces, omniglot, caltech101_silhouettes, histopathology,
            celeba, svhn, digits (needs no file).""",
            "TEXT",
        ),
    ] = "mnist"
    prior: Annotated[
        str,
        flag(
            """gaussian, mog, vampprior, vampprior-data, vampprior-weighted, exemplar, or bype: a learned weighted
            pseudocoreset.""",
            "NAME",
        ),
    ] = "bype"
    model: Annotated[str, flag("vae, hvae, convhvae, pixelhvae, fullconv.", "NAME")] = "vae"
    preset: Annotated[
        str,
        flag(
            """ai2021: squared error on grey pixels. tomczak2018: Bernoulli on binarised pixels, discretised logistic on
            grey ones. Both: latent 40, 300 hidden units, normalised Adam 5e-4, batch 100, warm-up 100 epochs, look-
            ahead 50, 500 components.""",
            "ai2021|tomczak2018",
        ),
    ] = "ai2021"
    likelihood: Annotated[
        str | None, flag("bernoulli, mse, gaussian, logistic. Default: the preset's for the dataset.", "NAME")
    ] = None
    components: Annotated[
        int | None,
        flag(
            """Pseudo-inputs, exemplars, mixture components or pseudocoreset points; exemplar: 0 is all. Default 500
            (1000 on omniglot, 240 on celeba, 100 on digits).""",
            "INT",
        ),
        AtLeast(0),
    ] = None
    neighbours: Annotated[
        int,
        flag(
            """exemplar: nearest exemplars that a step uses, found by an approximate index; 0 is all of them.""", "INT"
        ),
        AtLeast(0),
    ] = 0
    interval: Annotated[int, flag("bype: epochs between updates of the pseudocoreset (k).", "INT"), AtLeast(1)] = 10
    step: Annotated[
        float,
        flag("bype: first step size of the pseudocoreset (gamma; the paper's grid is 0.1 and 0.5).", "FLOAT"),
        Positive(),
    ] = 0.1
    draws: Annotated[
        int, flag("bype: draws of the latent a step (S); 0 is one for each component.", "INT"), AtLeast(0)
    ] = 0
    coreset_steps: Annotated[
        int, flag("bype: steps an update; 0 is one pass over the training images.", "INT"), AtLeast(0)
    ] = 0
    latent: Annotated[int, flag("Units of every stochastic layer.", "INT"), AtLeast(1)] = 40
    hidden: Annotated[int, flag("Units of the gated layers.", "INT"), AtLeast(1)] = 300
    channels: Annotated[int, flag("Of convolutions.", "INT"), AtLeast(1)] = 32
    epochs: Annotated[int, flag("At most.", "INT"), AtLeast(1)] = 2000
    lr: Annotated[float, flag("Step size of Adam.", "FLOAT"), Positive()] = 5e-4
    batch_size: Annotated[int, flag("Images a step.", "INT"), AtLeast(1)] = 100
    warmup: Annotated[
        int | None,
        flag(
            """Epochs over which the KL's factor rises to 1. Default 100, or a fifth of --epochs if that is less.""",
            "INT",
        ),
        AtLeast(0),
    ] = None
    patience: Annotated[
        int, flag("Stop when so many epochs have not bettered the validation bound.", "INT"), AtLeast(1)
    ] = 50
    train_images: Annotated[int, flag("Train on this many images, evenly spaced; 0 is all.", "INT"), AtLeast(0)] = 0
    seed: Seed = 0
    out: Annotated[
        Path | None,
        flag(
            """The model's own folder. Default: under runs/, named by dataset, model, prior and configuration.""", "DIR"
        ),
    ] = None
    resume: Annotated[bool, flag("Go on with what the folder holds; --no-resume starts over.")] = True
    checkpoint_seconds: Annotated[
        float, flag("A kill loses at most this much work, and the epoch under way.", "FLOAT"), AtLeast(0)
    ] = 30.0
    evaluate: Annotated[bool, flag("Score the model when it is trained.")] = True
    samples: Annotated[int, flag("Importance samples a test image.", "INT"), AtLeast(1)] = 5000
    test_images: Annotated[
        int, flag("Test images for importance sampling, evenly spaced; 0 is all.", "INT"), AtLeast(0)
    ] = 0


@dataclass(frozen=True, kw_only=True)
class VaeEvaluate(PlaceFlags):
    """Score trained models: log-likelihood by importance sampling, bound, active units, nearest neighbours; pictures."""

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], flag("Folders of trained models.", "DIR...")]
    samples: Annotated[int, flag("Importance samples a test image.", "INT"), AtLeast(1)] = 5000
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
    out: Annotated[Path | None, flag("Where to. Default: the model's folder.", "DIR")] = None


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
    batch_size: Annotated[int, flag("Images a step.", "INT"), AtLeast(1)] = 100


@dataclass(frozen=True, kw_only=True)
class VaeCompare:
    """Join scored models: tables with the published numbers beside them, and figures."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], flag("Folders of models, or folders to be searched.", "DIR...")
    ]
    out: Annotated[Path, flag("Where tables and figures go.", "DIR")] = Path("runs/vae-compare")
    title: Annotated[str, flag("The table's title.", "TEXT")] = "VAEs by their priors"


PRESETS = ("ai2021", "tomczak2018")


def settings_from(args: VaeTrain) -> VaeSettings:
    """The settings that flags of ``vae train`` mean."""
    from bpc.data import default_settings
    from bpc.vae.job import VaeSettings
    from bpc.vae.models import ModelConfig
    from bpc.vae.priors import PriorConfig
    from bpc.vae.train import TrainConfig

    if args.preset not in PRESETS:
        raise unknown_name("preset", args.preset, PRESETS)
    usual = default_settings(args.dataset)
    likelihood = args.likelihood or ("mse" if args.preset == "ai2021" else usual.likelihood)
    components = usual.components if args.components is None else args.components
    warmup = min(100, args.epochs // 5) if args.warmup is None else args.warmup
    return VaeSettings(
        dataset=args.dataset,
        model=ModelConfig(name=args.model, latent=args.latent, hidden=args.hidden, width=args.channels),
        prior=PriorConfig(
            name=args.prior,
            components=components,
            neighbours=args.neighbours,
            interval=args.interval,
            step=args.step,
            samples=args.draws,
            coreset_steps=args.coreset_steps,
        ),
        train=TrainConfig(
            lr=args.lr, batch_size=args.batch_size, epochs=args.epochs, warmup=warmup, patience=args.patience
        ),
        likelihood=likelihood,
        train_images=args.train_images,
        seed=args.seed,
    )


def run_train(args: VaeTrain) -> Path:
    """Train, then score; returns the model's folder."""
    from bpc.runs import config_hash, default_out, resolve_device
    from bpc.vae.job import train_job
    from evaluation.vae.jobs import draw_learning

    settings = settings_from(args)
    name = config_hash(settings.record())[:8]
    out = args.out or default_out("vae", args.dataset, args.model, args.prior, name)
    train_job(
        settings,
        out,
        resume=args.resume,
        checkpoint_seconds=args.checkpoint_seconds,
        data_root=args.data_root,
        device=resolve_device(args.device),
    )
    if not args.evaluate:
        draw_learning(out)
    else:
        scores = VaeEvaluate(
            models=(out,),
            samples=args.samples,
            test_images=args.test_images,
            data_root=args.data_root,
            device=args.device,
        )
        run_evaluate(scores)
        run_compare(VaeCompare(runs=(out,), out=out / "tables", title=out.name))
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
