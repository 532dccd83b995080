"""Sketch-and-project methods for consistent linear systems: basic, parallel, accelerated, and asynchronous.

A problem gives random functions f_S with a common minimiser: for ``A x = b`` the gradient of f_S in the B-inner product is
``B^-1 A'S (S'A B^-1 A'S)^+ S'(A x - b)``. All methods consist of steps ``phi(x, S) = x - omega grad f_S(x)``, which workers
make; they differ in what the server does with them.

- `SketchProject`: ``x[k+1] = phi(x[k], S[k])``.
- `ParallelSketchProject`: the average of tau steps from one point.
- `AcceleratedSketchProject` (`accelerated_sketch`): ``x[k+1] = gamma phi(x[k], S[k]) + (1 - gamma) phi(x[k-1], S[k-1])``.
- `AveragedSketchProject`: asynchronous, ``x[k+1] = (1 - theta) x[k] + theta phi(x[k - staleness], S[k])``.

Rules of this file:

- nothing is asked of a problem but `sample`, `gradient`, and `scale` where clients weigh differently, so every method runs on
  every problem; the theory that is cited holds for consistent systems whose clients share the data;
- clients are asked in turn, or again when they answered: which one does not matter where data are shared;
- a reply is a point, not a step: what the server does is a convex combination (the accelerated method: an affine one).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, State, scratch_field
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Reply
from tardigrad.core.validate import integer, optional_integer
from tardigrad.rules.accelerated_sketch import AcceleratedSketchProject, AcceleratedSketchState
from tardigrad.rules.gradient_descent import check_shape
from tardigrad.rules.sketch_steps import (
    NO_STALENESS,
    MixingRule,
    SketchRule,
    joint_shape,
    share_of,
    start_of,
    take,
)

__all__ = [  # with what stood here once: its users find it, and runs that were saved then
    "AcceleratedSketchProject",
    "AcceleratedSketchState",
    "AveragedSketchProject",
    "AveragedSketchState",
    "ParallelSketchProject",
    "ParallelSketchState",
    "SketchProject",
    "SketchState",
]


@dataclass(slots=True, kw_only=True)
class SketchState(State):
    """State of `SketchProject`."""

    n_clients: int


@dataclass(frozen=True)
class SketchProject(SketchRule[SketchState]):
    """The basic method: one step after another, ``x[k+1] = x[k] - omega grad f_S(x[k])``.

    Parameters
    ----------
    omega : float or array
        Step size, ``> 0``; an array runs one replica for each entry. 1 projects onto the sketched system and has the best
        rate in mean square. From 2 on a single sketch no longer brings x nearer to the solutions.

    Notes
    -----
    One task is in flight: more workers do not help. ``E|x[k] - x*|_B^2 <= (1 - omega (2 - omega) lambda_min)^k
    |x[0] - x*|_B^2`` for 0 < omega < 2, lambda_min the smallest nonzero eigenvalue of ``W = B^-1/2 E[Z] B^-1/2``.

    References
    ----------
    Richtarik, Takac, "Stochastic reformulations of linear systems: algorithms and convergence theory", SIAM J. Matrix
    Anal. Appl. 2020; (6) in Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving
    consistent linear systems".

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), batch=1)
    >>> result = td.run(SketchProject(omega=1.0), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(100))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6))
    True
    """

    unsuited: ClassVar[Mapping[str, str]] = NO_STALENESS

    omega: float | Array = 1.0

    def __post_init__(self) -> None:
        self._check()

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return 1

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[SketchState, Orders]:
        state = SketchState(**start_of(x0), n_clients=n_clients)
        return state, [state.task(0)]

    def receive(self, state: SketchState, reply: Reply, rng: Rng) -> tuple[SketchState, Orders]:
        check_shape(reply.payload, state.x, "step")
        y: Any = reply.payload
        take(state, y)
        state.version += 1
        return state, [state.task(state.issued % state.n_clients)]


@dataclass(slots=True, kw_only=True)
class ParallelSketchState(State):
    """State of `ParallelSketchProject`: the sum of the round's replies so far, and those that came before their turn."""

    n_clients: int
    total: Array
    turn: int = 0
    early: dict[int, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class ParallelSketchProject(SketchRule[ParallelSketchState]):
    """The parallel (minibatch) method: the average of tau independent steps from one point.

    ``x[k+1] = (1/tau) sum_{i=1..tau} (x[k] - omega grad f_{S[k,i]}(x[k]))``, when the last of the round is in.

    Parameters
    ----------
    omega : float or array
        Step size, ``> 0``; an array runs one replica for each entry. The rate in mean square is below one for
        ``omega < 2 / xi``, ``xi = 1/tau + (1 - 1/tau) lambda_max``; ``1 / xi`` is the paper's choice.
    tau : int
        Steps in a round, ``>= 1``; more than there are workers are done one after another.

    Notes
    -----
    Replies are added in the order in which their tasks were issued, so that the bits do not depend on who was faster; early
    ones are kept: at worst tau - 1 vectors.

    References
    ----------
    (8) and Theorem 1 in Sahu, Dutta, Tiwari, Richtarik (where the factor ``lambda_max / 2`` of (9) belongs to f, not to the
    squared error); Richtarik, Takac, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Shared(2), batch=1)
    >>> rule = ParallelSketchProject(omega=1.5, tau=2)
    >>> result = td.run(rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(100))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6))
    True
    """

    unsuited: ClassVar[Mapping[str, str]] = NO_STALENESS

    omega: float | Array
    tau: int

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "tau", integer(self.tau, "tau"))

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return self.tau

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[ParallelSketchState, Orders]:
        state = ParallelSketchState(**start_of(x0), n_clients=n_clients, total=np.zeros_like(x0))
        return state, self._round(state)

    def receive(self, state: ParallelSketchState, reply: Reply, rng: Rng) -> tuple[ParallelSketchState, Orders]:
        check_shape(reply.payload, state.x, "step")
        if reply.task.id != state.turn:
            state.early[reply.task.id] = np.array(reply.payload)
            return state, []
        y: Any = reply.payload
        while y is not None:
            if state.turn % self.tau:
                state.total += y
            else:  # the first of a round is copied: with tau = 1 the bits are those of the basic method
                state.total[...] = y
            state.turn += 1
            y = state.early.pop(state.turn, None)
        if state.turn < state.issued:
            return state, []
        state.total /= self.tau
        take(state, state.total)
        state.version += 1
        return state, self._round(state)

    def _round(self, state: ParallelSketchState) -> Orders:
        return [state.task(state.issued % state.n_clients) for _ in range(self.tau)]


@dataclass(slots=True, kw_only=True)
class AveragedSketchState(State):
    """State of `AveragedSketchProject`."""

    scratch: tuple[Array | None, Any, Any] | None = scratch_field()


@dataclass(frozen=True)
class AveragedSketchProject(MixingRule[AveragedSketchState]):
    """Asynchronous sketch-and-project: each step is mixed into the iterate when it comes, however old its start.

    ``y = x[k - staleness] - omega grad f_S(x[k - staleness])``, ``x[k+1] = (1 - theta) x[k] + theta y``.

    Parameters
    ----------
    omega : float or array
        Step size, ``> 0``. Theory covers ``omega <= 2 / (lambda_min + lambda_max)``.
    theta : float or array
        Damping in [0, 1], the weight of a reply: 1 replaces the iterate by it, 0 ignores it. Arrays run one replica for
        each entry, and those of omega and theta broadcast.
    concurrency : int, optional
        Tasks in flight; by default the run's.

    Notes
    -----
    The whole point that a step started from is mixed in, not the step alone: with theta = 1 a late reply throws away what
    others did in the meantime. That makes the method safe for any delay and slow for large ones; delayed row actions,
    which apply the step alone to the newest point, are another method with another rate.

    With staleness at most d, ``E|x[k+1] - x*|_B^2 <= K1 E|x[k] - x*|_B^2 + K2 E|x[k-d] - x*|_B^2`` (Theorem 5), so the mean
    square error goes to zero where ``K1 + K2 < 1``. tau equally fast workers in turn have staleness tau - 1.

    References
    ----------
    (13)-(14) and Theorems 2 and 5 in Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for
    solving consistent linear systems".

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Shared(3), batch=1)
    >>> rule = AveragedSketchProject(omega=1.5, theta=0.5)
    >>> result = td.run(rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(400))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6))
    True
    """

    sources: ClassVar[Mapping[str, str]] = {"concurrency": "run: tasks in flight"}

    omega: float | Array
    theta: float | Array
    concurrency: int | None = None

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "theta", share_of(self.theta, "theta", 1, closed=True))
        object.__setattr__(self, "concurrency", optional_integer(self.concurrency, "concurrency"))
        joint_shape(self, omega=self.omega, theta=self.theta)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return joint_shape(self, omega=self.omega, theta=self.theta)

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        if self.concurrency is not None:
            return self.concurrency
        return n_workers if problem.shared_data else max(n_workers, problem.n_clients)

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> AveragedSketchProject:
        if concurrency < problem.n_clients and not problem.shared_data:
            raise InvalidInputError(
                f"AveragedSketchProject asks whoever answered: with {concurrency} tasks in flight"
                f" {problem.n_clients - concurrency} of the {problem.n_clients} clients would never be asked; pass"
                f" concurrency={problem.n_clients} to run"
            )
        self._warm_up(problem)
        return dataclasses.replace(self, concurrency=concurrency)

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[AveragedSketchState, Orders]:
        if self.concurrency is None:
            raise InvalidInputError("AveragedSketchProject must be configured before it starts: tardigrad.run does that")
        state = AveragedSketchState(**start_of(x0))
        return state, [state.task(i % n_clients) for i in range(self.concurrency)]

    def receive(self, state: AveragedSketchState, reply: Reply, rng: Rng) -> tuple[AveragedSketchState, Orders]:
        y: Any = reply.payload
        if y.__class__ is not np.ndarray or y.shape != state.x.shape:
            check_shape(y, state.x, "step")
        state.x = self._mix(state, self.theta, state.x, y)
        state.version += 1
        return state, [state.task(reply.task.client)]
