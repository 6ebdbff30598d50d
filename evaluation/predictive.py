"""The posterior predictive on a test set, streamed: posterior samples come one at a time and none is kept. And its file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bpc.data import Dataset, Split
from bpc.files import save_tensors
from bpc.models import Network
from bpc.runs import Run
from evaluation.metrics import Kim2022Nll, compute, ece_kim2022, empty_sums, update
from evaluation.rows import PosteriorKey

if TYPE_CHECKING:
    from evaluation.inputs import Inputs

__all__ = ["PREDICTIVE_FORMAT", "Predictive", "chain_tensors", "pick_images", "predictive_tensors", "save_predictive"]

PREDICTIVE_FORMAT = "bpc-predictive-1"
TEST_BATCH = 500  # images per forward pass; changes memory, not the result


def pick_images(split: Split, count: int) -> Split:
    """`count` images evenly spaced over the split (all of them for 0): every class stays present in sorted data."""
    if count <= 0 or count >= len(split):
        return split
    index = torch.linspace(0, len(split) - 1, count).round().long()
    return split.take(index.to(split.images.device))


class Predictive:
    """Running mean over posterior samples of softmax(logits), for k chains.

    Args:
        network: the classifier.
        dataset: normalises the images.
        split: the test images, n of them.
        chains: k.
    """

    def __init__(self, network: Network, dataset: Dataset, split: Split, chains: int) -> None:
        self.network, self.dataset, self.split = network, dataset, split
        device = split.images.device
        n, y = len(split), dataset.num_classes
        self._sum = torch.zeros(chains, n, y, dtype=torch.float64, device=device)
        self._kim = Kim2022Nll.empty(n, (chains,), device=device)
        self.samples = 0

    @torch.no_grad()
    def add(self, params: Tensor) -> None:
        """Take in one posterior sample of each chain, (k, p)."""
        losses = []
        for first in range(0, len(self.split), TEST_BATCH):
            part = slice(first, first + TEST_BATCH)
            logits = self.network(params, self.dataset.normalise(self.split.images[part])).double()
            log_probs = logits.log_softmax(-1)
            self._sum[:, part] += log_probs.exp()
            index = self.split.labels[part].view(1, -1, 1).expand(len(params), -1, 1)
            losses.append(-log_probs.gather(-1, index).squeeze(-1))
        self._kim = self._kim.update(torch.cat(losses, dim=1))
        self.samples += 1

    @property
    def probs(self) -> Tensor:
        """(k, n, y) float64: p(y | x), the mean over samples of the softmax."""
        return self._sum / max(self.samples, 1)

    def metrics(self, *, kim2022: bool) -> dict[str, Tensor]:
        """Each metric of each chain, (k,); with the `_kim2022` variants where asked for."""
        probs = self.probs
        found = compute(update(empty_sums((len(probs),), device=probs.device), probs, self.split.labels))
        if kim2022:
            found["nll_kim2022"] = self._kim.compute()
            found["ece_kim2022"] = ece_kim2022(probs, self.split.labels)
        return found

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        kim = {f"kim.{k}": v for k, v in self._kim._asdict().items()}
        return {"sum": self._sum, "samples": torch.tensor(self.samples), **kim}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's `state`."""
        device = self._sum.device
        self._sum = state["sum"].to(device)
        self.samples = int(state["samples"])
        self._kim = Kim2022Nll(**{k: state[f"kim.{k}"].to(device) for k in Kim2022Nll._fields})


def predictive_tensors(probs: dict[str, Tensor], inputs: Sequence[Inputs]) -> dict[str, Tensor]:
    """A predictive (n, y) of each of the inputs with their labels, under the names that a predictive's file has.

    The first of the inputs is the test set: ``probs`` and ``labels``; another is ``probs_fog-3`` and ``labels_fog-3``.
    """
    named = {f"_{i.name}" if place else "": i for place, i in enumerate(inputs)}
    tensors = {f"probs{ending}": probs[i.name] for ending, i in named.items()}
    return tensors | {f"labels{ending}": i.split.labels.cpu().clone() for ending, i in named.items()}


def chain_tensors(probs: dict[str, Tensor], inputs: Sequence[Inputs]) -> dict[str, Tensor]:
    """The predictives (c, n, y) of single chains under the names that a predictive's file has: ``chains``, ``chains_foreign``.

    They are what Monte Carlo errors are computed from. Single corruptions (``fog-3``) are left out: 75 of them, and no error of
    theirs is reported.
    """
    named = {f"_{i.name}" if place else "": i for place, i in enumerate(inputs) if "-" not in i.name}
    return {f"chains{ending}": probs[i.name] for ending, i in named.items()}


def save_predictive(run: Run, dataset: str, key: PosteriorKey, seed: int, tensors: dict[str, Tensor]) -> None:
    """Write ``predictive-*.safetensors`` in the run's folder: `tensors` as `predictive_tensors` and `chain_tensors` name them."""
    about = {"dataset": dataset, **{name: str(value) for name, value in key._asdict().items()}}
    save_tensors(
        run.file(f"predictive-{key.method}-{key.sampler}-{key.protocol}-{seed}.safetensors"),
        tensors,
        {"format": PREDICTIVE_FORMAT, "config_hash": run.hash, "seed": str(seed), **about},
    )
