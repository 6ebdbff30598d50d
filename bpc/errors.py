"""Errors a user can act on. `run.py` prints their message in one line and exits with 2; anything else is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BpcError",
    "ConfigError",
    "DataError",
    "FileFormatError",
    "FolderBusy",
    "NumericalError",
    "StorageError",
    "unknown_name",
]


class BpcError(Exception):
    """Base class: the message says what came, what was expected and what to do."""


class ConfigError(BpcError):
    """A setting is unknown, out of range, or does not fit the others."""


class FolderBusy(ConfigError):
    """Another process is using the folder."""


class DataError(BpcError):
    """A dataset is missing, truncated, corrupt, or does not fit what is asked of it."""


class FileFormatError(BpcError):
    """A file of ours is truncated, foreign, or written by an incompatible version."""


class NumericalError(BpcError):
    """A computation left the finite numbers; the last good checkpoint is kept."""


class StorageError(BpcError):
    """A file could not be written (full disk, no permission)."""


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> ConfigError:
    """The error for a name that is not among `known`, with the closest one suggested."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    extra = f" {hint}" if hint else ""
    return ConfigError(f"Unknown {kind} {name!r}; choose from {', '.join(known)}.{suggestion}{extra}")
