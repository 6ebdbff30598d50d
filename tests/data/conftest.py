"""Fixtures of the data tests: the real files, a cache of their own, and writers of the official formats."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def data_root() -> Path:
    """The folder of real data, from BPC_DATA_ROOT or beside the repository; skips when there is none."""
    chosen = os.environ.get("BPC_DATA_ROOT")
    root = Path(chosen) if chosen else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real data: {root} does not exist; set BPC_DATA_ROOT")
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache, and no data root in the environment."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BPC_CACHE", str(folder))
    monkeypatch.delenv("BPC_DATA_ROOT", raising=False)
    return folder
