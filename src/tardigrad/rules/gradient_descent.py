"""Stochastic gradient descent, synchronous and asynchronous.

Both minimise ``f(x) = sum_i w_i f_i(x)`` from gradients of single clients; n is the number of
clients, ``s_i = n w_i`` makes the gradient of a uniformly drawn client unbiased.

- `SyncSGD`: a round asks every client, or a sample of m, and waits for all of them,
  ``x[t+1] = x[t] - step[t] (1/m) sum_{i in S_t} s_i g_i(x[t])``.
- `AsyncSGD`: every reply is applied at once, however old the point it was computed from,
  ``x[t+1] = x[t] - step[t] s_j g_j(x[t - staleness])``, j the client that answered.

Rules of this file:

- a round's replies are added in the order in which their tasks were issued, so SyncSGD gives the same
  bits on every engine; early ones are kept until it is their turn;
- momentum is the server's: it acts on updates, not at workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self

import numpy as np
from numpy import multiply

from tardigrad.core.compiled import subtract_scaled, warm_up
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, Rule, S, State, scratch_field
from tardigrad.core.steps import Step, StepSequence, check_step, step_at, step_shape
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.validate import integer, number, optional_integer
from tardigrad.rules.asking import Asking, AskingState, NextClient

#: iterates of so many bytes are made anew by each update, which saves simulations a copy; larger ones change in place
SMALL = 2**17


def check_shape(reply: Any, x: Array, what: str = "gradient") -> None:
    """A reply has the shape of the iterates: NumPy would broadcast another one without a word."""
    if getattr(reply, "shape", None) != x.shape:  # a third of the time of np.shape
        raise InvalidInputError(f"a {what} has shape {np.shape(reply)}, the iterates {x.shape}: they must be equal")


class GradientRule(Rule[S], Generic[S]):
    """The worker's half of gradient descent: a client's gradient, times what makes a uniformly drawn client's unbiased."""

    #: what the server updates large iterates with
    _loops: ClassVar[tuple[Callable[[Array, Array, Any], None], ...]] = (subtract_scaled,)

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        client = task.client
        gradient = problem.gradient(client, points[0], problem.sample(client, rng))
        return gradient if problem.equal_weights else gradient * problem.scale(client)

    def _warm_up(self, problem: Problem) -> None:
        """Compile before the run what large iterates are updated with."""
        if problem.dim * problem.dtype.itemsize > SMALL:
            for loop in self._loops:
                warm_up(problem.dtype, loop)


class DescentRule(GradientRule[S], Generic[S]):
    """Rules whose server takes a step along a gradient; a subclass is a dataclass with the field ``step``.

    Its state has a field ``scratch``, as `AsyncState` has, and ``velocity`` where there is momentum.
    """

    step: Step
    momentum: float = 0.0

    def _check_step(self) -> None:
        object.__setattr__(self, "step", check_step(self.step))

    def _check_momentum(self) -> None:
        object.__setattr__(self, "momentum", number(self.momentum, "momentum", low=0, below=1))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return step_shape(self.step)

    def _descend(self, state: Any, gradient: Any, factor: float = 1.0) -> None:
        """``v <- momentum v + gradient; x <- x - step factor v``, in place."""
        buffer, step = state.scratch or self._workspace(state, gradient)
        if step is None:
            step = step_at(self.step, state.version)
        if factor != 1.0:
            step = step * factor
        if self.momentum:
            state.velocity *= self.momentum
            state.velocity += gradient
            gradient = state.velocity
        state.version += 1
        if buffer is None:
            subtract_scaled(state.x, gradient, step)
            return
        multiply(gradient, step, buffer)
        if state.fresh:
            state.x = state.x - buffer
        else:
            state.x -= buffer

    def _workspace(self, state: Any, gradient: Array) -> tuple[Array | None, Array | None]:
        """Room for a temporary, and a constant step as an array, which NumPy need not convert at every update.

        A large vector has no temporary: it is updated in one compiled pass, in half the time.
        """
        check_shape(gradient, state.x)
        step = None
        if not isinstance(self.step, StepSequence):
            step = np.asarray(step_at(self.step, 0), state.x.dtype)
            if step.ndim:  # a sweep: rows of the full length are twice as fast as a column
                step = np.array(np.broadcast_to(step, state.x.shape))
        compiled = state.x.ndim == 1 and not state.fresh
        state.scratch = None if compiled else np.empty_like(state.x), step
        return state.scratch


@dataclass(slots=True, kw_only=True)
class SyncState(State):
    """State of `SyncSGD`: the sum of the round's replies so far, and those that came before their turn."""

    n_clients: int
    total: Array
    turn: int = 0
    early: dict[int, Array] = field(default_factory=dict)
    velocity: Array | None = None
    scratch: tuple[Array | None, Array | None] | None = scratch_field()


@dataclass(frozen=True)
class SyncSGD(DescentRule[SyncState]):
    """Synchronous (minibatch) SGD: rounds that wait for their slowest client.

    ``x[t+1] = x[t] - step[t] (1/m) sum_{i in S_t} n w_i g_i(x[t])``

    Parameters
    ----------
    step : float, array or StepSequence
        Step size; an array runs one replica for each entry.
    sample : int, optional
        Clients in a round, drawn uniformly without replacement; all of them by default.
    momentum : float
        Server momentum in [0, 1): ``v <- momentum v + g``, ``x <- x - step v`` (heavy ball).

    Notes
    -----
    Replies that arrive before their turn are kept: at worst one vector for each client of the round.

    References
    ----------
    Dekel, Gilad-Bachrach, Shamir, Xiao, "Optimal distributed online prediction using mini-batches", JMLR 13, 2012. Momentum:
    Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Comput. Math. Math. Phys. 4, 1964.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> result = td.run(SyncSGD(step=1.0), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(60))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6))
    True
    """

    unsuited: ClassVar[Mapping[str, str]] = {
        "Prescribed": "a round waits for its slowest reply, so nothing is left to prescribe"
    }

    step: Step
    sample: int | None = None
    momentum: float = 0.0

    def __post_init__(self) -> None:
        self._check_step()
        self._check_momentum()
        object.__setattr__(self, "sample", optional_integer(self.sample, "sample"))

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> SyncSGD:
        self._warm_up(problem)
        if self.sample is not None:
            integer(self.sample, "sample", high=problem.n_clients)
        return self

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[SyncState, Orders]:
        velocity = np.zeros_like(x0) if self.momentum else None
        state = SyncState(x=x0, fresh=x0.nbytes <= SMALL, n_clients=n_clients, total=np.zeros_like(x0), velocity=velocity)
        return state, self._round(state, rng)

    def receive(self, state: SyncState, reply: Reply, rng: Rng) -> tuple[SyncState, Orders]:
        check_shape(reply.payload, state.x)
        if reply.task.id != state.turn:
            state.early[reply.task.id] = np.array(reply.payload)
            return state, []
        gradient: Any = reply.payload
        while gradient is not None:
            state.total += gradient
            state.turn += 1
            gradient = state.early.pop(state.turn, None)
        if state.turn < state.issued:
            return state, []
        state.total /= self.sample or state.n_clients
        self._descend(state, state.total)
        state.total[...] = 0
        return state, self._round(state, rng)

    def _round(self, state: SyncState, rng: Rng) -> Orders:
        if self.sample is None:
            clients = range(state.n_clients)
        else:
            clients = rng.choice(state.n_clients, self.sample, replace=False).tolist()
        return [state.task(client) for client in clients]


@dataclass(slots=True, kw_only=True)
class AsyncState(AskingState):
    """State of `AsyncSGD`."""

    velocity: Array | None = None
    scratch: tuple[Array | None, Array | None] | None = scratch_field()


@dataclass(frozen=True)
class AsyncSGD(Asking[AsyncState], DescentRule[AsyncState]):
    """Asynchronous SGD: every reply is applied when it comes, from a point that may be old.

    ``x[t+1] = x[t] - step[t] n w_j g_j(x[t - staleness[t]])``, j the client that answered.

    Parameters
    ----------
    step : float, array or StepSequence
        Step size; an array runs one replica for each entry.
    next_client : {"answered", "uniform", "shuffled"}
        Who is asked next: the client that answered, any client with equal probability (a busy one
        queues the task), or all clients in a random order that is drawn anew for each pass.
        "answered" asks fast clients more often: with data that differ the answer leans to them.
    momentum : float
        Server momentum in [0, 1): ``v <- momentum v + g``, ``x <- x - step v``.
    delay_adaptive : bool
        Multiply the step by ``K / max(K, staleness)``, K tasks in flight.
    concurrency : int, optional
        K, the tasks kept in flight; by default the run's: all clients for "answered", else as many as can be
        worked on at a time.

    References
    ----------
    The method and its delay-adaptive steps: Koloskova, Stich, Jaggi, "Sharper convergence guarantees for
    asynchronous SGD", NeurIPS 2022; Mishchenko, Bach, Even, Woodworth, "Asynchronous SGD beats minibatch SGD
    under arbitrary delays", NeurIPS 2022. Shuffled clients: Islamov, Safaryan, Alistarh, "AsGrad", AISTATS 2024.
    Delay-adaptive steps are there 1/tau above a threshold; K/max(K, tau) is continuous at the threshold K.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> result = td.run(AsyncSGD(step=0.3), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(300))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6))
    True
    """

    step: Step
    next_client: NextClient = "answered"
    momentum: float = 0.0
    delay_adaptive: bool = False
    concurrency: int | None = None

    def __post_init__(self) -> None:
        self._check_step()
        self._check_momentum()
        self._check_asking()

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        self._warm_up(problem)
        return super().configure(problem, concurrency, max_staleness)

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[AsyncState, Orders]:
        velocity = np.zeros_like(x0) if self.momentum else None
        state = AsyncState(x=x0, fresh=x0.nbytes <= SMALL, n_clients=n_clients, velocity=velocity)
        return state, self._first_tasks(state, rng)

    def receive(self, state: AsyncState, reply: Reply, rng: Rng) -> tuple[AsyncState, Orders]:
        self._descend(state, reply.payload, self._factor(state, reply) if self.delay_adaptive else 1.0)
        return state, [self._next_task(state, reply.task, rng)]

    def _factor(self, state: AsyncState, reply: Reply) -> float:
        n_open = self.concurrency or 1
        return n_open / max(n_open, state.version - reply.version)
