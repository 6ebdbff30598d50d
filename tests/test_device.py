"""The whole path on each device there is: on a GPU it must agree with the CPU to rounding."""

import dataclasses

import pytest
import torch

from bpc.augment import AugmentConfig
from bpc.data import GeneratedCorruptions
from bpc.distill import OuterConfig, distill, initial_coreset, real_batches, start
from bpc.divergences import DIVERGENCES, ExpertWindow
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.presets import distill_preset, make_divergence
from bpc.selection import build_coreset, select
from evaluation.exact_chains import ExactConfig, sample_exact
from evaluation.inputs import Inputs, mixed_corruptions
from evaluation.kim2022_chains import Kim2022Config, sample_kim2022
from evaluation.protocols import ExactSettings
from expert_trajectories import ExpertConfig, TrajectoryStore, store_meta, train_experts

cuda = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU that torch can use")
)


@pytest.fixture(params=["cpu", cuda])
def device(request):
    return request.param


@pytest.fixture
def net():
    return ConvNet(ConvNetConfig(width=8, depth=2), (1, 8, 8), 10)


def moved(named_tuple, *to):
    """Every floating tensor of it there."""
    move = {
        k: v.to(*to) for k, v in named_tuple._asdict().items() if isinstance(v, torch.Tensor) and v.is_floating_point()
    }
    labels = {k: v.to(to[0]) for k, v in named_tuple._asdict().items() if isinstance(v, torch.Tensor) and k not in move}
    return named_tuple._replace(**move, **labels)


@pytest.mark.parametrize("name", DIVERGENCES.names())
def test_divergences(device, net, digits, name, monkeypatch):
    """float32 on the device, in pieces, against float64 on the CPU, in one: the same draws, made on the CPU."""
    preset = dataclasses.replace(distill_preset("digits", name, 1), inner_steps=3, samples=4, steps=2)
    if preset.path is not None:
        row = dataclasses.replace(preset.path.sampling, iterations=2, leapfrog_steps=2, burn_in=1, init_scale=0.5)
        preset = dataclasses.replace(preset, path=dataclasses.replace(preset.path, sampling=row, window=3))
    initial = initial_coreset(digits, 1, source="real", total_weight=None, seed=0)
    initial = initial._replace(weights=initial.weights * torch.linspace(0.5, 1.5, 10))
    snapshots = net.init(3, torch.Generator().manual_seed(0))
    batch = real_batches(digits, 50)(torch.Generator().manual_seed(1))
    stream = torch.Generator()
    on_cpu = torch.randn

    def draw(*shape, generator, device, dtype):
        assert generator is stream
        return on_cpu(*shape, generator=stream, dtype=torch.float64).to(device, dtype)

    monkeypatch.setattr(torch, "randn", draw)
    found = []
    for place, dtype, at_once in (("cpu", torch.float64, 0), (device, torch.float32, 7)):
        stream.manual_seed(2)
        divergence = make_divergence(name, preset, Classifier(net), None, at_once=at_once)
        window = ExpertWindow(snapshots[: 1 + divergence.expert_epochs].to(place, dtype))
        real = moved(batch, place, dtype) if divergence.needs_real else None
        coreset = start(moved(initial, place, dtype), divergence).coreset
        gradient = divergence.gradient(coreset, window, real, stream)
        assert gradient.points.device.type == place and gradient.points.dtype == dtype
        found.append({**gradient._asdict(), **gradient.extras})
    exact, got = found
    assert ("student_lr" in exact) == (name == "wasserstein")
    for field in exact.keys() - {"extras"}:
        value = exact[field]
        if value is None:  # labels that are not learned
            assert got[field] is None
            continue
        if field == "value" and name == "rkl":
            assert bool(value.isnan())
            continue
        scale = float(value.abs().max())
        if field in ("points", "weights"):
            assert scale > 0, field
        torch.testing.assert_close(got[field].cpu().double(), value, rtol=0, atol=1e-3 * scale, msg=field)


def test_experts_distillation_and_scores(device, net, digits, tmp_path):
    data = dataclasses.replace(digits, train=digits.train.take(torch.arange(300))).to(device)
    config = ExpertConfig(lr=0.05, batch_size=64, augment=AugmentConfig(operations=("crop", "rotate", "scale")))
    store = TrajectoryStore.create(tmp_path, net.num_params, store_meta(data, net, config, 0))
    list(train_experts(store, net, data, config, num_experts=2, epochs=3, seed=0, together=2))
    preset = dataclasses.replace(distill_preset("digits", "fkl", 1), inner_steps=3, samples=4)
    divergence = make_divergence("fkl", preset, Classifier(net), config.augment, at_once=20)
    initial = initial_coreset(data, 1, source="real", total_weight=None, seed=0)
    loop = distill(
        start(initial, divergence),
        divergence,
        store.sampler(2, 2, device),
        None,
        OuterConfig(lr_points=1.0),
        steps=2,
        seed=0,
    )
    assert all(torch.isfinite(state.grad_norm) for state in loop)
    index = select("random", data.train.labels.cpu(), 1, 10, generator=torch.Generator().manual_seed(0))
    coreset = build_coreset(data, index, method="random", seed=0)
    for sampler in ("hmc", "asghmc"):
        scoring = Kim2022Config(sampler=sampler, test_images=40, overrides={"iterations": 3, "burn_in": 1})
        (block,) = sample_kim2022(net, data, [coreset], scoring, seeds=[0, 1], augment=config.augment)
        assert block.probs.shape == (2, 40, 10)
        assert torch.isfinite(block.metrics["nll"]).all()


@pytest.mark.parametrize("sampler", ["hmc", "nuts", "sghmc", "csghmc", "pt", "smc"])
def test_exact_posteriors(device, net, digits, sampler):
    """Chains, traces and predictives on the device, with corrupted images that come from the CPU."""
    data = digits.to(device)
    index = select("random", digits.train.labels, 1, 10, generator=torch.Generator().manual_seed(0))
    coreset = build_coreset(data, index, method="random", seed=0)
    settings = ExactSettings(
        sampler=sampler, chains=2, warmup=4, samples=8, leapfrog_steps=2, max_tree_depth=3, batch=4
    )
    shifted = mixed_corruptions(GeneratedCorruptions(digits.test.take(torch.arange(20)), ("fog",)), 10)
    asked = [Inputs("test", data.test), shifted._replace(split=shifted.split.to(device))]
    (result,) = sample_exact(net, data, [coreset], ExactConfig(settings=settings), seeds=[0], inputs=asked)
    assert {name: tuple(p.shape) for name, p in result.probs.items()} == {
        "test": (2, 500, 10),
        "corrupted": (2, 10, 10),
    }
    assert all(p.device.type == "cpu" for p in result.probs.values())
    assert torch.isfinite(result.traces.log_density).all()
