"""Feasible sets of constrained problems: every set with its projection, products of sets, and what users may pass.

Rules of this file:

- users and rules import sets from here;
- a constraint is any `ConvexSet`; what else users have at hand is turned into one in one place, `as_constraint`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import integer
from tardigrad.problems.convex_set import ConvexSet, as_floats
from tardigrad.problems.elementary_sets import Ball, Box, WholeSpace
from tardigrad.problems.matrix_sets import AffineSubspace, NuclearNormBall
from tardigrad.problems.projection_check import check_projection
from tardigrad.problems.simplex_sets import L1Ball, Simplex
from tardigrad.problems.user_set import UserSet

__all__ = [
    "AffineSubspace",
    "Ball",
    "Box",
    "ConvexSet",
    "L1Ball",
    "NuclearNormBall",
    "ProductSet",
    "Simplex",
    "UserSet",
    "WholeSpace",
    "as_constraint",
    "check_projection",
]


@dataclass(frozen=True, eq=False)
class ProductSet(ConvexSet):
    """Points whose first ``dims[0]`` coordinates lie in ``sets[0]``, the next ``dims[1]`` in ``sets[1]``, and so on.

    Parameters
    ----------
    sets : sequence of ConvexSet
        The factors.
    dims : sequence of int
        How many coordinates each of them takes.

    Raises
    ------
    InvalidInputError
        If there are not as many sets as dims, or a set does not live in the space of its coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> ProductSet([Box(0.0, 1.0), Ball(1.0)], [1, 2]).project(np.array([7.0, 3.0, 4.0]))
    array([1. , 0.6, 0.8])
    """

    sets: Sequence[ConvexSet]
    dims: Sequence[int]

    def __post_init__(self) -> None:
        for name, value, wanted in (("sets", self.sets, "sets"), ("dims", self.dims, "integers")):
            if not isinstance(value, (list, tuple, np.ndarray)) or not len(value):
                raise InvalidInputError(f"{name} must be a list of {wanted}, at least one, not {value!r:.200}")
        sets, dims = tuple(self.sets), tuple(integer(dim, f"dims[{i}]") for i, dim in enumerate(self.dims))
        if len(sets) != len(dims):
            raise InvalidInputError(f"there are {len(sets)} sets and {len(dims)} dims: give each set its number of coordinates")
        for i, (factor, dim) in enumerate(zip(sets, dims, strict=True)):
            if not isinstance(factor, ConvexSet):
                raise InvalidInputError(f"sets[{i}] must be a set, such as Box or Ball or UserSet, not {factor!r:.200}")
            try:
                factor.check(dim)
            except InvalidInputError as error:
                raise InvalidInputError(f"sets[{i}] does not fit dims[{i}] = {dim}: {error}") from None
        object.__setattr__(self, "sets", sets)
        object.__setattr__(self, "dims", dims)

    @property
    def bounded(self) -> bool:
        return all(factor.bounded for factor in self.sets)

    def project(self, y: Array, out: Array | None = None) -> Array:
        y = as_floats(y)
        x = np.empty_like(y) if out is None else out
        for factor, part, _ in self._parts():
            factor.project(y[..., part], out=x[..., part])
        return x

    def check(self, dim: int) -> None:
        if sum(self.dims) != dim:
            raise InvalidInputError(f"dims add up to {sum(self.dims)}, but the iterates have {dim} coordinates: {self.dims}")

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        return np.concatenate([factor.sample(rng, shape, size) for factor, _, size in self._parts()], axis=-1)

    def diameter(self, dim: int) -> float:
        return math.hypot(*(factor.diameter(size) for factor, _, size in self._parts()))

    def _parts(self) -> Iterator[tuple[ConvexSet, slice, int]]:
        """Each factor, its coordinates and their number."""
        begin = 0
        for factor, dim in zip(self.sets, self.dims, strict=True):
            yield factor, slice(begin, begin + dim), dim
            begin += dim


def as_constraint(value: Any, dim: int) -> ConvexSet:
    """The feasible set that a user means, checked.

    Parameters
    ----------
    value : None, ConvexSet, scipy.optimize.Bounds or callable
        None is the whole space, bounds are a box, and a function that takes a point (dim,) and returns its projection is
        a `UserSet`.
    dim : int
        Number of unknowns.

    Raises
    ------
    InvalidInputError
        If the value is nothing of these, is empty, is a set of another space, or is a function that does not project.

    Examples
    --------
    >>> from scipy.optimize import Bounds
    >>> as_constraint(Bounds(0.0, 2.0), 101)
    Box(low=0.0, high=2.0)
    """
    if value is None:
        return WholeSpace()
    found = value if isinstance(value, ConvexSet) else _converted(value)
    found.check(dim)
    return found


def _converted(value: Any) -> ConvexSet:
    from scipy.optimize import Bounds

    if isinstance(value, Bounds):
        low, high = (bound[0] if bound.shape == (1,) else bound for bound in (value.lb, value.ub))
        return Box(low, high)
    if callable(value) and not isinstance(value, type):
        return UserSet(value)
    meant = f"{value.__name__} is a class: call it with its parameters; " if isinstance(value, type) else ""
    raise InvalidInputError(
        f"{meant}constraint must be None, a set (Box, Ball, Simplex, L1Ball, AffineSubspace, NuclearNormBall, ProductSet"
        f" or another ConvexSet), scipy.optimize.Bounds, or a function that projects a point (dim,), not {value!r:.200}"
    )
