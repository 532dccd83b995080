"""Worker threads: exceptions, lateness, stand-ins, ends."""

import logging
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from odd_rule import OddRule

import tardigrad as td
from conftest import make_problem
from presses import PressSoon
from tardigrad.core.plain import same_bits


def run(problem=None, engine=None, stop=None, rule=None, **kwargs):
    engine = engine or td.Threads(2)
    return td.run(rule or td.AsyncSGD(0.05), problem or make_problem(), engine, stop=stop or td.MaxUpdates(50), **kwargs)


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tardigrad worker")]


@pytest.fixture(autouse=True)
def _no_thread_left_behind():
    yield
    assert threads() == []


class Pull(td.Problem):
    """|x - client|^2/2; what else a gradient does is up to the test."""

    dim = 3

    def __init__(self, n_clients=2, shared=False, do=None):
        self.n_clients, self.shared_data, self.do = n_clients, shared, do

    def fields(self):
        return {"n_clients": self.n_clients, "shared": self.shared_data}

    def gradient(self, client, x, sample=None):
        if self.do is not None:
            self.do(client)
        return x - client


class Breaks:
    """Raises in gradients of a client, the first `times` times."""

    def __init__(self, times, client=1):
        self.times, self.client, self.lock = times, client, threading.Lock()

    def __call__(self, client):
        with self.lock:
            if client == self.client and self.times:
                self.times -= 1
                raise IndexError("out of cheese")


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_task_that_fails_three_times_ends_the_run_with_all_that_is_needed(tmp_path, checkpoint):
    folder = tmp_path / "run" if checkpoint else None
    with pytest.raises(td.WorkerError) as caught:
        run(Pull(do=Breaks(3)), rule=td.SyncSGD(0.1), checkpoint=folder)
    message = str(caught.value)
    assert "task 1 of client 1 failed 3 times: it raised an exception on worker 1:\nTraceback" in message
    assert 'raise IndexError("out of cheese")' in message
    assert "IndexError: out of cheese\nraised while a worker computed task 1 (gradient) of client 1" in message
    result = caught.value.result
    assert result.status is td.Status.UNFINISHED
    assert [(i["kind"], i["worker"], i["task"]) for i in result.incidents] == [("raised", 1, 1)] * 3
    assert 1 in {task.id for task, _ in result.in_flight.tasks()}
    resumed = [td.resume(result, problem=Pull(), stop=td.MaxUpdates(100))]
    if checkpoint:
        assert f"tardigrad resume {folder} goes on" in "\n".join(caught.value.__notes__)
        resumed.append(td.resume(folder, problem=Pull(), stop=td.MaxUpdates(100)))
    else:
        resumed.append(td.resume(result.save(tmp_path / "saved"), problem=Pull(), stop=td.MaxUpdates(100)))
    for both in resumed:
        assert both.status is td.Status.MAX_UPDATES
        assert len(both.incidents) == 3
        assert td.replay(both).identical


def test_two_failures_are_incidents_and_the_run_goes_on(caplog):
    with caplog.at_level(logging.WARNING, "tardigrad"):
        result = run(Pull(do=Breaks(2)), rule=td.SyncSGD(0.1), stop=td.MaxUpdates(25))
    assert result.status is td.Status.MAX_UPDATES
    assert [i["kind"] for i in result.incidents] == ["raised", "raised"]
    assert all(i["text"].startswith("worker 1 raised an exception: IndexError: out of cheese") for i in result.incidents)
    assert [record.getMessage() for record in caplog.records] == [i["text"] for i in result.incidents]
    assert len(set(result.trace["task"].tolist())) == 50
    assert td.replay(result, problem=Pull()).identical


def test_incidents_are_saved(tmp_path):
    result = run(Pull(do=Breaks(2)), rule=td.SyncSGD(0.1), stop=td.MaxUpdates(25))
    result.save(tmp_path)
    assert td.Result.load(tmp_path).incidents == result.incidents


def test_interrupts_and_exits_at_workers_do_not_end_them():
    def leave(client):
        raise SystemExit("bye")

    with pytest.raises(td.WorkerError, match=r"(?s)failed 3 times.*SystemExit: bye"):
        run(Pull(do=leave), rule=td.SyncSGD(0.1))


@dataclass(frozen=True)
class NoStart(td.AsyncSGD):
    def prepare(self, problem, client, setup, rng):
        raise ArithmeticError("no cache today")


def test_an_exception_in_prepare_is_shown():
    with pytest.raises(td.WorkerError, match=r"(?s)failed 3 times.*ArithmeticError: no cache today"):
        run(rule=NoStart(0.1), engine=td.Threads(1))


class Hangs:
    """The first gradients of some clients wait until they are let go, or until all others are done."""

    def __init__(self, clients=(0,), times=1):
        self.left, self.go, self.lock = dict.fromkeys(clients, times), threading.Event(), threading.Lock()
        self.waiting = threading.Semaphore(0)

    def __call__(self, client):
        with self.lock:
            waits = self.left.get(client, 0) > 0
            if waits:
                self.left[client] -= 1
        if waits:
            assert self.go.wait(60)


def let_go(hang):
    """An observer that lets all go at the first update."""

    class LetGo(td.Observer):
        def observe(self, moment):
            if moment.version:
                hang.go.set()

    return LetGo()


def test_a_worker_that_is_late_is_reported_once(caplog):
    hang, engine = Hangs(), td.Threads(2, deadline=0.05)

    def let_go_after_many_more_looks():
        while not any(i["task"] == 0 for i in list(engine.incidents)):
            time.sleep(0.01)
        time.sleep(0.3)
        hang.go.set()

    watching = threading.Thread(target=let_go_after_many_more_looks)
    watching.start()
    with caplog.at_level(logging.WARNING, "tardigrad"):
        result = run(Pull(do=hang), engine, td.MaxUpdates(100), td.SyncSGD(0.1))
    watching.join()
    (incident,) = [i for i in result.incidents if i["task"] == 0]
    assert (incident["kind"], incident["worker"]) == ("slow", 0)
    assert "worker 0 has been at task 0 of client 0 for 0." in incident["text"]
    assert incident["text"].endswith("s, longer than the deadline of 0.05 s")
    assert incident["text"] in [record.getMessage() for record in caplog.records]
    assert td.replay(result, problem=Pull()).identical


@pytest.mark.parametrize("shared", [False, True])
def test_others_stand_in_for_a_worker_that_hangs(shared):
    """A synchronous run needs every client: it ends only if others do what the hanging worker has and would get."""
    hang = Hangs()

    class LetGo(td.Observer):
        every = 20

        def observe(self, moment):
            if moment.version:
                hang.go.set()

    engine = td.Threads(3, deadline=0.05, reassign=True)
    result = run(Pull(7, shared, hang), engine, td.MaxUpdates(20), td.SyncSGD(0.1), observers=LetGo())
    assert result.status is td.Status.MAX_UPDATES
    slow = next(i for i in result.incidents if i["task"] == 0)
    assert result.trace["worker"][result.trace["task"] == 0] != slow["worker"]
    assert "others stand in for it" in slow["text"]
    assert len(set(result.trace["task"].tolist())) == len(result.trace) == result.oracle_calls == 140
    calm = run(Pull(7, shared), td.Simulated(td.Constant(1.0)), td.MaxUpdates(20), td.SyncSGD(0.1))
    assert same_bits(result.state, calm.state)
    assert td.replay(result, problem=Pull(7, shared)).identical


@pytest.mark.parametrize("shared", [False, True])
def test_a_worker_that_comes_back_goes_on_with_its_line(shared):
    """Its task is done by another, then it answers, too, while the next of its line is still at the other."""
    hang, returned, second = Hangs(), threading.Event(), []

    def do(client):
        hang(client)
        if client == 0:
            returned.set()
        if client == 2 and not second:  # the next of worker 0's line, done by worker 1
            second.append(threading.current_thread().name)
            hang.go.set()
            returned.wait(60)
            time.sleep(0.1)  # the answer of worker 0 has come

    engine = td.Threads(2, deadline=0.4, reassign=True)
    result = run(Pull(8, shared, do), engine, td.MaxUpdates(3), td.SyncSGD(0.1))
    assert len(set(result.trace["task"].tolist())) == 24
    assert shared or second == ["tardigrad worker 1"]
    assert td.replay(result, problem=Pull(8, shared)).identical


@pytest.mark.parametrize("shared", [False, True])
def test_a_task_that_hangs_at_two_workers_is_done_by_a_third(shared):
    hang = Hangs(times=2)
    engine = td.Threads(3, deadline=0.05, reassign=True)
    result = run(Pull(4, shared, hang), engine, td.MaxUpdates(5), td.SyncSGD(0.1), observers=let_go(hang))
    assert len({i["worker"] for i in result.incidents if i["task"] == 0}) >= 2
    assert td.replay(result, problem=Pull(4, shared)).identical


def test_a_task_that_is_cancelled_while_another_stands_in_leaves_its_line_free():
    """Worker 0 hangs at a task, worker 1 takes it and hangs as well, the rule cancels it and asks that client again."""

    @dataclass(frozen=True)
    class Impatient(td.Rule):
        def start(self, x0, n_clients, rng):
            state = td.State(x0)
            return state, [state.task(0), *(state.task(1) for _ in range(40))]

        def receive(self, state, reply, rng):
            state.version += 1
            if state.version == 1:  # the others of client 1 wait behind it
                time.sleep(0.2)
                hang.go.set()
                return state, [td.core.task.Cancel(0), state.task(0), state.task(0)]
            return state, []

        def work(self, problem, task, points, rng, cache):
            return problem.gradient(task.client, points[0])

    hang = Hangs(times=2)
    engine = td.Threads(3, deadline=0.02, reassign=True)
    result = run(Pull(do=hang), engine, td.MaxUpdates(1000), Impatient())
    assert result.status is td.Status.STALLED
    assert len(result.trace) == 42


def test_reassign_needs_a_deadline():
    with pytest.raises(td.InvalidInputError, match="reassign=True needs a deadline"):
        td.Threads(2, reassign=True)


@pytest.mark.parametrize("deadline", [0, -1.0, "1", float("nan")])
def test_bad_deadline(deadline):
    with pytest.raises(td.InvalidInputError, match="deadline must be"):
        td.Threads(2, deadline=deadline)


@pytest.mark.parametrize("workers", [0, -2, 1.5, True])
def test_bad_number_of_workers(workers):
    with pytest.raises(td.InvalidInputError, match="workers must be"):
        td.Threads(workers)


def test_bad_timing():
    with pytest.raises(td.InvalidInputError, match="timing must be"):
        td.Threads(2, timing=0.5)


def test_an_engine_comes_back_from_plain_data(tmp_path):
    engine = td.Threads(2, td.Constant(1e-4), deadline=5.0, reassign=True)
    run(engine=engine).save(tmp_path)
    assert same_bits(td.Result.load(tmp_path).engine, engine)


def test_injected_durations_are_those_of_the_timing():
    timing = td.PerClient([0.01, 0.01, 0.01, 0.05])
    trace = run(engine=td.Threads(4, timing), stop=td.MaxUpdates(40)).trace
    for client in range(4):
        mine = trace["client"] == client
        assert (trace["finished"][mine] - trace["started"][mine] >= timing.seconds[client] - 1e-6).all()
    assert trace.staleness.max() > 4


def test_times_are_in_order():
    trace = run(stop=td.MaxUpdates(200)).trace
    assert (trace["submitted"] <= trace["started"] + 1e-9).all()
    assert (trace["started"] <= trace["finished"]).all()
    assert (trace["finished"] <= trace["received"] + 1e-9).all()
    assert (np.diff(trace["received"]) >= 0).all()


def test_a_limit_of_seconds_does_not_wait_for_an_injected_duration():
    result = run(engine=td.Threads(2, td.PerClient([0.01, 0.01, 0.01, 1000.0])), stop=td.MaxSeconds(0.2))
    assert result.status is td.Status.MAX_SECONDS  # close ends the waiting of worker 1 too, or this would not return
    assert td.replay(result).identical


def test_close_waits_for_what_a_thread_is_at():
    done = []

    def slow(client):
        if client == 1:
            time.sleep(0.3)
            done.append(client)

    run(Pull(do=slow), stop=td.MaxUpdates(1))
    assert done == [1]


def test_an_interrupt_while_workers_are_busy():
    result = run(engine=td.Threads(2, td.Constant(0.02)), stop=td.MaxSeconds(1e6), observers=PressSoon())
    assert result.status is td.Status.INTERRUPTED
    both = td.resume(result, stop=td.MaxUpdates(result.state.version + 20))
    assert td.replay(both).identical


@pytest.mark.parametrize("engine", [lambda: td.Threads(3), lambda: td.Threads(3, deadline=1e-4, reassign=True)])
def test_cancelled_tasks_leave_nothing_behind_whatever_state_they_were_in(engine):
    engine = engine()
    seen, close = [], engine.close
    engine.close = lambda: (seen.append((len(engine._dispatch.jobs), len(engine._dispatch._versions))), close())
    result = run(rule=OddRule(cancel_every=2), engine=engine, stop=td.MaxUpdates(400))
    assert td.replay(result).identical
    jobs, versions = seen[0]
    assert jobs <= 4 + 3
    assert versions <= jobs + 3  # those that a worker still reads


class Identity(td.Problem):
    """|x|^2/2: the gradient is the point itself, not a copy."""

    n_clients, dim = 4, 3

    def __init__(self, view):
        self.view = view

    def fields(self):
        return {"view": self.view}

    def x0(self):
        return np.arange(1.0, 1.0 + self.dim)

    def gradient(self, client, x, sample=None):
        return {"itself": x, "view": x[...], "reversed": x[..., ::-1]}[self.view]


class Wide(Identity):
    """The same with so large an iterate that it is updated in place."""

    dim = 20_000


@pytest.mark.parametrize("view", ["itself", "view", "reversed"])
@pytest.mark.parametrize("make", [Identity, Wide])
@pytest.mark.parametrize("rule", [td.AsyncSGD(0.1, momentum=0.5), td.SyncSGD(0.1, momentum=0.5)], ids=["async", "sync"])
def test_gradients_that_are_their_points(view, make, rule):
    result = run(make(view), td.Threads(3), rule=rule)
    assert td.replay(result).identical


def test_a_payload_that_is_no_array_of_numbers_is_named():
    class Bad(Pull):
        def gradient(self, client, x, sample=None):
            return [1.0, 2.0, 3.0]

    with pytest.raises(
        td.WorkerError, match=r"(?s)reply to task \d of client \d holds list: work .* must return a NumPy array"
    ):
        run(Bad())


def test_a_payload_that_is_not_finite_ends_the_run():
    class Bad(Pull):
        def gradient(self, client, x, sample=None):
            return np.full(3, np.nan)

    result = run(Bad())
    assert result.status is td.Status.DIVERGED
    assert td.replay(result).identical


def test_each_thread_has_its_own_random_numbers():
    """Many short tasks with noise on more threads than cores: a shared generator would not replay."""
    result = run(make_problem(batch=1), td.Threads(8), td.MaxUpdates(1000), td.AsyncSGD(0.01, "uniform"), concurrency=16)
    assert td.replay(result).identical


def test_close_twice_and_without_open():
    engine = td.Threads(2)
    engine.close()
    run(engine=engine)
    engine.close()
    assert run(engine=engine).status is td.Status.MAX_UPDATES  # and it can be used again


@pytest.mark.parametrize("make", [td.Threads, td.Processes])
def test_who_stands_in_for_a_straggler_is_not_slow_too(make):
    """Client 3 would take a minute; the others answer its tasks without the injected duration."""
    engine = make(4, timing=td.PerClient([0.001] * 3 + [60.0]), deadline=0.05, reassign=True)
    rule = td.SyncSGD(0.1)
    result = td.run(rule, make_problem(), engine, stop=td.MaxUpdates(3))
    assert result.state.version == 3
    assert result.incidents[0]["worker"] == 3
    assert 3 not in result.trace["worker"]
