"""Calibration beyond the equal-width ECE of `evaluation.metrics`, and what the confidence is good for.

Glossary: n test examples, k chains, y classes. Every function takes any leading axes (none, or k chains) before (n, y) and
answers with one number for each of them, nan for a chain with nan in it. But for the cuts of
`calibrated_nll` none depends on the order of the examples: where
confidences are equal, each of the tied examples counts with their mean, which is the expectation over all orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from bpc.errors import ConfigError, DataError
from bpc.seeding import make_generator
from evaluation.metrics import ECE_BINS, _at_label, _check_predictions, _top

__all__ = [
    "RiskCoverage",
    "aurc",
    "calibrated_nll",
    "ece_classwise",
    "ece_equal_mass",
    "entropy",
    "ood_auroc",
    "risk_coverage",
]

Array = NDArray[np.float64]
SPLITS = 5  # of the images into halves, each used both ways
COLDEST, HOTTEST = 0.01, 100.0  # temperatures that are tried; where every answer is right the best one is 0


class RiskCoverage(NamedTuple):
    """What remains wrong when only the surest examples are answered.

    Attributes:
        coverage: (n,) fraction answered: 1/n, 2/n, ..., 1.
        risk: (*lead, n) fraction of those that is wrong.
    """

    coverage: Tensor
    risk: Tensor


def entropy(probs: Tensor) -> Tensor:
    """Shannon entropy of each prediction, nats, with 0 log 0 = 0.

    Args:
        probs: (*lead, n, y).

    Returns:
        (*lead, n) float64, from 0 to log y.
    """
    return torch.special.entr(probs.double()).sum(-1)


def ece_equal_mass(probs: Tensor, labels: Tensor, bins: int = ECE_BINS) -> Tensor:
    """Calibration error with bins of equal numbers of examples (Nguyen and O'Connor, 2015; Nixon et al., 2019).

    sum_b (n_b / n) |accuracy_b - confidence_b|: sorted by confidence, the examples are cut into `bins` runs whose sizes
    differ by at most one, so no bin is empty and none holds nearly everything.

    Args:
        probs: (*lead, n, y), posterior-mean class probabilities.
        labels: (n,) int64.
        bins: at most n of them are used.

    Returns:
        (*lead,) fraction.
    """
    _check(probs, labels, bins)

    def error(confidence: Array, correct: Array) -> float:
        gap = _tied_means(confidence, correct) - confidence
        parts = np.array_split(gap, min(bins, len(gap)))
        return float(sum(abs(part.sum()) for part in parts) / len(gap))

    return _of_each_chain(probs, labels, error)


def ece_classwise(probs: Tensor, labels: Tensor, bins: int = ECE_BINS) -> Tensor:
    """Classwise calibration error (Kull et al., 2019): mean over classes of the one-against-rest error.

    (1/y) sum_c sum_b (n_cb / n) |fraction of class c in the bin - mean p_c in the bin|, over equal-width bins of p_c,
    closed on the right. It sees every probability, where the usual error sees the largest only.

    Args:
        probs: (*lead, n, y), posterior-mean class probabilities.
        labels: (n,) int64.
        bins: equal-width bins of each class's probability.

    Returns:
        (*lead,) fraction.
    """
    _check(probs, labels, bins)
    wide = probs.double()
    inner_edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=probs.device)[1:-1]
    index = torch.bucketize(wide.contiguous(), inner_edges)
    gap = torch.nn.functional.one_hot(labels, probs.shape[-1]).double() - wide
    total = torch.zeros(probs.shape[:-2], dtype=torch.float64, device=probs.device)
    for b in range(bins):  # one bin at a time: a one-hot array over bins would be `bins` times as large as `probs`
        total = total + torch.where(index == b, gap, 0.0).sum(-2).abs().mean(-1)
    total = total / labels.numel()
    # a nan falls into the last bin, where it stays a nan; said here so that it does not rest on bucketize
    return torch.where(wide.isnan().any(-1).any(-1), math.nan, total)


def calibrated_nll(probs: Tensor, labels: Tensor, *, splits: int = SPLITS, seed: int = 0) -> dict[str, Tensor]:
    """NLL at the best temperature, by test-time cross-validation (Ashukha et al., 2020, section 3).

    At temperature T the predictive is softmax(log p / T). The images are cut into two halves at random; T is the one with the
    least NLL on one half and the score is the NLL on the other, both ways round, averaged over `splits` cuts. No image is
    scored at a temperature that has seen it.

    Args:
        probs: (*lead, n, y), posterior-mean class probabilities; those below the least normal float32 count as that.
        labels: (n,) int64.
        splits: cuts.
        seed: of the cuts; the same ones for every predictive of n images.

    Returns:
        ``nll_calibrated``, (*lead,) nats, and ``temperature_calibrated``, (*lead,) the geometric mean of the temperatures
        found, from 0.01 to 100 (below 1: the predictive was not sure enough). nan for a single image.
    """
    _check(probs, labels)
    n = labels.numel()
    log_probs = probs.double().clamp(min=torch.finfo(torch.float32).tiny).log()
    if n < 2:
        return dict.fromkeys(("nll_calibrated", "temperature_calibrated"), log_probs[..., 0, 0] * math.nan)
    generator = make_generator("cpu", seed, "halves")
    scores, temperatures = [], []
    for _ in range(splits):
        order = torch.randperm(n, generator=generator).to(probs.device)
        halves = order[: n // 2], order[n // 2 :]
        for fit, held in (halves, halves[::-1]):
            log_t = _best_log_temperature(log_probs[..., fit, :], labels[fit])
            tempered = (log_probs[..., held, :] / log_t.exp()[..., None, None]).log_softmax(-1)
            scores.append(-_at_label(tempered, labels[held]).mean(-1))
            temperatures.append(log_t)
    return {
        "nll_calibrated": torch.stack(scores).mean(0),
        "temperature_calibrated": torch.stack(temperatures).mean(0).exp(),
    }


def _best_log_temperature(log_probs: Tensor, labels: Tensor) -> Tensor:
    """(*lead,): log T of the least NLL, by bisection: the NLL is convex in 1/T, so its slope changes sign once."""
    low = torch.full(log_probs.shape[:-2], math.log(COLDEST), dtype=log_probs.dtype, device=log_probs.device)
    high = torch.full_like(low, math.log(HOTTEST))
    wanted = _at_label(log_probs, labels).mean(-1)
    for _ in range(32):
        middle = (low + high) / 2
        tempered = (log_probs / middle.exp()[..., None, None]).softmax(-1)
        slope = (tempered * log_probs).sum(-1).mean(-1) - wanted  # d NLL / d (1/T): above 0, T is too low
        low, high = torch.where(slope > 0, middle, low), torch.where(slope > 0, high, middle)
    return torch.where(wanted.isnan(), math.nan, (low + high) / 2)


def risk_coverage(probs: Tensor, labels: Tensor) -> RiskCoverage:
    """The risk-coverage curve (El-Yaniv and Wiener, 2010; Geifman and El-Yaniv, 2017).

    The confidence is the largest probability, the risk the fraction wrong.

    Args:
        probs: (*lead, n, y), posterior-mean class probabilities.
        labels: (n,) int64.
    """
    _check(probs, labels)
    n = labels.numel()

    def curve(confidence: Array, correct: Array) -> Array:
        wrong = 1.0 - _tied_means(confidence, correct)[::-1]  # the surest first
        return np.cumsum(wrong) / np.arange(1, n + 1)

    coverage = torch.arange(1, n + 1, dtype=torch.float64, device=probs.device) / n
    return RiskCoverage(coverage, _of_each_chain(probs, labels, curve, (n,)))


def aurc(probs: Tensor, labels: Tensor) -> Tensor:
    """Area under the risk-coverage curve (Geifman et al., 2019): mean over coverages 1/n, ..., 1 of the fraction wrong.

    Args:
        probs: (*lead, n, y), posterior-mean class probabilities.
        labels: (n,) int64.

    Returns:
        (*lead,) fraction; small means that the errors are where the model is unsure. A constant confidence gives the
        error rate.
    """
    return risk_coverage(probs, labels).risk.mean(-1)


def ood_auroc(in_probs: Tensor, out_probs: Tensor) -> Tensor:
    """How well the predictive entropy tells foreign inputs from those of the test set (Hendrycks and Gimpel, 2017).

    P(entropy out > entropy in) + P(equal) / 2 over all pairs, the area under the ROC curve.

    Args:
        in_probs: (*lead, n, y), on the test set.
        out_probs: (*lead, n_out, y), on the foreign inputs, by the same chains.

    Returns:
        (*lead,) fraction: 1 is perfect, 0.5 chance.
    """
    if in_probs.shape[:-2] != out_probs.shape[:-2] or in_probs.ndim < 2 or in_probs.shape[-1] != out_probs.shape[-1]:
        raise ConfigError(
            f"ood_auroc expected two predictives (*lead, n, y) of the same chains and classes; got {tuple(in_probs.shape)} "
            f"and {tuple(out_probs.shape)}."
        )
    n_in, n_out = in_probs.shape[-2], out_probs.shape[-2]
    if not n_in or not n_out:
        raise DataError(f"ood_auroc needs inputs of both kinds; got {n_in} of the test set and {n_out} foreign ones.")
    scores = torch.cat([entropy(in_probs), entropy(out_probs)], -1).cpu().numpy()
    # Entropies of permuted probabilities are equal but for rounding: without this, ties would be broken by the last bits.
    ranks = rankdata(np.round(scores, 12), axis=-1, nan_policy="propagate")
    area = (ranks[..., n_in:].sum(-1) - n_out * (n_out + 1) / 2) / (n_in * n_out)
    return torch.as_tensor(area, dtype=torch.float64, device=in_probs.device)


def _of_each_chain(
    probs: Tensor, labels: Tensor, measure: Callable[[Array, Array], float | Array], shape: tuple[int, ...] = ()
) -> Tensor:
    """`measure` of confidences (n,), rising, and right answers (n,) 0 or 1, for every chain; nan where the chain has one."""
    confidence, predicted = _top(probs)
    lead = probs.shape[:-2]
    sure = confidence.reshape(-1, labels.numel()).cpu().numpy()
    right = (predicted == labels).double().reshape(-1, labels.numel()).cpu().numpy()
    found = np.full((len(sure), *shape), np.nan)
    for i in range(len(sure)):
        if not np.isnan(sure[i]).any():
            order = np.argsort(sure[i], kind="stable")
            found[i] = measure(sure[i][order], right[i][order])
    return torch.as_tensor(found, device=probs.device).reshape((*lead, *shape))


def _tied_means(rising: Array, values: Array) -> Array:
    """(n,): each value replaced by the mean over the examples with the same entry of `rising`."""
    _, group, count = np.unique(rising, return_inverse=True, return_counts=True)
    return (np.bincount(group, weights=values) / count)[group]


def _check(probs: Tensor, labels: Tensor, bins: int = 1) -> None:
    _check_predictions(probs, labels)
    if bins < 1:
        raise ConfigError(f"A calibration error needs at least one bin; got {bins}.")
    if labels.numel() == 0:
        raise DataError("A measure of no example was asked for; give at least one prediction.")
