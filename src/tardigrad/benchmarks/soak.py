"""`tardigrad bench soak`: ten minutes at full rate with a worker process killed every two seconds.

Rules of this file:

- the trace is replayed afterwards: it must end in the same bits;
- memory must not grow, and no process and nothing in /dev/shm may be left;
- progress goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tardigrad.benchmarks.harness import Row, quiet
from tardigrad.benchmarks.simulator import STEP, Identity, finished
from tardigrad.core.drive import run
from tardigrad.core.observers import Moment, Observer, Progress
from tardigrad.core.result import Result
from tardigrad.core.stopping import MaxSeconds
from tardigrad.engines.processes import Processes
from tardigrad.engines.replay import replay
from tardigrad.rules.gradient_descent import AsyncSGD

WORKERS = 4


def rows(seconds: float = 600.0, kill_every: float = 2.0, dim: int = 1000) -> Iterator[Row]:
    """All rows of the benchmark."""
    before, shared_memory = _children(), _shared_memory()
    engine = Processes(WORKERS)
    helper = _Killer(engine, kill_every, seconds)
    stop, observers = MaxSeconds(seconds), [Progress("soak"), helper]
    try:
        with quiet():
            result = finished(run(AsyncSGD(STEP), Identity(WORKERS, dim), engine, stop=stop, observers=observers))
    finally:
        helper.end()
    yield Row("updates", result.trace.updates / seconds, "updates/s", "seconds", seconds)
    yield from count(result, helper.kills)
    quarter = max(1, len(helper.memory) // 4)
    early, late = max(helper.memory[quarter : 2 * quarter]), max(helper.memory[-quarter:])
    yield Row("resident memory, last quarter", late, "MB", "second quarter", early)
    yield Row("processes left", float(len(_children() - before)), "processes", "allowed", 0.0)
    yield Row("entries left in /dev/shm", float(len(_shared_memory() - shared_memory)), "entries", "allowed", 0.0)
    yield Row("replay has the same bits", float(replay(result).identical), "runs", "runs", 1.0)


def count(result: Result, kills: int) -> Iterator[Row]:
    """No update lost, none doubled."""
    tasks = np.bincount(result.trace["task"])
    died = sum(incident["kind"] == "died" for incident in result.incidents)
    yield Row("kills that were noticed", died, "kills", "kills", kills)
    yield Row("tasks applied twice", float((tasks > 1).sum()), "tasks", "allowed", 0.0)
    yield Row("tasks applied", float((tasks > 0).sum()), "tasks", "issued, less those in flight", result.state.issued - WORKERS)


class _Killer(Observer):
    """Kills a worker now and then and looks at the memory of this process, from the first update until told to end.

    A kill waits until the one before it was made good, and there is none that the run could end before it notices it.
    """

    every = sys.maxsize

    def __init__(self, engine: Processes, interval: float, seconds: float) -> None:
        self.kills = 0
        self.memory: list[float] = []
        self._engine = engine
        self._interval, self._last = interval, seconds - interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def observe(self, moment: Moment) -> None:
        if not moment.version:
            self._thread.start()

    def _work(self) -> None:
        while not self._over.wait(self._interval):
            self.memory.append(_resident())
            replaced = sum(incident["kind"] == "replaced" for incident in list(self._engine.incidents))
            if replaced == self.kills and self._engine.now() < self._last:
                os.kill(self._engine.pids[self.kills % WORKERS], signal.SIGKILL)
                self.kills += 1

    def end(self) -> None:
        """Stop killing."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()


def _resident() -> float:
    """Resident memory of this process in MB, without files that are mapped."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return float(line.split()[1]) / 1024
    return float("nan")


def _children() -> set[str]:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return set(path.read_text().split()) if path.exists() else set()


def _shared_memory() -> set[str]:
    path = Path("/dev/shm")
    return {entry.name for entry in path.iterdir()} if path.is_dir() else set()
