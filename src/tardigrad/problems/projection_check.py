"""The check that a function is the projection onto a closed convex set.

Rules of this file:

- what is tried are points near and far, 0, and points that the set's own scale suggests; a user's projection may be slow;
- deviations that an iterative solver's accuracy explains are let through;
- an error shows the points that gave a function away, and says what to look at.

The properties are those that characterise a projection P: ``P(P(y)) = P(y)``, ``|P(y) - P(z)| <= |y - z|``, and
``<y - P(y), z - P(y)> <= 0`` for all z of the set (Bauschke, Combettes, "Convex analysis and monotone operator theory in
Hilbert spaces", 2011, theorem 3.14 and proposition 4.8).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.problems.convex_set import ConvexSet, lengths

#: magnitudes of the points tried, beside 0, and how many points of each; a user's projection may be slow
_MAGNITUDES, _EACH = (0.1, 1.0, 10.0, 1e4), 3
#: deviations that an iterative solver's accuracy explains, relative to the projected point and to the point given
_OF_RESULT, _OF_POINT = 1e-4, 1e-6
#: letters of a set's description in a message
_NAME = 80


def check_projection(constraint: ConvexSet, dim: int, rng: Rng) -> None:
    """See whether `project` projects onto a closed convex set, by some random points near and far.

    Parameters
    ----------
    constraint : ConvexSet
        The set to check; a user's function is given as `UserSet(function)`.
    dim : int
        Number of unknowns.
    rng : Rng
        Draws the points.

    Raises
    ------
    InvalidInputError
        If the projection fails; changes its argument; gives another shape, NaN or inf; is not idempotent, P(P(y)) = P(y);
        is not non-expansive, |P(y) - P(z)| <= |y - z|; leaves out nearer points, <y - P(y), P(z) - P(y)> > 0; or gives
        other rows for (k, dim) than for each row alone. Deviations that an iterative solver explains are let through.

    Examples
    --------
    >>> import numpy as np
    >>> from tardigrad.problems.user_set import UserSet
    >>> try:
    ...     check_projection(UserSet(lambda y: y / 2), 2, np.random.default_rng(0))
    ... except InvalidInputError as error:
    ...     print(str(error)[:61])
    UserSet(<lambda>) is not a projection: it is not idempotent:
    """
    points = trial_points(dim, rng)
    projected = np.stack([_projected(constraint, y) for y in points])
    # the set's own scale is known only now: points a little off it, and points between its points
    spread = float(lengths(projected - projected[0]).max()) / np.sqrt(dim)
    near = projected[:4] + 0.1 * spread * rng.normal(size=(4, dim))
    between = (projected[1:5] + projected[-4:]) / 2
    more = np.concatenate([near, between])
    everything = np.concatenate([points, more])
    nearest = np.concatenate([projected, [_projected(constraint, y) for y in more]])
    again = np.stack([_projected(constraint, x) for x in nearest])
    _check_idempotent(constraint, everything, nearest, again)
    for y, x in zip(everything, nearest, strict=True):
        _check_non_expansive(constraint, y, x, everything, nearest)
        _check_nearest(constraint, y, x, nearest)
    _check_rows(constraint, points[:5], projected[:5])


def trial_points(dim: int, rng: Rng) -> Array:
    """Zero, and random points of several magnitudes, mixed."""
    magnitudes = np.tile(_MAGNITUDES, _EACH)[:, np.newaxis]
    return np.concatenate([np.zeros((1, dim)), magnitudes * rng.normal(size=(len(magnitudes), dim))])


def _projected(constraint: ConvexSet, y: Array) -> Array:
    """The projection of one point, seen to be a point."""
    given = y.copy()
    try:
        x = constraint.project(given)
    except InvalidInputError:
        raise
    except Exception as error:
        raise _refusal(constraint, f"it raised {type(error).__name__}: {error}, for y = {_shown(y)}", "") from error
    if not np.array_equal(given, y):
        raise _refusal(
            constraint, f"it changed its argument in place, y = {_shown(y)} to {_shown(given)}", "work on a copy: y = y.copy()"
        )
    if x.shape != y.shape:
        raise _refusal(constraint, f"it gave shape {x.shape} for y of shape {y.shape}", "return the projected point")
    if not np.isfinite(x).all():
        raise _refusal(
            constraint, f"it gave {_shown(x)} for y = {_shown(y)}", "a projection is finite everywhere: is 0 divided by 0?"
        )
    return x


def _check_idempotent(constraint: ConvexSet, points: Array, projected: Array, again: Array) -> None:
    moved = lengths(again - projected)
    i = int(np.argmax(moved - _slack(points, projected)))
    if moved[i] > _slack(points, projected)[i]:
        raise _refusal(
            constraint,
            f"it is not idempotent: y = {_shown(points[i])} is projected to x = {_shown(projected[i])},"
            f" and x again to {_shown(again[i])}, {moved[i]:.2g} away",
            "a point of the set must be returned as it is",
        )


def _check_non_expansive(constraint: ConvexSet, y: Array, x: Array, points: Array, projected: Array) -> None:
    apart, kept = lengths(points - y), lengths(projected - x)
    excess = kept - apart - _slack(points, projected) - _slack(y, x)
    i = int(np.argmax(excess))
    if excess[i] > 0:
        raise _refusal(
            constraint,
            f"it is not non-expansive: two points {apart[i]:.3g} apart, y = {_shown(y)} and {_shown(points[i])}, are projected"
            f" to points {kept[i]:.3g} apart, {_shown(x)} and {_shown(projected[i])}",
            "is the set convex, and is the point returned the nearest in the Euclidean norm?",
        )


def _check_nearest(constraint: ConvexSet, y: Array, x: Array, others: Array) -> None:
    """The variational inequality <y - P(y), z - P(y)> <= 0, with points of the set that are at hand."""
    step, apart, slack = lengths(y - x), lengths(others - x), _slack(y, x)
    if step <= slack:
        return
    # an error of x turns the direction, and moves the point that others are seen from
    excess = (others - x) @ ((y - x) / step) - apart * (1e-3 + slack / step) - slack
    i = int(np.argmax(excess))
    if excess[i] > 0:
        raise _refusal(
            constraint,
            f"it does not give the nearest point: y = {_shown(y)} is projected to x = {_shown(x)}, but points between x and"
            f" {_shown(others[i])}, which is projected to itself, are nearer to y",
            "is the set convex, and is distance measured in the Euclidean norm?",
        )


def _check_rows(constraint: ConvexSet, points: Array, projected: Array) -> None:
    given = points.copy()
    together = constraint.project(given)
    if not np.array_equal(given, points):
        raise _refusal(constraint, f"it changed its argument in place, one of shape {points.shape}", "work on a copy")
    if together.shape != points.shape:
        raise _refusal(constraint, f"it gave shape {together.shape} for y of shape {points.shape}", "work on the last axis")
    if (lengths(together - projected) > _slack(points, projected)).any():
        raise _refusal(
            constraint,
            f"points in an array {points.shape} are not projected as each of them alone",
            "work on the last axis, and let no row depend on others",
        )


def _slack(points: Array, projected: Array) -> Any:
    """By how much a projection may be off."""
    return _OF_RESULT * lengths(projected) + _OF_POINT * lengths(points)


def _refusal(constraint: ConvexSet, seen: str, advice: str) -> InvalidInputError:
    name = " ".join(repr(constraint).split())
    name = name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."
    return InvalidInputError(f"{name} is not a projection: {seen}{': ' * bool(advice)}{advice}")


def _shown(v: Array) -> str:
    """The first entries of a point."""
    return f"[{', '.join(f'{entry:.4g}' for entry in v[:4])}{', ...' if len(v) > 4 else ''}]"
