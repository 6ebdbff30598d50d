"""Sums in pieces: every pair once, the same gradient whatever the piece."""

import pytest
import torch

from bpc.likelihood import LinearRegression
from bpc.pieces import log_likelihoods, params_gradient, pieces, points_gradient
from bpc.seeding import make_generator


@pytest.mark.parametrize(
    ("k", "m", "at_once"), [(3, 5, 0), (3, 5, 1), (3, 5, 4), (3, 5, 5), (3, 5, 11), (1, 1, 7), (4, 2, 6)]
)
def test_every_pair_once_and_none_too_large(k, m, at_once):
    seen = torch.zeros(k, m)
    for rows, columns in pieces(k, m, at_once):
        seen[rows, columns] += 1
        assert at_once == 0 or seen[rows, columns].numel() <= at_once
    assert torch.equal(seen, torch.ones(k, m))
    assert at_once or len(list(pieces(k, m, at_once))) == 1


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("at_once", [0, 1, 3, 4, 9])
def test_gradients_are_those_of_the_whole(each, at_once):
    k = m = 4  # equal on purpose: shared points must not be taken for one set each
    generator = make_generator("cpu", 0)
    params = torch.randn(k, 3, generator=generator, dtype=torch.float64)
    points = torch.randn(*([k] if each else []), m, 4, generator=generator, dtype=torch.float64)
    labels, weights = torch.zeros(m), torch.rand(m, generator=generator, dtype=torch.float64)
    coefficients = torch.randn(k, m, generator=generator, dtype=torch.float64)
    model = LinearRegression(0.7)

    theta, u = params.clone().requires_grad_(True), points.clone().requires_grad_(True)
    log_lik = model(theta, u, labels)
    expected_value = log_lik @ weights
    (expected_params,) = torch.autograd.grad(expected_value.sum(), theta, retain_graph=True)
    (expected_points,) = torch.autograd.grad((coefficients * log_lik).sum(), u)

    value, gradient = params_gradient(model, params, points, labels, weights, each=each, at_once=at_once)
    torch.testing.assert_close(value, expected_value.detach())
    torch.testing.assert_close(gradient, expected_params)
    got, slope, _ = points_gradient(model, params, points, labels, coefficients, each=each, at_once=at_once)
    torch.testing.assert_close(got, log_lik.detach())
    torch.testing.assert_close(slope, expected_points)
    if not each:
        torch.testing.assert_close(log_likelihoods(model, params, points, labels, at_once=at_once), log_lik.detach())
