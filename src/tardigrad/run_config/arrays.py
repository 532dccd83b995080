"""Arrays in files: NumPy's .npy and .npz, SciPy's sparse .npz, and numbers in .csv or .txt, gzipped or not.

Rules of this file:

- a matrix in a .npy file is not read but mapped: it may be larger than memory, and runs refer to it by its path;
- a file that is not what it should be is an error that names it; nothing in it is ever run (no pickle).
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import DataError
from tardigrad.run_config.place import nearest

#: a path that names an array; of several in an .npz file, the one behind the colon
ARRAY = re.compile(r"(?P<path>[^\n]*\.(?:npy|npz|(?:csv|txt)(?:\.gz)?))(?::(?P<name>[^:/\n]+))?")


def read_array(path: Path, name: str | None = None) -> Any:
    """The array in a file.

    Parameters
    ----------
    path : Path
        A .npy, .npz, .csv or .txt file. Text has a row a line, between commas (.csv) or spaces; a first line of names is
        passed over.
    name : str, optional
        Which array of an .npz file with several.

    Raises
    ------
    DataError
        If the file is missing or not what its name says.
    """
    try:
        if path.suffix == ".npz":
            return _from_npz(path, name)
        if path.suffix == ".npy":
            return _from_npy(path)
        return _from_text(path)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an array: {error}") from error


def _from_npy(path: Path) -> Any:
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    return found if found.ndim == 2 and found.flags.c_contiguous else np.array(found)


def _from_npz(path: Path, name: str | None) -> Any:
    with np.load(path, allow_pickle=False) as file:
        names = list(file.files)
        if name is None and {"format", "shape", "data"} <= {*names}:  # by scipy.sparse.save_npz
            return sp.csr_array(sp.load_npz(path))
        if name is None and len(names) != 1:
            raise DataError(f"{path} holds {', '.join(names) or 'nothing'}: say which, '{path.name}:{(names or ['X'])[0]}'")
        if name is not None and name not in names:
            raise DataError(f"{path} has no array {name!r}: {nearest(name, names)}it has {', '.join(names)}")
        return file[name or names[0]]


def _from_text(path: Path) -> Any:
    delimiter = "," if ".csv" in path.suffixes else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty file, which is an error below
        try:
            found = np.loadtxt(path, delimiter=delimiter)
        except ValueError:
            found = np.loadtxt(path, delimiter=delimiter, skiprows=1)
    if not found.size:
        raise DataError(f"{path} holds no numbers")
    return found
