"""The 1,797 handwritten digits that scikit-learn carries: nothing to download."""

from __future__ import annotations

import numpy as np
import torch

from bpc.data.dataset import Dataset, Split
from bpc.data.records import DATASETS, DatasetRecord, DefaultSettings
from bpc.data.splits import channel_statistics, share_out, stratified_split

__all__ = ["load_digits"]

TEST_IMAGES = 500


def load_digits() -> Dataset:
    """Digits 0-9 as images (1, 8, 8): 1,297 to train and 500 to test, always the same ones.

    The pixels 0..16 are rescaled to 0..255 and rounded.
    """
    from sklearn import datasets  # takes a second to import, so only who asks for digits pays

    bunch = datasets.load_digits()
    levels = np.asarray(bunch.images).astype(np.int64)
    labels = np.asarray(bunch.target).astype(np.int64)
    images = ((levels * 255 + 8) // 16).astype(np.uint8)[:, None]
    counts = np.bincount(labels, minlength=10).tolist()
    train, test = stratified_split(labels, share_out(counts, TEST_IMAGES), seed=0)
    mean, std = channel_statistics(images[train])
    return Dataset(
        name="digits",
        train=Split(images=torch.from_numpy(images[train]), labels=torch.from_numpy(labels[train])),
        test=Split(images=torch.from_numpy(images[test]), labels=torch.from_numpy(labels[test])),
        mean=mean,
        std=std,
        class_names=tuple(str(y) for y in range(10)),
    )


DATASETS.register(
    DatasetRecord(
        name="digits",
        read=load_digits,
        source=None,
        defaults=DefaultSettings(
            width=32,
            depth=2,
            augment="none",
            sampler_augment="crop_scale_rotate",
            expert_lr=0.05,
            expert_batch=64,
            epochs=6,
            num_experts=10,
            preset="digits",
            ssl_preset="digits",
            components=100,
            likelihood="bernoulli",
        ),
    )
)
