"""The page of figures of an exact evaluation, from what the run and the reference left in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bpc.errors import FileFormatError
from bpc.files import load_tensors
from bpc.progress import say
from evaluation.compare import method_labels
from evaluation.diagnostics import Array, load_inference_data
from evaluation.fidelity import Fidelity, fidelity
from evaluation.inputs import Inputs
from evaluation.plots import plot_page
from evaluation.plots.page import MOST_POSTERIORS
from evaluation.reference import Reference

__all__ = ["write_page"]


def write_page(folder: Path, reference: Reference | None, *, title: str, inputs: Sequence[Inputs] = ()) -> list[Path]:
    """Write ``page.png`` and ``page.pdf`` into a scored run's folder.

    Args:
        folder: of the run.
        reference: the full data's posterior, or None: then there is no fidelity to draw.
        title: of the page.
        inputs: what the run's predictives are of, test set first; needed with a reference.
    """
    found = _predictives(folder)
    if not found:
        raise FileFormatError(
            f"{folder} has scores but no predictive-*.safetensors any more; start over with --no-resume."
        )
    labels = next(iter(found.values()))[0]["labels"]
    truth: list[dict[str, Tensor]] = []
    if reference is not None:
        truth = [reference.tensors(seed, inputs) for seed in reference.seeds]
        found["full"] = truth
    probs, corrupted, measures = {}, {}, {}
    for method, seeds in found.items():
        finite = [t for t in seeds if bool(torch.isfinite(t["probs"]).all())]
        if len(finite) < len(seeds):
            say(f"{len(seeds) - len(finite)} of {len(seeds)} predictives of {method} are not finite and not drawn.")
        if not finite:
            continue
        probs[method] = torch.stack([t["probs"] for t in finite])
        if all("probs_corrupted" in t for t in finite):
            corrupted[method] = torch.stack([t["probs_corrupted"] for t in finite])
        if truth and method != "full":
            measures[method] = fidelity(probs[method], truth[0]["probs"])
    if not probs:
        say("No chain stayed finite: there is nothing to draw.")
        return []
    ceiling: Fidelity | None = fidelity(truth[1]["probs"], truth[0]["probs"]) if len(truth) > 1 else None
    density, energy = _traces(folder, None if reference is None else reference.path)
    return plot_page(
        folder / "page.png",
        probs=probs,
        labels=labels,
        corrupted=corrupted,
        measures=measures,
        ceiling=ceiling,
        log_density=density,
        energy=energy,
        title=title,
    )


def _predictives(folder: Path) -> dict[str, list[dict[str, Tensor]]]:
    """By method, in the order of a table, seeds in order."""
    found: dict[str, list[tuple[int, dict[str, Tensor]]]] = {}
    for path in folder.glob("predictive-*.safetensors"):
        tensors, metadata = load_tensors(path, what="a saved predictive")
        found.setdefault(metadata["method"], []).append((int(metadata["seed"]), tensors))
    order = list(method_labels())
    names = sorted(found, key=lambda name: order.index(name) if name in order else len(order))
    return {name: [t for _, t in sorted(found[name], key=lambda pair: pair[0])] for name in names}


def _traces(folder: Path, reference: Path | None) -> tuple[dict[str, Array], dict[str, Array]]:
    """Log densities and energies (c, s) of each method's first seed, and of the reference."""
    density: dict[str, Array] = {}
    energy: dict[str, Array] = {}
    files = sorted(folder.glob("inference-*.nc"))
    files += sorted(reference.glob("inference-*.nc")) if reference is not None else []
    for file in files:
        data = load_inference_data(file)
        method = str(data["posterior"].attrs.get("method", data.attrs.get("method", file.stem)))
        values = data["posterior"]["log_density"].values
        if method in density or len(density) == MOST_POSTERIORS or not np.isfinite(values).all():
            continue
        density[method] = values
        if "sample_stats" in data.groups() and "energy" in data["sample_stats"]:
            energy[method] = data["sample_stats"]["energy"].values
    return density, energy
