"""Diagnostics on chains whose answer is known: independent, autocorrelated, shifted, stuck, broken."""

from __future__ import annotations

import errno
import math

import arviz as az
import numpy as np
import pytest
import torch

from bpc.errors import ConfigError, FileFormatError, StorageError
from evaluation.diagnostics import (
    ESS_MIN,
    diagnose,
    halves_apart,
    load_inference_data,
    nested_rhat,
    only_diverged,
    save_inference_data,
    to_inference_data,
)

C, S, T = 4, 1000, 40


def autoregressive(rng, *shape, rho):
    """Unit-variance AR(1) along axis 1; its integrated autocorrelation time is (1 + rho) / (1 - rho)."""
    values = rng.normal(size=shape)
    for i in range(1, shape[1]):
        values[:, i] = rho * values[:, i - 1] + math.sqrt(1 - rho**2) * values[:, i]
    return values


def squash(values):
    return 1 / (1 + np.exp(-values))


def draws(rho=0.0, c=C, s=S, t=T, seed=0):
    """What `to_inference_data` takes, of chains that sample one distribution."""
    rng = np.random.default_rng(seed)
    return {
        "log_density": -500 + 10 * autoregressive(rng, c, s, rho=rho),
        "predictions": squash(autoregressive(rng, c, s, t, rho=rho)),
        "accept_prob": np.full((c, s), 0.8),
        "diverged": np.zeros((c, s), dtype=bool),
        "energy": rng.normal(size=(c, s)),
        "step_size": np.linspace(0.1, 0.2, c),
    }


def test_independent_chains_have_mixed():
    found = diagnose(to_inference_data(**draws()))
    assert found.mixed and found.reasons == []
    assert (found.chains, found.draws, found.divergences, found.constant_predictions) == (C, S, 0, 0)
    assert found.acceptance == pytest.approx(0.8)
    assert 0.99 < found.rhat_log_density < 1.01 and 0.99 < found.rhat_predictions_median <= found.rhat_predictions
    assert found.rhat_predictions <= found.rhat_predictions_worst < 1.02
    # 4,000 independent draws
    assert found.ess_bulk_log_density == pytest.approx(C * S, rel=0.1)
    assert 0.8 * C * S < found.ess_bulk_predictions <= C * S * 1.1 and found.ess_tail_predictions > 0.7 * C * S
    # independent energies: E (E_i - E_{i-1})^2 = 2 var E
    assert found.ebfmi == pytest.approx(2, rel=0.15)


def test_the_numbers_are_those_of_arviz():
    given = draws(rho=0.5)
    found = diagnose(to_inference_data(**given))
    assert found.rhat_log_density == pytest.approx(float(az.rhat(given["log_density"])))
    assert found.ess_bulk_log_density == pytest.approx(float(az.ess(given["log_density"])))
    assert found.ess_tail_log_density == pytest.approx(float(az.ess(given["log_density"], method="tail")))
    assert found.ebfmi == pytest.approx(az.bfmi(given["energy"]).min())
    single = given["predictions"].astype(np.float32).astype(float)  # as they are kept
    rhats = sorted(float(az.rhat(single[..., i])) for i in range(T))
    bulks = sorted(float(az.ess(single[..., i])) for i in range(T))
    assert found.rhat_predictions_worst == pytest.approx(rhats[-1])
    assert found.ess_bulk_predictions_worst == pytest.approx(bulks[0])
    # 95 % of 40 lies between the 38th and the 39th: the worse of the two; 5 % between the 2nd and the 3rd
    assert found.rhat_predictions == pytest.approx(rhats[38]) and rhats[37] < rhats[38] < rhats[39]
    assert found.ess_bulk_predictions == pytest.approx(bulks[1]) and bulks[0] < bulks[1] < bulks[2]
    tails = sorted(float(az.ess(single[..., i], method="tail")) for i in range(T))
    worst, most, median = (getattr(found, f"ess_tail_predictions{x}") for x in ("_worst", "", "_median"))
    assert (worst, most) == pytest.approx((tails[0], tails[1])) and tails[19] <= median <= tails[20]
    assert rhats[19] <= found.rhat_predictions_median <= rhats[20]
    assert bulks[19] <= found.ess_bulk_predictions_median <= bulks[20]


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_the_effective_sample_size_of_an_autoregression(rho):
    found = diagnose(to_inference_data(**draws(rho=rho, s=4000, t=5)))
    assert found.ess_bulk_log_density == pytest.approx(C * 4000 * (1 - rho) / (1 + rho), rel=0.15)


def test_too_few_effective_draws():
    found = diagnose(to_inference_data(**draws(rho=0.9)))
    assert not found.mixed and 0 < found.ess_bulk_predictions < ESS_MIN == 400
    assert any(reason.startswith("bulk ESS of the predictions") and "below 400" in reason for reason in found.reasons)
    enough = diagnose(to_inference_data(**draws(rho=0.5)))  # a third of 4,000
    assert enough.mixed and enough.ess_bulk_predictions > 800


@pytest.mark.parametrize("what", ["log_density", "predictions"])
def test_a_chain_somewhere_else(what):
    given = draws()
    if what == "log_density":
        given[what][2] += 15
    else:
        given[what][2] = squash(np.log(given[what][2] / (1 - given[what][2])) + 1.0)
    found = diagnose(to_inference_data(**given))
    rhat, other = found.rhat_log_density, found.rhat_predictions
    assert (rhat > 1.05 and other < 1.02) if what == "log_density" else (other > 1.05 and rhat < 1.01)
    if what == "log_density":
        assert found.mixed  # of one function by other weights: told, not judged
    else:
        assert not found.mixed and any("R-hat of the predictions" in reason for reason in found.reasons)


def test_a_few_predictions_may_be_worse_but_the_largest_is_told():
    given = draws(t=100)
    given["predictions"][0, :, :3] = given["predictions"][0, :, :3] ** 3
    found = diagnose(to_inference_data(**given))
    assert found.rhat_predictions < 1.01 < 1.05 < found.rhat_predictions_worst and found.mixed
    given["predictions"][0, :, :8] = given["predictions"][0, :, :8] ** 3
    assert not diagnose(to_inference_data(**given)).mixed


def test_a_chain_of_another_width_is_seen():
    given = draws()
    given["log_density"][1] = -500 + 3 * (given["log_density"][1] + 500)  # the same mean
    assert diagnose(to_inference_data(**given)).rhat_log_density > 1.05  # the folded half of the rank-normalised R-hat


def test_divergences_and_energies_count():
    given = draws()
    given["diverged"][3, 10] = True
    found = diagnose(to_inference_data(**given))
    assert found.divergences == 1 and not found.mixed and found.reasons == ["1 divergent transition"]

    given = draws()
    given["energy"][1] = autoregressive(np.random.default_rng(1), 1, S, rho=0.95)[0]
    found = diagnose(to_inference_data(**given))
    # E (E_i - E_{i-1})^2 / var E = 2 (1 - rho), of the worst chain
    assert found.ebfmi == pytest.approx(0.1, rel=0.5) and not found.mixed
    assert any("E-BFMI" in reason for reason in found.reasons)


def test_what_was_not_recorded_is_not_judged():
    given = draws()
    found = diagnose(to_inference_data(log_density=given["log_density"], predictions=given["predictions"]))
    assert found.mixed and math.isnan(found.ebfmi) and math.isnan(found.acceptance) and found.divergences == 0


def test_a_stuck_chain_has_not_mixed():
    given = draws()
    given["log_density"][1] = given["log_density"][1, 0]
    given["predictions"][1] = given["predictions"][1, :1]
    found = diagnose(to_inference_data(**given))
    assert not found.mixed and "chain 2: stood still" in found.reasons
    assert found.constant_predictions == 0  # constant in one chain only


def test_chains_that_are_all_stuck_have_not_mixed():
    given = draws()
    given["log_density"][:] = given["log_density"][:, :1]
    given["predictions"][:] = given["predictions"][:, :1]
    found = diagnose(to_inference_data(**given))
    assert not found.mixed and "chains 1, 2, 3, 4: stood still" in found.reasons
    assert found.rhat_log_density > 1e6
    same = {name: np.broadcast_to(values[:1], values.shape) for name, values in given.items()}
    found = diagnose(to_inference_data(**same))  # at one and the same point: R-hat is 0 / 0
    assert not found.mixed and math.isnan(found.rhat_predictions) and found.constant_predictions == T


def test_predictions_that_are_constant_everywhere_are_left_out():
    given = draws()
    given["predictions"][..., :15] = 1.0
    found = diagnose(to_inference_data(**given))
    assert found.mixed and found.constant_predictions == 15
    given["predictions"][:] = 0.1  # the network ignores its input
    found = diagnose(to_inference_data(**given))
    assert not found.mixed and "every tracked prediction has one value in all draws" in found.reasons
    # a constant in each chain, but not the same one, is not left out
    given = draws()
    given["predictions"][..., :5] = np.linspace(0.1, 0.4, C)[:, None, None]
    found = diagnose(to_inference_data(**given))
    assert not found.mixed and found.constant_predictions == 0 and found.rhat_predictions_worst > 1e6


@pytest.mark.parametrize("what", ["log_density", "predictions", "energy"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_chain_has_not_mixed(what, value):
    given = draws()
    given[what][2, 500:] = value
    found = diagnose(to_inference_data(**given))
    assert not found.mixed and any(r.startswith("chain 3: ") and "not finite" in r for r in found.reasons)
    broken = {
        "log_density": found.rhat_log_density,
        "predictions": found.rhat_predictions,
        "energy": found.ebfmi,
    }
    assert not math.isfinite(broken[what])


def test_one_chain_is_compared_with_itself():
    found = diagnose(to_inference_data(**draws(c=1, s=2000)))
    assert found.chains == 1 and found.reasons[0].startswith("one chain") and len(found.reasons) == 1
    assert found.mixed and found.rhat_log_density < 1.01
    given = draws(c=1, s=2000)
    given["predictions"] = squash(
        np.log(given["predictions"] / (1 - given["predictions"])) + np.linspace(0, 2, 2000)[:, None]
    )
    found = diagnose(to_inference_data(**given))  # still on its way
    assert not found.mixed and found.rhat_predictions > 1.05


@pytest.mark.parametrize("c, s", [(C, 3), (12, 3), (1, 7)])
def test_too_few_draws_are_said(c, s):
    found = diagnose(to_inference_data(**draws(c=c, s=s)))
    assert not found.mixed and math.isnan(found.rhat_log_density) and math.isnan(found.ess_bulk_predictions)
    assert any(f"{s} draws per chain" in reason for reason in found.reasons)
    enough = diagnose(to_inference_data(**draws(c=c, s=s + 1)))
    assert not enough.mixed and math.isfinite(enough.rhat_log_density) and math.isfinite(enough.rhat_predictions)


def test_weights_are_told_and_never_judged():
    """Chains in exchanged units: one function, other weights."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(C, S, 6)) + 10 * np.arange(C)[:, None, None]
    found = diagnose(to_inference_data(**draws(), weights=weights))
    assert found.rhat_weights > 1.5 and found.mixed and found.reasons == []
    assert math.isnan(diagnose(to_inference_data(**draws())).rhat_weights)
    same = diagnose(to_inference_data(**draws(), weights=rng.normal(size=(C, S, 6))))
    assert 0.99 < same.rhat_weights < 1.02


def classes(rho, apart, seed, c=4, s=400, t=64, y=5):
    """Autocorrelated draws of class probabilities (c, s, t, y), every chain around a place of its own; and their halves."""
    rng = np.random.default_rng(seed)
    logits = autoregressive(rng, c, s, t, y, rho=rho) + apart * rng.normal(size=(c, 1, t, y)) + 2 * np.eye(t, y)
    probs = torch.from_numpy(logits).softmax(-1)
    return probs, torch.stack([probs[:, : s // 2].mean(1), probs[:, s // 2 :].mean(1)], 1)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_halves_of_chains_that_have_mixed_are_apart_by_their_error(rho):
    found = np.array([halves_apart(classes(rho, 0.0, seed)[1]) for seed in range(4)]).mean(0)
    assert found[0] == pytest.approx(found[1], rel=0.1)
    # two means of 800 draws each, of which a share (1 - rho) / (1 + rho) is worth an independent one; E |d| = sqrt(2 / pi) std d
    std = classes(rho, 0.0, 0)[0].flatten(0, 1).std(0) * math.sqrt(2 / 800 * (1 + rho) / (1 - rho))
    assert found[1] == pytest.approx(float(0.5 * math.sqrt(2 / math.pi) * std.sum(-1).mean()), rel=0.1)


def test_halves_of_chains_that_have_not_mixed_are_farther_apart():
    chains, error = halves_apart(classes(0.0, 1.0, 0)[1])
    assert chains > 10 * error
    lone, error = halves_apart(classes(0.0, 0.0, 0)[1][:1])
    assert math.isnan(lone) and error > 0


# --- the file -------------------------------------------------------------------------------

ATTRS = {"method": "fkl", "seed": 3, "labels": [0, 1, 2], "exact": True, "settings": {"chains": 4}, "hash": "ab"}


def test_what_the_groups_hold():
    given = draws(c=2, s=10, t=3)
    data = to_inference_data(**given, n_gradients=np.full((2, 10), 7), images=[5, 9, 100], attrs=ATTRS)
    assert data.posterior["prediction"].dims == ("chain", "draw", "image")
    assert data.posterior["image"].values.tolist() == [5, 9, 100]
    assert np.array_equal(data.sample_stats["lp"], given["log_density"])
    assert data.sample_stats["diverging"].dtype == bool and (data.sample_stats["n_steps"] == 7).all()
    assert np.allclose(data.sample_stats["step_size"], given["step_size"][:, None])  # (c,) for every draw
    assert data.posterior["log_density"].attrs["units"] == "nats"
    assert data.attrs["labels"] == "[0, 1, 2]" and data.attrs["exact"] == "true" and data.attrs["seed"] == 3


def test_tensors_do_as_well():
    given = {name: torch.tensor(values) for name, values in draws().items()}
    assert diagnose(to_inference_data(**given)) == diagnose(to_inference_data(**draws()))


def test_a_file_comes_back_the_same_and_is_arvizs(tmp_path):
    data = to_inference_data(**draws(s=50), attrs=ATTRS)
    path = tmp_path / "draws.nc"
    save_inference_data(data, path)
    first = path.read_bytes()
    again = load_inference_data(path)
    assert diagnose(again) == diagnose(data)
    assert dict(again.attrs) == dict(data.attrs)
    for group in ("posterior", "sample_stats"):
        assert again[group].identical(data[group])
    path.unlink()  # in memory, the file is not needed any more
    assert again.posterior["prediction"].shape == (C, 50, T)
    save_inference_data(again, path)
    assert path.read_bytes() == first
    by_arviz = az.from_netcdf(path)
    assert np.array_equal(by_arviz.posterior["log_density"], data.posterior["log_density"])
    by_arviz.close()


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "draws.nc"
    with pytest.raises(FileFormatError, match="No such file"):
        load_inference_data(path)
    save_inference_data(to_inference_data(**draws(s=50)), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"draws" * 100):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="truncated or of another format"):
            load_inference_data(path)
    az.from_dict(posterior={"mu": np.zeros((2, 10))}).to_netcdf(str(path))
    with pytest.raises(FileFormatError, match="no log_density and prediction"):
        load_inference_data(path)


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "draws.nc"
    save_inference_data(to_inference_data(**draws(s=50)), path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bpc.files.os.fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        save_inference_data(to_inference_data(**draws(s=60)), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_shapes_that_do_not_belong_together_are_refused():
    given = draws(s=20)
    with pytest.raises(ConfigError, match="the same draws"):
        to_inference_data(log_density=given["log_density"], predictions=given["predictions"][:, :-1])
    with pytest.raises(ConfigError, match="step_size of shape"):
        to_inference_data(**given | {"step_size": np.ones(3)})
    with pytest.raises(ConfigError, match="weights"):
        to_inference_data(**given, weights=np.ones((C, 19, 3)))
    with pytest.raises(ConfigError, match="3 indices for 40"):
        to_inference_data(**given, images=[1, 2, 3])


def by_definition(values, m):
    """Nested R-hat of (c, s) draws in the paper's loops."""
    groups = [values[i : i + m] for i in range(0, len(values), m)]
    means = [np.mean(g) for g in groups]
    between = sum((x - np.mean(means)) ** 2 for x in means) / (len(means) - 1)
    within = []
    for g, mean in zip(groups, means, strict=True):
        of_chains = [np.mean(chain) for chain in g]
        b = sum((x - mean) ** 2 for x in of_chains) / (m - 1) if m > 1 else 0.0
        n = len(g[0])
        w = np.mean([sum((x - np.mean(chain)) ** 2 for x in chain) / (n - 1) for chain in g]) if n > 1 else 0.0
        within.append(b + w)
    return math.sqrt((np.mean(within) + between) / np.mean(within))


@pytest.mark.parametrize(("c", "s", "m"), [(16, 30, 4), (12, 5, 3), (8, 1, 4), (6, 40, 1)])
def test_nested_rhat_by_its_definition(c, s, m):
    values = np.random.default_rng(0).normal(size=(c, s, 3)) + np.random.default_rng(1).normal(size=(c, 1, 3))
    expected = [by_definition(values[..., i], m) for i in range(3)]
    np.testing.assert_allclose(nested_rhat(values, m), expected, rtol=1e-12)


def test_nested_rhat_believes_short_chains_that_forgot_their_start_and_no_others():
    """64 short chains of autocorrelated draws, from 16 places: classical R-hat cannot tell, nested R-hat can."""
    rng = np.random.default_rng(2)
    rho, places = 0.8, np.repeat(3 * rng.normal(size=16), 4)
    path = np.empty((64, 120))
    path[:, 0] = places
    for t in range(1, 120):
        path[:, t] = rho * path[:, t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=64)
    early, late = path[:, :6, None], path[:, 100:, None]
    classical = float(az.rhat(late[..., 0]))
    # 20 draws of autocorrelation time 9 are 2.2 or so, times 4 chains: sqrt(1 + 1 / 9)
    assert float(nested_rhat(late, 4)[0]) < 1.1 < classical
    assert float(nested_rhat(early, 4)[0]) > 1.3
    never = np.broadcast_to(places[:, None, None], (64, 20, 1)) + 1e-3 * rng.normal(size=(64, 20, 1))
    assert float(nested_rhat(never, 4)[0]) > 100
    # with starts of their own, chains that never move look nearly mixed: why superchains share one
    own = np.broadcast_to(rng.normal(size=4000)[:, None, None], (4000, 20, 1))
    assert float(nested_rhat(own, 4)[0]) == pytest.approx(math.sqrt(1.25), abs=0.02)


def test_nested_rhat_is_reported_where_chains_share_starts():
    given = draws(c=16, s=50)
    found = diagnose(to_inference_data(**given, attrs={"superchain": 4}))
    assert 1.0 < found.nested_rhat_predictions < 1.02
    assert math.isnan(diagnose(to_inference_data(**given)).nested_rhat_predictions)
    given["predictions"][4:8] = given["predictions"][4:8] ** 2
    assert diagnose(to_inference_data(**given, attrs={"superchain": 4})).nested_rhat_predictions > 1.05
    with pytest.raises(ConfigError, match="divides"):
        nested_rhat(np.zeros((16, 5, 1)), 5)


def test_only_divergent_transitions_are_told_from_chains_that_have_not_mixed():
    fine = {"mixed": 0.0, "divergences": 3.0, "rhat_predictions": 1.01, "ess_bulk_predictions": 500.0, "ebfmi": 0.9}
    assert only_diverged(fine) and only_diverged({k: v for k, v in fine.items() if k != "ebfmi"})
    for other in ({"mixed": 1.0}, {"divergences": 0.0}, {"rhat_predictions": 1.06}, {"ess_bulk_predictions": 399.0},
                  {"ebfmi": 0.2}, {"rhat_predictions": math.nan}):  # fmt: skip
        assert not only_diverged(fine | other), other
    assert not only_diverged({})
