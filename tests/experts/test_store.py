"""The trajectory store: what is read is what was written, whatever moment the writer died at."""

import json
import os

import pytest
import torch

from bpc.errors import ConfigError, DataError, FileFormatError, StorageError
from expert_trajectories import TrajectoryStore

P = 7


@pytest.fixture
def store(tmp_path):
    store = TrajectoryStore.create(tmp_path / "store", P, {"dataset": "digits", "lr": 0.1})
    for expert in range(2):
        for epoch in range(5):
            store.append(expert, snapshot(expert, epoch), test_accuracy=epoch / 10)
    return store


def snapshot(expert, epoch):
    return torch.arange(P, dtype=torch.float32) + 100 * expert + 10 * epoch


def test_round_trip(store):
    again = TrajectoryStore.open(store.path)
    assert again.num_experts == 2
    assert again.epochs(1) == 4
    assert torch.equal(again.snapshots(1, 2, 4), torch.stack([snapshot(1, e) for e in (2, 3, 4)]))
    assert again.curves()[6] == {"expert": 1, "epoch": 1, "test_accuracy": 0.1}


def test_a_snapshot_is_a_copy(store):
    params = snapshot(0, 5)
    store.append(0, params)
    params += 1.0
    assert torch.equal(store.snapshots(0, 5, 5)[0], snapshot(0, 5))
    block = store.snapshots(0, 0, 0)
    block += 1.0
    assert torch.equal(store.snapshots(0, 0, 0)[0], snapshot(0, 0))


def test_readable_while_written(store):
    reader = TrajectoryStore.open(store.path)
    assert reader.epochs(0) == 4
    store.append(0, snapshot(0, 5))
    assert reader.epochs(0) == 5
    # a snapshot without its line yet, and half a line: neither counts
    with open(store.path / "expert_0000.f32", "ab") as stream:
        stream.write(b"\0" * 4 * P)
    with open(store.path / "expert_0000.jsonl", "a") as stream:
        stream.write('{"epoch": 6, "crc')
    assert reader.epochs(0) == 5
    store.append(0, snapshot(0, 6))
    assert torch.equal(reader.snapshots(0, 6, 6)[0], snapshot(0, 6))


def test_truncated_file_is_said_to_be(store):
    path = store.path / "expert_0001.f32"
    os.truncate(path, 4 * P * 3 + 5)
    with pytest.raises(FileFormatError, match=r"truncated: 3 whole snapshots, its journal lists 5"):
        TrajectoryStore.open(store.path).snapshots(1, 0, 0)


def test_flipped_bit_is_found(store):
    path = store.path / "expert_0001.f32"
    data = bytearray(path.read_bytes())
    data[4 * P * 2 + 3] ^= 1
    path.write_bytes(data)
    reader = TrajectoryStore.open(store.path)
    reader.snapshots(1, 0, 1)
    with pytest.raises(FileFormatError, match="checksum"):
        reader.snapshots(1, 1, 2)


def test_garbled_journal(store):
    path = store.path / "expert_0000.jsonl"
    path.write_text("not json\n" + path.read_text())
    with pytest.raises(FileFormatError, match="line 1"):
        TrajectoryStore.open(store.path).epochs(0)


def test_foreign_folders(tmp_path, store):
    with pytest.raises(DataError, match="No expert trajectories"):
        TrajectoryStore.open(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"format": "something"}))
    with pytest.raises(FileFormatError, match="not a trajectory store"):
        TrajectoryStore.open(tmp_path)
    with pytest.raises(ConfigError, match="differing in lr"):
        TrajectoryStore.create(store.path, P, {"dataset": "digits", "lr": 0.2})


def test_windows(store):
    sampler = store.sampler(3, 2, "cpu")
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(200):
        window = sampler(generator)
        assert window.snapshots.shape == (3, P)
        expert, start = divmod(int(window.start[0]), 100)
        assert torch.equal(window.end, snapshot(expert, start // 10 + 2))
        seen.add((expert, start // 10))
    assert seen == {(e, r) for e in (0, 1) for r in (0, 1, 2)}  # r < T+, every expert


def test_window_longer_than_the_experts(store):
    with pytest.raises(ConfigError, match=r"need experts of 5 epochs; the longest .* has 4.*--max-start-epoch to 3"):
        store.sampler(4, 2, "cpu")


def test_truncate(store):
    store.truncate(0, 2)
    assert store.epochs(0) == 1
    store.append(0, snapshot(0, 2))
    assert torch.equal(TrajectoryStore.open(store.path).snapshots(0, 0, 2)[2], snapshot(0, 2))


def test_one_writer_at_a_time(store):
    other = TrajectoryStore.open(store.path)
    with store.lock(), pytest.raises(ConfigError, match="Another process"), other.lock():
        pass


def test_full_disk_leaves_what_was_there(store, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="disk is full"):
        store.append(0, snapshot(0, 5))
    monkeypatch.undo()
    reader = TrajectoryStore.open(store.path)
    assert reader.epochs(0) == 4
    assert torch.equal(reader.snapshots(0, 4, 4)[0], snapshot(0, 4))


@pytest.mark.parametrize(
    "line",
    [
        b'{"epoch": 0}', b'{"epoch": 0, "crc32": "x"}', b'{"epoch": 0, "crc32": 1, "test_accuracy": "abc"}', b"[1]", b"\xff\xfe",
        b'{"epoch": "0", "crc32": 1}', b"[" * 100_000, b'{"epoch": 0, "crc32": 1, "test_accuracy": null}',
    ],
)  # fmt: skip
def test_journals_of_anybody(store, line):
    (store.path / "expert_0000.jsonl").write_bytes(line + b"\n")
    with pytest.raises(FileFormatError, match="damaged at line 1") as caught:
        TrajectoryStore.open(store.path).snapshots(0, 0, 0)
    assert len(str(caught.value)) < 500


def test_snapshots_that_are_not_finite_are_refused(store):
    bad = snapshot(0, 5)
    bad[3] = float("nan")
    store.append(0, bad)
    with pytest.raises(FileFormatError, match="NaN or infinity at epoch 5"):
        TrajectoryStore.open(store.path).snapshots(0, 4, 5)


def test_trajectories_of_nobody_knows_what(store):
    (store.path / "store.json").unlink()
    with pytest.raises(FileFormatError, match=r"expert_0000\.f32 but no store\.json"):
        TrajectoryStore.create(store.path, P, {"dataset": "digits", "lr": 0.1})
    assert not (store.path / "store.json").exists()


@pytest.mark.parametrize("name", ["store.json", "expert_0000.jsonl", "expert_0000.f32"])
def test_pipes_and_folders_in_a_store(store, name):
    for make in (os.mkfifo, os.mkdir):
        path = store.path / name
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        with pytest.raises(FileFormatError, match=name):
            TrajectoryStore.open(store.path).snapshots(0, 0, 0)


def test_torn_temporary_files_go(store):
    ours, foreign = store.path / ".store.json.abcd1234.tmp", store.path / ".thesis.tex.abcd1234.tmp"
    for path in (ours, foreign):
        path.write_text("torn")
    with store.lock():
        assert not ours.exists() and foreign.exists()
