"""An exact evaluation in a run's folder: posteriors to rows, predictives, ArviZ files, and fidelity to the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bpc.coreset import Pseudocoreset
from bpc.data import Dataset
from bpc.errors import ConfigError
from bpc.files import load_tensors
from bpc.models import Network
from bpc.progress import progress, say
from bpc.runs import Run, device_name
from evaluation.calibration import aurc, calibrated_nll, ece_classwise, ece_equal_mass, ood_auroc
from evaluation.diagnostics import Diagnostics, diagnose, halves_apart, save_inference_data, to_inference_data
from evaluation.exact_chains import ESTIMATES, ExactConfig, ExactResult, Traces, sample_exact
from evaluation.fidelity import Fidelity, fidelity
from evaluation.inputs import CORRUPTED, FOREIGN, Inputs
from evaluation.metrics import SHIFTED, compute, empty_sums, update
from evaluation.monte_carlo import MCSE, fidelity_errors, metric_errors
from evaluation.predictive import chain_tensors, predictive_tensors, save_predictive
from evaluation.rows import PosteriorKey, Row, RowWriter, read_rows

if TYPE_CHECKING:
    import arviz as az

    from evaluation.reference import Reference

__all__ = [
    "add_fidelity",
    "diagnostic_rows",
    "inference_data",
    "save_inference",
    "score_exact",
    "unwritten_seeds",
    "warn_of_heat",
    "warn_of_swaps",
    "write_result",
    "written_seeds",
]

HEAT_MAX = 0.05  # excess temperature beyond which rows carry a warning
SWAP_MIN = 0.1  # of neighbouring temperatures; the best use of gradients is at about a half
REFERENCE_SEEDS = (0, 1)  # the reference, and another run of it: how far two samplings of one posterior differ


def written_seeds(run: Run, key: PosteriorKey) -> set[int]:
    """Seeds that are finished: the row `mixed` is the last one of a posterior."""
    rows = key.of(read_rows(run.path / "rows.csv"))
    return {int(s) for s in rows.loc[rows["metric"] == "mixed", "seed"]}


def unwritten_seeds(run: Run, coreset: Pseudocoreset, config: ExactConfig, seeds: Sequence[int]) -> list[int]:
    """Those whose posterior is still to be sampled."""
    if not (run.path / "rows.csv").exists():
        return list(seeds)
    done = written_seeds(run, PosteriorKey(coreset.method, coreset.ipc, config.sampler, config.protocol))
    return [seed for seed in seeds if seed not in done]


def score_exact(
    run: Run,
    network: Network,
    dataset: Dataset,
    coresets: Sequence[Pseudocoreset],
    config: ExactConfig,
    *,
    seeds: Sequence[int],
    inputs: Sequence[Inputs],
    checkpoint_seconds: float = 30.0,
) -> None:
    """Sample the posterior of a coreset (or of one for each seed) and write what is not there yet.

    Args:
        run: the folder.
        network, dataset, coresets, config, seeds, inputs, checkpoint_seconds: as for `evaluation.exact_chains.sample_exact`.
    """
    first = coresets[0]
    key = PosteriorKey(first.method, first.ipc, config.sampler, config.protocol)
    with RowWriter(run.file("rows.csv", promised=True)):  # opening it mends a torn last line
        pass
    done = written_seeds(run, key)
    if done.issuperset(seeds):
        return
    settings = config.settings
    total = (settings.warmup + settings.samples) * settings.chains * len(seeds)
    with progress(f"Sampling {first.method} by {config.sampler} ({config.protocol})", total) as report:
        for result in sample_exact(
            network,
            dataset,
            coresets,
            config,
            seeds=seeds,
            inputs=inputs,
            file=run.file,
            checkpoint_seconds=checkpoint_seconds,
            config_hash=f"{run.hash}-{first.method}",
            skip=done.__contains__,
            report=report.update,
        ):
            write_result(run, network, dataset, key, result, inputs, superchain=settings.superchain)


def inference_data(
    traces: Traces, key: PosteriorKey, run: Run, network: Network, dataset: Dataset, seed: int, superchain: int = 1
) -> az.InferenceData:
    """The traces of one posterior as ArviZ takes them; `superchain` chains side by side started from one place."""

    def recorded(trace: Tensor) -> Tensor | None:
        return None if bool(trace.isnan().all()) else trace

    return to_inference_data(
        log_density=traces.log_density,
        predictions=traces.prediction,
        accept_prob=traces.accept_prob,
        diverged=traces.diverged,
        energy=recorded(traces.energy),
        step_size=recorded(traces.step_size),
        n_gradients=recorded(traces.leapfrogs),
        heat=recorded(traces.heat),
        cross_entropy=traces.cross_entropy,
        weights=traces.weight,
        estimates={name: recorded(getattr(traces, name)) for name in ESTIMATES},
        attrs={
            "dataset": dataset.name,
            "architecture": network.name,
            "seed": seed,
            "config_hash": run.hash,
            **({"superchain": superchain} if superchain > 1 else {}),
            **key._asdict(),
        },
    )


def save_inference(data: az.InferenceData, run: Run, key: PosteriorKey, seed: int) -> None:
    """Write ``inference-*.nc``."""
    stem = f"{key.method}-{key.sampler}-{key.protocol}-{seed}"
    save_inference_data(data, run.file(f"inference-{stem}.nc"))


def write_result(
    run: Run, network: Network, dataset: Dataset, key: PosteriorKey, result: ExactResult, inputs: Sequence[Inputs], *,
    superchain: int = 1,
) -> Diagnostics:  # fmt: skip
    """Rows, ``predictive-*.safetensors`` and ``inference-*.nc`` of one posterior; the predictive pools its chains.

    A chain that is not finite makes the pooled predictive, and with it every metric, nan: it is reported, never left out.
    """
    data = inference_data(result.traces, key, run, network, dataset, result.seed, superchain)
    save_inference(data, run, key, result.seed)
    pooled = predictive_tensors(
        {name: chains.double().mean(0).float() for name, chains in result.probs.items()}, inputs
    )
    chains = chain_tensors(result.probs, inputs)
    save_predictive(run, dataset.name, key, result.seed, pooled | chains)

    found = diagnose(data)
    errors = _metric_errors(pooled | chains)
    values = {**_metrics(pooled), **errors, **diagnostic_rows(found, data, result.halves)}
    with RowWriter(run.path / "rows.csv") as writer:
        rows = key.of(read_rows(run.path / "rows.csv"))
        there = set(rows.loc[rows["seed"] == result.seed, "metric"])
        for metric, value in values.items():
            if metric not in there:
                writer.write(_row(run, network.name, dataset.name, key, result.seed, metric, value, result.seconds))
    who = f"{key.method}, seed {result.seed}"
    warn_of_heat(values, who)
    warn_of_swaps(values, who)
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
    found.update(calibrated_nll(probs, labels))
    if f"probs_{CORRUPTED}" in pooled:
        probs_there, labels_there = pooled[f"probs_{CORRUPTED}"], pooled[f"labels_{CORRUPTED}"]
        there = compute(update(empty_sums(), probs_there, labels_there)) | calibrated_nll(probs_there, labels_there)
        found.update({f"{metric}_{CORRUPTED}": there[metric] for metric in (*SHIFTED, "nll_calibrated")})
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


def _metric_errors(tensors: dict[str, Tensor]) -> dict[str, float]:
    """Monte Carlo errors of the metrics on the test set and on the mixed corruptions."""
    found = metric_errors(tensors["chains"], tensors["labels"])
    if f"chains_{CORRUPTED}" in tensors:
        there = metric_errors(tensors[f"chains_{CORRUPTED}"], tensors[f"labels_{CORRUPTED}"])
        names = {f"{name}{MCSE}": f"{name}_{CORRUPTED}{MCSE}" for name in (*SHIFTED, "nll_calibrated")}
        found |= {names[name]: value for name, value in there.items() if name in names}
    return found


def diagnostic_rows(found: Diagnostics, data: az.InferenceData, halves: Tensor) -> dict[str, float]:
    """Rows on the chains themselves. A quantity that a sampler does not have is no row: SGHMC has no energy, HMC no heat.

    Args:
        found: what `diagnose` says of `data`.
        data: of one posterior.
        halves: as `evaluation.diagnostics.halves_apart` takes them.
    """
    names = (
        "acceptance",
        "divergences",
        "rhat_weights",
        "rhat_log_density",
        "rhat_predictions_median",
        "rhat_predictions",
        "rhat_predictions_worst",
        "ess_bulk_predictions_median",
        "ess_bulk_predictions",
        "ess_bulk_predictions_worst",
        "ess_tail_predictions_median",
        "ess_tail_predictions",
        "ess_tail_predictions_worst",
        "ebfmi",
    )
    values = {name: float(getattr(found, name)) for name in names}
    stats: Any = data["sample_stats"]
    if "energy" not in stats:
        del values["ebfmi"]
    if not math.isnan(found.nested_rhat_predictions):
        values["nested_rhat_predictions"] = found.nested_rhat_predictions
    if "heat" in stats:
        values["heat"] = float(stats["heat"].values.mean())
    values["conditioning_ce"] = float(stats["cross_entropy"].values.mean())
    values["tv_halves"], values["tv_halves_error"] = halves_apart(halves)
    values.update(_estimates(stats))
    values["mixed"] = float(found.mixed)  # the last row of a posterior: it is finished
    return values


def _estimates(stats: Any) -> dict[str, float]:
    """Rows of what the last draw of every chain knows: the worst chain's swaps, and the log of the chains' mean evidence."""
    found = {}
    if "swap_rate_min" in stats:
        found["swap_rate_min"] = float(stats["swap_rate_min"].values[:, -1].min())
        found["communication_barrier"] = float(stats["barrier"].values[:, -1].mean())
    if "log_evidence" in stats:
        last = stats["log_evidence"].values[:, -1]
        found["log_evidence"] = float(np.logaddexp.reduce(last) - math.log(len(last)))
    return found


def warn_of_swaps(values: Mapping[str, float], who: str) -> None:
    """Say so when replicas of parallel tempering hardly meet: the row `swap_rate_min` is below `SWAP_MIN`, or nan."""
    least = values.get("swap_rate_min", 1.0)
    if not least >= SWAP_MIN:
        say(
            f"Temperatures of {who} hardly swap (least rate {least:.2g}): its chains are no better than HMC's and its log "
            f"evidence is a guess. Use more than --levels {2 * math.ceil(values['communication_barrier'])}, and a longer "
            "warm-up to place them."
        )


def warn_of_heat(values: Mapping[str, float], who: str) -> None:
    """Say so when the row `heat` of a posterior is above `HEAT_MAX`, or nan; R-hat cannot see it."""
    heat = values.get("heat", 0.0)
    if not heat <= HEAT_MAX:
        say(
            f"The noise of the gradients heats {who}: along the noisiest direction found, variances are about "
            f"{1 + heat:.2f} times too large. A longer warm-up, a smaller step or a larger batch mends it, or full-batch hmc."
        )


def _row(
    run: Run, network: str, dataset: str, key: PosteriorKey, seed: int, metric: str, value: float, seconds: float
) -> Row:
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
        **key._asdict(),
    )


def add_fidelity(run: Run, reference: Reference, inputs: Sequence[Inputs]) -> Fidelity | None:
    """Compare every predictive of a run with the reference's first one; add the reference's own rows and the ceiling.

    Rows of method `full` are the reference's runs: each with its metrics, the second with its fidelity to the first.

    Args:
        run: a scored run.
        reference: the full data's posterior.
        inputs: what the run's predictives are of.

    Returns:
        The ceiling; None where the reference has one run.

    Raises:
        ConfigError: a predictive of the run is of other images.
    """
    network, dataset = reference.network.name, reference.dataset.name
    found = {seed: reference.tensors(seed, inputs) for seed in reference.seeds}
    truth, *others = found.values()
    with RowWriter(run.path / "rows.csv") as writer:
        rows = read_rows(run.path / "rows.csv")
        there = set(zip(rows["method"], rows["sampler"], rows["protocol"], rows["seed"], rows["metric"], strict=True))

        def add(key: PosteriorKey, seed: int, metric: str, value: float) -> None:
            if (key.method, key.sampler, key.protocol, seed, metric) not in there:
                writer.write(_row(run, network, dataset, key, seed, metric, value, 0.0))

        for seed, predictive in found.items():
            errors = _metric_errors(predictive)
            for metric, value in {**_metrics(predictive), **errors, **reference.diagnostics(seed)}.items():
                add(reference.key, seed, metric, value)
        for path in sorted(run.path.glob("predictive-*.safetensors")):
            tensors, metadata = load_tensors(path, what="a saved predictive")
            key = PosteriorKey(metadata["method"], int(metadata["ipc"]), metadata["sampler"], metadata["protocol"])
            for metric, value in _fidelity_rows(tensors, truth, path):
                add(key, int(metadata["seed"]), metric, value)
        for seed, again in zip(reference.seeds[1:], others, strict=True):
            for metric, value in _fidelity_rows(again, truth, reference.path):
                add(reference.key, seed, metric, value)
    return fidelity(others[0]["probs"], truth["probs"]) if others else None


def _fidelity_rows(mine: dict[str, Tensor], truth: dict[str, Tensor], path: Path) -> Iterator[tuple[str, float]]:
    """Each measure and, where the predictives of single chains are there, its Monte Carlo error."""
    for place in ("", f"_{CORRUPTED}", f"_{FOREIGN}"):
        probs, labels, chains = f"probs{place}", f"labels{place}", f"chains{place}"
        if probs not in truth or probs not in mine:
            continue
        if not torch.equal(mine[labels], truth[labels]):
            raise ConfigError(
                f"{path} and the reference were asked about different images; score it again with --no-resume."
            )
        for name, value in fidelity(mine[probs], truth[probs])._asdict().items():
            yield f"{name}{place}", float(value)
        errors = fidelity_errors(mine[chains], truth[chains]) if chains in mine and chains in truth else None
        for name, value in ({} if errors is None else errors._asdict()).items():
            yield f"{name}{place}{MCSE}", float(value)
