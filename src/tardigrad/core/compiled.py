"""Loops that NumPy cannot do in one pass, compiled with numba.

Rules of this file:

- numba is imported at the first use, which costs half a second; `warm_up` does that before a run starts;
- arithmetic is that of NumPy, operation by operation: the same bits, whoever computes;
- the interpreter is free while they run, so threads do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array


def subtract_scaled(x: Array, g: Array, step: Any) -> None:
    """``x -= step * g`` for vectors, `step` as a number of x's type; of one type in one pass, without a temporary."""
    if g.shape != x.shape or x.ndim != 1:
        raise InvalidInputError(f"a gradient has shape {g.shape}, the iterate {x.shape}: they must be equal vectors")
    if g.dtype == x.dtype:
        _subtract_scaled()(x, g, x.dtype.type(step))
    else:  # types are mixed by NumPy's rules, not numba's, and nothing is compiled in the middle of a run
        x -= np.multiply(g, x.dtype.type(step), np.empty_like(x))


@lru_cache
def _subtract_scaled() -> Callable[[Array, Array, Any], None]:
    import numba

    @numba.njit(nogil=True)
    def kernel(x: Any, g: Any, step: Any) -> None:
        for i in range(x.size):
            x[i] -= step * g[i]

    loop: Callable[[Array, Array, Any], None] = kernel
    return loop


def mix_in(x: Array, y: Array, share: Any) -> None:
    """``x <- (1 - share) x + share y`` for vectors, `share` as a number of x's type; in one pass, without a temporary."""
    if y.shape != x.shape or x.ndim != 1:
        raise InvalidInputError(f"a reply has shape {y.shape}, the iterate {x.shape}: they must be equal vectors")
    part, rest = x.dtype.type(share), x.dtype.type(1.0 - share)
    if y.dtype == x.dtype:
        _mix_in()(x, y, part, rest)
    else:
        x *= rest
        x += np.multiply(y, part, np.empty_like(x))


@lru_cache
def _mix_in() -> Callable[[Array, Array, Any, Any], None]:
    import numba

    @numba.njit(nogil=True)
    def kernel(x: Any, y: Any, part: Any, rest: Any) -> None:
        for i in range(x.size):
            x[i] = rest * x[i] + part * y[i]

    loop: Callable[[Array, Array, Any, Any], None] = kernel
    return loop


def warm_up(dtype: np.dtype[Any], loop: Callable[[Array, Array, Any], None] = subtract_scaled) -> None:
    """Compile one of the functions above for iterates of a type, before any time is measured."""
    x, y = np.zeros((2, 1), dtype)
    loop(x, y, 0.0)
    y.flags.writeable = False  # as replies from a cluster are
    loop(x, y, 0.0)
