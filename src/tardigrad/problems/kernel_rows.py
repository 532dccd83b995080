"""The rows that a kernel is evaluated at, tile by tile: dense, in a file, or sparse.

Rules of this file:

- rows are converted to the precision asked for where they are used, never all at once;
- sparse rows are made dense tile by tile, unless they are so wide or so empty that products of sparse rows cost less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array

#: sparse rows stay so where they have more columns, or a smaller share of entries
_WIDE, _FULL = 16384, 0.005
#: rows that are looked at together where norms are computed
_PART = 1024


class KernelRows:
    """Rows of a matrix in one precision.

    Parameters
    ----------
    X : array, memory map or sparse matrix (n_rows, n_features)
        The rows, of any real type; a sparse matrix is used as CSR.
    dtype : dtype
        Precision of what is handed out.

    Attributes
    ----------
    sparse : bool
        Whether rows are handed out as CSR.

    Raises
    ------
    InvalidInputError
        For a wrong shape or type.
    """

    def __init__(self, X: Any, dtype: Any) -> None:
        self.X = as_matrix(X, "X")
        self.dtype = np.dtype(dtype)
        self.n_rows, self.n_features = (int(size) for size in self.X.shape)
        self.sparse = sp.issparse(self.X) and (self.n_features > _WIDE or self.X.nnz < _FULL * self.n_rows * self.n_features)

    def take(self, index: Any) -> Any:
        """The rows at `index`, a copy."""
        return self.form(self.X[index])

    def tile(self, low: int, high: int) -> Any:
        """Rows ``low <= i < high``; of a dense array of the right type, a view."""
        return self.form(self.X[low:high])

    def form(self, rows: Any) -> Any:
        """Rows of any kind in the form that is handed out: dense and contiguous, or CSR where these are `sparse`."""
        if self.sparse:
            return sp.csr_array(rows, dtype=self.dtype)
        dense = rows.toarray() if sp.issparse(rows) else np.asarray(rows)
        return np.ascontiguousarray(dense, self.dtype)

    def points(self, Z: Any, name: str = "Z") -> Any:
        """Points from elsewhere, checked, in the form of these rows."""
        Z = as_matrix(Z, name)
        if Z.shape[1] != self.n_features:
            raise InvalidInputError(f"{name} has {Z.shape[1]} features, X has {self.n_features}: they must have the same")
        return self.form(Z)

    def squared_norms(self) -> Array:
        """``|x_i|^2`` of every row, summed in float64.

        Raises
        ------
        InvalidInputError
            If a row is not finite, or its norm is not in this precision.
        """
        norms = np.empty(self.n_rows, self.dtype)
        for low in range(0, self.n_rows, _PART):
            with np.errstate(over="ignore"):
                norms[low : low + _PART] = squared_norms(self.tile(low, low + _PART))
        bad = ~np.isfinite(norms)
        if bad.any():
            raise InvalidInputError(
                f"row {int(np.argmax(bad))} of X has a value that is not finite, or too large to be squared in {self.dtype}:"
                " remove such rows, or scale the features"
            )
        return norms


def squared_norms(rows: Any) -> Array:
    """``|x_i|^2`` in float64."""
    if sp.issparse(rows):
        return np.asarray(rows.astype(np.float64).power(2).sum(axis=1)).ravel()
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


def as_matrix(X: Any, name: str) -> Any:
    """Rows of any real type as an array, a memory map or CSR; an InvalidInputError for anything else."""
    try:
        matrix = X if isinstance(X, np.memmap) else sp.csr_array(X) if sp.issparse(X) else np.asarray(X)
    except ValueError:
        raise InvalidInputError(f"{name} must be a matrix: its rows have different lengths") from None
    if matrix.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name} must hold real numbers, not {matrix.dtype}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        hint = "; a single row is X[None, :]" if matrix.ndim == 1 else ""
        raise InvalidInputError(f"{name} must have shape (n_rows, n_features), at least one of each, not {matrix.shape}{hint}")
    return matrix
