"""`rows.csv`: whole lines or none, whatever happens between them."""

from __future__ import annotations

import errno
import math
import os

import numpy as np
import pytest
import torch

from bpc.errors import BpcError, ConfigError, FileFormatError, StorageError
from evaluation.rows import COLUMNS, Row, RowWriter, read_rows

BASE = {
    "run": "r1",
    "config_hash": "0a1b",
    "dataset": "cifar10",
    "method": "fkl",
    "architecture": "convnet, 3x128",
    "ipc": 10,
    "sampler": "hmc",
    "protocol": "kim2022",
    "seed": 3,
    "metric": "nll",
    "value": 1.7291999999999998,
    "seconds": 2.5,
    "device": 'cpu "two cores"',
}


def test_columns_are_the_contract():
    assert ",".join(COLUMNS) == (
        "run,config_hash,dataset,method,architecture,ipc,sampler,protocol,seed,metric,value,unit,"
        "higher_is_better,seconds,device"
    )


def test_round_trip(tmp_path):
    path = tmp_path / "run" / "rows.csv"
    with RowWriter(path) as writer:
        writer.write(BASE)
        writer.write(Row(**(BASE | {"metric": "accuracy", "value": torch.tensor(0.25), "seed": np.int64(4)})))
    frame = read_rows(path)
    assert tuple(frame.columns) == COLUMNS
    first, second = frame.iloc[0].to_dict(), frame.iloc[1].to_dict()
    assert {name: first[name] for name in BASE} == BASE  # every digit of the float
    assert first["unit"] == "nats" and not first["higher_is_better"]
    assert second["value"] == 0.25 and second["seed"] == 4 and second["higher_is_better"]
    assert frame["ipc"].dtype == "int64" and frame["value"].dtype == "float64"
    assert frame["higher_is_better"].dtype == "bool"


def test_each_row_is_on_disk_at_once_and_appending_goes_on(tmp_path):
    path = tmp_path / "rows.csv"
    writer = RowWriter(path)
    for seed in range(3):
        writer.write(BASE | {"seed": seed})
        assert read_rows(path)["seed"].tolist() == list(range(seed + 1))
    writer.close()
    with RowWriter(path) as again:
        again.write(BASE | {"seed": 3})
    assert read_rows(path)["seed"].tolist() == [0, 1, 2, 3]
    assert path.read_text().count("config_hash") == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_diverged_chain_is_written_as_nan(tmp_path, value):
    with RowWriter(tmp_path / "rows.csv") as writer:
        writer.write(BASE | {"value": value})
    assert ",nll,nan,nats," in (tmp_path / "rows.csv").read_text()
    assert math.isnan(read_rows(tmp_path / "rows.csv")["value"].item())


def test_text_that_looks_like_missing_stays_text(tmp_path):
    with RowWriter(tmp_path / "rows.csv") as writer:
        writer.write(BASE | {"run": "nan", "config_hash": "1e5", "device": ""})
    row = read_rows(tmp_path / "rows.csv").iloc[0]
    assert (row["run"], row["config_hash"], row["device"]) == ("nan", "1e5", "")


@pytest.mark.parametrize("left", [1, 20, -1])
def test_a_torn_last_line_is_cut_off(tmp_path, left):
    path = tmp_path / "rows.csv"
    with RowWriter(path) as writer:
        writer.write(BASE | {"seed": 0})
        whole = path.stat().st_size
        writer.write(BASE | {"seed": 1})
    content = path.read_bytes()
    path.write_bytes(content[: whole + left] if left > 0 else content[:left])
    with pytest.warns(UserWarning, match="no end"):
        assert read_rows(path)["seed"].tolist() == [0]
    with RowWriter(path) as writer:
        writer.write(BASE | {"seed": 1})
    assert path.read_bytes() == content


@pytest.mark.parametrize("left", [0, 5, -1])
def test_a_torn_header_is_written_again(tmp_path, left):
    header = (",".join(COLUMNS) + "\n").encode()
    (tmp_path / "rows.csv").write_bytes(header[:left])
    RowWriter(tmp_path / "rows.csv").close()
    assert (tmp_path / "rows.csv").read_bytes() == header


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    writer = RowWriter(path)
    writer.write(BASE)
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))  # a short write
    with pytest.raises(StorageError, match="disk is full"):
        writer.write(BASE | {"seed": 9})
    assert path.read_bytes() == before

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match=r"rows\.csv: the disk is full"):
        writer.write(BASE)
    monkeypatch.setattr(os, "write", real)
    writer.write(BASE | {"seed": 10})
    assert read_rows(path)["seed"].tolist() == [3, 10]


def test_foreign_and_garbled_files_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    header = ",".join(COLUMNS)
    cases = {
        "a,b\n1,2\n": "begins with 'a,b'",
        "": "begins with",
        header.replace("device", "gpu") + "\n": "lacks device",
        header + ",extra\n": "unknown columns extra",
        header + "\nr1,h,cifar10\n": "3 fields where 15",
        header + "\nr,h,d,m,a,ten,s,p,0,nll,1.0,nats,false,1,cpu\n": "ten",
        header + "\nr,h,d,m,a,1,s,p,0,nll,1.0,nats,maybe,1,cpu\n": "maybe",
    }
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(FileFormatError, match=message):
            read_rows(path)
    path.write_bytes(header.encode() + b"\n\xff\xfe,\n")
    with pytest.raises(FileFormatError, match="not text"):
        read_rows(path)
    with pytest.raises(FileFormatError, match=r"rows\.csv"):
        read_rows(tmp_path / "missing.csv")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FileFormatError, match="header"):
        RowWriter(path)
    assert path.read_text() == "a,b\n1,2\n"


def test_bad_rows_are_refused_before_anything_is_written(tmp_path):
    with RowWriter(tmp_path / "rows.csv") as writer:
        with pytest.raises(ConfigError, match="one line"):
            writer.write(BASE | {"run": "a\nb"})
        with pytest.raises(ConfigError, match="Did you mean 'nll'"):
            writer.write(BASE | {"metric": "nlll"})
        with pytest.raises(ConfigError, match="Unknown column 'ip'"):
            writer.write(BASE | {"ip": 1})
        writer.write(BASE | {"metric": "rhat", "unit": "ratio", "higher_is_better": False})
    assert read_rows(tmp_path / "rows.csv")["metric"].tolist() == ["rhat"]
    with pytest.raises(ConfigError, match="closed"):
        writer.write(BASE)


def test_a_pipe_is_no_table(tmp_path):
    path = tmp_path / "rows.csv"
    os.mkfifo(path)
    for use in (read_rows, RowWriter):
        with pytest.raises(BpcError, match="a pipe, a socket or a device"):
            use(path)


@pytest.mark.parametrize("name", ["seed", "ipc"])
def test_numbers_without_end(tmp_path, name):
    path = tmp_path / "rows.csv"
    fields = {
        **dict.fromkeys(COLUMNS, "x"),
        "value": "1",
        "seconds": "1",
        "ipc": "1",
        "seed": "1",
        "higher_is_better": "true",
    }
    fields[name] = "9" * 30
    path.write_text(",".join(COLUMNS) + "\n" + ",".join(fields[c] for c in COLUMNS) + "\n")
    with pytest.raises(FileFormatError, match=f"{name} is 999"):
        read_rows(path)
