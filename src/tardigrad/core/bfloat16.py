"""Arrays of bfloat16 numbers: float32 with the 16 lower bits away. NumPy has no such type.

Rules of this file:

- where one computes, they are float32 arrays whose lower bits are zero: every rule can add them, whatever it is;
- where they are sent, they are the upper bits: half the bytes, and nothing is lost on the way.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from tardigrad.core.task import Array, Payload

#: type of arrays of upper halves: two bytes that are no number, so no rule's payload has it
NARROW = np.dtype("V2")


def rounded(payload: Payload) -> Payload:
    """The float32 arrays of a payload, each entry the nearest bfloat16 number, of two the even one; others as they are.

    Examples
    --------
    >>> rounded(np.array([1.0, 1.003, 1.005], np.float32))
    array([1.       , 1.       , 1.0078125], dtype=float32)
    """
    return tuple(map(_rounded, payload)) if isinstance(payload, tuple) else _rounded(payload)


def _rounded(array: Array) -> Array:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        return array
    bits = np.asarray(array, order="C").view(np.uint32)
    found = np.right_shift(bits, 16, np.empty_like(bits))
    found &= 1
    found += 0x7FFF
    found += bits
    found &= 0xFFFF0000
    values: Array = found.view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        usual = isfinite(np.vdot(array, array))
    if not usual:
        values[np.isnan(array)] = np.nan  # rounding could have made an infinity of it
    return values


def narrowed(payload: Payload) -> Payload:
    """The upper halves of the float32 arrays of a payload that is `rounded`, as arrays of `NARROW`."""
    return tuple(map(_narrowed, payload)) if isinstance(payload, tuple) else _narrowed(payload)


def _narrowed(array: Array) -> Array:
    if array.dtype != np.float32:
        return array
    return np.asarray(array.view(np.uint32) >> 16, np.uint16).view(NARROW)


def widened(payload: Payload) -> Payload:
    """The payload that was `narrowed`; others as they are."""
    return tuple(map(_widened, payload)) if isinstance(payload, tuple) else _widened(payload)


def _widened(array: Array) -> Array:
    if array.dtype != NARROW:
        return array
    found = np.array(array.view(np.uint16), np.uint32)
    found <<= 16
    return found.view(np.float32)
