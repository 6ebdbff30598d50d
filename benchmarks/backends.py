"""Our HMC and NUTS, Pyro's and hamiltorch's on the same log density objects: right moments, and at what cost.

    python benchmarks/backends.py --out benchmarks/results/backends-cpu

Four targets: a correlated Gaussian and Bayesian linear regression (scikit-learn's diabetes data) with exact moments, Bayesian
logistic regression (breast cancer data) and a small ConvNet on ten images of digits, whose moments come from a native run
eight times as long, with other seeds. For the ConvNet the quantities are predictive probabilities: weights have symmetries.

Effective samples: ArviZ's bulk ESS, the smallest over quantities, of all chains together. A gradient is one evaluation of one
chain. Native chains run as one batch, the others one after the other: that is how each is used.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import arviz as az
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.decomposition import PCA
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.native import available, sample
from bpc.data import load_dataset
from bpc.likelihood import Classifier, LinearRegression, LogisticRegression
from bpc.models import ConvNet, ConvNetConfig
from bpc.posterior import Posterior
from bpc.runs import versions
from bpc.runtime import keep_freed_memory
from bpc.samplers.backends import BackendSettings, ChainDraws
from bpc.seeding import make_generator
from bpc.weight_prior import isotropic

COMBINATIONS = (("native", "hmc"), ("native", "nuts"), ("pyro", "hmc"), ("pyro", "nuts"), ("hamiltorch", "hmc"))


class Target(NamedTuple):
    """A density and what is asked of its samples."""

    name: str
    density: Callable[[Tensor], Tensor]
    start: Tensor  # (k, p)
    settings: dict[str, float]
    quantities: Callable[[Tensor], np.ndarray]  # (k, s, p) -> (k, s, q)
    truth: tuple[np.ndarray, np.ndarray] | None  # exact mean and variance of each quantity


def _all(params: Tensor) -> np.ndarray:
    return params.numpy()


def gaussian(chains: int) -> Target:
    """Ten dimensions, correlation 0.9 between neighbours, scales from 0.3 to 3."""
    d = 10
    scales = torch.logspace(np.log10(0.3), np.log10(3.0), d, dtype=torch.float64)
    covariance = 0.9 ** (torch.arange(d)[:, None] - torch.arange(d)).abs().double() * scales * scales[:, None]
    precision = torch.linalg.inv(covariance)

    def density(params: Tensor) -> Tensor:
        return -0.5 * torch.einsum("ki,ij,kj->k", params, precision, params)

    start = scales * torch.randn(chains, d, generator=make_generator("cpu", 0), dtype=torch.float64)
    settings = {"leapfrog_steps": 16, "step_size": 0.1, "warmup": 300, "samples": 300}
    return Target("Gaussian (10)", density, start, settings, _all, (np.zeros(d), covariance.diagonal().numpy()))


def linear(chains: int) -> Target:
    """Diabetes: 442 patients, 10 features, standardised, noise known."""
    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    noise, prior = 0.7, 1.0
    covariance = np.linalg.inv(x.T @ x / noise**2 + np.eye(10) / prior**2)
    mean = covariance @ x.T @ y / noise**2
    points = torch.from_numpy(np.column_stack([x, y]))
    ones = torch.ones(len(y), dtype=torch.float64)
    posterior = Posterior(
        LinearRegression(noise), points, torch.zeros(len(y), dtype=torch.long), ones, prior=isotropic(prior)
    )
    start = 0.1 * torch.randn(chains, 10, generator=make_generator("cpu", 1), dtype=torch.float64)
    settings = {"leapfrog_steps": 16, "step_size": 0.02, "warmup": 300, "samples": 300}
    return Target("linear regression (10)", posterior, start, settings, _all, (mean, np.diagonal(covariance).copy()))


def logistic(chains: int) -> Target:
    """Breast cancer: 569 patients, 5 principal components and an intercept."""
    x, y = load_breast_cancer(return_X_y=True)
    x = PCA(5, random_state=0).fit_transform((x - x.mean(0)) / x.std(0))
    points = torch.from_numpy(np.column_stack([x, np.ones(len(x))]))
    ones = torch.ones(len(y), dtype=torch.float64)
    posterior = Posterior(LogisticRegression(), points, torch.from_numpy(y), ones, prior=isotropic(2.0))
    start = 0.1 * torch.randn(chains, 6, generator=make_generator("cpu", 2), dtype=torch.float64)
    settings = {"leapfrog_steps": 10, "step_size": 0.05, "warmup": 300, "samples": 300}
    return Target("logistic regression (6)", posterior, start, settings, _all, None)


def convnet(chains: int) -> Target:
    """Width 8, depth 2, 1,026 parameters; ten digits of weight 6 each."""
    digits = load_dataset("digits")
    net = ConvNet(ConvNetConfig(width=8, depth=2), (1, 8, 8), 10)
    index = torch.stack([torch.nonzero(digits.train.labels == y)[0, 0] for y in range(10)])
    points, labels = digits.normalise(digits.train.images[index]), digits.train.labels[index]
    posterior = Posterior(Classifier(net), points, labels, torch.full((10,), 6.0), prior=isotropic(0.25))
    test, truth = digits.normalise(digits.test.images[:20]), digits.test.labels[:20]

    def quantities(params: Tensor) -> np.ndarray:
        k, s, p = params.shape
        with torch.no_grad():
            probs = net(params.reshape(k * s, p), test).softmax(-1)
        picked = probs.gather(-1, truth.view(1, -1, 1).expand(k * s, -1, 1))[..., 0]
        return picked.double().numpy().reshape(k, s, -1)

    start = 0.05 * torch.randn(chains, net.num_params, generator=make_generator("cpu", 3))
    settings = {"leapfrog_steps": 16, "step_size": 0.02, "warmup": 150, "samples": 150, "max_tree_depth": 6}
    return Target("ConvNet (1,026)", posterior, start, settings, quantities, None)


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means and variances (q,) of (k, s, q), each with its Monte Carlo standard error."""
    mean = values.mean((0, 1))
    squares = (values - mean) ** 2
    error = np.array([float(az.mcse(values[..., j])) for j in range(values.shape[2])])
    error_squares = np.array([float(az.mcse(squares[..., j])) for j in range(values.shape[2])])
    return mean, squares.mean((0, 1)), error, error_squares


def row(
    target: Target, backend: str, sampler: str, draws: ChainDraws, reference: tuple[np.ndarray, ...]
) -> dict[str, object]:
    """One line of the table."""
    values = target.quantities(draws.params)
    mean, variance, error, error_variance = moments(values)
    z = np.abs(mean - reference[0]) / np.sqrt(error**2 + reference[2] ** 2)
    z_variance = np.abs(variance - reference[1]) / np.sqrt(error_variance**2 + reference[3] ** 2)
    ess = min(float(az.ess(values[..., j])) for j in range(values.shape[2]))
    gradients = float(draws.sampling_gradients.sum())
    return {
        "target": target.name,
        "backend": backend,
        "sampler": sampler,
        "chains": len(draws.params),
        "draws": draws.params.shape[1],
        "max |z| mean": z.max(),
        "max |z| variance": z_variance.max(),
        "acceptance": float(draws.accept_prob.mean()),
        "divergences": int(draws.diverged.sum()),
        "R-hat": max(float(az.rhat(values[..., j])) for j in range(values.shape[2])),
        "min ESS": ess,
        "ESS / 1,000 gradients": 1000 * ess / gradients,
        "ESS / s": ess / draws.sampling_seconds,
        "gradients / s": gradients / draws.sampling_seconds,
    }


def main() -> None:
    """Run every combination and write ``<out>.md`` and ``<out>.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/backends"))
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shrink", type=int, default=1, help="divide the numbers of draws by this, to try the script")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for make in (gaussian, linear, logistic, convnet):
        target = make(args.chains)
        small = {k: max(8, v // args.shrink) if k in ("warmup", "samples") else v for k, v in target.settings.items()}
        if target.truth is None:
            settings = BackendSettings(sampler="hmc", **{**small, "samples": 8 * small["samples"]})  # type: ignore[arg-type]
            seeds = range(args.seed + 1000, args.seed + 1000 + args.chains)
            reference = moments(
                target.quantities(sample("native", target.density, target.start, settings, seeds=seeds).params)
            )
        else:
            reference = (*target.truth, np.zeros(1), np.zeros(1))
        for backend, sampler in COMBINATIONS:
            if not available(backend):
                print(f"{backend} is not installed and left out.")
                continue
            # Pyro and hamiltorch take their chains one by one: two of them are enough to know their speed
            k = args.chains if backend == "native" else max(2, args.chains // 4)
            draws = sample(
                backend,
                target.density,
                target.start[:k],
                BackendSettings(sampler=sampler, **small),  # type: ignore[arg-type]
                seeds=range(args.seed, args.seed + k),
            )
            rows.append(row(target, backend, sampler, draws, reference))
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    table = pd.DataFrame(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out.with_suffix(".csv"), index=False)
    args.out.with_suffix(".md").write_text(markdown(table, args))
    print(f"Written to {args.out}.md and .csv")


def markdown(table: pd.DataFrame, args: argparse.Namespace) -> str:
    """The table with what it was made by."""
    digits = {
        "draws": 0,
        "chains": 0,
        "divergences": 0,
        "min ESS": 0,
        "ESS / s": 0,
        "gradients / s": 0,
        "R-hat": 3,
        "acceptance": 2,
    }
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " :-- |" * 3 + " --: |" * (len(table.columns) - 3)]
    for _, line in table.iterrows():
        cells = [f"{v:,.{digits.get(c, 1)}f}" if isinstance(v, (int, float)) else str(v) for c, v in line.items()]
        lines.append("| " + " | ".join(cells) + " |")
    found = ", ".join(f"{k} {v}" for k, v in versions().items())
    scale = f" Draws divided by {args.shrink}: not the measured table." if args.shrink > 1 else ""
    return (
        "# Three backends on the same densities\n\n"
        f"One CPU thread ({platform.machine()}), seeds {args.seed} to {args.seed + args.chains - 1}; {found}.{scale}\n\n"
        + "\n".join(lines)
        + "\n\n"
        + "|z|: distance of the mean or variance from the truth, over all quantities, in Monte Carlo standard errors. "
        "hamiltorch adapts its step size but no mass and has no NUTS. Rates are of the draws after warm-up, summed over chains. "
        "A batch's gradient counts once for each chain, so native NUTS also counts the chains that wait for the longest tree. "
        "Made by `python benchmarks/backends.py`.\n"
    )


if __name__ == "__main__":
    main()
