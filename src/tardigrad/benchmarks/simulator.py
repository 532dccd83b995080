"""`tardigrad bench simulator`: events a second of the virtual clock, beside what the numerics alone cost.

- one trajectory, 100 clients, dim 1000, gradient = x, against a bare loop of heapq and numpy;
- the same loop with the library's parts added one by one, to say what the rest is spent on;
- a sweep of 100 step sizes in one run (dim 100) against 100 runs one after another;
- a million clients against a hundred: time an event, and memory an idle client;
- the time of ``import tardigrad``, against that of ``import numpy``.

Rules of this file:

- gradients cost nothing, so that what is measured is the machinery;
- what is compared is measured in turn, in one run of the benchmark.
"""

from __future__ import annotations

import heapq
import math
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tardigrad.benchmarks.harness import Row, in_turn
from tardigrad.core.drive import run
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.stopping import MaxUpdates, Status
from tardigrad.core.task import Array
from tardigrad.engines.simulated import Simulated
from tardigrad.rules.gradient_descent import AsyncSGD
from tardigrad.timing.models import PerClient

STEP = 1e-6  # so small that nothing decays into subnormal numbers, which are slow


class Identity(Problem):
    """``f_i(x) = |x|^2 / 2`` for every client: the gradient is x itself, so that nothing but the machinery costs."""

    def __init__(self, n_clients: int, dim: int) -> None:
        self.n_clients = n_clients
        self.dim = dim

    def fields(self) -> dict[str, Any]:
        return {"n_clients": self.n_clients, "dim": self.dim}

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        return x

    def x0(self) -> Array:
        return np.ones(self.dim)


def rows(n_events: int = 100_000) -> Iterator[Row]:
    """All rows of the benchmark."""
    yield from trajectory(n_events)
    yield from sweep(n_events // 25)
    yield from million(n_events)
    yield import_time()


def trajectory(n_events: int) -> Iterator[Row]:
    """One trajectory against the bare loop, and where the time goes."""
    jobs: dict[str, Callable[[], object]] = {
        "bare heapq+numpy loop": lambda: bare_loop(100, 1000, n_events),
        "bare loop + finiteness of each payload": lambda: bare_loop(100, 1000, n_events, checked=True),
        "bare loop + finiteness + update through a buffer": lambda: bare_loop(100, 1000, n_events, checked=True, buffered=True),
        "tardigrad": lambda: simulate(100, 1000, n_events),
    }
    seconds = dict(zip(jobs, in_turn(*jobs.values()), strict=True))
    rate = {name: n_events / value for name, value in seconds.items()}
    bare = "bare heapq+numpy loop"
    yield Row("one trajectory, 100 clients, dim 1000", rate["tardigrad"], "events/s", bare, rate[bare])
    for name in list(jobs)[1:-1]:
        yield Row(name, rate[name], "events/s", bare, rate[bare])


def sweep(n_events: int) -> Iterator[Row]:
    """A sweep of 100 step sizes in one run against 100 runs, in updates of one trajectory a second."""
    steps = np.geomspace(STEP / 10, STEP, 100)
    few = 5  # runs one after another are timed on a few of the hundred
    together, apart = in_turn(
        lambda: simulate(100, 100, n_events, step=steps),
        lambda: [simulate(100, 100, n_events, step=float(step)) for step in steps[:few]],
        rounds=3,
    )
    control = "100 runs one after another"
    yield Row("sweep of 100 steps in one run, dim 100", 100 * n_events / together, "updates/s", control, few * n_events / apart)


def million(n_events: int) -> Iterator[Row]:
    """A million clients, a hundred at work, against a hundred clients."""
    many, few = 1_000_000, 100
    rule = AsyncSGD(STEP, next_client="uniform")
    timings = {n: PerClient.linear(n, 10.0) for n in (many, few)}

    def job(n_clients: int) -> object:
        engine = Simulated(timings[n_clients])
        return finished(run(rule, Identity(n_clients, 100), engine, stop=MaxUpdates(n_events), concurrency=few))

    slow, fast = in_turn(lambda: job(many), lambda: job(few), rounds=3)
    micro = 1e6 / n_events
    yield Row("a million clients, 100 at work", slow * micro, "microseconds/event", "a hundred clients", fast * micro)
    tracemalloc.start()
    result = run(rule, Identity(many, 100), Simulated(PerClient.linear(many, 10.0)), stop=MaxUpdates(1000), concurrency=few)
    used = tracemalloc.get_traced_memory()[1] / many
    tracemalloc.stop()
    del result
    yield Row("memory an idle client, its duration included", used, "bytes", "allowed", 1024.0)


def import_time() -> Row:
    """``import tardigrad`` in a fresh interpreter, against ``import numpy``."""

    def seconds(statement: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - began

    empty = min(seconds("pass") for _ in range(5))
    ours = min(seconds("import tardigrad") for _ in range(5)) - empty
    numpys = min(seconds("import numpy") for _ in range(5)) - empty
    return Row("import tardigrad", ours, "s", "import numpy", numpys)


def finished(result: Result) -> Result:
    """A result that may be timed: Ctrl-C ends the benchmark, it does not shorten a run."""
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return result


def rate(result: Result) -> float:
    """Updates a second of an asynchronous run, the first tenth left out."""
    received = result.trace["received"]
    first = len(received) // 10
    return float((len(received) - 1 - first) / (received[-1] - received[first]))


def simulate(n_clients: int, dim: int, n_events: int, step: Any = STEP) -> object:
    """A run of asynchronous SGD on the virtual clock."""
    return finished(
        run(AsyncSGD(step), Identity(n_clients, dim), Simulated(PerClient.linear(n_clients, 10.0)), stop=MaxUpdates(n_events))
    )


def bare_loop(n_clients: int, dim: int, n_events: int, checked: bool = False, buffered: bool = False) -> Array:
    """The same iterates as `simulate` with nothing but a heap and the update: no trace, no rules, no checks."""
    x = np.ones(dim)
    buffer = np.empty(dim)
    durations = PerClient.linear(n_clients, 10.0).seconds
    heap = [(durations[i], i, i, x.copy()) for i in range(n_clients)]
    heapq.heapify(heap)
    for number in range(n_clients, n_clients + n_events):
        now, _, client, gradient = heapq.heappop(heap)
        if checked and not math.isfinite(gradient.dot(gradient)):
            break
        if buffered:
            np.multiply(gradient, STEP, out=buffer)
            x -= buffer
        else:
            x -= STEP * gradient
        heapq.heappush(heap, (now + durations[client], number, client, x.copy()))
    return x
