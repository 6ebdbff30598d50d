"""The outer loop: SGD with momentum by hand, resumed as uninterrupted, stopped where it diverges."""

import dataclasses

import pytest
import torch

from bpc.distill import (
    OuterConfig,
    averaged,
    distill,
    initial_coreset,
    load_state,
    real_batches,
    save_state,
    start,
)
from bpc.divergences import CoresetGradient, ExpertWindow, Extra, ReverseKL, ReverseKLConfig
from bpc.errors import ConfigError, DataError, FileFormatError, NumericalError
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.seeding import make_generator


def window(generator):
    return ExpertWindow(torch.randn(2, 3, generator=generator))


class Pull:
    """A divergence whose gradient is known: that of ||points - 3||^2 / 2, of (lr - 1)^2 / 2, and 1 for each weight."""

    needs_real = False
    expert_epochs = 1

    def __init__(self, lr=0.0):
        self.extras = {"student_lr": Extra(start=0.1, lr=lr, minimum=1e-6)}

    def gradient(self, coreset, experts, real, generator):
        assert real is None
        noise = torch.randn(coreset.points.shape, generator=generator) * 0.01
        points = coreset.points - 3.0 + noise
        extras = {"student_lr": coreset.extras["student_lr"] - 1.0}
        return CoresetGradient(points, torch.ones_like(coreset.weights), points.square().sum(), extras)


@pytest.fixture
def initial(digits):
    return initial_coreset(digits, 2, source="real", total_weight=None, seed=0)


def test_initial_coreset(digits, initial):
    assert initial.points.shape == (20, 1, 8, 8)
    assert torch.equal(initial.labels, torch.arange(10).repeat_interleave(2))
    assert torch.equal(initial.weights, torch.ones(20))
    real = digits.normalise(digits.train.images).flatten(1)
    assert torch.cdist(initial.points.flatten(1), real).min(1).values.max() < 0.05
    noise = initial_coreset(digits, 2, source="noise", total_weight=1297.0, seed=0)
    assert float(noise.weights.sum()) == pytest.approx(1297.0)
    assert abs(float(noise.points.mean())) < 0.1
    assert float(noise.points.std()) == pytest.approx(1.0, abs=0.1)
    assert not torch.equal(initial.points, initial_coreset(digits, 2, source="real", total_weight=None, seed=1).points)
    with pytest.raises(ConfigError, match="zeros"):
        initial_coreset(digits, 1, source="zeros", total_weight=None, seed=0)
    with pytest.raises(DataError, match="1000"):
        initial_coreset(digits, 1000, source="real", total_weight=None, seed=0)


def test_steps_are_those_of_torch_adam(initial, monkeypatch):
    """And what is kept is the average of the iterates, without where they started."""
    monkeypatch.setattr("bpc.distill.ADAM_EPS", 1e-8)  # torch's
    config = OuterConfig(lr_points=0.1, momentum=0.9, lr_weights=0.3, optimizer="adam", ema=0.7)
    states = list(distill(start(initial, Pull(0.2)), Pull(0.2), window, None, config, steps=4, seed=7))
    parameters = [t.clone().requires_grad_(True) for t in (initial.points, initial.weights)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (0.1, 0.3), strict=True)]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    mean = 0.0
    for step in range(4):
        noise = torch.randn(initial.points.shape, generator=make_generator("cpu", 7, "distill", step, "noise"))
        parameters[0].grad = (parameters[0] - 3.0 + noise * 0.01).detach()
        parameters[1].grad = torch.ones_like(parameters[1])
        optimizer.step()
        with torch.no_grad():
            parameters[1].clamp_(min=0.0)
        mean = mean + 0.3 * 0.7 ** (3 - step) * parameters[0].detach()
    torch.testing.assert_close(states[-1].coreset.points, parameters[0].detach())
    torch.testing.assert_close(states[-1].coreset.weights, parameters[1].detach())
    torch.testing.assert_close(averaged(states[-1], config).points, mean / (1 - 0.7**4))
    assert averaged(states[-1], OuterConfig()) is states[-1].coreset
    assert averaged(start(initial, Pull()), config).points is initial.points


def test_clip_shortens_the_gradient(initial):
    config = OuterConfig(lr_points=1.0, momentum=0.0, clip=0.5)
    (state,) = distill(start(initial, Pull()), Pull(), window, None, config, steps=1, seed=0)
    assert float((state.coreset.points - initial.points).norm()) == pytest.approx(0.5, rel=1e-4)
    assert float(state.grad_norm) > 1.0


def test_steps_are_those_of_torch_sgd(initial):
    config = OuterConfig(lr_points=0.1, momentum=0.5, lr_weights=0.3)
    states = list(distill(start(initial, Pull(0.2)), Pull(0.2), window, None, config, steps=4, seed=7))
    assert [s.step for s in states] == [1, 2, 3, 4]
    parameters = [t.clone().requires_grad_(True) for t in (initial.points, torch.tensor(0.1))]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (0.1, 0.2), strict=True)]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.5)
    for step in range(4):
        noise = torch.randn(initial.points.shape, generator=make_generator("cpu", 7, "distill", step, "noise"))
        parameters[0].grad = (parameters[0] - 3.0 + noise * 0.01).detach()
        parameters[1].grad = (parameters[1] - 1.0).detach()
        optimizer.step()
    torch.testing.assert_close(states[-1].coreset.points, parameters[0].detach())
    torch.testing.assert_close(states[-1].coreset.extras["student_lr"], parameters[1].detach())
    # velocity of a constant gradient 1: 1, 1.5, 1.75, 1.875; the weights stop at zero
    assert torch.equal(states[0].coreset.weights, torch.full((20,), 0.7))
    assert float(states[-1].coreset.weights.max()) == 0.0
    torch.testing.assert_close(states[2].grad_norm, states[2].value.sqrt())


def test_what_is_not_learned_stays(initial):
    last = list(distill(start(initial, Pull()), Pull(), window, None, OuterConfig(lr_points=0.1), steps=2, seed=0))[-1]
    assert torch.equal(last.coreset.weights, initial.weights)
    assert torch.equal(last.coreset.extras["student_lr"], torch.tensor(0.1))
    assert torch.equal(last.coreset.labels, initial.labels)


@pytest.mark.parametrize(("optimizer", "ema"), [("sgd", 0.0), ("adam", 0.9)])
def test_resumed_is_uninterrupted(initial, tmp_path, optimizer, ema):
    config, pull = OuterConfig(lr_points=0.1, momentum=0.5, optimizer=optimizer, ema=ema), Pull(0.1)
    whole = list(distill(start(initial, pull), pull, window, None, config, steps=6, seed=1))[-1]
    half = list(distill(start(initial, pull), pull, window, None, config, steps=3, seed=1))[-1]
    save_state(half, tmp_path / "state", "abc")
    loaded = load_state(tmp_path / "state", "abc", pull, "cpu")
    assert loaded.step == 3
    resumed = list(distill(loaded, pull, window, None, config, steps=6, seed=1))[-1]
    for a, b in zip(whole.coreset[:3], resumed.coreset[:3], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(averaged(whole, config).points, averaged(resumed, config).points)
    assert torch.equal(whole.coreset.extras["student_lr"], resumed.coreset.extras["student_lr"])
    assert not torch.equal(whole.coreset.extras["student_lr"], torch.tensor(0.1))
    with pytest.raises(FileFormatError, match="not a checkpoint of this run"):
        load_state(tmp_path / "state", "other", pull, "cpu")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-9])
    with pytest.raises(FileFormatError, match="truncated"):
        load_state(tmp_path / "state", "abc", pull, "cpu")


def test_divergence_names_the_step(initial):
    loop = distill(
        start(initial, Pull()), Pull(), window, None, OuterConfig(lr_points=1e20, momentum=0.9), steps=9, seed=0
    )
    with pytest.raises(NumericalError, match=r"diverged at step [2-9](?!.*checkpoint is good)"):
        for state in loop:
            assert torch.isfinite(state.coreset.points).all()


def test_real_batches(digits):
    draw = real_batches(digits, 100)
    a, b = draw(torch.Generator().manual_seed(0)), draw(torch.Generator().manual_seed(1))
    assert a.total == 1297
    assert a.points.shape == (100, 1, 8, 8)
    assert not torch.equal(a.labels, b.labels)
    assert len(real_batches(digits, 10**6)(torch.Generator()).points) == 1297


def test_weights_and_points_of_a_classifier_are_learned(digits):
    """BPC-rKL with learned weights on digits: both move, weights stay non-negative."""
    few = dataclasses.replace(digits, train=digits.train.take(torch.arange(200)))
    net = ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)
    initial = initial_coreset(few, 1, source="real", total_weight=200.0, seed=0)
    method = ReverseKL(
        Classifier(net), ReverseKLConfig(inner_steps=3, samples=4, reduction="sum", sigma_core=0.05, student_lr=0.05)
    )
    snapshots = net.init(1, make_generator("cpu", 0))
    config = OuterConfig(lr_points=1e-3, lr_weights=1e-2, momentum=0.0)
    last = list(
        distill(
            start(initial, method),
            method,
            lambda g: ExpertWindow(snapshots),
            real_batches(few, 50),
            config,
            steps=3,
            seed=0,
        )
    )[-1]
    assert not torch.equal(last.coreset.points, initial.points)
    assert not torch.equal(last.coreset.weights, initial.weights)
    assert (last.coreset.weights >= 0).all()
