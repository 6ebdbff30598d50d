"""`rows.csv`: one line for each metric of each seed, written as soon as it exists."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pandas as pd

from bpc.errors import ConfigError, FileFormatError, unknown_name
from bpc.files import explain_os_error, read_bytes, refuse_special
from evaluation.metrics import metric_info

__all__ = ["COLUMNS", "PosteriorKey", "Row", "RowWriter", "metrics_of", "read_rows"]

COLUMNS = (
    "run",
    "config_hash",
    "dataset",
    "method",
    "architecture",
    "ipc",
    "sampler",
    "protocol",
    "seed",
    "metric",
    "value",
    "unit",
    "higher_is_better",
    "seconds",
    "device",
)
_INTEGERS = ("ipc", "seed")
_FLOATS = ("value", "seconds")
_BOOLEANS = {"true": True, "false": False}


class PosteriorKey(NamedTuple):
    """Which posterior: columns that are the same in all rows of all its seeds."""

    method: str
    ipc: int
    sampler: str
    protocol: str

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those of `rows` that are this posterior's."""
        for name, value in self._asdict().items():
            rows = rows[rows[name] == value]
        return rows


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number. `unit` and `higher_is_better` are filled in for the metrics of `METRICS`.

    Attributes:
        ipc: images per class; 0 for the full data.
        seed: of the chain.
        value: nan for a chain that diverged.
        seconds: wall time of the evaluation that gave the number; nan if not measured.
    """

    run: str
    config_hash: str
    dataset: str
    method: str
    architecture: str
    ipc: int
    sampler: str
    protocol: str
    seed: int
    metric: str
    value: float
    unit: str = ""
    higher_is_better: bool | None = None
    seconds: float = math.nan
    device: str = ""

    def __post_init__(self) -> None:
        if not self.unit or self.higher_is_better is None:
            unit, higher_is_better = metric_info(self.metric)
            object.__setattr__(self, "unit", self.unit or unit)
            if self.higher_is_better is None:
                object.__setattr__(self, "higher_is_better", higher_is_better)
        for name in (*_INTEGERS, *_FLOATS):  # also from a tensor or a numpy scalar
            object.__setattr__(self, name, (int if name in _INTEGERS else float)(getattr(self, name)))
        for name, value in dataclasses.asdict(self).items():
            # The file is repaired line by line, so a line is one row.
            if isinstance(value, str) and ("\n" in value or "\r" in value):
                raise ConfigError(f"A row's {name} must be one line; got {value!r}.")


class RowWriter:
    """Appends rows to one file, each whole or not at all. One writer a file at a time.

    A new file gets the header. In an existing one the header is checked, and a last line without its end,
    left by a kill in the middle of a write, is cut off.

    Raises:
        FileFormatError: the existing file has another header.
        StorageError: the file cannot be written; a line that came out short is taken back.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None
        try:
            refuse_special(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        try:
            self._repair()
        except BaseException:
            self.close()
            raise

    def write(self, row: Row | Mapping[str, Any]) -> None:
        """Append one row and wait until it is on the disk."""
        if not isinstance(row, Row):
            unknown = set(row) - set(COLUMNS)
            if unknown:
                raise unknown_name("column", min(unknown), COLUMNS)
            row = Row(**row)
        self._append(_line([_text(getattr(row, name)) for name in COLUMNS]))

    def close(self) -> None:
        """Close the file; twice does no harm."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repair(self) -> None:
        assert self._descriptor is not None
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        header = _line(COLUMNS)
        whole = content.rfind(b"\n") + 1
        if not content or (whole == 0 and header.startswith(content)):
            os.ftruncate(self._descriptor, 0)
            self._append(header)
            return
        _check_header(content, self.path)
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)

    def _append(self, line: bytes) -> None:
        if self._descriptor is None:
            raise ConfigError(f"The writer of {self.path} is closed.")
        size = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise explain_os_error(error, self.path) from error


def read_rows(path: Path | str) -> pd.DataFrame:
    """Read a `rows.csv`: integers, floats and booleans as such, everything else as text.

    A last line without its end is left out with a warning: its writer was killed, or is still writing.

    Raises:
        FileFormatError: no such file, another header, or a line that is not a row.
    """
    path = Path(path)
    content = read_bytes(path, what="a rows.csv")
    _check_header(content, path)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        warnings.warn(f"{path}: the last line has no end and is left out.", stacklevel=2)
    try:
        text = content[:whole].decode()
        records = [_parse(record) for record in list(csv.reader(io.StringIO(text), strict=True))[1:]]
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not a rows.csv: it is not text ({error}).") from error
    except (ValueError, csv.Error) as error:
        raise FileFormatError(f"{path} is damaged: {error}. Remove the line, or the file.") from error
    frame = pd.DataFrame(records, columns=list(COLUMNS))
    kinds = {name: "int64" for name in _INTEGERS} | {name: "float64" for name in _FLOATS}
    kinds |= {name: "str" for name in COLUMNS if name not in kinds}
    return frame.astype(kinds | {"higher_is_better": "bool"})


def metrics_of(path: Path, protocol: str) -> set[str]:
    """The metrics that a folder's rows.csv has under a protocol; none if there is no file. A kill may have left some."""
    if not path.exists():
        return set()
    rows = read_rows(path)
    return set(rows.loc[rows["protocol"] == protocol, "metric"])


def _line(fields: tuple[str, ...] | list[str]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(fields)
    return stream.getvalue().encode()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    # repr gives back the same float when it is read; an infinite value says as little as nan
    return "nan" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _check_header(content: bytes, path: Path) -> None:
    """The first line must be `COLUMNS`."""
    header = content.split(b"\n", 1)[0].decode(errors="replace").strip().split(",")
    if header == list(COLUMNS) and b"\n" in content:
        return
    missing = [name for name in COLUMNS if name not in header]
    extra = [name for name in header if name not in COLUMNS]
    came = f"lacks {', '.join(missing)}" if missing and len(missing) < len(COLUMNS) else ""
    came = came or (f"has the unknown columns {', '.join(extra)}" if not missing and extra else "")
    came = came or f"begins with {','.join(header)[:80]!r}"
    raise FileFormatError(f"{path} is not a rows.csv of this version: its header {came}; expected {','.join(COLUMNS)}.")


def _parse(record: list[str]) -> list[object]:
    if len(record) != len(COLUMNS):
        raise ValueError(
            f"a line has {len(record)} fields where {len(COLUMNS)} were expected: {','.join(record)[:80]!r}"
        )
    values: list[object] = []
    for name, text in zip(COLUMNS, record, strict=True):
        if name in _INTEGERS:
            number = int(text)
            if not -(2**63) <= number < 2**63:
                raise ValueError(f"{name} is {text[:60]}; expected a whole number of 64 bits")
            values.append(number)
        elif name in _FLOATS:
            values.append(float(text))
        elif name == "higher_is_better":
            if text not in _BOOLEANS:
                raise ValueError(f"higher_is_better must be true or false, not {text!r}")
            values.append(_BOOLEANS[text])
        else:
            values.append(text)
    return values
