"""Fixtures of the data tests: a cache of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bpc.data import frost


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache, and no data root in the environment."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BPC_CACHE", str(folder))
    monkeypatch.delenv("BPC_DATA_ROOT", raising=False)
    return folder


@pytest.fixture
def reference(data_root: Path):
    """(clean images, corruption -> (5, 50, 3, 32, 32)): the first 50 test images."""
    folder = data_root / "CIFAR-10-C"
    if not folder.is_dir():
        pytest.skip(f"no CIFAR-10-C in {data_root}")
    records = np.fromfile(data_root / "cifar-10-batches-bin" / "test_batch.bin", np.uint8).reshape(-1, 3073)
    n = len(np.load(folder / "labels.npy")) // 5
    clean = torch.from_numpy(records[:n, 1:].reshape(-1, 3, 32, 32).copy())

    def load(corruption):
        files = np.load(folder / f"{corruption}.npy").transpose(0, 3, 1, 2)
        return torch.from_numpy(files.reshape(5, n, 3, 32, 32).copy())

    frost.use_frost_of(data_root)
    return clean, load
