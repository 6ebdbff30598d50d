"""The posteriors of digits as a plan: every way to make a coreset, several of each, against the full data's posterior."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation.plan import Command, Target

__all__ = ["POSTERIOR_SCALES", "POSTERIOR_TARGETS", "PosteriorScale"]

CHOSEN = ("random", "herding")
LEARNED = ("rkl", "wasserstein", "fkl")
EXPERTS = ("--num-experts", "10", "--epochs", "6")


@dataclass(frozen=True, kw_only=True)
class PosteriorScale:
    """How much is done.

    Attributes:
        networks: ConvNets as (width, blocks): (8, 1) has 1,386 parameters, (32, 2) is the demo's with 10,986. Experts and learned
            coresets are each network's own. Chains mix on both; on (8, 2), narrow and deep, HMC does not (docs/posteriors.md).
        ipcs: images per class.
        coresets: independent ones of each kind and size; one posterior each.
        sampling: flags of every posterior, the full data's too.
    """

    networks: tuple[tuple[int, int], ...] = ((8, 1),)
    ipcs: tuple[int, ...] = (1, 10)
    coresets: int = 5
    sampling: tuple[str, ...] = ()


POSTERIOR_SCALES = {
    # short of mixing by far: that every step runs and every table has its rows
    "smoke": PosteriorScale(
        ipcs=(1,),
        coresets=2,
        sampling=(
            *("--quick", "--chains", "2", "--leapfrog-steps", "10"),
            *("--reference-warmup", "10", "--reference-samples", "20"),
        ),
    ),
    "cpu": PosteriorScale(),
    "full": PosteriorScale(networks=((8, 1), (32, 2))),
}


def _digits(scale: str, out: Path, common: Command) -> Iterator[Command]:
    """The full data's posterior comes first: it takes longest, and coresets are learned beside it (--jobs)."""
    chosen = POSTERIOR_SCALES[scale]
    shown: list[str] = []
    for width, depth in chosen.networks:
        place = out / f"width-{width}-depth-{depth}"
        shown += [str(place / "coresets"), str(place / "scores")]
        yield from _one_network(
            chosen, place, ["--dataset", "digits", "--width", str(width), "--depth", str(depth), *common]
        )
    yield ["compare", *shown, "--out", str(out / "comparison"), "--title", "Posteriors on digits"]


def _one_network(scale: PosteriorScale, out: Path, network: Command) -> Iterator[Command]:
    reference = str(out / "reference")
    experts = ["--experts", str(out / "experts"), *EXPERTS]
    yield ["reference", *network, *scale.sampling, "--out", reference]
    yield ["experts", *network, *experts]
    scored = [
        "--protocol",
        "exact-scaled",
        *scale.sampling,
        "--reference",
        reference,
        "--no-beside-random",
        "--no-table",
    ]
    for ipc in scale.ipcs:
        for method in (*CHOSEN, *LEARNED):
            folders = [str(out / "coresets" / f"{method}-{ipc}-{seed}") for seed in range(scale.coresets)]
            how = (
                ["select", "--method", method]
                if method in CHOSEN
                else ["distill", "--divergence", method, "--no-evaluate"]
            )
            for seed, folder in enumerate(folders):
                yield [*how, "--ipc", str(ipc), "--seed", str(seed), "--out", folder, *network, *experts]
            yield [
                "evaluate",
                "--coreset",
                *folders,
                *scored,
                "--out",
                str(out / "scores" / f"{method}-{ipc}"),
                *network,
            ]


POSTERIOR_TARGETS = {
    "posterior-digits": Target(
        what="posteriors of coresets on digits against the full data's (exact-scaled; full: two networks)",
        commands=_digits,
    ),
}
