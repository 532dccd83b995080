"""The inner product of a linear system's unknowns, ``<x, y>_B = x' B y``.

Rules of this file:

- B is the identity (None), a diagonal (dim,), or a symmetric positive definite matrix, checked and factored once;
- everything works on vectors (..., dim), and in the precision of the system.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array

#: relative difference between B and its transpose that rounding explains, in units of the precision
_ASYMMETRY = 100


class Metric:
    """The inner product that B defines.

    Parameters
    ----------
    B : None, array (dim,) or array (dim, dim)
        The identity, a diagonal of positive numbers, a symmetric positive definite matrix.
    dim : int
        Number of unknowns.
    dtype : dtype
        Precision, float32 or float64.

    Raises
    ------
    InvalidInputError
        If B has another shape, is not finite, not symmetric or not positive definite.
    """

    def __init__(self, B: Any, dim: int, dtype: np.dtype[Any]) -> None:
        self.B: Array | None = None if B is None else _as_numbers(B, dim, dtype)
        self.is_identity = self.B is None
        self.is_diagonal = self.B is not None and self.B.ndim == 1
        self.is_matrix = self.B is not None and self.B.ndim == 2
        self._lower: Array | None = None
        if self.B is not None and self.B.ndim == 2:
            self._lower = _factor(self.B)

    def solve(self, v: Array) -> Array:
        """``B^-1 v``; `v` itself for the identity."""
        if self.B is None:
            return v
        if self.is_diagonal:
            return v / self.B
        flat = v.reshape(-1, v.shape[-1])
        solved = scipy.linalg.cho_solve((self._lower, True), flat.T, check_finite=False)
        return np.ascontiguousarray(solved.T).reshape(v.shape)

    def whiten(self, rows: Array) -> Array:
        """``L^-1 v`` with ``B = L L'``: Euclidean products of the results are products in ``B^-1``."""
        if self.B is None:
            return rows
        if self.is_diagonal:
            return rows / np.sqrt(self.B)
        flat = rows.reshape(-1, rows.shape[-1])
        solved = scipy.linalg.solve_triangular(self._lower, flat.T, lower=True, check_finite=False)
        return np.ascontiguousarray(solved.T).reshape(rows.shape)

    def unwhiten(self, v: Array) -> Array:
        """``L'^-1 v``: takes whitened unknowns ``L' x`` back to x."""
        if self.B is None or self.is_diagonal:
            return self.whiten(v)
        flat = v.reshape(-1, v.shape[-1])
        solved = scipy.linalg.solve_triangular(self._lower, flat.T, lower=True, trans="T", check_finite=False)
        return np.ascontiguousarray(solved.T).reshape(v.shape)

    def weigh(self, v: Array) -> Array:
        """``L' v``: takes unknowns to whitened ones."""
        if self.B is None:
            return v
        if self._lower is None:
            return v * np.sqrt(self.B)
        return v @ self._lower

    def norm(self, v: Array) -> Array:
        """``sqrt(v' B v)`` over the last axis."""
        return np.linalg.norm(self.weigh(v), axis=-1)


def _as_numbers(B: Any, dim: int, dtype: np.dtype[Any]) -> Array:
    if sp.issparse(B):
        raise InvalidInputError("B must be None, an array (dim,) or an array (dim, dim): pass B.toarray() or its diagonal")
    try:
        given = np.asarray(B)
        if given.dtype.kind not in "biuf":
            raise TypeError
        with np.errstate(over="ignore"):
            found: Array = np.array(given, dtype, order="C")  # a copy, so that nobody changes it
    except (TypeError, ValueError):
        raise InvalidInputError("B must hold real numbers, one a row of a matrix or a diagonal") from None
    if found.shape not in ((dim,), (dim, dim)):
        raise InvalidInputError(f"B must have shape ({dim},), its diagonal, or ({dim}, {dim}), not {found.shape}")
    if not np.isfinite(found).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        raise InvalidInputError(f"B[{', '.join(map(str, at))}] is {given[at]}: B must be finite in {dtype}, the type of A")
    if found.ndim == 1 and not (found > 0).all():
        j = int(np.argmin(found > 0))
        raise InvalidInputError(f"B is not positive definite: B[{j}] is {found[j]:g}, and a diagonal must be positive")
    found.flags.writeable = False
    return found


def _factor(B: Array) -> Array:
    """The Cholesky factor, lower."""
    difference = np.abs(B - B.T)
    worst = float(difference.max())
    if worst > _ASYMMETRY * np.finfo(B.dtype).eps * float(np.abs(B).max()):
        i, j = (int(k) for k in np.unravel_index(difference.argmax(), B.shape))
        raise InvalidInputError(
            f"B is not symmetric: B[{i}, {j}] is {B[i, j]:g} and B[{j}, {i}] is {B[j, i]:g}; is (B + B.T) / 2 meant?"
        )
    try:
        lower: Array = np.linalg.cholesky(B)
    except np.linalg.LinAlgError:
        smallest = float(scipy.linalg.eigvalsh(B.astype(float), subset_by_index=[0, 0])[0])
        raise InvalidInputError(
            f"B is not positive definite: its smallest eigenvalue is {smallest:.3g}; it must be clearly above zero"
        ) from None
    return lower
