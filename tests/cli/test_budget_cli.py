"""--memory-budget and the estimate before a long run."""

import pytest
import torch
from cli import EXPERTS, one_line_error

from bpc.coreset import load_coreset


@pytest.mark.parametrize("divergence", ["fkl", "wasserstein", "rkl"])
def test_a_small_budget_gives_the_same_coreset(place, divergence):
    common = ["distill", *EXPERTS, "--divergence", divergence, "--ipc", "2", "--steps", "2", "--no-evaluate"]
    learned = []
    for name, budget in (("whole", "1"), ("pieces", "1e-5")):  # 1e-5 GiB: a few images at a time
        place(*common, "--memory-budget", budget, "--out", name, check=0)
        learned.append(load_coreset(place.path / name / "coreset.safetensors").points)
    assert not torch.equal(*learned)  # other pieces, other rounding: the budget has been obeyed
    torch.testing.assert_close(*learned, rtol=1e-3, atol=1e-4)
    one_line_error(place(*common, "--memory-budget", "0", "--out", "none"), "--memory-budget", "above 0")
    assert not (place.path / "none").exists()


def test_a_long_run_begins_with_an_estimate(place):
    process = place.start(
        "distill", *EXPERTS, "--divergence", "fkl", "--ipc", "1", "--steps", "2", "--no-evaluate", "--out", "short"
    )
    assert process.wait(timeout=120) == 0
    long = [
        "distill",
        *EXPERTS,
        "--divergence",
        "fkl",
        "--ipc",
        "1",
        "--steps",
        "1000000",
        "--no-evaluate",
        "--out",
        "long",
    ]
    said = place.until(*long, line="About")
    assert "s per step here" in said
    assert "for 1,000,000 steps" in said
