"""The prior of a network's weights: its density, its draws, an isotropic one's old bits, its widths by layer."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from bpc.errors import ConfigError
from bpc.likelihood import Classifier, LinearRegression
from bpc.models import ConvNet, ConvNetConfig, ModuleNetwork
from bpc.posterior import Posterior
from bpc.samplers import EXACT_SAMPLERS, ExactSettings
from bpc.seeding import ChainGenerators
from bpc.weight_prior import WEIGHT_PRIORS, WeightPrior, fan_in, isotropic
from evaluation.chains import run_chains
from evaluation.protocols import exact_plan


def some_prior(p=5):
    g = torch.Generator().manual_seed(0)
    mean, width = torch.randn(p, generator=g).double(), 0.3 + torch.rand(p, generator=g).double()
    return WeightPrior(scale=0.7, mean=mean, width=width)


@pytest.mark.parametrize("prior", [isotropic(0.3), some_prior()], ids=["isotropic", "by parameter"])
def test_density_and_gradient(prior):
    """Against torch's normal distribution, and finite differences."""
    params = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    mean = torch.as_tensor(prior.mean, dtype=torch.float64).expand(5)
    normal = Normal(mean, torch.as_tensor(prior.std, dtype=torch.float64).expand(5))
    expected = normal.log_prob(params).sum(1) - normal.log_prob(mean).sum()
    torch.testing.assert_close(prior.log_density(params), expected)
    step = 1e-6 * torch.eye(5, dtype=torch.float64)
    slopes = [(prior.log_density(params + e) - prior.log_density(params - e)) / 2e-6 for e in step]
    torch.testing.assert_close(prior.gradient(params), torch.stack(slopes, 1), rtol=1e-6, atol=1e-6)


def test_draws_have_its_moments():
    prior = some_prior()
    draws = prior.draw(torch.randn(40_000, 5, generator=torch.Generator().manual_seed(2)).double())
    assert float(((draws.mean(0) - prior.mean) / (prior.std / 200)).abs().max()) < 4.5
    torch.testing.assert_close(draws.std(0), prior.std, rtol=0.02, atol=0)


def test_an_isotropic_prior_has_the_bits_of_a_number():
    """What the posterior computed when its prior was a standard deviation: rows of old runs stay what they are."""
    params = torch.randn(3, 1000, generator=torch.Generator().manual_seed(3))
    params[0, 0] = 0.0
    prior, std = isotropic(0.1), 0.1
    assert torch.equal(prior.log_density(params), -0.5 * params.square().sum(1) / std**2)
    assert torch.equal(prior.gradient(params), -params / std**2)
    assert torch.equal(prior.draw(params), std * params)
    kernel = EXACT_SAMPLERS.get("hmc").kernel(regression(prior), ExactSettings(warmup=0))
    mass = kernel.init(torch.zeros(2, 3), None).chain.inverse_mass
    assert torch.equal(mass, torch.full((2, 3), 1.0 / (1.0 / std) ** 2))


def regression(prior, dtype=torch.float32):
    points = torch.randn(6, 4, generator=torch.Generator().manual_seed(4), dtype=dtype)
    return Posterior(
        LinearRegression(0.5), points, torch.zeros(6, dtype=torch.long), torch.ones(6).to(dtype), prior=prior
    )


def by_kind(network, values):
    parts = values.split([math.prod(block.shape) for block in network.layout])
    return {block.name: (block, part) for block, part in zip(network.layout, parts, strict=True)}


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_fan_in_of_a_convnet(norm):
    network = ConvNet(ConvNetConfig(width=8, depth=2, norm=norm), (1, 8, 8), 10)
    prior = fan_in(network, 2.0)
    assert sum(math.prod(block.shape) for block in network.layout) == network.num_params
    means, stds = by_kind(network, prior.mean), by_kind(network, prior.std)
    expected = {"conv0.weight": 2 / 3, "conv1.weight": 2 / math.sqrt(72), "linear.weight": 2 / math.sqrt(32)}
    expected |= {"conv0.bias": 2.0, "conv1.bias": 2.0, "linear.bias": 2.0}
    if norm == "instance":
        expected |= {f"norm{i}.{part}": 1.0 for i in (0, 1) for part in ("gain", "shift")}
    assert set(stds) == set(expected)
    for name, std in expected.items():
        torch.testing.assert_close(stds[name][1], torch.full_like(stds[name][1], std))
        assert (means[name][1] == (1.0 if name.endswith("gain") else 0.0)).all()


def test_the_layout_of_a_convnet_is_that_of_its_forward_pass():
    """A gain of 0 erases its channel: had the layout another order, something else would be set."""
    network = ConvNet(ConvNetConfig(width=8, depth=1), (1, 8, 8), 10)
    params = network.init(1, torch.Generator().manual_seed(0))
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    parts = by_kind(network, params[0])
    parts["norm0.gain"][1].zero_()
    parts["norm0.shift"][1].fill_(-1.0)  # a view of `params`; the ReLU makes 0 of it
    assert (network.features(params, images) == 0).all()
    torch.testing.assert_close(network(params, images)[0], parts["linear.bias"][1].expand(2, 10))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.GroupNorm(2, 6)
        self.temperature = nn.Parameter(torch.zeros(()))
        self.linear = nn.Linear(6 * 36, 10)

    def forward(self, x):
        return self.linear(self.norm(self.conv(x)).relu().flatten(1)) * self.temperature.exp()


def test_the_layout_of_a_module():
    network = ModuleNetwork(Own, (1, 8, 8), 10, "own")
    kinds = {block.name: (block.kind, block.fan_in) for block in network.layout}
    assert kinds == {
        "temperature": ("bias", 1),
        "conv.weight": ("weight", 9),
        "conv.bias": ("bias", 9),
        "norm.weight": ("gain", 0),
        "norm.bias": ("shift", 0),
        "linear.weight": ("weight", 216),
        "linear.bias": ("bias", 216),
    }
    names = [name for name, _ in Own().named_parameters()]
    assert [block.name for block in network.layout] == names  # the order of the flat vector
    assert fan_in(network, 1.0).std.shape == (network.num_params,)


def test_a_network_without_a_layout():
    class Bare:
        name, num_params = "bare", 3

    assert isinstance(WEIGHT_PRIORS.get("isotropic").build(Bare(), 0.5).std, float)
    with pytest.raises(ConfigError, match=r"bare has no layout.*--prior isotropic"):
        fan_in(Bare(), 1.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales_that_are_none(scale):
    with pytest.raises(ConfigError, match="must be positive"):
        isotropic(scale)
    with pytest.raises(ConfigError, match="must be positive"):
        WeightPrior(scale=1.0, mean=torch.zeros(2), width=torch.tensor([1.0, 0.0]))


class Draws:
    """A recorder of parameters."""

    def __init__(self):
        self.draws = []

    def add(self, state, info):
        self.draws.append(state.params)


@pytest.mark.parametrize("sampler", ["hmc", "nuts", "sghmc", "csghmc", "pt", "smc"])
def test_without_data_chains_sample_the_prior(sampler):
    """Start, mass and density together: the weights of all points are 0, the widths differ by a factor of 30."""
    prior = WeightPrior(scale=0.5, mean=torch.tensor([1.0, 0.0, -2.0]), width=torch.tensor([0.1, 1.0, 3.0]))
    points = torch.randn(2, 4, generator=torch.Generator().manual_seed(4))
    target = Posterior(LinearRegression(0.5), points, torch.zeros(2, dtype=torch.long), torch.zeros(2), prior=prior)
    settings = ExactSettings(
        sampler=sampler,
        chains=60,
        warmup=10,
        samples=60,
        mass="prior",
        target=0.8,
        step_size=0.3,
        leapfrog_steps=7,
        max_tree_depth=4,
    )
    seen = Draws()
    run_chains(
        exact_plan(target, settings), seen, seeds=list(range(60)), num_params=3, device=torch.device("cpu"),
        checkpoint=None, checkpoint_seconds=1e9, config_hash="", report=lambda done, note: None,
    )  # fmt: skip
    draws = torch.stack(seen.draws, 1)  # (60, 60, 3)
    error = draws.mean(1).std(0) / 60**0.5
    assert float(((draws.mean((0, 1)) - prior.mean) / error).abs().max()) < 4.5
    torch.testing.assert_close(draws.flatten(0, 1).std(0), prior.std, rtol=0.05, atol=0)


def test_the_start_is_a_draw_of_the_prior(digits):
    network = ConvNet(ConvNetConfig(width=8, depth=1), (1, 8, 8), 10)
    prior = fan_in(network, 1.0)
    points, labels = digits.normalise(digits.train.images[:2]), digits.train.labels[:2]
    plan = exact_plan(
        Posterior(Classifier(network), points, labels, torch.ones(2), prior=prior), ExactSettings(warmup=0)
    )
    noise = ChainGenerators.from_seeds("cpu", [0]).normal(network.num_params)
    assert torch.equal(plan.start(noise), prior.mean + prior.std * noise)
    mass = plan.kernel.init(plan.start(noise), None).chain.inverse_mass
    torch.testing.assert_close(mass[0], prior.std**2)
