"""The outer loop that learns a pseudocoreset, as an iterator: the caller decides what to evaluate, log or save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.data import Dataset
from bpc.divergences import OPTIMIZERS, CoresetGradient, Divergence, ExpertWindow, LearnedCoreset, RealBatch
from bpc.errors import ConfigError, NumericalError, unknown_name
from bpc.files import load_own_tensors, own_content, save_tensors
from bpc.seeding import make_generator
from bpc.selection import select

__all__ = [
    "DistillState",
    "OuterConfig",
    "averaged",
    "distill",
    "initial_coreset",
    "load_state",
    "real_batches",
    "save_state",
    "soft_labels",
    "start",
]

ADAM_BETA_2 = 0.99  # a memory of a hundred steps: runs are of hundreds
LEAST_LABEL = 1e-7  # where a class that has left a soft label comes back from
ADAM_EPS = 1e-12  # gradients of an image are small, and only their ratios matter
_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class OuterConfig:
    """Outer SGD with momentum: velocity = momentum * velocity + gradient, then subtract lr * velocity. Or Adam.

    Attributes:
        lr_points: step size of the points.
        momentum: of points, weights and the divergence's extras alike; an extra's step size is its own. Adam's beta_1.
        lr_weights: step size of the weights; 0 leaves them as they are.
        lr_labels: step size of the labels' log probabilities, where they are probabilities; 0 leaves them as they are.
        optimizer: ``sgd`` or ``adam`` (Kingma and Ba 2015, with `ADAM_BETA_2`); extras always learn by SGD.
        ema: decay of the average of the iterates in `averaged`; 0 is the iterate itself.
        clip: the gradient of the points is shortened to this Euclidean norm; 0 leaves it.
    """

    lr_points: float = 1000.0
    momentum: float = 0.5
    lr_weights: float = 0.0
    lr_labels: float = 0.0
    optimizer: str = "sgd"
    ema: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)


class DistillState(NamedTuple):
    """Everything the loop needs to go on, and what the last step said."""

    step: int  # steps done
    coreset: LearnedCoreset
    velocity_points: Tensor
    velocity_weights: Tensor
    value: Tensor  # scalar, nan where the divergence knows only its gradient
    grad_norm: Tensor  # scalar, Euclidean norm of the gradient of the points
    velocity_extras: Mapping[str, Tensor]
    memory: Mapping[str, Tensor] = _NOTHING  # what else the optimiser keeps, by name


def averaged(state: DistillState, config: OuterConfig) -> LearnedCoreset:
    """The coreset that learning has led to: the average of the iterates with `ema`, else the last of them.

    The average is over the iterates since the first step (the weight that it gives to nothing is taken out), so that where
    learning started does not count.
    """
    if not config.ema or not state.step:
        return state.coreset
    whole = 1.0 - config.ema**state.step
    means = {name: state.memory[f"mean_{name}"] / whole for name in _learned(config)}
    return LearnedCoreset(**{**state.coreset._asdict(), **means})


def _learned(config: OuterConfig) -> dict[str, float]:
    """The fields of the coreset that are learned, with their step sizes."""
    rates = {"points": config.lr_points, "weights": config.lr_weights, "labels": config.lr_labels}
    return {name: lr for name, lr in rates.items() if lr}


def _outer_step(
    state: DistillState, gradient: CoresetGradient, config: OuterConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Of points, weights and labels: new values, velocities (the labels' in what else is kept), and what else is kept.

    Labels are softmax(z) and learn by z, whose gradient is q (g - q . g) for a gradient g by q; z is log q up to a constant that
    no softmax sees, so that q is all that has to be kept.
    """
    rates, beta, steps = _learned(config), config.momentum, state.step + 1
    values, velocities, memory = {}, {}, {}
    for name in ("points", "weights", *(["labels"] if config.lr_labels else [])):
        slope, value = getattr(gradient, name), getattr(state.coreset, name)
        if name == "labels":
            if slope is None:
                raise ConfigError("This divergence does not learn labels.")
            slope = value * (slope - (value * slope).sum(1, keepdim=True))
            velocity = state.memory.get("velocity_labels", torch.zeros_like(slope))
        else:
            velocity = getattr(state, f"velocity_{name}")
        if config.clip and name == "points":
            slope = slope * (config.clip / slope.norm().clamp(min=config.clip))
        if config.optimizer == "adam":
            velocities[name] = beta * velocity + (1.0 - beta) * slope
            before = state.memory.get(f"square_{name}", torch.zeros_like(slope))
            square = ADAM_BETA_2 * before + (1.0 - ADAM_BETA_2) * slope.square()
            memory[f"square_{name}"] = square
            scale = (square / (1.0 - ADAM_BETA_2**steps)).sqrt() + ADAM_EPS
            direction = velocities[name] / (1.0 - beta**steps) / scale
        else:
            direction = velocities[name] = beta * velocity + slope
        if name == "labels":
            value = (value.clamp(min=LEAST_LABEL).log() - rates[name] * direction).softmax(1)
            memory["velocity_labels"] = velocities.pop(name)
        elif name in rates:
            value = value - rates[name] * direction
            value = value.clamp(min=0.0) if name == "weights" else value
        values[name] = value
        if config.ema and name in rates:
            before = state.memory.get(f"mean_{name}", torch.zeros_like(value))
            memory[f"mean_{name}"] = config.ema * before + (1.0 - config.ema) * value
    return values, velocities, memory


def soft_labels(labels: Tensor, num_classes: int, off: float) -> Tensor:
    """(m,) classes as probabilities (m, y): `off` in all on the other classes."""
    hard = F.one_hot(labels, num_classes).float()
    return (1.0 - off) * hard + off / (num_classes - 1) * (1.0 - hard)


def initial_coreset(
    dataset: Dataset, ipc: int, *, source: str, total_weight: float | None, seed: int, soft: float = 0.0
) -> LearnedCoreset:
    """Where learning starts.

    Args:
        dataset: its training split is drawn from.
        ipc: images per class.
        source: ``real`` (a random subset) or ``noise`` (standard normal in the normalised space).
        total_weight: the weights sum to this (N, for a posterior of the full data's concentration); None: each is 1.
        seed: of the subset or the noise.
        soft: above 0, labels are probabilities, with this much on the other classes.
    """
    if source not in ("real", "noise"):
        raise ConfigError(f"Unknown initialisation {source!r}; choose real or noise.")
    device = dataset.train.images.device
    generator = make_generator("cpu", seed, "initial coreset")
    chosen = select("random", dataset.train.labels.cpu(), ipc, dataset.num_classes, generator=generator)
    split = dataset.train.take(chosen.indices.to(device))
    points = dataset.normalise(split.images)
    if source == "noise":
        points = torch.randn(points.shape, generator=generator).to(device)
    m = len(points)
    weight = 1.0 if total_weight is None else total_weight / m
    return LearnedCoreset(
        points=points,
        labels=soft_labels(split.labels, dataset.num_classes, soft) if soft else split.labels,
        weights=torch.full((m,), weight, device=device),
    )


def start(coreset: LearnedCoreset, divergence: Divergence) -> DistillState:
    """The state before the first step; what the divergence learns beside the points starts where it says."""
    extras = {name: coreset.points.new_tensor(extra.start) for name, extra in divergence.extras.items()}
    return DistillState(
        0,
        coreset._replace(extras=extras),
        torch.zeros_like(coreset.points),
        torch.zeros_like(coreset.weights),
        coreset.points.new_tensor(float("nan")),
        coreset.points.new_tensor(float("nan")),
        {name: torch.zeros_like(value) for name, value in extras.items()},
    )


def real_batches(dataset: Dataset, size: int) -> Callable[[torch.Generator], RealBatch]:
    """A function that draws `size` training images without replacement, normalised."""
    n = len(dataset.train)
    device = dataset.train.images.device

    def draw(generator: torch.Generator) -> RealBatch:
        index = torch.randperm(n, generator=generator)[: min(size, n)].to(device)
        split = dataset.train.take(index)
        return RealBatch(dataset.normalise(split.images), split.labels, n)

    return draw


def distill(
    state: DistillState,
    divergence: Divergence,
    sample_window: Callable[[torch.Generator], ExpertWindow],
    sample_real: Callable[[torch.Generator], RealBatch] | None,
    config: OuterConfig,
    *,
    steps: int,
    seed: int,
) -> Iterator[DistillState]:
    """Learn until `steps` steps are done, yielding the state after each.

    The randomness of a step depends on `seed` and the step's number alone, so going on from a saved state gives the bits
    that an uninterrupted loop gives.

    Args:
        state: from `start` or `load_state`.
        divergence: gives the gradient.
        sample_window: draws a window of an expert trajectory, given a CPU generator.
        sample_real: draws a batch of real data, given a CPU generator; only called if the divergence needs it.
        config: the outer optimiser.
        steps: in total, those already done included.
        seed: of the run.

    Raises:
        NumericalError: the coreset left the finite numbers; the state of the step before was the last good one.
    """
    device = state.coreset.points.device
    while state.step < steps:
        choose = make_generator("cpu", seed, "distill", state.step, "choose")
        noise = make_generator(device, seed, "distill", state.step, "noise")
        window = sample_window(choose)
        real = sample_real(choose) if divergence.needs_real and sample_real is not None else None
        gradient = divergence.gradient(state.coreset, window, real, noise)
        grad_norm = gradient.points.norm()

        values, velocities, memory = _outer_step(state, gradient, config)
        velocity_extras = {k: config.momentum * v + gradient.extras[k] for k, v in state.velocity_extras.items()}
        extras = dict(state.coreset.extras)
        for name, extra in divergence.extras.items():
            if extra.lr:
                extras[name] = (extras[name] - extra.lr * velocity_extras[name]).clamp(min=extra.minimum)
        if not all(bool(torch.isfinite(t).all()) for t in (*values.values(), *extras.values())):
            raise NumericalError(
                f"Learning diverged at step {state.step + 1}: the gradient's norm is {float(grad_norm):.3g} and the "
                "coreset is no longer finite. Lower --lr or --student-lr."
            )
        state = DistillState(
            state.step + 1,
            state.coreset._replace(**values, extras=extras),
            velocities["points"],
            velocities["weights"],
            gradient.value,
            grad_norm,
            velocity_extras,
            memory,
        )
        yield state


_STATE_FORMAT = "bpc-distill-state-1"
_MEMORY = "memory."
_TENSORS = ("velocity_points", "velocity_weights", "value", "grad_norm")


def _velocity(extra: str) -> str:
    """What an extra's velocity is called in a checkpoint (``velocity_student`` for ``student_lr``, as it always was)."""
    return "velocity_" + extra.removesuffix("_lr")


def save_state(state: DistillState, path: Path, config_hash: str) -> None:
    """Write a checkpoint, atomically."""
    coreset = state.coreset
    tensors = {f"coreset.{field}": getattr(coreset, field) for field in ("points", "labels", "weights")}
    tensors |= {f"coreset.{name}": value for name, value in coreset.extras.items()}
    tensors |= {field: getattr(state, field) for field in _TENSORS}
    tensors |= {_velocity(name): value for name, value in state.velocity_extras.items()}
    tensors |= {_MEMORY + name: value for name, value in state.memory.items()}
    save_tensors(path, tensors, {"format": _STATE_FORMAT, "step": str(state.step), "config_hash": config_hash})


def load_state(path: Path, config_hash: str, divergence: Divergence, device: torch.device | str) -> DistillState:
    """Read a checkpoint of the run named by `config_hash`, which learns by `divergence`.

    Raises:
        FileFormatError: damaged, or of another run.
    """
    tensors, metadata = load_own_tensors(path, config_hash, what="a checkpoint of this run")
    with own_content(path):
        if metadata["format"] != _STATE_FORMAT:
            raise ValueError(f"format {metadata['format']}")
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        points, labels, weights = (tensors[f"coreset.{field}"] for field in ("points", "labels", "weights"))
        extras = {name: tensors[f"coreset.{name}"] for name in divergence.extras}
        velocities = {name: tensors[_velocity(name)] for name in divergence.extras}
        return DistillState(
            step=int(metadata["step"]),
            coreset=LearnedCoreset(points, labels, weights, extras),
            velocity_extras=velocities,
            memory={k.removeprefix(_MEMORY): v for k, v in tensors.items() if k.startswith(_MEMORY)},
            **{field: tensors[field] for field in _TENSORS},
        )
