"""The coreset file is self-describing: safetensors alone reads it."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from bpc.coreset import Pseudocoreset, load_coreset
from bpc.errors import ConfigError, FileFormatError


@pytest.fixture
def coreset():
    return Pseudocoreset(
        points=torch.randn(6, 3, 4, 4) * 2,
        labels=torch.tensor([0, 0, 1, 1, 2, 2]),
        weights=torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 1.0]),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        dataset="cifar10",
        method="fkl",
        num_classes=3,
        preset="kim2022",
        config_hash="abc",
        seed=4,
        provenance={"augment": "color_crop", "steps": 5},
    )


def test_round_trip(coreset, tmp_path):
    coreset.save(tmp_path / "coreset.safetensors")
    for path in (tmp_path / "coreset.safetensors", tmp_path):
        again = load_coreset(path)
        assert torch.equal(again.points, coreset.points)
        assert torch.equal(again.labels, coreset.labels)
        assert torch.equal(again.weights, coreset.weights)
        assert (again.mean, again.std) == (coreset.mean, coreset.std)
        assert (again.dataset, again.method, again.preset, again.seed) == ("cifar10", "fkl", "kim2022", 4)
        assert again.provenance == coreset.provenance
        assert again.ipc == 2


def test_readable_without_this_project(coreset, tmp_path):
    coreset.save(tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", framework="np") as stream:
        points, images = stream.get_tensor("points"), stream.get_tensor("images")
        mean, std = stream.get_tensor("mean"), stream.get_tensor("std")
        metadata = stream.metadata()
    pixels = points * std.reshape(1, 3, 1, 1) + mean.reshape(1, 3, 1, 1)
    np.testing.assert_allclose(images, pixels.clip(0, 1), atol=1e-6)
    assert images.min() >= 0
    assert images.max() <= 1
    assert metadata["dataset"] == "cifar10"
    assert metadata["ipc"] == "2"


def test_equal_content_is_equal_bytes(coreset, tmp_path):
    coreset.save(tmp_path / "a")
    load_coreset(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nan_is_not_saved(coreset, tmp_path):
    points = coreset.points.clone()
    points[0] = float("inf")
    with pytest.raises(FileFormatError, match="48 values"):
        coreset.replace(points=points).save(tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_shapes_are_checked(coreset):
    with pytest.raises(ConfigError, match="6 labels"):
        coreset.replace(labels=torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"\(m, c, h, w\)"):
        coreset.replace(points=torch.zeros(6, 4))
    with pytest.raises(ConfigError, match="channels"):
        coreset.replace(mean=(0.5,))
