"""Seconds per epoch of a VAE under each prior, from timed steps: Table 2 of Ai et al. (2021) on the machine at hand.

    python benchmarks/vae_epoch.py --data-root DIR --out benchmarks/results/vae-mnist/epoch.md

MNIST, the two-layer VAE, batch 100, squared error. An epoch is 500 steps; the pseudocoreset's update (one pass, every 10 epochs)
is timed by itself and spread over them. All in one process, one after the other, after a warm-up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from bpc.estimate import synchronise
from bpc.runs import device_name, resolve_device, versions
from bpc.runtime import keep_freed_memory
from bpc.seeding import make_generator
from bpc.vae import ModelConfig, PriorConfig, TrainConfig, build_model, build_prior, elbo, make_likelihood
from bpc.vae.data import load_images
from bpc.vae.priors import BypePrior, TrainingData
from bpc.vae.train import new_state

CASES = (("gaussian", 500), ("vampprior", 500), ("exemplar", 500), ("bype", 500), ("exemplar", 25_000))


def timed(work: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of `repeats` calls, after one that does not count."""
    work()
    found = []
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        found.append(time.perf_counter() - started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/vae-epoch.md"))
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    keep_freed_memory()
    device = resolve_device(args.device)
    data = load_images("mnist", data_root=args.data_root).to(device)
    steps = len(data.train) // 100
    rows, base = [], 0.0
    for name, components in CASES:
        start = make_generator("cpu", 0, "timing")
        model = build_model(ModelConfig(), data.image_shape, make_likelihood("mse"), start).to(device)
        prior = build_prior(PriorConfig(name=name, components=components), 40, data.train.images, start)
        state = new_state(model, prior, TrainConfig())
        generator = make_generator(device, 0, "timing")
        prior.begin_epoch(1, model, TrainingData(data.train.images), generator)
        own = torch.arange(100, device=device)

        def step(model=model, prior=prior, state=state, generator=generator, own=own) -> None:  # type: ignore[no-untyped-def]
            found = elbo(model, prior, data.train.images[own], generator, own)
            loss = (found.kl - found.reconstruction).mean()
            state.optimiser.step(torch.autograd.grad(loss, state.optimiser.params, allow_unused=True))

        seconds = timed(step, 3 if components > 1000 else args.steps, device)
        plain = median(seconds) * steps
        base = base or plain
        update = 0.0
        if isinstance(prior, BypePrior):
            prior.steps = 10
            update = median(
                timed(lambda p=prior, m=model, g=generator: p.update(m, TrainingData(data.train.images), g), 3, device)
            )  # type: ignore[misc]
            update *= steps / 10
        mean = plain + update / 10
        spread = f"{min(seconds) * steps:.1f} to {max(seconds) * steps:.1f}"
        cells = [f"{name} ({components:,})", f"{plain:.1f} ({spread})", f"{plain / base:.2f}", f"{update:.1f}"]
        rows.append("| " + " | ".join([*cells, f"{mean:.1f}", f"{mean / base:.2f}"]) + " |")
        print(rows[-1], flush=True)
    text = [
        "# Seconds per epoch by prior",
        "",
        f"{device_name(device)}, torch {versions()['torch']}; MNIST, 50,000 images, VAE of two layers of 300, latent 40, batch "
        f"100, squared error; from {args.steps} timed steps (3 for 25,000 exemplars), median (min to max). The update of the "
        "pseudocoreset is one pass over the data, every 10 epochs.",
        "",
        "| prior (components) | s per epoch | of Gaussian | s per update | s per epoch, updates included | of Gaussian |",
        "| :-- | --: | --: | --: | --: | --: |",
        *rows,
        "",
        "Published on an Nvidia 1080Ti (Ai et al. 2021, Table 2): ByPE (500) 13.2 s, VampPrior (500) 13.0 s, "
        "Exemplar (25,000) 35.5 s.",
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
