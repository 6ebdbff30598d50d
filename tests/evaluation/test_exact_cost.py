"""What exact sampling is said to cost: the arithmetic, with a clock that is told the time."""

import pytest
import torch

from bpc.models import ConvNet, ConvNetConfig
from bpc.samplers import ExactSettings
from evaluation import exact_cost
from evaluation.exact_cost import cost_words, sampling_seconds


@pytest.fixture
def clock(monkeypatch):
    """Whatever is timed takes a second; the parameter vectors that it moves are looked at."""
    seen = []

    def timed(work, device):
        found = work()
        seen.append((found if isinstance(found, torch.Tensor) else found[1]).shape)
        return 1.0

    monkeypatch.setattr(exact_cost, "_timed", timed)
    return seen


@pytest.fixture(scope="module")
def net():
    return ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)


def data(digits, m):
    return digits.normalise(digits.train.images[:m]), digits.train.labels[:m]


def test_every_gradient_of_every_chain_is_counted(digits, net, clock):
    settings = ExactSettings(chains=3, warmup=10, samples=20, leapfrog_steps=7, predictive_draws=5)
    seconds = sampling_seconds(net, *data(digits, 10), settings, chains=6)
    assert clock == [(6, net.num_params)]  # all chains at once, which took 1 s for 60 pairs
    assert seconds(settings) == pytest.approx(30 * 7)
    asked = sampling_seconds(net, *data(digits, 10), settings, chains=6, asked=50)
    assert asked(settings) == pytest.approx(30 * 7 + 6 * 5 * 50 / 3 / 60)
    pt = ExactSettings.for_sampler("pt", chains=3, warmup=10, samples=20, leapfrog_steps=7, levels=5)
    seconds = sampling_seconds(net, *data(digits, 10), pt, chains=3)
    assert clock[-1] == (12, net.num_params)  # four levels move together
    assert seconds(pt) == pytest.approx(30 * 3 * (4 * 7 + 1) * 10 / 120)


def test_a_piece_is_timed_and_the_rest_is_in_proportion(digits, net, clock, monkeypatch):
    monkeypatch.setattr(exact_cost, "exact_pairs_at_once", lambda network, device: 25)
    settings = ExactSettings(chains=4, warmup=10, samples=20, leapfrog_steps=2)
    seconds = sampling_seconds(net, *data(digits, 10), settings, chains=4)
    assert clock == [(2, net.num_params)]
    assert seconds(settings) == pytest.approx(30 * 2 * 40 / 20)
    seconds = sampling_seconds(net, *data(digits, 100), settings, chains=4)
    assert clock[-1] == (1, net.num_params)
    assert seconds(settings) == pytest.approx(30 * 2 * 400 / 25)


def test_minibatches_cost_their_own_gradients_and_one_by_all_points(digits, net, clock):
    settings = ExactSettings.for_sampler("sghmc", chains=2, warmup=4, samples=8, leapfrog_steps=3, batch=5)
    seconds = sampling_seconds(net, *data(digits, 40), settings, chains=2)
    assert clock == [(2, net.num_params), (1, net.num_params)]
    assert seconds(settings) == pytest.approx(2 * 12 * (40 / 80 + 5))


def test_the_words_say_what_quick_would_do():
    settings = ExactSettings()
    quick, by_draws = settings.shorter(), lambda s: (s.warmup + s.samples) * s.leapfrog_steps / 100
    text = cost_words("fkl", settings, by_draws, quick)
    assert text.startswith("Sampling fkl by hmc: 4 chains x 500 draws x 100 gradients, about 8 min here; --quick takes")
    assert "about 75 s and may carry a dagger." in text
    for less in (None, settings):  # already quick, or nothing that it would change
        assert "--quick" not in cost_words("fkl", settings, by_draws, less)
    assert "--quick" not in cost_words("fkl", settings, lambda s: by_draws(s) / 100, quick)
    assert "up to 256 gradients" in cost_words("fkl", ExactSettings(sampler="nuts"), by_draws)
    batch = ExactSettings.for_sampler("sghmc", leapfrog_steps=9, batch=128)
    assert "9 gradients of 128 images" in cost_words("fkl", batch, by_draws)


def test_the_clock_measures_at_all(digits, net):
    settings = ExactSettings(chains=1, warmup=0, samples=4, leapfrog_steps=1)
    assert 0 < sampling_seconds(net, *data(digits, 10), settings, chains=1)(settings) < 60
