"""Groups of flags that commands share, with the words that `--help` teaches them by. Nothing heavy is imported here."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bpc.errors import ConfigError

__all__ = [
    "AtLeast",
    "Between",
    "DataFlags",
    "ExactFlags",
    "ExpertFlags",
    "NetworkFlags",
    "PlaceFlags",
    "Positive",
    "PosteriorFlags",
    "RunFlags",
    "ScoringFlags",
    "check_flags",
    "flag",
    "group",
    "names",
    "usual",
]


def flag(text: str, metavar: str | None = None, **more: Any) -> Any:
    """What `--help` says of a flag; a default of None is explained by `text` itself and is not shown."""

    def shown(default: str) -> str:
        words = {"None": "", "True": "(default: yes)", "False": "(default: no)"}
        return words.get(default, f"(default: {default})")

    return tyro.conf.arg(help=" ".join(text.split()), metavar=metavar, help_behavior_hint=shown, **more)


def names(kind: str) -> str:
    """The registered names of a kind, as a metavar: a|b|c.

    Annotations are looked at when their command is parsed, so the registries (and torch) are imported for no other command.
    """
    from bpc.data import DATASETS, UNLABELLED
    from bpc.divergences import DIVERGENCES
    from bpc.divergences.path_settings import PATH_PROTOCOLS
    from bpc.ebm.train import SETTINGS
    from bpc.samplers import BACKENDS, EXACT_SAMPLERS, KIM2022_SAMPLERS
    from bpc.selection import SELECTIONS
    from bpc.vae import LIKELIHOODS, MODELS, PRIORS
    from bpc.weight_prior import WEIGHT_PRIORS
    from evaluation.protocols import EXACT_PROTOCOLS, KIM2022_PROTOCOLS

    known: dict[str, Iterable[str]] = {
        "backend": BACKENDS,
        "dataset": [*DATASETS.names(), "PATH"],
        "image set": dict.fromkeys([*DATASETS.names(), *UNLABELLED.names()]),
        "divergence": DIVERGENCES.names(),
        "selection": SELECTIONS.names(),
        "prior": PRIORS.names(),
        "weight prior": WEIGHT_PRIORS.names(),
        "model": MODELS,
        "likelihood": LIKELIHOODS,
        "sampler": dict.fromkeys([*KIM2022_SAMPLERS.names(), *EXACT_SAMPLERS.names()]),
        "reference sampler": ["auto", *EXACT_SAMPLERS.names()],
        "protocol": [*KIM2022_PROTOCOLS, *EXACT_PROTOCOLS],
        "path protocol": PATH_PROTOCOLS,
        "preset": dict.fromkeys(name for record in DIVERGENCES for name in record.presets),
        "setting": SETTINGS,
    }
    return "|".join(known[kind])


def usual(name: str) -> str:
    """The default of one of `ExactSettings`' attributes, as help says it: HMC's, then the samplers that have their own."""
    from bpc.samplers import EXACT_SAMPLERS, ExactSettings

    default = getattr(ExactSettings(), name)
    others = [f"{s.name} {s.defaults[name]}" for s in EXACT_SAMPLERS if name in s.defaults]
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{text} ({', '.join(others)})" if others else text


def group(text: str) -> Any:
    """The sentence under a group's title."""
    return tyro.conf.arg(help=text)


# Bounds stand beside the flags they bound. What a preset or a component checks itself is not repeated here.


@dataclass(frozen=True)
class AtLeast:
    """The smallest value that means something."""

    least: float

    def check(self, name: str, value: float) -> None:
        """Raise ConfigError for a value below."""
        if value < self.least:
            raise ConfigError(f"{name} must be at least {self.least:g}; got {value:g}.")


@dataclass(frozen=True)
class Positive:
    """Above zero."""

    def check(self, name: str, value: float) -> None:
        """Raise ConfigError for zero and below."""
        if value <= 0:
            raise ConfigError(f"{name} must be above 0; got {value:g}.")


@dataclass(frozen=True)
class Between:
    """Both ends are allowed."""

    least: float
    most: float

    def check(self, name: str, value: float) -> None:
        """Raise ConfigError outside."""
        if not self.least <= value <= self.most:
            raise ConfigError(f"{name} must be from {self.least:g} to {self.most:.0f}; got {value}.")


MOST_SEED = 2**32 - 1  # what every generator here takes (numpy's and scikit-learn's are the narrowest)
Seed = Annotated[int, flag(f"Every random number derives from it: 0 to {MOST_SEED}.", "INT"), Between(0, MOST_SEED)]


Yes = Annotated[bool, flag("Begin at once, even where the work will take more than an hour on this CPU.")]


def check_flags(args: Any) -> None:
    """Refuse numbers that no setting can mean: before anything is loaded or made.

    Raises:
        ConfigError: outside its bounds, NaN or infinite.
    """
    hints = typing.get_type_hints(type(args), include_extras=True)
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        if dataclasses.is_dataclass(value):
            check_flags(value)
            continue
        notes = getattr(hints[field.name], "__metadata__", ())
        name = next((n.name for n in notes if getattr(n, "name", None)), field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            text = "--" + name.replace("_", "-")
            if not math.isfinite(number):
                raise ConfigError(f"{text} must be a finite number; got {number}.")
            for bound in notes:
                if isinstance(bound, (AtLeast, Positive, Between)):
                    bound.check(text, number)


@dataclass(frozen=True, kw_only=True)
class PlaceFlags:
    """Where data are read and where the work is done."""

    data_root: Annotated[
        Path | None,
        flag(
            """Where datasets are looked for first (or set BPC_DATA_ROOT); then in the user's cache; then they are
            downloaded with a checksum.""",
            "DIR",
        ),
    ] = None
    device: Annotated[str, flag("auto (a CUDA GPU if there is one), cpu, cuda, or cuda:1.", "NAME")] = "auto"


@dataclass(frozen=True, kw_only=True)
class RunFlags(PlaceFlags):
    """Where a run is kept, and how it goes on."""

    out: Annotated[
        Path | None,
        flag(
            """The run's own folder. Default: under runs/ (or BPC_RUNS), named by job, dataset, method and a hash of the
            configuration.""",
            "DIR",
        ),
    ] = None
    resume: Annotated[
        bool, flag("Go on with what the folder holds; --no-resume removes the run's own files there and starts over.")
    ] = True
    checkpoint_seconds: Annotated[
        float, flag("Write a checkpoint this often: a kill loses no more.", "SECONDS"), AtLeast(0)
    ] = 30.0
    memory_budget: Annotated[
        float | None,
        flag(
            """Memory for activations: learning and published scoring are cut into pieces that fit, with the same result to
            rounding; exact scoring and its reference use pieces of one size whatever the budget, and give the same bits.
            Default: 0.5 on the CPU, where more is no faster, and half of the card on a GPU.""",
            "GIB",
        ),
        Positive(),
    ] = None


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Which images."""

    dataset: Annotated[
        str,
        flag(
            """By name (digits needs no file), or a path to your own: a folder of images by class, an .npz or .safetensors
            file, or a folder with a train and a test file. PATH@64 resizes to 64 pixels.""",
            names("dataset"),
        ),
    ] = "cifar10"
    validation_fraction: Annotated[
        float,
        flag(
            """Hold out this fraction of the training images and score on them instead of the test set. Choose settings
            so: then the test set stays untouched.""",
            "FRACTION",
        ),
    ] = 0.0
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """Which network."""

    model: Annotated[
        str,
        flag(
            """The ConvNet, or your own: FUNCTION(image_shape, num_classes) returns a torch module. The code in FILE.py
            is executed.""",
            "convnet|FILE.py:FUNCTION",
        ),
    ] = "convnet"
    width: Annotated[int | None, flag("Channels of the ConvNet. Default: 128 (32 on digits).", "INT"), AtLeast(1)] = (
        None
    )
    depth: Annotated[
        int | None, flag("Blocks of the ConvNet. Default: 3 (2 on digits, 5 on imagenette).", "INT"), AtLeast(1)
    ] = None
    norm: Annotated[str, flag("Normalisation in the ConvNet.", "instance|group|none")] = "instance"
    activation: Annotated[str, flag("Activation in the ConvNet.", "relu|leaky_relu|gelu|silu|tanh")] = "relu"


@dataclass(frozen=True, kw_only=True)
class ExpertFlags:
    """The SGD trajectories that coresets are learned from. They are trained when there are none."""

    experts: Annotated[
        Path | None,
        flag(
            """The trajectory store. Default: under runs/, keyed by dataset, network and training settings, so the next
            run uses it again.""",
            "DIR",
        ),
    ] = None
    num_experts: Annotated[
        int | None,
        flag(
            """How many experts. Default: those in the store that are long enough, else 100 as published (10 on digits;
            select needs 1).""",
            "INT",
        ),
        Between(1, 10_000),
    ] = None
    epochs: Annotated[
        int | None,
        flag(
            """Epochs each expert is trained for. Default: 50 as published (6 on digits); distill trains what it needs.""",
            "INT",
        ),
        AtLeast(1),
    ] = None
    expert_lr: Annotated[
        float | None,
        flag("Step size of the experts' SGD. Default: 0.01 as published (0.05 on digits).", "FLOAT"),
        Positive(),
    ] = None
    expert_batch: Annotated[
        int | None,
        flag("Images per step of the experts' SGD. Default: 256 as published (64 on digits).", "INT"),
        AtLeast(1),
    ] = None
    expert_seed: Annotated[
        int, flag("Seed of the experts: runs with different --seed share one store.", "INT"), Between(0, MOST_SEED)
    ] = 0
    expert_init: Annotated[
        str,
        flag(
            """Where experts start. default: the network's usual initialisation, as published. prior: N(0, 0.1^2) for every
            parameter, where the published chains start. Other experts: another store.""",
            "default|prior",
        ),
    ] = "default"
    expert_penalty: Annotated[
        float | None,
        flag(
            """Weight of the norm of theta in the experts' loss, for 320,010 parameters; it is scaled to the network's size as
            kim2022-scaled does. Default: 0 as published; 0.5, Table 3's at 1 image per class, with --expert-init prior.""",
            "FLOAT",
        ),
        AtLeast(0),
    ] = None
    together: Annotated[
        int | None, flag("Experts trained in one batch. Default: 1 on the CPU, 10 on a GPU.", "INT"), AtLeast(1)
    ] = None
    augment: Annotated[
        str | None,
        flag(
            """Differentiable augmentation of experts and coreset. Default: color_crop_cutout_flip_scale_rotate, as
            published (none on digits).""",
            "OP_OP|none",
        ),
    ] = None
    yes: Yes = False


@dataclass(frozen=True, kw_only=True)
class ScoringFlags:
    """How a coreset is scored."""

    seeds: Annotated[
        int | None,
        flag("Repetitions; number i uses seed + i. Default: 5; under exact one per coreset given.", "INT"),
        AtLeast(1),
    ] = None
    protocol: Annotated[
        str,
        flag(
            """kim2022: the published one. kim2022-scaled: its penalty and time scaled for small networks. kim2022-default-init,
            kim2022-scaled-default-init: the same, started from the network's usual initialisation. exact: textbook MCMC,
            several chains, diagnostics, and fidelity to the full data's posterior. exact-scaled: the same with the
            coreset's weights scaled to sum to the number of training images.""",
            names("protocol"),
        ),
    ] = "kim2022"
    test_images: Annotated[int, flag("Score on this many test images, evenly spaced; 0 is all.", "INT"), AtLeast(0)] = 0
    corruptions: Annotated[
        bool,
        flag(
            """Score on the 15 corruptions at 5 severities as well: the official CIFAR-10-C files where they are found, else
            generated ones."""
        ),
    ] = False
    corruption_images: Annotated[int, flag("Images per corruption and severity; 0 is all.", "INT"), AtLeast(0)] = 200
    chains_at_once: Annotated[int, flag("Chains in one batch; 0 chooses by memory.", "INT"), AtLeast(0)] = 0
    iterations: Annotated[
        int | None,
        flag(
            "Sampler iterations, instead of Table 3's N, and not scaled (the row is then no longer the published protocol).",
            "INT",
        ),
        AtLeast(1),
    ] = None
    burn_in: Annotated[int | None, flag("Iterations that are discarded, instead of Table 3's.", "INT"), AtLeast(0)] = (
        None
    )
    leapfrog_steps: Annotated[
        int | None,
        flag(
            f"""Leapfrog steps per iteration, instead of Table 3's m; under exact per draw (default
            {usual("leapfrog_steps")}).""",
            "INT",
        ),
        AtLeast(1),
    ] = None
    step_size: Annotated[
        float | None,
        flag(
            f"""Leapfrog step size, instead of Table 3's epsilon; under exact the first guess (sghmc: the step itself) in
            units of the prior's width (default {usual("step_size")}).""",
            "FLOAT",
        ),
        Positive(),
    ] = None
    penalty: Annotated[
        float | None, flag("Weight of the norm of theta, instead of Table 3's lambda.", "FLOAT"), AtLeast(0)
    ] = None


@dataclass(frozen=True, kw_only=True)
class PosteriorFlags:
    """How posteriors are sampled exactly: those of coresets and the full data's."""

    quick: Annotated[
        bool,
        flag(
            """Shorter: half the warm-up, a quarter of the draws, half the leapfrogs, about a seventh of the cost, for coresets
            and reference alike. Its rows will probably carry a dagger. What is given in numbers is kept."""
        ),
    ] = False
    chains: Annotated[
        int | None,
        flag(
            f"""Chains per seed; their predictive is pooled, and R-hat compares them. Default: {usual("chains")}.""",
            "INT",
        ),
        AtLeast(1),
    ] = None
    max_tree_depth: Annotated[
        int | None,
        flag(f"nuts: a draw costs up to 2^depth gradients. Default: {usual('max_tree_depth')}.", "INT"),
        AtLeast(1),
    ] = None
    levels: Annotated[
        int | None,
        flag(
            f"""pt: temperatures from prior to posterior; a draw costs a trajectory at each. About twice the row
            communication_barrier is right. Default: {usual("levels")}.""",
            "INT",
        ),
        AtLeast(2),
    ] = None
    cycle: Annotated[
        int | None,
        flag(
            f"""csghmc: draws kept of each cycle; as many moves, hotter and with longer steps, go before them. Default:
            {usual("cycle")}.""",
            "INT",
        ),
        AtLeast(1),
    ] = None
    superchain: Annotated[
        int | None,
        flag(
            f"""Chains that start from one place, in groups: for many short chains (--chains 16 --superchain 4). Above 1 the
            row nested_rhat_predictions compares the groups. Default: {usual("superchain")}, no groups.""",
            "INT",
        ),
        AtLeast(1),
    ] = None
    prior: Annotated[
        str | None,
        flag(
            f"""Gaussian prior of the network's parameters. isotropic: N(0, S^2) on every one. fan-in: weights N(0, S^2 / fan-in),
            biases N(0, S^2), gains of norms N(1, S^2 / 4), their shifts N(0, S^2 / 4). S is --prior-std. Default:
            {usual("prior")}.""",
            names("weight prior"),
        ),
    ] = None
    prior_std: Annotated[
        float | None, flag(f"The prior's scale S. Default: {usual('prior_std')}.", "FLOAT"), Positive()
    ] = None
    temperature: Annotated[
        float | None,
        flag(
            f"""T: what is sampled is the whole posterior to the power 1/T, prior and likelihood: below 1 a cold posterior, above
            a warm one. Default: {usual("temperature")}.""",
            "FLOAT",
        ),
        Positive(),
    ] = None
    mass: Annotated[
        str | None,
        flag(
            f"""hmc, nuts: the mass matrix. prior: the prior's precision, and nothing is adapted. diagonal: adapted in warm-up,
            each chain its own; for few parameters of different widths. Default: {usual("mass")} (pyro and hamiltorch:
            diagonal, they have no other).""",
            "prior|diagonal",
        ),
    ] = None
    target: Annotated[
        float | None,
        flag(
            f"""hmc, nuts, pt: acceptance probability that warm-up aims at. Higher is a smaller step: for rows with transitions
            that diverged. Default: {usual("target")}.""",
            "FRACTION",
        ),
        Between(0.3, 0.99),
    ] = None
    pool_step: Annotated[
        bool,
        flag(
            """hmc, nuts: one step size for all chains of a posterior, from their mean acceptance in warm-up (pyro and
            hamiltorch: never)."""
        ),
    ] = True
    reference_sampler: Annotated[
        str,
        flag(
            """How the reference, the full data's posterior, is sampled. hmc and nuts take all training images for every gradient;
            sghmc takes minibatches, and its rows say by how much their noise heats it. auto: hmc up to 5,000 training images,
            sghmc above.""",
            names("reference sampler"),
        ),
    ] = "auto"
    reference_runs: Annotated[
        int,
        flag(
            """How often the reference is sampled. 2: the distance between its runs is the ceiling that a coreset can reach. 1
            halves the cost, for one point of many on a grid. It can be raised later.""",
            "1|2",
        ),
        Between(1, 2),
    ] = 2
    reference_warmup: Annotated[
        int | None,
        flag("Draws of each of the reference's chains that are discarded. Default: a coreset's (sghmc 300).", "INT"),
        AtLeast(0),
    ] = None
    reference_samples: Annotated[
        int | None,
        flag("Draws kept of each of the reference's chains. Default: a coreset's (sghmc 400).", "INT"),
        AtLeast(1),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ExactFlags(PosteriorFlags):
    """Only under --protocol exact and exact-scaled."""

    warmup: Annotated[
        int | None,
        flag(f"Draws in which the sampler is adapted; discarded. Default: {usual('warmup')}.", "INT"),
        AtLeast(0),
    ] = None
    samples: Annotated[
        int | None,
        flag(f"Draws kept of each chain; smc: particles of each population. Default: {usual('samples')}.", "INT"),
        AtLeast(1),
    ] = None
    beside_random: Annotated[bool, flag("Score random coresets of the same size into the same table.")] = True
    reference: Annotated[
        str,
        flag(
            """The full data's posterior to measure fidelity by. auto: sample it twice if it is not there yet, and keep
            it under runs/. DIR: where it is, or is to be kept.""",
            "auto|none|DIR",
        ),
    ] = "auto"
