"""The only event loop of the library: it gives tasks to an engine and replies to a rule.

Rules of this file:

- a reply is applied exactly once, by task id; what an engine lost is submitted again, unchanged;
- the loop knows no method, no clock and no process: those are the rule's and the engine's;
- a payload that is not finite is never applied: a single run ends as DIVERGED with its last finite
  state, a replica is masked and the others go on;
- Ctrl-C is looked at between two replies, so an interrupted run is whole and its trace replays.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf, isfinite
from types import FrameType
from typing import Any

import numpy as np
from numpy import ndarray

from tardigrad.core.checks import as_observers, check_measures, check_parts, starting_point
from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import InvalidInputError, WorkerError
from tardigrad.core.guard import Guard
from tardigrad.core.observers import History, Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import Limits, Status, Stop, limits
from tardigrad.core.streams import Domain, Stream, check_seed
from tardigrad.core.task import Array, Cancel, Ended, Lost, Reply, Task
from tardigrad.core.trace import Recorder
from tardigrad.core.validate import optional_integer
from tardigrad.core.watch import Verdict, Watch
from tardigrad.core.worker import WorkerHalf, single_threaded_blas

MAX_FAILURES = 3


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
) -> Result:
    """Run a rule on a problem with an engine until a condition holds.

    Parameters
    ----------
    rule : Rule
        The method.
    problem : Problem
        What to minimise.
    engine : Engine
        Where the workers are: `Simulated`, `Processes`, ...
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

    Returns
    -------
    Result
        Usable whatever its status, also after Ctrl-C.

    Raises
    ------
    InvalidInputError
        If arguments do not fit together.
    WorkerError
        If workers cannot start, or one task fails `MAX_FAILURES` times.

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
    bounds = limits(stop)
    if stop is None and not engine.ends_by_itself:
        raise InvalidInputError("stop=None would never end: give a condition such as MaxUpdates(1000)")
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
    half = WorkerHalf(rule, problem, check_seed(seed), replicas)
    history = History(snapshot_every)
    watch = Watch([history, *as_observers(observers)], bounds, problem)
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(single_threaded_blas())
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        interrupted = stack.enter_context(_interrupt_flag())
        stack.callback(engine.close)
        stack.enter_context(watch)
        engine.open(half, placement)
        loop = _Loop(rule, engine, bounds, watch, interrupted)
        status, message = loop.begin(start, problem.n_clients, seed) or loop.go()
        message = loop.guard.describe(message)
        watch.end(loop.moment(), status, message)
    return Result(
        x=loop.guard.answer(loop.state.x).copy(),
        status=status,
        message=message,
        state=loop.state,
        history=history,
        trace=loop.recorder.trace(loop.state.version),
        diverged=loop.guard.mask(status),
        problem=problem,
        rule=rule,
        engine=engine,
        stop=stop,
        x0=start,
        seed=seed,
        concurrency=concurrency,
        max_staleness=max_staleness,
        replicas=replicas,
        snapshot_every=snapshot_every,
        oracle_calls=loop.calls if loop.counted else loop.replies,
        wall_seconds=time.perf_counter() - began,
        measure_seconds=watch.measure_seconds,
    )


class _Loop:
    """Server's side of one run: the rule's state, the open tasks, and the counts."""

    def __init__(self, rule: Rule[Any], engine: Engine, bounds: Limits, watch: Watch, interrupted: list[int]) -> None:
        self.rule = rule
        self.engine = engine
        self.bounds = bounds
        self.watch = watch
        self.interrupted = interrupted
        self.recorder = Recorder()
        self.open: dict[int, Task] = {}
        self.failures: dict[int, int] = {}
        self.replies = 0
        self.calls = 0
        #: where every reply costs one call and no limit is set, replies count the calls
        self.counted = bounds.oracle_calls < inf or type(rule).oracle_calls is not Rule.oracle_calls

    def begin(self, x0: Array, n_clients: int, seed: int) -> Verdict | None:
        """Ask the rule for its first state and tasks."""
        self.guard = Guard(x0.shape[:-1])
        self.server = Stream(seed, Domain.SERVER)
        self.state, orders = self.rule.start(self.engine.house(x0), n_clients, Stream(seed, Domain.START))
        self.obey(orders)
        if not self.open:
            return Status.STALLED, "the rule issued no task at all"
        return self.watch.look(self.moment())

    def go(self) -> Verdict:  # noqa: C901, PLR0911, PLR0912
        """Apply replies until something ends the run; the reason, also for people."""
        # the hottest code of the library: what it uses often is local
        next_event, receive, admit, engine_now = self.engine.next, self.rule.receive, self.guard.admit, self.engine.now
        submit, server, watch = self.engine.submit, self.server, self.watch
        points_of = None if type(self.rule).points is Rule.points else self.rule.points
        record, pack, open_tasks, interrupted = self.recorder.extend, self.recorder.pack, self.open, self.interrupted
        cost = self.rule.oracle_calls if self.counted else None
        state, max_seconds, max_calls = self.state, self.bounds.seconds, self.bounds.oracle_calls
        timed, replies, single = max_seconds < inf, self.replies, not self.guard.dead.ndim
        while not interrupted:
            reply = next_event(max_seconds - engine_now() if timed else inf)
            if type(reply) is not Reply:
                verdict = self.other(reply)
                if verdict is not None:
                    return verdict
                continue
            task = reply.task
            if task.id not in open_tasks:
                continue  # a second reply to a task that was thought lost, or a late one to a cancelled task
            if timed and reply.received > max_seconds:
                return self.out_of_time()
            payload = reply.payload
            # the one array of a single run is judged here or at its worker, everything else by the guard
            good = (reply.finite and single) or (
                isinstance(payload, ndarray)
                and payload.ndim == 1
                and payload.flags.c_contiguous
                and isfinite(payload.dot(payload))
            )
            if not (good or admit(reply, state.x)):
                return Status.DIVERGED, diverged(reply, state.version)
            n_open, before = len(open_tasks), state.version
            del open_tasks[task.id]
            server.index = replies
            state, orders = receive(state, reply, server)
            self.state = state
            self.replies = replies = replies + 1
            worker, read, sent = reply.worker, reply.version, reply.submitted
            record(
                pack(task.id, task.client, worker, read, before, n_open, sent, reply.started, reply.finished, reply.received)
            )
            if orders:
                points = (state.x,) if points_of is None else points_of(state)
                version = state.version
                for order in orders:
                    if type(order) is Task:
                        open_tasks[order.id] = order
                        submit(order, version, points, state.fresh)
                    else:
                        self.cancel(order)
            if cost is not None:
                self.calls += cost(task)
            if state.version >= watch.due:
                verdict = watch.look(self.moment())
                if verdict is not None:
                    return verdict
            if cost is not None and self.calls >= max_calls:
                return Status.MAX_ORACLE_CALLS, f"reached the limit of {max_calls} oracle calls"
            if not open_tasks:
                return Status.STALLED, "no task is in flight and the rule issued none"
        return Status.INTERRUPTED, f"interrupted after {state.version} updates; the result is that of this moment"

    def obey(self, orders: Iterable[Task | Cancel]) -> None:
        """Carry out a rule's orders."""
        points = self.rule.points(self.state)
        for order in orders:
            if isinstance(order, Task):
                self.open[order.id] = order
                self.engine.submit(order, self.state.version, points, self.state.fresh)
            else:
                self.cancel(order)

    def cancel(self, order: Cancel) -> None:
        """Forget an open task."""
        if self.open.pop(order.id, None) is not None:
            self.engine.cancel(order.id)

    def other(self, event: Lost | Ended | None) -> Verdict | None:
        """Deal with what is not a reply."""
        if event is None:
            return self.out_of_time() if self.engine.now() >= self.bounds.seconds else None
        if isinstance(event, Ended):
            return Status.ENDED, event.reason
        task = event.task
        if task.id in self.open:
            self.failures[task.id] = failures = self.failures.get(task.id, 0) + 1
            if failures >= MAX_FAILURES:
                raise WorkerError(f"task {task.id} of client {task.client} failed {failures} times: {event.reason}")
            self.engine.submit(task, event.version, ())
        return None

    def out_of_time(self) -> Verdict:
        """The verdict of a run whose seconds are over."""
        return Status.MAX_SECONDS, f"reached the limit of {self.bounds.seconds:g} s after {self.state.version} updates"

    def moment(self) -> Moment:
        """What observers are shown."""
        x, diverged = self.guard.answer(self.state.x), self.guard.dead
        return Moment(self.state.version, self.replies, self.engine.now(), x, diverged)


def diverged(reply: Reply, version: int) -> str:
    """The message of a run that ends with a payload that is not finite."""
    task = reply.task
    return (
        f"the reply to task {task.id} of client {task.client} is not finite (NaN, infinite, or so large that its square"
        f" overflows) after {version} updates; the result is the last finite state. A smaller step may help"
    )


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
