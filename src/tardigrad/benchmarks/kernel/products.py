"""The rate of float32 matrix products on this machine: what a kernel machine's epoch is measured by.

Rules of this file:

- `tiles`: threads of one-thread BLAS, each at products of the shape that kernel blocks are made of, the result in place;
- `large`: one product of NumPy as large as pays, on all of BLAS's own threads;
- the best of several rounds is meant to be beaten by nothing: callers take the larger of the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

from tardigrad.core.worker import single_threaded_blas

#: rows of a batch and of a tile
SHAPE = (512, 2048)


def tiles(n_features: int = 784, threads: int = 4, seconds: float = 1.0) -> float:
    """GFLOP/s of all threads together."""
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(rows, n_features)).astype(np.float32) for rows in SHAPE)

    def work() -> Callable[[], float]:
        out = np.empty(SHAPE, np.float32)

        def once() -> float:
            np.matmul(left, right.T, out=out)
            return 2e-9 * n_features * out.size

        return once

    with single_threaded_blas():
        return together([work() for _ in range(threads)], seconds)


def large(size: int = 6000, rounds: int = 3) -> float:
    """GFLOP/s of a square product."""
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(size, size)).astype(np.float32) for _ in range(2))
    out = np.empty_like(left)
    best = 0.0
    for _ in range(rounds):
        began = time.perf_counter()
        np.matmul(left, right, out=out)
        best = max(best, 2e-9 * size**3 / (time.perf_counter() - began))
    return best


def together(jobs: list[Callable[[], float]], seconds: float) -> float:
    """Work a second of jobs that threads do at the same time, over and over: each says how much one call was."""
    barrier = Barrier(len(jobs))

    def loop(job: Callable[[], float]) -> float:
        job()  # warm-up
        barrier.wait()
        began, done = time.perf_counter(), 0.0
        while (passed := time.perf_counter() - began) < seconds:
            done += job()
        return done / passed

    with ThreadPoolExecutor(len(jobs)) as pool:
        return sum(pool.map(loop, jobs))
