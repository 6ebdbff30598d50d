"""The estimate is linear in inner steps and draws: exact for a clock that is."""

import pytest
import torch

import bpc.estimate as module
from bpc.divergences import ExpertWindow, ForwardKL, ForwardKLConfig, LearnedCoreset, Wasserstein, WassersteinConfig
from bpc.likelihood import LinearRegression

COST = {"fixed": 5.0, "step": 2.0, "draw": 7.0}


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        (ForwardKL, ForwardKLConfig(inner_steps=30, samples=11), 5.0 + 2.0 * 30 + 7.0 * 11),
        (Wasserstein, WassersteinConfig(inner_steps=50), 5.0 + 2.0 * 50),
    ],
)
def test_a_linear_cost_is_found(monkeypatch, kind, config, expected):
    now = [0.0]

    def gradient(self, *args):
        now[0] += (
            COST["fixed"] + COST["step"] * self.config.inner_steps + COST["draw"] * getattr(self.config, "samples", 0)
        )

    monkeypatch.setattr(kind, "gradient", gradient)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    coreset = LearnedCoreset(torch.zeros(2, 3), torch.zeros(2), torch.ones(2))
    window = ExpertWindow(torch.zeros(2, 2))
    assert module.step_seconds(kind(LinearRegression(), config), coreset, window, None) == pytest.approx(expected)


def test_a_divergence_of_one_s_own_is_not_guessed_at():
    class Own:
        needs_real, expert_epochs = False, 1

    coreset = LearnedCoreset(torch.zeros(2, 3), torch.zeros(2), torch.ones(2))
    assert module.step_seconds(Own(), coreset, ExpertWindow(torch.zeros(2, 2)), None) is None
