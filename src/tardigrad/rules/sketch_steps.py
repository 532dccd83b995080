"""What sketch-and-project methods share: a worker's step, and how a server mixes a reply into a point.

Rules of this file:

- nothing is asked of a problem but `sample`, `gradient`, and `scale` where clients weigh differently;
- a reply is a point, not a step: ``phi(x, S) = x - omega grad f_S(x)``;
- parameters may be arrays, an entry for each replica, and are checked together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic

import numpy as np
from numpy import multiply

from tardigrad.core.compiled import mix_in
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import S, State
from tardigrad.core.steps import check_step
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Task
from tardigrad.rules.gradient_descent import SMALL, GradientRule, check_shape

#: why methods that wait for every reply do not run on prescribed staleness
NO_STALENESS: Mapping[str, str] = {"Prescribed": "the method waits for every reply, so nothing is left to prescribe"}


class SketchRule(GradientRule[S], Generic[S]):
    """The worker's half, which all share: one step of the basic method."""

    omega: float | Array

    def _check(self) -> None:
        object.__setattr__(self, "omega", check_step(self.omega, "omega", sequence=False))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.shape(self.omega)

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        x = points[0]
        step = multiply(super().work(problem, task, points, rng, cache), column(self.omega, x.dtype))
        y: Array = np.subtract(x, step, step if (step.shape, step.dtype) == (x.shape, x.dtype) else None)
        return y


def column(value: float | Array, dtype: np.dtype[Any]) -> float | Array:
    """A parameter, ready to multiply iterates (..., dim) of a type."""
    return value[..., np.newaxis].astype(dtype, copy=False) if isinstance(value, np.ndarray) else value


def share_of(value: Any, name: str, high: float, closed: bool) -> float | Array:
    """A number, or an array of them, in [0, high] if closed, else in (0, high)."""
    try:
        values = np.array(value, dtype=float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    inside = (values >= 0) & (values <= high) if closed else (values > 0) & (values < high)
    if isinstance(value, (bool, str)) or values.size == 0 or not inside.all():
        low, end = ("[0", "]") if closed else ("(0", ")")
        raise InvalidInputError(f"{name} must be a number in {low}, {high:g}{end} or an array of them, not {value!r}")
    return values if values.ndim else float(values)


def joint_shape(rule: Any, **parameters: float | Array) -> tuple[int, ...]:
    """The shape of parameters together."""
    shapes = {name: np.shape(value) for name, value in parameters.items()}
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        text = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InvalidInputError(f"arrays of {type(rule).__name__} must broadcast: {text} do not") from None


def start_of(x0: Array) -> dict[str, Any]:
    """What every state of these methods starts with: small iterates are made anew by each update."""
    return {"x": x0, "fresh": x0.nbytes <= SMALL}


def take(state: State, y: Array) -> None:
    """``x <- y``: a reply's memory is not the state's to keep."""
    if state.fresh:
        state.x = np.array(y, state.x.dtype)
    else:
        state.x[...] = y


class MixingRule(SketchRule[S], Generic[S]):
    """The server's half of methods that mix a reply into a point: ``(1 - share) point + share y``."""

    _loops = (mix_in,)

    def _mix(self, state: Any, share: float | Array, point: Array, y: Array) -> Array:
        """The mixture, in place of `point` unless the state is fresh."""
        buffer, part, rest = state.scratch or self._workspace(state, share, y)
        if buffer is None:
            mix_in(point, y, share)
            return point
        multiply(y, part, buffer)
        if state.fresh:
            mixed: Array = multiply(point, rest)
            mixed += buffer
            return mixed
        point *= rest
        point += buffer
        return point

    def _workspace(self, state: Any, share: float | Array, y: Array) -> tuple[Array | None, Any, Any]:
        """Room for a temporary, and both shares as arrays, which NumPy need not convert at every update."""
        check_shape(y, state.x, "step")
        x = state.x
        if x.ndim == 1 and not state.fresh:
            state.scratch = None, None, None
        else:
            part = np.asarray(column(share, x.dtype), x.dtype)
            rest = np.asarray(column(1.0 - share, x.dtype), x.dtype)
            if part.ndim:  # a sweep: rows of the full length are twice as fast as a column
                part, rest = (np.array(np.broadcast_to(each, x.shape)) for each in (part, rest))
            state.scratch = np.empty_like(x), part, rest
        scratch: tuple[Array | None, Any, Any] = state.scratch
        return scratch
