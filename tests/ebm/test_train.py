"""Algorithm 1: a step against autograd by hand, two phases, checkpoints."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from latent import (
    CLASSES,
    CONFIG,
    assert_same,
    chosen,
    everything,
    few_labels,
    fresh,
    go,
    made_up_pool,
    parameters_of,
    seeded,
)
from torch.distributions import Normal, kl_divergence

from bpc.data import Split
from bpc.ebm.model import EBMConfig, LatentEBM
from bpc.ebm.train import State, augment, load_state, save_state, train_ebm
from bpc.errors import ConfigError, FileFormatError, NumericalError
from bpc.seeding import make_generator


def step_by_hand(model, data, augmented, weight, seed, t):
    """The three gradients of Algorithm 1 at iteration t, from its text, and the losses."""
    rng = make_generator("cpu", seed, "ebm", "iteration", t)
    alpha, phi, beta = (list(part.parameters()) for part in (model.energy, model.encoder, model.generator))

    def f(z):
        return model.energy(z).exp().sum(1).log()

    def batch(split):
        index = torch.randint(len(split), (5,), generator=rng)
        return split.images[index] / 255, split.labels[index], index

    def posterior(x):
        mean, log_var = model.encoder(x)
        return Normal(mean, log_var.exp().sqrt())

    def cross_entropy(x, y, weights):
        q = posterior(x)
        p = model.energy(q.mean + q.stddev * torch.randn(5, 2, generator=rng)).softmax(1)
        return -(weights * p[range(5), y].log()).sum() / 5

    x, _, _ = batch(data.unlabelled)
    q = posterior(x)
    plus = q.mean + q.stddev * torch.randn(5, 2, generator=rng)
    minus = plus.detach()
    for _ in range(3):  # T_LD
        leaf = minus.clone().requires_grad_(True)
        (drift,) = torch.autograd.grad((f(leaf) - (leaf**2).sum(1) / 2).sum(), leaf)
        minus = minus + 0.1 * drift + math.sqrt(0.2) * torch.randn(5, 2, generator=rng)
    step4 = (f(plus.detach()) - f(minus)).mean()
    reconstruction = Normal(model.generator(plus), model.config.sigma).log_prob(x).sum((1, 2, 3))
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    step5 = (reconstruction - kl + f(plus)).mean()
    labelled = cross_entropy(*batch(data.labelled)[:2], torch.ones(5))
    loss, extra = labelled, torch.zeros(())
    if augmented is not None:
        x, y, index = batch(augmented.split)
        extra = cross_entropy(x, y, augmented.weights[index])
        loss = labelled + weight * extra
    gradients = {
        "energy": torch.autograd.grad(-step4, alpha),
        "elbo": torch.autograd.grad(-step5, [*phi, *beta], retain_graph=True),
        "supervised": torch.autograd.grad(loss, [*alpha, *phi]),
    }
    constant = 16 * math.log(model.config.sigma * math.sqrt(2 * math.pi))
    return gradients, (reconstruction.mean() + constant, kl.mean(), step4, labelled, extra)


@pytest.mark.parametrize("setting", [None, "unfiltered", "entropy-craig"])
def test_one_step_by_hand(setting):
    """What each optimiser is given, where its step goes, and the record."""
    data, pool = few_labels(), made_up_pool()
    state, twin = fresh(scale=2.0), fresh(scale=2.0)
    t, weight = (6, 0.7) if setting else (3, 0.0)
    state.iteration = twin.iteration = t
    augmented = None
    if setting:
        augmented = augment(twin, pool, data, chosen(setting, weight=weight, fraction=0.3), 9)
        assert (setting == "unfiltered") == bool((augmented.weights == 1).all())
    given = {}
    for name, adam in state.optimisers.items():
        adam.register_step_pre_hook(
            lambda adam, *_, name=name: given.update({name: [p.grad.clone() for p in parameters_of(adam)]})
        )
    (record,) = go(state, data, t + 1, setting, seed=9, weight=weight, fraction=0.3)
    gradients, numbers = step_by_hand(twin.model, data, augmented, weight, 9, t)
    for name, expected in gradients.items():
        assert any(float(g.abs().max()) > 1e-3 for g in expected)
        for a, b in zip(given[name], expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * (100 if name == "elbo" else 1))
    torch.testing.assert_close(torch.tensor(record[1:6]), torch.stack(numbers).detach(), rtol=1e-4, atol=1e-5)

    # Adam's first step is lr g / (|g| + eps), one group after the other
    energy, encoder, generator = (
        list(m.parameters()) for m in (twin.model.energy, twin.model.encoder, twin.model.generator)
    )
    groups = {"energy": energy, "elbo": [*encoder, *generator], "supervised": [*energy, *encoder]}
    for (name, parameters), lr in zip(groups.items(), (1e-3, 2e-3, 3e-3), strict=True):
        eps = state.optimisers[name].param_groups[0]["eps"]
        for p, g in zip(parameters, given[name], strict=True):
            with torch.no_grad():
                p.sub_(lr * g / (g.abs() + eps))
    for a, b in zip(state.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_unlabelled_labels_are_never_looked_at():
    data = few_labels()
    part = data.unlabelled
    other = data._replace(unlabelled=Split(images=part.images, labels=(part.labels + 1) % CLASSES))
    pseudo = 0
    for setting in (None, "entropy-craig-pl"):
        first, second = fresh(scale=4.0), fresh(scale=4.0)
        for state, own in ((first, data), (second, other)):
            go(state, own, 6)
            go(state, own, 12, setting, threshold=0.6)
        assert_same(first, second)
        pseudo += 0 if first.augmented is None else first.augmented.candidates - 40
    assert pseudo > 0


def test_labelled_labels_are():
    data = few_labels()
    other = data._replace(labelled=Split(images=data.labelled.images, labels=(data.labelled.labels + 1) % CLASSES))
    first, second = fresh(), fresh()
    go(first, data, 3)
    go(second, other, 3)
    assert not torch.equal(everything(first)["energy.layers.0.weight"], everything(second)["energy.layers.0.weight"])


def test_two_phases_without_augmentation_are_one():
    data = few_labels()
    whole, parts = fresh(), fresh()
    records = go(whole, data, 12)
    assert [r.iteration for r in records] == [3, 6, 9, 12]
    assert go(parts, data, 6) + go(parts, data, 12) == records
    assert_same(whole, parts)
    assert go(parts, data, 12) == []
    other = fresh()
    go(other, data, 12, seed=1)
    assert not torch.equal(everything(other)["energy.layers.0.weight"], everything(whole)["energy.layers.0.weight"])


def test_torchs_own_generator_is_left_alone():
    data, state = few_labels(), fresh()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    go(state, data, 6)
    go(state, data, 12, "entropy-craig")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("setting", "stop"),
    # before T_a, at T_a, between two selections, when the next one is due, at the end
    [(None, 3), (None, 6), *[(s, t) for s in ("entropy-craig", "entropy-random", "entropy-craig-pl") for t in (6, 9, 10)]],
)  # fmt: skip
def test_going_on_gives_the_same_bits(tmp_path, setting, stop):
    data = few_labels()
    whole = fresh()
    go(whole, data, 6)
    go(whole, data, 12, setting)

    first = fresh()
    go(first, data, min(stop, 6))
    go(first, data, stop, setting if stop > 6 else None)
    save_state(first, tmp_path / "c.safetensors", "abc")
    second = fresh(seed=5)  # nothing of its own may survive
    load_state(second, tmp_path / "c.safetensors", "abc")
    assert second.iteration == stop
    assert_same(first, second)
    go(second, data, max(6, stop))
    go(second, data, 12, setting)
    assert_same(whole, second)


def test_a_checkpoint_of_an_untrained_state(tmp_path):
    state, other = fresh(), fresh(seed=1)
    save_state(state, tmp_path / "c.safetensors", "abc")
    load_state(other, tmp_path / "c.safetensors", "abc")
    assert other.iteration == 0 and other.augmented is None
    assert_same(state, other)


def test_anothers_checkpoint_is_refused(tmp_path):
    state, other = fresh(), fresh(seed=1)
    save_state(state, tmp_path / "c.safetensors", "abc")
    before = everything(other)
    with pytest.raises(FileFormatError, match="another configuration"):
        load_state(other, tmp_path / "c.safetensors", "abd")
    assert all(torch.equal(before[k], v) for k, v in everything(other).items())


def test_learning_learns():
    """From six labels: nearly all test images, a better reconstruction."""
    data = few_labels(unlabelled=200)
    config = dataclasses.replace(
        CONFIG, iterations=250, augment_at=250, batch_size=30, lr_elbo=5e-3, lr_supervised=5e-3
    )
    state = State(LatentEBM(EBMConfig(latent=2, hidden=8, width=1), (1, 4, 4), CLASSES, 0), config)
    records = list(train_ebm(state, data, config, until=250, seed=0, record_every=50))
    assert records[-1].reconstruction > 0.5 * records[0].reconstruction
    assert records[-1].labelled_loss < 0.2
    assert all(r.seconds > 0 and (r.candidates, r.augmented, r.augmented_loss) == (0, 0, 0.0) for r in records)
    found = state.model.log_probs(data.test.images / 255, seeded(), 8).argmax(1)
    assert float((found == data.test.labels).float().mean()) > 0.9


@pytest.mark.parametrize("part", ["energy", "encoder", "generator"])
def test_divergence_is_an_error(part):
    state = fresh()
    with torch.no_grad():
        next(getattr(state.model, part).parameters()).fill_(float("nan"))
    with pytest.raises(NumericalError, match=r"before iteration 3: reconstruction .*lower --lr-energy \(0.001\)"):
        go(state, few_labels(), 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr_energy": 0.0}, {"lr_elbo": -1.0}, {"lr_supervised": 0.0}, {"langevin_step": 0.0}, {"langevin_steps": 0},
        {"batch_size": 0}, {"augment_at": 0}, {"augment_at": 13}, {"iterations": 5},
    ],
)  # fmt: skip
def test_refused_settings_of_learning(wrong):
    with pytest.raises(ConfigError, match="Learning needs"):
        dataclasses.replace(CONFIG, **wrong)
