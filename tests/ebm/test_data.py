"""Labelled and unlabelled parts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from latent import seeded, stripes, stripes_dataset

from bpc.data import Split
from bpc.ebm.data import batch_of, divide, pixels
from bpc.errors import ConfigError


def rows_of(split):
    """Each image as a number, so that a part can be found in the whole."""
    return [tuple(image.flatten().tolist()) for image in split.images]


def test_as_many_of_each_class_and_no_image_twice():
    dataset = stripes_dataset()
    data = divide(dataset, 12, seed=0)
    assert data.labelled.labels.bincount().tolist() == [4, 4, 4]
    assert (len(data.labelled), len(data.unlabelled)) == (12, 48)
    first, second = rows_of(data.labelled), rows_of(data.unlabelled)
    assert sorted(first + second) == sorted(rows_of(dataset.train))
    assert not set(first) & set(second)
    truth = dict(zip(rows_of(dataset.train), dataset.train.labels.tolist(), strict=True))
    for part in (data.labelled, data.unlabelled):
        assert [truth[row] for row in rows_of(part)] == part.labels.tolist()
    assert data.test is dataset.test
    assert (data.name, data.num_classes, data.image_shape) == ("stripes", 3, (1, 4, 4))


def test_the_seed_decides_and_nothing_else():
    dataset = stripes_dataset()
    torch.manual_seed(1)
    first = divide(dataset, 12, seed=0)
    torch.manual_seed(2)
    second, other = divide(dataset, 12, seed=0), divide(dataset, 12, seed=1)
    for a, b in ((first.labelled, second.labelled), (first.unlabelled, second.unlabelled)):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    assert set(rows_of(first.labelled)) != set(rows_of(other.labelled))


def test_fewer_labels_are_part_of_more():
    """So curves over the number of labels are of nested sets."""
    dataset = stripes_dataset()
    assert set(rows_of(divide(dataset, 6, seed=0).labelled)) < set(rows_of(divide(dataset, 12, seed=0).labelled))


def test_fewer_unlabelled_images():
    dataset = stripes_dataset()
    data, all_others = divide(dataset, 12, seed=0, unlabelled=10), divide(dataset, 12, seed=0)
    assert len(data.unlabelled) == 10
    assert set(rows_of(data.unlabelled)) < set(rows_of(all_others.unlabelled))
    assert rows_of(data.labelled) == rows_of(all_others.labelled)
    assert len(divide(dataset, 12, seed=0, unlabelled=48).unlabelled) == 48


@pytest.mark.parametrize("labelled", [0, 2, 10, -3])
def test_labels_are_a_multiple_of_the_classes(labelled):
    with pytest.raises(ConfigError, match=f"multiple of the 3 classes of stripes, at least 3; got {labelled}"):
        divide(stripes_dataset(), labelled, seed=0)


@pytest.mark.parametrize(("labelled", "unlabelled", "words"), [
    (57, 0, "training images of class .; 19 were asked for"),
    (12, 49, "48 images left for the unlabelled part; got 49"),
    (12, -1, "got -1"),
])  # fmt: skip
def test_more_than_there_are(labelled, unlabelled, words):
    dataset = stripes_dataset()
    assert int(dataset.train.labels.bincount().min()) < 19
    with pytest.raises(ConfigError, match=words):
        divide(dataset, labelled, seed=0, unlabelled=unlabelled)


def test_nothing_left_without_labels():
    labels = torch.arange(3).repeat(2)
    train = Split(images=torch.zeros(6, 1, 4, 4, dtype=torch.uint8), labels=labels)
    with pytest.raises(ConfigError, match="has 0 images left"):
        divide(dataclasses.replace(stripes_dataset(), train=train), 6, seed=0)


def test_pixels():
    found = pixels(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    assert found.dtype == torch.float32
    assert found.tolist() == [[0.0, pytest.approx(0.2), 1.0]]
    batch = torch.tensor([[7]], dtype=torch.uint8)
    pixels(batch)
    assert batch.item() == 7


def test_batches_are_drawn_with_replacement():
    split = stripes(5)
    x, y = batch_of(split, 400, seeded(1))
    assert x.shape == (400, 1, 4, 4) and float(x.min()) >= 0 and float(x.max()) <= 1
    shades = [tuple((row.flatten() * 255).round().int().tolist()) for row in x]
    truth = dict(zip(rows_of(split), split.labels.tolist(), strict=True))
    assert [truth[row] for row in shades] == y.tolist()
    counts = [shades.count(row) for row in truth]
    assert min(counts) > 80 - 4 * 8 and max(counts) < 80 + 4 * 8  # binomial: standard deviation 8
    again = batch_of(split, 400, seeded(1))
    assert torch.equal(again[0], x) and torch.equal(again[1], y)


def test_to_a_device():
    data = divide(stripes_dataset(), 6, seed=0).to("cpu")
    assert data.labelled.images.dtype == torch.uint8
    assert len(data.unlabelled) == 54
