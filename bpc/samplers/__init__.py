"""Samplers: (init, step) kernels over k chains on the leading axis."""

from bpc.samplers.adaptation import (
    AdaptiveState,
    DualAveraging,
    WarmupConfig,
    adaptive_hmc,
    dual_averaging_init,
    dual_averaging_update,
    warmed_up,
)
from bpc.samplers.base import Kernel, LogDensity, collect, run, state_from_tensors, state_to_tensors, value_and_grad
from bpc.samplers.hmc import HMCConfig, HMCInfo, HMCState, hmc, leapfrog
from bpc.samplers.kim2022 import (
    ASGHMCConfig,
    ASGHMCState,
    Kim2022HMCConfig,
    Kim2022HMCState,
    Kim2022Info,
    asghmc,
    kim2022_hmc,
)
from bpc.samplers.langevin import LangevinConfig, LangevinInfo, LangevinState, langevin
from bpc.samplers.nuts import NUTSConfig, NUTSInfo, nuts
from bpc.samplers.sghmc import (
    ExactGradient,
    GradientEstimator,
    NoisyDensity,
    SGHMCConfig,
    SGHMCInfo,
    SGHMCState,
    sghmc,
)

__all__ = [
    "ASGHMCConfig",
    "ASGHMCState",
    "AdaptiveState",
    "DualAveraging",
    "ExactGradient",
    "GradientEstimator",
    "HMCConfig",
    "HMCInfo",
    "HMCState",
    "Kernel",
    "Kim2022HMCConfig",
    "Kim2022HMCState",
    "Kim2022Info",
    "LangevinConfig",
    "LangevinInfo",
    "LangevinState",
    "LogDensity",
    "NUTSConfig",
    "NUTSInfo",
    "NoisyDensity",
    "SGHMCConfig",
    "SGHMCInfo",
    "SGHMCState",
    "WarmupConfig",
    "adaptive_hmc",
    "asghmc",
    "collect",
    "dual_averaging_init",
    "dual_averaging_update",
    "hmc",
    "kim2022_hmc",
    "langevin",
    "leapfrog",
    "nuts",
    "run",
    "sghmc",
    "state_from_tensors",
    "state_to_tensors",
    "value_and_grad",
    "warmed_up",
]
