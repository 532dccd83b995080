"""`tardigrad bench engines`: updates a second of every engine on gradient = x, beside bare loops of the same transport.

- `Processes` against shared memory and a pipe, and against plain Ray actors; with snapshots and with live points;
- `Threads` with a server and lock-free, against threads that run the update in NumPy;
- `RayCluster` against plain Ray actors with as many tasks in flight (where Ray is installed);
- how soon a killed worker is noticed and replaced, and whether any update was lost or doubled;
- updates a second that a simulation predicts from a measured trace, against those measured.

Rules of this file:

- on fewer than four cores nothing of this means anything: rows then say "not measured";
- what is compared is measured in turn, in one run of the benchmark.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from tardigrad.benchmarks.bare_loops import shared_memory_and_pipe, update_threads
from tardigrad.benchmarks.harness import Row, quiet, rates_in_turn
from tardigrad.benchmarks.simulator import STEP, Identity, finished, rate
from tardigrad.core.drive import run
from tardigrad.core.engine import Engine
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.stopping import MaxSeconds, MaxUpdates
from tardigrad.engines.processes import Processes
from tardigrad.engines.real import cores
from tardigrad.engines.simulated import Simulated
from tardigrad.engines.threads import Threads
from tardigrad.problems.least_squares import LeastSquares
from tardigrad.problems.partition import Iid
from tardigrad.rules.gradient_descent import AsyncSGD
from tardigrad.rules.hogwild import Hogwild
from tardigrad.timing.models import FromTrace

if TYPE_CHECKING:
    from tardigrad.engines.ray_cluster import RayCluster

WORKERS = 4
#: dimension, and updates that take about a second
SIZES = {1000: 40_000, 1_000_000: 600}
BARE = "shared memory and a pipe, bare"


class SharedIdentity(Identity):
    """The same for data that are shared: any worker takes any task."""

    shared_data = True


def rows() -> Iterator[Row]:
    """All rows of the benchmark."""
    if cores() < WORKERS:
        yield Row("all engines, 4 workers", None, "updates/s", f"not measured: {cores()} cores, {WORKERS} are needed", None)
        return
    has_ray = importlib.util.find_spec("ray") is not None
    for dim, n_updates in SIZES.items():
        yield from transports(dim, n_updates, has_ray)
    yield from lock_free(1_000_000, 2000)
    yield from deaths(Processes(WORKERS), 1.0)
    if has_ray:
        from tardigrad.engines.ray_cluster import RayCluster

        yield from deaths(RayCluster("local", WORKERS), 5.0, kills=5, every=2.0)
    yield from predictions()


def transports(dim: int, n_updates: int, has_ray: bool) -> Iterator[Row]:
    """All engines that go through a server, side by side."""
    jobs: dict[str, Callable[[], float]] = {
        BARE: lambda: shared_memory_and_pipe(dim, n_updates, WORKERS),
        "Processes": lambda: rate(measure(Processes(WORKERS), dim, n_updates)),
        "Processes, live point": lambda: rate(measure(Processes(WORKERS, points="live"), dim, n_updates)),
        "Threads": lambda: rate(measure(Threads(WORKERS), dim, n_updates // 2)),
    }
    best = dict(zip(jobs, rates_in_turn(*jobs.values()), strict=True))
    for name in list(jobs)[1:]:
        yield Row(f"{name}, dim {dim}", best[name], "updates/s", BARE, best[BARE])
    if has_ray:
        yield from ray_rows(dim, n_updates // 10 if dim < 10**5 else n_updates, best["Processes"])


def ray_rows(dim: int, n_updates: int, processes: float) -> Iterator[Row]:
    """`RayCluster`, and `Processes`, against plain actors."""
    from tardigrad.benchmarks.ray_loop import rows as ray_loop_rows

    for row in ray_loop_rows(((dim, n_updates),), (WORKERS, 2 * WORKERS), WORKERS):
        yield row
        if f" {WORKERS} tasks in flight" in row.name:
            yield Row(f"Processes, dim {dim}, against Ray", processes, "updates/s", row.control, row.control_value)


def lock_free(dim: int, n_updates: int) -> Iterator[Row]:
    """Lock-free threads against bare loops on as many threads, in NumPy and compiled, and a thread against one NumPy loop."""
    threads = (1, 2, WORKERS)

    def ours(n_threads: int) -> float:
        engine, problem = Threads(n_threads, lock_free=True), SharedIdentity(n_threads, dim)
        stop, every = MaxUpdates(n_updates), n_updates // 10
        seconds = finished(run(Hogwild(STEP), problem, engine, stop=stop, snapshot_every=every)).history.seconds
        return (n_updates - every) / float(seconds[-1] - seconds[1])

    kinds: list[Callable[[int], float]] = [
        lambda n: update_threads(dim, n_updates, n),
        lambda n: update_threads(dim, n_updates, n, compiled=True),
        ours,
    ]
    best = iter(rates_in_turn(*[lambda n=n, kind=kind: kind(n) for kind in kinds for n in threads]))
    plain, compiled, mine = ({n: next(best) for n in threads} for _ in kinds)
    for n in threads:
        name = f"Threads lock-free, dim {dim}, {n} threads"
        yield Row(name, mine[n], "updates/s", f"NumPy loop on {n} threads, no lock", plain[n])
        yield Row(name, mine[n], "updates/s", f"the same compiled pass, bare, on {n} threads", compiled[n])
        yield Row(f"{name}, each", mine[n] / n, "updates/s", "NumPy loop on one thread", plain[1])


class Over(Observer):
    """Ends a run when an event is set."""

    every = 100

    def __init__(self, over: threading.Event) -> None:
        self.over = over

    def observe(self, moment: Moment) -> str | None:
        return "all were killed" if self.over.is_set() else None


def deaths(engine: Processes | RayCluster, allowed: float, kills: int = 10, every: float = 0.5) -> Iterator[Row]:
    """Workers killed at full rate: when that is noticed, when they are replaced, whether all updates are there."""
    killed: list[float] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < kills and not over.wait(every):
            pid = engine.pids[len(killed) % WORKERS] if len(engine.pids) == WORKERS else None
            if pid and len(_times(engine, "replaced")) == len(killed):  # one at a time
                now = engine.now()
                os.kill(pid, signal.SIGKILL)
                killed.append(now)
        while len(_times(engine, "replaced")) < len(killed) and not over.wait(every):
            pass
        over.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with quiet():
            stop, observer = MaxSeconds(60.0), Over(over)
            result = finished(run(AsyncSGD(STEP), Identity(WORKERS, 1000), engine, stop=stop, observers=[observer]))
    finally:
        over.set()
        killer.join()
    name = type(engine).__name__
    noticed, replaced = _times(result, "died"), _times(result, "replaced")
    delays = [seen - then for then, seen in zip(killed, noticed, strict=False)]
    spans = [back - then for then, back in zip(killed, replaced, strict=False)]
    yield Row(f"{name}: a killed worker is noticed, slowest", max(delays), "s", "allowed", 0.05)
    yield Row(f"{name}: a killed worker is replaced, slowest", max(spans), "s", "allowed", allowed)
    yield Row(f"{name}: kills that were noticed", len(noticed), "kills", "kills", len(killed))
    yield Row(f"{name}: tasks applied once", *counted(result))


def _times(of: Processes | RayCluster | Result, kind: str) -> list[float]:
    """Seconds of the incidents of a kind."""
    return [incident["seconds"] for incident in of.incidents if incident["kind"] == kind]


def counted(result: Result) -> tuple[float, str, str, float]:
    """Tasks applied, against the tasks that must have been: all numbers up to the first one in flight at the end."""
    tasks, times = np.unique(result.trace["task"], return_counts=True)
    assert (times == 1).all(), "a task was applied twice"
    issued = result.state.issued
    return float(len(tasks)), "tasks", "tasks issued, less those in flight", float(issued - WORKERS)


def predictions() -> Iterator[Row]:
    """Updates a second simulated from a measured trace, against another measured run."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 100))
    problems: dict[str, tuple[Problem, int]] = {
        "gradient = x, dim 1000": (Identity(WORKERS, 1000), 40_000),
        "gradient = x, dim 1000000": (Identity(WORKERS, 1_000_000), 600),
        "least squares, 20000 x 100": (LeastSquares((X, X @ rng.normal(size=100)), Iid(WORKERS)), 4000),
    }
    for name, (problem, n_updates) in problems.items():

        def once(problem: Problem = problem, n_updates: int = n_updates) -> Result:
            return finished(run(AsyncSGD(STEP), problem, Processes(WORKERS), stop=MaxUpdates(n_updates)))

        once()
        trace, real = once().trace, rate(once())
        engine = Simulated(FromTrace(trace), workers=WORKERS)
        simulated = rate(finished(run(AsyncSGD(STEP), problem, engine, stop=MaxUpdates(n_updates))))
        yield Row(f"predicted from a trace: {name}", simulated, "updates/s", "measured in the next run", real)


def measure(engine: Engine, dim: int, n_updates: int) -> Result:
    """A run of asynchronous SGD on gradient = x."""
    return finished(run(AsyncSGD(STEP), Identity(WORKERS, dim), engine, stop=MaxUpdates(n_updates)))
