"""In-place rules: an update is a write to the iterate, made by a server or, without one, by the workers themselves.

Rules of this file:

- the maths stands once: `work` and `write`, whoever calls them. With one worker a lock-free run equals a
  served one without delay in every bit; where a rule does many tasks at once (`sweep`), as closely as it says itself;
- ownership "racy": all workers read and write one array; a read may see half of a write, and of two
  writes to one place at a time one may be lost. Only for methods that bear it;
- a rule may do many tasks in one compiled call (`sweep`): lock-free workers then use that, and nobody else;
- ownership "disjoint": client i alone writes block i. A worker changes a copy of its block and puts it in
  the old one's place: readers see whole blocks, old or new, and nobody waits.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, Rule, State
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Reply, Task


@dataclass(slots=True, kw_only=True)
class InPlaceState(State):
    """State of in-place rules.

    Attributes
    ----------
    n_clients : int
        Owners of data.
    bounds : list of int
        Where the blocks begin, and the end; empty where ownership is racy.
    counts : list of int
        Updates by worker, of a lock-free run.
    """

    n_clients: int
    bounds: list[int] = dataclasses.field(default_factory=list)
    counts: list[int] = dataclasses.field(default_factory=list)


R = TypeVar("R", bound="InPlaceRule")


class InPlaceRule(Rule[InPlaceState]):
    """Base class of in-place rules: a frozen dataclass with `work`, `write`, and a field `concurrency`.

    Where a server applies replies, `concurrency` tasks are kept in flight and whoever answered is asked again.
    """

    #: whether all workers write everywhere, or each client its own block
    ownership: ClassVar[Literal["racy", "disjoint"]] = "racy"

    concurrency: int | None = None

    @abstractmethod
    def write(self, x: Array, payload: Payload, task: Task) -> None:
        """Change `x` in place: all of it, or the client's own block where ownership is disjoint."""

    def sweep_length(self, problem: Problem) -> int:
        """Tasks that a lock-free worker does in one call of `sweep`; by default 0: one by one, by `work` and `write`.

        Only where ownership is racy. A call cannot be interrupted: let it take a millisecond or so. Where few tasks are
        left, a worker draws fewer, so that all have a part of them.
        """
        return 0

    def sweep(self, problem: Problem, client: int, tasks: range, seed: int, x: Array) -> None:
        """Do tasks with these numbers for a client in one go, reading and writing the live iterate `x`.

        Others read and write `x` at the same time. Alone, the result is that of `work` and `write` for one task after
        another, up to rounding. The tasks' random numbers are those of ``Stream(seed, Domain.TASK).at(number)``. What raises
        here ends the run: nothing is tried again.
        """
        raise NotImplementedError

    def bounds(self, dim: int, n_clients: int) -> list[int]:
        """Where the clients' blocks begin, and the end, for disjoint ownership; by default equal blocks."""
        return [dim * client // n_clients for client in range(n_clients + 1)]

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        if self.concurrency is not None:
            return self.concurrency
        return n_workers if problem.shared_data and self.ownership == "racy" else max(n_workers, problem.n_clients)

    def configure(self: R, problem: Problem, concurrency: int, max_staleness: int | None) -> R:
        name = type(self).__name__
        if not dataclasses.is_dataclass(self) or "concurrency" not in {field.name for field in dataclasses.fields(self)}:
            raise InvalidInputError(f"{name} must be a frozen dataclass with a field `concurrency: int | None = None`")
        if self.ownership not in ("racy", "disjoint"):
            raise InvalidInputError(f"{name}.ownership must be 'racy' or 'disjoint', not {self.ownership!r}")
        if concurrency < problem.n_clients and not (problem.shared_data and self.ownership == "racy"):
            raise InvalidInputError(
                f"{name} asks whoever answered: with {concurrency} tasks in flight"
                f" {problem.n_clients - concurrency} of the {problem.n_clients} clients would never be asked"
            )
        if self.ownership == "disjoint" and self.sweep_length(problem):
            raise InvalidInputError(f"{name} owns blocks: a sweep works on the whole iterate, so sweep_length must be 0")
        changed: Any = dataclasses.replace(self, concurrency=concurrency)
        return changed

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[InPlaceState, Orders]:
        bounds = self.bounds(x0.shape[-1], n_clients) if self.ownership == "disjoint" else []
        state = InPlaceState(x=x0, n_clients=n_clients, bounds=bounds)
        return state, [state.task(i % n_clients) for i in range(self.concurrency or n_clients)]

    def points(self, state: InPlaceState) -> Points:
        return blocks_of(state)

    def receive(self, state: InPlaceState, reply: Reply, rng: Rng) -> tuple[InPlaceState, Orders]:
        task = reply.task
        blocks = blocks_of(state)
        _write(self, blocks[task.client if state.bounds else 0], reply.payload, task)
        state.version += 1
        return state, [state.task(task.client)]


def blocks_of(state: InPlaceState) -> Points:
    """The iterate, or the clients' blocks of it, as views."""
    if not state.bounds:
        return (state.x,)
    return tuple(state.x[..., low:high] for low, high in zip(state.bounds, state.bounds[1:], strict=False))


def write_free(rule: InPlaceRule, blocks: list[Array], payload: Payload, task: Task) -> None:
    """A worker's own write, without a lock."""
    if rule.ownership == "racy":
        _write(rule, blocks[0], payload, task)
    else:
        block = blocks[task.client].copy()
        _write(rule, block, payload, task)
        blocks[task.client] = block  # one store: a reader has the old object or the new one


def sweep_free(rule: InPlaceRule, problem: Problem, client: int, tasks: range, seed: int, x: Array) -> None:
    """Tasks of a worker in one go, without a lock."""
    do: Any = rule.sweep
    _check_in_place(rule, "sweep", do(problem, client, tasks, seed, x))


def _write(rule: InPlaceRule, x: Array, payload: Payload, task: Task) -> None:
    answer: Any = rule.write(x, payload, task)
    _check_in_place(rule, "write", answer)


def _check_in_place(rule: InPlaceRule, name: str, answer: Any) -> None:
    if answer is not None:
        raise InvalidInputError(
            f"{type(rule).__name__}.{name} returned {type(answer).__name__}: it must change x in place (x -= ...) and return"
            " nothing"
        )
