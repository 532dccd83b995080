"""A problem that is a user's function: a stochastic gradient, and the objective if there is one.

Rules of this file:

- the function draws its random numbers from the generator that it is given, so one sample can be used at several points and
  a run replays;
- what it returns is checked each time: a wrong shape would broadcast in silence; and copied: it may be a buffer that the
  function writes to again before the server has used it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.streams import Rng, Stream
from tardigrad.core.task import Array
from tardigrad.core.validate import integer


def _check_arguments(function: Callable[..., Any], wanted: str) -> None:
    """An error where the function surely cannot be called like that."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*[None] * (wanted.count(",") + 1))
    except TypeError as error:
        raise InvalidInputError(f"a function is called as {wanted}, which {function!r} does not take: {error}") from None


class UserGradient(Problem):
    """What ``gradient(x, rng)`` is a stochastic gradient of, all workers sharing the data.

    Parameters
    ----------
    gradient : callable
        ``gradient(x, rng)`` with x of shape (dim,), which it must not change, and a `numpy.random.Generator`; returns an array
        (dim,), in the mean the gradient of the objective at x.
    dim : int
        Number of variables.
    n_clients : int
        Workers that share the data.
    objective : callable, optional
        ``objective(x)``, a number: the measure "objective".
    dtype : dtype
        Type of the iterates.

    Notes
    -----
    A function is not plain data: a run is saved without its problem, and a replay of the saved run must be given it.

    Examples
    --------
    >>> problem = UserGradient(lambda x, rng: x - rng.normal(size=2), dim=2)
    >>> problem.gradient(0, np.ones(2), problem.sample(0, np.random.default_rng(0))).shape
    (2,)
    """

    shared_data = True

    def __init__(
        self,
        gradient: Callable[[Array, np.random.Generator], Any],
        dim: int,
        n_clients: int = 1,
        objective: Callable[[Array], Any] | None = None,
        dtype: Any = np.float64,
    ) -> None:
        for function, called in ((gradient, "gradient(x, rng)"), (objective, "objective(x)")):
            if function is objective and function is None:
                continue
            if not callable(function):
                raise InvalidInputError(f"{called.partition('(')[0]} must be a function {called}, not {function!r}")
            _check_arguments(function, called)
        self.function = gradient
        self.dim = integer(dim, "dim")
        self.n_clients = integer(n_clients, "n_clients")
        self.objective = objective
        self.dtype = np.dtype(dtype)

    def fields(self) -> dict[str, Any]:
        names = {"dim": self.dim, "n_clients": self.n_clients, "dtype": self.dtype.str}
        return {"gradient": self.function, "objective": self.objective, **names}

    def sample(self, client: int, rng: Rng) -> tuple[np.random.Generator, Any]:
        """The generator with where it stands: `gradient` goes back to there, so a sample serves at several points."""
        generator = rng.generator if isinstance(rng, Stream) else rng
        return generator, generator.bit_generator.state

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        if x.ndim > 1:
            return np.stack([self.gradient(client, row, sample) for row in x])
        if sample is None:
            raise InvalidInputError("of a user's stochastic gradient there is no exact one: DAGD and diagnoses cannot have it")
        generator, state = sample
        generator.bit_generator.state = state
        found = _as_array(self.function(x, generator))
        if found.shape != x.shape or found.dtype.kind not in "fiu":
            what = f"an array of {found.dtype} {found.shape}" if found.ndim else repr(found.item())
            raise InvalidInputError(f"gradient(x, rng) must return an array of numbers {x.shape}, as x is, not {what}")
        return found.astype(self.dtype)

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        if self.objective is None or (names is not None and "objective" not in names):
            return {}
        return {"objective": np.apply_along_axis(self._value, -1, x)}

    def _value(self, x: Array) -> float:
        found = np.asarray(self.objective(x))  # type: ignore[misc]  # asked for where there is one
        if found.size != 1 or found.dtype.kind not in "fiub":
            what = f"an array of {found.dtype} {found.shape}" if found.ndim else repr(found.item())
            raise InvalidInputError(f"objective(x) must return a number, not {what}")
        return float(found.item())


def _as_array(returned: Any) -> Array:
    """What a function returned; an array without type where it is none."""
    try:
        return np.asarray(returned)
    except ValueError:
        return np.array(repr(returned)[:80], object)
