"""Where files of data sets are looked for, and whether they are those that results were made with.

Rules of this file:

- the user's folder comes before the cache; a file is taken from the first that has it;
- rows are compared, not files: a copy that was compressed anew, or has its rows in another order, is the same set.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from tardigrad.core.errors import DataError
from tardigrad.core.task import Array


def folders() -> list[Path]:
    """Where data sets are looked for, in this order."""
    found = [Path(os.environ["TARDIGRAD_DATA"])] if os.environ.get("TARDIGRAD_DATA") else []
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [*found, cache / "tardigrad"]


def find(file: str) -> Path | None:
    """The first folder's file, or None where no folder has it."""
    return next((folder / file for folder in folders() if (folder / file).is_file()), None)


def locate(file: str) -> Path:
    """The first folder's file.

    Raises
    ------
    DataError
        If no folder has it.
    """
    path = find(file)
    if path is None:
        looked = " nor in ".join(str(folder) for folder in folders())
        name = file.partition("/")[0]
        raise DataError(
            f"{file} is not in {looked}: download it with 'tardigrad data {name}', or set TARDIGRAD_DATA to the folder that"
            f" holds {name}/"
        )
    return path


def rows_digest(X: Array, y: Array) -> str:
    """A hash of rows with their targets that does not depend on their order: the sum of the rows' hashes, mod 2^128.

    Bytes are hashed as such, other numbers as float64.

    Examples
    --------
    >>> X, y = np.eye(3), np.arange(3)
    >>> rows_digest(X, y) == rows_digest(X[::-1], y[::-1]), rows_digest(X, y) == rows_digest(X[::-1], y)
    (True, False)
    """
    dtype = "u1" if X.dtype == y.dtype == np.uint8 else "<f8"
    table = np.column_stack([X.reshape(len(X), -1), y]).astype(dtype)
    total = sum(int.from_bytes(hashlib.sha256(row.data).digest()[:16], "little") for row in table)
    return f"{total % 2**128:032x}"
