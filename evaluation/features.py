"""Features and logits of a trained network, for selection."""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.data import Dataset
from bpc.models import Network

__all__ = ["trained_features", "trained_logits"]


@torch.no_grad()
def trained_features(network: Network, params: Tensor, dataset: Dataset, batch: int = 500) -> Tensor:
    """The inputs of the last layer for every training image, (n, d) on the CPU.

    Args:
        network: the classifier.
        params: (1, p), trained.
        dataset: on the device to use.
    """
    parts = [
        network.features(params, dataset.normalise(images))[0].cpu() for images in dataset.train.images.split(batch)
    ]
    return torch.cat(parts)


@torch.no_grad()
def trained_logits(network: Network, params: Tensor, dataset: Dataset, batch: int = 500) -> Tensor:
    """Logits of every training image, (n, y) on the CPU.

    Args:
        network: the classifier.
        params: (1, p), trained.
        dataset: on the device to use.
    """
    return torch.cat([network(params, dataset.normalise(x))[0].cpu() for x in dataset.train.images.split(batch)])
