"""Whom an asynchronous rule asks next, and how many tasks it keeps in flight.

Rules of this file:

- every reply is answered with one task, so the number of tasks in flight never changes;
- which client is asked is the server's choice: its random numbers are those of `receive`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, Rule, State
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Task
from tardigrad.core.validate import optional_integer

NextClient = Literal["answered", "uniform", "shuffled"]


@dataclass(slots=True, kw_only=True)
class AskingState(State):
    """State of rules that ask clients one by one: the order in which they are asked, where it is shuffled."""

    n_clients: int
    order: Array | None = None
    place: int = 0


S = TypeVar("S", bound=AskingState)


class Asking(Rule[S], Generic[S]):
    """Keeps ``concurrency`` tasks in flight; a subclass is a dataclass with the two fields below.

    - "answered": the client that answered is asked again;
    - "uniform": any client with equal probability, a busy one queues the task;
    - "shuffled": all clients in a random order that is drawn anew for each pass.
    """

    sources: ClassVar[Mapping[str, str]] = {"concurrency": "run: tasks in flight"}

    next_client: NextClient
    concurrency: int | None

    def _check_asking(self) -> None:
        object.__setattr__(self, "concurrency", optional_integer(self.concurrency, "concurrency"))
        if self.next_client not in get_args(NextClient):
            raise InvalidInputError(f"next_client must be one of {', '.join(get_args(NextClient))}, not {self.next_client!r}")

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        if self.concurrency is not None:
            return self.concurrency
        every_client = self.next_client == "answered" and not problem.shared_data
        return max(n_workers, problem.n_clients) if every_client else n_workers

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        if self.next_client == "answered" and concurrency < problem.n_clients and not problem.shared_data:
            raise InvalidInputError(
                f"with next_client='answered' and {concurrency} tasks in flight, {problem.n_clients - concurrency} of the"
                f" {problem.n_clients} clients would never be asked: pass concurrency={problem.n_clients} to run, or"
                " choose next_client='uniform' or 'shuffled'"
            )
        configured: Any = self
        found: Self = dataclasses.replace(configured, concurrency=concurrency)
        return found

    def _first_clients(self, state: S, rng: Rng) -> list[int]:
        """Whom to ask first, one for each task in flight."""
        if self.concurrency is None:
            raise InvalidInputError(f"{type(self).__name__} must be configured before it starts: tardigrad.run does that")
        if self.next_client == "answered":
            return [i % state.n_clients for i in range(self.concurrency)]
        if self.next_client == "shuffled":
            state.order = rng.permutation(state.n_clients)
        return [_draw(state, rng) for _ in range(self.concurrency)]

    def _first_tasks(self, state: S, rng: Rng) -> Orders:
        """The tasks that a run begins with."""
        return [state.task(client) for client in self._first_clients(state, rng)]

    def _next_client(self, state: S, answered: int, rng: Rng) -> int:
        """Whom to ask after a client's answer."""
        return answered if self.next_client == "answered" else _draw(state, rng)

    def _next_task(self, state: S, answered: Task, rng: Rng) -> Task:
        """The task that follows an answer."""
        return state.task(self._next_client(state, answered.client, rng))


def distinct_clients(n_clients: int, n: int, rng: Rng) -> list[int]:
    """So many different clients, each subset with equal probability."""
    if n == 1:
        return [int(rng.integers(n_clients))]
    chosen: list[int] = rng.choice(n_clients, n, replace=False).tolist()
    return chosen


def _draw(state: AskingState, rng: Rng) -> int:
    if state.order is None:
        return int(rng.integers(state.n_clients))
    if state.place == state.n_clients:
        state.order, state.place = rng.permutation(state.n_clients), 0
    state.place += 1
    return int(state.order[state.place - 1])
