"""Rates of the parallel (minibatch) sketch-and-project method: tau sketches of one point, averaged.

Its rate is a function of lambda_min and lambda_max, the ends of the nonzero spectrum of ``W = B^-1/2 E[Z] B^-1/2``.

Rules of this file:

- ``bound="paper"`` is what the papers prove, ``"tight"`` the exact factor of one update.

References
----------
Richtarik, Takac, "Stochastic reformulations of linear systems", arXiv:1706.01108, as quoted in Theorem 1 of Sahu, Dutta,
Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear systems",
arXiv:2004.02163; the numbers of equations are the latter's.
"""

from __future__ import annotations

import math

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import number
from tardigrad.theory.spectra import BOUNDS, one_of, spectrum_ends


def xi(lambda_max: float, tau: float) -> float:
    """``1/tau + (1 - 1/tau) lambda_max``, of the parallel method with tau workers; Theorem 1.

    Examples
    --------
    >>> xi(0.5, tau=1), xi(0.5, tau=2)
    (1.0, 0.75)
    """
    high = spectrum_ends(lambda_max, lambda_max)[1]
    many = number(tau, "tau", low=1.0)
    return 1 / many + (1 - 1 / many) * high


def parallel_rate(lambda_min: float, lambda_max: float, tau: float, omega: float, bound: str = "paper") -> float:
    """Factor by which an update of the parallel (minibatch) method multiplies E|x - x*|_B^2, at most.

    ``"paper"``: ``1 - omega (2 - omega xi) lambda_min``, (10). ``"tight"``: the largest eigenvalue of the exact
    operator, the maximum over lam in {lambda_min, lambda_max} of
    ``1 - 2 omega lam + omega^2 lam (1/tau + (1 - 1/tau) lam)``, which is convex in lam.

    Parameters
    ----------
    lambda_min, lambda_max : float
        Ends of the nonzero spectrum of W.
    tau : float
        Sketches averaged in an update.
    omega : float
        Relaxation, > 0; (10) is a bound for ``omega <= 2 / xi``.
    bound : {"paper", "tight"}

    Notes
    -----
    (9) has a factor lambda_max/2 and an exponent that do not belong there:
    ``E|x_k - x*|_B^2 <= rate^k |x_0 - x*|_B^2``.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range, or omega beyond 2/xi with the paper's bound.

    Examples
    --------
    >>> round(parallel_rate(0.1, 0.9, tau=1, omega=1.0), 12)
    0.9
    """
    return 1 - _parallel_gap(lambda_min, lambda_max, tau, omega, bound)


def _parallel_gap(lambda_min: float, lambda_max: float, tau: float, omega: float, bound: str) -> float:
    low, high = spectrum_ends(lambda_min, lambda_max)
    relaxation, scale = number(omega, "omega", above=0.0), xi(high, tau)
    if one_of(bound, "bound", BOUNDS) == "paper":
        if relaxation > 2 / scale * (1 + 1e-12):
            raise InvalidInputError(f'omega must be at most 2/xi = {2 / scale:g} with bound="paper", not {relaxation:g}')
        return relaxation * (2 - relaxation * scale) * low
    return min(relaxation * lam * (2 - relaxation * xi(lam, tau)) for lam in (low, high))


def parallel_omega(lambda_min: float, lambda_max: float, tau: float, bound: str = "paper") -> float:
    """The relaxation with the least `parallel_rate`.

    ``"paper"``: ``1/xi``. ``"tight"``: the least of ``1 / (1/tau + (1 - 1/tau) lambda_min)``, where the slowest
    direction is fastest, and ``2 / (1/tau + (1 - 1/tau)(lambda_min + lambda_max))``, where both ends are equally fast.

    Examples
    --------
    >>> parallel_omega(0.1, 0.9, tau=1), parallel_omega(0.1, 0.9, tau=1, bound="tight")
    (1.0, 1.0)
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    if one_of(bound, "bound", BOUNDS) == "paper":
        return 1 / xi(high, tau)
    many = number(tau, "tau", low=1.0)
    return min(1 / xi(low, many), 2 / (1 / many + (1 - 1 / many) * (low + high)))


def parallel_complexity(
    lambda_min: float, lambda_max: float, tau: float, omega: float | None = None, bound: str = "paper"
) -> float:
    """Rounds of the parallel method for a factor e, ``1 / (1 - parallel_rate)``; by default at the best omega, (12), (64).

    inf where omega is too large to converge.

    Examples
    --------
    >>> round(parallel_complexity(0.1, 0.9, tau=4), 12)
    9.25
    >>> parallel_complexity(0.1, 0.9, tau=4, bound="tight") < 9.25
    True
    """
    relaxation = parallel_omega(lambda_min, lambda_max, tau, bound) if omega is None else omega
    gap = _parallel_gap(lambda_min, lambda_max, tau, relaxation, bound)
    return 1 / gap if gap > 0 else math.inf


def parallel_limit(lambda_min: float, lambda_max: float, bound: str = "paper") -> float:
    """The parallel method's complexity with endlessly many workers: lambda_max/lambda_min, (65).

    ``"tight"``: ``(lambda_min + lambda_max)^2 / (4 lambda_min lambda_max)``, at omega*: that of steepest descent.

    Examples
    --------
    >>> parallel_limit(0.25, 0.75), round(parallel_limit(0.25, 0.75, "tight"), 12)
    (3.0, 1.333333333333)
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    return high / low if one_of(bound, "bound", BOUNDS) == "paper" else (low + high) ** 2 / (4 * low * high)
