"""Shapes and sizes of the three networks, and initial weights that depend on the seed alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bpc.ebm.model import EBMConfig, LatentEBM
from bpc.ebm.networks import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, EnergyMLP, WideResNet, build_encoder, build_generator
from bpc.errors import ConfigError

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 16, 16), (1, 5, 7)]


def count(module):
    return sum(p.numel() for p in module.parameters())


def images(n, shape, seed=0):
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape):
    encoder, generator = build_encoder(shape, 3, 1), build_generator(shape, 3, 1)
    with torch.no_grad():
        mean, log_var = encoder(images(2, shape))
        made = generator(1e5 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    assert mean.shape == log_var.shape == (2, 3)
    assert made.shape == (4, *shape)
    assert float(made.min()) >= 0 and float(made.max()) <= 1
    assert float(made.max() - made.min()) > 0.5  # far-out latents reach both ends: the range is the sigmoid's


@pytest.mark.parametrize("shape", SHAPES)
def test_no_image_depends_on_its_neighbours(shape):
    """Also while training, where batch normalisation would mix them; and the two moments do depend on the image."""
    model = LatentEBM(EBMConfig(latent=3, hidden=8, width=1), shape, 4, 0).train()
    x, others = images(3, shape), images(3, shape, seed=1)
    with torch.no_grad():
        beside = model.encoder(x)
        elsewhere = model.encoder(torch.cat([x[:1], others[1:]]))
        alone = model.encoder(x[:1])
        drawn = model.generator(torch.eye(3)), model.generator(torch.eye(3)[:1])
    for a, b, c in zip(beside, elsewhere, alone, strict=True):
        torch.testing.assert_close(a[0], b[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a[0], c[0], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(a[0], a[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(drawn[0][:1], drawn[1], rtol=1e-4, atol=1e-5)


def wide_resnet_size(depth, width, c_in):
    """By hand, from the paper's Table 1: 3x3 convolutions without bias, a 1x1 one where width or size change, two numbers
    a normalised channel.
    """
    total, c, n = 9 * c_in * 16, 16, (depth - 4) // 6
    for stage in (16, 32, 64):
        c_out = stage * width
        for _ in range(n):
            total += 2 * c + 9 * c * c_out + 2 * c_out + 9 * c_out * c_out
            total += c * c_out if c != c_out else 0
            c = c_out
    return total + 2 * c


@pytest.mark.parametrize(("depth", "width", "c_in"), [(28, 2, 3), (16, 4, 1), (10, 2, 3)])
def test_wide_resnet_has_as_many_parameters_as_published(depth, width, c_in):
    net = WideResNet(c_in, depth=depth, width=width)
    assert count(net) == wide_resnet_size(depth, width, c_in)
    assert net.features == 64 * width


def test_the_published_wrn_28_2():
    """1.5 M: 1,467,610 with the ten-class layer that is not here."""
    assert count(WideResNet(3)) + 128 * 10 + 10 == 1_467_610
    assert count(build_encoder((3, 32, 32), 100, 2)) == 1_467_610 - 1290 + 128 * 200 + 200


def test_energy_has_three_layers():
    net = EnergyMLP(4, 8, 10)
    assert count(net) == (4 * 8 + 8) + (8 * 8 + 8) + (8 * 10 + 10)
    assert net(torch.zeros(2, 5, 4)).shape == (2, 5, 10)


def test_the_generator_of_dcgan():
    """Four transposed 4x4 convolutions, each with a bias."""
    sizes = [7, 256, 128, 64, 3]
    expected = sum(16 * a * b + b for a, b in pairwise(sizes))
    assert count(build_generator((3, 32, 32), 7, 1)) == expected


def test_log_variances_are_kept_within_bounds():
    encoder = build_encoder((1, 4, 4), 2, 1)
    with torch.no_grad():
        encoder.head.weight.zero_()
        encoder.head.bias.copy_(torch.tensor([100.0, -100.0, 100.0, -100.0]))
        mean, log_var = encoder(images(1, (1, 4, 4)))
    assert mean.tolist() == [[100.0, -100.0]]
    assert log_var.tolist() == [[MAX_LOG_VARIANCE, MIN_LOG_VARIANCE]]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_initial_weights_depend_on_the_seed_alone(shape):
    made = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        made.append(LatentEBM(EBMConfig(latent=3, hidden=8, width=1), shape, 4, seed).state_dict())
    assert all(torch.equal(made[0][k], made[1][k]) for k in made[0])
    matrices = [k for k, v in made[0].items() if v.ndim > 1]
    assert all(not torch.equal(made[0][k], made[2][k]) for k in matrices)
    assert len({float(made[0][k].flatten()[0]) for k in matrices}) == len(matrices)  # no two layers share their draws


@pytest.mark.parametrize("wrong", [{"depth": 27}, {"depth": 26}, {"width": 0}])
def test_wide_resnets_that_do_not_exist(wrong):
    with pytest.raises(ConfigError, match="6 k"):
        WideResNet(3, **wrong)


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"hidden": 0}, {"width": 0}, {"sigma": 0.0}, {"sigma": -1.0}])
def test_sizes_that_do_not_exist(wrong):
    with pytest.raises(ConfigError, match="sizes of at least 1"):
        EBMConfig(**wrong)
