"""Checksummed downloads into the user cache, unpacked so that a kill leaves nothing half-made."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from bpc.data.sources import RemoteFile, Source, cache_folder
from bpc.errors import DataError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["DownloadError", "fetch", "install", "unpack"]

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0


class DownloadError(Exception):
    """A download did not work; the message is the reason in a few words, for the caller's own error."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence other libraries' log messages while the block runs: our own error says it in one line."""
    loggers = [pooch.get_logger(), logging.getLogger("urllib3")]  # pooch's is not in logging's registry
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Bar:
    """One download on a rich display, with the four members that pooch asks of a progress bar."""

    total = 0  # bytes in all; 0 while unknown

    def __init__(self, display: Progress, name: str) -> None:
        self._display, self._task = display, display.add_task(name, total=None)

    def update(self, size: int) -> None:
        self._display.update(self._task, total=self.total or None, advance=size)

    def reset(self) -> None:
        self._display.reset(self._task)

    def close(self) -> None:
        """The display closes with its context."""


@contextmanager
def _bar(name: str) -> Iterator[_Bar]:
    """Show a bar in bytes on standard error while the block runs; it is not shown outside a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        yield _Bar(display, name)


def _require_host(url: str) -> None:
    """Fail within `CONNECT_SECONDS` when the host has no address: a resolver may wait for a minute."""
    parts = urlsplit(url)
    if parts.scheme in getproxies():  # then the proxy resolves the name, not this machine
        return
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found: list[bool] = []

    def resolve() -> None:
        try:
            socket.getaddrinfo(host, port)
            found.append(True)
        except OSError:
            found.append(False)

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not (found and found[0]):
        raise DownloadError(f"the address of {host} cannot be resolved: no internet connection?")


def fetch(remote: RemoteFile, folder: Path) -> Path:
    """Download one file into `folder`, unless it is there already with the right checksum.

    Returns:
        The file's path. It appears under that name only once its checksum is right.

    Raises:
        DownloadError: no connection, an HTTP error, or another checksum. It is not tried again.
        StorageError: the cache cannot be written.
    """
    host = urlsplit(remote.url).hostname
    try:
        with _quiet(), _bar(remote.name) as bar:
            if not (folder / remote.name).is_file():
                _require_host(remote.url)
            downloader = pooch.HTTPDownloader(
                progressbar=bar, chunk_size=1 << 18, timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
            path = pooch.retrieve(
                remote.url, ":".join(remote.checksum), fname=remote.name, path=folder, downloader=downloader
            )
    except requests.exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else "error"
        raise DownloadError(f"{host} answered HTTP {status}") from error
    except requests.exceptions.Timeout as error:
        raise DownloadError(f"{host} did not answer in time") from error
    except requests.exceptions.RequestException as error:  # an OSError too, so it comes first
        raise DownloadError(f"no connection to {host}") from error
    except ValueError as error:
        algorithm, expected = remote.checksum
        raise DownloadError(f"what came is not the official file: its {_shown(algorithm)} is not {expected}") from error
    except OSError as error:
        raise _cache_error(error, folder) from error
    return Path(path)


def _cache_error(error: OSError, folder: Path) -> StorageError:
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return StorageError(f"Cannot write the cache folder {folder}: {reason}. Free it, or name another with BPC_CACHE.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time install a dataset, where the system has locks."""
    with open(path, "w") as stream:
        if fcntl is not None:
            # A network file system may have no locks: two downloads are slow, not wrong.
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def install(source: Source, archive: Path | None = None) -> Path:
    """Put a dataset into the user cache: download it, or unpack an `archive` that is already here.

    Args:
        source: the dataset.
        archive: the official archive, to be used instead of a download.

    Returns:
        The dataset's folder. It is made under another name and renamed when it is whole.

    Raises:
        DownloadError: see `fetch`.
        DataError: the archive is corrupt or not the official one.
        StorageError: the cache cannot be written.
    """
    cache = cache_folder()
    target = cache / source.folders[0]
    work = cache / "downloads" / source.name
    try:
        work.mkdir(parents=True, exist_ok=True)
        with _locked(work.with_suffix(".lock")):
            if source.holds(target):  # another process was faster
                return target
            work.mkdir(parents=True, exist_ok=True)
            if source.archive:
                if archive is not None:
                    _check_archive(archive, source.remotes[0])
                unpack(archive or fetch(source.remotes[0], work), target)
            else:
                for remote in source.remotes:
                    fetch(remote, work / "files")
                _move(work / "files", target)
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise _cache_error(error, cache) from error
    finally:
        _remove_if_empty(work)
    return target


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds finished files for the next time, or is gone already
        folder.rmdir()


def _shown(algorithm: str) -> str:
    return {"md5": "MD5", "sha256": "SHA-256"}[algorithm]


def _check_archive(archive: Path, remote: RemoteFile) -> None:
    algorithm, expected = remote.checksum
    found = pooch.file_hash(str(archive), alg=algorithm)
    if found != expected:
        raise DataError(
            f"{archive}: {archive.stat().st_size:,} bytes with {_shown(algorithm)} {found}; expected the official file "
            f"with {_shown(algorithm)} {expected}. It is truncated or another file: get it again from {remote.url}."
        )


def unpack(archive: Path, target: Path) -> None:
    """Unpack the folder `target.name` of a tar archive to `target`, whole or not at all.

    Raises:
        DataError: the archive is truncated, corrupt, unsafe, or lacks that folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DataError(f"Unpacking {archive} safely needs Python 3.11.4 or later: update it, or unpack by hand.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        # Damaged input raises tarfile's own errors, zlib's and EOFError; OSErrors of the disk pass through.
        try:
            with tarfile.open(archive) as stream:
                stream.extractall(temporary, filter="data")
                # The checksum of a compressed archive lies behind the part that tarfile needs to read.
                while stream.fileobj is not None and stream.fileobj.read(1 << 20):
                    pass
        except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
            raise _bad_archive(archive, str(error)) from error
        except OSError as error:
            if error.errno is None:  # gzip's BadGzipFile: an OSError that no system call caused
                raise _bad_archive(archive, str(error)) from error
            raise
        if not (temporary / target.name).is_dir():
            raise _bad_archive(archive, f"it holds no folder {target.name}/")
        _move(temporary / target.name, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _bad_archive(archive: Path, reason: str) -> DataError:
    reason = reason.partition("\n")[0].rstrip(":")  # tarfile lists its attempts over several lines
    return DataError(
        f"{archive}: {archive.stat().st_size:,} bytes that do not unpack ({reason}); expected the official "
        "tar archive. It is truncated or corrupt: delete it and run again, or get it anew."
    )


def _move(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`, in place of an unusable folder that may lie there."""
    if target.exists():
        shutil.rmtree(target)
    os.replace(folder, target)
