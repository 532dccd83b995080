"""The rows that a kernel is evaluated at, tile by tile: dense, in a file, or sparse.

Rules of this file:

- rows are converted to the precision asked for where they are used, never all at once;
- rows far from the origin, seen from the distances between them, are shifted to it: else their distances would be differences
  of large numbers;
- sparse rows are made dense tile by tile, unless they are so wide or so empty that products of sparse rows cost less.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.kernel_loops import arrays
from tardigrad.problems.matrix_file import MatrixFile
from tardigrad.problems.system_matrix import canonical

#: sparse rows stay so where they have more columns, or a smaller share of entries
_WIDE, _FULL = 16384, 0.005
#: rows that are looked at together where norms are computed, and for the centre
_PART, _SAMPLE = 512, 1024
#: rows are shifted where that makes their squared norms so many times smaller
_FAR = 4.0


def rows_of(X: Any, dtype: Any, shifted: bool = True) -> KernelRows:
    """The rows of a matrix for a kernel.

    Parameters
    ----------
    X : array, memory map or sparse matrix (n_rows, n_features)
        The rows, of any real type.
    dtype : dtype
        Precision in which they are used.
    shifted : bool
        Whether their place does not matter, only their distances.

    Raises
    ------
    InvalidInputError
        For a wrong shape or type.
    """
    X = as_points(X, "X")
    if not sp.issparse(X):
        return KernelRows(X, dtype, shifted)
    wide = X.shape[1] > _WIDE or X.nnz < _FULL * X.shape[0] * X.shape[1]
    return (WideRows if wide else SparseRows)(X, dtype, shifted)


class KernelRows:
    """Rows of an array, in memory or in a file.

    Attributes
    ----------
    centre : array (n_features,) or None
        What is subtracted from all rows.
    finds_distances : bool
        Whether `products` gives ``-|z - x|^2 / 2`` in place of ``z.x``.
    """

    finds_distances = False

    def __init__(self, X: Any, dtype: Any, shifted: bool) -> None:
        self.X = X
        self.dtype = np.dtype(dtype)
        self.n_rows, self.n_features = (int(size) for size in X.shape)
        self.centre = self._centre() if shifted else None
        whole = self.X.flags
        self._as_it_is = X.dtype == self.dtype and self.centre is None and whole.c_contiguous and whole.aligned

    def take(self, index: Any) -> Any:
        """The rows at `index`, a copy; where they will be shifted in their own precision."""
        return np.array(self.X[index], self.dtype if self.centre is None else None, ndmin=2)

    def points(self, Z: Any) -> Any:
        """Points from elsewhere, shifted, in the form that `products` takes."""
        Z = as_points(Z, "Z")
        if Z.shape[1] != self.n_features:
            raise InvalidInputError(f"Z has {Z.shape[1]} features, X has {self.n_features}: they must have the same")
        return self._form(Z)

    def _form(self, Z: Any) -> Any:
        dense = Z.toarray() if sp.issparse(Z) else np.asarray(Z)
        if self.centre is None:
            return np.require(dense, self.dtype, ("C", "A"))
        return _shift(dense, self.centre, np.empty(dense.shape, self.dtype))

    def room(self, length: int) -> Any:
        """Where tiles of so many rows are put; None where that is not needed."""
        return None if self._as_it_is else np.empty((length, self.n_features), self.dtype)

    def tile(self, low: int, high: int, room: Any) -> Any:
        """Rows ``low <= i < high``, shifted; a view where they can be used as they are, else in `room`."""
        rows = np.asarray(self.X[low:high])
        if room is None:
            return rows
        room = room[: high - low]
        if self.centre is None:
            np.copyto(room, rows, casting="unsafe")
            return room
        return _shift(rows, self.centre, room)

    def products(self, Z: Any, tile: Any, out: Array) -> None:
        """``out = Z tile'``."""
        np.matmul(Z, tile.T, out=out)

    def squared_norms(self) -> Array:
        """``|x_i|^2`` of every row as it is used, summed in float64.

        Raises
        ------
        InvalidInputError
            If a row is not finite, or its norm is not in this precision.
        """
        norms, room = np.empty(self.n_rows, self.dtype), self.room(_PART)
        with np.errstate(over="ignore", invalid="ignore"):
            for low in range(0, self.n_rows, _PART):
                norms[low : low + _PART] = squared_norms(self.tile(low, min(low + _PART, self.n_rows), room))
        bad = ~np.isfinite(norms)
        if bad.any():
            raise InvalidInputError(
                f"row {int(np.argmax(bad))} of X has a value that is not finite, or too large to be squared in {self.dtype}:"
                " remove such rows, or scale the features"
            )
        return norms

    def sample(self) -> Array:
        """Some rows, evenly spaced, in float64."""
        rows = self.X[:: -(-self.n_rows // _SAMPLE)]
        return np.asarray(rows.toarray() if sp.issparse(rows) else rows, np.float64)

    def _centre(self) -> Array | None:
        """The mean of some rows, if they are far from the origin."""
        sample = self.sample()
        with np.errstate(over="ignore", invalid="ignore"):
            centre = sample.mean(axis=0)
            far = (sample**2).sum() > _FAR * ((sample - centre) ** 2).sum()
        if not (far and np.isfinite(centre).all()):
            return None
        return centre.astype(np.float64 if self.X.dtype == np.float64 else self.dtype)


class SparseRows(KernelRows):
    """Rows of a CSR matrix that are made dense tile by tile."""

    def __init__(self, X: Any, dtype: Any, shifted: bool) -> None:
        self.X = X
        self.dtype = np.dtype(dtype)
        self.n_rows, self.n_features = (int(size) for size in X.shape)
        self.shifted = shifted
        self.centre = self._centre() if shifted else None
        kept = self.dtype if self.centre is None else self.centre.dtype
        self.parts = X.data.astype(kept, copy=False), X.indices.astype(X.indptr.dtype, copy=False), X.indptr

    def take(self, index: Any) -> Any:
        return self.X[np.atleast_1d(index)].toarray().astype(self.parts[0].dtype, copy=False)

    def room(self, length: int) -> Any:
        shape = length, self.n_features
        return np.empty(shape, self.parts[0].dtype), None if self.centre is None else np.empty(shape, self.dtype)

    def tile(self, low: int, high: int, room: Any) -> Any:
        rows = room[0][: high - low]
        densify(rows.dtype, self.X.indptr.dtype)(*self.parts, low, rows)
        return rows if self.centre is None else _shift(rows, self.centre, room[1][: high - low])


class WideRows(SparseRows):
    """Rows of a CSR matrix that stay sparse: they are not shifted, but distances are summed in float64."""

    @property
    def finds_distances(self) -> bool:  # type: ignore[override]
        return self.shifted

    def _centre(self) -> Array | None:
        return None

    def take(self, index: Any) -> Any:
        return self.X[np.atleast_1d(index)].astype(self.dtype)

    def _form(self, Z: Any) -> Any:
        return sp.csr_array(Z).astype(self.dtype, copy=False)

    def room(self, length: int) -> Any:
        return None

    def tile(self, low: int, high: int, room: Any) -> Any:
        data, indices, indptr = self.parts
        inside = slice(indptr[low], indptr[high])
        return sp.csr_array(
            (data[inside], indices[inside], indptr[low : high + 1] - indptr[low]), (high - low, self.n_features)
        )

    def products(self, Z: Any, tile: Any, out: Array) -> None:
        loop = sparse_products(self.dtype, tile.indptr.dtype)
        indices, indptr = (part.astype(tile.indptr.dtype, copy=False) for part in (Z.indices, Z.indptr))
        work = np.zeros(self.n_features, self.dtype)
        loop(Z.data, indices, indptr, tile.data, tile.indices, tile.indptr, work, self.shifted, out)


def squared_norms(rows: Any) -> Array:
    """``|x_i|^2`` in float64."""
    if sp.issparse(rows):
        return np.asarray(rows.astype(np.float64).power(2).sum(axis=1)).ravel()
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


def as_points(X: Any, name: str) -> Any:
    """A matrix of real numbers: an array, a memory map or a canonical CSR array."""
    if isinstance(X, MatrixFile):
        return X.open()
    try:
        matrix = X if isinstance(X, np.memmap) else sp.csr_array(X) if sp.issparse(X) else np.asarray(X)
    except ValueError:
        raise InvalidInputError(f"{name} must be a matrix: its rows have different lengths") from None
    if matrix.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name} must hold real numbers, not {matrix.dtype}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        hint = f"; a single row is {name}[None, :]" if matrix.ndim == 1 else ""
        raise InvalidInputError(f"{name} must have shape (n_rows, n_features), at least one of each, not {matrix.shape}{hint}")
    return canonical(matrix, name) if sp.issparse(matrix) else matrix


def _shift(rows: Array, centre: Array, out: Array) -> Array:
    """Rows minus the centre, in the more precise of their types, rounded once."""
    return np.subtract(rows, centre, out=out, casting="unsafe")


@lru_cache
def densify(dtype: Any, index: Any) -> Callable[..., None]:
    """``loop(data, indices, indptr, low, out)``: rows of a CSR matrix from `low` on, dense."""
    import numba

    def loop(data: Any, indices: Any, indptr: Any, low: int, out: Any) -> None:
        out[:] = 0
        for i in range(out.shape[0]):
            for k in range(indptr[low + i], indptr[low + i + 1]):
                out[i, indices[k]] = data[k]

    written, values, _ = arrays(dtype)
    places = arrays(index)[1]
    compiled: Callable[..., None] = numba.njit(numba.void(values, places, places, numba.int64, written), nogil=True)(loop)
    return compiled


@lru_cache
def sparse_products(dtype: Any, index: Any) -> Callable[..., None]:
    """``loop(Z.., X.., work, distances, out)``: products z.x of rows of two CSR matrices, or ``-|z - x|^2 / 2``.

    Sums are in float64; of two equal rows they are the same but for the sign, so their distance is exactly 0. `work`
    (n_features,) is zero, before and after.
    """
    import numba

    def loop(
        z: Any, z_places: Any, z_ends: Any, x: Any, x_places: Any, x_ends: Any, work: Any, distances: bool, out: Any
    ) -> None:
        for i in range(out.shape[0]):
            norm = 0.0
            for k in range(z_ends[i], z_ends[i + 1]):
                work[z_places[k]] = z[k]
                norm += np.float64(z[k]) * np.float64(z[k])
            for j in range(out.shape[1]):
                total = 0.0
                for k in range(x_ends[j], x_ends[j + 1]):
                    entry, other = np.float64(x[k]), np.float64(work[x_places[k]])
                    total += entry * (entry - 2.0 * other) if distances else entry * other
                out[i, j] = -0.5 * max(total + norm, 0.0) if distances else total
            for k in range(z_ends[i], z_ends[i + 1]):
                work[z_places[k]] = 0

    written, values, _ = arrays(dtype)
    places = arrays(index)[1]
    csr = (values, places, places)
    signature = numba.void(*csr, *csr, numba.from_dtype(np.dtype(dtype))[::1], numba.boolean, written)
    compiled: Callable[..., None] = numba.njit(signature, nogil=True)(loop)
    return compiled
