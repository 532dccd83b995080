"""Sketch-and-project methods for consistent linear systems: basic, parallel, accelerated, and asynchronous.

A problem gives random functions f_S with a common minimiser: for ``A x = b`` the gradient of f_S in the B-inner product is
``B^-1 A'S (S'A B^-1 A'S)^+ S'(A x - b)``. All methods consist of steps ``phi(x, S) = x - omega grad f_S(x)``, which workers
make; they differ in what the server does with them.

- `SketchProject`: ``x[k+1] = phi(x[k], S[k])``.
- `ParallelSketchProject`: the average of tau steps from one point.
- `AcceleratedSketchProject`: ``x[k+1] = gamma phi(x[k], S[k]) + (1 - gamma) phi(x[k-1], S[k-1])``.
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
from typing import Any, ClassVar, Generic

import numpy as np
from numpy import multiply

from tardigrad.core.compiled import mix_in, warm_up
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, S, State, scratch_field
from tardigrad.core.steps import check_step
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.validate import integer, optional_integer
from tardigrad.rules.gradient_descent import SMALL, GradientRule

_NO_DELAY: Mapping[str, str] = {"Prescribed": "the method waits for every reply, so nothing is left to prescribe"}


class _SketchRule(GradientRule[S], Generic[S]):
    """The worker's half, which all share: one step of the basic method."""

    omega: float | Array

    def _check(self) -> None:
        object.__setattr__(self, "omega", check_step(self.omega, "omega", sequence=False))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.shape(self.omega)

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        x = points[0]
        step = multiply(super().work(problem, task, points, rng, cache), _column(self.omega, x.dtype))
        y: Array = np.subtract(x, step, step if (step.shape, step.dtype) == (x.shape, x.dtype) else None)
        return y


def _column(value: float | Array, dtype: np.dtype[Any]) -> float | Array:
    """A parameter, ready to multiply iterates (..., dim) of a type."""
    return value[..., np.newaxis].astype(dtype, copy=False) if isinstance(value, np.ndarray) else value


def _share(value: Any, name: str, high: float, closed: bool) -> float | Array:
    """A number, or an array of them, in [0, high] if closed, else in (0, high)."""
    try:
        values = np.array(value, dtype=float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    inside = (values >= 0) & (values <= high) if closed else (values > 0) & (values < high)
    if isinstance(value, (bool, str)) or values.size == 0 or not inside.all():
        low, end = ("[0", "]") if closed else ("(0", ")")
        raise InvalidInputError(f"{name} must be a number in {low}, {high:g}{end} or an array of them, not {value!r}")
    return values if values.ndim else float(values)


def _joint_shape(rule: Any, **parameters: float | Array) -> tuple[int, ...]:
    """The shape of parameters together."""
    shapes = {name: np.shape(value) for name, value in parameters.items()}
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        text = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InvalidInputError(f"arrays of {type(rule).__name__} must broadcast: {text} do not") from None


def _start(x0: Array) -> dict[str, Any]:
    return {"x": x0, "fresh": x0.nbytes <= SMALL}


def _check_reply(state: State, y: Any) -> None:
    if np.shape(y) != state.x.shape:
        raise InvalidInputError(f"a step from iterates of shape {state.x.shape} has shape {np.shape(y)}: they must be equal")


def _take(state: State, y: Array) -> None:
    """``x <- y``: a reply's memory is not the state's to keep."""
    if state.fresh:
        state.x = np.array(y, state.x.dtype)
    else:
        state.x[...] = y


class _Mixing(_SketchRule[S], Generic[S]):
    """The server's half of methods that mix a reply into a point: ``(1 - share) point + share y``."""

    def _mix(self, state: Any, share: float | Array, point: Array, y: Array) -> Array:
        """The mixture, in place of `point` unless the state is fresh."""
        buffer, part, rest = state.scratch or self._workspace(state, share, y)
        if buffer is None:
            mix_in(point, y, share)
            return point
        multiply(y, part, buffer)
        if state.fresh:
            mixed: Array = multiply(point, rest)
            mixed += buffer
            return mixed
        point *= rest
        point += buffer
        return point

    def _workspace(self, state: Any, share: float | Array, y: Array) -> tuple[Array | None, Any, Any]:
        """Room for a temporary, and both shares as arrays, which NumPy need not convert at every update."""
        _check_reply(state, y)
        x = state.x
        if x.ndim == 1 and not state.fresh:
            state.scratch = None, None, None
        else:
            part = np.asarray(_column(share, x.dtype), x.dtype)
            rest = np.asarray(_column(1.0 - share, x.dtype), x.dtype)
            if part.ndim:  # a sweep: rows of the full length are twice as fast as a column
                part, rest = (np.array(np.broadcast_to(each, x.shape)) for each in (part, rest))
            state.scratch = np.empty_like(x), part, rest
        scratch: tuple[Array | None, Any, Any] = state.scratch
        return scratch

    def _warm_up(self, problem: Problem) -> None:
        """Compile before the run what large iterates are updated with."""
        if problem.dim * problem.dtype.itemsize > SMALL:
            warm_up(problem.dtype, mix_in)


@dataclass(slots=True, kw_only=True)
class SketchState(State):
    """State of `SketchProject`."""

    n_clients: int


@dataclass(frozen=True)
class SketchProject(_SketchRule[SketchState]):
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

    unsuited: ClassVar[Mapping[str, str]] = _NO_DELAY

    omega: float | Array = 1.0

    def __post_init__(self) -> None:
        self._check()

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return 1

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[SketchState, Orders]:
        state = SketchState(**_start(x0), n_clients=n_clients)
        return state, [state.task(0)]

    def receive(self, state: SketchState, reply: Reply, rng: Rng) -> tuple[SketchState, Orders]:
        _check_reply(state, reply.payload)
        y: Any = reply.payload
        _take(state, y)
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
class ParallelSketchProject(_SketchRule[ParallelSketchState]):
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

    unsuited: ClassVar[Mapping[str, str]] = _NO_DELAY

    omega: float | Array
    tau: int

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "tau", integer(self.tau, "tau"))

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return self.tau

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[ParallelSketchState, Orders]:
        state = ParallelSketchState(**_start(x0), n_clients=n_clients, total=np.zeros_like(x0))
        return state, self._round(state)

    def receive(self, state: ParallelSketchState, reply: Reply, rng: Rng) -> tuple[ParallelSketchState, Orders]:
        _check_reply(state, reply.payload)
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
        _take(state, state.total)
        state.version += 1
        return state, self._round(state)

    def _round(self, state: ParallelSketchState) -> Orders:
        return [state.task(state.issued % state.n_clients) for _ in range(self.tau)]


@dataclass(slots=True, kw_only=True)
class AcceleratedSketchState(State):
    """State of `AcceleratedSketchProject`: the step computed last."""

    n_clients: int
    previous: Array | None = None
    scratch: tuple[Array | None, Any, Any] | None = scratch_field()


@dataclass(frozen=True)
class AcceleratedSketchProject(_Mixing[AcceleratedSketchState]):
    """Richtarik and Takac's accelerated method, which extrapolates from two steps in a row.

    ``z[k] = x[k] - omega grad f_{S[k]}(x[k])``, ``x[k+1] = gamma z[k] + (1 - gamma) z[k-1]``, and ``x[1] = z[0]``.

    Parameters
    ----------
    omega : float or array
        Step size, ``> 0``; an array runs one replica for each entry.
    gamma : float or array
        Weight of the newer step in (0, 2); 1 is the basic method.

    Notes
    -----
    What is accelerated is the expected error. In an eigenvector of ``W = B^-1/2 E[Z] B^-1/2`` to the eigenvalue lambda,
    with ``s = 1 - omega lambda``, it obeys ``p[k+1] = gamma s p[k] + (1 - gamma) s p[k-1]``, whose characteristic polynomial
    is ``r^2 - gamma s r - (1 - gamma) s``. Choose ``omega <= 1 / lambda_max``, so that s >= 0, and
    ``gamma = 2 / (1 + q)``, ``q = sqrt(omega lambda_min)``. For lambda_min, ``s = 1 - q^2``, the discriminant vanishes and both
    roots are 1 - q. For larger lambda the roots are complex, and their squared modulus is
    ``(gamma - 1) s <= (1 - q)/(1 + q) (1 - q^2) = (1 - q)^2``. So ``|E[x[k] - x*]|`` falls like ``k (1 - q)^k``, which takes
    about the square root of the basic method's number of steps.

    `tardigrad.theory.accelerated.accelerated_parameters` computes them. The mean square error is another matter: with
    ``omega = 1 / lambda_max`` it grows without bound where sketches are single rows (lambda_max is then small, so omega is
    large): the average of many runs has the fast rate, and every single run diverges. With a small enough omega it falls,
    in small examples at best 0.9 to 1.7 times as fast as the basic method's at its best; which omega that is, theory does
    not say. With blocks of more than half of the unknowns ``1 / lambda_max`` was safe, and no faster than the basic method.

    References
    ----------
    Richtarik, Takac, "Stochastic reformulations of linear systems: algorithms and convergence theory", SIAM J. Matrix
    Anal. Appl. 2020, the accelerated method and its weak rate. There x[1] is free; here it makes gamma = 1 the basic method.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), batch=1)
    >>> rule = AcceleratedSketchProject(omega=1.0, gamma=1.2)
    >>> result = td.run(rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(100))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6))
    True
    """

    unsuited: ClassVar[Mapping[str, str]] = _NO_DELAY

    omega: float | Array
    gamma: float | Array

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "gamma", _share(self.gamma, "gamma", 2, closed=False))
        _joint_shape(self, omega=self.omega, gamma=self.gamma)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return _joint_shape(self, omega=self.omega, gamma=self.gamma)

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return 1

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> AcceleratedSketchProject:
        self._warm_up(problem)
        return self

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[AcceleratedSketchState, Orders]:
        state = AcceleratedSketchState(**_start(x0), n_clients=n_clients)
        return state, [state.task(0)]

    def receive(self, state: AcceleratedSketchState, reply: Reply, rng: Rng) -> tuple[AcceleratedSketchState, Orders]:
        z: Any = reply.payload
        _check_reply(state, z)
        if state.previous is None:
            _take(state, z)
            state.previous = np.array(z, state.x.dtype)
        else:
            point = state.previous
            if not state.fresh:  # x keeps its own memory, which may be an engine's
                state.x[...] = point
                point = state.x
            state.x = self._mix(state, self.gamma, point, z)
            state.previous[...] = z
        state.version += 1
        return state, [state.task(state.issued % state.n_clients)]


@dataclass(slots=True, kw_only=True)
class AveragedSketchState(State):
    """State of `AveragedSketchProject`."""

    scratch: tuple[Array | None, Any, Any] | None = scratch_field()


@dataclass(frozen=True)
class AveragedSketchProject(_Mixing[AveragedSketchState]):
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

    omega: float | Array
    theta: float | Array
    concurrency: int | None = None

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "theta", _share(self.theta, "theta", 1, closed=True))
        object.__setattr__(self, "concurrency", optional_integer(self.concurrency, "concurrency"))
        _joint_shape(self, omega=self.omega, theta=self.theta)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return _joint_shape(self, omega=self.omega, theta=self.theta)

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
        state = AveragedSketchState(**_start(x0))
        return state, [state.task(i % n_clients) for i in range(self.concurrency)]

    def receive(self, state: AveragedSketchState, reply: Reply, rng: Rng) -> tuple[AveragedSketchState, Orders]:
        y: Any = reply.payload
        if y.__class__ is not np.ndarray or y.shape != state.x.shape:
            _check_reply(state, y)
        state.x = self._mix(state, self.theta, state.x, y)
        state.version += 1
        return state, [state.task(reply.task.client)]
