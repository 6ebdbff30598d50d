"""Mixtures against torch.distributions and brute force; what each prior's components stand on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions

from bpc.errors import ConfigError
from bpc.vae.likelihoods import make_likelihood
from bpc.vae.models import ModelConfig, build_model
from bpc.vae.neighbours import Search
from bpc.vae.priors import PRIORS, Components, ExemplarPrior, PriorConfig, TrainingData, VampPrior, build_prior
from bpc.vae.priors.base import log_mixture

SHAPE = (1, 6, 6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    return build_model(ModelConfig(latent=2, hidden=8), SHAPE, make_likelihood("bernoulli"), seeded(5))


def mixture_of(*, isotropic, k=5, d=3, seed=0):
    numbers = torch.randn(k, 2 * d + 1, generator=seeded(seed), dtype=torch.float64)
    log_vars = numbers[:1, d : d + 1] if isotropic else numbers[:, d : 2 * d]
    return Components(3.0 + numbers[:, :d], log_vars, numbers[:, -1])


def same_by_torch(mixture):
    means, log_vars, log_weights, _ = mixture
    parts = distributions.Independent(distributions.Normal(means, (0.5 * log_vars).exp().expand_as(means)), 1)
    return distributions.MixtureSameFamily(distributions.Categorical(logits=log_weights), parts)


@pytest.mark.parametrize("isotropic", [True, False])
def test_log_mixture_is_torchs(isotropic):
    mixture = mixture_of(isotropic=isotropic)
    z = 3.0 + 2.0 * torch.randn(7, 3, generator=seeded(1), dtype=torch.float64)
    torch.testing.assert_close(log_mixture(z, mixture), same_by_torch(mixture).log_prob(z))


@pytest.mark.parametrize("isotropic", [True, False])
def test_log_mixture_far_from_the_origin_in_float32(isotropic):
    mixture = mixture_of(isotropic=isotropic)
    z = 3.0 + torch.randn(7, 3, generator=seeded(1), dtype=torch.float64)
    far = Components((mixture.means + 1000.0).float(), mixture.log_vars.float(), mixture.log_weights.float())
    found = log_mixture((z + 1000.0).float(), far).double()
    torch.testing.assert_close(found, log_mixture(z, mixture), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("isotropic", [True, False])
def test_leaving_out_is_the_mixture_of_the_others(isotropic):
    origin = torch.tensor([4, 0, 7, 2, 0])  # two components come from image 0
    mixture = mixture_of(isotropic=isotropic)._replace(origin=origin)
    z = 3.0 + torch.randn(4, 3, generator=seeded(1), dtype=torch.float64)
    own = torch.tensor([0, 7, 9, 4])  # nothing comes from image 9
    found = log_mixture(z, mixture, own)
    for i, image in enumerate(own.tolist()):
        keep = origin != image
        log_vars = mixture.log_vars if isotropic else mixture.log_vars[keep]
        rest = Components(mixture.means[keep], log_vars, mixture.log_weights[keep])
        torch.testing.assert_close(found[i : i + 1], same_by_torch(rest).log_prob(z[i : i + 1]))
    torch.testing.assert_close(log_mixture(z, mixture), log_mixture(z, mixture._replace(origin=None), own))


@pytest.mark.parametrize("name", PRIORS.names())
def test_every_prior_is_normalised(name, model, grey):
    prior = build_prior(PriorConfig(name=name, components=5), 2, grey(9, SHAPE), seeded())
    side = torch.linspace(-8, 8, 161)
    z = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = prior.log_prob(z, model).exp().sum() * 0.1**2
    assert float(mass) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", PRIORS.names())
def test_draws_have_the_mixtures_moments(name, model, grey):
    prior = build_prior(PriorConfig(name=name, components=4), 2, grey(9, SHAPE), seeded())
    with torch.no_grad():
        if name == "mog":
            prior.means.mul_(3.0)
            prior.log_vars.copy_(torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.5, -2.0], [0.0, 0.0]]))
        if name in ("mog", "vampprior-weighted"):
            prior.log_weights.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
        if name == "bype":
            prior.weights.copy_(torch.tensor([1.0, 4.0, 3.0, 1.0]))
        z, chosen = prior.sample(40_000, model, seeded(2))
        means, log_vars, log_weights, _ = prior.components(model)
    p = log_weights.softmax(0)
    frequency = torch.bincount(chosen, minlength=len(p)) / len(z)
    torch.testing.assert_close(frequency, p, atol=0.015, rtol=0)
    centre = p @ means
    second = p @ (log_vars.exp().expand_as(means) + means.square()) - centre.square()
    torch.testing.assert_close(z.mean(0), centre, atol=0.05, rtol=0)
    torch.testing.assert_close(z.var(0), second, atol=0.02, rtol=0.05)
    k = int(p.argmax())
    torch.testing.assert_close(z[chosen == k].mean(0), means[k], atol=0.06, rtol=0)


def test_vampprior_is_the_mixture_of_posteriors(model, grey):
    images = grey(5, SHAPE)
    prior = VampPrior(images, learn_weights=True)
    with torch.no_grad():
        prior.log_weights.copy_(torch.linspace(-1, 1, 5))
        prior.inputs[0].sub_(0.5)  # pixels that learning left outside [0, 1]
        prior.inputs[1].add_(0.5)
    z = torch.randn(6, 2, generator=seeded())
    mean, log_var = model.encode(prior.inputs.clamp(0, 1))
    weights = torch.linspace(-1, 1, 5).softmax(0)
    each = distributions.Normal(mean, (0.5 * log_var).exp()).log_prob(z.unsqueeze(1)).sum(-1)
    torch.testing.assert_close(prior.log_prob(z, model), (each.exp() @ weights).log())
    shown, share = prior.pseudo_inputs()
    assert float(shown.min()) >= 0 and float(shown.max()) <= 1
    torch.testing.assert_close(share, weights)


def test_vampprior_starts(model, grey):
    images = grey(9, SHAPE)
    data = build_prior(PriorConfig(name="vampprior-data", components=4), 2, images, seeded())
    rows = {tuple(row.tolist()) for row in images.flatten(1)}
    assert {tuple(row.tolist()) for row in data.inputs.flatten(1)} <= rows
    assert len(data.inputs.flatten(1).unique(dim=0)) == 4
    noise = build_prior(PriorConfig(name="vampprior", components=4, real_start=False), 2, images, seeded())
    assert float((noise.inputs.detach() - 0.5).abs().max()) < 0.05
    assert noise.inputs.detach().std() > 0.005
    learned = build_prior(PriorConfig(name="vampprior", components=4), 2, images, seeded())
    learned.log_prob(torch.zeros(3, 2), model).sum().backward()
    assert learned.inputs.grad.any()
    assert not any(p.requires_grad for p in data.parameters())


def brute_force(prior, model, z, own=None):
    """One exemplar after the other."""
    found = []
    for i, row in enumerate(z):
        densities = []
        for j in prior.index.tolist():
            if own is not None and j == int(own[i]):
                continue
            mean = model.encode(prior._images[j : j + 1])[0]
            sd = (0.5 * prior.log_var).exp().expand_as(mean)
            densities.append(distributions.Normal(mean, sd).log_prob(row).sum().exp())
        found.append(torch.stack(densities).mean().log())
    return torch.stack(found)


@pytest.mark.parametrize("exemplars", [0, 7])
@pytest.mark.parametrize("neighbours", [0, 100])
def test_exemplar_is_the_sum_over_all_others(exemplars, neighbours, model, grey):
    """Exactly, whether all are looked at or all are looked up; of images that are exemplars and of images that are not."""
    images = grey(12, SHAPE)
    prior = ExemplarPrior(images, exemplars, neighbours)
    prior.begin_epoch(1, model, TrainingData(images), seeded(4))
    with torch.no_grad():
        prior.log_var.fill_(-1.0)
        z, own = model.encode(images)[0] + 0.1, torch.arange(12)
        torch.testing.assert_close(prior.log_prob(z, model, own), brute_force(prior, model, z, own))
        torch.testing.assert_close(prior.log_prob(z, model), brute_force(prior, model, z))


@pytest.mark.parametrize("exemplars", [0, 20])
def test_few_neighbours_are_a_lower_bound(exemplars, model, grey):
    images = grey(30, SHAPE)
    prior = ExemplarPrior(images, exemplars, 2)
    prior.begin_epoch(1, model, TrainingData(images), seeded(4))
    with torch.no_grad():
        prior.log_var.fill_(-3.0)
        for row in range(0, 30, 3):
            own = torch.tensor([row])
            z = model.encode(images[own])[0]
            exact = brute_force(prior, model, z, own)
            found = prior.train().log_prob(z, model, own)
            assert float(found) < float(exact)
            all_but_own = [j for j in prior.index.tolist() if j != row]
            means = model.encode(images[all_but_own])[0]
            nearest = distributions.Normal(means, math.exp(-1.5)).log_prob(z).sum(1).topk(2).values
            assert float(found) >= float(nearest.logsumexp(0)) - math.log(len(all_but_own)) - 1e-4
            torch.testing.assert_close(prior.eval().log_prob(z, model, own), exact)


def test_one_neighbour_that_is_the_image_itself(model, grey):
    images = grey(9, SHAPE)
    prior = ExemplarPrior(images, 0, 1)
    prior.begin_epoch(1, model, TrainingData(images), seeded())
    own = torch.tensor([3])
    assert torch.isfinite(prior.log_prob(model.encode(images[own])[0], model, own)).all()


def test_a_new_random_part_every_epoch(model, grey):
    images = grey(12, SHAPE)
    prior = ExemplarPrior(images, 5)
    parts = []
    for epoch in (1, 2):
        prior.begin_epoch(epoch, model, TrainingData(images), seeded(epoch))
        assert len(prior.index.unique()) == 5
        parts.append(set(prior.index.tolist()))
        shown, share = prior.pseudo_inputs()
        assert torch.equal(shown, images[prior.index]) and float(share.sum()) == pytest.approx(1.0)
    assert parts[0] != parts[1]
    whole = ExemplarPrior(images)
    whole.begin_epoch(1, model, TrainingData(images), seeded())
    assert whole.index.tolist() == list(range(12))


@pytest.mark.parametrize("graph_index", [False, True])
def test_search_finds_the_nearest(graph_index, monkeypatch):
    if graph_index:
        pytest.importorskip("faiss")
        monkeypatch.setattr("bpc.vae.neighbours.EXACT_UP_TO", 10)
    points, queries = torch.randn(60, 3, generator=seeded()), torch.randn(8, 3, generator=seeded(1))
    found = Search(points).nearest(queries, 4)
    exact = torch.cdist(queries, points).topk(4, largest=False).indices
    assert found.dtype == torch.int64
    assert torch.equal(found.sort(1).values, exact.sort(1).values)


def test_refused_settings(grey):
    images = grey(5, SHAPE)
    with pytest.raises(ConfigError, match="prior"):
        build_prior(PriorConfig(name="flow"), 2, images, seeded())
    with pytest.raises(ConfigError, match="6 components from 5 training images"):
        build_prior(PriorConfig(name="vampprior", components=6), 2, images, seeded())
    for exemplars in (1, 6, -1):
        with pytest.raises(ConfigError, match="0 \\(all\\) or 2 to 5"):
            ExemplarPrior(images, exemplars)
    with pytest.raises(ConfigError, match="nearest exemplars"):
        ExemplarPrior(images, 0, -1)
