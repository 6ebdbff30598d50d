"""What mixes a coreset's posterior? Samplers, trajectories, masses, chains and precisions at one number of gradients, digits.

    OMP_NUM_THREADS=1 python benchmarks/tempering.py --coreset demo/coresets/fkl-0

A gradient is one of one parameter vector by all points of the coreset, warm-up included; every row has about the same number of
them. A fifth of the training images is held out and predicted; the test set is never looked at. Each row is kept in --work as
soon as it is there: a killed run goes on with the next one, and tables are written from what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tempering_tables import write_tables
from bpc.coreset import Pseudocoreset, load_coreset
from bpc.data import Dataset, load_dataset
from bpc.files import save_tensors
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig, Network
from bpc.runs import versions
from bpc.samplers import EXACT_SAMPLERS, CycleConfig, ExactSettings
from bpc.seeding import make_generator
from bpc.selection import build_coreset, select
from evaluation.diagnostics import diagnose
from evaluation.exact_chains import TRACKED, Traces, sample_posterior
from evaluation.exact_run import diagnostic_rows
from evaluation.inference_data import to_inference_data
from evaluation.inputs import Inputs
from evaluation.metrics import compute, empty_sums, update
from evaluation.monte_carlo import metric_errors
from evaluation.predictive import pick_images
from evaluation.protocols import exact_posterior

CHAINS = 4
SMC_MOVES = 2  # of a stage, as `SMCConfig` has it


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row: `name` says what differs from HMC of 100 leapfrogs, the prior's mass, four chains, float32."""

    name: str
    settings: ExactSettings
    double: bool = False


class Counted(Classifier):
    """A likelihood that counts the points that it was asked about."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.pairs = 0

    def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """See `Classifier`."""
        self.pairs += len(params) * points.shape[-4]
        return super().__call__(params, points, labels)


class Widened:
    """A network that takes images in the precision of its parameters."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, params: Tensor, images: Tensor) -> Tensor:
        """See `Network`."""
        return self.network(params, images.to(params.dtype))


def jobs(args: argparse.Namespace, prior_std: float) -> Iterator[Job]:
    """The rows under one prior; every setting is given, whatever the product's defaults are."""

    def sized(name: str, *, warm: float = 0.25, unit: int = 1, double: bool = False, **changes: Any) -> Job:
        base: dict[str, Any] = {
            "sampler": "hmc",
            "chains": CHAINS,
            "leapfrog_steps": 100,
            "prior": "isotropic",
            "prior_std": prior_std,
            "temperature": 1.0,
            "mass": "prior",
            "pool_step": True,
            "target": 0.8,
            "step_size": 0.01,
            "friction": 5.0,
            "batch": 0,
            "predictive_draws": 400,
            "max_tree_depth": 7,
            "levels": args.levels,
            "cycle": 10,
            "superchain": 1,
        }
        settings = ExactSettings(**(base | changes))
        cost = EXACT_SAMPLERS.get(settings.sampler).gradients(settings)
        draws = max(args.gradients // (settings.chains * cost), 8) // unit * unit
        warmup = int(draws * warm) // unit * unit
        return Job(
            name=name,
            settings=dataclasses.replace(settings, warmup=warmup, samples=max(draws - warmup, 4)),
            double=double,
        )

    yield sized("hmc")
    yield sized("nuts", sampler="nuts")
    yield sized("pt", sampler="pt", leapfrog_steps=10, warm=0.5)
    particles = args.gradients // (CHAINS * SMC_MOVES * 10 * args.stages)
    smc = sized("smc", sampler="smc", leapfrog_steps=10)
    yield dataclasses.replace(
        smc, settings=dataclasses.replace(smc.settings, warmup=4 * args.stages, samples=max(particles, 4))
    )
    cycle = CycleConfig().draws // 2
    yield sized("csghmc", sampler="csghmc", leapfrog_steps=20, step_size=args.cyclical_step, cycle=cycle, unit=cycle)
    for steps in (5, 20, 200):
        yield sized(f"hmc, {steps} leapfrogs", leapfrog_steps=steps)
    yield sized("hmc, diagonal mass", mass="diagonal")
    yield sized("hmc, 16 chains", chains=16, superchain=4)
    yield sized("hmc, float64", double=True)


def measure(
    job: Job, network: Network, data: Dataset, coreset: Pseudocoreset, seed: int
) -> tuple[dict[str, Any], Tensor]:
    """The row, and each chain's predictive (c, n, y) of the held-out images."""
    torch.set_default_dtype(torch.float64 if job.double else torch.float32)
    try:
        settings, dtype = job.settings, torch.get_default_dtype()
        weights = coreset.weights * (len(data.train) / coreset.weights.sum())
        posterior = exact_posterior(network, coreset.points.to(dtype), coreset.labels, weights.to(dtype), settings)
        counted = posterior.log_likelihood = Counted(network)
        began, cpu = time.monotonic(), time.process_time()
        (result,) = sample_posterior(
            Widened(network) if job.double else network,
            data,
            posterior,
            settings,
            seeds=[seed],
            inputs=[Inputs("held out", data.test)],
            tracked=pick_images(data.test, TRACKED),
        )
        cpu, wall = time.process_time() - cpu, time.monotonic() - began
    finally:
        torch.set_default_dtype(torch.float32)
    traces = result.traces
    found = to_inference_data(
        log_density=traces.log_density,
        predictions=traces.prediction,
        accept_prob=traces.accept_prob,
        diverged=traces.diverged,
        energy=_recorded(traces, "energy"),
        cross_entropy=traces.cross_entropy,
        weights=traces.weight,
        estimates={name: _recorded(traces, name) for name in ("swap_rate_min", "barrier", "log_evidence")},
        attrs={"superchain": settings.superchain},
    )
    pooled = compute(update(empty_sums(), result.probs["held out"].double().mean(0), data.test.labels))
    row = {
        "row": job.name,
        "prior_std": settings.prior_std,
        "chains": settings.chains,
        "warmup": settings.warmup,
        "samples": settings.samples,
        "gradients": counted.pairs // len(coreset),
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "step_size": float(traces.step_size.amax(1).mean()),
        **{name: float(pooled[name]) for name in ("accuracy", "nll", "ece")},
        **metric_errors(result.probs["held out"], data.test.labels),
        **diagnostic_rows(diagnose(found), found, result.halves),
    }
    return row, result.probs["held out"]


def _recorded(traces: Traces, name: str) -> Tensor | None:
    trace: Tensor = getattr(traces, name)
    return None if bool(trace.isnan().all()) else trace


def chosen_coreset(args: argparse.Namespace, data: Dataset) -> Pseudocoreset:
    """The file that is named, or a random coreset of one image per class."""
    if args.coreset is None:
        index = select("random", data.train.labels, 1, data.num_classes, generator=make_generator("cpu", args.seed))
        return build_coreset(data, index, method="random", seed=args.seed)
    return load_coreset(args.coreset / "coreset.safetensors" if args.coreset.is_dir() else args.coreset)


def main() -> None:
    """Rows that are not there yet, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--coreset", type=Path, help="file or folder of a coreset; default: a random one, 1 image a class"
    )
    parser.add_argument("--gradients", type=int, default=80_000, help="of a row, all chains and warm-up together")
    parser.add_argument("--prior-std", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--width", type=int, default=8, help="of the ConvNet; 8 has 1,026 parameters")
    parser.add_argument("--levels", type=int, default=20, help="of parallel tempering")
    parser.add_argument("--stages", type=int, default=15, help="of smc, a guess that its particles are counted by")
    parser.add_argument("--cyclical-step", type=float, default=0.02, help="largest step of csghmc, in prior widths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/tempering"), help="rows and predictives, kept")
    parser.add_argument("--out", type=Path, help="folder of tempering.md and .csv; default: --work")
    parser.add_argument("--device-note", default="one CPU thread", help="what the tables say that this ran on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("digits", validation_fraction=0.2)
    network = ConvNet(ConvNetConfig(width=args.width, depth=2), data.image_shape, data.num_classes)
    coreset = chosen_coreset(args, data)
    shared = {
        "coreset": f"{coreset.method}, {len(coreset)} points",
        "digest": hashlib.sha256(coreset.points.numpy().tobytes()).hexdigest()[:12],
        "network": network.name,
        "parameters": network.num_params,
        "train": len(data.train),
        "held_out": len(data.test),
        "budget": args.gradients,
        "seed": args.seed,
    }
    args.work.mkdir(parents=True, exist_ok=True)
    kept = []
    for prior_std in args.prior_std:
        for job in jobs(args, prior_std):
            if args.only and job.name not in args.only:
                continue
            asked = {**shared, "double": job.double, **dataclasses.asdict(job.settings)}
            name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
            file = args.work / f"{name}.json"
            if not file.exists():
                row, probs = measure(job, network, data, coreset, args.seed)
                save_tensors(args.work / f"{name}.safetensors", {"probs": probs}, {})
                file.write_text(json.dumps({**shared, **versions(), "device": args.device_note, **row}, indent=1))
                print(json.dumps(row), flush=True)
            kept.append(file)
            write_tables(kept, args.out or args.work)


if __name__ == "__main__":
    main()
