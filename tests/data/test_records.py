"""Datasets by their records: what the commands take from them, and a new one in one line."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bpc.augment import parse_strategy
from bpc.data import (
    DATASETS,
    UNLABELLED,
    Dataset,
    DatasetRecord,
    DefaultSettings,
    default_settings,
    describe_datasets,
    load_dataset,
)
from bpc.errors import ConfigError


def test_defaults_are_the_datasets_own() -> None:
    digits = default_settings("digits")
    assert (digits.width, digits.depth, digits.augment, digits.preset) == (32, 2, "none", "digits")
    assert (digits.expert_lr, digits.expert_batch, digits.epochs, digits.num_experts) == (0.05, 64, 6, 10)
    assert default_settings("imagenette") == DefaultSettings(depth=5)
    assert [default_settings(name).components for name in ("omniglot", "celeba", "mnist")] == [1000, 240, 500]
    assert {name for name in DATASETS.names() if default_settings(name).ssl_preset == "pooladzandi2022"} == {
        "cifar10",
        "cifar100",
        "svhn",
    }
    assert default_settings("/some/folder/of/images") == DefaultSettings()


@pytest.mark.parametrize("name", [*DATASETS.names(), *UNLABELLED.names()])
def test_defaults_can_be_used(name: str) -> None:
    for strategy in (default_settings(name).augment, default_settings(name).sampler_augment):
        parse_strategy(strategy)  # refuses what it does not know


def test_a_new_dataset_is_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_dataset("digits")

    def read() -> Dataset:
        return dataclasses.replace(digits, name="upside-down", train=flipped(digits.train), test=flipped(digits.test))

    def flipped(split: object) -> object:
        return dataclasses.replace(split, images=split.images.flip(2))  # type: ignore[type-var,attr-defined]

    monkeypatch.setattr(DATASETS, "_records", dict(DATASETS._records))
    DATASETS.register(DatasetRecord(name="upside-down", read=read, source=None, defaults=DefaultSettings(width=8)))
    assert torch.equal(load_dataset("upside-down").train.images.flip(2), digits.train.images)
    assert default_settings("upside-down").width == 8
    assert "upside-down" in [row.name for row in describe_datasets()]
    with pytest.raises(ConfigError, match="Did you mean 'upside-down'"):
        load_dataset("upside-dwn")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="There is a dataset 'digits' already"):
        DATASETS.register(DatasetRecord(name="digits", read=load_dataset, source=None))
