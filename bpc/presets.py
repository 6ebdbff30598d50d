"""Published settings as data: Tables 2 and 3 and Appendix C.3 of Kim et al. (2022), and ours for small datasets.

A preset follows the paper; where the authors' public code does otherwise, the preset's note says so.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bpc.augment import AugmentConfig
from bpc.divergences import (
    Divergence,
    ForwardKL,
    ForwardKLConfig,
    ReverseKL,
    ReverseKLConfig,
    Wasserstein,
    WassersteinConfig,
)
from bpc.errors import ConfigError, unknown_name
from bpc.likelihood import LogLikelihood

__all__ = [
    "DISTILL_PRESETS",
    "DIVERGENCES",
    "REFERENCE_PARAMS",
    "DistillPreset",
    "SamplingPreset",
    "distill_preset",
    "make_divergence",
    "sampling_preset",
]

DIVERGENCES = ("fkl", "rkl", "wasserstein")
DISTILL_PRESETS = ("kim2022", "kim2022-code", "digits")
REFERENCE_PARAMS = 320_010  # the network that Table 3's penalty was chosen for


@dataclass(frozen=True, kw_only=True)
class DistillPreset:
    """How a pseudocoreset is learned. Symbols are those of Table 2.

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

    @property
    def epochs_needed(self) -> int:
        """Epochs an expert must have been trained for."""
        return self.max_start_epoch - 1 + self.expert_epochs


# Table 2 by ipc: (T+, L_u, eta)
_TABLE_2 = {1: (2, 50, 0.01), 10: (20, 30, 0.03), 20: (30, 30, 0.03)}

_NOTES = {
    "fkl": "Image step size 1000 and momentum 0.5 are from the authors' code; the paper states neither.",
    "rkl": "Image step size 1000 is from the authors' code; no momentum, as in Algorithm 4 and the code. The code's default "
    "leaves S = 30 at ipc 10 where Table 2 prints 10, and does not augment the covariance terms where Algorithm 4 does.",
    "wasserstein": "Image step size 1000, momentum 0.5 and the learning rate of eta (1e-5; 1e-7 at ipc 1) are from the "
    "authors' code, as is eta's start; the code's default leaves L_x = 1 at ipc 10 where Table 2 prints 2.",
}


def _nearest(table: dict[int, tuple[int, int, float]], ipc: int) -> int:
    """The tabulated ipc that settings are taken from: the largest one not above `ipc` (C.3 uses ipc 20's for 50 and 100)."""
    return max((k for k in table if k <= ipc), default=min(table))


def distill_preset(name: str, divergence: str, ipc: int) -> DistillPreset:
    """The settings for a divergence at `ipc` images per class.

    Raises:
        ConfigError: unknown preset or divergence.
    """
    if divergence not in DIVERGENCES:
        raise unknown_name("divergence", divergence, DIVERGENCES)
    if name not in DISTILL_PRESETS:
        raise unknown_name("preset", name, DISTILL_PRESETS)
    if name == "digits":
        return _digits_preset(divergence, ipc)
    row = _nearest(_TABLE_2, ipc)
    max_start, inner_steps, eta = _TABLE_2[row]
    note = _NOTES[divergence]
    if ipc != row:
        note = f"Table 2 has no ipc {ipc}; its ipc-{row} settings are used. {note}"
    preset = DistillPreset(
        name=name,
        max_start_epoch=max_start,
        inner_steps=inner_steps,
        expert_epochs={"rkl": 0, "wasserstein": 2, "fkl": 1}[divergence],
        student_lr=eta,
        samples=10 if divergence == "rkl" else 30,
        momentum=0.0 if divergence == "rkl" else 0.5,
        lr_student=0.0 if divergence != "wasserstein" else (1e-7 if row == 1 else 1e-5),
        note=note,
    )
    if name == "kim2022-code" and row == 10:  # what the code's defaults leave unset
        changes: dict[str, Any] = {"wasserstein": {"expert_epochs": 1}, "rkl": {"samples": 30}}.get(divergence, {})
        preset = dataclasses.replace(preset, **changes)
    return preset


def _digits_preset(divergence: str, ipc: int) -> DistillPreset:
    """For 8x8 images and a 10,986-parameter network whose experts took 15 steps of 0.05 an epoch. Chosen on a quarter of the
    training images, held out; the test set played no part.
    """
    return DistillPreset(
        name="digits",
        steps=60,
        max_start_epoch=3,
        inner_steps=20,
        expert_epochs={"rkl": 0, "wasserstein": 2, "fkl": 2}[divergence],
        student_lr=0.03,
        samples=10,
        real_batch=256,
        lr_points=100.0 if divergence == "rkl" else 10.0,
        momentum=0.0 if divergence == "rkl" else 0.5,
        lr_student=1e-4 if divergence == "wasserstein" else 0.0,
        note="Ours, not published: chosen on held-out training images of digits.",
    )


def make_divergence(
    name: str,
    preset: DistillPreset,
    log_likelihood: LogLikelihood,
    augment: AugmentConfig | None,
    *,
    diagonal: bool = False,
    reduction: str = "mean",
    at_once: int = 0,
) -> Divergence:
    """Build the divergence object that `preset` describes.

    Args:
        name: one of `DIVERGENCES`.
        preset: settings.
        log_likelihood: of the model.
        augment: differentiable augmentation, or None.
        diagonal: BPC-W with diagonal covariances (Appendix C.1).
        reduction: "mean" or "sum"; see the divergences.
        at_once: pairs of network and image in a piece, see `bpc.pieces` and `bpc.budget`; 0 is all.
    """
    if reduction not in ("mean", "sum"):
        raise unknown_name("reduction", reduction, ("mean", "sum"))
    if name == "fkl":
        return ForwardKL(
            log_likelihood,
            ForwardKLConfig(
                inner_steps=preset.inner_steps,
                expert_epochs=preset.expert_epochs,
                samples=preset.samples,
                sigma_core=preset.sigma_core,
                sigma_expert=preset.sigma_expert,
                augment=augment,
                reduction=reduction,  # type: ignore[arg-type]
                at_once=at_once,
            ),
        )
    if name == "rkl":
        return ReverseKL(
            log_likelihood,
            ReverseKLConfig(
                inner_steps=preset.inner_steps,
                samples=preset.samples,
                sigma=preset.sigma_core,
                augment=augment,
                reduction=reduction,  # type: ignore[arg-type]
                at_once=at_once,
            ),
        )
    if name == "wasserstein":
        return Wasserstein(
            log_likelihood,
            WassersteinConfig(
                inner_steps=preset.inner_steps,
                expert_epochs=preset.expert_epochs,
                augment=augment,
                diagonal=diagonal,
                at_once=at_once,
            ),
        )
    raise unknown_name("divergence", name, DIVERGENCES)


@dataclass(frozen=True, kw_only=True)
class SamplingPreset:
    """One row of Table 3.

    Attributes:
        iterations: N.
        leapfrog_steps: m.
        burn_in: burn; samples are kept from iteration `burn_in` on.
        init_scale: sigma_theta.
        momentum_scale: sigma_r.
        step_size: epsilon.
        penalty: lambda, of the (unsquared) norm of theta.
        friction: alpha (A-SGHMC).
        temperature: T (A-SGHMC).
        note: where this differs from the print.
    """

    iterations: int
    leapfrog_steps: int
    burn_in: int
    init_scale: float = 0.1
    momentum_scale: float
    step_size: float
    penalty: float
    friction: float = 0.1
    temperature: float = 0.01
    note: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.burn_in < self.iterations:
            raise ConfigError(
                f"burn_in must lie between 0 and iterations - 1 = {self.iterations - 1}; got {self.burn_in}."
            )


_TABLE_3 = {
    ("hmc", 1): SamplingPreset(
        iterations=20, leapfrog_steps=20, burn_in=10, momentum_scale=0.01, step_size=0.05, penalty=0.5
    ),
    ("hmc", 10): SamplingPreset(
        iterations=100, leapfrog_steps=5, burn_in=50, momentum_scale=0.1, step_size=0.01, penalty=1.5
    ),
    ("hmc", 20): SamplingPreset(
        iterations=100,
        leapfrog_steps=5,
        burn_in=50,
        momentum_scale=0.1,
        step_size=0.01,
        penalty=1.5,
        note="The step size is not legible in the paper; the authors' code has 0.01.",
    ),
    ("asghmc", 1): SamplingPreset(
        iterations=20, leapfrog_steps=5, burn_in=10, momentum_scale=0.1, step_size=0.03, penalty=1.0
    ),
    ("asghmc", 10): SamplingPreset(
        iterations=100, leapfrog_steps=5, burn_in=50, momentum_scale=0.1, step_size=0.01, penalty=1.5
    ),
    ("asghmc", 20): SamplingPreset(
        iterations=100,
        leapfrog_steps=5,
        burn_in=50,
        momentum_scale=0.1,
        step_size=0.01,
        penalty=1.0,
        note="The step size is not legible in the paper; the authors' code has 0.01.",
    ),
}


def sampling_preset(sampler: str, ipc: int) -> SamplingPreset:
    """Table 3 (and C.3 from ipc 50 on) for ``hmc`` or ``asghmc``.

    Raises:
        ConfigError: unknown sampler.
    """
    if sampler not in ("hmc", "asghmc"):
        raise unknown_name("sampler", sampler, ("asghmc", "hmc"), hint="The kim2022 protocol has no other.")
    row = max(k for k in (1, 10, 20) if k <= max(ipc, 1))
    preset = _TABLE_3[sampler, row]
    if ipc >= 50:
        preset = dataclasses.replace(
            preset,
            momentum_scale=0.01,
            step_size=0.02,
            penalty=0.1,
            note="Appendix C.3: the ipc-20 settings with sigma_r 0.01, epsilon 0.02, lambda 0.1.",
        )
    return preset
