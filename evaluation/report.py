"""The figures of a comparison, from what runs left in their folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from bpc.coreset import SAFE_NAME, Pseudocoreset, load_coreset
from bpc.files import load_tensors, own_content
from evaluation.compare import method_label, method_labels
from evaluation.metrics import MetricSums, empty_sums, update
from evaluation.plots import (
    plot_coreset_grid,
    plot_coresets_side_by_side,
    plot_fourier_diagonal,
    plot_reliability,
)
from evaluation.predictive import PREDICTIVE_FORMAT

__all__ = ["find_coresets", "find_predictives", "write_figures"]


def _search(paths: Iterable[Path], pattern: str) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(p.resolve() for p in sorted(path.rglob(pattern))))
    return list(found)


def find_coresets(paths: Iterable[Path]) -> dict[tuple[str, int], dict[str, list[Pseudocoreset]]]:
    """Coresets below `paths`: by (dataset, ipc), then by the method's label, in table order."""
    cells: dict[tuple[str, int], dict[str, list[Pseudocoreset]]] = {}
    order = list(method_labels())
    coresets = [load_coreset(path) for path in _search(paths, "coreset.safetensors")]
    coresets.sort(key=lambda c: (c.dataset, c.ipc, order.index(c.method) if c.method in order else 99, c.seed))
    for coreset in coresets:
        label = method_label(coreset.method, coreset.provenance.get("augment", "none") != "none")
        cells.setdefault((coreset.dataset, coreset.ipc), {}).setdefault(label, []).append(coreset)
    return cells


def find_predictives(paths: Iterable[Path]) -> dict[tuple[str, int, str, str], dict[str, MetricSums]]:
    """Calibration sums, chains on the leading axis: by (dataset, ipc, sampler, protocol), then by method label."""
    cells: dict[tuple[str, int, str, str], dict[str, list[MetricSums]]] = {}
    for path in _search(paths, "predictive-*.safetensors"):
        tensors, metadata = load_tensors(path, what="a saved predictive")
        if metadata.get("format") != PREDICTIVE_FORMAT:
            continue
        with own_content(path):
            words = [metadata[name] for name in ("dataset", "sampler", "protocol", "method")]
            bad = [word for word in words if not SAFE_NAME.fullmatch(word)]  # they become parts of a file's name
            if bad:
                raise ValueError(f"{bad[0][:60]!r} is no name")
            key = (metadata["dataset"], int(metadata["ipc"]), metadata["sampler"], metadata["protocol"])
            label = method_label(metadata["method"])
            if not bool(torch.isfinite(tensors["probs"]).all()):
                continue
            sums = update(empty_sums(), tensors["probs"], tensors["labels"])
        cells.setdefault(key, {}).setdefault(label, []).append(sums)
    rank = {label: i for i, label in enumerate(method_labels().values())}
    return {
        key: {label: _stack(cell[label]) for label in sorted(cell, key=lambda name: rank.get(name, len(rank)))}
        for key, cell in cells.items()
    }


def _stack(chains: list[MetricSums]) -> MetricSums:
    """Sums of single chains over the same images, side by side on the leading axis."""
    stacked = MetricSums(*(torch.stack(fields) for fields in zip(*chains, strict=True)))
    return stacked._replace(examples=chains[0].examples)


def write_figures(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Coreset pictures (Figures 1, 8), their spectra (Figure 2) and reliability diagrams, as far as the runs have them."""
    paths = list(paths)
    written: list[Path] = []
    for (dataset, ipc), methods in find_coresets(paths).items():
        name = f"{dataset}-ipc{ipc}"
        firsts = [coresets[0] for coresets in methods.values()]
        for label, coreset in zip(methods, firsts, strict=True):
            slug = label.lower().replace(" (+aug)", "-aug").replace(" ", "-")
            target = folder / f"coreset-{name}-{slug}.png"
            written += plot_coreset_grid(coreset, target, class_names=coreset.provenance.get("class_names"))
        if len(methods) > 1:
            target = folder / f"coresets-{name}.png"
            written += plot_coresets_side_by_side(firsts, target, titles=list(methods))
        if firsts[0].points.shape[-1] == firsts[0].points.shape[-2]:
            target = folder / f"fourier-{name}.png"
            images = {label: torch.cat([c.images for c in coresets]) for label, coresets in methods.items()}
            written += plot_fourier_diagonal(images, target)
    for (dataset, ipc, sampler, protocol), sums in find_predictives(paths).items():
        target = folder / f"reliability-{dataset}-ipc{ipc}-{sampler}-{protocol}.png"
        written += plot_reliability(sums, target)
    return written
