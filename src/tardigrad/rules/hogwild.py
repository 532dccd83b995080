"""Hogwild: stochastic gradient descent on one shared iterate, without a lock.

``x <- x - step n w_j g_j(x)``: client j's gradient at whatever the iterate is while it is being read, and
written while others read and write. n is the number of clients, w_j their weights.

Rules of this file:

- an update is one compiled pass over the iterate, during which other threads run;
- decreasing steps are numbered by the task, which a worker knows without asking anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tardigrad.core.compiled import subtract_scaled, warm_up
from tardigrad.core.in_place import InPlaceRule, InPlaceState
from tardigrad.core.problem import Problem
from tardigrad.core.steps import Step, check_step, step_at, step_shape
from tardigrad.core.task import Array, Task
from tardigrad.core.validate import optional_integer
from tardigrad.rules.gradient_descent import GradientRule


@dataclass(frozen=True)
class Hogwild(GradientRule[InPlaceState], InPlaceRule):
    """Lock-free stochastic gradient descent.

    ``x <- x - step[k] n w_j g_j(x)``, k the number of the task.

    Parameters
    ----------
    step : float, array or StepSequence
        Step size; arrays only where a server applies the updates (`Simulated`, `Processes`, ...).
    concurrency : int, optional
        Tasks in flight where a server applies the updates; by default one for each client.

    Notes
    -----
    On ``Threads(lock_free=True)`` reads and writes are not synchronised: an entry may miss an update that another
    thread makes at the same moment. The analysis asks for sparse gradients, where that is rare. With dense ones
    threads share the memory's bandwidth: beyond a few they gain nothing. A worker serves its own clients: where clients
    differ and their data are not shared, the answer leans to those of fast workers.

    References
    ----------
    Niu, Recht, Re, Wright, "Hogwild!: a lock-free approach to parallelizing stochastic gradient descent", NIPS 2011.
    There a worker writes the entries of one sample; here all entries of the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Shared(2))
    >>> engine = td.Threads(workers=2, lock_free=True)
    >>> result = td.run(Hogwild(step=0.5), problem, engine, stop=td.MaxUpdates(300))
    >>> bool(np.allclose(result.x, 1.0, atol=0.5)), sum(result.state.counts)  # the last write may be of an old gradient
    (True, 300)
    """

    ownership: ClassVar[Literal["racy", "disjoint"]] = "racy"

    step: Step
    concurrency: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", check_step(self.step))
        object.__setattr__(self, "concurrency", optional_integer(self.concurrency, "concurrency"))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return step_shape(self.step)

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Hogwild:
        warm_up(problem.dtype)
        return super().configure(problem, concurrency, max_staleness)

    def write(self, x: Array, payload: Any, task: Task) -> None:
        step = step_at(self.step, task.id)
        if x.ndim == 1:
            subtract_scaled(x, payload, step)
        else:
            x -= step * payload
