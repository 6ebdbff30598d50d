"""Presets are Tables 2, 3 and C.3 of Kim et al. (2022), number by number."""

import pytest

from bpc.divergences import DIVERGENCES
from bpc.errors import ConfigError
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.presets import distill_preset, make_divergence

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


@pytest.mark.parametrize("name", DIVERGENCES.names())
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
