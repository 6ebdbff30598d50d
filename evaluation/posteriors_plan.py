"""The study of posteriors as plans: digits, where everything can be sampled exactly, and CIFAR-10, where coresets can.

Folders: ``reference`` and ``references/`` hold the full data's posteriors, ``coresets/`` the coresets, ``scores/`` and ``grid/``
their posteriors; `evaluation.posteriors` makes tables and figures of them, the last step of each plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.plan import Command, Target
from evaluation.posteriors import tabulate_posteriors

__all__ = ["POSTERIORS_TARGETS", "StudyScale"]

CHOSEN = ("random", "herding")
WARMED = ("random", "fkl")  # methods of the grid
GRID = (0.1, 0.3, 3.0)  # of temperatures at prior standard deviation 1, and of those at temperature 1


@dataclass(frozen=True, kw_only=True)
class StudyScale:
    """How much is done.

    Attributes:
        dataset: name.
        networks: ConvNets as (width, blocks); several have a folder and tables each. (8, 1) has 1,386 parameters on digits,
            (32, 2) 10,986; chains mix on both (docs/posteriors.md).
        methods: selections and divergences.
        ipcs: images per class under weights N / M and by the published protocol.
        unit_ipcs: those with weights 1 as well.
        weighted: divergences whose points' weights are learned too, at the largest of `unit_ipcs`.
        coresets: independent ones of each kind and size, one posterior and one published chain each.
        grid: temperatures and prior widths other than 1.
        grid_coresets: of each method and point of the grid, at the largest of `unit_ipcs`.
        experts: flags of the trajectories.
        learning: flags of a distillation, by ipc.
        sampling: flags of posteriors and their reference alike.
        coreset_sampling, reference_sampling, grid_sampling: of coresets' posteriors, of the reference, of references on the grid.
        has_reference: whether the full data's posterior is sampled; without it there is no fidelity.
    """

    dataset: str = "digits"
    networks: tuple[tuple[int, int], ...] = ((8, 1),)
    methods: tuple[str, ...] = (*CHOSEN, "rkl", "wasserstein", "fkl")
    ipcs: tuple[int, ...] = (1, 2, 5, 10, 20)
    unit_ipcs: tuple[int, ...] = (1, 10)
    weighted: tuple[str, ...] = ("fkl", "rkl")
    coresets: int = 5
    grid: tuple[float, ...] = GRID
    grid_coresets: int = 2
    experts: tuple[str, ...] = ("--num-experts", "10", "--epochs", "6")
    learning: dict[int, tuple[str, ...]] | None = None
    sampling: tuple[str, ...] = ()
    coreset_sampling: tuple[str, ...] = ()
    reference_sampling: tuple[str, ...] = ()
    grid_sampling: tuple[str, ...] = ("--reference-warmup", "50", "--reference-samples", "150")
    has_reference: bool = True


_CIFAR10 = StudyScale(
    dataset="cifar10",
    networks=((8, 3),),
    methods=("random", "wasserstein", "fkl"),
    ipcs=(1, 10),
    weighted=(),
    coresets=3,
    grid=(),
    experts=("--num-experts", "4", "--epochs", "8"),
    learning={1: ("--steps", "300", "--max-start-epoch", "2"), 10: ("--steps", "200", "--max-start-epoch", "6")},
    coreset_sampling=("--test-images", "2000"),
    has_reference=False,
)
# every part of the plan in minutes; no posterior is believed
_SMOKE = StudyScale(
    ipcs=(1, 2),
    unit_ipcs=(2,),
    weighted=("fkl",),
    coresets=2,
    grid=(0.3,),
    grid_coresets=1,
    experts=("--num-experts", "2", "--epochs", "6"),
    learning={1: ("--steps", "10"), 2: ("--steps", "10")},
    sampling=("--quick", "--chains", "2", "--leapfrog-steps", "3"),
    coreset_sampling=("--warmup", "10", "--samples", "12", "--test-images", "100"),
    reference_sampling=("--reference-warmup", "8", "--reference-samples", "8"),
    grid_sampling=("--reference-warmup", "4", "--reference-samples", "4"),
)
DIGITS_SCALES = {
    "smoke": _SMOKE,
    "cpu": StudyScale(),
    "full": StudyScale(networks=((8, 1), (32, 2)), ipcs=(1, 2, 5, 10, 20, 50), grid_coresets=5, grid_sampling=()),
}
CIFAR10_SCALES = {
    "smoke": replace(
        _SMOKE, methods=("random", "fkl"), ipcs=(1,), unit_ipcs=(1,), weighted=(), grid=(), has_reference=False
    ),
    "cpu": _CIFAR10,
    "full": replace(
        _CIFAR10,
        experts=("--num-experts", "100", "--epochs", "50"),
        learning=None,
        coresets=5,
        coreset_sampling=(),
        has_reference=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The plan of one network."""

    scale: StudyScale
    width: int
    depth: int
    out: Path
    common: Command

    @property
    def network(self) -> Command:
        return ["--dataset", self.scale.dataset, "--width", str(self.width), "--depth", str(self.depth), *self.common]

    @property
    def experts(self) -> Command:
        return ["--experts", str(self.out / "experts"), *self.scale.experts]

    def commands(self) -> Iterator[Command]:
        """The full data's posteriors come first: they take longest, and coresets are learned beside them (--jobs)."""
        scale, largest = self.scale, max(self.scale.unit_ipcs)
        settings = [("--temperature", value) for value in scale.grid] + [("--prior-std", value) for value in scale.grid]
        if scale.has_reference:
            yield self.reference("reference", scale.reference_sampling)
            for name, value in settings:
                yield self.reference(_grid_name(name, value), _one_run(scale, name, value))
        yield ["experts", *self.network, *self.experts]
        for ipc in scale.ipcs:
            for method in scale.methods:
                for seed in range(scale.coresets):
                    yield self.coreset(method, ipc, seed)
                protocols = ("exact-scaled", "kim2022-scaled", *(("exact",) if ipc in scale.unit_ipcs else ()))
                for protocol in protocols:
                    yield self.score(method, method, ipc, protocol)
        for method in scale.weighted:
            for seed in range(scale.coresets):
                yield self.coreset(method, largest, seed, weights=True)
            for protocol in ("exact-scaled", "exact"):
                yield self.score(method, f"{method}-weights", largest, protocol)
        for name, value in settings:
            for method in (m for m in WARMED if m in scale.methods):
                yield self.warmed(method, largest, name, value)
        yield ["tabulate", "posteriors", f"{self.out}/"]

    def reference(self, name: str, sampling: Sequence[str]) -> Command:
        return ["reference", *self.network, *self.scale.sampling, *sampling, "--out", str(self.out / name)]

    def coreset(self, method: str, ipc: int, seed: int, *, weights: bool = False) -> Command:
        """Chosen, or learned but not scored yet."""
        where = self.out / "coresets" / f"{method}{'-weights' if weights else ''}-{ipc}-{seed}"
        shared = ["--ipc", str(ipc), "--seed", str(seed), "--out", str(where), *self.network, *self.experts]
        if method in CHOSEN:
            return ["select", "--method", method, *shared]
        steps = (self.scale.learning or {}).get(ipc, ())
        learned = ["--learn-weights"] if weights else []
        return ["distill", "--divergence", method, "--no-evaluate", *steps, *learned, *shared]

    def score(self, method: str, name: str, ipc: int, protocol: str) -> Command:
        """Each coreset's posterior, or a published chain on each."""
        where = self.out / "scores" / f"{name}-{ipc}-{protocol}"
        sampling = self.exact("reference", self.scale.reference_sampling) if protocol.startswith("exact") else []
        return self.evaluate(name, ipc, self.scale.coresets, protocol, sampling, where)

    def warmed(self, method: str, ipc: int, name: str, value: float) -> Command:
        """Posteriors at another temperature or prior width, against the full data's at the same."""
        setting = _grid_name(name, value)
        sampling = self.exact(setting, _one_run(self.scale, name, value))
        where = self.out / "grid" / f"{method}-{ipc}-{Path(setting).name}"
        return self.evaluate(method, ipc, self.scale.grid_coresets, "exact-scaled", sampling, where)

    def exact(self, reference: str, sampling: Sequence[str]) -> Command:
        """Flags of an exact evaluation."""
        known = str(self.out / reference) if self.scale.has_reference else "none"
        same = [*self.scale.sampling, *sampling]
        return [*same, "--reference", known, "--no-beside-random"]

    def evaluate(
        self, name: str, ipc: int, coresets: int, protocol: str, sampling: Sequence[str], where: Path
    ) -> Command:
        folders = [str(self.out / "coresets" / f"{name}-{ipc}-{seed}") for seed in range(coresets)]
        own = self.scale.coreset_sampling
        if not protocol.startswith("exact"):
            own = own[own.index("--test-images") :] if "--test-images" in own else ()
        how = ["--protocol", protocol, "--seeds", str(coresets), "--no-table", *own, *sampling]
        return ["evaluate", "--coreset", *folders, *how, "--out", str(where), *self.network]


def _grid_name(flag: str, value: float) -> str:
    """The folder of the full data's posterior at one point of the grid."""
    return f"references/{flag.removeprefix('--')}-{value:g}"


def _one_run(scale: StudyScale, flag: str, value: float) -> tuple[str, ...]:
    """Flags of one point of the grid: the second run, which measures the ceiling, is for the middle only."""
    return (*scale.grid_sampling, "--reference-runs", "1", flag, f"{value:g}")


def _study(scale: StudyScale, out: Path, common: Command) -> Iterator[Command]:
    for width, depth in scale.networks:
        where = out if len(scale.networks) == 1 else out / f"width-{width}-depth-{depth}"
        yield from _Part(scale=scale, width=width, depth=depth, out=where, common=common).commands()


POSTERIORS_TARGETS = {
    "posteriors": Target(
        what="what coresets' posteriors look like: fidelity, points needed, ranks, temperature, calibration (digits)",
        commands=lambda scale, out, common: _study(DIGITS_SCALES[scale], out, common),
        tables=tabulate_posteriors,
    ),
    "posteriors-cifar10": Target(
        what="the same for coresets of CIFAR-10 (smoke: digits); the full data's posterior at scale full only",
        commands=lambda scale, out, common: _study(CIFAR10_SCALES[scale], out, common),
        tables=tabulate_posteriors,
    ),
}
