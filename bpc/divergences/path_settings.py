"""What reverse KL by paths needs to know of the flow that it differentiates: a part of its preset."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bpc.errors import ConfigError, unknown_name
from bpc.samplers.kim2022_presets import KIM2022_PROTOCOLS, SamplingPreset, for_network

__all__ = ["EXACT_STEP", "OBJECTIVES", "PATH_PROTOCOLS", "PathSettings"]

PATH_PROTOCOLS = (*KIM2022_PROTOCOLS, "exact")
EXACT_STEP = 0.05  # leapfrog step in units of the prior's width
OBJECTIVES = ("expected", "predictive")


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """Which chains, and which part of them is differentiated.

    Attributes:
        sampling: the chain: iterations, leapfrogs, step size, momentum, start, penalty. With ``exact``, `init_scale` is the
            prior's standard deviation, `step_size` is in units of it and the mass is the prior's precision; momentum scale and
            penalty have no meaning.
        protocol: potential, length and start: ``kim2022`` and its siblings as in scoring, or ``exact``: sum_m w_m
            log p(u_m | theta) + log N(theta; 0, init_scale^2), from the prior.
        chains: k, run side by side from noise of their own; their losses are averaged.
        window: leapfrogs that are differentiated, at most; 0 is the whole way.
        first_end: the loss is taken at the end of an iteration drawn anew at every step, of number `first_end` or later; 0 takes
            those that the protocol scores (after burn-in).
        late: iterations whose ends are scored together, the drawn one and those before it.
        objective: ``expected`` is E[log p(x | theta)], the reverse KL's; ``predictive`` is log E[p(x | theta)] over the
            `late` states of a chain, which is what scores are made of; the same where `late` is 1.
        antithetic: every other chain starts, and is kicked, by the noise of the one before, negated.
    """

    sampling: SamplingPreset
    protocol: str = "kim2022-scaled"
    chains: int = 2
    window: int = 60
    first_end: int = 0
    late: int = 1
    objective: str = "expected"
    antithetic: bool = False

    def __post_init__(self) -> None:
        if self.protocol not in PATH_PROTOCOLS:
            raise unknown_name("protocol", self.protocol, PATH_PROTOCOLS, hint="Paths are of these.")
        if self.objective not in OBJECTIVES:
            raise unknown_name("objective", self.objective, OBJECTIVES)
        if self.chains < 1 or self.window < 0 or self.late < 1:
            raise ConfigError(
                f"Paths need chains and late of at least 1 and a window of at least 0; got {self.chains}, {self.late}, "
                f"{self.window}."
            )
        if not 0 <= self.first_end <= self.sampling.iterations:
            raise ConfigError(
                f"first_end must be from 0 to the chain's {self.sampling.iterations} iterations; got {self.first_end}."
            )
        if self.late > (earliest := self.earliest(self.sampling)):
            raise ConfigError(f"late must be at most the earliest end, {earliest}; got {self.late}.")
        if self.antithetic and self.chains % 2:
            raise ConfigError(f"Antithetic chains come in pairs; got {self.chains}.")

    def chain(self, num_params: int) -> SamplingPreset:
        """`sampling` for a network of `num_params` parameters: penalty and time as the protocol scales them."""
        return self.sampling if self.protocol == "exact" else for_network(self.sampling, self.protocol, num_params)

    def earliest(self, chain: SamplingPreset) -> int:
        """The first iteration (counted from 1) of `chain` at whose end the loss may be taken."""
        return self.first_end or min(chain.burn_in + 1, chain.iterations)

    @property
    def default_init(self) -> bool:
        """Whether chains start from the network's usual initialisation."""
        return self.protocol.endswith("default-init")

    def record(self) -> dict[str, Any]:
        """What a configuration hash covers, flat: ``path_window`` and so on."""
        fields = {k: v for k, v in asdict(self).items() if k != "sampling"}
        chain = {k: v for k, v in asdict(self.sampling).items() if k not in ("note", "friction", "temperature")}
        return {f"path_{k}": v for k, v in {**fields, **chain}.items()}
