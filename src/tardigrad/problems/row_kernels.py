"""Row steps for linear systems, compiled: loops over the two halves of a step (`row_halves`).

A step on row i is ``x += c B^-1 a_i`` with ``c = omega (b_i - a_i . x) / (a_i . B^-1 a_i)``. `coef` gives c, `scatter` adds;
both exist for a dense row, for two of them in turn, and for a sparse row. Two dense rows are read together and the second
residual is corrected by the first step, ``r_2 - c_1 (a_1 . B^-1 a_2)``: the result of two steps, in 0.6 of the time.

Rules of this file:

- B is the identity (`scale` empty) or diagonal (`scale` its inverse);
- a zero row is no step; one with ``b_i != 0`` can never hold, and loops return its number;
- a row whose square underflows or overflows is divided by its largest entry first; of a pair with one, each is stepped on
  alone;
- threads that write to one x lose nothing: private copies are merged entry by entry in one step (`atomic`), and so are sparse
  rows that write to x itself, where they are fewer than the unknowns, so that there are many solutions. With more rows than
  unknowns a solution mostly is the only one, steps are faster without, and a lost write is made good by later steps;
- the interpreter is free while loops run.

References
----------
Strohmer, Vershynin, "A randomized Kaczmarz algorithm with exponential convergence", J. Fourier Anal. Appl. 15, 2009, for the
step with omega = 1 and B = I; Gower, Richtarik, "Randomized iterative methods for linear systems", SIAM J. Matrix Anal. Appl.
36, 2015, for B.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.prefetch import prefetch
from tardigrad.problems.private_copies import compilers, copy_kernels
from tardigrad.problems.row_halves import dense_coefficients, dense_scatters, safe_norm, sparse_coefficients, sparse_scatter

#: sparse rows are fetched so many steps ahead, their columns of x half as many: that makes steps twice as fast
AHEAD = 8
#: entries that come with one
LINE = 8


@lru_cache
def dense_kernels(scaled: bool) -> SimpleNamespace:
    """``coef, scatter``, the same for pairs, and the loops ``steps, sweep``, for dense rows.

    Parameters
    ----------
    scaled : bool
        Whether B is diagonal; for the identity, `scale` is not read.
    """
    plain, is_safe = compilers()[1], safe_norm()
    first, second, copies = dense_coefficients(scaled), dense_scatters(scaled), copy_kernels(scaled)
    coef, careful, pair_coef = first.coef, first.careful, first.pair_coef
    scatter, pair_scatter = second.scatter, second.pair_scatter
    take, merge = copies.take, copies.merge

    @plain
    def step(a: Any, b: Any, scale: Any, omega: Any, x: Any) -> Any:
        """A step on one row; whether its equation can hold."""
        c, norm = coef(a, x, scale, b, omega)
        if not is_safe(norm, x):
            c, norm = careful(a, x, scale, b, omega)
        scatter(x, a, scale, c)
        return norm != 0 or b == 0

    @plain
    def steps(A: Any, b: Any, scale: Any, rows: Any, omega: Any, x: Any) -> int:
        """A step on each of `rows` in turn; the last zero row with b != 0 among them, or -1."""
        bad = -1
        for k in range(0, rows.size, 2):
            if k + 1 < rows.size:
                i, j = rows[k], rows[k + 1]
                c, e, norm, other = pair_coef(A[i], A[j], x, scale, b[i], b[j], omega)
                if is_safe(norm, x) and is_safe(other, x):
                    pair_scatter(x, A[i], A[j], scale, c, e)
                    continue
            for i in rows[k : k + 2]:
                if not step(A[i], b[i], scale, omega, x):
                    bad = i
        return bad

    @plain
    def sweep(A: Any, b: Any, scale: Any, rows: Any, length: int, omega: Any, x: Any) -> int:
        """The same on private copies of `x`, merged after every `length` rows."""
        bad = -1
        mine, read = np.empty_like(x), np.empty_like(x)
        take(x, read, mine)
        for low in range(0, rows.size, length):
            bad = max(bad, steps(A, b, scale, rows[low : low + length], omega, mine))
            merge(x, read, mine, scale)
        return bad

    return SimpleNamespace(**vars(first), **vars(second), steps=steps, sweep=sweep)


@lru_cache
def _fetch_ahead() -> Any:
    plain, to_read, to_write = compilers()[1], prefetch(False), prefetch(True)

    @plain
    def ask(data: Any, indices: Any, indptr: Any, b: Any, i: int, x: Any, its_columns: bool) -> None:
        """Have a row fetched that is needed soon; later its columns of x, to be written."""
        if its_columns:
            for p in range(indptr[i], indptr[i + 1]):
                to_write(x, indices[p])
        else:
            to_read(b, i)
            for p in range(indptr[i], indptr[i + 1], LINE):
                to_read(data, p)
                to_read(indices, p)

    return ask


@lru_cache
def sparse_kernels(scaled: bool, shared: bool = False) -> SimpleNamespace:
    """``coef, scatter`` and the loops ``steps, sweep`` for sparse rows.

    Parameters
    ----------
    scaled : bool
        Whether B is diagonal; for the identity, `scale` is not read.
    shared : bool
        Whether `scatter` loses nothing where others write to the same x. The bits are the same, a step takes 1.4 times as long.
    """
    plain, is_safe = compilers()[1], safe_norm()
    ask = _fetch_ahead()
    first, copies = sparse_coefficients(scaled), copy_kernels(scaled)
    coef, careful, scatter = first.coef, first.careful, sparse_scatter(scaled, shared)
    take, merge = copies.take, copies.merge

    @plain
    def steps(data: Any, indices: Any, indptr: Any, b: Any, scale: Any, rows: Any, omega: Any, x: Any) -> int:
        """A step on each of `rows` in turn; the last zero row with b != 0 among them, or -1."""
        bad = -1
        for k in range(rows.size):
            if k + AHEAD < rows.size:
                ask(data, indices, indptr, b, rows[k + AHEAD], x, False)
            if k + AHEAD // 2 < rows.size:
                ask(data, indices, indptr, b, rows[k + AHEAD // 2], x, True)
            i = rows[k]
            values, columns = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
            c, norm = coef(values, columns, x, scale, b[i], omega)
            if not is_safe(norm, x):
                c, norm = careful(values, columns, x, scale, b[i], omega)
            scatter(x, values, columns, scale, c)
            if norm == 0 and b[i] != 0:
                bad = i
        return bad

    @plain
    def sweep(data: Any, indices: Any, indptr: Any, b: Any, scale: Any, rows: Any, length: int, omega: Any, x: Any) -> int:
        """The same on private copies of `x`, merged after every `length` rows."""
        bad = -1
        mine, read = np.empty_like(x), np.empty_like(x)
        take(x, read, mine)
        for low in range(0, rows.size, length):
            bad = max(bad, steps(data, indices, indptr, b, scale, rows[low : low + length], omega, mine))
            merge(x, read, mine, scale)
        return bad

    return SimpleNamespace(**vars(first), scatter=scatter, steps=steps, sweep=sweep)


class CompiledRows:
    """Row steps on one system, whose arrays the compiled functions are given.

    Parameters
    ----------
    A : array or CSR array (n_rows, dim)
        The matrix.
    b : array (n_rows,)
        The right-hand side.
    scale : array (dim,) or (0,)
        The diagonal of B^-1; empty for the identity.
    """

    def __init__(self, A: Any, b: Array, scale: Array) -> None:
        self.sparse = sp.issparse(A)
        # not a memory map: numba takes plain arrays only
        self.matrix: tuple[Array, ...] = (A.data, A.indices, A.indptr) if self.sparse else (np.asarray(A),)
        self.b, self.scale = b, scale
        precision = np.finfo(b.dtype)
        self.tiny, self.huge = float(precision.tiny / precision.eps), float(precision.max)
        scaled = bool(len(scale))
        self.functions = sparse_kernels(scaled) if self.sparse else dense_kernels(scaled)
        #: of many solutions the one asked for is reached only if no write is lost; a single one is reached anyway
        self.shared = sparse_kernels(scaled, True) if self.sparse and A.shape[0] < A.shape[1] else self.functions
        self.dim = int(A.shape[1])
        #: entries of a row, on average
        self.row_entries = max(1.0, (A.nnz if self.sparse else A.size) / A.shape[0])

    def warm_up(self, length: int) -> None:
        """Compile, before a run's clock starts, by steps on an equation that always holds."""
        x = np.zeros(self.dim, self.b.dtype)
        idle = copy.copy(self)
        idle.b = np.zeros_like(self.b)
        idle.b.flags.writeable = self.b.flags.writeable
        idle.sweep(np.arange(1), length, x.dtype.type(1), x)
        idle.change(0, x, x.dtype.type(1))

    def change(self, row: int, x: Array, omega: Any) -> tuple[Array, ...]:
        """What one step adds to x: all of it, or values and columns of a sparse row."""
        if self.sparse:
            data, indices, indptr = self.matrix
            inside = slice(indptr[row], indptr[row + 1])
            values, columns = data[inside], indices[inside]
            scale = self.scale[columns] if len(self.scale) else self.scale
            rest: tuple[Array, ...] = (columns,)
        else:
            values, rest, scale = self.matrix[0][row], (), self.scale
        given = values, *rest, x, self.scale, self.b[row], omega
        c, norm = self.functions.coef(*given)
        if not self.tiny < norm < self.huge:
            c, norm = self.functions.careful(*given)
        _check(row if norm == 0 and self.b[row] != 0 else -1)
        return x.dtype.type(c) * (values * scale if len(scale) else values), *rest

    def steps(self, rows: Array, omega: Any, x: Array) -> None:
        """Steps on `rows` in turn, in place."""
        _check(self.functions.steps(*self.matrix, self.b, self.scale, rows, omega, x))

    def sweep(self, rows: Array, length: int, omega: Any, x: Array) -> None:
        """The same beside others who change x: on copies merged every `length` rows; sparse ones of one row in place."""
        if self.sparse and length == 1:
            _check(self.shared.steps(*self.matrix, self.b, self.scale, rows, omega, x))
        else:
            _check(self.functions.sweep(*self.matrix, self.b, self.scale, rows, length, omega, x))


def _check(row: int) -> None:
    """An error for a row that cannot be solved."""
    if row >= 0:
        raise InvalidInputError(f"row {row} of A is zero but b[{row}] is not: no x solves that equation; remove it")
