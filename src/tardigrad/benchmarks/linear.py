"""`tardigrad bench linear`: `linsolve` to a relative residual of 1e-6, beside SciPy's lsqr and lsmr.

- dense Gaussian 20000 x 1000: solves a second;
- 400000 x 1000 in a file: passes that `linsolve` takes, and the bandwidth of row steps beside a plain NumPy pass;
- 6000 x 1500 with 100 outlying singular values: blocks, beside lsqr and Cholesky of A'A;
- sparse 200000 x 20000, 10 entries a row: rows a second on 1 and 4 threads; solves beside lsqr and lsmr;
- one of 4 workers 10 times slower: time of each method, beside its own time without.

Rules of this file:

- SciPy runs with all BLAS threads;
- every job starts after half a second of rest, because BLAS threads spin for a while after a call; compilation is left out;
- a ratio above 1 is in favour of the row's name, but for passes and stragglers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from tardigrad.benchmarks.harness import Row
from tardigrad.core.drive import run
from tardigrad.core.errors import TardigradError
from tardigrad.core.stopping import MaxUpdates
from tardigrad.core.task import Array
from tardigrad.engines.real import cores
from tardigrad.engines.threads import Threads
from tardigrad.problems.linear_system import LinearSystem
from tardigrad.problems.sketches import RowBlocks
from tardigrad.rules.row_action import RowAction
from tardigrad.solvers.linsolve import linsolve
from tardigrad.timing.models import PerClient

TOL, WORKERS = 1e-6, 4
#: seconds of rest before a job
REST = 0.5


def rows() -> Iterator[Row]:
    """All rows of the benchmark."""
    if cores() < WORKERS:
        yield Row("linsolve, 4 workers", None, "solves/s", f"not measured: {cores()} cores, {WORKERS} are needed", None)
        return
    yield from dense()
    yield from outliers()
    yield from sparse()
    yield from stragglers()
    yield from in_a_file()


def seconds_of(job: Callable[[], Any], rounds: int) -> float:
    """The shortest time of a job, after one that is left out where there are several."""
    best = np.inf
    for turn in range(rounds + (rounds > 1)):
        time.sleep(REST)
        began = time.perf_counter()
        job()
        if turn or rounds == 1:
            best = min(best, time.perf_counter() - began)
    return float(best)


def solved(A: Any, b: Array, x: Array) -> None:
    """An error if x does not solve the system as well as it was asked to."""
    residual = np.linalg.norm(A @ x - b) / np.linalg.norm(b)
    if not residual <= TOL:
        raise TardigradError(f"not solved: relative residual {residual:.2g}")


def scipy_seconds(A: Any, b: Array, rounds: int) -> dict[str, float]:
    """Times of lsqr and lsmr to the same relative residual."""
    jobs = {
        "lsqr": lambda: sla.lsqr(A, b, atol=0, btol=TOL, conlim=0),
        "lsmr": lambda: sla.lsmr(A, b, atol=0, btol=TOL, conlim=0),
    }
    for job in jobs.values():
        solved(A, b, job()[0])
    return {name: seconds_of(job, rounds) for name, job in jobs.items()}


def dense(m: int = 20_000, n: int = 1000) -> Iterator[Row]:
    """Tall, dense, well-conditioned."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(m, n))
    b = A @ rng.normal(size=n)
    solved(A, b, linsolve(A, b, tol=TOL).x)
    ours = seconds_of(lambda: linsolve(A, b, tol=TOL), 9)
    alone = seconds_of(lambda: linsolve(A, b, tol=TOL, workers=1), 5)
    theirs = scipy_seconds(A, b, 9)
    name = min(theirs, key=lambda key: theirs[key])
    yield Row(f"linsolve, dense {m} x {n}", 1 / ours, "solves/s", f"{name}, the better of lsqr and lsmr", 1 / theirs[name])
    yield Row(f"linsolve, dense {m} x {n}, 1 worker", 1 / alone, "solves/s", f"{name}, all BLAS threads", 1 / theirs[name])


def outliers(m: int = 6000, n: int = 1500, k: int = 100) -> Iterator[Row]:
    """A few large singular values: blocks of rows remove them, Krylov methods meet them one by one."""
    rng = np.random.default_rng(0)
    U, V = np.linalg.qr(rng.normal(size=(m, n)))[0], np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = np.concatenate([np.geomspace(1e4, 10, k), np.linspace(2, 1, n - k)])
    A = np.ascontiguousarray((U * values) @ V.T)
    b = A @ rng.normal(size=n)
    found = linsolve(A, b, tol=TOL)
    solved(A, b, found.x)
    ours = seconds_of(lambda: linsolve(A, b, tol=TOL), 5)
    name = f"linsolve ({found.method}), {m} x {n} with {k} outlying singular values"

    def cholesky() -> Array:
        x: Array = scipy.linalg.cho_solve(scipy.linalg.cho_factor(A.T @ A), A.T @ b)
        return x

    solved(A, b, cholesky())
    yield Row(name, 1 / ours, "solves/s", "Cholesky of A'A", 1 / seconds_of(cholesky, 3))
    x = np.zeros(n)

    def lsqr() -> None:
        nonlocal x
        x = sla.lsqr(A, b, atol=0, btol=TOL, conlim=0, iter_lim=100_000)[0]

    theirs = seconds_of(lsqr, 1)
    solved(A, b, x)
    yield Row(name, 1 / ours, "solves/s", "lsqr", 1 / theirs)


def sparse(m: int = 200_000, n: int = 20_000, per_row: int = 10) -> Iterator[Row]:
    """Short rows: threads write to one iterate."""
    rng = np.random.default_rng(0)
    columns = rng.integers(n, size=(m, per_row))
    A = sp.csr_array((rng.normal(size=m * per_row), columns.ravel(), np.arange(0, m * per_row + 1, per_row)), shape=(m, n))
    A.sum_duplicates()
    b = A @ rng.normal(size=n)

    def rate(threads: int) -> float:
        system, n_rows = LinearSystem(A, b, n_clients=threads), 10 * m
        result = run(RowAction(), system, Threads(threads, lock_free=True), stop=MaxUpdates(n_rows))
        return n_rows / float(result.history.seconds[-1])

    best: dict[int, float] = {}
    for turn in range(6):
        for threads in (1, 2, WORKERS):
            time.sleep(REST)
            found = rate(threads)
            if turn:
                best[threads] = max(best.get(threads, 0.0), found)
    for threads in (2, WORKERS):
        yield Row(f"row steps, sparse {m} x {n}, {threads} threads", best[threads], "rows/s", "1 thread", best[1])
    solved(A, b, linsolve(A, b, tol=TOL).x)
    ours = seconds_of(lambda: linsolve(A, b, tol=TOL), 5)
    for name, theirs in scipy_seconds(A, b, 5).items():
        yield Row(f"linsolve, sparse {m} x {n}", 1 / ours, "solves/s", name, 1 / theirs)


def stragglers(m: int = 4000, n: int = 500, usual: float = 0.004) -> Iterator[Row]:
    """One of 4 workers is 10 times slower: seconds beside those without it. Durations are injected."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(m, n))
    b = A @ rng.normal(size=n)
    for method in ("row-action", "averaged", "parallel"):
        taken = []
        for slowest in (usual, 10 * usual):
            timing = PerClient([usual] * (WORKERS - 1) + [slowest])

            def solve(timing: PerClient = timing, method: str = method) -> None:
                engine = Threads(WORKERS, timing, lock_free=method == "row-action")
                sketch = "auto" if method == "row-action" else RowBlocks(32)
                found = linsolve(A, b, method=method, sketch=sketch, engine=engine, tol=TOL, workers=WORKERS)
                solved(A, b, found.x)

            taken.append(seconds_of(solve, 3))
        kind = "synchronous" if method == "parallel" else "asynchronous"
        yield Row(f"{method} ({kind}), one of 4 workers 10 times slower", taken[1], "s", "without it", taken[0])


def in_a_file(m: int = 400_000, n: int = 1000, part: int = 10_000) -> Iterator[Row]:
    """A matrix in a file that lies in the disk cache: 3.2 GB."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "A.npy"
        A = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(m, n))
        x, b = rng.normal(size=n), np.empty(m)
        for low in range(0, m, part):
            A[low : low + part] = rng.normal(size=(min(part, m - low), n))
            b[low : low + part] = A[low : low + part] @ x
        del A
        mapped = np.load(path, mmap_mode="r")
        found = linsolve(path, b, tol=TOL)
        solved(mapped, b, found.x)
        yield Row(f"linsolve, {m} x {n} in a file", found.passes, "passes", "allowed", 2.5)
        ours = seconds_of(lambda: linsolve(path, b, tol=TOL), 3)

        def numpy_pass() -> None:
            for low in range(0, m, part):
                mapped[low : low + part] @ x

        plain = seconds_of(numpy_pass, 5)
        yield Row(f"linsolve, {m} x {n} in a file", 1 / ours, "solves/s", "one NumPy pass (A @ x)", 1 / plain)
        system = LinearSystem(path, b, n_clients=WORKERS)
        rule = RowAction(rows=max(1, n // (8 * WORKERS)))

        def step_pass() -> float:
            time.sleep(REST)
            result = run(rule, system, Threads(WORKERS, lock_free=True), stop=MaxUpdates(m // rule.rows))
            return float(result.history.seconds[-1])

        steps = min(step_pass() for _ in range(4))
        size = m * n * 8 / 1e9
        yield Row(f"row steps, {m} x {n} in a file", size / steps, "GB/s", "one NumPy pass (A @ x)", size / plain)
