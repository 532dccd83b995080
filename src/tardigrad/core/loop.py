"""The only event loop of the library: it gives tasks to an engine and replies to a rule.

Rules of this file:

- a reply is applied exactly once, by task id; what an engine lost is submitted again, unchanged;
- the loop knows no method, no clock and no process: those are the rule's and the engine's;
- a payload that is not finite is never applied: a single run ends as DIVERGED with its last finite
  state, a replica is masked and the others go on;
- Ctrl-C and checkpoints are looked at between two replies, when state, trace and open tasks agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from numpy import ndarray

from tardigrad.core.engine import Engine
from tardigrad.core.errors import WorkerError
from tardigrad.core.guard import Guard
from tardigrad.core.observers import Moment
from tardigrad.core.recorder import Recorder
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import Limits, Status
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Array, Cancel, Ended, Lost, Reply, Task
from tardigrad.core.watch import Verdict, Watch

if TYPE_CHECKING:
    from tardigrad.core.result import Result

#: a task that fails so often ends the run
MAX_FAILURES = 3
#: replies between two looks at the trace's memory, less one: a mask
TIDY = 0xFFFF


class Loop:
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
        #: whether state, trace and open tasks agree; not so where a rule raised in the middle of an update
        self.whole = True
        #: where every reply costs one call and no limit is set, replies count the calls
        self.counted = bounds.oracle_calls < inf or type(rule).oracle_calls is not Rule.oracle_calls

    def begin(self, x0: Array, n_clients: int, seed: int) -> Verdict | None:
        """Ask the rule for its first state and tasks."""
        self.guard = Guard(x0.shape[:-1])
        self.server = Stream(seed, Domain.SERVER)
        self.whole = False
        self.state, orders = self.rule.start(self.engine.house(x0), n_clients, Stream(seed, Domain.START))
        self.obey(orders)
        self.whole = True
        if not self.open:
            return Status.STALLED, "the rule issued no task at all"
        return self.watch.look(self.moment())

    def take_up(self, earlier: Result, seed: int) -> Verdict | None:
        """Go on with a run that was saved."""
        assert earlier.in_flight is not None
        self.whole = False
        self.guard = Guard(earlier.x0.shape[:-1])
        self.guard.take_up(earlier.diverged, earlier.x)
        self.server = Stream(seed, Domain.SERVER)
        self.state = earlier.state
        if not self.state.fresh:
            self.state.x = self.engine.house(self.state.x)
        self.recorder = Recorder(earlier.trace.table)
        self.replies, self.calls = len(earlier.trace), earlier.oracle_calls
        self.open = {task.id: task for task, _ in earlier.in_flight.tasks()}
        self.engine.take_up(earlier.in_flight)
        self.whole = True
        if not self.open:
            return Status.STALLED, "no task is in flight"
        verdict = self.watch.look(self.moment())
        return self.out_of_calls() if verdict is None and self.calls >= self.bounds.oracle_calls else verdict

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
            self.whole = False
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
            self.whole = True
            if not replies & TIDY:
                self.recorder.tidy()
            if state.version >= watch.due:
                verdict = watch.look(self.moment())
                if verdict is not None:
                    return verdict
            if cost is not None and self.calls >= max_calls:
                return self.out_of_calls()
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

    def out_of_calls(self) -> Verdict:
        """The verdict of a run whose oracle calls are spent."""
        return Status.MAX_ORACLE_CALLS, f"reached the limit of {self.bounds.oracle_calls} oracle calls"

    def moment(self) -> Moment:
        """What observers are shown."""
        x, diverged = self.guard.answer(self.state.x), self.guard.dead
        return Moment(self.state.version, self.replies, self.engine.now(), x, diverged, self.state, self.recorder.rows)


def diverged(reply: Reply, version: int) -> str:
    """The message of a run that ends with a payload that is not finite."""
    task = reply.task
    return (
        f"the reply to task {task.id} of client {task.client} is not finite (NaN, infinite, or so large that its square"
        f" overflows) after {version} updates; the result is the last finite state. A smaller step may help"
    )
