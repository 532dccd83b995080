"""Runs of EigenPro's methods, epoch by epoch: what tables and benchmarks of kernel machines are made of.

Rules of this file:

- an epoch's seconds are everything between two ends of epochs: partition, preconditioners, the wait for the slowest; looking
  at losses and accuracies is outside, from copies, after the run;
- the training loss is the mean squared residual of rows drawn once, the same for all methods;
- what "auto" chooses is chosen before the first epoch: these seconds are counted by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad import datasets
from tardigrad.core.drive import run
from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError, TardigradError
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import MaxUpdates, Status
from tardigrad.core.task import Array
from tardigrad.core.worker import single_threaded_blas
from tardigrad.engines.real import cores
from tardigrad.engines.simulated import Simulated
from tardigrad.engines.threads import Threads
from tardigrad.problems.kernel_functions import KernelFunction, Laplacian
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.rules.async_eigenpro import AsyncEigenPro
from tardigrad.rules.eigenpro import EigenPro, SyncEigenPro

#: what can be run; on one worker the first two are EigenPro
METHODS = ("asynchronous", "synchronous", "one worker")
#: training rows whose residuals make the loss
SEEN = 6000
#: rows that a thread predicts at once
AT_ONCE = 500


@dataclass(frozen=True, eq=False)
class Case:
    """A problem of classes: rows, targets of 0 and 1, the kernel, and rows for a test.

    Attributes
    ----------
    X, Y : array (n, d), (n, c)
    kernel : KernelFunction
    test_rows, test_labels : array (m, d), (m,)
        Labels are columns of Y; without rows there is no accuracy.
    """

    X: Array
    Y: Array
    kernel: KernelFunction
    test_rows: Array
    test_labels: Array


@dataclass(frozen=True, eq=False)
class Course:
    """What became of a run; lists have an entry an epoch.

    Attributes
    ----------
    method : str
    workers : int
    batch_size, n_subsample, n_damped : int
        As the run chose them.
    chosen_in : float
        Seconds that choosing them took.
    seconds : list of float
    waited : list of float
        Of them, seconds that workers waited for an epoch's last, on average a worker; asynchronous runs only.
    staleness : list of float
        Mean, of asynchronous runs.
    start, loss : float, list of float
        Mean squared residual of `SEEN` training rows at the start (all coefficients 0) and at the ends of epochs.
    accuracy : list of float
        Of the test's rows, at the ends of epochs.
    """

    method: str
    workers: int
    batch_size: int
    n_subsample: int
    n_damped: int
    chosen_in: float
    seconds: list[float]
    waited: list[float]
    staleness: list[float]
    start: float
    loss: list[float]
    accuracy: list[float]

    def residual(self, epoch: int) -> float:
        """Residual of these rows over their targets, after so many epochs."""
        return float(np.sqrt(self.loss[epoch - 1] / self.start))

    def seconds_to(self, loss: float) -> float | None:
        """Seconds of epochs until the loss is so small: on the line between two ends of epochs, of its logarithm."""
        ends = np.concatenate([[0.0], np.cumsum(self.seconds)])
        losses = np.array([self.start, *self.loss])
        below = np.flatnonzero(losses <= loss)
        if not len(below):
            return None
        last = int(below[0])
        if last == 0:
            return 0.0
        high, low = np.log(losses[last - 1]), np.log(losses[last])
        share = (high - np.log(loss)) / (high - low)
        return float(ends[last - 1] + share * (ends[last] - ends[last - 1]))


def fashion(n_rows: int = 60_000) -> Case:
    """The first rows of Fashion-MNIST, pixels in [0, 1], and the Laplacian of bandwidth 10."""
    train, test = datasets.load("fashion-mnist"), datasets.load("fashion-mnist", "test")
    return classes(np.asarray(train.X)[:n_rows], train.y[:n_rows], Laplacian(10.0), np.asarray(test.X), test.y)


def classes(X: Array, y: Array, kernel: KernelFunction, test_rows: Array, test_labels: Array) -> Case:
    """A case from labels 0, 1, ..."""
    Y = np.zeros((len(y), int(np.max(y)) + 1), np.float32)
    Y[np.arange(len(y)), y] = 1
    return Case(X, Y, kernel, test_rows, test_labels)


class Ends(Observer):
    """The ends of epochs: when each was, and the iterate."""

    def __init__(self, every: int, virtual: bool = False) -> None:
        self.every = every
        self.seconds: list[float] = []
        self.x: list[Array] = []
        self._virtual = virtual
        self._began = 0.0

    def observe(self, moment: Moment) -> None:
        now = moment.seconds if self._virtual else time.perf_counter()
        if moment.version == self.every * (len(self.seconds) + 1):
            self.seconds.append(now - self._began)
            self.x.append(moment.x.copy())
        self._began = now if self._virtual else time.perf_counter()


def rule_of(method: str, workers: int, **options: Any) -> Rule[Any]:
    """The rule of a method; on one worker, EigenPro."""
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if workers == 1:
        return EigenPro(**options)
    return AsyncEigenPro(**options) if method == "asynchronous" else SyncEigenPro(**options)


def epochs(
    method: str, problem: KernelInterpolation, n_epochs: int, engine: Engine | None = None, **options: Any
) -> tuple[Any, float, Ends, Any]:
    """Run a method for whole epochs: its rule with its sizes, the seconds these took, the epochs' ends, and the result."""
    workers = problem.n_clients
    began = time.perf_counter()
    rule: Any = rule_of(method, workers, **options).configure(problem, workers, None)
    chosen_in = time.perf_counter() - began
    free = isinstance(rule, AsyncEigenPro)
    every = rule.tasks_per_setup() if free else rule.rounds_per_epoch(workers)
    ends = Ends(every, isinstance(engine, Simulated))
    engine = engine or Threads(workers, lock_free=free)
    result = run(rule, problem, engine, stop=MaxUpdates(every * n_epochs), observers=[ends])
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if len(ends.seconds) < n_epochs:
        raise TardigradError(f"{method}, {workers} workers: {result.message}")
    return rule, chosen_in, ends, result


def train(method: str, case: Case, workers: int, n_epochs: int, **options: Any) -> Course:
    """Run a method on threads, and look at the ends of its epochs.

    Parameters
    ----------
    method : {"asynchronous", "synchronous", "one worker"}
    case : Case
    workers, n_epochs : int
    **options
        For the rule, such as ``batch_size``.
    """
    problem = KernelInterpolation(case.X, case.Y, case.kernel, n_clients=workers)
    rule, chosen_in, ends, result = epochs(method, problem, n_epochs, **options)
    xs = np.stack(ends.x)
    rows = np.sort(np.random.default_rng(0).permutation(problem.n_rows)[:SEEN])
    residuals = in_parts(lambda some: problem.residual(xs, some), rows)
    accuracy: list[float] = []
    if len(case.test_rows):
        tests = np.arange(len(case.test_rows))
        values = in_parts(lambda some: problem.predict(xs, case.test_rows[some]), tests)
        accuracy = np.mean(values.argmax(axis=-1) == case.test_labels, axis=-1).tolist()
    tallies = getattr(result.state, "tallies", [])[:n_epochs]
    return Course(
        method,
        workers,
        int(rule.batch_size),
        int(rule.n_subsample),
        int(rule.n_damped),
        chosen_in,
        ends.seconds,
        [tally.waited / workers for tally in tallies],
        [tally.staleness / max(tally.updates, 1) for tally in tallies],
        float(np.square(problem.targets[rows], dtype=np.float64).mean()),
        np.square(residuals, dtype=np.float64).mean(axis=(-1, -2)).tolist(),
        accuracy,
    )


def in_parts(values: Callable[[Array], Array], rows: Array) -> Array:
    """``values(rows)`` (..., len(rows), c), in parts, on all cores."""
    parts = [rows[low : low + AT_ONCE] for low in range(0, len(rows), AT_ONCE)]
    with single_threaded_blas(), ThreadPoolExecutor(cores()) as pool:
        return np.concatenate(list(pool.map(values, parts)), axis=-2)


def warm_up(case: Case) -> None:
    """Compile what a first run would, on a few rows."""
    few = slice(0, min(len(case.X), 400))
    problem = KernelInterpolation(case.X[few], case.Y[few], case.kernel, n_clients=2)
    epochs("asynchronous", problem, 1)
    problem.predict(np.zeros(problem.dim, problem.dtype), case.X[:2])


def to_same_loss(courses: Sequence[Course]) -> tuple[float, list[float]]:
    """The smallest loss that all have reached, and when each did."""
    loss = max(course.loss[-1] for course in courses)
    found = [course.seconds_to(loss) for course in courses]
    return loss, [seconds for seconds in found if seconds is not None]
