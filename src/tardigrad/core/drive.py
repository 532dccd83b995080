"""Runs: what is checked before, and what is switched on and off around one.

Rules of this file:

- nothing starts before everything is checked;
- whatever ends a run, workers are stopped and what was switched on is switched off again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from tardigrad.core.checkpoint import Checkpoint, check_new
from tardigrad.core.checks import check_measures, check_parts, starting_point
from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.free_loop import check_free
from tardigrad.core.observers import Observer
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.rule import Rule
from tardigrad.core.session import Session, Setup
from tardigrad.core.stopping import Limits, Stop, limits
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array
from tardigrad.core.validate import optional_integer
from tardigrad.core.worker import single_threaded_blas


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
    setup = set_up(
        rule,
        problem,
        engine,
        stop=stop,
        x0=x0,
        seed=seed,
        concurrency=concurrency,
        max_staleness=max_staleness,
        replicas=replicas,
        snapshot_every=snapshot_every,
        checkpoint=checkpoint,
    )
    return execute(setup, observers)


def set_up(
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
    snapshot_every: int | None = None,
    checkpoint: Checkpoint | str | Path | None = None,
) -> Setup:
    """Everything that `run` is given, checked, and the rule configured; nothing is started."""
    check_parts(rule, problem, engine)
    bounds = check_stop(stop, engine)
    placement = Placement(problem.n_clients, problem.shared_data)
    max_staleness = optional_integer(max_staleness, "max_staleness", low=0)
    replicas = optional_integer(replicas, "replicas")
    snapshot_every = optional_integer(snapshot_every, "snapshot_every")
    concurrency = optional_integer(concurrency, "concurrency")
    given, asked = rule, concurrency
    if concurrency is None:
        concurrency = rule.default_concurrency(problem, engine.n_workers(placement))
    rule = rule.configure(problem, concurrency, max_staleness)
    start = starting_point(x0, problem, rule, replicas)
    check_measures(bounds, problem, start)
    if engine.lock_free:
        check_free(rule, start)
    seed, kept = check_seed(seed), Checkpoint.of(checkpoint)
    check_new(kept)
    return Setup(
        rule=rule,
        given=given,
        problem=problem,
        engine=engine,
        stop=stop,
        x0=start,
        seed=seed,
        concurrency=concurrency,
        concurrency_asked=asked,
        max_staleness=max_staleness,
        replicas=replicas,
        snapshot_every=snapshot_every,
        checkpoint=kept,
    )


def check_stop(stop: Stop | None, engine: Engine) -> Limits:
    """The limits of a run that will end."""
    if stop is None and not engine.ends_by_itself:
        raise InvalidInputError("stop=None would never end: give a condition such as MaxUpdates(1000)")
    return limits(stop)


def execute(setup: Setup, observers: Observer | Sequence[Observer], earlier: Result | None = None) -> Result:
    """Run what was set up, from the start or from where an earlier run was left."""
    with ExitStack() as stack:
        stack.enter_context(_alone(setup.engine))
        session = Session(setup, observers, earlier)
        stack.enter_context(single_threaded_blas())
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        interrupted = stack.enter_context(_interrupt_flag())
        stack.callback(session.close)
        stack.callback(setup.engine.close)
        return session.go(interrupted)


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
