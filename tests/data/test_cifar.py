"""CIFAR in the official binary version, written here with a few records a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bpc.data import CORRUPTIONS, load_cifar10c, load_dataset
from bpc.data import cifar as cifar_module
from bpc.errors import ConfigError, DataError

TRAIN = [f"data_batch_{i}.bin" for i in range(1, 6)]


def write_cifar10(folder: Path, records: int = 4) -> dict[str, np.ndarray]:
    """Random images of each file, as (n, 32, 32, 3), and labels 0, 1, 2, ... modulo 10 over all files."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    written = {}
    for i, name in enumerate([*TRAIN, "test_batch.bin"]):
        images = random.integers(0, 256, (records, 32, 32, 3), dtype=np.uint8)
        rows = b""
        for j in range(records):
            planes = b"".join(images[j, :, :, c].tobytes() for c in range(3))
            rows += bytes([(i * records + j) % 10]) + planes
        (folder / name).write_bytes(rows)
        written[name] = images
    return written


def write_cifar100(folder: Path) -> np.ndarray:
    folder.mkdir(parents=True)
    images = np.random.default_rng(1).integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    rows = b"".join(bytes([y // 5, y]) + images[y].tobytes() for y in range(100))
    (folder / "train.bin").write_bytes(rows)
    (folder / "test.bin").write_bytes(rows[: 3074 * 10])
    (folder / "fine_label_names.txt").write_text("\n".join(f"class{y}" for y in range(100)) + "\n\n")
    return images


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    folder = tmp_path / "root" / "cifar-10-batches-bin"
    write_cifar10(folder)
    return folder


def test_cifar10_round_trip(tmp_path: Path, cache: Path) -> None:
    written = write_cifar10(tmp_path / "cifar-10-batches-bin", records=3)
    dataset = load_dataset("cifar10", data_root=tmp_path)
    expected = np.concatenate([written[name] for name in TRAIN])
    assert np.array_equal(dataset.train.images.permute(0, 2, 3, 1).numpy(), expected)
    assert np.array_equal(dataset.test.images.permute(0, 2, 3, 1).numpy(), written["test_batch.bin"])
    assert dataset.train.labels.tolist() == [i % 10 for i in range(15)]
    assert dataset.test.labels.tolist() == [i % 10 for i in range(15, 18)]
    assert dataset.class_names[:2] == ("airplane", "automobile")
    assert dataset.train.images.is_contiguous()


def test_red_is_the_first_channel(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in [*TRAIN, "test_batch.bin"]:
        (folder / name).write_bytes(b"\x09" + b"\xff" * 1024 + b"\x80" * 1024 + b"\x00" * 1024)
    image = load_dataset("cifar10", data_root=tmp_path).train.images[0]
    assert [np.unique(image[c]).tolist() for c in range(3)] == [[255], [128], [0]]


def test_root_may_be_the_folder_itself_or_come_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(load_dataset("cifar10", data_root=folder).train) == 20
    monkeypatch.setenv("BPC_DATA_ROOT", str(folder.parent))
    assert len(load_dataset("cifar10").train) == 20


@pytest.mark.parametrize(
    ("content", "came"),
    [(b"", "0 bytes"), (b"\x00" * 3072, "3,072 bytes"), (b"\x00" * (3073 * 2 - 5), "6,141 bytes")],
)
def test_truncated_file(folder: Path, content: bytes, came: str) -> None:
    (folder / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3\.bin: " + came + r".*3,073-byte.*30,730,000") as caught:
        load_dataset("cifar10", data_root=folder.parent)
    assert "\n" not in str(caught.value)


def test_file_cut_at_a_record_is_found_by_its_neighbours(folder: Path) -> None:
    for name in [*TRAIN, "test_batch.bin"]:
        with open(folder / name, "wb") as stream:
            stream.truncate(30_730_000 if name != "test_batch.bin" else 15_365_000)  # sparse: takes no disk
    with pytest.raises(DataError, match=r"test_batch\.bin: 15,365,000 bytes, 5,000 images"):
        load_dataset("cifar10", data_root=folder.parent)


def test_label_out_of_range(folder: Path) -> None:
    (folder / "test_batch.bin").write_bytes(b"\x0a" + b"\x00" * 3072)
    with pytest.raises(DataError, match=r"test_batch\.bin: labels up to 10; expected labels 0 to 9"):
        load_dataset("cifar10", data_root=folder.parent)


def test_missing_file(folder: Path) -> None:
    (folder / "data_batch_5.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_5\.bin: there is no such file"):
        load_dataset("cifar10", data_root=folder.parent)


def test_cifar100_uses_the_fine_labels(tmp_path: Path, cache: Path) -> None:
    images = write_cifar100(tmp_path / "cifar-100-binary")
    dataset = load_dataset("cifar100", data_root=tmp_path)
    assert np.array_equal(dataset.train.images.numpy(), images)
    assert dataset.train.labels.tolist() == list(range(100))
    assert dataset.num_classes == 100 and dataset.class_names[99] == "class99"
    assert len(dataset.test) == 10


def test_cifar100_bad_files(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    write_cifar100(folder)
    (folder / "fine_label_names.txt").write_text("apple\n")
    with pytest.raises(DataError, match=r"fine_label_names\.txt: 1 class names; expected 100"):
        load_dataset("cifar100", data_root=tmp_path)
    (folder / "fine_label_names.txt").unlink()
    with pytest.raises(DataError, match=r"fine_label_names\.txt: there is no such file"):
        load_dataset("cifar100", data_root=tmp_path)
    (folder / "train.bin").write_bytes(b"\x00" * 3073)
    with pytest.raises(DataError, match=r"train\.bin: 3,073 bytes.*3,074-byte"):
        load_dataset("cifar100", data_root=tmp_path)


# CIFAR-10-C


@pytest.fixture
def corrupted(tmp_path: Path, cache: Path) -> Path:
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    random = np.random.default_rng(2)
    for name in CORRUPTIONS:
        np.save(folder / f"{name}.npy", random.integers(0, 256, (15, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.tile(np.array([3, 1, 4], dtype=np.uint8), 5))
    return folder


def test_cifar10c_round_trip(corrupted: Path) -> None:
    suite = load_cifar10c(corrupted.parent)
    assert suite.images_per_severity == 3 and len(suite) == 75
    rows = list(suite)
    assert [(name, severity) for name, severity, _ in rows[:6]] == [
        *((CORRUPTIONS[0], severity) for severity in range(1, 6)),
        (CORRUPTIONS[1], 1),
    ]
    frost = np.load(corrupted / "frost.npy")
    split = suite.split("frost", 4)
    assert np.array_equal(split.images.permute(0, 2, 3, 1).numpy(), frost[9:12])
    assert split.labels.tolist() == [3, 1, 4]
    assert len(load_cifar10c(corrupted, corruptions=["fog", "snow"])) == 10


def test_cifar10c_bad_files(corrupted: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown corruption 'frosty'.*'frost'"):
        load_cifar10c(corrupted, corruptions=["frosty"])
    with pytest.raises(DataError, match="Severity 6"):
        load_cifar10c(corrupted).split("fog", 6)
    good = (corrupted / "fog.npy").read_bytes()
    np.save(corrupted / "fog.npy", np.zeros((10, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"fog\.npy: uint8 \(10, 32, 32, 3\); expected uint8 \(15, 32, 32, 3\)"):
        load_cifar10c(corrupted)
    for content in (b"", b"garbage", good[:-100], good[:40]):
        (corrupted / "fog.npy").write_bytes(content)
        with pytest.raises(DataError, match=rf"fog\.npy: {len(content):,} bytes that do not read"):
            load_cifar10c(corrupted)
    np.save(corrupted / "fog.npy", np.array([object()] * 15), allow_pickle=True)
    with pytest.raises(DataError, match=r"fog\.npy"):
        load_cifar10c(corrupted)
    (corrupted / "fog.npy").unlink()
    with pytest.raises(DataError, match=r"fog\.npy: there is no such file"):
        load_cifar10c(corrupted)
    np.save(corrupted / "labels.npy", np.zeros(14, dtype=np.uint8))
    with pytest.raises(DataError, match=r"labels\.npy: uint8 \(14,\)"):
        load_cifar10c(corrupted)


# The real files


def test_real_cifar10(data_root: Path) -> None:
    if not (data_root / cifar_module.CIFAR10.folders[0]).is_dir():
        pytest.skip(f"no CIFAR-10 in {data_root}")
    dataset = load_dataset("cifar10", data_root=data_root)
    assert dataset.train.labels.bincount().tolist() == [5000] * 10
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    mean = torch.stack([dataset.train.images[:, c].float().mean() for c in range(3)]) / 255
    assert mean.tolist() == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)


def test_real_cifar10c_shows_the_first_test_images(data_root: Path) -> None:
    for source in (cifar_module.CIFAR10, cifar_module.CIFAR10C):
        if not (data_root / source.folders[0]).is_dir():
            pytest.skip(f"no {source.name} in {data_root}")
    suite = load_cifar10c(data_root)
    clean = load_dataset("cifar10", data_root=data_root).test
    n = min(suite.images_per_severity, len(clean))
    slight = suite.split("brightness", 1)
    assert torch.equal(slight.labels[:n], clean.labels[:n])
    difference = (slight.images[:n].float() - clean.images[:n].float()).abs().mean()
    shuffled = (slight.images[:n].float() - clean.images[:n].flip(0).float()).abs().mean()
    assert difference < 0.5 * shuffled
