"""The published numbers, checked against the printed tables."""

from __future__ import annotations

import pytest

from bpc.errors import ConfigError
from evaluation.published import load_published, published_value


def test_the_packaged_file():
    data = load_published()
    assert len(data) == 138
    assert data.loc[data["method"] == "Full data", "ipc"].isna().all()
    data["value"] = 0.0  # a copy: the next caller is not touched
    assert load_published()["value"].max() > 1


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (("cifar10", "fkl", "hmc", False, 1, "accuracy"), (0.3354, 0.0066)),  # Table 1
        (("cifar10", "fkl", "hmc", True, 1, "accuracy"), (0.3468, 0.0119)),
        (("cifar10", "wasserstein", "asghmc", True, 20, "accuracy"), (0.5691, 0.0167)),
        (("cifar10", "rkl", "hmc", False, 10, "nll_kim2022"), (1.9627, 0.0312)),
        (("cifar10", "random", "hmc", False, 10, "accuracy"), (0.2807, 0.0050)),
        (("cifar10", "random", "hmc", False, 10, "accuracy", "Table 6"), (0.2590, 0.0068)),
        (("cifar10", "fkl", "hmc", False, 100, "accuracy"), (0.5625, 0.0143)),  # Table 5
        (("cifar10", "random", "hmc", True, 50, "nll_kim2022"), (2.1443, 0.0373)),  # real points: not learned
        (("cifar10", "herding", "hmc", True, 10, "brier"), (0.8231, 0.0055)),  # Table 6
        (("cifar10", "kcenter", "hmc", False, 10, "ece_kim2022"), (0.1360, 0.0090)),
        (("cifar10", "fkl", "hmc", True, 10, "ece_kim2022"), (0.1538, 0.0049)),
        (("cifar100", "fkl", "hmc", False, 1, "nll_kim2022"), (4.2366, 0.0220)),  # Table 7
        (("imagenette", "wasserstein", "hmc", False, 1, "accuracy"), (0.2876, 0.0224)),
        (("cifar10", "full", "asghmc", True, 0, "accuracy"), (0.7383, 0.0052)),  # caption of Table 1
        # no such number
        (("cifar10", "fkl", "hmc", False, 10, "nll"), None),  # the published one is another quantity
        (("cifar10", "fkl", "hmc", False, 10, "ece"), None),
        (("cifar10", "fkl", "hmc", False, 5, "accuracy"), None),
        (("cifar10", "fkl", "hmc", True, 50, "accuracy"), None),  # Table 5 is without augmentation
        (("cifar10", "fkl", "nuts", False, 10, "accuracy"), None),
        (("cifar10", "full", "hmc", False, 0, "accuracy"), None),
        (("cifar10", "craig", "hmc", False, 10, "accuracy"), None),
        (("digits", "fkl", "hmc", False, 10, "accuracy"), None),
        (("cifar10", "fkl", "hmc", False, 1, "brier"), None),
    ],
)
def test_values(arguments, expected):
    assert published_value(*arguments) == expected


def test_an_unknown_table_is_refused():
    with pytest.raises(ConfigError, match="Table 9"):
        published_value("cifar10", "fkl", "hmc", False, 10, "accuracy", "Table 9")
