"""What becomes of a trained VAE: scores, pictures, samples, classifiers, all in its folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from bpc.errors import FileFormatError
from bpc.files import read_json, save_tensors, write_json
from bpc.progress import progress, say
from bpc.runs import device_name, own_file, own_picture, read_run
from bpc.seeding import make_generator
from bpc.vae.data import pick, present
from bpc.vae.job import Trained, open_trained
from evaluation.rows import Row, RowWriter, metrics_of
from evaluation.vae.pictures import (
    plot_curves,
    plot_histogram,
    plot_images,
    plot_map,
    plot_pseudo_inputs,
    prior_labels,
)
from evaluation.vae.score import score
from evaluation.vae.tasks import augment, embed, interpolate, latents, samples_of

__all__ = ["augment_job", "draw_learning", "evaluate_job", "sample_job"]


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
        with progress(f"Importance sampling ({samples:,} draws per image)", count) as report:
            found = score(
                trained.model, trained.prior, trained.data, samples=samples, test_images=test_images,
                seed=trained.settings.seed, report=lambda done: report.update(done, ""),
            )  # fmt: skip
        _write_rows(trained, found.metrics, time.monotonic() - started, protocol)
        name, title = prior_labels()[trained.settings.prior.name], f"Test images: {_title(trained)}"
        plot_histogram({name: found.log_likelihoods}, own_picture(path, "histogram.png"), title=title)
        save_tensors(done, {"log_likelihood": found.log_likelihoods}, {})
    if pictures:
        draw_pictures(trained)
    return path


def draw_learning(path: Path) -> None:
    """The bound by epoch, from a trained model's log."""
    config = read_run(path)["config"]
    model, prior = config["model"]["name"], config["prior"]["name"]
    log = pd.read_json(path / "log.jsonl", lines=True)
    plot_curves(
        {prior_labels()[prior]: log}, own_picture(path, "learning.png"), title=f"{model} on {config['dataset']}"
    )


def _title(trained: Trained) -> str:
    return f"{trained.data.name}, {trained.settings.model.name}, {prior_labels()[trained.settings.prior.name]} prior"


@torch.no_grad()
def draw_pictures(trained: Trained) -> None:
    """Learning curve, samples, reconstructions, interpolations, pseudo-inputs and the latent map."""
    draw_learning(trained.path)
    model, prior, data, path = trained.model, trained.prior, trained.data, trained.path
    device = data.test.images.device
    generator = make_generator(device, trained.settings.seed, "pictures")
    images, _ = samples_of(model, prior, 100, generator)
    plot_images(images, own_picture(path, "samples.png"), columns=10, title=f"Samples: {_title(trained)}")
    some = torch.linspace(0, len(data.test) - 1, 20).long().to(device)
    x = present(data.test, some, model.likelihood, generator)
    both = torch.stack([x.view(2, 10, *x.shape[1:]), model.reconstruct(x).view(2, 10, *x.shape[1:])], 1).flatten(0, 2)
    plot_images(
        both,
        own_picture(path, "reconstructions.png"),
        columns=10,
        title=f"Test images, each above its reconstruction: {_title(trained)}",
    )
    paths = interpolate(model, x[:8], x[8:16]).flatten(0, 1)
    plot_images(
        paths, own_picture(path, "interpolations.png"), columns=10, title=f"Between test images: {_title(trained)}"
    )
    pseudo = prior.pseudo_inputs()
    if pseudo is not None:
        plot_pseudo_inputs(*pseudo, own_picture(path, "pseudo-inputs.png"), title=f"Pseudo-inputs: {_title(trained)}")
        plates = _plates(trained, generator)
        plot_images(
            plates,
            own_picture(path, "plates.png"),
            columns=10,
            title=f"A pseudo-input (left) and samples of its component: {_title(trained)}",
        )
    few = pick(data.test, 2000)
    plot_map(
        embed(latents(model, few.images), trained.settings.seed),
        few.labels,
        own_picture(path, "latent-map.png"),
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
        tensors_path, picture_path = own_file(path, tensors), own_picture(path, picture)
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
