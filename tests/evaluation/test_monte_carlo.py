"""Monte Carlo errors by the jackknife over chains, against closed forms and against what many repetitions scatter by."""

import math

import pytest
import torch

from bpc.seeding import make_generator
from evaluation.fidelity import Fidelity, fidelity
from evaluation.metrics import compute, empty_sums, update
from evaluation.monte_carlo import fidelity_errors, jackknife_error, leave_one_out, metric_errors

CLASSES, IMAGES = 3, 40
CENTRE = torch.randn(IMAGES, CLASSES, generator=make_generator("cpu", 1), dtype=torch.float64)
ELSEWHERE = torch.randn(IMAGES, CLASSES, generator=make_generator("cpu", 2), dtype=torch.float64)
LABELS = torch.randint(CLASSES, (IMAGES,), generator=make_generator("cpu", 3))


def chains(count, seed, centre=CENTRE, noise=0.3):
    """Predictives (count, n, y) of chains that differ by noise in their logits."""
    draws = torch.randn(count, IMAGES, CLASSES, generator=make_generator("cpu", seed), dtype=torch.float64)
    return (centre + noise * draws).softmax(-1)


def test_a_linear_statistic_has_the_error_of_a_mean():
    values = torch.tensor([0.2, 0.5, 0.1, 0.7, 0.4], dtype=torch.float64)
    assert float(jackknife_error(leave_one_out(values))) == pytest.approx(float(values.std()) / math.sqrt(5), rel=1e-12)


def test_the_brier_score_of_one_image_agrees_with_the_delta_method():
    """Of a quadratic statistic the jackknife differs from the delta method by terms of higher order only."""
    probs = chains(200, 5)[:, :1]
    found = metric_errors(probs, LABELS[:1])["brier_mcse"]
    one_hot = torch.nn.functional.one_hot(LABELS[:1], CLASSES).double()
    slope = 2 * (probs.mean(0) - one_hot).flatten()
    expected = math.sqrt(float(slope @ torch.cov(probs.flatten(1).T) @ slope) / 200)
    assert found == pytest.approx(expected, rel=0.02)


def test_the_errors_are_what_repetitions_scatter_by():
    repeats, count = 300, 6
    found, errors = [], []
    for seed in range(repeats):
        mine, truth = chains(count, 100 + seed), chains(count, 10_000 + seed, centre=ELSEWHERE)
        metrics = compute(update(empty_sums(), mine.mean(0), LABELS))
        gaps = fidelity(mine.mean(0), truth.mean(0))
        found.append(torch.stack([metrics["nll"], metrics["brier"], gaps.tv, gaps.sym_kl, gaps.entropy_gap]))
        mcse, apart = metric_errors(mine, LABELS), fidelity_errors(mine, truth)
        errors.append(torch.tensor([mcse["nll_mcse"], mcse["brier_mcse"], apart.tv, apart.sym_kl, apart.entropy_gap]))
    scatter, expected = torch.stack(found).std(0), torch.stack(errors).square().mean(0).sqrt()
    assert torch.allclose(expected / scatter, torch.ones(5, dtype=torch.float64), atol=0.15), expected / scatter


def test_the_reference_adds_its_own_error():
    mine, truth = chains(4, 1), chains(4, 2, centre=ELSEWHERE, noise=0.6)
    both = fidelity_errors(mine, truth)
    sure = fidelity_errors(mine, truth.mean(0).expand(4, -1, -1))
    other = fidelity_errors(mine.mean(0).expand(4, -1, -1), truth)
    for a, b, c in zip(both, sure, other, strict=True):
        assert float(a) == pytest.approx(math.hypot(float(b), float(c)), rel=1e-9)


def test_a_lone_chain_has_no_error_and_a_lost_one_makes_it_nan():
    assert metric_errors(chains(1, 0), LABELS) == {}
    assert fidelity_errors(chains(1, 0), chains(3, 0)) is None
    lost = chains(3, 0)
    lost[1, 0] = math.nan
    assert all(map(math.isnan, metric_errors(lost, LABELS).values()))
    errors = fidelity_errors(lost, chains(3, 1))
    assert isinstance(errors, Fidelity) and all(bool(e.isnan()) for e in errors)
