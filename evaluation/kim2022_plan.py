"""The tables and figures of Kim et al. (2022) as plans of commands, at three scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluation.plan import Command, Target

__all__ = ["BASELINES", "KIM2022_SCALES", "KIM2022_TARGETS", "LEARNED", "Scale"]

LEARNED = ("fkl", "rkl", "wasserstein")
BASELINES = ("random", "herding", "kcenter", "craig", "adacore")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done; None leaves a published setting alone.

    Attributes:
        seeds: independent coresets of each kind, learned or chosen, one chain each.
        augment: of experts and coreset where a column has augmentation; None is the dataset's own.
        large: images per class of Table 5.
        full_data, full_network: flags of the full data's posterior, and of its network where it is another.
    """

    dataset: str
    width: int | None
    num_experts: int
    epochs: int
    ipcs: tuple[int, ...]
    large: tuple[int, ...]
    seeds: int
    protocol: str
    augment: str | None = None
    test_images: int = 0
    steps: dict[int, int] = field(default_factory=dict)
    max_start_epoch: dict[int, int] = field(default_factory=dict)
    corruption_images: int = 0
    grid: tuple[float, ...] = (0.0, 1e-5, 1e-3, 1e-2, 1e-1)  # C.2's standard deviations
    draws: tuple[int, ...] = (1, 10, 30, 50)  # and its S
    full_data: tuple[str, ...] = ()
    full_network: tuple[str, ...] = ()


KIM2022_SCALES = {
    # digits with its own preset: minutes, and not the paper's job
    "smoke": Scale(
        dataset="digits",
        width=None,
        num_experts=10,
        epochs=6,
        ipcs=(1,),
        large=(20,),
        seeds=3,
        protocol="kim2022-scaled",
        augment="crop_scale_rotate",
        corruption_images=100,
        grid=(0.0, 1e-3, 1e-2, 1e-1),
        full_data=("--quick", "--chains", "2", "--reference-warmup", "10", "--reference-samples", "20"),
        full_network=("--width", "8"),
    ),
    # CIFAR-10 on two cores: hours, smaller in everything
    "cpu": Scale(
        dataset="cifar10",
        width=32,
        num_experts=4,
        epochs=8,
        ipcs=(10, 1),
        large=(50,),
        seeds=5,
        protocol="kim2022-scaled",
        test_images=2000,
        steps={1: 300, 10: 200, 50: 100},
        max_start_epoch={1: 2, 10: 6, 50: 6},
        corruption_images=100,
        grid=(0.0, 1e-2),
        draws=(1, 30),
        full_data=("--chains", "1", "--reference-warmup", "20", "--reference-samples", "20"),
    ),
    # the paper does not say what its ten seeds are of
    "full": Scale(
        dataset="cifar10",
        width=None,
        num_experts=100,
        epochs=50,
        ipcs=(1, 10, 20),
        large=(50, 100),
        seeds=5,
        protocol="kim2022",
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Study:
    """A plan's folder and flags, and whether its experts and coresets are learned with augmentation."""

    scale: Scale
    out: Path
    common: Command
    augmented: bool = True

    @property
    def augment(self) -> str | None:
        return self.scale.augment if self.augmented else "none"

    @property
    def network(self) -> Command:
        return ["--dataset", self.scale.dataset, *(["--width", str(self.scale.width)] if self.scale.width else [])]

    @property
    def experts(self) -> Command:
        """A store of experts is for one augmentation."""
        scale, store = self.scale, self.out / ("experts" if self.augmented else "experts-plain")
        return [
            *("--experts", str(store), "--num-experts", str(scale.num_experts), "--epochs", str(scale.epochs)),
            *(("--augment", self.augment) if self.augment else ()),
            *self.network,
        ]

    def train(self) -> Command:
        return ["experts", *self.experts, *self.common]

    def learn(self, method: str, ipc: int, name: str, *extra: str) -> tuple[list[str], list[Command]]:
        """Folders of independent coresets below ``coresets/``, and the commands that learn them."""
        scale = self.scale
        options = ["--steps", str(scale.steps[ipc])] if ipc in scale.steps else []
        options += ["--max-start-epoch", str(scale.max_start_epoch[ipc])] if ipc in scale.max_start_epoch else []
        names = [f"{name}-{seed}" for seed in range(scale.seeds)]
        what = ["--divergence", method, "--ipc", str(ipc), *options, *extra, "--no-evaluate"]
        return names, [["distill", *what, *self._made(seed, name)] for seed, name in enumerate(names)]

    def choose(self, method: str, ipc: int) -> tuple[list[str], list[Command]]:
        """The same for real points; each seed looks at another expert."""
        names = [f"{method}-{ipc}-{seed}" for seed in range(self.scale.seeds)]
        what = ["--method", method, "--ipc", str(ipc)]
        return names, [["select", *what, *self._made(seed, name)] for seed, name in enumerate(names)]

    def _made(self, seed: int, name: str) -> Command:
        return ["--seed", str(seed), "--out", str(self.out / "coresets" / name), *self.experts, *self.common]

    def score(self, coresets: Sequence[str], sampler: str, name: str, *extra: str) -> Command:
        """One chain on each coreset."""
        paths = [str(self.out / "coresets" / coreset) for coreset in coresets]
        options = [
            "--sampler",
            sampler,
            "--protocol",
            self.scale.protocol,
            "--seeds",
            str(self.scale.seeds),
            "--no-table",
        ]
        options += ["--test-images", str(self.scale.test_images), *self.network, *extra, *self.common]
        return ["evaluate", "--coreset", *paths, *options, "--out", str(self.out / "scores" / name)]

    def comparison(
        self,
        *,
        ipcs: Sequence[int],
        samplers: Sequence[str],
        baselines: Sequence[str] = (),
        learned: Sequence[str] = LEARNED,
        extra: Sequence[str] = (),
    ) -> Iterator[Command]:
        """Learned coresets and chosen ones of each size, by each sampler, in one comparison."""
        yield self.train()
        mark = "" if self.augmented else "plain-"
        for ipc in ipcs:
            made: dict[str, list[str]] = {}
            for method in learned:
                made[method], commands = self.learn(method, ipc, f"{method}-{mark}{ipc}")
                yield from commands
            for method in baselines:
                made[method], commands = self.choose(method, ipc)
                yield from commands
            for sampler in samplers:
                for method, coresets in made.items():
                    own = mark if method in learned else ""
                    yield self.score(coresets, sampler, f"{method}-{own}{ipc}-{sampler}", *extra)
        yield ["compare", str(self.out / "coresets"), str(self.out / "scores"), "--out", str(self.out / "comparison")]


def _middle(scale: Scale) -> int:
    """10 images per class, where the scale has them."""
    return 10 if 10 in scale.ipcs else scale.ipcs[-1]


def _table1(study: _Study) -> Iterator[Command]:
    yield from study.comparison(ipcs=study.scale.ipcs, samplers=("hmc", "asghmc"), baselines=BASELINES)


def _table1_plain(study: _Study) -> Iterator[Command]:
    plain = replace(study, augmented=False)
    yield from plain.comparison(ipcs=study.scale.ipcs, samplers=("hmc",), baselines=("random",))


def _table1_full(study: _Study) -> Iterator[Command]:
    """The row is scored where a coreset's posterior is: one random coreset stands beside it."""
    scale, out = study.scale, study.out
    network = [*study.network, *scale.full_network, *study.common]
    options = ["--reference-sampler", "sghmc", *scale.full_data]
    reference, coreset = str(out / "reference"), str(out / "coresets" / "random-1-0")
    yield ["reference", *options, "--out", reference, *network]
    yield ["select", "--method", "random", "--ipc", "1", "--out", coreset, *network]
    how = ["--protocol", "exact-scaled", "--reference", reference, "--test-images", str(scale.test_images), *options]
    yield ["evaluate", "--coreset", coreset, *how, "--no-table", "--out", str(out / "scores" / "random-1"), *network]
    yield ["compare", str(out / "scores"), "--out", str(out / "comparison"), "--title", "Full data"]


def _table4(study: _Study) -> Iterator[Command]:
    yield study.train()
    for ipc in [k for k in study.scale.ipcs if k < 20]:
        variants: dict[str, tuple[str, ...]] = {f"W-{ipc}": (), f"W-diagonal-{ipc}": ("--diagonal",)}
        for name, extra in variants.items():
            coresets, commands = study.learn("wasserstein", ipc, name, *extra)
            yield from commands
            yield study.score(coresets, "asghmc", name)


def _table5(study: _Study) -> Iterator[Command]:
    plain = replace(study, augmented=False)
    yield from plain.comparison(ipcs=study.scale.large, samplers=("hmc",), baselines=("random",))


def _table6(study: _Study) -> Iterator[Command]:
    yield from study.comparison(ipcs=(_middle(study.scale),), samplers=("hmc",), baselines=BASELINES)


def _table7(study: _Study) -> Iterator[Command]:
    small = study.scale.dataset == "digits"
    for dataset in ("digits",) if small else ("cifar100", "imagenette"):
        own = replace(study, scale=replace(study.scale, dataset=dataset), out=study.out / dataset, augmented=False)
        yield from own.comparison(ipcs=(1,), samplers=("hmc",), baselines=("random",))


def _figure4(study: _Study) -> Iterator[Command]:
    extra = ("--corruptions", "--corruption-images", str(study.scale.corruption_images))
    yield from study.comparison(
        ipcs=(_middle(study.scale),), samplers=("hmc", "asghmc"), baselines=("random",),
        learned=("fkl", "wasserstein"), extra=extra,
    )  # fmt: skip


def _figure5(study: _Study) -> Iterator[Command]:
    yield study.train()
    settings: dict[str, tuple[str, ...]] = {f"S={s}": ("--draws", str(s)) for s in study.scale.draws}
    for core in study.scale.grid:
        for expert in study.scale.grid:
            sigmas = ("--sigma-core", str(core), "--sigma-expert", str(expert))
            settings[f"sigma_u={core:g}, sigma_x={expert:g}"] = sigmas
    for name, extra in settings.items():
        folder = name.replace(", ", "-").replace("=", "")
        coresets, commands = study.learn("fkl", _middle(study.scale), folder, *extra)
        yield from commands
        yield study.score(coresets, "hmc", folder)


def _at(
    plan: Callable[[_Study], Iterator[Command]], tabulated: str = ""
) -> Callable[[str, Path, Command], Iterator[Command]]:
    """A plan at one of `KIM2022_SCALES`; `tabulated` is the target's name where the variants of one method become a table."""

    def commands(scale: str, out: Path, common: Command) -> Iterator[Command]:
        yield from plan(_Study(scale=KIM2022_SCALES[scale], out=out, common=common))
        if tabulated:
            yield ["tabulate", tabulated, f"{out}/"]

    return commands


KIM2022_TARGETS = {
    "kim2022-table1": Target(
        what="Table 1, columns with augmentation: three divergences and chosen points, HMC and A-SGHMC",
        commands=_at(_table1),
    ),
    "kim2022-table1-plain": Target(
        what="Table 1, columns without augmentation, HMC; with the --out of kim2022-table1, one table",
        commands=_at(_table1_plain),
    ),
    "kim2022-table1-full": Target(
        what="Table 1's caption: the full data by SGHMC (ours: minibatches with control variates, two runs)",
        commands=_at(_table1_full),
    ),
    "kim2022-table4": Target(
        what="Table 4 (C.1): Wasserstein with equal and with diagonal covariances, A-SGHMC",
        commands=_at(_table4, "kim2022-table4"),
        published={
            "W-1": ("BPC-W", "1"),
            "W-10": ("BPC-W", "10"),
            "W-diagonal-1": ("BPC-W with diagonal covariances", "1"),
            "W-diagonal-10": ("BPC-W with diagonal covariances", "10"),
        },
    ),
    "kim2022-table5": Target(
        what="Table 5 (C.3): 50 and 100 images per class, no augmentation, HMC (smoke: digits, 20)",
        commands=_at(_table5),
    ),
    "kim2022-table6": Target(what="Table 6: herding and k-center, ECE and Brier score, HMC", commands=_at(_table6)),
    "kim2022-table7": Target(
        what="Table 7: CIFAR-100 and ImageNette, 1 image per class, no augmentation, HMC (smoke: digits)",
        commands=_at(_table7),
    ),
    "kim2022-fig4": Target(
        what="Figure 4: forward KL and Wasserstein on CIFAR-10-C, HMC and A-SGHMC", commands=_at(_figure4)
    ),
    "kim2022-fig5": Target(
        what="Figure 5 (C.2): number and standard deviations of the Gaussian draws of forward KL",
        commands=_at(_figure5, "kim2022-fig5"),
    ),
}
