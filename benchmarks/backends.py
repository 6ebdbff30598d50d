"""Our samplers, Pyro's and hamiltorch's on the same log density objects: are they right, and what does a sample cost?

    python benchmarks/backends.py                       # writes benchmarks/results/backends-cpu.md and .csv

Three targets whose moments are known by another way than sampling (those of the tests), eight chains each; and the posterior of a
small ConvNet on digits, two chains, of which the probabilities of the right class on test images are compared: with no known
truth there, each row is held against the precision-weighted mean of the others. hamiltorch has neither NUTS nor mass adaptation.
One core unless --threads says otherwise; seconds are those of this machine, gradients are not.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bpc.data import load_dataset
from bpc.files import write_atomic
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.posterior import Posterior
from bpc.runs import device_name, versions
from bpc.samplers.backends import BACKENDS, BackendSettings, ChainDraws, available, sample
from bpc.seeding import make_generator

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # of a refactoring, once a day
    import arviz as az

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from targets import TARGETS  # noqa: E402 - the known moments that the tests use too

SAMPLERS = (("native", "hmc"), ("native", "nuts"), ("pyro", "hmc"), ("pyro", "nuts"), ("hamiltorch", "hmc"))


class Task(NamedTuple):
    """What is sampled, and the functions of the parameters that are looked at."""

    name: str
    log_density: Callable[[Tensor], Tensor]
    start: Tensor  # (k, p)
    settings: BackendSettings
    functions: Callable[[Tensor], Tensor]  # params (k, s, p) -> (k, s, f)
    truth: tuple[np.ndarray, np.ndarray] | None  # means and variances, (f,) each; None where they are not known


@dataclass(frozen=True, kw_only=True)
class Row:
    """One backend on one target; the names are the columns."""

    target: str
    backend: str
    sampler: str
    parameters: int
    chains: int
    draws: int
    functions: int
    z_mean: float
    z_variance: float
    accept: float
    diverged: int
    r_hat: float
    min_ess: float
    ess_per_second: float
    ess_per_1000_gradients: float
    gradients_per_draw: float
    gradients_per_second: float
    seconds: float


class Moments(NamedTuple):
    """Estimates of means and variances with their Monte Carlo standard errors, each (2, f)."""

    value: np.ndarray
    error: np.ndarray


def moments(x: np.ndarray) -> Moments:
    """Of x (k, s, f). The variance is the mean of squared deviations from the mean."""
    squares = (x - x.mean((0, 1))) ** 2
    value = np.stack([x.mean((0, 1)), squares.mean((0, 1))])
    error = np.array([[float(az.mcse(y[..., j])) for j in range(x.shape[2])] for y in (x, squares)])
    return Moments(value, error)


def worst_z(mine: Moments, truth: np.ndarray, error: np.ndarray | float = 0.0) -> tuple[float, float]:
    """Largest distance of the means, and of the variances, from the truth (2, f) in standard errors."""
    z = np.abs(mine.value - truth) / np.sqrt(mine.error**2 + error**2)
    return float(z[0].max()), float(z[1].max())


def against_the_others(all_moments: list[Moments], i: int) -> tuple[float, float]:
    """`worst_z` of row i against the precision-weighted mean of the other rows."""
    others = [m for j, m in enumerate(all_moments) if j != i]
    weights = np.stack([1.0 / m.error**2 for m in others])
    mean = (np.stack([m.value for m in others]) * weights).sum(0) / weights.sum(0)
    return worst_z(all_moments[i], mean, weights.sum(0) ** -0.5)


def tasks(chains: int, draws: int, seed: int) -> Iterator[Task]:
    """The four targets, the dearest at the end."""
    for name in ("gaussian", "linear regression", "logistic regression"):
        target = TARGETS[name]
        settings = BackendSettings(warmup=draws // 2, samples=draws, leapfrog_steps=4, step_size=0.1)
        truth = (target.mean.numpy(), target.variance.numpy())
        yield Task(name, target.log_density, target.start(chains), settings, lambda params: params, truth)
    yield convnet_task(chains=2, draws=draws // 2, seed=seed)


def convnet_task(chains: int, draws: int, seed: int) -> Task:
    """Three digits images a class, weights of 10, a ConvNet of width 8 and depth 2; the first 20 test images."""
    digits = load_dataset("digits")
    net = ConvNet(ConvNetConfig(width=8, depth=2), digits.image_shape, digits.num_classes)
    index = torch.cat([torch.nonzero(digits.train.labels == y)[:3, 0] for y in range(digits.num_classes)])
    points, labels = digits.normalise(digits.train.images[index]), digits.train.labels[index]
    prior_std = 0.3
    posterior = Posterior(Classifier(net), points, labels, torch.full((len(labels),), 10.0), prior_std=prior_std)
    images, right = digits.normalise(digits.test.images[:20]), digits.test.labels[:20]

    def functions(params: Tensor) -> Tensor:
        with torch.no_grad():
            each = [net(block, images).softmax(-1)[:, torch.arange(20), right] for block in params.to(points.dtype)]
        return torch.stack(each)

    start = prior_std * torch.randn(chains, net.num_params, generator=make_generator("cpu", seed, "start"))
    settings = BackendSettings(warmup=draws, samples=draws, leapfrog_steps=24, step_size=0.01, max_tree_depth=7)
    return Task(f"{net.name} on digits", posterior, start, settings, functions, None)


def measure(task: Task, backend: str, sampler: str, seeds: list[int]) -> tuple[Row, Moments]:
    """One row, its z scores still nan."""
    draws: ChainDraws = sample(
        backend, task.log_density, task.start, replace(task.settings, sampler=sampler), seeds=seeds
    )
    x = task.functions(draws.params).double().numpy()
    k, s, f = x.shape
    ess = min(float(az.ess(x[..., j])) for j in range(f))
    gradients = float(draws.sampling_gradients.sum())
    row = Row(
        target=task.name,
        backend=backend,
        sampler=sampler,
        parameters=task.start.shape[1],
        chains=k,
        draws=s,
        functions=f,
        z_mean=float("nan"),
        z_variance=float("nan"),
        accept=float(draws.accept_prob.mean()),
        diverged=int(draws.diverged.sum()),
        r_hat=max(float(az.rhat(x[..., j])) for j in range(f)),
        min_ess=ess,
        ess_per_second=ess / draws.sampling_seconds,
        ess_per_1000_gradients=1000 * ess / gradients,
        gradients_per_draw=gradients / (k * s),
        gradients_per_second=gradients / draws.sampling_seconds,
        seconds=draws.seconds,
    )
    return row, moments(x)


def rows_of(task: Task, seed: int) -> list[Row]:
    """All backends that are installed, on one target."""
    seeds = [1000 * seed + i for i in range(len(task.start))]
    found = []
    for backend, sampler in SAMPLERS:
        if available(backend):
            found.append(measure(task, backend, sampler, seeds))
            print(f"{task.name}, {backend} {sampler}: {found[-1][0].seconds:.1f} s", flush=True)
    all_moments = [m for _, m in found]
    rows = []
    for i, (row, mine) in enumerate(found):
        if task.truth is not None:
            z_mean, z_variance = worst_z(mine, np.stack(task.truth))
        else:
            z_mean, z_variance = against_the_others(all_moments, i) if len(found) > 1 else (float("nan"),) * 2
        rows.append(replace(row, z_mean=z_mean, z_variance=z_variance))
    return rows


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("target", lambda r: r.target),
    ("backend", lambda r: r.backend),
    ("sampler", lambda r: r.sampler),
    ("max abs z of means", lambda r: f"{r.z_mean:.1f}"),
    ("of variances", lambda r: f"{r.z_variance:.1f}"),
    ("acceptance", lambda r: f"{r.accept:.2f}"),
    ("divergences", lambda r: str(r.diverged)),
    ("max R-hat", lambda r: f"{r.r_hat:.3f}"),
    ("min ESS", lambda r: f"{r.min_ess:.0f}"),
    ("ESS / s", lambda r: f"{r.ess_per_second:.3g}"),
    ("ESS / 1000 gradients", lambda r: f"{r.ess_per_1000_gradients:.3g}"),
    ("gradients a draw", lambda r: f"{r.gradients_per_draw:.1f}"),
    ("gradients / s", lambda r: f"{r.gradients_per_second:.0f}"),
    ("seconds", lambda r: f"{r.seconds:.1f}"),
)


def markdown(rows: list[Row], seed: int, seconds: float, load: float) -> str:
    """The table with what it was measured on."""
    found = versions()
    if available("hamiltorch"):
        found["hamiltorch"] = importlib.metadata.version("hamiltorch")
    missing = [f"{name} is missing: `{how}`." for name, how in BACKENDS.items() if not available(name)]
    used = ", ".join(f"{name} {version}" for name, version in found.items() if name != "bayesian-pseudocoresets")
    shape = "; ".join(
        f"{r.target}: {r.parameters} parameters, {r.chains} chains of {r.draws} draws, {r.functions} functions"
        for r in {r.target: r for r in rows}.values()
    )
    head = [name for name, _ in COLUMNS]
    lines = [
        "# Native, Pyro and hamiltorch samplers on the same log densities",
        "",
        f"`python benchmarks/backends.py --seed {seed}`, {datetime.date.today()}, {device_name(torch.device('cpu'))}, {used}; "
        f"{seconds:.0f} s in all, other work on the machine's {os.cpu_count()} cores included (load average {load:.1f}).",
        "",
        f"{shape}. Chain i has seed {1000 * seed} + i.",
        "",
        "z: distance from the known moments in Monte Carlo standard errors, the largest over all functions; for the network the "
        "distance from the other rows' mean. ESS (ArviZ, bulk) is the smallest over the functions. Rates are of the draws after "
        "warm-up, summed over chains; `seconds` includes the warm-up. A gradient of a batch of k chains counts k times, so native "
        "NUTS pays for chains that wait for the longest tree. The native backend batches the chains; the others run one after the "
        "other. hamiltorch has no NUTS (what it calls HMC_NUTS adapts HMC's step size, which is what is used here) and no mass "
        "adaptation.",
        "",
        f"| {' | '.join(head)} |",
        f"| {' | '.join([':--'] * 3 + ['--:'] * (len(head) - 3))} |",
        *(f"| {' | '.join(show(row) for _, show in COLUMNS)} |" for row in rows),
        *([""] + missing if missing else []),
    ]
    return "\n".join(lines) + "\n"


def csv(rows: list[Row]) -> str:
    """All fields, unrounded."""
    names = list(Row.__dataclass_fields__)
    return "\n".join([",".join(names), *(",".join(str(getattr(row, name)) for name in names) for row in rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=8, help="of the small targets")
    parser.add_argument("--draws", type=int, default=400, help="kept of each chain; half as many for the network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "backends-cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    started, load = time.perf_counter(), os.getloadavg()[0]
    rows = [row for task in tasks(args.chains, args.draws, args.seed) for row in rows_of(task, args.seed)]
    text = markdown(rows, args.seed, time.perf_counter() - started, max(load, os.getloadavg()[0]))
    table = csv(rows)
    write_atomic(args.out.with_suffix(".md"), lambda stream: stream.write(text.encode()))
    write_atomic(args.out.with_suffix(".csv"), lambda stream: stream.write(table.encode()))
    print(text)


if __name__ == "__main__":
    main()
