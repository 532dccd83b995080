"""Steps on single rows: ``a_i (a_i' x - b_i) / |a_i|^2`` in the metric of the system.

Rules of this file:

- a row of zeros gives no step if its equation is 0 = 0, and is an error if it is not;
- squares that underflow or overflow are taken again of the row divided by its largest entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.problems.row_order import ItemOrder
from tardigrad.problems.system_matrix import PART, row_bytes, rows_of

if TYPE_CHECKING:
    from tardigrad.problems.linear_system import LinearSystem


class RowSteps:
    """What `Rows` does on a system."""

    def __init__(self, system: LinearSystem, order: str) -> None:
        self.system = system
        chunk = max(1, int(PART // row_bytes(system.A))) if system.is_file else 1
        self.order = ItemOrder(system.n_rows, order, self.squares, chunk)
        self._squares: Array | None = None
        precision = np.finfo(system.dtype)
        #: squares of norms between these are right to working precision
        self._tiny, self._huge = float(precision.tiny / precision.eps), float(precision.max)

    def sample(self, rng: Rng) -> Any:
        return self.order.draw(rng)

    def rows_at(self, seed: int, start: int, stop: int) -> Array:
        return self.order.span(seed, start, stop)

    def gradient(self, x: Array, sample: Any) -> Array:
        if np.ndim(sample):
            return self._of_replicas(x, np.asarray(sample))
        system, row = self.system, int(sample)
        if sp.issparse(system.A):
            return self._of_sparse(x, row)
        a = np.asarray(system.A[row])
        d = system.metric.solve(a)
        square = float(a @ d)
        residual = x @ a - system.b[row]
        if not self._tiny < square < self._huge:
            a, square, residual = self._rescaled(a, row, x)
            d = system.metric.solve(a)
        return np.multiply.outer(residual / system.dtype.type(square), d)

    def _of_sparse(self, x: Array, row: int) -> Array:
        system = self.system
        low, high = system.A.indptr[row], system.A.indptr[row + 1]
        columns, a = system.A.indices[low:high], system.A.data[low:high]
        if system.metric.is_matrix:
            full = np.zeros(system.dim, system.dtype)
            full[columns] = a
            d = system.metric.solve(full)
            square = float(a @ d[columns])
        else:
            d = a if system.B is None else a / system.B[columns]
            square = float(a @ d)
        x_there = x[..., columns]
        residual = x_there @ a - system.b[row]
        if not self._tiny < square < self._huge:
            return self._of_sparse_scaled(x, row, columns, a)
        gradient = np.zeros(x.shape, system.dtype)
        factor = residual / system.dtype.type(square)
        if system.metric.is_matrix:
            return np.multiply.outer(factor, d)
        gradient[..., columns] = np.multiply.outer(factor, d)
        return gradient

    def _of_sparse_scaled(self, x: Array, row: int, columns: Array, a: Array) -> Array:
        full = np.zeros(self.system.dim, self.system.dtype)
        full[columns] = a
        scaled, square, residual = self._rescaled(full, row, x)
        return np.multiply.outer(residual / self.system.dtype.type(square), self.system.metric.solve(scaled))

    def _rescaled(self, a: Array, row: int, x: Array) -> tuple[Array, float, Array]:
        """The row divided by its largest entry, its square in B^-1, and the residual of the equation divided likewise."""
        system = self.system
        largest = np.abs(a).max()
        if largest == 0:
            if system.b[row] != 0:
                raise inconsistent_row(row, system.b[row])
            return a, 1.0, x @ a
        scaled = a / largest
        return scaled, float(scaled @ system.metric.solve(scaled)), x @ scaled - system.b[row] / largest

    def _of_replicas(self, x: Array, rows: Array) -> Array:
        """Points x (replicas, ..., dim), a row for each replica."""
        system = self.system
        A = rows_of(system.A, rows)
        A = A.toarray() if sp.issparse(A) else A
        points = x.reshape(len(rows), -1, system.dim)
        D = system.metric.solve(A)
        squares = np.einsum("ri,ri->r", A, D)
        residual = (points @ A[:, :, None])[..., 0] - system.b[rows, None]
        odd = ~((self._tiny < squares) & (squares < self._huge))
        gradient = (residual / np.where(odd, 1, squares)[:, None])[..., None] * D[:, None]
        for r in np.flatnonzero(odd):
            gradient[r] = self.gradient(points[r], int(rows[r]))
        return gradient.reshape(x.shape)

    def expected(self, x: Array, homogeneous: bool = False) -> Array:
        """``sum_i p_i grad f_i(x)``, two products with the matrix; `homogeneous`: for b = 0."""
        system = self.system
        weights = self.row_weights().astype(system.dtype)
        flat = x.reshape(-1, system.dim)

        def part(rows: slice, A: Any) -> Array:
            residual = (A @ flat.T).T if homogeneous else (A @ flat.T).T - system.b[rows]
            return np.asarray((A.T @ (residual * weights[rows]).T).T)

        total = np.zeros(flat.shape, system.dtype)
        for found in system.passes.each(part, width=len(flat)):
            total += found
        return system.metric.solve(total).reshape(x.shape)

    def row_weights(self) -> Array:
        """``p_i / (a_i' B^-1 a_i)``, p being the probabilities of the rows; 0 for rows of zeros."""
        squares = self.squares()
        if self.order.order == "norms" and squares.any():
            return np.where(squares > 0, 1 / squares.sum(), 0.0)
        return np.divide(1.0, squares * len(squares), out=np.zeros(len(squares)), where=squares > 0)

    def trace(self) -> float:
        """Mean rank of a sketch."""
        return float(self.row_weights() @ self.squares())

    def squares(self) -> Array:
        """``a_i' B^-1 a_i`` of every row, one pass; an error where a row of zeros has an equation that cannot hold."""
        if self._squares is None:
            system = self.system
            width = system.dim if system.B is not None else 1
            found = system.passes.each(lambda rows, A: row_squares(A, system.metric), width)
            squares = np.concatenate(found)
            if not np.isfinite(squares).all():
                row = int(np.argmin(np.isfinite(squares)))
                raise InvalidInputError(
                    system.explain_nonfinite() or f"row {row} of A is too large to be squared: scale A and b"
                )
            for suspect in np.flatnonzero((squares == 0) & (system.b != 0)):
                self.gradient(np.zeros(system.dim, system.dtype), int(suspect))  # an error if the row is really zero
            self._squares = squares
        return self._squares


def row_squares(A: Any, metric: Any) -> Array:
    """``a_i' B^-1 a_i`` of rows, dense or CSR, in float64."""
    if not sp.issparse(A):
        return np.einsum("ij,ij->i", A, metric.solve(A), dtype=np.float64)
    if metric.is_matrix:
        return row_squares(A.toarray(), metric)
    entries = A.data.astype(np.float64) ** 2
    if not metric.is_identity:
        entries /= metric.B[A.indices]
    return np.asarray(sp.csr_array((entries, A.indices, A.indptr), shape=A.shape).sum(axis=1))


def inconsistent_row(row: int, value: Any) -> InvalidInputError:
    """The error for an equation 0 = value."""
    return InvalidInputError(
        f"row {row} of A is zero but b[{row}] is {value:g}: the system has no solution. Remove that equation, or use least"
        " squares (scipy.sparse.linalg.lsqr)"
    )
