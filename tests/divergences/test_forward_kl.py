"""The forward-KL estimator against the exact KL and its own surrogate."""

import pytest
import torch
from gaussian import SIGMA, cubature, finite_differences, kl, posterior, problem

from bpc.augment import AugmentConfig, apply
from bpc.divergences import ForwardKL, ForwardKLConfig, LearnedCoreset, forward_kl_gradient
from bpc.divergences.inner import augmentation_draws, inner_trajectory
from bpc.errors import ConfigError
from bpc.likelihood import GaussianLocation


def test_sum_reduction_is_the_gradient_of_the_exact_kl():
    full, points, weights = problem()
    coreset = LearnedCoreset(points, torch.zeros(len(points)), weights)
    truth = posterior(full, torch.ones(len(full), dtype=torch.float64))
    got = forward_kl_gradient(
        GaussianLocation(SIGMA), coreset, cubature(*posterior(points, weights)), cubature(*truth), reduction="sum"
    )
    exact_u = finite_differences(lambda u: kl(truth, posterior(u, weights)), points)
    exact_w = finite_differences(lambda w: kl(truth, posterior(points, w)), weights)
    torch.testing.assert_close(got.points, exact_u, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(got.weights, exact_w, rtol=1e-6, atol=1e-7)


def test_closed_form_of_the_point_gradient():
    """grad_{u_m} = w_m Sigma^-1 (mean_u - mean_x): towards the full posterior's mean if subtracted."""
    full, points, weights = problem(1)
    coreset = LearnedCoreset(points, torch.zeros(len(points)), weights)
    mean_u, cov_u = posterior(points, weights)
    mean_x, cov_x = posterior(full, torch.ones(len(full), dtype=torch.float64))
    got = forward_kl_gradient(
        GaussianLocation(SIGMA), coreset, cubature(mean_u, cov_u), cubature(mean_x, cov_x), reduction="sum"
    )
    torch.testing.assert_close(got.points, weights[:, None] * (torch.linalg.inv(SIGMA) @ (mean_u - mean_x)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradient_is_that_of_the_value(small, reduction):
    model, coreset, window, _ = small
    generator = torch.Generator().manual_seed(2)
    a = window.start + 0.1 * torch.randn(3, len(window.start), generator=generator, dtype=torch.float64)
    b = window.end + 0.1 * torch.randn(3, len(window.start), generator=generator, dtype=torch.float64)

    def value(points):
        return forward_kl_gradient(model, coreset._replace(points=points), a, b, reduction=reduction).value

    got = forward_kl_gradient(model, coreset, a, b, reduction=reduction, at_once=4)
    direction = torch.randn(coreset.points.shape, generator=generator, dtype=torch.float64)
    slope = (value(coreset.points + 1e-5 * direction) - value(coreset.points - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((got.points * direction).sum(), slope, rtol=1e-6, atol=1e-8)
    weights = coreset.weights / (coreset.weights.sum() if reduction == "mean" else 1.0)
    with torch.no_grad():
        losses_a, losses_b = (-model(t, coreset.points, coreset.labels) @ weights for t in (a, b))
    torch.testing.assert_close(got.value, (losses_b - losses_a).mean())


def test_object_is_the_estimate_around_both_endpoints(small):
    model, coreset, window, _ = small
    config = ForwardKLConfig(
        inner_steps=3, student_lr=0.07, samples=2, sigma_core=0.02, sigma_expert=0.03, expert_epochs=2
    )
    got = ForwardKL(model, config).gradient(coreset, window, None, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    end = inner_trajectory(model, window.start, coreset, 0.07, [None] * 3)
    noise = torch.stack([torch.randn(2, len(end), generator=generator, dtype=torch.float64) for _ in range(2)])
    expected = forward_kl_gradient(
        model, coreset, end + 0.02 * noise[:, 0], window.end + 0.03 * noise[:, 1], reduction="mean"
    )
    torch.testing.assert_close(got.points, expected.points)
    torch.testing.assert_close(got.value, expected.value)
    assert ForwardKL(model, config).expert_epochs == 2


def test_both_terms_see_the_same_augmented_coreset(small):
    """With theta_u = theta_x the two terms cancel only if they see the same augmentation."""
    model, coreset, window, _ = small
    points = coreset.points.clone().requires_grad_(True)
    draws = augmentation_draws(AugmentConfig(mode="all"), points, 2, torch.Generator().manual_seed(0))
    theta = torch.stack([window.start, window.end])
    got = forward_kl_gradient(
        model,
        coreset._replace(points=points),
        theta,
        theta,
        views=torch.stack([apply(points, d) for d in draws]),
        at_once=4,
    )
    torch.testing.assert_close(got.points, torch.zeros_like(got.points), atol=1e-12, rtol=0)


@pytest.mark.parametrize("augment", [None, AugmentConfig()])
def test_chunks_do_not_change_the_result(small, augment):
    model, coreset, window, _ = small
    one = ForwardKL(model, ForwardKLConfig(inner_steps=2, samples=5, at_once=1, augment=augment))
    many = ForwardKL(model, ForwardKLConfig(inner_steps=2, samples=5, at_once=0, augment=augment))
    a = one.gradient(coreset, window, None, torch.Generator().manual_seed(0))
    b = many.gradient(coreset, window, None, torch.Generator().manual_seed(0))
    torch.testing.assert_close(a.points, b.points)
    torch.testing.assert_close(a.value, b.value)


def test_errors():
    with pytest.raises(ConfigError):
        ForwardKLConfig(samples=0)
    with pytest.raises(ConfigError, match="reduction"):
        ForwardKLConfig(reduction="total")
