"""The coreset file is self-describing: safetensors alone reads it."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bpc.coreset import Pseudocoreset, check_coreset, load_coreset
from bpc.errors import ConfigError, FileFormatError
from bpc.models import ConvNet, ConvNetConfig
from bpc.selection import build_coreset, unweighted


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


def test_weights_that_mean_nothing_are_refused(coreset):
    with pytest.raises(ConfigError, match="0 or more"):
        coreset.replace(weights=torch.tensor([-1.0, 2, 1, 1, 1, 1]))
    with pytest.raises(ConfigError, match="not all 0"):
        coreset.replace(weights=torch.zeros(6))


# What a file of somebody else's might hold: (change of tensors, change of metadata, a word of the error).
HOSTILE = {
    "path in method": ({}, {"method": "/../../PWN2"}, "its method"),
    "path in dataset": ({}, {"dataset": "../x"}, "its dataset"),
    "path in preset": ({}, {"preset": "a/b"}, "its preset"),
    "path in config_hash": ({}, {"config_hash": "../.."}, "its config_hash"),
    "no method": ({}, {"method": ""}, "its method"),
    "control characters": ({}, {"method": "f\x1b[31mkl"}, "its method"),
    "newline": ({}, {"dataset": "digits\nfake"}, "its dataset"),
    "seed is a word": ({}, {"seed": "one"}, "its seed"),
    "seed too large": ({}, {"seed": "9" * 19}, "its seed"),
    "classes is a word": ({}, {"num_classes": "many"}, "num_classes"),
    "classes missing": ({}, {"num_classes": None}, "num_classes"),
    "classes without end": ({}, {"num_classes": "9" * 15}, "num_classes"),
    "provenance is no JSON": ({}, {"provenance": "{"}, "not JSON"),
    "provenance is a list": ({}, {"provenance": "[1]"}, "JSON object"),
    "provenance nested without end": ({}, {"provenance": "[" * 100_000}, "not JSON"),
    "class names are numbers": ({}, {"provenance": '{"class_names": [1, 2, 3]}'}, "class_names"),
    "too few class names": ({}, {"provenance": '{"class_names": ["a"]}'}, "class_names"),
    "training is a list": ({}, {"provenance": '{"training": ["x"]}'}, "its training"),
    "augment is a number": ({}, {"provenance": '{"augment": 3}'}, "its augment"),
    "escape in a class name": ({}, {"provenance": '{"class_names": ["a", "b", "\\u001b[2J"]}'}, "control"),
    "labels are halves": ({"labels": torch.tensor([0.5, 0, 1, 1, 2, 2])}, {}, "whole numbers"),
    "label below 0": ({"labels": torch.tensor([-1, 0, 1, 1, 2, 2])}, {}, "labels run from -1"),
    "label nan": ({"labels": torch.full((6,), float("nan"))}, {}, "whole numbers"),
    "weight below 0": ({"weights": torch.tensor([-1.0, 2, 1, 1, 1, 1])}, {}, "0 or more"),
    "weights vanish": ({"weights": torch.zeros(6)}, {}, "not all 0"),
    "weight nan": ({"weights": torch.full((6,), float("nan"))}, {}, "weights hold NaN"),
    "whole weights": ({"weights": torch.ones(6, dtype=torch.int64)}, {}, "expected floats"),
    "images nan": ({"images": torch.full((6, 3, 4, 4), float("nan"))}, {}, "images hold NaN"),
    "images of another coreset": ({"images": torch.zeros(6, 3, 4, 4)}, {}, "differ by up to"),
    "images of another shape": ({"images": torch.zeros(6, 3, 4, 5)}, {}, "its images are"),
    "images missing": ({"images": None}, {}, "lacks the tensors images"),
    "std 0": ({"std": torch.zeros(3)}, {}, "std"),
    "std of another length": ({"std": torch.ones(2)}, {}, "channels"),
    "no points": ({"points": torch.zeros(0, 3, 4, 4)}, {}, "m > 0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(coreset, tmp_path, case):
    tensors, metadata, word = HOSTILE[case]
    coreset.save(tmp_path / "good")
    header = safe_open(tmp_path / "good", "pt").metadata()
    kept = {k: v for k, v in {**load_file(tmp_path / "good"), **tensors}.items() if v is not None}
    save_file(kept, tmp_path / "bad", {k: v for k, v in {**header, **metadata}.items() if v is not None})
    with pytest.raises(FileFormatError, match=word) as caught:
        load_coreset(tmp_path / "bad")
    message = str(caught.value)
    assert "bad" in message and not any(ord(c) < 32 for c in message) and len(message) < 600


def test_labels_may_be_stored_as_whole_floats(coreset, tmp_path):
    coreset.save(tmp_path / "good")
    header = safe_open(tmp_path / "good", "pt").metadata()
    tensors = load_file(tmp_path / "good")
    save_file({**tensors, "labels": tensors["labels"].float()}, tmp_path / "floats", header)
    assert torch.equal(load_coreset(tmp_path / "floats").labels, coreset.labels)


def test_a_coreset_has_to_fit_the_dataset_and_the_network(digits):
    net = ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)
    fitting = build_coreset(digits, unweighted(torch.arange(10)), method="random", seed=0)
    check_coreset(fitting, digits, net)
    with pytest.raises(ConfigError, match=r"images are \(3, 8, 8\)"):
        check_coreset(fitting.replace(points=torch.zeros(10, 3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3), digits, net)
    with pytest.raises(ConfigError, match="classes"):
        check_coreset(fitting.replace(num_classes=7), digits, net)
    with pytest.raises(ConfigError, match="normalised"):
        check_coreset(fitting.replace(mean=(0.0,)), digits, net)
