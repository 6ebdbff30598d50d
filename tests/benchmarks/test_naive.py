"""The naive reference computes what the product computes: same random numbers, equal results to rounding."""

import dataclasses

import pytest
import torch

from benchmarks.naive import NaiveConvNet, NaiveDivergence, coreset_log_density, gradient_of, hmc, train_expert
from bpc.augment import AugmentConfig
from bpc.data import Dataset, Split
from bpc.divergences import (
    ExpertWindow,
    ForwardKL,
    ForwardKLConfig,
    LearnedCoreset,
    RealBatch,
    ReverseKL,
    ReverseKLConfig,
    Wasserstein,
    WassersteinConfig,
)
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.posterior import Posterior
from bpc.samplers import hmc as product_hmc
from bpc.samplers.base import run, value_and_grad
from bpc.samplers.hmc import HMCConfig
from bpc.seeding import ChainGenerators, make_generator
from bpc.weight_prior import isotropic
from expert_trajectories import ExpertConfig, TrajectoryStore, train_experts

CONFIG = ConvNetConfig(width=6, depth=2)
SHAPE = (3, 12, 12)
AUGMENT = AugmentConfig(mode="all")  # every operation, in every call


@pytest.fixture
def problem():
    """(product network, naive network, coreset of 8, window of 3 snapshots, batch of 20), double precision, 4 classes."""
    generator = torch.Generator().manual_seed(3)
    net = ConvNet(CONFIG, SHAPE, 4)
    start = net.init(1, generator)[0].double()
    snapshots = start + 0.05 * torch.randn(3, net.num_params, generator=generator, dtype=torch.float64).cumsum(0)
    images = torch.randn(28, *SHAPE, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (28,), generator=generator)
    extras = {"student_lr": torch.tensor(0.05, dtype=torch.float64)}
    coreset = LearnedCoreset(images[:8], labels[:8], torch.ones(8, dtype=torch.float64), extras)
    return net, NaiveConvNet(CONFIG, SHAPE, 4), coreset, ExpertWindow(snapshots), RealBatch(images[8:], labels[8:], 500)


def test_logits_are_those_of_the_product(problem):
    net, naive, coreset, window, _ = problem
    torch.testing.assert_close(naive(window.end, coreset.points), net(window.end[None], coreset.points)[0])


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (ForwardKL, ForwardKLConfig(inner_steps=3, samples=3, sigma_core=0.02, sigma_expert=0.03, augment=AUGMENT)),
        (ForwardKL, ForwardKLConfig(inner_steps=3, samples=3, augment=AugmentConfig(), at_once=7)),
        (Wasserstein, WassersteinConfig(inner_steps=5, augment=AUGMENT)),
        (ReverseKL, ReverseKLConfig(inner_steps=3, samples=4, sigma_core=0.05, augment=AUGMENT, at_once=5)),
    ],
)
def test_divergence_is_that_of_the_product(problem, kind, config):
    net, naive, coreset, window, real = problem
    product = kind(Classifier(net), config)
    reference = NaiveDivergence(naive, product)
    assert (reference.needs_real, reference.expert_epochs) == (product.needs_real, product.expert_epochs)
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    got, want = (d.gradient(coreset, window, real, g) for d, g in zip((product, reference), generators, strict=True))
    assert want.points.norm() > 1e-6
    torch.testing.assert_close(got.points, want.points, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got.extras, want.extras, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got.value, want.value, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    assert ("student_lr" in want.extras) == (kind is Wasserstein)


def test_settings_that_the_reference_lacks_are_refused(problem):
    net, naive, *_ = problem
    for product in (
        ForwardKL(Classifier(net), ForwardKLConfig(reduction="sum")),
        Wasserstein(Classifier(net), WassersteinConfig(diagonal=True)),
        ReverseKL(Classifier(net), ReverseKLConfig(augment_samples=True)),
    ):
        with pytest.raises(ValueError, match="only; got"):
            NaiveDivergence(naive, product)
    with pytest.raises(ValueError, match="instance norm"):
        NaiveConvNet(dataclasses.replace(CONFIG, norm="none"), SHAPE, 4)


def test_experts_are_those_of_the_product(tmp_path):
    """Single precision, as experts are trained; two experts at once against one after the other, a last batch of 6."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (70, *SHAPE), generator=generator, dtype=torch.uint8)
    split = Split(images=images, labels=torch.randint(4, (70,), generator=generator))
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    data = Dataset(name="made-up", train=split, test=split, mean=mean, std=std, class_names=("a", "b", "c", "d"))
    net, config = ConvNet(CONFIG, SHAPE, 4), ExpertConfig(lr=0.1, batch_size=32, augment=AUGMENT)
    store = TrajectoryStore.create(tmp_path / "experts", net.num_params, {})
    list(train_experts(store, net, data, config, num_experts=2, epochs=2, seed=5, together=2))
    for expert in range(2):
        want = store.snapshots(expert, 0, 2)
        got = train_expert(NaiveConvNet(CONFIG, SHAPE, 4), want[0], data, config, expert=expert, epochs=2, seed=5)
        assert (want[2] - want[0]).norm() > 0.01
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_hmc_is_that_of_the_product(problem):
    net, naive, coreset, window, _ = problem
    density = coreset_log_density(naive, coreset, 0.3)
    posterior = Posterior(Classifier(net), coreset.points, coreset.labels, coreset.weights, prior=isotropic(0.3))
    value, gradient = value_and_grad(posterior, window.snapshots)
    for i, params in enumerate(window.snapshots):
        torch.testing.assert_close(density(params), value[i], rtol=1e-10, atol=0)
        torch.testing.assert_close(gradient_of(density, params), gradient[i], rtol=1e-9, atol=1e-11)

    # a step size at which some proposals are rejected
    config = HMCConfig(step_size=0.045, leapfrog_steps=4, momentum_scale=0.7)
    seeds, draws = [make_generator("cpu", i) for i in range(3)], 6
    got = hmc(density, window.snapshots, config, draws=draws, generators=seeds)
    same = ChainGenerators([make_generator("cpu", i) for i in range(3)])
    chains = run(product_hmc(posterior, config), window.snapshots, steps=draws, generators=same)
    want = torch.stack([state.params for state, _ in chains], dim=1)
    stayed = (want[:, 1:] == want[:, :-1]).all(-1)
    assert stayed.any()
    assert not stayed.all()
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)
