"""Blocks of a kernel matrix, and their products with coefficients, in tiles that fit a cache.

Rules of this file:

- neither the matrix nor a block of it is ever held, but for what the caller asks to keep;
- many threads may call at once: nothing is written to but what a call allocates;
- the same rows give the same bits, whoever computes and whoever else does (BLAS on one thread).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.validate import optional_integer
from tardigrad.problems.kernel_base import KernelFunction
from tardigrad.problems.kernel_loops import gather_loop, tile_loop
from tardigrad.problems.kernel_rows import rows_of, squared_norms
from tardigrad.problems.matrix_file import by_path

#: rows of a tile at most; entries of one, and the fewest and most columns. Smaller tiles fit a core's cache, and yet are
#: slower: between two steps of a tile threads wait for each other's turn in the interpreter (half as fast at a megabyte)
_ROWS, _ENTRIES, _COLUMNS = 512, 2**21, (512, 8192)
#: numbers of X that are looked at together
_CONVERTED = 2**21


class KernelBlocks:
    """The kernel matrix of n rows, as far as it is asked for.

    Parameters
    ----------
    X : array, memory map or sparse matrix (n_rows, n_features)
        The rows. They are read tile by tile, and never copied as a whole.
    kernel : KernelFunction
        The kernel; a bandwidth "auto" is fitted to X.
    dtype : {float32, float64}
        Precision of the values.
    tile : int, optional
        Rows of X that are looked at together; else as many as fit a core's cache.

    Attributes
    ----------
    n_rows, n_features : int
        Shape of X.
    kernel : KernelFunction
        With a number for its bandwidth.

    Raises
    ------
    InvalidInputError
        For a wrong shape or type, or a row of X that is not finite.

    Examples
    --------
    >>> from tardigrad.problems.kernel_functions import Laplacian
    >>> blocks = KernelBlocks(np.array([[0.0], [1.0], [2.0]]), Laplacian(1.0), np.float64)
    >>> product, kept = blocks.product(np.array([[1.0]]), np.ones((3, 1)), columns=[0])
    >>> product.round(4).tolist(), kept.round(4).tolist()
    ([[1.7358]], [[0.3679]])
    """

    def __init__(self, X: Any, kernel: KernelFunction, dtype: Any = np.float32, tile: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise InvalidInputError(f"dtype must be float32 or float64, not {self.dtype}")
        if not isinstance(kernel, KernelFunction):
            raise InvalidInputError(f"kernel must be a kernel such as Laplacian(10.0), not {kernel!r}")
        self.kernel = kernel.fitted(X)
        self.source = rows_of(X, self.dtype, shifted=kernel.of == "squared distances")
        self.n_rows, self.n_features = self.source.n_rows, self.source.n_features
        self.norms = self.source.squared_norms()
        self.tile = optional_integer(tile, "tile")
        fused = self.kernel.fused if self.dtype == np.float32 else None
        kind, self.scale, self.power = fused or (None, 1.0, 1.0)
        self._is_fused = kind is not None
        self._loop = tile_loop(kind, self.dtype)
        self._gather = gather_loop(self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """Compiled again where it is read; rows in a file stay there."""
        return KernelBlocks, (by_path(self.source.X), self.kernel, self.dtype, self.tile)

    def rows(self, index: Any) -> Any:
        """Rows of X in this precision, in the form that `product` takes fastest: dense, or CSR where X is sparse and wide."""
        return self.source.take(index)

    def product(self, Z: Any, coefficients: Array, columns: Any = None, own: Any = None) -> tuple[Array, Array | None]:
        """``P_i = sum_j k(z_i, x_j) a_j`` for each row z_i of Z, and the entries of some columns.

        Parameters
        ----------
        Z : array or CSR array (m, n_features)
            Points.
        coefficients : array (n_rows, c)
            The a_j.
        columns : array of int (q,), optional
            Positions j, ascending, whose entries k(z_i, x_j) are wanted too.
        own : array of int (m,), optional
            Where the rows of Z are rows of X: their positions. Then k(x_i, x_i) is exact.

        Returns
        -------
        P : array (m, c)
        C : array (m, q) or None
            Column by column in memory.

        Raises
        ------
        InvalidInputError
            For shapes that do not fit.
        """
        coefficients = self._coefficients(coefficients)
        columns = None if columns is None else self._positions(columns, "columns")
        own = None if own is None else self._positions(own, "own")
        Z = self.source.points(Z)
        if columns is not None and (np.diff(columns) < 0).any():
            raise InvalidInputError("columns must be ascending: sort them")
        if own is not None and len(own) != Z.shape[0]:
            raise InvalidInputError(f"own must have {Z.shape[0]} positions, one for each row of Z, not {len(own)}")
        P = np.zeros((Z.shape[0], coefficients.shape[1]), self.dtype)
        kept = None if columns is None else np.empty((len(columns), Z.shape[0]), self.dtype)
        for low, first, values in self._tiles(Z, own):
            high = low + values.shape[1]
            P[first : first + len(values)] += values @ coefficients[low:high]
            if columns is not None and kept is not None:
                begin, end = np.searchsorted(columns, (low, high))
                self._gather(values, columns[begin:end], low, kept, first, begin)
        return P, None if kept is None else kept.T

    def block(self, Z: Any, W: Any = None) -> Array:
        """The matrix of k(z_i, w_j).

        Parameters
        ----------
        Z : array or CSR array (m, n_features)
            Points.
        W : array or CSR array (w, n_features), optional
            Others; all rows of X if not given.

        Returns
        -------
        array (m, w)
        """
        if W is not None:
            return KernelBlocks(W, self.kernel, self.dtype, self.tile).block(Z)
        Z = self.source.points(Z)
        found = np.empty((Z.shape[0], self.n_rows), self.dtype)
        for low, first, values in self._tiles(Z, None):
            found[first : first + len(values), low : low + values.shape[1]] = values
        return found

    def _tiles(self, Z: Any, own: Array | None) -> Iterator[tuple[int, int, Array]]:
        """``(low, first, values)``: kernel values of some points from `first` on with rows of X from `low` on."""
        m, width = Z.shape[0], self._width(Z.shape[0])
        norms = squared_norms(Z).astype(self.dtype)
        buffer, room = np.empty(min(m, _ROWS) * width, self.dtype), self.source.room(width)
        for low in range(0, self.n_rows, width):
            high = min(low + width, self.n_rows)
            X = self.source.tile(low, high, room)
            for first in range(0, m, _ROWS):
                some = slice(first, min(first + _ROWS, m))
                shape = some.stop - first, high - low
                values = buffer[: shape[0] * shape[1]].reshape(shape)
                self.source.products(Z[some], X, values)
                self._evaluate(values, norms[some], self.norms[low:high], Z[some], X)
                if own is not None:
                    self._set_own(values, own[some] - low)
                yield low, first, values

    def _width(self, m: int) -> int:
        """Columns of a tile: a function of shapes, so that bits do not depend on the machine's memory."""
        if self.tile is not None:
            return min(self.tile, self.n_rows)
        width = min(max(_ENTRIES // min(m, _ROWS), _COLUMNS[0]), _COLUMNS[1])
        return min(width, max(_CONVERTED // self.n_features, 64), self.n_rows)

    def _evaluate(self, values: Array, norms: Array, others: Array, Z: Any, X: Any) -> None:
        """Products to kernel values, in place."""
        if self.kernel.of == "squared distances":
            if self.source.finds_distances:
                norms, others = np.zeros(values.shape[0], self.dtype), np.zeros(values.shape[1], self.dtype)
                Z = X = np.empty((len(norms), 0), self.dtype)
            self._loop(values, norms, others, Z, X, self.scale, self.power)
        if not self._is_fused:
            self.kernel.apply(values)

    def _set_own(self, values: Array, own: Array) -> None:
        diagonal = self.kernel.diagonal
        if diagonal is not None:
            rows = np.flatnonzero((own >= 0) & (own < values.shape[1]))
            values[rows, own[rows]] = diagonal

    def _coefficients(self, coefficients: Array) -> Array:
        given = np.ascontiguousarray(coefficients, self.dtype)
        if given.ndim != 2 or len(given) != self.n_rows:
            raise InvalidInputError(f"coefficients must have shape ({self.n_rows}, c), not {given.shape}")
        return given

    def _positions(self, positions: Any, name: str) -> Array:
        given = np.asarray(positions)
        if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
            raise InvalidInputError(f"{name} must be a list of positions of rows, not {given.dtype} of shape {given.shape}")
        if len(given) and not 0 <= given.min() <= given.max() < self.n_rows:
            raise InvalidInputError(f"{name} must lie between 0 and {self.n_rows - 1}, not {given.min()} to {given.max()}")
        return given.astype(np.int64)
