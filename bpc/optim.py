"""Adam's memory as named tensors, for checkpoints that are no pickles."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["adam_parameters", "adam_tensors", "load_adam"]


def adam_parameters(adam: torch.optim.Adam) -> list[Tensor]:
    """What it learns, in order."""
    return [p for group in adam.param_groups for p in group["params"]]


def adam_tensors(adam: torch.optim.Adam, prefix: str) -> dict[str, Tensor]:
    """Step counts and moments: ``prefix.i.exp_avg`` for the i-th parameter, and so on."""
    return {
        f"{prefix}.{i}.{name}": value
        for i, p in enumerate(adam_parameters(adam))
        for name, value in adam.state.get(p, {}).items()
    }


def load_adam(adam: torch.optim.Adam, tensors: dict[str, Tensor], prefix: str) -> None:
    """The inverse of `adam_tensors`; a parameter that is not there starts afresh."""
    for i, p in enumerate(adam_parameters(adam)):
        where = {"step": torch.device("cpu"), "exp_avg": p.device, "exp_avg_sq": p.device}
        found = {k: tensors[f"{prefix}.{i}.{k}"].to(d) for k, d in where.items() if f"{prefix}.{i}.{k}" in tensors}
        if found:
            adam.state[p] = found
