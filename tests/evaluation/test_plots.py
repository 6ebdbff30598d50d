"""Figures: the numbers behind them, and that each is drawn without touching matplotlib's global state."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from bpc.coreset import Pseudocoreset
from bpc.errors import BpcError, ConfigError, DataError
from bpc.methods import METHODS
from evaluation.compare import summarise
from evaluation.metrics import empty_sums, reliability, update
from evaluation.plots import (
    fourier_log_amplitude,
    plot_comparison,
    plot_coreset_grid,
    plot_coresets_side_by_side,
    plot_distill_curve,
    plot_fourier_diagonal,
    plot_learning_curves,
    plot_reliability,
)
from evaluation.plots.images import _by_class, _mosaic
from evaluation.rows import Row


@pytest.fixture(autouse=True)
def _global_state_is_left_alone():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


def coreset(method="fkl", ipc=2, classes=10, channels=3, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    m = ipc * classes
    return Pseudocoreset(
        points=torch.randn(m, channels, size, size, generator=generator),
        labels=torch.arange(classes).repeat(ipc),  # class by class only after sorting
        weights=torch.ones(m),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        dataset="digits" if channels == 1 else "cifar10",
        method=method,
        num_classes=classes,
    )


def assert_drawn(path, *, wider=None):
    picture = imread(path)
    assert picture.ndim == 3 and min(picture.shape[:2]) > 100
    assert picture[..., :3].std() > 0.01  # not blank
    assert not list(path.parent.glob(".*tmp"))
    if wider is not None:
        assert (picture.shape[1] > picture.shape[0]) is wider


# --- Fourier --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 32])
def test_a_checkerboard_is_at_the_highest_frequency(size):
    index = torch.arange(size)
    board = ((index[:, None] + index) % 2).float().expand(2, 3, size, size)
    frequency, log_amplitude = fourier_log_amplitude(board)
    assert frequency[0] == 0 and frequency[-1] == 1 and len(frequency) == size // 2 + 1
    # 0 and 1 in turn: the mean and the highest frequency have the same amplitude, everything between has none
    assert log_amplitude[0] == 0 and log_amplitude[-1].item() == pytest.approx(0, abs=1e-9)
    assert (log_amplitude[1:-1] < -25).all()


def test_a_constant_image_is_at_frequency_zero_only():
    log_amplitude = fourier_log_amplitude(torch.full((1, 1, 16, 16), 0.3))[1]
    assert log_amplitude[0] == 0 and (log_amplitude[1:] < -25).all()
    assert torch.isfinite(fourier_log_amplitude(torch.zeros(1, 1, 8, 8))[1]).all()


def test_white_noise_is_flat_and_noisier_is_higher():
    noise = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    log_amplitude = fourier_log_amplitude(noise)[1]
    assert log_amplitude[1:-1].std() < 0.05  # the ends are real numbers, whose mean logarithm is lower
    assert (
        fourier_log_amplitude(0.5 + 0.1 * noise)[1][4:].mean()
        > fourier_log_amplitude(0.5 + 0.01 * noise)[1][4:].mean() + 2
    )


def test_a_diagonal_wave_has_its_own_frequency():
    index = torch.arange(16)
    wave = 1 + torch.cos(2 * math.pi * 3 * (index[:, None] + index) / 16)
    frequency, log_amplitude = fourier_log_amplitude(wave[None, None])
    assert frequency[1:][log_amplitude[1:].argmax()].item() == pytest.approx(3 / 8)
    assert log_amplitude.max().item() == 0 and log_amplitude[3].item() == pytest.approx(math.log(0.5))


def test_only_square_images_have_this_diagonal():
    with pytest.raises(ConfigError, match="square"):
        fourier_log_amplitude(torch.zeros(1, 1, 8, 9))
    assert fourier_log_amplitude(torch.rand(1, 1, 7, 7))[0].tolist() == pytest.approx([0, 2 / 7, 4 / 7, 6 / 7])


# --- mosaics --------------------------------------------------------------------------------


def test_rows_are_classes_and_pixels_are_repeated():
    data = coreset(ipc=3, classes=4, channels=1, size=8)
    rows, classes = _by_class(data, 2)
    assert classes == [0, 1, 2, 3] and rows == [[0, 4], [1, 5], [2, 6], [3, 7]]
    picture, pitch, size = _mosaic(data.images, rows, 2)
    assert size == 64 and picture.shape == (4 * pitch - 4, 2 * pitch - 4, 3)
    # class 2, its second image, pixel (1, 3)
    y, x = 2 * pitch + 8 + 4, pitch + 3 * 8 + 4
    assert picture[y, x].tolist() == pytest.approx([data.images[6, 0, 1, 3].item()] * 3)
    assert (picture[64:pitch] == 1).all()  # the gap is white


def test_classes_without_points_have_no_row():
    data = coreset(ipc=1)
    data = data.replace(points=data.points[:3], labels=torch.tensor([7, 7, 1]), weights=torch.ones(3))
    assert _by_class(data, 10) == ([[2], [0, 1]], [1, 7])


@pytest.mark.parametrize("ipc,channels,size", [(1, 3, 32), (12, 1, 8)])
def test_coreset_grid(tmp_path, ipc, channels, size):
    path = tmp_path / "coreset.png"
    names = [f"name {c}" for c in range(10)]
    plot_coreset_grid(coreset(ipc=ipc, channels=channels, size=size), path, class_names=names)
    assert_drawn(path, wider=ipc > 1)
    first = path.read_bytes()
    plot_coreset_grid(coreset(ipc=ipc, channels=channels, size=size), path, class_names=names)
    assert path.read_bytes() == first  # the same picture is the same bytes


def test_coresets_side_by_side(tmp_path):
    some = [coreset(m, ipc=1, seed=i) for i, m in enumerate(("rkl", "wasserstein", "fkl"))]
    plot_coresets_side_by_side(some, tmp_path / "a.png")
    assert_drawn(tmp_path / "a.png", wider=True)
    plot_coresets_side_by_side([coreset(ipc=3, channels=1, size=8), some[0]], tmp_path / "b.png", per_class=3)
    assert_drawn(tmp_path / "b.png")


def test_fourier_figure(tmp_path):
    plot_fourier_diagonal({"fkl": coreset().images, "my own": coreset(seed=1).images}, tmp_path / "f.png")
    assert_drawn(tmp_path / "f.png", wider=True)


def test_reliability_figure(tmp_path):
    probs = torch.randn(2, 500, 10).softmax(-1)
    sums = update(empty_sums((2,)), probs, torch.randint(10, (500,)))
    plot_reliability({"fkl": sums, "random": reliability(sums)}, tmp_path / "r.png")
    assert_drawn(tmp_path / "r.png", wider=False)


def test_learning_curves(tmp_path):
    log = pd.DataFrame(
        [
            {
                "expert": e,
                "epoch": t,
                "train_loss": 2.0 / (t + 1),
                "train_accuracy": 1 - 1 / (t + 2),
                "test_accuracy": 0.5,
            }
            for e in range(3)
            for t in range(5)
        ]
    )
    plot_learning_curves(log, tmp_path / "l.png")
    assert_drawn(tmp_path / "l.png", wider=True)
    plot_learning_curves(log[["expert", "epoch", "test_accuracy"]], tmp_path / "one.png")
    assert_drawn(tmp_path / "one.png")


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_distill_curve(tmp_path, value):
    steps = np.arange(200)
    log = pd.DataFrame({"step": steps, "value": value / (1 + steps), "grad_norm": np.exp(-steps / 20)})
    plot_distill_curve(log, tmp_path / "d.png")
    assert_drawn(tmp_path / "d.png")
    assert (imread(tmp_path / "d.png").shape[1] > 1000) is not math.isnan(value)  # one panel or two


def summary(protocols=("kim2022",), methods=("random", "fkl", "full"), value=0.3):
    rows = [
        Row(
            run="r",
            config_hash="c",
            dataset="cifar10",
            method=m,
            architecture="convnet",
            ipc=0 if m == "full" else ipc,
            sampler="hmc",
            protocol=protocol,
            seed=seed,
            metric=metric,
            value=value + 0.01 * seed,
        )
        for protocol in protocols
        for m in methods
        for ipc in ((1, 10) if m != "full" else (0,))
        for metric in ("accuracy", "nll", "nll_kim2022")
        for seed in range(3)
    ]
    return summarise(pd.DataFrame([vars(row) for row in rows]))


def test_comparison(tmp_path):
    assert plot_comparison(summary(), tmp_path / "c.png") == [tmp_path / "c.png", tmp_path / "c.pdf"]
    assert_drawn(tmp_path / "c.png")
    plot_comparison(summary(methods=("full",)), tmp_path / "full.png")
    assert_drawn(tmp_path / "full.png")
    plot_comparison(summary(value=math.nan), tmp_path / "nan.png", metrics=["nll"])
    assert_drawn(tmp_path / "nan.png")


def test_comparison_draws_one_file_for_each_protocol(tmp_path):
    paths = plot_comparison(summary(("exact", "kim2022")), tmp_path / "c.png")
    assert [p.name for p in paths] == ["c-exact.png", "c-exact.pdf", "c-kim2022.png", "c-kim2022.pdf"]
    for path in paths[::2]:
        assert_drawn(path)


def test_every_method_has_its_own_colour_and_marker():
    assert len({method.colour for method in METHODS}) == len({method.marker for method in METHODS}) == len(METHODS)


def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path):
    path = tmp_path / "x.png"
    for call in (
        lambda: plot_coreset_grid(coreset(), path, class_names=["a"]),
        lambda: plot_coreset_grid(coreset(), path, max_ipc=0),
        lambda: plot_coresets_side_by_side([], path),
        lambda: plot_fourier_diagonal({}, path),
        lambda: plot_reliability({}, path),
        lambda: plot_learning_curves(pd.DataFrame({"epoch": [1]}), path),
        lambda: plot_distill_curve(pd.DataFrame({"step": [1], "value": [math.nan], "grad_norm": [math.nan]}), path),
        lambda: plot_comparison(summary().iloc[:0], path),
        lambda: plot_comparison(summary(), path, metrics=["brier"]),
    ):
        with pytest.raises(BpcError):
            call()
    assert not path.exists()
    with pytest.raises(DataError, match="lacks expert"):
        plot_learning_curves(pd.DataFrame({"epoch": [1]}), path)
