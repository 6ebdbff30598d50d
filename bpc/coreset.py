"""A pseudocoreset: points, labels and weights, with what is needed to use it elsewhere and to know where it came from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpc.errors import ConfigError, FileFormatError
from bpc.files import load_tensors, require_finite, save_tensors

__all__ = ["Pseudocoreset", "load_coreset"]

FORMAT = "bpc-coreset-1"


@dataclass(frozen=True, kw_only=True)
class Pseudocoreset:
    """m weighted labelled points in the space the network sees (channel-normalised pixels).

    Attributes:
        points: (m, c, h, w) float32, as trained.
        labels: (m,) int64.
        weights: (m,) float32, non-negative; the coreset's log-likelihood is sum_m w_m log p(u_m | theta).
        mean, std: channel statistics on [0, 1] pixels: pixel = point * std + mean.
        dataset, method, preset: names, as in ``rows.csv``.
        config_hash, seed: of the run that made it.
        provenance: anything else worth keeping (versions, steps); must be JSON.
    """

    points: Tensor
    labels: Tensor
    weights: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset: str
    method: str
    num_classes: int
    preset: str = ""
    config_hash: str = ""
    seed: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        m = len(self.points)
        if self.points.ndim != 4 or m == 0:
            raise ConfigError(f"Coreset points must have shape (m, c, h, w), m > 0; got {tuple(self.points.shape)}.")
        if self.labels.shape != (m,) or self.weights.shape != (m,):
            raise ConfigError(
                f"A coreset of {m} points needs {m} labels and {m} weights; "
                f"got {tuple(self.labels.shape)} and {tuple(self.weights.shape)}."
            )
        if len(self.mean) != self.points.shape[1] or len(self.std) != self.points.shape[1]:
            raise ConfigError(f"Coreset points have {self.points.shape[1]} channels; mean and std must as well.")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def ipc(self) -> int:
        """Images per class, rounded up where classes differ."""
        return -(-len(self) // self.num_classes)

    @property
    def images(self) -> Tensor:
        """(m, c, h, w) pixels in [0, 1], clamped: what a person looks at."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=self.points.device).view(shape)
        std = torch.tensor(self.std, device=self.points.device).view(shape)
        return (self.points.detach() * std + mean).clamp(0.0, 1.0)

    def replace(self, **changes: Any) -> Pseudocoreset:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to(self, device: torch.device | str) -> Pseudocoreset:
        """The same coreset on `device`."""
        return self.replace(
            points=self.points.to(device), labels=self.labels.to(device), weights=self.weights.to(device)
        )

    def save(self, path: Path | str) -> None:
        """Write ``coreset.safetensors``: readable with the safetensors library alone."""
        require_finite(self.points, f"The coreset to be saved as {path}")
        tensors = {
            "points": self.points.float(),
            "images": self.images.float(),
            "labels": self.labels,
            "weights": self.weights.float(),
            "mean": torch.tensor(self.mean),
            "std": torch.tensor(self.std),
        }
        metadata = {
            "format": FORMAT,
            "dataset": self.dataset,
            "method": self.method,
            "preset": self.preset,
            "config_hash": self.config_hash,
            "seed": str(self.seed),
            "num_classes": str(self.num_classes),
            "ipc": str(self.ipc),
            "points": "channel-normalised pixels, as trained; images = clamp(points * std + mean, 0, 1)",
            "provenance": json.dumps(self.provenance),
        }
        save_tensors(path, tensors, metadata)


def load_coreset(path: Path | str) -> Pseudocoreset:
    """Read a coreset file, or the ``coreset.safetensors`` of a run's folder.

    Raises:
        FileFormatError: missing, truncated, foreign, of the wrong shape, or with NaN in it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "coreset.safetensors"
    tensors, metadata = load_tensors(path, what="a coreset (coreset.safetensors)")
    if metadata.get("format") != FORMAT:
        raise FileFormatError(
            f"{path} is not a coreset of this project: its format is {metadata.get('format', 'not named')!r}, "
            f"expected {FORMAT!r}."
        )
    missing = {"points", "labels", "weights", "mean", "std"} - tensors.keys()
    if missing:
        raise FileFormatError(f"{path} lacks the tensors {', '.join(sorted(missing))}.")
    for name in ("points", "weights", "mean", "std"):
        require_finite(tensors[name], f"{path}: {name}")
    labels, num_classes = tensors["labels"].long(), int(metadata["num_classes"])
    if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise FileFormatError(
            f"{path}: labels run from {int(labels.min())} to {int(labels.max())}; expected 0 to {num_classes - 1}."
        )
    try:
        return Pseudocoreset(
            points=tensors["points"].float(),
            labels=labels,
            weights=tensors["weights"].float(),
            # float32 in the file; str() gives back the decimal digits that were written
            mean=tuple(float(str(v)) for v in tensors["mean"].numpy()),
            std=tuple(float(str(v)) for v in tensors["std"].numpy()),
            dataset=metadata["dataset"],
            method=metadata["method"],
            num_classes=num_classes,
            preset=metadata.get("preset", ""),
            config_hash=metadata.get("config_hash", ""),
            seed=int(metadata.get("seed", "0")),
            provenance=json.loads(metadata.get("provenance", "{}")),
        )
    except (ConfigError, KeyError, ValueError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from error
