"""What becomes of a model that learned from few labels: scores, samples, pictures, all in its folder."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from bpc.ebm.data import pixels
from bpc.ebm.job import SslSettings, open_trained
from bpc.ebm.synthesis import synthesise
from bpc.errors import ConfigError
from bpc.files import save_tensors
from bpc.progress import progress, say
from bpc.runs import device_name, own_file, own_picture, read_run
from bpc.seeding import make_generator
from evaluation.metrics import compute, empty_sums, update
from evaluation.rows import Row, RowWriter, metrics_of
from evaluation.ssl.pictures import NAMES, plot_entropies, plot_learning, plot_sheets

__all__ = ["draw_learning", "evaluate_job", "synthesise_job"]

SCORES = ("accuracy", "nll", "ece", "brier")


def _title(settings: SslSettings) -> str:
    size = f", L = {settings.augment.samples:,}" if settings.augment.samples else ""
    return f"{settings.dataset}, {settings.labelled} labels, {NAMES[settings.augment.setting]}{size}"


def draw_learning(path: Path) -> None:
    """The losses by iteration, from a trained model's log."""
    settings = SslSettings.from_record(read_run(path)["config"])
    plot_learning(path / "log.jsonl", own_picture(path, "learning.png"), title=_title(settings))


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
