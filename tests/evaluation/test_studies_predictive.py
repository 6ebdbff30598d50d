"""Distances between predictives where posteriors are known: closed forms against integrals, quadrature against cubature."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from bpc.seeding import make_generator
from evaluation.studies.cubature import cubature
from evaluation.studies.logistic_model import LogisticModel
from evaluation.studies.normal import Normal, draw
from evaluation.studies.predictive import (
    class_measures,
    linear_measures,
    location_measures,
    logistic_probabilities,
    normal_tv,
)

F64 = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=F64)


@pytest.mark.parametrize(
    ("m", "s", "n", "t"),
    [(0, 1, 1, 1), (0, 1, 0, 2), (-1, 0.5, 2, 0.7), (3, 2, 3, 0.1), (0, 1, 1e-3, 1 + 1e-9), (0, 1, 40, 1)],
)
def test_total_variation_of_two_normals_is_the_integral(m, s, n, t):
    grid = sorted({m, n, *(c + k * w for c, w in ((m, s), (n, t)) for k in (-3, -1, 1, 3))})

    def gap(x):
        return abs(norm.pdf(x, m, s) - norm.pdf(x, n, t)) / 2

    ends = [min(m - 12 * s, n - 12 * t), *grid, max(m + 12 * s, n + 12 * t)]
    expected = sum(quad(gap, a, b, limit=200)[0] for a, b in itertools.pairwise(ends))
    found = float(normal_tv(tensor(m), tensor(s), tensor(n), tensor(t))[0])
    assert found == pytest.approx(expected, abs=1e-7)


def test_total_variation_of_equal_normals_is_zero_and_it_is_symmetric():
    mean, std = tensor(1.0, -2.0, 0.5), tensor(0.5, 2.0, 1.0)
    assert normal_tv(mean, std, mean, std).tolist() == [0.0, 0.0, 0.0]
    other, width = mean + tensor(0.3, 0.0, -1.0), std * tensor(1.0, 1.5, 0.7)
    torch.testing.assert_close(normal_tv(mean, std, other, width), normal_tv(other, width, mean, std))


def random_normal(seed, p):
    generator = make_generator("cpu", seed)
    root = torch.randn(p, p, generator=generator, dtype=F64)
    return Normal(torch.randn(p, generator=generator, dtype=F64), 0.2 * root @ root.T + 0.1 * torch.eye(p, dtype=F64))


def test_linear_predictives_are_those_of_draws():
    """The mean and variance of a response from draws of the posterior, put into the closed form."""
    core, truth = random_normal(1, 3), random_normal(2, 3)
    features = torch.randn(5, 2, generator=make_generator("cpu", 3), dtype=F64)
    x = torch.cat([torch.ones(5, 1, dtype=F64), features], 1)
    parts = []
    for seed, normal in enumerate((core, truth)):
        y = draw(normal, 200_000, make_generator("cpu", 10 + seed)) @ x.T
        parts += [y.mean(0), (y.var(0) + 0.7**2).sqrt()]
    found = linear_measures(core, truth, features, 0.7)
    assert found["predictive_tv"] == pytest.approx(float(normal_tv(*parts).mean()), abs=3e-3)
    m, s, n, t = parts
    both = ((s**2 + (m - n) ** 2) / t**2 + (t**2 + (m - n) ** 2) / s**2 - 2) / 4
    assert found["predictive_sym_kl"] == pytest.approx(float(both.mean()), rel=0.02)


def test_a_new_datum_of_one_dimension_is_the_linear_model_of_an_intercept():
    core, truth = random_normal(1, 1), random_normal(2, 1)
    linear = linear_measures(core, truth, torch.zeros(1, 0, dtype=F64), 0.5)
    location = location_measures(core, truth, torch.tensor([[0.25]], dtype=F64))
    assert location == pytest.approx(linear, rel=1e-10)


def test_logistic_probabilities_by_cubature_and_by_one_integral_agree_on_a_gaussian():
    normal = random_normal(4, 3)
    features = 0.7 * torch.randn(7, 2, generator=make_generator("cpu", 5), dtype=F64)
    precision = torch.linalg.inv(normal.covariance)

    def log_density(theta):
        gap = theta - normal.mean
        return -0.5 * ((gap @ precision) * gap).sum(1)

    by_nodes = logistic_probabilities(cubature(log_density, normal), features)
    torch.testing.assert_close(by_nodes, logistic_probabilities(normal, features), atol=1e-5, rtol=0)
    theta = draw(normal, 200_000, make_generator("cpu", 6))
    x = torch.cat([torch.ones(7, 1, dtype=F64), features], 1)
    torch.testing.assert_close(by_nodes[:, 1], torch.sigmoid(theta @ x.T).mean(0), atol=5e-3, rtol=0)


def test_the_data_s_own_posterior_is_at_no_distance():
    model = LogisticModel(1.0)
    points = torch.randn(12, 2, generator=make_generator("cpu", 7), dtype=F64)
    labels = (points[:, 0] > 0).long()
    ones = torch.ones(12, dtype=F64)
    found = cubature(model.posterior(points, labels, ones), model.laplace(points, labels, ones))
    probs = logistic_probabilities(found, points)
    assert class_measures(probs, probs) == {"predictive_tv": 0.0, "predictive_sym_kl": 0.0}
    same = random_normal(1, 3)
    assert linear_measures(same, same, points, 1.0)["predictive_tv"] == 0.0
    assert not math.isnan(np.sum(list(location_measures(same, same, torch.eye(3, dtype=F64)).values())))
