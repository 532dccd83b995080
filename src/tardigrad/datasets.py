"""Real data sets by name, and readers of common files.

Files are looked for in the folder that the environment variable ``TARDIGRAD_DATA`` names, then in the
user's cache (``~/.cache/tardigrad``, or under ``XDG_CACHE_HOME``); nothing is downloaded.

Rules of this file:

- a file is checked for its shape, and for its hash where that is known; a broken one is an error that
  names it, never wrong data;
- a named set is saved with a run by name and fingerprint, not by value.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Array
from tardigrad.problems.data import Dataset

Part = Literal["train", "test"]

#: SHA-256 of the files that results of this project were made with
_KNOWN = {
    "fashion-mnist/train-images-idx3-ubyte.gz": "2ec08d22d046b680c9a57b1b7fadb2add8a454b6ac9c861a2b52fe0d2673ce34",
    "fashion-mnist/train-labels-idx1-ubyte.gz": "7aae7312bec13c4276ba4f508cb808236a247c7c5c5d603bcd44f9efd6debac4",
    "fashion-mnist/t10k-images-idx3-ubyte.gz": "cec949a52db1fb753cd96a21a812c9ce5a2f849a9d54db88afd1c2725808f7e5",
    "fashion-mnist/t10k-labels-idx1-ubyte.gz": "6bdc149cf8a23f9cae3b9494cbc09c26232a42dc6aac25f6d77a258f51ffda9a",
    "a9a/a9a.gz": "619381887b7d30ff50fed172e01ce216c2eccde6195b3fd1b20136c07ae28a54",
    "a9a/a9a.t.gz": "1da1763a81bac4f132f8726cb71401aa84ba25920c1da67fb9c672a14d1ed56a",
    "california-housing/california_housing.csv.gz": "585baa60a9aba85918446071862b6909fdd18ba272d639c9cf9122a15ef07b9d",
}


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
        if name not in _LOADERS:
            raise InvalidInputError(f"unknown data set {name!r}: choose one of {', '.join(names())}")
        if part not in ("train", "test"):
            raise InvalidInputError(f"part must be 'train' or 'test', not {part!r}")
        super().__init__(*_LOADERS[name](part))
        self.name, self.part = name, part
        self.digest = _digest(self.X, self.y)
        if digest is not None and digest != self.digest:
            raise DataError(
                f"the {part} part of {name} found here differs from the one the run was made with"
                f" (fingerprint {self.digest[:12]}, not {digest[:12]}): put that copy under TARDIGRAD_DATA"
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
        "digits" and "breast-cancer" (or with an underscore) come with scikit-learn; "fashion-mnist", "a9a" and
        "california-housing" are looked for on disk. Pixels are scaled to [0, 1]; other features are as in the file.
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
    return sorted(_LOADERS)


def available(name: str) -> bool:
    """Whether the files of a data set are here (nothing is read)."""
    name = name.replace("_", "-")
    return name in _LOADERS and all(_find(file) is not None for file in _KNOWN if file.startswith(f"{name}/"))


def folders() -> list[Path]:
    """Where data sets are looked for, in this order."""
    found = [Path(os.environ["TARDIGRAD_DATA"])] if os.environ.get("TARDIGRAD_DATA") else []
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [*found, cache / "tardigrad"]


def read_idx(path: str | Path) -> Array:
    """An array from an IDX file of bytes (the format of MNIST), gzipped or not."""
    path = Path(path)
    content = _bytes_of(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != 8 or not content[3]:
        raise DataError(f"{path} is not an IDX file of bytes: it begins with {content[:4].hex()}, not 000008..")
    n_axes = content[3]
    begin = 4 + 4 * n_axes
    if len(content) < begin:
        raise DataError(f"{path} ends in its header ({len(content)} of {begin} bytes): it was cut short")
    shape = struct.unpack(f">{n_axes}I", content[4:begin])
    values = np.frombuffer(content, np.uint8, offset=begin)
    if len(values) != math.prod(shape):
        promised = "x".join(map(str, shape))
        raise DataError(f"{path} holds {len(values)} values, its header says {promised}: it was cut short or changed")
    return values.reshape(shape)


def read_libsvm(path: str | Path, n_features: int | None = None, zero_based: bool = False) -> Dataset:
    """Rows and labels of a LIBSVM (svmlight) text file, gzipped or not; features stay sparse (CSR, float64).

    Parameters
    ----------
    path : path
        The file.
    n_features : int, optional
        Number of features, for files whose last ones never occur.
    zero_based : bool
        Whether features are numbered from 0; the format numbers them from 1.
    """
    from sklearn.datasets import load_svmlight_file

    path = Path(path)
    try:
        X, y = load_svmlight_file(io.BytesIO(_bytes_of(path)), n_features=n_features, zero_based=zero_based)
    except ValueError as error:
        raise DataError(f"{path} is not a LIBSVM file ({error}): each line is 'label index:value ...'") from error
    return _from_file(path, sp.csr_array(X), y)


def read_csv(path: str | Path, target: str, delimiter: str = ",") -> Dataset:
    """Rows and targets of a CSV file with a header line, gzipped or not.

    Parameters
    ----------
    path : path
        The file; every column must hold numbers.
    target : str
        Column to predict; the others are features, in order.
    delimiter : str
        Between columns.
    """
    path = Path(path)
    try:
        lines = _bytes_of(path).decode("utf-8-sig").splitlines()
        header = [name.strip().strip('"') for name in lines[0].split(delimiter)]
        if len(lines) < 2:
            raise ValueError("it has no rows")
        table = np.loadtxt(lines[1:], delimiter=delimiter, ndmin=2)
        if table.shape[1] != len(header):
            raise ValueError(f"rows have {table.shape[1]} values, the header names {len(header)}")
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} is not a CSV file of numbers with a header line ({error})") from error
    if target not in header:
        raise DataError(f"{path} has no column {target!r}; it has {', '.join(header)}")
    column = header.index(target)
    return _from_file(path, np.delete(table, column, axis=1), table[:, column])


def _from_file(path: Path, X: Any, y: Array) -> Dataset:
    try:
        return Dataset(X, y)
    except InvalidInputError as error:
        raise DataError(f"{path}: {error}") from error


def _digits(part: Part) -> tuple[Any, Array]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return _split(X / 16.0, y, part)


def _breast_cancer(part: Part) -> tuple[Any, Array]:
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    return _split(X, y, part)


def _fashion_mnist(part: Part) -> tuple[Any, Array]:
    prefix, n_rows = ("train", 60_000) if part == "train" else ("t10k", 10_000)
    images = read_idx(_locate(f"fashion-mnist/{prefix}-images-idx3-ubyte.gz"))
    labels = read_idx(_locate(f"fashion-mnist/{prefix}-labels-idx1-ubyte.gz"))
    _check_shape("fashion-mnist images", images.shape, (n_rows, 28, 28))
    _check_shape("fashion-mnist labels", labels.shape, (n_rows,))
    pixels = images.reshape(n_rows, -1).astype(np.float32)
    pixels /= 255
    return pixels, labels.astype(np.int64)


def _a9a(part: Part) -> tuple[Any, Array]:
    file, n_rows = ("a9a/a9a.gz", 32_561) if part == "train" else ("a9a/a9a.t.gz", 16_281)
    data = read_libsvm(_locate(file), n_features=123)
    _check_shape("a9a", data.X.shape, (n_rows, 123))
    return data.X.toarray(), data.y.astype(np.int64)


def _california_housing(part: Part) -> tuple[Any, Array]:
    data = read_csv(_locate("california-housing/california_housing.csv.gz"), target="MedHouseVal")
    _check_shape("california-housing", data.X.shape, (20_640, 8))
    return _split(data.X, data.y, part)


_LOADERS: dict[str, Callable[[Part], tuple[Any, Array]]] = {
    "digits": _digits,
    "breast-cancer": _breast_cancer,
    "fashion-mnist": _fashion_mnist,
    "a9a": _a9a,
    "california-housing": _california_housing,
}


def _split(X: Array, y: Array, part: Part) -> tuple[Array, Array]:
    """Four fifths for training, one fifth for testing, in an order that never changes."""
    order = Stream(0, Domain.PARTITION).permutation(len(y))
    n_test = len(y) // 5
    rows = np.sort(order[n_test:] if part == "train" else order[:n_test])
    return X[rows], y[rows]


def _find(file: str) -> Path | None:
    return next((folder / file for folder in folders() if (folder / file).is_file()), None)


def _locate(file: str) -> Path:
    path = _find(file)
    if path is None:
        looked = " nor in ".join(str(folder) for folder in folders())
        name = file.partition("/")[0]
        raise DataError(f"{file} is not in {looked}: set TARDIGRAD_DATA to the folder that holds {name}/, or put it there")
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if found != _KNOWN[file]:
        warnings.warn(
            f"{path} is not the copy that published results were made with (SHA-256 {found[:12]}...): another order of"
            " rows, or a changed file",
            stacklevel=5,
        )
    return path


def _bytes_of(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is truncated or corrupt ({error}): get it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _check_shape(what: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise DataError(f"{what} have shape {shape}, expected {expected}: the file is another set or was cut short")


def _digest(X: Any, y: Array) -> str:
    digest = hashlib.sha256()
    for array in (X.data, X.indices, X.indptr, y) if sp.issparse(X) else (X, y):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
