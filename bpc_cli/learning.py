"""Flags of how a coreset is learned, and the preset that they change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from bpc.errors import ConfigError
from bpc_cli.flags import AtLeast, Between, ExactFlags, Positive, flag, names

if TYPE_CHECKING:
    from bpc.divergences.path_settings import PathSettings
    from bpc.presets import DistillPreset

__all__ = ["LearningFlags"]


@dataclass(frozen=True, kw_only=True)
class LearningFlags:
    """How the coreset is learned; what is not given is the preset's."""

    preset: Annotated[
        str | None,
        flag(
            """Where the settings come from. Default: kim2022, Tables 2 and C.3 of Kim et al. (2022); digits on digits.
            kim2022-code: as the authors' code leaves them.""",
            names("preset"),
        ),
    ] = None
    steps: Annotated[int | None, flag("Outer steps (K).", "INT"), AtLeast(1)] = None
    lr: Annotated[float | None, flag("Outer step size on the images (gamma).", "FLOAT"), Positive()] = None
    momentum: Annotated[float | None, flag("Outer momentum; Adam's beta_1.", "FLOAT"), AtLeast(0)] = None
    optimizer: Annotated[
        str | None,
        flag(
            """The outer optimiser. sgd: as published, steps of about 1000 (10 on digits). adam: every pixel moves by about --lr a
            step, so 0.01 to 0.1. Default: sgd (adam for rkl-path).""",
            "sgd|adam",
        ),
    ] = None
    ema: Annotated[
        float | None,
        flag(
            """Keep the average of the iterates with this decay (0.95: the last 20 or so) instead of the last one: less of the
            gradient's noise is left in the images. Default: 0, the last iterate.""",
            "FRACTION",
        ),
        Between(0, 0.999999),
    ] = None
    clip: Annotated[
        float | None,
        flag("Shorten the images' gradient to this norm where it is longer. Default: 0, never.", "FLOAT"),
        AtLeast(0),
    ] = None
    max_start_epoch: Annotated[
        int | None, flag("Start epochs are drawn from 0 to this less one (T+).", "INT"), AtLeast(1)
    ] = None
    inner_steps: Annotated[int | None, flag("SGD steps on the coreset (L_u).", "INT"), AtLeast(1)] = None
    expert_epochs: Annotated[
        int | None, flag("Expert epochs from the start of a window to its end (L_x).", "INT"), AtLeast(1)
    ] = None
    student_lr: Annotated[
        float | None, flag("Inner step size (eta); where wasserstein's learned one starts.", "FLOAT"), Positive()
    ] = None
    lr_student: Annotated[
        float | None, flag("wasserstein: step size of the learned inner step size.", "FLOAT"), AtLeast(0)
    ] = None
    draws: Annotated[int | None, flag("Gaussian draws (S).", "INT"), AtLeast(1)] = None
    sigma: Annotated[
        float | None,
        flag("Standard deviation of both Gaussians (Sigma_u^1/2 and Sigma_x^1/2).", "FLOAT"),
        AtLeast(0),
    ] = None
    sigma_core: Annotated[float | None, flag("Of the coreset's Gaussian alone (Sigma_u^1/2).", "FLOAT"), AtLeast(0)] = (
        None
    )
    sigma_expert: Annotated[
        float | None, flag("Of the experts' Gaussian alone (Sigma_x^1/2).", "FLOAT"), AtLeast(0)
    ] = None
    real_batch: Annotated[int | None, flag("rkl, rkl-path: real images per step (B).", "INT"), AtLeast(1)] = None
    path_protocol: Annotated[
        str | None,
        flag(
            """rkl-path: the chain that is differentiated. Default: that of --protocol, so that the coreset is learned for the
            chain that scores it.""",
            names("path protocol"),
        ),
    ] = None
    path_chains: Annotated[
        int | None, flag("rkl-path: chains side by side, each from noise of its own.", "INT"), AtLeast(1)
    ] = None
    path_window: Annotated[
        int | None,
        flag(
            """rkl-path: leapfrogs that are differentiated, back from a random end; 0 is the whole chain. A longer window sees
            more of what a pixel does, costs more and is noisier.""",
            "INT",
        ),
        AtLeast(0),
    ] = None
    path_first_end: Annotated[
        int | None,
        flag("rkl-path: the end is an iteration from this one on. Default: 0, those after burn-in.", "INT"),
        AtLeast(0),
    ] = None
    path_late: Annotated[
        int | None,
        flag("rkl-path: ends of iterations that are scored together, the last one and those before.", "INT"),
        AtLeast(1),
    ] = None
    path_objective: Annotated[
        str | None,
        flag(
            """rkl-path: expected: E[log p(x | theta)], the reverse KL's. predictive: log E[p(x | theta)] over the --path-late
            states of a chain, as scores are made.""",
            "expected|predictive",
        ),
    ] = None
    path_antithetic: Annotated[bool, flag("rkl-path: chains in pairs of opposite noise.")] = False
    path_iterations: Annotated[
        int | None, flag("rkl-path: iterations of the chain. Default: the protocol's.", "INT"), AtLeast(1)
    ] = None
    path_leapfrogs: Annotated[
        int | None, flag("rkl-path: leapfrogs of an iteration. Default: the protocol's.", "INT"), AtLeast(1)
    ] = None
    path_step_size: Annotated[
        float | None,
        flag("rkl-path: leapfrog step; under exact in units of the prior's width. Default: the protocol's.", "FLOAT"),
        Positive(),
    ] = None
    init: Annotated[str, flag("Start from a random subset of the data, or from noise.", "real|noise")] = "real"
    diagonal: Annotated[bool, flag("wasserstein: diagonal covariances (Appendix C.1).")] = False
    reduction: Annotated[
        str,
        flag("fkl, rkl: mean as published, or sum: the gradient of the KL itself, with weights N/M.", "mean|sum"),
    ] = "mean"
    learn_weights: Annotated[bool, flag("Learn the points' weights as well, as in the original pseudocoresets.")] = (
        False
    )
    learn_labels: Annotated[
        bool,
        flag(
            """Learn a probability for every class of each point: a point then stands for one of each class with these weights.
            The row says so."""
        ),
    ] = False
    lr_labels: Annotated[
        float | None,
        flag("Step size of the labels' log probabilities. Default: 1 with sgd, 0.02 with adam.", "FLOAT"),
        Positive(),
    ] = None
    label_smoothing: Annotated[
        float, flag("Of learned labels: what lies on the other classes at the start.", "FRACTION"), Between(0.001, 0.9)
    ] = 0.05
    lr_weights: Annotated[float, flag("Step size of the weights.", "FLOAT"), AtLeast(0)] = 0.1

    def labels_rate(self, optimizer: str) -> float:
        """Step size of the labels; 0 where they are not learned."""
        if not self.learn_labels:
            return 0.0
        return self.lr_labels or (0.02 if optimizer == "adam" else 1.0)

    def method(self, divergence: str) -> str:
        """The name in rows: what is learned beside the points stands behind the divergence's."""
        more = [word for word in ("labels", "weights") if getattr(self, f"learn_{word}")]
        return "+".join([divergence, *more])

    def check(self, divergence: str) -> None:
        """Refuse options that the divergence would not look at: they would name another run of the same result.

        Raises:
            ConfigError: an option of other divergences.
        """
        from bpc.divergences import DIVERGENCES, REDUCTION

        def takers(name: str) -> list[str]:
            return [r.name for r in DIVERGENCES if name in {field.name for field in dataclasses.fields(r.config)}]

        for name, given in (("diagonal", self.diagonal), ("reduction", self.reduction != REDUCTION)):
            if given and divergence not in takers(name):
                raise ConfigError(f"--{name} means nothing to {divergence}; it is for {', '.join(takers(name))}.")
        if divergence not in takers("path"):
            for field in dataclasses.fields(self):
                if field.name.startswith("path_") and getattr(self, field.name) not in (None, False):
                    name = field.name.replace("_", "-")
                    raise ConfigError(f"--{name} means nothing to {divergence}; it is for {', '.join(takers('path'))}.")

    def preset_for(self, divergence: str, ipc: int, usual: str, protocol: str, exact: ExactFlags) -> DistillPreset:
        """The preset with what the flags change.

        Args:
            divergence: by name.
            ipc: images per class.
            usual: the preset where none is asked for.
            protocol: that the coreset will be scored by.
            exact: flags of that protocol, where it is exact.
        """
        from bpc.divergences import DIVERGENCES

        record = DIVERGENCES.get(divergence)
        if usual not in record.presets:  # a divergence that has none for this dataset
            usual = next(iter(record.presets))
        preset = record.preset(self.preset or usual, ipc)
        changes: dict[str, Any] = {
            "steps": self.steps,
            "lr_points": self.lr,
            "momentum": self.momentum,
            "max_start_epoch": self.max_start_epoch,
            "inner_steps": self.inner_steps,
            "expert_epochs": self.expert_epochs if preset.expert_epochs else None,  # 0: it does not look at the end
            "student_lr": self.student_lr,
            "lr_student": self.lr_student,
            "samples": self.draws,
            "sigma_core": self.sigma if self.sigma_core is None else self.sigma_core,
            "sigma_expert": self.sigma if self.sigma_expert is None else self.sigma_expert,
            "real_batch": self.real_batch,
            "optimizer": self.optimizer,
            "ema": self.ema,
            "clip": self.clip,
            "path": None if preset.path is None else self._path(preset.path, protocol, exact),
        }
        return dataclasses.replace(preset, **{k: v for k, v in changes.items() if v is not None})

    def _path(self, path: PathSettings, protocol: str, exact: ExactFlags) -> PathSettings:
        """The flow with what the flags change, of the potential that scores."""
        from bpc.divergences.path_settings import EXACT_STEP, PATH_PROTOCOLS
        from bpc.samplers import ExactSettings

        sampling: dict[str, Any] = {
            "iterations": self.path_iterations,
            "leapfrog_steps": self.path_leapfrogs,
            "step_size": self.path_step_size,
        }
        usual = protocol if protocol in PATH_PROTOCOLS else "exact"
        changes: dict[str, Any] = {
            "protocol": self.path_protocol or usual,
            "chains": self.path_chains,
            "window": self.path_window,
            "first_end": self.path_first_end,
            "late": self.path_late,
            "objective": self.path_objective,
            "antithetic": self.path_antithetic or None,
        }
        if changes["protocol"] == "exact":
            if (exact.prior or ExactSettings.prior) != "isotropic" or exact.temperature not in (None, 1.0):
                raise ConfigError("rkl-path flows under --prior isotropic and --temperature 1 alone.")
            sampling["init_scale"] = ExactSettings.prior_std if exact.prior_std is None else exact.prior_std
            sampling["step_size"] = EXACT_STEP if self.path_step_size is None else self.path_step_size
        if self.path_iterations is not None:
            sampling["scale_time"] = False  # as many as are asked for
            sampling["burn_in"] = min(path.sampling.burn_in, self.path_iterations - 1)
        row = dataclasses.replace(path.sampling, **{k: v for k, v in sampling.items() if v is not None})
        return dataclasses.replace(path, sampling=row, **{k: v for k, v in changes.items() if v is not None})
