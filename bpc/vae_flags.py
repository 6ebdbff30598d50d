"""The flags of ``run.py vae ...``, with the words that its `--help` teaches them by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bpc.flags import Place

__all__ = ["VAE_COMMANDS", "VaeAugment", "VaeCompare", "VaeEvaluate", "VaeSample", "VaeTrain"]

Flag = tyro.conf.arg


@dataclass(kw_only=True)
class VaeTrain(Place):
    """Train a VAE with a prior of your choice, then score it; run again to go on."""

    dataset: str = "mnist"
    """mnist, static_mnist, fashion_mnist, cifar10, frey_faces, omniglot, caltech101_silhouettes, histopathology, celeba, svhn,
    digits (needs no file)."""
    prior: Annotated[str, Flag(metavar="NAME")] = "bype"
    """gaussian, mog, vampprior, vampprior-data, vampprior-weighted, exemplar, or bype: a learned weighted pseudocoreset."""
    model: Annotated[str, Flag(metavar="NAME")] = "vae"
    """vae, hvae, convhvae, pixelhvae, fullconv."""
    preset: Annotated[str, Flag(metavar="ai2021|tomczak2018")] = "ai2021"
    """ai2021: squared error on grey pixels. tomczak2018: Bernoulli on binarised pixels, discretised logistic on grey ones. Both:
    latent 40, 300 hidden units, normalised Adam 5e-4, batch 100, warm-up 100 epochs, look-ahead 50, 500 components."""
    likelihood: Annotated[str | None, Flag(metavar="NAME")] = None
    """bernoulli, mse, gaussian, logistic. Default: the preset's for the dataset."""
    components: int | None = None
    """Pseudo-inputs, exemplars, mixture components or pseudocoreset points; exemplar: 0 is all. Default 500 (1000 on omniglot,
    240 on celeba, 100 on digits)."""
    neighbours: int = 0
    """exemplar: nearest exemplars that a step uses, found by an approximate index; 0 is all of them."""
    interval: int = 10
    """bype: epochs between updates of the pseudocoreset (k)."""
    step: float = 0.1
    """bype: first step size of the pseudocoreset (gamma; the paper's grid is 0.1 and 0.5)."""
    draws: int = 0
    """bype: draws of the latent a step (S); 0 is one for each component."""
    coreset_steps: int = 0
    """bype: steps an update; 0 is one pass over the training images."""
    latent: int = 40
    """Units of every stochastic layer."""
    hidden: int = 300
    """Units of the gated layers."""
    channels: int = 32
    """Of convolutions."""
    epochs: int = 2000
    """At most."""
    lr: float = 5e-4
    """Step size of Adam."""
    batch_size: int = 100
    """Images a step."""
    warmup: int | None = None
    """Epochs over which the KL's factor rises to 1. Default 100, or a fifth of --epochs if that is less."""
    patience: int = 50
    """Stop when so many epochs have not bettered the validation bound."""
    train_images: int = 0
    """Train on this many images, evenly spaced; 0 is all."""
    seed: int = 0
    """Every random number derives from it."""
    out: Annotated[Path | None, Flag(metavar="DIR")] = None
    """The model's own folder. Default: under runs/, named by dataset, model, prior and configuration."""
    resume: bool = True
    """Go on with what the folder holds; --no-resume starts over."""
    checkpoint_seconds: float = 30.0
    """A kill loses at most this much work, and the epoch under way."""
    evaluate: bool = True
    """Score the model when it is trained."""
    samples: int = 5000
    """Importance samples a test image."""
    test_images: int = 0
    """Test images for importance sampling, evenly spaced; 0 is all."""


@dataclass(kw_only=True)
class VaeEvaluate(Place):
    """Score trained models: log-likelihood by importance sampling, bound, active units, nearest neighbours; pictures."""

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], Flag(metavar="DIR...")]
    """Folders of trained models."""
    samples: int = 5000
    """Importance samples a test image."""
    test_images: int = 0
    """Test images for importance sampling, evenly spaced; 0 is all."""
    pictures: bool = True
    """Draw samples, reconstructions, interpolations, pseudo-inputs and the latent map."""


@dataclass(kw_only=True)
class VaeSample(Place):
    """Generate images from a trained model: a picture and a tensor file."""

    model: Annotated[tyro.conf.Positional[Path], Flag(metavar="DIR")]
    """The folder of a trained model."""
    count: int = 100
    """How many."""
    seed: int = 0
    """Of the draws."""
    out: Annotated[Path | None, Flag(metavar="DIR")] = None
    """Where to. Default: the model's folder."""


@dataclass(kw_only=True)
class VaeAugment(Place):
    """Train a classifier on real and generated images for each weight of the real ones; test errors."""

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], Flag(metavar="DIR...")]
    """Folders of trained models."""
    way: Annotated[str, Flag(metavar="posterior|prior")] = "posterior"
    """Where a real image's companion comes from: q(z | x), or the prior's component on it (bype and exemplar)."""
    weights: tuple[float, ...] = (0.4,)
    """Lambda: weights of the real images, one classifier each. The paper's sweep: 0 0.1 0.2 ... 1."""
    epochs: int = 50
    """Of the classifier."""
    lr: float = 1e-3
    """Step size of its Adam; it falls to 0 as a cosine."""
    batch_size: int = 100
    """Images a step."""


@dataclass(kw_only=True)
class VaeCompare:
    """Join scored models: tables with the published numbers beside them, and figures."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], Flag(metavar="DIR...")]
    """Folders of models, or folders to be searched."""
    out: Annotated[Path, Flag(metavar="DIR")] = Path("runs/vae-compare")
    """Where tables and figures go."""
    title: str = "VAEs by their priors"
    """The table's title."""


VAE_COMMANDS: dict[str, Any] = {
    "train": VaeTrain,
    "evaluate": VaeEvaluate,
    "sample": VaeSample,
    "augment": VaeAugment,
    "compare": VaeCompare,
}
