"""An exact evaluation in a run's folder: posteriors to rows, predictives, ArviZ files, and fidelity to the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpc.coreset import Pseudocoreset
from bpc.data import Dataset
from bpc.errors import ConfigError
from bpc.files import load_tensors, save_tensors
from bpc.models import Network
from bpc.progress import progress, say
from bpc.runs import Run, device_name
from evaluation.calibration import aurc, ece_classwise, ece_equal_mass, ood_auroc
from evaluation.diagnostics import Diagnostics, diagnose, save_inference_data, to_inference_data
from evaluation.exact import ExactConfig, ExactResult, sample_coresets
from evaluation.fidelity import Fidelity, fidelity
from evaluation.inputs import FOREIGN, Inputs
from evaluation.metrics import SHIFTED, compute, empty_sums, update
from evaluation.rows import Row, RowWriter, read_rows
from evaluation.score import PREDICTIVE_FORMAT

__all__ = ["Cell", "add_fidelity", "predictive_name", "score_coresets", "write_result", "written_seeds"]

Cell = dict[str, Any]  # method, ipc, sampler, protocol: what rows of one posterior share


def predictive_name(cell: Cell, seed: int) -> str:
    """File of one posterior's predictive."""
    return f"predictive-{cell['method']}-{cell['sampler']}-{cell['protocol']}-{seed}.safetensors"


def written_seeds(run: Run, cell: Cell) -> set[int]:
    """Seeds that are finished: the row `mixed` is the last one of a posterior."""
    rows = read_rows(run.path / "rows.csv")
    for key, value in cell.items():
        rows = rows[rows[key] == value]
    return {int(s) for s in rows.loc[rows["metric"] == "mixed", "seed"]}


def score_coresets(
    run: Run,
    network: Network,
    dataset: Dataset,
    coresets: Sequence[Pseudocoreset],
    config: ExactConfig,
    *,
    seeds: Sequence[int],
    inputs: Sequence[Inputs],
    memory_budget: float | None = None,
    checkpoint_seconds: float = 30.0,
) -> None:
    """Sample the posterior of a coreset (or of one for each seed) and write what is not there yet.

    Args:
        run: the folder.
        network, dataset, coresets, config, seeds, inputs, memory_budget, checkpoint_seconds: as for
            `evaluation.exact.sample_coresets`.
    """
    first = coresets[0]
    cell = {"method": first.method, "ipc": first.ipc, "sampler": config.sampler, "protocol": config.protocol}
    with RowWriter(run.path / "rows.csv"):  # opening it mends a torn last line
        pass
    done = written_seeds(run, cell)
    left = [seed for seed in seeds if seed not in done]
    if not left:
        return
    mine = coresets if len(coresets) == 1 else [c for c, seed in zip(coresets, seeds, strict=True) if seed in left]
    settings = config.settings
    total = (settings.warmup + settings.samples) * settings.chains * len(left)
    with progress(f"Sampling {first.method} by {config.sampler} ({config.protocol})", total) as report:
        for result in sample_coresets(
            network,
            dataset,
            mine,
            config,
            seeds=left,
            inputs=inputs,
            folder=run.path,
            memory_budget=memory_budget,
            checkpoint_seconds=checkpoint_seconds,
            config_hash=f"{run.hash}-{first.method}",
            report=report.update,
        ):
            write_result(run, network, dataset, cell, result, inputs)


def write_result(
    run: Run, network: Network, dataset: Dataset, cell: Cell, result: ExactResult, inputs: Sequence[Inputs]
) -> Diagnostics:
    """Rows, ``predictive-*.safetensors`` and ``inference-*.nc`` of one posterior; the predictive pools its chains.

    A chain that is not finite makes the pooled predictive, and with it every metric, nan: it is reported, never left out.
    """
    t = result.traces
    data = to_inference_data(
        log_density=t.log_density,
        predictions=t.prediction,
        accept_prob=t.accept_prob,
        diverged=t.diverged,
        energy=t.energy if not bool(t.energy.isnan().all()) else None,
        step_size=t.step_size if not bool(t.step_size.isnan().all()) else None,
        n_gradients=t.leapfrogs if not bool(t.leapfrogs.isnan().all()) else None,
        attrs={
            "dataset": dataset.name,
            "architecture": network.name,
            "seed": result.seed,
            "config_hash": run.hash,
            **cell,
        },
    )
    stem = f"{cell['method']}-{cell['sampler']}-{cell['protocol']}-{result.seed}"
    save_inference_data(data, run.path / f"inference-{stem}.nc")
    tensors = {f"probs_{name}": chains.double().mean(0).float() for name, chains in result.probs.items()}
    labels = {f"labels_{i.name}": i.split.labels.cpu().clone() for i in inputs}
    name = inputs[0].name
    # the first of the inputs is the test set; under the names that every predictive file has
    pooled = {**tensors, **labels, "probs": tensors[f"probs_{name}"], "labels": labels[f"labels_{name}"]}
    del pooled[f"probs_{name}"], pooled[f"labels_{name}"]
    metadata = {"format": PREDICTIVE_FORMAT, "config_hash": run.hash, "seed": str(result.seed)}
    metadata |= {key: str(value) for key, value in {"dataset": dataset.name, **cell}.items()}
    save_tensors(run.path / predictive_name(cell, result.seed), pooled, metadata)

    found = diagnose(data)
    values = {**_metrics(pooled), **_diagnostic_rows(found, recorded_energy="energy" in data["sample_stats"])}
    with RowWriter(run.path / "rows.csv") as writer:
        rows = read_rows(run.path / "rows.csv")
        for key, value in {**cell, "seed": result.seed}.items():
            rows = rows[rows[key] == value]
        there = set(rows["metric"])
        for metric, value in values.items():
            if metric not in there:
                writer.write(_row(run, network.name, dataset.name, cell, result.seed, metric, value, result.seconds))
    who = f"{cell['method']}, seed {result.seed}"
    if math.isnan(values["accuracy"]):
        say(f"A chain of {who} left the finite numbers; its rows say nan, and so will the mean over seeds.")
    if not found.mixed:
        say(f"The chains of {who} have not mixed: {'; '.join(found.reasons)}.")
    return found


def _metrics(pooled: dict[str, Tensor]) -> dict[str, float]:
    """Of the pooled predictive: on the test set, against foreign inputs, on every corruption."""
    probs, labels = pooled["probs"], pooled["labels"]
    found: dict[str, Tensor] = compute(update(empty_sums(), probs, labels))
    found["ece_equal_mass"], found["ece_classwise"] = ece_equal_mass(probs, labels), ece_classwise(probs, labels)
    found["aurc"] = aurc(probs, labels)
    if f"probs_{FOREIGN}" in pooled:
        found["ood_auroc"] = ood_auroc(probs, pooled[f"probs_{FOREIGN}"])
    errors = []
    for name in pooled:
        place = name.removeprefix("probs_")
        if not name.startswith("probs_") or "-" not in place:
            continue
        there = compute(update(empty_sums(), pooled[name], pooled[f"labels_{place}"]))
        found.update({f"{metric}@{place}": there[metric] for metric in SHIFTED})
        errors.append(1.0 - there["accuracy"])
    if errors:
        found["mce"] = torch.stack(errors).mean()
    return {metric: float(value) for metric, value in found.items()}


def _diagnostic_rows(found: Diagnostics, *, recorded_energy: bool) -> dict[str, float]:
    names = (
        "acceptance",
        "divergences",
        "rhat_log_density",
        "rhat_predictions",
        "ess_bulk",
        "ess_tail",
        "ebfmi",
        "mixed",
    )
    values = {name: float(getattr(found, name)) for name in names}
    if not recorded_energy:  # SGHMC has none: a quantity that does not exist is no row
        del values["ebfmi"]
    return values


def _row(run: Run, network: str, dataset: str, cell: Cell, seed: int, metric: str, value: float, seconds: float) -> Row:
    return Row(
        run=run.path.name,
        config_hash=run.hash,
        dataset=dataset,
        architecture=network,
        seed=seed,
        metric=metric,
        value=value,
        seconds=seconds,
        device=device_name(run.device),
        **cell,
    )


def add_fidelity(run: Run, network: str, dataset: str, reference: Path) -> Fidelity:
    """Compare every predictive of a run with the reference's first one; add the reference's own rows and the ceiling.

    Rows of method `full` are the two reference runs: both with their metrics, the second with its fidelity to the first.

    Args:
        run: a scored run.
        network, dataset: names, as rows have them.
        reference: folder of a reference, as `evaluation.reference` makes it.

    Returns:
        The ceiling.

    Raises:
        ConfigError: the reference was asked about other inputs.
    """
    files = sorted(reference.glob("predictive-full-*.safetensors"))
    truth, again = (load_tensors(file, what="the reference's predictive")[0] for file in files[:2])
    with RowWriter(run.path / "rows.csv") as writer:
        rows = read_rows(run.path / "rows.csv")
        there = set(zip(rows["method"], rows["sampler"], rows["protocol"], rows["seed"], rows["metric"], strict=True))

        def add(cell: Cell, seed: int, metric: str, value: float) -> None:
            if (cell["method"], cell["sampler"], cell["protocol"], seed, metric) not in there:
                writer.write(_row(run, network, dataset, cell, seed, metric, value, 0.0))

        full: Cell = {}
        for _, row in read_rows(reference / "rows.csv").iterrows():
            full = {key: row[key] for key in ("method", "ipc", "sampler", "protocol")}
            add(full, int(row["seed"]), str(row["metric"]), float(row["value"]))
        for path in sorted(run.path.glob("predictive-*.safetensors")):
            tensors, metadata = load_tensors(path, what="a saved predictive")
            cell = {"method": metadata["method"], "ipc": int(metadata["ipc"])}
            cell |= {"sampler": metadata["sampler"], "protocol": metadata["protocol"]}
            for metric, value in _fidelity_rows(tensors, truth, path):
                add(cell, int(metadata["seed"]), metric, value)
        for metric, value in _fidelity_rows(again, truth, files[1]):
            add(full, 1, metric, value)
    return fidelity(again["probs"], truth["probs"])


def _fidelity_rows(mine: dict[str, Tensor], truth: dict[str, Tensor], path: Path) -> Iterator[tuple[str, float]]:
    for place, ending in (("", ""), ("_corrupted", "_corrupted")):
        probs, labels = f"probs{place}", f"labels{place}"
        if probs not in truth or probs not in mine:
            continue
        if not torch.equal(mine[labels], truth[labels]):
            raise ConfigError(
                f"{path} and the reference were asked about different images; evaluate both with the same --test-images."
            )
        for name, value in fidelity(mine[probs], truth[probs])._asdict().items():
            yield f"{name}{ending}", float(value)
