"""A run's folder: what was asked (run.json), what happened (log.jsonl), and a lock so that two processes do not share it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import filelock
import torch

from bpc.errors import ConfigError, FileFormatError, FolderBusy
from bpc.files import (
    explain_os_error,
    is_temporary,
    read_bytes,
    read_json,
    refuse_special,
    remove_temporary,
    write_atomic,
    write_json,
)
from bpc.progress import plural, say

__all__ = [
    "Run",
    "check_folder",
    "config_hash",
    "default_out",
    "device_name",
    "missing_outputs",
    "own_file",
    "own_picture",
    "peak_memory_bytes",
    "read_run",
    "resolve_device",
    "versions",
]


def config_hash(config: dict[str, Any]) -> str:
    """12 hex digits that name a configuration: equal for equal settings, whatever their order."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def resolve_device(name: str) -> torch.device:
    """``auto`` takes a CUDA GPU if there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"Unknown device {name!r}; expected auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"Device {name!r} is not supported; expected auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"Device {name!r} was asked for but torch sees {torch.cuda.device_count()} CUDA GPUs; use --device auto or cpu."
        )
    return device


def device_name(device: torch.device) -> str:
    """What a table's caption calls the device."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU ({plural(torch.get_num_threads(), 'thread')})"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "scikit-learn", "arviz", "pyro-ppl", "hamiltorch", "bayesian-pseudocoresets"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found["cuda"] = str(torch.version.cuda)
    return found


def _commit() -> str:
    """The commit of the checkout that holds this file, with + for local changes; empty outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory so far: of the process on the CPU, of torch's allocator on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


OWN_FILES = ".files"  # a run's list of the files it has written, a name on a line
RECORD, LOCK = "run.json", ".lock"
# what may lie in a folder that nothing has been kept in yet: locks of ours, and what file managers leave
IGNORED = frozenset({LOCK, ".store.lock", OWN_FILES, ".DS_Store", ".gitkeep", "desktop.ini"})


class Run:
    """The folder of one run, opened by one process at a time.

    A run deletes nothing that it has not written: every file of its own is named through `file` or `own`, which keep a list in
    the folder, and starting over removes what is on that list.

    Args:
        path: the folder; made if it is not there.
        job: ``distill``, ``evaluate`` ...
        config: everything that determines the result; JSON. Its hash names the run.
        device: where it runs; recorded, but not part of the hash.
        seed: recorded, and part of `config` as well where it matters.
        resume: go on with what is there; False starts over.
        scale: one line for captions, when this is not full scale.
        beside: names of files that may be in the folder before the run is (a trajectory store's).

    Raises:
        ConfigError: the folder belongs to another configuration or to somebody else, or another process is using it.
        FileFormatError: ``run.json`` is damaged.
    """

    def __init__(
        self,
        path: Path,
        job: str,
        config: dict[str, Any],
        device: torch.device,
        *,
        seed: int = 0,
        resume: bool = True,
        scale: str = "",
        beside: tuple[str, ...] = (),
    ) -> None:
        self.path, self.job, self.config, self.device, self.seed = Path(path), job, config, device, seed
        self.scale = scale
        self.hash = config_hash({"job": job, **config})
        check_folder(self.path, beside)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(str(self.path / LOCK))
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise FolderBusy(
                f"{self.path} is being used by another process; wait for it, or choose another --out."
            ) from None
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        self._own: set[str] = set()
        self._promised: set[str] = set()
        self._earlier_seconds = 0.0
        self.done = False
        self._started = time.monotonic()
        try:
            self._open(resume)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, resume: bool) -> None:
        record_path = self.path / RECORD
        self._own = _listed(self.path)
        if record_path.exists():
            record = read_run(self.path)
            if record["config_hash"] != self.hash:
                differing = sorted(
                    key for key in {*self.config, *record["config"]}
                    if json.dumps(self.config.get(key), sort_keys=True, default=str)
                    != json.dumps(record["config"].get(key), sort_keys=True, default=str)
                )  # fmt: skip
                what = f"{record['job']}, differing in {', '.join(differing)}" if record["job"] == self.job else (
                    f"{record['job']}, not {self.job}"
                )  # fmt: skip
                raise ConfigError(f"{self.path} holds another run ({what}); choose another --out.")
            if resume:
                self._earlier_seconds = record["wall_seconds"]
                self._promised = set(record.get("outputs", []))
                gone = missing_outputs(self.path, record)
                self.done = record["status"] == "done" and not gone
                if record["status"] == "done" and gone:
                    say(
                        f"{self.path} was finished, but {', '.join(gone)} is gone from it. What is missing is made again from "
                        "what is still there; to keep what you have, stop this and put the file back."
                    )
            else:
                self._start_over()
        remove_temporary(self.path, self._own)
        if not self.done:
            self.record("running")

    def _start_over(self) -> None:
        """Remove the files that this run's list names, and nothing else."""
        if not (self.path / OWN_FILES).exists():
            raise ConfigError(
                f"{self.path} was made by a version that kept no list of its files, so nothing is deleted there; "
                "choose another --out, or remove the folder yourself."
            )
        for name in sorted(self._own):
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).unlink()

    def file(self, name: str, *, promised: bool = False) -> Path:
        """The path of a file of this run's own, on its list from now on: call it before the file is written.

        Args:
            name: without folders.
            promised: without this file the run is not finished, whatever its record says.
        """
        _refuse_link(self.path / name)
        if promised:
            self._promised.add(name)
        if name not in self._own:
            own_file(self.path, name)
            self._own.add(name)
        return self.path / name

    def picture(self, name: str) -> Path:
        """`file` of a picture, ``.png``, and of the PDF that is written beside it; the path of the PNG."""
        self.file(Path(name).with_suffix(".pdf").name)
        return self.file(name)

    def own(self, paths: Iterable[Path]) -> None:
        """Put files that were just written into the run's folder on its list."""
        for path in paths:
            if path.parent == self.path:
                self.file(path.name)

    def record(self, status: str, **extra: Any) -> None:
        """Write run.json: status is running, done, stopped or failed."""
        self.done = status == "done"
        write_json(
            self.file(RECORD),
            {
                "job": self.job,
                "status": status,
                "config_hash": self.hash,
                "seed": self.seed,
                "scale": self.scale,
                "config": json.loads(json.dumps(self.config, default=str)),
                "versions": versions(),
                "commit": _commit(),
                "device": device_name(self.device),
                "wall_seconds": round(self.seconds, 3),
                "outputs": sorted(self._promised),
                "peak_memory_bytes": peak_memory_bytes(self.device),
                "command": " ".join(sys.argv),
                **extra,
            },
        )

    @property
    def device_name(self) -> str:
        """The device as rows name it."""
        return device_name(self.device)

    @property
    def seconds(self) -> float:
        """Wall seconds of this run, earlier processes' included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def log(self, **values: Any) -> None:
        """Append one line to log.jsonl. Numbers that are not finite become null."""
        clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in values.items()}
        try:
            path = self.file("log.jsonl")
            refuse_special(path)
            with open(path, "a") as stream:
                stream.write(json.dumps(clean) + "\n")
        except OSError as error:
            raise explain_os_error(error, self.path / "log.jsonl") from error

    def trim_log(self, key: str, last: int) -> None:
        """Drop log lines beyond `last` (and a torn one): a resumed run writes them again."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return
        kept = []
        for line in read_bytes(path, what="a run's log").decode(errors="replace").splitlines():
            try:
                if json.loads(line)[key] <= last:
                    kept.append(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        write_atomic(path, lambda stream: stream.write("".join(line + "\n" for line in kept).encode()))

    def close(self) -> None:
        """Give the folder back."""
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is not None and not self.done:
                self.record(
                    "stopped" if issubclass(kind, KeyboardInterrupt) else "failed",
                    error=str(error),
                )
        except Exception:  # the first error is the one to report (a full disk cannot take this record either)
            pass
        finally:
            self.close()


def own_file(folder: Path, name: str) -> Path:
    """The path of a file in a run's folder, on the run's list from now on: for jobs that go on in the folder of a run that is
    done (scores, pictures), so that starting over removes them too.
    """
    if not _is_plain(name):
        raise ValueError(f"A run's file is named without folders; got {name!r}.")
    _refuse_link(folder / name)
    _refuse_link(folder / OWN_FILES)
    if name not in _listed(folder):
        try:
            refuse_special(folder / OWN_FILES)
            with open(folder / OWN_FILES, "a") as stream:
                stream.write(name + "\n")
        except OSError as error:
            raise explain_os_error(error, folder / OWN_FILES) from error
    return folder / name


def own_picture(folder: Path, name: str) -> Path:
    """`own_file` of a picture, ``.png``, and of the PDF that is written beside it; the path of the PNG."""
    own_file(folder, Path(name).with_suffix(".pdf").name)
    return own_file(folder, name)


def default_out(*parts: str) -> Path:
    """``runs/`` (or BPC_RUNS) / parts joined by dashes; whatever a name holds, the result is one folder there."""
    name = re.sub(r"[^A-Za-z0-9_.,=@+-]+", "_", "-".join(parts)).lstrip(".")
    return Path(os.environ.get("BPC_RUNS", "runs")) / (name or "run")


def check_folder(path: Path, beside: tuple[str, ...] = ()) -> None:
    """Refuse a folder that holds something and is no run of ours, before anything is made.

    Args:
        path: where a run is to be; it need not exist.
        beside: names of files that may be there without a run.

    Raises:
        ConfigError: the folder holds files of somebody else, or a file is in its place.
        FileFormatError: its ``run.json`` is not the record of a run.
    """
    path = Path(path)
    if not path.name.isprintable():
        raise ConfigError(
            f"The folder's name {path.name!a} has control characters or is not UTF-8; choose another --out."
        )
    try:
        if not path.exists():
            return
        if not path.is_dir():
            raise ConfigError(f"{path} is a file; a run needs a folder of its own: choose another --out.")
        if (path / RECORD).exists():
            read_run(path)
            return
        foreign = sorted(
            p.name
            for p in path.iterdir()
            if p.name not in IGNORED and p.name not in beside and not is_temporary(p.name)
        )
    except OSError as error:
        raise explain_os_error(error, path, doing="use") from error
    if foreign:
        several = f"{foreign[0]} and {len(foreign) - 1} more" if len(foreign) > 1 else foreign[0]
        raise ConfigError(f"{path} is not empty and no run of ours ({several} there); choose another --out.")


_KINDS: dict[str, Any] = {
    "config_hash": str,
    "job": str,
    "status": str,
    "config": dict,
    "wall_seconds": (int, float),
    "outputs": list,
}


def read_run(
    path: Path, *, needs: Iterable[str] = ("config_hash", "job", "status", "config", "wall_seconds")
) -> dict[str, Any]:
    """A run's ``run.json``, checked: the fields it needs are there, and every field that we know is of the right kind.

    Raises:
        FileFormatError: missing, damaged, or something else.
    """
    record = read_json(path / RECORD)
    if not isinstance(record, dict) or not set(record) & set(_KINDS):
        raise FileFormatError(f"{path / RECORD} is not the record of a run; choose another folder.")
    for name in dict.fromkeys([*needs, *_KINDS]):
        value: Any = record.get(name)
        good = isinstance(value, _KINDS[name]) and not isinstance(value, bool)
        if name == "wall_seconds":
            good = good and 0 <= value < 1e12
        if name == "outputs":
            good = good and all(isinstance(item, str) and _is_plain(item) for item in value)
        if not good and (name in record or name in needs):
            came = json.dumps(value)[:60] if name in record else "missing"
            raise FileFormatError(
                f"{path / RECORD} is damaged: {name} is {came}; choose another --out, or remove the file."
            )
    return record


def missing_outputs(path: Path, record: dict[str, Any]) -> list[str]:
    """The files that a run's record promises and its folder does not hold."""
    return [name for name in record.get("outputs", []) if not (path / name).is_file()]


def _refuse_link(path: Path) -> None:
    """A link in a folder that somebody shared would have a run append to a file elsewhere."""
    if path.is_symlink():
        raise ConfigError(
            f"{path} is a link; a run writes to its own folder only: remove the link, or choose another --out."
        )


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in the folder itself."""
    return bool(name) and name not in (".", "..") and not set(name) & {"/", "\\", "\0", "\n", "\r"}


def _listed(path: Path) -> set[str]:
    """The names on a run's list. A line that is no plain name was not written by us, and is left out."""
    if not (path / OWN_FILES).exists():
        return set()
    lines = read_bytes(path / OWN_FILES, what="a run's list of its files").decode(errors="replace").split("\n")
    return {line for line in lines if _is_plain(line) and line not in (LOCK, OWN_FILES)}
