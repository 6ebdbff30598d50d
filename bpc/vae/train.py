"""Training a VAE with any prior: warm-up of the KL, Adam on normalised gradients, early stopping; resumable by epochs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bpc.errors import ConfigError, NumericalError
from bpc.files import load_own_tensors, own_content, save_tensors
from bpc.optim import adam_tensors, load_adam
from bpc.seeding import make_generator
from bpc.vae.bound import elbo
from bpc.vae.data import ImageSplit, batches, present
from bpc.vae.models import LatentModel
from bpc.vae.priors import Prior, TrainingData

__all__ = [
    "EpochRecord",
    "NormalisedAdam",
    "TrainConfig",
    "TrainState",
    "load_state",
    "new_state",
    "save_state",
    "train",
    "validate",
]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of both papers, where they agree.

    Attributes:
        lr: of Adam.
        batch_size: images per step.
        epochs: at most.
        warmup: epochs over which the KL's factor rises to 1.
        patience: epochs without a better validation bound after which training stops (look-ahead).
    """

    lr: float = 5e-4
    batch_size: int = 100
    epochs: int = 2000
    warmup: int = 100
    patience: int = 50

    def __post_init__(self) -> None:
        if self.lr <= 0 or min(self.batch_size, self.epochs, self.patience) < 1 or self.warmup < 0:
            raise ConfigError(
                "Training needs a positive lr, batch_size, epochs and patience of at least 1, a warmup of at least 0; got "
                f"{self.lr}, {self.batch_size}, {self.epochs}, {self.patience}, {self.warmup}."
            )

    def factor(self, epoch: int) -> float:
        """Of the KL in epoch 1, 2, ..."""
        return 1.0 if self.warmup == 0 else min(1.0, epoch / self.warmup)


class NormalisedAdam:
    """Adam on gradients that are divided by their norm, tensor by tensor (Yu et al. 2017), which both papers train with.

    torch's own fused Adam does the step.

    Args:
        params: what is learned.
        lr: step size.
    """

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        self.params = params
        self.adam = torch.optim.Adam(params, lr=lr, foreach=True)

    def step(self, gradients: tuple[Tensor | None, ...]) -> None:
        """Descend along `gradients`, one for each parameter."""
        found = [g for g in gradients if g is not None]
        norms = torch._foreach_norm(found)
        torch._foreach_add_(norms, 1e-7)
        scaled = iter(torch._foreach_div(found, norms))
        for p, g in zip(self.params, gradients, strict=True):
            p.grad = None if g is None else next(scaled)
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        """Named tensors for a checkpoint."""
        return adam_tensors(self.adam, "adam")

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        load_adam(self.adam, tensors, "adam")


class EpochRecord(NamedTuple):
    """What an epoch gave; bounds are means over images, nats."""

    epoch: int
    train_elbo: float  # with the KL's full weight
    reconstruction: float
    kl: float
    validation_elbo: float
    seconds: float  # of the epoch, the prior's own work included, validation not
    prior_seconds: float  # of those, `begin_epoch`
    best: bool  # whether the validation bound is the best so far


class TrainState:
    """Everything training goes on from: model, prior, optimiser, the best so far."""

    def __init__(self, model: LatentModel, prior: Prior, lr: float) -> None:
        self.model, self.prior = model, prior
        self.optimiser = NormalisedAdam([*model.parameters(), *prior.parameters()], lr)
        self.epoch = 0
        self.best_epoch = 0
        self.best_elbo = -float("inf")
        self.best: dict[str, Tensor] = {}

    def current(self) -> dict[str, Tensor]:
        """Model and prior as they are now, by name."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        return tensors | {f"prior.{k}": v for k, v in self.prior.state_dict().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put model and prior back to what `current` said."""
        for prefix, module in (("model.", self.model), ("prior.", self.prior)):
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})


def new_state(model: LatentModel, prior: Prior, config: TrainConfig) -> TrainState:
    """The state before the first epoch."""
    return TrainState(model, prior, config.lr)


def save_state(state: TrainState, path: Path, config_hash: str) -> None:
    """Write a checkpoint, whole or not at all."""
    tensors = {f"now.{k}": v for k, v in state.current().items()}
    tensors |= {f"best.{k}": v for k, v in state.best.items()} | state.optimiser.state()
    meta = {"epoch": str(state.epoch), "best_epoch": str(state.best_epoch), "best_elbo": repr(state.best_elbo)}
    save_tensors(path, tensors, {**meta, "config_hash": config_hash})


def load_state(state: TrainState, path: Path, config_hash: str) -> None:
    """Fill `state` from a checkpoint.

    Raises:
        FileFormatError: it belongs to another configuration, or is no checkpoint.
    """
    tensors, meta = load_own_tensors(path, config_hash, what="a checkpoint of training")
    device = next(state.model.parameters()).device
    with own_content(path):
        tensors = {k: v.to(device) for k, v in tensors.items()}
        state.restore({k[4:]: v for k, v in tensors.items() if k.startswith("now.")})
        state.best = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        state.optimiser.load(tensors)
        state.epoch, state.best_epoch = int(meta["epoch"]), int(meta["best_epoch"])
        state.best_elbo = float(meta["best_elbo"])


@torch.no_grad()
def validate(
    model: LatentModel, prior: Prior, split: ImageSplit, seed: int, batch: int = 500
) -> tuple[float, float, float]:
    """Mean bound, reconstruction and KL (nats) over a split, at draws that depend on the seed alone."""
    model.eval()
    prior.eval()
    generator = make_generator(split.images.device, seed, "validation")
    sums = torch.zeros(2, dtype=torch.float64)
    for index in batches(len(split.images), batch, None):
        found = elbo(model, prior, present(split, index, model.likelihood, generator), generator)
        sums += torch.stack([found.reconstruction.sum(), found.kl.sum()]).double().cpu()
    reconstruction, kl = (sums / len(split.images)).tolist()
    return reconstruction - kl, reconstruction, kl


def train(
    state: TrainState, train_split: ImageSplit, validation: ImageSplit, config: TrainConfig, *, seed: int
) -> Iterator[EpochRecord]:
    """Train until `epochs` or until the validation bound has not improved for `patience` epochs after the warm-up.

    The randomness of an epoch depends on the seed and its number alone, so a run that goes on from a checkpoint gives
    the bits of one that was never stopped. When it ends the state holds the best model and prior in `best`.

    Raises:
        NumericalError: the bound left the finite numbers.
    """
    model, prior = state.model, state.prior
    device = train_split.images.device
    data = TrainingData(train_split.images)
    while state.epoch < config.epochs:
        if state.epoch - max(state.best_epoch, config.warmup) >= config.patience:
            return
        epoch = state.epoch + 1
        generator = make_generator(device, seed, "vae", "epoch", epoch)
        order = make_generator("cpu", seed, "vae", "order", epoch)
        model.train()
        prior.train()
        started = time.perf_counter()
        prior.begin_epoch(epoch, model, data, generator)
        prior_seconds = time.perf_counter() - started
        beta = config.factor(epoch)
        sums = torch.zeros(2, device=device)
        for index in batches(len(train_split.images), config.batch_size, order):
            index = index.to(device)
            x = present(train_split, index, model.likelihood, generator)
            found = elbo(model, prior, x, generator, own=index)
            loss = (beta * found.kl - found.reconstruction).mean()
            state.optimiser.step(torch.autograd.grad(loss, state.optimiser.params, allow_unused=True))
            sums += torch.stack([found.reconstruction.detach().sum(), found.kl.detach().sum()])
        reconstruction, kl = (sums / len(train_split.images)).tolist()
        seconds = time.perf_counter() - started
        bound, _, _ = validate(model, prior, validation, seed)
        if not all(map(torch.isfinite, torch.tensor([reconstruction, kl, bound]))):
            raise NumericalError(
                f"The bound left the finite numbers in epoch {epoch}; lower the learning rate (now {config.lr})."
            )
        state.epoch = epoch
        better = bound > state.best_elbo
        if better:
            state.best_elbo, state.best_epoch = bound, epoch
            state.best = {k: v.detach().clone() for k, v in state.current().items()}
        yield EpochRecord(epoch, reconstruction - kl, reconstruction, kl, bound, seconds, prior_seconds, better)
