"""How many equally many workers the averaged method needs to beat the parallel one: the question of tables 2 and 3.

Rules of this file:

- every tau is tried, from 2 up, in blocks that grow: the condition need not be monotone in tau, so nothing is bisected;
- ties count for the asynchronous method (one published row is a tie).

References
----------
Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear systems",
arXiv:2004.02163, section 4.4; the numbers of equations are theirs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tardigrad.core.validate import integer, number
from tardigrad.theory.best_parameters import least_excess
from tardigrad.theory.delayed_recurrence import Floats
from tardigrad.theory.spectra import BOUNDS, one_of, spectrum_ends

ASYNC_BOUNDS = ("paper", "corrected", "perron", "tight")
CAP = 20_000
TIE = 1e-12


def printed_complexity(lambda_min: float, lambda_max: float, delta_a: npt.ArrayLike) -> Floats:
    """The averaged method's complexity times lambda_min as printed: min((53), (56)) if k >= 1, else (61).

    (53) and (56) are wrong, (61) is right: `least_upper_bound` is the correct form. This is what tables 2 and 3 show.

    Examples
    --------
    >>> printed_complexity(0.1, 0.4, 3.0)
    array(0.8)
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    d, k = np.asarray(delta_a, np.float64), low + high
    if k < 1 - TIE:
        return np.asarray(1 / 4 + low / 2 + (1 + np.sqrt(d + 1)) / (2 * d))
    at_1 = 3 / 4 + (1 + np.sqrt(1 + 2 * d * (1 - low))) / (4 * d)
    root = np.sqrt(1 + d * (2 - k))
    at_star = (3 * low + high) / 4 + (root + 2 * (d + 1 + d * (1 - k) * low)) / (2 * d * root)
    return np.minimum(at_1, at_star)


def corrected_complexity(lambda_min: float, lambda_max: float, delta_a: npt.ArrayLike) -> Floats:
    """`least_upper_bound` times lambda_min, for an array of delta_a: at ``omega = min(2, omega*)``.

    Examples
    --------
    >>> corrected_complexity(0.1, 0.4, [3.0])
    array([0.8])
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    d, omega = np.asarray(delta_a, np.float64), min(2.0, 2 / (low + high))
    q = omega / (2 * d)
    return np.asarray(low / omega + (np.sqrt(1 + (omega - 2) * low + q) + np.sqrt(q)) ** 2 / (2 * omega))


def _parallel(low: float, high: float, tau: Floats, sync: str) -> Floats:
    """lambda_min times `parallel_complexity` at the best omega."""
    scale_low, scale_high = (1 / tau + (1 - 1 / tau) * lam for lam in (low, high))
    if sync == "paper":
        return np.asarray(scale_high)
    omega = np.minimum(1 / scale_low, 2 / (1 / tau + (1 - 1 / tau) * (low + high)))
    return np.asarray(1 / (omega * (2 - omega * scale_low)))


def _wins(low: float, high: float, c: float, tau: Floats, bound: str, sync: str) -> npt.NDArray[np.bool_]:
    many, rival = c * tau, _parallel(low, high, tau, sync)
    if bound in ("paper", "corrected"):
        complexity = printed_complexity if bound == "paper" else corrected_complexity
        return np.asarray(complexity(low, high, many) <= rival * (1 + TIE))
    # the rate of an update that would do as well as a round: gamma^delta_a = 1 - lambda_min / rival
    with np.errstate(divide="ignore", over="ignore"):
        needed = -np.log1p(-np.minimum(low / rival, 1.0)) / many
        delay = many if bound == "perron" else many - 1
        p_minus_1 = np.expm1(delay * needed)
    finite = np.isfinite(p_minus_1)
    excess = np.full(len(tau), np.inf)
    if bound == "tight":
        excess[finite] = least_excess(low, high, p_minus_1[finite], "tight")[0]
    else:
        excess[finite] = _paper_excess(low, high, p_minus_1[finite])
    return np.asarray(excess <= np.expm1(-needed) * (1 - TIE))


def _paper_excess(low: float, high: float, P: Floats) -> Floats:
    """`least_excess` with the paper's constants and range of omega, whose best is min(2, omega*); closed form."""
    omega = min(2.0, 2 / (low + high))
    A = P * (1 - omega * low) - 2 * omega * low
    C = P * (1 - omega * (2 - omega) * low) - omega * (2 - omega) * low
    with np.errstate(all="ignore"):
        vertex = A / (2 * (A - C))
    theta = np.where((vertex > 0) & (vertex <= 1), vertex, 1.0)
    return np.minimum(theta * (A + theta * (C - A)), 0.0)


def min_processors(
    lambda_min: float, lambda_max: float, c: float, bound: str = "paper", sync: str = "paper", cap: int = CAP
) -> int | None:
    """The least number of workers, from 2, with which the averaged method's bound is at most the parallel method's.

    Parameters
    ----------
    lambda_min, lambda_max : float
        Ends of the nonzero spectrum of W.
    c : float
        How uneven the workers are, >= 1: they make ``delta_a = c tau`` updates while the parallel method makes one.
    bound : {"paper", "corrected", "perron", "tight"}
        The averaged method's complexity: min((53), (56)) or (61) as printed; the correct closed form; the exact root of
        the characteristic polynomial instead of its bound (30), with the paper's constants, delay delta_a and
        omega <= min(2, omega*); the same with tight constants, delay delta_a - 1 and every omega.
    sync : {"paper", "tight"}
        The parallel method's complexity, (64) or tight: see `parallel_complexity`.
    cap : int, default 20000
        The largest number tried.

    Returns
    -------
    int or None
        None if there is none up to the cap.

    Notes
    -----
    Both are bounds. Against the tight synchronous one, equally fast workers (c = 1) hardly ever favour the asynchronous
    method: what speaks for it is a straggler, a large c.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    References
    ----------
    Sahu et al., section 4.4, tables 2 and 3: ``bound="paper", sync="paper"``.

    Examples
    --------
    >>> min_processors(1e-2, 0.4, c=1)
    12
    >>> min_processors(1e-2, 0.4, c=1, bound="tight")
    2
    >>> min_processors(1e-2, 0.4, c=1, bound="tight", sync="tight") is None
    True
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    uneven, last = number(c, "c", low=1.0), integer(cap, "cap", 2)
    one_of(bound, "bound", ASYNC_BOUNDS)
    one_of(sync, "sync", BOUNDS)
    start, size = 2, 64
    while start <= last:
        tau = np.arange(start, min(start + size, last + 1), dtype=np.float64)
        wins = _wins(low, high, uneven, tau, bound, sync)
        if wins.any():
            return start + int(np.argmax(wins))
        start, size = start + size, min(4 * size, 4096)
    return None
