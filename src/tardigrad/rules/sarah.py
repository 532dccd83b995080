"""SARAH: descent along a running sum of differences of gradients, in rounds; the synchronous counterpart of AsyncBC.

``m[0] = sum_i w_i grad f_i(x[0])``, then ``m[t] = m[t-1] + mean over the clients j of round t of
n w_j (grad f_j(x[t]; xi) - grad f_j(x[t-1]; xi))`` and ``x[t+1] = x[t] - step m[t]``.

Rules of this file:

- a round's replies are added in the order in which their tasks were issued, so every engine gives the same bits; early ones
  are kept until it is their turn;
- what a worker computes is that of AsyncBC, and stands in `tardigrad.rules.differences`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, State, scratch_field
from tardigrad.core.steps import Step
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Reply
from tardigrad.core.validate import integer, optional_integer
from tardigrad.rules.asking import distinct_clients
from tardigrad.rules.differences import DIFFERENCE, FULL, DifferenceRule
from tardigrad.rules.gradient_descent import SMALL, check_shape


@dataclass(slots=True, kw_only=True)
class SarahState(State):
    """State of `SARAH`.

    Attributes
    ----------
    x_previous : array (..., dim)
        The iterate before x.
    m : array (..., dim)
        The estimate of the full gradient; in the middle of a round with what has been added of it.
    n_clients : int
        Number of clients.
    turn : int
        Id of the task whose reply is added next.
    early : dict
        Replies that came before their turn, by task id.
    """

    x_previous: Array
    m: Array
    n_clients: int
    turn: int = 0
    early: dict[int, Array] = field(default_factory=dict)
    scratch: tuple[Array | None, Array | None] | None = scratch_field()
    part: Array | None = scratch_field()


@dataclass(frozen=True)
class SARAH(DifferenceRule[SarahState]):
    """StochAstic Recursive grAdient algoritHm: a full gradient, corrected by differences of single clients' gradients.

    ``m[t] = m[t-1] + (1/k) sum_{j in S_t} n w_j (grad f_j(x[t]; xi) - grad f_j(x[t-1]; xi)), x[t+1] = x[t] - step[t] m[t]``,
    S_t being k clients.

    Parameters
    ----------
    step : float, array or StepSequence
        Step size; an array runs one replica for each entry.
    sample : int
        Clients in a round, k: one is drawn by ``rng.integers(n)``, more without replacement; all of them make it full
        gradient descent where gradients are exact.
    restart_every : int, optional
        Updates from one full gradient to the next, its own included: the length of the inner loop. By default there is only
        the first, and errors of m stay.

    Notes
    -----
    Memory: x, the x before and m. A difference costs two gradients, a full round one for each client.

    Departures from the paper: an inner loop goes on from the last iterate of the one before, where the analysis takes one that
    is drawn from all of them; clients have weights, and take the place of the paper's components of the sum.

    `AsyncBC` with one task in flight is this method, in the same bits if both draw the same clients.

    References
    ----------
    Nguyen, Liu, Scheinberg, Takac, "SARAH: a novel method for machine learning problems using stochastic recursive gradient",
    ICML 2017, Algorithm 1; rounds of several clients: the same, "Stochastic recursive gradient algorithm for nonconvex
    optimization", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.ClientQuadratics.of_paper(zeta=10.0)
    >>> rule = SARAH(step=0.2, restart_every=10)
    >>> result = td.run(rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(300))
    >>> bool(np.allclose(result.x, problem.minimiser, atol=1e-9))
    True
    """

    unsuited: ClassVar[Mapping[str, str]] = {
        "Prescribed": "a round waits for its slowest reply, so nothing is left to prescribe"
    }

    step: Step
    sample: int = 1
    restart_every: int | None = None

    def __post_init__(self) -> None:
        self._check_step()
        object.__setattr__(self, "sample", integer(self.sample, "sample"))
        object.__setattr__(self, "restart_every", optional_integer(self.restart_every, "restart_every"))

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> SARAH:
        integer(self.sample, "sample", high=problem.n_clients)
        self._warm_up(problem)
        return self

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[SarahState, Orders]:
        state = SarahState(x=x0, x_previous=x0.copy(), m=np.zeros_like(x0), n_clients=n_clients, fresh=x0.nbytes <= SMALL)
        return state, self._round(state, rng)

    def receive(self, state: SarahState, reply: Reply, rng: Rng) -> tuple[SarahState, Orders]:
        part: Any = reply.payload
        check_shape(part, state.x)
        if reply.task.id != state.turn:
            state.early[reply.task.id] = np.array(part)
            return state, []
        while part is not None:
            self._add(state, state.m, part, reply.task.weight)
            state.turn += 1
            part = state.early.pop(state.turn, None)
        if state.turn < state.issued:
            return state, []
        self._advance(state)
        return state, self._round(state, rng)

    def _round(self, state: SarahState, rng: Rng) -> Orders:
        """Ask for the full gradient, or for the next differences."""
        if state.version == 0 or (self.restart_every is not None and state.version % self.restart_every == 0):
            state.m[...] = 0
            return [state.task(client, FULL) for client in range(state.n_clients)]
        clients = distinct_clients(state.n_clients, self.sample, rng)
        return [state.task(client, DIFFERENCE, weight=1.0 / self.sample) for client in clients]
