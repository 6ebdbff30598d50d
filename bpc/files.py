"""Files that are written whole or not at all: temporary name, fsync, rename. No file of ours is ever a pickle."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as _safetensors_bytes
from torch import Tensor

from bpc.errors import ConfigError, DataError, FileFormatError, StorageError

__all__ = [
    "explain_os_error",
    "is_temporary",
    "load_own_tensors",
    "load_tensors",
    "own_content",
    "read_bytes",
    "read_json",
    "refuse_special",
    "remove_temporary",
    "save_tensors",
    "write_atomic",
    "write_json",
    "write_text",
]


def explain_os_error(error: OSError, path: Path | str, *, doing: str = "write") -> StorageError:
    """Turn an operating-system error about `path` into one line of advice; `doing` is the verb (write, use, read or write)."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "the disk is full: free some space and run the same command again, it resumes"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        other = "check the path and its permissions" if "read" in doing else "choose another folder with --out"
        advice = f"no permission to {doing} it: {other}"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        advice = "a file is in the way of a folder: choose another folder with --out"
    else:
        advice = error.strerror or str(error)
    return StorageError(f"Cannot {doing} {path}: {advice}.")


def refuse_special(path: Path | str) -> None:
    """Raise an `OSError` that says so where `path` is a pipe, a socket or a device: reading one may never end."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file", str(path))


def read_bytes(path: Path | str, *, what: str) -> bytes:
    """Read a file whole; `what` says what the caller expects it to be.

    Raises:
        FileFormatError: it is missing, unreadable or not a plain file.
    """
    try:
        refuse_special(path)
        return Path(path).read_bytes()
    except OSError as error:
        raise FileFormatError(f"Cannot read {path}: {error.strerror or error} (expected {what}).") from error


def write_atomic(path: Path | str, write: Callable[[BinaryIO], Any]) -> None:
    """Call `write` on a temporary file beside `path`, fsync it, then rename it to `path`.

    Raises:
        StorageError: the file cannot be written; `path` is left as it was.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
        remove_temporary(path.parent, [path.name], older=ABANDONED_SECONDS)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def write_text(path: Path | str, text: str) -> Path:
    """Write a text as UTF-8, whole or not at all; returns `path`."""
    write_atomic(path, lambda stream: stream.write(text.encode()))
    return Path(path)


_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp")  # mkstemp's eight characters
ABANDONED_SECONDS = 3600.0  # a temporary file nobody has written to for so long is that of a killed process


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `write_atomic` gives while it writes."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporary(folder: Path, names: Iterable[str], *, older: float = 0.0) -> None:
    """Remove what a killed `write_atomic` of files with these names left in `folder`.

    Args:
        folder: where.
        names: of the files that were being written.
        older: seconds since the last write; 0 where a lock says that nobody else is writing there.
    """
    names = set(names)
    for path in folder.glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):  # another process was faster, or may and we may not: nothing depends on it
            if found is not None and found[1] in names and path.lstat().st_mtime <= time.time() - older:
                path.unlink()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the platform lets a folder be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n"
    write_atomic(path, lambda stream: stream.write(text.encode()))


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a missing or damaged one is a `FileFormatError`."""
    try:
        return json.loads(read_bytes(path, what="JSON"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"Cannot read {path} as JSON: {_first_line(error)}.") from error


def _first_line(error: BaseException) -> str:
    """What an exception says, printable and short: parts of a file of somebody's may be in it."""
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:200].rstrip(".")


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and string metadata as safetensors, atomically. Tensors are moved to the CPU."""
    cpu: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        storage = value.untyped_storage().data_ptr()
        cpu[name] = value.clone() if storage in seen else value  # the format refuses tensors that share memory
        seen.add(storage)
    data = _sorted_header(_safetensors_bytes(cpu, metadata=dict(metadata)))
    write_atomic(path, lambda stream: stream.write(data))


def _sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its JSON header in sorted order: the library shuffles the metadata, and equal content
    should be equal bytes.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def load_tensors(path: Path | str, *, what: str = "a safetensors file") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file whole.

    Args:
        path: the file.
        what: what the caller expects the file to be, for the error message.

    Returns:
        The tensors (on the CPU) and the string metadata.

    Raises:
        FileFormatError: missing, truncated, or not safetensors at all.
    """
    path = Path(path)
    try:
        refuse_special(path)
        path.open("rb").close()
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} does not exist (expected {what}).") from error
    except IsADirectoryError as error:
        raise FileFormatError(f"{path} is not a file (expected {what}).") from error
    except OSError as error:
        raise FileFormatError(f"Cannot read {path}: {error.strerror or error} (expected {what}).") from error
    try:
        with safe_open(str(path), framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return tensors, dict(stream.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        size = path.stat().st_size
        raise FileFormatError(
            f"{path} is not {what}: {size} bytes that do not read as safetensors ({_first_line(error)}). "
            "It is truncated or of another format."
        ) from error


def load_own_tensors(
    path: Path | str, config_hash: str, *, what: str = "a file of this run"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`load_tensors` of a file that a run wrote for itself, with its configuration's hash in the metadata.

    Raises:
        FileFormatError: it belongs to another configuration, or is no such file.
    """
    try:
        tensors, metadata = load_tensors(path, what=what)
    except FileFormatError as error:
        raise FileFormatError(f"{error} {_START_OVER}") from error
    if metadata.get("config_hash") != config_hash:
        raise FileFormatError(
            f"{path} is not {what}: it belongs to another configuration. {_START_OVER} Or choose another --out."
        )
    return tensors, metadata


_START_OVER = "Remove it to do its work again, or start over with --no-resume."


@contextlib.contextmanager
def own_content(path: Path | str) -> Iterator[None]:
    """While what `load_own_tensors` gave is taken apart: whatever a tensor or a number too few raises becomes one line.

    Raises:
        FileFormatError: as that line.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError, ConfigError, DataError) as error:
        raise FileFormatError(
            f"{path} is damaged ({type(error).__name__}: {_first_line(error)}). {_START_OVER}"
        ) from error


def require_finite(tensor: Tensor, what: str) -> None:
    """Raise `FileFormatError` when `tensor` holds NaN or infinity."""
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise FileFormatError(f"{what} holds {bad} values that are NaN or infinite; expected finite numbers.")
