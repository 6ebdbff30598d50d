"""Draws of a 320,010-parameter network are streamed: memory does not grow with their number."""

import subprocess
import sys

import pytest
from cli import ROOT

SCRIPT = """
import resource, torch
from bpc.samplers import ExactGradient, SGHMCConfig, sghmc
from evaluation.chains import run_chains
from evaluation.protocols import ChainPlan

class Mean:
    total, count = torch.zeros(1, 320_010), 0

    def add(self, state, info):
        self.total += state.params
        self.count += 1

    def state(self):
        return {}

torch.set_num_threads(1)
kernel = sghmc(ExactGradient(lambda x: -0.5 * x.square().sum(1)), SGHMCConfig(steps=1))
recorder = Mean()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run_chains(
    ChainPlan(kernel, lambda noise: noise, 300, 0),
    recorder, seeds=[0], num_params=320_010, device=torch.device("cpu"), checkpoint=None,
    checkpoint_seconds=1e9, config_hash="", report=lambda done, note: None,
)
assert recorder.count == 300
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
def test_many_draws_need_no_more_than_a_few():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 100 * 2**20  # kept, they would be 366 MiB
