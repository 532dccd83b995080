"""Prescribed: which version each update reads is given, as the papers' analyses have it, not an outcome of timings.

Rules of this file:

- update n reads version s(n), for all tasks that it answers; tasks are answered in the order in which they were issued;
- there is no worker: a reply takes one second of a virtual clock, and the trace's column `worker` says how the version was
  prescribed (`FOR_ALL`, `FOR_EACH`), which a replay must know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import Any

from tardigrad.core.engine import Engine, Placement
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.in_flight import InFlight
from tardigrad.core.task import Array, Ended, Points, Reply, Task
from tardigrad.core.validate import optional_integer
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.kept_points import KeptPoints
from tardigrad.engines.reads import ConstantDelay, GivenVersions, Read, ReadSequence, tabulate

#: in the trace's column `worker`: all replicas read the version in `version_read`
FOR_ALL = -1

#: each replica read a version of its own, the smallest is in `version_read`
FOR_EACH = -2


class Prescribed(Engine):
    """Update n is computed from the point of version ``s(n) <= n``: staleness is prescribed, not an outcome.

    n = 0, 1, ... counts updates: s(n) is read by the tasks whose replies come while the newest version is n. The open task
    that was issued first is answered, in one second of virtual time, whatever the version was at which it was issued. So
    with one task in flight, which is the default of rules that can do with one, update n asks the client that was chosen
    right before it, as in analyses where client and sample of update n are independent of the past.

    Parameters
    ----------
    read : int, ReadSequence, array of int, or callable
        The versions s(n). An integer d is `ConstantDelay(d)`; see also `UniformDelay` and `PowerDelay`. An array
        (updates,) or (updates, replicas) holds them, and the run ends after its last row. A function ``read(n, rng)``
        returns s(n), or one version for each replica, with random numbers keyed by (seed, n).
    horizon : int, optional
        Updates after which the run ends. Needed for functions and where any later update may read any version: only
        what updates to come will read is kept.

    Notes
    -----
    Versions are drawn ahead, so that a version's points are copied only if some update will read them and kept until the
    last one has. Delays of up to c n need room for up to c n points, `PowerDelay(2)` for the square root of the horizon.

    Where parameters are arrays over replicas, each replica (first axis of the iterates) reads its own version. Points are
    kept for all replicas as long as one of them needs them. ``Reply.version``, and so staleness in the trace and for rules
    that adapt to it, is that of the replica that reads the oldest version. All arrays that a rule lets workers read come
    from the same version.

    The noise of update n belongs to update n: two updates that read the same version see independent noise.

    A rule must issue a task at every version that is to be read, which asynchronous rules do.

    Raises
    ------
    InvalidInputError
        If `read` is none of these, prescribes a version in the future, needs a horizon, or is for another number of
        replicas; while the run goes on, if the rule issued no task at a version that is to be read.

    References
    ----------
    s(n) as in Zhou et al., "Distributed asynchronous optimization with unbounded delays: how slow can you go?", ICML 2018,
    Algorithm 2. There the noise belongs to the version that is read.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> engine = td.Prescribed(td.UniformDelay(0.5))
    >>> result = td.run(td.AsyncSGD(step=0.05), problem, engine, stop=td.MaxUpdates(1000))
    >>> staleness = result.trace.staleness
    >>> int(staleness.max()), float(round(staleness[500:].mean() / 750, 2))
    (488, 0.25)
    """

    prescribes = True

    def __init__(self, read: int | ReadSequence | Array | Read, horizon: int | None = None) -> None:
        self.horizon = optional_integer(horizon, "horizon")
        self.read = _as_read(read)
        if isinstance(self.read, ReadSequence):
            length = self.read.length
            if self.horizon is not None and length is not None and length < self.horizon:
                raise InvalidInputError(f"horizon={self.horizon}, but {self.read!r} has versions for {length} updates only")
            without_end = length is None and self.read.last_update(0) is None
            why = "any of its versions may be read much later"
        else:
            without_end = True
            why = "versions are drawn before the run, and a function does not say which of them it will read"
        if without_end and self.horizon is None:
            raise InvalidInputError(
                f"Prescribed({self.read!r}) needs a horizon: {why}. Pass horizon=N, the number of updates after which the"
                " run ends"
            )
        self.ends_by_itself = isinstance(self.read, GivenVersions) or self.horizon is not None
        self._as_run: Prescribed | None = None
        self._kept: Any = None
        self._clock = 0.0

    def fields(self) -> dict[str, Any]:
        return {"read": self.read, "horizon": self.horizon}

    def as_run(self) -> Prescribed:
        """Itself, or with the table of the versions that a function gave for the latest run: that can be saved."""
        return self._as_run or self

    @property
    def by_replica(self) -> bool:
        """Whether each replica reads a version of its own."""
        return isinstance(self.read, ReadSequence) and self.read.replicas is not None

    def n_workers(self, placement: Placement) -> int:
        return 1

    def open(self, half: WorkerHalf, placement: Placement) -> None:
        self._answer = half.open()
        self._kept = self.points_for(half.seed)
        self._mark = FOR_ALL if self._kept.replicas is None else FOR_EACH
        self._version = -1
        self._waiting: deque[tuple[Task, float]] = deque()
        self._clock = 0.0

    def points_for(self, seed: int) -> KeptPoints:
        """What keeps the points of a run with this seed."""
        read = self.read
        if not isinstance(read, ReadSequence):
            assert self.horizon is not None
            read = tabulate(read, seed, self.horizon)
            self._as_run = Prescribed(read)
        return KeptPoints(read, self.horizon, seed)

    def submit(self, task: Task, version: int, points: Points, fresh: bool = False) -> None:
        if version != self._version:
            self._kept.offer(version, points, fresh)
            self._version = version
        self._waiting.append((task, self._clock))

    def next(self, timeout: float) -> Reply | Ended | None:
        if self._version >= self._kept.end:
            return Ended(f"the prescribed versions end here, after {self._version} updates")
        start = self._clock
        if timeout < 1.0 or not self._waiting:
            self._clock = start + timeout
            return None
        task, submitted = self._waiting.popleft()
        version, points = self._kept.next()
        self._clock = finish = start + 1.0
        return Reply(task, version, self._answer(task, points), self._mark, submitted, start, finish, finish)

    def cancel(self, task_id: int) -> None:
        self._waiting = deque(job for job in self._waiting if job[0].id != task_id)

    def now(self) -> float:
        return self._clock

    def in_flight(self, wanted: Container[int]) -> InFlight:
        # every job reads the newest version or whatever is prescribed then: its own says which version was the newest
        jobs = [(task, self._version, submitted) for task, submitted in self._waiting if task.id in wanted]
        return InFlight.of(self._clock, jobs, self._kept.points())

    def take_up(self, saved: InFlight) -> None:
        self._clock = saved.clock
        for task, row in saved.tasks():
            self._version = row["version"]
            self._waiting.append((task, row["submitted"]))
        self._kept.take_up(self._version, saved.points)

    def close(self) -> None:
        self._waiting = deque()
        self._kept = None


def _as_read(read: Any) -> ReadSequence | Read:
    if isinstance(read, ReadSequence) or (callable(read) and not isinstance(read, type)):
        return read
    if hasattr(read, "__len__") and not isinstance(read, (str, bytes)):
        return GivenVersions(read)
    try:
        return ConstantDelay(read)
    except InvalidInputError:
        raise InvalidInputError(
            "Prescribed needs a delay >= 0 in updates, a sequence such as UniformDelay(0.5), an array of versions or a"
            f" function of (n, rng), not {read!r}"
        ) from None
