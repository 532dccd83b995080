"""Incremental aggregated gradients: the server keeps each client's last gradient, so clients' differences do no harm.

n is the number of clients, ``g_i = n w_i grad f_i`` what client i sends, ``h_i`` its gradient in the server's table, ``h`` the
table's mean. When client j answers with g, computed at a point that may be old::

    IAG:   h_j <- g,  then  x <- x - step h
    SAGA:  x <- x - step (g - h_j + h),  then  h_j <- g

At the minimiser every update is zero once the table is filled there, whoever answers and however often: unlike for `AsyncSGD`
asking the client that answered gives no bias with constant steps, and how much the clients differ does not matter.

Rules of this file:

- the table begins with a full round: all clients are asked at x[0] at once, whatever the concurrency, and when the last has
  answered, the first update is ``x[1] = x[0] - step h``; in the meantime nobody is asked again;
- h is kept by difference and added up anew from the table, client by client, every n updates: that costs one row an update, and
  rounding errors do not pile up;
- memory at the server is n x dim numbers, for each replica.

References
----------
IAG: Blatt, Hero, Gauchman, "A convergent incremental gradient method with a constant step size", SIAM J. Optim. 2007;
Gurbuzbalaban, Ozdaglar, Parrilo, "On the convergence rate of incremental aggregated gradient algorithms", SIAM J. Optim. 2017
(with bounded delays). SAGA: Defazio, Bach, Lacoste-Julien, "SAGA: a fast incremental gradient method with support for
non-strongly convex composite objectives", NeurIPS 2014; asynchronous: Leblond, Pedregosa, Lacoste-Julien, "ASAGA: asynchronous
parallel SAGA", AISTATS 2017.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, scratch_field
from tardigrad.core.steps import Step
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Reply
from tardigrad.rules.asking import Asking, AskingState, NextClient
from tardigrad.rules.gradient_descent import SMALL, DescentRule, check_shape


@dataclass(slots=True, kw_only=True)
class TableState(AskingState):
    """State of `IAG` and `SAGA`.

    Attributes
    ----------
    table : array (n_clients, ..., dim)
        Each client's last gradient, times ``n w_i``.
    mean : array (..., dim)
        The mean of the table.
    missing : int
        Clients that have not answered yet.
    """

    table: Array
    mean: Array
    missing: int
    scratch: tuple[Array | None, Array | None] | None = scratch_field()
    change: Array | None = scratch_field()


@dataclass(frozen=True)
class _Table(Asking[TableState], DescentRule[TableState]):
    """What both rules share."""

    step: Step
    next_client: NextClient = "answered"
    concurrency: int | None = None

    def __post_init__(self) -> None:
        self._check_step()
        self._check_asking()

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        found = super().default_concurrency(problem, n_workers)
        return max(found, problem.n_clients) if self.next_client == "answered" and self.concurrency is None else found

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        if self.next_client == "answered" and concurrency < problem.n_clients:
            raise InvalidInputError(
                f"with next_client='answered' and {concurrency} tasks in flight, the gradients of"
                f" {problem.n_clients - concurrency} of the {problem.n_clients} clients would stay those of the start: pass"
                f" concurrency={problem.n_clients} to run, or choose next_client='uniform' or 'shuffled'"
            )
        self._warm_up(problem)
        return super().configure(problem, concurrency, max_staleness)

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[TableState, Orders]:
        table = np.zeros((n_clients, *x0.shape), x0.dtype)
        state = TableState(
            x=x0, fresh=x0.nbytes <= SMALL, n_clients=n_clients, table=table, mean=np.zeros_like(x0), missing=n_clients
        )
        return state, [state.task(client) for client in range(n_clients)]

    def receive(self, state: TableState, reply: Reply, rng: Rng) -> tuple[TableState, Orders]:
        gradient: Any = reply.payload
        check_shape(gradient, state.x)
        if not state.missing:
            self._update(state, reply.task.client, gradient)
            return state, [self._next_task(state, reply.task, rng)]
        state.table[reply.task.client] = gradient
        state.missing -= 1
        if state.missing:
            return state, []
        _average(state)
        self._descend(state, state.mean)
        return state, self._first_tasks(state, rng)

    @abstractmethod
    def _update(self, state: TableState, client: int, gradient: Array) -> None:
        """Apply the gradient of a client."""


def _replace(state: TableState, client: int, gradient: Array, change: Array) -> None:
    """Put a gradient into the table, from which it differs by `change`, which is overwritten; the mean follows."""
    state.table[client] = gradient
    if state.version % state.n_clients:
        change /= state.n_clients
        state.mean += change
    else:
        _average(state)


def _average(state: TableState) -> None:
    """The mean from the table, added in the order of clients."""
    np.add.reduce(state.table, axis=0, out=state.mean)
    state.mean /= state.n_clients


def _change(state: TableState, client: int, gradient: Array) -> Array:
    """By how much a gradient differs from the client's last; in the state's own working space."""
    if state.change is None:
        state.change = np.empty_like(state.x)
    return np.subtract(gradient, state.table[client], state.change)


@dataclass(frozen=True)
class IAG(_Table):
    """Incremental aggregated gradient: a step along the mean of all clients' last gradients.

    ``h_j <- g_j(x[t - staleness]), x[t+1] = x[t] - step[t] (h_1 + ... + h_n) / n``, j the client that answered.

    Parameters
    ----------
    step : float, array or StepSequence
        Step size; an array runs one replica for each entry.
    next_client : {"answered", "uniform", "shuffled"}
        Who is asked next, as for `AsyncSGD`. "answered" is no bias here, with constant steps.
    concurrency : int, optional
        Tasks kept in flight after the first round; by default all clients for "answered", else as many as can be worked on
        at a time.

    Notes
    -----
    Memory: n x dim at the server. The first round, at x[0], waits for all clients and is one update.

    Departures from the papers: clients answer in any order, not in cycles; the table begins with a full round, where Blatt et
    al. ask one client after another at points that move already; stochastic gradients are taken as they come, and the noise
    of the table's entries stays in the steps.

    With one client it is `AsyncSGD`, bit for bit.

    Raises
    ------
    InvalidInputError
        With "answered" and fewer tasks in flight than clients.

    References
    ----------
    See the module.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.ClientQuadratics.of_paper(zeta=1000.0)
    >>> engine = td.Simulated(td.PerClient([2.5, 5.0, 7.5, 10.0]))
    >>> result = td.run(IAG(step=0.03), problem, engine, stop=td.MaxUpdates(1000))
    >>> bool(np.allclose(result.x, problem.minimiser, atol=1e-9))
    True
    """

    def _update(self, state: TableState, client: int, gradient: Array) -> None:
        _replace(state, client, gradient, _change(state, client, gradient))
        self._descend(state, state.mean)


@dataclass(frozen=True)
class SAGA(_Table):
    """SAGA with replies that come late: the new gradient in full, and the others' last ones in its place on average.

    ``x[t+1] = x[t] - step[t] (g_j(x[t - staleness]) - h_j + (h_1 + ... + h_n) / n)``, j the client that answered, whose
    ``h_j`` then becomes ``g_j(x[t - staleness])``.

    Parameters
    ----------
    step : float, array or StepSequence
        Step size; an array runs one replica for each entry.
    next_client : {"uniform", "answered", "shuffled"}
        Who is asked next, as for `AsyncSGD`. With "uniform" the direction is unbiased where nothing is late. The others are no
        bias at the minimiser, but outside of the theory.
    concurrency : int, optional
        Tasks kept in flight after the first round; by default all clients for "answered", else as many as can be worked on
        at a time.

    Notes
    -----
    Memory: n x dim at the server. The first round, at x[0], waits for all clients and is one update.

    Departures from the paper: the step from x[0] uses the table alone, which with exact gradients is what any client's answer
    there would give; the table holds a gradient for each client, not for each row of its data, so with stochastic gradients
    their noise stays in the steps; proximal steps are left out. An answer to an older task may replace that to a newer one
    only where data are shared, since else a client's tasks are answered in order.

    Raises
    ------
    InvalidInputError
        With "answered" and fewer tasks in flight than clients.

    References
    ----------
    See the module.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.ClientQuadratics.of_paper(zeta=1000.0)
    >>> engine = td.Simulated(td.PerClient([2.5, 5.0, 7.5, 10.0]))
    >>> result = td.run(SAGA(step=0.1), problem, engine, stop=td.MaxUpdates(500))
    >>> bool(np.allclose(result.x, problem.minimiser, atol=1e-9))
    True
    """

    next_client: NextClient = "uniform"

    def _update(self, state: TableState, client: int, gradient: Array) -> None:
        change, last = _change(state, client, gradient), state.table[client]
        self._descend(state, np.add(change, state.mean, last))  # the last gradient is needed no more
        _replace(state, client, gradient, change)
