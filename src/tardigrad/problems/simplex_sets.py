"""The simplex and balls in the L1 norm.

Rules of this file:

- both projections are one: the L1 ball's is the simplex's, of absolute values;
- numbers are shifted and cut off before they are summed, so that nothing overflows and little is lost by cancellation;
- sums that decide the accuracy are pairwise sums of whole rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import number
from tardigrad.problems.convex_set import ConvexSet, as_floats, check_vector, deliver, number_or_vector

#: by how many roundings the sum of a point of the simplex may be off
_ROUNDINGS = 16


@dataclass(frozen=True, eq=False)
class Simplex(ConvexSet):
    """Points with ``x >= 0`` and ``sum(x) = total``: the probability simplex for total 1.

    Parameters
    ----------
    total : float
        What the coordinates add up to, ``>= 0``.

    Raises
    ------
    InvalidInputError
        If the total is negative or not finite.

    References
    ----------
    Held, Wolfe, Crowder, "Validation of subgradient optimization", Math. Programming 6, 1974, section 4: by sorting.

    Examples
    --------
    >>> import numpy as np
    >>> Simplex().project(np.array([[1.0, 0.5, -3.0], [0.25, 0.25, 0.5]]))
    array([[0.75, 0.25, 0.  ],
           [0.25, 0.25, 0.5 ]])
    """

    total: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", number(self.total, "total", low=0))

    @property
    def bounded(self) -> bool:
        return True

    def project(self, y: Array, out: Array | None = None) -> Array:
        y = as_floats(y)
        (total,) = self._numbers_in(y.dtype)
        x = onto_simplex(y, total)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.ascontiguousarray(y).sum(axis=-1)
        member = (np.abs(sums - total) <= _ROUNDINGS * np.finfo(y.dtype).eps * total) & (y.min(axis=-1, initial=np.inf) >= 0)
        if member.any():
            np.copyto(x, y, where=member[..., np.newaxis])
        return deliver(x, out)

    def check(self, dim: int) -> None:
        pass

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        x = rng.exponential(size=(*shape, dim))
        # faces of every dimension, down to corners: one coordinate at least stays
        stays = rng.random(x.shape) < rng.uniform(-0.5, 1.5, (*shape, 1))
        x *= stays | (np.arange(dim) == rng.integers(dim, size=(*shape, 1)))
        x *= self.total / x.sum(axis=-1, keepdims=True)
        return self.project(x)

    def diameter(self, dim: int) -> float:
        return float(np.sqrt(2) * self.total) if dim > 1 else 0.0

    def _numbers(self, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        return (min(self.total, float(np.finfo(dtype).max)),)


@dataclass(frozen=True, eq=False)
class L1Ball(ConvexSet):
    """Points with ``sum |x_i - center_i| <= radius``.

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

    References
    ----------
    Duchi, Shalev-Shwartz, Singer, Chandra, "Efficient projections onto the l1-ball for learning in high dimensions",
    ICML 2008, section 4: by the simplex.

    Examples
    --------
    >>> import numpy as np
    >>> L1Ball(1.0).project(np.array([[1.0, -0.5, 0.0], [0.25, -0.5, 0.0]]))
    array([[ 0.75, -0.25,  0.  ],
           [ 0.25, -0.5 ,  0.  ]])
    """

    radius: float
    center: float | Array = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", number(self.radius, "radius", low=0))
        object.__setattr__(self, "center", number_or_vector(self.center, "center"))

    @property
    def bounded(self) -> bool:
        return True

    def project(self, y: Array, out: Array | None = None) -> Array:
        y = as_floats(y)
        radius, center = self._numbers_in(y.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            v = np.ascontiguousarray(y - center)
            sizes = np.abs(v)
            outside = ~(sizes.sum(axis=-1) <= radius)
        x = deliver(y, out) if out is not None else np.array(y)
        if outside.any():
            v, sizes = v[outside], sizes[outside]
            x[outside] = np.copysign(onto_simplex(sizes, radius), v) + np.broadcast_to(center, y.shape)[outside]
        return x

    def check(self, dim: int) -> None:
        check_vector(self.center, "center", self, dim)

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        share = np.where(rng.random((*shape, 1)) < 0.5, 1, rng.random((*shape, 1)))
        signs = rng.choice([-1.0, 1.0], (*shape, dim))
        return self.project(self.center + share * signs * Simplex(self.radius).sample(rng, shape, dim))

    def diameter(self, dim: int) -> float:
        return 2 * self.radius

    def _numbers(self, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        return min(self.radius, float(np.finfo(dtype).max)), self.center


def onto_simplex(y: Array, total: Any) -> Array:
    """The nearest points to rows (..., dim) with ``x >= 0`` and ``sum(x) = total``: ``max(y - t, 0)``; a new array.

    The threshold t comes from the sorted rows; one Newton step on ``sum max(y - t, 0) = total`` then takes away the
    rounding of the running sums.
    """
    if not total:
        return np.where(np.isfinite(y), y.dtype.type(0), y.dtype.type(np.nan))
    with np.errstate(over="ignore", invalid="ignore"):
        z = np.ascontiguousarray(y) - y.max(axis=-1, keepdims=True, initial=-np.inf)
    np.maximum(z, -total, out=z)  # whatever lies further below the largest entry becomes 0
    info = np.finfo(z.dtype)
    if not info.tiny**0.5 < total < info.max**0.5:
        return _threshold(z / total, z.dtype.type(1)) * total
    return _threshold(z, total)


def _threshold(z: Array, total: Any) -> Array:
    """The same of rows with entries in [-total, 0], the largest of them 0; `z` is lost."""
    falling = np.sort(z, axis=-1)[..., ::-1]
    excess = np.cumsum(falling, axis=-1)
    excess -= total
    falling *= np.arange(1, z.shape[-1] + 1)
    support = np.maximum((falling > excess).sum(axis=-1, keepdims=True), 1)
    threshold = np.take_along_axis(excess, support - 1, axis=-1) / support.astype(z.dtype)
    x = np.maximum(z - threshold, 0)
    threshold += (x.sum(axis=-1, keepdims=True) - total) / support.astype(z.dtype)
    z -= threshold
    return np.maximum(z, 0, out=z)
