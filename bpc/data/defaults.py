"""What a job uses on a dataset when it is not told otherwise."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DefaultSettings", "default_settings"]

PUBLISHED_AUGMENT = "color_crop_cutout_flip_scale_rotate"


@dataclass(frozen=True, kw_only=True)
class DefaultSettings:
    """Defaults: as published for CIFAR-10 (Kim et al. 2022)."""

    width: int = 128
    depth: int = 3
    augment: str = PUBLISHED_AUGMENT
    sampler_augment: str = PUBLISHED_AUGMENT
    expert_lr: float = 0.01
    expert_batch: int = 256
    num_experts: int = 100
    epochs: int = 50
    preset: str = "kim2022"


_OWN = {
    "digits": DefaultSettings(
        width=32, depth=2, augment="none", sampler_augment="crop_scale_rotate", expert_lr=0.05, expert_batch=64,
        num_experts=10, epochs=6, preset="digits",
    ),
    "imagenette": DefaultSettings(depth=5),
}  # fmt: skip


def default_settings(name: str) -> DefaultSettings:
    """The defaults of a dataset, by the name or path that a user gives."""
    return _OWN.get(name, DefaultSettings())
