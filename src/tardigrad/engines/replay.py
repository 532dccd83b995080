"""Replay: a recorded run once more, bit for bit, from its trace and its seeds.

Rules of this file:

- replies come in the recorded order with the recorded times and workers; payloads are computed anew;
- a trace that does not fit (another rule, problem or seed) is an error at the first row that differs,
  never a silent other run;
- same library versions and the same kind of CPU give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tardigrad.core.drive import run
from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import InvalidInputError, ReplayError, RunFileError
from tardigrad.core.plain import same_bits
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.stopping import Status
from tardigrad.core.task import Ended, Points, Reply, Task
from tardigrad.core.trace import COLUMNS, Trace
from tardigrad.core.worker import WorkerHalf


class Replay(Engine):
    """Feeds a trace back to the rule.

    Parameters
    ----------
    trace : Trace
        Of a run of the same rule on the same problem with the same seed, on whichever engine.
    """

    ends_by_itself = True

    def __init__(self, trace: Trace) -> None:
        if not isinstance(trace, Trace):
            raise InvalidInputError(
                f"Replay needs a trace, such as result.trace, not {trace!r}; tardigrad.replay takes a result"
            )
        self.trace = trace

    def fields(self) -> dict[str, Any]:
        return {"trace": self.trace}

    def n_workers(self, placement: Placement) -> int:
        return len(set(self.trace["worker"].tolist())) or 1

    def open(self, half: WorkerHalf, placement: Placement) -> None:
        self._answer = half.open()
        self._rows = self.trace.table.tolist()
        self._next = 0
        self._jobs: dict[int, tuple[Task, int, Points]] = {}
        self._version = -1
        self._points: Points = ()
        self._now = 0.0

    def submit(self, task: Task, version: int, points: Points, fresh: bool = False) -> None:
        if version != self._version:
            self._points = points if fresh else tuple([point.copy() for point in points])
            self._version = version
        self._jobs[task.id] = (task, version, self._points)

    def cancel(self, task_id: int) -> None:
        self._jobs.pop(task_id, None)

    def next(self, timeout: float) -> Reply | Ended:
        if self._next == len(self._rows):
            return Ended(f"the recorded trace ends here, after {self._next} replies")
        row = self._rows[self._next]
        number, client, worker, version_read = row[:4]
        job = self._jobs.pop(number, None)
        if job is None or (job[0].client, job[1]) != (client, version_read):
            found = "no such task is open" if job is None else f"here it is of client {job[0].client} at version {job[1]}"
            raise ReplayError(
                f"row {self._next} of the trace answers task {number} of client {client} at version {version_read};"
                f" {found}: the trace belongs to another rule, problem or seed"
            )
        task, version, points = job
        self._next += 1
        self._now = row[9]
        return Reply(task, version, self._answer(task, points), worker, *row[6:10])

    def now(self) -> float:
        return self._now

    def close(self) -> None:
        self._jobs = {}


@dataclass
class Replayed:
    """What `replay` found.

    Attributes
    ----------
    identical : bool
        Whether state, snapshots and trace are equal in every bit.
    difference : str
        The first thing that differs, for people; empty if nothing does.
    result : Result
        The run as replayed.
    """

    identical: bool
    difference: str
    result: Result


def replay(recorded: Result | str | Path, problem: Problem | None = None) -> Replayed:
    """Run a recorded run again from its trace and compare every bit.

    Parameters
    ----------
    recorded : Result or path
        A result, or the folder it was saved in.
    problem : Problem, optional
        The problem, where the run was saved without it.

    Raises
    ------
    ReplayError
        If the trace does not fit the rule, the problem or the seed.
    RunFileError
        If the run cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> result = td.run(td.AsyncSGD(step=0.2), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(50))
    >>> td.replay(result).identical
    True
    """
    if isinstance(recorded, (str, Path)):
        recorded = Result.load(recorded, problem)
    if not isinstance(recorded, Result):
        raise InvalidInputError(f"expected a Result or the folder of a saved run, not {recorded!r}")
    problem = problem or recorded.problem
    if problem is None:
        raise RunFileError("the run was saved without its problem: pass it, tardigrad.replay(run, problem=...)")
    again = run(
        recorded.rule,
        problem,
        Replay(recorded.trace),
        stop=None,
        x0=recorded.x0,
        seed=recorded.seed,
        concurrency=recorded.concurrency,
        max_staleness=recorded.max_staleness,
        replicas=recorded.replicas,
        snapshot_every=recorded.snapshot_every,
    )
    if again.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    difference = _first_difference(recorded, again)
    return Replayed(not difference, difference, again)


def _first_difference(a: Result, b: Result) -> str:
    if len(b.trace) != len(a.trace):
        return f"the replay ended after {len(b.trace)} of {len(a.trace)} replies: {b.message}"
    for name in COLUMNS:
        if not same_bits(a.trace[name], b.trace[name]):
            return f"column {name} of the trace differs"
    if len(a.history) != len(b.history):
        return f"{len(b.history)} snapshots instead of {len(a.history)}"
    for i, (x, y) in enumerate(zip(a.history.x, b.history.x, strict=True)):
        if not same_bits(x, y):
            return f"the iterate differs first between versions {a.history.version[max(i - 1, 0)]} and {a.history.version[i]}"
    if not same_bits(a.state, b.state):
        return "the final states differ"
    return ""
