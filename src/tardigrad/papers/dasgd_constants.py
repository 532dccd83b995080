"""The search for the constants of figure 1 of the DASGD paper, which names none.

Rules of this file:

- what is tried is a grid, printed whole, so that anybody can see how much the constants matter;
- one realisation from each start: the spread over starts is far larger than that over noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.stopping import MaxUpdates, Status
from tardigrad.core.task import Array
from tardigrad.papers import Reproduction
from tardigrad.papers.dasgd import ARRIVED, FIGURE_START, OTHER_STARTS, engine_of, start
from tardigrad.problems.test_functions import Rosenbrock
from tardigrad.rules.dual_averaging import DASGD
from tardigrad.theory.dual_averaging import LogStep

#: by schedule, offsets and scales that were tried
GRID: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "synchronous": ((1000, 3000, 5000, 10_000, 20_000, 30_000, 50_000), (1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 80)),
    "delayed": (
        (20, 50, 70, 80, 90, 100, 110, 125, 150, 200, 300, 500, 1000, 2000, 3000, 10_000),
        (0.1, 0.12, 0.15, 0.17, 0.18, 0.19, 0.2, 0.205, 0.21, 0.215, 0.22, 0.23, 0.24, 0.28, 0.32, 0.36, 0.4, 0.5),
    ),
}


Grid = dict[str, tuple[tuple[float, ...], tuple[float, ...]]]


def constants(n_updates: int = 50_000, grid: Grid | None = None, seed: int = 2) -> Reproduction:
    """A row a setting, the best first; all scales of an offset are replicas of one run.

    Parameters
    ----------
    n_updates, seed : int
        Length of the runs, and what their random numbers follow from.
    grid : dict, optional
        Offsets and scales by schedule, `GRID` by default.
    """
    grid = GRID if grid is None else grid
    seeds = (FIGURE_START, *OTHER_STARTS)
    x0 = np.stack([start(k) for k in seeds])[:, np.newaxis]
    rows = []
    for schedule, (offsets, scales) in grid.items():
        engine = engine_of(schedule, len(seeds))
        for offset in offsets:
            problem = Rosenbrock()
            rule = DASGD(LogStep(np.array(scales), offset), problem.constraint)
            result = run(rule, problem, engine, stop=MaxUpdates(n_updates), x0=x0, replicas=len(seeds), seed=seed)
            if result.status is Status.INTERRUPTED:
                raise KeyboardInterrupt
            ends = problem.objective(result.x)
            rows += [_tried(schedule, scale, offset, ends[:, i]) for i, scale in enumerate(scales)]
    rows.sort(key=lambda row: (row["schedule"], -row["arrived"], row["median"]))
    best = {schedule: next(row for row in rows if row["schedule"] == schedule) for schedule in grid}
    comment = "; ".join(
        f"{schedule}: best at scale {row['scale']:g}, offset {row['offset']:g}, {row['arrived']} of {len(seeds)} starts below"
        f" {ARRIVED:g}"
        for schedule, row in best.items()
    )
    return Reproduction("dasgd-constants", rows, comment)


def _tried(schedule: str, scale: float, offset: float, ends: Array) -> dict[str, Any]:
    counts = {"arrived": int((ends < ARRIVED).sum()), "median": float(np.median(ends)), "worst": float(ends.max())}
    return {
        "schedule": schedule,
        "scale": scale,
        "offset": offset,
        **counts,
        f"start_{FIGURE_START}": float(ends[0]),
        "published": None,
    }
