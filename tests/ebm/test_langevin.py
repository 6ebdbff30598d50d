"""Short-run Langevin on energies whose law is known, and the prior's learning gradient against log Z on a grid."""

from __future__ import annotations

import math

import pytest
import torch
from latent import seeded, tiny, with_linear_energy

from bpc.ebm.model import PriorDensity, sample_prior
from bpc.seeding import SharedGenerator

CHAINS = 20_000


def four_errors(values, variance):
    """Of a mean of so many independent draws."""
    return 4.0 * math.sqrt(variance / len(values))


@pytest.mark.parametrize(("step_size", "temperature"), [(0.5, 1.0), (0.2, 1.0), (0.5, 0.3), (0.3, 0.0)])
def test_without_energy_the_target_is_the_reference(step_size, temperature):
    """z' = (1 - s) z + sqrt(2 s T) eps: mean zero, variance T / (1 - s / 2)."""
    model = tiny(scale=0.0)
    with torch.no_grad():
        for p in model.energy.parameters():
            p.zero_()
    start = torch.full((CHAINS, 2), 3.0)
    found = sample_prior(model, start, seeded(), steps=50, step_size=step_size, temperature=temperature)
    flat = found.flatten().double()
    variance = temperature / (1 - step_size / 2)
    slack = 3.0 * (1 - step_size) ** 50 + 1e-6  # what is left of the start
    assert abs(float(flat.mean())) < four_errors(flat, variance) + slack
    assert float(flat.var()) == pytest.approx(variance, abs=four_errors(flat, 2 * variance**2) + slack)
    correlation = float((found[:, 0] * found[:, 1]).double().mean())
    assert abs(correlation) < four_errors(found, variance**2) + slack


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_each_chain_goes_to_its_own_class(temperature):
    """F(z)[y] = a_y . z: p(z | y) = N(a_y, I), whatever the temperature does to the width."""
    slopes = torch.tensor([[2.0, -1.0], [0.0, 0.5], [-3.0, 0.0]])
    model = with_linear_energy(tiny(), slopes)
    labels = torch.arange(3).repeat_interleave(8000)
    start = torch.zeros(len(labels), 2)
    found = sample_prior(
        model, start, seeded(1), steps=40, step_size=0.4, labels=labels, temperature=temperature
    ).double()  # fmt: skip
    variance = temperature / (1 - 0.2)
    for y in range(3):
        own = found[labels == y]
        assert (own.mean(0) - slopes[y]).abs().max() < four_errors(own, variance) + 1e-4
        assert (own.var(0) - variance).abs().max() < four_errors(own, 2 * variance**2) + 1e-4


def test_without_labels_the_target_is_the_mixture():
    """Classes at 1.2 and -1.2: mean zero, variance 1 + 1.44, up to O(s)."""
    model = with_linear_energy(tiny(latent=1, classes=2), torch.tensor([[1.2], [-1.2]]))
    found = sample_prior(model, torch.zeros(CHAINS, 1), seeded(2), steps=400, step_size=0.05).double()
    assert abs(float(found.mean())) < four_errors(found, 2.44)
    # s 0.05 widens each mode by s / 2 and a little between them
    assert float(found.square().mean()) == pytest.approx(2.44, abs=four_errors(found, 2 * 2.44**2) + 0.09)
    assert float(found.pow(4).mean()) == pytest.approx(3 + 6 * 1.44 + 1.44**2, rel=0.12)  # a Gaussian has 17.9


@pytest.mark.parametrize("labels", [None, torch.tensor([2, 0, 1, 1])], ids=["p(z)", "p(y, z)"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_recursion_by_hand(labels, temperature):
    """Eq. 2, with the same numbers from the generator; the start is left alone."""
    model, s = tiny(latent=3, hidden=5, scale=2.0), 0.13
    start = torch.randn(4, 3, generator=seeded(3))
    kept = start.clone()
    found = sample_prior(
        model, start, seeded(4), steps=6, step_size=s, labels=labels, temperature=temperature
    )  # fmt: skip
    rng, z = seeded(4), start.clone()
    for _ in range(6):
        leaf = z.clone().requires_grad_(True)
        energies = model.energy(leaf)
        f = energies.exp().sum(1).log() if labels is None else energies[torch.arange(4), labels]
        (gradient,) = torch.autograd.grad((f - leaf.square().sum(1) / 2).sum(), leaf)
        z = z + s * gradient + math.sqrt(2 * s * temperature) * torch.randn(4, 3, generator=rng)
    torch.testing.assert_close(found, z, rtol=1e-5, atol=1e-5)
    assert torch.equal(start, kept)
    assert not found.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_one_stream_for_all_chains():
    """As many numbers per step as all chains need, whatever else comes from the stream."""
    shared, plain = SharedGenerator(seeded(5), 4), seeded(5)
    assert len(shared) == 4
    assert torch.equal(shared.normal(3), torch.randn(4, 3, generator=plain))
    assert torch.equal(shared.uniform(), torch.rand(4, generator=plain))
    state = shared.get_state()
    first = shared.normal(2, 2)
    assert first.shape == (4, 2, 2)
    shared.set_state(state)
    assert torch.equal(shared.normal(2, 2), first)


# Eq. 10: d/d alpha of (mean of f at the data - log Z) is (mean of grad f at the data) - (mean of grad f under the prior).

GRID = torch.linspace(-12.0, 12.0, 2401, dtype=torch.float64).unsqueeze(1)
STEP = 0.01


def log_z(model):
    """Of exp(f(z)) N(z; 0, 1) in one dimension, by the trapezoid rule, which is exact to rounding for such a density."""
    log_density = model.tilt(GRID) - GRID.square().sum(1) / 2 - 0.5 * math.log(2 * math.pi)
    return log_density.logsumexp(0) + math.log(STEP)


def test_log_z_on_the_grid():
    slopes = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    model = with_linear_energy(tiny(latent=1, classes=2).double(), slopes)
    assert float(log_z(model).detach()) == pytest.approx(math.log(math.exp(0.5) + math.exp(2.0)), rel=1e-12)


@pytest.fixture
def toy():
    """One latent, three classes, weights that make a prior that is no Gaussian; and some data."""
    model = tiny(latent=1, hidden=3, scale=2.5, seed=3).double()
    return model, 1.0 + 0.7 * torch.randn(50, 1, generator=seeded(6), dtype=torch.float64)


def tilt_gradients(model, z):
    """d f(z) / d alpha of each point, (n, p)."""
    weights = dict(model.energy.named_parameters())

    def tilt(own, point):
        return torch.func.functional_call(model.energy, own, (point,)).logsumexp(-1)

    each = torch.func.vmap(torch.func.grad(tilt), (None, 0))(weights, z)
    return torch.cat([each[name].flatten(1) for name in weights], 1).detach()


def test_the_gradient_of_the_prior_is_data_minus_samples(toy):
    model, data = toy
    # by finite differences of the normalised log likelihood
    numeric, h = [], 1e-5
    with torch.no_grad():
        for p in model.energy.parameters():
            flat = p.view(-1)
            for i in range(len(flat)):
                ends = []
                for sign in (1.0, -1.0):
                    flat[i] += sign * h
                    ends.append(float(model.tilt(data).mean() - log_z(model)))
                    flat[i] -= sign * h
                numeric.append((ends[0] - ends[1]) / (2 * h))
    expected = torch.tensor(numeric, dtype=torch.float64)

    # by the prior's expectations on the grid
    with torch.no_grad():
        p = PriorDensity(model)(GRID).softmax(0)
    each = tilt_gradients(model, GRID)
    positive, negative = tilt_gradients(model, data).mean(0), p @ each
    torch.testing.assert_close(positive - negative, expected, rtol=1e-6, atol=1e-8)

    # and as learning does, by chains that start at the data, but long ones
    samples = sample_prior(model, data.repeat(400, 1), seeded(7), steps=400, step_size=0.02)
    gap = model.tilt(data).mean() - model.tilt(samples).mean()
    found = torch.cat([g.flatten() for g in torch.autograd.grad(gap, list(model.energy.parameters()))])
    error = ((p @ each.square() - negative.square()).clamp(min=0) / len(samples)).sqrt()
    slack = 0.01 * (p @ each.abs())  # s / 2: what the step size does to a mean
    assert ((found - expected).abs() < 4.5 * error + slack).all()
    # which would see the wrong sign and a missing phase
    for wrong in (-found, positive):
        assert ((wrong - expected).abs() > 10 * (4.5 * error + slack)).any()
