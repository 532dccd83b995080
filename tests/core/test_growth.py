"""Growth of staleness, on traces whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.growth import growth
from tardigrad.core.trace import Trace
from virtual_runs import simulated


class SlowsDown(td.Timing):
    """Client 0 becomes slower and slower: a job takes 1 + start / 10 times an exponential duration."""

    def duration(self, client, start, u):
        return -np.log1p(-u) * (1.0 if client else 1 + start / 10)


@pytest.mark.parametrize("c", [0.1, 0.5, 1.0, 3.0])
def test_delays_of_floor_c_n_grow_linearly_with_scale_c(c):
    n = 10_000
    read = np.arange(n)
    late = np.floor(c * read).astype(int)
    answered = read + late < n
    found = growth(read[answered], late[answered])
    assert found.exponent == pytest.approx(1, abs=0.03)
    assert found.error < 0.01
    assert c * 0.95 <= found.scale <= 1.3 * c
    assert found.record_exponent == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("q", "within"), [(0.5, 0.05), (1.0, 0.05), (1.5, 0.05), (2.0, 0.1)])
def test_delays_of_n_to_the_q_have_exponent_q(q, within):
    # update n reads the newest version s whose request is due: s + floor(s^q) <= n
    applied = np.arange(10_000)
    due = applied + np.floor(applied**q).astype(int)
    read = np.searchsorted(due, applied, "right") - 1
    assert growth(read, applied - read).exponent == pytest.approx(q, abs=within)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_uniform_delays_up_to_a_share_of_n_grow_linearly(share):
    applied = np.arange(20_000)
    late = np.random.default_rng(3).integers(0, np.floor(share * applied) + 1)
    found = growth(applied - late, late)
    assert found.exponent == pytest.approx(1, abs=0.04)
    assert found.record_exponent == pytest.approx(1, abs=0.15)


def test_it_is_the_late_replies_that_count():
    # one reply in eight is as late as the root of its version, the others are always fresh
    read = np.arange(1, 20_001)
    late = np.where(read % 8 == 0, np.floor(np.sqrt(read)), 5)
    found = growth(read, late)
    assert found.exponent == pytest.approx(0.5, abs=0.05)
    assert found.scale == pytest.approx(np.sqrt(5), rel=0.01)  # staleness 5 at version 5


def test_the_end_of_a_run_does_not_bend_the_envelope():
    # requests whose delay outlasts the run have no row: among the last ones only those with small delays do
    n = 20_000
    read = np.arange(1, n)
    late = np.random.default_rng(0).integers(0, 2 * read)
    answered = read + late < n
    assert growth(read[answered], late[answered]).exponent == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("n_clients", [4, 16])
@pytest.mark.parametrize(
    "timing", [td.Exponential(), td.LogNormal(), td.Pareto(tail=1.5)], ids=lambda timing: type(timing).__name__
)
def test_durations_that_do_not_change_show_no_trend(timing, n_clients):
    found = simulated(timing, n_clients).growth()
    assert abs(found.exponent) < 0.1
    assert found.error < 0.05
    assert found.client is None


def test_records_of_a_heavy_tail_grow_without_a_trend():
    # the largest of n Pareto durations is of order n^(1/a)
    records = [simulated(td.Pareto(tail=1.5), seed=seed).growth().record_exponent for seed in range(4)]
    assert np.mean(records) == pytest.approx(1 / 1.5, abs=0.15)
    assert simulated(td.Exponential()).growth().record_exponent < 0.25


def test_constant_durations_have_exponent_zero_exactly():
    found = simulated(td.Constant(1.0)).growth()
    assert (found.exponent, found.error, found.scale, found.record_exponent) == (0, 0, 3, 0)


def test_one_slow_worker_is_a_bound_and_no_growth():
    found = simulated(td.PerClient([1.0, 1.0, 1.0, 8.0])).growth()
    assert abs(found.exponent) < 0.05
    assert abs(found.record_exponent) < 0.05
    assert found.scale == pytest.approx(24, rel=0.05)


def test_rounds_have_no_staleness_and_no_growth():
    found = simulated(td.Exponential(), n=1000, rule=td.SyncSGD(1e-9)).growth()
    assert (found.exponent, found.error, found.scale, found.record_exponent) == (0, 0, 0, 0)


def test_a_client_that_slows_down_is_found_though_its_replies_are_rare():
    trace = simulated(SlowsDown())
    assert (trace["client"] == 0).mean() < 0.01
    found = trace.growth()
    assert found.client == 0
    assert found.exponent == pytest.approx(1, abs=0.3)
    together = growth(trace["version_read"], trace.staleness)
    assert together.client is None
    assert together.exponent < 0.1


def test_many_clients_make_none_of_them_look_slower():
    rng = np.random.default_rng(1)
    read = np.arange(1, 20_001)
    late = np.floor(rng.pareto(1.5, 20_000) * 10)
    for n_clients in (2, 50, 1000):
        assert growth(read, late, rng.integers(0, n_clients, 20_000)).client is None


def test_the_standard_error_is_the_spread_over_runs():
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found.append(growth(np.arange(1, 3001), np.floor(rng.exponential(20, 3000))))
    spread = np.std([one.exponent for one in found])
    assert 0.7 < spread / np.mean([one.error for one in found]) < 1.4
    assert abs(np.mean([one.exponent for one in found])) < 0.02


def test_the_start_is_left_out():
    # 200 tasks of the start take longer and longer, then all delays are the same
    first = np.arange(400)
    read = np.concatenate([np.zeros(400, int), np.arange(1, 2000)])
    late = np.concatenate([first, np.minimum(np.arange(1, 2000), 400)])
    found = growth(read, late)
    assert found.first == 360
    assert abs(found.exponent) < 0.02


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), min_size=1, max_size=80), st.integers(0, 3))
def test_no_reply_is_above_the_envelope_and_one_is_on_it(rows, seed):
    read, late = np.array(rows).T
    found = growth(read, late, np.random.default_rng(seed).integers(0, 3, len(rows)))
    after = read >= found.first
    if np.isnan(found.exponent) or not after.any():
        assert np.isnan(found.scale)
        return
    bound = found.scale * read[after].astype(float) ** max(found.exponent, 0)
    assert (late[after] <= bound * (1 + 1e-12)).all()
    assert np.isclose(late[after], bound, rtol=1e-12, atol=1e-12).any()


@given(st.permutations(range(60)))
def test_the_order_of_the_rows_does_not_matter(order):
    read = np.arange(1, 61)
    late, owner = read * 7 % 13, read % 3
    assert growth(read[order], late[order], owner[order]) == growth(read, late, owner)


def test_a_task_that_was_never_answered_raises_the_envelope():
    read = np.arange(1000)
    found = growth(read, np.full(1000, 2))
    assert found.scale == 2
    more = growth(read, np.full(1000, 2), unanswered=np.array([101]))
    assert (more.exponent, more.scale) == pytest.approx((0, 1001 - 101))
    # silent since the start: as old as the run without its start
    assert growth(read, np.full(1000, 2), unanswered=np.array([0])).scale == 1001 - found.first


def test_a_trace_knows_what_was_never_answered():
    rows = [(i, i % 3, i % 3, max(i - 3, 0), i, 4, 0.0, 0.0, 1.0, float(i)) for i in range(200)]
    whole = Trace.from_rows(rows, updates=200)
    del rows[100]  # read version 97
    assert whole.growth().scale == 3
    lacking = Trace.from_rows(rows, updates=200)
    assert lacking.growth().scale == 199 - 98  # known to be at most the version of the next task
    # more tasks lack than were in flight: they were cancelled
    assert Trace.from_rows(rows[:20] + rows[50:], updates=200).growth().scale == 3


@pytest.mark.parametrize("n", [0, 1, 7])
def test_too_few_replies_have_no_trend(n):
    found = growth(np.arange(1, n + 1), np.ones(n, int))
    assert np.isnan([found.exponent, found.error, found.record_exponent, found.scale]).all()


def test_replies_to_one_version_have_no_trend():
    assert np.isnan(growth(np.full(50, 3), np.arange(50)).exponent)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1, 2], [1]), r"columns of one length, not of shapes \(2,\), \(1,\)"),
        (([[1]], [[1]]), "columns of one length"),
        (([1, 2], [1, 1], [0]), "columns of one length"),
        (([1, 2], [1, -1]), ">= 0"),
        (([-1, 2], [1, 1]), ">= 0"),
    ],
)
def test_growth_refuses_what_are_no_columns(columns, message):
    with pytest.raises(InvalidInputError, match=message):
        growth(*columns)
