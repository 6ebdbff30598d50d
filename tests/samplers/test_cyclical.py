"""Cyclical SGHMC: its schedule, what it does within a mode and between modes, and that its bias is where the text says it is."""

import math

import pytest
import torch
from targets import TARGETS, first_mode, mixture, starts

from bpc.errors import ConfigError
from bpc.samplers import CycleConfig, ExactGradient, ExactSettings, SGHMCConfig, cyclical_sghmc, run, sghmc
from bpc.samplers.record import EXACT_SAMPLERS
from bpc.seeding import ChainGenerators, SharedGenerator, make_generator

CHAINS = 64


def sampled(target, start, config, cycle, *, steps, before=0, name="cyclical"):
    """Draws (s, k, p) and their infos."""
    stream = SharedGenerator(make_generator("cpu", 0, name), len(start))
    chains = run(
        cyclical_sghmc(ExactGradient(target), config, cycle), start, steps=steps, burn_in=before, generators=stream
    )
    found = [(state.params, info) for state, info in chains]
    return torch.stack([params for params, _ in found]), [info for _, info in found]


class Asked:
    """No force; it keeps at which step and temperature it was called, by what the moves do."""

    noisy = False

    def exact(self, params):
        return torch.zeros(len(params)), torch.zeros_like(params)

    def estimate(self, params, anchor, anchor_grad, generators):
        return torch.zeros_like(params)


def test_the_schedule():
    """Steps fall as a cosine over the cycle, and heat until the exploration ends; free particles show both in their moves."""
    cycle = CycleConfig(draws=2, explore=0.5, hot=16.0)
    assert (cycle.explored, cycle.blocks) == (2, 4)
    assert CycleConfig(draws=10, explore=0.8).explored == 40 and CycleConfig(draws=3, explore=0.0).explored == 0
    config = SGHMCConfig(
        step_size=0.1, friction=1e4, steps=1
    )  # every move's momentum is new: a move is h times a normal
    kernel = cyclical_sghmc(Asked(), config, cycle)
    k = 4000
    generators = SharedGenerator(make_generator("cpu", 0, "free"), k)
    state = kernel.init(torch.zeros(k, 1, dtype=torch.float64), generators)
    width = [0.1 * math.cos(math.pi / 2 * r) for r in (1 / 8, 3 / 8, 5 / 8, 7 / 8)]
    heat = [16.0 ** (1 - 0.25 * 1.5), 1.0, 1.0, 1.0]
    before = 1.0
    for draw in range(4):
        old = state.params
        state, info = kernel.step(state, generators)
        first = draw % 2 == 0
        assert (info.leapfrogs == (6 if first else 2)).all()  # a move and an anchor each
        blocks = (0, 1, 2) if first else (3,)
        # moves in a row share a momentum: the new one of each is the old one of the next
        parts = [before, *(heat[b] for b in blocks)]
        steps = [0.0, *(width[b] for b in blocks), 0.0]
        variance = sum(parts[i] * (0.5 * (steps[i] + steps[i + 1])) ** 2 for i in range(len(parts)))
        assert float((state.params - old).var()) == pytest.approx(variance, rel=0.1)
        torch.testing.assert_close(state.step_size, torch.full((k,), width[blocks[-1]], dtype=torch.float64))
        before = 1.0


def test_without_exploration_and_heat_a_cycle_of_constant_steps_is_sghmc():
    """One draw a cycle of one move, at the middle of the cosine: SGHMC with that step, number for number."""
    target, start = TARGETS["gaussian"], starts(3, 3)
    shared = {"friction": 2.0, "steps": 1}
    cyclical = cyclical_sghmc(
        ExactGradient(target.log_density), SGHMCConfig(step_size=0.2, **shared), CycleConfig(draws=1, explore=0.0)
    )
    plain = sghmc(ExactGradient(target.log_density), SGHMCConfig(step_size=0.2 * math.cos(math.pi / 4), **shared))
    ours, theirs = (
        torch.stack(
            [s.params for s, _ in run(kernel, start, steps=6, generators=ChainGenerators.from_seeds("cpu", range(3)))]
        )
        for kernel in (cyclical, plain)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("hot", [1.0, 10.0])
def test_the_variance_of_a_gaussian(hot):
    """Within 5 % of every coordinate's at a step of a fifth of the narrowest scale, the first draw after the heat among them."""
    target = TARGETS["gaussian"]
    config, cycle = SGHMCConfig(step_size=0.1, friction=2.0, steps=30), CycleConfig(draws=8, hot=hot)
    draws, _ = sampled(target.log_density, target.start(400), config, cycle, steps=32, before=8)
    variance = (draws - target.mean).square().mean((0, 1))
    torch.testing.assert_close(variance / target.variance, torch.ones(3, dtype=torch.float64), atol=0.05, rtol=0)


def test_a_mode_is_left_in_the_heat_but_weighs_what_the_cooling_gives_it():
    """Two modes 19 standard deviations apart: SGHMC stays, cycles visit both, and their share is not the modes' mass."""
    target = mixture()
    start = starts(CHAINS, 2)
    config = SGHMCConfig(step_size=0.1, friction=0.5, steps=20)
    cold, _ = sampled(target.posterior, start, config, CycleConfig(draws=5, hot=1.0), steps=30, before=10)
    alone = first_mode(cold)
    assert ((alone == 0) | (alone == 1)).all(), "plain Langevin crosses by itself: this mixture is no test"
    draws, _ = sampled(target.posterior, start, config, CycleConfig(draws=5, hot=100.0), steps=120, before=10)
    found = first_mode(draws)
    assert ((found > 0) & (found < 1)).double().mean() > 0.95, "cycles do not cross"
    share, error = float(found.mean()), float(found.std()) / CHAINS**0.5
    assert abs(share - float(target.weights[0])) > 5 * error, "the text says that modes are weighed wrongly"
    cycles = draws.unflatten(0, (-1, 5))[..., 0] < -0.8
    assert (cycles.all(1) | ~cycles.any(1)).double().mean() > 0.9  # a cycle is in one mode


def test_published_exploration_falls_into_the_nearest_mode():
    """SGD with momentum and exact gradients: it cools where it is."""
    target = mixture()
    config = SGHMCConfig(step_size=0.1, friction=0.5, steps=20)
    draws, _ = sampled(target.posterior, starts(CHAINS, 2), config, CycleConfig(draws=5, hot=0.0), steps=30, before=5)
    alone = first_mode(draws)
    assert ((alone == 0) | (alone == 1)).all()


def test_settings():
    settings = ExactSettings(sampler="csghmc", cycle=10, leapfrog_steps=7)
    assert EXACT_SAMPLERS.get("csghmc").gradients(settings) == 16
    assert ExactSettings(sampler="csghmc", cycle=5).record() != settings.record()
    assert ExactSettings(cycle=5).record() == ExactSettings().record()  # hmc has no cycles
    with pytest.raises(ConfigError, match="1 draw"):
        ExactSettings(sampler="csghmc", cycle=0)
    for changes in ({"draws": 0}, {"explore": 1.0}, {"hot": -1.0}):
        with pytest.raises(ConfigError, match="cycle"):
            CycleConfig(**changes)
