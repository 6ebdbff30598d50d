"""Downloads: from a server of our own, and failing in every way."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import logging
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bpc.data import DATASETS, describe_datasets, download, load_cifar10c, load_dataset, registry
from bpc.data.cifar import CIFAR10
from bpc.data.download import DownloadError, fetch, install, unpack
from bpc.data.idx import MNIST
from bpc.data.sources import RemoteFile, Source
from bpc.errors import DataError

FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address and its folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "www"
    folder.mkdir()
    handler = partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/", folder
        running.shutdown()


def cifar_archive(path: Path, *, top: str = "cifar-10-batches-bin") -> str:
    """Write a small official archive; returns its MD5."""
    with tarfile.open(path, "w:gz") as stream:
        for name in FILES:
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = 3073
            stream.addfile(entry, io.BytesIO(b"\x07" + b"\x05" * 3072))
    return hashlib.md5(path.read_bytes()).hexdigest()


def use(monkeypatch: pytest.MonkeyPatch, url: str, md5: str) -> Source:
    """Make cifar10 come from `url`."""
    source = dataclasses.replace(CIFAR10, remotes=(RemoteFile(url=url, md5=md5),))
    record = dataclasses.replace(DATASETS.get("cifar10"), source=source)
    monkeypatch.setitem(DATASETS._records, "cifar10", record)
    return source


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_download_unpack_and_find_again(server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = server
    use(monkeypatch, f"{url}cifar.tar.gz", cifar_archive(folder / "cifar.tar.gz"))
    assert int(load_dataset("cifar10").train.labels[0]) == 7
    assert names_in(cache) == sorted(FILES)  # the archive and every temporary file are gone
    (folder / "cifar.tar.gz").unlink()
    assert len(load_dataset("cifar10").test) == 1


def test_separate_files(server: tuple[str, Path], cache: Path) -> None:
    url, folder = server
    remotes = []
    for i, remote in enumerate(MNIST.remotes):
        (folder / remote.name).write_bytes(bytes([i]) * 100)
        md5 = hashlib.md5(bytes([i]) * 100).hexdigest()
        remotes.append(RemoteFile(url=url + remote.name, md5=md5))
    source = dataclasses.replace(MNIST, remotes=tuple(remotes))
    (folder / remotes[3].name).rename(folder / "later")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 answered HTTP 404"):
        install(source)
    assert not (cache / "mnist").exists()  # three of four files are not a dataset
    for remote in remotes[:3]:
        (folder / remote.name).unlink()  # they are not asked for again
    (folder / "later").rename(folder / remotes[3].name)
    assert install(source) == cache / "mnist"
    assert names_in(cache) == sorted(remote.name for remote in remotes)


def test_wrong_checksum(server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = server
    cifar_archive(folder / "cifar.tar.gz")
    use(monkeypatch, f"{url}cifar.tar.gz", "0" * 32)
    with pytest.raises(DataError, match="not the official file: its MD5 is not 000"):
        load_dataset("cifar10")
    assert names_in(cache) == []


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist", "imagenette"])
def test_offline_message(name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise DownloadError("no connection to the.host")

    monkeypatch.setattr(download, "fetch", fail)
    with pytest.raises(DataError) as caught:
        load_dataset(name, data_root=tmp_path)
    message = str(caught.value)
    source = DATASETS.get(name).source
    assert source is not None
    for part in (
        f"Dataset {name} is missing",
        str(tmp_path / source.folders[0]),
        str(cache / source.folders[0]),
        source.remotes[0].url,
        "no connection to the.host",
        "--data-root",
        "BPC_DATA_ROOT",
        "--dataset digits",
    ):
        assert part in message
    assert "\n" not in message
    assert names_in(cache) == []


def test_refused_connection_is_quick_and_quiet(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    use(monkeypatch, "http://127.0.0.1:9/cifar.tar.gz", "0" * 32)
    start = time.perf_counter()
    with caplog.at_level(logging.INFO), pytest.raises(DataError, match=r"no connection to 127\.0\.0\.1"):
        load_dataset("cifar10")
    assert time.perf_counter() - start < 3
    assert not caplog.records and "".join(capfd.readouterr()).strip() == ""


def test_slow_name_lookup_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: object) -> None:
        time.sleep(1)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(download, "getproxies", dict)
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.05)
    with pytest.raises(DownloadError, match=r"address of nowhere\.invalid cannot be resolved"):
        fetch(RemoteFile(url="https://nowhere.invalid/file", md5="0" * 32), tmp_path)


def test_nothing_is_downloaded_when_not_asked_for(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr(download, "fetch", refuse)
    with pytest.raises(DataError, match="Downloading is turned off"):
        load_dataset("cifar10", download=False)
    with pytest.raises(DataError, match=r"typo \(which does not exist\).*data root .*typo does not exist"):
        load_dataset("cifar10", data_root=tmp_path / "typo")
    with pytest.raises(DataError, match=r"cifar10c is missing.*CIFAR-10-C"):
        load_cifar10c(download=False)


def test_an_unusable_cache_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BPC_DATA_ROOT", raising=False)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BPC_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"Cannot write the cache folder.*BPC_CACHE.*--dataset digits"):
        load_dataset("mnist")


# Archives


def test_an_archive_in_the_data_root_is_unpacked_once_checked(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    md5 = cifar_archive(path)
    with pytest.raises(DataError, match=rf"cifar-10-binary\.tar\.gz: .* with MD5 {md5}; expected .*c32a1d4a"):
        load_dataset("cifar10", data_root=tmp_path)
    use(monkeypatch, CIFAR10.remotes[0].url, md5)
    assert len(load_dataset("cifar10", data_root=tmp_path).train) == 5
    assert path.is_file()  # the user's own file is left alone


def test_corrupt_archives_leave_nothing(tmp_path: Path) -> None:
    archive, target = tmp_path / "a.tar.gz", tmp_path / "cache" / "cifar-10-batches-bin"
    cifar_archive(archive)
    whole = archive.read_bytes()
    middle = len(whole) // 2
    for content in (
        b"",
        b"garbage",
        whole[:middle],
        whole[:-8],
        whole[:middle] + b"\xff" * 9 + whole[middle + 9 :],
    ):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.tar\.gz: {len(content):,} bytes that do not unpack") as caught:
            unpack(archive, target)
        assert "\n" not in str(caught.value)
        assert list(target.parent.iterdir()) == []
    cifar_archive(archive, top="elsewhere")
    with pytest.raises(DataError, match="holds no folder cifar-10-batches-bin/"):
        unpack(archive, target)


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as stream:
        entry = tarfile.TarInfo("../../evil.txt")
        entry.size = 4
        stream.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match="do not unpack"):
        unpack(archive, tmp_path / "cache" / "set")
    assert names_in(tmp_path) == ["a.tar"]


def test_unpacking_replaces_an_unusable_folder(tmp_path: Path) -> None:
    archive, target = tmp_path / "a.tar.gz", tmp_path / "cache" / "cifar-10-batches-bin"
    cifar_archive(archive)
    (target / "junk").mkdir(parents=True)
    unpack(archive, target)
    assert names_in(target) == sorted(FILES)


def test_sha256(server: tuple[str, Path], cache: Path) -> None:
    url, folder = server
    (folder / "file").write_bytes(b"content")
    right = hashlib.sha256(b"content").hexdigest()
    assert fetch(RemoteFile(url=f"{url}file", sha256=right), cache).read_bytes() == b"content"
    (cache / "file").unlink()
    with pytest.raises(DownloadError, match=f"its SHA-256 is not {'0' * 64}"):
        fetch(RemoteFile(url=f"{url}file", sha256="0" * 64), cache)
    assert names_in(cache) == []


def test_two_processes_at_once_share_one_download(server: tuple[str, Path], cache: Path) -> None:
    url, folder = server
    md5 = cifar_archive(folder / "cifar.tar.gz")
    source = dataclasses.replace(CIFAR10, remotes=(RemoteFile(url=f"{url}cifar.tar.gz", md5=md5),))
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(install(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [cache / "cifar-10-batches-bin"] * 4
    assert names_in(cache) == sorted(FILES)


def test_describe_datasets(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mnist").mkdir()
    np.save(tmp_path / "mnist" / "other.npy", np.zeros(1))
    rows = {row.name: row for row in describe_datasets(tmp_path)}
    assert list(rows) == [*registry.dataset_names(), "cifar10c", *registry.unlabelled_names()]
    assert rows["digits"].found and not rows["mnist"].found
    assert "170 MB" in rows["cifar10"].where
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").write_bytes(b"")
    (tmp_path / "cifar-100-binary.tar.gz").write_bytes(b"")
    rows = {row.name: row for row in describe_datasets(tmp_path)}
    assert rows["mnist"] == ("mnist", True, str(tmp_path / "mnist"))
    assert rows["cifar100"].found and "to be unpacked" in rows["cifar100"].where
    assert not cache.exists()
