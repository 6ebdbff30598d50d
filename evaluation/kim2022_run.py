"""One evaluation in a run's folder: chains to rows, as they are produced, and the predictive they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bpc.augment import AugmentConfig
from bpc.coreset import Pseudocoreset
from bpc.data import Dataset
from bpc.models import Network
from bpc.progress import progress, say
from bpc.runs import Run, device_name
from evaluation.inputs import Inputs
from evaluation.kim2022_chains import Kim2022Config, iterations, sample_kim2022, shifted_metrics
from evaluation.metrics import SCORED
from evaluation.predictive import pick_images, save_predictive
from evaluation.rows import PosteriorKey, Row, RowWriter, read_rows

__all__ = ["score_kim2022"]


def score_kim2022(
    run: Run,
    network: Network,
    dataset: Dataset,
    coresets: Sequence[Pseudocoreset],
    config: Kim2022Config,
    *,
    seeds: Sequence[int],
    augment: AugmentConfig | None = None,
    extra: Sequence[Inputs] = (),
    chains_at_once: int = 0,
    memory_budget: float | None = None,
    checkpoint_seconds: float = 30.0,
) -> None:
    """Evaluate and write ``rows.csv`` (one row per seed and metric) and ``predictive-*.safetensors`` in the run's folder.

    Seeds whose rows are there are skipped, so calling this again finishes what was interrupted.

    Args:
        run: the folder.
        network, dataset, coresets, config, seeds, augment, extra, chains_at_once, memory_budget, checkpoint_seconds: as for
            `evaluation.kim2022_chains.sample_kim2022`.
    """
    first = coresets[0]
    name = f"{first.method} by {config.sampler} ({config.protocol})"
    rows_path = run.file("rows.csv", promised=True)
    metrics = [*SCORED, *shifted_metrics(extra)]
    key = PosteriorKey(first.method, first.ipc, config.sampler, config.protocol)
    labels = pick_images(dataset.test, config.test_images).labels.cpu()
    with RowWriter(rows_path) as writer:  # opening it mends a torn last line
        rows = key.of(read_rows(rows_path))
        written = {(int(s), str(m)) for s, m in zip(rows["seed"], rows["metric"], strict=True)}
        done = {seed for seed in seeds if all((seed, metric) in written for metric in metrics)}
        total = iterations(network, first, config) * len([seed for seed in seeds if seed not in done])
        with progress(f"Scoring {name}", total) as report:
            for block in sample_kim2022(
                network,
                dataset,
                coresets,
                config,
                seeds=seeds,
                augment=augment,
                extra=extra,
                chains_at_once=chains_at_once,
                memory_budget=memory_budget,
                file=run.file,
                checkpoint_seconds=checkpoint_seconds,
                config_hash=f"{run.hash}-{first.method}",
                skip=done.__contains__,
                report=report.update,
            ):
                for i, seed in enumerate(block.seeds):
                    save_predictive(run, dataset.name, key, seed, {"probs": block.probs[i], "labels": labels})
                    for metric in metrics:
                        if (seed, metric) in written:
                            continue
                        value = float(block.metrics[metric][i])
                        writer.write(
                            Row(
                                run=run.path.name,
                                config_hash=run.hash,
                                dataset=dataset.name,
                                architecture=network.name,
                                seed=seed,
                                metric=metric,
                                value=value,
                                seconds=block.seconds / len(block.seeds),
                                device=device_name(run.device),
                                **key._asdict(),
                            )
                        )
                    if math.isnan(float(block.metrics["accuracy"][i])):
                        say(
                            f"Chain {seed} of {name} left the finite numbers; its rows say nan, and so will the mean over seeds."
                        )
