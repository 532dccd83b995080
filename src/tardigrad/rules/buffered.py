"""FedBuff: buffered asynchronous aggregation. Clients take several steps on their own, the server one for each K replies.

Client: ``y[0] = x[t - staleness]``, ``y[k+1] = y[k] - local_step g_i(y[k]; xi_k)``, Q times; it sends ``n w_i (y[0] - y[Q])``.
Server: ``x[t+1] = x[t] - step[t] (mean of the K replies since the last update)``.

Rules of this file:

- a reply is ``local_step`` times the sum of the local gradients, which is what the client has moved without the rounding of
  ``y[0] - y[Q]``: so one local step of size 1 is a gradient, and FedBuff is then asynchronous SGD in every bit;
- replies are added in the order in which they come; a buffer of one is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, scratch_field
from tardigrad.core.steps import Step, check_step, step_at, step_shape
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.validate import integer
from tardigrad.rules.asking import Asking, AskingState, NextClient
from tardigrad.rules.gradient_descent import SMALL, DescentRule, check_shape


@dataclass(slots=True, kw_only=True)
class BufferedState(AskingState):
    """State of rules that take a step for several replies.

    Attributes
    ----------
    total : array (..., dim) or None
        Sum of the replies since the last update; None for a buffer of one.
    waiting : int
        How many these are.
    """

    total: Array | None = None
    waiting: int = 0
    scratch: tuple[Array | None, Array | None] | None = scratch_field()


class BufferedRule(Asking[BufferedState], DescentRule[BufferedState]):
    """Rules that take a step along the mean of several replies."""

    def _state(self, x0: Array, n_clients: int, buffer: int) -> BufferedState:
        total = np.zeros_like(x0) if buffer > 1 else None
        return BufferedState(x=x0, fresh=x0.nbytes <= SMALL, n_clients=n_clients, total=total)

    def _add(self, state: BufferedState, change: Any, buffer: int) -> None:
        """Add a reply to the buffer; where that fills it, take the step."""
        if state.total is None:
            self._descend(state, change)
            return
        check_shape(change, state.x)
        state.total += change
        state.waiting += 1
        if state.waiting < buffer:
            return
        state.total /= buffer
        self._descend(state, state.total)
        state.total[...] = 0
        state.waiting = 0

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        self._warm_up(problem)
        return super().configure(problem, concurrency, max_staleness)


@dataclass(frozen=True)
class FedBuff(BufferedRule):
    """FedBuff: local steps at clients, and a buffer of replies at the server.

    Parameters
    ----------
    step : float, array or StepSequence
        The server's step; an array runs one replica for each entry.
    local_steps : int
        Steps that a client takes on its own, Q.
    local_step : float or array, optional
        Their size. Needed for several; for one it only multiplies the server's and is 1 by default. Arrays of both steps are
        broadcast against each other.
    buffer : int
        Replies that make an update, K; those that wait at the end of a run are not applied.
    next_client : {"uniform", "answered", "shuffled"}
        Who is asked next, as for `AsyncSGD`, at once and whatever waits in the buffer.
    concurrency : int, optional
        Tasks kept in flight; by default all clients for "answered", else as many as can be worked on at a time.

    Notes
    -----
    Memory: one vector for the buffer at the server; a client has one for its own iterate.

    With data that differ the answer is biased for two reasons, both of which grow with the steps: clients drift to their own
    minimisers between two replies, and fast clients, where they are asked more often, count more.

    Departures from the paper: a reply counts in full however old it is (the paper's experiments divide it by
    ``sqrt(1 + staleness)``), clients have weights, and there is no secure aggregation, noise for privacy, or momentum.

    With one local step of size 1 and a buffer of 1 it is `AsyncSGD`, bit for bit.

    Raises
    ------
    InvalidInputError
        For several local steps without a size.

    References
    ----------
    Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba, "Federated learning with buffered asynchronous aggregation",
    AISTATS 2022, Algorithms 1 (server) and 2 (client).

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> rule = FedBuff(step=1.0, local_steps=3, local_step=0.1, buffer=2)
    >>> result = td.run(rule, problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(300))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6)), result.oracle_calls
    (True, 1800)
    """

    step: Step
    local_steps: int = 1
    local_step: float | Array | None = None
    buffer: int = 1
    next_client: NextClient = "uniform"
    concurrency: int | None = None

    def __post_init__(self) -> None:
        self._check_step()
        object.__setattr__(self, "local_steps", integer(self.local_steps, "local_steps"))
        object.__setattr__(self, "buffer", integer(self.buffer, "buffer"))
        if self.local_step is not None:
            object.__setattr__(self, "local_step", check_step(self.local_step, "local_step", sequence=False))
        elif self.local_steps > 1:
            raise InvalidInputError(f"local_steps={self.local_steps} need their size: pass local_step, such as 0.1")
        try:
            np.broadcast_shapes(*self._shapes)
        except ValueError:
            shapes = " and ".join(map(str, self._shapes))
            raise InvalidInputError(f"step and local_step must have shapes that broadcast, not {shapes}") from None
        self._check_asking()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(*self._shapes)

    @property
    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        return step_shape(self.step), () if self.local_step is None else step_shape(self.local_step)

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[BufferedState, Orders]:
        state = self._state(x0, n_clients, self.buffer)
        return state, self._first_tasks(state, rng)

    def receive(self, state: BufferedState, reply: Reply, rng: Rng) -> tuple[BufferedState, Orders]:
        self._add(state, reply.payload, self.buffer)
        return state, [self._next_task(state, reply.task, rng)]

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        if self.local_step is None:
            return super().work(problem, task, points, rng, cache)
        client, step = task.client, step_at(self.local_step, 0)
        total: Any = None
        y = points[0]
        for k in range(self.local_steps):
            gradient = problem.gradient(client, y, problem.sample(client, rng))
            if k + 1 < self.local_steps:
                y = (y - step * gradient).astype(y.dtype, copy=False)
            total = gradient if total is None else total + gradient
        moved: Array = total * step if problem.equal_weights else total * step * problem.scale(client)
        return moved.astype(y.dtype, copy=False)

    def oracle_calls(self, task: Task) -> int:
        return self.local_steps
