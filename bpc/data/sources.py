"""Where datasets lie: the data root, the user cache, and the official files that would be downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from bpc.errors import DataError
from bpc.files import refuse_special

__all__ = [
    "RemoteFile",
    "Source",
    "bad_file",
    "cache_folder",
    "find_archive",
    "find_folder",
    "reading",
    "resolve_root",
    "root_problem",
    "search_places",
]

RESTORE = "Restore the file, or delete its folder to have it downloaded again"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One official file to download, with the MD5 or SHA-256 its publisher (or the reference loaders) gives for it."""

    url: str
    md5: str = ""
    sha256: str = ""

    @property
    def checksum(self) -> tuple[str, str]:
        """The algorithm, as hashlib calls it, and the digest."""
        return ("md5", self.md5) if self.md5 else ("sha256", self.sha256)

    @property
    def name(self) -> str:
        """The file's name, without folders."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset that lives in files.

    Attributes:
        name: what it is called on the command line.
        folders: the folder names it is looked for under, the official one first.
        markers: a folder that holds any one of these is taken for this dataset's folder.
        contents: what the folder holds, in words.
        remotes: what a download fetches: one archive that unpacks to `folders[0]`, or the files themselves; none where
            no official file can be fetched and checked.
        archive: whether `remotes` is such an archive.
        megabytes: how much a download fetches; 0 where its publisher does not say, which happens with small files only.
        foreign: names of folders that hold another dataset with the same file names.
        by_hand: how to get the files where there are no `remotes`, as an order: "get ... from ...".
    """

    name: str
    folders: tuple[str, ...]
    markers: tuple[str, ...]
    contents: str
    remotes: tuple[RemoteFile, ...]
    archive: bool
    megabytes: int
    foreign: tuple[str, ...] = ()
    by_hand: str = ""

    def holds(self, folder: Path) -> bool:
        """Whether `folder` looks like this dataset's folder; reads no file."""
        return any(os.path.exists(folder / marker) for marker in self.markers)  # False, too, where one may not look


def cache_folder() -> Path:
    """The folder for downloads and decoded images: ``BPC_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("BPC_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("bpc"))


def resolve_root(data_root: Path | str | None) -> Path | None:
    """The data root given, else ``BPC_DATA_ROOT``, else None."""
    chosen = data_root if data_root is not None else os.environ.get("BPC_DATA_ROOT") or None
    return None if chosen is None else Path(chosen).expanduser()


def _candidates(source: Source, data_root: Path | str | None) -> Iterator[Path]:
    root = resolve_root(data_root)
    if root is not None:
        yield from (root / folder for folder in source.folders)
        # The root may itself be the dataset's folder, unless its name says that it is another dataset's.
        owner = root.parent.name if root.name == "raw" else root.name
        if owner.lower() not in source.foreign:
            yield root
    yield from (cache_folder() / folder for folder in source.folders)


def find_folder(source: Source, data_root: Path | str | None) -> Path | None:
    """The first folder that holds this dataset, or None."""
    return next((folder for folder in _candidates(source, data_root) if source.holds(folder)), None)


def find_archive(source: Source, data_root: Path | str | None) -> Path | None:
    """The official archive, if it was copied beside the other data but never unpacked."""
    root = resolve_root(data_root)
    if not source.archive or root is None:
        return None
    path = root / source.remotes[0].name
    return path if os.path.isfile(path) else None


def search_places(source: Source, data_root: Path | str | None) -> list[str]:
    """Every place that `find_folder` looks in, for messages."""
    root = resolve_root(data_root)
    places = [str(folder) for folder in _candidates(source, data_root)]
    problem = "" if root is None else root_problem(root)
    if problem:
        places.insert(0, f"{root} (which {problem})")
    return places


def root_problem(root: Path) -> str:
    """Why nothing can be found in a data root: "does not exist", and so on; empty where it can be looked into."""
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        return "does not exist"
    except NotADirectoryError:
        return "is a file, not a folder"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""


def bad_file(path: Path | str, came: str, expected: str, advice: str = RESTORE) -> DataError:
    """The error for a file that is not what it should be: what came, what was expected, what to do."""
    return DataError(f"{path}: {came}; expected {expected}. {advice}.")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a failure of the operating system to read `path` into a `DataError`, and do not wait at a pipe."""
    try:
        refuse_special(path)
        yield
    except FileNotFoundError as error:
        raise bad_file(path, "there is no such file", "one of the dataset's files") from error
    except OSError as error:
        raise DataError(
            f"Cannot read {path}: {error.strerror or error}. Check the file and its permissions."
        ) from error
