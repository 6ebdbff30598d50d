"""Fixtures of the data tests: a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache, and no data root in the environment."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BPC_CACHE", str(folder))
    monkeypatch.delenv("BPC_DATA_ROOT", raising=False)
    return folder
