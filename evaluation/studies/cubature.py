"""Integrals over a log-concave density of few dimensions, on a lattice that is fitted to the density's own moments.

The trapezoidal rule on a lattice of spacing h converges faster than any power of h for a smooth density that has died out at the
lattice's end: for a Gaussian, in units of its standard deviation, the error is exp(-2 pi^2 / h^2), 10^-24 at h = 0.6. What is
left to get right is place and scale: the first lattice lies around a Laplace approximation, the next around the moments found on
it (adaptive quadrature after Naylor and Smith, 1982).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError, NumericalError
from bpc.samplers import LogDensity
from evaluation.studies.normal import Normal

__all__ = ["Cubature", "cubature", "kl_from", "log_density_in_parts"]

MOST_DIMENSIONS = 4  # the lattice has (2 reach / spacing)^d nodes
COARSE = 1.0  # spacing of the lattices that only find moments
NEGLIGIBLE = 30.0  # nats below the highest node: left out, e^-30 each
EDGE_MASS = 1e-4  # more than this at the lattice's end, and it is too small


class Cubature(NamedTuple):
    """A normalised density on nodes."""

    nodes: Tensor  # (q, d)
    log_density: Tensor  # (q,) nats, normalised
    mass: Tensor  # (q,), adds up to 1
    log_normaliser: Tensor  # scalar: of the density as it was given
    moments: Normal


def log_density_in_parts(log_density: LogDensity, nodes: Tensor, size: int = 2048) -> Tensor:
    """(q, d) -> (q,) nats, `size` nodes at a time, without a graph."""
    with torch.no_grad():
        return torch.cat([log_density(part) for part in nodes.split(size)])


def cubature(
    log_density: LogDensity, start: Normal, *, spacing: float = 0.6, reach: float = 8.0, rounds: int = 3
) -> Cubature:
    """Nodes, masses and moments of a density.

    Args:
        log_density: (k, d) -> (k,) nats, up to a constant.
        start: where the density roughly is: a Laplace approximation.
        spacing: of the last lattice, in standard deviations.
        reach: radius of the lattice, in standard deviations.
        rounds: lattices to find the moments with, before the last.

    Raises:
        ConfigError: more than 4 dimensions.
        NumericalError: the density reaches beyond the lattice.
    """
    d = len(start.mean)
    if d > MOST_DIMENSIONS or not 0 < spacing < reach:
        raise ConfigError(
            f"Cubature is for up to {MOST_DIMENSIONS} dimensions and 0 < spacing < reach; got {d}, {spacing}, {reach}."
        )
    fitted = start
    for _ in range(rounds):
        fitted, *_ = _on_lattice(log_density, fitted, COARSE, reach)
    moments, nodes, values, cell, edge = _on_lattice(log_density, fitted, spacing, reach)
    log_normaliser = torch.logsumexp(values, 0) + cell
    mass = torch.softmax(values, 0)
    if float(mass[edge].sum()) > EDGE_MASS:
        raise NumericalError(
            f"{float(mass[edge].sum()):.1e} of a density lies at the end of the cubature lattice; raise `reach`."
        )
    return Cubature(nodes, values - log_normaliser, mass, log_normaliser, moments)


def _on_lattice(
    log_density: LogDensity, fitted: Normal, spacing: float, reach: float
) -> tuple[Normal, Tensor, Tensor, Tensor, Tensor]:
    """Moments; nodes (q, d) that matter and log density there (q,); log volume of a node; which are at the lattice's end (q,)."""
    count = int(reach / spacing)
    axis = torch.arange(-count, count + 1, dtype=fitted.mean.dtype) * spacing
    white = torch.cartesian_prod(*[axis] * len(fitted.mean)).view(-1, len(fitted.mean))
    radius = white.norm(dim=1)
    white, radius = white[radius <= reach], radius[radius <= reach]
    factor = torch.linalg.cholesky(fitted.covariance)
    nodes = fitted.mean + white @ factor.T
    values = log_density_in_parts(log_density, nodes)
    keep = values > values.max() - NEGLIGIBLE
    nodes, values, edge = nodes[keep], values[keep], radius[keep] > reach - spacing
    mass = torch.softmax(values, 0)
    mean = mass @ nodes
    gap = nodes - mean
    covariance = (gap.T * mass) @ gap
    # a lattice much too coarse may see one node only: never fit narrower than half of what there was
    moments = Normal(mean, covariance + 1e-3 * fitted.covariance)
    return moments, nodes, values, len(mean) * torch.tensor(spacing).log() + factor.diagonal().log().sum(), edge


def kl_from(density: Cubature, other: LogDensity, other_log_normaliser: Tensor) -> Tensor:
    """KL[density || other], nats, a scalar.

    Args:
        density: what is integrated over.
        other: log density up to the constant `other_log_normaliser`, which a `Cubature` of it has found.
    """
    gap = density.log_density - (log_density_in_parts(other, density.nodes) - other_log_normaliser)
    return density.mass @ gap
