"""Which prior of the weights predicts held-out images best? Full-batch HMC on digits, a fifth of the training images held out.

    OMP_NUM_THREADS=1 python benchmarks/prior_choice.py isotropic:1 fan-in:1

One line of JSON for each prior: held-out log predictive density (nll is its negative), and whether the chains have mixed. The
test set is never looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bpc.data import Dataset, load_dataset
from bpc.models import ConvNet, ConvNetConfig, Network
from bpc.samplers import ExactSettings
from evaluation.diagnostics import diagnose, halves_apart
from evaluation.exact_chains import TRACKED, sample_posterior
from evaluation.inference_data import to_inference_data
from evaluation.inputs import Inputs
from evaluation.metrics import compute, empty_sums, update
from evaluation.predictive import pick_images
from evaluation.protocols import exact_posterior


def held_out(network: Network, data: Dataset, settings: ExactSettings, seed: int) -> dict[str, Any]:
    """The posterior of `data.train`, asked about `data.test`, which holds the images that were left out of training."""
    ones = torch.ones(len(data.train))
    posterior = exact_posterior(network, data.normalise(data.train.images), data.train.labels, ones, settings)
    began = time.monotonic()
    (result,) = sample_posterior(
        network,
        data,
        posterior,
        settings,
        seeds=[seed],
        inputs=[Inputs("held out", data.test)],
        tracked=pick_images(data.test, TRACKED),
    )
    traces, probs = result.traces, result.probs["held out"].double()
    found = diagnose(to_inference_data(log_density=traces.log_density, predictions=traces.prediction))
    pooled = compute(update(empty_sums(), probs.mean(0), data.test.labels))
    alone = compute(update(empty_sums((len(probs),)), probs, data.test.labels))
    apart, error = halves_apart(result.halves)
    return {
        "prior": settings.prior,
        "scale": settings.prior_std,
        "train": len(data.train),
        "held_out": len(data.test),
        **{name: round(float(pooled[name]), 4) for name in ("nll", "accuracy", "ece")},
        "nll_of_each_chain": [round(float(nll), 3) for nll in alone["nll"]],
        "ce_train_last": [round(float(ce), 3) for ce in traces.cross_entropy[:, -1]],
        "rhat_predictions": round(found.rhat_predictions, 3),
        "ess_bulk_predictions": round(found.ess_bulk_predictions, 1),
        "tv_halves": round(apart, 4),
        "tv_halves_error": round(error, 4),
        "acceptance": round(float(traces.accept_prob.mean()), 3),
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    """One line for each prior named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("priors", nargs="+", help="NAME:SCALE")
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--leapfrog-steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("digits", validation_fraction=0.2)
    network = ConvNet(ConvNetConfig(width=8, depth=2), data.image_shape, data.num_classes)
    for prior in args.priors:
        name, _, scale = prior.partition(":")
        settings = ExactSettings(
            chains=args.chains,
            warmup=args.warmup,
            samples=args.samples,
            leapfrog_steps=args.leapfrog_steps,
            prior=name,
            prior_std=float(scale),
            mass="prior",
            pool_step=True,
            step_size=0.01,
        )
        print(json.dumps(held_out(network, data, settings, args.seed)), flush=True)


if __name__ == "__main__":
    main()
