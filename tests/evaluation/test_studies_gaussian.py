"""The conjugate study: every gradient against finite differences of the closed form, floors, and what learning reaches."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from gaussian import cubature, finite_differences
from matplotlib.image import imread
from scipy.linalg import sqrtm

from bpc.errors import ConfigError, NumericalError
from evaluation.studies import GaussianStudy, location, run_gaussian_study
from evaluation.studies.learning import descend, steps_to_track, unlabelled
from evaluation.studies.location import METHODS, LocationModel, exact_divergences
from evaluation.studies.normal import Normal, draw, kl, transport, wasserstein_squared
from evaluation.studies.tables import divergence, study_table
from evaluation.table import significant, tables_to_markdown

DTYPE = torch.float64


def spd(seed, p=3):
    noise = torch.randn(p, p, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)
    return noise @ noise.T + 0.3 * torch.eye(p, dtype=DTYPE)


def two_normals():
    generator = torch.Generator().manual_seed(9)
    return (Normal(torch.randn(3, generator=generator, dtype=DTYPE), spd(s)) for s in (1, 2))


def problem():
    """A model in two dimensions whose prior and noise do not commute, data, points and unequal weights."""
    prior = Normal(torch.tensor([0.4, -0.2], dtype=DTYPE), torch.tensor([[2.0, -0.4], [-0.4, 1.5]], dtype=DTYPE))
    model = LocationModel(torch.tensor([[1.0, 0.3], [0.3, 0.6]], dtype=DTYPE), prior)
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(30, 2, generator=generator, dtype=DTYPE) + 1.0
    points = torch.randn(4, 2, generator=generator, dtype=DTYPE)
    weights = 0.5 + 3 * torch.rand(4, generator=generator, dtype=DTYPE)
    return model, data, points, weights


def test_kl_against_torch_distributions():
    a, b = two_normals()
    as_distribution = (torch.distributions.MultivariateNormal(*n) for n in (a, b))
    assert float(kl(a, b)) == pytest.approx(float(torch.distributions.kl_divergence(*as_distribution)), rel=1e-12)


def test_wasserstein_against_scipys_square_root_and_transport():
    a, b = two_normals()
    root = sqrtm(a.covariance.numpy())
    bures = np.trace(a.covariance.numpy() + b.covariance.numpy() - 2 * sqrtm(root @ b.covariance.numpy() @ root).real)
    assert float(wasserstein_squared(a, b)) == pytest.approx(float((a.mean - b.mean).square().sum()) + bures, rel=1e-9)
    map_ = transport(a, b)  # carries N(0, A) to N(0, B)
    torch.testing.assert_close(map_ @ a.covariance @ map_, b.covariance)
    torch.testing.assert_close(map_, map_.T)


def test_posterior_is_eq_28_and_29_and_agrees_with_bayes_rule():
    model, _, points, weights = problem()
    posterior = model.posterior(points, weights)

    def log_joint(theta):
        prior = torch.distributions.MultivariateNormal(*model.prior).log_prob(theta)
        return prior + model.log_likelihood(theta, points, torch.zeros(4)) @ weights

    nodes = draw(posterior, 5, torch.Generator().manual_seed(0))
    gap = log_joint(nodes) - torch.distributions.MultivariateNormal(*posterior).log_prob(nodes)
    torch.testing.assert_close(gap, gap[:1].expand(5))  # equal up to the evidence


@pytest.mark.parametrize("method, index", [("rkl", 0), ("wasserstein", 1), ("fkl", 2)])
def test_gradients_are_those_of_the_closed_forms(method, index, monkeypatch):
    """With draws replaced by a cubature of degree 5 the estimators' expectations are exact, so finite differences must agree."""
    model, data, points, weights = problem()
    truth = model.posterior(data, torch.ones(30, dtype=DTYPE))
    monkeypatch.setattr(location, "draw", lambda normal, count, generator: cubature(*normal))
    by_points, by_weights = model.gradient(method, data, 12)(unlabelled(points, weights), torch.Generator())

    def value(points, weights):
        return list(exact_divergences(model.posterior(points, weights), truth).values())[index]

    expected = finite_differences(lambda u: value(u, weights), points)
    torch.testing.assert_close(by_points, expected, rtol=1e-6, atol=1e-6)
    expected = finite_differences(lambda w: value(points, w), weights)
    torch.testing.assert_close(by_weights, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["rkl", "fkl"])
def test_estimates_average_to_the_exact_gradient(method):
    model, data, points, weights = problem()
    coreset, gradient = unlabelled(points, weights), model.gradient(method, data, 200)
    generator = torch.Generator().manual_seed(0)
    estimates = torch.stack([gradient(coreset, generator)[0] for _ in range(200)])
    truth = model.posterior(data, torch.ones(30, dtype=DTYPE))
    index = 0 if method == "rkl" else 2
    exact = finite_differences(
        lambda u: list(exact_divergences(model.posterior(u, weights), truth).values())[index], points
    )
    z = (estimates.mean(0) - exact) / (estimates.std(0) / math.sqrt(200))
    assert float(z.abs().max()) < 4.5
    assert float((estimates.mean(0) - exact).norm() / exact.norm()) < 0.05


def test_floor_is_attained_at_equal_means_and_nowhere_below():
    model = GaussianStudy().model()
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(100, 10, generator=generator, dtype=DTYPE)
    truth = model.posterior(data, torch.ones(100, dtype=DTYPE))
    floors = model.floors(5.0, truth)
    # by eigenvalues: prior and noise commute here
    noise = torch.linspace(-math.log(2), math.log(2), 10, dtype=DTYPE).exp()
    few, many = 1 / (1 + 5 / noise), 1 / (1 + 100 / noise)
    ratio = few / many
    assert floors["reverse_kl"] == pytest.approx(float(0.5 * (ratio - 1 - ratio.log()).sum()), rel=1e-9)
    assert floors["forward_kl"] == pytest.approx(float(0.5 * (1 / ratio - 1 + ratio.log()).sum()), rel=1e-9)
    assert floors["w2_squared"] == pytest.approx(float((few.sqrt() - many.sqrt()).square().sum()), rel=1e-9)
    for seed in range(5):
        points = torch.randn(5, 10, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)
        found = exact_divergences(model.posterior(points, torch.ones(5, dtype=DTYPE)), truth)
        assert all(found[name] > floors[name] for name in floors)
    assert all(abs(value) < 1e-9 for value in model.floors(100.0, truth).values())


def test_study_reaches_the_floor_and_learned_weights_go_below_it(tmp_path):
    before = dict(matplotlib.rcParams)
    done = []
    table, tables = run_gaussian_study(
        tmp_path,
        steps=250,
        sizes=(5, 20),
        repeats=2,
        settings=GaussianStudy(track=6),
        report=lambda n, total, note: done.append(n),
    )
    assert dict(matplotlib.rcParams) == before
    assert done[-1] == 2 * 2 * 2 * 3 * 250
    assert len(table) == 2 * 2 * 2 * 4
    learned = table[table["method"] != "random"]
    ones = learned[learned["weights"] == "ones"]
    random = table[(table["weights"] == "ones") & (table["method"] == "random")]
    for name in ("reverse_kl", "w2_squared", "forward_kl"):
        assert (ones[name] >= ones[f"floor_{name}"] - 1e-12).all()
        assert (ones[name] < 1.05 * ones[f"floor_{name}"]).all()
        assert (random[name] > 1.2 * random[f"floor_{name}"]).all()
    free = learned[learned["weights"] == "learned"]
    assert (free["reverse_kl"] < 0.15 * ones["reverse_kl"].to_numpy()).all()
    assert free["total_weight"].between(70, 130).all()

    pictures = ("steps-ones", "sizes-ones", "steps-learned", "sizes-learned")
    assert {p.name for p in tmp_path.iterdir()} == {
        "gaussian.csv", "gaussian-steps.csv", "gaussian.md", "gaussian-predictive.png", "gaussian-predictive.pdf",
        *(f"gaussian-{picture}.{suffix}" for picture in pictures for suffix in ("png", "pdf")),
    }  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "gaussian.csv"), table)
    assert imread(tmp_path / "gaussian-steps-ones.png").std() > 0.05
    text = (tmp_path / "gaussian.md").read_text()
    assert "ours" in text and text == tables_to_markdown(tables)
    along = pd.read_csv(tmp_path / "gaussian-steps.csv")
    starts = along[(along["steps"] == 0) & (along["repeat"] == 0) & (along["size"] == 5) & (along["weights"] == "ones")]
    assert starts["reverse_kl"].nunique() == 1 and len(starts) == len(METHODS)  # all methods start at the same points


def test_study_is_a_function_of_its_seed(tmp_path):
    def once(seed):
        return run_gaussian_study(tmp_path, seed=seed, steps=3, sizes=(5,), repeats=1, weights=("scaled",)).rows

    first = once(0)
    pd.testing.assert_frame_equal(first, once(0))
    assert not np.allclose(first["reverse_kl"], once(1)["reverse_kl"])
    np.testing.assert_allclose(first["total_weight"], 100, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weights": ("onse",)}, "Did you mean 'ones'"),
        ({"sizes": (101,)}, "between 1 and 100"),
        ({"repeats": 0}, "repeats at least 1"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_gaussian_study(tmp_path, steps=1, **arguments)


def test_learning_solves_a_quadratic_keeps_weights_positive_and_stops_at_nan():
    target = torch.tensor([[1.0, -2.0]], dtype=DTYPE)
    start = unlabelled(torch.zeros(1, 2, dtype=DTYPE), torch.ones(1, dtype=DTYPE))

    def gradient(coreset, generator):
        return coreset.points - target, coreset.weights - 40.0

    path = list(descend(start, gradient, steps=400, lr_points=0.1, lr_weights=0.1, seed=0))
    assert len(path) == 401 and float(path[0].weights) == 1.0
    torch.testing.assert_close(path[-1].points, target, atol=1e-4, rtol=0)
    assert float(path[-1].weights) == pytest.approx(40.0, rel=1e-3)
    assert float(path[1].points.abs().max()) == pytest.approx(0.1)  # one step of Adam; copies, not views of the last
    still = list(descend(start, gradient, steps=5, lr_points=0.1, lr_weights=0.0, seed=0))
    assert float(still[-1].weights) == 1.0
    pulled = list(
        descend(start, lambda c, g: (c.points, c.weights + 5), steps=400, lr_points=0.1, lr_weights=0.5, seed=0)
    )
    assert 0 < float(pulled[-1].weights) < 1e-3
    with pytest.raises(NumericalError, match="step 1"):
        list(descend(start, lambda c, g: (c.points * math.nan, c.weights), steps=2, lr_points=1, lr_weights=0, seed=0))


def test_draws_of_a_step_depend_on_the_seed_and_the_step_alone():
    start = unlabelled(torch.zeros(1, 2, dtype=DTYPE), torch.ones(1, dtype=DTYPE))

    def draws(seed, steps):
        seen = []

        def gradient(coreset, generator):
            seen.append(float(torch.rand(1, generator=generator)))
            return coreset.points, coreset.weights

        list(descend(start, gradient, steps=steps, lr_points=0.1, lr_weights=0.0, seed=seed))
        return seen

    assert draws(1, 4)[:2] == draws(1, 2)
    assert len({*draws(1, 4), *draws(2, 4)}) == 8


def test_tracked_steps_and_numbers():
    assert steps_to_track(100, 3) == [0, 25, 100]
    assert steps_to_track(2, 50) == [0, 1, 2]
    assert [significant(x) for x in (0.0, 64.321, 0.00257, 1234.5, 2.8e-11, 99999.0)] == [
        "0", "64.3", "0.00257", "1,234", "2.8e-11", "99,999",
    ]  # fmt: skip
    rows = pd.DataFrame(
        {"size": [5, 5], "method": ["rkl", "rkl"], "reverse_kl": [1.0, 3.0], "floor_reverse_kl": [0.5, 0.5]}
    )
    options = {"keys": ["size", "method"], "columns": {"reverse_kl": divergence("KL")}, "caption": "c", "notes": ["n"]}
    text = study_table(rows, **options).to_markdown()
    assert "| M | Method | KL (nats) ↓ | floor |" in text
    assert "| 5 | BPC-rKL | 2.00 ±1.41 | 0.500 |" in text
    three = pd.DataFrame({"size": 5, "method": "rkl", "reverse_kl": [0.3, 0.4, math.nan]})
    text = study_table(three, **options).to_markdown()
    assert "| 5 | BPC-rKL | — |" in text and "floor" not in text
    assert "- — M = 5, BPC-rKL: 1 of 3 repeats not finite; mean of the others: KL 0.350." in text
