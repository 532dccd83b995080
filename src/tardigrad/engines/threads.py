"""Threads: workers are threads of this process.

Rules of this file:

- NumPy and BLAS leave the interpreter to other threads while they compute; Python code does not;
- points are copied once a version and shared by all that read them, so every run replays bit for bit;
- a thread cannot be killed: `close` waits until each has done what it is at.
"""

from __future__ import annotations

import threading
import traceback
from queue import Empty, SimpleQueue
from typing import Any

from tardigrad.core.errors import WorkerError
from tardigrad.core.task import Points
from tardigrad.core.timing import Timing
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.dispatch import Job
from tardigrad.engines.real import RealEngine
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
    ) -> None:
        super().__init__(workers, timing, deadline, reassign)
        self._threads: list[threading.Thread] = []
        self._inboxes: list[SimpleQueue[Any]] = []

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
            do = doing(half, self.timing, self._closing.wait)
        except BaseException:
            news.put((number, -1, traceback.format_exc()))
            return
        news.put((number,))
        with at_work():
            while (job := inbox.get()) is not None:
                task, points = job
                try:
                    news.put((number, task.id, *do(task, points, self._zero)))
                except BaseException:  # whatever it is, the thread goes on: the loop decides what follows
                    news.put((number, task.id, traceback.format_exc()))
                del job, points  # not kept while it waits

    def _keep(self, points: Points, fresh: bool) -> Points:
        return points if fresh else tuple([point.copy() for point in points])

    def _copy(self, place: Points) -> Points:
        return place

    def _give(self, worker: int, job: Job) -> None:
        self._inboxes[worker].put((job.task, job.kept.place))

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
