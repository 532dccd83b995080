"""Controls of `tardigrad bench engines`: loops with the same transport and the same update, and nothing else.

Rules of this file:

- a loop computes what asynchronous SGD on gradient = x computes, for as many tasks in flight as there are workers;
- no trace, no rules, no failures, no checks; rates leave out the first tenth, as those of the engines do.
"""

from __future__ import annotations

import mmap
import os
import selectors
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np

from tardigrad.benchmarks.simulator import STEP
from tardigrad.core.compiled import subtract_scaled


def shared_memory_and_pipe(dim: int, n_updates: int, n_workers: int) -> float:
    """Updates a second of worker processes that read a slot of shared memory, write another, and send a token."""
    workers: list[tuple[Connection, Any, Any, Any, list[int]]] = []
    x, buffer = np.ones(dim), np.empty(dim)
    selector = selectors.DefaultSelector()
    try:
        for _ in range(n_workers):
            here, there = Pipe()
            files = [os.memfd_create("bare"), os.memfd_create("bare")]
            for file in files:
                os.ftruncate(file, 8 * dim)
            fds = [there.fileno(), *files]
            process = subprocess.Popen([sys.executable, "-m", __name__, *map(str, fds)], pass_fds=fds)
            there.close()
            point, gradient = (np.frombuffer(mmap.mmap(file, 8 * dim)) for file in files)
            workers.append((here, point, gradient, process, files))
            selector.register(here, selectors.EVENT_READ, workers[-1])
        for line, *_ in workers:
            line.recv_bytes()
        for line, point, *_ in workers:
            np.copyto(point, x)
            line.send_bytes(b"t")
        done, began = 0, time.perf_counter()
        while done < n_updates:
            for key, _ in selector.select():
                line, point, gradient, *_ = key.data
                line.recv_bytes()
                np.multiply(gradient, STEP, buffer)
                np.subtract(x, buffer, x)
                np.copyto(point, x)
                line.send_bytes(b"t")
                done += 1
                if done == n_updates // 10:
                    began = time.perf_counter()
        return (n_updates - n_updates // 10) / (time.perf_counter() - began)
    finally:
        selector.close()
        for line, _, _, process, files in workers:
            process.kill()
            process.wait()
            line.close()
            for file in files:
                os.close(file)


def _bare_worker(line: Connection, files: list[int]) -> None:
    point, gradient = (np.frombuffer(mmap.mmap(file, 0)) for file in files)
    line.send_bytes(b"r")
    while True:
        line.recv_bytes()
        np.copyto(gradient, point)
        line.send_bytes(b"r")


def update_threads(dim: int, n_updates: int, n_threads: int, compiled: bool = False) -> float:
    """Updates a second of threads that run nothing but the update on one iterate, in NumPy or as the compiled pass."""
    x = np.ones(dim)
    share = n_updates // n_threads

    def work() -> None:
        buffer = np.empty(dim)
        for _ in range(share):
            if compiled:
                subtract_scaled(x, x, STEP)
            else:
                np.multiply(x, STEP, buffer)
                np.subtract(x, buffer, x)

    work()
    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n_threads * share / (time.perf_counter() - began)


if __name__ == "__main__":
    _bare_worker(Connection(int(sys.argv[1])), [int(fd) for fd in sys.argv[2:]])
