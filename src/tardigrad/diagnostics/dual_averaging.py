"""A finished run of dual averaging beside its theory: energy, bias of old points, distance from the mean-field flow.

Rules of this file:

- a diagnosis is computed from the run replayed, so it costs one more run and the run itself needs no preparation;
- dual variables are kept at chosen versions and at those that were read there, never all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.steps import Step, StepSequence
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.diagnostics.coherence import exact_gradient, known_minimiser
from tardigrad.diagnostics.replayed import problem_of, replay_watched
from tardigrad.engines.prescribed import FOR_EACH
from tardigrad.problems.projections import as_constraint
from tardigrad.rules.dual_averaging import DAGD, DASGD
from tardigrad.theory.mean_field import energy, flow_distance, mean_field


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; ``...`` stands for the replicas, if the run had any.

    Attributes
    ----------
    version : array (n,)
        Versions looked at, from 0 to the last.
    time : array (n,)
        ``t = a[1] + ... + a[version]``, the sum of the steps.
    energy : array (n, ...)
        E(y) of (3.1) along the run.
    flow_energy : array (n, ...)
        The same along the flow (4.5) from the run's start.
    staleness : array (n - 1,)
        Of the gradient that was applied at each version but the last.
    bias : array (n - 1, ...)
        ``|grad f(x[s]) - grad f(x[version])|``, s the version that was read: the length of b of (3.2).
    start : array (k,)
        Times from which the run is compared with the flow.
    distance : array (k, ...)
        The largest distance to the flow within `window` from there, (4.6).
    window : float
        Its length, in the unit of `time`.
    """

    version: Array
    time: Array
    energy: Array
    flow_energy: Array
    staleness: Array
    bias: Array
    start: Array
    distance: Array
    window: float

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw it in four panels. Returns a matplotlib figure, saved if a path is given."""
        from tardigrad.report.mean_field_figure import draw_mean_field

        return draw_mean_field(self, path)


def diagnose(
    result: Result,
    minimiser: Any = None,
    *,
    window: float | None = None,
    points: int = 1000,
    starts: int = 12,
    problem: Problem | None = None,
    gradient: Callable[[Array], Array] | None = None,
) -> Diagnosis:
    """Replay a run of `DASGD` or `DAGD` and compare it with its theory.

    Parameters
    ----------
    result : Result
        A run that can be replayed, of whichever engine.
    minimiser : array (dim,), optional
        The base point of the energy; by default ``problem.minimiser``.
    window : float, optional
        Length of the stretches that are compared with the flow, as a sum of steps; a tenth of the run's by default.
    points : int
        Versions to look at: half of them even in number, half even in time. Between them the run is taken to be straight.
    starts : int
        Stretches to compare, spread evenly over the run's time.
    problem : Problem, optional
        Where the run was saved without it.
    gradient : callable, optional
        Exact gradients of f at points (..., dim), where the problem knows none, as that of `minimize`.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InvalidInputError
        If the run is of another rule, has a step size for each replica, replicas that read different versions, or no
        updates, if no minimiser is known or it is not feasible, or if the window is longer than the run.
    ReplayError
        If the run cannot be replayed.

    Notes
    -----
    Memory: up to twice `points` iterates of all replicas, since the versions that were read are kept too.

    The bias is that of f, whatever client answered. It goes to 0 where the steps fit the delays (Assumption 3). Steps that do
    not go to 0 leave a bias, and noise keeps the run off the flow: neither curve then falls.

    Examples
    --------
    >>> import tardigrad as td
    >>> problem = td.Rosenbrock(dim=2, noise=0.1)
    >>> rule = td.DASGD(td.PowerStep(0.05, 0.75, 100), problem.constraint)
    >>> result = td.run(rule, problem, td.Prescribed(td.ConstantDelay(3)), stop=td.MaxUpdates(2000))
    >>> found = diagnose(result)
    >>> bool((found.energy >= 0).all()), bool(found.bias[-1] < found.bias[10])
    (True, True)
    """
    if not isinstance(result, Result):
        raise InvalidInputError(f"diagnose takes the Result of a run, not {result!r:.100}: of a saved one Result.load(folder)")
    rule = _rule_of(result)
    problem = problem_of(result, problem)
    exact = exact_gradient(problem) if gradient is None else gradient
    p = known_minimiser(problem, minimiser)
    feasible = as_constraint(rule.constraint, problem.dim)
    if not feasible.contains(p, 1e-9 * (1 + float(np.linalg.norm(p)))):
        raise InvalidInputError(f"minimiser must be a point of the run's feasible set, {feasible!r:.200}, not {p!r:.200}")
    times = _times(rule.step, result.trace.updates)
    length = number(times[-1] / 10 if window is None else window, "window", above=0.0, high=float(times[-1]))
    version = _versions(times, integer(points, "points", low=3))
    read = _read_at(result, version[:-1])
    kept = _replayed(result, problem, np.union1d(version, read))
    project = feasible.project

    def slope(n: int) -> Array:
        return exact(project(kept[n]))

    y, time = np.stack([kept[n] for n in version.tolist()]), times[version]
    pairs = zip(read.tolist(), version.tolist(), strict=False)
    bias = np.stack([np.linalg.norm(slope(s) - slope(n), axis=-1) for s, n in pairs])
    start = np.linspace(0, times[-1] - length, integer(starts, "starts"))
    distance = np.stack([flow_distance(exact, project, time, y, t, length) for t in start])
    flow = mean_field(exact, project, y[0], time)
    return Diagnosis(
        version, time, energy(y, p, project), energy(flow, p, project), version[:-1] - read, bias, start, distance, length
    )


def _rule_of(result: Result) -> DASGD | DAGD:
    """The run's rule; an error where there is nothing to diagnose."""
    rule, trace = result.rule, result.trace
    if not isinstance(rule, (DASGD, DAGD)):
        raise InvalidInputError(f"diagnose is for runs of DASGD and DAGD, whose dual variable it follows, not of {rule!r:.100}")
    if rule.batch_shape:
        raise InvalidInputError(
            "the run has a step size for each replica, so they have no time in common: diagnose a run of one"
        )
    if not trace.updates:
        raise InvalidInputError("the run has no updates to diagnose")
    if trace["worker"][0] == FOR_EACH:
        raise InvalidInputError(
            "in this run each replica read a version of its own, so it has no one bias: diagnose one in which all read the same"
        )
    return rule


def _times(step: Step, n: int) -> Array:
    """0, a[1], a[1] + a[2], ..."""
    steps = map(step, range(n)) if isinstance(step, StepSequence) else itertools.repeat(step, n)
    return np.concatenate([[0.0], np.cumsum(np.fromiter(steps, float, n))])


def _versions(times: Array, points: int) -> Array:
    """Versions to look at, half of them even in number and half even in time; the first and the last among them."""
    last = len(times) - 1
    if last < points:
        return np.arange(last + 1)
    even = np.linspace(0, last, points // 2).astype(int)
    return np.union1d(even, np.searchsorted(times, np.linspace(0, times[-1], points - points // 2)).clip(0, last))


def _read_at(result: Result, version: Array) -> Array:
    """The version that the gradient applied at each of these versions was computed from."""
    read = np.arange(result.trace.updates + 1)
    read[result.trace["version_applied"]] = result.trace["version_read"]
    return read[version]


class _Keep(Observer):
    """Copies of the dual variable at chosen versions."""

    def __init__(self, versions: Array) -> None:
        self.versions = set(versions.tolist())
        self.kept: dict[int, Array] = {}

    def observe(self, moment: Moment) -> None:
        if moment.version in self.versions:
            self.kept[moment.version] = moment.state.y.copy()  # type: ignore[attr-defined]


def _replayed(result: Result, problem: Problem, versions: Array) -> dict[int, Array]:
    """The dual variable at these versions."""
    keep = _Keep(versions)
    replay_watched(result, problem, keep)
    return keep.kept
