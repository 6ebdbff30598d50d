"""Figures of a comparison: what a saved predictive of somebody else's may and may not say."""

import pytest
import torch

from bpc.errors import FileFormatError
from bpc.files import save_tensors
from evaluation.predictive import PREDICTIVE_FORMAT
from evaluation.report import find_predictives

GOOD = {"dataset": "digits", "ipc": "1", "sampler": "hmc", "protocol": "kim2022", "method": "fkl"}
TENSORS = {"probs": torch.full((4, 2), 0.5), "labels": torch.tensor([0, 1, 0, 1])}


def write(folder, tensors=TENSORS, **changes):
    metadata = {k: v for k, v in {"format": PREDICTIVE_FORMAT, **GOOD, **changes}.items() if v is not None}
    save_tensors(folder / "predictive-fkl-hmc-kim2022-0.safetensors", tensors, metadata)


def test_a_good_one(tmp_path):
    write(tmp_path)
    assert list(find_predictives([tmp_path])) == [("digits", 1, "hmc", "kim2022")]


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "../../x"},
        {"sampler": "/etc/x"},
        {"protocol": ".."},
        {"method": "a/b"},
        {"ipc": "many"},
        {"dataset": None},
    ],
)
def test_names_of_files_are_checked(tmp_path, changes):
    """`compare` wrote reliability-<dataset>...png wherever the metadata led."""
    write(tmp_path, **changes)
    with pytest.raises(FileFormatError, match=r"predictive-.* is damaged"):
        find_predictives([tmp_path])


@pytest.mark.parametrize("tensors", [{"probs": TENSORS["probs"]}, {**TENSORS, "labels": torch.tensor([0, 9, 0, 1])}])
def test_tensors_that_do_not_fit(tmp_path, tensors):
    write(tmp_path, tensors)
    with pytest.raises(FileFormatError, match=r"predictive-.* is damaged"):
        find_predictives([tmp_path])
