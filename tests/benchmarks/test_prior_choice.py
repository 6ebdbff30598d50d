"""The script that compares priors, on a problem of a second."""

import dataclasses

import torch

from benchmarks.prior_choice import held_out
from bpc.models import ConvNet, ConvNetConfig
from bpc.samplers import ExactSettings


def test_what_is_asked_are_the_images_left_out(digits):
    network = ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)
    data = dataclasses.replace(
        digits, train=digits.train.take(torch.arange(40)), test=digits.train.take(torch.arange(40, 70))
    )
    settings = ExactSettings(chains=2, warmup=5, samples=6, leapfrog_steps=2, prior="fan-in", prior_std=2.0)
    found = held_out(network, data, settings, seed=0)
    assert (found["train"], found["held_out"], found["prior"], found["scale"]) == (40, 30, "fan-in", 2.0)
    assert 0 < found["nll"] <= sum(found["nll_of_each_chain"]) / 2  # the log of a mean is above the mean of logs
    assert len(found["ce_train_last"]) == 2 and found["tv_halves"] > 0
