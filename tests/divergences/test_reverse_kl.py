"""The covariance estimator against the exact KL, Algorithm 4 and itself in chunks."""

import pytest
import torch
from gaussian import SIGMA, cubature, finite_differences, kl, posterior, problem

from bpc.augment import AugmentConfig
from bpc.divergences import (
    LearnedCoreset,
    RealBatch,
    ReverseKL,
    ReverseKLConfig,
    covariance_surrogate,
    posterior_residual,
    reverse_kl_gradient,
)
from bpc.divergences.inner import augmentation_draws, inner_trajectory
from bpc.errors import ConfigError
from bpc.likelihood import GaussianLocation


def algorithm_4(log_lik_real, log_lik_core, score_core):
    """Of Kim et al. (2022) as printed, from its three arrays, none of them centred: (s, b), (s, m) and (s, m, ...), gradients of
    the second with respect to its own points. Gives (m, ...): means over b and m where Eq. 4 has sums."""
    g = log_lik_real - log_lik_real.mean(0)
    g_tilde = log_lik_core - log_lik_core.mean(0)
    h_tilde = score_core - score_core.mean(0)
    residual = g.mean(1) - g_tilde.mean(1)
    return -torch.einsum("s,s...->...", residual, h_tilde) / len(residual)


def gaussian_case():
    full, points, weights = problem()
    nothing = torch.zeros(len(points))
    coreset = LearnedCoreset(points, nothing, weights)
    return full, coreset, RealBatch(full, torch.zeros(len(full)), len(full))


def test_sum_reduction_is_the_gradient_of_the_exact_kl():
    full, coreset, real = gaussian_case()
    target = posterior(full, torch.ones(len(full), dtype=torch.float64))
    samples = cubature(*posterior(coreset.points, coreset.weights))
    du, dw, *_ = reverse_kl_gradient(GaussianLocation(SIGMA), coreset, samples, real, reduction="sum")
    exact_u = finite_differences(lambda u: kl(posterior(u, coreset.weights), target), coreset.points)
    exact_w = finite_differences(lambda w: kl(posterior(coreset.points, w), target), coreset.weights)
    torch.testing.assert_close(du, exact_u, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(dw, exact_w, rtol=1e-6, atol=1e-7)


def test_a_minibatch_is_scaled_to_the_full_data():
    full, coreset, real = gaussian_case()
    samples = cubature(*posterior(coreset.points, coreset.weights))
    model = GaussianLocation(SIGMA)
    whole = reverse_kl_gradient(model, coreset, samples, real, reduction="sum").points
    halves = [
        reverse_kl_gradient(model, coreset, samples, RealBatch(part, torch.zeros(15), 30), reduction="sum").points
        for part in full.split(15)
    ]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, whole)


def test_gradient_descent_reaches_the_true_posterior():
    full, coreset, real = gaussian_case()
    coreset = coreset._replace(weights=torch.full((4,), 30 / 4, dtype=torch.float64))
    target = posterior(full, torch.ones(30, dtype=torch.float64))
    before = float(kl(posterior(coreset.points, coreset.weights), target))
    for _ in range(200):
        samples = cubature(*posterior(coreset.points, coreset.weights))
        step = reverse_kl_gradient(GaussianLocation(SIGMA), coreset, samples, real, reduction="sum")
        coreset = coreset._replace(points=coreset.points - 0.02 * step.points)
    after = float(kl(posterior(coreset.points, coreset.weights), target))
    assert before > 1.0
    assert after < 1e-6


def test_mean_reduction_is_algorithm_4(small):
    model, coreset, window, real = small
    coreset = coreset._replace(weights=torch.ones(6, dtype=torch.float64))
    noise = torch.randn(5, window.start.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = window.start + 0.05 * noise
    du = reverse_kl_gradient(model, coreset, samples, real, reduction="mean", at_once=4).points
    scores = []
    for theta in samples:
        u = coreset.points.clone().requires_grad_(True)
        scores.append(torch.autograd.grad(model(theta[None], u, coreset.labels).sum(), u)[0])
    with torch.no_grad():
        g = model(samples, real.points, real.labels)
        g_tilde = model(samples, coreset.points, coreset.labels)
    torch.testing.assert_close(du, algorithm_4(g, g_tilde, torch.stack(scores)))


def test_published_estimator_by_hand():
    """Two samples, one real point, one coreset point of one number: every sum can be done on paper."""
    g, g_tilde, score = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [5.0]])
    point, weights = torch.zeros(1, requires_grad=True), torch.ones(1, requires_grad=True)
    residual = posterior_residual(g, g_tilde, weights, 1.0)
    surrogate = covariance_surrogate(residual, g_tilde + score * point, weights, 2)
    # centred: g -1 1, g~ -.5 .5, score -1.5 1.5; residual -.5 .5; -mean(score r) = -(0.75 + 0.75) / 2, -mean(g~ r) = -0.25
    du, dw = torch.autograd.grad(surrogate, (point, weights))
    assert (float(du), float(dw)) == (-0.75, -0.25)
    torch.testing.assert_close(algorithm_4(g, g_tilde, score.unsqueeze(1)), torch.tensor([[-0.75]]))


def test_residual_is_centred_over_samples():
    real = torch.tensor([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    core = torch.tensor([[0.5, 1.0], [2.0, -1.0]])
    weights = torch.tensor([2.0, 1.0])
    gap = torch.tensor([10.0 * 7 - 2.0, 10.0 * 9 - 3.0])
    torch.testing.assert_close(posterior_residual(real, core, weights, 10.0), gap - gap.mean())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_chunks_do_not_change_the_result(small, reduction):
    model, coreset, window, real = small
    samples = window.start + 0.1 * torch.randn(7, window.start.numel(), dtype=torch.float64)
    one = reverse_kl_gradient(model, coreset, samples, real, reduction=reduction, at_once=1)
    many = reverse_kl_gradient(model, coreset, samples, real, reduction=reduction, at_once=0)
    torch.testing.assert_close((one.points, one.weights), (many.points, many.weights))


def test_object_uses_gaussian_draws_around_the_inner_end(small):
    model, coreset, window, real = small
    config = ReverseKLConfig(inner_steps=3, samples=4, sigma_core=0.02, student_lr=0.07, augment=AugmentConfig())
    got = ReverseKL(model, config).gradient(coreset, window, real, torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(9)
    draws = augmentation_draws(AugmentConfig(), coreset.points, 3, generator)
    end = inner_trajectory(model, window.start, coreset, 0.07, draws)
    noise = torch.randn(4, len(end), generator=generator, dtype=torch.float64)
    du, dw, *_ = reverse_kl_gradient(model, coreset, end + 0.02 * noise, real, reduction="mean")
    torch.testing.assert_close(got.points, du)
    torch.testing.assert_close(got.weights, dw)
    assert torch.isnan(got.value)
    assert not got.extras


def test_augmented_covariance_terms(small):
    model, coreset, window, real = small
    plain = ReverseKLConfig(inner_steps=2, samples=3, augment=AugmentConfig(operations=("flip",), flip_probability=1.0))
    both = ReverseKLConfig(
        inner_steps=2,
        samples=3,
        augment=AugmentConfig(operations=("flip",), flip_probability=1.0),
        augment_samples=True,
    )
    a = ReverseKL(model, plain).gradient(coreset, window, real, torch.Generator().manual_seed(1))
    b = ReverseKL(model, both).gradient(coreset, window, real, torch.Generator().manual_seed(1))
    assert torch.isfinite(b.points).all()
    assert not torch.allclose(a.points, b.points)


def test_errors(small):
    model, coreset, window, _ = small
    with pytest.raises(ConfigError, match="2 samples"):
        ReverseKLConfig(samples=1)
    with pytest.raises(ConfigError, match="reduction"):
        ReverseKLConfig(reduction="median")
    with pytest.raises(ConfigError, match="real data"):
        ReverseKL(model, ReverseKLConfig()).gradient(coreset, window, None, torch.Generator())
