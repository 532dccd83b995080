"""Closed convex sets and the exact projection onto them: the base class and what its subclasses share.

Rules of this file:

- a set is plain data: numbers and arrays, which nobody changes afterwards;
- `project` is on the hot path: it checks nothing, works on all leading axes at once, and gives each row the same bits
  whatever rows stand beside it;
- numbers of a set are kept in float64 and used in the precision of the iterates.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain, same_bits
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import number

#: how far outside a point may lie that `contains` still takes for a member, in roundings of its own size
_ROUNDINGS = 1000


class ConvexSet(Plain):
    """Base class of closed convex sets. A subclass is a frozen dataclass (eq=False) of numbers and arrays.

    It defines `project`, `check`, `sample`, `bounded` and, where it is bounded, `diameter`.

    Examples
    --------
    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False)
    ... class Increasing2D(ConvexSet):
    ...     "Points of the plane with x[0] <= x[1]."
    ...
    ...     def project(self, y, out=None):
    ...         out = np.empty_like(y) if out is None else out
    ...         out[...] = np.where(y[..., :1] <= y[..., 1:], y, y.mean(axis=-1, keepdims=True))
    ...         return out
    ...
    ...     def check(self, dim):
    ...         if dim != 2:
    ...             raise InvalidInputError(f"Increasing2D is a set of the plane, not of R^{dim}")
    ...
    ...     def sample(self, rng, shape, dim):
    ...         return np.sort(rng.normal(size=(*shape, dim)), axis=-1)
    >>> Increasing2D().project(np.array([[3.0, 1.0], [0.0, 1.0]])).tolist()
    [[2.0, 2.0], [0.0, 1.0]]
    """

    @property
    def bounded(self) -> bool:
        """Whether the set is compact."""
        return False

    @abstractmethod
    def project(self, y: Array, out: Array | None = None) -> Array:
        """The nearest point of the set, in the Euclidean norm.

        Parameters
        ----------
        y : array (..., dim)
            Any points. A row that is not finite gives a row that is not, or a limit, and does not disturb the others.
        out : array like y, optional
            Where to write; may be `y` itself. Without it the result is a new array.

        Returns
        -------
        array (..., dim)
            In the precision of `y`. A point of the set comes back with the same bits, and where rounding decides whether
            it is one, on a boundary say, within rounding.
        """

    @abstractmethod
    def check(self, dim: int) -> None:
        """Refuse a space that the set does not live in.

        Raises
        ------
        InvalidInputError
            Unless the set is one of points of `dim` coordinates.
        """

    @abstractmethod
    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        """Points of the set, (*shape, dim), spread over it, some of them on its boundary, faces and corners."""

    def diameter(self, dim: int) -> float:
        """The largest distance of two points of the set, or a bound on it; inf where the set is unbounded."""
        return np.inf

    def distance(self, y: Array) -> Array:
        """Euclidean distance of points (..., dim) from the set."""
        y = as_floats(y)
        with np.errstate(over="ignore", invalid="ignore"):
            return lengths(y - self.project(y))

    def contains(self, x: Array, tol: float | None = None) -> Array:
        """Whether points (..., dim) lie in the set.

        Parameters
        ----------
        x : array (..., dim)
            Points.
        tol : float, optional
            The distance from the set that counts as none. Without it: what rounding explains.
        """
        x = as_floats(x)
        if tol is None:
            return self.distance(x) <= _ROUNDINGS * np.finfo(x.dtype).eps * lengths(x)
        return self.distance(x) <= number(tol, "tol", low=0)

    def _numbers(self, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        """What `project` needs for iterates of this type; `_numbers_in` converts the numbers and keeps them."""
        return ()

    def _numbers_in(self, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        """The numbers of the set in the precision of the iterates, made once for each."""
        cache: dict[np.dtype[Any], tuple[Any, ...]] = self.__dict__.setdefault("_cache", {})
        found = cache.get(dtype)
        if found is None:
            with np.errstate(over="ignore", under="ignore"):
                found = tuple(v if isinstance(v, bool) else np.asarray(v).astype(dtype)[()] for v in self._numbers(dtype))
            cache[dtype] = found
        return found

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and same_bits(self, other)

    def __hash__(self) -> int:  # arrays have none; few sets are ever put together in one table
        return hash(type(self))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}


def as_floats(y: Array) -> Array:
    """Points as an array of real numbers: floats as they are, others as float64."""
    return y if isinstance(y, np.ndarray) and y.dtype.kind == "f" else np.asarray(y, np.float64)


def contiguous_rows(y: Array) -> Array:
    """The same points with the coordinates of each side by side: sums over a row then have the same bits always."""
    return y if y.strides[-1] == y.itemsize else np.ascontiguousarray(y)


def lengths(v: Array) -> Array:
    """Euclidean norms over the last axis, right also where squares would overflow or vanish."""
    largest = np.abs(v).max(axis=-1, initial=0)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = v / np.where(largest > 0, largest, 1)[..., np.newaxis]
        found: Array = largest * np.sqrt(np.vecdot(scaled, scaled))
    return found


def deliver(x: Array, out: Array | None) -> Array:
    """`x` where the caller wants it."""
    if out is None:
        return x
    np.copyto(out, x)
    return out


def number_or_vector(value: Any, name: str, infinite: bool = False) -> float | Array:
    """A number, or a vector (dim,) of numbers: read-only float64; finite, unless told otherwise."""
    wanted = f"a number or a vector (dim,) of {'numbers' if infinite else 'finite numbers'}"
    try:
        given = np.asarray(value)
    except ValueError:
        given = np.array(None)
    if given.dtype.kind not in "iuf" or given.ndim > 1 or not given.size:
        shown = f"{given.dtype} of shape {given.shape}" if given.ndim else repr(value)
        raise InvalidInputError(f"{name} must be {wanted}, not {shown}")
    found = given.astype(np.float64)
    bad = np.isnan(found) if infinite else ~np.isfinite(found)
    if bad.any():
        at = f"[{int(np.argmax(bad))}]" if found.ndim else ""
        raise InvalidInputError(f"{name}{at} is {found[bad][0]}: {name} must be {wanted}")
    if not found.ndim:
        return float(found)
    found.flags.writeable = False
    return found


def check_vector(value: float | Array, name: str, owner: ConvexSet, dim: int) -> None:
    """Refuse a vector that is not one of `dim` numbers; a number serves every dimension."""
    if np.ndim(value) and np.shape(value) != (dim,):
        raise InvalidInputError(
            f"{type(owner).__name__} is a set of R^{np.size(value)}, for its {name} has {np.size(value)} entries,"
            f" but the iterates have {dim}: give a number, or {dim} of them"
        )
