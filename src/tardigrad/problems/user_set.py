"""A set that is given by a user's own projection, and the check that a function is one.

Rules of this file:

- a user's function gets points (dim,); it gets (k, dim) at once only if that was seen to give the same rows;
- what it returns is copied, in the precision of the iterates: it may be a list, a view of its argument, a buffer;
- rows that are not finite are not shown to it: they stay NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import yes_or_no
from tardigrad.problems.convex_set import ConvexSet, as_floats, lengths

#: magnitudes of the points tried, beside 0, and how many points of each; a user's projection may be slow
_MAGNITUDES, _EACH = (0.1, 1.0, 10.0, 1e4), 3
#: deviations that an iterative solver's accuracy explains, relative to the projected point and to the point given
_OF_RESULT, _OF_POINT = 1e-4, 1e-6
_SEED = 20180710
#: letters of a set's description in a message
_NAME = 80


class UserSet(ConvexSet):
    """A closed convex set known by its projection.

    Runs with it work in memory, on threads and, if the function can be pickled (cloudpickle), on processes. They cannot
    be saved, since a function is no plain data: a subclass of `ConvexSet` can.

    Parameters
    ----------
    project : callable
        Takes a point, an array (dim,), and returns the nearest point of the set. It must not change its argument. If it
        also takes (k, dim), row by row, it is called once for all replicas.
    bounded : bool
        Whether the set is known to be bounded.

    Raises
    ------
    InvalidInputError
        If `project` is no function; in `check`, if it is not a projection (see `check_projection`).

    Examples
    --------
    >>> import numpy as np
    >>> halfspace = UserSet(lambda y: y - max(y.sum() - 1, 0) / y.size)
    >>> halfspace.check(2)
    >>> halfspace.project(np.array([[2.0, 1.0], [0.0, 0.0]])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, project: Callable[[Array], Any], bounded: bool = False) -> None:
        if not callable(project):
            raise InvalidInputError(f"project must be a function that takes a point (dim,) and returns one, not {project!r}")
        self.function = project
        self._bounded = yes_or_no(bounded, "bounded")
        self._checked: dict[int, bool] = {}  # dimensions, and whether the function takes rows (k, dim) there

    @property
    def bounded(self) -> bool:
        return self._bounded

    def project(self, y: Array, out: Array | None = None) -> Array:
        y = as_floats(y)
        rows = y.reshape(-1, y.shape[-1])
        finite = np.isfinite(rows).all(axis=-1)
        x = np.full(rows.shape, np.nan, y.dtype)
        if finite.all():
            self._project_rows(rows, y.ndim > 1, x)
        elif finite.any():
            x[finite] = self._project_rows(rows[finite], True, x[finite])
        if out is None:
            return x.reshape(y.shape)
        np.copyto(out, x.reshape(y.shape))
        return out

    def _project_rows(self, rows: Array, together: bool, out: Array) -> Array:
        """Projections of finite points (k, dim), written to `out`."""
        if together and self._checked.get(rows.shape[-1], False):
            out[...] = self._call(rows)
        else:
            for row, x in zip(rows, out, strict=True):
                x[...] = self._call(row)
        return out

    def _call(self, y: Array) -> Array:
        """What the function returns, as numbers."""
        returned = self.function(y)
        try:
            x = np.asarray(returned)
        except ValueError:
            x = np.array(None)
        if x.dtype.kind not in "biuf" or x.shape != y.shape:
            what = f"{x.dtype} of shape {x.shape}" if x.dtype.kind != "O" else _brief(returned)
            raise InvalidInputError(
                f"{self!r} must return the projected point, real numbers of shape {y.shape} like the point given, not {what}"
            )
        return x

    def check(self, dim: int) -> None:
        if dim in self._checked:
            return
        rng = np.random.default_rng(_SEED)
        check_projection(self, dim, rng)
        self._checked[dim] = self._takes_rows(dim, rng)

    def _takes_rows(self, dim: int, rng: np.random.Generator) -> bool:
        """Whether points (k, dim) given together come back as they do one by one."""
        points = _points(dim, rng)
        for rows in (points, points[:5], points[3:5]):
            alone = self.project(rows)
            given = rows.copy()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    together = self._call(given)
            except Exception:  # a function of vectors may fail on matrices in any way
                return False
            scale = np.finfo(float).eps ** 0.75 * (lengths(alone) + lengths(rows))
            if not (np.array_equal(given, rows) and (lengths(together - alone) <= scale).all()):
                return False
        return True

    def sample(self, rng: Rng, shape: tuple[int, ...], dim: int) -> Array:
        return self.project(rng.normal(size=(*shape, dim)) * 10 ** rng.uniform(-2, 3, (*shape, 1)))

    def fields(self) -> dict[str, Any]:
        raise TypeError(
            f"{self!r} holds a function, which is not plain data: write the set as a subclass of tardigrad.ConvexSet"
            " (a frozen dataclass of numbers and arrays), or run without saving and without checkpoints"
        )

    def __repr__(self) -> str:
        return f"UserSet({getattr(self.function, '__qualname__', repr(self.function))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserSet) and (self.function, self.bounded) == (other.function, other.bounded)

    def __hash__(self) -> int:
        return hash(self.function)


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
    >>> try:
    ...     check_projection(UserSet(lambda y: y / 2), 2, np.random.default_rng(0))
    ... except InvalidInputError as error:
    ...     print(str(error)[:61])
    UserSet(<lambda>) is not a projection: it is not idempotent:
    """
    points = _points(dim, rng)
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


def _points(dim: int, rng: Rng) -> Array:
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


def _brief(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown[:80]}" if value is not None else "None"
