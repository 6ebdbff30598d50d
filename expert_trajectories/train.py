"""Train many experts at once by SGD and keep a snapshot after every epoch (Cazenavette et al. 2022; Table 2's experts)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.augment import AugmentConfig, apply, draw
from bpc.data import Dataset, Split
from bpc.errors import ConfigError, NumericalError, unknown_name
from bpc.models import Network
from bpc.pieces import pieces
from bpc.seeding import make_generator
from expert_trajectories.store import TrajectoryStore

__all__ = ["ExpertConfig", "ExpertProgress", "estimate_seconds", "store_meta", "train_experts"]

INITS = ("default", "prior")
PRIOR_STD = 0.1  # sigma_theta of Table 3: the start of the published chains
CURVE_IMAGES = 2000  # test images that a learning curve is measured on


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Plain SGD, no momentum, no weight decay. The defaults are the published setting.

    Attributes:
        lr: step size.
        batch_size: images per step; an epoch drops no image, its last batch is smaller.
        augment: differentiable augmentation of each batch, or None.
        init: where experts start: ``default`` is the network's own initialisation, ``prior`` N(0, `PRIOR_STD`^2) for every
            parameter, where the published chains start.
        penalty: lambda of lambda ||theta||_2 in the loss, the published potential's; 0 with ``default`` as published.
    """

    lr: float = 0.01
    batch_size: int = 256
    augment: AugmentConfig | None = None
    init: str = "default"
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise unknown_name("init", self.init, INITS)
        if self.penalty < 0:
            raise ConfigError(f"Experts need a penalty of 0 or more; got {self.penalty}.")
        if self.lr <= 0 or self.batch_size < 1:
            raise ConfigError(
                f"Experts need a positive learning rate and batch size; got {self.lr}, {self.batch_size}."
            )


class ExpertProgress(NamedTuple):
    """One finished epoch of one group of experts."""

    experts: list[int]
    epoch: int
    records: list[dict[str, float]]  # the learning-curve numbers of each expert


def store_meta(dataset: Dataset, network: Network, config: ExpertConfig, seed: int) -> dict[str, Any]:
    """What a store is keyed by: equal for trajectories that may be mixed. JSON values only."""
    return {
        "dataset": dataset.name,
        "train_images": len(dataset.train),
        "network": network.name,
        "num_params": network.num_params,
        "lr": config.lr,
        "batch_size": config.batch_size,
        "augment": None if config.augment is None else _plain(asdict(config.augment)),
        "seed": seed,
        **({"init": config.init} if config.init != "default" else {}),
        **({"penalty": config.penalty} if config.penalty else {}),
    }


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}


def _init(network: Network, config: ExpertConfig, generator: torch.Generator) -> Tensor:
    """Where an expert starts, (1, p)."""
    if config.init == "prior":
        return PRIOR_STD * torch.randn(1, network.num_params, generator=generator, device=generator.device)
    return network.init(1, generator)


@torch.no_grad()
def _score(network: Network, params: Tensor, dataset: Dataset, split: Split) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy (nats) and accuracy of each expert, (k,) each, on the first `CURVE_IMAGES` images."""
    k, n = len(params), min(CURVE_IMAGES, len(split))
    loss, correct = torch.zeros(k, device=params.device), torch.zeros(k, device=params.device)
    for first in range(0, n, 500):
        images, labels = split.images[first : min(first + 500, n)], split.labels[first : min(first + 500, n)]
        logits = network(params, dataset.normalise(images))
        each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(k), reduction="none").view(k, -1)
        loss += each.sum(1)
        correct += (logits.argmax(-1) == labels).sum(1)
    return loss / n, correct / n


def _epoch(
    network: Network,
    params: Tensor,
    dataset: Dataset,
    config: ExpertConfig,
    seed: int,
    experts: list[int],
    epoch: int,
    at_once: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """One epoch of a group: new parameters (k, p), and the running mean loss and accuracy (k,) over its batches.

    Expert e's order and augmentations depend on (seed, e, epoch) alone; the group it is trained in changes rounding only.
    """
    device, n = params.device, len(dataset.train)
    shuffle = [make_generator("cpu", seed, "expert", e, "epoch", epoch, "order") for e in experts]
    noise = [make_generator(device, seed, "expert", e, "epoch", epoch, "augment") for e in experts]
    order = torch.stack([torch.randperm(n, generator=g) for g in shuffle]).to(device)
    loss_sum, correct = torch.zeros(len(experts), device=device), torch.zeros(len(experts), device=device)
    for first in range(0, n, config.batch_size):
        index = order[:, first : first + config.batch_size]
        k, b = index.shape
        images = dataset.normalise(dataset.train.images[index.flatten()])
        images = images.view(k, b, *images.shape[1:])
        labels = dataset.train.labels[index.flatten()]
        if config.augment is not None:
            shape = dataset.image_shape
            images = torch.stack(
                [apply(x, draw(config.augment, b, shape, g, device=device)) for x, g in zip(images, noise, strict=True)]
            )
        labels = labels.view(k, b)
        gradient = torch.zeros_like(params)
        for rows, columns in pieces(k, b, at_once):
            leaf = params[rows].detach().requires_grad_(True)
            logits, truth = network(leaf, images[rows, columns]), labels[rows, columns]
            losses = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none").view(truth.shape)
            # the sum over experts of mean losses: each expert's gradient is its own
            gradient[rows] += torch.autograd.grad(losses.sum() / b, leaf)[0]
            loss_sum[rows] += losses.detach().sum(1)
            correct[rows] += (logits.detach().argmax(-1) == truth).sum(1)
        if config.penalty:
            gradient = gradient + config.penalty * params / torch.linalg.vector_norm(params, dim=1, keepdim=True)
        params = params - config.lr * gradient
    return params, loss_sum / n, correct / n


def train_experts(
    store: TrajectoryStore,
    network: Network,
    dataset: Dataset,
    config: ExpertConfig,
    *,
    num_experts: int,
    epochs: int,
    seed: int,
    together: int = 1,
    at_once: int = 0,
) -> Iterator[ExpertProgress]:
    """Train until `num_experts` experts have `epochs` epochs each, yielding after every epoch of every group.

    What the store already holds is kept and gone on from. Plain SGD's only state is the parameters and each epoch's randomness
    is derived from its number, so a run that was killed ends with the same bits.

    Args:
        store: where snapshots go.
        network, dataset, config: what is trained, on which data (and device), how.
        num_experts, epochs: how much there shall be in the end.
        seed: of initialisation, order and augmentation.
        together: experts per group, trained in one batch.
        at_once: pairs of expert and image in a piece, see `bpc.pieces` and `bpc.budget`; 0 is all.

    Raises:
        NumericalError: an expert diverged; its last snapshot stays.
    """
    device = dataset.train.images.device
    for begin in range(0, num_experts, together):
        experts = list(range(begin, min(begin + together, num_experts)))
        done = min(store.epochs(e) for e in experts)
        if done >= epochs:
            continue
        for e in experts:  # a kill may have come between two experts of a group: all go on from the same epoch
            store.truncate(e, done + 1)
        if done < 0:
            params = torch.cat(
                [_init(network, config, make_generator(device, seed, "expert", e, "init")) for e in experts]
            )
            loss, accuracy = _score(network, params, dataset, dataset.test)
            for i, e in enumerate(experts):
                store.append(e, params[i], test_loss=float(loss[i]), test_accuracy=float(accuracy[i]))
            done = 0
        else:
            params = torch.cat([store.snapshots(e, done, done) for e in experts]).to(device)
        for epoch in range(done + 1, epochs + 1):
            params, train_loss, train_accuracy = _epoch(network, params, dataset, config, seed, experts, epoch, at_once)
            if not bool(torch.isfinite(params).all()):
                raise NumericalError(
                    f"Expert training diverged in epoch {epoch} (experts {experts[0]} to {experts[-1]}); "
                    f"the snapshots before are good. Lower the learning rate (now {config.lr})."
                )
            test_loss, test_accuracy = _score(network, params, dataset, dataset.test)
            records = [
                {
                    "train_loss": float(train_loss[i]),
                    "train_accuracy": float(train_accuracy[i]),
                    "test_loss": float(test_loss[i]),
                    "test_accuracy": float(test_accuracy[i]),
                }
                for i in range(len(experts))
            ]
            for i, e in enumerate(experts):
                store.append(e, params[i], **records[i])
            yield ExpertProgress(experts, epoch, records)


def estimate_seconds(
    network: Network, dataset: Dataset, config: ExpertConfig, together: int, at_once: int = 0
) -> float:
    """Seconds that one epoch of one expert takes here, from a few timed steps."""
    device = dataset.train.images.device
    few = dataclasses.replace(
        dataset, train=dataset.train.take(torch.arange(min(config.batch_size, len(dataset.train))))
    )
    params = network.init(together, make_generator(device, 0, "estimate"))
    experts = list(range(together))
    _epoch(network, params, few, config, 0, experts, 0, at_once)  # warm-up
    started = time.perf_counter()
    repeats = 2
    for i in range(repeats):
        params, loss, _ = _epoch(network, params, few, config, 0, experts, i, at_once)
    float(loss.sum())  # wait for the device
    return (time.perf_counter() - started) / repeats / together * len(dataset.train) / len(few.train)
