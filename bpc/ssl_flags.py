"""The flags of ``run.py ssl ...``, with the words that its `--help` teaches them by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bpc.flags import Place

__all__ = ["PRESETS", "SSL_COMMANDS", "SslCompare", "SslEvaluate", "SslSynthesise", "SslTrain"]

Flag = tyro.conf.arg

# What a preset says where a flag does not. The paper's step sizes, latent size, sigma and Langevin step are not printed: they are
# ours, as is everything of mnist and digits, which were chosen on held-out training images.
PRESETS: dict[str, dict[str, Any]] = {
    "pooladzandi2022": {
        "labelled": 1000, "iterations": 1_200_000, "augment_at": 600_000, "reselect_every": 10_000, "threshold": 1e-6,
        "latent": 100, "width": 2, "sigma": 0.15, "lr_elbo": 1e-4, "lr_supervised": 1e-4, "lr_energy": 2e-5,
    },
    "mnist": {
        "labelled": 100, "iterations": 3_000, "augment_at": 1_500, "reselect_every": 500, "threshold": 1e-4,
        "latent": 32, "width": 1, "sigma": 0.3, "lr_elbo": 1e-3, "lr_supervised": 1e-3, "lr_energy": 3e-4,
    },
    "digits": {
        "labelled": 50, "iterations": 1_000, "augment_at": 500, "reselect_every": 100, "threshold": 1e-3,
        "latent": 16, "width": 1, "sigma": 0.2, "lr_elbo": 1e-3, "lr_supervised": 1e-3, "lr_energy": 3e-4,
    },
}  # fmt: skip


@dataclass(kw_only=True)
class SslTrain(Place):
    """Learn a classifier and a generator from few labels, then from its own best samples too; run again to go on."""

    dataset: str = "mnist"
    """svhn (the paper's), mnist, fashion_mnist, cifar10, digits (needs no file), or a path to your own images."""
    setting: Annotated[str, Flag(metavar="NAME")] = "entropy-craig"
    """Which generated images are learned from. baseline: none. unfiltered: all. entropy: those the classifier is sure of (H).
    entropy-craig: H, then a weighted tenth by CRAIG; entropy-adacore, entropy-random: by AdaCore, or by chance.
    entropy-craig-pl: H & CRAIG over generated and pseudo-labelled images."""
    samples: int = 10_000
    """Generated images, before any filter (L)."""
    labelled: int | None = None
    """Labelled images, equally many of each class. Default: the preset's (svhn 1000, mnist 100, digits 50)."""
    preset: Annotated[str | None, Flag(metavar="pooladzandi2022|mnist|digits")] = None
    """Where the numbers come from. Default: pooladzandi2022 (as published) on 32x32 images, mnist on others, digits on digits."""
    iterations: int | None = None
    """Of learning (T)."""
    augment_at: int | None = None
    """Iteration from which generated images are learned from (T_a)."""
    threshold: float | None = None
    """Entropy in nats below which a generated or pseudo-labelled image is believed."""
    temperature: float = 1.0
    """Of the Langevin dynamics that generate: below 1 a soft filter, with lower entropies and less variety (Appendix D)."""
    fraction: float = 0.1
    """Kept by CRAIG, AdaCore or chance, of each class's candidates."""
    reselect_every: int | None = None
    """Iterations between selections."""
    weight: float = 0.1
    """Coefficient of the generated images' loss."""
    noise: bool = False
    """Draw pixels from p(x | z) instead of taking its mean."""
    batch_size: int = 100
    """Unlabelled, labelled and generated images an iteration, each."""
    unlabelled: int = 0
    """Unlabelled images; 0 is all others."""
    latent: int | None = None
    """Units of z."""
    hidden: int = 200
    """Units of the energy's layers."""
    width: int | None = None
    """Of encoder and generator (on 32x32 images a WRN-28-width)."""
    sigma: float | None = None
    """Standard deviation of a pixel given z, pixels in [0, 1]."""
    lr_energy: float | None = None
    """Adam's step size for the prior (eta_0)."""
    lr_elbo: float | None = None
    """For encoder and generator (eta_1)."""
    lr_supervised: float | None = None
    """For prior and encoder on labels (eta_2)."""
    langevin_steps: int = 60
    """Steps of short-run Langevin (T_LD)."""
    langevin_step: float = 0.08
    """Its step size (s of Eq. 2)."""
    validation_fraction: float = 0.0
    """Score on this share of the training images, held out, and not on the test images: for choosing settings."""
    seed: int = 0
    """Every random number derives from it, also which images are labelled."""
    out: Annotated[Path | None, Flag(metavar="DIR")] = None
    """The run's own folder. Default: under runs/, named by dataset, setting and configuration."""
    base: Annotated[Path | None, Flag(metavar="DIR")] = None
    """Folder of the first phase, up to --augment-at, which all settings of a seed share. Default: under runs/."""
    resume: bool = True
    """Go on with what the folder holds; --no-resume starts over (the second phase only)."""
    checkpoint_seconds: float = 30.0
    """A kill loses at most this much work, or 100 iterations if they take longer."""


@dataclass(kw_only=True)
class SslSynthesise(Place):
    """Draw class-conditional images from a trained model: sheets as they come and sorted by entropy, histogram, tensors."""

    model: Annotated[tyro.conf.Positional[Path], Flag(metavar="DIR")]
    """The folder of a trained model."""
    count: int = 1000
    """How many, equally many of each class."""
    temperature: float = 1.0
    """Of the Langevin dynamics."""
    seed: int = 0
    """Of the draws."""
    out: Annotated[Path | None, Flag(metavar="DIR")] = None
    """Where to. Default: samples/ in the model's folder."""


@dataclass(kw_only=True)
class SslEvaluate(Place):
    """Score trained models on the test images: accuracy, NLL, ECE, Brier score, into rows.csv."""

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], Flag(metavar="DIR...")]
    """Folders of trained models."""
    draws: int = 8
    """Of z for each image."""


@dataclass(kw_only=True)
class SslCompare:
    """Join runs over settings, numbers of samples and seeds: tables with the published numbers, and figures."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], Flag(metavar="DIR...")]
    """Folders of models, or folders to be searched."""
    out: Annotated[Path, Flag(metavar="DIR")] = Path("runs/ssl-compare")
    """Where tables and figures go."""
    title: str = "Semi-supervised learning with chosen samples"
    """The table's title."""


SSL_COMMANDS: dict[str, Any] = {
    "train": SslTrain,
    "synthesise": SslSynthesise,
    "evaluate": SslEvaluate,
    "compare": SslCompare,
}
