"""Published tables and figures, and our own, as plans: which commands of run.py make them, at which scale.

Every command skips what is done, so a plan is resumed by calling it again. Nothing here runs anything: `run.py reproduce` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bpc.errors import unknown_name
from evaluation.kim2022_plan import BASELINES, KIM2022_TARGETS, LEARNED
from evaluation.plan import Command, Step, Target, plan_of
from evaluation.posterior_plan import POSTERIOR_TARGETS
from evaluation.posteriors_plan import POSTERIORS_TARGETS
from evaluation.ssl.studies import SSL_SCALES, table1
from evaluation.vae.studies import VAE_PLANS, VAE_SCALES, VaeScale

__all__ = ["ELSEWHERE", "TARGETS", "demo_plan", "find_target"]


def _vae(
    plan: Callable[[VaeScale, Path, Command], Iterator[Command]],
) -> Callable[[str, Path, Command], Iterator[Command]]:
    return lambda scale, out, common: plan(VAE_SCALES[scale], out, common)


def _study(name: str) -> Callable[[str, Path, Command], list[Command]]:
    """A study where the truth is known: independent coresets per size by scale."""
    repeats = {"smoke": "1", "cpu": "3", "full": "10"}
    return lambda scale, out, common: [["study", name, "--repeats", repeats[scale], "--out", f"{out}/"]]


def _demo(scale: str, out: Path, common: Command, seed: int = 0) -> Iterator[tuple[str, Command]]:
    """Five independent coresets of each kind, one chain each: the spread is over everything that is random."""
    digits = ["--dataset", "digits", *common]
    experts = ["--experts", str(out / "experts"), "--num-experts", "10", "--epochs", "6"]
    made: dict[str, list[str]] = {}

    def coreset(method: str, number: int) -> Command:
        path = str(out / "coresets" / f"{method}-{number}")
        made.setdefault(method, []).append(path)
        return ["--ipc", "1", "--seed", str(number), "--out", path, *digits, *experts]

    yield "1. Experts:      run.py experts --dataset digits --num-experts 10 --epochs 6", ["experts", *digits, *experts]
    for place, method in enumerate(LEARNED, start=2):
        stage = f"{place}. Pseudocoreset: run.py distill --dataset digits --divergence {method} --ipc 1 --seed 0 .. 4"
        for number in range(seed, seed + 5):
            yield stage, ["distill", "--divergence", method, "--no-evaluate", *coreset(method, number)]
    names = "|".join(BASELINES)
    stage = f"5. Baselines:    run.py select --dataset digits --method {names} --ipc 1 --seed 0 .. 4"
    for method in BASELINES:
        for number in range(seed, seed + 5):
            yield stage, ["select", "--method", method, *coreset(method, number)]
    stage = (
        "6. Scores:       run.py evaluate --dataset digits --coreset ... --sampler hmc|asghmc --protocol kim2022-scaled"
    )
    # Table 3's 20 iterations at ipc 1 end long before A-SGHMC has mixed here: it gets the 100 of the other rows
    for sampler, length in {"hmc": [], "asghmc": ["--iterations", "100", "--burn-in", "50"]}.items():
        for method, paths in made.items():
            options = ["--protocol", "kim2022-scaled", "--seed", str(seed), "--seeds", "5", "--no-table", *length]
            where = ["--out", str(out / "scores" / f"{method}-{sampler}")]
            yield stage, ["evaluate", "--coreset", *paths, "--sampler", sampler, *options, *where, *digits]
    # sampled until its chains have mixed, by a network whose gradients take a fifth of the time
    stage = (
        "7. Posterior:    run.py evaluate --dataset digits --coreset ... --protocol exact-scaled --width 8 --depth 1"
    )
    exact = ["--protocol", "exact-scaled", "--width", "8", "--depth", "1", "--warmup", "40", "--samples", "75"]
    exact += ["--chains", "16"]  # many short chains: a step of sixteen costs little more than one of four
    exact += ["--reference", "none", "--no-beside-random", "--no-table", "--seed", str(seed)]
    where = ["--out", str(out / "scores" / "fkl-posterior")]
    yield stage, ["evaluate", "--coreset", made["fkl"][0], *exact, *where, *digits]
    where = ["--out", str(out / "comparison"), "--title", "Demo"]
    yield "8. Comparison:   run.py compare demo", ["compare", str(out / "coresets"), str(out / "scores"), *where]


def demo_plan(out: Path, seed: int, common: Sequence[str]) -> list[Step]:
    """The plan of `run.py demo`."""
    return plan_of(_demo("smoke", out, list(common), seed))


TARGETS = {
    "demo": Target(
        what="what run.py demo does: every method on digits, HMC and A-SGHMC, one exact posterior", commands=_demo
    ),
    **POSTERIOR_TARGETS,
    **POSTERIORS_TARGETS,
    **KIM2022_TARGETS,
    "kim2022-fig6": Target(
        what="Figures 6 and 7 (C.5): Gaussian data, divergences in closed form", commands=_study("gaussian")
    ),
    "kim2022-fig7": Target(what="the same study as kim2022-fig6", commands=_study("gaussian")),
    "regression-linear": Target(
        what="Bayesian linear regression (diabetes), weighted points by reverse KL, exact KL",
        commands=_study("linear"),
    ),
    "regression-logistic": Target(
        what="Bayesian logistic regression (breast cancer), weighted points by reverse KL, KL by cubature",
        commands=_study("logistic"),
    ),
    **{name: Target(what=what, commands=_vae(plan)) for name, (what, plan) in VAE_PLANS.items()},
    "pooladzandi2022-table1": Target(
        what="Table 1: few labels and generated images, by filter and selection (smoke: digits, cpu: MNIST, full: SVHN)",
        commands=lambda scale, out, common: table1(SSL_SCALES[scale], out, common),
    ),
}

# what a reader of the papers looks for in the list and does not find as a plan, and where it is or why it is nowhere
ELSEWHERE = {
    "kim2022 Figures 1, 2": "pictures of coresets and their spectra: distill and compare draw them for any run",
    "kim2022 Figure 3": "time and memory by size: benchmarks/speed.py --curves (memory is what --memory-budget grants)",
    "kim2022 Tables 2, 3": "settings: the preset and the protocol kim2022",
    "ai2021 Table 7": "the sweep of lambda: in ai2021-table3",
    "ai2021 Table 8": "KL of VampPrior and ByPE: the column KL of ai2021-table1",
    "tomczak2018 Tables 4, 5": "Omniglot and Caltech 101: rows of tomczak2018-table1; the others' numbers are quoted there",
    "pooladzandi2022 Table 2": "cells of its Table 1, beside numbers quoted from other papers: pooladzandi2022-table1",
}


def find_target(name: str) -> Target:
    """The target of a name.

    Raises:
        ConfigError: unknown.
    """
    if name not in TARGETS:
        raise unknown_name("target", name, TARGETS)
    return TARGETS[name]
