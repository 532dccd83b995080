"""`tardigrad.minimize`: a stochastic gradient, a convex set, and workers that answer when they can.

Rules of this file:

- the function is tried at the start before any worker is: what is wrong with it is told at once;
- steps that are not given are proposed from what some gradients show, and are a `StepSequence` in ``result.rule``;
- what the user should know of a run that went well is in its message.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tardigrad.core.checks import as_observers
from tardigrad.core.drive import run
from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError, TheoryWarning
from tardigrad.core.observers import Observer
from tardigrad.core.result import Result
from tardigrad.core.steps import Step, check_step
from tardigrad.core.stopping import MaxUpdates, Stop, limits
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace
from tardigrad.core.validate import integer
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems.projections import ConvexSet, UserSet, as_constraint
from tardigrad.problems.user_gradient import UserGradient
from tardigrad.rules.dual_averaging import DASGD
from tardigrad.solvers.engines import engine_of
from tardigrad.solvers.growth_watch import GrowthWatch
from tardigrad.solvers.step_choice import LATE, constants_near, delays_of
from tardigrad.theory.step_proposal import steps_for

#: updates of a run where the user does not say
UPDATES = 10_000


def minimize(
    gradient: Callable[[Array, np.random.Generator], Any],
    x0: Any,
    *,
    constraint: Any = None,
    steps: Step | Trace | str = "auto",
    workers: int = 4,
    engine: Engine | str = "threads",
    stop: Stop | None = None,
    seed: int = 0,
    objective: Callable[[Array], Any] | None = None,
    average: bool = False,
    observers: Observer | Sequence[Observer] = (),
) -> Result:
    """Minimise what a stochastic gradient belongs to, over a convex set, on workers of any speed (`DASGD`).

    Parameters
    ----------
    gradient : callable
        ``gradient(x, rng)``: an array (dim,), in the mean the gradient at x (dim,), with random numbers from the
        `numpy.random.Generator` rng. It is called by several workers at once and must not change x.
    x0 : array (dim,)
        The start; one outside of the constraint is projected, and the message says so.
    constraint : ConvexSet, scipy.optimize.Bounds or callable, optional
        The feasible set: `Box`, `Ball`, `Simplex`, `L1Ball`, `AffineSubspace`, `NuclearNormBall`, a `ProductSet` of them, or a
        function that projects (dim,) onto a convex set. None: no constraint.
    steps : "auto", Trace, float or StepSequence
        Step sizes. "auto" is for delays that do not grow: `steps_for` with a Lipschitz constant and a noise that are estimated
        near the start and, where the set is bounded, at random points of it. The trace of an earlier run: the same for delays
        that grow as they did there.
    workers : int
        Threads or processes.
    engine : {"threads", "processes", "ray"} or Engine
        Where the workers are. Threads run one at a time unless the function spends its time in NumPy or other code that lets
        go of the interpreter; processes and Ray need a function that can be pickled, which nearly all can (cloudpickle).
    stop : Stop, optional
        When to end, such as ``MaxUpdates(10000) | MaxSeconds(60)``; after 10000 updates by default. "auto" steps are for this
        number of updates, or for 100000 where there is no limit of updates.
    seed : int
        All random numbers follow from it. Which reply comes when does not, on real workers: `tardigrad.replay`.
    objective : callable, optional
        ``objective(x)``, a number: the measure "objective", for ``result.evaluate()`` and `Tolerance`.
    average : bool
        Keep the ergodic average (5.2) too, in ``result.state.average``.
    observers : Observer or sequence of them
        Such as ``Progress()``.

    Returns
    -------
    Result
        ``x`` is the last iterate, which is feasible. The run replays; its staleness is in its trace.

    Warns
    -----
    TheoryWarning
        If staleness grows faster than the steps are proven for, naming its exponent and steps that fit; or if the
        constraint is not bounded, which the theory asks for (Section 2). Without a constraint that goes without saying:
        gradients must then be bounded for another reason.

    Raises
    ------
    InvalidInputError
        If an argument has a wrong value, the gradient a wrong shape or values that are not finite at the start, or a
        function that was given does not project.

    References
    ----------
    Zhou et al., "Distributed asynchronous optimization with unbounded delays: how slow can you go?", ICML 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> centre = np.array([0.7, 0.5, -0.1])
    >>> found = td.minimize(lambda x, rng: x - centre + rng.normal(size=3), np.zeros(3), constraint=td.Simplex())
    >>> bool(np.abs(found.x - [0.6, 0.4, 0.0]).max() < 0.05), found.status.value
    (True, 'max_updates')
    """
    workers, seed = integer(workers, "workers"), check_seed(seed)
    start = _as_start(x0)
    feasible = as_constraint(constraint, len(start))
    stop = MaxUpdates(UPDATES) if stop is None else stop
    most = limits(stop).updates
    where = engine_of(engine, workers)
    workers = getattr(where, "workers", None) or workers
    problem = UserGradient(gradient, len(start), workers, objective, start.dtype)
    inside = feasible.project(start)
    with single_threaded_blas():
        _try(problem, inside, seed)
        chosen, known = _steps(steps, problem, feasible, inside, seed, int(most if math.isfinite(most) else 10 * UPDATES))
    if constraint is not None and not feasible.bounded:
        warnings.warn(_unbounded(feasible), TheoryWarning, stacklevel=2)
    watch = GrowthWatch(chosen, known)
    rule = DASGD(chosen, None if constraint is None else feasible, average=average)
    result = run(rule, problem, where, stop=stop, x0=start, seed=seed, observers=[watch, *as_observers(observers)])
    result.solver = "minimize"
    notes = [result.message]
    if not np.allclose(inside, start, rtol=1e-6, atol=1e-9):
        notes.append(
            f"x0 was outside of the constraint, by {np.linalg.norm(inside - start):.3g}: the run began at its projection"
        )
    late = float(result.trace.staleness.mean()) if len(result.trace) else 0.0
    if isinstance(steps, str) and late > LATE * workers:
        notes.append(
            f"staleness was {late:.3g} in the mean, and the steps were proposed for at most {LATE * workers:g}: they may be too"
            " large; tardigrad.minimize(..., steps=result.trace) proposes others"
        )
    result.message = "; ".join([*notes, *([watch.warning] if watch.warning else [])])
    return result


def _steps(
    steps: Step | Trace | str, problem: UserGradient, feasible: ConvexSet, start: Array, seed: int, horizon: int
) -> tuple[Step, dict[str, Any]]:
    """The steps that were given, or proposed, and the constants that they were proposed from."""
    if isinstance(steps, str) and steps != "auto":
        raise InvalidInputError(f"steps must be 'auto', the trace of a run, a positive number or a StepSequence, not {steps!r}")
    if not isinstance(steps, (str, Trace)):
        return check_step(steps), {}
    known: dict[str, Any] = {**constants_near(problem, feasible, start, seed), "horizon": horizon}
    return check_step(steps_for(**known, **delays_of(steps, problem.n_clients))), known


def _unbounded(feasible: ConvexSet) -> str:
    """What the theory asks for, in words."""
    users = isinstance(feasible, UserSet)
    return (
        f"{feasible!r} is not {'known to be ' * users}bounded, and the theory asks for a compact set (Section 2 of Zhou et"
        " al.): convergence is proven only if the gradients along the run are bounded"
        f"{'; if it is, say so: UserSet(function, bounded=True)' * users}"
    )


def _as_start(x0: Any) -> Array:
    """A vector of floats."""
    try:
        start = np.asarray(x0)
        if np.iscomplexobj(start):
            raise TypeError
        start = start.astype(start.dtype if start.dtype in (np.float32, np.float64) else np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"x0 must be a vector of real numbers, not {x0!r}") from None
    if start.ndim != 1 or not start.size:
        matrix = "; of a matrix pass x0.ravel(), and x.reshape(..) in the gradient" if start.ndim > 1 else ""
        raise InvalidInputError(f"x0 must be a vector (dim,) of real numbers, not an array of shape {start.shape}{matrix}")
    if not np.isfinite(start).all():
        raise InvalidInputError("x0 has values that are NaN or infinite: start from finite numbers")
    return start


def _try(problem: UserGradient, x: Array, seed: int) -> None:
    """Call the gradient once, so that what is wrong with it is told before workers start."""
    before = x.copy()
    found = problem.gradient(0, x, problem.sample(0, np.random.default_rng(seed)))
    if not np.isfinite(found).all():
        raise InvalidInputError(f"gradient(x, rng) is not finite at the start, x[:5] = {x[:5]}: start where it is defined")
    if x.tobytes() != before.tobytes():
        raise InvalidInputError("gradient(x, rng) changed x: work on a copy, several workers may be reading it")
