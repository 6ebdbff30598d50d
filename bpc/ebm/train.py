"""Semi-supervised learning of the latent EBM with a chosen part of its own samples (Pooladzandi et al. 2022, Algorithm 1).

Two phases: `config.augment_at` iterations without augmentation (the same for every setting of a seed, so they are run once and
shared), then iterations that also descend on generated images, under one of `SETTINGS`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bpc.data import Split
from bpc.ebm.data import SemiSupervised, batch_of, pixels
from bpc.ebm.model import LatentEBM, sample_prior
from bpc.ebm.synthesis import Synthetic, gradients_of, pseudo_label, synthesise
from bpc.errors import ConfigError, DataError, NumericalError, unknown_name
from bpc.files import load_own_tensors, own_content, save_tensors
from bpc.optim import adam_parameters, adam_tensors, load_adam
from bpc.seeding import make_generator
from bpc.selection import adacore, craig, random_fraction

__all__ = [
    "SETTINGS",
    "Augmented",
    "LearnConfig",
    "Record",
    "Setting",
    "State",
    "SyntheticConfig",
    "augment",
    "build_pool",
    "load_state",
    "save_state",
    "train_ebm",
]


# few labels are soon fitted and their gradients vanish; with Adam's usual 1e-8 the next one that does not is divided by next to
# nothing and throws the model off (seen on held-out images)
SUPERVISED_EPS = 1e-4


class Setting(NamedTuple):
    """A row of Table 1."""

    what: str
    generate: bool = True
    filtered: bool = True
    selection: str = ""  # craig, adacore, random: how the kept fraction is chosen; nothing: all are kept
    pseudo: bool = False  # unlabelled images with predicted labels join the candidates


SETTINGS = {
    "baseline": Setting("no augmentation", generate=False),
    "unfiltered": Setting("every sample", filtered=False),
    "entropy": Setting("samples below the entropy threshold (H)"),
    "entropy-random": Setting("H, and a random part of them", selection="random"),
    "entropy-craig": Setting("H, and CRAIG's weighted part of them (H & CRAIG)", selection="craig"),
    "entropy-adacore": Setting("H, and AdaCore's weighted part of them", selection="adacore"),
    "entropy-craig-pl": Setting("H & CRAIG over samples and pseudo-labelled images", selection="craig", pseudo=True),
}


@dataclass(frozen=True, kw_only=True)
class LearnConfig:
    """Algorithm 1's settings; step sizes and the Langevin step are ours, the paper does not state them.

    Attributes:
        iterations: T.
        augment_at: T_a.
        batch_size: n = m = l, of unlabelled, labelled and generated images.
        lr_energy, lr_elbo, lr_supervised: Adam's, for steps 4, 5, 6 (eta_0, eta_1, eta_2).
        langevin_steps: T_LD.
        langevin_step: s of Eq. 2.
    """

    iterations: int = 1_200_000
    augment_at: int = 600_000
    batch_size: int = 100
    lr_energy: float = 2e-5
    lr_elbo: float = 1e-4
    lr_supervised: float = 1e-4
    langevin_steps: int = 60
    langevin_step: float = 0.08

    def __post_init__(self) -> None:
        rates = (self.lr_energy, self.lr_elbo, self.lr_supervised, self.langevin_step)
        if (
            min(rates) <= 0
            or min(self.batch_size, self.langevin_steps) < 1
            or not 0 < self.augment_at <= self.iterations
        ):
            raise ConfigError(
                f"Learning needs positive step sizes, batches and Langevin steps, and 0 < augment_at <= iterations; got {self}."
            )


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What is generated and what of it is kept.

    Attributes:
        setting: one of `SETTINGS`.
        samples: L, generated at iteration T_a, before any filter.
        threshold: entropies (nats) below it pass.
        fraction: kept by the selection, of each class's candidates.
        reselect_every: iterations between selections.
        weight: coefficient of the generated images' cross-entropy.
        temperature: of the Langevin dynamics that generate (Appendix D).
        noise: draw pixels from p(x | z) instead of taking its mean.
    """

    setting: str = "baseline"
    samples: int = 0
    threshold: float = 1e-6
    fraction: float = 0.1
    reselect_every: int = 10_000
    weight: float = 0.1
    temperature: float = 1.0
    noise: bool = False

    def __post_init__(self) -> None:
        if self.setting not in SETTINGS:
            raise unknown_name("setting", self.setting, SETTINGS)
        if SETTINGS[self.setting].generate and self.samples < 1:
            raise ConfigError(
                f"Setting {self.setting} needs --samples, the number of generated images; got {self.samples}."
            )
        if (
            not 0 < self.fraction <= 1
            or min(self.threshold, self.weight, self.temperature) < 0
            or self.reselect_every < 1
        ):
            raise ConfigError(
                "Augmentation needs 0 < fraction <= 1, a threshold, weight and temperature of 0 or more, and at least 1 "
                f"iteration between selections; got {self}."
            )


class Augmented(NamedTuple):
    """The images of the augmented loss."""

    split: Split
    weights: Tensor  # (n,) float32, mean 1
    candidates: int  # they were chosen from so many


class Record(NamedTuple):
    """Means since the last record; nats per image."""

    iteration: int
    reconstruction: float
    kl: float
    energy_gap: float  # f(z+) - f(z-): 0 where the prior has caught up with the encoder
    labelled_loss: float
    augmented_loss: float
    candidates: int
    augmented: int
    seconds: float


class State:
    """Everything learning goes on from."""

    def __init__(self, model: LatentEBM, config: LearnConfig) -> None:
        self.model = model
        energy, encoder, generator = (list(m.parameters()) for m in (model.energy, model.encoder, model.generator))
        self.optimisers = {
            "energy": torch.optim.Adam(energy, lr=config.lr_energy, foreach=True),
            "elbo": torch.optim.Adam([*encoder, *generator], lr=config.lr_elbo, foreach=True),
            "supervised": torch.optim.Adam(
                [*energy, *encoder], lr=config.lr_supervised, eps=SUPERVISED_EPS, foreach=True
            ),
        }
        self.iteration = 0
        self.augmented: Augmented | None = None


def save_state(state: State, path: Path, config_hash: str) -> None:
    """Write a checkpoint, whole or not at all."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    for name, adam in state.optimisers.items():
        tensors |= adam_tensors(adam, f"adam.{name}")
    meta = {"iteration": str(state.iteration), "config_hash": config_hash}
    if state.augmented is not None:
        split = state.augmented.split
        tensors |= {"aug.images": split.images, "aug.labels": split.labels, "aug.weights": state.augmented.weights}
        meta["candidates"] = str(state.augmented.candidates)
    save_tensors(path, tensors, meta)


def load_state(state: State, path: Path, config_hash: str) -> None:
    """Fill `state` from a checkpoint.

    Raises:
        FileFormatError: it belongs to another configuration, or is no checkpoint.
    """
    tensors, meta = load_own_tensors(path, config_hash, what="a checkpoint of training")
    device = next(state.model.parameters()).device
    with own_content(path):
        state.model.load_state_dict({k[6:]: v.to(device) for k, v in tensors.items() if k.startswith("model.")})
        for name, adam in state.optimisers.items():
            load_adam(adam, tensors, f"adam.{name}")
        state.iteration = int(meta["iteration"])
        if "candidates" in meta:
            images, labels, weights = (tensors[f"aug.{k}"].to(device) for k in ("images", "labels", "weights"))
            state.augmented = Augmented(Split(images=images, labels=labels), weights, int(meta["candidates"]))


def build_pool(state: State, config: LearnConfig, augment_config: SyntheticConfig, seed: int) -> tuple[Synthetic, int]:
    """L class-conditional samples of the model as it is, filtered if the setting says so, and how many agreed with their label.

    Raises:
        DataError: the filter lets nothing through.
    """
    device = next(state.model.parameters()).device
    made = synthesise(
        state.model, augment_config.samples, make_generator(device, seed, "ebm", "pool"), steps=config.langevin_steps,
        step_size=config.langevin_step, temperature=augment_config.temperature, noise=augment_config.noise,
    )  # fmt: skip
    agreed = int(made.agrees.sum())
    if not SETTINGS[augment_config.setting].filtered:
        return made, agreed
    kept = made.filtered(augment_config.threshold)
    if len(kept.labels) == 0:
        raise DataError(
            f"None of {len(made.labels):,} samples has an entropy below {augment_config.threshold:g} nats; the lowest is "
            f"{float(made.entropies.min()):.2g}. Raise --threshold, or train longer before --augment-at."
        )
    return kept, agreed


def augment(state: State, pool: Synthetic, data: SemiSupervised, config: SyntheticConfig, seed: int) -> Augmented:
    """The images of the augmented loss, chosen from the pool (and pseudo-labelled images) with the model as it is now."""
    setting = SETTINGS[config.setting]
    candidates = pool.split()
    if setting.pseudo:
        sure = pseudo_label(state.model, data.unlabelled.images, config.threshold)
        candidates = Split(
            images=torch.cat([candidates.images, data.unlabelled.images[sure.indices]]),
            labels=torch.cat([candidates.labels, sure.labels]),
        )
    count = len(candidates)
    if not setting.selection:
        return Augmented(candidates, torch.ones(count, device=candidates.labels.device), count)
    rng = make_generator("cpu", seed, "ebm", "selection", state.iteration)
    share: dict[str, Any] = {"fraction": config.fraction, "num_classes": data.num_classes, "generator": rng}
    labels = candidates.labels.cpu()
    if setting.selection == "random":
        chosen = random_fraction(labels, **share)
    else:
        gradients, probabilities = (part.cpu() for part in gradients_of(state.model, candidates))
        if setting.selection == "craig":
            chosen = craig(gradients, labels, **share)
        else:
            chosen = adacore(gradients, labels, probabilities=probabilities, **share)
    index = chosen.indices.to(candidates.labels.device)
    weights = chosen.weights.float().to(index.device)
    return Augmented(candidates.take(index), weights / weights.mean(), count)


def train_ebm(
    state: State,
    data: SemiSupervised,
    config: LearnConfig,
    *,
    until: int,
    seed: int,
    pool: Synthetic | None = None,
    augment_config: SyntheticConfig | None = None,
    record_every: int = 100,
) -> Iterator[Record]:
    """Iterate Algorithm 1 up to iteration `until`, yielding every `record_every` iterations.

    The randomness of an iteration depends on the seed and its number alone, so learning that goes on from a checkpoint gives
    the bits of one that was never stopped.

    Args:
        state: goes on from here, in place.
        data: labelled, unlabelled (its labels are not looked at).
        config: Algorithm 1's settings.
        until: T, or T_a for the first phase.
        seed: of every draw.
        pool: what may be chosen from; None before T_a and for the baseline.
        augment_config: with a pool.
        record_every: iterations.

    Raises:
        NumericalError: a loss left the finite numbers.
    """
    model, device = state.model, data.labelled.images.device
    energy, encoder = list(model.energy.parameters()), list(model.encoder.parameters())
    generator = list(model.generator.parameters())
    sums, since, started = torch.zeros(5, device=device), 0, time.perf_counter()
    while state.iteration < until:
        t = state.iteration
        if pool is not None and augment_config is not None:
            due = (t - config.augment_at) % augment_config.reselect_every == 0
            if state.augmented is None or due:
                state.augmented = augment(state, pool, data, augment_config, seed)
        rng = make_generator(device, seed, "ebm", "iteration", t)
        x, _ = batch_of(data.unlabelled, config.batch_size, rng)
        terms, z = model.elbo_terms(x, rng)
        # steps 2 and 4: the prior's own samples start at the encoder's
        positive = z.detach()
        negative = sample_prior(model, positive, rng, steps=config.langevin_steps, step_size=config.langevin_step)
        gap = (model.tilt(positive) - model.tilt(negative)).mean()
        # step 5
        bound = (terms.reconstruction - terms.kl + terms.tilt).mean()
        # steps 6 and 8 at one go: Adam would undo a coefficient on a gradient of its own
        labelled_x, labelled_y = batch_of(data.labelled, config.batch_size, rng)
        labelled = F.cross_entropy(model.logits(labelled_x, rng), labelled_y)
        loss, augmented = labelled, torch.zeros((), device=device)
        if state.augmented is not None and augment_config is not None:
            split, weights = state.augmented.split, state.augmented.weights
            index = torch.randint(len(split), (config.batch_size,), generator=rng, device=device)
            logits = model.logits(pixels(split.images[index]), rng)
            augmented = (weights[index] * F.cross_entropy(logits, split.labels[index], reduction="none")).mean()
            loss = labelled + augment_config.weight * augmented
        gradients = {
            "energy": torch.autograd.grad(-gap, energy),
            "elbo": torch.autograd.grad(-bound, [*encoder, *generator]),
            "supervised": torch.autograd.grad(loss, [*energy, *encoder]),
        }
        for name, optimiser in state.optimisers.items():
            for p, g in zip(adam_parameters(optimiser), gradients[name], strict=True):
                p.grad = g
            optimiser.step()
        state.iteration = t + 1
        with torch.no_grad():
            sums += torch.stack([terms.reconstruction.mean(), terms.kl.mean(), gap, labelled, augmented])
        since += 1
        if state.iteration % record_every == 0 or state.iteration == until:
            means: list[float] = (sums / since).tolist()
            if not torch.isfinite(sums).all():
                raise NumericalError(
                    f"A loss left the finite numbers before iteration {state.iteration}: reconstruction {means[0]:.3g}, KL "
                    f"{means[1]:.3g}, energy gap {means[2]:.3g}; lower --lr-energy ({config.lr_energy})."
                )
            now = state.augmented
            sizes = (0, 0) if now is None else (now.candidates, len(now.split))
            seconds = time.perf_counter() - started
            yield Record(state.iteration, means[0], means[1], means[2], means[3], means[4], *sizes, seconds)
            sums, since, started = torch.zeros(5, device=device), 0, time.perf_counter()
