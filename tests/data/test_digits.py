"""The embedded digits, and how a validation split is held out."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from bpc.data import load_dataset
from bpc.data.splits import channel_statistics, share_out, stratified_split
from bpc.errors import ConfigError


def test_digits_are_always_the_same() -> None:
    dataset = load_dataset("digits")
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (1297, 500, (1, 8, 8))
    assert int(dataset.train.images.max()) == 255 and int(dataset.train.images.min()) == 0
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    assert digest.hexdigest()[:16] == "6f9f4425156baf95"
    assert min(dataset.test.labels.bincount()) >= 48 and max(dataset.test.labels.bincount()) <= 51


def test_digits_rescaling_is_exact() -> None:
    images = load_dataset("digits").train.images.numpy()
    assert np.unique(images).tolist() == [int(level * 255 / 16 + 0.5) for level in range(17)]


def test_hold_out_is_stratified_and_repeatable() -> None:
    whole = load_dataset("digits")
    one, same, other = (load_dataset("digits", validation_fraction=0.1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.test.images, same.test.images)
    assert not torch.equal(one.test.labels, other.test.labels) or not torch.equal(one.test.images, other.test.images)
    assert len(one.train) + len(one.test) == len(whole.train)
    counts = whole.train.labels.bincount()
    assert one.test.labels.bincount().tolist() == [round(0.1 * int(count)) for count in counts]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_bad_validation_fraction(fraction: float) -> None:
    with pytest.raises(ConfigError, match="validation fraction"):
        load_dataset("digits", validation_fraction=fraction)


def test_share_out_adds_up() -> None:
    assert share_out([178, 182, 177, 183, 181, 182, 181, 179, 174, 180], 500) == [
        *(50, 51, 49, 51, 50, 51, 50, 50, 48, 50)
    ]
    assert share_out([1, 1, 1], 2) == [1, 1, 0]


def test_stratified_split_covers_everything_once() -> None:
    labels = np.array([0, 1, 2] * 10)
    train, test = stratified_split(labels, [2, 3, 4], seed=0)
    assert sorted([*train, *test]) == list(range(30))
    assert np.bincount(labels[test]).tolist() == [2, 3, 4]


def test_channel_statistics() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2050, 3, 2, 3), dtype=np.uint8)
    images[:, 2] = 51
    mean, std = channel_statistics(images)
    pixels = images / 255.0
    assert mean == pytest.approx(pixels.mean(axis=(0, 2, 3)))
    assert std[:2] == pytest.approx(pixels.std(axis=(0, 2, 3))[:2])
    assert std[2] == 1.0
