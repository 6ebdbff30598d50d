"""What tests of an evaluation start from: short settings and a coreset of random images."""

import torch

from bpc.coreset import Pseudocoreset
from bpc.runs import Run
from bpc.seeding import make_generator
from bpc.selection import build_coreset, select
from evaluation.exact_chains import ExactConfig
from evaluation.protocols import ExactSettings

SHORT = ExactSettings(chains=2, warmup=6, samples=8, leapfrog_steps=2)


def random_coreset(digits, seed) -> Pseudocoreset:
    index = select("random", digits.train.labels, 1, 10, generator=make_generator("cpu", seed))
    return build_coreset(digits, index, method="random", seed=seed)


def open_run(path, job="evaluate"):
    return Run(path, job, {"a": 1}, torch.device("cpu"))


def config(protocol="exact", **changes):
    return ExactConfig(protocol=protocol, settings=SHORT.__class__(**{**SHORT.__dict__, **changes}), test_images=40)
