"""Pixel likelihoods against torch.distributions, sums over all values, and themselves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions

from bpc.errors import ConfigError
from bpc.vae.likelihoods import LIKELIHOODS, Bernoulli, DiscretisedLogistic, Gaussian, SquaredError, make_likelihood

SHAPE = (2, 3, 4)  # c, h, w


def raw_of(likelihood, *leading, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*leading, likelihood.outputs, *SHAPE, generator=generator, dtype=torch.float64)


def images(*leading, binary=False, seed=1):
    levels = 2 if binary else 256
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, levels, (*leading, *SHAPE), generator=generator).double() / (levels - 1)


def test_bernoulli_is_torchs():
    raw, x = raw_of(Bernoulli(), 5), images(5, binary=True)
    expected = distributions.Bernoulli(logits=raw[:, 0]).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli().log_prob(x, raw), expected)


def test_bernoulli_at_large_logits():
    x = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    raw = torch.full((2, 1, 1, 1, 1), 200.0)
    torch.testing.assert_close(Bernoulli().log_prob(x, raw), torch.tensor([0.0, -200.0]))


@pytest.mark.parametrize("std", [0.1, 0.7])
def test_gaussian_is_torchs(std):
    likelihood = Gaussian(std)
    raw, x = raw_of(likelihood, 5), images(5)
    expected = distributions.Normal(raw[:, 0].sigmoid(), std).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(likelihood.log_prob(x, raw), expected)


def test_squared_error_by_hand_and_as_a_gaussian():
    x = torch.tensor([[0.5, 1.0]]).view(1, 1, 1, 2)
    raw = torch.zeros(1, 1, 1, 1, 2)
    assert float(SquaredError().log_prob(x, raw)) == pytest.approx(-0.25)  # (0.5 - 0.5)^2 + (1 - 0.5)^2
    raw, x = raw_of(SquaredError(), 5), images(5)
    constant = 0.5 * math.prod(SHAPE) * math.log(math.pi)
    half = Gaussian(math.sqrt(0.5))
    torch.testing.assert_close(SquaredError().log_prob(x, raw), half.log_prob(x, raw) + constant)


def test_discretised_logistic_is_a_difference_of_cdfs():
    likelihood = DiscretisedLogistic()
    raw, x = raw_of(likelihood, 5), images(5)
    mean, scale = raw[:, 0].sigmoid(), raw[:, 1].clamp(-4.5, 0.0).exp()
    grey = (x * 255).round()
    upper = torch.where(grey == 255, 1.0, (((grey + 1) / 256 - mean) / scale).sigmoid())
    lower = torch.where(grey == 0, 0.0, ((grey / 256 - mean) / scale).sigmoid())
    torch.testing.assert_close(likelihood.log_prob(x, raw), (upper - lower).log().sum((1, 2, 3)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("log_scale", [-9.0, -4.5, -2.0, 0.0, 3.0])
def test_masses_of_the_discretised_logistic_sum_to_one(log_scale):
    likelihood = DiscretisedLogistic()
    x = (torch.arange(256).double() / 255).view(256, 1, 1, 1)
    for logit in (-6.0, -0.4, 0.0, 2.0):
        raw = torch.tensor([logit, log_scale], dtype=torch.float64).view(1, 2, 1, 1, 1)
        assert float(likelihood.log_prob(x, raw).exp().sum()) == pytest.approx(1.0, abs=1e-9)


def test_discretised_logistic_is_finite_at_the_edges():
    likelihood = DiscretisedLogistic()
    x = torch.tensor([0.0, 1.0, 0.0, 1.0, 100 / 255]).view(5, 1, 1, 1)
    raw = torch.tensor([[200.0, -50.0], [-200.0, -50.0], [0.0, 50.0], [0.0, -50.0], [200.0, -50.0]]).view(5, 2, 1, 1, 1)
    raw.requires_grad_(True)
    found = likelihood.log_prob(x, raw)
    assert torch.isfinite(found).all()
    assert (found <= 0).all()
    assert torch.isfinite(torch.autograd.grad(found.sum(), raw)[0]).all()


def test_float32_grey_levels_fall_into_their_own_bins():
    likelihood = DiscretisedLogistic()
    x = torch.arange(256, dtype=torch.float32).div(255).view(256, 1, 1, 1)
    raw = torch.tensor([0.3, -3.0]).view(1, 2, 1, 1, 1)
    expected = likelihood.log_prob(x.double(), raw.double())
    torch.testing.assert_close(likelihood.log_prob(x, raw).double(), expected, rtol=1e-4, atol=1e-4)


def test_unrounded_pixels_count_as_the_nearest_grey_level():
    likelihood = DiscretisedLogistic()
    raw = torch.tensor([0.3, -4.5], dtype=torch.float64).view(1, 2, 1, 1, 1)
    grey = torch.tensor([0.0, 0.4, 0.6, 99.6, 100.4, 254.4, 254.6, 255.0], dtype=torch.float64)
    found, rounded = (likelihood.log_prob((g / 255).view(8, 1, 1, 1), raw) for g in (grey, grey.round()))
    assert torch.equal(found, rounded)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pairwise_is_log_prob_of_every_pair(name):
    likelihood = make_likelihood(name)
    raw, x = raw_of(likelihood, 4), images(6, binary=likelihood.binary)
    found = likelihood.pairwise(x, raw)
    assert found.shape == (4, 6)
    one_by_one = [[float(likelihood.log_prob(x[j], raw[i])) for j in range(6)] for i in range(4)]
    torch.testing.assert_close(found, torch.tensor(one_by_one, dtype=torch.float64))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pairwise_pulls_images_towards_the_mean(name):
    """A pseudocoreset's pixels are learned through this gradient, so no likelihood may hide it."""
    likelihood = make_likelihood(name)
    raw = raw_of(likelihood, 3)
    x = torch.full((2, *SHAPE), 0.503, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(likelihood.pairwise(x, raw).sum(), x)
    assert (gradient.abs() > 0).all()
    step = 0.02
    with torch.no_grad():
        rise = likelihood.pairwise(x + step * gradient.sign(), raw).sum() - likelihood.pairwise(x, raw).sum()
    assert float(rise) > 0


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_and_means(name):
    likelihood = make_likelihood(name)
    raw = raw_of(likelihood, scale=0.5)
    if name == "logistic":
        raw[1] = -3.0  # so that the bounds of [0, 1] cut little off
    mean = likelihood.mean(raw)
    assert mean.shape == SHAPE and float(mean.min()) >= 0 and float(mean.max()) <= 1
    torch.testing.assert_close(mean, raw[0].sigmoid())
    many = raw.expand(20_000, *raw.shape)
    draws = likelihood.sample(many, torch.Generator().manual_seed(0))
    assert draws.shape == (20_000, *SHAPE) and float(draws.min()) >= 0 and float(draws.max()) <= 1
    assert float((draws.mean(0) - mean).abs().max()) < 0.02
    again = likelihood.sample(many, torch.Generator().manual_seed(0))
    assert torch.equal(draws, again)
    if likelihood.binary:
        assert set(draws.unique().tolist()) == {0.0, 1.0}


def test_logistic_samples_have_their_own_masses():
    likelihood = DiscretisedLogistic()
    raw = torch.tensor([0.2, -4.5], dtype=torch.float64).view(2, 1, 1, 1)
    draws = likelihood.sample(raw.expand(50_000, 2, 1, 1, 1), torch.Generator().manual_seed(0)).flatten()
    grey = (draws * 255).round()
    torch.testing.assert_close(grey / 255, draws)
    counts = torch.bincount(grey.long(), minlength=256) / len(draws)
    x = (torch.arange(256).double() / 255).view(256, 1, 1, 1)
    assert float((counts - likelihood.log_prob(x, raw).exp()).abs().max()) < 0.005


def test_unknown_name():
    with pytest.raises(ConfigError, match="likelihood"):
        make_likelihood("poisson")
