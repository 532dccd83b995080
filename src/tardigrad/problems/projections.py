"""Feasible sets of constrained problems: every set with its projection, products of sets, and what users may pass.

Rules of this file:

- users and rules import sets from here;
- a constraint is any `ConvexSet`; what else users have at hand is turned into one in one place, `as_constraint`.
"""

from __future__ import annotations

from typing import Any

from tardigrad.core.errors import InvalidInputError
from tardigrad.problems.convex_set import ConvexSet
from tardigrad.problems.elementary_sets import Ball, Box, WholeSpace
from tardigrad.problems.user_set import UserSet, check_projection

__all__ = ["Ball", "Box", "ConvexSet", "UserSet", "WholeSpace", "as_constraint", "check_projection"]


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
