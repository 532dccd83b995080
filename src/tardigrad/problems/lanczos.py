"""The method of Lanczos for the ends of a spectrum, with what is known of its error.

Rules of this file:

- the operator is a function of a vector: no matrix is formed, none is kept but the Lanczos vectors;
- what is returned says by how much it may be off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from tardigrad.core.task import Array

#: probability that a bound on the largest eigenvalue does not hold
_RISK = 1e-3
#: part of a Lanczos vector outside the range that changes no Ritz value by more than its square
_OUTSIDE = 1e-4
#: the method has ended where the next vector is shorter than this power of the precision
_END = 0.625


@dataclass(frozen=True)
class Ritz:
    """What Lanczos found of a symmetric operator without negative eigenvalues.

    Attributes
    ----------
    values : array (steps,)
        Ritz values, ascending. Each has an eigenvalue within its residual.
    residuals : array (steps,)
        Norms of ``A v - value v`` for the Ritz vectors v.
    ended : bool
        Whether the vectors span an invariant subspace, nearly: the values are then eigenvalues, up to their residuals,
        and with a random start vector all different ones there are.
    smallest : float
        The smallest Ritz value that rounding cannot have drawn towards the null space: an upper bound of the smallest
        nonzero eigenvalue if the start vector lies in the range. What rounding adds to it outside the range doubles with
        about every step, so that after some fifty steps Lanczos finds the eigenvalue 0 however it was started.
    """

    values: Array
    residuals: Array
    ended: bool
    smallest: float

    def share_missed(self, dim: int) -> float:
        """A bound on ``1 - values[-1] / largest eigenvalue`` that holds with probability 0.999 over a random start vector.

        Kuczynski and Wozniakowski, "Estimating the largest eigenvalue by the power and Lanczos algorithms with a random
        start", SIMAX 1992, Theorem 4.2: the probability that it exceeds e is at most
        ``1.648 sqrt(dim) exp(-sqrt(e) (2 steps - 1))``, for a start vector with the same distribution in all directions.
        One that leans towards large eigenvalues does better.
        """
        steps = len(self.values)
        return float((np.log(1.648 * np.sqrt(dim) / _RISK) / (2 * steps - 1)) ** 2)


def lanczos(apply: Callable[[Array], Array], start: Array, steps: int, eps: float) -> Ritz:
    """Lanczos steps with full orthogonalisation; `eps` is the precision of `apply`.

    Examples
    --------
    >>> d = np.array([1.0, 2.0, 2.0, 5.0])
    >>> found = lanczos(lambda v: d * v, np.ones(4), 10, 1e-16)
    >>> found.values.round(12), found.ended
    (array([1., 2., 5.]), True)
    """
    norm = float(np.linalg.norm(start))
    if norm == 0:
        return Ritz(np.zeros(1), np.zeros(1), True, 0.0)
    steps = min(steps, len(start))
    Q = np.empty((steps + 1, len(start)))
    Q[0] = start / norm
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    ended, done, clean = False, 0, 1
    outside, outside_before = eps, 0.0  # parts of the latest two vectors outside the range of A, at most
    for k in range(steps):
        w = apply(Q[k])
        diagonal[k] = Q[k] @ w
        for _ in range(2):  # twice is enough
            w = w - Q[: k + 1].T @ (Q[: k + 1] @ w)
        beside[k] = np.linalg.norm(w)
        done = k + 1
        top = np.abs(diagonal[:done]).max()
        if outside <= _OUTSIDE:
            clean = done
        if beside[k] <= eps**_END * top:
            ended = True
            break
        before = beside[k - 1] if k else 0.0
        grown = (abs(diagonal[k]) * outside + before * outside_before + eps * top) / beside[k]
        outside, outside_before = grown, outside
        Q[done] = w / beside[k]
    values, vectors = scipy.linalg.eigh_tridiagonal(diagonal[:done], beside[: done - 1])
    residuals = beside[done - 1] * np.abs(vectors[-1])
    if ended:  # an eigenvalue 0 that rounding brought in has been found by now
        real = values > 1e3 * eps * values[-1]
        values, residuals = values[real], residuals[real]
        smallest = float(values[0])
    else:
        smallest = float(scipy.linalg.eigvalsh_tridiagonal(diagonal[:clean], beside[: clean - 1])[0])
    return Ritz(values, residuals, ended, smallest)
