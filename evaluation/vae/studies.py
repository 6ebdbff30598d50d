"""The tables of the VAE papers as lists of `run.py vae` commands, at three scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bpc.vae.priors import PRIORS
from evaluation.plan import Command

__all__ = ["VAE_PLANS", "VAE_SCALES", "VaeScale"]


def _printed() -> list[str]:
    """The priors that Ai et al. (2021) print, in the order of their table."""
    return [prior.name for prior in sorted(PRIORS, key=lambda prior: prior.place) if "ai2021" in prior.published]


@dataclass(frozen=True, kw_only=True)
class VaeScale:
    """How much is done; None leaves a published setting alone."""

    grey: tuple[str, ...]  # datasets of Ai et al. (2021)
    models: tuple[str, ...]
    binary: tuple[str, ...]  # of Tomczak and Welling (2018)
    seeds: int = 3
    epochs: int | None = None
    components: int | None = None
    exemplars: int = 25_000  # of Table 2's Exemplar VAE
    samples: int = 5000
    test_images: int = 0
    intervals: tuple[int, ...] = (1, 10, 50, 100)
    classifier_epochs: int = 50
    faces: tuple[str, str] = ("celeba", "fullconv")  # dataset and model of Ai et al.'s Table 4
    face_components: int = 240
    families: tuple[str, ...] = ("static_mnist", "mnist")  # of Tomczak and Welling's Tables 2 and 3
    family_model: str = "hvae"


VAE_SCALES = {
    "smoke": VaeScale(
        grey=("digits",), models=("vae",), binary=("digits",), seeds=1, epochs=150, components=50, exemplars=500, samples=100,
        intervals=(1, 5, 10), classifier_epochs=5, faces=("digits", "fullconv"), face_components=24, families=("digits",),
        family_model="vae",
    ),
    "cpu": VaeScale(
        grey=("mnist",), models=("vae",), binary=("mnist",), epochs=20, test_images=1000, intervals=(1, 10), classifier_epochs=10,
        faces=("mnist", "fullconv"), families=("static_mnist",),
    ),
    "full": VaeScale(
        grey=("mnist", "fashion_mnist", "cifar10"), models=("vae", "hvae", "convhvae"),
        binary=("static_mnist", "mnist", "omniglot", "caltech101_silhouettes", "frey_faces", "histopathology"),
    ),
}  # fmt: skip


def _train(
    scale: VaeScale,
    out: Path,
    common: Command,
    name: str,
    *,
    dataset: str,
    model: str,
    prior: str,
    seed: int,
    preset: str,
    extra: Sequence[str] = (),
) -> Command:
    length = ["--epochs", str(scale.epochs)] if scale.epochs else []
    size = ["--components", str(scale.components)] if scale.components else []
    score = ["--samples", str(scale.samples), "--test-images", str(scale.test_images)]
    what = ["--dataset", dataset, "--model", model, "--prior", prior, "--seed", str(seed), "--preset", preset]
    return ["vae", "train", *what, *length, *size, *score, *extra, "--out", str(out / "models" / name), *common]


def _compare(out: Path, title: str) -> Command:
    return ["vae", "compare", str(out / "models"), "--out", str(out / "comparison"), "--title", title]


def _density(scale: VaeScale, out: Path, common: Command) -> Iterator[Command]:
    for dataset in scale.grey:
        for model in scale.models:
            for seed in range(scale.seeds):
                for prior in _printed():
                    name = f"{dataset}-{model}-{prior}-{seed}"
                    yield _train(
                        scale, out, common, name, dataset=dataset, model=model, prior=prior, seed=seed, preset="ai2021"
                    )
    yield _compare(out, "Density estimation with squared error (Ai et al. 2021, Table 1)")


def _faces(scale: VaeScale, out: Path, common: Command) -> Iterator[Command]:
    dataset, model = scale.faces
    extra = ["--components", str(scale.face_components)]
    for seed in range(scale.seeds):
        for prior in _printed():
            yield _train(
                replace(scale, components=None), out, common, f"{prior}-{seed}", dataset=dataset, model=model, prior=prior,
                seed=seed, preset="ai2021", extra=extra,
            )  # fmt: skip
    yield _compare(out, "A fully convolutional VAE with squared error (Ai et al. 2021, Table 4)")


def _families(scale: VaeScale, out: Path, common: Command) -> Iterator[Command]:
    priors = [prior.name for prior in sorted(PRIORS, key=lambda prior: prior.place) if "tomczak2018" in prior.published]
    for dataset in scale.families:
        for seed in range(scale.seeds):
            for prior in priors:
                name = f"{dataset}-{prior}-{seed}"
                yield _train(
                    scale,
                    out,
                    common,
                    name,
                    dataset=dataset,
                    model=scale.family_model,
                    prior=prior,
                    seed=seed,
                    preset="tomczak2018",
                )
    yield _compare(out, "Families of priors (Tomczak and Welling 2018, Tables 2 and 3)")


def _time(scale: VaeScale, out: Path, common: Command) -> Iterator[Command]:
    # time needs no convergence: two updates' worth of epochs
    extra = ["--epochs", "21", "--no-evaluate"]
    for dataset in scale.grey:
        for prior, more in (
            ("gaussian", []),
            ("vampprior", []),
            ("bype", []),
            ("exemplar", ["--components", str(scale.exemplars)]),
        ):
            name = f"{dataset}-{prior}"
            more = [*extra, *more]
            yield _train(
                scale, out, common, name, dataset=dataset, model="vae", prior=prior, seed=0, preset="ai2021", extra=more
            )
            yield [
                "vae",
                "evaluate",
                str(out / "models" / name),
                "--samples",
                "10",
                "--test-images",
                "100",
                "--no-pictures",
                *common,
            ]
    yield _compare(out, "Seconds per epoch (Ai et al. 2021, Table 2); scored with 10 importance samples only")


def _augment(scale: VaeScale, out: Path, common: Command) -> Iterator[Command]:
    yield from _augmented(scale, out, common, scale.grey[:1], [f"{i / 10:g}" for i in range(11)])
    yield _compare(out, "Generative data augmentation (Ai et al. 2021, Tables 3 and 7)")


def _augment_more(scale: VaeScale, out: Path, common: Command) -> Iterator[Command]:
    yield from _augmented(scale, out, common, scale.grey[1:] or scale.grey, ["0.4"])
    yield _compare(out, "Generative data augmentation of other images (Ai et al. 2021, Table 6)")


def _augmented(
    scale: VaeScale, out: Path, common: Command, datasets: Sequence[str], weights: Sequence[str]
) -> Iterator[Command]:
    """A classifier on real and generated images for each prior; `weights` of the real ones, where ByPE's are swept."""
    for dataset in datasets:
        folders = []
        for prior in _printed():
            name = f"{dataset}-{prior}"
            folders.append((prior, str(out / "models" / name)))
            yield _train(scale, out, common, name, dataset=dataset, model="vae", prior=prior, seed=0, preset="ai2021")
        length = ["--epochs", str(scale.classifier_epochs)]
        for prior, folder in folders:
            yield ["vae", "augment", folder, "--way", "posterior", "--weights", "0.4", *length, *common]
            if PRIORS.get(prior).on_images:
                sweep = weights if prior == "bype" else ["0.4"]
                yield ["vae", "augment", folder, "--way", "prior", "--weights", *sweep, *length, *common]


def _intervals(scale: VaeScale, out: Path, common: Command) -> Iterator[Command]:
    for k in scale.intervals:
        for seed in range(scale.seeds):
            name, extra = f"k{k}-{seed}", ["--interval", str(k)]
            yield _train(
                scale,
                out,
                common,
                name,
                dataset=scale.grey[0],
                model="vae",
                prior="bype",
                seed=seed,
                preset="ai2021",
                extra=extra,
            )
    yield _compare(out, "Epochs between updates of the pseudocoreset (Ai et al. 2021, Table 5)")


def _vamp(scale: VaeScale, out: Path, common: Command) -> Iterator[Command]:
    models = ("vae", "hvae", "convhvae", "pixelhvae") if len(scale.models) > 1 else scale.models
    for dataset in scale.binary:
        for model in models:
            for seed in range(scale.seeds):
                for prior in ("gaussian", "vampprior"):
                    name = f"{dataset}-{model}-{prior}-{seed}"
                    yield _train(
                        scale,
                        out,
                        common,
                        name,
                        dataset=dataset,
                        model=model,
                        prior=prior,
                        seed=seed,
                        preset="tomczak2018",
                    )
    yield _compare(out, "VampPrior and standard prior (Tomczak and Welling 2018, Table 1)")


VAE_PLANS = {
    "ai2021-table1": ("Test NLL of four priors with squared error", _density),
    "ai2021-table2": ("Seconds per epoch: Gaussian, VampPrior, ByPE, Exemplar with 25,000 exemplars", _time),
    "ai2021-table3": ("Generative data augmentation, with Table 7's sweep of lambda", _augment),
    "ai2021-table4": (
        "CelebA by a fully convolutional VAE, four priors (get the images by hand: run.py doctor; smoke: digits, cpu: MNIST)",
        _faces,
    ),
    "ai2021-table6": (
        "Generative data augmentation of Fashion MNIST and CIFAR-10 (smoke: digits, cpu: MNIST)",
        _augment_more,
    ),
    "ai2021-table5": ("ByPE-VAE: epochs between updates of the pseudocoreset", _intervals),
    "tomczak2018-table1": ("VampPrior against the standard prior, by dataset and architecture", _vamp),
    "tomczak2018-table2": (
        "Tables 2 and 3: standard, mixture of Gaussians, VampPrior on data and learned, HVAE (smoke: digits, VAE)",
        _families,
    ),
}
