"""Epochs of EigenPro's methods where iterations are delayed at random, on threads and on a virtual clock.

Rules of this file:

- on threads durations are injected: an iteration takes what it usually takes, a delayed one `DELAY` times as much more;
- times stand beside what the delays that were drawn make of them: what was drawn follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.engine import Engine
from tardigrad.core.streams import Domain, Uniforms
from tardigrad.core.task import Array
from tardigrad.core.timing import Timing
from tardigrad.engines.simulated import Simulated
from tardigrad.engines.threads import Threads
from tardigrad.papers.async_eigenpro_runs import Case, epochs, warm_up
from tardigrad.problems.kernel_functions import Laplacian
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.timing.models import Constant, RandomStragglers

#: iterations that a delay costs; the paper does not say how many
DELAY = 5.0
#: probabilities of a delay
PROBABILITIES = (0.0, 0.1, 0.3, 0.5)


@dataclass(frozen=True)
class Delays:
    """Epochs of a method under random delays; lists have an entry a probability.

    Attributes
    ----------
    method, engine : str
    workers : int
    probability : list of float
        That an iteration is delayed.
    seconds : list of float
        An epoch, on average.
    drawn : list of float
        What the delays that were drawn make of an epoch: of the mean iteration for the asynchronous method, of the mean of
        the rounds' slowest for the synchronous one, over that without delays.
    expected : list of float
        The same in expectation: ``1 + 5 p``, and ``1 + 5 (1 - (1 - p)^G)``.
    """

    method: str
    engine: str
    workers: int
    probability: list[float]
    seconds: list[float]
    drawn: list[float]
    expected: list[float]

    @property
    def relative(self) -> list[float]:
        """Seconds over those without delays."""
        return [value / self.seconds[0] for value in self.seconds]


def delays(
    method: str,
    problem: KernelInterpolation,
    probabilities: Sequence[float],
    timing: Callable[[float], Timing],
    n_epochs: int,
    delay: float,
    simulated: bool = False,
    **options: Any,
) -> Delays:
    """Epochs of a method where ``timing(p)`` is injected, or simulated; a delay costs `delay` iterations."""
    workers = problem.n_clients
    seconds, drawn, expected = [], [], []
    for p in probabilities:
        free = method == "asynchronous" and not simulated
        engine: Engine = Simulated(timing(p)) if simulated else Threads(workers, timing=timing(p), lock_free=free)
        _, _, ends, result = epochs(method, problem, n_epochs, engine, **options)
        seconds.append(float(np.mean(ends.seconds)))
        uniform = Uniforms(0, Domain.TIMING)
        issued = result.state.version * (1 if method == "asynchronous" else workers)
        late: Array = np.array([uniform(number) < p for number in range(issued)])
        if method != "asynchronous":
            late = np.any(late.reshape(-1, workers), axis=1)
        drawn.append(1 + delay * float(late.mean()))
        expected.append(1 + delay * (p if method == "asynchronous" else 1 - (1 - p) ** workers))
    name = "virtual clock" if simulated else "threads"
    return Delays(method, name, workers, list(probabilities), seconds, drawn, expected)


def iteration_seconds(problem: KernelInterpolation, **options: Any) -> float:
    """Seconds of an iteration where all workers work: the median over two epochs of rounds, without preconditioners."""
    _, _, _, result = epochs("synchronous", problem, 2, Threads(problem.n_clients), **options)
    trace = result.trace
    return float(np.median(trace["finished"] - trace["started"]))


def on_threads(case: Case, workers: int, n_epochs: int, batch_size: int, n_subsample: int) -> tuple[list[Delays], float]:
    """Both methods on threads under injected delays, and the seconds of an iteration without."""
    warm_up(case)
    options: dict[str, Any] = {"batch_size": batch_size, "n_subsample": n_subsample}
    problem = KernelInterpolation(case.X, case.Y, case.kernel, n_clients=workers)
    usual = iteration_seconds(problem, **options)

    def timing(p: float) -> Timing:
        return RandomStragglers(p, DELAY * usual, Constant(usual))

    both = [
        delays(method, problem, PROBABILITIES, timing, n_epochs, DELAY, **options) for method in ("asynchronous", "synchronous")
    ]
    return both, usual


def on_a_virtual_clock(workers: int, n_rows: int, n_epochs: int) -> list[Delays]:
    """Both methods in a simulation in which an iteration takes a second."""
    X = np.random.default_rng(0).normal(size=(n_rows, 3)).astype(np.float32)
    problem = KernelInterpolation(X, X[:, 0], Laplacian(2.0), n_clients=workers)
    options: dict[str, Any] = {"batch_size": 3, "n_subsample": 50, "n_damped": 5}

    def timing(p: float) -> Timing:
        return RandomStragglers(p, DELAY, Constant(1.0))

    return [
        delays(method, problem, PROBABILITIES, timing, n_epochs, DELAY, simulated=True, **options)
        for method in ("asynchronous", "synchronous")
    ]
