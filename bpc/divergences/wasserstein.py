r"""BPC-W: the 2-Wasserstein distance of two Gaussians around trajectory endpoints (Section 3.2, Eq. 8-10 and 15 of Kim et
al. 2022; with a common covariance this is the loss of Matching Training Trajectories).

The inner SGD theta_{t+1} = theta_t - eta g_t, g_t = grad_theta loss(A_t(u), theta_t), is differentiated by its adjoint: with
lambda_t = d loss / d theta_t,

    lambda_t = lambda_{t+1} - eta H_t lambda_{t+1},   d/du -= eta d(g_t . lambda_{t+1})/du,   d/d eta -= g_t . lambda_{t+1}.

Exact, and only one step's graph has to be alive at a time: memory is that of one step plus L_u parameter vectors, where
autograd through the unrolled loop keeps all L_u graphs. The price is that a step's gradient is computed twice, a third more
arithmetic; the last steps, as many as fit into the memory budget, keep their graphs and do not pay it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.augment import AugmentConfig, AugmentDraw
from bpc.divergences.base import CoresetGradient, ExpertWindow, LearnedCoreset, RealBatch
from bpc.divergences.inner import augmentation_draws, augmented, inner_trajectory
from bpc.errors import ConfigError
from bpc.likelihood import LogLikelihood
from bpc.pieces import pieces

__all__ = ["Wasserstein", "WassersteinConfig", "wasserstein_loss"]

# floor of a variance: its square root has no derivative at zero, where a trajectory stands still in a coordinate
VARIANCE_FLOOR = 1e-12


@dataclass(frozen=True, kw_only=True)
class WassersteinConfig:
    """Settings of BPC-W (Table 2).

    Attributes:
        inner_steps: L_u.
        expert_epochs: L_x.
        augment: augmentation of the inner SGD, or None.
        at_once: images whose graph is alive at a time: less memory and more arithmetic, the same result to rounding; 0 is all.
        diagonal: the variant of Appendix C.1, with a diagonal covariance for each Gaussian. The paper does not say where they
            come from; here each is the variance of the trajectory's own iterates (inner steps for q_u, snapshots for q_x).
    """

    inner_steps: int = 30
    expert_epochs: int = 2
    augment: AugmentConfig | None = None
    diagonal: bool = False
    at_once: int = 0

    def __post_init__(self) -> None:
        if self.inner_steps < 1 or self.expert_epochs < 1:
            raise ConfigError(
                f"BPC-W needs inner_steps and expert_epochs of at least 1; got {self.inner_steps}, {self.expert_epochs}."
            )


def iterate_std(iterates: Tensor) -> Tensor:
    """Standard deviation of each coordinate over a trajectory's iterates (t, p) -> (p,)."""
    return (iterates.var(0, correction=0) + VARIANCE_FLOOR).sqrt()


def wasserstein_loss(iterates: Tensor, experts: ExpertWindow, *, diagonal: bool) -> Tensor:
    """||theta_u - theta_x||^2 / ||theta_0 - theta_x||^2, plus sum (std_u - std_x)^2 over the same scale if `diagonal`.

    Args:
        iterates: (L_u + 1, p), theta_u^(0..L_u).
        experts: the window.
        diagonal: use diagonal covariances (Eq. 15 for commuting covariances) instead of a common one.
    """
    scale = (experts.start - experts.end).square().sum()
    loss = (iterates[-1] - experts.end).square().sum()
    if diagonal:
        loss = loss + (iterate_std(iterates) - iterate_std(experts.snapshots)).square().sum()
    return loss / scale


class _Step(NamedTuple):
    """One inner step's gradient and what it was computed from."""

    leaves: tuple[Tensor, Tensor, Tensor]  # theta (p,), images (m, ...), shares (m,)
    gradient: Tensor  # (p,), with its graph


class Wasserstein:
    """The divergence object: matches the end of the inner SGD to the expert's snapshot L_x epochs on.

    Args:
        log_likelihood: of the model.
        config: settings.
    """

    needs_real = False

    def __init__(self, log_likelihood: LogLikelihood, config: WassersteinConfig) -> None:
        self.log_likelihood, self.config = log_likelihood, config
        self.expert_epochs = config.expert_epochs

    def gradient(
        self, coreset: LearnedCoreset, experts: ExpertWindow, real: RealBatch | None, generator: torch.Generator
    ) -> CoresetGradient:
        """See `Divergence`; also gives d / d student_lr."""
        draws = augmentation_draws(self.config.augment, coreset.points, self.config.inner_steps, generator)
        return self.adjoint(coreset, experts, draws)

    def adjoint(
        self, coreset: LearnedCoreset, experts: ExpertWindow, draws: list[AugmentDraw | None]
    ) -> CoresetGradient:
        """The gradient for given augmentations."""
        points, eta = coreset.points.detach().requires_grad_(True), coreset.student_lr.detach()
        shares = coreset.weights.detach() / coreset.weights.detach().sum()
        labels, keep = coreset.labels, self._steps_kept(len(coreset.labels), len(draws))
        iterates = experts.start.new_empty(len(draws) + 1, len(experts.start))  # all that grows with L_u
        steps = itertools.count()

        def visit(theta: Tensor) -> None:
            iterates[next(steps)] = theta.detach()

        params = inner_trajectory(
            self.log_likelihood,
            experts.start,
            coreset,
            draws[: len(draws) - keep],
            visit=visit,
            at_once=self.config.at_once,
        )
        kept: list[_Step] = []
        for chosen in draws[len(draws) - keep :]:
            visit(params)
            step = self._first_order(params, augmented(points.detach(), chosen), labels, shares)
            kept.append(step)
            params = params - eta * step.gradient.detach()
        visit(params)
        if not self.config.diagonal:  # the loss looks at the endpoint only
            last = params.clone().requires_grad_(True)
            value = wasserstein_loss(last.unsqueeze(0), experts, diagonal=False)
            (adjoint,) = torch.autograd.grad(value, last)
            direct = None
        else:
            leaf = iterates.clone().requires_grad_(True)
            value = wasserstein_loss(leaf, experts, diagonal=True)
            (direct,) = torch.autograd.grad(value, leaf)
            adjoint = direct[-1]

        grad_points, grad_shares = torch.zeros_like(points), torch.zeros_like(shares)
        grad_lr = torch.zeros_like(eta)
        for t in reversed(range(len(draws))):
            seen = augmented(points, draws[t])
            slope, along_points, along_shares, along = self._second_order(
                iterates[t], seen.detach(), labels, shares, adjoint, kept.pop() if kept else None
            )
            # through the augmentation, back to the images
            grad_points -= (
                eta * torch.autograd.grad(seen, points, along_points)[0] if seen is not points else eta * along_points
            )
            grad_shares -= eta * along_shares
            grad_lr -= along
            adjoint = adjoint - eta * slope
            if direct is not None:
                adjoint = adjoint + direct[t]
        grad_weights = (grad_shares - grad_shares @ shares) / coreset.weights.detach().sum()
        return CoresetGradient(grad_points, grad_weights, grad_lr, value.detach())

    def _steps_kept(self, m: int, steps: int) -> int:
        """How many of the last steps keep the graph of their gradient, so that it need not be computed again: those that fit
        into `at_once` images beside the one that is worked on.
        """
        at_once = self.config.at_once
        return steps if at_once < 1 else min(steps, max(0, at_once // m - 1))

    def _first_order(self, params: Tensor, seen: Tensor, labels: Tensor, shares: Tensor) -> _Step:
        """One step's gradient g = d loss / d theta with its graph."""
        leaves = params.detach().requires_grad_(True), seen.requires_grad_(True), shares.detach().requires_grad_(True)
        theta, images, share = leaves
        loss = -(self.log_likelihood(theta.unsqueeze(0), images, labels)[0] @ share)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        return _Step(leaves, gradient)

    def _second_order(
        self, params: Tensor, seen: Tensor, labels: Tensor, shares: Tensor, adjoint: Tensor, kept: _Step | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The product g . lambda of one step, and its gradients with respect to theta, images and shares, in pieces.

        Returns:
            H lambda (p,), d(g . lambda)/d images (m, ...), d(g . lambda)/d shares (m,), g . lambda, all detached.
        """
        slope, along_points, along_shares = torch.zeros_like(params), torch.zeros_like(seen), torch.zeros_like(shares)
        along = torch.zeros_like(slope[0])
        parts = [slice(None)] if kept else [part for _, part in pieces(1, len(labels), self.config.at_once)]
        for part in parts:
            step = kept or self._first_order(params, seen[part].detach(), labels[part], shares[part])
            projection = step.gradient @ adjoint
            more, along_points[part], along_shares[part] = torch.autograd.grad(projection, step.leaves)
            slope += more
            along += projection.detach()
        return slope, along_points, along_shares, along
