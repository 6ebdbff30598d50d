"""Sample posteriors exactly, several chains for each seed, and keep what a statistician asks for: predictives and traces.

Samples are not kept: each enters the predictive of every set of inputs and a trace of a few numbers, and is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpc.budget import exact_pairs_at_once
from bpc.coreset import Pseudocoreset
from bpc.data import Dataset, Split
from bpc.errors import ConfigError
from bpc.models import Network
from bpc.posterior import Posterior
from bpc.seeding import ChainGenerators, derive_seed
from evaluation.chains import run_chains
from evaluation.inputs import Inputs
from evaluation.predictive import Predictive, pick_images
from evaluation.protocols import ExactSettings, exact_plan, exact_posterior

__all__ = [
    "ESTIMATES",
    "TRACKED",
    "ExactConfig",
    "ExactResult",
    "Traces",
    "chain_seeds",
    "sample_exact",
    "sample_posterior",
    "spread",
]

ESTIMATES = ("swap_rate_min", "barrier", "log_evidence")  # of the run so far; tempering and SMC make them
TRACKED = 64  # test images whose predicted probability is traced draw by draw
TRACKED_WEIGHTS = 64  # parameters likewise, evenly spaced


@dataclass(frozen=True, kw_only=True)
class ExactConfig:
    """What is sampled and asked.

    Attributes:
        protocol: ``exact`` takes a coreset's weights as they are, ``exact-scaled`` makes them sum to the number of training
            images.
        settings: sampler, chains, draws, prior.
        test_images: how many of the test set, evenly spaced; 0 is all of it.
    """

    protocol: str = "exact"
    settings: ExactSettings = field(default_factory=ExactSettings)
    test_images: int = 0

    @property
    def sampler(self) -> str:
        """As rows name it."""
        return self.settings.label

    def record(self) -> dict[str, Any]:
        """What a configuration hash should cover."""
        return {"protocol": self.protocol, "test_images": self.test_images, **self.settings.record()}


class Traces(NamedTuple):
    """Draw by draw, c chains of one posterior and s draws, on the CPU."""

    log_density: Tensor  # (c, s) nats
    prediction: Tensor  # (c, s, t), probability of the true label of t test images
    accept_prob: Tensor  # (c, s)
    diverged: Tensor  # (c, s) bool
    energy: Tensor  # (c, s) nats; nan where the sampler has none
    step_size: Tensor  # (c, s)
    leapfrogs: Tensor  # (c, s)
    heat: Tensor  # (c, s), excess temperature of noisy gradients, as a fraction; nan where they have no noise
    cross_entropy: Tensor  # (c, s) nats per unit of weight, on the points that the posterior is conditioned on
    weight: Tensor  # (c, s, w), some of the parameters
    # estimates from the run up to a draw, nan where the sampler makes none
    swap_rate_min: Tensor  # (c, s), of the pair of neighbouring temperatures that swaps least, fraction
    barrier: Tensor  # (c, s), communication barrier of parallel tempering
    log_evidence: Tensor  # (c, s) nats


class ExactResult(NamedTuple):
    """One posterior, sampled."""

    seed: int
    probs: dict[str, Tensor]  # by name of the inputs: (c, n, y) float32 on the CPU, one predictive for each chain
    traces: Traces
    halves: (
        Tensor  # (c, 2, t, y): mean predictive of the tracked images in the first and in the second half of each chain
    )
    draws: Tensor  # (c, d, p) on the CPU: draws that were to be kept, evenly spaced
    seconds: float


def spread(draws: int, wanted: int) -> list[int]:
    """At most `wanted` of 0 .. draws - 1, evenly spaced, the last one among them."""
    count = min(wanted, draws)
    return [(i + 1) * draws // count - 1 for i in range(count)]


def chain_seeds(seed: int, chains: int) -> list[int]:
    """Seeds of the chains of one posterior."""
    return [derive_seed(seed, "chain", c) for c in range(chains)]


class _Recorder:
    """Traces and predictives of k chains."""

    def __init__(
        self, network: Network, dataset: Dataset, posterior: Posterior, inputs: Sequence[Inputs], tracked: Split,
        settings: ExactSettings, k: int, keep: int,
    ) -> None:  # fmt: skip
        self.network, self.posterior, self.samples = network, posterior, settings.samples
        self.inputs = {i.name: Predictive(network, dataset, i.split, k) for i in inputs}
        self.chosen = spread(settings.samples, settings.predictive_draws)
        self.kept = {draw: row for row, draw in enumerate(spread(settings.samples, keep))} if keep else {}
        self.draws = torch.empty(k, len(self.kept), network.num_params)
        self.images = dataset.normalise(tracked.images)
        self.labels = tracked.labels.view(1, -1, 1).expand(k, -1, 1)
        self.done = 0
        s, t = settings.samples, len(tracked)
        self.parameters = torch.tensor(spread(network.num_params, TRACKED_WEIGHTS), device=self.images.device)
        more = {"prediction": (t,), "weight": (len(self.parameters),)}
        self.traces = {name: torch.full((k, s, *more.get(name, ())), torch.nan) for name in Traces._fields}
        self.halves = torch.zeros(k, 2, t, network.num_classes, dtype=torch.float64)
        self.traces["log_density"] = self.traces["log_density"].double()
        self.traces["energy"] = self.traces["energy"].double()
        self.traces["log_evidence"] = self.traces["log_evidence"].double()

    def add(self, state: Any, info: Any) -> None:
        """A draw of one of our kernels."""
        found = {"accept_prob": info.accept_prob, "diverged": info.diverged}
        for name in ("energy", "leapfrogs", "heat", *ESTIMATES):
            if hasattr(info, name):
                found[name] = getattr(info, name)
        if hasattr(state, "step_size"):
            found["step_size"] = state.step_size
        self.record(state.params, state.log_density, **found)

    @torch.no_grad()
    def record(self, params: Tensor, log_density: Tensor, **found: Tensor) -> None:
        """A draw (k, p) with what is known of it, (k,) each."""
        probs = self.network(params, self.images).double().softmax(-1)
        found["log_density"], found["prediction"] = log_density, probs.gather(-1, self.labels).squeeze(-1)
        found["weight"] = params[:, self.parameters]
        log_likelihood = log_density.to(params) - self.posterior.log_prior(params)
        found["cross_entropy"] = -log_likelihood / self.posterior.weights.sum(-1)
        half, middle = int(self.done >= self.samples // 2), self.samples // 2
        self.halves[:, half] += probs.cpu() / (self.samples - middle if half else middle)
        for name, value in found.items():
            self.traces[name][:, self.done] = value.to("cpu", self.traces[name].dtype)
        if self.done in self.chosen:
            for predictive in self.inputs.values():
                predictive.add(params)
        if self.done in self.kept:
            self.draws[:, self.kept[self.done]] = params.detach().cpu()
        self.done += 1

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        kept = {f"{name}/{k}": v for name, p in self.inputs.items() for k, v in p.state().items()}
        traces = {f"trace/{k}": v for k, v in self.traces.items()}
        return {**kept, **traces, "draws": self.draws, "halves": self.halves, "done": torch.tensor(self.done)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's `state`."""
        self.done, self.draws, self.halves = int(state["done"]), state["draws"], state["halves"]
        self.traces = {name: state[f"trace/{name}"] for name in self.traces}
        for name, predictive in self.inputs.items():
            predictive.load({k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(f"{name}/")})

    def results(self, seeds: Sequence[int], chains: int, seconds: float) -> Iterator[ExactResult]:
        """One for each seed; its chains lie side by side."""
        for i, seed in enumerate(seeds):
            mine = slice(i * chains, (i + 1) * chains)
            traces = {name: trace[mine] for name, trace in self.traces.items()}
            traces["diverged"] = traces["diverged"].nan_to_num() > 0
            probs = {name: p.probs[mine].float().cpu() for name, p in self.inputs.items()}
            yield ExactResult(seed, probs, Traces(**traces), self.halves[mine], self.draws[mine], seconds / len(seeds))


def sample_posterior(
    network: Network,
    dataset: Dataset,
    posterior: Posterior,
    settings: ExactSettings,
    *,
    seeds: Sequence[int],
    inputs: Sequence[Inputs],
    tracked: Split,
    keep: int = 0,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    config_hash: str = "",
    report: Callable[[int, str], None] = lambda done, note: None,
) -> Iterator[ExactResult]:
    """Sample one posterior for each seed (with `per_chain` points: each seed's own), `settings.chains` chains each.

    Args:
        network, dataset: to predict with.
        posterior: with points for len(seeds) * chains chains, or shared ones.
        settings: sampler and lengths.
        seeds: one a posterior; chain c of seed i derives from both.
        inputs: what predictives are kept of.
        tracked: images whose predicted probability is traced draw by draw, for R-hat and ESS.
        keep: draws of each chain whose weights are kept, evenly spaced.
        checkpoint, checkpoint_seconds, config_hash, report: as for `evaluation.chains.run_chains`. The backends Pyro and
            hamiltorch keep no checkpoint: a killed chain starts again.
    """
    started = time.monotonic()
    each = [s for seed in seeds for s in chain_seeds(seed, settings.chains)]
    k, device = len(each), posterior.points.device
    recorder = _Recorder(network, dataset, posterior, inputs, tracked, settings, k, keep)
    if settings.backend == "native":
        run_chains(
            exact_plan(posterior, settings),
            recorder,
            seeds=each,
            num_params=network.num_params,
            device=device,
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            config_hash=config_hash,
            report=report,
        )
    else:
        _run_backend(posterior, settings, recorder, each, network.num_params, device, report)
    yield from recorder.results(seeds, settings.chains, time.monotonic() - started)


def _run_backend(
    posterior: Posterior,
    settings: ExactSettings,
    recorder: _Recorder,
    seeds: list[int],
    num_params: int,
    device: torch.device,
    report: Callable[[int, str], None],
) -> None:
    from bpc.samplers.backends import BackendSettings, sample  # optional packages

    prior = posterior.prior
    initial = prior.draw(ChainGenerators.from_seeds(device, seeds, "chain", "init").normal(num_params))
    wanted = BackendSettings(
        sampler=settings.sampler,
        warmup=settings.warmup,
        samples=settings.samples,
        leapfrog_steps=settings.leapfrog_steps,
        # foreign kernels start from unit mass, where the narrowest parameter limits the step
        step_size=settings.step_size * float(torch.as_tensor(prior.std).min()),
        target=settings.target,
        max_tree_depth=settings.max_tree_depth,
    )
    draws = sample(
        settings.backend,
        [posterior.chain(i) for i in range(len(seeds))],
        initial,
        wanted,
        seeds=seeds,
        report=report,
    )
    for s in range(settings.samples):
        recorder.record(
            draws.params[:, s].to(device),
            draws.log_density[:, s],
            accept_prob=draws.accept_prob[:, s],
            diverged=draws.diverged[:, s],
            step_size=draws.step_size,
        )


def sample_exact(
    network: Network,
    dataset: Dataset,
    coresets: Sequence[Pseudocoreset],
    config: ExactConfig,
    *,
    seeds: Sequence[int],
    inputs: Sequence[Inputs],
    file: Callable[[str], Path] | None = None,
    checkpoint_seconds: float = 30.0,
    config_hash: str = "",
    skip: Callable[[int], bool] = lambda seed: False,
    report: Callable[[int, str], None] = lambda done, note: None,
) -> Iterator[ExactResult]:
    """Sample the posterior of a coreset (or of one coreset for each seed) and yield each seed's result when its block is done.

    Which chains share a batch, and how sums are cut, follows from network, coreset, chains and seeds (`exact_pairs_at_once`):
    the same arguments give the same bits, whatever the memory. Another list of seeds is rounded otherwise, see `Posterior`.

    Args:
        coresets: one for all seeds, or one for each; checked already, all with the same labels.
        file: names the file of a checkpoint (`Run.file`); None keeps none.
        skip: whether a seed is done already. A block is sampled again whole when one of its seeds is not, so that a resumed
            run ends with the bits of an uninterrupted one; what is skipped is not yielded.
        network, dataset, config, seeds, inputs, checkpoint_seconds, config_hash, report: as above.
    """
    if len(coresets) not in (1, len(seeds)):
        raise ConfigError(f"{len(coresets)} coresets for {len(seeds)} seeds: give one, or one for each.")
    first, chains = coresets[0], config.settings.chains
    for coreset in coresets:
        if not torch.equal(coreset.labels, first.labels):
            raise ConfigError(
                "Coresets sampled together must have the same labels in the same order; score those with soft labels one by one."
            )
    device = dataset.test.images.device
    at_once = exact_pairs_at_once(network, device)
    block = max(1, min(len(seeds), at_once // (len(first) * chains)))
    for begin in range(0, len(seeds), block):
        chosen = list(seeds[begin : begin + block])
        if all(skip(seed) for seed in chosen):
            continue
        points, weights = first.points.to(device), first.weights.to(device)
        if len(coresets) > 1:
            mine = coresets[begin : begin + block]
            points = torch.stack([c.points for c in mine]).to(device).repeat_interleave(chains, dim=0)
            weights = torch.stack([c.weights for c in mine]).to(device).repeat_interleave(chains, dim=0)
        if config.protocol == "exact-scaled":
            weights = weights * (len(dataset.train) / weights.sum(-1, keepdim=True))
        posterior = exact_posterior(
            network, points, first.labels.to(device), weights, config.settings, per_chain=len(coresets) > 1
        )
        checkpoint = None if file is None else file(f"chains-{config_hash}-{chosen[0]}-{chosen[-1]}.safetensors")
        before = begin * chains * (config.settings.warmup + config.settings.samples)
        results = sample_posterior(
            network,
            dataset,
            posterior,
            config.settings,
            seeds=chosen,
            inputs=inputs,
            tracked=pick_images(inputs[0].split, TRACKED),
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            config_hash=config_hash,
            report=lambda done, note, before=before: report(before + done, note),  # type: ignore[misc]
        )
        yield from (result for result in results if not skip(result.seed))
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
