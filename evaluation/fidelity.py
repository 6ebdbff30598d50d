"""How near a coreset's posterior predictive is to the reference's, input by input.

Accuracy and NLL say how good a predictive is; these say whether it is *the posterior's*. A coreset that answers better than
the full data's posterior is not a faithful one. Two independent runs of the reference differ as well: their fidelity is the
ceiling that a coreset can reach.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError, DataError
from evaluation.calibration import entropy

__all__ = ["Fidelity", "fidelity"]


class Fidelity(NamedTuple):
    """Means over inputs, (*lead,) float64 each; all nan for a chain with nan in either predictive.

    Attributes:
        agreement: fraction of inputs for which both predict the same class (the first of equally probable ones).
        tv: total variation distance 1/2 sum_c |p_c - q_c|, fraction: 0 to 1.
        sym_kl: mean of both directions, 1/2 [KL(p || q) + KL(q || p)], nats: half of Jeffreys' (1946) divergence, so that it
            is on the scale of one KL.
        entropy_gap: H(p) - H(q), nats, signed: below 0 where the coreset is surer than the reference.
    """

    agreement: Tensor
    tv: Tensor
    sym_kl: Tensor
    entropy_gap: Tensor


def fidelity(p: Tensor, q: Tensor) -> Fidelity:
    """Compare a coreset's predictive p with the reference's q on the same inputs.

    A probability of 0 counts in the logarithms as the smallest normal number of its dtype, so a class that only one side
    excludes costs a large but finite number of nats (up to 87.3 times half the other's probability in float32, 708.4 in
    float64).

    Args:
        p: (*lead, n, y) probabilities, e.g. of k chains.
        q: the same shape, or any that broadcasts to it: one reference (n, y) for all chains.

    Raises:
        ConfigError: other shapes, or something that is not probabilities.
        DataError: no input.
    """
    if (
        p.ndim < 2
        or q.ndim < 2
        or p.shape[-2:] != q.shape[-2:]
        or not (p.is_floating_point() and q.is_floating_point())
    ):
        raise ConfigError(
            f"Two predictives to be compared must be (*lead, n, y) for the same n inputs and y classes; got {tuple(p.shape)} "
            f"and {tuple(q.shape)}."
        )
    if p.shape[-2] == 0:
        raise DataError("The fidelity of no prediction was asked for; give at least one input.")
    for probs in (p, q):  # nan compares false and is let through
        if bool((probs < 0).any()) or bool(((probs.sum(-1) - 1).abs() > 0.02).any()):
            raise ConfigError("Expected probabilities that sum to 1 over the last axis; were logits passed?")
    log_p, log_q = (probs.clamp_min(torch.finfo(probs.dtype).tiny).double().log() for probs in (p, q))
    difference = p.double() - q.double()
    each = [
        (p.argmax(-1) == q.argmax(-1)).double(),
        0.5 * difference.abs().sum(-1),
        0.5 * (difference * (log_p - log_q)).sum(-1),  # sum (p - q) log(p / q) is KL(p || q) + KL(q || p)
        entropy(p) - entropy(q),
    ]
    # argmax takes a nan for the largest: agreement would not show it
    lost = difference.isnan().any(-1).any(-1)
    return Fidelity(*(torch.where(lost, torch.nan, values.mean(-1)) for values in each))
