"""Settings of the exact protocols: the defaults of every sampler and backend, short runs, and the temperature."""

import pytest
import torch
from torch.distributions import Normal

from bpc.errors import ConfigError
from bpc.models import ConvNet, ConvNetConfig
from bpc.samplers import EXACT_SAMPLERS, ExactSettings
from bpc.seeding import ChainGenerators
from bpc_cli.flags import ExactFlags, PosteriorFlags, ScoringFlags, usual
from bpc_cli.reference import reference_plan
from bpc_cli.scoring import scoring_plan
from evaluation.protocols import exact_posterior

NO_FLAGS = ExactFlags()


def planned(exact=NO_FLAGS, sampler="hmc", backend="native", **flags):
    flags = ScoringFlags(protocol="exact", **flags)
    return scoring_plan(flags, exact, sampler, ipcs=(1,), seed=0, backend=backend).config.settings


def test_a_command_without_flags_has_the_defaults_of_its_sampler():
    for sampler in EXACT_SAMPLERS.names():
        assert planned(sampler=sampler) == ExactSettings.for_sampler(sampler)
    assert planned() == ExactSettings() == reference_plan(PosteriorFlags(), 1_297, None)
    assert ExactSettings.for_sampler("pt").leapfrog_steps == 20
    assert usual("leapfrog_steps").startswith("100 (") and "pt 20" in usual("leapfrog_steps")
    with pytest.raises(ConfigError, match="Unknown sampler"):
        planned(sampler="gibbs")


def test_other_backends_adapt_by_themselves():
    for backend in ("pyro", "hamiltorch"):
        found = planned(backend=backend)
        assert (found.mass, found.pool_step, found.prior_std) == ("diagonal", False, 1.0)
    with pytest.raises(ConfigError, match="--mass prior"):
        planned(ExactFlags(mass="prior"), backend="pyro")
    assert not planned(ExactFlags(pool_step=False)).pool_step


def test_quick_is_a_seventh_and_yields_to_numbers():
    for sampler in ("hmc", "sghmc", "pt"):
        usual_, quick = (planned(ExactFlags(quick=q), sampler) for q in (False, True))
        cost = [(s.warmup + s.samples) * EXACT_SAMPLERS.get(sampler).gradients(s) for s in (usual_, quick)]
        assert 5.5 < cost[0] / cost[1] < 8
    quick = planned(ExactFlags(quick=True, samples=400), leapfrog_steps=7)
    assert (quick.warmup, quick.samples, quick.leapfrog_steps) == (50, 400, 7)
    assert ExactSettings(samples=5, leapfrog_steps=1, warmup=1).shorter() == ExactSettings(
        samples=4, leapfrog_steps=1, warmup=0, max_tree_depth=7
    )


def test_levels_and_temperature_name_only_runs_that_have_them():
    """Other runs keep their hash."""
    assert not {"levels", "temperature"} & set(ExactSettings().record())
    assert ExactSettings(levels=5).record() == ExactSettings().record()
    assert ExactSettings(sampler="pt", levels=5).record() != ExactSettings(sampler="pt", levels=6).record()
    assert ExactSettings(temperature=0.5).record()["temperature"] == 0.5


@pytest.mark.parametrize("prior", ["isotropic", "fan-in"])
def test_the_temperature_divides_the_whole_log_density(digits, prior):
    """Likelihood, weights and prior, whose mean stays where it is, and with it the gradient and where chains start."""
    network = ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)
    points, labels = digits.normalise(digits.train.images[:12]).double(), digits.train.labels[:12]
    weights = torch.linspace(0.5, 3.0, 12).double()
    params = torch.randn(3, network.num_params, generator=torch.Generator().manual_seed(0)).double()
    made = {
        t: exact_posterior(network, points, labels, weights, ExactSettings(prior=prior, prior_std=0.7, temperature=t))
        for t in (1.0, 0.25, 3.0)
    }
    value, gradient = made[1.0].value_and_gradient(params)
    log_lik = made[1.0].log_likelihood(params, points, labels) @ weights
    std, mean = made[1.0].prior.std, made[1.0].prior.mean
    constant = Normal(mean, std).log_prob(torch.as_tensor(mean)).expand(network.num_params).sum()
    expected = log_lik + Normal(mean, std).log_prob(params).sum(1) - constant  # by torch's own density
    torch.testing.assert_close(value, expected)
    generators = [ChainGenerators.from_seeds("cpu", [1], "t") for _ in made]
    starts = [p.draw_prior(g, 5, network.num_params) - mean for p, g in zip(made.values(), generators, strict=True)]
    for (t, posterior), start in zip(made.items(), starts, strict=True):
        found, slope = posterior.value_and_gradient(params)
        torch.testing.assert_close(found, value / t)
        torch.testing.assert_close(slope, gradient / t)
        torch.testing.assert_close(start, starts[0] * t**0.5, rtol=1e-4, atol=1e-5)
