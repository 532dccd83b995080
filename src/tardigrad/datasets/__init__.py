"""Real data sets by name, and readers of common files.

Files are looked for in the folder that the environment variable ``TARDIGRAD_DATA`` names, then in the
user's cache (``~/.cache/tardigrad``, or under ``XDG_CACHE_HOME``). Only `download` (on the command line
``tardigrad data NAME``) fetches anything.

Rules of this package:

- what is in a file is checked: its shape, and its rows where they are known; a broken one is an error that
  names it, never wrong data;
- a named set is saved with a run by name and fingerprint, not by value.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.task import Array
from tardigrad.datasets.downloads import Downloaded, download, listing
from tardigrad.datasets.places import find, folders
from tardigrad.datasets.readers import read_csv, read_idx, read_libsvm
from tardigrad.datasets.sets import SETS, OnDisk, Part
from tardigrad.problems.data import Dataset

__all__ = [
    "Downloaded",
    "NamedDataset",
    "available",
    "download",
    "folders",
    "listing",
    "load",
    "names",
    "read_csv",
    "read_idx",
    "read_libsvm",
]


class NamedDataset(Dataset):
    """A part of a known data set; `load` makes one.

    Parameters
    ----------
    name : str
        One of `names`.
    part : {"train", "test"}
        Which part. Sets without parts of their own are split once, four fifths for training.
    digest : str, optional
        Fingerprint that the data must have; a saved run gives it.
    """

    def __init__(self, name: str, part: Part = "train", digest: str | None = None) -> None:
        name = str(name).replace("_", "-")
        if name not in SETS:
            raise InvalidInputError(f"unknown data set {name!r}: choose one of {', '.join(names())}")
        if part not in ("train", "test"):
            raise InvalidInputError(f"part must be 'train' or 'test', not {part!r}")
        super().__init__(*SETS[name].rows(part))
        self.name, self.part = name, part
        self.digest = _digest(self.X, self.y)
        if digest is not None and digest != self.digest:
            raise DataError(
                f"the {part} part of {name} found here differs from the one the run was made with"
                f" (fingerprint {self.digest[:12]}, not {digest[:12]}; the order of rows counts): put that copy under"
                " TARDIGRAD_DATA"
            )

    def fields(self) -> dict[str, Any]:
        return {"name": self.name, "part": self.part, "digest": self.digest}

    def __repr__(self) -> str:
        return f"<{self.name}, {self.part} part: {self.X.shape[0]} rows, {self.X.shape[1]} features, {self.X.dtype}>"


def load(name: str, part: Part = "train") -> NamedDataset:
    """A known data set.

    Parameters
    ----------
    name : str
        "digits" and "breast-cancer" (or with an underscore) come with scikit-learn; "fashion-mnist", "mnist", "a9a" and
        "california-housing" are looked for on disk, see `download`. Pixels are scaled to [0, 1]; other features are as
        in the file.
    part : {"train", "test"}
        Which part.

    Raises
    ------
    DataError
        If files are missing, truncated, or not what they claim to be.

    Examples
    --------
    >>> load("digits", "test")
    <digits, test part: 359 rows, 64 features, float64>
    """
    return NamedDataset(name, part)


def names() -> list[str]:
    """The data sets that `load` knows."""
    return sorted(SETS)


def available(name: str) -> bool:
    """Whether the files of a data set are here (nothing is read)."""
    name = name.replace("_", "-")
    known = SETS.get(name)
    return known is not None and (not isinstance(known, OnDisk) or all(find(file) for file in known.all_files()))


def _digest(X: Any, y: Array) -> str:
    digest = hashlib.sha256()
    for array in (X.data, X.indices, X.indptr, y) if sp.issparse(X) else (X, y):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
