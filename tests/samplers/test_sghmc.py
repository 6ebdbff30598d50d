"""Noisy gradients: the heat they make, how it is measured, and that the reference's settings keep it out (N = 50,000)."""

import math

import pytest
import torch
from targets import NoisyDensity

from bpc.errors import ConfigError
from bpc.likelihood import LinearRegression
from bpc.posterior import ControlVariates, Posterior
from bpc.samplers import ExactGradient, SGHMCConfig, run, sghmc, value_and_grad
from bpc.seeding import ChainGenerators, make_generator
from bpc.weight_prior import isotropic
from evaluation.protocols import exact_plan
from evaluation.reference import reference_settings

N, BATCH, TAU = 50_000, 128, 0.1
PRECISIONS = torch.tensor([1.0, 5.0, 50.0], dtype=torch.float64)  # of the data, in units of the prior's


@pytest.fixture(scope="module")
def regression():
    """Linear regression with exactly those precisions along the axes; its posterior is known."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, 3, generator=g, dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / N)).T * (PRECISIONS / N).sqrt() / TAU
    y = x @ torch.tensor([0.05, 0.1, -0.1], dtype=torch.float64) + torch.randn(N, generator=g, dtype=torch.float64)
    points = torch.cat([x, y.unsqueeze(1)], dim=1)
    weights = torch.ones(N, dtype=torch.float64)
    posterior = Posterior(
        LinearRegression(1.0), points, torch.zeros(N, dtype=torch.long), weights, prior=isotropic(TAU)
    )
    covariance = torch.linalg.inv(x.T @ x + torch.eye(3, dtype=torch.float64) / TAU**2)
    return posterior, covariance @ x.T @ y, covariance


def variances(kernel, mean, covariance, chains, draws, warmup):
    """Variances relative to the truth, and the heat measured along the way; chains start in the posterior."""
    start = mean + torch.randn(chains, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) @ (
        torch.linalg.cholesky(covariance).T
    )
    generators = ChainGenerators.from_seeds("cpu", list(range(chains)))
    found = list(run(kernel, start, steps=warmup + draws, burn_in=warmup, generators=generators))
    samples, heat = torch.stack([s.params for s, _ in found]), torch.stack([i.heat for _, i in found])
    return (samples - mean).square().mean((0, 1)) / covariance.diagonal(), float(heat.mean())


@pytest.mark.slow
def test_the_default_reference_has_the_right_variances(regression):
    """The settings of `reference_settings`; the code before had variances 1.9, 5.1 and 42 times too large here."""
    posterior, mean, covariance = regression
    settings = reference_settings(N, prior_std=TAU, warmup=20)
    assert settings.sampler == "sghmc" and settings.batch == BATCH
    kernel = exact_plan(posterior, settings).kernel
    relative, heat = variances(kernel, mean, covariance, chains=24, draws=80, warmup=20)
    assert ((relative - 1).abs() < 0.1).all(), relative
    assert 0 <= heat < 0.05


@pytest.mark.slow
def test_the_heat_of_plain_minibatches_is_as_predicted_and_as_measured(regression):
    """Without control variates: 1 + h (N/B) K / (2 gamma), and the measured heat is that of the noisiest direction."""
    posterior, mean, covariance = regression

    def density(params, generators):
        points, labels, weights = posterior.draw_points(generators, BATCH)
        log_lik = posterior.log_likelihood(params, points, labels)
        return N / BATCH * (log_lik * weights).sum(1) + posterior.log_prior(params)

    config = SGHMCConfig(step_size=0.02, friction=5.0, momentum_scale=1 / TAU, steps=50)
    relative, heat = variances(sghmc(NoisyDensity(density), config), mean, covariance, chains=32, draws=80, warmup=20)
    predicted = 1 + 0.02 * (N / BATCH) * PRECISIONS / 10.0
    torch.testing.assert_close(relative, predicted, rtol=0.25, atol=0.0)
    assert heat == pytest.approx(float(predicted[-1]) - 1, rel=0.15)


def test_the_step_shrinks_until_the_heat_is_small():
    """Many sharp directions at once, which control variates alone do not cool."""
    n, p = 2000, 40
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, p, generator=g, dtype=torch.float64) * (50.0 / n) ** 0.5 / TAU
    points = torch.cat([x, torch.randn(n, 1, generator=g, dtype=torch.float64)], dim=1)
    weights = torch.ones(n, dtype=torch.float64)
    posterior = Posterior(
        LinearRegression(1.0), points, torch.zeros(n, dtype=torch.long), weights, prior=isotropic(TAU)
    )
    found = {}
    for max_heat in (None, 0.05):
        config = SGHMCConfig(
            step_size=0.1, friction=5.0, momentum_scale=1 / TAU, steps=10, warmup=80, max_heat=max_heat
        )
        kernel = sghmc(ControlVariates(posterior, 8), config)
        generators = ChainGenerators.from_seeds("cpu", [0, 1, 2, 3])
        drawn = list(run(kernel, torch.zeros(4, p, dtype=torch.float64), steps=140, generators=generators, burn_in=80))
        found[max_heat] = float(torch.stack([i.heat for _, i in drawn]).mean()), float(drawn[-1][0].step_size.mean())
    assert found[None][0] > 0.3 and found[None][1] == 0.1
    assert found[0.05][0] < 0.05 and found[0.05][1] < 0.08


class Bursts:
    """The gradient of a standard normal with noise of variance 20.04: 100 times as wide as usual, one time in twenty."""

    noisy = True

    def exact(self, params):
        return -0.5 * params.square().sum(1), -params

    def estimate(self, params, anchor, anchor_grad, generators):
        width = torch.where(generators.uniform(1) < 0.05, 20.0, 0.2)
        return -params + width * generators.normal(params.shape[1])


def test_the_step_follows_the_mean_heat_and_not_the_usual_one():
    """A network's heat comes in bursts. A step steered by its logarithm stayed at 0.1 here, where the mean heat is 1."""
    config = SGHMCConfig(step_size=0.1, friction=5.0, steps=2, warmup=300, max_heat=0.05)
    generators = ChainGenerators.from_seeds("cpu", range(8))
    drawn = list(run(sghmc(Bursts(), config), torch.zeros(8, 1), steps=500, generators=generators, burn_in=300))
    steps = drawn[-1][0].step_size
    # heat = h v / (2 gamma), aimed at half of 0.05: h = 0.0125
    assert 0.006 < float(steps.mean()) < 0.025, steps
    assert 0 < float(torch.stack([i.heat for _, i in drawn]).mean()) < 0.05
    assert torch.equal(drawn[0][0].step_size, steps)  # fixed once the warm-up is over


@pytest.mark.parametrize("warmup", [0, 3, 6, 7])
def test_a_short_warm_up_keeps_the_step_in_bounds(warmup):
    config = SGHMCConfig(step_size=0.01, steps=1, warmup=warmup, max_heat=0.05)
    generators = ChainGenerators.from_seeds("cpu", [0, 1])
    *_, (state, _) = run(sghmc(Bursts(), config), torch.zeros(2, 1), steps=10, generators=generators)
    assert ((state.step_size <= 0.01 * (1 + 1e-9)) & (state.step_size > 0)).all()
    if warmup < 6:
        assert (state.step_size == 0.01).all()


def test_the_heat_of_an_overdamped_chain():
    """h^2 v / (4 s^2 T tanh(gamma h / 2)): at gamma h = 4 the usual h v / (2 gamma) is half of it, and T divides."""
    config = SGHMCConfig(step_size=0.4, friction=10.0, steps=5, temperature=3.0)

    class Noisy(Bursts):
        def estimate(self, params, anchor, anchor_grad, generators):
            return -params + 4.0 * generators.normal(params.shape[1])

    generators = ChainGenerators.from_seeds("cpu", range(64))
    drawn = list(run(sghmc(Noisy(), config), torch.zeros(64, 1), steps=150, generators=generators, burn_in=50))
    heat = float(torch.stack([i.heat for _, i in drawn]).mean())
    assert heat == pytest.approx(0.4**2 * 16 / (4 * math.tanh(2.0) * 3.0), rel=0.1)
    variance = float(torch.stack([s.params for s, _ in drawn]).var())
    assert variance == pytest.approx(3.0 * (1 + heat), rel=0.1)


def test_exact_gradients_have_no_heat():
    target = ExactGradient(lambda x: -0.5 * x.square().sum(1))
    generators = ChainGenerators([make_generator("cpu", 0)])
    state, info = next(run(sghmc(target, SGHMCConfig()), torch.zeros(1, 2), steps=1, generators=generators))
    assert info.heat.isnan().all()
    torch.testing.assert_close(state.grad, -state.params)
    value, _ = value_and_grad(target.log_density, state.params)
    torch.testing.assert_close(state.log_density, value)


@pytest.mark.parametrize(
    "change", [{"step_size": 0.0}, {"friction": -1.0}, {"max_heat": 0.0}, {"warmup": -1}, {"steps": 0}]
)
def test_settings_that_make_no_sense(change):
    with pytest.raises(ConfigError, match="SGHMC needs"):
        SGHMCConfig(**change)
