"""The fused functions against torch's own: values, first and second derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from bpc.models import ConvNet, ConvNetConfig
from bpc.models.fused import conv3x3, norm_relu_pool, pool2x2
from bpc.seeding import make_generator


def draws(*shapes, seed=0):
    generator = make_generator("cpu", seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_(True) for s in shapes]


def plain_block(x, gain, bias):
    return F.avg_pool2d(F.relu(F.group_norm(x, x.shape[1], gain, bias)), 2)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_convolution(channels):
    x, w = draws((2, channels, 5, 4), (3, channels, 3, 3))
    torch.testing.assert_close(conv3x3(x, w), F.conv2d(x, w, padding=1))
    assert gradcheck(conv3x3, (x, w))
    assert gradgradcheck(conv3x3, (x, w))


def test_norm_relu_pool():
    x, gain, bias = draws((2, 3, 4, 6), (3,), (3,))
    torch.testing.assert_close(norm_relu_pool(x, gain, bias), plain_block(x, gain, bias))
    assert gradcheck(norm_relu_pool, (x, gain, bias))
    assert gradgradcheck(norm_relu_pool, (x, gain, bias))


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 1, 2)])
def test_second_derivatives_of_some_of_the_gradients(used):
    x, gain, bias = draws((3, 2, 4, 4), (2,), (2,), seed=1)
    answers = []
    for block in (norm_relu_pool, plain_block):
        first = torch.autograd.grad(block(x, gain, bias).square().sum(), (x, gain, bias), create_graph=True)
        answers.append(torch.autograd.grad(sum(first[i].pow(3).sum() for i in used), (x, gain, bias)))
    for got, expected in zip(*answers, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_third_derivative_is_refused():
    """Against fixed directions, as here, it came back with terms missing."""
    x, gain, bias = draws((2, 3, 4, 6), (3,), (3,))
    (first,) = torch.autograd.grad(norm_relu_pool(x, gain, bias).pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, retain_graph=True)
    assert torch.isfinite(second).all()
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.autograd.grad(first.sum(), x, create_graph=True)


@pytest.mark.parametrize("size", [16, 20], ids=["even", "odd last block"])
def test_the_network_is_the_same_either_way(size):
    net = ConvNet(ConvNetConfig(width=8, depth=3), (3, size, size), 10)
    generator = make_generator("cpu", 2)
    params = net.init(2, generator) + 0.05 * torch.randn(2, net.num_params, generator=generator)
    images = torch.randn(5, 3, size, size, generator=generator)
    direction = torch.randn(params.shape, generator=generator, dtype=torch.float64)
    found = []
    for fast in (True, False):
        net._fast = fast
        theta, x = params.double().requires_grad_(True), images.double().requires_grad_(True)
        logits = net(theta, x)
        loss = F.cross_entropy(logits.flatten(0, 1), torch.arange(10) % 10)
        gradients = torch.autograd.grad(loss, (theta, x), create_graph=True)
        second = torch.autograd.grad((gradients[0] * direction).sum(), (theta, x))
        found.append([logits, *gradients, *second])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (1, 2, 5, 7)])
def test_pool(shape):
    (x,) = draws(shape)
    torch.testing.assert_close(pool2x2(x), F.avg_pool2d(x, 2))
