"""A rule is a method: what a worker computes, and what the server does with a reply.

Rules of this file:

- a rule is frozen and plain: hyper-parameters only; no clock, no IO, no generator of its own;
- `work` is pure. `receive` may change the state it is given in place, and returns it;
- what a rule keeps of a payload beyond `receive`, it copies; it never changes a payload;
- a state is a slotted dataclass of arrays, numbers and containers of these, so a checkpoint is plain data.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from tardigrad.core.plain import Plain
from tardigrad.core.problem import Problem
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Cancel, Payload, Points, Reply, Task


@dataclass(slots=True)
class State(Plain):
    """What every rule's state has.

    Attributes
    ----------
    x : array (..., dim)
        The current answer.
    version : int
        Updates applied.
    issued : int
        Tasks issued, so also the id of the next one.
    fresh : bool
        Whether the arrays of each version's points are new ones that the rule will never change: engines
        within this process then need no copy. Rules that update in place leave it False.

    Examples
    --------
    >>> import numpy as np
    >>> state = State(np.zeros(2))
    >>> state.task(client=1).id, state.issued
    (0, 1)
    """

    x: Array
    version: int = 0
    issued: int = 0
    fresh: bool = False

    def task(self, client: int, kind: str = "gradient", setup: int = 0, weight: float = 1.0, part: int = 0) -> Task:
        """Issue the next task."""
        number = self.issued
        self.issued = number + 1
        return Task(number, client, kind, setup, weight, part)


def scratch_field() -> Any:
    """Field of a state that is working space: not saved, not compared.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> @dataclass(slots=True)
    ... class Mine(State):
    ...     working_space: object = scratch_field()
    >>> list(Mine(np.zeros(1)).fields())
    ['x', 'version', 'issued', 'fresh']
    """
    return field(default=None, metadata={"scratch": True}, repr=False)


Orders = list[Task | Cancel]
S = TypeVar("S", bound=State)


class Rule(Plain, Generic[S]):
    """Base class of methods. A subclass is a frozen dataclass that defines `start`, `receive` and `work`."""

    #: engines that the rule makes no sense on, by class name, each with the reason
    unsuited: ClassVar[Mapping[str, str]] = {}
    #: for each field that `configure` fills in, where its value comes from: "theory: ..." (an equation), "measured: ..." (of
    #: the data), or "run: ..." (an argument of `tardigrad.run`); reports show it
    sources: ClassVar[Mapping[str, str]] = {}

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading shape that array-valued hyper-parameters give to the iterates."""
        return ()

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        """Tasks in flight where the user does not say: as many as can be worked on at a time."""
        return n_workers

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Rule[S]:
        """Called once before a run: turn "auto" and "theory" into numbers, refuse what cannot work.

        Doing it twice changes nothing, since what it returns is saved with the run.
        """
        return self

    @abstractmethod
    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[S, Orders]:
        """The first state, which owns `x0`, and the first tasks."""

    def points(self, state: S) -> Points:
        """What a worker reads. The engine copies it once a version, unless the state says that it is fresh."""
        return (state.x,)

    @abstractmethod
    def receive(self, state: S, reply: Reply, rng: Rng) -> tuple[S, Orders]:
        """Apply a reply; return the new state and further orders."""

    def prepare(self, problem: Problem, client: int, setup: int, rng: Rng) -> Any:
        """What a worker keeps for a client and setup; pure, so it can be built again. None: nothing."""
        return None

    @abstractmethod
    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        """The worker's half: an array or a tuple of arrays, computed from `points`, which it does not change."""

    def oracle_calls(self, task: Task) -> int:
        """How many gradients a task costs."""
        return 1
