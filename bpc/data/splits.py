"""Fixed stratified splits, and channel statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["channel_statistics", "share_out", "stratified_split"]

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


def share_out(counts: Sequence[int], total: int) -> list[int]:
    """Divide `total` among classes in proportion to `counts`, by largest remainder."""
    whole = sum(counts)
    shares = [total * count // whole for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda y: (-(total * counts[y] % whole), y))
    for y in by_remainder[: total - sum(shares)]:
        shares[y] += 1
    return shares


def stratified_split(labels: Int64Array, test_counts: Sequence[int], seed: int) -> tuple[Int64Array, Int64Array]:
    """Draw `test_counts[y]` examples of each class y for the test split.

    The legacy generator is used because numpy guarantees that its stream never changes.

    Returns:
        The indices of the training and of the test examples, both increasing.
    """
    random = np.random.RandomState(seed)
    in_test = np.zeros(len(labels), dtype=bool)
    for y, count in enumerate(test_counts):
        members = np.flatnonzero(labels == y)
        in_test[random.permutation(members)[:count]] = True
    return np.flatnonzero(~in_test).astype(np.int64), np.flatnonzero(in_test).astype(np.int64)


def channel_statistics(images: UInt8Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (n, c, h, w), on pixels in [0, 1].

    Computed from exact integer counts, so the result does not depend on the order of the images. A constant
    channel gets standard deviation 1, since images are divided by it.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), 1024):
        for c in range(channels):
            counts[c] += np.bincount(images[start : start + 1024, c].reshape(-1), minlength=256)
    values = np.arange(256) / 255.0
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    std = np.where(std > 1e-6, std, 1.0)
    return tuple(float(m) for m in mean), tuple(float(s) for s in std)
