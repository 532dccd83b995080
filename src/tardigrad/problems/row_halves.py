"""The two halves of a row step, compiled: ``c = omega (b_i - a_i . x) / (a_i . B^-1 a_i)``, and ``x += c B^-1 a_i``.

Rules of this file:

- the maths stands once: compiled loops (`row_kernels`) and Python code call these functions, and get the same bits;
- sums are taken in any order, which is what vector units need, so bits are those of one kind of CPU; what is added to x is
  rounded as NumPy does;
- B is the identity or diagonal, `scale` the diagonal of its inverse;
- a norm comes with every coefficient: where it is not safe, the caller asks again for a careful one.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from tardigrad.problems.atomic import atomic
from tardigrad.problems.private_copies import compilers


@lru_cache
def safe_norm() -> Any:
    """Whether the square of a row's norm is right to working precision: it neither underflowed nor overflowed."""

    def is_safe(norm: Any, x: Any) -> Any:
        precision = np.finfo(x.dtype)
        return precision.tiny / precision.eps < norm < precision.max

    return compilers()[1](is_safe)


@lru_cache
def dense_coefficients(scaled: bool) -> SimpleNamespace:
    """``coef, careful, pair_coef`` of dense rows.

    Parameters
    ----------
    scaled : bool
        Whether B is diagonal; for the identity, `scale` is not read.
    """
    fast, is_safe = compilers()[0], safe_norm()

    @fast
    def careful(a: Any, x: Any, scale: Any, b: Any, omega: Any) -> Any:
        """`coef` where the norm is not safe: of the row divided by its largest entry; 0, 0 for a zero row."""
        largest = total = product = norm = x.dtype.type(0)
        for j in range(a.size):
            largest = max(abs(a[j]), largest)
            total += abs(a[j])
        if not largest > 0:
            return total, total  # 0, or NaN
        for j in range(a.size):
            u = a[j] / largest
            product += u * x[j]
            norm += u * u * scale[j] if scaled else u * u
        return omega * (b / largest - product) / norm / largest, norm

    @fast
    def coef(a: Any, x: Any, scale: Any, b: Any, omega: Any) -> Any:
        """``(c, norm)`` of a row, right where the norm is safe."""
        product = norm = x.dtype.type(0)
        for j in range(a.size):
            product += a[j] * x[j]
            norm += a[j] * a[j] * scale[j] if scaled else a[j] * a[j]
        return (omega * (b - product) / norm if norm > 0 else norm), norm

    @fast
    def pair_coef(a: Any, d: Any, x: Any, scale: Any, b: Any, e: Any, omega: Any) -> Any:
        """``(c_1, c_2, norm_1, norm_2)`` of rows a and d with right-hand sides b and e, d after a; only of safe norms."""
        ax = dx = aa = dd = ad = x.dtype.type(0)
        for j in range(a.size):
            u = a[j] * scale[j] if scaled else a[j]
            v = d[j] * scale[j] if scaled else d[j]
            ax += a[j] * x[j]
            dx += d[j] * x[j]
            aa += a[j] * u
            dd += d[j] * v
            ad += u * d[j]
        if not (is_safe(aa, x) and is_safe(dd, x)):
            return aa, dd, aa, dd
        c = omega * (b - ax) / aa
        return c, omega * (e - dx - c * ad) / dd, aa, dd

    return SimpleNamespace(coef=coef, careful=careful, pair_coef=pair_coef)


@lru_cache
def dense_scatters(scaled: bool) -> SimpleNamespace:
    """``scatter, pair_scatter`` of dense rows."""
    plain = compilers()[1]

    @plain
    def scatter(x: Any, a: Any, scale: Any, c: Any) -> None:
        for j in range(a.size):
            x[j] += c * (a[j] * scale[j] if scaled else a[j])

    @plain
    def pair_scatter(x: Any, a: Any, d: Any, scale: Any, c: Any, e: Any) -> None:
        for j in range(a.size):
            first = x[j] + c * (a[j] * scale[j] if scaled else a[j])
            x[j] = first + e * (d[j] * scale[j] if scaled else d[j])

    return SimpleNamespace(scatter=scatter, pair_scatter=pair_scatter)


@lru_cache
def sparse_coefficients(scaled: bool) -> SimpleNamespace:
    """``coef, careful`` of sparse rows.

    Parameters
    ----------
    scaled : bool
        Whether B is diagonal; for the identity, `scale` is not read.
    """
    fast = compilers()[0]

    @fast
    def careful(values: Any, columns: Any, x: Any, scale: Any, b: Any, omega: Any) -> Any:
        """`coef` where the norm is not safe: of the row divided by its largest entry; 0, 0 for a zero row."""
        largest = total = product = norm = x.dtype.type(0)
        for p in range(values.size):
            largest = max(abs(values[p]), largest)
            total += abs(values[p])
        if not largest > 0:
            return total, total  # 0, or NaN
        for p in range(values.size):
            j, u = columns[p], values[p] / largest
            product += u * x[j]
            norm += u * u * scale[j] if scaled else u * u
        return omega * (b / largest - product) / norm / largest, norm

    @fast
    def coef(values: Any, columns: Any, x: Any, scale: Any, b: Any, omega: Any) -> Any:
        """``(c, norm)`` of a row, right where the norm is safe."""
        product = norm = x.dtype.type(0)
        for p in range(values.size):
            j = columns[p]
            product += values[p] * x[j]
            norm += values[p] * values[p] * scale[j] if scaled else values[p] * values[p]
        return (omega * (b - product) / norm if norm > 0 else norm), norm

    return SimpleNamespace(coef=coef, careful=careful)


@lru_cache
def sparse_scatter(scaled: bool, shared: bool) -> Any:
    """``scatter`` of sparse rows; a shared one loses nothing where others write to the same x."""
    plain = compilers()[1]
    load, replace = atomic().load, atomic().replace

    @plain
    def scatter(x: Any, values: Any, columns: Any, scale: Any, c: Any) -> None:
        for p in range(values.size):
            j = columns[p]
            d = c * (values[p] * scale[j] if scaled else values[p])
            if not shared:
                x[j] += d
                continue
            found = load(x, j)
            while not replace(x, j, found, found + d):
                found = load(x, j)

    return scatter
