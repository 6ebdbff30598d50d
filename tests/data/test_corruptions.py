"""The generator of CIFAR-10-C against the files of its authors, corruption by corruption, and its own rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import bpc.data.corruptions as module
from bpc.data import CORRUPTIONS, Dataset, GeneratedCorruptions, Split, corrupt, frost, load_corrupted
from bpc.data.download import DownloadError
from bpc.errors import ConfigError, DataError

EXACT = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
RANDOM = tuple(c for c in CORRUPTIONS if c not in EXACT)
SEEDS = 12  # of the generator, against the one set of files


@pytest.fixture(autouse=True)
def no_download(monkeypatch, tmp_path):
    """Frost from the data root or drawn; the network is not asked."""

    def refuse(remote, folder):
        raise DownloadError("not in tests")

    monkeypatch.setattr(frost, "fetch", refuse)
    monkeypatch.setenv("BPC_CACHE", str(tmp_path / "cache"))
    frost.frost_textures.cache_clear()
    yield
    frost.frost_textures.cache_clear()


@pytest.mark.parametrize("corruption", EXACT)
def test_deterministic_corruptions_are_the_files(corruption, reference, capsys):
    clean, load = reference
    gap = torch.stack([corrupt(clean, corruption, s) for s in range(1, 6)]).int() - load(corruption).int()
    with capsys.disabled():
        differing = float((gap != 0).double().mean())
        print(f"\n{corruption:18s} largest difference {int(gap.abs().max())}, {differing:.2%} of values differ", end="")
    assert int(gap.abs().max()) <= 1
    assert float(gap.abs().double().mean()) < 0.05
    for s in range(4):  # the next severity is another one
        assert float((corrupt(clean, corruption, s + 2).int() - load(corruption)[s].int()).abs().double().mean()) > 0.5


def statistics(images, clean):
    """(n, 5): log of the mean squared change, mean, spread, roughness along rows and along columns, of each image."""
    x, change = images.double(), images.double() - clean.double()
    flat = x.flatten(1)
    rough = [(x.diff(dim=d) ** 2).flatten(1).mean(1).add(1).log() for d in (2, 3)]
    return torch.stack([(change**2).flatten(1).mean(1).add(1).log(), flat.mean(1), flat.std(1), *rough], dim=1)


@pytest.mark.parametrize("corruption", RANDOM)
def test_random_corruptions_have_the_files_statistics(corruption, reference, capsys):
    """Paired by image: the files' statistics minus the mean over seeds of ours, in standard errors over 50 images."""
    clean, load = reference
    if corruption == "frost" and not (frost._root is not None and (frost._root / "frost").is_dir()):
        pytest.skip("the photographs of frost are not in the data root (folder frost)")
    found, worst = load(corruption), []
    generated = [
        torch.stack([statistics(corrupt(clean, corruption, s, seed=seed), clean) for seed in range(SEEDS)])
        for s in range(1, 6)
    ]

    def z(files, ours):
        gap = statistics(files, clean) - ours.mean(0)
        spread = (ours.var(0).mean(0) * (1 + 1 / SEEDS) / len(clean)).sqrt()
        return gap.mean(0).abs() / spread

    for s in range(5):
        worst.append(float(z(found[s], generated[s]).max()))
    with capsys.disabled():
        print(
            f"\n{corruption:18s} largest z of 5 statistics, severities 1-5: " + " ".join(f"{w:.1f}" for w in worst),
            end="",
        )
    assert max(worst) < 4.5
    # a wrong severity is seen: the next one, or where severities differ little (frost) the one after
    apart = {"elastic_transform": 5, "motion_blur": 5, "frost": 2}.get(corruption, 1)
    for s in range(5 - apart):
        assert float(z(found[s], generated[s + apart]).max()) > 4.5, "another severity passes as well"


def test_motion_blur_is_the_files_at_some_angle(reference):
    """The angle of each image is not known, but one of these gives the file's pixels, to one value in 255."""
    clean, load = reference
    files = load("motion_blur").permute(0, 1, 3, 4, 2).double().numpy()
    settings = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    for i in range(6):
        image = clean[i].permute(1, 2, 0).double().numpy()
        for severity, (radius, sigma) in enumerate(settings):
            gaps = [
                np.abs(module._motion(image, radius, sigma, angle) - files[severity, i]).max()
                for angle in np.arange(-45, 45.1, 0.5)
            ]
            assert min(gaps) <= 1, (severity + 1, i, min(gaps))


def images(n=3, c=3, h=16, w=16, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, c, h, w), generator=g, dtype=torch.uint8)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_an_image_s_corruption_is_its_own(corruption):
    x = images()
    together = corrupt(x, corruption, 3, seed=5)
    alone = torch.cat([corrupt(x[i : i + 1], corruption, 3, seed=5, index=[i]) for i in range(3)])
    assert torch.equal(together, alone)
    assert together.shape == x.shape and together.dtype == torch.uint8
    again = corrupt(x, corruption, 3, seed=6)
    assert torch.equal(together, again) == (corruption in EXACT)
    assert not torch.equal(together, x)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20), (1, 28, 28)])
def test_any_size_and_grey(corruption, shape):
    out = corrupt(images(2, *shape), corruption, 5)
    assert out.shape == (2, *shape)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(CORRUPTIONS), st.integers(1, 5), st.sampled_from([0, 255]))
def test_black_and_white_images(corruption, severity, value):
    x = torch.full((1, 3, 16, 16), value, dtype=torch.uint8)
    out = corrupt(x, corruption, severity)
    if corruption == "brightness" and value == 0:
        assert torch.unique(out).tolist() == [int(255 * (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1])]
    if corruption in ("defocus_blur", "motion_blur", "zoom_blur", "pixelate", "contrast", "glass_blur"):
        assert int((out.int() - value).abs().max()) <= 1


def test_brightness_against_colorsys():
    import colorsys

    x = images(1, 3, 8, 8)
    out = module.brightness(x.permute(0, 2, 3, 1).double().numpy(), 2, [])
    for row in range(8):
        r, g, b = (float(v) / 255 for v in x[0, :, row, row])
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        np.testing.assert_allclose(
            out[0, row, row], 255 * np.array(colorsys.hsv_to_rgb(h, s, min(v + 0.1, 1))), atol=1e-9
        )


def test_generated_set(digits):
    part = GeneratedCorruptions(digits.test.take(torch.arange(4)), ("contrast", "gaussian_noise"), seed=1)
    found = list(part)
    assert [(c, s) for c, s, _ in found] == [(c, s) for c in ("contrast", "gaussian_noise") for s in range(1, 6)]
    assert len(part) == 10 and part.images_per_severity == 4 and part.source == "generated"
    assert torch.equal(found[7][2].images, corrupt(digits.test.images[:4], "gaussian_noise", 3, seed=1))
    assert torch.equal(found[7][2].labels, digits.test.labels[:4])
    with pytest.raises(ConfigError, match="fogg"):
        GeneratedCorruptions(digits.test, ("fogg",))


def test_official_files_first(data_root, digits):
    cifar_shaped = Split(images=images(4, 3, 32, 32), labels=torch.zeros(4, dtype=torch.int64))
    cifar = Dataset(
        name="cifar10", train=cifar_shaped, test=cifar_shaped, mean=(0.5,) * 3, std=(0.5,) * 3, class_names=("a",)
    )
    assert load_corrupted(cifar, data_root=data_root).source == "official"
    assert load_corrupted(cifar, data_root=data_root, official=False).source == "generated"
    assert load_corrupted(digits, data_root=data_root, images=7).images_per_severity == 7


def test_frost_that_is_drawn_says_so(monkeypatch):
    said = []
    monkeypatch.setattr(frost, "say", said.append)
    frost.use_frost_of("nowhere")
    frost.frost_textures.cache_clear()
    corrupt(images(), "frost", 1)
    assert len(said) == 1 and "frost is drawn" in said[0]
    frost.frost_textures.cache_clear()  # as in the next run
    frost.frost_textures()
    assert len(said) == 1  # once, not on every run
    textures = frost.frost_textures()
    assert len(textures) == 5 and all(t.min() >= 0 and t.max() <= 255 for t in textures)
    for texture, (mean, std) in zip(textures, frost._BRIGHTNESS, strict=True):
        assert texture.mean() == pytest.approx(mean, abs=4) and texture.std() == pytest.approx(std, abs=5)


def test_frost_of_the_data_root(tmp_path, monkeypatch):
    from PIL import Image

    (tmp_path / "frost").mkdir()
    for i, remote in enumerate(frost.FROST_FILES):
        Image.new("RGB", (300, 250), (i, 10, 20)).save(tmp_path / "frost" / remote.name)
    frost.use_frost_of(tmp_path)
    assert float(frost.frost_textures()[1].mean()) == pytest.approx((1 + 10 + 20) / 3)
    frost.frost_textures.cache_clear()
    monkeypatch.setattr(frost, "_root", None)  # nobody has named one
    monkeypatch.setenv("BPC_DATA_ROOT", str(tmp_path))
    assert float(frost.frost_textures()[1].mean()) == pytest.approx((1 + 10 + 20) / 3)
    assert corrupt(images(), "frost", 1).shape == (3, 3, 16, 16)


def test_some_images_come_out_as_among_all(digits):
    part = load_corrupted(digits, images=5, corruptions=("gaussian_noise",), seed=2)
    every = load_corrupted(digits, corruptions=("gaussian_noise",), seed=2)
    assert torch.equal(part.split("gaussian_noise", 4).images, every.split("gaussian_noise", 4).images[part.index])


@pytest.mark.parametrize("corruption", ["glass_blur", "fog", "zoom_blur"])
def test_blocks_do_not_show(corruption, monkeypatch):
    x = images(5)
    whole = corrupt(x, corruption, 4)
    monkeypatch.setattr(module, "BLOCK_PIXELS", 2 * 16 * 16)
    assert torch.equal(corrupt(x, corruption, 4), whole)
    assert corrupt(x[:0], corruption, 4).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("factor", [1.0, 1.07, 1.75, 2.25])
def test_zoom_against_interpolation_in_the_plane(factor):
    x = np.random.default_rng(0).uniform(size=(32, 13, 1))
    rows, columns = int(np.ceil(32 / factor)), int(np.ceil(13 / factor))
    top, left = (32 - rows) // 2, (13 - columns) // 2
    large = ndimage.zoom(x[top : top + rows, left : left + columns], (factor, factor, 1), order=1)
    top, left = (large.shape[0] - 32) // 2, (large.shape[1] - 13) // 2
    np.testing.assert_allclose(module._zoom(x[None], factor)[0], large[top : top + 32, left : left + 13], atol=1e-12)


def test_frost_takes_every_photograph_at_a_fifth_of_its_size(monkeypatch):
    """Photographs that are black but for the middle of each 5 x 5 pixels, where they have a number's brightness."""
    photographs = [np.zeros((300, 250, 3)) for _ in range(5)]
    for i, photograph in enumerate(photographs):
        photograph[2::5, 2::5] = 40 * (i + 1)
    monkeypatch.setattr(module, "frost_textures", lambda: photographs)
    out = corrupt(torch.zeros((60, 3, 32, 32), dtype=torch.uint8), "frost", 2)
    assert torch.unique(out).tolist() == [12, 24, 36, 48, 60]  # 0.3 of the brightness, and nothing of the black
    assert all(len(torch.unique(image)) == 1 for image in out)


def test_images_larger_than_the_frost():
    out = corrupt(torch.zeros((2, 3, 420, 360), dtype=torch.uint8), "frost", 5)
    assert out.shape == (2, 3, 420, 360) and int(out.max()) > 0


def test_a_damaged_photograph_of_frost(tmp_path):
    (tmp_path / "frost").mkdir()
    for remote in frost.FROST_FILES:
        (tmp_path / "frost" / remote.name).write_bytes(b"not a picture")
    frost.use_frost_of(tmp_path)
    with pytest.raises(DataError, match=r"frost1\.png: 13 bytes that do not decode"):
        corrupt(images(), "frost", 1)


def test_refusals():
    with pytest.raises(DataError, match="2 numbers came for 3 images"):
        corrupt(images(), "fog", 1, index=[0, 1])
    with pytest.raises(ConfigError, match="choose from"):
        corrupt(images(), "rain", 1)
    with pytest.raises(DataError, match="Severity 6"):
        corrupt(images(), "fog", 6)
    with pytest.raises(DataError, match="uint8"):
        corrupt(images().float(), "fog", 1)
    with pytest.raises(DataError, match="8 pixels"):
        corrupt(images(h=4), "fog", 1)
