"""The prior's value and gradient, the bound's terms, class probabilities, and entropies far below float32's rounding."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from latent import SHAPE, seeded, tiny, with_linear_energy

from bpc.ebm.model import PriorDensity, entropy

LABELS = torch.tensor([0, 2, 1, 2, 0])


@pytest.fixture
def model():
    return tiny(latent=3, hidden=5, scale=2.0).double()


@pytest.fixture
def z():
    return torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)


@pytest.mark.parametrize("labels", [None, LABELS], ids=["p(z)", "p(y, z)"])
def test_prior_gradient(model, z, labels):
    """Against autograd through the module, and against finite differences of a formula written out here."""
    density = PriorDensity(model, labels)
    value, gradient = density.value_and_gradient(z)
    leaf = z.clone().requires_grad_(True)
    torch.testing.assert_close(value, density(leaf).detach())
    (expected,) = torch.autograd.grad(density(leaf).sum(), leaf)
    torch.testing.assert_close(gradient, expected)

    def by_hand(points):
        energies = model.energy(points).detach()
        chosen = energies.exp().sum(1).log() if labels is None else energies[torch.arange(5), labels]
        return chosen - points.square().sum(1) / 2

    torch.testing.assert_close(value, by_hand(z))
    h = 1e-5
    for i in range(3):
        step = h * torch.eye(3, dtype=torch.float64)[i]
        torch.testing.assert_close(
            gradient[:, i], (by_hand(z + step) - by_hand(z - step)) / (2 * h), rtol=1e-7, atol=1e-8
        )


def test_prior_density_follows_the_weights(model, z):
    """Learning changes them in place; a density made before sees it."""
    density = PriorDensity(model)
    before = density.value_and_gradient(z)[0]
    with torch.no_grad():
        next(model.energy.parameters()).add_(0.5)
    after = density.value_and_gradient(z)[0]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model.log_prior(z).detach())


def test_classes_add_up(model, z):
    """sum_y p(y, z) = p(z), and p(y | z) is the softmax of F."""
    each = torch.stack([model.log_prior(z, torch.full((5,), y)) for y in range(3)], 1)
    torch.testing.assert_close(each.exp().sum(1), model.log_prior(z).exp())
    torch.testing.assert_close(model.tilt(z), model.energy(z).exp().sum(1).log())
    torch.testing.assert_close(model.tilt(z), model.log_prior(z) + z.square().sum(1) / 2)
    torch.testing.assert_close((each - model.log_prior(z)[:, None]).exp(), model.energy(z).softmax(1))
    assert model.tilt(z.view(5, 1, 3)).shape == (5, 1)


def test_linear_energies_are_linear(z):
    """What other tests build on."""
    slopes = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, 0.0], [-1.0, 0.0, 4.0]], dtype=torch.float64)
    model = with_linear_energy(tiny(latent=3, hidden=7).double(), slopes)
    torch.testing.assert_close(model.energy(z).detach(), z @ slopes.T)


def test_terms_of_the_bound(model):
    x = torch.rand((6, *SHAPE), generator=seeded(2), dtype=torch.float64)
    with torch.no_grad():
        model.encoder.head.weight.mul_(2.0)
        terms, z = model.elbo_terms(x, seeded(3))
        mean, log_var = model.encoder(x)
        q = torch.distributions.Normal(mean, (log_var / 2).exp())
        torch.testing.assert_close(z, mean + q.stddev * torch.randn(mean.shape, generator=seeded(3)).double())
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
        torch.testing.assert_close(terms.kl, kl)
        sigma = model.config.sigma
        noise = torch.distributions.Normal(model.generator(z), sigma)
        constant = math.prod(SHAPE) * math.log(sigma * math.sqrt(2 * math.pi))
        torch.testing.assert_close(terms.reconstruction, noise.log_prob(x).flatten(1).sum(1) + constant)
        torch.testing.assert_close(terms.tilt, model.energy(z).exp().sum(1).log())


def test_supervised_logits_are_at_one_draw(model):
    x = torch.rand((6, *SHAPE), generator=seeded(2), dtype=torch.float64)
    with torch.no_grad():
        mean, log_var = model.encoder(x)
        z = mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=seeded(3))
        torch.testing.assert_close(model.logits(x, seeded(3)), model.energy(z))


@pytest.mark.parametrize("draws", [1, 4])
def test_class_probabilities_are_a_mean_over_draws(model, draws):
    x = torch.rand((6, *SHAPE), generator=seeded(2), dtype=torch.float64)
    found = model.log_probs(x, seeded(3), draws)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(6, dtype=torch.float64))
    noise = torch.randn(draws, 6, 3, generator=seeded(3)).double()
    with torch.no_grad():
        mean, log_var = model.encoder(x)
        for i in range(6):
            total = torch.zeros(3, dtype=torch.float64)
            for s in range(draws):
                z = mean[i] + (log_var[i] / 2).exp() * noise[s, i]
                powers = model.energy(z).exp()
                total += powers / powers.sum()
            torch.testing.assert_close(found[i].exp(), total / draws)
    assert not found.requires_grad


def exact_entropy(logits):
    with mpmath.workdps(250):
        values = [mpmath.mpf(float(v)) for v in logits]
        powers = [mpmath.exp(v - max(values)) for v in values]
        total = mpmath.fsum(powers)
        return float(-mpmath.fsum(p / total * mpmath.log(p / total) for p in powers))


@pytest.mark.parametrize("gap", [0.0, 1e-3, 1.0, 5.0, 14.0, 20.0, 30.0, 100.0, 500.0])
def test_entropy_to_eleven_digits(gap):
    """Relative, down to 1e-214: the surest class may lead by hundreds of nats."""
    logits = torch.randn(20, 10, generator=seeded(4))
    logits[torch.arange(20), torch.arange(20) % 10] = logits.max(1).values + gap
    found = entropy(logits)
    assert found.dtype == torch.float64
    for row, value in zip(logits, found, strict=True):
        assert float(value) == pytest.approx(exact_entropy(row), rel=1e-11, abs=0.0)


def test_entropy_around_the_papers_threshold():
    """1e-6: the textbook sum in float32 puts samples on the wrong side of it."""
    gaps = torch.linspace(15.0, 18.0, 200)
    logits = torch.stack([torch.zeros(200), -gaps], 1)
    exact = torch.tensor([exact_entropy(row) for row in logits], dtype=torch.float64)
    assert 0 < int((exact < 1e-6).sum()) < 200
    assert torch.equal(entropy(logits) < 1e-6, exact < 1e-6)


def test_entropy_knows_no_offset_and_no_order():
    logits = 3 * torch.randn(7, 5, generator=seeded(5), dtype=torch.float64)
    torch.testing.assert_close(entropy(logits + 77.0), entropy(logits), rtol=1e-11, atol=0.0)
    torch.testing.assert_close(entropy(logits.flip(1)), entropy(logits), rtol=1e-12, atol=0.0)
    assert entropy(logits.view(7, 1, 5)).shape == (7, 1)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_entropy_of_ignorance(classes):
    logits = torch.full((3, classes), -4.0)
    torch.testing.assert_close(
        entropy(logits), torch.full((3,), math.log(classes), dtype=torch.float64), rtol=1e-12, atol=0.0
    )


def test_entropy_is_finite_and_not_negative():
    rows = [[0.0, -800.0, -900.0], [1e30, 0.0, -1e30], [3e38, 3e38, -3e38], [0.0, 0.0, 0.0], [5.0, 5.0, -1e4]]
    found = entropy(torch.tensor(rows))
    assert (found >= 0).all()
    assert found.tolist() == pytest.approx([0.0, 0.0, math.log(2), math.log(3), math.log(2)], rel=1e-12, abs=1e-300)
    assert float(entropy(torch.zeros(2, 1)).abs().max()) == 0.0
