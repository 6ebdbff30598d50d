"""Experts: plain SGD by hand, many at once as one alone, resumed as uninterrupted."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bpc.augment import AugmentConfig
from bpc.errors import ConfigError, NumericalError
from bpc.models import ConvNet, ConvNetConfig
from bpc.seeding import make_generator
from expert_trajectories import ExpertConfig, TrajectoryStore, store_meta, train_experts


@pytest.fixture
def few(digits):
    return dataclasses.replace(digits, train=digits.train.take(torch.arange(150)))


@pytest.fixture
def net():
    return ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)


def train(path, net, data, *, num_experts, epochs, together=1, **config):
    config = ExpertConfig(batch_size=64, **config)
    store = TrajectoryStore.create(path, net.num_params, store_meta(data, net, config, 0))
    list(train_experts(store, net, data, config, num_experts=num_experts, epochs=epochs, seed=0, together=together))
    return store


def test_one_epoch_is_sgd_by_hand(tmp_path, net, few):
    store = train(tmp_path, net, few, num_experts=1, epochs=1, lr=0.05)
    params = net.init(1, make_generator("cpu", 0, "expert", 0, "init"))
    assert torch.equal(store.snapshots(0, 0, 0), params)
    order = torch.randperm(150, generator=make_generator("cpu", 0, "expert", 0, "epoch", 1, "order"))
    for index in order.split(64):
        params = params.detach().requires_grad_(True)
        images = few.normalise(few.train.images[index])
        F.cross_entropy(net(params, images)[0], few.train.labels[index]).backward()
        params = params - 0.05 * params.grad
    torch.testing.assert_close(store.snapshots(0, 1, 1), params.detach())


@pytest.mark.parametrize("augment", [None, AugmentConfig()])
def test_together_is_alone_and_resumed_is_uninterrupted(tmp_path, net, few, augment):
    alone = train(tmp_path / "a", net, few, num_experts=3, epochs=4, augment=augment)
    together = train(tmp_path / "b", net, few, num_experts=3, epochs=4, together=3, augment=augment)
    train(tmp_path / "c", net, few, num_experts=3, epochs=2, together=3, augment=augment)
    resumed = train(tmp_path / "c", net, few, num_experts=3, epochs=4, together=3, augment=augment)
    train(tmp_path / "d", net, few, num_experts=2, epochs=2, augment=augment)
    extended = train(tmp_path / "d", net, few, num_experts=3, epochs=4, augment=augment)
    for e in range(3):
        expected = alone.snapshots(e, 0, 4)
        assert not torch.equal(expected[0], expected[4])
        # the same order and augmentations; the sums of a group's convolutions are rounded in another order
        torch.testing.assert_close(together.snapshots(e, 0, 4), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(resumed.snapshots(e, 0, 4), together.snapshots(e, 0, 4))
        assert torch.equal(extended.snapshots(e, 0, 4), expected)


def test_a_group_killed_between_two_experts(tmp_path, net, few):
    whole = train(tmp_path / "a", net, few, num_experts=2, epochs=3, together=2)
    torn = train(tmp_path / "b", net, few, num_experts=2, epochs=3, together=2)
    torn.truncate(1, 2)  # expert 0 had written epochs 2 and 3, expert 1 had not
    torn = train(tmp_path / "b", net, few, num_experts=2, epochs=3, together=2)
    for e in range(2):
        assert torch.equal(torn.snapshots(e, 0, 3), whole.snapshots(e, 0, 3))


def test_learning_curve(tmp_path, net, few):
    store = train(tmp_path, net, few, num_experts=1, epochs=15, lr=0.1)
    curve = store.curves()
    assert set(curve[1]) == {"expert", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    assert curve[-1]["train_loss"] < curve[1]["train_loss"] - 0.1
    assert curve[-1]["test_accuracy"] > 0.2


def test_divergence_keeps_the_last_snapshot(tmp_path, few):
    net = ConvNet(ConvNetConfig(width=4, depth=1, norm="none"), (1, 8, 8), 10)
    with pytest.raises(NumericalError, match="diverged in epoch"):
        train(tmp_path, net, few, num_experts=1, epochs=5, lr=1e30)
    store = TrajectoryStore.open(tmp_path)
    assert torch.isfinite(store.snapshots(0, 0, store.epochs(0))).all()


def test_config_errors():
    with pytest.raises(ConfigError):
        ExpertConfig(lr=0.0)


def test_experts_from_the_chains_start(tmp_path, net, few):
    """N(0, 0.1^2) for gains too, the norm's pull in every step, and a key of their own."""
    store = train(tmp_path, net, few, num_experts=2, epochs=1, lr=0.05, init="prior", penalty=0.7)
    params = 0.1 * torch.randn(1, net.num_params, generator=make_generator("cpu", 0, "expert", 0, "init"))
    assert torch.equal(store.snapshots(0, 0, 0), params)
    assert float(store.snapshots(1, 0, 0).std()) == pytest.approx(0.1, rel=0.1)
    order = torch.randperm(150, generator=make_generator("cpu", 0, "expert", 0, "epoch", 1, "order"))
    for index in order.split(64):
        params = params.detach().requires_grad_(True)
        images = few.normalise(few.train.images[index])
        loss = F.cross_entropy(net(params, images)[0], few.train.labels[index]) + 0.7 * params.norm()
        loss.backward()
        params = params - 0.05 * params.grad
    torch.testing.assert_close(store.snapshots(0, 1, 1), params.detach(), rtol=1e-4, atol=1e-6)
    usual = store_meta(few, net, ExpertConfig(), 0)
    assert "init" not in usual and "penalty" not in usual  # stores of old keep their key
    assert (store.meta["init"], store.meta["penalty"]) == ("prior", 0.7)
    with pytest.raises(ConfigError, match="init"):
        ExpertConfig(init="zeros")
    with pytest.raises(ConfigError, match="penalty"):
        ExpertConfig(penalty=-1.0)
