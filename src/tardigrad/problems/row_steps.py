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
from tardigrad.problems.system_matrix import PART, each_part, row_bytes, rows_of

if TYPE_CHECKING:
    from tardigrad.problems.linear_system import LinearSystem


class RowSteps:
    """What `Rows` does on a system."""

    def __init__(self, system: LinearSystem, order: str) -> None:
        self.system = system
        chunk = max(1, int(PART // row_bytes(system.A))) if system.is_file else 1
        self.order = ItemOrder(system.n_rows, order, self._weights, chunk)
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

    def expected(self, x: Array) -> Array:
        """``sum_i p_i grad f_i(x)``, two products with the matrix."""
        system = self.system
        if self.order.order == "norms":
            squares = self.squares()
            weights = np.full(system.n_rows, 1 / float(squares.sum(dtype=np.float64)))
        else:
            squares = self.squares()
            weights = np.divide(1.0, squares * system.n_rows, out=np.zeros(system.n_rows), where=squares > 0)
        flat = x.reshape(-1, system.dim)

        def part(rows: slice) -> Array:
            A = rows_of(system.A, rows)
            residual = (A @ flat.T).T - system.b[rows]
            residual *= weights[rows].astype(system.dtype)
            return np.asarray((A.T @ residual.T).T if sp.issparse(A) else residual @ A)

        total = np.zeros(flat.shape, system.dtype)
        for found in each_part(system.A, part):
            total += found
        return system.metric.solve(total).reshape(x.shape)

    def squares(self) -> Array:
        """``a_i' B^-1 a_i`` of every row, one pass; an error where a row of zeros has an equation that cannot hold."""
        system = self.system
        found = np.concatenate(each_part(system.A, lambda rows: row_squares(rows_of(system.A, rows), system.metric)))
        bad = (found == 0) & (system.b != 0)
        for row in np.flatnonzero(bad):
            if not rows_of(system.A, [int(row)]).any() if not sp.issparse(system.A) else True:
                raise inconsistent_row(int(row), system.b[row])
        return found

    def _weights(self) -> Array:
        return self.squares()


def row_squares(A: Any, metric: Any) -> Array:
    """``a_i' B^-1 a_i`` of rows, dense or CSR, in float64."""
    if not sp.issparse(A):
        D = metric.solve(A)
        return np.einsum("ij,ij->i", A, D, dtype=np.float64)
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
