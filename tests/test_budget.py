"""The memory budget: what a pair costs, how many fit."""

import pytest
import torch

from bpc.budget import WORKING, bytes_per_pair, default_budget, exact_pairs_at_once, pairs_at_once
from bpc.errors import ConfigError
from bpc.models import ConvNet, ConvNetConfig

CPU = torch.device("cpu")


def test_a_pair_keeps_what_its_layers_keep():
    width, side = 8, 16
    net = ConvNet(ConvNetConfig(width=width, depth=2), (3, side, side), 10)
    # of each block the convolution's input and output, the norm's output and its two moments; then features and logits
    expected = 0
    for channels, s in ((3, side), (width, side // 2)):
        expected += channels * s * s + 2 * width * s * s + 2 * width
    expected += width * (side // 4) ** 2 + 10
    got = bytes_per_pair(net, CPU)
    assert got == pytest.approx(4 * expected, rel=0.02)
    assert 1.5 * got < bytes_per_pair(net, CPU, second_order=True) < 4 * got


def test_pairs_follow_the_budget_and_the_network():
    small, large = (ConvNet(ConvNetConfig(width=w, depth=2), (1, 8, 8), 10) for w in (8, 32))
    assert pairs_at_once(small, CPU, 1.0) == pytest.approx(4 * pairs_at_once(small, CPU, 0.25), rel=1e-3)
    assert pairs_at_once(small, CPU) > 3 * pairs_at_once(large, CPU)
    assert pairs_at_once(large, CPU, 1e-9) == 1
    assert pairs_at_once(large, CPU) == pairs_at_once(large, CPU, default_budget(CPU) / 2**30)
    with pytest.raises(ConfigError, match="memory budget"):
        pairs_at_once(small, CPU, 0.0)


def test_exact_pieces_are_small_on_the_cpu():
    """Activations of a piece take 64 MiB for any network: what was measured to be fastest."""
    for width, shape in ((8, (1, 8, 8)), (32, (1, 8, 8)), (32, (3, 32, 32))):
        net = ConvNet(ConvNetConfig(width=width, depth=2), shape, 10)
        pairs = exact_pairs_at_once(net, CPU)
        assert pairs * WORKING * bytes_per_pair(net, CPU) == pytest.approx(64 * 2**20, rel=0.02)
