"""What an engine is: it moves tasks to workers and replies back, and owns clocks, processes, failures.

Rules of this file:

- an engine never looks into rules, states or payloads: it is given the worker's half as one callable;
- every task that was submitted ends as one `Reply`, or as `Lost` and is then submitted again; a second
  reply to a task may come, the loop drops it;
- points are live arrays of the rule unless they are fresh: an engine keeps copies, one a version, until
  the task is answered;
- a client's tasks run one after another, in order of submission.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

from tardigrad.core.errors import InvalidInputError, RunFileError
from tardigrad.core.in_flight import InFlight
from tardigrad.core.in_place import InPlaceState
from tardigrad.core.plain import Plain
from tardigrad.core.task import Array, Ended, Lost, Points, Reply, Task
from tardigrad.core.worker import WorkerHalf


@dataclass(frozen=True, slots=True)
class Placement:
    """What an engine must know of the problem.

    Parameters
    ----------
    n_clients : int
        Owners of data.
    shared_data : bool
        Whether any worker may serve any of them.
    """

    n_clients: int
    shared_data: bool


class Engine(Plain):
    """Base class of engines.

    Attributes
    ----------
    ends_by_itself : bool
        Whether runs end without a stopping condition (a recorded trace does).
    lock_free : bool
        Whether workers write to the iterate themselves (`run_free`), without a server.
    incidents : sequence of dict
        What went wrong since `open`: seconds, kind ("died", "replaced", "raised", "slow"), worker, task, and text.
    prescribes : bool
        Whether the version that each update reads is given, not an outcome.
    """

    ends_by_itself: bool = False
    lock_free: bool = False
    incidents: Sequence[dict[str, Any]] = ()
    prescribes: bool = False

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.fields().items() if value not in (None, False))
        return f"{type(self).__name__}({given})"

    @property
    def replays(self) -> bool:
        """Whether the trace determines the run: not where workers read what the server is changing."""
        return True

    def as_run(self) -> Engine:
        """The engine that a result holds, and saves: itself, unless what it ran with is not plain data."""
        return self

    @abstractmethod
    def n_workers(self, placement: Placement) -> int:
        """How many tasks can be worked on at a time."""

    @abstractmethod
    def open(self, half: WorkerHalf, placement: Placement) -> None:
        """Get ready to take tasks; time starts to count."""

    def house(self, x: Array) -> Array:
        """A copy of the start, or of a resumed iterate, where this engine wants it to be."""
        return x.copy()

    @abstractmethod
    def submit(self, task: Task, version: int, points: Points, fresh: bool = False) -> None:
        """Take a task to be computed from `points`, the rule's points at `version`.

        Fresh points will not change and may be kept as they are. A lost task comes again without points.
        """

    @abstractmethod
    def cancel(self, task_id: int) -> None:
        """Forget a task: a simulated client is free at once, a real one's late reply is dropped."""

    @abstractmethod
    def next(self, timeout: float) -> Reply | Lost | Ended | None:
        """The next event, or None where none came within `timeout` seconds, or sooner to let the loop look around."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since `open`, on the engine's own clock."""

    def in_flight(self, wanted: Container[int]) -> InFlight:
        """The tasks among those wanted (by id) that are not answered, with their points, and the clock."""
        raise RunFileError(f"runs on {type(self).__name__} cannot be saved for resuming: it does not define in_flight")

    def take_up(self, saved: InFlight) -> None:
        """Go on from what `in_flight` gave, right after `open`, instead of the rule's first tasks."""
        raise RunFileError(f"runs cannot be resumed on {type(self).__name__}: it does not define take_up")

    def run_free(self, blocks: list[Array], state: InPlaceState, until: float, look: Callable[[], float]) -> None:
        """Let workers apply an in-place rule to `blocks` until the state's version is `until`, or `look` says 0.

        `look` is called again after the seconds that it gives. Updates are counted in the state, in all and (in a new
        list) by worker, when all workers have stopped: also before an exception.
        """
        raise InvalidInputError(f"{type(self).__name__} has no lock-free runs")

    @abstractmethod
    def close(self) -> None:
        """Stop all workers and free what they used; safe to call at any time, and twice."""
