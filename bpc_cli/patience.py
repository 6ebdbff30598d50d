"""Before work of hours begins on a CPU: how long it will take, the command that ends in 20 minutes, and time to think."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from bpc_cli.flags import DataFlags, PlaceFlags
from bpc_cli.setting import Setting

if TYPE_CHECKING:
    import torch

    from bpc.presets import DistillPreset

__all__ = ["ask_patience", "learning_seconds", "smaller_distill", "smaller_experts"]

LONG = 3600.0  # seconds; beyond, the person is asked
PAUSE = 15.0
BUDGET = 20 * 60.0  # of the smaller command
SMALL_WIDTH = 32


def ask_patience(
    seconds: float,
    device: torch.device,
    yes: bool,
    smaller: Callable[[], str],
    *,
    lead: str = "For about 20 minutes:\n  ",
) -> None:
    """Where the work will take more than an hour on a CPU, say so, print the smaller command, and wait a little for Ctrl-C.

    Args:
        seconds: estimated.
        device: where the work would run; a GPU's owner is not asked.
        yes: begin at once.
        smaller: makes the command that ends in 20 minutes (it may take seconds: it measures).
        lead: what is said before it.
    """
    from bpc.progress import duration, say

    if device.type != "cpu" or seconds <= LONG or yes:
        return
    days = f" ({seconds / 86400:.1f} days)" if "days" not in duration(seconds) else ""
    say(f"This will take about {duration(seconds)} here{days}. {lead}{smaller()}")
    say(f"It begins in {PAUSE:.0f} s; Ctrl-C leaves, --yes begins at once.")
    time.sleep(PAUSE)


def _small(setting: Setting) -> tuple[Setting, float]:
    """The setting with a narrow ConvNet, and the measured seconds of one of its experts' epochs."""
    from bpc.budget import pairs_at_once
    from bpc.data import default_settings
    from bpc.models import ConvNetConfig, build_network
    from expert_trajectories import ExpertConfig, estimate_seconds

    dataset = setting.dataset
    usual = default_settings(dataset.name)
    network = build_network(
        "convnet", dataset.image_shape, dataset.num_classes, ConvNetConfig(width=SMALL_WIDTH, depth=usual.depth)
    )
    small = replace(setting, network=network)
    config = ExpertConfig(lr=usual.expert_lr, batch_size=usual.expert_batch, augment=setting.augment)
    return small, estimate_seconds(network, dataset, config, 1, pairs_at_once(network, setting.device))


def _images(data: DataFlags, place: PlaceFlags) -> str:
    """The flags that name the images, as a shell reads them."""
    root = ["--data-root", str(place.data_root)] if place.data_root else []
    return shlex.join(["--dataset", data.dataset, *root])


def smaller_experts(setting: Setting, data: DataFlags, place: PlaceFlags) -> str:
    """The `experts` command that ends in about 20 minutes."""
    _, epoch = _small(setting)
    epochs = max(1, min(8, int(BUDGET / epoch)))
    count = max(1, min(10, int(BUDGET / (epoch * epochs))))
    return f"run.py experts {_images(data, place)} --width {SMALL_WIDTH} --num-experts {count} --epochs {epochs}"


def learning_seconds(setting: Setting, divergence: str, preset: DistillPreset, ipc: int) -> float | None:
    """Seconds of one outer step, measured on parameters that no expert has: arithmetic takes the same time on any."""
    from bpc.budget import pairs_at_once
    from bpc.distill import initial_coreset, real_batches, start
    from bpc.divergences import DIVERGENCES, ExpertWindow
    from bpc.estimate import step_seconds
    from bpc.likelihood import Classifier
    from bpc.presets import make_divergence
    from bpc.seeding import make_generator

    at_once = pairs_at_once(setting.network, setting.device, second_order=DIVERGENCES.get(divergence).second_order)
    made = make_divergence(divergence, preset, Classifier(setting.network), setting.augment, at_once=at_once)
    coreset = initial_coreset(setting.dataset, ipc, source="real", total_weight=None, seed=0)
    rng = make_generator("cpu", 0, "estimate")
    snapshots = setting.network.init(preset.expert_epochs + 1, make_generator(setting.device, 0, "estimate"))
    real = real_batches(setting.dataset, preset.real_batch)(rng) if made.needs_real else None
    return step_seconds(made, start(coreset, made).coreset, ExpertWindow(snapshots.to(setting.device)), real)


def smaller_distill(setting: Setting, data: DataFlags, place: PlaceFlags, divergence: str, ipc: int) -> str:
    """The `distill` command that ends in about 20 minutes: a third for experts, half for learning, the rest to score."""
    from bpc.divergences import DIVERGENCES

    small, epoch = _small(setting)
    record = DIVERGENCES.get(divergence)
    preset = record.preset(next(iter(record.presets)), ipc)
    most = max(1, int(BUDGET / 3 / epoch))  # epochs, of all experts together
    starts = max(1, min(preset.max_start_epoch, 2, most - preset.expert_epochs))
    preset = replace(preset, max_start_epoch=starts)
    count = max(1, min(4, most // max(preset.epochs_needed, 1)))
    step = learning_seconds(small, divergence, preset, ipc) or 1.0
    steps = max(10, min(preset.steps, int(BUDGET / 2 / step)))
    experts = f"--num-experts {count} --max-start-epoch {starts} " if record.experts else ""
    return (
        f"run.py distill {_images(data, place)} --divergence {divergence} --ipc {ipc} --width {SMALL_WIDTH} "
        f"{experts}--steps {steps} --test-images 2000 --protocol kim2022-scaled"
    )
