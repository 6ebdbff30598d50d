"""A reference is what its training data, network, prior and sampler make it, and can be asked about images it never saw."""

import dataclasses
import itertools

import pytest
import torch

from bpc.data import Split
from bpc.errors import ConfigError, FileFormatError
from bpc.models import ConvNet, ConvNetConfig
from evaluation.exact_chains import spread
from evaluation.inputs import Inputs
from evaluation.predictive import pick_images
from evaluation.protocols import ExactSettings
from evaluation.reference import load_reference, make_reference, reference_record, reference_settings


@pytest.fixture(scope="module")
def net():
    return ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)


@pytest.fixture
def settings(digits):
    return reference_settings(len(digits.train), sampler="sghmc", chains=2, warmup=2, samples=8, leapfrog_steps=2)


def make(path, net, digits, settings):
    return make_reference(path, net, digits, settings, device=torch.device("cpu"))


def changed(digits, images=None, labels=None, mean=None):
    train = Split(
        images=digits.train.images if images is None else images,
        labels=digits.train.labels if labels is None else labels,
    )
    return dataclasses.replace(digits, train=train, mean=digits.mean if mean is None else mean)


def test_the_key_is_the_content(net, digits, settings):
    """Counts and names alone were the key before: other pixels with equal labels found the same folder."""
    base = reference_record(net, digits, settings)
    images, labels = digits.train.images.clone(), digits.train.labels.clone()
    images[0, 0, 4, 4] ^= 1
    labels[:2] = labels[:2].flip(0)
    for other in (changed(digits, images=images), changed(digits, labels=labels), changed(digits, mean=(0.5,))):
        assert reference_record(net, other, settings) != base
    assert reference_record(net, digits, dataclasses.replace(settings, prior_std=0.2)) != base
    assert reference_record(net, digits, dataclasses.replace(settings, prior="fan-in")) != base
    assert reference_record(net, changed(digits), settings) == base


def test_a_reference_that_is_there_is_loaded_by_its_folder(net, digits, settings, tmp_path):
    """Without its settings; another network's, other images' and an unfinished one are refused."""
    made = make(tmp_path / "r", net, digits, settings)
    loaded = load_reference(tmp_path / "r", net, digits)
    inputs = Inputs("test", pick_images(digits.test, 20))
    assert loaded.settings == settings and torch.equal(loaded.predictive(0, inputs), made.predictive(0, inputs))
    with pytest.raises(ConfigError, match="network"):
        load_reference(tmp_path / "r", ConvNet(ConvNetConfig(width=5, depth=1), (1, 8, 8), 10), digits)
    with pytest.raises(ConfigError, match="training_digest"):
        load_reference(tmp_path / "r", net, changed(digits, labels=digits.train.labels.flip(0)))
    record = (tmp_path / "r" / "run.json").read_text()
    (tmp_path / "r" / "run.json").write_text(record.replace('"status": "done"', '"status": "running"'))
    with pytest.raises(ConfigError, match="no finished reference"):
        load_reference(tmp_path / "r", net, digits)
    with pytest.raises(FileFormatError):
        load_reference(tmp_path / "elsewhere", net, digits)


def test_full_batches_are_sampled_as_coresets_are():
    """With other settings than a coreset's, the two differed in their bias as well as in their data."""
    changes = {"prior": "fan-in", "prior_std": 2.0, "mass": "diagonal", "pool_step": False, "temperature": 0.5}
    for sampler in ("hmc", "nuts"):
        assert reference_settings(1000, sampler=sampler) == ExactSettings.for_sampler(sampler)
        found = reference_settings(1000, sampler=sampler, quick=True, **changes)
        assert found == ExactSettings.for_sampler(sampler, quick=True, **changes)
    found = reference_settings(1000, sampler="sghmc", **changes)
    assert (found.prior, found.prior_std, found.temperature) == ("fan-in", 2.0, 0.5)


def test_sghmc_by_itself_keeps_its_trajectory():
    """`--leapfrog-steps` is meant for HMC; where auto is SGHMC, its moves are half a pass over the data."""
    usual, short = (reference_settings(50_000, leapfrog_steps=steps) for steps in (None, 2))
    assert usual == short and usual.leapfrog_steps == 195
    assert reference_settings(1_000, leapfrog_steps=2).leapfrog_steps == 2
    quick = reference_settings(50_000, quick=True, samples=7)
    assert (quick.warmup, quick.samples, quick.leapfrog_steps) == (150, 7, 97)


def test_other_images_can_be_asked_later_and_are_kept_apart(net, digits, settings, tmp_path):
    reference = make(tmp_path / "r", net, digits, settings)
    first = Inputs("test", pick_images(digits.test, 30))
    same_size = Inputs("test", Split(images=first.split.images.flip(0), labels=first.split.labels.flip(0)))
    probs = reference.predictive(0, first)
    torch.testing.assert_close(reference.predictive(0, same_size), probs.flip(0))
    draws = reference.draws(0)
    assert draws.shape == (2, 8, net.num_params)
    x = digits.normalise(first.split.images)
    expected = torch.stack([net(d, x).double().softmax(-1) for d in draws]).mean((0, 1))
    torch.testing.assert_close(probs.double(), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(probs, reference.predictive(1, first), atol=1e-3)  # the other run
    # a second process opens it without sampling, and reads what is there
    file = next((tmp_path / "r").glob(f"predictive-0-{first.split.digest}*"))
    before = file.stat().st_mtime_ns
    assert torch.equal(make(tmp_path / "r", net, digits, settings).predictive(0, first), probs)
    assert file.stat().st_mtime_ns == before
    assert {"mixed", "rhat_predictions", "heat"} <= set(reference.diagnostics(0))


def test_heat_that_a_user_s_settings_make_is_a_row_and_a_warning_every_time(net, digits, settings, tmp_path, capsys):
    hot = dataclasses.replace(settings, step_size=0.05, friction=0.5, batch=4, max_heat=0.0, leapfrog_steps=10)
    reference = make(tmp_path / "r", net, digits, hot)
    heat = [reference.diagnostics(seed)["heat"] for seed in (0, 1)]
    assert min(heat) > 0.05
    said = " ".join(capsys.readouterr().err.split())
    for value in heat:
        assert f"variances are about {1 + value:.2f} times too large" in said
    make(tmp_path / "r", net, digits, hot)  # it is there already
    assert "times too large" in " ".join(capsys.readouterr().err.split())
    make(tmp_path / "cold", net, digits, dataclasses.replace(settings, step_size=1e-4))
    assert "times too large" not in " ".join(capsys.readouterr().err.split())


def test_kept_weights_are_bounded_and_their_size_is_said(net, digits, settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("evaluation.reference.WEIGHTS_BYTES", 3 * settings.chains * net.num_params * 4 + 1)
    reference = make(tmp_path / "r", net, digits, settings)
    assert reference.draws(0).shape == (settings.chains, 3, net.num_params)
    assert "3 draws of each chain" in " ".join(capsys.readouterr().err.split())
    most = 3 * settings.chains * net.num_params * 4 + 1000  # and a header
    assert all((tmp_path / "r" / f"weights-{seed}.safetensors").stat().st_size < most for seed in (0, 1))


def test_another_posterior_s_folder_is_refused(net, digits, settings, tmp_path):
    make(tmp_path / "r", net, digits, settings)
    images = digits.train.images.flip(-1)
    with pytest.raises(ConfigError, match="training_digest"):
        make(tmp_path / "r", net, changed(digits, images=images), settings)


def test_a_damaged_reference_is_one_line(net, digits, settings, tmp_path):
    reference = make(tmp_path / "r", net, digits, settings)
    path = tmp_path / "r" / "weights-0.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileFormatError, match=r"weights-0\.safetensors"):
        reference.predictive(0, Inputs("test", pick_images(digits.test, 5)))


@pytest.mark.parametrize(("draws", "wanted", "count"), [(150, 100, 100), (125, 50, 50), (8, 100, 8), (10, 3, 3)])
def test_a_predictive_takes_no_more_draws_than_it_says(draws, wanted, count):
    chosen = spread(draws, wanted)
    assert len(chosen) == len(set(chosen)) == count
    assert chosen[-1] == draws - 1 and min(chosen) >= 0
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_small_data_are_sampled_without_noise():
    """Minibatches heat; where all points are affordable they are all taken, with a Metropolis test."""
    small, large = (reference_settings(n) for n in (1_297, 50_000))
    assert (small.sampler, small.batch) == ("hmc", 0)
    assert (large.sampler, large.batch) == ("sghmc", 128) and large.max_heat > 0
    assert reference_settings(1_297, sampler="sghmc").batch == 128


def test_weights_that_were_deleted_are_sampled_again(net, digits, settings, tmp_path, capsys):
    """Finished says nothing of files that are gone: the run that lost its weights is drawn again, to the same bits."""
    reference = make(tmp_path / "r", net, digits, settings)
    first, rows = reference.draws(0), (tmp_path / "r" / "rows.csv").read_text()
    (tmp_path / "r" / "weights-0.safetensors").unlink()
    other = (tmp_path / "r" / "weights-1.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert torch.equal(make(tmp_path / "r", net, digits, settings).draws(0), first)
    assert "weights-0.safetensors is gone" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "r" / "weights-1.safetensors").stat().st_mtime_ns == other
    assert (tmp_path / "r" / "rows.csv").read_text() == rows


def test_a_second_run_can_be_added_to_a_reference_of_one(net, digits, settings, tmp_path):
    cpu = torch.device("cpu")
    one = make_reference(tmp_path / "r", net, digits, settings, device=cpu, runs=1)
    assert one.seeds == (0,) and not (tmp_path / "r" / "weights-1.safetensors").exists()
    first = one.draws(0)
    stamp = (tmp_path / "r" / "weights-0.safetensors").stat().st_mtime_ns
    both = make_reference(tmp_path / "r", net, digits, settings, device=cpu)
    assert both.seeds == (0, 1) and torch.equal(both.draws(0), first) and not torch.equal(both.draws(1), first)
    assert (tmp_path / "r" / "weights-0.safetensors").stat().st_mtime_ns == stamp
    assert make_reference(tmp_path / "r", net, digits, settings, device=cpu, runs=1).seeds == (0,)  # the first of two
