"""The published chain, step by step: what each of its five departures from an exact sampler does, and what it samples.

**Staircase.** From the published chain (Algorithm 2 of Kim et al. 2022) to the posterior of the protocol `exact-scaled`, one
change at a time, each kept:

1. *start*: theta ~ the exact protocol's prior, N(0, 1) as it stands, in place of N(0, 0.1^2);
2. *rule*: momenta from N(0, 1), which the kinetic energy describes, and the Metropolis test exp(H_old - H_new), in place of
   momenta from N(0, sigma_r^2) and a test whose kinetic term has the other sign, which lets nearly everything pass; step and
   length stay;
3. *norm*: the exact protocol's log prior, -||theta||^2 / 2, in place of -M lambda ||theta||;
4. *length*: the exact protocol's warm-up (in which the step is adapted), leapfrogs and draws, in place of Table 3's;
5. *weights*: they sum to the number of training images, in place of one a point.

**What it claims.** The potential M (mean CE + lambda ||theta||) has the density exp(-M mean CE) exp(-M lambda ||theta||). Its
second factor has ||theta|| ~ Gamma(p, M lambda): parameters have a root mean square of sqrt(p) / (M lambda), far from where any
published chain goes. That density is sampled by textbook HMC, in units of that width and from draws of that factor, and the
published chain is run for a quarter to 16 times its length: does it come nearer?

Every number is a mean over chains of what one chain's predictive scores (as the published protocol scores one chain), with its
Monte Carlo standard error over those chains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from bpc.coreset import Pseudocoreset
from bpc.data import Dataset, Split
from bpc.errors import ConfigError
from bpc.models import Network
from bpc.posterior import Posterior
from bpc.samplers import ExactSettings
from bpc.samplers.adaptation import WarmupConfig, warmed_up
from bpc.samplers.hmc import HMCConfig, hmc
from bpc.samplers.kim2022_presets import SamplingPreset
from bpc.seeding import derive_seed
from evaluation.chains import run_chains
from evaluation.diagnostics import diagnose, to_inference_data
from evaluation.exact_chains import TRACKED
from evaluation.fidelity import fidelity
from evaluation.metrics import compute, empty_sums, update
from evaluation.monte_carlo import leave_one_out
from evaluation.predictive import Predictive, pick_images
from evaluation.protocols import (
    ChainPlan,
    exact_plan,
    exact_posterior,
    kim2022_density,
    kim2022_plan,
    kim2022_settings,
    mean_cross_entropy,
)

__all__ = ["CLAIMED", "LENGTH", "STAIRCASE", "STEPS", "ChainStudy", "chain_rows"]

STAIRCASE, LENGTH = "staircase", "length"  # the two parts
STEPS = ("published", "start", "rule", "norm", "length", "weights")
CLAIMED = "claimed density, exact HMC"


@dataclass(frozen=True, kw_only=True)
class ChainStudy:
    """Settings.

    Attributes:
        protocol: whose settings the published chain has: ``kim2022``, or ``kim2022-scaled`` for a network that is smaller than
            the published one.
        chains: of every step; each gives one predictive.
        lengths: of the published chain, in multiples of its iterations.
        exact: of the last two steps and, with `claimed_samples`, of the claimed density.
        claimed_warmup, claimed_samples: draws of the claimed density, of `exact.leapfrog_steps` leapfrogs.
        test_images: how many, evenly spaced; 0 is all.
    """

    protocol: str = "kim2022-scaled"
    chains: int = 8
    lengths: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0)
    exact: ExactSettings = field(default_factory=lambda: ExactSettings(chains=8))
    claimed_warmup: int = 300
    claimed_samples: int = 300
    test_images: int = 0

    def __post_init__(self) -> None:
        if self.chains < 2 or self.exact.chains != self.chains:
            raise ConfigError(
                f"A Monte Carlo error needs two chains or more, as many of every kind; got {self.chains} published and "
                f"{self.exact.chains} exact ones."
            )
        if not self.lengths or min(self.lengths) <= 0 or min(self.claimed_samples, self.exact.samples) < 4:
            raise ConfigError(
                "Lengths must be positive and exact chains have 4 samples or more, since diagnostics halve them."
            )


class _Step(NamedTuple):
    """One way of sampling."""

    part: str
    name: str
    plan: ChainPlan
    leapfrogs: int  # per draw
    length: float = math.nan  # of a published chain, in multiples of its own


def chain_rows(
    network: Network,
    dataset: Dataset,
    coreset: Pseudocoreset,
    study: ChainStudy,
    *,
    seed: int,
    reference: Tensor | None = None,
    report: Callable[[str], None] = lambda note: None,
) -> pd.DataFrame:
    """Both parts for one coreset: a row for each step and chain.

    Args:
        network, dataset, coreset: what is sampled; the test split is scored.
        study: settings.
        seed: of the chains; the same ones in every step.
        reference: (n, y), the predictive of the full data's posterior on the images that `study.test_images` picks.
        report: called with what is being sampled.

    Returns:
        part, step, length (in published lengths; nan for exact chains), iterations, leapfrogs (of the whole chain), chain,
        accuracy, nll, ece, tv (to the reference; nan without one), tv_claimed (to the claimed density's predictive, all its
        chains pooled, and of its own chains to the others; nan in the staircase), and of all chains of the step: acceptance, rms
        (of a parameter at the last draw), conditioning_ce (mean over draws), rhat and ess (of predictions, 95 %; nan below 4
        draws).
    """
    split = pick_images(dataset.test, study.test_images)
    seeds = [derive_seed(seed, "chain", c) for c in range(study.chains)]
    published = kim2022_settings(study.protocol, "hmc", coreset.ipc, network.num_params)
    found: list[pd.DataFrame] = []
    truth: Tensor | None = None
    for step in _steps(network, dataset, coreset, published, study):
        report(f"{step.part}: {step.name}")
        recorder = _Recorder(network, dataset, split, step.plan, study.chains)
        run_chains(
            step.plan,
            recorder,
            seeds=seeds,
            num_params=network.num_params,
            device=split.images.device,
            checkpoint=None,
            checkpoint_seconds=math.inf,
            config_hash="",
            report=lambda done, note: None,
        )
        probs = recorder.predictive.probs
        if step.name == CLAIMED:
            truth, others = probs.mean(0), leave_one_out(probs)
        frame = pd.DataFrame(
            {k: v.tolist() for k, v in compute(update(empty_sums((len(probs),)), probs, split.labels)).items()}
        )
        frame = frame.drop(columns="brier").assign(
            tv=math.nan if reference is None else fidelity(probs, reference.to(probs)).tv.tolist(),
            tv_claimed=math.nan
            if truth is None
            else fidelity(probs, others if step.name == CLAIMED else truth).tv.tolist(),
            **recorder.of_all(),
        )
        names = {
            "part": step.part, "step": step.name, "length": step.length, "iterations": step.plan.iterations,
            "leapfrogs": step.plan.iterations * step.leapfrogs, "chain": range(study.chains),
        }  # fmt: skip
        found.append(frame.assign(**names))
    rows = pd.concat(found, ignore_index=True)
    order = ["part", "step", "length", "iterations", "leapfrogs", "chain"]
    return rows[[*order, *(name for name in rows if name not in order)]]


def _steps(
    network: Network, dataset: Dataset, coreset: Pseudocoreset, published: SamplingPreset, study: ChainStudy
) -> Iterator[_Step]:
    """The staircase, then the claimed density and the published chain by length. Table 3's draws are kept from its burn-in on."""
    device = dataset.test.images.device
    points, labels, weights = coreset.points.to(device), coreset.labels.to(device), coreset.weights.to(device)
    m, p, exact = len(labels), network.num_params, study.exact
    mean_ce = mean_cross_entropy(network, points, labels, weights)
    claimed = kim2022_density(mean_ce, m, published.penalty)

    def posterior(total: float) -> Posterior:
        return exact_posterior(network, points, labels, weights * (total / float(weights.sum())), exact)

    def chain(settings: SamplingPreset) -> ChainPlan:
        return kim2022_plan("hmc", network, points, labels, weights, settings, None)

    plan, here, full = chain(published), posterior(m), posterior(len(dataset.train))
    textbook = HMCConfig(step_size=published.step_size, leapfrog_steps=published.leapfrog_steps)
    plans = {
        "published": plan,
        "start": (started := plan._replace(start=here.prior.draw)),
        "rule": started._replace(kernel=hmc(claimed, textbook)),
        "norm": started._replace(kernel=hmc(here, textbook)),
        "length": exact_plan(here, exact),
        "weights": exact_plan(full, exact),
    }
    for name in STEPS:
        per_draw = exact.leapfrog_steps if name in ("length", "weights") else published.leapfrog_steps
        yield _Step(STAIRCASE, name, plans[name]._replace(cross_entropy=plan.cross_entropy), per_draw)

    # units in which the factor exp(-M lambda ||theta||) is about N(0, 1): in many dimensions its norm hardly varies
    width = math.sqrt(p) / (m * published.penalty) if published.penalty else exact.prior_std
    config = HMCConfig(
        step_size=exact.step_size, leapfrog_steps=exact.leapfrog_steps, momentum_scale=1.0 / width, jitter=0.1
    )
    warmup = WarmupConfig(warmup=study.claimed_warmup, target=exact.target, adapt_mass=False, pooled=study.chains)
    total = study.claimed_warmup + study.claimed_samples
    yield _Step(
        LENGTH,
        CLAIMED,
        ChainPlan(
            warmed_up(hmc(claimed, config), claimed, warmup),
            lambda noise: width * noise,
            total,
            study.claimed_warmup,
            cross_entropy=plan.cross_entropy,
        ),
        exact.leapfrog_steps,
    )
    for length in study.lengths:
        iterations = max(2, round(length * published.iterations))
        burn_in = min(round(length * published.burn_in), iterations - 1)
        longer = chain(dataclasses.replace(published, iterations=iterations, burn_in=burn_in))
        yield _Step(LENGTH, f"published x {length:g}", longer, published.leapfrog_steps, length)


class _Recorder:
    """Predictive, fit and traces of k chains; nothing of it survives a kill, since a step takes a minute or two."""

    def __init__(self, network: Network, dataset: Dataset, split: Split, plan: ChainPlan, chains: int) -> None:
        self.plan, self.network = plan, network
        self.predictive = Predictive(network, dataset, split, chains)
        tracked = pick_images(split, TRACKED)
        self.images, self.labels = dataset.normalise(tracked.images), tracked.labels
        self.predictions: list[Tensor] = []
        self.fits: list[Tensor] = []
        self.densities: list[Tensor] = []
        self.accepted: list[Tensor] = []
        self.rms = math.nan

    @torch.no_grad()
    def add(self, state: Any, info: Any) -> None:
        params = state.params
        self.predictive.add(params)
        index = self.labels.view(1, -1, 1).expand(len(params), -1, 1)
        self.predictions.append(self.network(params, self.images).double().softmax(-1).gather(-1, index).squeeze(-1))
        assert self.plan.cross_entropy is not None
        self.fits.append(self.plan.cross_entropy(params))
        self.densities.append(state.log_density)
        self.accepted.append(info.accept_prob)
        self.rms = float(params.double().square().mean().sqrt())

    def of_all(self) -> dict[str, float]:
        """What is said of all chains of a step together."""
        known = {
            "acceptance": float(torch.stack(self.accepted).double().mean()),
            "rms": self.rms,
            "conditioning_ce": float(torch.stack(self.fits).double().mean()),
        }
        if len(self.fits) < 4:
            return {**known, "rhat": math.nan, "ess": math.nan}
        data = to_inference_data(
            log_density=torch.stack(self.densities, 1).cpu(), predictions=torch.stack(self.predictions, 1).cpu()
        )
        found = diagnose(data)
        return {**known, "rhat": found.rhat_predictions, "ess": found.ess_bulk_predictions}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        raise NotImplementedError("steps of the study are not checkpointed")
