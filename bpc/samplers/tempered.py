"""HMC on likelihood^beta * prior, each row of a batch at its own beta: what parallel tempering and tempered SMC move by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bpc.posterior import Posterior
from bpc.samplers.hmc import HMCConfig, HMCInfo, HMCState, hmc
from bpc.seeding import ChainGenerators

__all__ = ["Replicas", "RowGenerators", "TemperedDensity", "move", "replicas_at", "tempered_state"]


class Replicas(NamedTuple):
    """Parameter vectors with the likelihood's part of their density, which does not depend on beta: n rows."""

    params: Tensor  # (n, p)
    log_likelihood: Tensor  # (n,) nats
    grad: Tensor  # (n, p), of the log likelihood


class RowGenerators(ChainGenerators):
    """k generators for k * rows rows: row j of chain i takes the numbers of chain i's generator.

    Args:
        generators: one per chain.
        rows: of each chain, side by side.
    """

    def __init__(self, generators: ChainGenerators, rows: int) -> None:
        super().__init__(generators.generators)
        self.chains, self.rows = generators, rows

    def __len__(self) -> int:
        return len(self.chains) * self.rows

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws, (k * rows, *shape)."""
        return self.chains.normal(self.rows, *shape).flatten(0, 1)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws on [0, 1), (k * rows, *shape)."""
        return self.chains.uniform(self.rows, *shape).flatten(0, 1)


class TemperedDensity:
    """beta * log likelihood + log prior, nats; it keeps the likelihood's part of what it was asked last.

    Args:
        posterior: for n rows.
        beta: (n,), the likelihood's power.
    """

    def __init__(self, posterior: Posterior, beta: Tensor) -> None:
        self.posterior, self.beta = posterior, beta
        self.last: Replicas | None = None

    def value_and_gradient(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) and (n, p), detached."""
        self.last = replicas_at(self.posterior, params)
        return self.of(self.last)

    def __call__(self, params: Tensor) -> Tensor:
        """(n, p) -> (n,) nats."""
        return self.value_and_gradient(params)[0]

    def of(self, at: Replicas) -> tuple[Tensor, Tensor]:
        """Density (n,) and gradient (n, p) where the likelihood is known already."""
        value = self.beta * at.log_likelihood + self.posterior.log_prior(at.params)
        return value, self.beta.unsqueeze(1) * at.grad + self.posterior.prior_gradient(at.params)


def replicas_at(posterior: Posterior, params: Tensor) -> Replicas:
    """The likelihood's part at `params` (n, p), by one gradient."""
    return Replicas(params.detach(), *posterior.likelihood_and_gradient(params.detach()))


def tempered_state(density: TemperedDensity, at: Replicas, step_size: Tensor) -> HMCState:
    """What HMC needs to go on from `at`; no gradient is taken. `step_size` is (n,); the mass is the prior's precision."""
    inverse_mass = torch.ones_like(at.params) * density.posterior.prior.std**2
    return HMCState(at.params, *density.of(at), step_size, inverse_mass)


def move(
    posterior: Posterior, at: Replicas, beta: Tensor, step_size: Tensor, config: HMCConfig, generators: ChainGenerators
) -> tuple[Replicas, HMCInfo]:
    """One draw of `hmc` for every row.

    Args:
        posterior: for n rows.
        at: where they stand.
        beta, step_size: (n,); a step of 1 is of the order of the prior's width.
        config: leapfrog steps and jitter; its step size and mass are not looked at.
        generators: for n rows.
    """
    density = TemperedDensity(posterior, beta)
    _, info = hmc(density, config).step(tempered_state(density, at, step_size), generators)
    end = density.last  # a leapfrog asks for the density of the proposal last
    assert end is not None
    keep = info.accepted.unsqueeze(1)
    moved = Replicas(
        torch.where(keep, end.params, at.params),
        torch.where(info.accepted, end.log_likelihood, at.log_likelihood),
        torch.where(keep, end.grad, at.grad),
    )
    return moved, info
