"""Threads: workers are threads of this process.

Rules of this file:

- NumPy and BLAS leave the interpreter to other threads while they compute; Python code does not;
- points are copied once a version and shared by all that read them, so every run replays bit for bit;
- lock-free, workers read and write the iterate themselves; they draw tasks by number from one counter, so
  each is done once;
- a thread cannot be killed: `close` waits until each has done what it is at.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from itertools import zip_longest
from queue import Empty, SimpleQueue
from typing import Any

from tardigrad.core.errors import InvalidInputError, WorkerError
from tardigrad.core.in_place import InPlaceState
from tardigrad.core.task import Array, Points
from tardigrad.core.timing import Timing
from tardigrad.core.validate import yes_or_no
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.dispatch import Job
from tardigrad.engines.free_worker import FreeWorker, Slice
from tardigrad.engines.real import PATIENCE, RealEngine
from tardigrad.engines.work import at_work, doing


class Threads(RealEngine):
    """Workers in threads of this process: nothing to start, nothing to send.

    Parameters
    ----------
    workers : int, optional
        Number of threads; by default one for each core this process may use, at most one a client.
    timing : Timing, optional
        Durations to inject: a job that is done sooner waits for the rest.
    deadline : float, optional
        Seconds after which a worker that is still at a task is reported as slow.
    reassign : bool
        Whether a task that missed the deadline is given to another worker too; the first answer counts.
    lock_free : bool
        Whether workers write to the iterate themselves, for in-place rules (`Hogwild`): no server, no trace, no
        replay. Deadlines do not apply.

    Notes
    -----
    Threads pay where gradients are NumPy or BLAS calls of 0.1 ms and more. The problem is shared by all
    threads: its oracles must not write to it.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> result = td.run(td.AsyncSGD(step=0.3), problem, td.Threads(workers=4), stop=td.MaxUpdates(100))
    >>> result.status.value, td.replay(result).identical
    ('max_updates', True)
    """

    def __init__(
        self,
        workers: int | None = None,
        timing: Timing | None = None,
        deadline: float | None = None,
        reassign: bool = False,
        lock_free: bool = False,
    ) -> None:
        super().__init__(workers, timing, deadline, reassign)
        if lock_free and deadline is not None:
            raise InvalidInputError("a lock-free run has no deadline: no task is given out that could be late")
        self.lock_free = yes_or_no(lock_free, "lock_free")
        self._threads: list[threading.Thread] = []
        self._inboxes: list[SimpleQueue[Any]] = []

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "lock_free": self.lock_free}

    @property
    def replays(self) -> bool:
        return not self.lock_free

    def _launch(self, half: WorkerHalf, n_workers: int) -> None:
        self._news: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._closing = threading.Event()
        for number in range(n_workers):
            inbox: SimpleQueue[Any] = SimpleQueue()
            arguments = (number, half, inbox, self._news)
            thread = threading.Thread(target=self._work, args=arguments, name=f"tardigrad worker {number}", daemon=True)
            self._inboxes.append(inbox)
            self._threads.append(thread)
            thread.start()
        while not all(self._free):
            self._listen(0.2)

    def _work(self, number: int, half: WorkerHalf, inbox: SimpleQueue[Any], news: SimpleQueue[tuple[Any, ...]]) -> None:
        """What a thread does."""
        try:
            free = FreeWorker(number, half, self.timing, self._closing) if self.lock_free else None
            do = None if self.lock_free else doing(half, self.timing, self._closing.wait)
        except BaseException:
            news.put((number, -1, traceback.format_exc()))
            return
        with at_work():
            # only now: looking for BLAS libraries while another thread imports one may block both for ever
            news.put((number,))
            while (job := inbox.get()) is not None:
                if isinstance(job, Slice):
                    assert free is not None
                    done = free.run(job, self._zero)
                    job.tallies[number].waited = time.monotonic()
                    job.ended[number] = done
                    news.put((number,))
                    continue
                task, points, stands_in = job
                assert do is not None
                try:
                    news.put((number, task.id, *do(task, points, self._zero, stands_in)))
                except BaseException:  # whatever it is, the thread goes on: the loop decides what follows
                    news.put((number, task.id, traceback.format_exc()))
                del job, task, points  # not kept while it waits

    def run_free(self, blocks: list[Array], state: InPlaceState, until: float, look: Callable[[], float]) -> None:
        n_workers, n_clients = len(self._threads), state.n_clients
        if state.bounds and n_workers > n_clients:
            raise InvalidInputError(f"each of {n_clients} blocks has one owner: {n_workers} workers are too many")
        job = Slice(blocks, state, until, n_workers)
        try:
            for inbox in self._inboxes:
                inbox.put(job)
            while None in job.ended and (seconds := look()) > 0:
                self._wait_for(job, seconds)
        finally:  # also after a second Ctrl-C: what workers are at is written, and counted
            job.halt = True
            while None in job.ended:
                self._wait_for(job, PATIENCE)
            done = [number or 0 for number in job.ended]
            state.version += sum(done)
            state.counts = [before + now for before, now in zip_longest(job.done, done, fillvalue=0)]
            if state.tallies:
                job.tally(state.tallies[-1])
        if job.error:
            raise WorkerError(job.error)

    def _wait_for(self, job: Slice, seconds: float) -> None:
        """Wait until all workers have ended a slice, but not longer."""
        end = time.monotonic() + seconds
        while None in job.ended and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(Empty):
                self._news.get(timeout=left)  # says only that somebody has ended: the numbers are in the slice

    def _keep(self, points: Points, fresh: bool) -> Points:
        return points if fresh else tuple([point.copy() for point in points])

    def _copy(self, place: Points) -> Points:
        return place

    def _give(self, worker: int, job: Job) -> None:
        self._inboxes[worker].put((job.task, job.kept.place, job.stand_in))

    def _listen(self, timeout: float) -> None:
        try:
            news = self._news.get(timeout=timeout)
            while True:
                self._hear(*news)
                news = self._news.get_nowait()
        except Empty:
            return

    def _hear(self, worker: int, task_id: int | None = None, *content: Any) -> None:
        if task_id is None:
            self._is_ready(worker)
        elif len(content) > 1:
            self._has_answered(worker, task_id, *content)
        elif task_id >= 0:
            self._has_failed(worker, task_id, *content)
        else:
            raise WorkerError(f"worker {worker} could not start:\n{content[0]}")

    def close(self) -> None:
        if not self._threads:
            return
        self._closing.set()
        for inbox in self._inboxes:
            inbox.put(None)
        while self._threads:
            self._threads[-1].join()
            self._threads.pop()
        self._inboxes = []
        self._forget()
