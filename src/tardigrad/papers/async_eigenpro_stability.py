"""Whether AsyncEigenPro ever diverges: simulated runs with 1 to 16 workers, one of them slow or not, nothing tuned by hand.

The paper's bound on the step does not keep the method from diverging (`theory.eigenpro_bound`); what is chosen here instead is
put to the test. Rules of this file:

- a run has diverged where its loss is not finite, or larger in the last epoch than in the first;
- losses are those of the batches, each seen before its update, over the mean square of the targets: 1 is the start;
- runs are simulated, so they are the same everywhere; several at a time, each on one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tardigrad import datasets
from tardigrad.core.drive import run
from tardigrad.core.in_place import InPlaceState
from tardigrad.core.stopping import MaxUpdates
from tardigrad.core.task import Array
from tardigrad.core.timing import Timing
from tardigrad.core.worker import single_threaded_blas
from tardigrad.engines.real import cores
from tardigrad.engines.simulated import Simulated
from tardigrad.papers import Reproduction
from tardigrad.problems.kernel_functions import Laplacian
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.rules.async_eigenpro import AsyncEigenPro
from tardigrad.timing.models import Exponential, PerClient

DATA = ("fashion-mnist", "california-housing", "a9a", "random")
WORKERS = (1, 2, 4, 8, 16)
#: how much slower the slow one is
SLOWER = 10.0


def stability(
    data: Sequence[str] = DATA,
    workers: Sequence[int] = WORKERS,
    n_seeds: int = 5,
    n_epochs: int = 4,
    n_rows: int = 10_000,
) -> Reproduction:
    """Runs of AsyncEigenPro on the first rows of several data sets: a row for each set, number of workers, and speeds."""
    rows = []
    with single_threaded_blas(), ThreadPoolExecutor(cores()) as pool:
        for name in data:
            X, Y = points_and_targets(name, n_rows)
            for count in workers:
                problem = KernelInterpolation(X, Y, Laplacian(10.0 if name == "fashion-mnist" else "auto"), count)
                for slow in (False, True)[: 1 if count == 1 else 2]:
                    timing: Timing = PerClient([1.0] * (count - 1) + [SLOWER]) if slow else Exponential(1.0)
                    courses = list(pool.map(lambda seed: losses(problem, timing, n_epochs, seed), range(n_seeds)))  # noqa: B023
                    rows.append(_row(name, count, slow, courses))
    diverged = sum(row["diverged"] for row in rows)
    n_runs = sum(row["runs"] for row in rows)
    comment = (
        f"{diverged} of {n_runs} runs of {n_epochs} epochs diverged; losses are shares of the targets' mean square. Kernel:"
        " Laplacian, bandwidth 10\non Fashion-MNIST and the median distance elsewhere; random data have random targets."
    )
    return Reproduction("async-eigenpro-stability", rows, comment)


def _row(data: str, workers: int, slow: bool, courses: list[list[float]]) -> dict[str, Any]:
    first, last = (max(course[k] for course in courses) for k in (0, -1))
    return {
        "data": data,
        "workers": workers,
        "slow": f"one, {SLOWER:g} times" if slow else "none",
        "runs": len(courses),
        "diverged": sum(not course[-1] < course[0] for course in courses),
        "first_epoch": first if math.isfinite(first) else None,
        "last_epoch": last if math.isfinite(last) else None,
    }


def losses(problem: KernelInterpolation, timing: Timing, n_epochs: int, seed: int) -> list[float]:
    """The loss of each epoch of a simulated run; it ends with infinity where the run diverged."""
    rule = AsyncEigenPro().configure(problem, problem.n_clients, None)
    stop = MaxUpdates(n_epochs * rule.tasks_per_setup())
    state = run(rule, problem, Simulated(timing), stop=stop, seed=seed).state
    assert isinstance(state, InPlaceState)
    whole = [tally for tally in state.tallies if tally.updates == rule.tasks_per_setup()]
    size = float(np.mean(np.square(problem.y, dtype=np.float64)))
    found = [tally.reading / tally.updates / size for tally in whole]
    return found if len(found) == n_epochs and all(map(math.isfinite, found)) else [*found, math.inf]


def points_and_targets(name: str, n_rows: int) -> tuple[Array, Array]:
    """The first rows of a data set, scaled where features differ, and centred targets; "random" has nothing to learn."""
    if name == "random":
        rng = np.random.default_rng(0)
        return rng.normal(size=(n_rows, 30)).astype(np.float32), rng.normal(size=(n_rows, 1))
    train = datasets.load(name)
    X, y = np.asarray(train.X[:n_rows], np.float64), train.y[:n_rows]
    if name == "fashion-mnist":
        return X.astype(np.float32), (y[:, None] == np.arange(10)).astype(float)
    deviation = X.std(axis=0)
    X = (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return X.astype(np.float32), (y - y.mean())[:, None]
