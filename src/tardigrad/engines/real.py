"""What all real engines share: workers that take time, answer late, hang or die; a clock; what is in flight.

Rules of this file:

- an engine's transport (`Threads`, `Processes`, `RayCluster`) starts workers, hands them jobs and hears
  from them; which worker does which job is `Dispatch`'s;
- what goes wrong is an incident: kept for the result, and logged as a warning of the logger "tardigrad";
- a reply's points stay until the reply was applied: a checkpoint never lacks a task.
"""

from __future__ import annotations

import logging
import os
import pickle
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Container, Iterable
from typing import Any

import cloudpickle
import numpy as np

from tardigrad.core.bfloat16 import widened
from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.in_flight import InFlight
from tardigrad.core.task import Array, Lost, Payload, Points, Reply, Task
from tardigrad.core.timing import Timing, check_timing
from tardigrad.core.validate import number, optional_integer, yes_or_no
from tardigrad.core.worker import WorkerHalf, last_line
from tardigrad.engines.dispatch import Dispatch, Job, Kept

#: longest wait for replies at a time, so that Ctrl-C is seen
PATIENCE = 0.2
#: seconds within which workers must be ready
START_TIMEOUT = 60.0

LOG = logging.getLogger("tardigrad")


class RealEngine(Engine):
    """Base class of engines whose workers are real.

    Parameters
    ----------
    workers : int, optional
        How many; by default one for each core this process may use, at most one a client.
    timing : Timing, optional
        Durations to inject: a job that is done sooner waits for the rest, so that stragglers can be
        tried on one machine.
    deadline : float, optional
        Seconds after which a worker that is still at a task is reported as slow.
    reassign : bool
        Whether a task that missed the deadline is given to another worker too, with what waits behind it.
        The first answer counts. Which one that is does not matter: a payload depends on the task alone.
    """

    #: jobs that a worker is given at a time
    depth = 1

    def __init__(
        self,
        workers: int | None = None,
        timing: Timing | None = None,
        deadline: float | None = None,
        reassign: bool = False,
    ) -> None:
        self.workers = optional_integer(workers, "workers")
        self.timing = None if timing is None else check_timing(timing, "timing", "Constant(0.01), or None")
        self.deadline = None if deadline is None else number(deadline, "deadline", above=0, what="a number of seconds")
        if reassign and deadline is None:
            raise InvalidInputError("reassign=True needs a deadline, the seconds after which a task goes to another worker")
        self.reassign = yes_or_no(reassign, "reassign")
        self.incidents: list[dict[str, Any]] = []
        self._patience = PATIENCE if self.deadline is None else min(PATIENCE, self.deadline / 4)
        self._zero = time.monotonic()
        self._forget()

    def _forget(self) -> None:
        """Let go of everything that was on its way."""
        self._dispatch = Dispatch(0, True, self._drop)
        self._replies: deque[tuple[Job, Reply]] = deque()
        self._lost: deque[Lost] = deque()
        self._applied: Job | None = None

    def fields(self) -> dict[str, Any]:
        names = ("workers", "timing", "deadline", "reassign")
        return {name: getattr(self, name) for name in names}

    def n_workers(self, placement: Placement) -> int:
        return self.workers if self.workers is not None else min(cores(), placement.n_clients)

    def open(self, half: WorkerHalf, placement: Placement) -> None:
        if self.timing is not None:
            self.timing.check(placement.n_clients)
        self.close()  # does something only where Ctrl-C came while an earlier run was closed
        self._connect(placement)
        n_workers = self.n_workers(placement)
        self._forget()
        self.incidents = []
        self._gone: dict[int, float] = {}
        self._dispatch = Dispatch(n_workers, placement.shared_data, self._drop)
        self._free = [0] * n_workers
        self._narrow = half.problem.payload_type == "bfloat16"
        self._zero = time.monotonic()
        self._looked = 0.0  # on the run's clock
        self._launch(half, n_workers)
        self._zero = time.monotonic()

    def submit(self, task: Task, version: int, points: Points, fresh: bool = False) -> None:
        dispatch = self._dispatch
        job = dispatch.jobs.get(task.id)
        if job is not None:  # it was lost: it keeps its points and its place in the line
            job.parked = False
        else:
            kept = dispatch.kept(version)
            if kept is None:
                kept = Kept(self._keep(points, fresh))
            dispatch.submit(task, version, kept, self.now())
        workers: Iterable[int] = dispatch.workers_for(task)
        if self.depth > 1:  # whoever has least to do; no task waits behind another while a worker is idle
            workers = sorted(workers, key=self._free.__getitem__, reverse=True)
        for worker in workers:
            if self._free[worker] and self._feed(worker) and job is None:
                return

    def _feed(self, worker: int) -> bool:
        """Give a worker jobs while it has room for them and there are any; whether it got one."""
        got = False
        while self._free[worker]:
            job = self._dispatch.take(worker, self.now())
            if job is None:
                break
            self._free[worker] -= 1
            self._give(worker, job)
            got = True
        return got

    def cancel(self, task_id: int) -> None:
        self._dispatch.cancel(task_id)

    def next(self, timeout: float) -> Reply | Lost | None:
        if self._applied is not None:
            self._dispatch.settle(self._applied)
            self._applied = None
        if not self._replies and not self._lost:
            self._listen(max(0.0, min(timeout, self._patience)))
            if self.deadline is not None:
                self._look_at_the_clock(self.deadline)
        if self._replies:
            self._applied, reply = self._replies.popleft()
            return reply
        return self._lost.popleft() if self._lost else None

    def now(self) -> float:
        return time.monotonic() - self._zero

    def in_flight(self, wanted: Container[int]) -> InFlight:
        jobs = [job for job in self._dispatch.jobs.values() if job.task.id in wanted]
        points = {job.version: job.kept for job in jobs}
        copies = {version: self._copy(kept.place) for version, kept in points.items()}
        return InFlight.of(self.now(), [(job.task, job.version, job.submitted) for job in jobs], copies)

    def take_up(self, saved: InFlight) -> None:
        self._zero = time.monotonic() - saved.clock
        for task, row in saved.tasks():
            self.submit(task, row["version"], saved.points[row["version"]], fresh=True)

    # what a transport tells

    def _is_ready(self, worker: int) -> None:
        """A worker has started, or started again."""
        if worker in self._gone:
            seconds = self.now() - self._gone.pop(worker)
            self._report("replaced", worker, None, f"worker {worker} is replaced, after {seconds:.2f} s", logging.INFO)
        self._free[worker] = self.depth
        self._dispatch.back(worker)
        self._feed(worker)

    def _has_answered(self, worker: int, task_id: int, payload: Payload, finite: bool, started: float, finished: float) -> None:
        if self._narrow:
            payload = widened(payload)
        received = self.now()
        job = self._dispatch.answered(worker, task_id, received)
        if job is not None:
            times = job.submitted, started, finished, received
            self._replies.append((job, Reply(job.task, job.version, payload, worker, *times, finite)))
        self._free[worker] += 1
        self._feed(worker)
        if self.reassign:
            self._feed_all()

    def _has_failed(self, worker: int, task_id: int, text: str) -> None:
        """A worker's code raised; it goes on. What waited there is given anew: a client's tasks stay in order."""
        job = self._dispatch.lose(worker)
        self._report("raised", worker, job, f"worker {worker} raised an exception: {last_line(text)}")
        if job is not None:
            self._lost.append(Lost(job.task, job.version, f"it raised an exception on worker {worker}:\n{text}"))
        self._free[worker] = self.depth
        self._feed_all()

    def _has_died(self, worker: int, how: str) -> None:
        """A worker is gone, with what it held; it gets nothing until it is ready again."""
        self._free[worker] = 0
        self._gone.setdefault(worker, self.now())
        job = self._dispatch.lose(worker)
        self._report("died", worker, job, f"worker {worker} {how}")
        if job is not None:
            self._lost.append(Lost(job.task, job.version, f"worker {worker} {how} while it worked on it"))
        self._feed_all()

    def _feed_all(self) -> None:
        """Give jobs to whoever has room: one worker's news can free the line of another."""
        for worker in range(len(self._free)):
            self._feed(worker)

    def _look_at_the_clock(self, deadline: float) -> None:
        now = self.now()
        if now - self._looked < min(0.05, deadline / 4):
            return
        self._looked = now
        for worker in range(len(self._free)):
            job = self._dispatch.is_late(worker, now, deadline)
            if job is None:
                continue
            what = f"task {job.task.id} of client {job.task.client}"
            text = f"worker {worker} has been at {what} for {now - job.begun:.3g} s, longer than the deadline of {deadline:g} s"
            self._report("slow", worker, job, f"{text}; others stand in for it" if self.reassign else text)
            if self.reassign:
                self._dispatch.stand_in(worker)
                self._feed_all()

    def _report(self, kind: str, worker: int, job: Job | None, text: str, level: int = logging.WARNING) -> None:
        """Keep what went wrong, and say it."""
        task = None if job is None else job.task.id
        self.incidents.append({"seconds": self.now(), "kind": kind, "worker": worker, "task": task, "text": text})
        LOG.log(level, "%s", text)

    # what a transport does

    def _connect(self, placement: Placement) -> None:
        """Reach for the place where workers will be, before it is asked how many there can be."""

    @abstractmethod
    def _launch(self, half: WorkerHalf, n_workers: int) -> None:
        """Start the workers and wait until they are ready."""

    @abstractmethod
    def _keep(self, points: Points, fresh: bool) -> Any:
        """Keep a version's points where workers can read them."""

    def _drop(self, kept: Kept) -> None:
        """Nobody reads these points any more."""

    @abstractmethod
    def _copy(self, place: Any) -> Points:
        """Points that were kept, as arrays that will not change."""

    @abstractmethod
    def _give(self, worker: int, job: Job) -> None:
        """Hand a job to a worker."""

    @abstractmethod
    def _listen(self, timeout: float) -> None:
        """Wait so long for news of workers, and tell all that there are."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pickled(half: WorkerHalf, timing: Timing | None, whither: str) -> tuple[bytes, list[Array]]:
    """The worker's half and the timing, classes of scripts by value, and apart from it the memory of their arrays."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        main = cloudpickle.dumps((half, timing), protocol=5, buffer_callback=buffers.append)
    except Exception as error:  # pickling can raise anything
        raise InvalidInputError(
            f"the rule, the problem or a function that they were given cannot be sent to {whither} ({error}): keep open files,"
            " locks and generators out of them"
        ) from error
    return main, [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
