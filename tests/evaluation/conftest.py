"""A network, a coreset and inputs small enough for every test."""

import pytest
import torch
from exact_scoring import random_coreset

from bpc.models import ConvNet, ConvNetConfig
from evaluation.inputs import Inputs, every_corruption, foreign, mixed_corruptions
from evaluation.predictive import pick_images


@pytest.fixture
def net():
    return ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)


@pytest.fixture
def coreset(digits):
    return random_coreset(digits, 0)


@pytest.fixture
def inputs(digits):
    test = Inputs("test", pick_images(digits.test, 40))
    shifted = [(c, s, digits.test.take(torch.arange(5 * s, 5 * s + 20))) for c in ("fog", "frost") for s in (1, 2)]
    return [test, mixed_corruptions(shifted, 12), foreign(test.split, digits), *every_corruption(shifted, 6)]
