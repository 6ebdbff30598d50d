"""ImageNette: class folders of JPEG files, decoded once and kept."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bpc.data import folders, load_dataset
from bpc.data.folders import IMAGENETTE_CLASSES, decode_images
from bpc.errors import DataError


def write_imagenette(root: Path, *, size: tuple[int, int] = (170, 160)) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 2), ("val", 1)):
        for y, wnid in enumerate(IMAGENETTE_CLASSES):
            folder = root / part / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((size[1], size[0], 3), 20 * y, np.uint8) + random.integers(0, 4, 1, np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{i}.JPEG")


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:
    write_imagenette(tmp_path / "imagenette2-160")
    return tmp_path


def test_imagenette(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset("imagenette", data_root=root)
    assert dataset.image_shape == (3, 128, 128)
    assert dataset.train.labels.tolist() == [y for y in range(10) for _ in range(2)]
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.class_names[0] == "tench" and dataset.class_names[9] == "parachute"
    levels = dataset.test.images.float().mean((1, 2, 3))
    assert all(abs(float(levels[y]) - 20 * y) < 6 for y in range(10))

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(folders, "decode_images", refuse)
    again = load_dataset("imagenette", data_root=root)
    assert torch.equal(again.train.images, dataset.train.images)
    assert load_dataset("imagenette", data_root=root / "imagenette2-160").name == "imagenette"


def test_changed_files_and_a_damaged_cache_are_decoded_anew(root: Path, cache: Path) -> None:
    load_dataset("imagenette", data_root=root)
    changed = root / "imagenette2-160" / "val" / "n01440764" / "n01440764_0.JPEG"
    Image.new("L", (128, 256), 255).save(changed)
    dataset = load_dataset("imagenette", data_root=root)
    assert int(dataset.test.images[0].min()) == 255
    for cached in cache.glob("imagenette-128-*.safetensors"):
        cached.write_bytes(cached.read_bytes()[:1000])
    assert int(load_dataset("imagenette", data_root=root).test.images[0].min()) == 255


def test_an_unwritable_cache_only_costs_time(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BPC_CACHE", str(tmp_path / "file"))
    assert len(load_dataset("imagenette", data_root=root).train) == 20


def test_bad_imagenette(root: Path) -> None:
    folder = root / "imagenette2-160"
    bad = folder / "train" / "n03888257" / "n03888257_1.JPEG"
    whole = bad.read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=rf"n03888257_1\.JPEG: {len(content):,} bytes that do not decode") as caught:
            load_dataset("imagenette", data_root=root)
        assert "\n" not in str(caught.value)
    bad.unlink()
    bad.with_name("n03888257_0.JPEG").unlink()
    with pytest.raises(DataError, match="n03888257: a class folder without images"):
        load_dataset("imagenette", data_root=root)
    bad.parent.rmdir()
    with pytest.raises(DataError, match="no folder n03888257/; expected 10 classes"):
        load_dataset("imagenette", data_root=root)


def test_scaling_takes_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((10, 40), np.uint8)
    pixels[:, 15:25] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = decode_images([tmp_path / "wide.png"], channels=1, size=(10, 10), what="")
    assert image.shape == (1, 1, 10, 10) and (image == 200).all()


def test_the_first_error_stops_the_decoding(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    start = time.perf_counter()
    with pytest.raises(DataError):
        decode_images([tmp_path / "bad.png"] * 2000, channels=3, size=(8, 8), what="")
    assert time.perf_counter() - start < 5
