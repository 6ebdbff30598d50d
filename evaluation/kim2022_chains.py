"""Score coresets as published: one short chain per seed, on the leading axis, predictive streamed, checkpoints on the way.

The protocols of `KIM2022_PROTOCOLS` are scored here; `exact` is sampled in `evaluation.exact_chains`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.augment import AugmentConfig
from bpc.budget import pairs_at_once
from bpc.coreset import Pseudocoreset, check_coreset, common_labels
from bpc.data import Dataset
from bpc.errors import ConfigError, unknown_name
from bpc.models import Network
from evaluation.calibration import calibrated_nll
from evaluation.chains import run_chains
from evaluation.inputs import Inputs
from evaluation.metrics import SHIFTED
from evaluation.predictive import Predictive, pick_images
from evaluation.protocols import KIM2022_PROTOCOLS, KIM2022_SAMPLERS, ChainPlan, kim2022_plan, kim2022_settings

__all__ = ["BlockResult", "Kim2022Config", "iterations", "sample_kim2022", "shifted_metrics"]


@dataclass(frozen=True, kw_only=True)
class Kim2022Config:
    """What is sampled and scored.

    Attributes:
        sampler: ``hmc`` or ``asghmc``.
        protocol: one of `KIM2022_PROTOCOLS`; see `evaluation.protocols`.
        test_images: how many of the test set, evenly spaced; 0 is all of it.
        overrides: changes to Table 3's row (``iterations``, ``burn_in``, ``penalty`` ...); empty for the published settings.
    """

    sampler: str = "hmc"
    protocol: str = "kim2022"
    test_images: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol not in KIM2022_PROTOCOLS:
            raise unknown_name("protocol", self.protocol, KIM2022_PROTOCOLS)
        KIM2022_SAMPLERS.get(self.sampler, hint=f"{self.protocol} has no other.")

    def record(self) -> dict[str, Any]:
        """What a configuration hash should cover."""
        shared: dict[str, Any] = {"sampler": self.sampler, "protocol": self.protocol, "test_images": self.test_images}
        if self.protocol.startswith("kim2022-scaled"):
            shared["scaled"] = "penalty, time"  # rows of shorter chains, from before the time was scaled, are not these
        return {**shared, "overrides": {k: v for k, v in self.overrides.items() if v is not None}}


class BlockResult(NamedTuple):
    """Finished chains that ran together."""

    seeds: list[int]
    metrics: dict[str, Tensor]  # each (k,), float64 on the CPU; nan where a chain diverged
    probs: Tensor  # (k, n, y) float32 on the CPU, the predictive
    seconds: float


def sample_kim2022(
    network: Network,
    dataset: Dataset,
    coresets: Sequence[Pseudocoreset],
    config: Kim2022Config,
    *,
    seeds: Sequence[int],
    augment: AugmentConfig | None = None,
    extra: Sequence[Inputs] = (),
    chains_at_once: int = 0,
    memory_budget: float | None = None,
    file: Callable[[str], Path] | None = None,
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
        seeds: one per chain.
        augment: for A-SGHMC, the augmentation the coreset was trained with.
        extra: corrupted images; `SHIFTED` metrics of each go into the results as ``accuracy@fog-3``, and `mce`.
        chains_at_once: chains per block; 0 chooses by memory.
        memory_budget: GiB for activations; None as `bpc.budget` decides.
        file: names the file of a checkpoint (`Run.file`); None keeps none.
        checkpoint_seconds: at most this much work is lost by a kill.
        config_hash: of the run that the checkpoints belong to.
        skip: whether a seed is done already.
        report: called with the iterations done (over all seeds) and a note.
    """
    if len(coresets) not in (1, len(seeds)):
        raise ConfigError(f"{len(coresets)} coresets for {len(seeds)} seeds: give one, or one for each.")
    for coreset in coresets:
        check_coreset(coreset, dataset, network)
        if len(coreset) != len(coresets[0]):
            raise ConfigError("Coresets evaluated together must have the same number of points.")
    common_labels(coresets)  # refuses those that differ
    device = dataset.test.images.device
    split = pick_images(dataset.test, config.test_images)
    m = len(coresets[0])
    block = chains_at_once or max(1, min(len(seeds), pairs_at_once(network, device, memory_budget) // m))
    finished = 0
    for begin in range(0, len(seeds), block):
        chosen = list(seeds[begin : begin + block])
        if all(skip(seed) for seed in chosen):
            continue
        mine = coresets if len(coresets) == 1 else coresets[begin : begin + block]
        one = len(mine) == 1
        points = mine[0].points if one else torch.stack([c.points for c in mine])
        weights = mine[0].weights if one else torch.stack([c.weights for c in mine])
        plan = _plan(network, mine, points.to(device), weights.to(device), config, augment)
        checkpoint = None if file is None else file(f"chains-{config_hash}-{chosen[0]}-{chosen[-1]}.safetensors")
        predictive = Predictive(network, dataset, split, len(chosen))
        started = time.monotonic()
        shifted = {i.name: Predictive(network, dataset, i.split, len(chosen)) for i in extra}
        scores = _Scores(predictive, shifted, plan, len(chosen), device)
        run_chains(
            plan,
            scores,
            seeds=chosen,
            num_params=network.num_params,
            device=device,
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            config_hash=config_hash,
            report=lambda done, note, before=finished: report(before + done, note),  # type: ignore[misc]
        )
        finished += plan.iterations * len(chosen)
        found = predictive.metrics(kim2022=True) | calibrated_nll(predictive.probs, split.labels)
        metrics = {k: v.cpu() for k, v in found.items()}
        yield BlockResult(
            chosen, {**metrics, **scores.metrics()}, predictive.probs.float().cpu(), time.monotonic() - started
        )
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)


def shifted_metrics(extra: Sequence[Inputs]) -> list[str]:
    """Names of the metrics that corrupted images add."""
    return [f"{metric}@{i.name}" for i in extra for metric in SHIFTED] + (["mce"] if extra else [])


def iterations(network: Network, coreset: Pseudocoreset, config: Kim2022Config) -> int:
    """Iterations of one chain, burn-in included."""
    return kim2022_settings(
        config.protocol, config.sampler, coreset.ipc, network.num_params, **config.overrides
    ).iterations


def _plan(
    network: Network,
    coresets: Sequence[Pseudocoreset],
    points: Tensor,
    weights: Tensor,
    config: Kim2022Config,
    augment: AugmentConfig | None,
) -> ChainPlan:
    settings = kim2022_settings(
        config.protocol, config.sampler, coresets[0].ipc, network.num_params, **config.overrides
    )
    labels, own = common_labels(coresets).to(points.device), config.protocol.endswith("default-init")
    return kim2022_plan(config.sampler, network, points, labels, weights, settings, augment, default_init=own)


class _Scores:
    """Predictive, acceptance, divergences of k chains, and how well they fit the coreset at both ends of sampling."""

    def __init__(
        self, predictive: Predictive, shifted: dict[str, Predictive], plan: ChainPlan, chains: int, device: torch.device
    ) -> None:
        self.predictive, self.shifted, self.plan = predictive, shifted, plan
        self.draws = 0
        self.ends = torch.full(
            (2, chains), torch.nan, dtype=torch.float64, device=device
        )  # CE at both ends of sampling
        self.accept_sum = torch.zeros(chains, dtype=torch.float64, device=device)
        self.diverged = torch.zeros(chains, dtype=torch.float64, device=device)

    def add(self, state: Any, info: Any) -> None:
        self.draws += 1
        self.accept_sum += info.accept_prob.double()
        if hasattr(info, "diverged"):
            self.diverged += info.diverged
        for predictive in (self.predictive, *self.shifted.values()):
            predictive.add(state.params)
        for end, draw in enumerate((1, self.plan.iterations - self.plan.burn_in)):
            if self.draws == draw and self.plan.cross_entropy is not None:
                self.ends[end] = self.plan.cross_entropy(state.params).double()

    def metrics(self) -> dict[str, Tensor]:
        found = {"acceptance": (self.accept_sum / self.draws).cpu(), "divergences": self.diverged.cpu()}
        found["conditioning_ce_start"], found["conditioning_ce_end"] = self.ends.cpu()
        for place, predictive in self.shifted.items():
            there = predictive.metrics(kim2022=False)
            found.update({f"{metric}@{place}": there[metric].cpu() for metric in SHIFTED})
        errors = [1.0 - value for name, value in found.items() if name.startswith("accuracy@")]
        return {**found, "mce": torch.stack(errors).mean(0)} if errors else found

    def state(self) -> dict[str, Tensor]:
        predictive = {f"predictive.{k}": v for k, v in self.predictive.state().items()}
        for place, shifted in self.shifted.items():
            predictive |= {f"{place}.{k}": v for k, v in shifted.state().items()}
        counts = {
            "draws": torch.tensor(self.draws),
            "accept_sum": self.accept_sum,
            "diverged": self.diverged,
            "ends": self.ends,
        }
        return {**predictive, **counts}

    def load(self, state: dict[str, Tensor]) -> None:
        device = self.accept_sum.device
        for place, predictive in (("predictive", self.predictive), *self.shifted.items()):
            predictive.load({k[len(place) + 1 :]: v for k, v in state.items() if k.startswith(f"{place}.")})
        self.draws = int(state["draws"])
        self.accept_sum, self.diverged = state["accept_sum"].to(device), state["diverged"].to(device)
        self.ends = state["ends"].to(device)
