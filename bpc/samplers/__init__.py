"""Samplers: (init, step) kernels over k chains on the leading axis."""

from bpc.samplers.adaptation import (
    AdaptiveState,
    DualAveraging,
    WarmupConfig,
    dual_averaging_init,
    dual_averaging_update,
    warmed_up,
)
from bpc.samplers.base import Kernel, LogDensity, run, state_from_tensors, state_to_tensors, value_and_grad
from bpc.samplers.cyclical import CycleConfig, CyclicalInfo, CyclicalState, cyclical_sghmc
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
from bpc.samplers.record import (
    BACKENDS,
    EXACT_SAMPLERS,
    KIM2022_SAMPLERS,
    ExactSampler,
    ExactSettings,
    Kim2022Sampler,
)
from bpc.samplers.sghmc import (
    ExactGradient,
    GradientEstimator,
    SGHMCConfig,
    SGHMCInfo,
    SGHMCState,
    sghmc,
)
from bpc.samplers.smc import SMCConfig, SMCInfo, SMCState, smc
from bpc.samplers.tempering import TemperingConfig, TemperingInfo, TemperingState, parallel_tempering

__all__ = [
    "BACKENDS",
    "EXACT_SAMPLERS",
    "KIM2022_SAMPLERS",
    "ASGHMCConfig",
    "ASGHMCState",
    "AdaptiveState",
    "CycleConfig",
    "CyclicalInfo",
    "CyclicalState",
    "DualAveraging",
    "ExactGradient",
    "ExactSampler",
    "ExactSettings",
    "GradientEstimator",
    "HMCConfig",
    "HMCInfo",
    "HMCState",
    "Kernel",
    "Kim2022HMCConfig",
    "Kim2022HMCState",
    "Kim2022Info",
    "Kim2022Sampler",
    "LangevinConfig",
    "LangevinInfo",
    "LangevinState",
    "LogDensity",
    "NUTSConfig",
    "NUTSInfo",
    "SGHMCConfig",
    "SGHMCInfo",
    "SGHMCState",
    "SMCConfig",
    "SMCInfo",
    "SMCState",
    "TemperingConfig",
    "TemperingInfo",
    "TemperingState",
    "WarmupConfig",
    "asghmc",
    "cyclical_sghmc",
    "dual_averaging_init",
    "dual_averaging_update",
    "hmc",
    "kim2022_hmc",
    "langevin",
    "leapfrog",
    "nuts",
    "parallel_tempering",
    "run",
    "sghmc",
    "smc",
    "state_from_tensors",
    "state_to_tensors",
    "value_and_grad",
    "warmed_up",
]
