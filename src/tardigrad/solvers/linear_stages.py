"""A linear system on its way to be solved: stage after stage, and what is made of each.

Rules of this file:

- a run goes on in stages, each as long as all those before; between two of them it is asked whether it gets anywhere;
- convergence is judged on the true relative residual, which is computed only where an estimate from some rows says that
  it may be small enough;
- whatever ends it, the best x that was seen comes back, with its own residual.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError, WorkerError
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.result import Result
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import MaxUpdates, Status, Stop, Tolerance
from tardigrad.core.task import Array
from tardigrad.engines.simulated import Simulated
from tardigrad.problems.linear_system import LinearSystem, as_vector
from tardigrad.problems.sketches import Sketch
from tardigrad.rules.sketch_project import AveragedSketchProject, SketchProject
from tardigrad.solvers.engines import engine_of
from tardigrad.solvers.linear_choice import choose, expected_passes, passes_of_update, rule_for
from tardigrad.solvers.linear_result import LinearResult, probe_consistency
from tardigrad.theory.sketch_project import theta_2
from tardigrad.timing.models import Constant

#: passes of the first stage at most
FIRST_STAGE = 4.0
#: a stage that leaves more than this share of the residual gets nowhere
STUCK = 0.9
#: relative residuals below so many units in the last place of the number format are not asked for
ROUNDING = 20


class Solve:
    """One system on its way.

    Parameters
    ----------
    system : LinearSystem
        With a client for each worker.
    method, sketch, engine, tol, seed, callback
        As for `tardigrad.linsolve`.
    asked : (float or None, float or None)
        omega and theta; None: what theory gives.
    """

    def __init__(
        self,
        system: LinearSystem,
        method: str,
        sketch: Sketch | str,
        engine: Engine | str,
        tol: float,
        asked: tuple[float | None, float | None],
        seed: int,
        callback: Callable[[Array], object] | None,
    ) -> None:
        self.began = time.perf_counter()
        self.workers, self.asked, self.seed = system.n_clients, asked, seed
        allowed = ROUNDING * float(np.finfo(system.dtype).eps)
        self.tol = max(tol, allowed)
        self.note = "" if tol >= allowed else f"; tol was raised from {tol:g} to {allowed:.1e}, what {system.dtype} allows"
        self.choice = choose(system, method, sketch)
        self.engine = _engine(engine, self.workers, self.choice.method)
        self.system = system.with_sketch(self.choice.sketch, self.tol)
        self.observers = [] if callback is None else [_Callback(callback)]
        self.judging = self.passes = 0.0
        self.best: tuple[float, Array] = math.inf, np.zeros(0)

    def go(self, x: Array | None, most: float) -> LinearResult:
        """Stage after stage until one ends it."""
        if x is not None:  # one start: a run would take replicas too
            x = as_vector(x, "x0", self.system.dim, "unknown", self.system.dtype)
        solved = self._judge(self.system.x0() if x is None else x) <= self.tol
        rule, x, ended = self._start(x, most)
        if ended is not None:
            verdict = self._verdict(ended, None, self._judge(ended.x), math.inf, 0.0)
            return self._result(ended, rule, *(verdict or (ended.status, ended.message)))
        per_update = passes_of_update(rule, self.system)
        first = min(FIRST_STAGE, expected_passes(rule, self.system, self.tol))
        look = 0.0 if solved else math.inf  # the first stage is judged at its end only
        previous, done, length = math.inf, self.passes, first
        while True:  # also after a pilot that took all passes: an update at least
            updates = max(1, math.ceil(min(length, most - done) / per_update))
            result, error = self._run(rule, x, updates, per_update, look)
            done += result.state.version * per_update
            now = math.inf
            try:
                now = self._judge(result.x)
                verdict = self._verdict(result, error, now, previous, length)
            except KeyboardInterrupt:  # during a run it is the run that ends
                verdict = Status.INTERRUPTED, f"interrupted after {done:.3g} passes"
            if verdict is None and done >= most:
                verdict = Status.MAX_PASSES, self._what_else(now, done)
            if verdict is not None:
                return self._result(result, rule, *verdict)
            x, previous, length, look = result.x, now, done, first / 4

    def _start(self, x: Array | None, most: float) -> tuple[Rule[Any], Array | None, Result | None]:
        """The rule; where its parameters depend on how workers do, or on the spectrum, after a pilot of a pass.

        Third, the pilot, if it was interrupted or all that was needed.
        """
        omega, theta = self.asked
        lock_free = self.engine.lock_free
        arguments = (self.choice, self.system, self.workers, lock_free, omega, theta)
        if self.choice.method == "averaged" and None in self.asked:
            pilot: Rule[Any] = AveragedSketchProject(1.0, theta_2(self.workers), self.workers)
        elif self.choice.method == "accelerated":
            pilot = SketchProject(1.0)
        else:
            return rule_for(*arguments), x, None
        per_update = passes_of_update(pilot, self.system)
        updates = min(max(3 * self.workers, math.ceil(1 / per_update)), math.ceil(most / per_update))
        before = self.system.residual(self.system.x0() if x is None else x)
        result, error = self._run(pilot, x, updates, per_update, 1.0)
        if error is None and result.status in (Status.INTERRUPTED, Status.CONVERGED):
            return pilot, result.x, result
        if error is not None or result.status is not Status.MAX_UPDATES:
            return pilot, result.x, None  # what went wrong shows again
        if self.choice.method == "averaged":
            delays = np.bincount(result.trace.staleness)
            self.note += f"; {result.trace.delay_factor()} in the pilot"
            return rule_for(*arguments, delays=delays), result.x, None
        decay = 1 - (self._judge(result.x) / float(before)) ** (2 / updates)
        return rule_for(*arguments, smallest=max(decay, 1e-12)), result.x, None

    def _run(
        self, rule: Rule[Any], x: Array | None, updates: int, per_update: float, look: float
    ) -> tuple[Result, WorkerError | None]:
        """One stage, judged every `look` passes; where a worker failed, the run up to there."""
        every = max(1, math.ceil(min(look, 1.0) / per_update))
        for observer in self.observers:
            observer.every = every
        stop: Stop = MaxUpdates(updates)
        if look < math.inf:
            stop |= Tolerance("checked_residual", at_most=self.tol, every=every)
        self.seed += 1  # no run repeats the sketches of another
        try:
            result = run(rule, self.system, self.engine, stop=stop, x0=x, seed=self.seed, observers=self.observers)
        except WorkerError as error:
            if error.result is None:
                raise
            self._count(error.result, per_update)
            return error.result, error
        except InvalidInputError as error:  # on a virtual clock an equation that cannot hold ends a run without a result
            if self.system.unsolvable_row() is None:
                raise
            at_once = MaxUpdates(1) | Tolerance("residual", at_least=0.0)
            return run(rule, self.system, self.engine, stop=at_once, x0=x, seed=self.seed), WorkerError(str(error))
        self._count(result, per_update)
        return result, None

    def _count(self, result: Result, per_update: float) -> None:
        self.passes += result.state.version * per_update
        self.judging += result.measure_seconds

    def _judge(self, x: Array) -> float:
        """The residual at x, which is kept if it is the best so far."""
        began = time.perf_counter()
        now = float(self.system.residual(x)) if np.isfinite(x).all() else math.inf
        self.judging += time.perf_counter() - began
        if not math.isfinite(now) and (entry := self.system.explain_nonfinite()) is not None:
            raise InvalidInputError(entry)
        if now < self.best[0] or not self.best[1].size:
            self.best = now, x
        return now

    def _verdict(
        self, result: Result, error: WorkerError | None, now: float, previous: float, length: float
    ) -> tuple[Status, str] | None:
        """Why to end after a stage of `length` passes; None to go on."""
        if now <= self.tol:
            return Status.CONVERGED, f"relative residual {now:.2g}, at most {self.tol:.2g}"
        if error is not None:
            if self.system.unsolvable_row() is None:
                raise error
            return Status.INCONSISTENT, self._why_unsolvable()
        if result.status is Status.DIVERGED:
            entry = self.system.explain_nonfinite()
            if entry is not None:
                raise InvalidInputError(entry)
        if result.status is not Status.MAX_UPDATES:
            return result.status, result.message
        if now < STUCK * previous:
            return None
        return self._why_stuck(max(24, int(length / 2)))

    def _what_else(self, now: float, done: float) -> str:
        """What to try after so many passes."""
        text = f"relative residual {self.best[0]:.2g} after {done:.3g} passes: "
        if not now < 2 * self.best[0]:
            return text + f"the last one was {now:.2g}, so take a smaller omega"
        return text + "raise max_passes, take larger blocks (sketch=RowBlocks(size)), or use scipy.sparse.linalg.lsqr"

    def _why_stuck(self, iterations: int) -> tuple[Status, str] | None:
        """Whether the residual stays where it is because of rounding, or because no x makes it smaller."""
        began = time.perf_counter()
        residual, x = self.best
        probe = probe_consistency(self.system, x, self.tol, iterations)
        self.judging += time.perf_counter() - began
        self._judge(probe.x)
        if self.best[0] <= self.tol:
            return (
                Status.CONVERGED,
                f"relative residual {self.best[0]:.2g}, by the steps of lsqr that were to tell why it was stuck",
            )
        if residual <= probe.rounding:
            return Status.PRECISION, f"relative residual {self.best[0]:.2g}, as small as {self.system.dtype} allows here"
        if probe.inconsistent:
            return Status.INCONSISTENT, self._why_unsolvable(probe.residual)
        return None

    def _why_unsolvable(self, left: float | None = None) -> str:
        """In words, with the equation that cannot hold if there is one, and what to do."""
        row = self.system.unsolvable_row()
        if row is None:
            text = f"no x of a reasonable size solves the system: {left:.2g} of |b| is out of A's reach"
        else:
            text = f"row {row} of A is zero but b[{row}] is not: no x solves that equation; remove it"
        return text + ". For least squares use scipy.sparse.linalg.lsqr or lsmr"

    def _result(self, result: Result, rule: Rule[Any], status: Status, message: str) -> LinearResult:
        seconds = time.perf_counter() - self.began
        residual, x = self.best[0], self.best[1].copy()
        values = {field.name: getattr(result, field.name) for field in dataclasses.fields(Result)}
        values |= {"x": x, "status": status, "message": f"{message}; {self.choice}{self.note}", "wall_seconds": seconds}
        parameters = {
            name: value
            for name in ("omega", "theta", "gamma", "rows", "tau")
            if (value := getattr(rule, name, None)) is not None
        }
        return LinearResult(
            **{**values, "solver": "linsolve"},
            residual_norm=residual,
            passes=self.passes + self.system.passes.count,
            method=self.choice.method,
            sketch=self.choice.sketch,
            parameters=parameters,
            judging_share=self.judging / seconds,
        )


class _Callback(Observer):
    """Calls the user's function with x, as SciPy's solvers do."""

    def __init__(self, function: Callable[[Array], object]) -> None:
        self.function = function

    def observe(self, moment: Moment) -> None:
        self.function(moment.x.copy())


def _engine(engine: Engine | str, workers: int, method: str) -> Engine:
    """The engine that was asked for."""
    if engine == "threads" and method in ("basic", "accelerated"):
        return Simulated(Constant(1.0))  # one block at a time: computed right here, on a virtual clock
    return engine_of(engine, workers, lock_free=method == "row-action")
