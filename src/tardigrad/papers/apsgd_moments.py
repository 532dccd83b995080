"""The exact mean square error of the averaged method on a small system, under any delays.

Rules of this file:

- nothing is sampled: the row of an update is independent of all errors before it, so second moments obey a linear recurrence;
- errors are taken in coordinates ``r = B^1/2 (x - x*)``, in which steps are orthogonal projections for omega = 1.
"""

from __future__ import annotations

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.linear_system import LinearSystem
from tardigrad.problems.sketches import Rows


def row_projections(system: LinearSystem) -> tuple[Array, Array]:
    """The unit vectors ``u_i = B^-1/2 a_i / |.|`` onto which a row projects, and the chances of the rows.

    In coordinates ``r = B^1/2 (x - x*)`` a step with row i is ``r <- (I - omega u_i u_i') r``.
    """
    dense, diagonal = isinstance(system.A, np.ndarray), system.B is None or system.B.ndim == 1
    if not (dense and diagonal and system.solution is not None and system.sketch == Rows("norms")):
        raise InvalidInputError(
            "moments are computed for systems with a dense matrix, B diagonal or None, a solution, and the sketch Rows('norms')"
        )
    rows = np.asarray(system.A, np.float64) / root_of_metric(system)
    squares = np.einsum("ij,ij->i", rows, rows)
    return rows / np.sqrt(squares)[:, None], squares / squares.sum()


def root_of_metric(system: LinearSystem) -> Array:
    """``B^1/2`` of a diagonal B."""
    return np.sqrt(np.ones(system.dim) if system.B is None else np.asarray(system.B, np.float64))


def exact_second_moment(units: Array, chances: Array, versions: Array, omega: float, theta: float, start: Array) -> Array:
    """``E|r[t]|^2 / |r[0]|^2`` for ``r[t+1] = (1 - theta) r[t] + theta (I - omega u u') r[s(t)]``, without sampling.

    The covariance of the last errors, as many as the largest delay needs, follows a linear recurrence, because the row of
    update t is independent of all errors up to t.

    Parameters
    ----------
    units, chances : array (n_rows, dim), (n_rows,)
        The directions u and their probabilities.
    versions : array of int (updates,)
        s(t) <= t.
    omega, theta : float
        Parameters of the method.
    start : array (dim,)
        r[0].

    Examples
    --------
    >>> exact_second_moment(np.eye(2), np.array([0.5, 0.5]), np.arange(3), 1.0, 1.0, np.array([1.0, 0.0]))
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    dim = len(start)
    W = (units.T * chances) @ units
    T = np.eye(dim) - omega * W
    delays = np.arange(len(versions)) - np.asarray(versions)
    size = dim * (int(delays.max(initial=0)) + 1)
    joint = np.zeros((size, size))  # blocks: newest first
    joint[:dim, :dim] = np.outer(start, start)
    moments = [float(start @ start)]
    for delay in delays:
        old = slice(delay * dim, (delay + 1) * dim)
        C = joint[old, old]
        inner = chances * np.einsum("ij,jk,ik->i", units, C, units)
        stepped = C - omega * (W @ C + C @ W) + omega**2 * (units.T * inner) @ units  # E[T C T']
        cross = T @ joint[old, :dim]
        newest = (1 - theta) ** 2 * joint[:dim, :dim] + theta * (1 - theta) * (cross + cross.T) + theta**2 * stepped
        beside = (1 - theta) * joint[:dim, :-dim] + theta * T @ joint[old, :-dim]
        joint[dim:, dim:] = joint[:-dim, :-dim]
        joint[:dim, :dim], joint[:dim, dim:], joint[dim:, :dim] = newest, beside, beside.T
        moments.append(float(np.trace(newest)))
    curve: Array = np.array(moments) / moments[0]
    return curve
