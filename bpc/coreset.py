"""A pseudocoreset: points, labels and weights, with what is needed to use it elsewhere and to know where it came from."""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bpc.errors import ConfigError, FileFormatError
from bpc.files import load_tensors, require_finite, save_tensors

if TYPE_CHECKING:
    from bpc.data import Dataset
    from bpc.models import Network

__all__ = ["SAFE_NAME", "Pseudocoreset", "check_coreset", "common_labels", "load_coreset"]

FORMAT = "bpc-coreset-1"
AGREEMENT = 1e-3  # how far the file's images may be from its points, of the range of a pixel


@dataclass(frozen=True, kw_only=True)
class Pseudocoreset:
    """m weighted labelled points in the space the network sees (channel-normalised pixels).

    Attributes:
        points: (m, c, h, w) float32, as trained.
        labels: (m,) int64, or soft: (m, y) float32 probabilities, each row y points at one image with these shares of its weight.
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
        soft = (m, self.num_classes) if self.labels.is_floating_point() else (m,)
        if self.labels.shape != soft or self.weights.shape != (m,):
            raise ConfigError(
                f"A coreset of {m} points needs {m} labels and {m} weights; "
                f"got {tuple(self.labels.shape)} and {tuple(self.weights.shape)}."
            )
        if bool((self.weights < 0).any()) or not bool((self.weights > 0).any()):
            raise ConfigError("A coreset's weights must be 0 or more, and not all 0.")
        if len(self.mean) != self.points.shape[1] or len(self.std) != self.points.shape[1]:
            raise ConfigError(f"Coreset points have {self.points.shape[1]} channels; mean and std must as well.")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def ipc(self) -> int:
        """Images per class, rounded up where classes differ."""
        return -(-len(self) // self.num_classes)

    @property
    def classes(self) -> Tensor:
        """(m,) int64: the labels, or the likeliest class of soft ones."""
        return self.labels.argmax(1) if self.labels.is_floating_point() else self.labels

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
        FileFormatError: missing, truncated, foreign, or with a field that no file of ours could have (wrong shape, NaN, a label
            that is no class, weights below 0, images that are not the points, a name that is no plain word).
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
    try:
        return _checked(tensors, metadata)
    except (ConfigError, ValueError) as error:
        raise FileFormatError(f"{path}: {error} Such a file cannot be used.") from error


# Names become words of captions and parts of folder names, so they are plain words.
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}")
_MOST_CLASSES, _MOST_SEED = 100_000, 2**63 - 1
_TEXTS = ("augment", "network", "training", "features", "transform")  # of the provenance, where they are there


def _checked(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Pseudocoreset:
    """A coreset of what a file holds. The file may be anybody's: nothing in it is believed before it is looked at."""
    missing = {"points", "images", "labels", "weights", "mean", "std"} - tensors.keys()
    if missing:
        raise ValueError(f"it lacks the tensors {', '.join(sorted(missing))}.")
    names = {name: metadata.get(name, "") for name in ("dataset", "method", "preset", "config_hash")}
    for name, value in names.items():
        if not SAFE_NAME.fullmatch(value) and (value or name in ("dataset", "method")):
            raise ValueError(f"its {name} is {_shown(value)}; expected a name of letters, digits and _ . @ + -.")
    num_classes = _whole(metadata, "num_classes", 1, _MOST_CLASSES)
    seed = _whole(metadata, "seed", 0, _MOST_SEED, default="0")
    for name in ("points", "images", "weights", "mean", "std"):
        if not tensors[name].is_floating_point():
            raise ValueError(f"its {name} are {tensors[name].dtype}; expected floats.")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise ValueError(f"its {name} hold NaN or infinity.")
    coreset = Pseudocoreset(
        points=tensors["points"].float(),
        labels=_labels(tensors["labels"], num_classes),
        weights=tensors["weights"].float(),
        # float32 in the file; str() gives back the decimal digits that were written
        mean=tuple(float(str(v)) for v in tensors["mean"].flatten().float().numpy()),
        std=tuple(float(str(v)) for v in tensors["std"].flatten().float().numpy()),
        num_classes=num_classes,
        seed=seed,
        provenance=_provenance(metadata.get("provenance", "{}"), num_classes),
        **names,
    )
    if min(coreset.std) <= 0:
        raise ValueError(f"its std is {coreset.std}; expected numbers above 0.")
    if tensors["images"].shape != coreset.points.shape:
        raise ValueError(f"its images are {tuple(tensors['images'].shape)}, its points {tuple(coreset.points.shape)}.")
    gap = float((tensors["images"].float() - coreset.images).abs().max())
    if gap > AGREEMENT:
        raise ValueError(
            f"its images are not its points without the normalisation: they differ by up to {gap:.3g} of 1."
        )
    return coreset


def _shown(value: str) -> str:
    """A text of somebody's as an error may print it."""
    return repr(value[:60] + ("..." if len(value) > 60 else ""))


def _whole(metadata: dict[str, str], field: str, least: int, most: int, *, default: str = "") -> int:
    text = metadata.get(field, default)
    if not re.fullmatch(r"[0-9]{1,20}", text) or not least <= int(text) <= most:
        raise ValueError(f"its {field} is {_shown(text)}; expected a whole number from {least} to {most}.")
    return int(text)


def _labels(labels: Tensor, num_classes: int) -> Tensor:
    if labels.ndim == 2:
        if not labels.is_floating_point() or labels.shape[1] != num_classes:
            raise ValueError(
                f"its soft labels are {tuple(labels.shape)} {labels.dtype}; expected (m, {num_classes}) floats."
            )
        soft = labels.float()
        if (
            not bool(torch.isfinite(soft).all())
            or bool((soft < 0).any())
            or bool(((soft.sum(1) - 1).abs() > 1e-3).any())
        ):
            raise ValueError(
                "its soft labels are no probabilities: expected rows of numbers of 0 or more that sum to 1."
            )
        return soft
    whole = labels.double().round().long() if labels.is_floating_point() else labels.long()
    if labels.is_complex() or labels.dtype == torch.bool or not bool((whole == labels).all()):
        raise ValueError("its labels are not whole numbers.")
    if whole.numel() and not (int(whole.min()) >= 0 and int(whole.max()) < num_classes):
        raise ValueError(f"labels run from {int(whole.min())} to {int(whole.max())}; expected 0 to {num_classes - 1}.")
    return whole


def _provenance(text: str, num_classes: int) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its provenance is not JSON.") from None
    if not isinstance(found, dict):
        raise ValueError(f"its provenance is a {type(found).__name__}; expected a JSON object.")
    names = found.get("class_names")
    if names is not None and not (
        isinstance(names, list) and len(names) == num_classes and all(isinstance(n, str) for n in names)
    ):
        raise ValueError(f"its class_names are not {num_classes} texts.")
    for name in _TEXTS:
        if not isinstance(found.get(name, ""), str):
            raise ValueError(f"its {name} is a {type(found[name]).__name__}; expected a text.")
    for value in [*(found.get(name, "") for name in _TEXTS), *(names or [])]:
        if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in value) or len(value) > 1000:
            raise ValueError(f"a text of its provenance has control characters or no end: {_shown(value)}.")
    return found


def common_labels(coresets: Sequence[Pseudocoreset]) -> Tensor:
    """Labels of coresets that are sampled side by side: (m,) or (m, y) where all have the same, else (k, m, y), each its own.

    Raises:
        ConfigError: classes that differ, or classes beside soft labels.
    """
    first = coresets[0].labels
    if all(torch.equal(coreset.labels, first) for coreset in coresets):
        return first
    if all(c.labels.is_floating_point() and c.labels.shape == first.shape for c in coresets):
        return torch.stack([coreset.labels for coreset in coresets])
    raise ConfigError("Coresets evaluated together must have the same labels in the same order, or soft ones.")


def check_coreset(coreset: Pseudocoreset, dataset: Dataset, network: Network) -> None:
    """Refuse a coreset that does not fit the dataset and network it is to be used with.

    Raises:
        ConfigError: its image shape, classes or normalisation are not those of the dataset and network.
    """
    shape = tuple(coreset.points.shape[1:])
    if shape != dataset.image_shape or shape != tuple(network.image_shape):
        raise ConfigError(
            f"The coreset's images are {shape} and those of {dataset.name} are {dataset.image_shape} "
            f"(it was made for {coreset.dataset}); choose the dataset with --dataset."
        )
    if coreset.num_classes != dataset.num_classes:
        raise ConfigError(
            f"The coreset has {coreset.num_classes} classes and {dataset.name} has {dataset.num_classes}."
        )
    if any(
        abs(a - b) > 1e-4 for a, b in zip((*coreset.mean, *coreset.std), (*dataset.mean, *dataset.std), strict=True)
    ):
        raise ConfigError(
            f"The coreset was normalised with mean {coreset.mean} and std {coreset.std}, {dataset.name} is with "
            f"{dataset.mean} and {dataset.std}: its points would mean other pixels."
        )
