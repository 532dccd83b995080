"""AsyncBC: asynchronous gradient descent whose answer does not depend on who answers fast (bias correction).

The server keeps m, a running estimate of the full gradient, and adds to it the *differences* of clients' gradients, in which
what their data have of their own cancels::

    x[1] = x[0] - step m[0],  m[0] = grad f(x[0])
    m[t] = m[t-1] + g,  g = n w_j (grad f_j(x[s]; xi) - grad f_j(x[s-1]; xi)),  s the version that client j read
    x[t+1] = x[t] - step m[t]

Rules of this file:

- clients are drawn uniformly from all of them, busy ones too, which then queue: asking whoever is free is a bias that stays;
- both gradients of a difference are of the same sample;
- several tasks issued at one version are parts of one difference: each is weighted by one over their number;
- full gradients are added in the order in which they were asked for, so m[0] has the same bits on every engine;
- a reply counts once: the loop sees to that, and so a lost or a doubled one cannot bias m.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np

from tardigrad.core.errors import InvalidInputError, TheoryWarning
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, scratch_field
from tardigrad.core.steps import Step
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.validate import integer, optional_integer
from tardigrad.rules.asking import Asking, AskingState, NextClient, distinct_clients
from tardigrad.rules.compression import Compressor
from tardigrad.rules.differences import DIFFERENCE, FULL, DifferenceRule
from tardigrad.rules.gradient_descent import SMALL, check_shape
from tardigrad.theory.async_bc import full_gradient_step, stochastic_step


@dataclass(slots=True, kw_only=True)
class BiasState(AskingState):
    """State of `AsyncBC`.

    Attributes
    ----------
    x_previous : array (..., dim)
        The iterate before x.
    m : array (..., dim)
        The estimate of the full gradient.
    total : array (..., dim)
        Sum of the full gradients of the gathering that goes on, and of the differences that follow it.
    gathered : int
        Full gradients of it that were added.
    first : int
        Task id of its first full gradient.
    early : dict
        Full gradients that came before their turn.
    epoch : int
        Restarts so far: the setup of tasks.
    anchor : int
        Version at which the full gradients are taken that m is, or is to be, made of.
    waiting : int
        Differences that came since the last update.
    """

    x_previous: Array
    m: Array
    total: Array
    gathered: int = 0
    first: int = 0
    early: dict[int, Array] = field(default_factory=dict)
    epoch: int = 0
    anchor: int = 0
    waiting: int = 0
    scratch: tuple[Array | None, Array | None] | None = scratch_field()
    part: Array | None = scratch_field()


@dataclass(frozen=True)
class AsyncBC(Asking[BiasState], DifferenceRule[BiasState]):
    """Bias-corrected asynchronous gradient descent (SARAH's recursion with replies that come late).

    ``m <- m + n w_j (grad f_j(x[s]; xi) - grad f_j(x[s-1]; xi))``, ``x <- x - step m``.

    Parameters
    ----------
    step : float, array, StepSequence or "theory"
        Step size; an array runs one replica for each entry. "theory": Theorem 1's with the condition that its proof needs, or
        Theorem 2's where gradients are stochastic, from ``problem.constants()``, `horizon`, and the ``concurrency`` and
        ``max_staleness`` that are passed to `run`. It is safe, and 50 to 1000 times smaller than the best step.
    next_client : {"uniform", "shuffled", "answered"}
        Who is asked next. Anything but "uniform" is outside of the theory; "answered" converges to a point that is not
        stationary where clients differ: ``|grad f| / |m[0]|`` tends to a constant that depends on their speeds.
    restart_every : int, optional
        Updates after which all clients are asked for full gradients again, while the others go on. When the last has come, m
        becomes their mean plus the differences since; those issued before are dropped. Not in the paper.
    buffer : int
        Replies that make an update, at most the concurrency. Not in the paper.
    horizon : int, optional
        Updates that a step of theory is for.
    compression : Compressor, optional
        What differences are compressed with, unbiased; full gradients are not. Not in the paper.
    concurrency : int, optional
        Differences kept in flight, at most the number of clients; by default as many as can be worked on at a time.

    Notes
    -----
    Memory at the server: x, the x before, m, and the sum of the full gradients; early ones wait, at worst one vector a
    client. A difference costs two gradients.

    m is a telescoping sum: an error that noise in the differences leaves in it stays until a restart. With exact gradients of
    quadratics ``x[t] - x*`` does not depend on how much the clients differ.

    With concurrency 1 it is `SARAH`, bit for bit.

    Raises
    ------
    InvalidInputError
        If the concurrency is above the number of clients or below the buffer.

    References
    ----------
    Gao, Takezawa, Stich, "A bias correction mechanism for distributed asynchronous optimization", Algorithms 1 and 2
    (AsyncBC-GD for problems with exact gradients, AsyncBC-SGD for others).

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.arange(4.0)), td.Iid(4))
    >>> engine = td.Simulated(td.PerClient([1.0, 1.0, 1.0, 8.0]))
    >>> result = td.run(AsyncBC(step=0.1, restart_every=20), problem, engine, stop=td.MaxUpdates(2000), concurrency=2)
    >>> bool(np.allclose(result.x, np.arange(4.0), atol=1e-6))
    True
    """

    sources: ClassVar[Mapping[str, str]] = {
        **Asking.sources,
        "step": "theory: Theorem 1, or 2 for stochastic gradients, of Gao, Takezawa, Stich, from the problem's L, delta, ell",
    }

    step: Step | Literal["theory"]  # type: ignore[assignment]  # a number as soon as it is configured
    next_client: NextClient = "uniform"
    restart_every: int | None = None
    buffer: int = 1
    horizon: int | None = None
    compression: Compressor | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.step, str) and self.step == "theory"):
            self._check_step()
        object.__setattr__(self, "horizon", optional_integer(self.horizon, "horizon"))
        object.__setattr__(self, "restart_every", optional_integer(self.restart_every, "restart_every"))
        object.__setattr__(self, "buffer", integer(self.buffer, "buffer"))
        if not isinstance(self.compression, (Compressor, type(None))):
            raise InvalidInputError(f"compression must be a Compressor such as RandomK(100), or None, not {self.compression!r}")
        self._check_asking()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return () if isinstance(self.step, str) else super().batch_shape

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return min(super().default_concurrency(problem, n_workers), problem.n_clients)

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        if concurrency > problem.n_clients:
            raise InvalidInputError(
                f"the first differences of AsyncBC are of different clients: concurrency={concurrency} must be at most the"
                f" number of clients, {problem.n_clients}"
            )
        if self.buffer > concurrency:
            raise InvalidInputError(
                f"buffer={self.buffer} replies are never there with {concurrency} tasks in flight: take concurrency >= buffer"
            )
        self._warm_up(problem)
        configured = super().configure(problem, concurrency, max_staleness)
        if not isinstance(self.step, str):
            return configured
        chosen: Self = dataclasses.replace(configured, step=self._step_of_theory(problem, concurrency, max_staleness))
        return chosen

    def _step_of_theory(self, problem: Problem, concurrency: int, max_staleness: int | None) -> float:
        if self.horizon is None or max_staleness is None:
            raise InvalidInputError(
                "step='theory' is for a number of updates and a largest delay: give AsyncBC(..., horizon=updates) and"
                " run(..., max_staleness=updates that a reply may be late)"
            )
        beyond = self.restart_every is not None or self.buffer > 1 or self.compression is not None
        if beyond or self.next_client != "uniform":
            warnings.warn(
                "the theorems behind step='theory' are about clients drawn uniformly, without restarts, buffers, compression",
                TheoryWarning,
                stacklevel=2,
            )
        known = problem.constants()
        times = concurrency, max(max_staleness, 1), self.horizon
        if problem.sample(0, np.random.default_rng(0)) is None:
            return full_gradient_step(known.L, known.delta, *times)
        return stochastic_step(known.L, known.ell, *times)

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[BiasState, Orders]:
        state = BiasState(
            x=x0,
            x_previous=x0.copy(),
            m=np.zeros_like(x0),
            total=np.zeros_like(x0),
            n_clients=n_clients,
            fresh=x0.nbytes <= SMALL,
        )
        return state, [state.task(client, FULL) for client in range(n_clients)]

    def receive(self, state: BiasState, reply: Reply, rng: Rng) -> tuple[BiasState, Orders]:
        if reply.task.kind == FULL:
            return state, self._gather(state, reply, rng)
        self._correct(state, reply)
        state.waiting += 1
        if state.waiting < self.buffer:
            return state, []
        state.waiting = 0
        self._advance(state)
        weight = 1.0 / self.buffer
        orders: Orders = []
        for _ in range(self.buffer):
            client = self._next_client(state, reply.task.client, rng)
            orders.append(state.task(client, DIFFERENCE, state.epoch, weight))
        if self.restart_every is not None and not self._gathering(state) and state.version - state.anchor >= self.restart_every:
            orders += self._restart(state)
        return state, orders

    def _gathering(self, state: BiasState) -> bool:
        return state.gathered < state.n_clients

    def _restart(self, state: BiasState) -> Orders:
        """Ask for all full gradients here; differences from here on belong to the new sum."""
        state.epoch += 1
        state.anchor, state.gathered, state.first = state.version, 0, state.issued
        state.total[...] = 0
        return [state.task(client, FULL, state.epoch) for client in range(state.n_clients)]

    def _gather(self, state: BiasState, reply: Reply, rng: Rng) -> Orders:
        """Add a full gradient when it is its turn; after the last of them m is new."""
        gradient: Any = reply.payload
        check_shape(gradient, state.x)
        if reply.task.id != state.first + state.gathered:
            state.early[reply.task.id] = np.array(gradient)
            return []
        while gradient is not None:
            state.total += gradient
            state.gathered += 1
            gradient = state.early.pop(state.first + state.gathered, None)
        if self._gathering(state):
            return []
        state.m[...] = state.total
        if state.epoch:
            return []
        self._advance(state)
        clients = self._first_clients(state, rng)
        return [state.task(client, DIFFERENCE, 0, 1.0 / len(clients)) for client in clients]

    def _first_clients(self, state: BiasState, rng: Rng) -> list[int]:
        if self.next_client == "uniform" and self.concurrency is not None:
            return distinct_clients(state.n_clients, self.concurrency, rng)
        return super()._first_clients(state, rng)

    def _correct(self, state: BiasState, reply: Reply) -> None:
        """``m <- m + weight g``, and the same for the sum that will be m; what was issued before m's anchor is dropped."""
        current = reply.task.setup == state.epoch
        if not (current or self._gathering(state)):
            return
        change: Any = reply.payload
        if self.compression is not None:
            change = self.compression.expand(change, state.x.shape[-1], state.x.dtype)
        check_shape(change, state.x, "difference")
        sums = (state.m, state.total) if current and self._gathering(state) else (state.m,)
        for total in sums:
            self._add(state, total, change, reply.task.weight)

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        found: Any = super().work(problem, task, points, rng, cache)
        if self.compression is None or task.kind == FULL:
            answer: Payload = found
            return answer
        return self.compression.compress(found, rng)
