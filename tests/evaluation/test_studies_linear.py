"""The linear study: closed forms, gradients, floors, its data, and what learning reaches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from gaussian import finite_differences
from matplotlib.image import imread
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from sklearn.linear_model import BayesianRidge

from bpc.errors import ConfigError
from evaluation.studies import LinearStudy, run_linear_study
from evaluation.studies.learning import unlabelled
from evaluation.studies.linear import LinearModel
from evaluation.studies.normal import draw, kl
from evaluation.studies.regression import cancer_data, diabetes_data, random_subset

DTYPE = torch.float64


def ones(n):
    return torch.ones(n, dtype=DTYPE)


@pytest.fixture(scope="module")
def linear():
    data, noise_std = diabetes_data()
    model = LinearModel(noise_std, 1.0)
    return model, data, model.posterior(data, ones(len(data)))


def test_linear_posterior_against_scikit_learn(linear):
    """BayesianRidge with its precisions held fixed is the same model without an intercept; here the data are centred."""
    model, data, truth = linear
    # both Gamma hyperpriors so sharp that the precisions do not move
    alpha, lambda_ = 1 / model.noise_std**2, 1.0
    ridge = BayesianRidge(
        fit_intercept=False, alpha_init=alpha, lambda_init=lambda_, max_iter=1,
        alpha_1=1e12 * alpha, alpha_2=1e12, lambda_1=1e12, lambda_2=1e12,
    )  # fmt: skip
    ridge.fit(data[:, :-1].numpy(), data[:, -1].numpy())
    np.testing.assert_allclose(truth.mean[1:], ridge.coef_, atol=1e-6)
    np.testing.assert_allclose(truth.covariance[1:, 1:], ridge.sigma_, atol=1e-6)
    assert float(truth.mean[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(truth.covariance[0, 0]) == pytest.approx(1 / (442 * alpha + 1), rel=1e-9)


def test_weight_two_is_a_point_twice(linear):
    model, data, _ = linear
    doubled = model.posterior(torch.cat([data[:8], data[:8]]), ones(16))
    torch.testing.assert_close(model.posterior(data[:8], 2 * ones(8)), doubled)


def test_linear_gradients(linear):
    model, data, truth = linear
    small = data[:, [2, 8, 10]]  # two features and the response
    model = LinearModel(model.noise_std, 1.0)
    truth = model.posterior(small, ones(442))
    coreset = unlabelled(small[:6].clone(), torch.linspace(3, 40, 6, dtype=DTYPE))

    def value(points, weights):
        return float(kl(model.posterior(points, weights), truth))

    by_points, by_weights = model.exact_gradient(coreset, truth)
    expected = finite_differences(lambda u: value(u, coreset.weights), coreset.points)
    torch.testing.assert_close(by_points, expected, rtol=1e-5, atol=1e-5)
    expected = finite_differences(lambda w: value(coreset.points, w), coreset.weights)
    torch.testing.assert_close(by_weights, expected, rtol=1e-5, atol=1e-7)

    posterior, generator = model.posterior(coreset.points, coreset.weights), torch.Generator().manual_seed(0)
    estimates = [model.gradient(coreset, small, draw(posterior, 500, generator)) for _ in range(100)]
    for exact, estimate in zip((by_points, by_weights), map(torch.stack, zip(*estimates, strict=True)), strict=True):
        z = (estimate.mean(0) - exact) / (estimate.std(0) / 10)
        assert float(z.abs().max()) < 4.5
        assert float((estimate.mean(0) - exact).norm() / exact.norm()) < 0.1


def test_linear_floor_is_a_bound_that_numerical_optimisation_meets():
    """Three parameters and one point, without a mean to match: L-BFGS over the point and its weight comes to the bound."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=DTYPE) * torch.tensor([2.0, 0.5]) + torch.tensor([1.5, 0.3])
    data = torch.cat([x, torch.zeros(40, 1, dtype=DTYPE)], 1)
    model = LinearModel(1.0, 1.0)
    truth = model.posterior(data, ones(40))
    # the intercept's 1 does not restrict the direction: the point is scaled by its weight
    for name, direction in (("reverse_kl", False), ("forward_kl", True)):

        def loss(v, direction=direction):
            leaf = torch.tensor(v, dtype=DTYPE, requires_grad=True)
            point = torch.cat([leaf[:2], torch.zeros(1, dtype=DTYPE)])[None]
            core = model.posterior(point, leaf[2:].exp())
            value = kl(truth, core) if direction else kl(core, truth)
            value.backward()
            return value.item(), leaf.grad.numpy()

        box = [(-20, 20), (-20, 20), (-8, 8)]
        starts = torch.randn(8, 3, generator=generator, dtype=DTYPE).numpy()
        best = min(minimize(loss, v, jac=True, method="L-BFGS-B", bounds=box).fun for v in starts)
        bound = model.floors(truth, 1)[f"floor_{name}"]
        assert best >= bound - 1e-9
        assert best == pytest.approx(bound, rel=1e-3)
    assert model.floors(truth, 3) == {"floor_reverse_kl": 0.0, "floor_forward_kl": 0.0}


def test_linear_study(tmp_path):
    table, tables = run_linear_study(
        tmp_path,
        steps=150,
        sizes=(5, 20),
        repeats=1,
        settings=LinearStudy(lr_points=0.05, lr_weights=0.05, samples=64, track=5),
    )
    values = table.set_index(["method", "size"])["reverse_kl"]
    assert values["rkl", 20] < 0.05 * values["random", 20]
    assert values["rkl-exact", 20] < 0.05 * values["random", 20]
    assert values["rkl-exact", 5] < 0.8 * values["random", 5]
    assert (table["reverse_kl"] >= table["floor_reverse_kl"]).all()
    assert (table["forward_kl"] >= table["floor_forward_kl"]).all()
    assert (table.loc[table["method"] == "random", "total_weight"] - 442).abs().max() < 1e-9
    pictures = {
        f"{name}.{suffix}" for name in ("linear", "linear-contours", "linear-predictive") for suffix in ("png", "pdf")
    }
    assert {p.name for p in tmp_path.iterdir()} == {"linear.csv", "linear-steps.csv", "linear.md", *pictures}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "linear.csv"), table)
    assert tables[0].headings == [
        "M",
        "Method",
        "KL(core‖full) (nats) ↓",
        "floor",
        "KL(full‖core) (nats) ↓",
        "floor",
        "TV, predictive (fraction) ↓",
        "Sym. KL, predictive (nats) ↓",
    ]
    assert [len(block) for block in tables[0].blocks] == [3, 3]  # of one size each
    for name in ("linear.png", "linear-contours.png", "linear-predictive.png"):
        assert imread(tmp_path / name).std() > 0.05


# --- data


def test_principal_components_against_scikit_learn():
    everything, labels = cancer_data(None)
    two, same = cancer_data(2)
    assert everything.shape == (569, 30) and torch.equal(labels, same)
    np.testing.assert_allclose(two.numpy().std(0), 1.0)
    expected = PCA(2, whiten=True).fit_transform(everything.numpy())
    correlation = np.abs((two.numpy() * expected).mean(0))
    np.testing.assert_allclose(correlation, 1.0, atol=2e-3)  # whitening divides by n - 1


def test_subsets_hold_both_labels_and_depend_on_the_seed_alone():
    labels = torch.tensor([0] * 40 + [1] * 2)
    for seed in range(20):
        index = random_subset(42, 4, seed, labels)
        assert len(set(index.tolist())) == 4 and len(labels[index].unique()) == 2
        assert torch.equal(index, random_subset(42, 4, seed, labels))
    with pytest.raises(ConfigError, match="between 2 and 42"):
        random_subset(42, 1, 0, labels)
