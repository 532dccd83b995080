"""Compiled loops from products of points to kernel values, in place, in vector units.

A row of products z.x_j becomes squared distances ``|z|^2 + |x_j|^2 - 2 z.x_j``; those of points so near to each other that
the difference is rounding only are computed again from the points. While the row is in the cache, it becomes kernel values.

The exponential of float32: ``exp(y) = 2^k exp(f)``, k the whole number next to y / log(2) and f the rest (in two parts after
Cody and Waite, 1980), |f| <= log(2) / 2; a polynomial of degree 6 for exp(f), off by 3e-9; k is added to the bits of the
exponent. The result is off by less than one unit in the last place, exactly 1 at 0, and 0 from y = -87.7 on, where it
would be below 0.7 of the smallest normal number: what is smaller makes sums no better and arithmetic ten times slower.

Rules of this file:

- NaN and infinity keep their meaning, so compilers may reorder sums and fuse products with them, nothing else;
- in the exponential not even sums: its parts would be added up again;
- a loop that the compiler does not vectorise is ten times slower: tests look for vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from tardigrad.problems.private_copies import FAST

#: products may be fused with sums
_EXACT = {"nsz", "contract"}
#: squared distances below this share of the norms are computed from the points
NEAR = 2.0**-9
#: kernels that have a loop
KINDS = ("exp(-r)", "exp(-r^2)", "matern 3/2", "matern 5/2", "exp(-r^gamma)")


@lru_cache
def exponentials() -> SimpleNamespace:
    """``exp(y)`` for y <= 0 in float32, and ``power(s, g) = s^g`` for s >= 0 in float64, both made of vector arithmetic."""
    import numba

    number, integer = np.float32, np.int32
    whole, per_log = number(1.5 * 2**23), number(1 / np.log(2))  # added and taken away, `whole` rounds
    high, low = number(0.693359375), number(np.log(2) - 0.693359375)
    c2, c3, c4, c5, c6 = map(number, (0.49999994, 0.16666521, 0.04166839, 0.008368745, 0.001381454))  # least largest error
    zero, one, bottom = number(0), number(1), number(-88)  # 2^-127, whose bits are those of 0

    @numba.njit(fastmath=_EXACT)
    def exp(y: Any) -> Any:
        y = bottom if y < bottom else y
        shifted = y * per_log + whole
        k = shifted - whole
        f = y - k * high
        f -= k * low
        p = ((((c6 * f + c5) * f + c4) * f + c3) * f + c2) * f + one
        power = np.int32((np.float32(shifted).view(np.int32) + integer(127)) << integer(23))
        return (p * f + one) * np.int32(power).view(np.float32)

    root, mantissa = integer(np.float32(np.sqrt(0.5)).view(np.int32)), integer(2**23 - 1)
    tiny, huge, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max, number(128)
    to_log, log_2 = float(2 / np.log(2)), float(np.log(2))
    l1, l2, l3, l4, l5 = (1 / k for k in (3, 5, 7, 9, 11))
    e3, e4, e5, e6, e7 = (1 / k for k in (6, 24, 120, 720, 5040))

    @numba.njit(fastmath=_EXACT, error_model="numpy")  # no check for a division by 0, which stands in the way of vectors
    def power(s: Any, scale: Any, g: Any) -> Any:
        """``(s scale)^g`` by ``2^(g log2(s scale))``, at most 128; log2 from the series of atanh, off by 1e-9."""
        bits = np.int32(np.float32(s).view(np.int32) - root)
        exponent = np.int32(bits >> integer(23))
        m = np.float64(np.int32((bits & mantissa) + root).view(np.float32))
        t = (m - 1.0) / (m + 1.0)
        u = t * t
        series = ((((l5 * u + l4) * u + l3) * u + l2) * u + l1) * u + 1.0
        x = g * (np.float64(exponent) + to_log * t * series + scale)
        x = -120.0 if x < -120.0 else x
        x = 7.0 if x > 7.0 else x
        shifted = x + 6755399441055744.0
        k = shifted - 6755399441055744.0
        f = (x - k) * log_2
        p = (((((e7 * f + e6) * f + e5) * f + e4) * f + e3) * f + 0.5) * f + 1.0
        two = np.int32((np.int32(k) + integer(127)) << integer(23)).view(np.float32)
        y = np.float32(p * f + 1.0) * two
        y = largest if s > huge else y
        y = zero if s < tiny else y
        return s if np.isnan(s) else y

    return SimpleNamespace(exp=exp, power=power)


@lru_cache
def formula(kind: str | None) -> Any:
    """``value(s, scale, g)`` of a squared distance; None leaves it.

    With ``y = sqrt(s) scale``: ``exp(-y)``, ``exp(-s scale)``, ``(1 + y) exp(-y)``, ``(1 + y + y^2 / 3) exp(-y)`` and
    ``exp(-(s 2^scale)^g)``.
    """
    import numba

    functions = exponentials()
    exp, power = functions.exp, functions.power
    zero, one, third = np.float32(0), np.float32(1), np.float32(1 / 3)

    # ruff: noqa: ARG001 (all formulas take the same numbers)
    @numba.njit(fastmath=_EXACT)
    def laplacian(s: Any, scale: Any, g: Any) -> Any:
        return exp(-(np.sqrt(s) * scale))

    @numba.njit(fastmath=_EXACT)
    def gaussian(s: Any, scale: Any, g: Any) -> Any:
        return exp(-(s * scale))

    @numba.njit(fastmath=_EXACT)
    def matern_3(s: Any, scale: Any, g: Any) -> Any:
        y = np.sqrt(s) * scale
        e = exp(-y)
        return zero if e == zero else e * (one + y)

    @numba.njit(fastmath=_EXACT)
    def matern_5(s: Any, scale: Any, g: Any) -> Any:
        y = np.sqrt(s) * scale
        e = exp(-y)
        return zero if e == zero else e * ((y * third + one) * y + one)

    @numba.njit(fastmath=_EXACT)
    def dispersal(s: Any, scale: Any, g: Any) -> Any:
        return exp(-power(s, scale, g))

    @numba.njit
    def nothing(s: Any, scale: Any, g: Any) -> Any:
        return s

    return dict(zip((*KINDS, None), (laplacian, gaussian, matern_3, matern_5, dispersal, nothing), strict=True))[kind]


def arrays(dtype: Any) -> tuple[Any, Any, Any]:
    """Types of arguments: a matrix that is written to; a vector and a matrix that are read only, or need not be."""
    from numba import from_dtype, types

    entry = from_dtype(np.dtype(dtype))
    return entry[:, ::1], types.Array(entry, 1, "C", readonly=True), types.Array(entry, 2, "C", readonly=True)


@lru_cache
def tile_loop(kind: str | None, dtype: Any) -> Callable[..., None]:
    """``loop(values, norms, others, Z, X, scale, g)``: products of rows of Z and X to kernel values, in place.

    It is compiled when it is asked for. With norms of 0, products are ``-|z - x|^2 / 2``, and points are not looked at.

    Parameters
    ----------
    kind : str or None
        One of `KINDS`, for float32; None for squared distances.
    dtype : dtype
        Precision of all arrays.
    """
    import numba

    value = formula(kind)

    @numba.njit(fastmath=_EXACT)
    def first(row: Any, kept: Any, norm: Any, others: Any, near: Any, scale: Any, g: Any) -> Any:
        """Values of a row, from products that are kept; how many are of points that are near to each other."""
        count = np.int32(0)
        for j in range(row.size):
            both = norm + others[j]
            kept[j] = row[j]
            square = both - (row[j] + row[j])
            row[j] = value(square, scale, g)
            count = np.int32(count + (np.int32(1) if square < near * both else np.int32(0)))
        return count

    @numba.njit(fastmath=FAST)
    def apart(z: Any, x: Any) -> Any:
        total = z.dtype.type(0)
        for k in range(z.size):
            total += (z[k] - x[k]) * (z[k] - x[k])
        return total

    @numba.njit(fastmath=_EXACT)
    def again(row: Any, kept: Any, norm: Any, others: Any, near: Any, z: Any, X: Any, scale: Any, g: Any) -> None:
        """The values of near points once more, from the points."""
        for j in range(row.size):
            both = norm + others[j]
            square = both - (kept[j] + kept[j])
            if square < near * both:
                row[j] = value(apart(z, X[j]), scale, g)

    def loop(values: Any, norms: Any, others: Any, Z: Any, X: Any, scale: Any, g: Any) -> None:
        near, kept = values.dtype.type(NEAR), np.empty(values.shape[1], values.dtype)
        for i in range(values.shape[0]):
            if first(values[i], kept, norms[i], others, near, scale, g):
                again(values[i], kept, norms[i], others, near, Z[i], X, scale, g)

    written, vector, matrix = arrays(dtype)
    scale = numba.float64 if kind == KINDS[4] else numba.float32
    signature = numba.void(written, vector, vector, matrix, matrix, scale, numba.float64)
    compiled: Callable[..., None] = numba.njit(signature, nogil=True)(loop)
    return compiled


@lru_cache
def gather_loop(dtype: Any) -> Callable[..., None]:
    """``loop(values, columns, low, out, first, begin)``: some columns of a tile that begins at `low`, to rows of `out`.

    A column becomes a row, so that what is written lies together; else a cache line would be fetched for an entry or two.
    """
    import numba

    def loop(values: Any, columns: Any, low: int, out: Any, first: int, begin: int) -> None:
        for j in range(columns.size):
            row, column = out[begin + j], columns[j] - low
            for i in range(values.shape[0]):
                row[first + i] = values[i, column]

    written, _, matrix = arrays(dtype)
    whole = numba.int64
    positions = arrays(np.int64)[1]
    compiled: Callable[..., None] = numba.njit(numba.void(matrix, positions, whole, written, whole, whole), nogil=True)(loop)
    return compiled
