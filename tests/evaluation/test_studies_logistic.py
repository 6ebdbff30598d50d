"""The logistic study: cubature against independent methods, gradients, chains, and what learning reaches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy.integrate import dblquad
from sklearn.linear_model import LogisticRegression

from bpc.divergences import LearnedCoreset, covariance_surrogate, posterior_residual
from bpc.errors import ConfigError, NumericalError
from bpc.samplers import HMCConfig, value_and_grad
from evaluation.studies import LogisticStudy, run_logistic_study
from evaluation.studies.cubature import cubature, kl_from
from evaluation.studies.logistic_model import CoresetChains, LogisticModel, WhitenedPosterior
from evaluation.studies.normal import Normal, kl
from evaluation.studies.regression import cancer_data, random_subset, with_ones
from evaluation.studies.regression_figures import contour_levels

DTYPE = torch.float64


def ones(n):
    return torch.ones(n, dtype=DTYPE)


@pytest.fixture(scope="module")
def logistic():
    """The low-dimensional problem, its true posterior, and a coreset with unequal weights whose posterior is skewed."""
    points, labels = cancer_data(2)
    model = LogisticModel(1.0)
    density = model.posterior(points, labels, ones(len(points)))
    truth = cubature(density, model.laplace(points, labels, ones(len(points))))
    index = random_subset(len(points), 5, 0, labels)
    weights = torch.tensor([0.7, 2.0, 1.2, 3.0, 0.4], dtype=DTYPE)
    return model, points, labels, density, truth, LearnedCoreset(points[index], labels[index], weights)


# --- cubature


def test_cubature_of_gaussians_is_exact():
    covariance = torch.tensor([[1.0, 0.7, 0.1], [0.7, 2.0, -0.3], [0.1, -0.3, 0.3]], dtype=DTYPE)
    a = Normal(torch.tensor([1.0, -2.0, 0.5], dtype=DTYPE), covariance)
    b = Normal(torch.zeros(3, dtype=DTYPE), 2 * torch.eye(3, dtype=DTYPE))
    log_a, log_b = (lambda t, n=n: torch.distributions.MultivariateNormal(*n).log_prob(t) + 3.0 for n in (a, b))
    for guess in (
        Normal(a.mean + 1.5, 3 * torch.diag(covariance.diagonal())),
        Normal(a.mean + 0.3, 0.1 * a.covariance),
    ):
        found = cubature(log_a, guess)  # wide of the mark, and much too narrow
        assert float(found.log_normaliser) == pytest.approx(3.0, abs=1e-6)
    torch.testing.assert_close(found.moments.mean, a.mean, atol=1e-6, rtol=0)
    assert float(kl_from(found, log_b, torch.tensor(3.0))) == pytest.approx(float(kl(a, b)), abs=1e-6)


def test_cubature_of_a_skewed_density_against_scipy():
    """Two parameters, three heavy points, and a prior: skewed, and integrated by scipy without any of this code."""
    x = torch.tensor([[0.5], [-1.0], [1.5]], dtype=DTYPE)
    labels, weights = torch.tensor([1, 0, 1]), torch.tensor([4.0, 1.0, 6.0], dtype=DTYPE)
    model = LogisticModel(2.0)
    density = model.posterior(x, labels, weights)
    other = model.posterior(x, labels, 0.3 * weights)
    found = cubature(density, model.laplace(x, labels, weights))
    other_found = cubature(other, model.laplace(x, labels, 0.3 * weights))

    def log_p(a, b, scale):
        margins = [(a + 0.5 * b, 4.0), (-(a - b), 1.0), (a + 1.5 * b, 6.0)]
        return -(a * a + b * b) / 8.0 - scale * sum(w * math.log1p(math.exp(-m)) for m, w in margins)

    box = (-12.0, 14.0, -12.0, 14.0)
    normaliser = dblquad(lambda b, a: math.exp(log_p(a, b, 1.0)), *box, epsabs=1e-9, epsrel=1e-7)[0]
    other_normaliser = dblquad(lambda b, a: math.exp(log_p(a, b, 0.3)), *box, epsabs=1e-9, epsrel=1e-7)[0]
    first = dblquad(lambda b, a: a * math.exp(log_p(a, b, 1.0)), *box, epsabs=1e-9, epsrel=1e-7)[0] / normaliser
    gap = dblquad(
        lambda b, a: math.exp(log_p(a, b, 1.0)) * (log_p(a, b, 1.0) - log_p(a, b, 0.3)), *box, epsabs=1e-9, epsrel=1e-7
    )[0]
    expected = gap / normaliser - math.log(normaliser) + math.log(other_normaliser)
    assert float(found.log_normaliser) == pytest.approx(math.log(normaliser), abs=1e-5)
    assert float(found.moments.mean[0]) == pytest.approx(first, abs=1e-3)
    assert float(kl_from(found, other, other_found.log_normaliser)) == pytest.approx(expected, abs=1e-4)


def test_cubature_error_of_the_study_is_below_a_thousandth(logistic):
    """Refined in spacing and reach, and by importance sampling from a Student distribution with a standard error."""
    model, _, _, density, truth, coreset = logistic
    values = (coreset.points, coreset.labels, coreset.weights)
    core_density, laplace = model.posterior(*values), model.laplace(*values)
    core = cubature(core_density, laplace)
    reverse = float(kl_from(core, density, truth.log_normaliser))
    forward = float(kl_from(truth, core_density, core.log_normaliser))
    fine = cubature(core_density, laplace, spacing=0.35, reach=9.0)
    fine_truth = cubature(density, truth.moments, spacing=0.35, reach=9.0)
    assert float(kl_from(fine, density, fine_truth.log_normaliser)) == pytest.approx(reverse, abs=1e-3)
    assert float(kl_from(fine_truth, core_density, fine.log_normaliser)) == pytest.approx(forward, abs=1e-3)

    generator = torch.Generator().manual_seed(0)
    count, degrees = 100_000, 8
    white = torch.randn(count, 3, generator=generator, dtype=DTYPE)
    chi = torch.randn(count, degrees, generator=generator, dtype=DTYPE).square().sum(1, keepdim=True)
    radius2 = (white.square().sum(1, keepdim=True) * degrees / chi).squeeze(1)
    factor = torch.linalg.cholesky(2 * laplace.covariance)
    theta = laplace.mean + (white * (degrees / chi).sqrt()) @ factor.T
    log_t = -0.5 * (degrees + 3) * torch.log1p(radius2 / degrees)
    log_weight = core_density(theta) - log_t
    weight = torch.softmax(log_weight, 0)
    log_constant = (
        math.lgamma(5.5) - math.lgamma(4.0) - 1.5 * math.log(degrees * math.pi) - float(factor.diagonal().log().sum())
    )
    log_normaliser = float(torch.logsumexp(log_weight, 0)) - math.log(count) - log_constant
    assert log_normaliser == pytest.approx(float(core.log_normaliser), abs=0.02)
    chosen = weight > 1e-12
    gap = core_density(theta[chosen]) - torch.cat([density(part) for part in theta[chosen].split(4000)])
    estimate = float(weight[chosen] @ gap) - log_normaliser + float(truth.log_normaliser)
    error = math.sqrt(float((weight[chosen].square() * (gap - weight[chosen] @ gap).square()).sum()))
    assert abs(estimate - reverse) < 4 * error + 0.02
    assert error < 0.02 * reverse


def test_cubature_says_when_it_cannot():
    four = Normal(torch.zeros(5, dtype=DTYPE), torch.eye(5, dtype=DTYPE))
    with pytest.raises(ConfigError, match="up to 4"):
        cubature(lambda t: -t.square().sum(1), four)
    flat = Normal(torch.zeros(1, dtype=DTYPE), torch.eye(1, dtype=DTYPE))
    with pytest.raises(NumericalError, match="raise `reach`"):
        cubature(lambda t: -t.abs().log1p().sum(1), flat)  # heavy tails: no moments


# --- logistic


def test_laplace_mode_against_scikit_learn(logistic):
    model, points, labels, *_ = logistic
    found = model.laplace(points, labels, ones(569))
    fitted = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(
        with_ones(points).numpy(), labels
    )
    np.testing.assert_allclose(found.mean, fitted.coef_[0], atol=1e-5)
    density = model.posterior(points, labels, ones(569))
    hessian = torch.func.hessian(lambda t: density(t[None])[0])(found.mean)
    torch.testing.assert_close(found.covariance, torch.linalg.inv(-hessian))
    again = model.laplace(points, labels, ones(569), start=found.mean + 3.0)
    torch.testing.assert_close(again.mean, found.mean, atol=1e-6, rtol=0)


def test_whitened_density_and_gradient(logistic):
    model, _, _, _, _, coreset = logistic
    centre = model.laplace(coreset.points, coreset.labels, coreset.weights)
    white = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    density = WhitenedPosterior(model, coreset, centre)
    posterior = model.posterior(coreset.points, coreset.labels, coreset.weights)
    expected, slope = value_and_grad(lambda z: posterior(density.from_white(z)), white)
    value, gradient = density.value_and_gradient(white)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, slope)
    torch.testing.assert_close(density.to_white(density.from_white(white)), white)


def test_reverse_kl_gradient_from_cubature_is_that_of_the_exact_divergence(logistic):
    """The covariance over cubature nodes, weighted by mass, against finite differences of the KL by cubature."""
    model, points, labels, density, truth, coreset = logistic
    labels_core, weights = coreset.labels, coreset.weights

    def value(u, w):
        core = model.posterior(u, labels_core, w)
        return float(kl_from(cubature(core, model.laplace(u, labels_core, w)), density, truth.log_normaliser))

    core = cubature(
        model.posterior(coreset.points, labels_core, weights), model.laplace(coreset.points, labels_core, weights)
    )
    order = torch.multinomial(core.mass, 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    u = coreset.points[:1]
    expected = torch.stack(
        [
            torch.tensor(value(torch.cat([u + s, coreset.points[1:]]), weights), dtype=DTYPE)
            for s in (torch.tensor([[h, 0.0]], dtype=DTYPE) for h in (1e-4, -1e-4))
        ]
    )
    expected = float(expected[0] - expected[1]) / 2e-4
    # exact expectations: residual and surrogate take masses where samples would be equally likely
    leaf = coreset.points.clone().requires_grad_(True)
    lik = model.log_likelihood(core.nodes, leaf, labels_core)
    real = torch.cat([model.log_likelihood(part, points, labels) for part in core.nodes.split(2000)])
    gap = real.sum(1) - lik.detach() @ weights
    covariance = -((core.mass * (gap - core.mass @ gap)) @ (lik @ weights))
    (exact,) = torch.autograd.grad(covariance, leaf)
    assert float(exact[0, 0]) == pytest.approx(expected, rel=1e-4)

    nodes = core.nodes[order[:4000]]
    real, lik = model.log_likelihood(nodes, points, labels), model.log_likelihood(nodes, leaf, labels_core)
    residual = posterior_residual(real, lik, weights, 1.0)
    (estimate,) = torch.autograd.grad(covariance_surrogate(residual, lik, weights, len(nodes)), leaf)
    assert float((estimate - exact).norm() / exact.norm()) < 0.2


def test_chains_sample_the_coreset_posterior_and_follow_it(logistic):
    model, *_, coreset = logistic
    config = HMCConfig(step_size=0.4, leapfrog_steps=4, jitter=0.3)
    chains = CoresetChains(model, chains=64, draws=60, config=config, seed=0)
    for weights in (coreset.weights, 3 * coreset.weights):  # the second call starts where the first ended
        moved = coreset._replace(weights=weights)
        samples = chains(moved)
        laplace = model.laplace(moved.points, moved.labels, weights)
        truth = cubature(model.posterior(moved.points, moved.labels, weights), laplace).moments
        spread = truth.covariance.diagonal().sqrt()
        assert samples.shape == (64 * 60, 3)
        assert float(((samples.mean(0) - truth.mean) / spread).abs().max()) < 0.15
        torch.testing.assert_close(samples.std(0), spread, rtol=0.12, atol=0)
    assert min(chains.accepted) > 0.8
    before, chains.draws, chains.config = chains.params, 1, HMCConfig(step_size=1e-9, leapfrog_steps=1)
    torch.testing.assert_close(chains(coreset), before, atol=1e-5, rtol=0)  # other coordinates, the same places
    again = CoresetChains(model, chains=64, draws=60, config=config, seed=0)
    assert torch.equal(again(coreset), CoresetChains(model, chains=64, draws=60, config=config, seed=0)(coreset))


def test_logistic_study(tmp_path):
    settings = LogisticStudy(track=4)
    table, tables = run_logistic_study(tmp_path, steps=80, sizes=(20,), repeats=1, settings=settings)
    values = table.set_index(["design", "method"])
    exact, laplace = values["reverse_kl"], values["laplace_reverse_kl"]
    assert exact["pca2", "rkl"] < 0.05 * exact["pca2", "random"]
    assert exact["pca2", "rkl"] == pytest.approx(laplace["pca2", "rkl"], rel=0.3)
    assert math.isnan(exact["full", "rkl"])  # 31 parameters: only Laplace, and named so
    assert laplace["full", "rkl"] < 0.5 * laplace["full", "random"]
    assert [len(found.columns) for found in tables] == [
        8,
        8,
        6,
        8,
    ]  # without columns that a design does not have; ranks
    assert table["acceptance"].between(0.5, 1).all()
    assert "between the Laplace approximations" in (tmp_path / "logistic-full.md").read_text()
    pictures = ("pca2", "full", "contours", "pca2-predictive", "full-predictive")
    assert {p.name for p in tmp_path.iterdir()} == {
        "logistic.csv", "logistic-steps.csv", "logistic-pca2.md", "logistic-full.md",
        *(f"logistic-{picture}.{suffix}" for picture in pictures for suffix in ("png", "pdf")),
    }  # fmt: skip
    assert imread(tmp_path / "logistic-contours.png").std() > 0.05
    with pytest.raises(ConfigError, match="Did you mean 'pca2'"):
        run_logistic_study(tmp_path, designs=("pca",))


def test_contour_levels_hold_their_mass():
    axis = np.linspace(-6, 6, 401)
    density = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None] ** 2))
    outer, inner = contour_levels(density, (0.95, 0.5))
    # of a standard normal in two dimensions, mass q lies within the height 1 - q
    assert outer == pytest.approx(0.05, rel=0.01) and inner == pytest.approx(0.5, rel=0.01)
