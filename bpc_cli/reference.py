"""`run.py reference`: the full data's posterior, which other posteriors are measured by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bpc_cli.flags import AtLeast, DataFlags, NetworkFlags, PosteriorFlags, RunFlags, flag, group, usual
from bpc_cli.setting import Setting, prepare, short_hash

if TYPE_CHECKING:
    from evaluation.protocols import ExactSettings
    from evaluation.reference import Reference

__all__ = ["MakeReference", "reference_folder", "reference_for", "reference_plan", "run_reference", "shared_settings"]


@dataclass(frozen=True, kw_only=True)
class MakeReference:
    """Sample the posterior of all training images twice and keep it: the reference of evaluate and distill."""

    leapfrog_steps: Annotated[
        int | None,
        flag(f"hmc: leapfrog steps per draw. Default: {usual('leapfrog_steps')}.", "INT"),
        AtLeast(1),
    ] = None
    data: Annotated[DataFlags, group("Which images it is conditioned on.")] = DataFlags()
    network: Annotated[NetworkFlags, group("The network whose posterior is sampled.")] = NetworkFlags()
    posterior: Annotated[PosteriorFlags, group("How it is sampled; evaluate finds it by the same flags.")] = (
        PosteriorFlags()
    )
    where: Annotated[RunFlags, group("Where it is kept, and how a run goes on.")] = RunFlags()


EXAMPLES = """\
run.py reference --dataset digits --width 8                          full-batch HMC
run.py reference --dataset digits --width 8 --quick                  a seventh of it
run.py evaluate --dataset digits --width 8 --coreset a/ --protocol exact-scaled     uses it"""


def shared_settings(flags: PosteriorFlags) -> dict[str, Any]:
    """What coresets and reference have in common; None is a default."""
    own = ("chains", "superchain", "max_tree_depth", "levels", "cycle", "prior", "prior_std", "temperature")
    return {name: getattr(flags, name) for name in own}


def reference_plan(flags: PosteriorFlags, training_images: int, leapfrog_steps: int | None) -> ExactSettings:
    """The settings of the reference that the flags ask for.

    Raises:
        ConfigError: settings that do not exist or do not go together.
    """
    from evaluation.reference import reference_settings

    return reference_settings(
        training_images,
        sampler=flags.reference_sampler,
        quick=flags.quick,
        **shared_settings(flags),
        mass=flags.mass,
        pool_step=None if flags.pool_step else False,
        warmup=flags.reference_warmup,
        samples=flags.reference_samples,
        leapfrog_steps=None if flags.reference_sampler == "sghmc" else leapfrog_steps,
    )


def reference_folder(setting: Setting, settings: ExactSettings) -> Path:
    """Where it is kept unless another folder is named."""
    from bpc.runs import default_out
    from evaluation.reference import reference_record

    name = short_hash(reference_record(setting.network, setting.dataset, settings))
    return default_out("reference", setting.dataset.name, setting.network.name, settings.label, name)


def reference_for(
    setting: Setting, flags: PosteriorFlags, place: RunFlags, *, leapfrog_steps: int | None, path: Path | None = None
) -> Reference:
    """The reference that the flags ask for, sampled unless it is there.

    Args:
        setting, flags, place, leapfrog_steps: of the command.
        path: its folder; None is `reference_folder`.
    """
    from evaluation.reference import make_reference

    settings = reference_plan(flags, len(setting.dataset.train), leapfrog_steps)
    return make_reference(
        path or reference_folder(setting, settings),
        setting.network,
        setting.dataset,
        settings,
        device=setting.device,
        checkpoint_seconds=place.checkpoint_seconds,
    )


def run_reference(args: MakeReference) -> Path:
    """Sample what is not there, tabulate both runs; returns the folder."""
    from bpc_cli.show import show_table

    setting = prepare(args.data, args.network, args.where)
    reference = reference_for(
        setting, args.posterior, args.where, leapfrog_steps=args.leapfrog_steps, path=args.where.out
    )
    show_table([reference.path], None, title=f"The full data's posterior on {setting.dataset.name}")
    return reference.path
