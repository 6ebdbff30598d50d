"""What `run.py vae ...` does: a folder for each model, resumable, with numbers, pictures and tables."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bpc.drive import drive
from bpc.errors import ConfigError, FileFormatError
from bpc.files import load_own_tensors, own_content, read_json, save_tensors, write_json
from bpc.progress import duration, progress, say
from bpc.runs import Run, device_name, own_file, read_run
from bpc.seeding import make_generator
from bpc.vae.data import ImageData, load_images, present
from bpc.vae.likelihoods import make_likelihood
from bpc.vae.models import LatentModel, ModelConfig, build_model
from bpc.vae.priors import Prior, PriorConfig, build_prior
from bpc.vae.train import EpochRecord, TrainConfig, load_state, new_state, save_state, train
from evaluation.rows import Row, RowWriter, metrics_of
from evaluation.vae.pictures import plot_curves, plot_histogram, plot_images, plot_map, plot_pseudo_inputs
from evaluation.vae.score import pick, score
from evaluation.vae.tasks import augment, embed, interpolate, latents, samples_of

__all__ = [
    "Trained",
    "VaeSettings",
    "augment_job",
    "evaluate_job",
    "open_trained",
    "sample_job",
    "train_job",
]

CHECKPOINT, BEST = "checkpoint.safetensors", "model.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
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


@dataclasses.dataclass
class Trained:
    """A model and its prior with the data they were trained on."""

    settings: VaeSettings
    data: ImageData
    model: LatentModel
    prior: Prior
    path: Path


_images = functools.lru_cache(maxsize=1)(load_images)  # training, scores and further models of one command share them


def _assemble(
    settings: VaeSettings, data_root: Path | None, device: torch.device
) -> tuple[ImageData, LatentModel, Prior]:
    data = _images(settings.dataset, data_root, settings.seed)
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
        log = pd.read_json(out / "log.jsonl", lines=True)
        plot_curves({settings.prior.name: log}, run.file("learning.png"), title=f"{settings.model.name} on {data.name}")
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


def _write_rows(trained: Trained, metrics: dict[str, float], seconds: float, protocol: str) -> None:
    """Append scores to rows.csv, but for those a call that was killed has left there."""
    record, path = read_run(trained.path), own_file(trained.path, "rows.csv")
    there = metrics_of(path, protocol)
    with RowWriter(path) as writer:
        for metric, value in [(m, v) for m, v in metrics.items() if m not in there]:
            writer.write(
                Row(
                    run=trained.path.name,
                    config_hash=record["config_hash"],
                    dataset=trained.data.name,
                    method=trained.settings.prior.name,
                    architecture=trained.settings.model.name,
                    ipc=0,
                    sampler="importance",
                    protocol=protocol,
                    seed=trained.settings.seed,
                    metric=metric,
                    value=value,
                    seconds=seconds,
                    device=device_name(next(trained.model.parameters()).device),
                )
            )


def evaluate_job(
    path: Path, *, data_root: Path | None, device: torch.device, samples: int, test_images: int, pictures: bool = True
) -> Path:
    """Score one model and draw its pictures; what is in its rows.csv under the same settings is not computed again."""
    trained = open_trained(path, data_root=data_root, device=device)
    count = min(test_images or len(trained.data.test), len(trained.data.test))
    protocol = f"is{samples}-n{count}"
    done = own_file(path, f"log-likelihood-{protocol}.safetensors")  # written last
    if done.exists():
        say(f"{path} holds these scores already.")
    else:
        started = time.monotonic()
        with progress(f"Importance sampling ({samples:,} draws an image)", count) as report:
            found = score(
                trained.model, trained.prior, trained.data, samples=samples, test_images=test_images,
                seed=trained.settings.seed, report=lambda done: report.update(done, ""),
            )  # fmt: skip
        _write_rows(trained, found.metrics, time.monotonic() - started, protocol)
        plot_histogram(
            {trained.settings.prior.name: found.log_likelihoods}, own_file(path, "histogram.png"), title=_title(trained)
        )
        save_tensors(done, {"log_likelihood": found.log_likelihoods}, {})
    if pictures:
        draw_pictures(trained)
    return path


def _title(trained: Trained) -> str:
    return f"{trained.data.name}, {trained.settings.model.name}, {trained.settings.prior.name} prior"


@torch.no_grad()
def draw_pictures(trained: Trained) -> None:
    """Samples, reconstructions, interpolations, pseudo-inputs and the latent map."""
    model, prior, data, path = trained.model, trained.prior, trained.data, trained.path
    device = data.test.images.device
    generator = make_generator(device, trained.settings.seed, "pictures")
    images, _ = samples_of(model, prior, 100, generator)
    plot_images(images, own_file(path, "samples.png"), columns=10, title=f"Samples: {_title(trained)}")
    some = torch.linspace(0, len(data.test) - 1, 20).long().to(device)
    x = present(data.test, some, model.likelihood, generator)
    both = torch.stack([x.view(2, 10, *x.shape[1:]), model.reconstruct(x).view(2, 10, *x.shape[1:])], 1).flatten(0, 2)
    plot_images(
        both,
        own_file(path, "reconstructions.png"),
        columns=10,
        title=f"Test images, each above its reconstruction: {_title(trained)}",
    )
    paths = interpolate(model, x[:8], x[8:16]).flatten(0, 1)
    plot_images(
        paths, own_file(path, "interpolations.png"), columns=10, title=f"Between test images: {_title(trained)}"
    )
    pseudo = prior.pseudo_inputs()
    if pseudo is not None:
        plot_pseudo_inputs(*pseudo, own_file(path, "pseudo-inputs.png"), title=_title(trained))
        plates = _plates(trained, generator)
        plot_images(
            plates,
            own_file(path, "plates.png"),
            columns=10,
            title=f"A pseudo-input (left) and samples of its component: {_title(trained)}",
        )
    few = pick(data.test, 2000)
    plot_map(
        embed(latents(model, few.images), trained.settings.seed),
        few.labels,
        own_file(path, "latent-map.png"),
        title=f"t-SNE: {_title(trained)}",
    )


def _plates(trained: Trained, generator: torch.Generator, rows: int = 8) -> torch.Tensor:
    """For the components of largest weight: the pseudo-input and nine samples (Figure 1 of Ai et al. 2021)."""
    from bpc.vae.models import draw_normal

    images, weights = trained.prior.pseudo_inputs()  # type: ignore[misc]
    mixture = trained.prior.components(trained.model)
    chosen = weights.argsort(descending=True)[:rows]
    log_vars = mixture.log_vars.expand_as(mixture.means)
    plates = []
    for i in chosen.tolist():
        z = draw_normal(mixture.means[i].expand(9, -1), log_vars[i].expand(9, -1), generator)
        plates += [images[i : i + 1], trained.model.generate(z, generator)]
    return torch.cat(plates)


def sample_job(
    path: Path, out: Path | None, *, data_root: Path | None, device: torch.device, count: int, seed: int
) -> Path:
    """`count` generated images as PNG sheet and as tensors."""
    trained = open_trained(path, data_root=data_root, device=device)
    images, chosen = samples_of(trained.model, trained.prior, count, make_generator(device, seed, "samples"))
    tensors, picture = f"samples-{seed}.safetensors", f"samples-{seed}.png"
    if out is None:
        tensors_path, picture_path = own_file(path, tensors), own_file(path, picture)
    else:
        out.mkdir(parents=True, exist_ok=True)
        tensors_path, picture_path = out / tensors, out / picture
    save_tensors(tensors_path, {"images": images.cpu(), "component": chosen.cpu()}, {"seed": str(seed)})
    plot_images(images[:400], picture_path, columns=20, title=f"Samples: {_title(trained)}")
    return picture_path


def augment_job(
    path: Path,
    *,
    data_root: Path | None,
    device: torch.device,
    way: str,
    weights: Sequence[float],
    epochs: int,
    lr: float,
    batch_size: int,
) -> Path:
    """Test error of the augmented classifier for each lambda, into rows.csv (`test_error@<lambda>`) and augmentation.json."""
    trained = open_trained(path, data_root=data_root, device=device)
    file = own_file(path, f"augmentation-{way}.json")
    known: dict[str, float] = read_json(file) if file.exists() else {}
    if not isinstance(known, dict) or not all(isinstance(value, float) for value in known.values()):
        raise FileFormatError(
            f"{file} is damaged: expected a test error for each setting. Remove it, and they are computed again."
        )
    settings = f"epochs {epochs}, lr {lr:g}, batch {batch_size}"
    missing = [w for w in weights if f"{w:g}, {settings}" not in known]
    with progress(f"Classifiers on real and generated images ({way})", len(missing) * epochs) as report:
        for result in augment(
            trained.model, trained.prior, trained.data.train, trained.data.test, weights=missing, way=way, epochs=epochs,
            lr=lr, batch_size=batch_size, seed=trained.settings.seed, report=lambda done: report.update(done, ""),
        ):  # fmt: skip
            known[f"{result.weight:g}, {settings}"] = result.test_error
            write_json(file, known)
            _write_rows(
                trained, {f"test_error@{result.weight:g}": result.test_error}, float("nan"), f"augment-{way}-e{epochs}"
            )
            say(f"lambda {result.weight:g}, {way}: test error {100 * result.test_error:.2f} %")
    return file
