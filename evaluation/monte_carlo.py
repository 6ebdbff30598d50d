r"""Monte Carlo error of anything computed from a predictive that pools chains, by the jackknife over chains.

Chains of one posterior start apart and never meet: their predictives p_1 .. p_c are independent, and the pooled predictive is
their mean. With t_(i) a statistic of the mean without chain i, and t. the mean of those,

    se^2 = (c - 1) / c sum_i (t_(i) - t.)^2        (Tukey 1958; Efron and Stein 1981),

which for a statistic that is linear in p is the variance of a mean, s^2 / c, and for a smooth one agrees with the delta method.
It needs no autocorrelation time, and sees chains that stay apart as the error they are. From c chains it is itself uncertain by a
fraction of about 1 / sqrt(2 (c - 1)). At a kink (total variation between predictives that are equal) it is too large.
A statistic of two independent posteriors has the sum of both variances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evaluation.calibration import calibrated_nll
from evaluation.fidelity import Fidelity, fidelity
from evaluation.metrics import compute, empty_sums, update

__all__ = ["MCSE", "fidelity_errors", "jackknife_error", "leave_one_out", "metric_errors"]

MCSE = "_mcse"  # ending of the row with a metric's Monte Carlo standard error


def leave_one_out(chains: Tensor) -> Tensor:
    """(c, ...) predictives of chains to (c, ...) means over the others, float64; c is at least 2."""
    wide = chains.double()
    return (wide.sum(0) - wide) / (len(wide) - 1)


def jackknife_error(statistics: Tensor) -> Tensor:
    """Standard error of a statistic, from its values (c,) without one of the chains each; nan where one of them is."""
    count = len(statistics)
    return ((count - 1) * statistics.var(0, correction=0)).sqrt()


def metric_errors(chains: Tensor, labels: Tensor) -> dict[str, float]:
    """Monte Carlo error of accuracy, NLL, NLL at the best temperature, ECE and Brier score, named ``nll_mcse``; none for a lone
    chain.

    Args:
        chains: (c, n, y), each chain's predictive.
        labels: (n,).
    """
    if len(chains) < 2:
        return {}
    others = leave_one_out(chains)
    found = compute(update(empty_sums((len(chains),)), others, labels))
    found["nll_calibrated"] = calibrated_nll(others, labels)["nll_calibrated"]
    return {f"{name}{MCSE}": float(jackknife_error(values)) for name, values in found.items()}


def fidelity_errors(mine: Tensor, truth: Tensor) -> Fidelity | None:
    """Monte Carlo errors of the fidelity of one pooled predictive to another, from the chains of both.

    Args:
        mine: (c, n, y), each chain's predictive.
        truth: (r, n, y), likewise of the reference.

    Returns:
        Standard errors, or None where either has a lone chain.
    """
    if min(len(mine), len(truth)) < 2:
        return None
    parts = (
        fidelity(leave_one_out(mine), truth.double().mean(0)),
        fidelity(mine.double().mean(0).expand(len(truth), -1, -1), leave_one_out(truth)),
    )
    return Fidelity(*(torch.hypot(*map(jackknife_error, values)) for values in zip(*parts, strict=True)))
