"""Score coresets by MCMC: chains (seeds) on the leading axis, predictive streamed, checkpoints on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.augment import AugmentConfig
from bpc.coreset import Pseudocoreset
from bpc.data import Dataset
from bpc.errors import ConfigError, FileFormatError, unknown_name
from bpc.files import load_tensors, save_tensors
from bpc.models import Network
from bpc.samplers import state_from_tensors, state_to_tensors
from bpc.seeding import ChainGenerators
from evaluation.predictive import Predictive, pick_images
from evaluation.protocols import (
    PROTOCOLS,
    SAMPLERS,
    ChainPlan,
    ExactSettings,
    exact_plan,
    kim2022_plan,
    kim2022_settings,
)

__all__ = ["BlockResult", "EvaluationConfig", "check_coreset", "evaluate", "iterations"]

CPU_IMAGES_AT_ONCE = 1000  # coreset images whose activations are alive together, over chains
GPU_IMAGES_AT_ONCE = 20000


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is sampled and scored.

    Attributes:
        sampler: ``hmc`` or ``asghmc``.
        protocol: ``kim2022``, ``kim2022-scaled`` or ``exact``; see `evaluation.protocols`.
        test_images: how many of the test set, evenly spaced; 0 is all of it.
        overrides: changes to Table 3's row (``iterations``, ``burn_in``, ``penalty`` ...); empty for the published settings.
        exact: settings of the exact protocol.
    """

    sampler: str = "hmc"
    protocol: str = "kim2022"
    test_images: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    exact: ExactSettings = field(default_factory=ExactSettings)

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise unknown_name("sampler", self.sampler, SAMPLERS)
        if self.protocol not in PROTOCOLS:
            raise unknown_name("protocol", self.protocol, PROTOCOLS)

    def record(self) -> dict[str, Any]:
        """What a configuration hash should cover: only the settings that this protocol looks at."""
        shared = {"sampler": self.sampler, "protocol": self.protocol, "test_images": self.test_images}
        if self.protocol == "exact":
            return {**shared, "exact": asdict(self.exact)}
        return {**shared, "overrides": {k: v for k, v in self.overrides.items() if v is not None}}


class BlockResult(NamedTuple):
    """Finished chains that ran together."""

    seeds: list[int]
    metrics: dict[str, Tensor]  # each (k,), float64 on the CPU; nan where a chain diverged
    probs: Tensor  # (k, n, y) float32 on the CPU, the predictive
    seconds: float


def check_coreset(coreset: Pseudocoreset, dataset: Dataset, network: Network) -> None:
    """Refuse a coreset that does not fit.

    Raises:
        ConfigError: its image shape, classes or normalisation are not those of the dataset and network.
    """
    shape = tuple(coreset.points.shape[1:])
    if shape != dataset.image_shape or shape != tuple(network.image_shape):
        raise ConfigError(
            f"The coreset's images are {shape} and those of {dataset.name} are {dataset.image_shape} "
            f"(it was made for {coreset.dataset}); choose the dataset with --dataset."
        )
    if coreset.num_classes != dataset.num_classes:
        raise ConfigError(
            f"The coreset has {coreset.num_classes} classes and {dataset.name} has {dataset.num_classes}."
        )
    if any(
        abs(a - b) > 1e-4 for a, b in zip((*coreset.mean, *coreset.std), (*dataset.mean, *dataset.std), strict=True)
    ):
        raise ConfigError(
            f"The coreset was normalised with mean {coreset.mean} and std {coreset.std}, {dataset.name} is with "
            f"{dataset.mean} and {dataset.std}: its points would mean other pixels."
        )


def evaluate(
    network: Network,
    dataset: Dataset,
    coresets: Sequence[Pseudocoreset],
    config: EvaluationConfig,
    *,
    seeds: Sequence[int],
    augment: AugmentConfig | None = None,
    chains_at_once: int = 0,
    folder: Path | None = None,
    checkpoint_seconds: float = 30.0,
    config_hash: str = "",
    skip: Callable[[int], bool] = lambda seed: False,
    report: Callable[[int, str], None] = lambda done, note: None,
) -> Iterator[BlockResult]:
    """Run one chain per seed and yield each block of chains when it is done.

    A chain's numbers depend on its seed and, through rounding only, on the chains beside it. A killed run goes on from its
    last checkpoint with the same bits.

    Args:
        network: the classifier.
        dataset: on the device to use; its test split is scored.
        coresets: one for all chains, or one for each seed.
        config: sampler, protocol, test images.
        seeds: one a chain.
        augment: for A-SGHMC, the augmentation the coreset was trained with.
        chains_at_once: chains per block; 0 chooses by memory.
        folder: for checkpoints; None keeps none.
        checkpoint_seconds: at most this much work is lost by a kill.
        config_hash: of the run that the checkpoints belong to.
        skip: whether a seed is done already.
        report: called with the iterations done (over all seeds) and a note.
    """
    if len(coresets) not in (1, len(seeds)):
        raise ConfigError(f"{len(coresets)} coresets for {len(seeds)} seeds: give one, or one for each.")
    for coreset in coresets:
        check_coreset(coreset, dataset, network)
        if len(coreset) != len(coresets[0]) or not torch.equal(coreset.labels, coresets[0].labels):
            raise ConfigError("Coresets evaluated together must have the same labels in the same order.")
    device = dataset.test.images.device
    split = pick_images(dataset.test, config.test_images)
    m = len(coresets[0])
    budget = CPU_IMAGES_AT_ONCE if device.type == "cpu" else GPU_IMAGES_AT_ONCE
    block = chains_at_once or max(1, min(len(seeds), budget // m))
    finished = 0
    for begin in range(0, len(seeds), block):
        chosen = list(seeds[begin : begin + block])
        if all(skip(seed) for seed in chosen):
            continue
        mine = coresets if len(coresets) == 1 else coresets[begin : begin + block]
        points = mine[0].points if len(mine) == 1 else torch.stack([c.points for c in mine])
        plan = _plan(network, mine[0], points.to(device), config, augment)
        checkpoint = None if folder is None else folder / f"chains-{config_hash}-{chosen[0]}-{chosen[-1]}.safetensors"
        predictive = Predictive(network, dataset, split, len(chosen))
        started = time.monotonic()
        extra = _run_block(
            network, plan, predictive, chosen, checkpoint, checkpoint_seconds, config_hash, report, finished
        )
        finished += plan.iterations * len(chosen)
        metrics = {k: v.cpu() for k, v in predictive.metrics(kim2022=config.protocol != "exact").items()}
        yield BlockResult(chosen, {**metrics, **extra}, predictive.probs.float().cpu(), time.monotonic() - started)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)


def iterations(network: Network, coreset: Pseudocoreset, config: EvaluationConfig) -> int:
    """Iterations of one chain, burn-in or warm-up included."""
    if config.protocol == "exact":
        return config.exact.warmup + config.exact.samples * config.exact.thin
    return kim2022_settings(
        config.protocol, config.sampler, coreset.ipc, network.num_params, **config.overrides
    ).iterations


def _plan(
    network: Network, coreset: Pseudocoreset, points: Tensor, config: EvaluationConfig, augment: AugmentConfig | None
) -> ChainPlan:
    labels, weights = coreset.labels.to(points.device), coreset.weights.to(points.device)
    if config.protocol == "exact":
        return exact_plan(config.sampler, network, points, labels, weights, config.exact)
    settings = kim2022_settings(config.protocol, config.sampler, coreset.ipc, network.num_params, **config.overrides)
    return kim2022_plan(config.sampler, network, points, labels, weights, settings, augment)


def _run_block(
    network: Network,
    plan: ChainPlan,
    predictive: Predictive,
    seeds: list[int],
    checkpoint: Path | None,
    checkpoint_seconds: float,
    config_hash: str,
    report: Callable[[int, str], None],
    finished: int,
) -> dict[str, Tensor]:
    """Run the chains of one block to the end; returns acceptance and divergences, (k,) each."""
    k, device = len(seeds), predictive.split.images.device

    def generators(name: str | int) -> ChainGenerators:
        return ChainGenerators.from_seeds(device, seeds, "chain", name)

    init = generators("init")
    state = plan.kernel.init(plan.init_scale * init.normal(network.num_params), init)
    done = 0
    accept_sum = torch.zeros(k, dtype=torch.float64, device=device)
    diverged = torch.zeros(k, dtype=torch.float64, device=device)
    if checkpoint is not None and checkpoint.exists():
        tensors, metadata = load_tensors(checkpoint, what="a checkpoint of chains")
        if metadata.get("config_hash") != config_hash:
            raise FileFormatError(f"{checkpoint} is not of this run; use --no-resume to start over.")
        done = int(metadata["iteration"])
        state = state_from_tensors(state, {k[6:]: v for k, v in tensors.items() if k.startswith("state.")})
        predictive.load({k[11:]: v for k, v in tensors.items() if k.startswith("predictive.")})
        accept_sum, diverged = tensors["accept_sum"].to(device), tensors["diverged"].to(device)

    saved = time.monotonic()
    for t in range(done, plan.iterations):
        state, info = plan.kernel.step(state, generators(t))
        if t >= plan.burn_in:
            accept_sum += info.accept_prob.double()
            if hasattr(info, "diverged"):
                diverged += info.diverged
            if (t - plan.burn_in) % plan.thin == 0:
                predictive.add(state.params)
        report(finished + k * (t + 1), f"accepting {float(info.accept_prob.mean()):.2f}")
        if checkpoint is not None and time.monotonic() - saved > checkpoint_seconds:
            tensors = {
                **{f"state.{key}": v for key, v in state_to_tensors(state).items()},
                **{f"predictive.{key}": v for key, v in predictive.state().items()},
                "accept_sum": accept_sum,
                "diverged": diverged,
            }
            save_tensors(checkpoint, tensors, {"config_hash": config_hash, "iteration": str(t + 1)})
            saved = time.monotonic()
    kept = plan.iterations - plan.burn_in
    return {"acceptance": (accept_sum / kept).cpu(), "divergences": diverged.cpu()}
