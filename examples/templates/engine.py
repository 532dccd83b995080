"""An engine to start from: worker threads of `concurrent.futures`.

Copy this file, rename the class, and put your own way to run a function elsewhere (a queue of a cluster, a pool of a
service) where it is marked CHANGE. ``python engine.py`` checks the contract and runs it. Where workers can die, start from
`tardigrad.engines.real.RealEngine` instead: it knows who does what, and submits again what was lost.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import tardigrad as td


class Pool(td.Engine):
    """Tasks are computed by a pool of threads.

    Parameters
    ----------
    workers : int
        Number of threads.
    """

    def __init__(self, workers):
        self.workers = workers
        self._pool = None

    # the arguments of __init__, so that a run can be saved
    def fields(self):
        return {"workers": self.workers}

    def n_workers(self, placement):
        return self.workers

    # half.open() makes the function that computes payloads, one for each worker; it can be pickled (by cloudpickle)
    def open(self, half, placement):
        self._half = half
        self._pool = ThreadPoolExecutor(self.workers)  # CHANGE: start workers
        self._thread = threading.local()
        self._done = queue.SimpleQueue()  # a new one for each run: late answers of the last run are nobody's
        self._lines = {}  # of each client at work: what waits behind its task
        self._cancelled = set()
        self._version, self._points = -1, ()
        self._zero = time.monotonic()

    # points are the rule's live arrays, unless they are fresh: they are copied, once a version
    def submit(self, task, version, points, fresh=False):
        if version != self._version:
            self._version, self._points = version, points if fresh else tuple(point.copy() for point in points)
        job = (task, version, self._points, self.now())
        if task.client in self._lines:  # a client's tasks run one after another, in order of submission
            self._lines[task.client].append(job)
        else:
            self._lines[task.client] = deque()
            self._pool.submit(self._work, self._done, *job)  # CHANGE: hand a job to a worker

    # CHANGE: at a worker
    def _work(self, done, task, version, points, submitted):
        started = self.now()
        try:
            if not hasattr(self._thread, "answer"):
                self._thread.answer = self._half.open()
            payload = self._thread.answer(task, points)
        except Exception as error:
            payload = error
        done.put((task, version, payload, threading.get_ident(), submitted, started, self.now()))

    # the next reply, or None after `timeout` seconds at the latest; sooner is better, so that Ctrl-C is noticed
    def next(self, timeout):
        try:
            task, version, payload, thread, *times = self._done.get(timeout=min(max(timeout, 0.0), 0.1))
        except queue.Empty:
            return None
        line = self._lines[task.client]
        if line:
            self._pool.submit(self._work, self._done, *line.popleft())
        else:
            del self._lines[task.client]
        if task.id in self._cancelled:
            return None
        if isinstance(payload, Exception):
            raise payload  # or td.core.task.Lost(task, version, reason), and the loop submits it again
        return td.Reply(task, version, payload, thread % 2**31, *times, received=self.now())

    def cancel(self, task_id):
        self._cancelled.add(task_id)

    def now(self):
        return time.monotonic() - self._zero

    # whatever happened: nothing may be left behind, and calling it twice does no harm
    def close(self):
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)  # CHANGE: stop workers
            self._pool = None

    # with in_flight and take_up, runs on it can be saved while they go on and resumed: engines/simulated.py has both


def main() -> None:
    """Check the contract, then run on it."""
    td.testing.check_engine(lambda: Pool(workers=3))
    problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    result = td.run(td.AsyncSGD(0.1), problem, Pool(workers=3), stop=td.MaxUpdates(1000))
    print(result, "; replayed in every bit:", td.replay(result).identical)


if __name__ == "__main__":
    main()
