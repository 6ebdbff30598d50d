"""Divergences between the posteriors of a coreset and of the full data, each known by its gradient."""

from bpc.divergences.base import CoresetGradient, Divergence, ExpertWindow, LearnedCoreset, RealBatch
from bpc.divergences.covariance import covariance_gradient, covariance_surrogate, posterior_residual
from bpc.divergences.forward_kl import ForwardKL, ForwardKLConfig, forward_kl_gradient
from bpc.divergences.reverse_kl import ReverseKL, ReverseKLConfig, reverse_kl_gradient
from bpc.divergences.wasserstein import Wasserstein, WassersteinConfig, wasserstein_loss

__all__ = [
    "CoresetGradient",
    "Divergence",
    "ExpertWindow",
    "ForwardKL",
    "ForwardKLConfig",
    "LearnedCoreset",
    "RealBatch",
    "ReverseKL",
    "ReverseKLConfig",
    "Wasserstein",
    "WassersteinConfig",
    "covariance_gradient",
    "covariance_surrogate",
    "forward_kl_gradient",
    "posterior_residual",
    "reverse_kl_gradient",
    "wasserstein_loss",
]
