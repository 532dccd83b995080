"""The virtual clock: order, queues, cancellation."""

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from tardigrad.core.engine import Placement
from tardigrad.core.task import Task
from tardigrad.core.worker import WorkerHalf
from tardigrad.rules.gradient_descent import AsyncSGD


def opened(timing, workers=None, shared=False, n_clients=4):
    engine = td.Simulated(timing, workers)
    engine.open(WorkerHalf(AsyncSGD(0.1), make_problem(), 0), Placement(n_clients, shared))
    return engine


def submit(engine, *clients, first=0):
    for i, client in enumerate(clients):
        engine.submit(Task(first + i, client), 0, (np.zeros(5),))


def drain(engine):
    replies = []
    while (reply := engine.next(np.inf)) is not None:
        replies.append(reply)
    return replies


def test_ties_are_ordered_by_submission():
    engine = opened(td.Constant(1.0))
    submit(engine, 3, 1, 2, 0)
    assert [reply.task.client for reply in drain(engine)] == [3, 1, 2, 0]


def test_tasks_of_a_client_queue():
    engine = opened(td.PerClient([1.0, 10.0, 1.0, 1.0]))
    submit(engine, 0, 0, 1, 0)
    assert [(reply.task.id, reply.started, reply.finished) for reply in drain(engine)] == [
        (0, 0.0, 1.0),
        (1, 1.0, 2.0),
        (3, 2.0, 3.0),
        (2, 0.0, 10.0),
    ]


def test_fewer_workers_than_clients_queue_by_placement():
    engine = opened(td.Constant(1.0), workers=2)
    submit(engine, 0, 2, 1)
    assert [(reply.task.client, reply.worker, reply.finished) for reply in drain(engine)] == [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (2, 0, 2.0),
    ]


def test_shared_data_goes_to_any_idle_worker_in_order_of_submission():
    engine = opened(td.PerClient([1.0, 1.0, 5.0, 1.0]), workers=2, shared=True)
    submit(engine, 2, 0, 0, 0)
    assert [(reply.task.id, reply.worker, reply.finished) for reply in drain(engine)] == [
        (1, 1, 1.0),
        (2, 1, 2.0),
        (3, 1, 3.0),
        (0, 0, 5.0),
    ]


def test_cancelling_a_running_task_frees_its_client_at_once():
    engine = opened(td.Constant(4.0))
    submit(engine, 0, 1, 0)
    assert engine.next(1.5) is None
    assert engine.now() == 1.5
    engine.cancel(0)
    assert [(reply.task.id, reply.started, reply.finished) for reply in drain(engine)] == [(1, 0.0, 4.0), (2, 1.5, 5.5)]


def test_cancelling_a_waiting_task_leaves_the_others():
    engine = opened(td.Constant(1.0))
    submit(engine, 0, 0, 0)
    engine.cancel(1)
    assert [reply.task.id for reply in drain(engine)] == [0, 2]


@pytest.mark.parametrize("shared", [True, False])
def test_a_cancelled_task_is_not_looked_for_in_its_line(monkeypatch, shared):
    """4000 tasks that were cancelled newest first took 2 s."""
    compared = []
    monkeypatch.setattr(Task, "__eq__", lambda self, other: compared.append(other) or self is other)
    engine = opened(td.Constant(1.0), workers=1, shared=shared)
    submit(engine, *[0] * 50)
    for task_id in range(49, 0, -1):
        engine.cancel(task_id)
    engine.cancel(49)  # a second time does not matter
    assert not compared
    assert [reply.task.id for reply in drain(engine)] == [0]


def test_points_are_those_of_the_version_although_the_rule_updates_in_place():
    engine = opened(td.Constant(1.0))
    x = np.zeros(5)
    engine.submit(Task(0, 0), 0, (x,))
    x += 1
    engine.submit(Task(1, 1), 1, (x,))
    x += 1
    problem = make_problem()
    first, second = drain(engine)
    stream = td.core.streams.Stream(0, td.core.streams.Domain.TASK)
    for reply, value in ((first, 0.0), (second, 1.0)):
        sample = problem.sample(reply.task.client, stream.at(reply.task.id))
        np.testing.assert_array_equal(reply.payload, problem.gradient(reply.task.client, np.full(5, value), sample))


def test_durations_depend_on_the_task_alone():
    orders = [(0, 1, 2, 3), (3, 2, 1, 0)]
    durations = []
    for order in orders:
        engine = opened(td.Exponential(1.0))
        for client in order:
            engine.submit(Task(client, client), 0, (np.zeros(5),))
        durations.append({reply.task.id: reply.finished for reply in drain(engine)})
    assert durations[0] == durations[1]


@pytest.mark.parametrize("workers", [0, -1, 2.5, True])
def test_bad_number_of_workers(workers):
    with pytest.raises(td.InvalidInputError, match="workers must be"):
        td.Simulated(td.Constant(1.0), workers)


def test_bad_timing():
    with pytest.raises(td.InvalidInputError, match=r"Simulated.timing must be a timing such as"):
        td.Simulated(3.0)
    with pytest.raises(td.InvalidInputError, match="2 durations for 4 clients"):
        td.run(td.AsyncSGD(0.1), make_problem(), td.Simulated(td.PerClient([1, 2])), stop=td.MaxUpdates(1))


class Odd(td.Timing):
    """The first two jobs take a second, all others what is given."""

    random = False

    def __init__(self, seconds, begin=0):
        self.seconds, self.begin = seconds, begin

    def duration(self, client, start, u):
        return self.seconds if start >= self.begin else 1.0


@pytest.mark.parametrize("seconds", [-1.0, -1e-300, np.nan])
@pytest.mark.parametrize("begin", [0, 1])  # a job that starts when it is submitted, and one that has waited
def test_a_duration_that_is_no_duration_is_an_error(seconds, begin):
    engine = opened(Odd(seconds, begin), n_clients=1)

    def serve():
        submit(engine, 0, 0)
        drain(engine)

    with pytest.raises(td.InvalidInputError, match=r"Odd.duration must return seconds >= 0, not .*client 0"):
        serve()


def test_no_time_at_all_is_a_duration():
    engine = opened(Odd(0.0), n_clients=1)
    submit(engine, 0, 0)
    assert [reply.finished for reply in drain(engine)] == [0.0, 0.0]


@pytest.mark.parametrize("lock_free", [False, True])
def test_a_duration_that_is_no_duration_is_an_error_on_real_workers(lock_free):
    engine = td.Threads(1, Odd(-1.0), lock_free=lock_free)
    with pytest.raises(td.WorkerError, match=r"Odd.duration must return seconds >= 0, not -1.0, which it gave for client 0"):
        td.run(td.Hogwild(0.1), make_problem(), engine, stop=td.MaxUpdates(5))
