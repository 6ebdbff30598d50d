"""Images for density estimation: names, splits, likelihoods, and what the model sees."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import io

from bpc.data import dataset_names, load_dataset, load_unlabelled, unlabelled_names
from bpc.errors import ConfigError, DataError
from bpc.vae.data import ImageSplit, batches, image_dataset_names, load_images, present
from bpc.vae.likelihoods import LIKELIHOODS, make_likelihood


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BPC_DATA_ROOT", raising=False)


def test_digits() -> None:
    data, source = load_images("digits"), load_dataset("digits")
    assert (data.name, data.image_shape) == ("digits", (1, 8, 8))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1081, 216, 500]
    joined = torch.cat([data.train.images, data.validation.images])
    assert torch.equal((joined * 255).round().to(torch.uint8), source.train.images)
    assert torch.equal(torch.cat([data.train.labels, data.validation.labels]), source.train.labels)
    assert torch.equal(data.test.labels, source.test.labels)
    assert float(joined.min()) == 0.0 and float(joined.max()) == 1.0


def test_every_name_is_known_to_the_loaders() -> None:
    names = set(image_dataset_names())
    assert names == set(dataset_names()) | set(unlabelled_names())
    with pytest.raises(ConfigError, match=r"Unknown dataset 'frey_face'.*Did you mean 'frey_faces'"):
        load_images("frey_face")


def write_mnist(folder: Path, train: int, test: int) -> np.ndarray:
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (train, 28, 28), dtype=np.uint8)
    for part, count in (("train", train), ("t10k", test)):
        header = struct.pack(">BBBB3I", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images[:count].tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels.tobytes())
    return images


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_last_sixth_validates(tmp_path: Path, name: str) -> None:
    images = write_mnist(tmp_path / name, 60, 7)
    data = load_images(name, tmp_path)
    assert torch.equal(data.train.images, torch.from_numpy(images[:50, None]).float() / 255)
    assert torch.equal(data.validation.images, torch.from_numpy(images[50:, None]).float() / 255)
    assert data.validation.labels.tolist() == list(range(10)) and len(data.test) == 7


def test_svhn(tmp_path: Path) -> None:
    for part in ("train", "test"):
        arrays = {"X": np.full((32, 32, 3, 12), 51, np.uint8), "y": np.full((12, 1), 10, np.uint8)}
        io.savemat(tmp_path / f"{part}_32x32.mat", arrays)
    data = load_images("svhn", tmp_path)
    assert data.image_shape == (3, 32, 32)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10, 2, 12]
    assert data.train.labels.unique().tolist() == [0] and torch.allclose(data.test.images, torch.tensor(0.2))


def test_unlabelled(tmp_path: Path) -> None:
    np.save(tmp_path / "frey_faces.npy", np.random.default_rng(0).integers(0, 256, (393, 28, 20), dtype=np.uint8))
    data, parts = load_images("frey_faces", tmp_path, seed=5), load_unlabelled("frey_faces", data_root=tmp_path, seed=5)
    assert data.image_shape == (1, 28, 20)
    for split, images in zip((data.train, data.validation, data.test), parts, strict=True):
        assert torch.equal(split.images, images.float() / 255)
        assert split.labels.dtype == torch.int64 and split.labels.unique().tolist() == [-1]
    assert not torch.equal(data.test.images, load_images("frey_faces", tmp_path, seed=6).test.images)


def test_float_images_stay(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((784, 40)).astype(np.float32)
    io.savemat(tmp_path / "chardata.mat", {"data": pixels, "testdata": pixels[:, :3]})
    data = load_images("omniglot", tmp_path)
    assert data.test.images.dtype == torch.float32
    assert np.array_equal(data.test.images[:, 0].numpy(), pixels[:, :3].T.reshape(3, 28, 28).transpose(0, 2, 1))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Dataset celeba is missing.*img_align_celeba\.zip.*digits needs no files"):
        load_images("celeba", tmp_path)


def test_real_mnist(data_root: Path) -> None:
    if not (data_root / "mnist").is_dir():
        pytest.skip(f"no mnist in {data_root}")
    data = load_images("mnist", data_root)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [50_000, 10_000, 10_000]
    mean = (5 * data.train.images.mean() + data.validation.images.mean()) / 6
    assert float(mean) == pytest.approx(0.13066, abs=2e-5)


def test_binarisation() -> None:
    images = torch.tensor([0.0, 0.3, 1.0]).repeat(2, 1, 4000, 1)
    split, index = ImageSplit(images, torch.zeros(2, dtype=torch.int64)), torch.tensor([1])
    generator = torch.Generator().manual_seed(0)
    seen = present(split, index, make_likelihood("bernoulli"), generator)
    assert seen.shape == (1, 1, 4000, 3) and seen.unique().tolist() == [0.0, 1.0]
    assert seen[..., 0].max() == 0 and seen[..., 2].min() == 1  # what is binary stays
    assert float(seen[..., 1].mean()) == pytest.approx(0.3, abs=0.03)  # 4 standard errors
    assert not torch.equal(seen, present(split, index, make_likelihood("bernoulli"), generator))
    for name in LIKELIHOODS:
        if not make_likelihood(name).binary:
            assert torch.equal(present(split, index, make_likelihood(name), generator), images[1:])


def test_batches() -> None:
    assert [part.tolist() for part in batches(5, 2, None)] == [[0, 1], [2, 3], [4]]
    shuffled = torch.cat(list(batches(50, 8, torch.Generator().manual_seed(0))))
    assert shuffled.sort().values.tolist() == list(range(50)) and shuffled.tolist() != list(range(50))
