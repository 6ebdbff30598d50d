"""Pyro and hamiltorch on our log density objects, beside our own kernels; neither is imported until asked."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType

from torch import Tensor

from bpc.errors import ConfigError, unknown_name
from bpc.samplers.backends.base import BackendSettings, ChainDraws, Counted, Density, isolated_randomness

__all__ = [
    "INSTALL",
    "BackendSettings",
    "ChainDraws",
    "Counted",
    "Density",
    "available",
    "isolated_randomness",
    "sample",
]

INSTALL = {
    "pyro": "pip install pyro-ppl",
    "hamiltorch": 'pip install "hamiltorch @ git+https://github.com/AdamCobb/hamiltorch@19b627b"',
}


def available(backend: str) -> bool:
    """Whether the backend's package is here."""
    try:
        _module(backend)
    except ConfigError:
        return False
    return True


def sample(
    backend: str,
    densities: Sequence[Density],
    initial: Tensor,
    settings: BackendSettings,
    *,
    seeds: Sequence[int],
    report: Callable[[int, str], None] = lambda done, note: None,
) -> ChainDraws:
    """Sample k chains, one after the other; the global random state is left as it was.

    Args:
        backend: a name of `INSTALL`.
        densities: one for each chain, on (1, p).
        initial: (k, p).
        settings: sampler and lengths.
        seeds: one per chain.
        report: called with the iterations done (of all chains) and a note.

    Raises:
        ConfigError: an unknown backend, a package that is missing, or a sampler that the backend does not have.
    """
    if len(seeds) != len(initial):
        raise ConfigError(f"{len(seeds)} seeds for {len(initial)} chains; expected one each.")
    if len(densities) != len(initial):
        raise ConfigError(f"{len(densities)} densities for {len(initial)} chains; expected one each.")
    module = _module(backend)
    with isolated_randomness():
        draws: ChainDraws = module.sample(densities, initial, settings, seeds, report)
    return draws


def _module(backend: str) -> ModuleType:
    if backend not in INSTALL:
        raise unknown_name("backend", backend, tuple(INSTALL))
    try:
        with isolated_randomness():  # hamiltorch seeds every global generator from the clock when it is imported
            return importlib.import_module(f"bpc.samplers.backends.{backend}_backend")
    except ImportError as error:
        raise ConfigError(f"The backend {backend} is not installed ({error}); {INSTALL[backend]}.") from None
