"""Checks of the constants that rates are functions of.

Rules of this file:

- a check returns plain Python numbers; the largest eigenvalue of an averaged projection is at most 1, so what rounding
  puts above 1 is 1.

References
----------
Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear systems",
arXiv:2004.02163: ``W = B^-1/2 E[Z] B^-1/2``, whose eigenvalues lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Collection

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import number

BOUNDS = ("paper", "tight")
ROUNDING = 1e-9


def spectrum_ends(lambda_min: float, lambda_max: float, zero: bool = False) -> tuple[float, float]:
    """The ends of a spectrum in (0, 1], or in [0, 1] where `zero`; up to 1e-9 above 1 is rounding.

    Examples
    --------
    >>> spectrum_ends(0.1, 1 + 1e-12)
    (0.1, 1.0)
    """
    what = "the smallest nonzero eigenvalue of W"
    low = number(lambda_min, "lambda_min", above=None if zero else 0.0, low=0.0, high=1 + ROUNDING, what=what)
    high = number(lambda_max, "lambda_max", above=0.0, high=1 + ROUNDING, what="the largest eigenvalue of W")
    if low > high * (1 + ROUNDING):
        raise InvalidInputError(f"lambda_min must be at most lambda_max, not {low:g} > {high:g}")
    high = min(high, 1.0)
    return min(low, high), high


def one_of(value: str, name: str, known: Collection[str]) -> str:
    """One of the names known.

    Examples
    --------
    >>> one_of("tight", "bound", BOUNDS)
    'tight'
    """
    if value not in known:
        raise InvalidInputError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value
