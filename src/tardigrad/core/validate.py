"""Checks of single arguments, with messages that name the argument and the value.

Rules of this file:

- a check returns the value as a plain Python number, so that float32 problems keep their precision: NumPy
  treats its own scalars as strong types and Python's as weak ones.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError


def integer(value: Any, name: str, low: int = 1, high: int | None = None) -> int:
    """An integer in [low, high]."""
    good = isinstance(value, Integral) and not isinstance(value, bool)
    if not (good and int(value) >= low and (high is None or int(value) <= high)):
        bounds = f">= {low}" if high is None else f"between {low} and {high}"
        raise InvalidInputError(f"{name} must be an integer {bounds}, not {value!r}")
    return int(value)


def optional_integer(value: Any, name: str, low: int = 1) -> int | None:
    """An integer >= low, or None."""
    return None if value is None else integer(value, name, low)


def number(
    value: Any,
    name: str,
    above: float | None = None,
    low: float | None = None,
    below: float | None = None,
    high: float | None = None,
    what: str = "a finite number",
) -> float:
    """A finite real number with ``above < value``, ``low <= value``, ``value < below``, ``value <= high``, where given."""
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value.item()
    try:
        plain = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of 400 digits
        plain = math.inf
    bounds = [(">", above), (">=", low), ("<", below), ("<=", high)]
    outside = (
        (above is not None and plain <= above)
        or (low is not None and plain < low)
        or (below is not None and plain >= below)
        or (high is not None and plain > high)
    )
    if outside or not math.isfinite(plain):
        wanted = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        raise InvalidInputError(f"{name} must be {what}{' ' * bool(wanted)}{wanted}, not {value!r}")
    return plain


def yes_or_no(value: object, name: str) -> bool:
    """True or False, nothing that merely counts as one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(f"{name} must be True or False, not {value!r}")
    return bool(value)
