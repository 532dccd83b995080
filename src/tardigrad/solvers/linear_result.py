"""What `linsolve` returns, and how an inconsistent system is told from a slow one.

Rules of this file:

- the residual that is returned was computed, over all rows, at the x that is returned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse.linalg as sla

from tardigrad.core.result import Result
from tardigrad.core.task import Array
from tardigrad.problems.linear_system import LinearSystem
from tardigrad.problems.sketches import Sketch


@dataclass
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
    """

    residual_norm: float = math.nan
    passes: float = 0.0
    method: str = ""
    sketch: Sketch | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    judging_share: float = 0.0


@dataclass(frozen=True)
class Probe:
    """What a few steps of lsqr told.

    Attributes
    ----------
    inconsistent : bool
        Whether what is left of the residual, `residual`, cannot be removed by any x.
    residual : float
        Relative residual that lsqr reached.
    rounding : float
        Relative residual that rounding explains, ``10 eps |A|_F |x| / |b|``.
    """

    inconsistent: bool
    residual: float
    rounding: float


def probe_consistency(system: LinearSystem, x: Array, tol: float, iterations: int) -> Probe:
    """Whether the residual at x has a part that no correction removes, by a few iterations of lsqr from x, in float64.

    lsqr decreases ``|r|`` and ends where ``A' r`` vanishes. If ``|A' r| <= 1e-3 |A|_F |r| / sqrt(min(m, n))`` while r is
    above the tolerance, r is orthogonal to what A reaches, up to 0.1 % of what A makes of a vector on average.
    """
    r = np.asarray(system.b, np.float64) - _product(system, x)
    scale = float(np.linalg.norm(system.b.astype(np.float64))) or 1.0
    operator = sla.LinearOperator(
        (system.n_rows, system.dim),
        matvec=lambda v: _product(system, v.ravel()),
        rmatvec=lambda v: _transposed(system, v.ravel()),
        dtype=np.float64,
    )
    reached = min(1.0, tol * scale / (float(np.linalg.norm(r)) or 1.0))
    _, _, _, norm, _, a_norm, _, ar_norm, *_ = sla.lsqr(operator, r, atol=1e-6, btol=reached, iter_lim=iterations)
    limit = 1e-3 * a_norm * norm / math.sqrt(min(system.n_rows, system.dim))
    stuck = ar_norm <= limit and norm > tol * scale
    rounding = 10 * float(np.finfo(system.dtype).eps) * a_norm * float(np.linalg.norm(x)) / scale
    return Probe(bool(stuck), float(norm / scale), rounding)


def _product(system: LinearSystem, v: Array) -> Array:
    return np.concatenate(system.passes.each(lambda _, A: A @ v))


def _transposed(system: LinearSystem, v: Array) -> Array:
    return np.sum(system.passes.each(lambda part, A: A.T @ v[part], width=system.dim), axis=0)
