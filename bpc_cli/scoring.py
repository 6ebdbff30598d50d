"""From the scoring flags to rows in a run's folder: as published, or exactly."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpc.errors import ConfigError, FolderBusy, unknown_name
from bpc_cli.flags import ExactFlags, PlaceFlags, RunFlags, ScoringFlags
from bpc_cli.reference import check_reference, reference_for, reference_plan, shared_settings
from bpc_cli.setting import Setting

if TYPE_CHECKING:
    from bpc.coreset import Pseudocoreset
    from bpc.data import CorruptedCifar10, GeneratedCorruptions
    from bpc.runs import Run
    from evaluation.exact_chains import ExactConfig
    from evaluation.kim2022_chains import Kim2022Config
    from evaluation.protocols import ExactSettings

__all__ = ["ScoringPlan", "random_coresets", "scoring_plan"]


@dataclass(frozen=True)
class ScoringPlan:
    """How a command scores: checked settings, and the flags that say on what."""

    config: Kim2022Config | ExactConfig
    seeds: tuple[int, ...]
    flags: ScoringFlags
    exact: ExactFlags
    quick: ExactSettings | None = None  # what --quick would give, where it is not asked for

    @property
    def is_exact(self) -> bool:
        """Whether by one of the exact protocols."""
        from evaluation.exact_chains import ExactConfig

        return isinstance(self.config, ExactConfig)

    @property
    def augments(self) -> bool:
        """Whether the sampler augments the coreset at every gradient."""
        from bpc.samplers import KIM2022_SAMPLERS

        return not self.is_exact and KIM2022_SAMPLERS.get(self.config.sampler).augments

    def record(self) -> dict[str, Any]:
        """The part of a run's configuration, and so of its hash."""
        record = {**self.config.record(), "seeds": len(self.seeds)}
        if self.flags.corruptions:
            record["corruption_images"] = self.flags.corruption_images
        if self.is_exact:
            names = ("beside_random", "reference", "reference_sampler", "reference_samples", "reference_warmup")
            record |= {name: getattr(self.exact, name) for name in names}
            if self.exact.reference_runs == 1:
                record["reference_runs"] = 1
        return record

    def check(self, setting: Setting) -> None:
        """Refuse what the dataset has not.

        Raises:
            ConfigError: more test images than there are; settings of the reference that do not go together.
        """
        if self.is_exact and self.exact.reference != "none":
            reference_plan(self.exact, len(setting.dataset.train), self.flags.leapfrog_steps)
        asked, there = self.flags.test_images, len(setting.dataset.test)
        if asked > there:
            raise ConfigError(
                f"--test-images {asked:,} is more than the {there:,} that {setting.dataset.name} has; 0 is all."
            )

    def notes(self) -> list[str]:
        """Where the scoring is not at full scale or not as published, for captions."""
        from bpc.weight_prior import WEIGHT_PRIORS
        from evaluation.exact_chains import ExactConfig

        notes = [f"{self.flags.test_images:,} test images"] if self.flags.test_images else []
        if isinstance(self.config, ExactConfig):
            s = self.config.settings
            prior = WEIGHT_PRIORS.get(s.prior).words(s.prior_std)
            chains = f"{s.chains} chains of {s.samples} draws after {s.warmup} of warm-up, {prior}"
            return [*notes, chains, *([f"temperature {s.temperature:g}"] if s.temperature != 1 else [])]
        changed = {k: v for k, v in self.config.overrides.items() if v is not None}
        if changed:
            notes.append("sampler settings changed: " + ", ".join(f"{k} {v}" for k, v in changed.items()))
        return notes

    def score(
        self,
        setting: Setting,
        run: Run,
        coresets: list[Pseudocoreset],
        place: RunFlags,
        *,
        beside_random: bool,
        yes: bool = False,
    ) -> None:
        """Score a coreset (or one per seed), and random ones of its size where wanted, into the run's folder.

        Args:
            setting, coresets, place: of the command.
            run: the folder.
            beside_random: whether random ones are wanted.
            yes: begin at once, however long exact sampling takes.
        """
        groups = [coresets]
        if beside_random and coresets[0].method not in ("random", "full"):
            groups.append(random_coresets(setting, coresets[0].ipc, self.seeds, run.hash))
        if self.is_exact:
            self._score_exactly(setting, run, groups, place, yes)
        else:
            self._score_as_published(setting, run, groups, place)

    def _score_as_published(
        self, setting: Setting, run: Run, groups: list[list[Pseudocoreset]], place: RunFlags
    ) -> None:
        from evaluation.inputs import every_corruption
        from evaluation.kim2022_chains import Kim2022Config
        from evaluation.kim2022_run import score_kim2022

        assert isinstance(self.config, Kim2022Config)
        extra = []
        if self.flags.corruptions:
            extra = every_corruption(self._shifted(setting, place), self.flags.corruption_images)
        for group in groups:
            score_kim2022(
                run,
                setting.network,
                setting.dataset,
                group,
                self.config,
                seeds=self.seeds,
                augment=setting.augment,
                extra=[inputs._replace(split=inputs.split.to(setting.device)) for inputs in extra],
                chains_at_once=self.flags.chains_at_once,
                memory_budget=place.memory_budget,
                checkpoint_seconds=place.checkpoint_seconds,
            )

    def _score_exactly(
        self, setting: Setting, run: Run, groups: list[list[Pseudocoreset]], place: RunFlags, yes: bool
    ) -> None:
        """Posteriors of coresets, of random ones, of the full data; fidelity; one page of figures."""
        from bpc.progress import say
        from evaluation.compare import method_label
        from evaluation.exact_chains import ExactConfig
        from evaluation.exact_report import write_page
        from evaluation.exact_run import add_fidelity, score_exact
        from evaluation.inputs import Inputs, every_corruption, foreign, mixed_corruptions
        from evaluation.predictive import pick_images

        config, exact = self.config, self.exact
        assert isinstance(config, ExactConfig)
        network, dataset, device = setting.network, setting.dataset, setting.device
        weights = [round(float(group[0].weights.sum())) for group in groups]
        if config.protocol == "exact" and len(set(weights)) > 1:
            say(
                f"The coreset's weights sum to {weights[0]:,}, a random one's to {weights[1]:,}; exact-scaled makes both "
                f"{len(dataset.train):,}."
            )
        picked = pick_images(dataset.test, config.test_images)
        shifted = self._shifted(setting, place)
        asked = [Inputs("test", picked), mixed_corruptions(shifted), foreign(picked, dataset)]
        more = every_corruption(shifted, self.flags.corruption_images) if self.flags.corruptions else []
        common, more = ([i._replace(split=i.split.to(device)) for i in part] for part in (asked, more))
        self._say_cost(setting, run, groups, yes, asked=sum(len(i.split) for i in (*common, *more)))
        reference, path, wanted = None, None, exact.reference != "none"
        if exact.reference not in ("auto", "none"):
            path = Path(exact.reference)
        steps = self.flags.leapfrog_steps
        make = partial(reference_for, setting, exact, place, leapfrog_steps=steps, path=path, yes=yes)
        if wanted:
            try:
                reference = make()
            except FolderBusy:
                say("Another process samples the full data's posterior; the coresets' come first.")
        for group in groups:
            score_exact(
                run,
                network,
                dataset,
                group,
                config,
                seeds=self.seeds,
                inputs=[*common, *more],
                checkpoint_seconds=place.checkpoint_seconds,
            )
        while wanted and reference is None:
            try:
                reference = make()
            except FolderBusy:
                time.sleep(1.0)
        if reference is not None:
            add_fidelity(run, reference, common)
        title = f"{method_label(groups[0][0].method)} on {dataset.name}"
        run.own(write_page(run.path, reference, title=title, inputs=common))

    def _say_cost(
        self, setting: Setting, run: Run, groups: list[list[Pseudocoreset]], yes: bool, *, asked: int
    ) -> None:
        """What the coresets' posteriors cost, before any is sampled; where that is hours on a CPU, time to think."""
        from bpc.progress import plural, say
        from bpc_cli.patience import ask_patience
        from evaluation.exact_chains import ExactConfig
        from evaluation.exact_cost import cost_words, sampling_seconds
        from evaluation.exact_run import unwritten_seeds

        assert isinstance(self.config, ExactConfig)
        settings, total = self.config.settings, 0.0
        for group in groups:
            first, left = group[0], len(unwritten_seeds(run, group[0], self.config, self.seeds))
            if not left:
                continue
            points, labels = (x.to(setting.device) for x in (first.points, first.labels))
            cost = sampling_seconds(
                setting.network, points, labels, settings, chains=left * settings.chains, asked=asked
            )
            who = first.method if left == 1 else f"{first.method}, {plural(left, 'seed')},"
            say(cost_words(who, settings, cost, self.quick))
            total += cost(settings)
        if not list(run.path.glob("chains-*")):  # a run that goes on has been agreed to
            ask_patience(total, setting.device, yes, lambda: "Less: --quick, fewer --seeds.", lead="")

    def _shifted(self, setting: Setting, place: PlaceFlags) -> CorruptedCifar10 | GeneratedCorruptions:
        """Corrupted test images, official or generated; says which."""
        from bpc.data import load_corrupted
        from bpc.progress import say
        from evaluation.inputs import MIXED_CLEAN_IMAGES

        shifted = load_corrupted(
            setting.dataset,
            data_root=place.data_root,
            official=not setting.config["validation_fraction"],
            images=self.flags.corruption_images if self.flags.corruptions else MIXED_CLEAN_IMAGES,
        )
        say(f"Corrupted images: {shifted.source}, {len(shifted.corruptions)} corruptions, 5 severities.")
        return shifted


def scoring_plan(
    flags: ScoringFlags,
    exact: ExactFlags,
    sampler: str,
    *,
    ipcs: Sequence[int],
    seed: int,
    coresets: int = 1,
    backend: str = "native",
) -> ScoringPlan:
    """Check the scoring flags and settle what they leave open, before anything is learned or sampled.

    Args:
        flags, exact: of the command.
        sampler: name.
        ipcs: images per class of the coresets; Table 3's settings depend on them.
        seed: the first one.
        coresets: how many are given.
        backend: for the exact protocols.

    Raises:
        ConfigError: names that do not exist or do not go together, or settings that leave no draw.
    """
    from evaluation.exact_chains import ExactConfig
    from evaluation.kim2022_chains import Kim2022Config
    from evaluation.protocols import EXACT_PROTOCOLS, KIM2022_PROTOCOLS, ExactSettings, kim2022_settings

    if flags.protocol in EXACT_PROTOCOLS:
        if exact.reference not in ("auto", "none"):
            check_reference(Path(exact.reference))
        settings, quick = (
            ExactSettings.for_sampler(
                sampler,
                backend,
                quick=shorter,
                **shared_settings(exact),
                warmup=exact.warmup,
                samples=exact.samples,
                leapfrog_steps=flags.leapfrog_steps,
                step_size=flags.step_size,
            )
            for shorter in (exact.quick, True)
        )
        config: Kim2022Config | ExactConfig = ExactConfig(
            protocol=flags.protocol, settings=settings, test_images=flags.test_images
        )
        count = flags.seeds or coresets
    else:
        if flags.protocol not in KIM2022_PROTOCOLS:
            raise unknown_name("protocol", flags.protocol, KIM2022_PROTOCOLS + EXACT_PROTOCOLS)
        if backend != "native":
            raise unknown_name(
                "backend", backend, ("native",), hint=f"{flags.protocol} has no other; use --protocol exact."
            )
        names = ("iterations", "burn_in", "leapfrog_steps", "step_size", "penalty")
        overrides = {name: getattr(flags, name) for name in names}
        config = Kim2022Config(
            sampler=sampler, protocol=flags.protocol, test_images=flags.test_images, overrides=overrides
        )
        for ipc in ipcs:
            kim2022_settings(flags.protocol, sampler, ipc, 1, **overrides)
        count = flags.seeds or 5
        quick = None
    if coresets > 1 and coresets != count:
        raise ConfigError(f"{coresets} coresets for {count} seeds: give one, or one for each.")
    return ScoringPlan(config, tuple(range(seed, seed + count)), flags, exact, None if exact.quick else quick)


def random_coresets(setting: Setting, ipc: int, seeds: Sequence[int], config_hash: str) -> list[Pseudocoreset]:
    """One random subset per seed."""
    from bpc.seeding import make_generator
    from bpc.selection import build_coreset, select

    dataset, found = setting.dataset, []
    for seed in seeds:
        generator = make_generator("cpu", seed, "select", "random")
        chosen = select("random", dataset.train.labels.cpu(), ipc, dataset.num_classes, generator=generator)
        found.append(build_coreset(dataset, chosen, method="random", seed=seed, config_hash=config_hash))
    return found
