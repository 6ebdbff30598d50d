"""The flow's adjoint against autograd through the unrolled flow, its states against the sampler, the KL in closed form."""

import dataclasses

import pytest
import torch

from bpc.divergences import LearnedCoreset, PathSettings, RealBatch, RKLPath, RKLPathConfig, no_experts
from bpc.divergences.flow import Dynamics, GaussianPull, NormPull, Potential, flow_gradient, run_flow
from bpc.errors import ConfigError
from bpc.likelihood import GaussianLocation, LogisticRegression
from bpc.samplers.kim2022 import Kim2022HMCConfig, kim2022_hmc
from bpc.samplers.kim2022_presets import SamplingPreset
from bpc.seeding import make_generator
from bpc.weight_prior import isotropic


class Noise:
    """The same draws every time it is made."""

    def __init__(self, shape):
        self.shape, self.generator = shape, torch.Generator().manual_seed(11)

    def __call__(self):
        return torch.randn(self.shape, generator=self.generator, dtype=torch.float64)


def unrolled(model, points, labels, coefficients, log_prior, dynamics, start, noise, iterations, detach_before):
    """Ends of iterations by plain leapfrogs with a graph; states before the leapfrog `detach_before` are constants."""
    eps, v, theta, count, ends = dynamics.step_size, dynamics.inverse_mass, start, 0, []

    def force(theta):
        leaf = theta if theta.requires_grad else theta.detach().requires_grad_(True)
        value = (model(leaf, points, labels) @ coefficients).sum() + log_prior(leaf).sum()
        return torch.autograd.grad(value, leaf, create_graph=True)[0]

    for _ in range(iterations):
        momentum = dynamics.momentum_scale * noise()
        for i in range(dynamics.leapfrog_steps):
            if count == detach_before:
                theta, momentum = theta.detach(), momentum.detach()
            count += 1
            momentum = momentum + (eps if i else 0.5 * eps) * force(theta)
            theta = theta + eps * v * momentum
        ends.append(theta)
    return ends


@pytest.mark.parametrize("window", [5, 12])  # of 12 leapfrogs
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", ["network", "linear"])
def test_adjoint_is_autograd_through_the_unrolled_flow(small, kind, exact, window):
    if kind == "network":
        model, coreset, _, _ = small
        p = model.network.num_params
    else:
        generator = torch.Generator().manual_seed(1)
        points = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        coreset = LearnedCoreset(points, torch.tensor([0, 1, 0, 1, 1, 0]), torch.rand(6, dtype=torch.float64) + 0.5)
        model, p = LogisticRegression(), 5
    k, std = 3, 0.4
    pull = GaussianPull(isotropic(std)) if exact else NormPull(1.7)

    def log_prior(theta):
        return -0.5 * theta.square().sum(1) / std**2 if exact else -1.7 * theta.norm(dim=1)

    dynamics = Dynamics(
        step_size=0.05,
        leapfrog_steps=4,
        momentum_scale=1 / std if exact else 0.1,
        inverse_mass=std**2 if exact else 1.0,
    )
    start = 0.3 * torch.randn(k, p, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    direction = torch.randn(2, k, p, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    leaves = [coreset.points.clone().requires_grad_(True), coreset.weights.clone().requires_grad_(True)]
    plain = unrolled(
        model, leaves[0], coreset.labels, leaves[1], log_prior, dynamics, start, Noise((k, p)), 3, 12 - window
    )
    loss = (plain[2] * direction[0]).sum() + (plain[1] * direction[1]).sum()
    expected = torch.autograd.grad(loss, leaves)

    potential = Potential(model, coreset.points, coreset.labels, coreset.weights, pull)
    ends = run_flow(potential, dynamics, start, Noise((k, p)), 3, keep=3)
    for end, by_graph in zip(ends, plain, strict=True):
        torch.testing.assert_close(end.params, by_graph.detach(), rtol=1e-12, atol=1e-12)
    whole = flow_gradient(potential, dynamics, ends, {2: direction[0], 1: direction[1]}, window)
    pieced = dataclasses.replace(potential, at_once=4)
    cut = flow_gradient(pieced, dynamics, ends, {2: direction[0], 1: direction[1]}, window)
    for found in (whole, cut):
        torch.testing.assert_close(found.points, expected[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found.coefficients, expected[1], rtol=1e-10, atol=1e-10)
    assert expected[0].abs().max() > 1e-3 and expected[1].abs().max() > 1e-3


SETTINGS = SamplingPreset(
    iterations=6, leapfrog_steps=3, burn_in=3, momentum_scale=0.1, step_size=0.05, penalty=0.3, init_scale=0.2
)


def gradient(model, coreset, real, path, seed=0, **config):
    """Of the divergence object."""
    p = model.network.num_params if hasattr(model, "network") else coreset.points.shape[1]
    window = no_experts(p, "cpu")(None)
    window = window._replace(snapshots=window.snapshots.to(coreset.points.dtype))
    made = RKLPath(model, RKLPathConfig(path=path, **config))
    return made.gradient(coreset, window, real, make_generator("cpu", seed))


@pytest.mark.parametrize("late", [1, 2])
@pytest.mark.parametrize("objective", ["expected", "predictive"])
def test_gradient_against_finite_differences(small, objective, late):
    """By points and by weights, of a loss that is computed from the noise as the chain draws it."""
    model, coreset, _, real = small
    path = PathSettings(
        sampling=SETTINGS, protocol="kim2022", window=0, late=late, objective=objective, chains=4, antithetic=True
    )
    got = gradient(model, coreset, real, path)
    assert torch.isfinite(got.value)
    generator = torch.Generator().manual_seed(0)
    for field, size in (("points", 1e-5), ("weights", 1e-5)):
        value = getattr(coreset, field)
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        ends = [
            gradient(model, coreset._replace(**{field: value + sign * size * direction}), real, path).value
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * size)
        torch.testing.assert_close((getattr(got, field) * direction).sum(), slope, rtol=1e-5, atol=1e-9)
        assert slope.abs() > 1e-6
    assert gradient(model, coreset, real, path, seed=1).value != got.value


def test_flow_is_the_sampler_that_accepts_everything(small):
    """The published chain's states, from the same momenta: with small steps it rejects nothing."""
    model, coreset, _, _ = small
    k, p, m = 2, model.network.num_params, len(coreset.labels)
    share = coreset.weights / coreset.weights.sum()

    def density(theta):
        mean_ce = -(model(theta, coreset.points, coreset.labels) @ share)
        return -m * (mean_ce + 0.3 * theta.norm(dim=1))

    class Shared:
        def __init__(self):
            self.noise = Noise((k, p))

        def normal(self, *shape):
            return self.noise()

        def uniform(self):
            return torch.zeros(k, dtype=torch.float64)

    start = 0.2 * torch.randn(k, p, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kernel = kim2022_hmc(density, Kim2022HMCConfig(step_size=0.02, leapfrog_steps=5, momentum_scale=0.1))
    generators = Shared()
    state, states = kernel.init(start, generators), []
    for _ in range(4):
        state, _ = kernel.step(state, generators)
        states.append(state.params)
    potential = Potential(model, coreset.points, coreset.labels, m * share, NormPull(m * 0.3))
    dynamics = Dynamics(step_size=0.02, leapfrog_steps=5, momentum_scale=0.1)
    ends = run_flow(potential, dynamics, start, Noise((k, p)), 4, keep=4)
    for end, by_sampler in zip(ends, states, strict=True):
        torch.testing.assert_close(end.params, by_sampler, rtol=1e-12, atol=1e-12)


def test_sum_is_the_gradient_of_the_reverse_kl():
    """Gaussian location: the posteriors are Gaussian, the KL and its gradient are closed forms."""
    generator = torch.Generator().manual_seed(0)
    data = 0.5 + torch.randn(12, 2, generator=generator, dtype=torch.float64)
    points = torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_(True)
    weights = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64, requires_grad=True)

    def posterior(x, w):
        precision = 1.0 + w.sum()
        return (w @ x) / precision, precision

    mean_u, precision_u = posterior(points, weights)
    mean_x, precision_x = posterior(data, torch.ones(12, dtype=torch.float64))
    ratio = precision_x / precision_u
    kl = 0.5 * (2 * (ratio - 1 - ratio.log()) + precision_x * (mean_u - mean_x).square().sum())
    expected = torch.autograd.grad(kl, (points, weights))

    row = SamplingPreset(
        iterations=4, leapfrog_steps=12, burn_in=3, momentum_scale=1.0, step_size=0.05, penalty=0.0, init_scale=1.0
    )
    path = PathSettings(sampling=row, protocol="exact", window=0, chains=20_000)
    coreset = LearnedCoreset(points.detach(), torch.zeros(3, dtype=torch.long), weights.detach())
    real = RealBatch(data, torch.zeros(12, dtype=torch.long), 12)
    got = gradient(GaussianLocation(torch.eye(2, dtype=torch.float64)), coreset, real, path, reduction="sum")
    scale = [float(e.abs().max()) for e in expected]
    torch.testing.assert_close(got.points, expected[0], rtol=0, atol=0.03 * scale[0])
    torch.testing.assert_close(got.weights, expected[1], rtol=0, atol=0.03 * scale[1])


def test_ends_lie_after_burn_in_and_pieces_change_nothing(small):
    model, coreset, _, real = small
    path = PathSettings(sampling=SETTINGS, window=4, chains=2)
    assert path.earliest(SETTINGS) == 4
    whole = gradient(model, coreset, real, path)
    cut = gradient(model, coreset, real, path, at_once=5)
    torch.testing.assert_close(cut.points, whole.points, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(cut.value, whole.value)
    assert whole.points.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": "kim2023"}, "protocol"),
        ({"objective": "best"}, "objective"),
        ({"chains": 3, "antithetic": True}, "pairs"),
        ({"first_end": 7}, "6 iterations"),
        ({"first_end": 2, "late": 3}, "late"),
        ({"chains": 0}, "at least 1"),
    ],
)
def test_settings_that_mean_nothing(changes, words):
    with pytest.raises(ConfigError, match=words):
        PathSettings(sampling=SETTINGS, **changes)


def test_sum_needs_a_posterior():
    with pytest.raises(ConfigError, match="exact"):
        RKLPathConfig(path=PathSettings(sampling=SETTINGS), reduction="sum")


def test_time_and_start_are_the_protocol_s(small):
    model, coreset, _, real = small
    chain = PathSettings(sampling=SETTINGS).chain(320_010 // 16)
    assert (chain.iterations, chain.burn_in) == (12, 6) and chain.penalty == pytest.approx(0.3 / 4, rel=1e-4)
    values = [
        gradient(model, coreset, real, PathSettings(sampling=SETTINGS, protocol=name, window=2)).value
        for name in ("kim2022", "kim2022-default-init")
    ]
    assert torch.isfinite(torch.stack(values)).all() and values[0] != values[1]
    with pytest.raises(ConfigError, match="network"):
        flat = LearnedCoreset(torch.ones(2, 3).double(), torch.tensor([0, 1]), torch.ones(2).double())
        path = PathSettings(sampling=SETTINGS, protocol="kim2022-default-init")
        gradient(LogisticRegression(), flat, RealBatch(flat.points, flat.labels, 2), path)
