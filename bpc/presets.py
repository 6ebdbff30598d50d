"""From a preset to the divergence that it describes. The presets themselves stand in the divergences' own files."""

from __future__ import annotations

import dataclasses

from bpc.augment import AugmentConfig
from bpc.divergences import DIVERGENCES, REDUCTION, DistillPreset, Divergence
from bpc.errors import unknown_name
from bpc.likelihood import LogLikelihood

__all__ = ["DistillPreset", "distill_preset", "make_divergence"]


def distill_preset(name: str, divergence: str, ipc: int) -> DistillPreset:
    """The settings for a divergence at `ipc` images per class.

    Raises:
        ConfigError: unknown preset or divergence.
    """
    return DIVERGENCES.get(divergence).preset(name, ipc)


def make_divergence(
    name: str,
    preset: DistillPreset,
    log_likelihood: LogLikelihood,
    augment: AugmentConfig | None,
    *,
    diagonal: bool = False,
    reduction: str = REDUCTION,
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
    record = DIVERGENCES.get(name)
    if reduction not in ("mean", "sum"):
        raise unknown_name("reduction", reduction, ("mean", "sum"))
    known = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
    known |= {"augment": augment, "diagonal": diagonal, "reduction": reduction, "at_once": at_once}
    looked_at = [field.name for field in dataclasses.fields(record.config)]
    config = record.config(**{name: known[name] for name in looked_at if name in known})
    return record.divergence(log_likelihood, config)
