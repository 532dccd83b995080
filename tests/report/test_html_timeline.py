"""What a page tells of who worked when."""

import numpy as np
import pytest

import tardigrad as td
from report_runs import data_of, simulate, tasks_of, text_of, unpacked
from tardigrad.benchmarks.simulator import Identity
from tardigrad.core.trace import ROW
from tardigrad.report import html_timeline
from tardigrad.report.html_timeline import BINS, busy_shares, timeline_data, windows_of

STRAGGLERS = td.RandomStragglers(0.05, 8.0, td.Exponential(1.0))


def rows(*tasks):
    """A table of (worker, started, finished)."""
    table = np.zeros(len(tasks), ROW)
    for row, (worker, started, finished) in zip(table, tasks, strict=True):
        row["worker"], row["started"], row["finished"], row["received"] = worker, started, finished, finished
    return table


def test_every_task_of_a_short_run_is_on_the_page_with_its_facts():
    result = simulate(timing=STRAGGLERS, updates=500)
    data, remarks = timeline_data(result, budget=500)
    assert (data["n"], data["whole"], data["windows"], remarks) == (500, True, [[0.0, data["seconds"]]], [])
    tasks, trace = tasks_of(data), result.trace
    for name in ("task", "client"):
        np.testing.assert_array_equal(tasks[name], trace[name])
    np.testing.assert_array_equal(np.array(data["workers"])[tasks["worker"]], trace["worker"])
    np.testing.assert_array_equal(tasks["applied"], trace["version_applied"])
    np.testing.assert_array_equal(tasks["staleness"], trace.staleness)
    for name in ("submitted", "started", "finished", "received"):
        np.testing.assert_allclose(tasks[name], trace[name], rtol=0, atol=data["tick"] / 2 * 1.001)
    assert data["tick"] < 1e-3 * np.quantile(trace["finished"] - trace["started"], 0.06)


def test_times_are_kept_to_a_part_of_a_task_however_long_a_run_is():
    table = rows((0, 0.0, 1e-3), (0, 1e6, 1e6 + 1e-3))
    tick = html_timeline.tick_of(table, 1e6 + 1e-3)
    assert tick == (1e6 + 1e-3) / 2**30
    received = html_timeline.columns(table, np.array([0]), tick)[0].astype(int).cumsum() * tick
    np.testing.assert_allclose(received, table["received"], atol=tick)
    assert html_timeline.tick_of(table, 1.0) == pytest.approx(1e-3 / 1024)


def test_a_run_that_took_no_time_has_a_tick():
    assert html_timeline.tick_of(rows((0, 0.0, 0.0)), 0.0) == 1.0


def test_of_a_long_run_start_and_end_are_told_task_by_task_and_the_rest_in_shades():
    result = td.run(
        td.AsyncSGD(1e-3), Identity(4, 2), td.Simulated(STRAGGLERS), stop=td.MaxUpdates(20_000), snapshot_every=5000
    )
    data, (remark,) = timeline_data(result, budget=2000)
    assert not data["whole"]
    assert 1600 <= data["n"] <= 2000
    assert "of 20,000 tasks" in remark
    trace, (first, last) = result.trace, data["windows"]
    assert first[0] == 0.0
    assert last[1] == trace["received"][-1]
    tasks = tasks_of(data)
    inside = [(trace["started"] <= high) & (trace["received"] >= low) for low, high in data["windows"]]
    np.testing.assert_array_equal(tasks["task"], trace["task"][inside[0] | inside[1]])
    busy = unpacked(data["busy"], (4, BINS), "u1") / 255
    utilisation = list(trace.summary().utilisation.values())
    np.testing.assert_allclose(busy.mean(1), utilisation, atol=2e-3)
    assert len(text_of(result)) < 400_000


def test_a_page_of_a_long_run_stays_small(monkeypatch):
    monkeypatch.setattr(html_timeline, "BUDGET", 3000)
    monkeypatch.setattr(html_timeline, "FEWEST", 100)
    result = td.run(td.AsyncSGD(1e-3), Identity(4, 2), td.Simulated(STRAGGLERS), stop=td.MaxUpdates(20_000))
    parts = data_of(text_of(result, result, result))["timeline"]
    assert all(part["n"] <= 1000 for part in parts.values())


@pytest.mark.parametrize("n", [1, 5, 1000])
@pytest.mark.parametrize("incidents", [[], [0.5], [0.1, 0.11, 0.9], list(np.linspace(0, 1, 40))])
def test_windows_are_in_order_apart_and_around_start_incidents_and_end(n, incidents):
    table = rows(*[(0, i / n, (i + 1) / n) for i in range(n)])
    windows = windows_of(table, incidents, budget=max(n // 4, 1))
    flat = [second for window in windows for second in window]
    assert flat == sorted(flat)
    assert flat[0] == 0.0
    if n >= 1000:
        assert flat[-1] == 1.0
        received = table["received"]
        assert sum(np.count_nonzero((received >= low) & (received <= high)) for low, high in windows) <= n // 4
        assert all(any(low <= at <= high for low, high in windows) for at in incidents[: html_timeline.MAX_INCIDENTS])


def test_busy_shares_are_those_of_the_tasks():
    shares = busy_shares(rows((0, 0.0, 0.5), (1, 0.25, 1.0), (0, 0.75, 0.750_25)), np.array([0, 1, 7]), 1.0)
    assert shares.shape == (3, BINS)
    assert (shares[0, : BINS // 2] == 255).all()
    assert (shares[0, BINS // 2 : BINS * 3 // 4] == 0).all()
    assert shares[0, BINS * 3 // 4] == round(255 / 4)
    np.testing.assert_array_equal(shares[1] > 0, np.arange(BINS) >= BINS // 4)
    assert not shares[2].any()


def test_of_many_workers_some_are_drawn_those_with_incidents_among_them():
    result = td.run(td.AsyncSGD(1e-3), Identity(100, 2), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(300))
    result.incidents = [{"seconds": 1.0, "kind": "slow", "worker": 97, "task": 97, "text": "worker 97 is slow"}]
    data, remarks = timeline_data(result, 1000)
    assert data["workers"] == [*range(63), 97]
    assert remarks == ["64 of 100 workers are drawn, those with incidents among them"]
    assert data["n"] == np.isin(result.trace["worker"], data["workers"]).sum()
    assert data["incidents"] == [{"at": 1.0, "worker": 97, "kind": "slow", "text": "worker 97 is slow"}]


def test_a_lock_free_run_has_counts_instead():
    problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Shared(2))
    result = td.run(td.Hogwild(0.1), problem, td.Threads(2, lock_free=True), stop=td.MaxUpdates(300))
    text = text_of(result)
    assert "timeline" not in data_of(text)
    assert "no server (lock-free)" in text
    assert "Updates by worker of run0" in text
    assert f"<td>{result.state.counts[0]:,}</td>" in text.replace(' class="n"', "")
    assert "No staleness is known of run0" in text


def test_prescribed_staleness_has_no_timeline():
    result = td.run(
        td.AsyncSGD(0.01), td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(2)), td.Prescribed(2), stop=td.MaxUpdates(50)
    )
    text = text_of(result)
    assert "timeline" not in data_of(text)
    assert "Staleness was prescribed" in text
