"""Distances between predictives in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import rel_entr

from bpc.errors import ConfigError, DataError
from evaluation.fidelity import Fidelity, fidelity


def random_probs(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double().mul(2).softmax(-1)


def test_two_coins():
    p, q = torch.tensor([[0.9, 0.1]]).double(), torch.tensor([[0.5, 0.5]]).double()
    found = fidelity(p, q)
    assert found.tv.item() == pytest.approx(0.4)
    # KL(p || q) = log 2 - H(p), KL(q || p) = -log 2 - (log 0.9 + log 0.1) / 2
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    forward, backward = math.log(2) - entropy, -math.log(2) - (math.log(0.9) + math.log(0.1)) / 2
    assert found.sym_kl.item() == pytest.approx((forward + backward) / 2)
    assert found.entropy_gap.item() == pytest.approx(entropy - math.log(2)) and found.entropy_gap < 0
    assert found.agreement == 1


def test_against_scipy_and_means_over_inputs():
    p, q = random_probs(40, 6), random_probs(40, 6, seed=1)
    found = fidelity(p, q)
    forward, backward = rel_entr(p.numpy(), q.numpy()).sum(-1), rel_entr(q.numpy(), p.numpy()).sum(-1)
    assert found.sym_kl.item() == pytest.approx(((forward + backward) / 2).mean())
    assert found.tv.item() == pytest.approx((torch.maximum(p, q).sum(-1) - 1).mean().item())  # another form of it
    assert found.agreement.item() == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())


def test_a_predictive_agrees_with_itself():
    p = random_probs(3, 20, 5)
    assert all(torch.equal(value, torch.full((3,), float(name == "agreement"), dtype=torch.float64))
               for name, value in fidelity(p, p)._asdict().items())  # fmt: skip


def test_only_the_gap_has_a_direction():
    p, q = random_probs(30, 4), random_probs(30, 4, seed=1).square()
    q = q / q.sum(-1, keepdim=True)
    there, back = fidelity(p, q), fidelity(q, p)
    assert there.entropy_gap > 0  # q is sharper
    assert back.entropy_gap.item() == pytest.approx(-there.entropy_gap.item())
    for name in ("agreement", "tv", "sym_kl"):
        assert getattr(back, name).item() == pytest.approx(getattr(there, name).item())


@pytest.mark.parametrize("dtype, nats", [(torch.float32, 87.3365), (torch.float64, 708.3964)])
def test_disjoint_predictions_are_far_but_finite(dtype, nats):
    p, q = torch.tensor([[1, 0]], dtype=dtype), torch.tensor([[0, 1]], dtype=dtype)
    found = fidelity(p, q)
    assert found == Fidelity(*map(pytest.approx, (0.0, 1.0, nats, 0.0)))


def test_one_reference_for_all_chains_and_nan_stays_with_its_chain():
    p, q = random_probs(3, 10, 4), random_probs(10, 4, seed=1)
    together = fidelity(p, q)
    alone = fidelity(p[2], q)
    p[1, 4, 2] = math.nan
    broken = fidelity(p, q)
    for name in Fidelity._fields:
        assert getattr(together, name).shape == (3,)
        assert getattr(together, name)[2].item() == pytest.approx(getattr(alone, name).item())
        assert getattr(broken, name).isnan().tolist() == [False, True, False], name
    q[0, 0] = math.nan
    assert all(value.isnan().all() for value in fidelity(p, q))


def test_what_does_not_fit_is_refused():
    p = random_probs(10, 4)
    with pytest.raises(ConfigError, match="same n inputs"):
        fidelity(p, p[:9])
    with pytest.raises(ConfigError, match="logits"):
        fidelity(p, p.log())
    with pytest.raises(DataError, match="no prediction"):
        fidelity(p[:0], p[:0])
