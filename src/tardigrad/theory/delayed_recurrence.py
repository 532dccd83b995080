"""The recurrence that delayed methods lead to: ``q[t+1] = K1 q[t] + K2 q[t - delay]``.

Its rate is the positive root of a characteristic polynomial; its curve is the bound of an expected error.

Rules of this file:

- rates near 1 keep their digits: what is solved for is the decay ``-log(gamma)``, from the gap ``1 - K1 - K2``, which
  callers give where they know it better than by subtraction;
- delays are a number, or a histogram: entry d counts the updates that had delay d.

References
----------
Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear systems",
arXiv:2004.02163, section 4.2: (25)-(30) and Theorem 6. What is not there is said where it stands.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import integer, number

Floats = npt.NDArray[np.float64]


def characteristic_polynomial(gamma: float, K1: float, K2: float, delay: float) -> float:
    """``gamma^(delay+1) - K1 gamma^delay - K2``; Sahu et al. (26).

    Examples
    --------
    >>> characteristic_polynomial(1.0, 0.5, 0.25, delay=7)
    0.25
    """
    return float(gamma ** (delay + 1) - K1 * gamma**delay - K2)


def delay_distribution(delays: Any) -> tuple[Floats, Floats]:
    """The delays that occur, and how likely each is.

    Parameters
    ----------
    delays : float or array (largest delay + 1,)
        One delay for every update, or a histogram: entry d counts the updates that had delay d.

    Returns
    -------
    delays, probabilities : array
        Those with a probability above 0.

    Raises
    ------
    InvalidInputError
        If a delay or a count is negative or not finite, or no update is counted.

    Examples
    --------
    >>> delay_distribution([0, 3, 0, 1])
    (array([1., 3.]), array([0.75, 0.25]))
    """
    if np.ndim(delays) == 0:
        return np.array([number(delays, "delays", low=0.0)]), np.ones(1)
    try:
        counts = np.asarray(delays, np.float64)
    except (TypeError, ValueError):
        counts = np.full(1, np.nan)
    if counts.ndim != 1 or not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0):
        raise InvalidInputError(
            "delays must be a number >= 0, or a histogram whose entry d >= 0 counts the updates with delay d,"
            f" such as numpy.bincount(trace.staleness), not {delays!r}"
        )
    seen = np.flatnonzero(counts)
    return seen.astype(np.float64), counts[seen] / counts.sum()


def decay(K1: float, K2: float, delays: Any, gap: float | None = None) -> float:
    """``-log(gamma)`` for the rate gamma of ``q[t+1] = K1 q[t] + K2 sum_d p_d q[t-d]``; see `positive_root`.

    Near a rate of 1 the decay keeps the digits that the rate has lost. inf where the rate is 0.

    Parameters
    ----------
    K1, K2 : float
        Coefficients, >= 0.
    delays : float or array
        As for `delay_distribution`.
    gap : float, optional
        ``1 - K1 - K2``, where it is known better than by subtraction.

    Raises
    ------
    InvalidInputError
        If a coefficient is negative or not finite, or the delays are none.

    Notes
    -----
    With ``gamma = exp(-y)`` the equation is ``1 - exp(-y) = gap - K2 sum_d p_d (exp(d y) - 1)``. The left side grows
    with y, the right side falls, so one sign change is bracketed and found to the last digits. Delays of 1e5 take as
    long as a delay of 1.

    Examples
    --------
    A rate 1e-15 below 1, and a delay of 100000:

    >>> f"{decay(0.5, 0.5, delays=0, gap=1e-15):.12g}"
    '1e-15'
    >>> f"{decay(0.5, 0.5, delays=100_000, gap=1e-15):.6g}"
    '1.99996e-20'
    """
    low, high = number(K1, "K1", low=0.0), number(K2, "K2", low=0.0)
    excess = 1 - low - high if gap is None else number(gap, "gap", high=1.0)
    late, chance = delay_distribution(delays)
    if high == 0.0 or not late.any():
        return _minus_log1m(excess)

    def balance(y: float) -> float:
        return -math.expm1(-y) - excess + high * float(chance @ np.expm1(late * y))

    if excess == 0:
        return 0.0
    if excess < 0:  # the bound grows: K1 + K2 >= gamma > 1
        return float(brentq(balance, -math.log1p(-excess), 0.0, xtol=1e-300, rtol=4 * np.finfo(float).eps))
    some = late > 0
    top = min(float(np.min(np.log1p(excess / (high * chance[some])) / late[some])), _minus_log1m(excess))
    top *= 1 + 1e-12
    return float(brentq(balance, 0.0, top, xtol=1e-300, rtol=4 * np.finfo(float).eps))


def _minus_log1m(gap: float) -> float:
    return -math.log1p(-gap) if gap < 1 else math.inf


def positive_root(K1: float, K2: float, delays: Any, gap: float | None = None) -> float:
    """The rate gamma of ``q[t+1] <= K1 q[t] + K2 q[t - delay]``, exact (Perron), or of random delays.

    The positive root of ``gamma^(delay+1) - K1 gamma^delay - K2``, Sahu et al. (26) and Theorem 6; for random delays of
    ``gamma = K1 + K2 sum_d p_d gamma^-d``, which is not in the paper.

    Parameters
    ----------
    K1, K2 : float
        Coefficients, >= 0, for instance of `recurrence_constants`.
    delays : float or array
        One delay, or a histogram of delays (entry d counts the updates with delay d).
    gap : float, optional
        ``1 - K1 - K2``, where it is known better than by subtraction.

    Returns
    -------
    float
        gamma; 1 or more where K1 + K2 >= 1: the bound then says nothing.

    Notes
    -----
    **Varying delays.** If every delay is at most `delay` (and reads before the start find x0), then
    ``q[t] <= gamma^t q[0]``, by induction: with ``gamma <= 1``,
    ``q[t+1] <= K1 gamma^t + K2 gamma^(t-d) <= gamma^t (K1 + K2 gamma^-delay) = gamma^(t+1)``. The constant is 1.
    The paper's product of the rates of single updates, (28), is wrong for varying delays: a test has the counterexample.

    **Random delays.** Let the delay D_t of update t have the distribution p and be independent of the delays and of
    all sketches of the updates before it, and let the update's own sketch be independent of all these and of D_t.
    Given ``D_t = d``, the recurrence holds with q[t-d], whose expectation does not depend on D_t; averaging over d
    gives ``q[t+1] <= K1 q[t] + K2 sum_d p_d q[t-d]``, and the induction above gives ``q[t] <= gamma^t q[0]`` with the
    root gamma of the averaged equation. One straggler among many workers then costs little, whereas the largest delay
    of all is charged to every update otherwise.

    A real run is not like that: delays of successive updates depend on each other (a straggler answers at nearly
    equal intervals), and on the sketches where their cost differs. This rate is then a model, not a bound: for a
    straggler's periodic delays the recurrence's own decay was 0.75 to 1.0 of it on small systems, near 1 where an
    interval of the straggler changes the error little, and 0.3 with parameters chosen badly. What does hold for known
    delays, as long as the sketches do not influence them, is `recurrence_curve` on the versions read.

    Raises
    ------
    InvalidInputError
        If a coefficient is negative, or the delays are none.

    Examples
    --------
    >>> positive_root(0.5, 0.25, delays=0)
    0.75
    >>> round(positive_root(0.5, 0.25, delays=30), 6)
    0.978587

    One update of 31 has delay 30, the others 2:

    >>> round(positive_root(0.5, 0.25, delays=[0, 0, 30] + 27 * [0] + [1]), 5)
    0.91317
    """
    return math.exp(-decay(K1, K2, delays, gap))


def root_bound(K1: float, K2: float, delay: float) -> float:
    """The paper's bound of `positive_root` for one delay > 0: ``((K2 + 1/delay) / (1 - K1 + 1/delay))^(1/delay)``.

    Sahu et al. (30); a bound where ``K1 + K2 <= 1``.

    Examples
    --------
    >>> round(root_bound(0.5, 0.25, 30), 6) >= round(positive_root(0.5, 0.25, 30), 6)
    True
    """
    late = number(delay, "delay", above=0.0)
    return float(((K2 + 1 / late) / (1 - K1 + 1 / late)) ** (1 / late))


def constant_delay(delay: int, updates: int) -> npt.NDArray[np.int64]:
    """The versions that updates read with one delay; before the start there is only version 0.

    Examples
    --------
    >>> constant_delay(2, updates=5)
    array([0, 0, 0, 1, 2])
    """
    return np.maximum(np.arange(integer(updates, "updates", 0), dtype=np.int64) - integer(delay, "delay", 0), 0)


def recurrence_curve(K1: float, K2: float, version_read: npt.ArrayLike) -> Floats:
    """``q[t+1] = K1 q[t] + K2 q[version_read[t]]`` from ``q[0] = 1``.

    With `recurrence_constants` it bounds the relative expected error E|x_t - x*|_B^2 / |x_0 - x*|_B^2, Sahu et al.
    (25); with ``K1 = 1 - theta``, ``K2 = theta (1 - omega lam)`` it is the expectation's coordinate along the
    eigenvector of lam, exactly, (17).

    Parameters
    ----------
    K1, K2 : float
        Coefficients; any sign.
    version_read : array of int (updates,)
        The version that each update's task had read: of a trace, or of `constant_delay`.

    Returns
    -------
    array (updates + 1,)

    Notes
    -----
    The paper starts from the errors of the first delay + 1 points; a run has one start, which is what its first tasks
    read.

    Raises
    ------
    InvalidInputError
        If an update reads a version that does not yet exist.

    Examples
    --------
    >>> recurrence_curve(0.5, 0.25, constant_delay(1, updates=3))
    array([1.   , 0.75 , 0.625, 0.5  ])
    """
    read = np.asarray(version_read)
    if read.ndim != 1 or (read.size and not np.issubdtype(read.dtype, np.integer)):
        raise InvalidInputError(f"version_read must be one row of integers, not {read.dtype} of shape {read.shape}")
    if read.size and ((read < 0).any() or (read > np.arange(len(read))).any()):
        raise InvalidInputError("version_read must be between 0 and the number of the update: 0 <= version_read[t] <= t")
    curve = [1.0]
    for version in read.tolist():
        curve.append(K1 * curve[-1] + K2 * curve[version])
    return np.array(curve)
