"""A tiny ConvNet problem in double precision."""

import pytest
import torch

from bpc.divergences import ExpertWindow, LearnedCoreset, RealBatch
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig


@pytest.fixture
def small():
    """(log-likelihood, coreset of 6 images, window of 3 snapshots, batch of 20), double precision, 4 classes."""
    generator = torch.Generator().manual_seed(5)
    net = ConvNet(ConvNetConfig(width=6, depth=2, activation="tanh"), (3, 8, 8), 4)
    start = net.init(1, generator)[0].double()
    drift = 0.05 * torch.randn(2, net.num_params, generator=generator, dtype=torch.float64)
    window = ExpertWindow(torch.stack([start, start + drift[0], start + drift[0] + drift[1]]))

    def images(n):
        return torch.randn(n, 3, 8, 8, generator=generator, dtype=torch.float64)

    coreset = LearnedCoreset(
        points=images(6),
        labels=torch.tensor([0, 0, 1, 1, 2, 3]),
        weights=0.5 + torch.rand(6, generator=generator, dtype=torch.float64),
        extras={"student_lr": torch.tensor(0.07, dtype=torch.float64)},
    )
    real = RealBatch(images(20), torch.randint(4, (20,), generator=generator), 500)
    return Classifier(net), coreset, window, real
