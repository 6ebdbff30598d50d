"""Every model with every prior, and what is particular to some of them."""

from __future__ import annotations

import pytest
import torch

from bpc.errors import ConfigError
from bpc.vae.bound import elbo
from bpc.vae.likelihoods import make_likelihood
from bpc.vae.models import MODELS, ModelConfig, build_model, draw_normal, log_normal
from bpc.vae.priors import PRIORS, PriorConfig, TrainingData, build_prior

SHAPE = (1, 8, 8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(name, likelihood="bernoulli", shape=SHAPE):
    return build_model(
        ModelConfig(name=name, latent=3, hidden=8, width=4), shape, make_likelihood(likelihood), seeded(5)
    )


def test_log_normal_and_draws():
    mean, log_var, z = torch.randn(3, 4, 2, generator=seeded()).double()
    expected = torch.distributions.Normal(mean, (0.5 * log_var).exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(log_normal(z, mean, log_var), expected)
    draws = draw_normal(torch.tensor([2.0]).expand(50_000, 1), torch.tensor([-1.0]), seeded())
    assert float(draws.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(draws.var()) == pytest.approx(0.3679, rel=0.03)


@pytest.mark.parametrize("prior_name", PRIORS.names())
@pytest.mark.parametrize("name", MODELS)
def test_the_bound_teaches_every_parameter(name, prior_name, grey):
    images = grey(12, SHAPE)
    model = tiny(name)
    prior = build_prior(PriorConfig(name=prior_name, components=5, neighbours=2), 3, images, seeded(1))
    prior.begin_epoch(1, model, TrainingData(images), seeded(2))
    with torch.no_grad():
        for (
            parameter
        ) in prior.parameters():  # away from the start, where equal weights and a symmetric mixture could hide a term
            parameter.add_(0.1 * torch.rand(parameter.shape, generator=seeded(3)))
    x = images[:6].round()
    found = elbo(model, prior, x, seeded(4), own=torch.arange(6))
    assert found.elbo.shape == (6,) and torch.isfinite(found.elbo).all()
    torch.testing.assert_close(found.elbo, found.reconstruction - found.kl)
    named = {
        **{f"model.{k}": v for k, v in model.named_parameters()},
        **{f"prior.{k}": v for k, v in prior.named_parameters()},
    }
    gradients = torch.autograd.grad(found.elbo.sum(), list(named.values()), allow_unused=True)
    idle = [k for k, g in zip(named, gradients, strict=True) if g is None or not g.any()]
    assert idle == []
    assert all(torch.isfinite(g).all() for g in gradients)
    again = elbo(model, prior, x, seeded(4), own=torch.arange(6))
    assert torch.equal(found.elbo, again.elbo)


def test_what_each_prior_learns(grey):
    images = grey(8, SHAPE)
    learned = {
        name: {k for k, _ in build_prior(PriorConfig(name=name, components=4), 3, images, seeded()).named_parameters()}
        for name in PRIORS.names()
    }
    assert learned == {
        "gaussian": set(),
        "mog": {"means", "log_vars", "log_weights"},
        "vampprior": {"inputs"},
        "vampprior-data": set(),
        "vampprior-weighted": {"inputs", "log_weights"},
        "exemplar": {"log_var"},
        "bype": {"log_var"},
    }


@pytest.mark.parametrize("name", MODELS)
def test_repeats_keep_an_images_rows_together(name, grey):
    model, x = tiny(name), grey(4, SHAPE).round()
    together = model.terms(x, seeded(), repeats=3)
    by_hand = model.terms(x.repeat_interleave(3, dim=0), seeded())
    for a, b in zip(together, by_hand, strict=True):
        torch.testing.assert_close(a, b)
    mean, log_var = model.encode(x)
    log_q = log_normal(together.z.view(4, 3, 3), mean.unsqueeze(1), log_var.unsqueeze(1))
    torch.testing.assert_close(together.log_q.view(4, 3), log_q)
    assert together.z.view(4, 3, 3).std(1).min() > 0


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
@pytest.mark.parametrize("name", MODELS)
def test_images_that_come_out(name, likelihood, grey):
    shape = SHAPE if name == "pixelhvae" else (3, 8, 8)
    model, x = tiny(name, likelihood, shape), grey(4, shape)
    z = torch.randn(5, 3, generator=seeded())
    with torch.no_grad():
        images = model.generate(z, seeded(1))
        assert images.shape == (5, *shape)
        assert float(images.min()) >= 0 and float(images.max()) <= 1
        assert torch.equal(images, model.generate(z, seeded(1)))
        assert model.reconstruct(x).shape == x.shape
        assert model.decode(z).shape == (5, model.likelihood.outputs, *shape)


@pytest.mark.parametrize("name", ["vae", "fullconv"])
def test_one_layer(name, grey):
    model, x = tiny(name, "mse"), grey(4, SHAPE)
    terms = model.terms(x, seeded())
    assert not terms.inner.any()
    torch.testing.assert_close(terms.log_lik, model.likelihood.log_prob(x, model.decode(terms.z)))
    torch.testing.assert_close(model.reconstruct(x), model.generate(model.encode(x)[0], seeded()))


@pytest.mark.parametrize("name", ["hvae", "convhvae", "pixelhvae"])
def test_two_layers(name, grey):
    """log p(x | z1, z) and log p(z1 | z) - log q(z1 | x, z) at the draws that the generator gives."""
    model, x = tiny(name, "mse"), grey(4, SHAPE)
    terms = model.terms(x, seeded())
    generator = seeded()
    z = draw_normal(*model.encode(x), generator)
    features = model.joint(torch.cat([model.from_x(x), model.from_z(z)], dim=1))
    mean, log_var = model.mean1(features), model.log_var1(features)
    z1 = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=generator)
    below = model.prior1(z)
    inner = log_normal(z1, model.prior_mean1(below), model.prior_log_var1(below)) - log_normal(z1, mean, log_var)
    torch.testing.assert_close(terms.z, z)
    torch.testing.assert_close(terms.inner, inner)
    torch.testing.assert_close(terms.log_lik, model.likelihood.log_prob(x, model.outputs(z1, z, x)))
    assert not torch.equal(model.generate(z, seeded(1)), model.generate(z, seeded(2)))  # z1 is drawn


def test_sides_that_four_does_not_divide(grey):
    x = grey(3, (1, 7, 5))
    model = tiny("convhvae", "mse", (1, 7, 5))
    assert model.reconstruct(x).shape == x.shape
    with pytest.raises(ConfigError, match="divisible by 4; got 7x5"):
        tiny("fullconv", "mse", (1, 7, 5))


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
def test_pixelhvae_is_causal(likelihood, grey):
    shape = (1, 5, 6)
    model = tiny("pixelhvae", likelihood, shape)
    z, z1 = torch.randn(2, 1, 3, generator=seeded())
    x = grey(1, shape)

    def raw(flat):
        return model.outputs(z1, z, flat.view(1, *shape)).view(model.likelihood.outputs, 30)

    jacobian = torch.autograd.functional.jacobian(raw, x.flatten()).abs().sum(0)  # (output pixel, input pixel)
    assert not torch.triu(jacobian).any()
    row, column = torch.arange(30) // 6, torch.arange(30) % 6
    neighbour = (column.unsqueeze(1) == column + 1) & (row.unsqueeze(1) == row)  # the pixel to the left
    above = (column.unsqueeze(1) == column) & (row.unsqueeze(1) == row + 1)
    assert (jacobian[neighbour] > 0).all()
    assert (jacobian[above] > 0).all()


def test_pixelhvae_draws_in_raster_order():
    """The image that the decoder saw is the one it predicts, pixel by pixel: the fixed point of a causal map."""
    model = tiny("pixelhvae", "mse", (1, 5, 6))
    z, z1 = torch.randn(2, 4, 3, generator=seeded())
    with torch.no_grad():
        images = model.likelihood.mean(model.outputs(z1, z, None))
        torch.testing.assert_close(model.likelihood.mean(model.outputs(z1, z, images)), images)


def test_refused_settings():
    with pytest.raises(ConfigError, match="model"):
        ModelConfig(name="gan")
    with pytest.raises(ConfigError, match="at least 1"):
        ModelConfig(latent=0)
    with pytest.raises(ConfigError, match="one channel"):
        tiny("pixelhvae", "mse", (3, 8, 8))


def test_the_seed_decides_the_weights():
    def states(seed):
        model = build_model(ModelConfig(latent=2, hidden=4), SHAPE, make_likelihood("mse"), seeded(seed))
        return model.state_dict()

    first, again, other = states(0), states(0), states(1)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["mean.weight"], other["mean.weight"])
