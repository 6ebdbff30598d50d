"""Trajectories on disk: raw float32 snapshots, memory-mapped, readable while they are written.

A store is a folder. ``store.json`` says what the trajectories are of; ``expert_0000.f32`` holds snapshots of p little-endian
float32 numbers each, one after another; ``expert_0000.jsonl`` has one line a snapshot, with its CRC-32 and the learning curve.
A snapshot counts once its line is complete, and the line is written after the snapshot is on the disk, so whatever moment a
process dies at, every snapshot that counts is whole.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import Tensor

from bpc.divergences import ExpertWindow
from bpc.errors import ConfigError, DataError, FileFormatError
from bpc.files import explain_os_error, read_bytes, read_json, remove_temporary, write_json

__all__ = ["TrajectoryStore"]

FORMAT = "bpc-trajectories-1"


class TrajectoryStore:
    """Snapshots of many experts. Use `create` or `open`.

    Attributes:
        path: the folder.
        num_params: p.
        meta: what was given to `create` (dataset, network, training settings).
    """

    def __init__(self, path: Path, num_params: int, meta: dict[str, Any]) -> None:
        self.path, self.num_params, self.meta = path, num_params, meta
        self._verified: set[tuple[int, int]] = set()
        self._journals: dict[int, tuple[int, list[dict[str, Any]]]] = {}

    @classmethod
    def create(cls, path: Path | str, num_params: int, meta: dict[str, Any]) -> TrajectoryStore:
        """Open the store at `path`, making it if it is not there.

        Raises:
            FileFormatError: the folder holds something else.
            ConfigError: it holds trajectories of another network, dataset or training.
        """
        path = Path(path)
        if (path / "store.json").exists():
            store = cls.open(path)
            if store.num_params != num_params or store.meta != meta:
                differing = sorted(k for k in {*meta, *store.meta} if meta.get(k) != store.meta.get(k))
                raise ConfigError(
                    f"The store {path} holds other trajectories (differing in {', '.join(differing) or 'size'}); "
                    "choose another --experts folder."
                )
            return store
        stray = sorted(p.name for p in path.glob("expert_*"))
        if stray:
            raise FileFormatError(
                f"{path} holds {stray[0]} but no store.json, so what these trajectories are of is not known; "
                "choose another --experts folder."
            )
        write_json(path / "store.json", {"format": FORMAT, "num_params": num_params, "meta": meta})
        return cls(path, num_params, meta)

    @classmethod
    def open(cls, path: Path | str) -> TrajectoryStore:
        """Open an existing store.

        Raises:
            DataError: there is none at `path`.
            FileFormatError: ``store.json`` is damaged or foreign.
        """
        path = Path(path)
        if not (path / "store.json").exists():
            raise DataError(f"No expert trajectories at {path} (no store.json there); train some with run.py experts.")
        record = read_json(path / "store.json")
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise FileFormatError(f"{path / 'store.json'} is not a trajectory store of this project ({FORMAT}).")
        num_params, meta = record.get("num_params"), record.get("meta")
        if (
            not isinstance(num_params, int)
            or isinstance(num_params, bool)
            or num_params < 1
            or not isinstance(meta, dict)
        ):
            raise FileFormatError(
                f"{path / 'store.json'} is damaged: num_params or meta is missing or of the wrong kind."
            )
        return cls(path, num_params, meta)

    @staticmethod
    def files_in(path: Path) -> tuple[str, ...]:
        """Names in `path` that are a store's own."""
        own = (p.name for p in path.glob("expert_*") if re.fullmatch(r"expert_\d{4,}\.(f32|jsonl)", p.name))
        return ("store.json", *own, "learning_curves.png", "learning_curves.pdf")

    @property
    def num_experts(self) -> int:
        """How many experts have at least one snapshot."""
        count = 0
        while (self.path / f"expert_{count:04d}.jsonl").exists():
            count += 1
        return count

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for writing; readers need no lock.

        Raises:
            ConfigError: another process is training into it.
        """
        lock = filelock.FileLock(str(self.path / ".store.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConfigError(f"Another process is training experts into {self.path}; wait for it.") from None
        try:
            self._journals.clear()
            remove_temporary(self.path, self.files_in(self.path))
            yield
        finally:
            lock.release()

    def _files(self, expert: int) -> tuple[Path, Path]:
        return self.path / f"expert_{expert:04d}.f32", self.path / f"expert_{expert:04d}.jsonl"

    def journal(self, expert: int) -> list[dict[str, Any]]:
        """One record a whole snapshot: epoch, crc32 and the learning curve's numbers."""
        data, journal = self._files(expert)
        if not journal.exists():
            return []
        size = journal.stat().st_size
        cached = self._journals.get(expert)
        if cached is not None and cached[0] == size:
            return cached[1]
        records: list[dict[str, Any]] = []
        for number, line in enumerate(read_bytes(journal, what="a journal of snapshots").splitlines(keepends=True)):
            if not line.endswith(b"\n"):
                break  # being written, or torn by a kill
            try:
                record = json.loads(line)
                if record["epoch"] != number:
                    raise ValueError(f"epoch {record['epoch']!r:.40} on line {number + 1}")
                if not isinstance(record["crc32"], int):
                    raise ValueError("its crc32 is no whole number")
                wrong = [k for k, v in record.items() if isinstance(v, bool) or not isinstance(v, (int, float))]
                if wrong:
                    raise ValueError(f"{wrong[0]!r:.40} is no number")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise FileFormatError(f"{journal} is damaged at line {number + 1}: {error}.") from error
            records.append(record)
        if data.exists() and not data.is_file():
            raise FileFormatError(f"{data} is not a file; expected snapshots.")
        have = (data.stat().st_size if data.exists() else 0) // (4 * self.num_params)
        if have < len(records):
            raise FileFormatError(
                f"{data} is truncated: {have} whole snapshots, its journal lists {len(records)}. "
                f"Delete expert_{expert:04d}.* and run the same experts command; it trains that one again."
            )
        self._journals[expert] = (size, records)
        return records

    def epochs(self, expert: int) -> int:
        """Epochs trained: snapshots minus one; -1 for an expert without any."""
        return len(self.journal(expert)) - 1

    def append(self, expert: int, params: Tensor, **curve: Any) -> None:
        """Add the next snapshot (p,) with its learning-curve numbers; on the disk when this returns.

        Raises:
            StorageError: it could not be written; the store is as it was.
        """
        data, journal = self._files(expert)
        epoch = len(self.journal(expert))
        values = params.detach().to("cpu", torch.float32).contiguous().numpy()
        payload = values.astype("<f4", copy=False).tobytes()
        line = json.dumps({"epoch": epoch, "crc32": zlib.crc32(payload), **curve}) + "\n"
        try:
            _write_at(data, epoch * 4 * self.num_params, payload)
            offset = journal.stat().st_size if journal.exists() else 0
            offset = self._end_of_lines(journal, offset)
            _write_at(journal, offset, line.encode())
        except OSError as error:
            raise explain_os_error(error, data) from error

    @staticmethod
    def _end_of_lines(journal: Path, size: int) -> int:
        """Where the last complete line ends: a torn line is written over."""
        if size == 0:
            return 0
        text = journal.read_bytes()
        return text.rfind(b"\n") + 1

    def truncate(self, expert: int, snapshots: int) -> None:
        """Forget all but the first `snapshots` snapshots."""
        data, journal = self._files(expert)
        records = self.journal(expert)[:snapshots]
        self._journals.pop(expert, None)
        if journal.exists():
            lines = journal.read_text().splitlines(keepends=True)[: len(records)]
            _write_at(journal, 0, "".join(lines).encode())
        if data.exists():
            with open(data, "r+b") as stream:
                stream.truncate(4 * self.num_params * len(records))

    def snapshots(self, expert: int, first: int, last: int) -> Tensor:
        """Snapshots first..last (inclusive) of one expert, (last - first + 1, p), copied from the memory map.

        Raises:
            FileFormatError: the bytes on the disk are not those that were written.
        """
        records = self.journal(expert)
        if not 0 <= first <= last < len(records):
            raise ConfigError(
                f"Expert {expert} has snapshots 0 to {len(records) - 1}; {first} to {last} were asked for."
            )
        data, _ = self._files(expert)
        mapped = np.memmap(
            data, dtype="<f4", mode="r", offset=first * 4 * self.num_params, shape=(last - first + 1, self.num_params)
        )
        block = np.array(mapped, dtype=np.float32)
        for row, epoch in zip(block, range(first, last + 1), strict=True):
            if (expert, epoch) not in self._verified:
                if zlib.crc32(row.astype("<f4", copy=False).tobytes()) != records[epoch]["crc32"]:
                    raise FileFormatError(
                        f"{data} is corrupt at epoch {epoch}: its checksum does not match. "
                        f"Delete expert_{expert:04d}.* and train it again."
                    )
                if not np.isfinite(row).all():
                    raise FileFormatError(
                        f"{data} holds NaN or infinity at epoch {epoch}: no expert of ours does. "
                        f"Delete expert_{expert:04d}.* and train it again."
                    )
                self._verified.add((expert, epoch))
        return torch.from_numpy(block)

    def experts_with(self, epochs: int) -> list[int]:
        """The experts that have been trained for at least `epochs` epochs."""
        return [e for e in range(self.num_experts) if self.epochs(e) >= epochs]

    def curves(self) -> list[dict[str, Any]]:
        """Every learning-curve record, with the expert's number, for a table or a plot."""
        return [
            {"expert": e, **{k: v for k, v in record.items() if k != "crc32"}}
            for e in range(self.num_experts)
            for record in self.journal(e)
        ]

    def sampler(
        self, max_start: int, length: int, device: torch.device | str, experts: list[int] | None = None
    ) -> WindowSampler:
        """A `WindowSampler` over the experts that are long enough now."""
        return WindowSampler(self, max_start, length, device, experts)


class WindowSampler:
    """Draws windows theta^(r) .. theta^(r + length) with r uniform on 0 .. max_start - 1 and the expert uniform.

    The experts are those complete when this is made, so one run draws from one set however the store grows meanwhile.

    Raises:
        ConfigError: no expert is long enough.
    """

    def __init__(
        self,
        store: TrajectoryStore,
        max_start: int,
        length: int,
        device: torch.device | str,
        experts: list[int] | None = None,
    ) -> None:
        needed = max_start - 1 + length
        long_enough = store.experts_with(needed)
        self.experts = long_enough if experts is None else [e for e in experts if e in long_enough]
        if not self.experts:
            longest = max((store.epochs(e) for e in range(store.num_experts)), default=0)
            raise ConfigError(
                f"Start epochs below {max_start} with {length} epochs to follow need experts of {needed} epochs; the "
                f"longest in {store.path} has {longest}. Train longer (--epochs {needed}) or lower --max-start-epoch "
                f"to {max(longest - length + 1, 1)}."
            )
        self.store, self.max_start, self.length, self.device = store, max_start, length, device

    def __call__(self, generator: torch.Generator) -> ExpertWindow:
        """Draw one window; `generator` lives on the CPU."""
        which = int(torch.randint(len(self.experts), (1,), generator=generator))
        r = int(torch.randint(self.max_start, (1,), generator=generator))
        block = self.store.snapshots(self.experts[which], r, r + self.length)
        return ExpertWindow(block.to(self.device))


def _write_at(path: Path, offset: int, payload: bytes) -> None:
    """Cut the file at `offset`, write `payload` there, fsync; on failure cut it again."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.ftruncate(descriptor, offset)
        try:
            view = memoryview(payload)
            written = 0
            while written < len(payload):
                written += os.pwrite(descriptor, view[written:], offset + written)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, offset)
            raise
    finally:
        os.close(descriptor)
