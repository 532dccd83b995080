"""Replay: a recorded run once more, bit for bit, from its trace and its seeds.

Rules of this file:

- replies come in the recorded order with the recorded times and workers; payloads are computed anew;
- a trace that does not fit (another rule, problem or seed) is an error at the first row that differs,
  never a silent other run;
- where versions were prescribed (`Prescribed`), points come from the versions in the trace, not from those at which tasks
  were issued; versions of each replica are not in a trace, so the engine that drew them must be given;
- same library versions and the same kind of CPU give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import InvalidInputError, ReplayError, RunFileError
from tardigrad.core.observers import Observer
from tardigrad.core.plain import same_bits
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.stopping import Status
from tardigrad.core.task import Ended, Points, Reply, Task
from tardigrad.core.trace import COLUMNS, Trace
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.kept_points import KeptPoints
from tardigrad.engines.prescribed import FOR_ALL, FOR_EACH, Prescribed
from tardigrad.engines.reads import GivenVersions

#: rows of a trace that are made Python objects at a time
ROWS = 2**16


class Replay(Engine):
    """Feeds a trace back to the rule.

    Parameters
    ----------
    trace : Trace
        Of a run of the same rule on the same problem with the same seed, on whichever engine.
    prescribed : Prescribed, optional
        The engine of the run (``result.engine``), where each replica read a version of its own.

    Raises
    ------
    InvalidInputError
        If the trace is none, or is of such a run and `prescribed` is missing.
    ReplayError
        While the run goes on: at the first row that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(2), np.ones(2)), td.Iid(2))
    >>> recorded = td.run(td.AsyncSGD(0.5), problem, td.Threads(2), stop=td.MaxUpdates(50))
    >>> again = td.run(td.AsyncSGD(0.5), problem, td.Replay(recorded.trace), stop=None)
    >>> again.x.tobytes() == recorded.x.tobytes()
    True
    """

    ends_by_itself = True

    def __init__(self, trace: Trace, prescribed: Prescribed | None = None) -> None:
        if not isinstance(trace, Trace):
            raise InvalidInputError(
                f"Replay needs a trace, such as result.trace, not {trace!r}; tardigrad.replay takes a result"
            )
        if not (prescribed is None or isinstance(prescribed, Prescribed)):
            raise InvalidInputError(f"Replay takes the Prescribed engine of the run, such as result.engine, not {prescribed!r}")
        self.trace = trace
        self.prescribed = prescribed
        mark = int(trace["worker"][0]) if len(trace) else 0
        if prescribed is None and mark == FOR_EACH:
            raise InvalidInputError(
                "in this run each replica read a version of its own, which a trace does not hold: use tardigrad.replay(result),"
                " or Replay(result.trace, result.engine)"
            )
        self._is_prescribed = mark in (FOR_ALL, FOR_EACH)

    def fields(self) -> dict[str, Any]:
        return {"trace": self.trace, "prescribed": self.prescribed}

    def n_workers(self, placement: Placement) -> int:
        return len(np.unique(self.trace["worker"])) or 1

    def open(self, half: WorkerHalf, placement: Placement) -> None:
        self._answer = half.open()
        self._n_rows = len(self.trace)
        self._rows: list[tuple[Any, ...]] = []
        self._next = 0
        self._jobs: dict[int, tuple[Task, int, Points]] = {}
        self._version = -1
        self._points: Points = ()
        self._now = 0.0
        self._kept: KeptPoints | None = None
        if self.prescribed is not None:
            self._kept = self.prescribed.points_for(half.seed)
        elif self._is_prescribed:
            self._kept = KeptPoints(versions_by_update(self.trace), None, half.seed)

    def submit(self, task: Task, version: int, points: Points, fresh: bool = False) -> None:
        if version != self._version:
            if self._kept is None:
                self._points = points if fresh else tuple([point.copy() for point in points])
            else:
                self._kept.offer(version, points, fresh)
            self._version = version
        self._jobs[task.id] = (task, version, self._points)

    def cancel(self, task_id: int) -> None:
        self._jobs.pop(task_id, None)

    def next(self, timeout: float) -> Reply | Ended:
        place = self._next % ROWS
        if not place:  # a row is 0.5 kB as Python objects
            self._rows = self.trace.table[self._next : self._next + ROWS].tolist()
        if self._next == self._n_rows:
            return Ended(f"the recorded trace ends here, after {self._next} replies")
        row = self._rows[place]
        number, client, worker, version_read = row[:4]
        job = self._jobs.pop(number, None)
        if job is None:
            raise self._misfit("no such task is open")
        task, version, points = job
        if self._kept is not None:
            try:
                version, points = self._kept.next()
            except InvalidInputError as error:
                raise self._misfit(f"but here {error}") from None
        if (task.client, version) != (client, version_read):
            raise self._misfit(f"here it is of client {task.client} at version {version}")
        self._next += 1
        self._now = row[9]
        return Reply(task, version, self._answer(task, points), worker, *row[6:10])

    def _misfit(self, found: str) -> ReplayError:
        number, client, _, version = self._rows[self._next % ROWS][:4]
        return ReplayError(
            f"row {self._next} of the trace answers task {number} of client {client} at version {version};"
            f" {found}: the trace belongs to another rule, problem or seed"
        )

    def now(self) -> float:
        return self._now

    def close(self) -> None:
        self._jobs = {}
        self._rows = []
        self._kept = None


def versions_by_update(trace: Trace) -> GivenVersions:
    """The version that each update read, from the trace of a run in which all replicas read the same one."""
    applied, read = trace["version_applied"], trace["version_read"]
    versions = np.arange(int(applied.max()) + 1)  # no reply was applied at the versions that are not in the trace
    versions[applied] = read
    try:
        return GivenVersions(versions)
    except InvalidInputError as error:
        raise ReplayError(f"the trace is not one of a run with prescribed versions: {error}") from None


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


def replay(
    recorded: Result | str | Path, problem: Problem | None = None, observers: Observer | Sequence[Observer] = ()
) -> Replayed:
    """Run a recorded run again from its trace and compare every bit.

    Parameters
    ----------
    recorded : Result or path
        A result, or the folder it was saved in.
    problem : Problem, optional
        The problem, where the run was saved without it.
    observers : Observer or sequence of them
        Called while the run is replayed.

    Raises
    ------
    ReplayError
        If the trace does not fit the rule, the problem or the seed, or workers read live points.
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
    if not recorded.replayable:
        raise ReplayError(
            f"this run cannot be replayed: its workers read the iterate while it was being changed ({recorded.engine!r}, or"
            " the engine on which it began), and what they saw is in no trace"
        )
    problem = problem or recorded.problem
    if problem is None:
        raise RunFileError(
            "the run was saved without its problem: pass it, tardigrad.replay(run, problem=...) (on the command line:"
            " --config RUN/config.toml where `tardigrad run` made it)"
        )
    again = run(
        recorded.rule,
        problem,
        Replay(recorded.trace, _prescribed(recorded.engine)),
        stop=None,
        x0=recorded.x0,
        seed=recorded.seed,
        concurrency=recorded.concurrency,
        max_staleness=recorded.max_staleness,
        replicas=recorded.replicas,
        snapshot_every=recorded.snapshot_every,
        observers=observers,
    )
    if again.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    again.given, again.concurrency_asked, again.solver = recorded.given, recorded.concurrency_asked, recorded.solver
    difference = first_difference(recorded, again)
    return Replayed(not difference, difference, again)


def _prescribed(engine: Engine) -> Prescribed | None:
    """The engine that drew a version for each replica, where one did: also that of a run which was a replay itself."""
    if isinstance(engine, Replay):
        return engine.prescribed
    return engine if isinstance(engine, Prescribed) and engine.by_replica else None


def first_difference(a: Result, b: Result) -> str:
    """What sets a run `b` apart from a recorded one, for people; empty where every bit is the same."""
    if len(b.trace) != len(a.trace):
        return f"the replay ended after {len(b.trace)} of {len(a.trace)} replies: {b.message}"
    for name in COLUMNS:
        if not same_bits(a.trace[name], b.trace[name]):
            return f"column {name} of the trace differs"
    n_snapshots = len(b.history)
    if a.status is Status.UNFINISHED and n_snapshots == len(a.history) + 1:
        n_snapshots -= 1  # a checkpoint lacks the one of the end, which a replay comes to
    if n_snapshots != len(a.history):
        return f"{n_snapshots} snapshots instead of {len(a.history)}"
    for i, (x, y) in enumerate(zip(a.history.x, b.history.x[:n_snapshots], strict=True)):
        if not same_bits(x, y):
            return f"the iterate differs first between versions {a.history.version[max(i - 1, 0)]} and {a.history.version[i]}"
    if not same_bits(a.state, b.state):
        return "the final states differ"
    return ""
