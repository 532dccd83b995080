"""Processes: workers are processes of this machine.

Rules of this file:

- a worker is a fresh interpreter, never a fork; scripts need no ``__main__`` guard, and functions of a
  script or notebook are sent by value (cloudpickle);
- the problem's arrays are in memory once, shared by all workers, read-only there;
- points are copied once a version into shared memory and stay until every task that reads them is
  answered: a worker never sees half of an update, and every run replays bit for bit. Only where the
  user asks for it do workers read the live point;
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
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import cloudpickle
import numpy as np

from tardigrad.core.engine import Placement
from tardigrad.core.errors import InvalidInputError, WorkerError
from tardigrad.core.task import Array, Points
from tardigrad.core.timing import Timing
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.dispatch import Job, Kept
from tardigrad.engines.process_wire import FAILED, INLINE, READY, inline_arrays, pack, unpack
from tardigrad.engines.real import PATIENCE, START_TIMEOUT, RealEngine
from tardigrad.engines.shared_memory import Layout, SharedBuffer, Slots, layout_of, place_in, read, size_of

#: a worker that ends so often before it is ready is not started again
MAX_STARTS = 3
#: set in the environment of worker processes
IN_WORKER = "TARDIGRAD_IN_WORKER"


@dataclass(slots=True)
class _Points:
    """A version's points: arrays to be sent, or their offset in shared memory (negative: in the live buffer)."""

    layout: Layout
    n_bytes: int
    offset: int | None
    arrays: Points


@dataclass(slots=True, eq=False)
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    control: Connection
    life: int
    payload: SharedBuffer
    points_layout: Layout = ()
    payload_layout: tuple[bool, Layout] = (False, ())


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
        self._pool: list[_Worker] = []
        self._buffers: list[SharedBuffer] = []
        self._selector: selectors.BaseSelector | None = None

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "points": self.points}

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
        self._selector = selectors.DefaultSelector()
        self._buffers = [SharedBuffer(), SharedBuffer(), SharedBuffer()]
        points, self._setup, self._live = self._buffers
        self._slots = Slots(points)
        _write_setup(self._setup, half, self.timing)
        self._starts = [0] * n_workers
        for number in range(n_workers):
            self._pool.append(self._spawn(number))
        deadline = time.monotonic() + START_TIMEOUT
        while not all(self._free):
            self._listen(PATIENCE)
            if time.monotonic() > deadline:
                raise WorkerError(f"workers were not ready after {START_TIMEOUT:g} s: is the machine overloaded?")

    def house(self, x: Array) -> Array:
        if self.points == "snapshot":
            return super().house(x)
        housed = np.ndarray(x.shape, x.dtype, self._live.mapped(x.nbytes))
        np.copyto(housed, x)
        return housed

    def _keep(self, points: Points, fresh: bool) -> _Points:
        layout = layout_of(points)
        n_bytes = size_of(layout)
        if n_bytes <= INLINE:
            return _Points(layout, n_bytes, None, points if fresh else tuple([point.copy() for point in points]))
        if self.points == "live" and len(points) == 1:
            offset = place_in(self._live, points[0])
            if offset is not None:
                return _Points(layout, n_bytes, -1 - offset, points)
        return _Points(layout, n_bytes, self._slots.put(points, n_bytes), ())

    def _drop(self, kept: Kept) -> None:
        points: _Points = kept.place
        if points.offset is not None and points.offset >= 0:
            self._slots.give_back(points.offset, points.n_bytes)

    def _copy(self, place: _Points) -> Points:
        arrays = place.arrays
        if not arrays:
            assert place.offset is not None
            arrays = read(self._slots.buffer.mapped(place.offset + place.n_bytes), place.offset, place.layout)
        return tuple(array.copy() for array in arrays)

    def _give(self, number: int, job: Job) -> None:
        worker = self._pool[number]
        points, task = job.kept.place, job.task
        told = None if points.layout == worker.points_layout else points.layout
        header = ((task.id, task.client, task.kind, task.setup, task.weight), self._zero, told, points.offset)
        with contextlib.suppress(OSError):  # it is dead: its connection has ended, which `_listen` will see
            if points.offset is None:
                worker.control.send_bytes(pack(header, points.arrays, points.n_bytes))
            else:
                worker.control.send_bytes(pack(header))
        worker.points_layout = points.layout

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
        kind, *content = unpack(message)
        if kind == READY:
            self._starts[worker.number] = 0
            self._is_ready(worker.number)
        elif kind == FAILED:
            task_id, text = content
            if task_id < 0:
                raise WorkerError(f"worker {worker.number} could not start:\n{text}")
            self._has_failed(worker.number, task_id, text)
        else:
            task_id, finite, started, finished, layout, place = content
            is_tuple, payload_layout = worker.payload_layout = layout or worker.payload_layout
            if place is None:
                arrays = inline_arrays(bytearray(message), payload_layout)
            else:
                memory = worker.payload.mapped(place + size_of(payload_layout))
                arrays = read(memory, place, payload_layout)
            self._has_answered(worker.number, task_id, arrays if is_tuple else arrays[0], finite, started, finished)

    def _spawn(self, number: int) -> _Worker:
        self._starts[number] += 1
        if self._starts[number] > MAX_STARTS:
            raise WorkerError(f"worker {number} ended {MAX_STARTS} times before it was ready; see its messages above")
        here, there = socket.socketpair()
        life_read, life_write = os.pipe()
        payload = SharedBuffer()
        fds = (there.fileno(), life_read, self._setup.fd, self._slots.buffer.fd, payload.fd, self._live.fd)
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
        self._has_died(worker.number, how)
        self._pool[worker.number] = self._spawn(worker.number)

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
            return worker.process.wait(0.1)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            return worker.process.wait()

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
