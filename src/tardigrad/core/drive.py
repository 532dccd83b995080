"""Runs: what is checked before, what is set up around the event loop, what comes of it.

Rules of this file:

- nothing starts before everything is checked;
- whatever ends a run, workers are stopped, observers closed, and the last checkpoint written.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from tardigrad.core.checkpoint import Checkpoint, Keeper, check_new
from tardigrad.core.checks import as_observers, check_measures, check_parts, starting_point
from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import InvalidInputError, RunFileError, WorkerError
from tardigrad.core.free_loop import FreeLoop, check_free
from tardigrad.core.loop import Loop
from tardigrad.core.observers import History, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import Limits, Status, Stop, limits
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace
from tardigrad.core.validate import optional_integer
from tardigrad.core.watch import Watch
from tardigrad.core.worker import WorkerHalf, single_threaded_blas


@dataclass(frozen=True)
class Setup:
    """What a run is made with, checked; a `Result` has the same fields."""

    rule: Rule[Any]
    problem: Problem
    engine: Engine
    stop: Stop | None
    x0: Array
    seed: int
    concurrency: int
    max_staleness: int | None
    replicas: int | None
    snapshot_every: int | None
    checkpoint: Checkpoint | None

    def values(self) -> dict[str, Any]:
        """All fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def run(
    rule: Rule[Any],
    problem: Problem,
    engine: Engine,
    *,
    stop: Stop | None,
    x0: Array | None = None,
    seed: int = 0,
    concurrency: int | None = None,
    max_staleness: int | None = None,
    replicas: int | None = None,
    observers: Observer | Sequence[Observer] = (),
    snapshot_every: int | None = None,
    checkpoint: Checkpoint | str | Path | None = None,
) -> Result:
    """Run a rule on a problem with an engine until a condition holds.

    Parameters
    ----------
    rule : Rule
        The method.
    problem : Problem
        What to minimise.
    engine : Engine
        Where the workers are: `Simulated`, `Threads`, `Processes`, ...
    stop : Stop or None
        When to end, such as ``MaxUpdates(1000) | MaxSeconds(60)``; None for a replay to its end.
    x0 : array (dim,) or (..., dim), optional
        The start, ``problem.x0()`` by default. Leading axes are replicas.
    seed : int
        All random numbers follow from it.
    concurrency : int, optional
        Tasks in flight, for rules that keep a number of them; by default the rule's choice, mostly as many as can
        be worked on at a time.
    max_staleness : int, optional
        A bound that the user knows, for rules that set their parameters from it.
    replicas : int, optional
        Run so many copies with independent oracle noise in one batch, along a new first axis of the iterates.
        Array-valued hyper-parameters make further axes, which share the noise. All share times and order.
    observers : Observer or sequence of them
        Called while the run goes on.
    snapshot_every : int, optional
        Updates between snapshots of ``x`` in ``result.history``; only the first and last by default.
    checkpoint : Checkpoint or path, optional
        Save the run in this folder while it goes on (every minute for a path) and at its end; see `tardigrad.resume`.

    Returns
    -------
    Result
        Usable whatever its status, also after Ctrl-C.

    Raises
    ------
    InvalidInputError
        If arguments do not fit together.
    WorkerError
        If workers cannot start, or one task fails 3 times; its ``result`` is the run up to there, which can be
        saved and resumed.
    RunFileError
        If checkpoints cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> engine = td.Simulated(td.PerClient([1.0, 1.0, 1.0, 8.0]))
    >>> result = td.run(td.AsyncSGD(step=0.2), problem, engine, stop=td.MaxUpdates(500))
    >>> result.status.value, int(result.trace.summary().staleness_max)
    ('max_updates', 24)
    """
    check_parts(rule, problem, engine)
    bounds = check_stop(stop, engine)
    placement = Placement(problem.n_clients, problem.shared_data)
    max_staleness = optional_integer(max_staleness, "max_staleness", low=0)
    replicas = optional_integer(replicas, "replicas")
    snapshot_every = optional_integer(snapshot_every, "snapshot_every")
    concurrency = optional_integer(concurrency, "concurrency")
    if concurrency is None:
        concurrency = rule.default_concurrency(problem, engine.n_workers(placement))
    rule = rule.configure(problem, concurrency, max_staleness)
    start = starting_point(x0, problem, rule, replicas)
    check_measures(bounds, problem, start)
    if engine.lock_free:
        check_free(rule, start)
    seed, kept = check_seed(seed), Checkpoint.of(checkpoint)
    check_new(kept)
    setup = Setup(
        rule, problem, engine, stop, start, seed, concurrency, max_staleness, replicas, snapshot_every, checkpoint=kept
    )
    return execute(setup, observers)


def check_stop(stop: Stop | None, engine: Engine) -> Limits:
    """The limits of a run that will end."""
    if stop is None and not engine.ends_by_itself:
        raise InvalidInputError("stop=None would never end: give a condition such as MaxUpdates(1000)")
    return limits(stop)


def execute(setup: Setup, observers: Observer | Sequence[Observer], earlier: Result | None = None) -> Result:
    """Run what was set up, from the start or from where an earlier run was left."""
    with ExitStack() as stack:
        stack.enter_context(_alone(setup.engine))
        session = _Session(setup, observers, earlier)
        stack.enter_context(single_threaded_blas())
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        interrupted = stack.enter_context(_interrupt_flag())
        stack.callback(session.close)
        stack.callback(setup.engine.close)
        return session.go(interrupted)


class _Session:
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


_running: set[int] = set()


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """See to it that an engine serves one run at a time."""
    if id(engine) in _running:
        raise InvalidInputError(
            f"{engine!r} serves a run already, in another thread or an observer: make an engine for each run"
        )
    _running.add(id(engine))
    try:
        yield
    finally:
        _running.discard(id(engine))


@contextmanager
def _interrupt_flag() -> Iterator[list[int]]:
    """Turn the first Ctrl-C into a flag; a second one raises KeyboardInterrupt as usual."""
    flag: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    if not (in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield flag
        return

    def note(number: int, _: FrameType | None) -> None:
        flag.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
