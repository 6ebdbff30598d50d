"""The reference: two independent runs on the posterior of the full data, stored, and used by every fidelity that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bpc.budget import pairs_at_once
from bpc.data import Dataset
from bpc.estimate import synchronise
from bpc.likelihood import Classifier
from bpc.models import Network
from bpc.posterior import Posterior
from bpc.progress import duration, progress, say
from bpc.runs import Run
from bpc.samplers import value_and_grad
from evaluation.exact import sample_posterior
from evaluation.exact_score import Cell, write_result, written_seeds
from evaluation.inputs import Inputs
from evaluation.protocols import ExactSettings
from evaluation.rows import RowWriter

__all__ = ["REFERENCE_SEEDS", "make_reference", "reference_record", "reference_settings"]

REFERENCE_SEEDS = (0, 1)  # the reference, and another run of it: how far two samplings of one posterior differ


def reference_settings(settings: ExactSettings, training_images: int, **changes: Any) -> ExactSettings:
    """SGHMC on minibatches, with the prior of the coresets' evaluation: what a user gets who asks for nothing else.

    Full-batch HMC (``sampler="hmc"``) is exact, and N / batch times as expensive a step.
    """
    base = ExactSettings(
        sampler="sghmc",
        chains=settings.chains,
        warmup=300,
        samples=400,
        leapfrog_steps=10,
        step_size=0.02,
        friction=5.0,
        batch=min(128, training_images),
        prior_std=settings.prior_std,
    )
    return dataclasses.replace(base, **{k: v for k, v in changes.items() if v is not None})


def reference_record(
    network: Network, dataset: Dataset, settings: ExactSettings, inputs: Sequence[Inputs]
) -> dict[str, Any]:
    """What the reference depends on: its folder's key."""
    return {
        "dataset": dataset.name,
        "training_images": len(dataset.train),
        "network": network.name,
        "inputs": {i.name: len(i.split) for i in inputs},
        **dataclasses.asdict(settings),
    }


def make_reference(
    path: Path,
    network: Network,
    dataset: Dataset,
    settings: ExactSettings,
    *,
    inputs: Sequence[Inputs],
    device: torch.device,
    memory_budget: float | None = None,
    checkpoint_seconds: float = 30.0,
) -> Path:
    """Sample the posterior of the full training set twice and store it in `path`, unless it is there. Resumes.

    The folder is a run of method `full`: ``rows.csv``, a predictive and an ArviZ file for each of the two.
    """
    config = reference_record(network, dataset, settings, inputs)
    cell: Cell = {"method": "full", "ipc": len(dataset.train) // dataset.num_classes}
    cell |= {"sampler": settings.label, "protocol": "exact"}
    with Run(path, "reference", config, device, seed=0) as run:
        if run.done:
            return path
        with RowWriter(path / "rows.csv"):
            pass
        posterior = Posterior(
            Classifier(network),
            dataset.normalise(dataset.train.images),
            dataset.train.labels,
            torch.ones(len(dataset.train), device=device),
            prior_std=settings.prior_std,
            points_at_once=pairs_at_once(network, device, memory_budget),
        )
        left = [seed for seed in REFERENCE_SEEDS if seed not in written_seeds(run, cell)]
        draws = (settings.warmup + settings.samples) * settings.chains
        say(
            f"Sampling the posterior of all {len(dataset.train):,} training images by {settings.label} "
            f"({settings.chains} chains, twice), about {duration(_seconds(posterior, network, settings) * draws * len(left))}. "
            f"It is kept in {path} and used again; --reference none does without."
        )
        with progress("Sampling the full data's posterior", draws * len(left)) as report:
            for i, seed in enumerate(left):
                checkpoint = path / f"chains-{seed}.safetensors"
                for result in sample_posterior(
                    network,
                    dataset,
                    posterior,
                    settings,
                    seeds=[seed],
                    inputs=inputs,
                    checkpoint=checkpoint,
                    checkpoint_seconds=checkpoint_seconds,
                    config_hash=run.hash,
                    report=lambda done, note, i=i: report.update(i * draws + done, note),  # type: ignore[misc]
                ):
                    write_result(run, network, dataset, cell, result, inputs)
                checkpoint.unlink(missing_ok=True)
        run.record("done")
    return path


def _seconds(posterior: Posterior, network: Network, settings: ExactSettings) -> float:
    """Of one draw of one chain, by timing one gradient."""
    import time

    from bpc.seeding import ChainGenerators, make_generator

    device = posterior.points.device
    params = network.init(1, make_generator(device, 0))
    generators = ChainGenerators([make_generator(device, 0, "timing")])
    size = settings.batch if settings.sampler == "sghmc" and settings.batch else 0
    density = (lambda theta: posterior.minibatch(theta, generators, size)) if size else posterior
    value_and_grad(density, params)
    synchronise(device)
    started = time.monotonic()
    value_and_grad(density, params)
    synchronise(device)
    gradients = 2**settings.max_tree_depth if settings.sampler == "nuts" else settings.leapfrog_steps
    return (time.monotonic() - started) * gradients
