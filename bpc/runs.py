"""A run's folder: what was asked (run.json), what happened (log.jsonl), and a lock so that two processes do not share it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import torch

from bpc.errors import ConfigError, FileFormatError
from bpc.files import explain_os_error, read_json, write_atomic, write_json

__all__ = ["Run", "config_hash", "default_out", "device_name", "peak_memory_bytes", "resolve_device", "versions"]


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
    return f"CPU ({torch.get_num_threads()} threads)"


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


class Run:
    """The folder of one run, opened by one process at a time.

    Args:
        path: the folder; made if it is not there.
        job: ``distill``, ``evaluate`` ...
        config: everything that determines the result; JSON. Its hash names the run.
        device: where it runs; recorded, but not part of the hash.
        seed: recorded, and part of `config` as well where it matters.
        resume: go on with what is there; False starts over.
        scale: one line for captions, when this is not full scale.

    Raises:
        ConfigError: the folder belongs to another configuration, or another process is using it.
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
    ) -> None:
        self.path, self.job, self.config, self.device, self.seed = Path(path), job, config, device, seed
        self.scale = scale
        self.hash = config_hash({"job": job, **config})
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(str(self.path / ".lock"))
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConfigError(
                f"{self.path} is being used by another process; wait for it, or choose another --out."
            ) from None
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        self._earlier_seconds = 0.0
        self.done = False
        self._started = time.monotonic()
        try:
            self._open(resume)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, resume: bool) -> None:
        record_path = self.path / "run.json"
        if record_path.exists():
            record = read_json(record_path)
            found = record.get("config_hash") if isinstance(record, dict) else None
            if found is None:
                raise FileFormatError(f"{record_path} is not the record of a run; choose another --out.")
            if found != self.hash:
                differing = sorted(
                    key for key in {*self.config, *record.get("config", {})}
                    if json.dumps(self.config.get(key), sort_keys=True, default=str)
                    != json.dumps(record.get("config", {}).get(key), sort_keys=True, default=str)
                )  # fmt: skip
                raise ConfigError(
                    f"{self.path} holds another run ({record.get('job')}, differing in {', '.join(differing) or 'the job'}); "
                    "choose another --out."
                )
            if resume:
                self.done = record.get("status") == "done"
                self._earlier_seconds = float(record.get("wall_seconds", 0.0))
            else:
                for leftover in self.path.iterdir():
                    if leftover.is_file() and leftover.name != ".lock":
                        leftover.unlink()
        if not self.done:
            self.record("running")

    def record(self, status: str, **extra: Any) -> None:
        """Write run.json: status is running, done, stopped or failed."""
        self.done = status == "done"
        write_json(
            self.path / "run.json",
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
                "peak_memory_bytes": peak_memory_bytes(self.device),
                "command": " ".join(sys.argv),
                **extra,
            },
        )

    @property
    def seconds(self) -> float:
        """Wall seconds of this run, earlier processes' included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def log(self, **values: Any) -> None:
        """Append one line to log.jsonl. Numbers that are not finite become null."""
        clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in values.items()}
        try:
            with open(self.path / "log.jsonl", "a") as stream:
                stream.write(json.dumps(clean) + "\n")
        except OSError as error:
            raise explain_os_error(error, self.path / "log.jsonl") from error

    def trim_log(self, key: str, last: int) -> None:
        """Drop log lines beyond `last` (and a torn one): a resumed run writes them again."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)[key] <= last:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
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


def default_out(*parts: str) -> Path:
    """``runs/`` (or BPC_RUNS) / parts joined by dashes."""
    return Path(os.environ.get("BPC_RUNS", "runs")) / "-".join(parts)
