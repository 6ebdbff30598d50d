"""A Bayesian coreset of a regression whose posterior is known, so that its KL divergence is exact (some seconds).

    python examples/regression_coreset.py

442 patients, 11 parameters (scikit-learn's diabetes data). 20 weighted points are learned under the reverse KL, as Manousakas et
al. (2020) do: the gradient is a covariance over draws of the coreset's own posterior, and needs no integral.
"""

import torch

from bpc.divergences import LearnedCoreset
from evaluation.studies.learning import descend, unlabelled
from evaluation.studies.linear import LinearModel
from evaluation.studies.normal import draw, kl
from evaluation.studies.regression import diabetes_data, random_subset

POINTS, DRAWS, STEPS = 20, 256, 800

data, noise_std = diabetes_data()  # (442, 11): ten features and the response, standardised
model = LinearModel(noise_std, prior_std=1.0)
full = model.posterior(data, torch.ones(len(data), dtype=data.dtype))  # a Gaussian, in closed form


def gradient(coreset: LearnedCoreset, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Of KL(coreset‖full) by points and by weights, estimated."""
    core = model.posterior(coreset.points, coreset.weights)
    return model.gradient(coreset, data, draw(core, DRAWS, generator))


# learning starts at a random subset, each point of which stands for 442 / 20 patients
weights = torch.full((POINTS,), len(data) / POINTS, dtype=data.dtype)
coreset = unlabelled(data[random_subset(len(data), POINTS, seed=0)], weights)
path = descend(coreset, gradient, steps=STEPS, lr_points=0.03, lr_weights=0.03, seed=0)
for step, coreset in enumerate(path):
    if step % 100 == 0:
        divergence = kl(model.posterior(coreset.points, coreset.weights), full)
        print(f"step {step:3d}: KL(coreset‖full) = {divergence:.4f} nats")

# what the coreset says of the coefficients, beside the truth
core = model.posterior(coreset.points, coreset.weights)
mean_off = ((core.mean - full.mean) / full.covariance.diagonal().sqrt()).abs().max()
print(f"No coefficient's mean is further from the full data's than {mean_off:.3f} of its standard deviations.")
print(f"{POINTS} points, total weight {coreset.weights.sum():.0f}, stand in for {len(data)} patients.")
