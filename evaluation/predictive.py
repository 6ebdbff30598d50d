"""The posterior predictive on a test set, streamed: posterior samples come one at a time and none is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.data import Dataset, Split
from bpc.models import Network
from evaluation.metrics import Kim2022Nll, compute, ece_kim2022, empty_sums, update

__all__ = ["Predictive", "pick_images"]

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
