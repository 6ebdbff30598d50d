"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores already


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where real datasets are: BPC_DATA_ROOT, else ../shared/data beside the checkout; skips without them."""
    root = Path(os.environ.get("BPC_DATA_ROOT") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no real datasets at {root}; set BPC_DATA_ROOT to run this test")
    return root


@pytest.fixture(scope="session")
def digits():
    """The embedded dataset."""
    from bpc.data import load_dataset

    return load_dataset("digits")
