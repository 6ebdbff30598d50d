"""Calibration and selective prediction against brute force, torchmetrics and scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error

from bpc.errors import ConfigError, DataError
from bpc.seeding import make_generator
from evaluation.calibration import (
    aurc,
    calibrated_nll,
    ece_classwise,
    ece_equal_mass,
    entropy,
    ood_auroc,
    risk_coverage,
)
from evaluation.metrics import compute, empty_sums, update


def predictions(n=200, y=5, seed=0, lead=(), levels=None):
    """Probabilities and labels; with `levels`, confidences take few values, so that many are tied."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(y, (n,), generator=generator)
    logits = torch.randn(*lead, n, y, generator=generator) + torch.nn.functional.one_hot(labels, y)
    probs = (2 * logits).double().softmax(-1)
    if levels is not None:
        top = torch.randint(y, (n,), generator=generator)
        sure = 1 / y + (1 - 1 / y) * (1 + torch.randint(levels, (n,), generator=generator)) / (levels + 1)
        probs = ((1 - sure) / (y - 1)).double().unsqueeze(-1).repeat(1, y)
        probs[torch.arange(n), top] = sure.double()
    return probs, labels


def shuffled(probs, labels, seed):
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return probs[..., order, :], labels[order]


MEASURES = [ece_equal_mass, ece_classwise, aurc]


# --- entropy --------------------------------------------------------------------------------


def test_entropy_of_known_distributions():
    probs = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    assert entropy(probs).tolist() == pytest.approx([math.log(4), 0.0, math.log(2)])
    assert entropy(probs.expand(3, 3, 4)).shape == (3, 3) and entropy(probs).dtype == torch.float64


# --- calibration errors ---------------------------------------------------------------------


@pytest.mark.parametrize("bins", [1, 7, 15, 200])
def test_equal_mass_bins_one_by_one(bins):
    probs, labels = predictions()
    confidence, predicted = probs.max(-1)
    order = confidence.argsort()
    gap = ((predicted == labels).double() - confidence)[order]
    # n = 200: the first n % bins bins hold one more
    sizes = [200 // bins + (i < 200 % bins) for i in range(bins)]
    expected = sum(abs(part.sum().item()) for part in gap.split(sizes)) / 200
    assert ece_equal_mass(probs, labels, bins).item() == pytest.approx(expected)


def test_one_bin_is_the_gap_between_confidence_and_accuracy():
    probs, labels = predictions()
    confidence, predicted = probs.max(-1)
    gap = abs((predicted == labels).double().mean() - confidence.mean()).item()
    assert ece_equal_mass(probs, labels, 1).item() == pytest.approx(gap)


def test_more_bins_than_examples_make_a_bin_of_each():
    probs, labels = predictions(n=4)
    confidence, predicted = probs.max(-1)
    expected = ((predicted == labels).double() - confidence).abs().mean().item()
    assert ece_equal_mass(probs, labels, 15).item() == pytest.approx(expected)


def test_tied_confidences_count_with_their_mean():
    # one confidence for all: half right, so every bin has |1/2 - 0.7|, whatever the order
    probs = torch.tensor([[0.7, 0.3]]).repeat(40, 1).double()
    labels = torch.arange(40) % 2
    for order in (labels, labels.sort().values):
        assert ece_equal_mass(probs, order, 5).item() == pytest.approx(0.2)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_classwise_is_the_mean_of_the_one_against_rest_errors_of_torchmetrics(bins):
    probs, labels = predictions(n=500, y=4)
    expected = np.mean(
        [
            binary_calibration_error(probs[:, c].contiguous(), (labels == c).long(), n_bins=bins, norm="l1").item()
            for c in range(4)
        ]
    )
    # torchmetrics closes bins on the left; no probability lies on an edge
    assert ece_classwise(probs, labels, bins).item() == pytest.approx(expected, abs=1e-6)


def test_classwise_bins_are_closed_on_the_right_like_those_of_the_main_error():
    # 0.5 is an edge of two bins and belongs to the lower one, beside the 0.4 of class 0
    probs = torch.tensor([[0.5, 0.5], [0.4, 0.6]]).double()
    labels = torch.tensor([0, 1])
    # class 0: one bin of both, |1 - 0.9| / 2; class 1: bin 0.5 alone |0 - 0.5| / 2, bin 0.6 alone |1 - 0.6| / 2
    assert ece_classwise(probs, labels, 2).item() == pytest.approx((0.05 + 0.25 + 0.2) / 2)


def test_a_calibrated_predictive_has_small_errors_and_an_overconfident_one_large():
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(20000, 3, generator=generator).mul(2).double().softmax(-1)
    labels = torch.multinomial(probs, 1, generator=generator).squeeze(-1)
    sharp = probs.pow(3) / probs.pow(3).sum(-1, keepdim=True)
    for measure, limit in ((ece_equal_mass, 0.015), (ece_classwise, 0.015)):
        assert measure(probs, labels) < limit and measure(sharp, labels) > 0.05


def test_equal_mass_and_equal_width_agree_where_confidences_are_spread_evenly():
    confidence = 0.5 + (torch.arange(4000).double() + 0.5) / 8000  # none on an edge
    probs = torch.stack([confidence, 1 - confidence], -1)
    labels = (torch.arange(4000) % 10 < 2).long()  # 80 % right everywhere
    width = compute(update(empty_sums(bins=20), probs, labels))["ece"].item()  # ten bins over 0.5 to 1
    assert ece_equal_mass(probs, labels, 10).item() == pytest.approx(width, abs=1e-9)


# --- risk and coverage ----------------------------------------------------------------------


def test_risk_and_coverage_by_hand():
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]).double()
    labels = torch.tensor([0, 1, 1, 1])  # right, wrong, right, wrong by falling confidence
    curve = risk_coverage(probs, labels)
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    assert aurc(probs, labels).item() == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_the_risk_of_all_is_the_error_rate():
    probs, labels = predictions()
    wrong = (probs.argmax(-1) != labels).double().mean().item()
    assert risk_coverage(probs, labels).risk[-1].item() == pytest.approx(wrong)
    assert aurc(torch.full((50, 2), 0.5).double(), torch.arange(50) % 2).item() == pytest.approx(0.5)


def test_ties_are_the_mean_over_all_their_orders():
    probs = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.6, 0.4]]).double()
    labels = torch.tensor([0, 1, 0, 0, 1])
    areas = []
    for order in itertools.permutations([1, 2, 3]):
        wrong = (labels[[0, *order, 4]] == 1).double()
        areas.append((wrong.cumsum(0) / torch.arange(1, 6)).mean().item())
    assert len(set(areas)) > 1
    assert aurc(probs, labels).item() == pytest.approx(np.mean(areas))


# --- foreign inputs -------------------------------------------------------------------------


def test_ood_auroc_is_scikit_learns():
    inside, outside = predictions(n=150)[0], predictions(n=90, seed=1)[0].sqrt()
    outside = outside / outside.sum(-1, keepdim=True)
    scores = torch.cat([entropy(inside), entropy(outside)]).numpy()
    expected = roc_auc_score(np.repeat([0, 1], [150, 90]), scores)
    assert ood_auroc(inside, outside).item() == pytest.approx(expected, abs=1e-12)
    assert ood_auroc(outside, inside).item() == pytest.approx(1 - expected, abs=1e-12)


def test_ood_auroc_of_known_answers():
    sure, unsure = torch.tensor([[1.0, 0, 0]]).repeat(4, 1), torch.full((6, 3), 1 / 3)
    assert ood_auroc(sure, unsure) == 1 and ood_auroc(unsure, sure) == 0
    assert ood_auroc(sure, sure) == 0.5
    # the same numbers in another order are equally unsure, but for rounding
    base = predictions(n=50, y=10)[0]
    assert (entropy(base) != entropy(base.flip(-1))).any()
    assert ood_auroc(base, base.flip(-1)) == 0.5


# --- all of them ----------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 1, 3]))
def test_the_order_of_the_examples_does_not_matter(seed, levels):
    probs, labels = predictions(n=60, seed=seed, levels=levels)
    other, others = shuffled(probs, labels, seed + 1)
    for measure in MEASURES:
        assert measure(other, others).item() == pytest.approx(measure(probs, labels).item(), abs=1e-12)
    assert ood_auroc(probs[:30], probs[30:]).item() == pytest.approx(
        ood_auroc(probs[:30].flip(0), probs[30:].flip(0)).item(), abs=1e-12
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_chains_are_each_their_own_and_nan_stays_with_its_chain(measure):
    probs, labels = predictions(n=50, lead=(2, 3))
    together = measure(probs, labels)
    assert together.shape == (2, 3) and together.dtype == torch.float64
    assert together[1, 2].item() == pytest.approx(measure(probs[1, 2], labels).item(), abs=1e-12)
    probs[0, 1, 7, 3] = math.nan
    broken = measure(probs, labels)
    assert broken.isnan().tolist() == [[False, True, False], [False] * 3]
    assert torch.equal(broken[1], together[1])


def test_ood_auroc_of_chains_and_nan():
    inside, outside = predictions(n=20, lead=(3,))[0], predictions(n=30, lead=(3,), seed=1)[0]
    together = ood_auroc(inside, outside)
    assert together[2].item() == pytest.approx(ood_auroc(inside[2], outside[2]).item())
    outside[1, 0, 0] = math.nan
    assert ood_auroc(inside, outside).isnan().tolist() == [False, True, False]


def test_the_best_temperature_is_the_power_that_sharpened_the_probabilities():
    """Labels drawn from q, a predictive q^a / sum: T = a gives q back, and with it its NLL."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(20_000, 4, generator=generator).double().softmax(-1)
    labels = q.multinomial(1, generator=generator).squeeze(1)
    plain = calibrated_nll(q, labels)
    assert float(plain["temperature_calibrated"]) == pytest.approx(1.0, abs=0.03)
    assert float(plain["nll_calibrated"]) == pytest.approx(
        float(compute(update(empty_sums(), q, labels))["nll"]), rel=1e-3
    )
    for power in (0.3, 2.5):
        found = calibrated_nll(q.pow(power) / q.pow(power).sum(-1, keepdim=True), labels)
        ratio = float(found["temperature_calibrated"] / plain["temperature_calibrated"])
        assert ratio == pytest.approx(power, rel=1e-6)
        assert float(found["nll_calibrated"]) == pytest.approx(float(plain["nll_calibrated"]), rel=1e-9)


def test_the_temperature_is_fitted_on_one_half_and_scored_on_the_other():
    """Four images, every cut worked out by scipy: each half's own best temperature scores the other half."""
    probs, labels = predictions(n=40, y=3)

    def nll(log_t, part):
        return float(-(probs[part].log() / math.exp(log_t)).log_softmax(-1)[range(len(part)), labels[part]].mean())

    generator, scores = make_generator("cpu", 7, "halves"), []
    for _ in range(2):
        order = torch.randperm(40, generator=generator)
        for fit, held in ((order[:20], order[20:]), (order[20:], order[:20])):
            best = minimize_scalar(nll, bounds=(math.log(0.01), math.log(100)), args=(fit,), method="bounded",
                                   options={"xatol": 1e-9})  # fmt: skip
            scores.append(nll(best.x, held))
    found = calibrated_nll(probs, labels, splits=2, seed=7)
    assert float(found["nll_calibrated"]) == pytest.approx(float(np.mean(scores)), rel=1e-6)


def test_calibrated_nll_of_chains_of_certain_answers_and_of_one_image():
    probs, labels = predictions(n=30, y=3, lead=(2,))
    probs[1, 4] = math.nan
    both, alone = calibrated_nll(probs, labels), calibrated_nll(probs[0], labels)
    torch.testing.assert_close(both["nll_calibrated"][0], alone["nll_calibrated"])
    assert all(bool(value[1].isnan()) for value in both.values())
    certain = torch.nn.functional.one_hot(labels, 3).double()
    found = calibrated_nll(certain, labels)
    assert float(found["nll_calibrated"]) == pytest.approx(0.0, abs=1e-12)
    wrong = calibrated_nll(certain.roll(1, dims=-1), labels)  # log 3 is the best that a wrong answer can have
    assert math.log(3) < float(wrong["nll_calibrated"]) < math.log(3) + 1.0
    assert math.isnan(float(calibrated_nll(probs[0, :1], labels[:1])["nll_calibrated"]))


def test_what_does_not_fit_is_refused():
    probs, labels = predictions(n=10)
    for measure in MEASURES:
        with pytest.raises(ConfigError, match="Expected probabilities"):
            measure(probs, labels[:-1])
        with pytest.raises(DataError, match="no example"):
            measure(probs[:0], labels[:0])
    with pytest.raises(ConfigError, match="at least one bin"):
        ece_equal_mass(probs, labels, 0)
    with pytest.raises(ConfigError, match="same chains and classes"):
        ood_auroc(probs, probs[:, :-1])
    with pytest.raises(DataError, match="both kinds"):
        ood_auroc(probs, probs[:0])
