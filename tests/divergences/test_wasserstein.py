"""The adjoint against autograd through the unrolled loop, and the loss against the Wasserstein distance of two Gaussians."""

import pytest
import torch
from scipy.linalg import sqrtm

from bpc.augment import AugmentConfig
from bpc.divergences import Wasserstein, WassersteinConfig, wasserstein_gradient, wasserstein_loss
from bpc.divergences.inner import augmentation_draws, augmented, inner_trajectory
from bpc.divergences.wasserstein import iterate_std
from bpc.errors import ConfigError


def unrolled_loss(model, coreset, student_lr, window, draws, diagonal):
    """The loss by plain autograd: the graph of every inner step is kept."""
    theta = window.start.clone().requires_grad_(True)
    iterates = [theta]
    for chosen in draws:
        log_lik = model(theta[None], augmented(coreset.points, chosen), coreset.labels)[0]
        mean = -(coreset.weights * log_lik).sum() / coreset.weights.sum()
        theta = theta - student_lr * torch.autograd.grad(mean, theta, create_graph=True)[0]
        iterates.append(theta)
    return wasserstein_loss(torch.stack(iterates), window, diagonal=diagonal)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("augment", [None, AugmentConfig(), AugmentConfig(mode="all")])
def test_adjoint_is_autograd_through_the_unrolled_loop(small, diagonal, augment):
    model, coreset, window, _ = small
    draws = augmentation_draws(augment, coreset.points, 6, torch.Generator().manual_seed(3))
    lr = coreset.extras["student_lr"]
    got = wasserstein_gradient(model, coreset, lr, window, draws, diagonal=diagonal)

    leaves = [t.clone().requires_grad_(True) for t in (coreset.points, coreset.weights, lr)]
    unrolled = coreset._replace(points=leaves[0], weights=leaves[1])
    loss = unrolled_loss(model, unrolled, leaves[2], window, draws, diagonal)
    expected = torch.autograd.grad(loss, leaves)
    torch.testing.assert_close(got.value, loss.detach())
    torch.testing.assert_close(got.points, expected[0], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(got.weights, expected[1], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(got.extras["student_lr"], expected[2], rtol=1e-8, atol=1e-12)
    assert got.points.abs().max() > 1e-6  # the comparison is not of zeros


def test_gradient_against_finite_differences(small):
    model, coreset, window, _ = small
    method = Wasserstein(model, WassersteinConfig(inner_steps=4))
    got = method.gradient(coreset, window, None, torch.Generator())

    def value(points, lr):
        end = inner_trajectory(model, window.start, coreset._replace(points=points), lr, [None] * 4)
        return (end - window.end).square().sum() / (window.start - window.end).square().sum()

    direction = torch.randn(coreset.points.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lr, h = coreset.extras["student_lr"], 1e-5
    slope = (value(coreset.points + h * direction, lr) - value(coreset.points - h * direction, lr)) / (2 * h)
    torch.testing.assert_close((got.points * direction).sum(), slope, rtol=1e-5, atol=1e-9)
    slope = (value(coreset.points, lr + h) - value(coreset.points, lr - h)) / (2 * h)
    torch.testing.assert_close(got.extras["student_lr"], slope, rtol=1e-5, atol=1e-9)


def test_inner_sgd_by_hand(small):
    model, coreset, window, _ = small
    theta = window.start.clone()
    for _ in range(3):
        theta = theta.detach().requires_grad_(True)
        losses = -model(theta[None], coreset.points, coreset.labels)[0]
        mean = (coreset.weights * losses).sum() / coreset.weights.sum()
        theta = theta - 0.07 * torch.autograd.grad(mean, theta)[0]
    torch.testing.assert_close(inner_trajectory(model, window.start, coreset, 0.07, [None] * 3), theta.detach())


def test_diagonal_loss_is_the_wasserstein_distance_of_two_gaussians(small):
    """Eq. 15 with its matrix square roots, against the coordinate-wise form."""
    _, _, window, _ = small
    p = 4
    window = type(window)(window.snapshots[:, :p])
    iterates = window.start + 0.1 * torch.randn(5, p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cov_u, cov_x = (torch.diag(iterate_std(t) ** 2) for t in (iterates, window.snapshots))
    root = torch.from_numpy(sqrtm(cov_u.numpy()))
    cross = torch.from_numpy(sqrtm((root @ cov_x @ root).numpy()))
    distance = (iterates[-1] - window.end).square().sum() + torch.trace(cov_x + cov_u - 2 * cross)
    scale = (window.start - window.end).square().sum()
    torch.testing.assert_close(wasserstein_loss(iterates, window, diagonal=True) * scale, distance)


def test_loss_is_one_at_the_start_and_zero_at_the_end(small):
    _, _, window, _ = small
    assert float(wasserstein_loss(window.start[None], window, diagonal=False)) == pytest.approx(1.0)
    assert float(wasserstein_loss(window.end[None], window, diagonal=False)) == 0.0


def test_errors():
    with pytest.raises(ConfigError):
        WassersteinConfig(inner_steps=0)
