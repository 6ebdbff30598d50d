"""The pipeline that makes the tables, from coreset and settings to traces and predictives, where its answer is known.

Simulation-based calibration (Talts et al. 2018): over data drawn from prior and model, the truth's rank among posterior draws is
uniform. And a network whose last layer alone is random, with a Gaussian likelihood: its predictive in closed form.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bpc.coreset import Pseudocoreset
from bpc.data import Dataset, Split
from bpc.likelihood import LinearRegression
from bpc.posterior import Posterior
from bpc.samplers import ExactSettings
from bpc.weight_prior import isotropic
from evaluation.exact_chains import ExactConfig, sample_exact, sample_posterior
from evaluation.inputs import Inputs

CLASSES, SHAPE = 3, (1, 1, 2)


class LastLayer:
    """Logits theta . phi(x), phi(x) being the pixels and 1, or tanh of fixed random projections."""

    def __init__(self, classes, shape, hidden=0):
        self.image_shape, self.pixels = shape, math.prod(shape)
        g = torch.Generator().manual_seed(7)
        self.projection = torch.randn(self.pixels, hidden, generator=g) if hidden else None
        self.inputs = (hidden or self.pixels) + 1
        self.num_classes, self.num_params, self.name = classes, self.inputs * classes, f"last-{self.inputs}"

    def init(self, k, generator):
        return torch.randn(k, self.num_params, generator=generator)

    def features(self, params, images):
        x = images.flatten(-3)
        x = torch.tanh(x @ self.projection) if self.projection is not None else x
        return torch.cat([x, torch.ones_like(x[..., :1])], -1)

    def __call__(self, params, images):
        weight = params.view(len(params), self.num_classes, self.inputs)
        return torch.einsum(
            "...nd,kyd->kny" if images.ndim == 4 else "knd,kyd->kny", self.features(params, images), weight
        )


class Regression(LastLayer):
    """The scalar theta . phi(x), shown as the logits (f, 0): what is predicted is E sigmoid(f)."""

    def __init__(self, shape, hidden):
        super().__init__(1, shape, hidden)
        self.num_classes = 2

    def __call__(self, params, images):
        f = torch.einsum("nd,kd->kn", self.features(params, images), params)
        return torch.stack([f, torch.zeros_like(f)], -1)


def dataset(classes, shape, n, seed=5):
    """Random images; those of the test split are asked about."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *shape), generator=g, dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(n) % classes)
    return Dataset(
        name="random", train=split, test=split, mean=(0.5,), std=(0.25,), class_names=tuple(map(str, range(classes)))
    )


SIMULATIONS, PER_CLASS, PRIOR_STD = 480, 2, 1.5
RANKS, BINS = 32, 8


def simulated(network):
    """Truths (k, p) from the prior, and coresets of points whose labels were drawn from the model.

    The pipeline takes coresets with the same labels in the same order. So simulations with other numbers of each class are thrown
    away, which a choice by the data may do without changing any posterior; and the order of points means nothing.
    """
    g = torch.Generator().manual_seed(3)
    m = PER_CLASS * CLASSES
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    tries = 32 * SIMULATIONS
    theta = PRIOR_STD * torch.randn(tries, network.num_params, generator=g)
    points = torch.randn(tries, m, *SHAPE, generator=g)
    drawn = torch.multinomial(network(theta, points).softmax(-1).flatten(0, 1), 1, generator=g).view(tries, m)
    drawn, order = drawn.sort(1)
    keep = (drawn == labels).all(1).nonzero().squeeze(1)[:SIMULATIONS]
    assert len(keep) == SIMULATIONS
    coresets = [
        Pseudocoreset(
            points=points[i][order[i]],
            labels=labels,
            weights=torch.ones(m),
            mean=(0.5,),
            std=(0.25,),
            dataset="random",
            method="simulated",
            num_classes=CLASSES,
        )
        for i in keep
    ]
    return theta[keep], coresets


def rank_p_values(*, prior_std=PRIOR_STD, protocol="exact", temperature=1.0, thin=4):
    """Of chi-squared tests that ranks are uniform: of each parameter and of a predicted probability."""
    network, data = LastLayer(CLASSES, SHAPE), dataset(CLASSES, SHAPE, n=36)
    theta, coresets = simulated(network)
    settings = ExactSettings(
        sampler="hmc", chains=1, warmup=60, samples=thin * (RANKS - 1), leapfrog_steps=8, step_size=0.1, prior="isotropic",
        prior_std=prior_std, temperature=temperature, mass="prior", pool_step=False, predictive_draws=1,
    )  # fmt: skip
    config = ExactConfig(protocol=protocol, settings=settings)
    inputs = [Inputs("test", data.test)]
    results = list(sample_exact(network, data, coresets, config, seeds=list(range(SIMULATIONS)), inputs=inputs))
    parameters = torch.stack([r.traces.weight[0] for r in results])  # (k, s, p)
    predicted = torch.stack([r.traces.prediction[0, :, :1] for r in results])
    draws = torch.cat([parameters, predicted], 2)[:, thin - 1 :: thin]
    of_truth = network(theta, data.normalise(data.test.images)).softmax(-1)[:, 0, int(data.test.labels[0])]
    truth = torch.cat([theta, of_truth.unsqueeze(1)], 1)
    assert draws.shape == (SIMULATIONS, RANKS - 1, truth.shape[1])
    rank = (draws < truth.unsqueeze(1)).sum(1)
    counts = torch.stack([(rank // (RANKS // BINS) == b).sum(0) for b in range(BINS)])
    return stats.chisquare(counts.numpy(), axis=0).pvalue


def test_the_truths_ranks_are_uniform():
    assert rank_p_values().min() > 1e-3  # of ten


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"prior_std": 0.7 * PRIOR_STD}, id="prior"),
        pytest.param({"protocol": "exact-scaled"}, id="weights", marks=pytest.mark.slow),
        pytest.param({"temperature": 0.4}, id="temperature", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_prior_weight_or_temperature_is_seen(wrong):
    """The same test fails when the prior is too narrow, when 6 points count as 36, and when the posterior is cold."""
    assert rank_p_values(**wrong).min() < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "hmc", "mass": "prior", "pool_step": True},
        {"sampler": "hmc", "mass": "diagonal", "pool_step": False},
        {"sampler": "pt", "levels": 4, "leapfrog_steps": 8},
    ],
    ids=["hmc", "diagonal", "pt"],
)
def test_a_conjugate_last_layer_is_predicted_as_in_closed_form(changes):
    """theta | y is N(S Phi' y / s^2, S), S = (Phi' Phi / s^2 + I / t^2)^-1 (Bishop 2006, Eq. 3.53-3.54), with weights w in both
    sums; f(x) is then Gaussian, and E sigmoid(f) a Gauss-Hermite sum."""
    shape, noise, prior_std = (1, 2, 2), 0.4, 1.2
    network, data = Regression(shape, hidden=5), dataset(2, shape, n=16)
    g = torch.Generator().manual_seed(9)
    phi = network.features(None, torch.randn(8, *shape, generator=g))
    y = phi @ (prior_std * torch.randn(6, generator=g)) + noise * torch.randn(8, generator=g)
    weights = torch.rand(8, generator=g) + 0.5
    points = torch.cat([phi, y.unsqueeze(1)], 1)
    posterior = Posterior(
        LinearRegression(noise), points, torch.zeros(8, dtype=torch.long), weights, prior=isotropic(prior_std)
    )
    settings = ExactSettings(**{
        "chains": 24, "warmup": 80, "samples": 200, "target": 0.8, "leapfrog_steps": 12, "step_size": 0.1, "prior": "isotropic",
        "prior_std": prior_std, "temperature": 1.0, "predictive_draws": 200, **changes,
    })  # fmt: skip
    (result,) = sample_posterior(
        network, data, posterior, settings, seeds=[0], inputs=[Inputs("test", data.test)], tracked=data.test
    )

    wide, w = phi.double(), weights.double()
    covariance = torch.linalg.inv(
        wide.T @ (w[:, None] * wide) / noise**2 + torch.eye(6, dtype=torch.float64) / prior_std**2
    )
    mean = covariance @ wide.T @ (w * y.double()) / noise**2
    x = network.features(None, data.normalise(data.test.images)).double()
    center, spread = x @ mean, torch.einsum("nd,de,ne->n", x, covariance, x).sqrt()
    nodes, masses = np.polynomial.hermite_e.hermegauss(60)
    f = center[:, None] + spread[:, None] * torch.from_numpy(nodes)
    exact = torch.sigmoid(f) @ torch.from_numpy(masses / masses.sum())

    found = result.probs["test"][..., 0].double()  # (c, n), P(first class)
    error = found.std(0) / len(found) ** 0.5
    assert error.max() < 0.01
    assert ((found.mean(0) - exact).abs() < 4.5 * error + 1e-4).all()
    plug_in = torch.sigmoid(center)  # without the posterior's width
    assert ((plug_in - exact).abs() > 10 * error).any(), "a point estimate would pass"
