"""The accelerated sketch-and-project method: parameters and rate of its expected error.

``x[k+1] = gamma phi(x[k], S[k]) + (1 - gamma) phi(x[k-1], S[k-1])`` with ``phi(x, S) = x - omega grad f_S(x)``.

Rules of this file:

- what is bounded is ``|E[x[k] - x*]|_B``, the weak error. It says nothing about a single run.

References
----------
Richtarik, Takac, "Stochastic reformulations of linear systems: algorithms and convergence theory", SIAM J. Matrix Anal. Appl.
2020: the method and its weak rate. Parameters for an omega other than ``1/lambda_max`` are derived in the notes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tardigrad.core.validate import number
from tardigrad.theory.spectra import ROUNDING, spectrum_ends


@dataclass(frozen=True)
class AcceleratedParameters:
    """What `accelerated_parameters` found.

    Attributes
    ----------
    omega, gamma : float
        Relaxation, and the weight of the newer step.
    rate : float
        ``|E[x[k] - x*]|_B`` falls like ``k rate^k``.

    Examples
    --------
    >>> accelerated_parameters(0.01, 0.25, omega=1.0).rate
    0.9
    """

    omega: float
    gamma: float
    rate: float


def accelerated_parameters(lambda_min: float, lambda_max: float, omega: float | None = None) -> AcceleratedParameters:
    """The gamma with the best rate of the expected error for an omega; by default for ``omega = 1/lambda_max``, the best.

    ``gamma = 2 / (1 + q)`` and rate ``1 - q`` with ``q = sqrt(omega lambda_min)``.

    Parameters
    ----------
    lambda_min, lambda_max : float
        Ends of the nonzero spectrum of W.
    omega : float, optional
        Relaxation in ``(0, 1/lambda_max]``.

    Notes
    -----
    Along the eigenvector to lam, with ``s = 1 - omega lam >= 0``, the expected error obeys ``p[k+1] = gamma s p[k] + (1 -
    gamma) s p[k-1]``, with characteristic polynomial ``r^2 - gamma s r - (1 - gamma) s`` and discriminant ``s (gamma^2 s -
    4 (gamma - 1))``. For lambda_min ``s = 1 - q^2`` and the discriminant is 0: a double root ``gamma s / 2 = 1 - q``. For a
    larger lam it is negative: complex roots with ``|r|^2 = (gamma - 1) s <= (1 - q)/(1 + q) (1 - q^2) = (1 - q)^2``. A larger
    gamma makes that product larger, a smaller one the real root of lambda_min.

    The mean square error does not follow. With ``omega = 1/lambda_max`` it grew without bound in every system sketched
    by single rows that was tried, up to fivefold an update; with blocks of more than half of the unknowns it fell. A
    smaller omega, found by search, made it fall: for single rows in 4 to 6 unknowns 0.9 to 1.7 times as fast as the basic
    method's with its best omega. No rule for that omega is known here.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> accelerated_parameters(0.01, 0.25)
    AcceleratedParameters(omega=4.0, gamma=1.6666666666666667, rate=0.8)

    The basic method's best rate for the expected error is ``(lambda_max - lambda_min) / (lambda_max + lambda_min)`` = 0.92.
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    top = 1 / high
    relaxation = top if omega is None else number(omega, "omega", above=0.0, high=top * (1 + ROUNDING))
    q = min(math.sqrt(relaxation * low), 1.0)
    return AcceleratedParameters(relaxation, 2 / (1 + q), 1 - q)
