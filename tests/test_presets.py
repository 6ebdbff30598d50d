"""Presets are Tables 2, 3 and C.3 of Kim et al. (2022), number by number."""

import dataclasses

import pytest

from bpc.divergences import DIVERGENCES
from bpc.errors import ConfigError
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.presets import distill_preset, make_divergence
from bpc.samplers.kim2022_presets import sampling_preset

# K, T+, L_u, L_x, eta, S
TABLE_2 = {
    (1, "rkl"): (5000, 2, 50, 0, 0.01, 10),
    (1, "wasserstein"): (5000, 2, 50, 2, 0.01, None),
    (1, "fkl"): (5000, 2, 50, 1, 0.01, 30),
    (10, "rkl"): (5000, 20, 30, 0, 0.03, 10),
    (10, "wasserstein"): (5000, 20, 30, 2, 0.03, None),
    (10, "fkl"): (5000, 20, 30, 1, 0.03, 30),
    (20, "rkl"): (5000, 30, 30, 0, 0.03, 10),
    (20, "wasserstein"): (5000, 30, 30, 2, 0.03, None),
    (20, "fkl"): (5000, 30, 30, 1, 0.03, 30),
}


@pytest.mark.parametrize(("key", "row"), TABLE_2.items())
def test_table_2(key, row):
    p = distill_preset("kim2022", key[1], key[0])
    assert (p.steps, p.max_start_epoch, p.inner_steps, p.expert_epochs, p.student_lr) == row[:5]
    if row[5] is not None:
        assert p.samples == row[5]
    assert (p.sigma_core, p.sigma_expert, p.real_batch) == (0.01, 0.01, 1000)
    assert p.lr_points == 1000.0


def test_where_the_code_differs():
    assert distill_preset("kim2022-code", "wasserstein", 10).expert_epochs == 1
    assert distill_preset("kim2022-code", "rkl", 10).samples == 30
    assert "L_x = 1" in distill_preset("kim2022", "wasserstein", 10).note


@pytest.mark.parametrize(("ipc", "row"), [(5, 1), (15, 10), (50, 20), (100, 20)])
def test_sizes_between_the_rows(ipc, row):
    p = distill_preset("kim2022", "fkl", ipc)
    assert p.max_start_epoch == TABLE_2[row, "fkl"][1]
    assert f"no ipc {ipc}" in p.note


def test_epochs_needed():
    assert distill_preset("kim2022", "wasserstein", 10).epochs_needed == 21
    assert distill_preset("kim2022", "rkl", 10).epochs_needed == 19


PUBLISHED = [record.name for record in DIVERGENCES if "kim2022" in record.presets]


@pytest.mark.parametrize("name", PUBLISHED)
def test_divergences_take_their_settings(name):
    p = distill_preset("kim2022", name, 10)
    net = ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)
    made = make_divergence(name, p, Classifier(net), None)
    assert made.config.inner_steps == 30
    assert made.expert_epochs == p.expert_epochs
    assert made.needs_real == (name == "rkl")


def test_unknown_names():
    with pytest.raises(ConfigError, match="Did you mean 'fkl'"):
        distill_preset("kim2022", "fk", 1)
    with pytest.raises(ConfigError, match="preset"):
        distill_preset("kim2023", "fkl", 1)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("preset", ["kim2022", "kim2022-code"])
def test_notes_name_what_differs_from_the_paper(name, preset):
    note = distill_preset(preset, name, 10).note
    assert "0 .. T+ - 1 where the paper prints r <= T+" in note
    assert "mean over the coreset where the paper prints the sum" in note


# N, m, burn, sigma_r, epsilon, lambda
TABLE_3 = {
    ("hmc", 1): (20, 20, 10, 0.01, 0.05, 0.5),
    ("hmc", 10): (100, 5, 50, 0.1, 0.01, 1.5),
    ("hmc", 20): (100, 5, 50, 0.1, 0.01, 1.5),
    ("asghmc", 1): (20, 5, 10, 0.1, 0.03, 1.0),
    ("asghmc", 10): (100, 5, 50, 0.1, 0.01, 1.5),
    ("asghmc", 20): (100, 5, 50, 0.1, 0.01, 1.0),
}


def numbers(sampler, ipc):
    p = sampling_preset(sampler, ipc)
    return p.iterations, p.leapfrog_steps, p.burn_in, p.momentum_scale, p.step_size, p.penalty


@pytest.mark.parametrize(("key", "row"), TABLE_3.items())
def test_table_3(key, row):
    assert numbers(*key) == row
    assert "no ipc" not in sampling_preset(*key).note


@pytest.mark.parametrize("sampler", ["hmc", "asghmc"])
@pytest.mark.parametrize("ipc", [2, 9, 11, 19, 21, 49])
def test_between_table_3_s_rows_the_code_s_default(sampler, ipc):
    assert numbers(sampler, ipc) == TABLE_3[sampler, 10]
    note = sampling_preset(sampler, ipc).note
    assert f"Table 3 has no ipc {ipc}; its ipc-10 row is used, which is the default of the authors' code." in note


@pytest.mark.parametrize("ipc", [50, 70, 100])
def test_appendix_c3_is_for_hmc(ipc):
    assert numbers("hmc", ipc) == (100, 5, 50, 0.01, 0.02, 0.1)
    assert ("It has ipc 50 and 100, not 70." in sampling_preset("hmc", ipc).note) == (ipc == 70)
    assert numbers("asghmc", ipc) == TABLE_3["asghmc", 10]
    assert "is for HMC only" in sampling_preset("asghmc", ipc).note


def test_sampling_notes_name_what_differs_from_the_paper():
    for sampler in ("hmc", "asghmc"):
        note = sampling_preset(sampler, 1).note
        assert "lambda times the norm of theta" in note and "the squared norm" in note
        assert ("K_new - K_old" in note) == (sampler == "hmc")


def test_what_names_a_run_of_old_is_what_it_was():
    """Fields that came later are in no hash unless they are used."""
    p = distill_preset("kim2022", "fkl", 10)
    fields = {"steps", "max_start_epoch", "inner_steps", "expert_epochs", "student_lr", "samples", "sigma_core"}
    fields |= {"name", "sigma_expert", "real_batch", "lr_points", "momentum", "lr_student"}
    assert p.record().keys() == fields
    assert dataclasses.replace(p, ema=0.9, optimizer="adam").record() == {**p.record(), "ema": 0.9, "optimizer": "adam"}
    path = distill_preset("digits", "rkl-path", 1).record()
    assert path["path_window"] > 0 and path["path_iterations"] == 20 and path["path_penalty"] == 0.5
    with pytest.raises(ConfigError, match="optimizer"):
        dataclasses.replace(p, optimizer="adamw")
