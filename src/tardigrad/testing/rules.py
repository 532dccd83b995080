"""Checks for rules, ours and yours: `check_rule`.

Rules of this file:

- a check runs the real event loop; it wraps the rule, it does not imitate the library;
- a failure is an `AssertionError` that names the contract and the task at which it broke.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.in_place import InPlaceRule, sweep_free, write_free
from tardigrad.core.plain import encode, same_bits
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, Rule, State
from tardigrad.core.stopping import MaxOracleCalls, MaxUpdates, Status
from tardigrad.core.streams import Rng, Stream
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.replay import replay
from tardigrad.testing.any_order import AnyOrder
from tardigrad.testing.plain_copies import arrays_of, copied, round_trip


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
        # a round may gather in x what no task reads yet, so tasks that are issued decide
        sent_old = any(isinstance(order, Task) for order in orders) and after.version == version
        assert not sent_old or same_bits(after.x, x), (
            f"receive of task {reply.task.id} changed x, issued a task and left state.version at {version}: add one for every"
            " update, since engines send a new point, and a run looks whether it has ended, when the version has changed"
        )
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
    InvalidInputError
        If it is no rule: a class of rules, for example.
    AssertionError
        Naming the contract that is broken.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> check_rule(td.AsyncSGD(step=0.1), td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4)))
    """
    if not isinstance(rule, Rule):
        raise InvalidInputError(f"rule must be a Rule such as AsyncSGD(0.1), not {rule!r}")
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
