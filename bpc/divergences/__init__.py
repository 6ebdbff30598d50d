"""Divergences between the posteriors of a coreset and of the full data, each known by its gradient."""

from bpc.divergences.base import (
    REDUCTION,
    CoresetGradient,
    Divergence,
    ExpertWindow,
    Extra,
    LearnedCoreset,
    RealBatch,
    Reduction,
    no_experts,
)
from bpc.divergences.covariance import covariance_surrogate, posterior_residual
from bpc.divergences.forward_kl import ForwardKL, ForwardKLConfig, forward_kl_gradient
from bpc.divergences.path_settings import PathSettings
from bpc.divergences.record import DIVERGENCES, OPTIMIZERS, DistillPreset, DivergenceRecord
from bpc.divergences.reverse_kl import ReverseKL, ReverseKLConfig, reverse_kl_gradient
from bpc.divergences.rkl_path import RKLPath, RKLPathConfig
from bpc.divergences.wasserstein import Wasserstein, WassersteinConfig, wasserstein_gradient, wasserstein_loss

__all__ = [
    "DIVERGENCES",
    "OPTIMIZERS",
    "REDUCTION",
    "CoresetGradient",
    "DistillPreset",
    "Divergence",
    "DivergenceRecord",
    "ExpertWindow",
    "Extra",
    "ForwardKL",
    "ForwardKLConfig",
    "LearnedCoreset",
    "PathSettings",
    "RKLPath",
    "RKLPathConfig",
    "RealBatch",
    "Reduction",
    "ReverseKL",
    "ReverseKLConfig",
    "Wasserstein",
    "WassersteinConfig",
    "covariance_surrogate",
    "forward_kl_gradient",
    "no_experts",
    "posterior_residual",
    "reverse_kl_gradient",
    "wasserstein_gradient",
    "wasserstein_loss",
]
