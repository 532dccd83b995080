"""Row steps for linear systems: each projects the iterate onto the solutions of one equation, wherever the iterate then is.

``x <- x - omega B^-1 Z_i (x_read - x*)``, that is ``x <- x + omega (b_i - a_i . x_read) / (a_i . B^-1 a_i) B^-1 a_i``: a step
is computed from a point that may be old and added to the current one (randomized Kaczmarz, delayed). That is not the paper's
asynchronous method, which mixes the whole old point back in (`AveragedSketchProject`); its rates are in
`tardigrad.theory.row_action`.

Rules of this file:

- a step's arithmetic stands once, in `tardigrad.problems.row_kernels`. With one worker and `rows` = 1, a served run without
  delay and a lock-free one are equal in every bit. With more rows a task, a lock-free run equals the compiled loop over
  each task's rows in every bit, and a served one up to rounding: the server adds changes, a copy is put in place whole;
- lock-free on sparse rows, with `rows` = 1, workers write to the one iterate: rows that share no column do not meet. Dense
  rows meet everywhere, so each worker steps on a copy of its own and merges it every `rows` rows; so it is with sparse ones
  where `rows` is more than 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.in_place import InPlaceRule
from tardigrad.core.problem import Problem
from tardigrad.core.steps import check_step, step_at, step_shape
from tardigrad.core.streams import Rng, Stream
from tardigrad.core.task import Array, Payload, Points, Task
from tardigrad.core.validate import integer, optional_integer
from tardigrad.problems.linear_system import LinearSystem
from tardigrad.problems.row_kernels import CompiledRows
from tardigrad.problems.sketches import Rows

#: matrix entries that a lock-free worker reads in one compiled call, about half a millisecond
AT_ONCE = 1_000_000


@dataclass(frozen=True)
class RowAction(InPlaceRule):
    """Delayed row steps (Kaczmarz), served or lock-free.

    ``x <- x + omega (b_i - a_i . x_read) / (a_i . B^-1 a_i) B^-1 a_i`` for rows i in the order of the problem's `Rows` sketch.

    Parameters
    ----------
    omega : float or array
        Relaxation in (0, 2); arrays, one for each replica of a sweep, only where a server applies the steps and `rows` is 1.
    rows : int
        Row steps of a task. With more than one, they are taken in turn on a copy of what was read, and the whole change is
        sent, or merged: less to send, but as much older.
    concurrency : int, optional
        Tasks in flight where a server applies the changes; by default one for each worker.

    Notes
    -----
    With K tasks in flight, a change is computed from a point that is up to ``K rows`` steps old. It converges for
    ``omega (1 + 2 lambda_max delay) < 2`` (see `tardigrad.theory.row_action`), lambda_max the largest eigenvalue of W: about
    1/n for n columns of even rows, so delays well below n cost nothing.

    On ``Threads(lock_free=True)`` a copy is merged by ``x += alpha (mine - read)``, alpha such that a change which others have
    made meanwhile is not made again; with one worker alpha is 1. B must be the identity or diagonal. No change is lost, so x
    stays in x0 plus the range of B^-1 A', but for sparse rows with `rows` = 1, if they are not fewer than the unknowns: there,
    of two writes to one entry at a time one may be lost.

    Raises
    ------
    InvalidInputError
        If the problem is no `LinearSystem` with a `Rows` sketch, or B is a full matrix; in a run, if a zero row has
        ``b_i != 0``.

    References
    ----------
    Strohmer, Vershynin, "A randomized Kaczmarz algorithm with exponential convergence", 2009. Delayed and lock-free: Liu,
    Wright, Sridhar, "An asynchronous parallel randomized Kaczmarz algorithm", 2014 (there without private copies).

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> A = np.random.default_rng(0).normal(size=(200, 10))
    >>> system = td.LinearSystem(A, A @ np.ones(10), n_clients=2)
    >>> engine = td.Threads(2, lock_free=True)
    >>> result = td.run(td.RowAction(), system, engine, stop=td.MaxUpdates(2000))
    >>> bool(np.allclose(result.x, 1.0))
    True
    """

    omega: float | Array = 1.0
    rows: int = 1
    concurrency: int | None = None

    def __post_init__(self) -> None:
        omega = check_step(self.omega, "omega", sequence=False)
        if np.max(omega) >= 2:
            raise InvalidInputError(f"omega must be below 2, where row steps stop to contract, not {self.omega!r}")
        object.__setattr__(self, "omega", omega)
        object.__setattr__(self, "rows", integer(self.rows, "rows"))
        object.__setattr__(self, "concurrency", optional_integer(self.concurrency, "concurrency"))
        if self.rows > 1 and np.ndim(self.omega):
            raise InvalidInputError("a sweep of omega takes one row step a task: leave rows at 1")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return step_shape(self.omega)

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> RowAction:
        row_steps(system_of(problem)).warm_up(self.rows)
        return super().configure(problem, concurrency, max_staleness)

    def oracle_calls(self, task: Task) -> int:
        return self.rows

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        """The change: dense, or the values and columns of one sparse row."""
        x = points[0]
        if x.ndim > 1:
            return self._changes(problem, task, x, rng)
        system = system_of(problem)
        steps, omega = row_steps(system), x.dtype.type(self.omega)
        first = task.id * self.rows
        assert isinstance(rng, Stream)
        rows = system.rows_at(rng.seed, first, first + self.rows)
        if self.rows == 1:
            change = steps.change(int(rows[0]), x, omega)
            return change if steps.sparse else change[0]
        copy = x.copy()
        steps.steps(rows, omega, copy)
        copy -= x
        return copy

    def _changes(self, problem: Problem, task: Task, x: Array, rng: Rng) -> Array:
        """One step of each replica."""
        if self.rows > 1:
            raise InvalidInputError("replicas take one row step a task: leave rows at 1")
        gradient = problem.gradient(task.client, x, problem.sample(task.client, rng))
        return np.multiply(gradient, -step_at(self.omega, 0), dtype=x.dtype)

    def write(self, x: Array, payload: Payload, task: Task) -> None:
        if isinstance(payload, tuple):
            values, columns = payload
            x[columns] += values
        else:
            x += payload

    def sweep_length(self, problem: Problem) -> int:
        return max(1, int(AT_ONCE // (self.rows * row_steps(system_of(problem)).row_entries)))

    def sweep(self, problem: Problem, client: int, tasks: range, seed: int, x: Array) -> None:
        system = system_of(problem)
        rows = system.rows_at(seed, tasks.start * self.rows, tasks.stop * self.rows)
        row_steps(system).sweep(rows, self.rows, x.dtype.type(self.omega), x)


def system_of(problem: Problem) -> LinearSystem:
    """The problem as a system that has row steps; an error where it has none."""
    if not isinstance(problem, LinearSystem) or not isinstance(problem.sketch, Rows):
        what = f"sketch {problem.sketch!r}" if isinstance(problem, LinearSystem) else type(problem).__name__
        raise InvalidInputError(f"RowAction needs a LinearSystem with a Rows sketch, not {what}")
    return problem


_kept: WeakKeyDictionary[LinearSystem, CompiledRows] = WeakKeyDictionary()


def row_steps(system: LinearSystem) -> CompiledRows:
    """The compiled steps of a system, made once."""
    found = _kept.get(system)
    if found is None:
        if system.B is not None and system.B.ndim == 2:
            raise InvalidInputError(
                "RowAction needs B to be the identity or diagonal: with a full matrix a row step costs dim^2; use SketchProject"
            )
        scale = np.ones(0, system.dtype) if system.B is None else 1 / system.B
        found = _kept[system] = CompiledRows(system.A, system.b, scale)
    return found
