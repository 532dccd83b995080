"""Readers of common files, and what writes the same formats: IDX, LIBSVM text, CSV; gzipped or not.

Rules of this file:

- a broken file is an error that names it, never wrong data;
- what a writer gives, its reader gives back in every bit.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.data import Dataset


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


def as_idx(array: Array) -> bytes:
    """The IDX file of an array of bytes (uint8).

    Examples
    --------
    >>> as_idx(np.array([1, 2, 3], np.uint8)).hex(" ")
    '00 00 08 01 00 00 00 03 01 02 03'
    """
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + np.ascontiguousarray(array).tobytes()


def as_libsvm(X: Array, y: Array) -> bytes:
    r"""The LIBSVM text of rows of whole numbers with labels +1 and -1.

    Examples
    --------
    >>> as_libsvm(np.array([[0, 1, 2], [0, 0, 0]]), np.array([1, -1]))
    b'+1 2:1 3:2\n-1\n'
    """
    rows = (np.flatnonzero(row) for row in X)
    lines = (
        " ".join([f"{label:+d}", *(f"{j + 1}:{row[j]:d}" for j in places)])
        for row, places, label in zip(X.astype(int), rows, y.astype(int).tolist(), strict=True)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def as_csv(X: Array, y: Array, header: Sequence[str]) -> bytes:
    r"""The CSV text of rows and their targets, the last column; numbers come back with the same bits.

    Examples
    --------
    >>> as_csv(np.array([[0.1, 2.0]]), np.array([1 / 3]), ["a", "b", "target"])
    b'a,b,target\n0.1,2.0,0.3333333333333333\n'
    """
    table = np.column_stack([X, y]).tolist()
    return "".join(f"{line}\n" for line in [",".join(header), *(",".join(map(repr, row)) for row in table)]).encode()
