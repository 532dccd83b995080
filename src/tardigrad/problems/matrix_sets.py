"""Affine subspaces, and balls of matrices in the nuclear norm.

Rules of this file:

- a set's own matrix is factored once, when it is made, under one BLAS thread, so that it has the same bits everywhere;
- products are stacks of products of single rows: a row's result does not depend on how many stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems.convex_set import ConvexSet, as_floats, contiguous_rows, deliver
from tardigrad.problems.simplex_sets import Simplex, onto_simplex

#: how far off A x = b may be where it is called solvable, in roundings
_SOLVED = 100


@dataclass(frozen=True, eq=False)
class AffineSubspace(ConvexSet):
    """Points with ``A x = b``.

    Parameters
    ----------
    A : array (m, dim)
        Any matrix of finite numbers; its rows may depend on each other.
    b : array (m,) or float
        Right-hand side; a number stands for m equal ones.

    Raises
    ------
    InvalidInputError
        If the shapes do not fit, a number is not finite, or no point solves ``A x = b``.

    Examples
    --------
    >>> import numpy as np
    >>> AffineSubspace([[1.0, 1.0]], [2.0]).project(np.array([3.0, 1.0])).round(12)
    array([2., 0.])
    """

    A: Array
    b: Array

    def __post_init__(self) -> None:
        A, b = _system(self.A, self.b)
        object.__setattr__(self, "A", A)
        object.__setattr__(self, "b", b)
        largest = float(np.abs(A).max(initial=0)) or 1.0
        with single_threaded_blas():
            left, values, right = np.linalg.svd(A / largest, full_matrices=False)
        rank = int((values > max(A.shape) * np.finfo(float).eps * values.max(initial=0)).sum())
        basis = np.ascontiguousarray(right[:rank])
        offset = (left[:, :rank].T @ (b / largest)) / values[:rank]
        point = offset @ basis
        residual = np.abs((A / largest) @ point - b / largest)
        worst = int(np.argmax(residual)) if len(b) else 0
        allowed = (
            _SOLVED * np.finfo(float).eps * max(A.shape) * (np.abs(point).max(initial=0) + np.abs(b).max(initial=0) / largest)
        )
        if len(b) and residual[worst] > allowed:
            raise InvalidInputError(
                f"the set is empty: no x solves A x = b; at the best one row {worst} of A x is {(A @ point)[worst]:.6g} where b"
                f" has {b[worst]:.6g} (A is {A.shape[0]} x {A.shape[1]} of rank {rank}): leave out rows that contradict others"
            )
        object.__setattr__(self, "_factors", (basis, offset, float(np.abs(point).max(initial=0))))

    @property
    def bounded(self) -> bool:
        return len(self._basis) == self.A.shape[1]

    @property
    def _basis(self) -> Array:
        """An orthonormal basis (rank, dim) of the rows of A."""
        basis: Array = self.__dict__["_factors"][0]
        return basis

    def project(self, y: Array, out: Array | None = None) -> Array:
        y = as_floats(y)
        basis, offset, size, rounding = self._numbers_in(y.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            row = contiguous_rows(y)[..., np.newaxis, :]
            residual = np.matmul(row, basis.T) - offset
            row = row - np.matmul(residual, basis)
            # once more: what rounding left is as large as y, which may be far away
            row -= np.matmul(np.matmul(row, basis.T) - offset, basis)
        x = row[..., 0, :]
        off = np.abs(residual[..., 0, :]).max(axis=-1, initial=0)
        member = off <= rounding * np.maximum(np.abs(y).max(axis=-1, initial=0), size)
        np.copyto(x, y, where=member[..., np.newaxis])
        return deliver(x, out)

    def check(self, dim: int) -> None:
        if self.A.shape[1] != dim:
            raise InvalidInputError(
                f"A has {self.A.shape[1]} columns, but the iterates have {dim} coordinates: A must be (m, {dim})"
            )

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        return self.project(rng.normal(size=(*shape, dim)) * 10 ** rng.uniform(-2, 3, (*shape, 1)))

    def diameter(self, dim: int) -> float:
        return 0.0 if self.bounded else np.inf

    def _numbers(self, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        return *self.__dict__["_factors"], 2 * np.sqrt(self.A.shape[1]) * np.finfo(dtype).eps


def _system(A: Any, b: Any) -> tuple[Array, Array]:
    """The matrix and the right-hand side, as read-only numbers."""
    if sp.issparse(A):
        raise InvalidInputError("A must be a dense array (m, dim), since a basis of its rows is kept: pass A.toarray()")
    found = []
    for value, name, wanted in ((A, "A", "a matrix (m, dim)"), (b, "b", "a vector (m,)")):
        try:
            given = np.asarray(value)
        except ValueError:
            given = np.array(None)
        if given.dtype.kind not in "iuf" or given.ndim > 2 or (name == "A" and (given.ndim != 2 or not given.shape[1])):
            shown = repr(value) if given.dtype == object or not given.ndim else f"{given.dtype} of shape {given.shape}"
            raise InvalidInputError(f"{name} must be {wanted} of numbers, not {shown:.200}")
        if not np.isfinite(given).all():
            at = [int(i) for i in np.argwhere(~np.isfinite(given))[0]]
            raise InvalidInputError(f"{name}{at if at else ''} is {given[tuple(at)]}: {name} must be finite")
        found.append(np.array(given, np.float64, order="C"))
    matrix, side = found
    if side.shape not in ((), matrix.shape[:1]):
        raise InvalidInputError(f"b must have shape ({len(matrix)},), one number a row of A, not {side.shape}")
    side = np.array(np.broadcast_to(side, matrix.shape[:1]))
    matrix.flags.writeable = side.flags.writeable = False
    return matrix, side


@dataclass(frozen=True, eq=False)
class NuclearNormBall(ConvexSet):
    """Matrices whose singular values add up to `radius` at most; an iterate is a matrix, row by row.

    Parameters
    ----------
    shape : tuple (rows, columns)
        Shape of the matrices; ``dim = rows * columns``.
    radius : float
        ``>= 0``.

    Raises
    ------
    InvalidInputError
        If the shape is none, or the radius is negative or not finite.

    References
    ----------
    Cai, Candes, Shen, "A singular value thresholding algorithm for matrix completion", SIAM J. Optim. 20, 2010: the
    singular vectors stay; the values are projected onto the simplex where they leave it.

    Examples
    --------
    >>> import numpy as np
    >>> NuclearNormBall((2, 2), 1.0).project(np.array([2.0, 0.0, 0.0, 0.5]))
    array([1., 0., 0., 0.])
    """

    shape: tuple[int, int]
    radius: float

    def __post_init__(self) -> None:
        try:
            rows, columns = self.shape
        except (TypeError, ValueError):
            raise InvalidInputError(f"shape must be two integers, (rows, columns), not {self.shape!r}") from None
        object.__setattr__(self, "shape", (integer(rows, "shape[0]"), integer(columns, "shape[1]")))
        object.__setattr__(self, "radius", number(self.radius, "radius", low=0))

    @property
    def bounded(self) -> bool:
        return True

    def project(self, y: Array, out: Array | None = None) -> Array:
        y = as_floats(y)
        (radius,) = self._numbers_in(y.dtype)
        finite = np.isfinite(y).all(axis=-1, keepdims=True)
        matrices = np.where(finite, y, 0).reshape(*y.shape[:-1], *self.shape)
        left, values, right = np.linalg.svd(matrices, full_matrices=False)
        with np.errstate(over="ignore"):
            inside = values.sum(axis=-1, keepdims=True) <= radius
        x = np.matmul(left * onto_simplex(values, radius)[..., np.newaxis, :], right).reshape(y.shape)
        np.copyto(x, y, where=inside)
        np.copyto(x, np.nan, where=~finite)
        return deliver(x, out)

    def check(self, dim: int) -> None:
        rows, columns = self.shape
        if rows * columns != dim:
            raise InvalidInputError(
                f"matrices of shape {self.shape} have {rows * columns} entries, but the iterates have {dim} coordinates"
            )

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        rows, columns = self.shape
        least = min(rows, columns)
        left, _ = np.linalg.qr(rng.normal(size=(*shape, rows, least)))
        right, _ = np.linalg.qr(rng.normal(size=(*shape, columns, least)))
        share = np.where(rng.random((*shape, 1)) < 0.5, 1, rng.random((*shape, 1)))
        values = share * Simplex(self.radius).sample(rng, shape, least)
        x = np.matmul(left * values[..., np.newaxis, :], np.swapaxes(right, -1, -2))
        return self.project(x.reshape(*shape, dim))

    def diameter(self, dim: int) -> float:
        return 2 * self.radius

    def _numbers(self, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        return (min(self.radius, float(np.finfo(dtype).max)),)
