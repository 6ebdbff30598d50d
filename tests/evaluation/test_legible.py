"""Every kind of figure can be read: nothing lies on anything else, no word is cut, and a method looks the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from latent import made_up_pool
from legible import faults
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from bpc.coreset import Pseudocoreset
from bpc.methods import METHODS
from evaluation.compare import method_labels, summarise
from evaluation.fidelity import Fidelity
from evaluation.metrics import empty_sums, update
from evaluation.plots import (
    plot_comparison,
    plot_coreset_grid,
    plot_coresets_side_by_side,
    plot_distill_curve,
    plot_fourier_diagonal,
    plot_learning_curves,
    plot_page,
    plot_radar,
    plot_reliability,
)
from evaluation.plots.base import new_figure, style_of, styles_of
from evaluation.rows import Row
from evaluation.ssl.pictures import NAMES, plot_accuracy, plot_entropies, plot_learning, plot_sheets
from evaluation.studies.figures import plot_gaussian_sizes, plot_gaussian_steps
from evaluation.studies.regression_figures import OnGrid, plot_contours, plot_regression
from evaluation.vae.pictures import (
    plot_curves,
    plot_histogram,
    plot_images,
    plot_knn,
    plot_map,
    plot_pseudo_inputs,
    prior_labels,
)

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results" / "demo"
CORESETS = [name for name in method_labels() if name != "full"]


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def coreset(method: str, ipc: int = 1, size: int = 8) -> Pseudocoreset:
    return Pseudocoreset(
        points=torch.randn(10 * ipc, 1, size, size, generator=torch.Generator().manual_seed(0)),
        labels=torch.arange(10).repeat(ipc),
        weights=torch.ones(10 * ipc),
        mean=(0.5,),
        std=(0.25,),
        dataset="digits",
        method=method,
        num_classes=10,
    )


def predictives(names) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The better the later, from chance to sure of everything."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (600,), generator=generator)
    hot = torch.nn.functional.one_hot(labels, 10)
    skills = np.linspace(0.5, 6, len(names))
    noise = [torch.randn(2, 600, 10, generator=generator) for _ in names]
    return {n: (x + k * hot).double().softmax(-1) for n, x, k in zip(names, noise, skills, strict=True)}, labels


def reliability(path, names=(*CORESETS, "BPC-fKL (+Aug)")):
    probs, labels = predictives(names)
    return plot_reliability({n: update(empty_sums((2,)), p, labels) for n, p in probs.items()}, path)


def page(path):
    probs, labels = predictives(("random", "herding", "rkl", "fkl", "full"))
    chains = random().normal(size=(4, 200)) * 100 - 6000
    measure = Fidelity(*(torch.rand(3, dtype=torch.float64) for _ in range(4)))
    return plot_page(
        path,
        probs=probs,
        labels=labels,
        corrupted=probs,
        measures={n: measure for n in probs if n != "full"},
        ceiling=measure,
        log_density={"fkl": chains, "random": chains, "full": chains},
        energy={"fkl": chains},
        title="BPC-fKL on digits",
    )


def comparison(path, methods=(*CORESETS, "full"), sizes=(1, 10)):
    rows = [
        Row(run="r", config_hash="c", dataset="cifar10", method=m, architecture="convnet", ipc=ipc, sampler="hmc",
            protocol="kim2022", seed=seed, metric=metric, value=0.3 + 0.1 * seed)
        for m in methods
        for ipc in (sizes if m != "full" else (0,))
        for metric in ("accuracy", "nll_kim2022")
        for seed in range(3)
    ]  # fmt: skip
    return plot_comparison(summarise(pd.DataFrame([vars(row) for row in rows])), path)


def radar(path):
    corruptions = ["gaussian_noise", "shot_noise", "defocus_blur", "elastic_transform", "contrast", "jpeg_compression"]
    table = pd.DataFrame(
        [
            {"dataset": "digits", "architecture": "convnet", "ipc": 1, "sampler": "hmc", "protocol": "exact", "method": m,
             "augment": False, "metric": metric, "corruption": c, "mean": 0.3 + 0.02 * i + 0.05 * j}
            for metric in ("accuracy", "nll")
            for i, m in enumerate(CORESETS)
            for j, c in enumerate(corruptions)
        ]
    )  # fmt: skip
    return plot_radar(table, path)


def learning_curves(path, epochs=6):
    log = [
        {"expert": e, "epoch": t, "train_loss": 2 / (t + 1), "test_loss": 2.1 / (t + 1), "train_accuracy": 1 - 0.9 / (t + 1),
         "test_accuracy": 0.5}
        for e in range(3)
        for t in range(epochs)
    ]  # fmt: skip
    return plot_learning_curves(pd.DataFrame(log), path)


def distill(method, steps):
    def draw(path):
        norm = np.exp(-np.arange(1, steps + 1) / 200)
        return plot_distill_curve(
            pd.DataFrame({"step": np.arange(1, steps + 1), "value": norm, "grad_norm": norm}), path, method=method
        )

    return draw


def ssl_log(folder, records):
    lines = [
        {"iteration": 100 * i, "reconstruction": -400.0 - i, "kl": 2.0, "energy_gap": 1 / i, "labelled_loss": 1 / i**2,
         "augmented_loss": 0.3 / i}
        for i in range(1, records + 1)
    ]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "log.jsonl"


def ssl_learning(records):
    return lambda path: plot_learning(ssl_log(path.parent, records), path, title="digits, 100 labels, H")


def ssl_accuracy(path):
    rows = [
        {"label": n, "samples": s, "seed": seed, "value": 0.9 + 0.03 * random().random()}
        for n in NAMES.values()
        for s in ((0,) if n == "Baseline" else (10_000, 40_000, 100_000))
        for seed in range(3)
    ]
    return plot_accuracy(pd.DataFrame(rows), path, title="mnist, 100 labels")


def ssl_entropies(path):
    pool = made_up_pool(300)._replace(entropies=torch.from_numpy(10 ** random().uniform(-12, 0.3, 300)))
    return plot_entropies(pool, path, 1e-3, title="digits, 100 labels, H, L = 1,000, temperature 1")


PRIORS = ["ByPE, interval 1", "ByPE, interval 50", "Gaussian", "VampPrior", "VampPrior, data", "Mixture of Gaussians"]


def vae_curves(epochs):
    t = np.arange(1, epochs + 1)
    frame = pd.DataFrame({"epoch": t, "train_elbo": -31 - 10 / t, "validation_elbo": -30 - 10 / t})
    return lambda path: plot_curves(dict.fromkeys(PRIORS, frame), path, title="mnist, vae, mse, is5000-n500")


def vae_histogram(path):
    values = {n: torch.from_numpy(random().normal(-30 + i, 6, 500)) for i, n in enumerate(PRIORS)}
    return plot_histogram(values, path, title="Test images: mnist, vae")


def vae_knn(path):
    rows = [
        {"label": n, "metric": f"knn_accuracy@{k}", "value": 0.9 + 0.01 * i + 0.001 * k, "seed": seed}
        for i, n in enumerate(PRIORS)
        for k in (3, 5, 7, 9, 11, 13, 15)
        for seed in range(2)
    ]
    return plot_knn(pd.DataFrame(rows), path, title="Nearest neighbours of latents: mnist, vae")


def vae_pseudo_inputs(path):
    weights = torch.from_numpy(random().uniform(0.8, 1.2, 500)) / 500
    return plot_pseudo_inputs(torch.rand(500, 1, 28, 28), weights, path, title="Pseudo-inputs: mnist, vae, ByPE prior")


def vae_map(path):
    return plot_map(random().normal(size=(200, 2)), torch.arange(200) % 10, path, title="t-SNE: mnist, vae, ByPE prior")


def gaussian(plot, sizes):
    rows = [
        {"method": m, "repeat": r, "size": s, "steps": t, **{n: 60 + 500 * scale / (t + 1) for n in names},
         **{f"floor_{n}": 50.0 for n in names}}
        for m, scale in (("rkl", 1.0), ("wasserstein", 1.1), ("fkl", 1.2), ("random", 2.0))
        for r in range(2)
        for s in sizes
        for t in range(0, 400, 50)
        for names in [("reverse_kl", "w2_squared", "forward_kl")]
    ]  # fmt: skip
    return lambda path: plot(pd.DataFrame(rows), path)


def regression(path):
    rows = [
        {"method": m, "repeat": r, "size": s, "steps": t, "reverse": (1 + r) * 100 / s / (t + 1), "forward": 100 / s}
        for m in ("random", "rkl", "rkl-exact")
        for r in range(2)
        for s in (5, 10, 20, 50, 200)
        for t in (0, 10, 100, 300)
    ]
    along = pd.DataFrame(rows)
    columns = {"reverse": "KL(core‖full)", "forward": "KL(full‖core)"}
    return plot_regression(along[along["steps"] == 300], along, path, columns=columns, parameters=11)


def contours(path):
    axis = torch.linspace(-3, 3, 60)
    density = OnGrid(axis, axis, torch.exp(-(axis[:, None] ** 2) - axis**2))
    points, labels = torch.randn(50, 2), torch.arange(50) % 2
    return plot_contours(
        {"full": density, "random": density, "rkl": density},
        path,
        names=("coefficient 1", "coefficient 2"),
        title="50 % and 95 % of the posterior",
        data=(points, labels),
        core=(points[:9], labels[:9], torch.rand(9) + 0.1),
        data_names=("component 1", "component 2"),
    )


FIGURES = {
    "reliability": reliability,
    "reliability of one": lambda path: reliability(path, ("fkl",)),
    "page": page,
    "comparison": comparison,
    "comparison of two": lambda path: comparison(path, ("random", "fkl"), (1,)),
    "radar": radar,
    "learning curves": learning_curves,
    "learning curves of one epoch": lambda path: learning_curves(path, 1),
    "fkl": distill("fkl", 60),
    "wasserstein": distill("wasserstein", 1000),
    "rkl": distill("rkl", 1),
    "fourier": lambda path: plot_fourier_diagonal({m: coreset(m).images for m in CORESETS}, path),
    "coreset": lambda path: plot_coreset_grid(coreset("fkl"), path),
    "coreset of 50": lambda path: plot_coreset_grid(coreset("wasserstein", 50), path),
    "eight coresets": lambda path: plot_coresets_side_by_side([coreset(m) for m in CORESETS], path),
    "wide coresets": lambda path: plot_coresets_side_by_side([coreset(m, 10) for m in CORESETS], path, per_class=10),
    "ssl learning": ssl_learning(90),
    "ssl learning, short": ssl_learning(1),
    "ssl learning, nothing": ssl_learning(0),
    "ssl accuracy": ssl_accuracy,
    "ssl entropies": ssl_entropies,
    "ssl sheets": lambda path: plot_sheets(made_up_pool(300), path.parent, 3, title="digits, 100 labels, H"),
    "vae curves": vae_curves(40),
    "vae curves, short": vae_curves(1),
    "vae histogram": vae_histogram,
    "vae neighbours": vae_knn,
    "vae pseudo-inputs": vae_pseudo_inputs,
    "vae map": vae_map,
    "vae images": lambda path: plot_images(torch.rand(40, 1, 8, 8), path, columns=10, title="Samples: digits"),
    "gaussian steps": gaussian(plot_gaussian_steps, [5]),
    "gaussian sizes": gaussian(plot_gaussian_sizes, [5, 20, 40, 60, 80, 100]),
    "regression": regression,
    "contours": contours,
}


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved."""
    figures: dict[int, Figure] = {}
    original = Figure.savefig

    def savefig(self, *args, **options):
        figures[id(self)] = self
        original(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_read(name, drawn, tmp_path):
    written = FIGURES[name](tmp_path / "figure.png")
    pixels = name.startswith("coreset")  # a coreset alone is pixels: no PDF of it
    assert len(drawn) == len(written) / (1 if pixels else 2)
    assert [found for figure in drawn.values() for found in faults(figure)] == []
    # each as PNG and as PDF, said to the caller
    suffixes = [".png"] if pixels else [".png", ".pdf"]
    assert {path for path in tmp_path.iterdir() if path.suffix in (".png", ".pdf")} == set(written)
    assert [path.suffix for path in written] == suffixes * len(drawn)


def test_a_fault_is_found():
    """The check itself: a legend on a curve, one over the axis, crowded numbers, tiny letters, a word that is cut."""
    figure, (axes,) = new_figure(3, 3, 1, 1)
    axes.plot([0, 1], [0, 1], label="a")
    axes.legend(loc="upper right")
    assert [found[:10] for found in faults(figure)] == ["the legend"]

    figure, (axes,) = new_figure(3, 3, 1, 1)
    axes.plot([0, 1], [0, 1], label="a")
    figure.legend(loc="center")
    axes.set_xticks(np.linspace(0, 1, 30), ["number"] * 30)
    axes.text(0.1, 0.5, "tiny", fontsize=5)
    axes.set_ylabel("a label that is far longer than the side of the figure that it stands beside" * 2)
    assert len(faults(figure)) == 4


@pytest.mark.parametrize("records", [1, 2])
def test_a_short_ssl_run_has_its_points_drawn(records, drawn, tmp_path):
    plot_learning(ssl_log(tmp_path, records), tmp_path / "learning.png", title="t")
    (figure,) = drawn.values()
    for axes in figure.axes:
        assert axes.lines and all(line.get_marker() == "o" and len(line.get_xdata()) == records for line in axes.lines)
        assert [tick for tick in axes.get_xticks()] == [100 * i for i in range(1, records + 1)]


def test_an_ssl_run_without_a_record_says_so(drawn, tmp_path):
    plot_learning(tmp_path / "log.jsonl", tmp_path / "learning.png", title="t")
    (figure,) = drawn.values()
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["nothing recorded"] * 4


@pytest.mark.parametrize("count, lines", [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_coresets_stand_in_rows_of_at_most_four(count, lines, drawn, tmp_path):
    plot_coresets_side_by_side([coreset((CORESETS * 2)[i]) for i in range(count)], tmp_path / "a.png")
    (figure,) = drawn.values()
    tops = {round(axes.get_position().y1, 3) for axes in figure.axes}
    assert len(figure.axes) == count and len(tops) == lines


@pytest.mark.parametrize("per_class", [1, 10])
def test_coresets_are_as_wide_as_a_text(per_class, drawn, tmp_path):
    """Shown 900 pixels wide, as on the project's page, titles keep the size of a text."""
    plot_coresets_side_by_side([coreset(m, 10) for m in CORESETS], tmp_path / "a.png", per_class=per_class)
    (figure,) = drawn.values()
    width, height = figure.get_size_inches()
    assert width <= 9.2 and height > width / 5
    assert all(axes.title.get_fontsize() * 900 / (72 * width) > 12 for axes in figure.axes)


def test_the_picture_of_the_readme_is_one_of_them():
    height, width = imread(COMMITTED / "coresets-digits-ipc1.png").shape[:2]
    assert width < 1500 and height > width / 5


def test_a_method_looks_the_same_whatever_stands_beside_it():
    names = METHODS.names()
    alone = {name: style_of(name, [name]) for name in names}
    among = {name: style_of(name, ["mine", *names]) for name in names}
    assert alone == among
    assert {name: (look.color, look.marker, look.name) for name, look in alone.items()} == {
        method.name: (method.colour, method.marker, method.label) for method in METHODS
    }
    augmented = style_of("BPC-fKL (+Aug)", ["fkl", "BPC-fKL (+Aug)"])
    assert augmented.color == alone["fkl"].color and augmented.line != alone["fkl"].line


def test_a_label_of_ones_own_takes_no_method_s_colour():
    labels = ["fkl", "wasserstein", "mine", "another"]
    assert len({style_of(label, labels).color for label in labels}) == 4


def test_priors_keep_their_colours_and_variants_differ_by_lines():
    names = list(prior_labels().values())
    few, many = styles_of(["ByPE"], names), styles_of(PRIORS, names)
    assert few["ByPE"].color == many["ByPE, interval 1"].color == many["ByPE, interval 50"].color
    assert many["ByPE, interval 1"].line != many["ByPE, interval 50"].line
    assert many["VampPrior"].color != many["VampPrior, data"].color  # another prior, not a variant
    assert len({look.color for look in styles_of(names, names).values()}) == len(names)


def test_curves_and_histograms_of_priors_share_their_colours(drawn, tmp_path):
    vae_curves(40)(tmp_path / "a.png")
    vae_histogram(tmp_path / "b.png")
    curves, histogram = (figure.axes[0] for figure in drawn.values())
    of_curves = {line.get_label(): to_hex(line.get_color()) for line in curves.lines if line.get_label() in PRIORS}
    of_bars = {patch.get_label().split(" (")[0]: to_hex(patch.get_edgecolor()) for patch in histogram.patches}
    assert of_curves == of_bars and set(of_curves) == set(PRIORS)
