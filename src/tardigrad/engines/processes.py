"""Processes: workers are processes of this machine.

Rules of this file:

- a worker is a fresh interpreter, never a fork; scripts need no ``__main__`` guard, and functions of a
  script or notebook are sent by value (cloudpickle);
- the problem's arrays are in memory once, shared by all workers, read-only there;
- points are copied once a version into shared memory and stay until every task that reads them is
  answered: a worker never sees half of an update, and every run replays bit for bit. Only where the
  user asks for it do workers read the live point;
- a dead worker is noticed by the end of its line, replaced, and its task reported lost. Where a process that its code
  forked keeps the line open, its exit is noticed within 0.2 s.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tardigrad.core.engine import Placement
from tardigrad.core.errors import InvalidInputError, WorkerError
from tardigrad.core.task import Array, Points
from tardigrad.core.timing import Timing
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.dispatch import Job, Kept
from tardigrad.engines.interrupts import held_back
from tardigrad.engines.process_start import IN_WORKER, WorkerProcess, how_it_ended
from tardigrad.engines.process_wire import ANSWER, READY, REPLY, TASK, receive, send, write_setup
from tardigrad.engines.real import PATIENCE, START_TIMEOUT, RealEngine, pickled
from tardigrad.engines.shared_memory import Block, Blocks, Layout, Layouts, SharedBuffer, place_in

#: a worker that ends so often before it is ready is not started again
MAX_STARTS = 3


@dataclass(slots=True)
class _Points:
    """A version's points in shared memory; a negative place is one in the live buffer."""

    layout: Layout
    place: int
    block: Block | None
    arrays: Points


class Processes(RealEngine):
    """Workers in processes of their own.

    Parameters
    ----------
    workers : int, optional
        Number of processes; by default one for each core this process may use, at most one a client.
    timing : Timing, optional
        Durations to inject: a job that is done sooner sleeps for the rest, so that stragglers can be
        tried on one machine.
    deadline : float, optional
        Seconds after which a worker that is still at a task is reported as slow.
    reassign : bool
        Whether a task that missed the deadline is given to another worker too; the first answer counts.
    points : {"snapshot", "live"}
        What workers read: a private copy of each version, or the iterate itself while the server changes
        it, as far as the rule updates it in place (gradient descent does above 128 kB). Reading live
        saves the copy; a read may then mix versions, so such a run does not replay.

    Raises
    ------
    InvalidInputError
        Where processes cannot inherit descriptors (Windows), or the rule or problem cannot be sent.
    WorkerError
        If workers do not start.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> result = td.run(td.AsyncSGD(step=0.3), problem, td.Processes(workers=4), stop=td.MaxUpdates(100))
    >>> result.status.value, td.replay(result).identical
    ('max_updates', True)
    """

    def __init__(
        self,
        workers: int | None = None,
        timing: Timing | None = None,
        deadline: float | None = None,
        reassign: bool = False,
        points: Literal["snapshot", "live"] = "snapshot",
    ) -> None:
        if os.name != "posix":
            raise InvalidInputError("Processes needs a POSIX system (Linux, macOS); use Threads or Simulated here")
        super().__init__(workers, timing, deadline, reassign)
        if points not in ("snapshot", "live"):
            raise InvalidInputError(f"points must be 'snapshot' or 'live', not {points!r}")
        self.points = points
        self._pool: list[WorkerProcess] = []
        self._buffers: list[SharedBuffer] = []

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "points": self.points}

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, by number, while a run goes on."""
        return [worker.process.pid for worker in self._pool]

    @property
    def replays(self) -> bool:
        return self.points == "snapshot"

    def open(self, half: WorkerHalf, placement: Placement) -> None:
        if os.environ.get(IN_WORKER):
            raise WorkerError(
                "a worker process was about to start workers of its own: a module that it imports starts a run when it is"
                " imported. Put that run under `if __name__ == '__main__':`"
            )
        super().open(half, placement)

    def _launch(self, half: WorkerHalf, n_workers: int) -> None:
        self._poll = select.poll()
        self._by_line: dict[int, WorkerProcess] = {}
        self._layouts = Layouts()
        self._buffers = [SharedBuffer(), SharedBuffer(), SharedBuffer()]
        points, self._setup, self._live = self._buffers
        self._blocks = Blocks(points)
        write_setup(self._setup, *pickled(half, self.timing, "worker processes"))
        self._starts = [0] * n_workers
        self._looked_for_dead = time.monotonic()
        for number in range(n_workers):
            with held_back():  # a process that is in no list is never ended
                self._pool.append(self._spawn(number))
        deadline = time.monotonic() + START_TIMEOUT
        while not all(self._free):
            self._listen(PATIENCE)
            if time.monotonic() > deadline:
                raise WorkerError(f"workers were not ready after {START_TIMEOUT:g} s: is the machine overloaded?")

    def house(self, x: Array) -> Array:
        if self.points == "snapshot":
            return super().house(x)
        housed = np.ndarray(x.shape, x.dtype, self._live.take(x.nbytes))
        np.copyto(housed, x)
        return housed

    def _keep(self, points: Points, fresh: bool) -> _Points:
        layout, n_bytes = self._layouts.of(points)
        if self.points == "live" and len(points) == 1:
            offset = place_in(self._live, points[0])
            if offset is not None:
                return _Points(layout, -1 - offset, None, points)
        block = self._blocks.put(points, layout, n_bytes)
        return _Points(layout, block.offset, block, block.arrays)

    def _drop(self, kept: Kept) -> None:
        block = kept.place.block
        if block is not None:
            self._blocks.give_back(block)

    def _copy(self, place: _Points) -> Points:
        return tuple(array.copy() for array in place.arrays)

    def _give(self, number: int, job: Job) -> None:
        worker, points, task = self._pool[number], job.kept.place, job.task
        words = worker.words
        kind, layout = words.number(task.kind), words.number(points.layout)
        who = (task.id, task.client, kind, task.setup)
        fields = (*who, layout, points.place, job.stand_in, task.weight, task.part, self._zero)
        with contextlib.suppress(OSError):  # it is dead: its line has ended, which `_listen` will see
            send(worker.line, TASK, fields, words.news)
        if words.news:
            words.news = []

    def _listen(self, timeout: float) -> None:
        for descriptor, _ in self._poll.poll(timeout * 1000):
            worker = self._by_line[descriptor]
            try:
                message, news = receive(worker.line, REPLY)
            except (EOFError, OSError):
                self._replace(worker)
            else:
                self._hear(worker, message, news)
        if time.monotonic() - self._looked_for_dead > PATIENCE:
            self._look_for_dead()
            self._looked_for_dead = time.monotonic()

    def _look_for_dead(self) -> None:
        """Replace workers that hang while they start, and those whose lines have not ended although they have.

        A process that a worker forked has a copy of its line.
        """
        for number in self._gone:
            worker = self._pool[number]
            if time.monotonic() - worker.born > START_TIMEOUT and worker.process.poll() is None:
                self._report("slow", number, None, f"worker {number} was not ready after {START_TIMEOUT:g} s: it is ended")
                worker.process.kill()
        dead = [worker for worker in self._pool if worker.process.poll() is not None]
        if dead:
            with_news = {descriptor for descriptor, _ in self._poll.poll(0)}  # these are heard first
            for worker in dead:
                if worker.line.fileno() not in with_news:
                    self._replace(worker)

    def _hear(self, worker: WorkerProcess, message: tuple[Any, ...], news: Any) -> None:
        what, task_id, finite, layout, place, started, finished = message
        if what == ANSWER:
            if news:
                worker.heard += news
            is_tuple, shape = worker.heard[layout]
            arrays = worker.views.at(place, shape)
            payload = arrays if is_tuple else arrays[0]
            self._has_answered(worker.number, task_id, payload, bool(finite), started, finished)
        elif what == READY:
            self._starts[worker.number] = 0
            self._is_ready(worker.number)
        elif task_id >= 0:
            self._has_failed(worker.number, task_id, news)
        else:
            raise WorkerError(f"worker {worker.number} could not start:\n{news}")

    def _spawn(self, number: int) -> WorkerProcess:
        self._starts[number] += 1
        if self._starts[number] > MAX_STARTS:
            raise WorkerError(f"worker {number} ended {MAX_STARTS} times before it was ready; see its messages above")
        worker = WorkerProcess(number, self._setup, self._blocks.buffer, self._live)
        self._by_line[worker.line.fileno()] = worker
        self._poll.register(worker.line, select.POLLIN)
        return worker

    def _replace(self, worker: WorkerProcess) -> None:
        """A worker has died: start another in its place and report what it held."""
        self._has_died(worker.number, how_it_ended(self._discard(worker)))
        with held_back():
            self._pool[worker.number] = self._spawn(worker.number)

    def _discard(self, worker: WorkerProcess) -> int:
        """End a worker's process and connection; its exit code."""
        if self._by_line.pop(worker.line.fileno(), None) is not None:
            self._poll.unregister(worker.line)
        return worker.end()

    def close(self) -> None:
        with held_back():  # a second Ctrl-C would leave workers behind
            for worker in self._pool:
                worker.process.kill()  # workers hold nothing that is not kept here
            while self._pool:
                self._discard(self._pool[-1])
                self._pool.pop()
            while self._buffers:
                self._buffers.pop().close()
            self._forget()  # arrays that look into shared memory keep a descriptor of it
