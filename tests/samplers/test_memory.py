"""A thousand samples of a 320,010-parameter network fit in 4 GiB."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from bpc.samplers import ExactGradient, SGHMCConfig, collect, sghmc
from bpc.seeding import ChainGenerators
torch.set_num_threads(1)
kernel = sghmc(ExactGradient(lambda x: -0.5 * x.square().sum(1)), SGHMCConfig(steps=1))
samples = collect(kernel, torch.zeros(1, 320_010), steps=1000, generators=ChainGenerators.from_seeds("cpu", [0]))
assert samples.shape == (1, 1000, 320_010) and samples.is_contiguous()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_a_thousand_samples_fit_in_4_gib():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2.5 * 2**30  # 1.2 GiB of samples, and torch
