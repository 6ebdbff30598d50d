r"""The leapfrog flow of a coreset's potential as a differentiable map of the coreset, in memory that a longer flow does not need
more of.

A trajectory is iterations of m leapfrogs, the momentum drawn anew before each iteration and nothing rejected, so that from fixed
noise theta_T is a smooth function of points u, labels and weights (sparse Hamiltonian flows, Chen, Xu and Campbell 2022). With F
the force, V the inverse mass, h_1 = eps / 2 and h_i = eps otherwise, the i-th leapfrog of an iteration is

    r_i = r_{i-1} + h_i F(theta_{i-1}; u),      theta_i = theta_{i-1} + eps V r_i

(the half kick that would end the iteration acts on a momentum that is thrown away). For the adjoints a = dL/dtheta_i and
b = dL/dr_i, b starting at zero in every iteration, its gradient is

    b += eps V a,    a += h_i (dF/dtheta)^T b,    dL/du += h_i (dF/du)^T b,

all three at theta_{i-1}, which the leapfrog run backwards gives: theta_{i-1} = theta_i - eps V r_i, r_{i-1} = r_i - h_i F. The
force that the way back needs is a by-product of its own vector-Jacobian product, so that going back costs no more than storing
every state would. Two vectors are kept for each iteration of the window, where rounding starts afresh, and one pass's graph is
alive at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bpc.likelihood import LogLikelihood, is_soft
from bpc.pieces import params_gradient, pieces
from bpc.weight_prior import WeightPrior

__all__ = ["Dynamics", "FlowGradient", "GaussianPull", "NormPull", "Potential", "Pull", "flow_gradient", "run_flow"]


class Pull(Protocol):
    """The part of the force that does not depend on the coreset: the gradient of a log prior."""

    def force(self, params: Tensor) -> Tensor:
        """(k, p) -> (k, p)."""
        ...

    def product(self, params: Tensor, vector: Tensor) -> Tensor:
        """The Jacobian of `force` (it is symmetric) times `vector`, (k, p)."""
        ...


@dataclass(frozen=True)
class NormPull:
    """Of -strength * ||theta||, each chain's: the published penalty, which is no square."""

    strength: float

    def force(self, params: Tensor) -> Tensor:
        """See `Pull`."""
        return -self.strength * params / torch.linalg.vector_norm(params, dim=1, keepdim=True)

    def product(self, params: Tensor, vector: Tensor) -> Tensor:
        """See `Pull`: what is along theta feels nothing."""
        norm = torch.linalg.vector_norm(params, dim=1, keepdim=True)
        unit = params / norm
        return -self.strength / norm * (vector - unit * (unit * vector).sum(1, keepdim=True))


@dataclass(frozen=True, eq=False)
class GaussianPull:
    """Of the log density of a Gaussian prior."""

    prior: WeightPrior

    def force(self, params: Tensor) -> Tensor:
        """See `Pull`."""
        return self.prior.gradient(params)

    def product(self, params: Tensor, vector: Tensor) -> Tensor:
        """See `Pull`."""
        return -vector / self.prior.std**2


class FlowGradient(NamedTuple):
    """Gradients of a scalar of the flow's states; summed over chains."""

    points: Tensor  # (m, ...)
    coefficients: Tensor  # (m,)
    labels: Tensor | None  # of the labels' shape where they are probabilities


@dataclass(frozen=True, eq=False)
class Potential:
    """Minus the potential: sum_m c_m log p(u_m | theta) + log prior, for k chains.

    Attributes:
        log_likelihood: of the model.
        points: (m, ...).
        labels: (m,), or probabilities (m, y).
        coefficients: c, (m,).
        pull: the prior's part.
        at_once: see `bpc.pieces`.
    """

    log_likelihood: LogLikelihood
    points: Tensor
    labels: Tensor
    coefficients: Tensor
    pull: Pull
    at_once: int = 0

    def force(self, params: Tensor) -> Tensor:
        """Gradient with respect to theta, (k, p), detached."""
        _, gradient = params_gradient(
            self.log_likelihood, params, self.points, self.labels, self.coefficients, at_once=self.at_once
        )
        return gradient + self.pull.force(params)

    def zeros(self) -> FlowGradient:
        """Where the sums of `products` start."""
        soft = is_soft(self.labels)
        return FlowGradient(
            torch.zeros_like(self.points),
            torch.zeros_like(self.coefficients),
            torch.zeros_like(self.labels) if soft else None,
        )

    def products(self, params: Tensor, vector: Tensor, scale: float, into: FlowGradient) -> tuple[Tensor, Tensor]:
        """The force and its Jacobian times `vector`; `scale` times the mixed products are added to `into`, all detached.

        Args:
            params, vector: (k, p).
            scale: of what is added.
            into: sums, changed in place.

        Returns:
            F (k, p) and (dF/dtheta)^T vector (k, p), not scaled.
        """
        force, product = self.pull.force(params), self.pull.product(params, vector)
        for rows, columns in pieces(len(params), len(self.coefficients), self.at_once):
            theta = params[rows].detach().requires_grad_(True)
            leaves = [self.points[columns].detach(), self.coefficients[columns].detach()]
            labels = self.labels[columns].detach()
            if into.labels is not None:
                leaves.append(labels)
            for leaf in leaves:
                leaf.requires_grad_(True)
            total = (self.log_likelihood(theta, leaves[0], labels) @ leaves[1]).sum()
            (gradient,) = torch.autograd.grad(total, theta, create_graph=True)
            projection = (gradient * vector[rows]).sum()
            mixed = torch.autograd.grad(projection, [theta, *leaves], materialize_grads=True)
            force[rows] += gradient.detach()
            product[rows] += mixed[0]
            into.points[columns] += scale * mixed[1]
            into.coefficients[columns] += scale * mixed[2]
            if into.labels is not None:
                into.labels[columns] += scale * mixed[3]
        return force, product


@dataclass(frozen=True, kw_only=True, eq=False)
class Dynamics:
    """Settings of the flow.

    Attributes:
        step_size: eps.
        leapfrog_steps: m, of an iteration.
        momentum_scale: standard deviation of the momentum, a number or (p,).
        inverse_mass: V, a number or (p,): velocity = V r.
    """

    step_size: float
    leapfrog_steps: int
    momentum_scale: Tensor | float = 1.0
    inverse_mass: Tensor | float = 1.0


class _End(NamedTuple):
    """Where an iteration ends: theta_m and the momentum that brought it there."""

    params: Tensor  # (k, p)
    momentum: Tensor  # (k, p)


def run_flow(
    potential: Potential, dynamics: Dynamics, start: Tensor, noise: Callable[[], Tensor], iterations: int, keep: int
) -> list[_End]:
    """Run `iterations` iterations from `start` (k, p) without a graph; the ends of the last `keep` are returned, in order.

    Args:
        potential, dynamics: what flows.
        start: theta_0.
        noise: gives unit Gaussian noise (k, p), once an iteration.
        iterations: at least 1.
        keep: at least 1.
    """
    params, eps, ends = start.detach(), dynamics.step_size, []
    grad = potential.force(params)
    for iteration in range(iterations):
        momentum = dynamics.momentum_scale * noise() + 0.5 * eps * grad
        for i in range(dynamics.leapfrog_steps):
            params = params + eps * dynamics.inverse_mass * momentum
            inside = i < dynamics.leapfrog_steps - 1
            if inside or iteration < iterations - 1:
                grad = potential.force(params)
            if inside:
                momentum = momentum + eps * grad
        if iteration >= iterations - keep:
            ends.append(_End(params, momentum))
    return ends


def flow_gradient(
    potential: Potential, dynamics: Dynamics, ends: list[_End], slopes: Mapping[int, Tensor], window: int
) -> FlowGradient:
    """The gradient of a scalar L of the ends of iterations, back through the last `window` leapfrogs.

    Args:
        potential, dynamics: as for `run_flow`, at the same coreset.
        ends: from `run_flow`; at least as many as the window reaches back.
        slopes: dL/dtheta (k, p) at ``ends[i]``, by i; the others have none.
        window: leapfrogs; what lies before is taken as constant.
    """
    found, eps = potential.zeros(), dynamics.step_size
    adjoint, left = torch.zeros_like(ends[-1].params), window
    for i in reversed(range(len(ends))):
        params, momentum = ends[i]
        if i in slopes:
            adjoint = adjoint + slopes[i]
        along = torch.zeros_like(adjoint)  # of the momentum
        for step in reversed(range(dynamics.leapfrog_steps)):
            if left == 0:
                return found
            left -= 1
            along = along + eps * dynamics.inverse_mass * adjoint
            params = params - eps * dynamics.inverse_mass * momentum
            kick = eps if step else 0.5 * eps
            force, product = potential.products(params, along, kick, found)
            momentum = momentum - kick * force
            adjoint = adjoint + kick * product
    return found
