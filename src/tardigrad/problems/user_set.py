"""A set that is given by a user's own projection.

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
from tardigrad.problems.projection_check import check_projection, trial_points

#: of the points on which a function is tried
_SEED = 20180710


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
        points = trial_points(dim, rng)
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


def _brief(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown[:80]}" if value is not None else "None"
