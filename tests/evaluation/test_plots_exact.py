"""Figures of an exact evaluation: what is drawn is what was given, and nothing is drawn over anything else's state."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from bpc.errors import ConfigError, DataError
from bpc.methods import METHODS
from evaluation.calibration import aurc, entropy, risk_coverage
from evaluation.fidelity import Fidelity, fidelity
from evaluation.plots import plot_page
from evaluation.plots.base import new_figure, save, shades
from evaluation.plots.calibration import ENTROPY_BINS, draw_entropy, draw_risk_coverage
from evaluation.plots.chains import draw_ranks, draw_trace
from evaluation.plots.fidelity import draw_fidelity

N, Y = 300, 4


@pytest.fixture(autouse=True)
def _global_state_is_left_alone():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


def labels():
    return torch.randint(Y, (N,), generator=torch.Generator().manual_seed(9))


def predictive(skill, *, lead=(), seed=0):
    noise = torch.randn(*lead, N, Y, generator=torch.Generator().manual_seed(seed))
    return (noise + skill * torch.nn.functional.one_hot(labels(), Y)).double().softmax(-1)


def chains(c=3, s=200, seed=0):
    return np.random.default_rng(seed).normal(size=(c, s))


def measure(*values):
    return Fidelity(*(torch.tensor(v, dtype=torch.float64) for v in values))


def assert_drawn(path):
    picture = imread(path)
    assert min(picture.shape[:2]) > 100 and picture[..., :3].std() > 0.01
    assert not list(path.parent.glob(".*tmp"))


# --- risk and coverage ----------------------------------------------------------------------


def test_risk_curves_are_the_means_over_chains_with_their_area():
    probs = {"fkl": predictive(2.0, lead=(3,)), "random": predictive(0.5)}
    curves = {name: risk_coverage(p, labels()) for name, p in probs.items()}
    _, (axes,) = new_figure(4, 3, 1, 1)
    draw_risk_coverage(axes, curves)
    line = axes.lines[0]
    assert line.get_xdata()[-1] == 1
    assert line.get_ydata()[-1] == pytest.approx(curves["fkl"].risk[:, -1].mean().item())
    assert len(line.get_xdata()) == N - 9  # from ten examples on
    assert line.get_color() == METHODS.get("fkl").colour
    assert line.get_label() == f"BPC-fKL, area {aurc(probs['fkl'], labels()).mean():.3f}"


# --- entropies ------------------------------------------------------------------------------


def test_entropy_histograms_hold_every_input():
    clean = {"fkl": predictive(2.0, lead=(2,)), "full": predictive(3.0)}
    corrupted = {"fkl": predictive(0.5), "full": predictive(1.0)}
    _, all_axes = new_figure(4, 3, 1, 2)
    draw_entropy(all_axes, ["fkl"], clean, corrupted, "full", 2)
    of_clean, of_corrupted, *of_reference = [patch.get_data() for patch in all_axes[0].patches]
    assert len(of_reference) == 2
    for data, probs in (
        (of_clean, clean["fkl"]),
        (of_corrupted, corrupted["fkl"]),
        (of_reference[1], corrupted["full"]),
    ):
        assert data.values.sum() == pytest.approx(1) and len(data.values) == ENTROPY_BINS
        expected = np.histogram(entropy(probs).flatten(), np.linspace(0, math.log(Y), ENTROPY_BINS + 1))[0]
        assert data.values == pytest.approx(expected / expected.sum())
    assert len(all_axes[0].figure.axes) == 1  # the panel that is left over is gone


def test_a_uniform_prediction_is_in_the_last_bin():
    _, (axes,) = new_figure(4, 3, 1, 1)
    draw_entropy([axes], ["fkl"], {"fkl": torch.full((7, 10), 0.1)}, {}, None, 1)  # rounds to above log 10
    assert axes.patches[0].get_data().values[-1] == 1


# --- fidelity -------------------------------------------------------------------------------


def test_fidelity_bars_are_means_and_the_ceiling_is_a_line():
    measures = {"random": measure(0.4, 0.5, 0.8, 0.9), "fkl": measure([0.7, 0.9], [0.1, 0.3], [0.1, 0.2], [-0.2, 0.1])}
    _, all_axes = new_figure(6, 4, 2, 2, sharey=True)
    draw_fidelity(all_axes, measures, measure(0.95, 0.05, 0.01, 0.02))
    widths = [[bar.get_width() for bar in axes.patches] for axes in all_axes]
    assert widths == [pytest.approx(w) for w in ([0.4, 0.8], [0.5, 0.2], [0.8, 0.15], [0.9, -0.05])]
    for axes, best in zip(all_axes, (0.95, 0.05, 0.01, 0.02), strict=True):
        assert any(line.get_linestyle() == "--" and line.get_xdata()[0] == pytest.approx(best) for line in axes.lines)
    dots = [line for line in all_axes[0].lines if line.get_marker() == "."]
    assert len(dots) == 1 and list(dots[0].get_xdata()) == pytest.approx([0.7, 0.9])
    assert [text.get_text() for text in all_axes[0].get_yticklabels()] == ["Random", "BPC-fKL"]


def test_a_method_without_a_finite_measure_is_named():
    broken = measure(*[math.nan] * 4)
    _, all_axes = new_figure(6, 4, 2, 2, sharey=True)
    draw_fidelity(all_axes, {"fkl": broken, "random": measure(0.4, 0.5, 0.8, 0.9)}, None)
    assert [text.get_text() for text in all_axes[0].texts] == ["not finite"] and len(all_axes[0].patches) == 1


# --- chains ---------------------------------------------------------------------------------


def test_ranks_of_equal_chains_are_flat_and_of_a_higher_chain_on_the_right():
    _, (flat, shifted) = new_figure(6, 3, 1, 2)
    interleaved = np.arange(400.0).reshape(200, 2).T  # 0 2 4 ... and 1 3 5 ...
    draw_ranks(flat, interleaved, "#0072B2")
    for i, patch in enumerate(flat.patches):
        assert patch.get_data().values - (1 - i) == pytest.approx(0.42)
    draw_ranks(shifted, np.stack([interleaved[0], interleaved[0] + 1000]), "#0072B2")
    low, high = (patch.get_data().values - base for patch, base in zip(shifted.patches, (1, 0), strict=True))
    assert low == pytest.approx([0.84] * 10 + [0] * 10) and high == pytest.approx([0] * 10 + [0.84] * 10)


def test_traces_are_thinned_and_name_broken_chains():
    values = chains(c=2, s=5000)
    values[1, 3000:] = math.nan
    _, (axes,) = new_figure(6, 3, 1, 1)
    draw_trace(axes, values, "#0072B2")
    first, second = axes.lines
    assert len(first.get_xdata()) == 1000 and np.array_equal(first.get_ydata(), values[0, ::5])
    assert first.get_color() != second.get_color() and axes.texts[0].get_text() == "1 not finite"


# --- the page and the files -----------------------------------------------------------------


def page(**changes):
    probs = {name: predictive(skill, lead=(2,), seed=i) for i, (name, skill) in enumerate(
        {"random": 0.5, "herding": 0.7, "rkl": 1.0, "fkl": 1.5, "full": 2.5}.items())}  # fmt: skip
    reference = probs["full"].mean(0)
    given = {
        "probs": probs,
        "labels": labels(),
        "corrupted": {name: p.sqrt() / p.sqrt().sum(-1, keepdim=True) for name, p in probs.items()},
        "measures": {name: fidelity(p, reference) for name, p in probs.items() if name != "full"},
        "ceiling": fidelity(predictive(2.5, seed=20), reference),
        "log_density": {"full": chains(), "fkl": chains(seed=1)},
        "energy": {"full": chains(seed=2)},
    }
    return given | changes


def test_the_page(tmp_path, monkeypatch):
    drawn = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), original(self, *a, **k))[1])
    files = plot_page(tmp_path / "page", **page(), title="digits, NUTS")
    assert [file.name for file in files] == ["page.png", "page.pdf"]
    assert_drawn(files[0])
    assert files[1].read_bytes().startswith(b"%PDF")
    heads = [sub.get_suptitle() for band in drawn[0].subfigs for sub in (band, *band.subfigs) if sub.get_suptitle()]
    assert [head[:3] for head in heads] == ["(a)", "(b)", "(c)", "(d)", "(e)", "(f)"]


@pytest.mark.parametrize(
    "changes",
    [
        {"measures": {}, "ceiling": None, "log_density": {}, "energy": {}, "corrupted": {}},
        {"ceiling": None, "energy": {}, "reference": None},
        {"probs": {"full": predictive(2.0)}, "corrupted": {}},
    ],
)
def test_a_page_with_parts_missing(changes, tmp_path):
    for file in plot_page(tmp_path / "page.png", **page(**changes)):
        assert file.stat().st_size > 5000


def test_what_does_not_fit_on_a_page(tmp_path):
    with pytest.raises(ConfigError, match="4 posteriors; got 5"):
        plot_page(tmp_path / "p", **page(log_density={str(i): chains() for i in range(5)}, energy={}))
    with pytest.raises(ConfigError, match="Energies of rkl"):
        plot_page(tmp_path / "p", **page(energy={"rkl": chains()}))
    with pytest.raises(DataError, match="Nothing to plot"):
        plot_page(tmp_path / "p", **page(probs={}))


@pytest.mark.parametrize("name", ["a", "a.png", "a.pdf", "0.25.png"])
def test_a_picture_is_a_png_and_a_pdf_whose_bytes_depend_on_the_picture_only(name, tmp_path):
    before, contents = dict(matplotlib.rcParams), []
    for _ in range(2):
        figure, (axes,) = new_figure(2, 2, 1, 1)
        axes.plot([0, 1])
        files = save(figure, tmp_path / name)
        contents.append([file.read_bytes() for file in files])
    stem = name.removesuffix(".png").removesuffix(".pdf")
    assert files == [tmp_path / f"{stem}.png", tmp_path / f"{stem}.pdf"]
    assert [content[:4] for content in contents[0]] == [b"\x89PNG", b"%PDF"]
    assert not any(b"Date" in content for content in contents[0])
    assert b"/Type3" not in contents[0][1]  # letters are TrueType, as publishers ask
    assert contents[0] == contents[1]
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in files}
    assert dict(matplotlib.rcParams) == before


def test_a_figure_that_cannot_be_drawn_leaves_no_file(tmp_path, monkeypatch):
    original = Figure.savefig

    def no_pdf(self, stream, *, format, **options):
        if format == "pdf":
            raise ValueError("no")
        original(self, stream, format=format, **options)

    monkeypatch.setattr(Figure, "savefig", no_pdf)
    figure, _ = new_figure(2, 2, 1, 1)
    with pytest.raises(ValueError, match="no"):
        save(figure, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_chains_are_shades_of_their_method():
    colors = shades("#0072B2", 4)
    brightness = [sum(color) for color in colors]
    assert brightness == sorted(brightness) and len(set(colors)) == 4
    assert all(0 <= part <= 1 for color in [*colors, *shades("#000000", 5), *shades("#FFFFFF", 2)] for part in color)
    assert shades("#000000", 3)[-1] > shades("#000000", 3)[0]  # black has lighter shades too
