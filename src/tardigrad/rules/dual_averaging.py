"""Stochastic gradients under a convex constraint, from points whose age may grow without bound.

Minimise f over a closed convex set X; g is a stochastic gradient, s(n) <= n the version that update n was computed from,
a_1, a_2, ... the steps, P the projection onto X.

- `DASGD`: dual averaging, or lazy projection; ``y[n+1] = y[n] - a[n+1] g(x[s(n)])``, ``x[n] = P(y[n])``. y is never projected.
- `DAGD`: the same with exact gradients.
- `ProjectedSGD`: the greedy variant, ``x[n+1] = P(x[n] - a[n+1] g(x[s(n)]))``. It is another method: where the minimiser
  lies on the boundary, y of DASGD runs away from X and remembers how far.

Rules of this file:

- workers read x, which is always feasible; save where they read it while it is written (``Processes(points="live")``):
  then it may be a point half-way to its projection;
- ``step(n)`` of a `StepSequence`, n = 0, 1, ..., is the paper's a_{n+1};
- steps are the same for all replies: how old one is does not matter, the sequence has to fit the delays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy import multiply

from tardigrad.core.compiled import mix_in, subtract_scaled
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, scratch_field
from tardigrad.core.steps import Step, check_step, step_at, step_shape
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.validate import yes_or_no
from tardigrad.problems.projections import ConvexSet, as_constraint
from tardigrad.rules.asking import Asking, AskingState, NextClient
from tardigrad.rules.gradient_descent import SMALL, GradientRule, check_shape


@dataclass(slots=True, kw_only=True)
class DualState(AskingState):
    """State of the rules of this file.

    Attributes
    ----------
    y : array (..., dim) or None
        The dual variable, of which x is the projection; None for `ProjectedSGD`.
    average : array (..., dim) or None
        The ergodic average (5.2), ``sum_{k=1..n} a_k x_k / sum_{k=1..n} a_k``, if asked for; x while n = 0.
    weight : float or array
        ``sum_{k=1..n} a_k``.
    """

    y: Array | None = None
    average: Array | None = None
    weight: float | Array = 0.0
    scratch: Array | None = scratch_field()


@dataclass(frozen=True)
class _Projected(Asking[DualState], GradientRule[DualState]):
    """What the three rules share."""

    lazy: ClassVar[bool] = True
    _loops = (subtract_scaled, mix_in)

    step: Step
    constraint: ConvexSet | None = None
    average: bool = False
    next_client: NextClient = "answered"
    concurrency: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", check_step(self.step))
        object.__setattr__(self, "average", yes_or_no(self.average, "average"))
        if self.constraint is not None and not isinstance(self.constraint, ConvexSet):
            raise InvalidInputError(
                f"constraint must be a ConvexSet such as Ball(1.0) or Box(0.0, 1.0), or None, not {self.constraint!r};"
                " as_constraint makes one of other descriptions"
            )
        self._check_asking()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return step_shape(self.step)

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        as_constraint(self.constraint, problem.dim)
        self._warm_up(problem)
        return super().configure(problem, concurrency, max_staleness)

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[DualState, Orders]:
        state = DualState(x=x0, fresh=x0.nbytes <= SMALL, n_clients=n_clients)
        if self.lazy:
            state.y = x0.copy()
        if self.constraint is not None:
            self.constraint.project(x0, x0)
        if self.average:
            state.average = x0.copy()
        return state, self._first_tasks(state, rng)

    def receive(self, state: DualState, reply: Reply, rng: Rng) -> tuple[DualState, Orders]:
        step = step_at(self.step, state.version)
        self._move(state, reply.payload, step)
        state.version += 1
        if state.average is not None:
            self._average(state, step)
        return state, [self._next_task(state, reply.task, rng)]

    def _move(self, state: DualState, gradient: Any, step: Any) -> None:
        """The step and the projection; in place unless the state is fresh."""
        y = state.x if state.y is None else state.y
        check_shape(gradient, y)
        if y.ndim == 1 and not state.fresh:
            subtract_scaled(y, gradient, step)
        else:
            buffer = state.scratch
            if buffer is None:
                state.scratch = buffer = np.empty_like(y)
            multiply(gradient, step, buffer)
            in_place = state.y is not None or not state.fresh  # workers may hold a fresh x
            y = np.subtract(y, buffer, y if in_place else buffer)
        self._project(state, y)

    def _project(self, state: DualState, y: Array) -> None:
        """``x <- P(y)``; y may be x itself, or the buffer."""
        out = None if state.fresh else state.x
        if self.constraint is not None:
            state.x = self.constraint.project(y, out)
        elif out is None:
            state.x = y.copy()
        elif out is not y:
            out[...] = y

    def _average(self, state: DualState, step: Any) -> None:
        """``average <- average + a (x - average) / (sum of a)``: a convex combination, without large sums."""
        assert state.average is not None
        size = step[..., 0] if isinstance(step, np.ndarray) else step
        state.weight = state.weight + size
        share = size / state.weight
        if state.x.ndim == 1 and not state.fresh:
            mix_in(state.average, state.x, share)
            return
        buffer = state.scratch
        assert buffer is not None  # since _move was here
        np.subtract(state.x, state.average, buffer)
        buffer *= share[..., np.newaxis] if isinstance(share, np.ndarray) else share
        state.average += buffer


@dataclass(frozen=True)
class DASGD(_Projected):
    """Distributed asynchronous stochastic gradient descent with lazy projection (dual averaging).

    ``y[n+1] = y[n] - step(n) g(x[s(n)])``, ``x[n] = P(y[n])``, for replies from points of any age.

    Parameters
    ----------
    step : float, array or StepSequence
        Step sizes; `LogStep` and `LogLogStep` are proven for delays that grow, `PowerStep` for bounded ones and such that
        grow slower than its own power; see `tardigrad.steps_for`. An array runs one replica for each entry.
    constraint : ConvexSet, optional
        The feasible set; none by default. A start outside is projected: y begins there, x at its projection.
    average : bool
        Keep the ergodic average (5.2) in ``state.average`` too.
    next_client : {"answered", "uniform", "shuffled"}
        Who is asked next, as for `AsyncSGD`.
    concurrency : int, optional
        Tasks kept in flight; by default the run's choice.

    Notes
    -----
    Theorem 4.6: the last iterate converges almost surely to the minimisers, if X is compact, f is variationally coherent in
    the mean on X (all convex problems are), the gradient is Lipschitz and its noise has bounded second moments, and steps
    and delays fit (Assumption 3; ``step.proven_for``). Sums of the steps that fit growing delays diverge like log log n and
    slower: scale and offset decide whether anything happens in 10^5 updates.

    Whether the set is bounded and steps fit the delays is not looked at here: `minimize` and `GrowthWatch` do. Without a
    constraint it is `AsyncSGD`, bit for bit.

    Raises
    ------
    InvalidInputError
        If the constraint is of another dimension than the problem.

    References
    ----------
    Zhou, Mertikopoulos, Bambos, Glynn, Ye, Li, Fei-Fei, "Distributed asynchronous optimization with unbounded delays: how
    slow can you go?", ICML 2018, Algorithm 2. There the noise belongs to the version that is read: two updates that read one
    version with `Prescribed` have noise of their own here. On all other engines noise is a task's, as in the paper.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.array([3.0, 0.0, 0.0, 0.0])), td.Shared(2))
    >>> rule = DASGD(td.LogStep(50.0, offset=100), constraint=td.Ball(1.0))
    >>> result = td.run(rule, problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(2000))
    >>> np.round(result.x, 6).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """


@dataclass(frozen=True)
class DAGD(_Projected):
    """Distributed asynchronous gradient descent: `DASGD` with exact gradients of the client that answers.

    ``y[n+1] = y[n] - step(n) grad f(x[s(n)])``, ``x[n] = P(y[n])``.

    Parameters are those of `DASGD`. Problems of stochastic gradients are asked for all their data.

    References
    ----------
    Zhou et al., ICML 2018, Algorithm 3 and Theorem 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(2), np.array([3.0, 0.5])), td.Shared(2), batch=1)
    >>> result = td.run(DAGD(0.3, td.Box(0.0, 1.0)), problem, td.Prescribed(3), stop=td.MaxUpdates(200))
    >>> np.round(result.x, 6).tolist()
    [1.0, 0.5]
    """

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        gradient = problem.gradient(task.client, points[0])
        return gradient if problem.equal_weights else gradient * problem.scale(task.client)


@dataclass(frozen=True)
class ProjectedSGD(_Projected):
    """Asynchronous projected stochastic gradient descent, the greedy variant of `DASGD`.

    ``x[n+1] = P(x[n] - step(n) g(x[s(n)]))``

    Parameters are those of `DASGD`, which forgets nothing of what lies outside of the set; this method does at every step.
    Where the constraint is not active both are the same. The paper's theorems are about `DASGD`.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(2), np.array([3.0, 0.0])), td.Shared(2))
    >>> result = td.run(ProjectedSGD(0.5, td.Box(0.0, 1.0)), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(50))
    >>> result.x.tolist()
    [1.0, 0.0]
    """

    lazy: ClassVar[bool] = False
