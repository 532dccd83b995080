"""The matrix of a linear system: dense, CSR, or a file larger than memory.

Rules of this file:

- a matrix is taken as it is where possible, never copied if it is a file, and only read;
- entries are not looked through: one pass over the matrix is most of what solving takes. Who meets a number
  that is not finite asks `first_nonfinite` where it comes from;
- passes are split over a few plain threads, each with a part of bounded size at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.matrix_file import MatrixFile

#: bytes of the matrix that are read in one go
PART = 2**22
#: numbers that the results for one part may take
_NUMBERS = 2**22
#: below so many entries a pass is not worth a thread
_ALONE = 2**18
#: parts of a pass, and threads at most
_THREADS = 8


def as_matrix(A: Any) -> Any:
    """A as a C-contiguous array, a memory map or a canonical CSR array, of float32 or float64, read only.

    Raises
    ------
    InvalidInputError
        For a wrong shape or type, or a file that is not a matrix.
    """
    if isinstance(A, MatrixFile):
        return A.open()
    if isinstance(A, (str, Path)):
        A = _open_npy(Path(A))
    if isinstance(A, np.memmap) and getattr(A, "filename", None) is not None and A.mode != "c":
        return _as_map(A)
    try:
        matrix = sp.csr_array(A) if sp.issparse(A) else np.asarray(A)
    except ValueError:
        raise InvalidInputError("A must be a matrix: its rows have different lengths") from None
    if matrix.dtype.kind not in "biuf":
        hint = ": single rows are read, which a linear operator does not give" if hasattr(A, "matvec") else ""
        raise InvalidInputError(f"A must hold real numbers, not {matrix.dtype}{hint}")
    _check_shape(matrix.shape)
    if matrix.dtype not in (np.float32, np.float64) or not matrix.dtype.isnative:
        matrix = matrix.astype(np.float32 if matrix.dtype == np.dtype(np.float32).newbyteorder() else np.float64)
    if sp.issparse(matrix):
        return canonical(matrix, "A")
    matrix = np.ascontiguousarray(matrix).view()
    matrix.flags.writeable = False
    return matrix


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or 0 in shape:
        hint = "; a single equation is A[None, :]" if len(shape) == 1 else ""
        raise InvalidInputError(f"A must have shape (n_rows, dim) with at least one of each, not {shape}{hint}")


def _open_npy(path: Path) -> Any:
    try:
        opened = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"cannot open {path}, the file of A: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInputError(f"{path} is not a .npy file of numbers ({error}): write it with np.save") from error
    if not isinstance(opened, np.memmap):
        raise InvalidInputError(f"{path} is not a .npy file of one matrix: write it with np.save")
    return opened


def _as_map(matrix: np.memmap) -> Any:
    _check_shape(matrix.shape)
    if not matrix.flags.c_contiguous:
        raise InvalidInputError(
            "A is a file that is not stored row by row (C order): write it with np.save of a C-ordered array"
        )
    if matrix.dtype not in (np.float32, np.float64) or not matrix.dtype.isnative:
        raise InvalidInputError(f"A is a file of {matrix.dtype}: a file is used as it is, so it must hold float32 or float64")
    return MatrixFile.of(matrix).open()


def canonical(matrix: Any, name: str) -> Any:
    """CSR with sorted indices, each once, and nothing that a compiled loop could trip over; the user's stays as it is.

    Examples
    --------
    >>> given = sp.csr_array((np.array([1.0, 2.0]), np.array([1, 0]), np.array([0, 2])))
    >>> canonical(given, "X").indices.tolist(), given.indices.tolist()
    ([0, 1], [1, 0])
    """
    indices, indptr = matrix.indices, matrix.indptr
    broken = len(indptr) != matrix.shape[0] + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any()
    broken = broken or indptr[-1] > min(len(indices), len(matrix.data))
    if broken or (len(indices) and not 0 <= indices.min() <= indices.max() < matrix.shape[1]):
        raise InvalidInputError(
            f"{name} is not a valid CSR matrix (column numbers or row pointers out of range): build it anew"
        )
    # flags that say so may be out of date, so they are found out again
    fresh = sp.csr_array((matrix.data, indices, indptr), shape=matrix.shape)
    if not fresh.has_canonical_format:
        fresh = fresh.copy()
        fresh.sum_duplicates()
    return fresh


class Passes:
    """Passes over a matrix by rows, on a few threads.

    Rows are cut in the same way on every machine, so that sums have the same bits whatever the number of cores.

    Parameters
    ----------
    matrix : array or CSR array
        The matrix.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        #: passes that were made
        self.count = 0
        self._sparse = sp.issparse(matrix)
        entries = matrix.nnz if self._sparse else matrix.size
        self._n_parts = max(1, min(_THREADS, int(entries) // _ALONE))
        self._pieces: tuple[int, list[tuple[slice, Any]]] = (0, [])

    def each(self, work: Callable[[slice, Any], Any], width: int = 1) -> list[Any]:
        """``work(rows, matrix[rows])`` for all rows, a part at a time; the results in order.

        `width` is how many numbers `work` needs for a row: parts are cut so that it does not need too many at once.
        """
        self.count += 1
        pieces = self._cut(width)
        n_threads = min(_cores(), len(pieces), self._n_parts)
        if not self._sparse and _blas_threads() > 1:
            n_threads = 1  # several threads that call a BLAS of several threads wait for each other
        results: list[Any] = [None] * len(pieces)
        errors: list[BaseException] = []

        def run(first: int) -> None:
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    for k in range(first, len(pieces), n_threads):
                        results[k] = work(*pieces[k])
            except BaseException as error:  # raised again by the thread that asked
                errors.append(error)

        threads = [threading.Thread(target=run, args=(k,)) for k in range(1, n_threads)]
        for thread in threads:
            thread.start()
        run(0)
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results

    def _cut(self, width: int) -> list[tuple[slice, Any]]:
        n_rows = self.matrix.shape[0]
        step = min(-(-n_rows // self._n_parts), max(1, _NUMBERS // max(width, 1)))
        kept, pieces = self._pieces
        if kept != step:
            rows = [slice(low, min(low + step, n_rows)) for low in range(0, n_rows, step)]
            pieces = [(part, rows_of(self.matrix, part)) for part in rows]
            self._pieces = step, pieces  # to cut a CSR matrix takes as long as a product with it
        return pieces


def row_sizes(matrix: Any) -> Array:
    """The largest absolute value of each row."""
    if sp.issparse(matrix):
        return np.asarray(abs(matrix).max(axis=1).toarray()).ravel()
    largest: Array = np.abs(matrix).max(axis=1)
    return largest


def row_bytes(matrix: Any) -> float:
    """Bytes of a row, on average."""
    if sp.issparse(matrix):
        return max(1.0, matrix.nnz / matrix.shape[0] * (matrix.data.itemsize + matrix.indices.itemsize))
    return float(matrix.shape[1] * matrix.dtype.itemsize)


@lru_cache(1)
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


def _blas_threads() -> int:
    """Threads that BLAS may use now."""
    return max((library.num_threads for library in _blas()), default=1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rows_of(matrix: Any, rows: Any) -> Any:
    """Some rows, as a plain array or CSR; a slice of them is not copied."""
    if not sp.issparse(matrix):
        return np.asarray(matrix[rows])
    if not isinstance(rows, slice):
        return matrix[rows]
    pointers = matrix.indptr[rows.start : rows.stop + 1]
    inside = slice(pointers[0], pointers[-1])
    return sp.csr_array(
        (matrix.data[inside], matrix.indices[inside], pointers - pointers[0]), shape=(len(pointers) - 1, matrix.shape[1])
    )


def first_nonfinite(matrix: Any) -> tuple[int, int, float] | None:
    """Row, column and value of the first entry that is not finite, None if there is none. Reads the matrix once."""
    step = max(1, int(PART // row_bytes(matrix)))
    for low in range(0, matrix.shape[0], step):
        part = slice(low, min(low + step, matrix.shape[0]))
        rows = rows_of(matrix, part)
        bad = ~np.isfinite(rows.data if sp.issparse(rows) else rows)
        if bad.any():
            if sp.issparse(rows):
                k = int(np.argmax(bad))
                row = int(np.searchsorted(rows.indptr, k, side="right")) - 1
                return part.start + row, int(rows.indices[k]), float(rows.data[k])
            row, column = (int(i) for i in np.argwhere(bad)[0])
            return part.start + row, column, float(rows[row, column])
    return None
