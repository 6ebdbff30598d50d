"""Numeric arrays from MATLAB files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bpc.data.sources import bad_file, reading

__all__ = ["read_mat"]

NUMERIC = "buif"


def read_mat(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Read the variables `names` of a MATLAB file (version 7 or older); nothing else in it is decoded.

    Args:
        path: the file.
        names: the variables, all of them arrays of numbers.

    Returns:
        The arrays by name, as MATLAB shapes them (at least two dimensions, first index fastest in memory).

    Raises:
        DataError: the file is missing, truncated or corrupt, or a variable is missing or not an array of numbers.
    """
    from scipy import io  # takes a moment to import, so only who reads such a file pays

    with reading(path):
        size = path.stat().st_size
        stream = path.open("rb")
    try:
        with stream:
            found = io.loadmat(stream, variable_names=list(names))
    except Exception as error:  # ValueError, TypeError, zlib.error, MatReadError, NotImplementedError, ...
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise bad_file(path, f"{size:,} bytes that do not read ({reason})", "a whole MATLAB file") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise bad_file(path, f"no variable {missing[0]}", f"the variables {', '.join(names)}")
    for name in names:
        array = found[name]
        if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMERIC or array.size == 0:
            kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise bad_file(path, f"{name} is {kind}", "an array of numbers")
    return {name: found[name] for name in names}
