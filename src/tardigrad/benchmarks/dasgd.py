"""`tardigrad bench dasgd`: realisations of dual averaging in one batched run, beside a plain loop over them.

The setting of figure 1 of the DASGD paper: the Rosenbrock function of 101 variables, 50000 updates, 100 realisations, without
delay and with staleness uniform on 0..n/10. Rules of this file:

- everything runs on one core: nothing here uses more;
- the plain loop is what one would write without a library, checked to end where the batched run does; it takes a few
  realisations, one after another, and both are given as updates of a realisation a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from tardigrad.benchmarks.harness import Row
from tardigrad.core.task import Array
from tardigrad.papers.dasgd import CONSTANTS, FIGURE_START, SHARE, Constants, realise, start

#: seconds within which a batch is to end on one core
ALLOWED = 60.0


def rows(n_updates: int = 50_000, realisations: int = 100, plain: int = 3, dim: int = 101) -> Iterator[Row]:
    """A row for the seconds of each schedule, and one for its rate beside the plain loop's."""
    x0 = start(FIGURE_START, dim)
    what = f"{realisations} realisations x {n_updates} updates x {dim} variables"
    for schedule, (constants, _) in CONSTANTS.items():
        realise(schedule, constants, np.tile(x0, (2, 1)), 100)  # warm-up
        began = time.perf_counter()
        batch = realise(schedule, constants, np.tile(x0, (realisations, 1)), n_updates)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        ends = [plain_loop(constants, x0, n_updates, SHARE if schedule == "delayed" else 0.0, seed) for seed in range(plain)]
        alone = time.perf_counter() - began
        check_same(batch.last[-1], ends)
        yield Row(f"{schedule}: {what}", seconds, "s", "allowed", ALLOWED)
        rate = realisations * n_updates / seconds
        yield Row(f"{schedule}: batched", rate, "updates/s", "plain NumPy loop over realisations", plain * n_updates / alone)


def check_same(batch: Array, ends: list[float]) -> None:
    """That a comparison is fair: both must end alike, up to their noise."""
    low, high = batch.min(), batch.max()
    if not all(low / 2 < end < 2 * high for end in ends):
        raise AssertionError(f"the plain loop ends at {ends}, the batched run within {low} and {high}")


def plain_loop(constants: Constants, x0: Array, n_updates: int, share: float, seed: int) -> float:
    """One realisation of Algorithm 2 and its ergodic average, written out; the objective at its end."""
    rng = np.random.default_rng(seed)
    y, x = x0.copy(), x0
    average, weight = x0.copy(), 0.0
    points = {0: x}
    oldest = 0
    for n in range(n_updates):
        read = n - int(rng.random() * (math.floor(share * n) + 1))
        step = constants.scale / ((n + constants.offset) * math.log(n + constants.offset))
        y -= step * (rosenbrock_gradient(points[read]) + rng.standard_normal(len(x)))
        x = np.clip(y, 0.0, 2.0)
        weight += step
        average += step / weight * (x - average)
        points[n + 1] = x
        while oldest < n + 1 - math.floor(share * (n + 1)):  # no later update reads it
            del points[oldest]
            oldest += 1
    left = x[:-1]
    return float(np.sum(100 * (x[1:] - left**2) ** 2 + (1 - left) ** 2))


def rosenbrock_gradient(x: Array) -> Array:
    """As one would write it."""
    gap = x[1:] - x[:-1] ** 2
    gradient = np.zeros_like(x)
    gradient[:-1] = -400 * x[:-1] * gap - 2 * (1 - x[:-1])
    gradient[1:] += 200 * gap
    return gradient
