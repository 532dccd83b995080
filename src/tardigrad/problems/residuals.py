"""How far an iterate is from solving a linear system: exactly, or from some of its equations.

Rules of this file:

- squares are added in float64 whatever the precision of the system;
- an estimate looks at fixed, seeded equations: the same ones for every iterate, read once and kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tardigrad.core.task import Array
from tardigrad.core.validate import integer
from tardigrad.problems.row_order import key_of
from tardigrad.problems.system_matrix import row_bytes, rows_of

if TYPE_CHECKING:
    from tardigrad.problems.linear_system import LinearSystem

#: equations of an estimate: its square is right to an eighth
SAMPLE = 128
#: an estimate above so many tolerances needs no exact residual
MARGIN = 1.5
#: bytes of equations that are kept for estimates, at most
_KEPT = 2**26


class Residuals:
    """Relative residuals ``|b - A x| / |b|`` of a system; ``|A x|`` where b is zero."""

    def __init__(self, system: LinearSystem) -> None:
        self.system = system
        self._last: tuple[Array, Array] | None = None
        b = system.b.astype(np.float64)
        largest = float(np.abs(b).max())
        #: residuals are divided by it before they are squared, where squares would overflow or vanish
        self._scale = largest if largest and not 1e-100 < largest < 1e100 else 1.0
        b /= self._scale
        self._norm = float(np.sqrt(np.square(b).sum())) or 1.0  # without BLAS, whose threads go on spinning for a while
        self._kept: tuple[tuple[int, int], Any, Array] | None = None

    def exact(self, x: Array) -> Array:
        """At x (..., dim), one pass over the matrix; none where it is asked again at the same x."""
        last = self._last  # another thread may put its own there meanwhile
        if last is None or not np.array_equal(last[0], x.ravel()):
            last = self._last = x.flatten(), self._exact(x) if x.any() else self._at_zero(x.shape[:-1])
        return last[1].reshape(x.shape[:-1]).copy()

    def _at_zero(self, shape: tuple[int, ...]) -> Array:
        """``|b| / |b|``, without a pass."""
        return np.full(shape, float(self.system.b.any()))

    def _exact(self, x: Array) -> Array:
        system = self.system
        points = np.ascontiguousarray(x.reshape(-1, system.dim).T)

        def part(rows: slice, A: Any) -> Array:
            return _squares(A, points, system.b[rows], self._scale)

        squares = sum(system.passes.each(part, width=points.shape[1]))
        return np.asarray(np.sqrt(squares) / self._norm).reshape(x.shape[:-1])

    def estimate(self, x: Array, n_sample: int, seed: int = 0) -> Array:
        """From `n_sample` equations drawn without replacement; its square is unbiased."""
        system = self.system
        n_sample = min(integer(n_sample, "n_sample"), system.n_rows)
        key = n_sample, key_of(seed)
        kept = self._kept
        if kept is None or kept[0] != key:
            rng = np.random.Generator(np.random.SFC64(list(key)))
            rows = np.sort(rng.choice(system.n_rows, n_sample, replace=False, shuffle=False))
            kept = self._kept = key, rows_of(system.A, rows), system.b[rows]
        _, A, b = kept
        points = np.ascontiguousarray(x.reshape(-1, system.dim).T)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = _squares(A, points, b, self._scale) * (system.n_rows / n_sample)
        return np.asarray(np.sqrt(squares) / self._norm).reshape(x.shape[:-1])

    def checked(self, x: Array, tol: float) -> Array:
        """The estimate where it is clearly above `tol`, else the exact residual."""
        system = self.system
        n_sample = min(SAMPLE, max(1, int(_KEPT // row_bytes(system.A))))
        if 2 * n_sample >= system.n_rows:
            return self.exact(x)
        found = np.atleast_1d(self.estimate(x, n_sample))
        close = ~(found > MARGIN * tol)
        if close.any():
            found[close] = self.exact(x.reshape(*found.shape, system.dim)[close])
        return found.reshape(x.shape[:-1])


def _squares(A: Any, points: Array, b: Array, scale: float) -> Array:
    """``|A x - b|^2 / scale^2`` for each column x of `points`."""
    one = points.shape[1] == 1
    r = A @ points[:, 0] if one else A @ points
    r -= b if one else b[:, None]
    if scale != 1.0:
        r = r / scale
    return np.einsum("i,i->", r, r, dtype=np.float64)[None] if one else np.einsum("ij,ij->j", r, r, dtype=np.float64)
