"""`tardigrad bench clients`: ten thousand clients on a virtual clock, beside what their gradients alone cost.

Logistic regression on Fashion-MNIST (labels below 5 against the others), 32 rows a gradient, 100 clients at work, on one core.
Rules of this file:

- the control is a loop over the same gradients in NumPy: rows drawn, gathered, multiplied; no server, no clock, no trace;
- memory is the most that NumPy and Python held during a run beside the rows themselves.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tardigrad import datasets
from tardigrad.benchmarks.harness import Row, rates_in_turn
from tardigrad.benchmarks.simulator import finished
from tardigrad.core.drive import run
from tardigrad.core.result import Result
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import MaxUpdates
from tardigrad.core.worker import single_threaded_blas
from tardigrad.engines.simulated import Simulated
from tardigrad.problems.data import Dataset
from tardigrad.problems.logistic import LogisticRegression
from tardigrad.problems.partition import Iid
from tardigrad.problems.regularizers import SmoothNonconvex
from tardigrad.rules.async_bc import AsyncBC
from tardigrad.rules.gradient_descent import AsyncSGD
from tardigrad.timing.models import PerClient

BATCH = 32


def rows(n_clients: int = 10_000, n_updates: int = 20_000, at_work: int = 100, data: Dataset | None = None) -> Iterator[Row]:
    """A row for each rule, and one for the memory."""
    data = datasets.load("fashion-mnist") if data is None else data
    labels = Dataset(data.X, (data.y < np.median(data.y)).astype(int))
    regularizer = SmoothNonconvex(0.05)
    problem = LogisticRegression(labels, Iid(n_clients), batch=BATCH, regularizer=regularizer)
    timing = PerClient.linear(n_clients, 50.0)

    def simulate(rule: Rule[Any]) -> Result:
        return finished(run(rule, problem, Simulated(timing), stop=MaxUpdates(n_updates), concurrency=at_work))

    def rate(rule: Rule[Any]) -> float:
        began = time.perf_counter()
        simulate(rule)
        return n_updates / (time.perf_counter() - began)

    compared: list[tuple[str, Rule[Any], int]] = [
        ("AsyncSGD", AsyncSGD(0.01, next_client="uniform"), 1),
        ("AsyncBC, its first full gradients included", AsyncBC(0.01), 2),
    ]
    for name, rule, points in compared:
        jobs: list[Callable[[], float]] = [partial(rate, rule), partial(bare, problem, n_updates, points)]
        ours, theirs = rates_in_turn(*jobs, rounds=3)
        yield Row(f"{name}, {n_clients} clients, {BATCH} rows a gradient", ours, "updates/s", "the gradients in NumPy", theirs)
    tracemalloc.start()
    simulate(AsyncBC(0.01))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = data.X.nbytes / 1e6
    yield Row(f"memory of AsyncBC, {n_clients} clients, rows included", size + peak / 1e6, "MB", "the rows", size)


def bare(problem: LogisticRegression, n: int, points: int) -> float:
    """So many stochastic gradients of random clients at one or two points, a second."""
    rng = np.random.default_rng(0)
    X, y = np.asarray(problem.data.X), np.where(np.asarray(problem.y) > 0, 1.0, -1.0).astype(problem.dtype)
    xs = [rng.normal(size=problem.dim).astype(problem.dtype) / 10 for _ in range(points)]
    with single_threaded_blas():
        began = time.perf_counter()
        for _ in range(n):
            picked = rng.integers(0, len(X), BATCH)
            A, signs = X[picked], y[picked]
            for x in xs:
                slopes = -signs / (1 + np.exp(signs * (A @ x)))
                (slopes @ A) / BATCH + 0.1 * x / (1 + x * x) ** 2
        return n / (time.perf_counter() - began)
