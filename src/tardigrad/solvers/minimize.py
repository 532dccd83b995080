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
from tardigrad.problems.projections import ConvexSet, as_constraint
from tardigrad.problems.user_gradient import UserGradient
from tardigrad.rules.dual_averaging import DASGD
from tardigrad.solvers.engines import engine_of
from tardigrad.solvers.growth_watch import GrowthWatch, usual_staleness
from tardigrad.theory.dual_averaging import steps_for

#: updates of a run where the user does not say
UPDATES = 10_000
#: stochastic gradients that tell the noise, points and power iterations that tell the Lipschitz constant
SAMPLES, POINTS, ITERATIONS = 16, 3, 8
#: without a bounded set the minimiser is taken to be so many times farther than the first step of gradient descent leads
FARTHER = 3.0
#: how much longer a difference is made that is lost in the rounding of the gradient
LONGER = 1000.0
#: delays that are reckoned with, in numbers of workers
LATE = 2


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
    bounds = limits(stop)
    where = engine_of(engine, workers)
    workers = getattr(where, "workers", None) or workers
    problem = UserGradient(gradient, len(start), workers, objective, start.dtype)
    notes = []
    inside = feasible.project(start)
    if not np.allclose(inside, start, rtol=1e-6, atol=1e-9):
        notes.append(
            f"x0 was outside of the constraint, by {np.linalg.norm(inside - start):.3g}: the run began at its projection"
        )
    with single_threaded_blas():
        _try(problem, inside, seed)
        if isinstance(steps, str) and steps != "auto":
            raise InvalidInputError(
                f"steps must be 'auto', the trace of a run, a positive number or a StepSequence, not {steps!r}"
            )
        if isinstance(steps, (str, Trace)):
            horizon = bounds.updates if math.isfinite(bounds.updates) else 10 * UPDATES
            known = constants_near(problem, feasible, inside, seed)
            steps = steps_for(**known, **_delays(steps, workers), horizon=int(horizon))
    chosen: Step = check_step(steps)
    if constraint is not None and not feasible.bounded:
        warnings.warn(
            f"{feasible!r} is not bounded, and the theory asks for a compact set (Section 2 of Zhou et al.): convergence is"
            " proven only if the gradients along the run are bounded",
            TheoryWarning,
            stacklevel=2,
        )
    watch = GrowthWatch(chosen)
    rule = DASGD(chosen, None if constraint is None else feasible, average=average)
    result = run(rule, problem, where, stop=stop, x0=start, seed=seed, observers=[watch, *as_observers(observers)])
    result.message = "; ".join([result.message, *notes, *([watch.warning] if watch.warning else [])])
    return result


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
        raise InvalidInputError(f"x0 must be a vector (dim,) of real numbers, not an array of shape {start.shape}")
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


def _delays(steps: Trace | str, workers: int) -> dict[str, Any]:
    """What `steps_for` is told of delays."""
    if isinstance(steps, str):
        return {"growth": 0.0, "delay": LATE * workers}
    return {"growth": steps.growth(), "staleness": usual_staleness(steps)}


def constants_near(problem: UserGradient, feasible: ConvexSet, x: Array, seed: int) -> dict[str, float]:
    """What `steps_for` is told of the problem, from some gradients at x and at other points.

    The noise is that of 16 gradients at x. The Lipschitz constant is the largest of power iterations on differences of
    gradients with the same random numbers. The minimiser is taken to be half a diameter away, or three first steps.
    """
    rng = np.random.default_rng(seed)
    mean, squares = np.zeros(len(x)), 0.0
    for k in range(SAMPLES):  # one by one: x may be large
        gradient = problem.gradient(0, x, problem.sample(0, rng))
        change = gradient - mean
        mean += change / (k + 1)
        squares += float(change @ (gradient - mean))
    noise = math.sqrt(squares / (SAMPLES - 1))
    points = [x]
    if feasible.bounded:
        points += list(feasible.sample(rng, (POINTS - 1,), len(x)).astype(x.dtype))
    lipschitz = max(_curvature(problem, feasible, point, rng) for point in points)
    length = float(np.linalg.norm(mean))
    if not feasible.bounded and lipschitz > 0:  # where the first step leads
        lipschitz = max(lipschitz, _curvature(problem, feasible, feasible.project((x - mean / lipschitz).astype(x.dtype)), rng))
    if lipschitz <= 0:  # a linear objective: its minimiser over a bounded set is on the boundary
        lipschitz = max(length, noise, 1.0) / max(min(feasible.diameter(len(x)), 1e6), 1e-6)
    distance = feasible.diameter(len(x)) / 2 if feasible.bounded else FARTHER * max(length, noise) / lipschitz
    return {"lipschitz": lipschitz, "noise": noise, "distance": max(distance, 1e-12)}


def _curvature(problem: UserGradient, feasible: ConvexSet, x: Array, rng: np.random.Generator) -> float:
    """The largest difference quotient of the gradient near x that power iterations find, random numbers being the same."""
    sample = problem.sample(0, rng)
    here = problem.gradient(0, x, sample)
    again = problem.gradient(0, x, sample)
    if np.linalg.norm(again - here) > 1e-3 * np.linalg.norm(here):
        raise InvalidInputError(
            "gradient(x, rng) gave two different answers for the same x and rng: draw all random numbers from rng, or pass"
            " steps (a number or a StepSequence), since none can be proposed then"
        )
    eps, size = float(np.finfo(x.dtype).eps), float(np.linalg.norm(here))
    step = eps ** (1 / 3) * (1.0 + float(np.linalg.norm(x)))
    direction, largest = rng.standard_normal(len(x)), 0.0
    for _ in range(ITERATIONS):
        length = float(np.linalg.norm(direction))
        if not (length > 0 and math.isfinite(length)):
            break
        there = feasible.project((x + step / length * direction).astype(x.dtype))
        moved = float(np.linalg.norm(there.astype(np.float64) - x))
        if moved == 0:
            direction = -direction
            continue
        change = (problem.gradient(0, there, sample) - here).astype(np.float64)
        if np.linalg.norm(change) <= eps**0.5 * size:  # mostly rounding: the point is on another scale than thought
            step *= LONGER
            continue
        direction = change
        if np.isfinite(direction).all():
            largest = max(largest, float(np.linalg.norm(direction)) / moved)
    return largest
