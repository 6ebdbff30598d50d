"""Runs of the latent energy-based model: a folder for each, resumable, over a first phase that settings share."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bpc.data import load_dataset
from bpc.drive import drive
from bpc.ebm.data import SemiSupervised, divide, pixels
from bpc.ebm.model import EBMConfig, LatentEBM
from bpc.ebm.synthesis import Synthetic, synthesise
from bpc.ebm.train import (
    SETTINGS,
    AugmentConfig,
    LearnConfig,
    Record,
    State,
    build_pool,
    learn,
    load_state,
    save_state,
)
from bpc.errors import ConfigError, FileFormatError
from bpc.files import load_own_tensors, own_content, save_tensors
from bpc.progress import duration, progress, say
from bpc.runs import Run, device_name, own_file, read_run
from bpc.seeding import make_generator
from evaluation.metrics import compute, empty_sums, update
from evaluation.rows import Row, RowWriter, metrics_of
from evaluation.ssl.pictures import plot_entropies, plot_learning, plot_sheets

__all__ = ["SslSettings", "evaluate_job", "open_trained", "synthesise_job", "train_job"]

CHECKPOINT, POOL = "checkpoint.safetensors", "pool.safetensors"
SCORES = ("accuracy", "nll", "ece", "brier")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SslSettings:
    """Everything a trained model depends on."""

    dataset: str
    labelled: int
    unlabelled: int
    validation_fraction: float
    model: EBMConfig
    learn: LearnConfig
    augment: AugmentConfig
    seed: int

    def record(self) -> dict[str, Any]:
        """JSON, for run.json and the hash."""
        return dataclasses.asdict(self)

    def base(self) -> dict[str, Any]:
        """The same without what only the second phase looks at."""
        record = self.record()
        del record["augment"], record["learn"]["iterations"]
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> SslSettings:
        """The inverse of `record`."""
        parts = {"model": EBMConfig, "learn": LearnConfig, "augment": AugmentConfig}
        return cls(**{k: parts[k](**v) if k in parts else v for k, v in record.items()})


def _load(settings: SslSettings, data_root: Path | None, device: torch.device) -> tuple[SemiSupervised, State]:
    dataset = load_dataset(settings.dataset, data_root=data_root, validation_fraction=settings.validation_fraction)
    data = divide(dataset, settings.labelled, seed=settings.seed, unlabelled=settings.unlabelled).to(device)
    model = LatentEBM(settings.model, data.image_shape, data.num_classes, settings.seed).to(device)
    return data, State(model, settings.learn)


def _scale(settings: SslSettings, device: torch.device) -> str:
    learn_config = settings.learn
    words = f"{device_name(device)}; {learn_config.iterations:,} iterations, augmented from {learn_config.augment_at:,}"
    if settings.validation_fraction:
        words += f"; scored on {settings.validation_fraction:.0%} of the training images, held out"
    return words


def _follow(steps: Iterator[Record], run: Run, state: State, until: int, label: str, checkpoint_seconds: float) -> None:
    """Drive learning with a bar, a log line for each record and a checkpoint now and then."""

    def took(record: Record) -> None:
        run.log(**record._asdict())
        words = f"labelled loss {record.labelled_loss:.4f}, reconstruction {record.reconstruction:.1f}"
        report.update(record.iteration, words)

    def save() -> None:
        save_state(state, run.file(CHECKPOINT), run.hash)

    with progress(label, until, state.iteration) as report:
        # an iteration changes the model in place
        drive(steps, took=took, save=save, checkpoint_seconds=checkpoint_seconds, whole=lambda: False)
    save()


def _first_phase(
    settings: SslSettings,
    data: SemiSupervised,
    state: State,
    path: Path,
    device: torch.device,
    checkpoint_seconds: float,
) -> None:
    """Learn to T_a in a folder of its own, or find that it is done; the state is left there."""
    until = settings.learn.augment_at
    with Run(path, "ssl-base", settings.base(), device, seed=settings.seed) as run:
        checkpoint = run.file(CHECKPOINT)
        if checkpoint.exists():
            load_state(state, checkpoint, run.hash)
        if state.iteration < until:
            run.trim_log("iteration", state.iteration)
            say(
                f"First phase, without generated images, in {path}: iterations {state.iteration:,} to {until:,} on "
                f"{len(data.labelled):,} labelled and {len(data.unlabelled):,} unlabelled images of {data.name}."
            )
            steps = learn(state, data, settings.learn, until=until, seed=settings.seed)
            _follow(steps, run, state, until, "Learning", checkpoint_seconds)
        if not run.done:
            run.record("done", iterations=until)


def _pool(settings: SslSettings, state: State, path: Path, hash_: str) -> tuple[Synthetic, dict[str, int]]:
    """The samples to choose from, read, or generated by the model of iteration T_a and written; and how many there were."""
    device = next(state.model.parameters()).device
    if not path.exists():
        if state.iteration > settings.learn.augment_at:
            raise FileFormatError(
                f"{path} is missing, and iteration {settings.learn.augment_at:,} is past; use --no-resume."
            )
        started = time.monotonic()
        pool, agreed = build_pool(state, settings.learn, settings.augment, settings.seed)
        total = -(-settings.augment.samples // state.model.num_classes) * state.model.num_classes
        kept, kept_agreed = len(pool.labels), int(pool.agrees.sum())
        counts = {"generated": total, "agreed": agreed, "kept": kept, "kept_agreed": kept_agreed}
        rule = f", those of entropy below {settings.augment.threshold:g} nats"
        say(
            f"Generated {total:,} images in {duration(time.monotonic() - started)}; of {agreed / total:.1%} the classifier says "
            f"the class they were made for. Kept: {kept:,}{rule if SETTINGS[settings.augment.setting].filtered else ''}."
        )
        save_tensors(path, pool._asdict(), {"config_hash": hash_, **{k: str(v) for k, v in counts.items()}})
        return pool, counts
    tensors, meta = load_own_tensors(path, hash_, what="this run's generated images")
    with own_content(path):
        counts = {k: int(meta[k]) for k in ("generated", "agreed", "kept", "kept_agreed")}
        return Synthetic(*(tensors[name].to(device) for name in Synthetic._fields)), counts


def train_job(
    settings: SslSettings,
    out: Path,
    base: Path,
    *,
    data_root: Path | None,
    device: torch.device,
    resume: bool,
    checkpoint_seconds: float,
) -> Path:
    """Both phases of one setting; goes on from checkpoints."""
    with Run(
        out, "ssl", settings.record(), device, seed=settings.seed, resume=resume, scale=_scale(settings, device)
    ) as run:
        if run.done:
            say(f"{out} holds this model already, trained.")
            return out
        data, state = _load(settings, data_root, device)
        checkpoint, pool_path = run.file(CHECKPOINT, promised=True), run.file(POOL)
        pool: Synthetic | None = None
        counts: dict[str, int] = {}
        if not checkpoint.exists():
            _first_phase(settings, data, state, base, device, checkpoint_seconds)
            save_state(state, checkpoint, run.hash)
        else:
            load_state(state, checkpoint, run.hash)
            say(f"Going on from iteration {state.iteration:,}.")
        run.trim_log("iteration", state.iteration)
        if SETTINGS[settings.augment.setting].generate:
            pool, counts = _pool(settings, state, pool_path, run.hash)
        until = settings.learn.iterations
        steps = learn(
            state, data, settings.learn, until=until, seed=settings.seed, pool=pool, augment_config=settings.augment
        )
        _follow(steps, run, state, until, settings.augment.setting, checkpoint_seconds)
        plot_learning(out / "log.jsonl", run.file("learning.png"), title=_title(settings))
        run.record("done", iterations=until, **counts)
    return out


def _title(settings: SslSettings) -> str:
    size = f", L = {settings.augment.samples:,}" if settings.augment.samples else ""
    return f"{settings.dataset}, {settings.labelled} labels, {settings.augment.setting}{size}"


def open_trained(
    path: Path, *, data_root: Path | None, device: torch.device
) -> tuple[SslSettings, SemiSupervised, State, dict[str, Any]]:
    """A model from the folder of `train_job`: settings, data, state and run.json.

    Raises:
        FileFormatError: not such a folder.
        ConfigError: training has not finished.
    """
    record = read_run(path) if (path / "run.json").exists() else {}
    if record.get("job") != "ssl":
        raise FileFormatError(f"{path} is not the folder of a model of run.py ssl train; make one with --out {path}.")
    if record.get("status") != "done":
        raise ConfigError(f"The model in {path} is not trained to its end yet; run its ssl train command again.")
    with own_content(path / "run.json"):
        settings = SslSettings.from_record(record["config"])
    data, state = _load(settings, data_root, device)
    load_state(state, path / CHECKPOINT, record["config_hash"])
    state.model.eval()
    return settings, data, state, record


def evaluate_job(path: Path, *, data_root: Path | None, device: torch.device, draws: int) -> Path:
    """Accuracy, NLL, ECE and Brier score on all test images, into the folder's rows.csv.

    Raises:
        ConfigError: no draw.
    """
    if draws < 1:
        raise ConfigError(f"--draws must be at least 1; got {draws}.")
    settings, data, state, record = open_trained(path, data_root=data_root, device=device)
    protocol = f"z{draws}"
    rows = own_file(path, "rows.csv")
    there = metrics_of(rows, protocol)
    missing = [metric for metric in SCORES if metric not in there]  # some, where a kill came between
    if not missing:
        say(f"{path} holds these scores already.")
        return rows
    started = time.monotonic()
    rng = make_generator(device, settings.seed, "ebm", "test")
    sums = empty_sums(device=device)
    for images, labels in zip(data.test.images.split(500), data.test.labels.split(500), strict=True):
        sums = update(sums, state.model.log_probs(pixels(images), rng, draws).exp(), labels)
    seconds = time.monotonic() - started
    scores = compute(sums)
    with RowWriter(rows) as writer:
        for metric in missing:
            row = Row(
                run=path.name,
                config_hash=record["config_hash"],
                dataset=data.name,
                method=settings.augment.setting,
                architecture="latent-ebm",
                ipc=settings.labelled // data.num_classes,
                sampler="encoder",
                protocol=protocol,
                seed=settings.seed,
                metric=metric,
                value=float(scores[metric]),
                seconds=seconds,
                device=device_name(device),
            )
            writer.write(row)
    say(
        f"{_title(settings)}, seed {settings.seed}: accuracy {float(scores['accuracy']):.4f} on {len(data.test):,} images."
    )
    return rows


def synthesise_job(
    path: Path,
    out: Path | None,
    *,
    data_root: Path | None,
    device: torch.device,
    count: int,
    temperature: float,
    seed: int,
) -> Path:
    """Class-conditional images: unsorted and sorted sheets, the entropies' histogram, tensors."""
    settings, data, state, _ = open_trained(path, data_root=data_root, device=device)
    target = out or path / "samples"
    with progress("Langevin", count) as report:
        made = synthesise(
            state.model, count, make_generator(device, seed, "ebm", "synthesise"), steps=settings.learn.langevin_steps,
            step_size=settings.learn.langevin_step, temperature=temperature, report=lambda done: report.update(done, ""),
        )  # fmt: skip
    save_tensors(target / "samples.safetensors", made._asdict(), {"seed": str(seed), "temperature": str(temperature)})
    words = f"{_title(settings)}, temperature {temperature:g}"
    plot_sheets(made, target, data.num_classes, title=words)
    threshold = settings.augment.threshold if settings.augment.samples else None
    plot_entropies(made, target / "entropies.png", threshold, title=words)
    passed = (
        ""
        if threshold is None
        else f"; {float((made.entropies < threshold).double().mean()):.1%} pass {threshold:g} nats"
    )
    say(
        f"{len(made.labels):,} images: of {float(made.agrees.double().mean()):.1%} the classifier says the class they were made "
        f"for; median entropy {float(made.entropies.median()):.2g} nats{passed}."
    )
    return target
