"""The public checkers catch what they claim to catch: one broken rule or engine for each contract."""

from dataclasses import dataclass, field

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from tardigrad.core.rule import scratch_field
from tardigrad.testing import AnyOrder, check_engine, check_rule


@dataclass(frozen=True)
class Good(td.Rule):
    step: float = 0.05

    def start(self, x0, n_clients, rng):
        state = td.State(x0)
        return state, [state.task(client) for client in range(n_clients)]

    def receive(self, state, reply, rng):
        state.x -= self.step * reply.payload
        state.version += 1
        return state, [state.task(reply.task.client)]

    def work(self, problem, task, points, rng, cache):
        return problem.gradient(task.client, points[0], problem.sample(task.client, rng))


def test_a_good_rule_passes():
    check_rule(Good(), make_problem())


class ForgetsToCount(Good):
    def receive(self, state, reply, rng):
        state.x -= self.step * reply.payload
        return state, [state.task(reply.task.client)]


def test_an_update_that_is_not_counted_is_named():
    with pytest.raises(
        AssertionError, match=r"receive of task \d+ changed x, issued a task and left state.version at 0: add one"
    ):
        check_rule(ForgetsToCount(), make_problem())


@pytest.mark.parametrize("given", [Good, "AsyncSGD", None])
def test_what_is_no_rule_is_refused(given):
    with pytest.raises(td.InvalidInputError, match="rule must be a Rule such as AsyncSGD"):
        check_rule(given, make_problem())


class ChangesPoints(Good):
    def work(self, problem, task, points, rng, cache):
        points[0][0] += 1
        return super().work(problem, task, points, rng, cache)


class Impure(Good):
    calls: list = []  # noqa: RUF012

    def work(self, problem, task, points, rng, cache):
        self.calls.append(1)
        return super().work(problem, task, points, rng, cache) + len(self.calls)


class SkipsIds(Good):
    def receive(self, state, reply, rng):
        state.issued += 1
        return super().receive(state, reply, rng)


class UnknownClient(Good):
    def receive(self, state, reply, rng):
        state.version += 1
        return state, [state.task(99)]


class GoesBack(Good):
    def receive(self, state, reply, rng):
        state, orders = super().receive(state, reply, rng)
        state.version -= 2
        return state, orders


class ChangesShape(Good):
    def receive(self, state, reply, rng):
        state, orders = super().receive(state, reply, rng)
        state.x = state.x[:-1]
        return state, orders


class LiesAboutFresh(Good):
    def start(self, x0, n_clients, rng):
        state, orders = super().start(x0, n_clients, rng)
        state.fresh = True
        return state, orders


class Stops(Good):
    def receive(self, state, reply, rng):
        state.version += 1
        return state, []


class ChangesPayloads(Good):
    def receive(self, state, reply, rng):
        reply.payload *= 0.5
        return super().receive(state, reply, rng)


@dataclass(slots=True)
class Keeping(td.State):
    last: list = field(default_factory=list)


class KeepsPayloads(Good):
    def start(self, x0, n_clients, rng):
        state = Keeping(x0)
        return state, [state.task(client) for client in range(n_clients)]

    def receive(self, state, reply, rng):
        for old in state.last:
            state.x -= 0.01 * old
        state.last = [reply.payload]
        return super().receive(state, reply, rng)


@dataclass(slots=True)
class Forgetful(td.State):
    memory: object = scratch_field()


class HidesState(Good):
    def start(self, x0, n_clients, rng):
        state = Forgetful(x0)
        return state, [state.task(client) for client in range(n_clients)]

    def receive(self, state, reply, rng):
        state.memory = (state.memory or 0) + 1
        state.x -= 1e-3 * state.memory
        return super().receive(state, reply, rng)


class Reconfigures(Good):
    def configure(self, problem, concurrency, max_staleness):
        return Reconfigures(self.step / 2)


class Mutable(Good):
    def receive(self, state, reply, rng):
        object.__setattr__(self, "step", self.step * 0.99)
        return super().receive(state, reply, rng)


class Costless(Good):
    def oracle_calls(self, task):
        return -1


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (ChangesPoints(), "changed the points that it reads|must be pure"),
        (Impure(), "must be pure"),
        (SkipsIds(), "task ids must count on|issued is"),
        (UnknownClient(), "is for client 99 of 4"),
        (GoesBack(), "version went back"),
        (ChangesShape(), "x turned from"),
        (LiesAboutFresh(), "changed points that the state calls fresh"),
        (Stops(), "the run should go on, but no task is in flight"),
        (KeepsPayloads(), "keeps a payload without copying it"),
        (ChangesPayloads(), r"receive of task \d changed its payload"),
        (HidesState(), "a part of its state is marked as scratch"),
        (Reconfigures(), "configure must change nothing when it is called again"),
        (Mutable(), "the rule changed|must be frozen|the replay differs|keeps a payload"),
        (Costless(), "oracle_calls of task"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, td.Rule) else "",
)
def test_a_broken_rule_is_caught(rule, message):
    with pytest.raises(AssertionError, match=message):
        check_rule(rule, make_problem())


@dataclass(frozen=True)
class Adds(td.InPlaceRule):
    """Steps along gradients, in sweeps too."""

    step: float = 0.05
    concurrency: int | None = None

    def work(self, problem, task, points, rng, cache):
        return problem.gradient(task.client, points[0])

    def write(self, x, payload, task):
        x -= self.step * payload

    def sweep_length(self, problem):
        return 5

    def sweep(self, problem, client, tasks, seed, x):
        for _ in tasks:
            x -= self.step * problem.gradient(client, x)


class ForgetsTheLast(Adds):
    def sweep(self, problem, client, tasks, seed, x):
        super().sweep(problem, client, tasks[1:], seed, x)


class DoesOneACall(Adds):
    def sweep(self, problem, client, tasks, seed, x):
        super().sweep(problem, client, tasks[:1], seed, x)


class StepsFromWhatItRead(Adds):
    def sweep(self, problem, client, tasks, seed, x):
        x -= len(tasks) * self.step * problem.gradient(client, x)


def exact_shared():
    problem = make_problem(batch=None)
    return td.LeastSquares((problem.data.X, problem.data.y), td.Shared(3))


@pytest.mark.parametrize("rule", [ForgetsTheLast(), DoesOneACall(), StepsFromWhatItRead()], ids=lambda r: type(r).__name__)
def test_a_sweep_that_is_not_its_tasks_is_caught(rule):
    check_rule(Adds(), exact_shared())
    with pytest.raises(AssertionError, match=r"sweeps of \d+ tasks are .* away from work and write"):
        check_rule(rule, exact_shared())


class PairsOfTypes(Good):
    """Payloads of integers beside numbers: which entries, and by how much."""

    def receive(self, state, reply, rng):
        values, places = reply.payload
        state.x[places] -= self.step * values
        state.version += 1
        return state, [state.task(reply.task.client)]

    def work(self, problem, task, points, rng, cache):
        return super().work(problem, task, points, rng, cache)[:2], np.array([0, 1], np.int32)


def test_payloads_may_hold_integers():
    check_rule(PairsOfTypes(), make_problem())


class Doubles(AnyOrder):
    """Applies old points: those of the latest version instead of the task's."""

    def submit(self, task, version, points, fresh=False):
        super().submit(task, version, points, fresh)
        latest = self._jobs[-1][2]
        self._jobs = [(job[0], job[1], latest, job[3]) for job in self._jobs]


class OutOfOrder(AnyOrder):
    def next(self, timeout):
        self._jobs.reverse()
        return super().next(timeout)


class Backwards(AnyOrder):
    def next(self, timeout):
        reply = super().next(timeout)
        reply.started, reply.finished = reply.finished, reply.started
        return reply


class Swallows(AnyOrder):
    def open(self, half, placement):
        super().open(half, placement)
        answer = self._answer

        def calm(task, points):
            try:
                return answer(task, points)
            except ZeroDivisionError:
                return np.zeros(3)

        self._answer = calm


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Doubles, "the replay differs"),
        (OutOfOrder, "out of order"),
        (Backwards, "was finished before it was started"),
        (Swallows, "went unnoticed"),
    ],
)
def test_a_broken_engine_is_caught(engine, message):
    with pytest.raises(AssertionError, match=message):
        check_engine(engine)
