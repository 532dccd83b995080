"""Rennala SGD and Ringmaster ASGD: asynchronous SGD that ignores gradients which are too old. For data that all clients share.

- `Rennala`: a batch of gradients, all computed at the newest iterate, makes an update; what comes from an older one is dropped.
- `Ringmaster`: every gradient makes an update, unless its delay is above a limit; then it is dropped.

Both have the optimal time complexity, up to constants, among methods in which workers of different speeds draw stochastic
gradients of one and the same function. With data that differ from client to client they are biased to the fast clients, whose
gradients are the ones that are not dropped; compare them there, and do not rely on them.

Rules of this file:

- a gradient's delay is the number of updates since the point that it was computed at, ``version - reply.version``;
- a dropped reply is a reply: it costs a gradient, is in the trace, and its client or another is asked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, scratch_field
from tardigrad.core.steps import Step
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Cancel, Reply, Task
from tardigrad.core.validate import integer, optional_integer, yes_or_no
from tardigrad.rules.asking import Asking, AskingState, NextClient
from tardigrad.rules.buffered import BufferedRule, BufferedState
from tardigrad.rules.gradient_descent import SMALL, DescentRule

_UNSUITED = {"Prescribed": "whether a reply is dropped depends on its delay, so there is nothing left to prescribe"}


@dataclass(frozen=True)
class Rennala(BufferedRule):
    """Rennala SGD: minibatches gathered asynchronously, of gradients at the newest iterate alone.

    ``x[t+1] = x[t] - step[t] (1/batch) sum of the first `batch` gradients at x[t] that come``.

    Parameters
    ----------
    step : float, array or StepSequence
        Step size; an array runs one replica for each entry.
    batch : int
        Gradients that make an update, S. One client may give several.
    next_client : {"answered", "uniform", "shuffled"}
        Who is asked next, as for `AsyncSGD`; the paper's is "answered".
    concurrency : int, optional
        Tasks kept in flight; by default all clients for "answered", else as many as can be worked on at a time.

    Notes
    -----
    Memory: one vector for the sum. Workers are not interrupted: a gradient that has become old is finished, and dropped.

    Homogeneous data, see the module. Departure from the paper: gradients carry the clients' weights, which are 1 there.

    With batch 1 it is `Ringmaster` with ``max_delay=0``, and with one task in flight `AsyncSGD` with one, bit for bit.

    References
    ----------
    Tyurin, Richtarik, "Optimal time complexities of parallel stochastic optimization methods under a fixed computation
    model", NeurIPS 2023; Algorithm 2 of the paper that `Ringmaster` cites.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Shared(4), batch=2)
    >>> engine = td.Simulated(td.PerClient([1.0, 1.0, 1.0, 50.0]))
    >>> result = td.run(Rennala(step=0.5, batch=4), problem, engine, stop=td.MaxUpdates(300))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6)), len(result.trace) > 1200
    (True, True)
    """

    unsuited: ClassVar[Mapping[str, str]] = _UNSUITED

    step: Step
    batch: int
    next_client: NextClient = "answered"
    concurrency: int | None = None

    def __post_init__(self) -> None:
        self._check_step()
        object.__setattr__(self, "batch", integer(self.batch, "batch"))
        self._check_asking()

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[BufferedState, Orders]:
        state = self._state(x0, n_clients, self.batch)
        return state, self._first_tasks(state, rng)

    def receive(self, state: BufferedState, reply: Reply, rng: Rng) -> tuple[BufferedState, Orders]:
        if reply.version == state.version:
            self._add(state, reply.payload, self.batch)
        return state, [self._next_task(state, reply.task, rng)]


@dataclass(slots=True, kw_only=True)
class RingmasterState(AskingState):
    """State of `Ringmaster`.

    Attributes
    ----------
    open : dict
        Of the tasks in flight, oldest first, by id: the version at which it was issued, and its client. Empty unless tasks are
        cancelled.
    """

    open: dict[int, tuple[int, int]] = field(default_factory=dict)
    scratch: tuple[Array | None, Array | None] | None = scratch_field()


@dataclass(frozen=True)
class Ringmaster(Asking[RingmasterState], DescentRule[RingmasterState]):
    """Ringmaster ASGD: asynchronous SGD without the gradients whose delay is above a limit.

    ``x[t+1] = x[t] - step[t] g_j(x[t - delay])`` if ``delay <= max_delay``; else the reply is dropped.

    Parameters
    ----------
    step : float, array or StepSequence
        Step size; an array runs one replica for each entry.
    max_delay : int, optional
        The largest delay of a gradient that is applied, >= 0; the paper's threshold is ``R = max_delay + 1``. No limit by
        default.
    cancel : bool
        Call tasks off as soon as their replies would be dropped, and ask their clients anew at the newest iterate (the paper's
        "calculation stops"). A worker that cannot be interrupted finishes the old task first.
    next_client : {"answered", "uniform", "shuffled"}
        Who is asked next, as for `AsyncSGD`; the paper's is "answered".
    concurrency : int, optional
        Tasks kept in flight; by default all clients for "answered", else as many as can be worked on at a time.

    Notes
    -----
    Memory: none but the iterate's, and two numbers for each task in flight where tasks are cancelled. Cancelled tasks are not
    counted as gradients.

    Homogeneous data, see the module. Departure from the paper: gradients carry the clients' weights, which are 1 there.

    Without a limit it is `AsyncSGD`, bit for bit. With ``max_delay=0`` it is SGD whose gradients are never late.

    Raises
    ------
    InvalidInputError
        If tasks are to be cancelled and there is no limit.

    References
    ----------
    Maranjyan, Tyurin, Richtarik, "Ringmaster ASGD: the first asynchronous SGD with optimal time complexity", ICML 2025,
    Algorithms 4 (without calculation stops) and 5 (with them).

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Shared(4), batch=2)
    >>> engine = td.Simulated(td.PerClient([1.0, 1.0, 1.0, 50.0]))
    >>> result = td.run(Ringmaster(step=0.2, max_delay=10, cancel=True), problem, engine, stop=td.MaxUpdates(600))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6)), int(result.trace.staleness.max())
    (True, 2)
    """

    unsuited: ClassVar[Mapping[str, str]] = _UNSUITED

    step: Step
    max_delay: int | None = None
    cancel: bool = False
    next_client: NextClient = "answered"
    concurrency: int | None = None

    def __post_init__(self) -> None:
        self._check_step()
        object.__setattr__(self, "max_delay", optional_integer(self.max_delay, "max_delay", low=0))
        object.__setattr__(self, "cancel", yes_or_no(self.cancel, "cancel"))
        if self.cancel and self.max_delay is None:
            raise InvalidInputError("cancel=True needs a limit above which tasks are called off: pass max_delay")
        self._check_asking()

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        self._warm_up(problem)
        return super().configure(problem, concurrency, max_staleness)

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[RingmasterState, Orders]:
        state = RingmasterState(x=x0, fresh=x0.nbytes <= SMALL, n_clients=n_clients)
        orders = self._first_tasks(state, rng)
        if self.cancel:
            state.open = {task.id: (0, task.client) for task in orders if isinstance(task, Task)}
        return state, orders

    def receive(self, state: RingmasterState, reply: Reply, rng: Rng) -> tuple[RingmasterState, Orders]:
        if self.max_delay is None or state.version - reply.version <= self.max_delay:
            self._descend(state, reply.payload)
        task = self._next_task(state, reply.task, rng)
        return state, [task] if not self.cancel else self._call_off(state, reply.task.id, task)

    def _call_off(self, state: RingmasterState, answered: int, following: Task) -> Orders:
        """The task that follows an answer; and for each that is too old now, an order to forget it and another in its place."""
        assert self.max_delay is not None
        del state.open[answered]
        state.open[following.id] = (state.version, following.client)
        orders: Orders = [following]
        while True:
            oldest = next(iter(state.open))
            version, client = state.open[oldest]
            if state.version - version <= self.max_delay:
                return orders
            del state.open[oldest]
            task = state.task(client)
            state.open[task.id] = (state.version, client)
            orders += [Cancel(oldest), task]
