"""In-place rules: an update is a write to the iterate, made by a server or, without one, by the workers themselves.

Rules of this file:

- the maths stands once: `work` and `write`, whoever calls them. With one worker a lock-free run equals a
  served one without delay in every bit; where a rule does many tasks at once (`sweep`), as closely as it says itself;
- ownership "racy": all workers read and write one array; a read may see half of a write, and of two
  writes to one place at a time one may be lost. Only for methods that bear it;
- a rule may do many tasks in one compiled call (`sweep`): lock-free workers then use that, and nobody else;
- ownership "disjoint": client i alone writes block i. A worker changes a copy of its block and puts it in
  the old one's place: readers see whole blocks, old or new, and nobody waits;
- a rule may divide a run into setups (epochs) of so many tasks: when they are all done, and not before, the next begins,
  with other blocks if the rule wants that. It is the one rendezvous of such a run.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, Rule, State, scratch_field
from tardigrad.core.streams import Rng, Stream
from tardigrad.core.task import Array, Payload, Points, Reply, Task


@dataclass(slots=True)
class SetupTally(Plain):
    """What one setup (epoch) of a run was like.

    Attributes
    ----------
    updates : int
        Applied in it.
    staleness : int
        Of its updates, summed up.
    staleness_max : int
        The largest.
    reading : float
        What the rule reads off each payload (`InPlaceRule.reading`), summed up.
    waited : float
        Seconds that workers waited for the last of them, summed up; only of a lock-free run (others have a trace).
    """

    updates: int = 0
    staleness: int = 0
    staleness_max: int = 0
    reading: float = 0.0
    waited: float = 0.0

    def add(self, staleness: int, reading: float) -> None:
        """One more update."""
        self.updates += 1
        self.staleness += staleness
        self.staleness_max = max(self.staleness_max, staleness)
        self.reading += reading

    def merge(self, other: SetupTally) -> None:
        """Those of a worker."""
        self.updates += other.updates
        self.staleness += other.staleness
        self.staleness_max = max(self.staleness_max, other.staleness_max)
        self.reading += other.reading
        self.waited += other.waited


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
    order : array (n,) or None
        Where blocks are no stretches of x: the numbers of its rows in the order in which blocks own them. A row is ``unit``
        entries of x.
    unit : int
        Entries that always have one owner.
    setup : int
        The present one; 0 for ever where a rule has none.
    parts : list of int
        Tasks issued to each client in this setup.
    weight : float
        What the setup's tasks carry.
    tallies : list of SetupTally
        One for each setup, the last for the present one.
    blocks : list of arrays or None
        Where there is an order: copies of the blocks, which are never changed but replaced.
    """

    n_clients: int
    bounds: list[int] = dataclasses.field(default_factory=list)
    counts: list[int] = dataclasses.field(default_factory=list)
    order: Array | None = None
    unit: int = 1
    setup: int = 0
    parts: list[int] = dataclasses.field(default_factory=list)
    weight: float = 1.0
    tallies: list[SetupTally] = dataclasses.field(default_factory=list)
    blocks: list[Array] | None = scratch_field()


R = TypeVar("R", bound="InPlaceRule")


class InPlaceRule(Rule[InPlaceState]):
    """Base class of in-place rules: a frozen dataclass with `work`, `write`, and a field `concurrency`.

    Where a server applies replies, `concurrency` tasks are kept in flight and whoever answered is asked again.
    """

    #: whether all workers write everywhere, or each client its own block
    ownership: ClassVar[Literal["racy", "disjoint"]] = "racy"

    sources: ClassVar[Mapping[str, str]] = {"concurrency": "run: tasks in flight"}

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

    def tasks_per_setup(self) -> int:
        """Tasks after which a new setup begins, of a configured rule; 0: never."""
        return 0

    def begin_setup(self, state: InPlaceState, seed: int) -> None:
        """Arrange the state for the setup that begins: its order of rows, the weight of its tasks."""

    def reading(self, payload: Payload) -> float:
        """What is to be summed up over a setup's replies, such as a loss."""
        return 0.0

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
        if self.tasks_per_setup():
            assert isinstance(rng, Stream)
            return state, self._open_setup(state, rng.seed)
        return state, [state.task(i % n_clients) for i in range(self.concurrency or n_clients)]

    def points(self, state: InPlaceState) -> Points:
        return blocks_of(state)

    def receive(self, state: InPlaceState, reply: Reply, rng: Rng) -> tuple[InPlaceState, Orders]:
        task = reply.task
        if state.order is None:
            _write(self, blocks_of(state)[task.client if state.bounds else 0], reply.payload, task)
        else:
            blocks = list(blocks_of(state))
            write_free(self, blocks, reply.payload, task)
            put_back(state, blocks, task.client)
            state.blocks = blocks
        state.version += 1
        length = self.tasks_per_setup()
        if not length:
            return state, [state.task(task.client)]
        state.tallies[-1].add(state.version - 1 - reply.version, self.reading(reply.payload))
        end = (state.setup + 1) * length
        if state.version == end:
            state.setup += 1
            assert isinstance(rng, Stream)
            return state, self._open_setup(state, rng.seed)
        return state, [self._next_task(state, task.client)] if state.issued < end else []

    def open_setup(self, state: InPlaceState, seed: int) -> None:
        """Begin the present setup."""
        state.parts = [0] * state.n_clients
        state.blocks = None
        self.begin_setup(state, seed)
        state.tallies.append(SetupTally())

    def _open_setup(self, state: InPlaceState, seed: int) -> Orders:
        self.open_setup(state, seed)
        first = min(self.concurrency or state.n_clients, self.tasks_per_setup())
        return [self._next_task(state, i % state.n_clients) for i in range(first)]

    def _next_task(self, state: InPlaceState, client: int) -> Task:
        part = state.parts[client]
        state.parts[client] += 1
        return state.task(client, setup=state.setup, weight=state.weight, part=part)


def blocks_of(state: InPlaceState) -> Points:
    """The iterate, or the clients' blocks of it: as views, or copies of them where there is an order."""
    if not state.bounds:
        return (state.x,)
    if state.order is None:
        return tuple(state.x[..., low:high] for low, high in zip(state.bounds, state.bounds[1:], strict=False))
    if state.blocks is None:
        rows = _rows_of(state)
        state.blocks = [
            rows[..., _owned(state, client), :].reshape(*state.x.shape[:-1], -1).copy() for client in range(state.n_clients)
        ]
    return tuple(state.blocks)


def put_back(state: InPlaceState, blocks: Sequence[Array], client: int) -> None:
    """Copy a client's block to where it belongs in x."""
    rows, owned = _rows_of(state), _owned(state, client)
    rows[..., owned, :] = blocks[client].reshape(*rows.shape[:-2], len(owned), state.unit)


def _rows_of(state: InPlaceState) -> Array:
    return state.x.reshape(*state.x.shape[:-1], -1, state.unit)


def _owned(state: InPlaceState, client: int) -> Array:
    """The rows of x that a client owns."""
    assert state.order is not None
    return state.order[state.bounds[client] // state.unit : state.bounds[client + 1] // state.unit]


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
