"""Checks for rules and engines, ours and yours: `check_rule`, `check_engine`.

Rules of this file:

- a check runs the real event loop; it wraps the rule, it does not imitate the library;
- a failure is an `AssertionError` that names the contract and the task at which it broke.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.engine import Engine, Placement
from tardigrad.core.in_place import InPlaceRule, sweep_free, write_free
from tardigrad.core.plain import Plain, decode, encode, same_bits
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.rule import Orders, Rule, State
from tardigrad.core.stopping import MaxOracleCalls, MaxUpdates, Status
from tardigrad.core.streams import Domain, Rng, Stream
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.replay import replay
from tardigrad.engines.simulated import Simulated
from tardigrad.rules.gradient_descent import AsyncSGD, SyncSGD
from tardigrad.timing.models import Constant


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


class CheckedRule(Rule[Any]):
    """A rule with its contract checked around every call, for runs of one's own; `check_rule` uses it.

    Parameters
    ----------
    rule : Rule
        The rule to check. An `AssertionError` names the contract that it breaks.
    """

    def __init__(self, rule: Rule[Any]) -> None:
        self.rule = rule
        self.n_clients = 0

    def fields(self) -> dict[str, Any]:
        return {"rule": self.rule}

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.rule.batch_shape

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return self.rule.default_concurrency(problem, n_workers)

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Rule[Any]:
        once = self.rule.configure(problem, concurrency, max_staleness)
        twice = once.configure(problem, concurrency, max_staleness)
        assert same_bits(once, twice), "configure must change nothing when it is called again: its result is saved"
        return CheckedRule(once)

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[State, Orders]:
        self.n_clients = n_clients
        state, orders = self.rule.start(x0, n_clients, rng)
        self._check(state, orders, 0, state.version, x0, "start")
        return round_trip(state), orders

    def points(self, state: State) -> Points:
        return self.rule.points(state)

    def receive(self, state: State, reply: Reply, rng: Rng) -> tuple[State, Orders]:
        issued, version, x, before = state.issued, state.version, state.x.copy(), reply.payload
        points = self.rule.points(state)
        kept = tuple(point.copy() for point in points)
        sent = arrays_of(copied(before))
        answer = self.rule.receive(state, reply, rng)
        pair = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], list)
        assert pair, f"receive of task {reply.task.id} must return (state, list of tasks), not {answer!r}"
        after, orders = answer
        assert same_bits(arrays_of(before), sent), f"receive of task {reply.task.id} changed its payload"
        unchanged = not state.fresh or same_bits(points, kept)
        assert unchanged, f"receive of task {reply.task.id} changed points that the state calls fresh"
        self._check(after, orders, issued, version, x, f"receive of task {reply.task.id}")
        for array in arrays_of(before):
            # engines use the memory again: a rule that keeps it will notice
            array[...] = np.nan if array.dtype.kind in "fc" else 1
        return round_trip(after), orders

    def prepare(self, problem: Problem, client: int, setup: int, rng: Rng) -> Any:
        return self.rule.prepare(problem, client, setup, rng)

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        saved = tuple(point.copy() for point in points)
        first = copied(self.rule.work(problem, task, points, rng, cache))
        assert isinstance(rng, Stream)
        second = self.rule.work(problem, task, points, rng.at(task.id), cache)
        assert same_bits(first, copied(second)), f"work of task {task.id} must be pure: twice the same task, two payloads"
        assert same_bits(saved, tuple(points)), f"work of task {task.id} changed the points that it reads"
        return first

    def oracle_calls(self, task: Task) -> int:
        calls = self.rule.oracle_calls(task)
        assert calls >= 0, f"oracle_calls of task {task.id} is {calls}"
        return calls

    def _check(self, state: State, orders: Orders, issued: int, version: int, x: Array, where: str) -> None:
        tasks = [order for order in orders if isinstance(order, Task)]
        ids = [task.id for task in tasks]
        assert ids == list(range(issued, issued + len(ids))), f"{where}: task ids must count on from {issued}, not {ids}"
        assert state.issued == issued + len(ids), f"{where}: issued is {state.issued} after {len(ids)} tasks from {issued}"
        for task in tasks:
            known = 0 <= task.client < self.n_clients
            assert known, f"{where}: task {task.id} is for client {task.client} of {self.n_clients}"
        assert state.version >= version, f"{where}: version went back from {version} to {state.version}"
        same = state.x.shape == x.shape and state.x.dtype == x.dtype
        assert same, f"{where}: x turned from {x.dtype}{x.shape} into {state.x.dtype}{state.x.shape}"


def check_rule(
    rule: Rule[Any], problem: Problem, *, n_replies: int = 100, seed: int = 0, concurrency: int | None = None
) -> None:
    """Check that a rule keeps its contract on a problem.

    Runs it with replies in several random orders and checks that: it can be saved and read back; configuring
    twice changes nothing; `work` is pure and leaves its points alone; task ids count on, clients exist, versions
    do not go back; the state survives being saved after every reply; payloads are neither kept nor changed; the rule
    itself does not change; and every run replays bit for bit. Of an in-place rule with a `sweep`: that alone it gives what
    `work` and `write` give one after another, up to rounding, however the tasks are split into calls.

    Parameters
    ----------
    rule : Rule
        The rule, with parameters for which it does not diverge on the problem.
    problem : Problem
        A small problem with a few clients.
    n_replies : int
        Updates, or oracle calls if these are more, of each run.
    seed : int
        Of runs and orders.
    concurrency : int, optional
        As for `tardigrad.run`.

    Raises
    ------
    AssertionError
        Naming the contract that is broken.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> check_rule(td.AsyncSGD(step=0.1), td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4)))
    """
    assert same_bits(rule, round_trip(rule)), "a rule must come back from plain data with the same parameters"
    text = json.dumps(encode(rule, {}))
    stop = MaxOracleCalls(n_replies) | MaxUpdates(n_replies)
    for trial in range(3):
        kept: dict[str, Any] = {"stop": stop, "seed": seed + trial, "concurrency": concurrency, "snapshot_every": 1}
        checked = run(CheckedRule(rule), problem, AnyOrder(seed + trial), **kept)
        plain = run(rule, problem, AnyOrder(seed + trial), **kept)
        assert plain.status in (Status.MAX_ORACLE_CALLS, Status.MAX_UPDATES), f"the run should go on, but {plain.message}"
        assert same_bits(plain.state, checked.state), (
            "saving the state and overwriting payloads after each reply changes the run: the rule keeps a payload without"
            " copying it, or a part of its state is marked as scratch"
        )
        replayed = replay(plain)
        assert replayed.identical, f"the replay differs: {replayed.difference}"
    if isinstance(rule, InPlaceRule) and rule.sweep_length(problem) and not rule.batch_shape:
        _check_sweep(rule, problem, n_replies, seed)
    assert json.dumps(encode(rule, {})) == text, "the rule changed during a run: it must be frozen"


def _check_sweep(rule: InPlaceRule, problem: Problem, n_tasks: int, seed: int) -> None:
    """One worker's sweeps beside its single tasks. Not bit for bit: a sweep may sum in another order."""
    configured = rule.configure(problem, problem.n_clients, None)
    half, start, client = WorkerHalf(configured, problem, seed), problem.x0(), problem.n_clients - 1
    answer, singly = half.open(), start.copy()
    for number in range(n_tasks):
        task = Task(number, client)
        write_free(configured, [singly], answer(task, (singly,)), task)
    bound = np.sqrt(np.finfo(start.dtype).eps) * max(np.abs(singly).max(), np.abs(start).max())
    for size in (n_tasks, 7, 1):
        x = start.copy()
        for low in range(0, n_tasks, size):
            sweep_free(configured, problem, client, range(low, min(low + size, n_tasks)), seed, x)
        apart = float(np.abs(x - singly).max())
        assert apart <= bound, (
            f"sweeps of {size} tasks are {apart:.3g} away from work and write, one task after another: on one worker both must"
            " agree up to rounding"
        )


class _Probe(Problem):
    """Exact gradients of |x - c_i|^2 / 2, and where asked an exception."""

    def __init__(self, n_clients: int, dim: int, shared_data: bool = False, raises: bool = False) -> None:
        self.n_clients, self.dim, self.shared_data, self.raises = n_clients, dim, shared_data, raises

    def fields(self) -> dict[str, Any]:
        return {"n_clients": self.n_clients, "dim": self.dim, "shared_data": self.shared_data, "raises": self.raises}

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        if self.raises and client == self.n_clients - 1 and abs(x[0]) > 0.1:
            raise ZeroDivisionError("an oracle that fails on purpose")
        return x - (client + 1.0)


def check_engine(make_engine: Callable[[], Engine]) -> None:
    """Check that an engine keeps its contract.

    Runs rules on it and checks that: every run replays bit for bit, for small and large iterates and for more
    tasks in flight than workers; each task is answered once and a client's tasks one after another; times are in
    order; a synchronous rule gives the same bits as in a simulation, unless it declares itself unsuited for the
    engine; one engine object serves several runs; it closes twice without harm; and an exception in an oracle ends
    the run with that exception or a `WorkerError` that shows it.

    Parameters
    ----------
    make_engine : callable
        Returns a new engine that can serve 4 clients.

    Raises
    ------
    AssertionError
        Naming the contract that is broken.

    Examples
    --------
    >>> check_engine(lambda: Simulated(Constant(1.0)))
    """
    engine = make_engine()
    for dim, concurrency, shared in ((3, None, False), (3, 11, False), (3, 6, True), (40_000, 5, False)):
        problem = _Probe(4, dim, shared)
        rule = AsyncSGD(0.1, next_client="answered" if concurrency is None else "shuffled")
        result = run(rule, problem, engine, stop=MaxUpdates(60), concurrency=concurrency, snapshot_every=7)
        _check_trace(result, shared)
        replayed = replay(result)
        assert replayed.identical, f"the replay differs for dim {dim}: {replayed.difference}"
    if type(engine).__name__ not in SyncSGD.unsuited:
        both = (engine, Simulated(Constant(1.0)))
        synchronous = [run(SyncSGD(0.1), _Probe(4, 3), on, stop=MaxUpdates(20)).x for on in both]
        assert same_bits(*synchronous), "a synchronous run must give the same bits as on a virtual clock"
    engine.close()
    engine.close()
    _check_failure(make_engine())


def _check_trace(result: Result, shared: bool) -> None:
    trace = result.trace
    assert len(set(trace["task"].tolist())) == len(trace), "a task was applied twice"
    assert (np.diff(trace["received"]) >= 0).all(), "replies were received in another order than their times say"
    for earlier, later in (("submitted", "started"), ("started", "finished"), ("finished", "received")):
        assert (trace[earlier] <= trace[later] + 1e-9).all(), f"a task was {later} before it was {earlier}"
    if shared:
        return
    for client in set(trace["client"].tolist()):
        mine = trace.table[trace["client"] == client]
        assert (np.diff(mine["task"]) > 0).all(), f"tasks of client {client} were answered out of order"
        assert (mine["started"][1:] >= mine["finished"][:-1] - 1e-9).all(), f"two tasks of client {client} ran at a time"


def _check_failure(engine: Engine) -> None:
    try:
        run(AsyncSGD(0.1), _Probe(4, 3, raises=True), engine, stop=MaxUpdates(50_000))
    except Exception as error:
        text = f"{type(error).__name__} {error}"
        assert "ZeroDivisionError" in text, f"the oracle's exception does not show in: {text}"
    else:
        raise AssertionError("an exception in an oracle went unnoticed")


def round_trip(value: Plain) -> Any:
    """A plain object as it comes back from a file."""
    arrays: dict[str, Array] = {}
    tree = json.loads(json.dumps(encode(value, arrays)))
    return decode(tree, {name: array.copy() for name, array in arrays.items()})


def arrays_of(payload: Payload) -> tuple[Array, ...]:
    """The arrays of a payload."""
    return payload if isinstance(payload, tuple) else (payload,)


def copied(payload: Payload) -> Payload:
    """A payload whose arrays are its own."""
    copies = tuple(np.array(array) for array in arrays_of(payload))
    return copies if isinstance(payload, tuple) else copies[0]
