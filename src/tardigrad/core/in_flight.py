"""What is on its way between server and workers, as plain data: the part of a checkpoint that engines own.

Rules of this file:

- a task is a row of a table, in order of submission; points are kept once a version;
- an engine that knows more of a job than its task (when it will end, who does it) says so in the row;
  any other engine can take up the tasks all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np

from tardigrad.core.plain import Plain
from tardigrad.core.task import Array, Points, Task

_JOB = np.dtype(
    [
        *((name, np.int64) for name in ("id", "client", "kind", "setup", "version", "number", "worker")),
        *((name, np.float64) for name in ("weight", "submitted", "started", "finish")),
        ("part", np.int64),
    ]
)


@dataclass
class InFlight(Plain):
    """Tasks that were submitted and are not answered, and the engine's clock.

    Attributes
    ----------
    clock : float
        Seconds on the engine's clock.
    jobs : structured array (n,)
        Task (its kind as an index of `kinds`), version, number of submission; where a simulation knows
        them, worker (else -1), times of submission, start and end (else nan).
    kinds : list of str
        The kinds that occur.
    points : dict
        Points by version.
    submissions : int
        Jobs submitted to the engine since the run began.
    """

    clock: float = 0.0
    jobs: Array = field(default_factory=lambda: np.empty(0, _JOB))
    kinds: list[str] = field(default_factory=list)
    points: dict[int, Points] = field(default_factory=dict)
    submissions: int = 0

    @classmethod
    def of(
        cls, clock: float, jobs: Iterable[tuple[Task, int, float]], points: Mapping[int, Points], submissions: int = 0
    ) -> InFlight:
        """From (task, version, time of submission) in order of submission."""
        rows = ((task, version, number, -1, submitted, nan, nan) for number, (task, version, submitted) in enumerate(jobs))
        return cls.of_rows(clock, rows, points, submissions)

    @classmethod
    def of_rows(cls, clock: float, rows: Iterable[Any], points: Mapping[int, Points], submissions: int) -> InFlight:
        """From (task, version, number, worker, submitted, started, finish)."""
        kinds: dict[str, int] = {}
        table = [
            (t.id, t.client, kinds.setdefault(t.kind, len(kinds)), t.setup, version, number, worker, t.weight, *times, t.part)
            for t, version, number, worker, *times in rows
        ]
        jobs = np.sort(np.array(table, _JOB), order="number")
        kept = {version: points[version] for version in sorted(points)}  # in one order, whoever made it
        return cls(clock, jobs, list(kinds), kept, submissions)

    def bare(self) -> InFlight:
        """The same tasks for another engine, which gives them to workers of its own and takes its own time."""
        jobs = self.jobs.copy()
        jobs["worker"], jobs["started"], jobs["finish"] = -1, nan, nan
        return InFlight(self.clock, jobs, self.kinds, self.points, self.submissions)

    def tasks(self) -> Iterator[tuple[Task, dict[str, Any]]]:
        """Each task, with the other entries of its row."""
        for row in self.jobs.tolist():
            entry = dict(zip(self.jobs.dtype.names or (), row, strict=True))
            kind = self.kinds[entry["kind"]]
            # runs saved before tasks had parts have no such column
            yield Task(entry["id"], entry["client"], kind, entry["setup"], entry["weight"], entry.get("part", 0)), entry
