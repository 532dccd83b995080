"""Rates of the asynchronous sketch-and-project method of Sahu et al., called `averaged` here.

``x[t+1] = (1-theta) x[t] + theta (x[s] - omega B^-1 Z_t (x[s] - x*))``, s the version that the task had read. Everything
is a function of lambda_min and lambda_max, the ends of the nonzero spectrum of ``W = B^-1/2 E[Z] B^-1/2``, of the relaxation
omega, the damping theta, and of how uneven the workers are: ``delta_a = c tau`` updates of tau workers while the slowest
makes one.

Rules of this file:

- a complexity counts unit intervals (the slowest worker makes one update): ``1 / (1 - rate per interval)``;
- ``bound="paper"`` is what the paper proves, ``"tight"`` the best that the same steps give; printed formulas that are
  wrong are in `papers.apsgd`, here stands what is right, and a note says where it departs from print.

References
----------
Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear systems",
arXiv:2004.02163.
"""

from __future__ import annotations

import math

from tardigrad.core.validate import integer, number
from tardigrad.theory.delayed_recurrence import decay
from tardigrad.theory.spectra import BOUNDS, one_of, spectrum_ends


def omega_star(lambda_min: float, lambda_max: float) -> float:
    """``2 / (lambda_min + lambda_max)``: beyond it more relaxation only does harm, Lemma 10 for the paper's constants.

    Examples
    --------
    >>> omega_star(0.1, 0.9)
    2.0
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    return 2 / (low + high)


def recurrence_constants(
    lambda_min: float, lambda_max: float, theta: float, omega: float, bound: str = "paper"
) -> tuple[float, float]:
    """K1 and K2 of ``E|r[t+1]|^2 <= K1 E|r[t]|^2 + K2 E|r[t-delay]|^2`` for the averaged method; Theorem 5.

    With ``alpha = max over lam of |1 - omega lam|``, ``K1 = (1-theta)(1 - theta + theta alpha)`` and

    - ``"paper"``: ``K2 = theta (theta (1 - omega (2-omega) lam) + (1-theta) alpha)`` with lam = lambda_min for
      omega <= 2, else lambda_max;
    - ``"tight"``: K2 = maximum over lam in {lambda_min, lambda_max} of
      ``theta^2 (1 - omega (2-omega) lam) + theta (1-theta) |1 - omega lam|``. The paper maximises the two terms apart;
      together they are convex in lam, so the two ends suffice, for every omega.

    Parameters
    ----------
    lambda_min, lambda_max : float
        Ends of the nonzero spectrum of W.
    theta : float
        Damping in [0, 1].
    omega : float
        Relaxation, >= 0.
    bound : {"paper", "tight"}

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    The basic method (theta = 1) has rate 1 - omega (2-omega) lambda_min:

    >>> recurrence_constants(0.25, 0.75, theta=1.0, omega=1.0)
    (0.0, 0.75)
    """
    K1, K2, _ = constants_and_gap(lambda_min, lambda_max, theta, omega, bound)
    return K1, K2


def constants_and_gap(
    lambda_min: float, lambda_max: float, theta: float, omega: float, bound: str = "paper"
) -> tuple[float, float, float]:
    """K1, K2 and ``1 - K1 - K2``, the last without cancellation; see `recurrence_constants`.

    ``1 - K1 - K2 = theta ((1-theta)(2 - alpha - a) + theta omega (2-omega) lam)``; for ``1 <= omega <= min(2, omega*)``
    it is ``theta omega (2 - theta omega) lambda_min``, the denominator of (40).

    Examples
    --------
    >>> constants_and_gap(0.25, 0.75, theta=1.0, omega=1.0)
    (0.0, 0.75, 0.25)
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    damping, relaxation = number(theta, "theta", low=0.0, high=1.0), number(omega, "omega", low=0.0)
    slow = min(relaxation * low, 2 - relaxation * high)  # 1 - alpha
    K1 = (1 - damping) * (1 - damping * slow)
    if one_of(bound, "bound", BOUNDS) == "paper":
        ends = [(slow, low if relaxation <= 2 else high)]
    else:
        ends = [(min(relaxation * lam, 2 - relaxation * lam), lam) for lam in (low, high)]
    found = []
    for near, lam in ends:
        shrink = relaxation * (2 - relaxation) * lam
        K2 = damping * (damping * (1 - shrink) + (1 - damping) * (1 - near))
        found.append((K2, damping * ((1 - damping) * (slow + near) + damping * shrink)))
    K2, gap = max(found)
    return K1, max(K2, 0.0), gap


def upper_bound(
    lambda_min: float, lambda_max: float, theta: float, omega: float, delta_a: float, bound: str = "paper"
) -> float:
    """U: an upper bound of the averaged method's complexity, ``(1 - K1 + 1/delta_a) / (1 - K1 - K2)``; (37).

    For ``1 <= omega <= min(2, omega*)`` it is (40). It holds for every omega up to omega* and beyond, where
    ``bound="tight"`` is what makes omega > 2 worth a look. inf where ``K1 + K2 >= 1``: the bound then says nothing.

    Parameters
    ----------
    lambda_min, lambda_max, theta, omega, bound
        As for `recurrence_constants`.
    delta_a : float
        Updates while the slowest worker makes one, > 0.

    Examples
    --------
    >>> round(upper_bound(0.1, 0.9, theta=1.0, omega=1.0, delta_a=4), 12)
    12.5
    """
    K1, _, gap = constants_and_gap(lambda_min, lambda_max, theta, omega, bound)
    many = number(delta_a, "delta_a", above=0.0)
    return (1 - K1 + 1 / many) / gap if gap > 0 else math.inf


def unit_complexity(
    lambda_min: float, lambda_max: float, theta: float, omega: float, delta_a: float, bound: str = "tight"
) -> float:
    """The averaged method's complexity by the exact root: ``1 / (1 - gamma^delta_a)``, gamma at delay delta_a - 1.

    delta_a workers in turn read points that are `round_robin_delay` = delta_a - 1 updates old, so ``delta_a = 1`` is
    the basic method where theta = 1. The paper takes delay delta_a, and bounds the root by (30): `upper_bound`.

    Examples
    --------
    >>> round(unit_complexity(0.1, 0.9, theta=1.0, omega=1.0, delta_a=1), 12)
    10.0
    """
    many = number(delta_a, "delta_a", low=1.0)
    K1, K2, gap = constants_and_gap(lambda_min, lambda_max, theta, omega, bound)
    left = -math.expm1(-many * decay(K1, K2, many - 1, gap))
    return 1 / left if left > 0 else math.inf


def round_robin_delay(tau: int) -> int:
    """The delay of tau workers that answer in turn: tau - 1, not tau as the paper has it.

    Examples
    --------
    >>> round_robin_delay(1)
    0
    """
    return integer(tau, "tau") - 1


def _root_terms(lambda_min: float, lambda_max: float, omega: float, delta_a: float) -> tuple[float, float, float, float]:
    """lambda_min, omega, sqrt(P) and sqrt(q) of the closed form, with ``q = omega/(2 delta_a)``."""
    low, high = spectrum_ends(lambda_min, lambda_max)
    top = min(2.0, 2 / (low + high))
    relaxation = number(omega, "omega", low=1.0, high=top * (1 + 1e-12), what="in the closed form's range,")
    q = relaxation / (2 * number(delta_a, "delta_a", above=0.0))
    return low, relaxation, math.sqrt(1 + (relaxation - 2) * low + q), math.sqrt(q)


def best_theta(lambda_min: float, lambda_max: float, omega: float, delta_a: float) -> float:
    """The theta with the least U(theta, omega), for ``1 <= omega <= min(2, omega*)``; (52), (60), and (54) corrected.

    ``2 sqrt(q) / (omega (sqrt(P) + sqrt(q)))``, ``q = omega / (2 delta_a)``, ``P = 1 + (omega-2) lambda_min + q``.

    Notes
    -----
    At omega = 1 it is (52), at omega = 2 it is (60). At omega* it is ``k (sqrt(1 + delta_a mu) - 1) / (delta_a mu)`` with
    ``k = lambda_min + lambda_max``, ``mu = k + 2 lambda_min (1-k)``; (54) prints 2 - k for mu.

    Raises
    ------
    InvalidInputError
        If omega is outside of the closed form's range: see `best_parameters` for any omega.

    Examples
    --------
    >>> round(best_theta(0.1, 0.4, omega=2.0, delta_a=3), 12)
    0.333333333333
    """
    _, relaxation, big, small = _root_terms(lambda_min, lambda_max, omega, delta_a)
    return 2 * small / (relaxation * (big + small))


def least_upper_bound(lambda_min: float, lambda_max: float, delta_a: float, omega: float | None = None) -> float:
    """The least U over theta: ``1/omega + (sqrt(P) + sqrt(q))^2 / (2 omega lambda_min)``, P and q as in `best_theta`.

    One closed form for (53), (56) and (61). By default at ``omega = min(2, omega*)``, the best in the paper's range.

    Notes
    -----
    Times lambda_min: at omega = 1, ``(1+lambda_min)/2 + (1 + sqrt(1 + 2 delta_a (1-lambda_min))) / (2 delta_a)``, where
    (53) prints ``3/4 + (..)/(4 delta_a)``; at omega*, ``(3 lambda_min + lambda_max)/4 + (1 + sqrt(1 + delta_a mu)) /
    (2 delta_a)``, where (55) and (56) have a factor 2 too many; at omega = 2, (61) as printed.

    Why the largest omega is best: ``U <= V`` says ``K1 + p K2 <= const`` with ``p = V/(V-1) >= 1``, and at a fixed
    ``u = theta omega`` the left side is ``1 + (p-1)(1 - lambda_min u) theta - (1+p) lambda_min u + p lambda_min u^2``,
    which rises with theta: better a smaller theta, a larger omega. The same holds for the exact root, where
    ``p = gamma^-delay``.

    Examples
    --------
    >>> round(0.1 * least_upper_bound(0.1, 0.4, delta_a=3), 12)
    0.8
    """
    best = min(2.0, omega_star(lambda_min, lambda_max)) if omega is None else omega
    low, relaxation, big, small = _root_terms(lambda_min, lambda_max, best, delta_a)
    return 1 / relaxation + (big + small) ** 2 / (2 * relaxation * low)


def theta_1(lambda_min: float, delta_a: float) -> float:
    """`best_theta` at omega = 1; (52), in a form that stays exact at lambda_min = 1.

    Examples
    --------
    >>> theta_1(1.0, delta_a=4)
    1.0
    """
    return best_theta(lambda_min, 1.0, 1.0, delta_a)


def theta_2(delta_a: float) -> float:
    """`best_theta` at omega = 2; (60), ``1 / (sqrt(delta_a + 1) + 1)``.

    Examples
    --------
    >>> round(theta_2(3), 12)
    0.333333333333
    """
    return 1 / (math.sqrt(number(delta_a, "delta_a", above=0.0) + 1) + 1)


def theta_omega_star(lambda_min: float, lambda_max: float, delta_a: float) -> float:
    """`best_theta` at omega*, for ``k = lambda_min + lambda_max >= 1``; (54) corrected.

    Raises
    ------
    InvalidInputError
        If k < 1: omega* is then beyond 2, outside of the closed form.

    Examples
    --------
    >>> round(theta_omega_star(0.1, 0.9, delta_a=3), 12)
    0.333333333333
    """
    return best_theta(lambda_min, lambda_max, omega_star(lambda_min, lambda_max), delta_a)


def averaged_limit(lambda_min: float, lambda_max: float) -> float:
    """The averaged method's least U with endlessly many workers.

    ``(3 lambda_min + lambda_max) / (4 lambda_min)`` for ``lambda_min + lambda_max >= 1``, (67), at omega*; else
    ``(1 + 2 lambda_min) / (4 lambda_min)``, (69), at omega = 2.

    Notes
    -----
    Section 4.4.2 says that the synchronous method always wins where ``1/4 + lambda_min/2 > lambda_max``. That compares
    the bound at omega = 2: at omega* the limit of U is ``(3 lambda_min + lambda_max)/(4 lambda_min)`` in both cases,
    by ``bound="tight"``, and never above lambda_max/lambda_min.

    Examples
    --------
    >>> averaged_limit(0.25, 0.75), averaged_limit(0.25, 0.5)
    (1.5, 1.5)
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    return (3 * low + high) / (4 * low) if low + high >= 1 else (1 + 2 * low) / (4 * low)
