"""Simulated: workers on a virtual clock, as many as there are clients or fewer.

Rules of this file:

- events are ordered by virtual time, then by number of submission, never by payload;
- a job's duration is drawn when it starts, keyed by (seed, task id);
- a payload is computed when its reply is due: a cancelled task costs nothing, an idle client no memory;
- at most one copy of the points a version, shared by all tasks that read that version.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from heapq import heapify, heappop, heappush
from math import inf, isnan, nan
from typing import Any

from tardigrad.core.engine import Engine, Placement
from tardigrad.core.in_flight import InFlight
from tardigrad.core.streams import Domain, Uniforms
from tardigrad.core.task import Points, Reply, Task
from tardigrad.core.timing import Timing, check_duration, check_timing
from tardigrad.core.validate import optional_integer
from tardigrad.core.worker import WorkerHalf

#: a job that waits for its worker: task, version, points, time of submission, number of submission
Job = tuple[Task, int, Points, float, int]
#: a job under way: time of its end, number of submission, worker, time of its start, task, version, points, time of submission
Event = tuple[float, int, int, float, Task, int, Points, float]


class Simulated(Engine):
    """A virtual clock: no process, no thread, and any number of workers.

    Parameters
    ----------
    timing : Timing
        How long a client's job takes, in virtual seconds.
    workers : int, optional
        So many workers serve the clients: any worker any client where data are shared, else client i
        the worker ``i % workers``. By default every client is a worker of its own.

    Examples
    --------
    >>> import tardigrad as td
    >>> Simulated(td.Constant(1.0)).now()
    0.0
    """

    def __init__(self, timing: Timing, workers: int | None = None) -> None:
        self.timing = check_timing(timing, "Simulated.timing")
        self.workers = optional_integer(workers, "workers")
        self._clock = 0.0

    def fields(self) -> dict[str, Any]:
        return {"timing": self.timing, "workers": self.workers}

    def n_workers(self, placement: Placement) -> int:
        return placement.n_clients if self.workers is None else self.workers

    def open(self, half: WorkerHalf, placement: Placement) -> None:
        self.timing.check(placement.n_clients)
        self._answer = half.open()
        self._duration = self.timing.duration
        self._random = self.timing.random
        self._uniform = Uniforms(half.seed, Domain.TIMING)
        self._clock = 0.0
        self._submissions = 0
        self._version = -1
        self._points: Points = ()
        self._heap: list[Event] = []
        self._busy: set[int] = set()  # workers
        # by worker, under -1 where any worker will do; and by task id, so that any job leaves its line at once
        self._waiting: dict[int, OrderedDict[int, Job]] = {}
        pooled = self.workers is not None and placement.shared_data
        self._idle = list(range(self.workers or 0)) if pooled else None

    def submit(self, task: Task, version: int, points: Points, fresh: bool = False) -> None:
        if version != self._version:
            self._points = points if fresh else tuple([point.copy() for point in points])
            self._version = version
        self._submissions = number = self._submissions + 1
        if self._idle is None:
            line = worker = task.client if self.workers is None else task.client % self.workers
            free = worker not in self._busy
        else:
            free = bool(self._idle)
            line, worker = -1, heappop(self._idle) if free else -1
        if free:  # what _start does, without the call: most submissions come here
            clock = self._clock
            self._busy.add(worker)
            seconds = self._duration(task.client, clock, self._uniform(task.id) if self._random else 0.5)
            if not seconds >= 0:  # looked at here, without a call: this is a hot path
                check_duration(seconds, self.timing, task.client)
            finish = clock + seconds
            heappush(self._heap, (finish, number, worker, clock, task, version, self._points, clock))
        else:
            self._waiting.setdefault(line, OrderedDict())[task.id] = (task, version, self._points, self._clock, number)

    def _line_up(self, task: Task, version: int, points: Points, submitted: float, number: int) -> None:
        """Put a job of an earlier run where it waits, or start it if its worker is free."""
        if self._idle is None:
            line = worker = task.client if self.workers is None else task.client % self.workers
            free = worker not in self._busy
        else:
            free = bool(self._idle)
            line, worker = -1, heappop(self._idle) if free else -1
        if free:
            self._start(worker, task, version, points, submitted, number)
        else:
            self._waiting.setdefault(line, OrderedDict())[task.id] = (task, version, points, submitted, number)

    def _start(self, worker: int, task: Task, version: int, points: Points, submitted: float, number: int) -> None:
        start = self._clock
        self._busy.add(worker)
        seconds = self._duration(task.client, start, self._uniform(task.id) if self._random else 0.5)
        if not seconds >= 0:  # looked at here, without a call: this is a hot path
            check_duration(seconds, self.timing, task.client)
        finish = start + seconds
        heappush(self._heap, (finish, number, worker, start, task, version, points, submitted))

    def _release(self, worker: int) -> None:
        """A worker is free: its next job starts, or it is idle."""
        self._busy.discard(worker)
        line = worker if self._idle is None else -1
        waiting = self._waiting.get(line)
        if waiting:
            self._start(worker, *waiting.popitem(last=False)[1])
            if not waiting:
                del self._waiting[line]
        elif self._idle is not None:
            heappush(self._idle, worker)

    def next(self, timeout: float) -> Reply | None:
        if not self._heap or (timeout is not inf and self._heap[0][0] > self._clock + timeout):
            self._clock += max(timeout, 0.0) if timeout < inf else 0.0  # a resumed run may be past its new limit
            return None
        finish, _, worker, start, task, version, points, submitted = self._heap[0]
        payload = self._answer(task, points)  # before anything changes: should it raise, the task is still in flight
        heappop(self._heap)
        self._clock = finish
        if self._waiting or self._idle is not None:
            self._release(worker)
        else:
            self._busy.discard(worker)
        return Reply(task, version, payload, worker, submitted, start, finish, finish)

    def cancel(self, task_id: int) -> None:
        for line, waiting in self._waiting.items():
            if waiting.pop(task_id, None) is not None:
                if not waiting:
                    del self._waiting[line]
                return
        for i, entry in enumerate(self._heap):
            if entry[4].id == task_id:
                del self._heap[i]
                heapify(self._heap)
                self._release(entry[2])
                return

    def now(self) -> float:
        return self._clock

    def in_flight(self, wanted: Container[int]) -> InFlight:
        points: dict[int, Points] = {}
        rows = []
        for finish, number, worker, start, task, version, at, submitted in self._heap:
            if task.id in wanted:
                points[version] = at
                rows.append((task, version, number, worker, submitted, start, finish))
        for waiting in self._waiting.values():
            for task, version, at, submitted, number in waiting.values():
                if task.id in wanted:
                    points[version] = at
                    rows.append((task, version, number, -1, submitted, nan, nan))
        return InFlight.of_rows(self._clock, rows, points, self._submissions)

    def take_up(self, saved: InFlight) -> None:
        self._clock = saved.clock
        self._submissions = max(saved.submissions, len(saved.jobs))
        lined: list[Job] = []
        for task, row in saved.tasks():
            version, number, submitted = row["version"], row["number"], row["submitted"]
            points = saved.points[version]
            if isnan(row["finish"]):
                lined.append((task, version, points, submitted, number))
            else:
                self._busy.add(row["worker"])
                self._heap.append((row["finish"], number, row["worker"], row["started"], task, version, points, submitted))
        heapify(self._heap)
        if self._idle is not None:
            self._idle = [worker for worker in self._idle if worker not in self._busy]
        for job in lined:
            self._line_up(*job)

    def close(self) -> None:
        self._heap = []
        self._waiting = {}
        self._busy = set()
