"""Metrics of a posterior predictive, as mergeable sums.

Glossary: n test examples, k chains, y classes. Predictive p(y|x) is the mean over posterior samples of the
softmax. Every function takes any leading axes (none, or k chains) before (n, y) and answers with one number
for each of them.

The main metrics are per example, so they do not depend on how the test set was cut into batches. The
`_kim2022` variants do: they repeat how the published numbers of Kim et al. (2022, "On Divergence Measures for
Bayesian Pseudocoresets", Tables 1, 5, 6 and 7) were computed, and exist only to stand beside those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bpc.errors import ConfigError, DataError, unknown_name

__all__ = [
    "ECE_BINS",
    "KIM2022_BATCH",
    "METRICS",
    "SCORED",
    "SHIFTED",
    "Kim2022Nll",
    "MetricInfo",
    "MetricSums",
    "Reliability",
    "compute",
    "ece_kim2022",
    "empty_sums",
    "metric_info",
    "reliability",
    "update",
]

ECE_BINS = 15
KIM2022_BATCH = 128


class MetricInfo(NamedTuple):
    """What a number under a metric's name means."""

    unit: str
    higher_is_better: bool


METRICS: dict[str, MetricInfo] = {
    "accuracy": MetricInfo("fraction", True),
    "nll": MetricInfo("nats", False),
    "ece": MetricInfo("fraction", False),
    "brier": MetricInfo("score (sum over classes)", False),
    "nll_kim2022": MetricInfo("nats", False),
    "ece_kim2022": MetricInfo("fraction", False),
    # At the temperature that suits the predictive best, fitted on other images (`evaluation.calibration.calibrated_nll`).
    "nll_calibrated": MetricInfo("nats", False),
    "temperature_calibrated": MetricInfo("ratio", False),  # above 1: the predictive was too sure
    # Says how a chain moved, not how good it is: the flag only fills the column.
    "acceptance": MetricInfo("fraction", True),
    "divergences": MetricInfo("count", False),
    "ece_equal_mass": MetricInfo("fraction", False),
    "ece_classwise": MetricInfo("fraction", False),
    "aurc": MetricInfo("fraction", False),
    "ood_auroc": MetricInfo("fraction", True),
    # Against a reference posterior's predictive. The entropy gap has a sign: nearer to 0 is better, so the flag is
    # right only for its absolute value.
    "agreement": MetricInfo("fraction", True),
    "tv": MetricInfo("fraction", False),
    "sym_kl": MetricInfo("nats", False),
    "entropy_gap": MetricInfo("nats", False),
    "agreement_corrupted": MetricInfo("fraction", True),
    "tv_corrupted": MetricInfo("fraction", False),
    "sym_kl_corrupted": MetricInfo("nats", False),
    "entropy_gap_corrupted": MetricInfo("nats", False),
    "agreement_foreign": MetricInfo("fraction", True),
    "tv_foreign": MetricInfo("fraction", False),
    "sym_kl_foreign": MetricInfo("nats", False),
    "entropy_gap_foreign": MetricInfo("nats", False),
    # Of all chains of one posterior together.
    "rhat_weights": MetricInfo("ratio", False),
    "rhat_log_density": MetricInfo("ratio", False),
    "rhat_predictions_median": MetricInfo("ratio", False),
    "rhat_predictions": MetricInfo("ratio", False),
    "rhat_predictions_worst": MetricInfo("ratio", False),
    "nested_rhat_predictions": MetricInfo("ratio", False),
    "ess_bulk_predictions_median": MetricInfo("draws", True),
    "ess_bulk_predictions": MetricInfo("draws", True),
    "ess_bulk_predictions_worst": MetricInfo("draws", True),
    "ess_tail_predictions_median": MetricInfo("draws", True),
    "ess_tail_predictions": MetricInfo("draws", True),
    "ess_tail_predictions_worst": MetricInfo("draws", True),
    "tv_halves": MetricInfo("fraction", False),
    "tv_halves_error": MetricInfo("fraction", False),
    # On the points that the posterior is conditioned on: how well its draws fit them.
    "conditioning_ce": MetricInfo("nats", False),
    "conditioning_ce_start": MetricInfo("nats", False),  # where a published chain's first sample is taken
    "conditioning_ce_end": MetricInfo("nats", False),
    "ebfmi": MetricInfo("ratio", True),
    "heat": MetricInfo("fraction", False),
    "log_evidence": MetricInfo("nats", True),
    "swap_rate_min": MetricInfo("fraction", True),
    "communication_barrier": MetricInfo("rejections", False),
    "mixed": MetricInfo("0 or 1", True),
    # Of a VAE. The KL and the number of active units describe; neither is good or bad by itself.
    "nll_is": MetricInfo("nats", False),
    "bits_per_dim": MetricInfo("bits", False),
    "elbo": MetricInfo("nats", True),
    "reconstruction": MetricInfo("nats", True),
    "kl": MetricInfo("nats", False),
    "active_units": MetricInfo("count", True),
    "knn_accuracy": MetricInfo("fraction", True),
    "test_error": MetricInfo("fraction", False),
    "mce": MetricInfo("fraction", False),
}
# On the mixed corruptions, apart from the clean test set
METRICS |= {f"{name}_corrupted": METRICS[name] for name in ("accuracy", "nll", "nll_calibrated", "ece")}
# Monte Carlo standard errors of pooled predictives (`evaluation.monte_carlo`)
METRICS |= {
    f"{name}_mcse": MetricInfo(METRICS[name].unit, False)
    for name in (
        *("accuracy", "nll", "nll_calibrated", "ece", "brier"),
        *("accuracy_corrupted", "nll_corrupted", "nll_calibrated_corrupted", "ece_corrupted"),
        *(f"{m}{e}" for e in ("", "_corrupted", "_foreign") for m in ("agreement", "tv", "sym_kl", "entropy_gap")),
    )
}
SCORED = (
    "accuracy",
    "nll",
    "ece",
    "brier",
    "nll_kim2022",
    "ece_kim2022",
    "nll_calibrated",
    "temperature_calibrated",
    "acceptance",
    "divergences",
    "conditioning_ce_start",
    "conditioning_ce_end",
)  # of every chain
SHIFTED = ("accuracy", "nll", "ece")  # on each corruption and severity


def metric_info(name: str) -> MetricInfo:
    """Unit and direction of a metric; `accuracy@fog-3` (the metric on one corruption and severity) has those of `accuracy`.

    Raises:
        ConfigError: the name before the `@` is not in `METRICS`.
    """
    base, at, where = name.partition("@")
    if base not in METRICS or (at and not where):
        raise unknown_name("metric", name, METRICS, hint="Another one needs unit and higher_is_better.")
    return METRICS[base]


class MetricSums(NamedTuple):
    """Sums over the examples seen so far; `*lead` is empty or (k,) chains. All fields are tensors, so
    ``sums._asdict()`` can be checkpointed and ``MetricSums(**tensors)`` brings it back.

    Attributes:
        examples: () int64, how many were seen.
        correct: (*lead,) float64, examples whose most probable class is the label.
        nll: (*lead,) float64 nats, sum of -log p(label).
        brier: (*lead,) float64, sum of squared errors over examples and classes.
        bin_count: (*lead, b) float64, examples in each bin of confidence.
        bin_confidence: (*lead, b) float64, sum of the confidences in the bin.
        bin_correct: (*lead, b) float64, sum of the right answers in the bin.
    """

    examples: Tensor
    correct: Tensor
    nll: Tensor
    brier: Tensor
    bin_count: Tensor
    bin_confidence: Tensor
    bin_correct: Tensor


class Reliability(NamedTuple):
    """A reliability diagram (Guo et al., 2017): bin i holds confidences in (edges[i], edges[i + 1]].

    Attributes:
        edges: (b + 1,) from 0 to 1.
        centres: (b,)
        confidence: (*lead, b) mean confidence; nan in an empty bin.
        accuracy: (*lead, b) fraction right; nan in an empty bin.
        examples: (*lead, b) how many are in the bin.
    """

    edges: Tensor
    centres: Tensor
    confidence: Tensor
    accuracy: Tensor
    examples: Tensor

    @property
    def ece(self) -> Tensor:
        """(*lead,) calibration error, fraction: sum_b (examples_b / n) |accuracy_b - confidence_b|."""
        gap = (self.accuracy - self.confidence).abs() * self.examples
        gap = torch.where(self.examples > 0, gap, torch.zeros_like(gap))
        return gap.sum(-1) / self.examples.sum(-1)


def empty_sums(lead: Sequence[int] = (), *, bins: int = ECE_BINS, device: torch.device | str = "cpu") -> MetricSums:
    """Sums over no example yet.

    Args:
        lead: shape before (n, y) of the probabilities to come: () or (k,).
        bins: equal-width bins of confidence.
        device: where the sums live.
    """
    zeros = torch.zeros(tuple(lead), dtype=torch.float64, device=device)
    zero_bins = torch.zeros((*lead, bins), dtype=torch.float64, device=device)
    examples = torch.zeros((), dtype=torch.int64, device=device)
    return MetricSums(examples, zeros, zeros.clone(), zeros.clone(), zero_bins, zero_bins.clone(), zero_bins.clone())


def update(sums: MetricSums, probs: Tensor, labels: Tensor) -> MetricSums:
    """Add a batch of predictions; `sums` itself is left alone.

    A label with probability 0 counts with the smallest normal number of the dtype instead: its loss is large
    but finite (87.3 nats in float32, 708.4 in float64). A prediction with nan in it makes every metric of its
    chain nan.

    Args:
        sums: of the same leading shape.
        probs: (*lead, n, y), posterior-mean class probabilities.
        labels: (n,) int64.
    """
    _check_predictions(probs, labels)
    if probs.shape[:-2] != sums.nll.shape:
        raise ConfigError(
            f"Predictions {tuple(probs.shape)} do not fit sums for leading shape {tuple(sums.nll.shape)}; "
            "expected (*lead, n, y)."
        )
    confidence, correct = _top(probs)
    of_label = _at_label(probs, labels)
    nll = -of_label.clamp_min(torch.finfo(probs.dtype).tiny).double().log()
    # sum_c (p_c - [c = label])^2 without a one-hot array
    brier = probs.double().square().sum(-1) - 2.0 * of_label.double() + 1.0
    correct = torch.where(confidence.isnan(), confidence, (correct == labels).double())

    bins = sums.bin_count.shape[-1]
    inner_edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=probs.device)[1:-1]
    # A sum over a one-hot array and not scatter_add: the same bits every time on a GPU as well.
    member = _one_hot(torch.bucketize(confidence, inner_edges), bins)
    return MetricSums(
        examples=sums.examples + labels.numel(),
        correct=sums.correct + correct.sum(-1),
        nll=sums.nll + nll.sum(-1),
        brier=sums.brier + brier.sum(-1),
        bin_count=sums.bin_count + member.sum(-2),
        bin_confidence=sums.bin_confidence + (member * confidence.unsqueeze(-1)).sum(-2),
        bin_correct=sums.bin_correct + (member * correct.unsqueeze(-1)).sum(-2),
    )


def compute(sums: MetricSums) -> dict[str, Tensor]:
    """The metrics: each a (*lead,) float64 tensor, () without a chain axis.

    accuracy (fraction), nll (nats, mean over examples), ece (fraction, bins over the whole set), brier (sum
    over classes, mean over examples).
    """
    if int(sums.examples) == 0:
        raise DataError("Metrics of no example were asked for; update the sums with at least one batch first.")
    return {
        "accuracy": sums.correct / sums.examples,
        "nll": sums.nll / sums.examples,
        # |sum of right answers - sum of confidences| = count |accuracy - confidence|
        "ece": (sums.bin_correct - sums.bin_confidence).abs().sum(-1) / sums.examples,
        "brier": sums.brier / sums.examples,
    }


def reliability(sums: MetricSums) -> Reliability:
    """The reliability diagram behind the calibration error."""
    bins = sums.bin_count.shape[-1]
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=sums.bin_count.device)
    return Reliability(  # 0 / 0 is nan: an empty bin has no accuracy
        edges=edges,
        centres=(edges[:-1] + edges[1:]) / 2,
        confidence=sums.bin_confidence / sums.bin_count,
        accuracy=sums.bin_correct / sums.bin_count,
        examples=sums.bin_count,
    )


class Kim2022Nll(NamedTuple):
    """The NLL behind the published tables, over posterior samples s that arrive one at a time.

    sum over test batches B of |B| (-log mean_s exp(-mean_{i in B} nll_i(s))) / n: whole batches of 128 are
    mixed over samples, where the per-example predictive mixes examples, so the number lies between the
    predictive NLL and the samples' mean NLL. All fields are tensors, so ``state._asdict()`` can be
    checkpointed.

    Attributes:
        log_sum: (*lead, batches) float64, log sum_s exp(-mean NLL of the batch): mean NLLs of hundreds of
            nats underflow without the log.
        samples: () int64, posterior samples seen.
        batch_sizes: (batches,) int64, in dataset order.
    """

    log_sum: Tensor
    samples: Tensor
    batch_sizes: Tensor

    @classmethod
    def empty(
        cls,
        examples: int,
        lead: Sequence[int] = (),
        *,
        batch_size: int = KIM2022_BATCH,
        device: torch.device | str = "cpu",
    ) -> Kim2022Nll:
        """No sample yet, for `examples` test examples and leading shape () or (k,)."""
        if examples < 1 or batch_size < 1:
            raise ConfigError(f"Needs at least one example a batch; got {examples} in batches of {batch_size}.")
        sizes = [min(batch_size, examples - start) for start in range(0, examples, batch_size)]
        return cls(
            log_sum=torch.full((*lead, len(sizes)), -math.inf, dtype=torch.float64, device=device),
            samples=torch.zeros((), dtype=torch.int64, device=device),
            batch_sizes=torch.tensor(sizes, device=device),
        )

    def update(self, per_example_nll: Tensor) -> Kim2022Nll:
        """Add one posterior sample of every chain; returns the new state.

        Args:
            per_example_nll: (*lead, n) nats, -log p(y_i | x_i, theta), the whole test set in dataset order.
        """
        expected = (*self.log_sum.shape[:-1], int(self.batch_sizes.sum()))
        if tuple(per_example_nll.shape) != expected:
            raise ConfigError(
                f"Kim2022Nll expected losses {expected}; got {tuple(per_example_nll.shape)}: "
                "one posterior sample, the whole test set, not averaged."
            )
        means = _sum_by_batch(per_example_nll.double(), self.batch_sizes) / self.batch_sizes
        return self._replace(log_sum=torch.logaddexp(self.log_sum, -means), samples=self.samples + 1)

    def compute(self) -> Tensor:
        """(*lead,) nats."""
        if int(self.samples) == 0:
            raise DataError("Kim2022Nll has seen no posterior sample; update returns the new state, keep it.")
        per_batch = self.samples.double().log() - self.log_sum
        return (per_batch * self.batch_sizes).sum(-1) / self.batch_sizes.sum()


def ece_kim2022(probs: Tensor, labels: Tensor, batch_size: int = KIM2022_BATCH) -> Tensor:
    """The calibration error behind the published table (Kim et al., 2022, Table 6).

    (1/n) sum over batches and bins of |sum_{i in batch and bin} (correct_i - confidence_i)|. The 30 edges of
    ``linspace(0, 1, 30)`` make 29 bins, closed on the right. Gaps of small batches do not cancel, so it is
    never below the calibration error of the same bins over the whole set, and grows as batches shrink.

    Args:
        probs: (*lead, n, y), posterior-mean class probabilities, in dataset order.
        labels: (n,) int64.
        batch_size: examples a batch; the last one is smaller.

    Returns:
        (*lead,) fraction.
    """
    _check_predictions(probs, labels)
    if batch_size < 1:
        raise ConfigError(f"ece_kim2022 needs a batch size of 1 or more; got {batch_size}.")
    confidence, predicted = _top(probs)
    gap = (predicted == labels).double() - confidence
    edges = torch.linspace(0, 1, 30, dtype=torch.float64, device=probs.device)
    # bin 0 is for a confidence of 0 and bin 30 for one that rounds to above 1
    member = _one_hot(torch.bucketize(confidence, edges), len(edges) + 1)
    total = torch.zeros(probs.shape[:-2], dtype=torch.float64, device=probs.device)
    for start in range(0, labels.numel(), batch_size):
        batch = slice(start, start + batch_size)
        total = total + (member[..., batch, :] * gap[..., batch, None]).sum(-2).abs().sum(-1)
    return total / labels.numel()


def _top(probs: Tensor) -> tuple[Tensor, Tensor]:
    """(*lead, n) confidence in float64, nan where any class is nan, and the most probable class."""
    confidence, predicted = probs.max(-1)
    return confidence.double(), predicted


def _at_label(probs: Tensor, labels: Tensor) -> Tensor:
    """(*lead, n): the probability of the label."""
    return probs.gather(-1, labels.expand(probs.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def _one_hot(index: Tensor, size: int) -> Tensor:
    """(..., size) float64 from (...) int64."""
    return (index.unsqueeze(-1) == torch.arange(size, device=index.device)).double()


def _sum_by_batch(values: Tensor, batch_sizes: Tensor) -> Tensor:
    """(*lead, n) -> (*lead, batches): sums over consecutive batches, all of one size but the last."""
    size, batches = int(batch_sizes[0]), len(batch_sizes)
    padded = torch.nn.functional.pad(values, (0, size * batches - values.shape[-1]))
    return padded.reshape(*values.shape[:-1], batches, size).sum(-1)


def _check_predictions(probs: Tensor, labels: Tensor) -> None:
    if probs.ndim < 2 or labels.shape != probs.shape[-2:-1] or not probs.is_floating_point():
        raise ConfigError(
            f"Expected probabilities (*lead, n, y) and labels (n,); got {probs.dtype} {tuple(probs.shape)} "
            f"and {tuple(labels.shape)}."
        )
    if labels.numel() == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= probs.shape[-1]:
        raise DataError(f"Labels run from {low} to {high}; expected 0 to {probs.shape[-1] - 1}.")
    # nan is let through: a chain that diverged is data
    if bool((probs < 0).any()) or bool(((probs.sum(-1) - 1).abs() > 0.02).any()):
        raise ConfigError("Expected probabilities that sum to 1 over the last axis; were logits passed?")
