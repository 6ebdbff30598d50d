"""Weighted log-likelihoods and their gradients, a bounded number of (parameter vector, point) pairs at a time.

Memory is that of one piece; the result is the same to rounding. Whatever could grow with the coreset, the batch or the
number of draws goes through here.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bpc.likelihood import LogLikelihood, is_soft

__all__ = ["log_likelihoods", "params_gradient", "pieces", "points_gradient"]


def pieces(k: int, m: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Cut k parameter vectors times m points into (rows, columns) of at most `at_once` pairs; 0 is one piece."""
    if at_once < 1:
        at_once = k * m
    columns, rows = min(m, at_once), max(1, at_once // m)
    for i in range(0, k, rows):
        for j in range(0, m, columns):
            yield slice(i, min(i + rows, k)), slice(j, min(j + columns, m))


def _cut(points: Tensor, rows: slice, columns: slice, each: bool) -> Tensor:
    return points[rows, columns] if each else points[columns]


@torch.no_grad()
def log_likelihoods(
    log_likelihood: LogLikelihood, params: Tensor, points: Tensor, labels: Tensor, *, at_once: int = 0
) -> Tensor:
    """Log p(u_m | theta_k), (k, m) nats, of points (m, ...), detached."""
    result = params.new_empty(len(params), len(labels))
    for rows, columns in pieces(len(params), len(labels), at_once):
        result[rows, columns] = log_likelihood(params[rows], points[columns], labels[columns])
    return result


def params_gradient(
    log_likelihood: LogLikelihood,
    params: Tensor,
    points: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    each: bool = False,
    own_labels: bool | None = None,
    at_once: int = 0,
) -> tuple[Tensor, Tensor]:
    """sum_m w_m log p(u_m | theta_k), (k,), and its gradient with respect to theta, (k, p); both detached.

    Args:
        log_likelihood: of the model.
        params: (k, p).
        points: (m, ...), or (k, m, ...) with `each`.
        labels: (m,), or (k, m) with `each`; as probabilities (m, y), or (k, m, y).
        weights: (m,), or (k, m).
        each: whether each parameter vector has points of its own.
        own_labels: whether each has labels of its own; None tells by their shape and type.
        at_once: pairs of parameter vector and point in a piece; 0 is all.
    """
    value, gradient = params.new_zeros(len(params)), torch.zeros_like(params)
    if own_labels is None:
        own_labels = labels.ndim == (3 if is_soft(labels) else 2)
    for rows, columns in pieces(len(params), weights.shape[-1], at_once):
        leaf = params[rows].detach().requires_grad_(True)
        own = _cut(labels, rows, columns, own_labels).detach()
        log_lik = log_likelihood(leaf, _cut(points, rows, columns, each).detach(), own)
        w = weights.detach()
        total = log_lik @ w[columns] if w.ndim == 1 else (log_lik * w[rows, columns]).sum(1)
        gradient[rows] += torch.autograd.grad(total.sum(), leaf)[0]
        value[rows] += total.detach()
    return value, gradient


def points_gradient(
    log_likelihood: LogLikelihood,
    params: Tensor,
    points: Tensor,
    labels: Tensor,
    coefficients: Tensor,
    *,
    each: bool = False,
    at_once: int = 0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log p(u_m | theta_k), (k, m), and the gradient of sum_km c_km log p(u_m | theta_k) with respect to points and labels.

    Args:
        log_likelihood, params, points, each, at_once: as for `params_gradient`.
        labels: (m,), or probabilities (m, y).
        coefficients: c, (k, m).

    Returns:
        Log-likelihoods, nats, a gradient of the shape of `points`, and one of the labels where they are probabilities; detached.
    """
    log_lik, gradient = torch.empty_like(coefficients), torch.zeros_like(points)
    by_labels = torch.zeros_like(labels) if is_soft(labels) else None
    for rows, columns in pieces(len(params), len(labels), at_once):
        leaf = _cut(points, rows, columns, each).detach().requires_grad_(True)
        own = labels[columns].detach()
        leaves = [leaf] if by_labels is None else [leaf, own.requires_grad_(True)]
        part = log_likelihood(params[rows].detach(), leaf, own)
        slopes = torch.autograd.grad((coefficients[rows, columns].detach() * part).sum(), leaves)
        log_lik[rows, columns] = part.detach()
        _cut(gradient, rows, columns, each).add_(slopes[0])
        if by_labels is not None:
            by_labels[columns] += slopes[1]
    return log_lik, gradient, by_labels
