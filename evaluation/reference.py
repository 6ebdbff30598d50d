"""The reference: two independent runs on the posterior of the full data, kept with their weights, asked whatever is needed later.

A reference is named by everything its posterior depends on: every training pixel and label, the network, the prior, the sampler.
What it is asked about is no part of its name: thinned draws of its weights are kept, and the predictive on any images comes from
them, stored by the images' content.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpc.data import Dataset
from bpc.errors import ConfigError, FileFormatError
from bpc.files import load_own_tensors, save_tensors
from bpc.models import Network
from bpc.progress import progress, say
from bpc.runs import Run, config_hash, missing_outputs, read_run
from evaluation.diagnostics import diagnose
from evaluation.exact_chains import TRACKED, sample_posterior
from evaluation.exact_cost import cost_words, sampling_seconds
from evaluation.exact_run import (
    REFERENCE_SEEDS,
    diagnostic_rows,
    inference_data,
    save_inference,
    warn_of_heat,
)
from evaluation.inputs import Inputs
from evaluation.predictive import Predictive, chain_tensors, pick_images, predictive_tensors
from evaluation.protocols import ExactSettings, exact_posterior
from evaluation.rows import PosteriorKey, Row, RowWriter, read_rows

__all__ = ["REFERENCE_SEEDS", "Reference", "load_reference", "make_reference", "reference_record", "reference_settings"]

WEIGHTS_BYTES = 2**28  # of kept draws, for each of the two runs
BATCH = 128
FULL_BATCH = 5_000  # training images; up to here a gradient by all of them is affordable
HEATED_STEP = 0.02  # of SGHMC by minibatches at first: warm-up shrinks it until their noise heats little
MOST_MOVES = 200  # of SGHMC between two gradients by all points


def reference_settings(
    training_images: int, *, sampler: str = "auto", quick: bool = False, **changes: Any
) -> ExactSettings:
    """How the full data's posterior is sampled.

    Up to `FULL_BATCH` training images ``auto`` is HMC on all of them, as long as for a coreset: no noise, a Metropolis test, N
    points per gradient. Above it is SGHMC on minibatches, whose gradients have control variates and whose step follows their heat
    (`bpc.samplers.sghmc`); a draw is half a pass over the data and one gradient by all of it. On digits SGHMC was measured to
    leave 9 to 24 % of heat along the stiffest direction; that is why small data get HMC.

    Args:
        training_images: N.
        sampler: ``auto`` or one of `EXACT_SAMPLERS`.
        quick: a shorter run, see `ExactSettings.shorter`.
        changes: to the defaults; None changes nothing, and neither do leapfrog steps, meant for HMC, where ``auto`` is SGHMC.
    """
    minibatches = sampler == "sghmc" or (sampler == "auto" and training_images > FULL_BATCH)
    if not minibatches:
        return ExactSettings.for_sampler("hmc" if sampler == "auto" else sampler, quick=quick, **changes)
    batch = min(BATCH, training_images)
    moves = min(max(10, training_images // (2 * batch)), MOST_MOVES)
    base = ExactSettings.for_sampler(
        "sghmc", warmup=300, samples=400, leapfrog_steps=moves, batch=batch, step_size=HEATED_STEP
    )
    if sampler == "auto":
        changes = {name: value for name, value in changes.items() if name != "leapfrog_steps"}
    changes = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(base.shorter() if quick else base, **changes)


def reference_record(network: Network, dataset: Dataset, settings: ExactSettings) -> dict[str, Any]:
    """What the reference depends on: its folder's key."""
    return {
        "dataset": dataset.name,
        "training_images": len(dataset.train),
        "training_digest": dataset.train.digest,
        "normalisation": [list(dataset.mean), list(dataset.std)],
        "network": network.name,
        **settings.record(),
    }


class Reference:
    """A reference that is there.

    Args:
        path: its folder.
        network, dataset: what it was sampled with; `Reference` asks them for predictions.
        settings: of its sampler.
        config_hash: of its run.
        runs: how many of its runs are asked for; a second one is there to be compared with the first.
    """

    def __init__(
        self,
        path: Path,
        network: Network,
        dataset: Dataset,
        settings: ExactSettings,
        config_hash: str,
        runs: int = len(REFERENCE_SEEDS),
    ) -> None:
        self.path, self.network, self.dataset, self.settings = path, network, dataset, settings
        self.seeds = REFERENCE_SEEDS[:runs]
        self._hash = config_hash

    @property
    def key(self) -> PosteriorKey:
        """Of its rows."""
        ipc = len(self.dataset.train) // self.dataset.num_classes
        return PosteriorKey("full", ipc, self.settings.label, "exact")

    def predictive(self, seed: int, inputs: Inputs) -> Tensor:
        """(n, y) float32 on the CPU: p(y | x) of one of the two runs, its chains pooled."""
        return self.chains(seed, inputs).double().mean(0).float()

    def tensors(self, seed: int, inputs: Sequence[Inputs]) -> dict[str, Tensor]:
        """What a predictive's file holds, of one of the two runs: pooled, by chain, and labels."""
        chains = {i.name: self.chains(seed, i) for i in inputs}
        pooled = {name: probs.double().mean(0).float() for name, probs in chains.items()}
        return predictive_tensors(pooled, inputs) | chain_tensors(chains, inputs)

    def chains(self, seed: int, inputs: Inputs) -> Tensor:
        """(c, n, y) float32 on the CPU: p(y | x) of each chain of one of the two runs; computed once for these very images."""
        digest = inputs.split.digest
        path = self.path / f"predictive-{seed}-{digest}.safetensors"
        probs = load_own_tensors(path, self._hash)[0].get("chains") if path.exists() else None
        if probs is not None:  # versions before kept the pooled predictive only
            if probs.shape != (self.settings.chains, len(inputs.split), self.dataset.num_classes):
                raise FileFormatError(f"{path} is not this reference's predictive; remove it, and it is made again.")
            return probs
        draws = self.draws(seed)
        predictive = Predictive(self.network, self.dataset, inputs.split, len(draws))
        device = self.dataset.train.images.device
        with progress(
            f"Asking the reference about {len(inputs.split):,} images ({inputs.name})", draws.shape[1]
        ) as report:
            for s in range(draws.shape[1]):
                predictive.add(draws[:, s].to(device))
                report.update(s + 1)
        probs = predictive.probs.float().cpu()
        save_tensors(path, {"chains": probs}, {"config_hash": self._hash, "inputs": inputs.name})
        return probs

    def draws(self, seed: int) -> Tensor:
        """(c, d, p) kept draws of one of the two runs.

        Raises:
            FileFormatError: the file is missing or of another shape.
        """
        path = self.path / f"weights-{seed}.safetensors"
        draws = load_own_tensors(path, self._hash)[0].get("draws")
        if draws is None or draws.ndim != 3 or draws.shape[2] != self.network.num_params:
            raise FileFormatError(f"{path} does not hold draws of {self.network.num_params:,} parameters.")
        return draws

    def diagnostics(self, seed: int) -> dict[str, float]:
        """Rows of one of the two runs that do not depend on what it is asked: mixing, heat."""
        rows = read_rows(self.path / "rows.csv")
        mine = rows[rows["seed"] == seed]
        return {str(m): float(v) for m, v in zip(mine["metric"], mine["value"], strict=True)}

    def warn(self) -> None:
        """Say what is wrong with its temperature, whenever it is used."""
        for seed in self.seeds:
            warn_of_heat(self.diagnostics(seed), f"the full data's posterior in {self.path}, run {seed + 1}")


def make_reference(
    path: Path,
    network: Network,
    dataset: Dataset,
    settings: ExactSettings,
    *,
    device: torch.device,
    runs: int = len(REFERENCE_SEEDS),
    checkpoint_seconds: float = 30.0,
    resume: bool = True,
    quick: ExactSettings | None = None,
    before: Callable[[float], None] = lambda seconds: None,
) -> Reference:
    """Sample the posterior of the full training set `runs` times and keep it in `path`, unless it is there. Resumes.

    The folder is a run of method `full`: for each time an ArviZ file, thinned weights, and rows of diagnostics. A second time can
    be added to a folder with one.

    Args:
        path: the folder.
        network, dataset, settings: what is sampled and how.
        device: where; the dataset is there.
        runs: 1 or 2.
        checkpoint_seconds: a kill loses no more.
        resume: False starts over.
        quick: the settings that --quick would give, for the message on the cost.
        before: called with the estimated seconds before sampling begins (it may ask for patience).
    """
    seeds = REFERENCE_SEEDS[:runs]
    config = reference_record(network, dataset, settings)
    if resume and (path / "run.json").exists():
        record, expected = read_run(path), config_hash({"job": "reference", **config})
        done = record["status"] == "done" and not missing_outputs(path, record)
        done = done and all((path / f"weights-{seed}.safetensors").is_file() for seed in seeds)
        if done and record["config_hash"] == expected:  # several may read it at once
            reference = Reference(path, network, dataset, settings, expected, runs)
            reference.warn()
            return reference
    with Run(path, "reference", config, device, seed=0, resume=resume) as run:
        reference = Reference(path, network, dataset, settings, run.hash, runs)
        posterior = exact_posterior(
            network,
            dataset.normalise(dataset.train.images),
            dataset.train.labels,
            torch.ones(len(dataset.train), device=device),
            settings,
        )
        rows_path = run.file("rows.csv", promised=True)
        with RowWriter(rows_path):  # opening it mends a torn last line
            pass
        rows = read_rows(rows_path)
        weights = {seed: run.file(f"weights-{seed}.safetensors", promised=True) for seed in seeds}
        done = {s for s in rows.loc[rows["metric"] == "mixed", "seed"] if s in weights and weights[s].is_file()}
        left = [seed for seed in seeds if seed not in done]
        draws = (settings.warmup + settings.samples) * settings.chains
        keep = _kept(network, settings)
        size = keep * settings.chains * network.num_params * 4 / 2**20
        cost = sampling_seconds(
            network, posterior.points, posterior.labels, settings, chains=settings.chains * len(left)
        )
        times = ", twice," if len(left) > 1 else ""
        say(cost_words(f"the posterior of all {len(dataset.train):,} training images{times}", settings, cost, quick))
        say(f"It is kept in {path} ({keep} draws of each chain, {runs * size:.0f} MB) and used again.")
        before(cost(settings))
        with progress("Sampling the full data's posterior", draws * len(left)) as report:
            for i, seed in enumerate(left):
                checkpoint = run.file(f"chains-{seed}.safetensors")
                for result in sample_posterior(
                    network,
                    dataset,
                    posterior,
                    settings,
                    seeds=[seed],
                    inputs=[],
                    tracked=pick_images(dataset.test, TRACKED),
                    keep=keep,
                    checkpoint=checkpoint,
                    checkpoint_seconds=checkpoint_seconds,
                    config_hash=run.hash,
                    report=lambda done, note, i=i: report.update(i * draws + done, note),  # type: ignore[misc]
                ):
                    save_tensors(weights[seed], {"draws": result.draws}, {"config_hash": run.hash})
                    data = inference_data(
                        result.traces, reference.key, run, network, dataset, seed, settings.superchain
                    )
                    save_inference(data, run, reference.key, seed)
                    found = diagnose(data)
                    _write(run, reference, seed, diagnostic_rows(found, data, result.halves), result.seconds)
                    if not found.mixed:
                        say(f"The chains of the full data, run {seed + 1}, have not mixed: {'; '.join(found.reasons)}.")
                checkpoint.unlink(missing_ok=True)
        run.record("done")
    reference.warn()
    return reference


def load_reference(path: Path, network: Network, dataset: Dataset) -> Reference:
    """The finished reference in a folder, whatever it was sampled by.

    Raises:
        ConfigError: it is not finished, or is of another network or other images.
        FileFormatError: there is none.
    """
    record = read_run(path)
    if record["job"] != "reference" or record["status"] != "done":
        raise ConfigError(f"{path} holds no finished reference; make it with run.py reference --out {path}.")
    config = record["config"]
    known = reference_record(network, dataset, ExactSettings())
    for name in ("dataset", "training_digest", "network"):
        if config.get(name) != known[name]:
            raise ConfigError(f"The reference in {path} has {name} {config.get(name)}; expected {known[name]}.")
    fields = {f.name for f in dataclasses.fields(ExactSettings)}
    settings = ExactSettings(**{k: v for k, v in config.items() if k in fields})
    return Reference(path, network, dataset, settings, record["config_hash"])


def _kept(network: Network, settings: ExactSettings) -> int:
    """Draws of each chain whose weights are kept: as many as a predictive takes, within `WEIGHTS_BYTES`."""
    most = WEIGHTS_BYTES // (4 * settings.chains * network.num_params)
    return max(1, min(settings.predictive_draws, settings.samples, most))


def _write(run: Run, reference: Reference, seed: int, values: dict[str, float], seconds: float) -> None:
    rows_path = run.file("rows.csv")
    rows = read_rows(rows_path)
    there = set(rows.loc[rows["seed"] == seed, "metric"])
    with RowWriter(rows_path) as writer:
        for metric in [m for m in values if m not in there]:
            writer.write(
                Row(
                    run=run.path.name, config_hash=run.hash, dataset=reference.dataset.name,
                    architecture=reference.network.name, seed=seed, metric=metric, value=values[metric], seconds=seconds,
                    device=run.device_name, **reference.key._asdict(),
                )
            )  # fmt: skip
