"""What commands build from the shared groups of flags: data, network, device, experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpc_cli.flags import DataFlags, ExpertFlags, NetworkFlags, PlaceFlags, RunFlags

if TYPE_CHECKING:
    import torch

    from bpc.augment import AugmentConfig
    from bpc.data import Dataset
    from bpc.models import Network
    from expert_trajectories import ExpertConfig, TrajectoryStore

__all__ = ["Setting", "experts_for", "prepare", "scale_note", "short_hash"]


@dataclass(frozen=True)
class Setting:
    """Dataset, network, device and augmentation of one command."""

    dataset: Dataset
    network: Network
    device: torch.device
    augment_name: str
    augment: AugmentConfig | None
    config: dict[str, Any]  # what of them names a run

    def with_augment(self, name: str) -> Setting:
        """The same with another augmentation."""
        from bpc.augment import parse_strategy

        return replace(self, augment_name=name, augment=parse_strategy(name))


def prepare(data: DataFlags, network: NetworkFlags, place: PlaceFlags, augment: str | None = None) -> Setting:
    """Load the data, build the network, pick the device; what is not asked for is the dataset's own default."""
    from bpc.augment import parse_strategy
    from bpc.data import default_settings, load_dataset
    from bpc.models import ConvNetConfig, build_network
    from bpc.runs import resolve_device

    device, usual = resolve_device(place.device), default_settings(data.dataset)
    name = usual.augment if augment is None else augment
    strategy = parse_strategy(name)
    convnet = ConvNetConfig(
        width=network.width or usual.width,
        depth=network.depth or usual.depth,
        norm=network.norm,
        activation=network.activation,
    )
    dataset = load_dataset(data.dataset, data_root=place.data_root, validation_fraction=data.validation_fraction)
    built = build_network(network.model, dataset.image_shape, dataset.num_classes, convnet)
    config = {
        "dataset": dataset.name,
        "network": built.name,
        "validation_fraction": data.validation_fraction,
        "seed": data.seed,
    }
    return Setting(dataset.to(device), built, device, name, strategy, config)


def scale_note(setting: Setting, *parts: str) -> str:
    """The caption's words on scale: everything below the published setting is named."""
    notes = [part for part in parts if part]
    if setting.config["validation_fraction"]:
        notes.append(f"scored on {len(setting.dataset.test):,} held-out training images, not on the test set")
    return "; ".join(notes)


def short_hash(config: dict[str, Any]) -> str:
    """8 hex digits of a configuration, for a folder's name."""
    from bpc.runs import config_hash

    return config_hash(config)[:8]


def _expert_penalty(flags: ExpertFlags, num_params: int) -> float:
    """Weight of the norm in the experts' loss, scaled to the network as `kim2022-scaled` scales it."""
    from bpc.samplers.kim2022_presets import for_network, sampling_preset

    row = sampling_preset("hmc", 1)
    if flags.expert_penalty is not None:
        row = replace(row, penalty=flags.expert_penalty)
    elif flags.expert_init != "prior":
        return 0.0
    return for_network(row, "kim2022-scaled", num_params).penalty


def experts_for(
    data: DataFlags,
    flags: ExpertFlags,
    run_flags: RunFlags,
    setting: Setting,
    *,
    needed: int,
    count: int | None = None,
    path: Path | None = None,
    start_over: bool = False,
    before: Callable[[float], None] = lambda seconds: None,
) -> tuple[TrajectoryStore, int]:
    """The trajectory store, trained until it holds what is asked for, and how many of its experts to use.

    Args:
        data, flags, run_flags, setting: of the command.
        needed: epochs that every expert must have.
        count: experts; None takes those that are long enough, or the dataset's default.
        path: of the store; None takes the flag, or a folder under runs/.
        start_over: forget what the store holds.
        before: called with the estimated seconds before training begins (it may ask for patience).
    """
    import pandas as pd

    from bpc.budget import pairs_at_once
    from bpc.data import default_settings
    from bpc.errors import ConfigError
    from bpc.progress import duration, plural, progress, say
    from bpc.runs import Run, check_folder, default_out, read_run
    from evaluation.plots import plot_learning_curves
    from expert_trajectories import ExpertConfig, TrajectoryStore, estimate_seconds, store_meta, train_experts

    usual = default_settings(data.dataset)
    config: ExpertConfig = ExpertConfig(
        lr=flags.expert_lr or usual.expert_lr,
        batch_size=flags.expert_batch or usual.expert_batch,
        augment=setting.augment,
        init=flags.expert_init,
        penalty=_expert_penalty(flags, setting.network.num_params),
    )
    meta = store_meta(setting.dataset, setting.network, config, flags.expert_seed)
    path = path or flags.experts or default_out("experts", setting.dataset.name, setting.network.name, short_hash(meta))
    check_folder(path, TrajectoryStore.files_in(path))
    if (path / "run.json").exists() and (job := read_run(path)["job"]) != "experts":
        raise ConfigError(f"{path} holds a run of {job}, not experts; choose another --experts folder.")
    store = TrajectoryStore.create(path, setting.network.num_params, meta)
    if start_over:
        for e in range(store.num_experts):
            store.truncate(e, 0)
    long_enough = len(store.experts_with(max(needed, 1)))
    count = count or flags.num_experts or long_enough or usual.num_experts
    epochs = max(flags.epochs or needed, needed) if long_enough < count or flags.epochs else needed
    missing = [e for e in range(count) if store.epochs(e) < epochs]
    if not missing:
        return store, count
    together = flags.together or (1 if setting.device.type == "cpu" else 10)
    own = TrajectoryStore.files_in(path)
    with store.lock(), Run(path, "experts", store.meta, setting.device, seed=flags.expert_seed, beside=own) as run:
        left = sum(epochs - max(store.epochs(e), 0) for e in missing)
        at_once = pairs_at_once(setting.network, setting.device, run_flags.memory_budget)
        seconds = estimate_seconds(setting.network, setting.dataset, config, together, at_once) * left
        say(
            f"Training {plural(len(missing), 'expert')} ({setting.network.name}, {setting.network.num_params:,} parameters) to "
            f"{plural(epochs, 'epoch')} first: about {duration(seconds)} here. They are kept in {path}; fewer: --num-experts."
        )
        before(seconds)
        run.record("running", num_experts=count, epochs=epochs)
        with progress("Training experts", left) as report:
            done = 0
            for step in train_experts(
                store,
                setting.network,
                setting.dataset,
                config,
                num_experts=count,
                epochs=epochs,
                seed=flags.expert_seed,
                together=together,
                at_once=at_once,
            ):
                done += len(step.experts)
                accuracy = sum(r["test_accuracy"] for r in step.records) / len(step.records)
                report.update(done, f"epoch {step.epoch}, test accuracy {accuracy:.3f}")
                for expert, record in zip(step.experts, step.records, strict=True):
                    run.log(expert=expert, epoch=step.epoch, **record, seconds=round(run.seconds, 3))
        run.record("done", num_experts=count, epochs=epochs)
        plot_learning_curves(pd.DataFrame(store.curves()), run.picture("learning_curves.png"))
    return store, count
