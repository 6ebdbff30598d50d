"""Samplers: (init, step) kernels over k chains on the leading axis."""

from bpc.samplers.adaptation import (
    AdaptiveState,
    DualAveraging,
    adaptive_hmc,
    dual_averaging_init,
    dual_averaging_update,
)
from bpc.samplers.base import Kernel, LogDensity, run, state_from_tensors, state_to_tensors, value_and_grad
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

__all__ = [
    "ASGHMCConfig",
    "ASGHMCState",
    "AdaptiveState",
    "DualAveraging",
    "HMCConfig",
    "HMCInfo",
    "HMCState",
    "Kernel",
    "Kim2022HMCConfig",
    "Kim2022HMCState",
    "Kim2022Info",
    "LogDensity",
    "adaptive_hmc",
    "asghmc",
    "dual_averaging_init",
    "dual_averaging_update",
    "hmc",
    "kim2022_hmc",
    "leapfrog",
    "run",
    "state_from_tensors",
    "state_to_tensors",
    "value_and_grad",
]
