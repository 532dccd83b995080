"""Processes: workers are processes of this machine.

Rules of this file:

- a worker is a fresh interpreter, never a fork; scripts need no ``__main__`` guard, and functions of a
  script or notebook are sent by value (cloudpickle);
- the problem's arrays are in memory once, shared by all workers, read-only there;
- points are copied once a version into shared memory and stay until every task that reads them is
  answered: a worker never sees half of an update, and every run replays bit for bit;
- a dead worker is noticed by the end of its connection, replaced, and its task reported lost.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np

from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import InvalidInputError, WorkerError
from tardigrad.core.task import Lost, Points, Reply, Task
from tardigrad.core.timing import Timing
from tardigrad.core.validate import optional_integer
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.process_wire import FAILED, INLINE, READY, inline_arrays, pack, unpack
from tardigrad.engines.shared_memory import Layout, SharedBuffer, Slots, layout_of, read, size_of

#: longest wait for replies at a time, so that Ctrl-C is seen
PATIENCE = 0.2
START_TIMEOUT = 60.0
#: a worker that ends so often before it is ready is not started again
MAX_STARTS = 3
#: set in the environment of worker processes
IN_WORKER = "TARDIGRAD_IN_WORKER"


@dataclass(slots=True, eq=False)
class _Points:
    """A version's points: where they are, and how many tasks still read them."""

    layout: Layout
    n_bytes: int
    offset: int | None
    arrays: Points
    readers: int = 0


@dataclass(slots=True, eq=False)
class _Job:
    task: Task
    version: int
    points: _Points
    submitted: float
    cancelled: bool = False


@dataclass(slots=True, eq=False)
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    control: Connection
    life: int
    payload: SharedBuffer
    ready: bool = False
    job: _Job | None = None
    points_layout: Layout = ()
    payload_layout: tuple[bool, Layout] = (False, ())
    waiting: deque[_Job] = field(default_factory=deque)


class Processes(Engine):
    """Workers in processes of their own.

    Parameters
    ----------
    workers : int, optional
        Number of processes; by default one for each core this process may use, at most one a client.
    timing : Timing, optional
        Durations to inject: a job that is done sooner sleeps for the rest, so that stragglers can be
        tried on one machine.

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

    def __init__(self, workers: int | None = None, timing: Timing | None = None) -> None:
        if os.name != "posix":
            raise InvalidInputError("Processes needs a POSIX system (Linux, macOS); use Simulated here")
        if timing is not None and not isinstance(timing, Timing):
            raise InvalidInputError(f"timing must be one such as Constant(0.01) or None, not {timing!r}")
        self.workers = optional_integer(workers, "workers")
        self.timing = timing
        self._pool: list[_Worker] = []
        self._buffers: list[SharedBuffer] = []
        self._selector: selectors.BaseSelector | None = None

    def fields(self) -> dict[str, Any]:
        return {"workers": self.workers, "timing": self.timing}

    def n_workers(self, placement: Placement) -> int:
        if self.workers is not None:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, placement.n_clients)

    def open(self, half: WorkerHalf, placement: Placement) -> None:
        if os.environ.get(IN_WORKER):
            raise WorkerError(
                "a worker process was about to start workers of its own: a module that it imports starts a run when it is"
                " imported. Put that run under `if __name__ == '__main__':`"
            )
        if self.timing is not None:
            self.timing.check(placement.n_clients)
        self._shared = placement.shared_data
        self._zero = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._buffers = [SharedBuffer(), SharedBuffer()]
        points, self._setup = self._buffers
        self._slots = Slots(points)
        _write_setup(self._setup, half, self.timing)
        self._versions: dict[int, _Points] = {}
        self._jobs: dict[int, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._events: deque[Reply | Lost] = deque()
        self._starts = [0] * self.n_workers(placement)
        for number in range(len(self._starts)):
            self._pool.append(self._spawn(number))
        deadline = time.monotonic() + START_TIMEOUT
        while not all(worker.ready for worker in self._pool):
            self._listen(PATIENCE)
            if time.monotonic() > deadline:
                raise WorkerError(f"workers were not ready after {START_TIMEOUT:g} s: is the machine overloaded?")
        self._zero = time.monotonic()

    def submit(self, task: Task, version: int, points: Points, fresh: bool = False) -> None:
        job = self._jobs.get(task.id)
        again = job is not None  # a lost task keeps its job, its points and its place in the line
        if job is None:
            kept = self._versions.get(version)
            if kept is None:
                kept = self._versions[version] = self._keep(points, fresh)
            kept.readers += 1
            job = self._jobs[task.id] = _Job(task, version, kept, self.now())
        workers = self._pool if self._shared else [self._pool[task.client % len(self._pool)]]
        waiting = self._waiting if self._shared else workers[0].waiting
        if again:
            waiting.appendleft(job)
        else:
            waiting.append(job)
        for worker in workers:
            self._feed(worker)

    def _keep(self, points: Points, fresh: bool) -> _Points:
        layout = layout_of(points)
        n_bytes = size_of(layout)
        if n_bytes > INLINE:
            return _Points(layout, n_bytes, self._slots.put(points, n_bytes), ())
        return _Points(layout, n_bytes, None, points if fresh else tuple([point.copy() for point in points]))

    def _feed(self, worker: _Worker) -> None:
        """Send a worker its next job, if it is free and there is one."""
        waiting = self._waiting if self._shared else worker.waiting
        if worker.job is not None or not worker.ready or not waiting:
            return
        job = worker.job = waiting.popleft()
        points, task = job.points, job.task
        told = None if points.layout == worker.points_layout else points.layout
        header = ((task.id, task.client, task.kind, task.setup, task.weight), self._zero, told, points.offset)
        try:
            if points.offset is None:
                worker.control.send_bytes(pack(header, points.arrays, points.n_bytes))
            else:
                worker.control.send_bytes(pack(header))
        except OSError:
            return  # it is dead: its connection has ended, which `_listen` will see
        worker.points_layout = points.layout

    def cancel(self, task_id: int) -> None:
        job = self._jobs.get(task_id)
        if job is None:
            return  # answered already: the loop drops the reply
        for waiting in (self._waiting, *(worker.waiting for worker in self._pool)):
            if job in waiting:
                waiting.remove(job)
        if any(worker.job is job for worker in self._pool):
            job.cancelled = True  # the worker goes on to read its points: they stay until its reply
        else:
            self._release(job)

    def next(self, timeout: float) -> Reply | Lost | None:
        if not self._events:
            self._listen(max(0.0, min(timeout, PATIENCE)))
        return self._events.popleft() if self._events else None

    def _listen(self, timeout: float) -> None:
        assert self._selector is not None
        for key, _ in self._selector.select(timeout):
            worker = key.data
            try:
                message = worker.control.recv_bytes()
            except (EOFError, OSError):
                self._replace(worker)
            else:
                self._hear(worker, message)

    def _hear(self, worker: _Worker, message: bytes) -> None:
        received = self.now()
        kind, *content = unpack(message)
        if kind == READY:
            worker.ready = True
            self._starts[worker.number] = 0
        elif kind == FAILED:
            task_id, text = content
            if task_id < 0:
                raise WorkerError(f"worker {worker.number} could not start:\n{text}")
            self._lose(worker, f"it raised an exception on worker {worker.number}:\n{text}")
        else:
            _, started, finished, layout, place = content
            is_tuple, payload_layout = worker.payload_layout = layout or worker.payload_layout
            if place is None:
                arrays = inline_arrays(bytearray(message), payload_layout)
            else:
                memory = worker.payload.mapped(place + size_of(payload_layout))
                arrays = read(memory, place, payload_layout)
            job, worker.job = worker.job, None
            assert job is not None
            if not job.cancelled:
                payload = arrays if is_tuple else arrays[0]
                times = job.submitted, started, finished, received
                self._events.append(Reply(job.task, job.version, payload, worker.number, *times))
            self._release(job)
        self._feed(worker)

    def _release(self, job: _Job) -> None:
        """A job is answered or cancelled: its points may go."""
        del self._jobs[job.task.id]
        points = job.points
        points.readers -= 1
        if not points.readers:
            del self._versions[job.version]
            if points.offset is not None:
                self._slots.give_back(points.offset, points.n_bytes)

    def _lose(self, worker: _Worker, reason: str) -> None:
        job, worker.job = worker.job, None
        if job is not None and job.cancelled:
            self._release(job)
        elif job is not None:
            self._events.append(Lost(job.task, job.version, reason))

    def _spawn(self, number: int) -> _Worker:
        self._starts[number] += 1
        if self._starts[number] > MAX_STARTS:
            raise WorkerError(f"worker {number} ended {MAX_STARTS} times before it was ready; see its messages above")
        here, there = socket.socketpair()
        life_read, life_write = os.pipe()
        payload = SharedBuffer()
        fds = (there.fileno(), life_read, self._setup.fd, self._slots.buffer.fd, payload.fd)
        # one BLAS thread each; the same modules can be imported as here
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        # -P: the current folder is no place to look for modules, unless it is one here
        command = [sys.executable, "-P", "-m", "tardigrad.engines.process_worker", *map(str, fds)]
        env = {**os.environ, **one, "PYTHONPATH": path, IN_WORKER: "1"}
        try:
            # a group of its own: Ctrl-C is for the server
            process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, env=env, process_group=0)
        except OSError as error:
            os.close(life_write)
            here.close()
            payload.close()
            raise WorkerError(f"cannot start a worker process: {error}") from error
        finally:
            there.close()
            os.close(life_read)
        worker = _Worker(number, process, Connection(here.detach()), life_write, payload)
        assert self._selector is not None
        self._selector.register(worker.control, selectors.EVENT_READ, worker)
        return worker

    def _replace(self, worker: _Worker) -> None:
        """A worker has died: start another in its place and report what it held."""
        code = self._discard(worker)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._lose(worker, f"worker {worker.number} {how} while it worked on it")
        self._pool[worker.number] = self._spawn(worker.number)
        self._pool[worker.number].waiting = worker.waiting

    def _discard(self, worker: _Worker) -> int:
        """End a worker's process and connection; its exit code."""
        if self._selector is not None and not worker.control.closed:
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.control)
        worker.control.close()
        if worker.life >= 0:
            os.close(worker.life)
            worker.life = -1
        worker.payload.close()
        try:
            return worker.process.wait(1.0)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            return worker.process.wait()

    def now(self) -> float:
        return time.monotonic() - self._zero

    def close(self) -> None:
        for worker in self._pool:
            worker.process.kill()  # workers hold nothing that is not kept here
        while self._pool:
            self._discard(self._pool.pop())
        while self._buffers:
            self._buffers.pop().close()
        if self._selector is not None:
            self._selector.close()
            self._selector = None


def _write_setup(buffer: SharedBuffer, half: WorkerHalf, timing: Timing | None) -> None:
    """The worker's half and the timing in shared memory, arrays behind the pickle."""
    views: list[pickle.PickleBuffer] = []
    try:
        main = cloudpickle.dumps((half, timing), protocol=5, buffer_callback=views.append)
    except Exception as error:  # pickling can raise anything
        raise InvalidInputError(
            f"the rule or the problem cannot be sent to worker processes ({error}): keep open files, locks and"
            " generators out of them"
        ) from error
    arrays = [np.frombuffer(view.raw(), np.uint8) for view in views]
    # where each array ends up depends on the length of the head, which holds these places: leave ample room
    head_room = 8 + len(main) + 64 * (len(arrays) + 2)
    begin = -(-head_room // 64) * 64
    offsets = []
    for array in arrays:
        offsets.append((begin, begin + array.nbytes))
        begin = -(-(begin + array.nbytes) // 64) * 64
    head = pickle.dumps((offsets, main), pickle.HIGHEST_PROTOCOL)
    memory = buffer.mapped(begin)
    memory[:8] = len(head).to_bytes(8, "little")
    memory[8 : 8 + len(head)] = head
    for (low, high), array in zip(offsets, arrays, strict=True):
        memory[low:high] = array.data
