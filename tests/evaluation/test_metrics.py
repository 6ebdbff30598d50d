"""Metrics against closed forms, scikit-learn, torchmetrics, and slow versions of the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torchmetrics.classification import MulticlassCalibrationError

from bpc.errors import ConfigError, DataError
from evaluation.metrics import (
    METRICS,
    Kim2022Nll,
    MetricSums,
    compute,
    ece_kim2022,
    empty_sums,
    reliability,
    update,
)


def predictions(n=300, y=5, k=None, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, y) if k is None else (k, n, y)
    probs = (scale * torch.randn(shape, generator=generator)).softmax(-1)
    return probs, torch.randint(y, (n,), generator=generator)


def run(probs, labels, sizes=None):
    sums = empty_sums(probs.shape[:-2])
    start = 0
    for size in sizes or [len(labels)]:
        sums = update(sums, probs[..., start : start + size, :], labels[start : start + size])
        start += size
    assert start == len(labels)
    return sums


def test_closed_form():
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.4, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2, 1])
    got = compute(run(probs, labels))
    assert got["accuracy"].item() == pytest.approx(2 / 3)
    assert got["nll"].item() == pytest.approx(-(math.log(0.5) + math.log(0.8) + math.log(0.4)) / 3)
    # sums over classes: 0.25 + 0.09 + 0.04, 0.01 + 0.01 + 0.04, 0.36 + 0.36
    assert got["brier"].item() == pytest.approx((0.38 + 0.06 + 0.72) / 3)
    # 0.5, 0.6 and 0.8 lie in three bins: gaps 0.5 and 0.2 below, 0.6 above
    assert got["ece"].item() == pytest.approx((0.5 + 0.2 + 0.6) / 3)


def test_ece_bins_are_fifteen_closed_on_the_right():
    def ece(confidences, right):
        probs = torch.tensor([[c, 1 - c] for c in confidences], dtype=torch.float64)
        return compute(run(probs, torch.tensor([0 if r else 1 for r in right])))["ece"].item()

    # 9/15 ends bin (8/15, 9/15] and joins 0.55 there: the gaps cancel in part, |1 - 0.55 - 0.6| / 2
    assert ece([0.55, 9 / 15], [True, False]) == pytest.approx(0.15 / 2)
    # 0.61 begins the next bin, so the gaps add up; 14 bins, with (8/14, 9/14], would have them cancel
    assert ece([0.59, 0.61], [True, False]) == pytest.approx((0.41 + 0.61) / 2)
    # the ends belong to the first and the last bin
    assert ece([1.0, 0.95], [True, False]) == pytest.approx(0.95 / 2)


def test_perfect_prediction():
    got = compute(run(torch.eye(4), torch.arange(4)))
    assert {name: value.item() for name, value in got.items()} == {
        "accuracy": 1,
        "nll": 0,
        "ece": 0,
        "brier": 0,
    }


def test_against_scikit_learn_and_torchmetrics():
    probs, labels = predictions(997)
    probs = probs.double() / probs.double().sum(-1, keepdim=True)
    got = compute(run(probs, labels))
    assert got["accuracy"].item() == pytest.approx((probs.argmax(-1) == labels).double().mean().item())
    assert got["nll"].item() == pytest.approx(log_loss(labels, probs.numpy(), labels=range(5)), rel=1e-9)
    one_hot = torch.nn.functional.one_hot(labels, 5)
    assert got["brier"].item() == pytest.approx(((probs - one_hot) ** 2).sum(-1).mean().item(), rel=1e-12)
    reference = MulticlassCalibrationError(num_classes=5, n_bins=15, norm="l1")(probs.float(), labels)
    assert got["ece"].item() == pytest.approx(reference.item(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_of_1_7_and_n_agree(dtype):
    probs, labels = predictions(k=2)
    probs = probs.to(dtype)
    whole = compute(run(probs, labels))
    for size in (1, 7):
        full, rest = divmod(len(labels), size)
        cut = compute(run(probs, labels, [size] * full + [rest] * bool(rest)))
        for name, value in whole.items():
            torch.testing.assert_close(cut[name], value, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.sampled_from([(), (1,), (3,)]),
)
def test_any_split_agrees(sizes, seed, lead):
    probs, labels = predictions(sum(sizes), k=lead[0] if lead else None, seed=seed)
    whole = compute(run(probs, labels))
    streamed = compute(run(probs, labels, sizes))
    for name, value in whole.items():
        assert value.shape == lead
        torch.testing.assert_close(streamed[name], value, rtol=1e-11, atol=1e-11)


def test_chains_together_equal_chains_alone():
    probs, labels = predictions(k=3)
    together = compute(run(probs, labels))
    for chain in range(3):
        alone = compute(run(probs[chain], labels))
        for name, value in alone.items():
            torch.testing.assert_close(together[name][chain], value, rtol=1e-12, atol=1e-12)
    assert len(set(together["nll"].tolist())) == 3


def test_update_leaves_its_input_alone_and_survives_a_checkpoint():
    probs, labels = predictions()
    sums = run(probs, labels)
    before = {name: value.clone() for name, value in sums._asdict().items()}
    update(sums, probs, labels)
    for name, value in sums._asdict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(compute(MetricSums(**before))["nll"], compute(sums)["nll"])


def test_probability_zero_is_large_but_finite():
    for dtype, expected in ((torch.float32, 87.336544750), (torch.float64, 708.396418532)):
        got = compute(run(torch.tensor([[1.0, 0.0]], dtype=dtype), torch.tensor([1])))
        assert got["nll"].item() == pytest.approx(expected, rel=1e-7)
        assert got["brier"].item() == 2.0


def test_nan_makes_its_own_chain_nan_and_no_other():
    probs, labels = predictions(k=2)
    clean = compute(run(probs, labels))
    probs[1, 17] = math.nan
    got = compute(run(probs, labels))
    for name, value in got.items():
        assert value[0] == clean[name][0]
        assert value[1].isnan(), name
    assert ece_kim2022(probs, labels)[1].isnan()


def test_reliability_gives_the_same_ece():
    probs, labels = predictions(k=2)
    sums = run(probs, labels)
    diagram = reliability(sums)
    assert diagram.edges.shape == (16,) and diagram.centres[0].item() == pytest.approx(1 / 30)
    assert diagram.examples.sum(-1).tolist() == [300, 300]
    assert diagram.accuracy[diagram.examples == 0].isnan().all()  # 5 classes: no confidence below 0.2
    assert (diagram.examples[:, :3] == 0).all()
    torch.testing.assert_close(diagram.ece, compute(sums)["ece"])
    filled = diagram.examples > 0
    inside = (diagram.confidence >= diagram.edges[:-1]) & (diagram.confidence <= diagram.edges[1:])
    assert inside[filled].all()


def test_mistakes_are_refused():
    probs, labels = predictions()
    with pytest.raises(ConfigError, match="logits"):
        update(empty_sums(), torch.randn(300, 5) * 4, labels)
    with pytest.raises(ConfigError, match="labels"):
        update(empty_sums(), probs, labels[:-1])
    with pytest.raises(ConfigError, match="leading"):
        update(empty_sums((2,)), probs, labels)
    with pytest.raises(DataError, match="expected 0 to 4"):
        update(empty_sums(), probs, labels + 1)
    with pytest.raises(DataError, match="no example"):
        compute(empty_sums())


def test_every_metric_has_a_unit_and_a_direction():
    assert set(compute(run(*predictions()))) | {"nll_kim2022", "ece_kim2022", "acceptance"} <= set(METRICS)
    assert METRICS["nll"] == ("nats", False) and METRICS["accuracy"] == ("fraction", True)
    assert METRICS["brier"].unit == "score (sum over classes)"


# --- the variants behind the published tables -----------------------------------------------------


def slow_nll_kim2022(losses, batch):
    """(s, n) per-example losses of one chain, in numpy, as the definition reads."""
    samples, n = losses.shape
    total = 0.0
    for start in range(0, n, batch):
        part = losses[:, start : start + batch]
        total += part.shape[1] * -np.log(np.mean([np.exp(-part[s].mean()) for s in range(samples)]))
    return total / n


def slow_ece_kim2022(probs, labels, batch):
    """(n, y) probabilities of one chain."""
    confidence, right = probs.max(-1), probs.argmax(-1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, 30), right=True)
    total = 0.0
    for start in range(0, len(labels), batch):
        place = slice(start, start + batch)
        for b in np.unique(bins[place]):
            total += abs((right[place].astype(float) - confidence[place])[bins[place] == b].sum())
    return total / len(labels)


@pytest.mark.parametrize("n", [1, 127, 128, 300])
def test_nll_kim2022_against_the_definition(n):
    generator = torch.Generator().manual_seed(n)
    losses = 3 * torch.rand(4, 2, n, generator=generator)  # (s, k, n)
    state = Kim2022Nll.empty(n, (2,))
    assert state.batch_sizes.tolist() == {1: [1], 127: [127], 128: [128], 300: [128, 128, 44]}[n]
    for sample in losses:
        state = state.update(sample)
    expected = [slow_nll_kim2022(losses[:, chain].double().numpy(), 128) for chain in range(2)]
    np.testing.assert_allclose(state.compute().numpy(), expected, rtol=1e-12)


def test_nll_kim2022_by_hand():
    """Two samples, batches of two and one: (2 log of a mean of two + log of a mean of two) / 3."""
    state = Kim2022Nll.empty(3, batch_size=2)
    for losses in ([1.0, 3.0, 0.5], [0.0, 0.0, 1.5]):
        state = state.update(torch.tensor(losses))
    first = -math.log((math.exp(-2) + 1) / 2)
    second = -math.log((math.exp(-0.5) + math.exp(-1.5)) / 2)
    assert state.compute().item() == pytest.approx((2 * first + second) / 3)


def test_nll_kim2022_of_one_sample_is_its_mean_nll():
    losses = torch.rand(300)
    assert Kim2022Nll.empty(300).update(losses).compute().item() == pytest.approx(losses.mean().item(), rel=1e-6)


def test_nll_kim2022_does_not_underflow_and_resumes():
    state = Kim2022Nll.empty(200, (1,))
    for value in (5000.0, 5001.0):
        state = Kim2022Nll(**{k: v.clone() for k, v in state._asdict().items()}).update(torch.full((1, 200), value))
    assert state.compute().item() == pytest.approx(5000 - math.log((1 + math.exp(-1)) / 2), rel=1e-12)


def test_nll_kim2022_refuses_misuse():
    with pytest.raises(DataError, match="no posterior sample"):
        Kim2022Nll.empty(5).compute()
    with pytest.raises(ConfigError, match="whole test set"):
        Kim2022Nll.empty(5, (2,)).update(torch.ones(5))


@pytest.mark.parametrize("n,batch", [(1, 128), (300, 128), (300, 7), (300, 300)])
def test_ece_kim2022_against_the_definition(n, batch):
    probs, labels = predictions(n, k=2, seed=n)
    got = ece_kim2022(probs, labels, batch)
    expected = [slow_ece_kim2022(probs[k].double().numpy(), labels.numpy(), batch) for k in range(2)]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)
    assert ece_kim2022(probs[0], labels, batch).item() == got[0].item()


def test_ece_kim2022_default_is_batches_of_128_and_sums_them():
    probs, labels = predictions(300)
    assert ece_kim2022(probs, labels) == ece_kim2022(probs, labels, 128)
    # gaps cancel less in smaller batches
    values = [ece_kim2022(probs, labels, size).item() for size in (300, 150, 50, 1)]
    assert values == sorted(values) and values[0] < values[-1]


def test_ece_kim2022_bins_are_closed_on_the_right():
    # (28/29, 1] holds both, so the gaps -1 and 0.02 cancel in part
    probs = torch.tensor([[1.0, 0.0], [0.98, 0.02]], dtype=torch.float64)
    assert ece_kim2022(probs, torch.tensor([1, 0])).item() == pytest.approx(0.98 / 2)
