"""Protocols and chains: the density that is sampled, the predictive that is formed, and what a kill leaves."""

import math

import pytest
import torch
import torch.nn.functional as F
from exact_scoring import random_coreset

from bpc.augment import AugmentConfig
from bpc.errors import ConfigError
from bpc.samplers import kim2022 as kim2022_module
from bpc.samplers.kim2022_presets import sampling_preset
from bpc.seeding import make_generator
from evaluation import kim2022_chains
from evaluation.inputs import Inputs, foreign
from evaluation.kim2022_chains import Kim2022Config, sample_kim2022, shifted_metrics
from evaluation.metrics import compute, ece_kim2022, empty_sums, update
from evaluation.predictive import Predictive, pick_images
from evaluation.protocols import kim2022_plan, kim2022_settings

SHORT = Kim2022Config(test_images=60, overrides={"iterations": 6, "burn_in": 3, "leapfrog_steps": 2})


def test_predictive_is_the_mean_of_softmaxes(net, digits):
    split = pick_images(digits.test, 45)
    samples = torch.stack([net.init(2, make_generator("cpu", s)) for s in range(3)])
    predictive = Predictive(net, digits, split, 2)
    for params in samples:
        predictive.add(params)
    logits = torch.stack([net(p, digits.normalise(split.images)) for p in samples]).double()
    probs = logits.softmax(-1).mean(0)
    torch.testing.assert_close(predictive.probs, probs)
    found = predictive.metrics(kim2022=True)
    nll = -probs[:, torch.arange(45), split.labels].log().mean(1)
    torch.testing.assert_close(found["nll"], nll)
    torch.testing.assert_close(found["accuracy"], (probs.argmax(-1) == split.labels).double().mean(1))
    # one batch of 45: -log mean_s exp(-mean NLL of the sample)
    each = torch.stack([F.cross_entropy(sample[0], split.labels) for sample in logits])
    assert float(found["nll_kim2022"][0]) == pytest.approx(float(math.log(3) - torch.logsumexp(-each, 0)), rel=1e-9)
    torch.testing.assert_close(found["ece_kim2022"], ece_kim2022(probs, split.labels))
    again = Predictive(net, digits, split, 2)
    again.load(predictive.state())
    again.add(samples[0])
    predictive.add(samples[0])
    assert torch.equal(again.probs, predictive.probs)


def test_picked_images_cover_sorted_classes(digits):
    order = digits.test.labels.argsort()
    assert len(pick_images(digits.test.take(order), 50).labels.unique()) == 10
    assert pick_images(digits.test, 0) is digits.test


def test_kim2022_potential(net, coreset, monkeypatch):
    """M (mean CE + lambda ||theta||), the norm and not its square; the sampler sees minus that."""
    caught = {}
    monkeypatch.setattr(
        "bpc.samplers.kim2022.kim2022_hmc", lambda density, config: caught.update(density=density, config=config)
    )
    settings = sampling_preset("hmc", 10)
    kim2022_plan("hmc", net, coreset.points, coreset.labels, coreset.weights, settings, None)
    params = 0.1 * torch.randn(2, net.num_params)
    ce = torch.stack([F.cross_entropy(out, coreset.labels) for out in net(params, coreset.points)])
    expected = -10 * (ce + 1.5 * params.square().sum(1).sqrt())
    torch.testing.assert_close(caught["density"](params), expected)
    config = caught["config"]
    assert (config.step_size, config.leapfrog_steps, config.momentum_scale) == (0.01, 5, 0.1)


@pytest.mark.parametrize("sampler", ["hmc", "asghmc"])
def test_kim2022_weights_are_those_of_a_mean(net, digits, sampler, monkeypatch):
    """M (sum_m w_m CE_m / sum_m w_m + lambda ||theta||): each chain's own weights, and their scale means nothing."""
    caught = []
    monkeypatch.setattr(
        f"bpc.samplers.kim2022.{'kim2022_hmc' if sampler == 'hmc' else sampler}", lambda d, _: caught.append(d)
    )
    cores = [random_coreset(digits, s) for s in (0, 1)]
    points, labels = torch.stack([c.points for c in cores]), cores[0].labels
    weights = torch.stack([torch.arange(1.0, 11.0), torch.arange(10.0, 0.0, -1.0)])
    settings = sampling_preset(sampler, 1)
    params = 0.1 * torch.randn(2, net.num_params, generator=make_generator("cpu", 0))
    for scale in (1.0, 129.7):
        kim2022_plan(sampler, net, points, labels, scale * weights, settings, None)
    values = [d(params) if sampler == "hmc" else d(params, None) for d in caught]
    for i in range(2):
        ce = F.cross_entropy(net(params[i : i + 1], points[i])[0], labels, reduction="none")
        expected = -10 * ((weights[i] * ce).sum() / 55 + settings.penalty * params[i].square().sum().sqrt())
        torch.testing.assert_close(values[0][i], expected)
    torch.testing.assert_close(values[1], values[0])


def test_coresets_keep_their_own_weights(net, digits):
    """Two weighted coresets, one for each seed: each is scored as if alone, and not by the first one's weights."""
    cores = [random_coreset(digits, s) for s in (0, 1)]
    cores = [c.replace(weights=w) for c, w in zip(cores, (torch.ones(10), torch.arange(1.0, 11.0) ** 2), strict=True)]
    (both,) = sample_kim2022(net, digits, cores, SHORT, seeds=[3, 4])
    (alone,) = sample_kim2022(net, digits, [cores[1]], SHORT, seeds=[4])
    (ignored,) = sample_kim2022(net, digits, [cores[1].replace(weights=torch.ones(10))], SHORT, seeds=[4])
    torch.testing.assert_close(both.probs[1], alone.probs[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both.probs[1], ignored.probs[0], rtol=1e-2, atol=1e-3)


def test_table_3():
    rows = {
        ("hmc", 1): (20, 20, 10, 0.01, 0.05, 0.5),
        ("asghmc", 1): (20, 5, 10, 0.1, 0.03, 1.0),
        ("hmc", 10): (100, 5, 50, 0.1, 0.01, 1.5),
        ("asghmc", 10): (100, 5, 50, 0.1, 0.01, 1.5),
        ("hmc", 20): (100, 5, 50, 0.1, 0.01, 1.5),
        ("asghmc", 20): (100, 5, 50, 0.1, 0.01, 1.0),
        ("hmc", 50): (100, 5, 50, 0.01, 0.02, 0.1),
    }
    for (sampler, ipc), expected in rows.items():
        p = sampling_preset(sampler, ipc)
        got = (p.iterations, p.leapfrog_steps, p.burn_in, p.momentum_scale, p.step_size, p.penalty)
        assert got == expected, (sampler, ipc)
        assert p.init_scale == 0.1


def test_scaled_penalty():
    assert kim2022_settings("kim2022", "hmc", 10, 320_010).penalty == 1.5
    assert kim2022_settings("kim2022-scaled", "hmc", 10, 320_010).penalty == 1.5
    assert kim2022_settings("kim2022-scaled", "hmc", 10, 80_002).penalty == pytest.approx(0.75, rel=1e-4)
    changed = kim2022_settings("kim2022-scaled", "hmc", 10, 24_714, penalty=0.2)
    assert (changed.iterations, changed.penalty) == (190, 0.2)
    assert kim2022_settings("kim2022", "hmc", 10, 5, penalty=0.3, step_size=None).penalty == 0.3


def test_scaled_time():
    """Iterations and burn-in times (320,010 / p)^(1/4), never fewer than published; a length that is given is not scaled."""

    def length(protocol, sampler, ipc, p, **changes):
        found = kim2022_settings(protocol, sampler, ipc, p, **changes)
        return found.iterations, found.burn_in

    assert length("kim2022", "hmc", 10, 20_000) == (100, 50) == length("kim2022-scaled", "hmc", 10, 320_010)
    assert length("kim2022-scaled", "hmc", 10, 20_001) == (200, 100)  # a sixteenth of the parameters
    assert length("kim2022-scaled", "asghmc", 1, 20_001) == (40, 20)
    assert length("kim2022-scaled", "hmc", 1, 20_001) == (20, 10)
    assert length("kim2022-scaled", "hmc", 10, 10**9) == (100, 50)
    assert length("kim2022-scaled-default-init", "hmc", 20, 20_001) == (200, 100)
    assert length("kim2022-scaled", "hmc", 10, 20_001, iterations=120) == (120, 50)
    assert length("kim2022-scaled", "hmc", 10, 20_001, burn_in=7) == (100, 7)


@pytest.mark.parametrize("sampler", ["hmc", "asghmc"])
def test_chains_together_equal_chains_alone(net, digits, sampler):
    coresets = [random_coreset(digits, s) for s in range(3)]
    config = Kim2022Config(sampler=sampler, test_images=60, overrides=SHORT.overrides)
    augment = AugmentConfig()
    (together,) = sample_kim2022(net, digits, coresets, config, seeds=[0, 1, 2], augment=augment, chains_at_once=3)
    alone = list(sample_kim2022(net, digits, coresets, config, seeds=[0, 1, 2], augment=augment, chains_at_once=1))
    assert [b.seeds for b in alone] == [[0], [1], [2]]
    for i, block in enumerate(alone):
        torch.testing.assert_close(block.probs[0], together.probs[i], rtol=1e-4, atol=1e-6)
    assert not torch.equal(together.probs[0], together.probs[1])


def test_hmc_never_augments_and_asghmc_does(net, digits, coreset):
    def probs(sampler, augment):
        config = Kim2022Config(sampler=sampler, test_images=30, overrides=SHORT.overrides)
        (block,) = sample_kim2022(net, digits, [coreset], config, seeds=[0], augment=augment)
        return block.probs

    assert torch.equal(probs("hmc", None), probs("hmc", AugmentConfig()))
    assert not torch.equal(probs("asghmc", None), probs("asghmc", AugmentConfig()))


def test_samples_are_kept_from_burn_in_on(net, digits, coreset, monkeypatch):
    added = []
    original = kim2022_chains.Predictive.add
    monkeypatch.setattr(
        kim2022_chains.Predictive, "add", lambda self, params: added.append(params) or original(self, params)
    )
    list(sample_kim2022(net, digits, [coreset], SHORT, seeds=[0]))
    assert len(added) == 3


@pytest.mark.parametrize("protocol", ["kim2022", "kim2022-scaled"])
def test_resumed_is_uninterrupted(net, digits, coreset, tmp_path, monkeypatch, protocol):
    config = Kim2022Config(protocol=protocol, test_images=40, overrides=SHORT.overrides)
    (whole,) = sample_kim2022(net, digits, [coreset], config, seeds=[0, 1])
    options = {"seeds": [0, 1], "file": tmp_path.joinpath, "config_hash": "x", "checkpoint_seconds": 0.0}

    class Killed(Exception):
        pass

    def die(done, note):
        if done >= 8:
            raise Killed

    with pytest.raises(Killed):
        list(sample_kim2022(net, digits, [coreset], config, report=die, **options))
    assert list(tmp_path.glob("chains-*.safetensors"))
    (resumed,) = sample_kim2022(net, digits, [coreset], config, **options)
    assert torch.equal(resumed.probs, whole.probs)
    for name, value in whole.metrics.items():
        assert torch.equal(resumed.metrics[name], value), name
    assert not list(tmp_path.glob("chains-*.safetensors"))


def test_a_diverged_chain_is_nan_and_alone(net, digits, coreset, monkeypatch):
    """Chain 1 leaves the finite numbers; chain 0 beside it is what it is alone."""
    original = kim2022_module.value_and_grad

    def explode(density, params):
        value, grad = original(density, params)
        if len(params) == 2:
            grad[1] = float("nan")
        return value, grad

    config = Kim2022Config(sampler="asghmc", test_images=30, overrides=SHORT.overrides)
    (alone,) = sample_kim2022(net, digits, [coreset], config, seeds=[0])
    monkeypatch.setattr(kim2022_module, "value_and_grad", explode)
    (both,) = sample_kim2022(net, digits, [coreset], config, seeds=[0, 1], chains_at_once=2)
    torch.testing.assert_close(both.probs[0], alone.probs[0], rtol=1e-4, atol=1e-6)
    assert all(math.isnan(float(both.metrics[m][1])) for m in ("accuracy", "nll", "ece", "brier", "nll_kim2022"))


def test_corrupted_images_are_scored_beside_the_test_set(net, digits, coreset, tmp_path):
    """The names of the metrics, and that a corruption which changes nothing changes no number; also through a kill."""
    same, other = Inputs("fog-1", pick_images(digits.test, 60)), Inputs("fog-2", foreign(digits.test, digits, 30).split)
    options = {"seeds": [0, 1], "extra": [same, other]}
    (block,) = sample_kim2022(net, digits, [coreset], SHORT, **options)
    for metric in ("accuracy", "nll", "ece"):
        assert torch.equal(block.metrics[f"{metric}@fog-1"], block.metrics[metric])
        assert not torch.equal(block.metrics[f"{metric}@fog-2"], block.metrics[metric])
    error = 1 - (block.metrics["accuracy@fog-1"] + block.metrics["accuracy@fog-2"]) / 2
    torch.testing.assert_close(block.metrics["mce"], error)
    assert {n for n in block.metrics if "@" in n or n == "mce"} == set(shifted_metrics([same, other]))

    def die(done, note):
        if done >= 8:
            raise KeyboardInterrupt

    folder = {"file": tmp_path.joinpath, "config_hash": "x", "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        list(sample_kim2022(net, digits, [coreset], SHORT, report=die, **options, **folder))
    (resumed,) = sample_kim2022(net, digits, [coreset], SHORT, **options, **folder)
    assert all(torch.equal(resumed.metrics[name], value) for name, value in block.metrics.items())


def test_pooled_sums_are_the_metrics(net, digits, coreset):
    (block,) = sample_kim2022(net, digits, [coreset], SHORT, seeds=[4, 5])
    labels = pick_images(digits.test, 60).labels
    found = compute(update(empty_sums((2,)), block.probs.double(), labels))
    torch.testing.assert_close(found["nll"], block.metrics["nll"], rtol=1e-5, atol=1e-6)


def test_coresets_that_do_not_fit(net, digits, coreset):
    with pytest.raises(ConfigError, match="classes"):
        list(sample_kim2022(net, digits, [coreset.replace(num_classes=7)], SHORT, seeds=[0]))
    with pytest.raises(ConfigError, match="2 coresets for 3 seeds"):
        list(sample_kim2022(net, digits, [coreset, coreset], SHORT, seeds=[0, 1, 2]))


def test_the_fit_to_the_coreset_is_that_of_the_first_and_the_last_sample(net, digits, coreset, tmp_path, monkeypatch):
    """Recomputed from the draws; a chain killed while it samples remembers the first."""
    draws = []
    original = kim2022_chains.Predictive.add
    monkeypatch.setattr(
        kim2022_chains.Predictive, "add", lambda self, params: draws.append(params) or original(self, params)
    )
    weighted = coreset.replace(weights=torch.arange(1.0, 11.0))
    (block,) = sample_kim2022(net, digits, [weighted], SHORT, seeds=[0, 1])
    for name, draw in (("start", draws[0]), ("end", draws[2])):
        each = [F.cross_entropy(out, coreset.labels, reduction="none") for out in net(draw, coreset.points)]
        expected = torch.stack([(weighted.weights * ce).sum() / 55 for ce in each])
        torch.testing.assert_close(block.metrics[f"conditioning_ce_{name}"].float(), expected)
    assert not torch.equal(block.metrics["conditioning_ce_start"], block.metrics["conditioning_ce_end"])

    def die(done, note):
        if done >= 10:
            raise KeyboardInterrupt

    options = {"seeds": [0, 1], "file": tmp_path.joinpath, "config_hash": "x", "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        list(sample_kim2022(net, digits, [weighted], SHORT, report=die, **options))
    (resumed,) = sample_kim2022(net, digits, [weighted], SHORT, **options)
    for name in ("conditioning_ce_start", "conditioning_ce_end"):
        assert torch.equal(resumed.metrics[name], block.metrics[name])


def test_default_init_changes_the_start_alone(net, digits, coreset, monkeypatch):
    """The settings are the published ones; every chain starts from `Network.init` by its own generator, gains at 1."""
    for protocol in ("kim2022", "kim2022-scaled"):
        here = kim2022_settings(f"{protocol}-default-init", "hmc", 10, 5_000)
        assert here == kim2022_settings(protocol, "hmc", 10, 5_000)
    starts = []
    original = kim2022_module.value_and_grad
    monkeypatch.setattr(
        kim2022_module, "value_and_grad", lambda density, params: starts.append(params) or original(density, params)
    )
    config = Kim2022Config(protocol="kim2022-default-init", test_images=30, overrides=SHORT.overrides)
    list(sample_kim2022(net, digits, [coreset], config, seeds=[0, 1]))
    first = starts[0].detach()
    expected = [net.init(1, make_generator("cpu", seed, "chain", "init"))[0] for seed in (0, 1)]
    assert torch.equal(first, torch.stack(expected))
    starts.clear()
    list(sample_kim2022(net, digits, [coreset], SHORT, seeds=[0, 1]))
    assert float(starts[0].std()) == pytest.approx(0.1, rel=0.1)


def test_unknown_names():
    with pytest.raises(ConfigError, match="Unknown sampler 'hmcc'"):
        Kim2022Config(sampler="hmcc")
    with pytest.raises(ConfigError, match="Unknown protocol"):
        Kim2022Config(protocol="kim")
    with pytest.raises(ConfigError, match="Unknown sampler 'nuts'"):
        Kim2022Config(sampler="nuts")
    with pytest.raises(ConfigError, match="burn_in"):
        kim2022_settings("kim2022", "hmc", 1, 10, burn_in=20)
