"""Uneven workers and the time of jobs, on traces whose answer is known."""

import numpy as np
import pytest

import tardigrad as td
from tardigrad.benchmarks.simulator import Identity
from tardigrad.core.delays import delay_factor, occupancy
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.trace import Trace
from virtual_runs import simulated

# delay factor


@pytest.mark.parametrize("tau", [1, 2, 3, 7])
def test_equal_workers_in_turn_have_factor_one(tau):
    found = simulated(td.Constant(1.0), tau, 50 * tau).delay_factor()
    assert (found.c, found.delta_a, found.tau, found.c_mean) == (1, tau, tau, pytest.approx(1, rel=0.02))
    assert found.updates == dict.fromkeys(range(tau), 1)


def test_one_worker_eight_times_slower_than_three():
    # while it makes one update in 8 seconds, each of the others makes 8: delta_a = 3 * 8 + 1, c = 25 / 4
    found = simulated(td.PerClient([1.0, 1.0, 1.0, 8.0]), n=1000).delay_factor()
    assert (found.c, found.delta_a, found.tau) == (6.25, 25, 4)
    assert found.updates == {0: 8, 1: 8, 2: 8, 3: 1}
    assert found.c_mean == pytest.approx(6.25, rel=0.01)


@pytest.mark.parametrize("slowest", [2, 3, 5])
def test_two_workers_one_of_them_slower(slowest):
    found = simulated(td.PerClient([1.0, float(slowest)]), 2, 500).delay_factor()
    assert found.updates == {0: slowest, 1: 1}
    assert found.c == (slowest + 1) / 2


def test_rounds_that_wait_for_all_have_factor_one():
    found = simulated(td.PerClient([1.0, 2.0, 3.0, 8.0]), n=50, rule=td.SyncSGD(1e-9)).delay_factor()
    assert (found.c, found.delta_a, found.updates) == (1, 4, {0: 1, 1: 1, 2: 1, 3: 1})


def test_tasks_in_line_count_as_delay():
    found = simulated(td.Constant(1.0), 6, 600, workers=3).delay_factor()
    assert (found.c, found.tau) == (2, 3)


def test_one_hiccup_decides_c_and_hardly_the_mean():
    read = np.maximum(np.arange(1000) - 3, 0)
    read[500] = 400
    found = delay_factor(read, np.arange(1000), np.arange(1000) % 4)
    assert (found.delta_a, found.c) == (101, 25.25)
    assert sum(found.updates.values()) == 101
    assert found.c_mean == pytest.approx((1 + 4 * 248 + 101) / 250 / 4)  # its first task found the first version


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_are_the_updates_of_each_worker_and_the_factor_the_largest_staleness(seed):
    trace = simulated(td.Exponential([1.0, 2.0, 3.0, 5.0, 9.0]), 5, 2000, seed=seed)
    found = trace.delay_factor()
    assert found.delta_a == sum(found.updates.values()) == trace.staleness.max() + 1
    assert found.c == found.delta_a / 5


def test_the_factor_of_no_replies_is_nan():
    found = Trace.from_rows([], updates=0).delay_factor()
    assert np.isnan([found.c, found.c_mean]).all()
    assert (found.delta_a, found.tau, found.updates) == (0, 0, {})


def test_delay_factor_refuses_columns_that_differ():
    with pytest.raises(InvalidInputError, match=r"one length, not \(2,\), \(1,\), \(2,\)"):
        delay_factor([0, 1], [0], [0, 0])


# occupancy


class Mixed(td.Timing):
    """Durations of every size that differ from client to client."""

    def duration(self, client, start, u):
        return (1 + client) * (0.1 + u)


@pytest.mark.parametrize("workers", [None, 1, 3])
@pytest.mark.parametrize(
    ("rule", "concurrency"),
    [
        (td.AsyncSGD(1e-9), None),
        (td.AsyncSGD(1e-9, next_client="uniform"), 3),
        (td.AsyncSGD(1e-9, next_client="shuffled"), 9),
        (td.SyncSGD(1e-9), None),
        (td.SyncSGD(1e-9, sample=4), None),
    ],
)
def test_on_the_virtual_clock_occupancy_is_the_duration_drawn(rule, concurrency, workers):
    trace = simulated(Mixed(), 6, 200, rule, workers=workers, concurrency=concurrency)
    assert np.allclose(trace.occupancy(), trace["finished"] - trace["started"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("concurrency", [2, 5])
def test_the_same_where_any_worker_takes_any_task(concurrency):
    problem = td.LeastSquares((np.eye(8), np.ones(8)), td.Shared(4))
    engine = td.Simulated(Mixed(), workers=2)
    trace = td.run(td.AsyncSGD(1e-3), problem, engine, stop=td.MaxUpdates(100), concurrency=concurrency).trace
    assert np.allclose(trace.occupancy(), trace["finished"] - trace["started"], rtol=1e-9, atol=1e-12)


def columns_of(rows):
    """Columns of rows (version read, version applied, worker, submitted, received)."""
    return [np.array(column) for column in zip(*rows, strict=True)]


def test_transport_and_the_server_s_own_time_count():
    # the server needs 0.25 s for a reply, so the next task is submitted later than the reply came
    rows = [(0, 0, 0, 0.0, 1.0), (0, 1, 1, 0.0, 1.5), (1, 2, 0, 1.25, 3.0), (2, 3, 1, 1.75, 4.0)]
    assert occupancy(*columns_of(rows)).tolist() == [1.0, 1.5, 2.0, 2.5]


def test_the_wait_at_a_barrier_does_not_count():
    # two workers; the first waits for the second from 1 to 5, and the server adds up until 5.5
    rows = [(0, 0, 0, 0.0, 1.0), (0, 0, 1, 0.0, 5.0), (1, 1, 0, 5.5, 7.0), (1, 1, 1, 5.5, 11.0)]
    assert occupancy(*columns_of(rows)).tolist() == [1.0, 5.0, 2.0, 6.0]


def test_the_wait_in_the_line_of_a_worker_does_not_count():
    rows = [(0, 0, 0, 0.0, 1.0), (0, 1, 0, 0.0, 3.0), (1, 2, 0, 1.0, 6.0), (2, 3, 0, 3.0, 10.0)]
    assert occupancy(*columns_of(rows)).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_replies_that_wait_together_are_told_apart_by_version():
    # both are there before the first is applied: its task was submitted after the second was received
    rows = [(0, 0, 0, 0.0, 1.0), (0, 1, 1, 0.0, 1.1), (1, 2, 0, 1.2, 3.0), (2, 3, 1, 1.4, 3.1)]
    assert occupancy(*columns_of(rows)) == pytest.approx([1.0, 1.1, 2.0, 2.0])


def test_replies_between_two_updates_are_told_apart_by_time():
    # two replies make an update, tasks are issued at once; worker 2 was idle until it was asked at 2.0
    rows = [(0, 0, 0, 0.0, 1.0), (0, 0, 1, 0.0, 2.0), (1, 1, 0, 2.0, 3.0), (1, 1, 2, 3.0, 7.0)]
    assert occupancy(*columns_of(rows)).tolist() == [1.0, 2.0, 1.0, 4.0]


def test_in_a_closed_loop_of_processes_occupancies_fill_the_run():
    problem = Identity(2, 1000)
    engine = td.Processes(2, td.Constant(0.002))  # so long that no worker does all while the other starts
    trace = td.run(td.AsyncSGD(1e-9), problem, engine, stop=td.MaxUpdates(200)).trace
    seconds = trace.occupancy()
    assert (seconds > trace["finished"] - trace["started"]).all()
    for worker in (0, 1):
        mine = trace["worker"] == worker
        assert seconds[mine].sum() == pytest.approx(trace["received"][mine].max() - trace["submitted"][mine].min())


def test_occupancy_of_no_replies():
    assert Trace.from_rows([], updates=0).occupancy().tolist() == []
