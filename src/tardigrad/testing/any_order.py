"""An engine that answers tasks in any order that is allowed.

Rules of this file:

- the order is that of a seed or of the caller: what no clock would ever give is tried too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tardigrad.core.engine import Engine, Placement
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Points, Reply, Task
from tardigrad.core.worker import WorkerHalf


class AnyOrder(Engine):
    """An engine that answers open tasks in any order that keeps each client's tasks in line.

    Parameters
    ----------
    seed : int
        Of the order.
    choose : callable, optional
        Instead of the seed: given a number n of tasks that could be answered next, returns one of 0..n-1.
    """

    def __init__(self, seed: int = 0, choose: Callable[[int], int] | None = None) -> None:
        self.seed = seed
        self.choose = choose

    def fields(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def n_workers(self, placement: Placement) -> int:
        return placement.n_clients

    def open(self, half: WorkerHalf, placement: Placement) -> None:
        self._answer = half.open()
        self._jobs: list[tuple[Task, int, Points, float]] = []
        self._stream = Stream(self.seed, Domain.TIMING)
        self._ticks = 0

    def submit(self, task: Task, version: int, points: Points, fresh: bool = False) -> None:
        self._jobs.append((task, version, tuple(point.copy() for point in points), float(self._ticks)))

    def cancel(self, task_id: int) -> None:
        self._jobs = [job for job in self._jobs if job[0].id != task_id]

    def next(self, timeout: float) -> Reply:
        heads: dict[int, int] = {}
        for i, job in enumerate(self._jobs):
            heads.setdefault(job[0].client, i)
        first = list(heads.values())
        draw = self.choose or (lambda n: int(self._stream.at(self._ticks).integers(n)))
        task, version, points, submitted = self._jobs.pop(first[draw(len(first))])
        self._ticks += 1
        now = float(self._ticks)
        return Reply(task, version, self._answer(task, points), task.client, submitted, now - 1, now, now)

    def now(self) -> float:
        return float(self._ticks)

    def close(self) -> None:
        self._jobs = []
