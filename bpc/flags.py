"""The flags of every command, with the words that `--help` teaches them by. Nothing heavy is imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from bpc.errors import ConfigError

__all__ = [
    "COMMANDS",
    "Compare",
    "Demo",
    "Distill",
    "Doctor",
    "Evaluate",
    "Experts",
    "Reproduce",
    "Select",
    "Vae",
    "check_flags",
]

Flag = tyro.conf.arg


@dataclass(kw_only=True)
class Place:
    data_root: Annotated[Path | None, Flag(metavar="DIR")] = None
    """Where datasets are looked for first (or set BPC_DATA_ROOT); then the user cache; then they are downloaded."""
    device: str = "auto"
    """auto (a CUDA GPU if there is one), cpu, cuda, cuda:1."""


@dataclass(kw_only=True)
class Common(Place):
    dataset: Annotated[str, Flag(metavar="NAME|PATH")] = "cifar10"
    """digits (needs no file), cifar10, cifar100, mnist, fashion_mnist, imagenette, or a path to your own: a folder of images
    by class, an .npz or .safetensors file, or a folder with a train/test pair of them."""
    validation_fraction: float = 0.0
    """Hold out this fraction of the training images and use them instead of the test set: choose settings with it."""
    seed: int = 0
    """Every random number derives from it."""
    out: Annotated[Path | None, Flag(metavar="DIR")] = None
    """The run's own folder. Default: under runs/, named by job, dataset, method and configuration."""
    resume: bool = True
    """Go on with what the folder holds; --no-resume starts over."""
    checkpoint_seconds: float = 30.0
    """A kill loses at most this much work."""
    memory_budget: Annotated[float | None, Flag(metavar="GIB")] = None
    """Memory for activations: work is cut into pieces that fit, with the same result to rounding. Default 0.5 on the CPU, where
    more is no faster, and half of the card on a GPU."""


@dataclass(kw_only=True)
class Model:
    model: Annotated[str, Flag(metavar="convnet|FILE.py:FUNCTION")] = "convnet"
    """The ConvNet, or your own: FUNCTION(image_shape, num_classes) returns a torch module."""
    width: int | None = None
    """ConvNet channels. Default 128 (32 on digits)."""
    depth: int | None = None
    """ConvNet blocks. Default 3 (2 on digits, 5 on imagenette)."""
    norm: Annotated[str, Flag(metavar="instance|group|none")] = "instance"
    """ConvNet normalisation."""
    activation: Annotated[str, Flag(metavar="relu|leaky_relu|gelu|silu|tanh")] = "relu"
    """ConvNet activation."""


@dataclass(kw_only=True)
class Training:
    experts: Annotated[Path | None, Flag(metavar="DIR")] = None
    """The trajectory store. Default: under runs/, keyed by dataset, network and training settings, so it is reused."""
    num_experts: int | None = None
    """How many experts. Default: those in the store that are long enough, else 100 as published (10 on digits)."""
    epochs: int | None = None
    """Epochs each is trained for. Default: 50 as published (6 on digits); distill trains what it needs."""
    expert_lr: float | None = None
    """Step size of the experts' SGD. Default 0.01 as published (0.05 on digits)."""
    expert_batch: int | None = None
    """Images per step of the experts' SGD. Default 256 as published (64 on digits)."""
    expert_seed: int = 0
    """Seed of the experts: runs with different --seed share one store."""
    together: int | None = None
    """Experts trained in one batch. Default 1 on the CPU, 10 on a GPU."""
    augment: Annotated[str | None, Flag(metavar="OP_OP|none")] = None
    """Differentiable augmentation of experts and coreset. Default color_crop_cutout_flip_scale_rotate, as published (none on
    digits)."""


@dataclass(kw_only=True)
class Scoring:
    seeds: int | None = None
    """Repetitions; number i uses seed + i. Default 5; under exact one for each coreset given."""
    protocol: Annotated[str, Flag(metavar="kim2022|kim2022-scaled|exact|exact-scaled")] = "kim2022"
    """kim2022: the published one. kim2022-scaled: its penalty for small networks. exact: textbook MCMC, several chains,
    diagnostics, and fidelity to the full data's posterior. exact-scaled: the same with the coreset's weights scaled to sum to
    the number of training images."""
    test_images: int = 0
    """Score on this many test images, evenly spaced; 0 is all."""
    corruptions: bool = False
    """Score on the 15 corruptions at 5 severities as well: the official CIFAR-10-C files where they are found, else generated."""
    corruption_images: int = 200
    """Images of each corruption and severity; 0 is all."""
    chains_at_once: int = 0
    """Chains in one batch; 0 chooses by memory."""
    iterations: int | None = None
    """Change Table 3's N (the row is then no longer the published protocol)."""
    burn_in: int | None = None
    """Change Table 3's burn."""
    leapfrog_steps: int | None = None
    """Change Table 3's m; under exact, leapfrog steps a draw (default 20)."""
    step_size: float | None = None
    """Change Table 3's epsilon; under exact, the first guess (sghmc: the step) in units of the prior's width (default 0.02)."""
    penalty: float | None = None
    """Change Table 3's lambda."""
    chains: int = 4
    """exact: chains for every seed; their predictive is pooled, and R-hat compares them."""
    warmup: int = 200
    """exact: draws in which step size and mass are adapted; discarded."""
    samples: int = 200
    """exact: draws kept of each chain."""
    max_tree_depth: int = 8
    """exact, nuts: a draw costs up to 2^depth gradients."""
    prior_std: float = 0.1
    """exact: standard deviation of the Gaussian prior on every parameter."""
    beside_random: bool = True
    """exact: score random coresets of the same size into the same table."""
    reference: Annotated[str, Flag(metavar="auto|none|DIR")] = "auto"
    """exact: the full data's posterior to measure fidelity by. auto: sample it (twice, by SGHMC) if it is not there yet, and
    keep it under runs/. DIR: where it is, or is to be kept."""
    reference_sampler: Annotated[str, Flag(metavar="sghmc|hmc|nuts")] = "sghmc"
    """exact: how the reference is sampled; hmc and nuts take all training images for every gradient."""
    reference_warmup: int = 300
    """exact: draws of each of the reference's chains that are discarded."""
    reference_samples: int = 400
    """exact: draws kept of each of the reference's chains."""


@dataclass(kw_only=True)
class Experts(Training, Model, Common):
    """Train expert SGD trajectories and store a snapshot after every epoch; run again to extend or resume."""


@dataclass(kw_only=True)
class Distill(Scoring, Training, Model, Common):
    """Learn a pseudocoreset, then score it by HMC beside a random coreset of the same size and the published row."""

    divergence: Annotated[str, Flag(metavar="fkl|rkl|wasserstein")]
    """Forward KL, reverse KL, or Wasserstein distance between the posteriors of coreset and full data."""
    ipc: int
    """Images per class."""
    preset: Annotated[str | None, Flag(metavar="kim2022|kim2022-code|digits")] = None
    """Where the settings come from. Default kim2022, Tables 2 and C.3 of Kim et al. (2022); digits on digits."""
    evaluate: bool = True
    """Score the coreset when it is learned."""
    steps: int | None = None
    """Outer steps (K)."""
    lr: float | None = None
    """Outer step size on the images (gamma)."""
    momentum: float | None = None
    """Outer momentum."""
    max_start_epoch: int | None = None
    """Start epochs are drawn below this (T+)."""
    inner_steps: int | None = None
    """SGD steps on the coreset (L_u)."""
    expert_epochs: int | None = None
    """Expert epochs from start to end (L_x)."""
    student_lr: float | None = None
    """Inner step size (eta); where wasserstein's learned one starts."""
    lr_student: float | None = None
    """wasserstein: step size of the learned inner step size."""
    draws: int | None = None
    """Gaussian draws (S)."""
    sigma: float | None = None
    """Standard deviation of both Gaussians (Sigma_u^1/2 and Sigma_x^1/2)."""
    sigma_core: float | None = None
    """Of the coreset's alone (Sigma_u^1/2)."""
    sigma_expert: float | None = None
    """Of the experts' alone (Sigma_x^1/2)."""
    real_batch: int | None = None
    """rkl: real images per step (B)."""
    init: Annotated[str, Flag(metavar="real|noise")] = "real"
    """Start from a random subset of the data, or from noise."""
    diagonal: bool = False
    """wasserstein: diagonal covariances (Appendix C.1)."""
    reduction: Annotated[str, Flag(metavar="mean|sum")] = "mean"
    """fkl, rkl: mean as published, or sum: the gradient of the KL itself, with weights N/M."""
    learn_weights: bool = False
    """Learn the points' weights as well, as in the original pseudocoresets."""
    lr_weights: float = 0.1
    """Step size of the weights."""


@dataclass(kw_only=True)
class Select(Training, Model, Common):
    """Choose real points: at random, by a trained network's features (herding, k-center) or its gradients (CRAIG, AdaCore)."""

    method: Annotated[str, Flag(metavar="random|herding|kcenter|craig|adacore")]
    """How to choose. The points of craig and adacore are weighted by how many of their class each stands for."""
    ipc: int
    """Images per class."""


@dataclass(kw_only=True)
class Evaluate(Scoring, Model, Common):
    """Score coresets by MCMC: one row per seed and metric in rows.csv, and a table."""

    coreset: Annotated[tuple[Path, ...], Flag(metavar="PATH ...")]
    """A coreset.safetensors or a run's folder; several: one for each seed."""
    sampler: Annotated[str, Flag(metavar="hmc|asghmc|nuts|sghmc")] = "hmc"
    """hmc; asghmc, altered SGHMC (the coreset is augmented anew for every gradient; kim2022 only); nuts and sghmc: exact only."""
    backend: Annotated[str, Flag(metavar="native|pyro|hamiltorch")] = "native"
    """exact: who samples. Pyro and hamiltorch get the same density, and need their packages (run.py doctor)."""
    augment: Annotated[str | None, Flag(metavar="OP_OP|none")] = None
    """A-SGHMC's augmentation. Default: the one the coreset was learned with, else color_crop_cutout_flip_scale_rotate
    (crop_scale_rotate on digits)."""
    table: bool = True
    """Print the table."""


@dataclass(kw_only=True)
class Compare:
    """Join runs over methods, sizes, samplers and seeds with the published numbers: tables and figures."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], Flag(metavar="RUN...")]
    """Run folders, rows.csv files, or folders to be searched."""
    out: Annotated[Path, Flag(metavar="DIR")] = Path("runs/compare")
    """Where tables (.md, .csv, .tex) and figures go."""
    title: str = "Comparison"
    """First words of every caption."""
    scale: str | None = None
    """Words on scale for the captions. Default: what the runs themselves say."""


@dataclass(kw_only=True)
class Demo:
    """The whole job on the embedded digits: experts, three divergences, baselines, HMC and A-SGHMC, tables, pictures."""

    out: Annotated[Path, Flag(metavar="DIR")] = Path("demo")
    """Where everything goes."""
    seed: int = 0
    """Every random number derives from it."""
    device: str = "auto"
    """auto, cpu, cuda."""


@dataclass(kw_only=True)
class Reproduce:
    """A published table or figure, as a list of commands that skip what is done: call it again to resume."""

    target: Annotated[tyro.conf.Positional[str], Flag(metavar="TARGET")] = ""
    """Which one; without it, the list."""
    scale: Annotated[str, Flag(metavar="smoke|cpu|full")] = "smoke"
    """smoke: digits, minutes. cpu: CIFAR-10 made small for two cores, hours. full: as published, on a GPU."""
    out: Annotated[Path | None, Flag(metavar="DIR")] = None
    """Where everything goes. Default: runs/reproduce/TARGET-SCALE."""
    data_root: Annotated[Path | None, Flag(metavar="DIR")] = None
    """Where datasets are looked for first."""
    device: str = "auto"
    """auto, cpu, cuda."""
    seed: int = 0
    """Of the closed-form studies."""
    stop_after: Annotated[float | None, Flag(metavar="SECONDS")] = None
    """Stop in time for a scheduler (exit code 75); the next call goes on from the checkpoint."""
    dry_run: bool = False
    """Print the commands and run nothing."""


@dataclass(kw_only=True)
class Vae:
    """VAEs whose prior is a coreset: run.py vae train | evaluate | sample | augment | compare (run.py vae --help)."""


@dataclass(kw_only=True)
class Ssl:
    """Learning from few labels and chosen synthetic images: run.py ssl train | synthesise | evaluate | compare (ssl --help)."""


@dataclass(kw_only=True)
class Doctor:
    """Say what is here: device, versions, datasets, optional parts and how to get them."""

    data_root: Annotated[Path | None, Flag(metavar="DIR")] = None
    """Where datasets are looked for first."""


COMMANDS: dict[str, Any] = {
    "demo": Demo,
    "reproduce": Reproduce,
    "doctor": Doctor,
    "experts": Experts,
    "distill": Distill,
    "select": Select,
    "evaluate": Evaluate,
    "compare": Compare,
    "vae": Vae,
    "ssl": Ssl,
}

# smallest values that mean something; what a preset or a component checks itself is not repeated here
MINIMUM: dict[str, float] = {
    **dict.fromkeys(
        "ipc width depth num_experts epochs expert_batch together "
        "seeds iterations leapfrog_steps chains samples reference_samples max_tree_depth".split(),
        1,
    ),
    **dict.fromkeys(
        "checkpoint_seconds sigma sigma_core sigma_expert lr_student lr_weights "
        "test_images corruption_images chains_at_once burn_in penalty warmup reference_warmup".split(),
        0,
    ),
}


def check_flags(args: Any) -> None:
    """Refuse numbers that no setting can mean.

    Raises:
        ConfigError: below its minimum, NaN or infinite.
    """
    for field in fields(args):
        value = getattr(args, field.name)
        flag = "--" + field.name.replace("_", "-")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{flag} must be a finite number; got {value}.")
        if field.name in MINIMUM and value is not None and value < MINIMUM[field.name]:
            raise ConfigError(f"{flag} must be at least {MINIMUM[field.name]:g}; got {value}.")
