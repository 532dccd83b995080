"""Step sizes and bounds of AsyncBC, the SARAH of servers that do not wait (Gao, Takezawa, Stich).

``m[t] = m[t-1] + g_j(x[s]) - g_j(x[s-1])``, ``x[t+1] = x[t] - step m[t]``, from ``m[0] = grad f(x[0])``: s is the version
that client j had read, ``t - s <= max_delay``; ``concurrency`` tasks are in flight. Both theorems end in

``(1/T) sum_{t<T} E|grad f(x[t])|^2 <= 2 gap / (step T)``, ``gap = f(x[0]) - inf f``,

for every step that meets the conditions of their proofs, and for as many updates T as these were met for, or fewer.

**Theorem 1 is false as it is printed.** Its proof (appendix A) needs ``step <= 1/(10 delta sqrt(T))``, and the statement
drops it: Fact 1, which is to make up for that, bounds delta by ``L + L_i``, while the step that is left can be
``1/(6 (delta + L))`` for every T. Two clients with Hessians L + delta and L - delta, concurrency 1, are a counterexample:
``E|m[t]|^2`` is multiplied by ``(1 - step L)^2 + step^2 delta^2`` at each update, about 1 + 1/36 for the printed step where
L is small against delta. With ``L/delta = 1e-4``, T = 2500 and max_delay = 1, the mean squared gradient is 5.4e21 times the
first; the printed bound says 48 times, ``2 gap / (step T)`` 24 times. (It is the mean that explodes: few runs out of many
carry it.) Here every condition is kept, which adds ``20 delta gap / sqrt(T)`` to the bound.

Rules of this file:

- the conditions are those of the proofs, with "step <= L/4" read as ``step <= 1/(4L)``, which is what they use;
- orders without constants, which no step can be made of, are in `theory.async_bc_orders`;
- a delay counts the updates between the reading of a point and the use of its reply: 0 for a single task in flight.

References
----------
Gao, Takezawa, Stich, "A bias correction mechanism for distributed asynchronous optimization", TMLR (OpenReview 8doMbaah0s).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import integer, number

Floats = NDArray[np.float64]


def full_gradient_step(L: float, delta: float, concurrency: int, max_delay: int, horizon: int) -> float:
    """The step of AsyncBC-GD: Theorem 1 with the two conditions of its proof that the statement drops.

    The least of ``1/(6 (delta+L) sqrt(concurrency max_delay))``, ``1/(12 sqrt(L (delta+L) max_delay horizon))``,
    ``1/(10 delta sqrt(horizon))`` and ``1/(4L)``.

    Parameters
    ----------
    L : float
        Lipschitz constant of grad f, > 0 (Assumption 1).
    delta : float
        Lipschitz constant of every ``grad f - grad f_i``, >= 0 (Assumption 2).
    concurrency : int
        Tasks in flight.
    max_delay : int
        Largest number of updates between the reading of a point and the use of its reply, >= 0 (Assumption 3).
    horizon : int
        Updates of the run; the step is good for fewer ones too.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Notes
    -----
    With S the sum of ``E|m[t]|^2``, the proof needs ``A + B + C <= step S / 16``. Its terms are at most, of step S: A,
    ``step^2 concurrency max_delay (delta^2 + L^2) / 4 <= 1/144``; B, ``step^2 delta^2 horizon / 2 <= 1/200``; and C,
    ``2 step^4 L^2 (delta^2 + L^2) max_delay^2 horizon^2 <= 2/12^4``. So they use a fifth of what is allowed, and measured
    best steps are one to two orders larger. For ``max_delay = 0`` A and C are zero, and the third and fourth condition left.

    References
    ----------
    Gao et al., Theorem 1 and appendix A.

    Examples
    --------
    >>> full_gradient_step(L=1.0, delta=0.0, concurrency=1, max_delay=0, horizon=100)  # gradient descent
    0.25
    >>> full_gradient_step(L=1e-4, delta=1.0, concurrency=1, max_delay=1, horizon=2500)  # Theorem 1 as printed: 1/6
    0.002
    """
    L, delta = number(L, "L", above=0), number(delta, "delta", low=0)
    tasks, late, horizon = _run(concurrency, max_delay, horizon)
    inverse = max(
        6 * (delta + L) * math.sqrt(tasks * late),
        12 * math.sqrt(L * (delta + L) * late * horizon),
        10 * delta * math.sqrt(horizon),
        4 * L,
    )
    return 1 / inverse


def printed_full_gradient_step(L: float, delta: float, concurrency: int, max_delay: int, horizon: int) -> float:
    """The step of Theorem 1 as printed, for which its bound is **false**: to show that, not to run with.

    ``min(1/(6 (delta+L) sqrt(concurrency max_delay)), 1/(12 sqrt(L (delta+L) max_delay horizon)))``, inf for max_delay = 0.
    Parameters are those of `full_gradient_step`; the counterexample is at the head of this module.

    Examples
    --------
    >>> round(printed_full_gradient_step(L=1e-4, delta=1.0, concurrency=1, max_delay=1, horizon=2500), 4)
    0.1667
    """
    L, delta = number(L, "L", above=0), number(delta, "delta", low=0)
    tasks, late, horizon = _run(concurrency, max_delay, horizon)
    if late == 0:
        return math.inf
    return 1 / max(6 * (delta + L) * math.sqrt(tasks * late), 12 * math.sqrt(L * (delta + L) * late * horizon))


def stochastic_step(L: float, ell: float, concurrency: int, max_delay: int, horizon: int) -> float:
    """The step of AsyncBC-SGD, where both gradients of a difference are of the same sample; Theorem 2.

    The least of ``1/(ell sqrt(6 concurrency max_delay))``, ``1/(10 ell sqrt(horizon))`` and
    ``1/(2 sqrt(2 L ell max_delay (horizon-1)))``.

    Parameters
    ----------
    L : float
        Lipschitz constant of grad f, > 0 (Assumption 1).
    ell : float
        Mean-squared smoothness, >= L: ``E|grad f_i(x, S) - grad f_i(y, S)|^2 <= ell^2 |x - y|^2`` for every client i, over
        its samples S (Assumption 5). It is never below L, the norm of a mean being at most the root mean square.
    concurrency, max_delay, horizon
        As for `full_gradient_step`.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range, or ell < L.

    Notes
    -----
    As in `full_gradient_step`, of 1/16 allowed, the terms are at most 1/48, 1/200 and 1/64. ``step <= 1/(4L)``, which the
    statement does not name, follows from the second condition and ``ell >= L``.

    References
    ----------
    Gao et al., Theorem 2 and appendix B.

    Examples
    --------
    >>> stochastic_step(L=1.0, ell=2.0, concurrency=4, max_delay=10, horizon=10_000)
    0.0005
    """
    L, ell = number(L, "L", above=0), number(ell, "ell", above=0)
    if ell < L * (1 - 1e-9):  # constants are computed with rounding
        raise InvalidInputError(f"ell must be at least L, not {ell!r} against {L!r}: samples vary more than their mean")
    tasks, late, horizon = _run(concurrency, max_delay, horizon)
    inverse = max(
        ell * math.sqrt(6 * tasks * late),
        10 * ell * math.sqrt(horizon),
        2 * math.sqrt(2 * L * ell * late * (horizon - 1)),
    )
    return 1 / inverse


def mean_square_bound(step: float, n_updates: Any, gap: float) -> Floats:
    """``2 gap / (step T)``, a bound on the mean of ``E|grad f(x[t])|^2`` over t < T; ends of both proofs.

    Parameters
    ----------
    step : float
        As `full_gradient_step` or `stochastic_step` gives it, or smaller, ``> 0``.
    n_updates : int or array of int
        T; at most the horizon that the step was made for.
    gap : float
        ``f(x[0]) - inf f``, >= 0: where inf f is not known, a lower bound of it serves (0 for the losses of this package).

    Examples
    --------
    >>> mean_square_bound(0.25, [1, 10], gap=0.5)
    array([4. , 0.4])
    """
    return 2 * number(gap, "gap", low=0) / (number(step, "step", above=0) * update_counts(n_updates, "n_updates"))


def full_gradient_bound(L: float, delta: float, concurrency: int, max_delay: int, horizon: Any, gap: float) -> Floats:
    """Theorem 1, corrected, as a curve over horizons: each run has the step that `full_gradient_step` gives its horizon.

    ``gap/T max(12 (delta+L) sqrt(concurrency max_delay), 24 sqrt(L (delta+L) max_delay T), 20 delta sqrt(T), 8 L)``.

    Parameters
    ----------
    L, delta, concurrency, max_delay
        As for `full_gradient_step`.
    horizon : int or array of int
        T.
    gap : float
        ``f(x[0]) - inf f``, >= 0.

    Returns
    -------
    array like horizon
        Bounds on ``(1/T) sum_{t<T} E|grad f(x[t])|^2``.

    References
    ----------
    Gao et al., the last two displays of appendix A (the paper adds the terms, of which the largest suffices).

    Examples
    --------
    >>> full_gradient_bound(L=1.0, delta=1.0, concurrency=4, max_delay=8, horizon=[10**4, 10**6], gap=1.0)
    array([0.96 , 0.096])
    """
    return _curve(lambda n: full_gradient_step(L, delta, concurrency, max_delay, n), horizon, gap)


def stochastic_bound(L: float, ell: float, concurrency: int, max_delay: int, horizon: Any, gap: float) -> Floats:
    """Theorem 2 as a curve over horizons: each run has the step that `stochastic_step` gives its horizon.

    ``gap/T max(2 ell sqrt(6 concurrency max_delay), 20 ell sqrt(T), 4 sqrt(2 L ell max_delay (T-1)))``.

    Parameters
    ----------
    L, ell, concurrency, max_delay
        As for `stochastic_step`.
    horizon, gap
        As for `full_gradient_bound`.

    Returns
    -------
    array like horizon

    References
    ----------
    Gao et al., the last display of Theorem 2's proof, the largest term instead of their sum.

    Examples
    --------
    >>> stochastic_bound(L=1.0, ell=2.0, concurrency=1, max_delay=0, horizon=[100, 10**4], gap=1.0)
    array([4. , 0.4])
    """
    return _curve(lambda n: stochastic_step(L, ell, concurrency, max_delay, n), horizon, gap)


def _run(concurrency: int, max_delay: int, horizon: int) -> tuple[int, int, int]:
    return integer(concurrency, "concurrency"), integer(max_delay, "max_delay", low=0), integer(horizon, "horizon")


def update_counts(value: Any, name: str) -> Floats:
    """Numbers of updates, one or an array of them, as floats.

    Examples
    --------
    >>> update_counts([1, 10], "horizon")
    array([ 1., 10.])
    """
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iu" or not numbers.size or numbers.min() < 1:
        raise InvalidInputError(f"{name} must be an integer >= 1 or an array of them, not {value!r}")
    return numbers.astype(np.float64)


def _curve(step_of: Callable[[int], float], horizon: Any, gap: float) -> Floats:
    """``2 gap / (step(T) T)`` at every horizon T."""
    T = update_counts(horizon, "horizon")
    steps = np.array([step_of(int(n)) for n in T.ravel()]).reshape(T.shape)
    bound: Floats = np.asarray(2 * number(gap, "gap", low=0) / (steps * T))
    return bound
