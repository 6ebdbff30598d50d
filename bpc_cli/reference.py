"""`run.py reference`: the full data's posterior, which other posteriors are measured by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bpc_cli.flags import AtLeast, DataFlags, NetworkFlags, PosteriorFlags, RunFlags, Yes, flag, group, usual
from bpc_cli.setting import Setting, prepare, short_hash

if TYPE_CHECKING:
    from evaluation.protocols import ExactSettings
    from evaluation.reference import Reference

__all__ = [
    "MakeReference",
    "check_reference",
    "reference_folder",
    "reference_for",
    "reference_plan",
    "run_reference",
    "shared_settings",
]

ASKED = 1_000  # test images, for a word on its quality


@dataclass(frozen=True, kw_only=True)
class MakeReference:
    """Sample the posterior of all training images and keep it: the reference of evaluate and distill."""

    leapfrog_steps: Annotated[
        int | None,
        flag(f"hmc: leapfrog steps per draw. Default: {usual('leapfrog_steps')}.", "INT"),
        AtLeast(1),
    ] = None
    yes: Yes = False
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
    own = (
        "chains",
        "superchain",
        "max_tree_depth",
        "levels",
        "cycle",
        "prior",
        "prior_std",
        "temperature",
        "mass",
        "target",
    )
    return {**{name: getattr(flags, name) for name in own}, "pool_step": None if flags.pool_step else False}


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
    setting: Setting,
    flags: PosteriorFlags,
    place: RunFlags,
    *,
    leapfrog_steps: int | None,
    path: Path | None = None,
    resume: bool = True,
    yes: bool = False,
) -> Reference:
    """The reference that the flags ask for, sampled unless it is there.

    Args:
        setting, flags, place, leapfrog_steps: of the command.
        path: its folder; None is `reference_folder`.
        resume: False starts over.
        yes: begin at once, however long it takes.
    """
    from bpc_cli.patience import ask_patience
    from evaluation.reference import make_reference

    count = len(setting.dataset.train)
    settings = reference_plan(flags, count, leapfrog_steps)
    path = path or reference_folder(setting, settings)
    begun = bool(list(path.glob("chains-*")))  # a run that goes on has been agreed to
    less = "Less: --quick, a smaller --width, or evaluate --reference none."
    return make_reference(
        path,
        setting.network,
        setting.dataset,
        settings,
        device=setting.device,
        runs=flags.reference_runs,
        checkpoint_seconds=place.checkpoint_seconds,
        resume=resume,
        quick=None if flags.quick else reference_plan(replace(flags, quick=True), count, leapfrog_steps),
        before=lambda seconds: ask_patience(seconds, setting.device, yes or begun, lambda: less, lead=""),
    )


def run_reference(args: MakeReference) -> Path:
    """Sample what is not there, tabulate both runs, say how far apart they are; returns the folder."""
    from bpc_cli.show import show_table

    setting, out = prepare(args.data, args.network, args.where), args.where.out
    if out is not None:
        check_reference(out)
    reference = reference_for(
        setting,
        args.posterior,
        args.where,
        leapfrog_steps=args.leapfrog_steps,
        path=out,
        resume=args.where.resume,
        yes=args.yes,
    )
    show_table([reference.path], None, title=f"The full data's posterior on {setting.dataset.name}")
    _say_ceiling(reference)
    return reference.path


def _say_ceiling(reference: Reference) -> None:
    """How good the predictive of each run is, and what fidelity no coreset can be expected to exceed."""
    from bpc.progress import say
    from evaluation.fidelity import fidelity
    from evaluation.inputs import Inputs
    from evaluation.metrics import compute, empty_sums, update
    from evaluation.predictive import pick_images

    asked = Inputs("test", pick_images(reference.dataset.test, min(ASKED, len(reference.dataset.test))))
    probs = [reference.predictive(seed, asked) for seed in reference.seeds]
    for number, one in enumerate(probs, start=1):
        found = compute(update(empty_sums(), one, asked.split.labels.cpu()))
        words = ", ".join(f"{name} {float(found[name]):.3f}" for name in ("accuracy", "nll", "ece"))
        say(f"Run {number} on {len(asked.split):,} test images: {words}.")
    if len(probs) < 2:
        return
    apart = fidelity(probs[1], probs[0])
    say(
        f"The two runs: agreement {float(apart.agreement):.3f}, TV {float(apart.tv):.3f}; a coreset's is read beside it."
    )


def check_reference(path: Path) -> None:
    """Refuse a folder that cannot hold a reference, before anything is made.

    Raises:
        ConfigError: it holds something else.
    """
    from bpc.errors import ConfigError
    from bpc.runs import check_folder, read_run

    check_folder(path)
    if (path / "run.json").exists() and (job := read_run(path)["job"]) != "reference":
        raise ConfigError(f"{path} holds a run of {job}, not a reference; choose another folder.")
