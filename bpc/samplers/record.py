"""The records of samplers, and the settings that those of the exact protocols share.

A sampler is registered once, in its own file: `EXACT_SAMPLERS` sample a posterior, `KIM2022_SAMPLERS` are the published chains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from bpc.errors import ConfigError, unknown_name
from bpc.posterior import Posterior
from bpc.registry import Registry
from bpc.samplers.base import Kernel, LogDensity
from bpc.samplers.kim2022_presets import SamplingPreset
from bpc.seeding import ChainGenerators
from bpc.weight_prior import WEIGHT_PRIORS

__all__ = ["BACKENDS", "EXACT_SAMPLERS", "KIM2022_SAMPLERS", "ExactSampler", "ExactSettings", "Kim2022Sampler"]

BACKENDS = ("native", "pyro", "hamiltorch")
MASSES = ("prior", "diagonal")
LEAST_SAMPLES = 4
FOREIGN: dict[str, Any] = {"mass": "diagonal", "pool_step": False}  # what other backends adapt, and cannot leave


@dataclass(frozen=True, kw_only=True)
class ExactSettings:
    """Settings of the exact protocols. The defaults here are HMC's; `for_sampler` has those of every sampler and backend.

    Attributes:
        sampler: one of `EXACT_SAMPLERS`.
        backend: ``native``, or ``pyro`` / ``hamiltorch`` on the same density object.
        chains: for every seed; their predictive is pooled, and R-hat compares them.
        warmup: draws before the first that counts; HMC and NUTS adapt step size and mass in them.
        samples: draws kept of each chain; of SMC, the particles of each population (a chain is one).
        leapfrog_steps: per draw of HMC and SGHMC, of each level of parallel tempering, per move of SMC.
        max_tree_depth: of NUTS; a draw costs up to 2^depth gradients.
        superchain: chains that start from one draw of the prior; above 1, nested R-hat compares such groups.
        levels: of parallel tempering: powers of the likelihood, 0 and 1 among them; a draw costs a trajectory for each above 0.
        cycle: of cyclical SGHMC: draws kept of each cycle; as many moves go before them.
        step_size: in units of the prior's standard deviation over the momentum's: the first guess of HMC, NUTS and parallel
            tempering, the step of SGHMC, the largest of its cyclical form; SMC finds its own.
        prior: one of `bpc.weight_prior.WEIGHT_PRIORS`; chains start from it.
        prior_std: its scale; the standard deviation of every parameter where it is isotropic.
        temperature: T; what is sampled is the whole posterior to the power 1/T, prior and likelihood: below 1 it is cold.
        mass: of HMC and NUTS: ``diagonal`` is adapted in warm-up, ``prior`` is the prior's precision and stays. Parallel
            tempering and SMC always have the prior's.
        pool_step: HMC and NUTS adapt one step size for all chains of a posterior.
        target: acceptance probability aimed at.
        friction: of SGHMC and its cyclical form, per unit of time.
        batch: points per gradient of these two; 0 is all.
        max_heat: of SGHMC with a batch: the step shrinks in warm-up until the noise of the gradients heats the noisiest direction
            by less than this fraction; 0 keeps the step as it is, whatever its heat.
        predictive_draws: of each chain, evenly spaced, that enter the predictive; the diagnostics see every draw.
    """

    sampler: str = "hmc"
    backend: str = "native"
    chains: int = 4
    warmup: int = 100
    samples: int = 400
    leapfrog_steps: int = 100
    max_tree_depth: int = 8
    superchain: int = 1
    levels: int = 20
    cycle: int = 20
    step_size: float = 0.02
    prior: str = "isotropic"
    prior_std: float = 1.0
    temperature: float = 1.0
    mass: str = "prior"
    pool_step: bool = True
    target: float = 0.9
    friction: float = 5.0
    batch: int = 0
    max_heat: float = 0.05
    predictive_draws: int = 100

    def __post_init__(self) -> None:
        published = self.sampler in KIM2022_SAMPLERS and KIM2022_SAMPLERS.get(self.sampler)
        record = EXACT_SAMPLERS.get(self.sampler, hint=f"{published.label} has no exact version." if published else "")
        WEIGHT_PRIORS.get(self.prior)  # refuses an unknown one
        if self.backend not in BACKENDS:
            raise unknown_name("backend", self.backend, BACKENDS)
        if self.backend not in record.backends:
            able = [sampler.name for sampler in EXACT_SAMPLERS if self.backend in sampler.backends]
            raise ConfigError(f"The {self.backend} backend samples with {' or '.join(able)}; got {self.sampler}.")
        if self.mass not in MASSES:
            raise unknown_name("mass", self.mass, MASSES)
        if self.backend != "native" and {"mass": self.mass, "pool_step": self.pool_step} != FOREIGN:
            raise ConfigError(
                f"The {self.backend} backend adapts a diagonal mass and a step of each chain by itself; drop --mass prior and "
                "--pool-step, or use the native one."
            )
        if min(self.chains, self.samples, self.leapfrog_steps, self.max_tree_depth, self.predictive_draws) < 1:
            raise ConfigError("The exact protocols need chains, samples, leapfrog steps and tree depth of at least 1.")
        if self.levels < 2:
            raise ConfigError(
                f"Parallel tempering needs 2 levels or more, the prior and the target; got {self.levels}."
            )
        if self.cycle < 1:
            raise ConfigError(f"Cyclical SGHMC keeps 1 draw of a cycle or more; got {self.cycle}.")
        if self.superchain < 1 or self.chains % self.superchain:
            raise ConfigError(
                f"{self.chains} chains do not divide into superchains of {self.superchain}; give a number that divides them."
            )
        if self.superchain > 1 and (self.sampler == "smc" or self.backend != "native"):
            raise ConfigError("Superchains need chains that start from one place: a native sampler, and not smc.")
        if self.samples < LEAST_SAMPLES:
            raise ConfigError(
                f"Diagnostics split every chain in two: keep at least {LEAST_SAMPLES} samples; got {self.samples}."
            )
        if min(self.warmup, self.batch, self.max_heat) < 0:
            raise ConfigError("warmup, batch and max_heat must be 0 or more.")
        if min(self.prior_std, self.temperature, self.step_size, self.friction) <= 0 or not 0 < self.target < 1:
            raise ConfigError(
                "The exact protocols need a positive prior_std, temperature, step_size, friction and a target in (0, 1)."
            )

    @classmethod
    def for_sampler(cls, sampler: str, backend: str = "native", *, quick: bool = False, **given: Any) -> ExactSettings:
        """The defaults of a sampler and a backend, and what is given in their place.

        Args:
            sampler, backend: see the attributes.
            quick: start from the `shorter` defaults.
            given: other attributes; None gives nothing.

        Raises:
            ConfigError: settings that do not exist or do not go together.
        """
        own = EXACT_SAMPLERS.get(sampler).defaults if sampler in EXACT_SAMPLERS else {}  # cls refuses an unknown one
        settings = cls(sampler=sampler, backend=backend, **{**own, **(FOREIGN if backend != "native" else {})})
        if quick:
            settings = settings.shorter()
        return replace(settings, **{name: value for name, value in given.items() if value is not None})

    def shorter(self) -> ExactSettings:
        """Half the warm-up, a quarter of the draws, trajectories half as long: about a seventh of the gradients."""
        return replace(
            self,
            warmup=self.warmup // 2,
            samples=max(self.samples // 4, LEAST_SAMPLES),
            leapfrog_steps=max(self.leapfrog_steps // 2, 1),
            max_tree_depth=max(self.max_tree_depth - 1, 1),
        )

    @property
    def label(self) -> str:
        """The sampler as rows name it: another backend's is marked."""
        return self.sampler if self.backend == "native" else f"{self.sampler}@{self.backend}"

    def record(self) -> dict[str, Any]:
        """What a configuration hash should cover. What a run does not look at is left out, so that it keeps its hash: levels
        and cycles of another sampler, superchains of one chain, temperature 1.
        """
        idle = {
            "levels": self.sampler != "pt",
            "cycle": self.sampler != "csghmc",
            "superchain": self.superchain == 1,
            "temperature": self.temperature == 1,
        }
        return {name: value for name, value in asdict(self).items() if not idle.get(name)}


@dataclass(frozen=True, kw_only=True)
class ExactSampler:
    """A sampler of the exact protocols.

    Attributes:
        name: in files and on the command line.
        label: as a reader sees it.
        kernel: on a posterior, from the settings. The mass starts at the prior's precision, so that a step size of 1 is of the
            order of the prior's width.
        gradients: full-batch gradients that a draw costs, at most.
        backends: who can run it.
        replicas: parameter vectors of each chain that are moved in one batch.
        defaults: of `ExactSettings`, where they are not HMC's.
    """

    name: str
    label: str
    kernel: Callable[[Posterior, ExactSettings], Kernel[Any, Any]]
    gradients: Callable[[ExactSettings], int]
    backends: tuple[str, ...] = ("native",)
    replicas: Callable[[ExactSettings], int] = lambda settings: 1
    defaults: Mapping[str, Any] = field(default_factory=dict)


AugmentedDensity = Callable[[Tensor, ChainGenerators], Tensor]


@dataclass(frozen=True, kw_only=True)
class Kim2022Sampler:
    """A sampler of the published protocols.

    Attributes:
        name: in files and on the command line.
        label: as a reader sees it.
        kernel: from -M U(theta), from the same on the coreset augmented anew at every call, and from Table 3's settings.
        preset: Table 3's settings by images per class.
        augments: whether it augments the coreset at every gradient.
    """

    name: str
    label: str
    kernel: Callable[[LogDensity, AugmentedDensity, SamplingPreset], Kernel[Any, Any]]
    preset: Callable[[int], SamplingPreset]
    augments: bool = False


EXACT_SAMPLERS: Registry[ExactSampler] = Registry("sampler")
KIM2022_SAMPLERS: Registry[Kim2022Sampler] = Registry("sampler")
