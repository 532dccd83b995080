"""One run: the event loop, and what stands around it.

Rules of this file:

- a run comes to a result whatever ends it, and what there is of it is saved where checkpoints are kept;
- what a run was made with is carried on unchanged, also through checkpoints and `tardigrad.resume`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from tardigrad.core.checkpoint import Checkpoint, Keeper
from tardigrad.core.checks import as_observers
from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import RunFileError, WorkerError
from tardigrad.core.free_loop import FreeLoop
from tardigrad.core.loop import Loop
from tardigrad.core.observers import History, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import Status, Stop, limits
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace
from tardigrad.core.watch import Watch
from tardigrad.core.worker import WorkerHalf


@dataclass(frozen=True)
class Setup:
    """What a run is made with, checked; a `Result` has the same fields."""

    rule: Rule[Any]
    given: Rule[Any] | None
    problem: Problem
    engine: Engine
    stop: Stop | None
    x0: Array
    seed: int
    concurrency: int
    concurrency_asked: int | None
    max_staleness: int | None
    replicas: int | None
    snapshot_every: int | None
    checkpoint: Checkpoint | None

    def values(self) -> dict[str, Any]:
        """All fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Session:
    """One run: the loop and what stands around it."""

    def __init__(self, setup: Setup, observers: Observer | Sequence[Observer], earlier: Result | None) -> None:
        self.setup = setup
        self.earlier = earlier
        self.keeper = None
        if setup.checkpoint is not None:
            if type(setup.engine).in_flight is Engine.in_flight:
                raise RunFileError(f"runs on {type(setup.engine).__name__} take no checkpoint: it does not define in_flight")
            self.keeper = Keeper(setup.checkpoint)
        bounds = limits(setup.stop)
        history = History(setup.snapshot_every)
        self.watch = Watch([history, *as_observers(observers)], bounds, setup.problem)
        if earlier is not None:
            history = earlier.history
            same = limits(earlier.stop).tolerances == bounds.tolerances
            agenda = earlier.tolerances_due if same else ()
            self.watch.take_up(history, history.go_on(setup.snapshot_every), agenda)
        self.history = history
        self.bounds = bounds
        self.began = time.perf_counter()

    def go(self, interrupted: list[int]) -> Result:
        """Run to the end."""
        setup, watch, problem = self.setup, self.watch, self.setup.problem
        watch.tell(setup.values())
        with watch:
            half = WorkerHalf(setup.rule, problem, setup.seed, setup.replicas)
            setup.engine.open(half, Placement(problem.n_clients, problem.shared_data))
            self.loop = loop = (FreeLoop if setup.engine.lock_free else Loop)(
                setup.rule, setup.engine, self.bounds, watch, interrupted
            )
            if self.keeper is not None:
                watch.keep(self.keeper, lambda: (self.unfinished(), loop.recorder))
            try:
                if self.earlier is None:
                    verdict = loop.begin(setup.x0, problem.n_clients, setup.seed)
                else:
                    verdict = loop.take_up(self.earlier, setup.seed)
                status, message = verdict or loop.go()
                message = loop.guard.describe(message)
                watch.end(loop.moment(), status, message)
            except BaseException as error:
                self.rescue(error)
                raise
            if not loop.state.fresh:  # it may be in memory of the engine's
                loop.state.x = loop.state.x.copy()
            kept = self.keeper is not None or status is Status.INTERRUPTED
            result = self.result(status, message, loop.recorder.trace(loop.state.version), in_flight=kept)
        if self.keeper is not None:
            try:
                self.keeper.write(result, result.trace)
            except RunFileError as error:
                error.result = result
                raise
        return result

    def close(self) -> None:
        """Let others write to the folder of the checkpoints."""
        if self.keeper is not None:
            self.keeper.close()

    def result(self, status: Status, message: str, trace: Trace, in_flight: bool) -> Result:
        """The run as it stands."""
        setup, loop, earlier, watch = self.setup, self.loop, self.earlier, self.watch
        can_tell = type(setup.engine).in_flight is not Engine.in_flight
        return Result(
            **{**setup.values(), "engine": setup.engine.as_run()},
            x=loop.guard.answer(loop.state.x).copy(),
            status=status,
            message=message,
            state=loop.state,
            history=self.history,
            trace=trace,
            diverged=loop.guard.mask(status),
            oracle_calls=loop.calls if loop.counted else loop.replies,
            wall_seconds=time.perf_counter() - self.began + (earlier.wall_seconds if earlier else 0.0),
            measure_seconds=watch.measure_seconds + (earlier.measure_seconds if earlier else 0.0),
            incidents=[*(earlier.incidents if earlier else ()), *setup.engine.incidents],
            in_flight=setup.engine.in_flight(loop.open) if in_flight and can_tell else None,
            tolerances_due=watch.tolerances_due,
            replayable=setup.engine.replays and (earlier is None or earlier.replayable),
            fingerprint=earlier.fingerprint if earlier else None,
            solver=earlier.solver if earlier else None,
        )

    def unfinished(self) -> Result:
        """The run for a checkpoint; its trace is the recorder's."""
        return self.result(Status.UNFINISHED, "a checkpoint: the run went on, or was cut off", Trace.from_rows([], 0), True)

    def rescue(self, error: BaseException) -> None:
        """Save what there is of a run that ends with an exception."""
        loop = self.loop
        if not loop.whole:
            return
        trace = loop.recorder.trace(loop.state.version)
        result = self.result(
            Status.UNFINISHED, f"ended by {type(error).__name__}: {str(error).partition(chr(10))[0]}", trace, True
        )
        if result.in_flight is not None and len(result.in_flight.jobs) < len(loop.open):
            return  # a second Ctrl-C came while the engine handed over a reply: what was saved before is whole
        if isinstance(error, WorkerError):
            error.result = result
        if self.keeper is not None:
            try:
                self.keeper.write(result, result.trace)
            except RunFileError as unwritable:
                error.add_note(f"the run up to there could not be saved: {unwritable}")
                return
            error.add_note(f"the run up to there is in {self.keeper.folder}; tardigrad resume {self.keeper.folder} goes on")
