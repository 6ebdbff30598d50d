"""Training a VAE in a folder of its own: resumable, and opened again from its record."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bpc.drive import drive
from bpc.errors import ConfigError, FileFormatError
from bpc.files import load_own_tensors, own_content, save_tensors
from bpc.progress import duration, progress, say
from bpc.runs import Run, device_name, read_run
from bpc.seeding import make_generator
from bpc.vae.data import ImageData, load_images, pick
from bpc.vae.likelihoods import make_likelihood
from bpc.vae.models import LatentModel, ModelConfig, build_model
from bpc.vae.priors import Prior, PriorConfig, build_prior
from bpc.vae.train import EpochRecord, TrainConfig, load_state, new_state, save_state, train

__all__ = ["Trained", "VaeSettings", "open_trained", "train_job"]

CHECKPOINT, BEST = "checkpoint.safetensors", "model.safetensors"
_images = functools.lru_cache(maxsize=1)(load_images)  # training, scores and further models of one command share them


@dataclass(frozen=True, kw_only=True)
class VaeSettings:
    """Everything a trained model depends on."""

    dataset: str
    model: ModelConfig
    prior: PriorConfig
    train: TrainConfig
    likelihood: str
    train_images: int
    seed: int

    def record(self) -> dict[str, Any]:
        """JSON, for run.json and the hash."""
        return dataclasses.asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> VaeSettings:
        """The inverse of `record`."""
        parts = {"model": ModelConfig, "prior": PriorConfig, "train": TrainConfig}
        return cls(**{k: parts[k](**v) if k in parts else v for k, v in record.items()})


@dataclass
class Trained:
    """A model and its prior with the data they were trained on."""

    settings: VaeSettings
    data: ImageData
    model: LatentModel
    prior: Prior
    path: Path


def _assemble(
    settings: VaeSettings, data_root: Path | None, device: torch.device
) -> tuple[ImageData, LatentModel, Prior]:
    data = _images(settings.dataset, data_root=data_root, seed=settings.seed)
    if settings.train_images:
        data = dataclasses.replace(data, train=pick(data.train, settings.train_images))
    data = data.to(device)
    likelihood = make_likelihood(settings.likelihood)
    start = make_generator("cpu", settings.seed, "vae", "init")
    model = build_model(settings.model, data.image_shape, likelihood, start).to(device)
    prior = build_prior(settings.prior, settings.model.latent, data.train.images, start)
    return data, model, prior


def train_job(
    settings: VaeSettings,
    out: Path,
    *,
    data_root: Path | None,
    device: torch.device,
    resume: bool,
    checkpoint_seconds: float,
) -> Path:
    """Train one model in `out`; goes on from its checkpoint."""
    scale = f"{device_name(device)}; at most {settings.train.epochs} epochs"
    if settings.train_images:
        scale += f"; {settings.train_images:,} training images"
    with Run(out, "vae", settings.record(), device, seed=settings.seed, resume=resume, scale=scale) as run:
        if run.done:
            say(f"{out} holds this model already, trained.")
            return out
        data, model, prior = _assemble(settings, data_root, device)
        state = new_state(model, prior, settings.train)
        checkpoint = run.file(CHECKPOINT)
        if checkpoint.exists():
            load_state(state, checkpoint, run.hash)
            say(f"Going on from epoch {state.epoch}.")
        run.trim_log("epoch", state.epoch)
        count = sum(p.numel() for p in [*model.parameters(), *prior.parameters()])
        say(
            f"Training {settings.model.name} with the {settings.prior.name} prior ({count:,} parameters) on {len(data.train):,} "
            f"images of {data.name}; it stops when {settings.train.patience} epochs bring nothing, at {settings.train.epochs} at "
            "the latest."
        )

        def took(record: EpochRecord) -> None:
            run.log(**record._asdict())
            report.update(record.epoch, f"bound {record.train_elbo:.2f}, validation {record.validation_elbo:.2f}")

        def save() -> None:
            save_state(state, checkpoint, run.hash)

        with progress(f"{settings.model.name}, {settings.prior.name}", settings.train.epochs, state.epoch) as report:
            drive(
                train(state, data.train, data.validation, settings.train, seed=settings.seed),
                took=took,
                save=save,
                checkpoint_seconds=checkpoint_seconds,
                whole=lambda: False,  # an epoch changes the model in place
            )
        save()
        save_tensors(
            run.file(BEST, promised=True), state.best, {"config_hash": run.hash, "epoch": str(state.best_epoch)}
        )
        state.restore(state.best)
        coreset = prior.pseudocoreset(settings.dataset)
        if coreset is not None:
            coreset.replace(config_hash=run.hash, seed=settings.seed).save(run.file("coreset.safetensors"))
        log = pd.read_json(out / "log.jsonl", lines=True)
        run.record(
            "done", epochs=state.epoch, best_epoch=state.best_epoch, seconds_an_epoch=float(log["seconds"].median())
        )
        say(f"Trained for {state.epoch} epochs (best {state.best_epoch}) in {duration(run.seconds)}.")
    return out


def open_trained(path: Path, *, data_root: Path | None, device: torch.device) -> Trained:
    """A model from the folder of `train_job`.

    Raises:
        FileFormatError: not such a folder, or training has not finished.
    """
    record = read_run(path) if (path / "run.json").exists() else {}
    if record.get("job") != "vae":
        raise FileFormatError(
            f"{path} is not the folder of a trained VAE; make one with run.py vae train --out {path}."
        )
    if not (path / BEST).exists():
        raise ConfigError(f"The model in {path} is not trained to its end yet; run its vae train command again.")
    with own_content(path / "run.json"):
        settings = VaeSettings.from_record(record["config"])
    data, model, prior = _assemble(settings, data_root, device)
    tensors, _ = load_own_tensors(path / BEST, record["config_hash"], what="a trained VAE")
    with own_content(path / BEST):
        for prefix, module in (("model.", model), ("prior.", prior)):
            module.load_state_dict({k[len(prefix) :]: v.to(device) for k, v in tensors.items() if k.startswith(prefix)})
            module.eval()
    return Trained(settings, data, model, prior, path)
