"""What `run` checks before anything starts.

Rules of this file:

- an error names the value, what was expected, and what to do;
- nothing here changes what it is given.
"""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.observers import Observer
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import Limits
from tardigrad.core.task import Array


def check_parts(rule: object, problem: object, engine: object) -> None:
    """A rule, a problem and an engine that go together."""
    examples = {Rule: "AsyncSGD(step=0.1)", Problem: "LeastSquares(...)", Engine: "Simulated(...)"}
    for value, (kind, example) in zip((rule, problem, engine), examples.items(), strict=True):
        if not isinstance(value, kind):
            what = f"the class {value.__name__} itself" if isinstance(value, type) else reprlib.repr(value)
            article = "an" if kind is Engine else "a"
            raise InvalidInputError(f"expected {article} {kind.__name__} such as {example}, not {what}")
    assert isinstance(rule, Rule)
    assert isinstance(problem, Problem)
    name = type(engine).__name__
    if name in rule.unsuited:
        raise InvalidInputError(f"{type(rule).__name__} does not run on {name}: {rule.unsuited[name]}")
    for attribute in ("n_clients", "dim"):
        if not hasattr(problem, attribute):
            raise InvalidInputError(f"{type(problem).__name__} has no {attribute}: its __init__ must set n_clients and dim")
    if problem.payload_type not in (None, "bfloat16"):
        raise InvalidInputError(f"the problem's payload_type must be None or 'bfloat16', not {problem.payload_type!r}")
    if problem.n_clients < 1 or problem.dim < 1:
        counts = f"{problem.n_clients} clients and {problem.dim} variables"
        raise InvalidInputError(f"the problem needs at least one client and one variable, not {counts}")


def as_observers(observers: object) -> list[Observer]:
    """One observer, several, or None, as a list; `Watch` checks each."""
    if isinstance(observers, Observer):
        return [observers]
    if not isinstance(observers, (list, tuple, type(None))):
        raise InvalidInputError(f"observers must be an Observer such as Progress() or a list of them, not {observers!r}")
    return list(observers or ())


def starting_point(x0: Array | None, problem: Problem, rule: Rule[Any], replicas: int | None) -> Array:
    """The start with the leading axes of replicas and of array-valued hyper-parameters."""
    try:
        start = np.asarray(problem.x0() if x0 is None else x0)
        if np.iscomplexobj(start):
            raise TypeError
        start = start.astype(problem.dtype)
    except (TypeError, ValueError):
        raise InvalidInputError(f"x0 must be an array of numbers, not {x0!r}") from None
    if start.ndim < 1 or start.shape[-1] != problem.dim:
        raise InvalidInputError(f"x0 must have shape (..., {problem.dim}), the problem's dim last, not {start.shape}")
    if not start.size:
        raise InvalidInputError(f"x0 has shape {start.shape}: at least one replica is needed")
    if not np.isfinite(start).all():
        raise InvalidInputError("x0 has values that are NaN or infinite: start from finite numbers")
    lead = start.shape[:-1]
    try:
        if replicas is not None:
            lead = np.broadcast_shapes((replicas,) + (1,) * max(len(rule.batch_shape), len(lead) - 1, 0), lead)
            if lead[0] != replicas:
                raise ValueError
        lead = np.broadcast_shapes(lead, rule.batch_shape)
    except ValueError:
        raise InvalidInputError(
            f"x0 {start.shape}, hyper-parameters of shape {rule.batch_shape} and replicas={replicas} do not broadcast:"
            " the first axis counts replicas, the next those of the hyper-parameters, the last is dim"
        ) from None
    return np.array(np.broadcast_to(start, (*lead, problem.dim)), problem.dtype, order="C")


def check_measures(bounds: Limits, problem: Problem, x0: Array) -> None:
    """Tolerances on measures that the problem has."""
    wanted = tuple(tolerance.measure for tolerance in bounds.tolerances)
    if not wanted:
        return
    known = problem.measures(x0, wanted)
    for name in wanted:
        if name not in known:
            raise InvalidInputError(f"the problem has no measure {name!r}; it has {', '.join(problem.measures(x0)) or 'none'}")
