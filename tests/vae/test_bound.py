"""The bound and importance sampling against probabilistic PCA, whose likelihood is known."""

from __future__ import annotations

import math

import pytest
import torch

from bpc.vae.bound import active_units, elbo, log_likelihood
from bpc.vae.likelihoods import make_likelihood
from bpc.vae.models import ModelConfig, build_model
from bpc.vae.priors import BypePrior, Components, ExemplarPrior, StandardGaussian


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pca(linear_vae):
    """The model, its prior, images drawn from it, and log p(x) of each."""
    marginal = linear_vae.marginal()
    noise = torch.randn(40, 6, generator=seeded(), dtype=torch.float64)
    flat = (marginal.loc + noise @ marginal.scale_tril.T).detach()
    truth = marginal.log_prob(flat).detach()
    return linear_vae, StandardGaussian(2).double(), flat.view(40, 1, 2, 3), truth


@pytest.mark.parametrize(("samples", "rows"), [(1, 20_000), (50, 20_000), (7, 120), (3, 1)])
def test_with_the_exact_posterior_every_sample_is_exact(pca, samples, rows):
    model, prior, x, truth = pca
    found = log_likelihood(model, prior, x, seeded(), samples=samples, rows=rows)
    torch.testing.assert_close(found, truth)
    torch.testing.assert_close(elbo(model, prior, x, seeded()).elbo, truth)


def test_a_worse_posterior_is_below_and_converges(pca, estimate):
    model, prior, x, truth = pca
    model.shift, model.widen = 0.15, 2.0
    gaps = {}
    for samples in (1, 5, 2000):
        repeated = torch.stack([log_likelihood(model, prior, x, seeded(s), samples=samples) - truth for s in range(20)])
        gaps[samples] = estimate(repeated.flatten())
    (one, one_error), (some, some_error) = gaps[1], gaps[5]
    assert one + one_error < 0 and some + some_error < 0
    assert one + one_error < some - some_error
    assert gaps[2000][0] == pytest.approx(0.0, abs=0.002)
    many = log_likelihood(model, prior, x, seeded(), samples=20_000)
    torch.testing.assert_close(many, truth, atol=0.05, rtol=0)


def test_the_bound_is_below_by_the_posteriors_divergence(pca, estimate):
    """E elbo = log p(x) - KL[q || p(z | x)], with the divergence in closed form."""
    model, prior, x, truth = pca
    model.shift, model.widen = 0.15, 1.5
    many = x[:1].expand(20_000, 1, 2, 3)
    found = elbo(model, prior, many, seeded()).elbo.detach()
    variance = 1.0 / (1.0 + model.weight.detach().square().sum(0) / model.likelihood.std**2)
    gap = 0.5 * (1.5 - 1 - math.log(1.5) + 0.15**2 / variance).sum()
    mean, error = estimate(found)
    assert mean == pytest.approx(float(truth[0] - gap), abs=error)
    assert mean + error < float(truth[0])


def test_kl_of_a_gaussian_prior(grey, estimate):
    model = build_model(ModelConfig(latent=3, hidden=8), (1, 6, 6), make_likelihood("mse"), seeded())
    x = grey(1, (1, 6, 6))
    mean, log_var = (t.detach() for t in model.encode(x))
    exact = 0.5 * float((mean.square() + log_var.exp() - 1 - log_var).sum())
    found = elbo(model, StandardGaussian(3), x.expand(40_000, 1, 6, 6), seeded())
    value, error = estimate(found.kl.detach())
    assert value == pytest.approx(exact, abs=error)
    assert error < 0.1


@pytest.mark.parametrize("name", ["vae", "hvae"])
def test_one_importance_sample_is_the_bound(name, grey):
    """Two layers enter the weight as they enter the bound; a given mixture stands for the prior's own."""
    model = build_model(ModelConfig(name=name, latent=3, hidden=8), (1, 6, 6), make_likelihood("bernoulli"), seeded())
    images = grey(9, (1, 6, 6))
    prior = BypePrior(images[:4], 9)
    x = images.round()
    bound = elbo(model, prior, x, seeded(3)).elbo.detach().double()
    torch.testing.assert_close(log_likelihood(model, prior, x, seeded(3), samples=1), bound)
    tight = log_likelihood(model, prior, x, seeded(3), samples=2000)
    assert float((tight - bound).mean()) > 0
    other = Components(torch.zeros(1, 3), torch.zeros(1, 1), torch.zeros(1))
    with_other = log_likelihood(model, prior, x, seeded(3), samples=1, mixture=other)
    gaussian = elbo(model, StandardGaussian(3), x, seeded(3)).elbo.detach().double()
    torch.testing.assert_close(with_other, gaussian)


def test_an_images_own_exemplar_is_left_out(grey):
    model = build_model(ModelConfig(latent=3, hidden=8), (1, 6, 6), make_likelihood("bernoulli"), seeded())
    images = grey(7, (1, 6, 6))
    prior, own = ExemplarPrior(images), torch.tensor([4, 1])
    found = elbo(model, prior, images[own], seeded(), own)
    terms = model.terms(images[own], seeded())
    torch.testing.assert_close(found.kl, terms.log_q - prior.log_prob(terms.z, model, own))
    assert (found.kl != elbo(model, prior, images[own], seeded()).kl).all()


def test_a_batch_is_its_images(pca):
    """Each image's estimate uses its own draws: the sum over samples does not mix images."""
    model, prior, x, truth = pca
    model.widen = 1.3
    found = log_likelihood(model, prior, torch.cat([x[:1], x[:1] + 5.0]), seeded(), samples=500)
    far = model.marginal().log_prob(x[0].flatten() + 5.0).detach()
    assert float(found[0]) == pytest.approx(float(truth[0]), abs=0.1)
    assert float(found[1]) == pytest.approx(float(far), abs=0.1)
    assert float(far) < float(truth[0]) - 100


def test_active_units(pca):
    model, _, x, _ = pca
    assert active_units(model, x).tolist() == [True, True]
    with torch.no_grad():
        model.weight[:, 0] *= 0.01
    assert active_units(model, x).tolist() == [False, True]
    spread = model.encode(x)[0].detach().var(0)
    assert active_units(model, x, threshold=float(spread[1]) + 0.01).tolist() == [False, False]
