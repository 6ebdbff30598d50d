"""The posterior object: its pieces, its minibatches, its chains."""

import pytest
import torch

from bpc.errors import ConfigError
from bpc.likelihood import LinearRegression
from bpc.posterior import ControlVariates, Posterior
from bpc.samplers import value_and_grad
from bpc.seeding import ChainGenerators
from bpc.weight_prior import isotropic

LIKELIHOOD = LinearRegression(0.5)


def make(k=0, m=7, **options):
    g = torch.Generator().manual_seed(1)
    shape = (k, m, 4) if k else (m, 4)
    points = torch.randn(shape, generator=g, dtype=torch.float64)
    weights = torch.rand(m, generator=g, dtype=torch.float64) + 0.5
    labels = torch.zeros(m, dtype=torch.long)
    return Posterior(LIKELIHOOD, points, labels, weights, prior=isotropic(0.7), per_chain=bool(k), **options)


def test_against_torch_distributions():
    posterior, params = make(), torch.randn(2, 3, dtype=torch.float64)
    for value, theta in zip(posterior(params), params, strict=True):
        x, y = posterior.points[:, :3], posterior.points[:, 3]
        log_lik = torch.distributions.Normal(x @ theta, 0.5).log_prob(y)
        prior = torch.distributions.Normal(torch.zeros(3).double(), 0.7)
        shift = prior.log_prob(torch.zeros(3).double()).sum()  # the constant that is left out
        assert float(value) == pytest.approx(
            float((posterior.weights * log_lik).sum() + prior.log_prob(theta).sum() - shift)
        )


@pytest.mark.parametrize("k", [0, 2])
def test_pieces_give_the_same_gradient(k):
    params = torch.randn(2, 3, dtype=torch.float64)
    whole = value_and_grad(make(k), params)
    pieces = value_and_grad(make(k, points_at_once=3), params)
    torch.testing.assert_close(pieces, whole)


def test_chain_of_its_own():
    posterior, params = make(3), torch.randn(3, 3, dtype=torch.float64)
    for i in range(3):
        torch.testing.assert_close(posterior.chain(i)(params[i : i + 1]), posterior(params)[i : i + 1])


@pytest.mark.parametrize("k", [0, 2])
def test_minibatches_are_unbiased(k):
    posterior, params = make(k), torch.randn(2, 3, dtype=torch.float64)
    generators = ChainGenerators.from_seeds("cpu", [0, 1])
    anchor = params + 0.3
    variates = ControlVariates(posterior, 4)
    _, at_anchor = variates.exact(anchor)
    draws = torch.stack([variates.estimate(params, anchor, at_anchor, generators) for _ in range(3000)])
    error = draws.std(0) / 3000**0.5
    expected = value_and_grad(posterior, params)[1]
    assert float(((draws.mean(0) - expected).abs() / error).max()) < 4.5
    # at the anchor itself there is no noise, and away from it less than without an anchor
    torch.testing.assert_close(variates.estimate(anchor, anchor, at_anchor, generators), at_anchor)


def test_weights_of_each_chain():
    """k coresets that differ in their weights as well: every way to the density is that of each alone."""
    g = torch.Generator().manual_seed(2)
    points, labels = torch.randn(2, 7, 4, generator=g, dtype=torch.float64), torch.zeros(7, dtype=torch.long)
    weights = torch.rand(2, 7, generator=g, dtype=torch.float64) + 0.5
    together = Posterior(LIKELIHOOD, points, labels, weights, prior=isotropic(0.7), per_chain=True, points_at_once=3)
    params = torch.randn(2, 3, generator=g, dtype=torch.float64)
    alone = [Posterior(LIKELIHOOD, points[i], labels, weights[i], prior=isotropic(0.7)) for i in range(2)]
    expected = torch.cat([one(params[i : i + 1]) for i, one in enumerate(alone)])
    torch.testing.assert_close(together(params), expected)
    value, gradient = together.value_and_gradient(params)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, value_and_grad(together, params)[1])
    for i in range(2):
        torch.testing.assert_close(together.chain(i)(params[i : i + 1]), expected[i : i + 1])
    generators = ChainGenerators.from_seeds("cpu", [0, 1])
    variates, anchor = ControlVariates(together, 4), params - 0.2
    _, at_anchor = variates.exact(anchor)
    draws = torch.stack([variates.estimate(params, anchor, at_anchor, generators) for _ in range(2000)])
    assert float(((draws.mean(0) - gradient).abs() / (draws.std(0) / 2000**0.5)).max()) < 4.5
    with pytest.raises(ConfigError, match="do not fit"):
        Posterior(LIKELIHOOD, points[0], labels, weights, prior=isotropic(1.0))


def test_errors():
    with pytest.raises(ConfigError, match="do not fit"):
        Posterior(LIKELIHOOD, torch.zeros(3, 4), torch.zeros(2, dtype=torch.long), torch.ones(2), prior=isotropic(1.0))
    with pytest.raises(ConfigError, match="must be positive"):
        make()
        Posterior(LIKELIHOOD, torch.zeros(2, 4), torch.zeros(2, dtype=torch.long), torch.ones(2), prior=isotropic(0.0))
