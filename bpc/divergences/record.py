"""The record of a divergence: what tables show of it, how it is built, and its own presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bpc.divergences.base import Divergence
from bpc.divergences.path_settings import PathSettings
from bpc.errors import ConfigError, unknown_name
from bpc.likelihood import LogLikelihood
from bpc.methods import METHODS, Method
from bpc.registry import Registry

__all__ = ["DIVERGENCES", "OPTIMIZERS", "DistillPreset", "DivergenceRecord", "digits_preset", "kim2022_preset"]

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True, kw_only=True)
class DistillPreset:
    """How a pseudocoreset is learned. Symbols are those of Table 2 of Kim et al. (2022).

    Attributes:
        steps: K, outer steps.
        max_start_epoch: T+; the start epoch r is drawn from 0 .. T+ - 1.
        inner_steps: L_u.
        expert_epochs: L_x (0 where the method does not look at the expert's end).
        student_lr: eta, step size of the inner SGD; for BPC-W its initial value.
        samples: S.
        sigma_core, sigma_expert: Sigma_u^(1/2), Sigma_x^(1/2).
        real_batch: B.
        lr_points, momentum: of the outer SGD on the images (gamma; its momentum).
        lr_student: outer step size of eta (BPC-W only).
        optimizer: the outer optimiser, one of `OPTIMIZERS`; with ``adam`` `momentum` is its beta_1.
        ema: decay of an average of the iterates, which is then what is kept; 0 keeps the last iterate.
        clip: the gradient of the points is shortened to this norm; 0 leaves it.
        path: the flow of reverse KL by paths; None for every other divergence.
        note: where this differs from paper or code.
    """

    name: str
    steps: int = 5000
    max_start_epoch: int
    inner_steps: int
    expert_epochs: int
    student_lr: float
    samples: int = 30
    sigma_core: float = 0.01
    sigma_expert: float = 0.01
    real_batch: int = 1000
    lr_points: float = 1000.0
    momentum: float = 0.5
    lr_student: float = 0.0
    optimizer: str = "sgd"
    ema: float = 0.0
    clip: float = 0.0
    path: PathSettings | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for field in ("steps", "max_start_epoch", "inner_steps", "samples", "real_batch"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} must be at least 1; got {getattr(self, field)}.")
        if self.student_lr <= 0 or self.lr_points <= 0 or not 0 <= self.momentum < 1:
            raise ConfigError(
                "student_lr and lr_points must be positive and momentum in [0, 1); got "
                f"{self.student_lr}, {self.lr_points}, {self.momentum}."
            )
        if self.expert_epochs < 0:
            raise ConfigError(f"expert_epochs must not be negative; got {self.expert_epochs}.")
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if not 0 <= self.ema < 1 or self.clip < 0:
            raise ConfigError(f"ema must lie in [0, 1) and clip be 0 or more; got {self.ema} and {self.clip}.")

    def record(self) -> dict[str, Any]:
        """What a configuration hash covers: numbers and words alone. What came later and is not used leaves no trace."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "note"}
        path = fields.pop("path")
        later = {"optimizer": "sgd", "ema": 0.0, "clip": 0.0}
        fields = {k: v for k, v in fields.items() if k not in later or v != later[k]}
        return fields if path is None else {**fields, **path.record()}

    @property
    def epochs_needed(self) -> int:
        """Epochs an expert must have been trained for."""
        return self.max_start_epoch - 1 + self.expert_epochs


# Table 2 of Kim et al. (2022) by ipc, what all divergences share: (T+, L_u, eta)
_TABLE_2 = {1: (2, 50, 0.01), 10: (20, 30, 0.03), 20: (30, 30, 0.03)}
_EVERY_NOTE = (
    "Start epochs are drawn from 0 .. T+ - 1 where the paper prints r <= T+. The inner loss is the weighted mean over the "
    "coreset where the paper prints the sum; the step sizes and the authors' code are for the mean."
)


def kim2022_preset(ipc: int, *, note: str, changes_at_10: Mapping[str, Any] | None = None, **own: Any) -> DistillPreset:
    """Table 2 at `ipc` images per class; between its rows those of the largest ipc below (C.3 uses ipc 20's for 50 and 100).

    Args:
        ipc: images per class.
        note: where the divergence's settings differ from paper or code.
        changes_at_10: what the authors' code leaves otherwise in the row of ipc 10; given, the preset is ``kim2022-code``.
        own: fields of `DistillPreset` that are the divergence's own.
    """
    row = max((k for k in _TABLE_2 if k <= ipc), default=min(_TABLE_2))
    max_start, inner_steps, eta = _TABLE_2[row]
    note = f"{note} {_EVERY_NOTE}"
    if ipc != row:
        note = f"Table 2 has no ipc {ipc}; its ipc-{row} settings are used. {note}"
    preset = DistillPreset(
        name="kim2022" if changes_at_10 is None else "kim2022-code",
        max_start_epoch=max_start,
        inner_steps=inner_steps,
        student_lr=eta,
        note=note,
        **own,
    )
    return dataclasses.replace(preset, **changes_at_10) if changes_at_10 and row == 10 else preset


def digits_preset(**own: Any) -> DistillPreset:
    """For 8x8 images and a 10,986-parameter network whose experts took 15 steps of 0.05 an epoch, at any ipc. Chosen on a
    quarter of the training images, held out; the test set played no part.

    Args:
        own: fields of `DistillPreset` that are the divergence's own.
    """
    return DistillPreset(
        name="digits",
        steps=60,
        max_start_epoch=3,
        inner_steps=20,
        student_lr=0.03,
        samples=10,
        real_batch=256,
        note="Ours, not published: chosen on held-out training images of digits.",
        **own,
    )


@dataclass(frozen=True, kw_only=True)
class DivergenceRecord(Method):
    """A divergence that coresets are learned by.

    Attributes:
        divergence: its class, called with the model's log-likelihood and a configuration.
        config: the configuration's dataclass. Fields named as in `DistillPreset`, and `augment`, `diagonal`, `reduction` and
            `at_once` (see `bpc.pieces`), are filled in by `bpc.presets.make_divergence`.
        presets: settings at a number of images per class, by the preset's name; the first is used where the dataset's usual
            preset is not among them.
        second_order: whether it differentiates through the inner SGD, which takes memory.
        experts: whether it looks at expert trajectories; without, none are trained.
    """

    divergence: Callable[[LogLikelihood, Any], Divergence]
    config: type
    presets: Mapping[str, Callable[[int], DistillPreset]]
    learned: bool = True
    second_order: bool = False
    experts: bool = True

    def preset(self, name: str, ipc: int) -> DistillPreset:
        """The settings of that name at `ipc` images per class.

        Raises:
            ConfigError: unknown preset.
        """
        if name not in self.presets:
            raise unknown_name("preset", name, self.presets, hint=f"These are {self.name}'s.")
        return self.presets[name](ipc)


DIVERGENCES: Registry[DivergenceRecord] = Registry("divergence", part_of=METHODS)
