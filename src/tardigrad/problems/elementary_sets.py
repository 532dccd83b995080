"""The whole space, boxes and Euclidean balls.

Rules of this file:

- a point of the set comes back with the same bits;
- squares that overflow or vanish are seen, and only the rows that they belong to are computed in another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import number
from tardigrad.problems.convex_set import (
    ConvexSet,
    as_floats,
    check_vector,
    contiguous_rows,
    deliver,
    lengths,
    number_or_vector,
)


@dataclass(frozen=True, eq=False)
class WholeSpace(ConvexSet):
    """All of R^dim: no constraint.

    Examples
    --------
    >>> import numpy as np
    >>> WholeSpace().project(np.array([3.0, -4.0]))
    array([ 3., -4.])
    """

    def project(self, y: Array, out: Array | None = None) -> Array:
        return deliver(as_floats(y), out) if out is not None else np.array(as_floats(y))

    def check(self, dim: int) -> None:
        pass

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        return rng.normal(size=(*shape, dim)) * 10 ** rng.uniform(-2, 3, (*shape, 1))


@dataclass(frozen=True, eq=False)
class Box(ConvexSet):
    """Points with ``low <= x <= high`` in every coordinate.

    Parameters
    ----------
    low, high : float or array (dim,)
        The bounds, ``low <= high``; -inf and inf leave a side open.

    Raises
    ------
    InvalidInputError
        If a bound is not a number or a vector of them, or the box is empty.

    Examples
    --------
    >>> import numpy as np
    >>> Box(0.0, [2.0, np.inf]).project(np.array([-1.0, 5.0]))
    array([0., 5.])
    """

    low: float | Array
    high: float | Array

    def __post_init__(self) -> None:
        low, high = number_or_vector(self.low, "low", infinite=True), number_or_vector(self.high, "high", infinite=True)
        if np.ndim(low) and np.ndim(high) and np.shape(low) != np.shape(high):
            raise InvalidInputError(f"low has {np.size(low)} entries and high {np.size(high)}: give as many, or a number")
        lows, highs = (np.atleast_1d(bound) for bound in np.broadcast_arrays(low, high))
        empty = (lows > highs) | (lows == np.inf) | (highs == -np.inf)
        if empty.any():
            i = int(np.argmax(empty))
            at = f"[{i}]" if len(lows) > 1 else ""
            raise InvalidInputError(f"the box is empty: low{at} = {lows[i]:g}, high{at} = {highs[i]:g}; swap them?")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def bounded(self) -> bool:
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def project(self, y: Array, out: Array | None = None) -> Array:
        y = as_floats(y)
        low, high = self._numbers_in(y.dtype)
        # of equal numbers, which +0 and -0 are, the second is returned: y
        x = np.maximum(low, y, out=out)
        return np.minimum(high, x, out=x)

    def check(self, dim: int) -> None:
        check_vector(self.low, "low", self, dim)
        check_vector(self.high, "high", self, dim)

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        low, high = (np.broadcast_to(bound, (*shape, dim)) for bound in (self.low, self.high))
        start = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, 0.0))
        side = np.where(np.isfinite(low), 1.0, np.where(np.isfinite(high), -1.0, rng.choice([-1.0, 1.0], low.shape)))
        x = start + side * rng.exponential(size=low.shape) * 10 ** rng.uniform(-2, 3, (*shape, 1))
        closed = np.isfinite(low) & np.isfinite(high)
        share = rng.random(low.shape)
        between = np.where(closed, low, 0) * (1 - share) + np.where(closed, high, 0) * share
        x = np.where(closed, between, x)
        # the share of the coordinates that lie on a bound runs from none, inner points, to all, corners
        on_bound = rng.random(low.shape) < rng.uniform(-0.5, 1.5, (*shape, 1))
        bound = np.where(np.isfinite(low) & ((rng.random(low.shape) < 0.5) | np.isinf(high)), low, high)
        return self.project(np.where(on_bound & np.isfinite(bound), bound, x))

    def diameter(self, dim: int) -> float:
        if not self.bounded:
            return np.inf
        with np.errstate(over="ignore"):
            return float(lengths(np.broadcast_to(np.subtract(self.high, self.low), (dim,))))

    def _numbers(self, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        return self.low, self.high


@dataclass(frozen=True, eq=False)
class Ball(ConvexSet):
    """Points with ``|x - center| <= radius`` in the Euclidean norm.

    Parameters
    ----------
    radius : float
        ``>= 0``; 0 leaves the centre alone.
    center : float or array (dim,)
        The centre; a number stands for a vector of equal coordinates.

    Raises
    ------
    InvalidInputError
        If the radius is negative, or a number is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> Ball(1.0).project(np.array([[3.0, -4.0], [0.1, 0.2]]))
    array([[ 0.6, -0.8],
           [ 0.1,  0.2]])
    """

    radius: float
    center: float | Array = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", number(self.radius, "radius", low=0))
        object.__setattr__(self, "center", number_or_vector(self.center, "center"))
        object.__setattr__(self, "_centered", not np.any(self.center))

    @property
    def bounded(self) -> bool:
        return True

    def project(self, y: Array, out: Array | None = None) -> Array:
        y = as_floats(y)
        if self.__dict__["_centered"]:
            return self._shrink(y, out)[0]
        with np.errstate(over="ignore", invalid="ignore"):
            x = y - self._numbers_in(y.dtype)[1]
        x, inside = self._shrink(x, x)
        x += self._numbers_in(y.dtype)[1]
        np.copyto(x, y, where=inside[..., np.newaxis])
        return deliver(x, out)

    def _shrink(self, v: Array, out: Array | None) -> tuple[Array, Array]:
        """Projection onto the ball around 0, and which points lay in it."""
        radius, _, floor, squares_serve = self._numbers_in(v.dtype)
        v = contiguous_rows(v)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(np.vecdot(v, v))
        scale = radius / np.maximum(norms, floor)  # exactly 1 inside
        inside = norms <= radius
        if squares_serve and np.maximum.reduce(norms, axis=None, initial=0) < np.inf:
            return np.multiply(v, scale[..., np.newaxis], out=out), inside
        rows = ~(norms < np.inf) if squares_serve else np.ones(norms.shape, bool)
        inside = np.array(inside)
        with np.errstate(invalid="ignore"):
            x = v * scale[..., np.newaxis]
            x[rows], inside[rows] = _shrink_scaled(v[rows], radius)
        return deliver(x, out), inside

    def check(self, dim: int) -> None:
        check_vector(self.center, "center", self, dim)

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        directions = rng.normal(size=(*shape, dim))
        axis = rng.integers(dim, size=(*shape, 1))
        along = rng.random((*shape, 1)) < 0.2
        directions = np.where(along, np.where(np.arange(dim) == axis, directions, 0), directions)
        directions /= lengths(directions)[..., np.newaxis]
        share = np.where(rng.random((*shape, 1)) < 0.5, 1, rng.random((*shape, 1)))
        return self.project(self.center + self.radius * share * directions)

    def diameter(self, dim: int) -> float:
        return 2 * self.radius

    def _numbers(self, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        info = np.finfo(dtype)
        radius = np.asarray(min(self.radius, float(info.max))).astype(dtype)
        # the square of a tiny radius vanishes, and with it the difference between points inside and outside
        squares_serve = not 0 < radius < np.sqrt(info.tiny / info.eps)
        return radius, self.center, max(radius, info.tiny), squares_serve


def _shrink_scaled(v: Array, radius: Any) -> tuple[Array, Array]:
    """The same of rows (k, dim), each scaled by its largest entry, so that no square overflows or vanishes."""
    largest = np.abs(v).max(axis=-1, keepdims=True)
    direction = v / np.where(largest > 0, largest, 1)
    limit = radius / np.maximum(np.sqrt(np.vecdot(direction, direction)), 1)[..., np.newaxis]
    inside = largest <= limit
    return np.where(inside, v, direction * limit), inside[..., 0]
