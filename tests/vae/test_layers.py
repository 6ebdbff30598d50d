"""Gated layers by their formula, masks by hand, Glorot's bounds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bpc.vae.layers import GatedConv2d, GatedLinear, LogVariance, MaskedConv2d, glorot_


def test_gated_linear():
    layer = GatedLinear(3, 2)
    x = torch.randn(5, 3)
    first, second = x @ layer.both.weight[:2].T + layer.both.bias[:2], x @ layer.both.weight[2:].T + layer.both.bias[2:]
    torch.testing.assert_close(layer(x), first * second.sigmoid())


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 6), (3, 2, 3), (7, 1, 6), (5, 1, 6)])
def test_gated_convolution(kernel, stride, side):
    layer = GatedConv2d(2, 4, kernel, stride)
    x = torch.randn(3, 2, 6, 6)
    both = nn.functional.conv2d(x, layer.both.weight, layer.both.bias, stride, kernel // 2)
    found = layer(x)
    assert found.shape == (3, 4, side, side)
    torch.testing.assert_close(found, both[:, :4] * both[:, 4:].sigmoid())


def test_log_variance_is_bounded():
    layer = LogVariance(1, 1)
    with torch.no_grad():
        layer.linear.weight.fill_(1.0)
        layer.linear.bias.fill_(0.0)
    assert layer(torch.tensor([[-9.0], [0.5], [9.0]])).flatten().tolist() == [-6.0, 0.5, 2.0]


@pytest.mark.parametrize(("kind", "centre"), [("A", 0), ("B", 1)])
def test_masked_convolution(kind, centre):
    layer = MaskedConv2d(kind, 1, 1, 3)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(0.0)
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 1.0
    seen_by = [[0, 0, 0], [0, centre, 1], [1, 1, 1]]  # which outputs see the pixel in the middle
    assert layer(x)[0, 0].tolist() == seen_by


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (nn.Linear(20, 40), 60),
        (nn.Conv2d(4, 8, 5), 25 * 12),
        (nn.ConvTranspose2d(4, 8, 5), 25 * 12),
        (GatedLinear(20, 40), 60),
        (GatedConv2d(4, 8, 3), 9 * 12),
        (MaskedConv2d("A", 4, 8, 7), 49 * 12),
    ],
)
def test_glorot(layer, fans):
    glorot_(layer, torch.Generator().manual_seed(0))
    weight = getattr(layer, "both", layer).weight.detach()
    bound = (6.0 / fans) ** 0.5
    assert 0.97 * bound < float(weight.abs().max()) <= bound
    assert float(weight.var()) == pytest.approx(bound**2 / 3, rel=0.15)
    assert float(getattr(layer, "both", layer).bias.detach().abs().max()) == 0.0
    first = weight.clone()
    glorot_(layer, torch.Generator().manual_seed(0))
    assert torch.equal(weight, first)
