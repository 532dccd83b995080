"""AsyncBC beside its analysis: the virtual iterates, which know at once what the server only hears later.

With g the weighted difference of a task, the virtual momentum has it when the task is issued, the true one when it comes::

    m~[t] = m[t] + sum of g over the tasks in flight after update t         (4), Lemma 2
    x~[0] = x[0], x~[1] = x[1], x~[t+1] = x~[t] - step m~[t]                  (3)

Rules of this file:

- what is in flight is known only when it has been answered, so the last stretch of a run is left out;
- errors are computed from a replay, at every update; bounds only where L and delta are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.task import Array
from tardigrad.core.validate import number
from tardigrad.diagnostics.replayed import problem_of, replay_watched
from tardigrad.rules.async_bc import AsyncBC


@dataclass(frozen=True)
class VirtualIterates:
    """What `virtual_iterates` found, at versions t = 1, ..., n.

    Attributes
    ----------
    momentum_error, iterate_error : array (n,)
        ``|m[t] - m~[t]|`` and ``|x[t] - x~[t]|``; m[t] is the momentum that led from x[t] to x[t+1].
    momentum_bound, iterate_bound : array (n,) or None
        The roots of Lemma 1's bounds on their squares, where L and delta were given.
    x, m : array (n, dim)
        The virtual iterates and momenta.
    """

    momentum_error: Array
    iterate_error: Array
    momentum_bound: Array | None
    iterate_bound: Array | None
    x: Array
    m: Array


def virtual_iterates(
    result: Result, *, lipschitz: float | None = None, delta: float | None = None, problem: Problem | None = None
) -> VirtualIterates:
    """Replay a run of `AsyncBC` and compute its virtual iterates, and Lemma 1's bounds on how far they are.

    Parameters
    ----------
    result : Result
        A run without restarts and buffer, of one step size, on an engine that does not prescribe versions.
    lipschitz, delta : float, optional
        L of Assumption 1 and delta of Assumption 2, for the bounds.
    problem : Problem, optional
        Where the run was saved without it.

    Raises
    ------
    InvalidInputError
        If the run is of another kind.
    ReplayError
        If it cannot be replayed.

    Notes
    -----
    Memory: five arrays (updates, dim). Lemma 1, with C_t the tasks in flight after update t, i their versions, T the largest
    delay::

        |m[t] - m~[t]|^2 <= 2 step^2 concurrency (delta^2 + L^2) sum over C_t of |m[i-1]|^2
        |x[t] - x~[t]|^2 <= 2 step^4 (t-1) (delta^2 + L^2) T^2 sum over i < t of |m[i-1]|^2

    The lemma is stated for exact gradients and equal weights; noise is not in its bounds.

    References
    ----------
    Gao, Takezawa, Stich, "A bias correction mechanism for distributed asynchronous optimization", (3), (4), Lemmas 1 and 2.

    Examples
    --------
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.arange(4.0)), td.Iid(4))
    >>> engine = td.Simulated(td.Exponential(1.0))
    >>> result = td.run(td.AsyncBC(step=0.1), problem, engine, stop=td.MaxUpdates(200), concurrency=3)
    >>> found = virtual_iterates(result, lipschitz=0.25, delta=0.75)
    >>> bool((found.momentum_error <= found.momentum_bound).all()), bool((found.iterate_error <= found.iterate_bound).all())
    (True, True)
    """
    step = _step_of(result)
    problem = problem_of(result, problem)
    x, m = _replayed(result, problem)
    n_updates = len(x) - 1
    trace = result.trace.table[result.trace["version_read"] > 0]  # not the full gradients
    applied = np.zeros_like(m)  # by version at which a task was issued, what its answers brought
    np.add.at(applied, trace["version_read"], m[trace["version_applied"]] - m[trace["version_applied"] - 1])
    answered = np.bincount(trace["version_read"], minlength=n_updates + 1)
    asked = np.ones(n_updates + 1, int)
    asked[0], asked[1] = 0, result.concurrency
    late = np.flatnonzero(answered[:-1] < asked[:-1])
    n = int(late[0]) - 1 if len(late) else n_updates - 1
    if n < 1:
        raise InvalidInputError(f"the run of {n_updates} updates is too short: some of its first tasks were never answered")
    virtual_m = m[0] + np.cumsum(applied, axis=0)
    virtual_x = np.concatenate([x[:1], x[1] - np.concatenate([[0.0 * x[0]], np.cumsum(step * virtual_m[1:-1], axis=0)])])
    bounds: tuple[Array | None, Array | None] = None, None
    if lipschitz is not None and delta is not None:
        spread = number(delta, "delta", low=0) ** 2 + number(lipschitz, "lipschitz", above=0) ** 2
        bounds = _bounds(trace, m, step, result.concurrency, spread, n)
    at = slice(1, n + 1)
    return VirtualIterates(
        np.linalg.norm(m[at] - virtual_m[at], axis=-1),
        np.linalg.norm(x[at] - virtual_x[at], axis=-1),
        *bounds,
        virtual_x[at],
        virtual_m[at],
    )


def _step_of(result: Result) -> float:
    """The step of a run that the analysis is about."""
    rule = result.rule
    if not isinstance(rule, AsyncBC):
        raise InvalidInputError(f"virtual iterates are of runs of AsyncBC, not of {rule!r:.100}")
    if rule.restart_every is not None or rule.buffer > 1 or not isinstance(rule.step, float):
        raise InvalidInputError("virtual iterates are of runs of AsyncBC without restarts and buffer, with one constant step")
    if result.x.ndim != 1 or result.engine.prescribes:
        raise InvalidInputError("virtual iterates are of single runs on engines that do not prescribe versions")
    return rule.step


class _Keep(Observer):
    """Every iterate and momentum."""

    def __init__(self) -> None:
        self.x: list[Array] = []
        self.m: list[Array] = []

    def observe(self, moment: Moment) -> None:
        if len(self.x) == moment.version:
            state: Any = moment.state
            self.x.append(state.x.copy())
            self.m.append(state.m.copy())


def _replayed(result: Result, problem: Problem) -> tuple[Array, Array]:
    """x[0], x[1], ..., and m[0], m[1], ... with m[t] as it was when x[t+1] was made, so one shorter."""
    keep = _Keep()
    replay_watched(result, problem, keep)
    return np.stack(keep.x), np.stack(keep.m[1:])


def _bounds(trace: Array, m: Array, step: float, concurrency: int, spread: float, n: int) -> tuple[Array, Array]:
    """Roots of both sides of Lemma 1 at t = 1, ..., n."""
    squares = np.einsum("ij,ij->i", m, m)
    read, update = trace["version_read"], trace["version_applied"]
    # a task of version i is in flight after updates i, ..., the one before it is applied
    change = np.zeros(len(m) + 1)
    np.add.at(change, read, squares[read - 1])
    np.add.at(change, update, -squares[read - 1])
    in_flight = np.maximum(np.cumsum(change)[1 : n + 1], 0.0)
    t = np.arange(1, n + 1)
    before = np.concatenate([[0.0], np.cumsum(squares)])[t - 1]  # of i = 1, ..., t - 1: |m[i-1]|^2
    largest = float((update - read).max())
    momentum = step * np.sqrt(2 * concurrency * spread * in_flight)
    return momentum, step**2 * largest * np.sqrt(2 * (t - 1) * spread * before)
