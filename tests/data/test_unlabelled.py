"""The image sets of the VAE papers in files written here in their official formats."""

from __future__ import annotations

import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import io

from bpc.data import describe_datasets, load_dataset, load_unlabelled, unlabelled, unlabelled_names
from bpc.data.unlabelled import CONVERT, STATIC_MNIST
from bpc.errors import ConfigError, DataError
from bpc.files import save_tensors

RANDOM = np.random.default_rng(0)


def write_amat(path: Path, images: np.ndarray) -> None:
    lines = [" ".join(map(str, image.reshape(-1))) for image in images]
    path.write_text("".join(f"{line} \n" for line in lines))


@pytest.fixture
def amat(tmp_path: Path, cache: Path) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path / "static_mnist"
    folder.mkdir()
    parts = {part: RANDOM.integers(0, 2, (n, 28, 28)) for part, n in (("train", 5), ("valid", 2), ("test", 3))}
    for part, images in parts.items():
        write_amat(folder / f"binarized_mnist_{part}.amat", images)
    return folder, parts


def test_static_mnist(amat: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, parts = amat
    found = load_unlabelled("static_mnist", data_root=folder.parent)
    for images, expected in zip(found, parts.values(), strict=True):
        assert images.dtype == torch.uint8
        assert np.array_equal(images[:, 0].numpy(), expected * 255)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 digits; expected a multiple of 784"),
        (b"0 1 " * 391, "782 digits"),
        (b"0 2 " * 392, "characters other than 0 and 1"),
        (b"0 . " * 392, "characters other than 0 and 1"),
    ],
)
def test_bad_amat(amat: tuple[Path, dict[str, np.ndarray]], content: bytes, message: str) -> None:
    folder, _ = amat
    (folder / "binarized_mnist_valid.amat").write_bytes(content)
    with pytest.raises(DataError, match=rf"binarized_mnist_valid\.amat: {message}"):
        load_unlabelled("static_mnist", data_root=folder.parent)


def test_amat_cut_at_the_end_of_a_line(
    amat: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = amat
    for name, count in (("train", 5), ("valid", 3), ("test", 3)):
        monkeypatch.setitem(unlabelled.AMAT, f"binarized_mnist_{name}.amat", count)
    with pytest.raises(DataError, match=r"valid\.amat: 2 images; expected 3, since other files have the official size"):
        load_unlabelled("static_mnist", data_root=folder.parent)


def test_static_mnist_missing_file(amat: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, _ = amat
    (folder / "binarized_mnist_test.amat").unlink()
    with pytest.raises(DataError, match="there is no such file"):
        load_unlabelled("static_mnist", data_root=folder.parent)
    assert [remote.name for remote in STATIC_MNIST.remotes] == [
        f"binarized_mnist_{part}.amat" for part in ("train", "valid", "test")
    ]


def as_columns(images: np.ndarray) -> np.ndarray:
    """(n, h, w) as (n, h w) with pixels down the columns, as MATLAB flattens."""
    return np.stack([image.flatten(order="F") for image in images])


def test_omniglot(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "omniglot").mkdir()
    train, test = RANDOM.random((181, 28, 28)), RANDOM.random((7, 28, 28))
    path = tmp_path / "omniglot" / "chardata.mat"
    io.savemat(path, {"data": as_columns(train).T, "testdata": as_columns(test).T, "target": np.zeros((50, 181))})
    found = load_unlabelled("omniglot", data_root=tmp_path, seed=1)
    assert [len(part) for part in found] == [171, 10, 7]  # 23,000 to 1,345
    assert found.train.dtype == torch.float32 and found.train.shape[1:] == (1, 28, 28)
    assert np.allclose(found.test[:, 0].numpy(), test)
    both = {image.tobytes() for image in train.astype(np.float32)}
    mine = [image.numpy().tobytes() for image in torch.cat(found[:2])[:, 0]]
    assert len(mine) == 181 and set(mine) == both  # nothing lost, nothing twice
    again, other = (load_unlabelled("omniglot", data_root=tmp_path, seed=seed) for seed in (1, 2))
    assert torch.equal(found.validation, again.validation) and not torch.equal(found.validation, other.validation)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((20, 784)), r"data holds 15,680 numbers in another shape; expected \(784, n\)"),
        (np.full((784, 20), 1.5), "data holds values from 1.5 to 1.5; expected finite numbers"),
        (np.full((784, 20), np.nan), "values from nan"),
    ],
)
def test_bad_omniglot(tmp_path: Path, cache: Path, data: np.ndarray, message: str) -> None:
    io.savemat(tmp_path / "chardata.mat", {"data": data, "testdata": np.zeros((784, 2))})
    with pytest.raises(DataError, match=message):
        load_unlabelled("omniglot", data_root=tmp_path)


def test_caltech(tmp_path: Path, cache: Path) -> None:
    parts = {name: RANDOM.integers(0, 2, (n, 28, 28)) for name, n in (("train", 6), ("val", 4), ("test", 5))}
    arrays = {f"{name}_data": as_columns(images).astype(np.uint8) for name, images in parts.items()}
    path = tmp_path / "caltech101_silhouettes_28_split1.mat"
    io.savemat(path, arrays)
    found = load_unlabelled("caltech101_silhouettes", data_root=tmp_path)
    for images, expected in zip(found, parts.values(), strict=True):
        assert np.array_equal(images[:, 0].numpy(), 1.0 - expected)
    io.savemat(path, {name: array for name, array in arrays.items() if name != "val_data"})
    with pytest.raises(DataError, match="no variable val_data"):
        load_unlabelled("caltech101_silhouettes", data_root=tmp_path)


@pytest.mark.parametrize("official", [True, False])
def test_frey_faces(tmp_path: Path, cache: Path, official: bool) -> None:
    faces = RANDOM.integers(0, 256, (393, 28, 20), dtype=np.uint8)
    (tmp_path / "frey_faces").mkdir()
    if official:
        io.savemat(tmp_path / "frey_faces" / "frey_rawface.mat", {"ff": faces.reshape(393, -1).T})
    else:
        np.save(tmp_path / "frey_faces" / "frey_faces.npy", faces)
    found = load_unlabelled("frey_faces", data_root=tmp_path, seed=3)
    assert [part.shape for part in found] == [(313, 1, 28, 20), (40, 1, 28, 20), (40, 1, 28, 20)]
    mine = [image.numpy().tobytes() for image in torch.cat(found)[:, 0]]
    assert sorted(mine) == sorted(image.tobytes() for image in faces)
    assert torch.equal(found.train, load_unlabelled("frey_faces", data_root=tmp_path, seed=3).train)
    assert not torch.equal(found.train, load_unlabelled("frey_faces", data_root=tmp_path, seed=4).train)


def test_real_frey_faces(data_root: Path, cache: Path) -> None:
    if not (data_root / "frey_faces").is_dir():
        pytest.skip(f"no frey_faces in {data_root}")
    found = load_unlabelled("frey_faces", data_root=data_root)
    assert [len(part) for part in found] == [1565, 200, 200]
    every = torch.cat(found)
    assert (int(every.min()), int(every.max())) == (8, 238)
    # The pixel below is more like a pixel than the one that would be below in an image of another width.
    pixels = every.flatten(1).float()
    steps = {width: float((pixels[:, width:] - pixels[:, :-width]).abs().mean()) for width in (19, 20, 21, 28)}
    assert min(steps, key=steps.__getitem__) == 20


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("frey_faces.npy", np.zeros((99, 20, 28), np.uint8), r"uint8 \(99, 20, 28\); expected uint8 \(n, 28, 20\)"),
        ("frey_faces.npy", np.zeros((99, 28, 20)), "float64"),
        ("frey_faces.npy", np.zeros((4, 28, 20), np.uint8), "4 images; expected 1,965"),
        ("frey_rawface.mat", np.zeros((99, 560), np.uint8), r"uint8 \(99, 560\); expected uint8 \(560, n\)"),
    ],
)
def test_bad_frey_faces(tmp_path: Path, cache: Path, name: str, array: np.ndarray, message: str) -> None:
    if name.endswith(".mat"):
        io.savemat(tmp_path / name, {"ff": array})
    else:
        np.save(tmp_path / name, array)
    with pytest.raises(DataError, match=message):
        load_unlabelled("frey_faces", data_root=tmp_path)


def test_truncated_frey_faces(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "frey_faces.npy"
    np.save(path, np.zeros((99, 28, 20), np.uint8))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"frey_faces\.npy: .* do not read as an array"):
        load_unlabelled("frey_faces", data_root=tmp_path)


@pytest.mark.parametrize("form", ["npz", "safetensors", "npy", "npz of bytes"])
def test_histopathology(tmp_path: Path, cache: Path, form: str) -> None:
    levels = RANDOM.integers(0, 256, (54, 28, 28), dtype=np.uint8)
    parts = {"training": levels[:34], "validation": levels[34:44], "test": levels[44:]}
    path = tmp_path / f"histopathology.{form.split()[0]}"
    if form == "npz":  # as the converted pickle: floats, flat
        np.savez(path, **{name: (part / 255.0).reshape(-1, 784) for name, part in parts.items()})
    elif form == "npz of bytes":
        np.savez(path, **parts)
    elif form == "safetensors":
        save_tensors(path, {name: torch.from_numpy(part / 255.0).float() for name, part in parts.items()}, {})
    else:
        np.save(path, levels)
    found = load_unlabelled("histopathology", data_root=tmp_path)
    for images, expected in zip(found, parts.values(), strict=True):
        assert images.dtype == torch.uint8 and np.array_equal(images[:, 0].numpy(), expected)


def test_a_pickle_is_not_read(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "histopathology.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"a pickle, not read because.*If you trust its source, convert it: python -c"):
        load_unlabelled("histopathology", data_root=tmp_path)


def test_the_advice_converts_a_pickle(tmp_path: Path, cache: Path) -> None:
    levels = RANDOM.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    ours = {name: levels / 255.0 for name in ("training", "validation", "test")}
    (tmp_path / "histopathology.pkl").write_bytes(pickle.dumps(ours))
    words = shlex.split(CONVERT[CONVERT.index("python") :])
    subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True, timeout=60)
    assert np.array_equal(load_unlabelled("histopathology", data_root=tmp_path).test[:, 0].numpy(), levels)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"training": np.zeros((3, 784))}, "no array validation; expected the arrays training, validation, test"),
        ({"training": np.zeros((3, 783))}, r"training is float64 \(3, 783\); expected images of 784 pixels"),
        ({"training": np.full((3, 784), 255.0)}, "training holds values from 255 to 255"),
        ({"training": np.zeros((3, 784), complex)}, "training is complex128"),
    ],
)
def test_bad_histopathology(tmp_path: Path, cache: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    good = {} if "no array" in message else {name: np.zeros((3, 784)) for name in ("validation", "test")}
    np.savez(tmp_path / "histopathology.npz", **good, **arrays)
    with pytest.raises(DataError, match=message):
        load_unlabelled("histopathology", data_root=tmp_path)


def write_celeba(folder: Path, *, nested: bool = False, size: tuple[int, int] = (178, 218), counts=(9, 4, 4)) -> None:
    """Gray image i has level 10 i, with a white frame outside its central 140x140 pixels."""
    images, lists = (folder / "Img", folder / "Eval") if nested else (folder, folder)
    images, lines = images / "img_align_celeba", []
    images.mkdir(parents=True)
    lists.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(part for part, count in enumerate(counts) for _ in range(count)):
        pixels = np.full((size[1], size[0], 3), 255, np.uint8)
        top, left = (size[1] - 140) // 2, (size[0] - 140) // 2
        pixels[top : top + 140, left : left + 140] = 10 * i
        Image.fromarray(pixels).save(images / f"{i:06d}.jpg", quality=100, subsampling=0)
        lines.append(f"{i:06d}.jpg {part}\n")
    (lists / "list_eval_partition.txt").write_text("".join(lines))


@pytest.mark.parametrize("nested", [True, False])
def test_celeba(tmp_path: Path, cache: Path, nested: bool) -> None:
    write_celeba(tmp_path / "celeba", nested=nested)
    found = load_unlabelled("celeba", data_root=tmp_path)
    assert [part.shape for part in found] == [(9, 3, 64, 64), (4, 3, 64, 64), (4, 3, 64, 64)]
    every = torch.cat(found).float()
    levels = 10.0 * torch.arange(17).view(-1, 1, 1, 1)
    assert (every[..., 4:-4, 4:-4] - levels).abs().max() <= 3  # JPEG rings near the white frame
    assert (every - levels).abs().mean() < 4  # which is cut off: 140 x 140 is all that is seen


def test_celeba_limit(tmp_path: Path, cache: Path) -> None:
    write_celeba(tmp_path / "celeba")
    found = load_unlabelled("celeba", data_root=tmp_path, limit=5)
    assert [len(part) for part in found] == [5, 2, 2]
    middle = found.train[:, 0, 32, 32].tolist()
    assert all(abs(level - 10 * i) <= 3 for level, i in zip(middle, (0, 2, 4, 6, 8), strict=True))
    with pytest.raises(ConfigError, match="limit of training images is -1"):
        load_unlabelled("celeba", data_root=tmp_path, limit=-1)


def test_bad_celeba(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "celeba"
    write_celeba(folder, counts=(2, 1, 1))
    partition = folder / "list_eval_partition.txt"
    good = partition.read_text()
    for text, message in (
        ("000000.jpg 3\n", r"line 1 is '000000\.jpg 3'; expected an image's name and 0, 1 or 2"),
        (good + "../x.jpg 0\n", "line 5 is"),
        ("000000.jpg 0\n000001.jpg 2\n", "no validation images"),
        (good + "000009.jpg 0\n", r"000009\.jpg: there is no such file"),
    ):
        partition.write_text(text)
        with pytest.raises(DataError, match=message):
            load_unlabelled("celeba", data_root=tmp_path)
    partition.write_text(good)
    path = folder / "img_align_celeba" / "000001.jpg"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"000001\.jpg: 900 bytes that do not decode"):
        load_unlabelled("celeba", data_root=tmp_path)
    Image.new("RGB", (139, 218)).save(path)
    with pytest.raises(DataError, match=r"139x218 pixels; expected at least 140x140"):
        load_unlabelled("celeba", data_root=tmp_path)
    partition.unlink()
    with pytest.raises(DataError, match=r"no list_eval_partition\.txt in it"):
        load_unlabelled("celeba", data_root=tmp_path)


@pytest.mark.parametrize("name", unlabelled_names())
def test_missing(tmp_path: Path, cache: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"Dataset {name} is missing\. Looked for a folder .*Put the files") as caught:
        load_unlabelled(name, data_root=tmp_path, download=False)
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    rows = {row.name: row for row in describe_datasets(tmp_path)}
    assert not rows[name].found
    how = (
        "It cannot be downloaded from here: get " if rows[name].where.startswith("not") else "Downloading is turned off"
    )
    assert how in str(caught.value)


def test_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown dataset 'omniglott'.*Did you mean 'omniglot'"):
        load_unlabelled("omniglott")
    with pytest.raises(ConfigError, match=r"celeba has no labels: it is for `run\.py vae`"):
        load_dataset("celeba")
