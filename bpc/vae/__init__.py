"""VAEs whose prior is a mixture: models, priors as objects, the bound, importance sampling, training."""

from bpc.vae.bound import Bound, active_units, elbo, log_likelihood
from bpc.vae.likelihoods import LIKELIHOODS, make_likelihood
from bpc.vae.models import MODELS, LatentModel, ModelConfig, build_model
from bpc.vae.priors import PRIORS, Prior, PriorConfig, build_prior
from bpc.vae.train import EpochRecord, TrainConfig, TrainState, train

__all__ = [
    "LIKELIHOODS",
    "MODELS",
    "PRIORS",
    "Bound",
    "EpochRecord",
    "LatentModel",
    "ModelConfig",
    "Prior",
    "PriorConfig",
    "TrainConfig",
    "TrainState",
    "active_units",
    "build_model",
    "build_prior",
    "elbo",
    "log_likelihood",
    "make_likelihood",
    "train",
]
