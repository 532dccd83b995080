"""What `linsolve` returns, and how an inconsistent system is told from a slow one.

Rules of this file:

- the residual that is returned was computed, over all rows, at the x that is returned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.task import Array
from tardigrad.problems.linear_system import LinearSystem
from tardigrad.problems.sketches import Sketch

#: a system counts as inconsistent where every solution is so many times longer than the x that was computed, and than b
FAR = 1e4


@dataclass(repr=False)  # a line, as that of any result
class LinearResult(Result):
    """The outcome of `tardigrad.linsolve`: a `Result` of the last run, and what concerns the system.

    Attributes
    ----------
    residual_norm : float
        ``|b - A x| / |b|`` at `x`, over all rows (``|A x|`` where b is zero).
    passes : float
        How often A was read: rows used by steps over all rows, and a pass for each exact residual.
    method : str
        The method that was used.
    sketch : Sketch
        What a step looked at.
    parameters : dict
        omega and whatever else the method has, as they were used.
    judging_share : float
        The part of the time that was spent on residuals.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> A = np.random.default_rng(0).normal(size=(2000, 50))
    >>> found = td.linsolve(A, A @ np.ones(50))
    >>> found.method, bool(found.residual_norm <= 1e-6), bool(found.passes < 10)
    ('row-action', True, True)
    """

    residual_norm: float = math.nan
    passes: float = 0.0
    method: str = ""
    sketch: Sketch | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    judging_share: float = 0.0

    @classmethod
    def load(cls, folder: str | Path, problem: Problem | None = None) -> Result:
        """The run, without what concerns the system: that is not saved."""
        return Result.load(folder, problem)


@dataclass(frozen=True)
class Probe:
    """What a few steps of lsqr told.

    Attributes
    ----------
    inconsistent : bool
        Whether what is left of the residual, `residual`, cannot be removed by any x of a reasonable size.
    residual : float
        Relative residual that lsqr reached.
    rounding : float
        Relative residual that rounding explains, ``10 eps |A|_F |x| / |b|``, with lengths of x as below.
    x : array (n,)
        Where lsqr ended.
    """

    inconsistent: bool
    residual: float
    rounding: float
    x: Array


def probe_consistency(system: LinearSystem, x: Array, tol: float, iterations: int) -> Probe:
    """Whether the residual at x has a part that no reasonable x removes, by a few iterations of lsqr from x, in float64.

    If ``A (y + d) = b`` up to ``tol |b|``, then ``r'A d >= |r| (|r| - tol |b|)`` for the residual r at y, and so
    ``|d| >= |r| (|r| - tol |b|) / |A' r|``. Taken where lsqr ended: if that is more than `FAR` times ``|y|`` and ``|b|``, b
    would have to be a difference of much larger vectors, which an inconsistent system cannot be told from in practice.
    Lengths are those of ``D x``, D the norms of A's columns, so that they do not depend on the units of the unknowns.
    """
    scaled = _Scaled(system)
    y = scaled.unknowns(x)
    r = scaled.b - scaled.product(y)
    size = float(np.linalg.norm(scaled.b)) or 1.0
    btol = min(1.0, tol * size / (float(np.linalg.norm(r)) or 1.0))
    operator = sla.LinearOperator((system.n_rows, system.dim), scaled.product, scaled.transposed, dtype=np.float64)
    d, *_ = sla.lsqr(operator, r, atol=1e-12, btol=btol, conlim=0, iter_lim=iterations)
    r -= scaled.product(d)
    left, slope = float(np.linalg.norm(r)), float(np.linalg.norm(scaled.transposed(r)))
    far = left > tol * size and left * (left - tol * size) > slope * FAR * max(float(np.linalg.norm(y + d)), size)
    rounding = 10 * float(np.finfo(system.dtype).eps) * math.sqrt(system.dim) * float(np.linalg.norm(y)) / size
    return Probe(far, left / size, rounding, scaled.back(y + d).astype(system.dtype))


class _Scaled:
    """``A D^-1`` and b over their largest entries, so that squares neither overflow nor vanish; D as above."""

    def __init__(self, system: LinearSystem) -> None:
        self._passes, self._dim = system.passes, system.dim
        self._entry = max(self._passes.each(lambda _, A: float(abs(A).max()))) or 1.0
        squares = np.sum(self._passes.each(lambda _, A: self._squares(A), width=system.dim), axis=0)
        self._norms = np.sqrt(np.where(squares > 0, squares, 1.0))
        self._right = float(np.abs(system.b).max()) or self._entry
        self.b = system.b.astype(np.float64) / self._right

    def unknowns(self, x: Array) -> Array:
        """D x, scaled as b is."""
        return x.astype(np.float64) * self._norms * self._entry / self._right

    def back(self, y: Array) -> Array:
        """The x of which `unknowns` made y."""
        return y / self._norms * (self._right / self._entry)

    def product(self, v: Array) -> Array:
        v = v.ravel() / self._norms
        return np.concatenate(self._passes.each(lambda _, A: A @ v)) / self._entry

    def transposed(self, v: Array) -> Array:
        v = v.ravel() / self._entry
        return np.sum(self._passes.each(lambda part, A: A.T @ v[part], width=self._dim), axis=0) / self._norms

    def _squares(self, A: Any) -> Array:
        if sp.issparse(A):
            return np.bincount(A.indices, (A.data / self._entry) ** 2, self._dim)
        return np.einsum("ij,ij->j", *2 * (A / self._entry,), dtype=np.float64)
