"""Benchmarks run, are complete, and compare like with like; how fast anything is, no test says."""

import json
import math

import numpy as np
import pytest

import tardigrad as td
from needs import needs_ray
from tardigrad.benchmarks import bare_loops, crash, engines, harness, ray_loop, simulator, soak

np_subtract = np.subtract


def test_the_bare_loop_makes_the_same_iterates_as_the_run():
    result = simulator.simulate(7, 5, 60)
    for options in ({}, {"checked": True}, {"checked": True, "buffered": True}):
        assert simulator.bare_loop(7, 5, 60, **options).tobytes() == result.x.tobytes()


def test_every_row_has_a_control(monkeypatch):
    monkeypatch.setattr(simulator, "rows", lambda: [*simulator.trajectory(200), *simulator.sweep(20), simulator.import_time()])
    report = harness.run_benchmark("simulator")
    found = json.loads(json.dumps(report.to_json()))
    assert set(found["machine"]) == {"cpu", "cores", "python", "numpy"}
    assert len(found["rows"]) == 5
    for row in found["rows"]:
        assert list(row) == ["name", "value", "unit", "control", "control_value", "ratio"]
        assert row["ratio"] == pytest.approx(row["value"] / row["control_value"])
        assert math.isfinite(row["value"])
        assert row["value"] > 0
    assert "ratio" in report.table()


@needs_ray
@pytest.mark.ray
def test_ray_and_its_control():
    rows = list(ray_loop.rows(sizes=[(10, 30), (20_000, 20)], in_flight=(3,), workers=2, rounds=1))
    assert [row.control for row in rows] == ["plain ray.wait loop"] * 2
    assert all(math.isfinite(row.ratio) and row.ratio > 0 for row in rows)


def test_jobs_are_run_in_turn_after_a_warm_up():
    calls = []
    harness.in_turn(lambda: calls.append("a"), lambda: calls.append("b"), rounds=2)
    assert calls == ["a", "b"] * 3


def test_an_unknown_benchmark():
    with pytest.raises(td.InvalidInputError, match="unknown benchmark 'nothing': choose one of simulator, engines"):
        harness.run_benchmark("nothing")


def test_engines_stand_beside_bare_loops(monkeypatch):
    monkeypatch.setattr(engines, "rates_in_turn", lambda *jobs: harness.rates_in_turn(*jobs, rounds=1))
    rows = [*engines.transports(1000, 200, has_ray=False), *engines.lock_free(1000, 100)]
    assert all(row.value > 0 and row.control_value > 0 for row in rows)
    assert [row.name for row in rows][:3] == [f"{name}, dim 1000" for name in ("Processes", "Processes, live point", "Threads")]


def test_on_few_cores_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(engines, "cores", lambda: 2)
    report = harness.run_benchmark("engines")
    (row,) = report.to_json()["rows"]
    assert row["value"] is row["control_value"] is row["ratio"] is None
    assert "not measured: 2 cores, 4 are needed" in report.table()


def test_the_bare_processes_make_the_iterates_of_the_run(monkeypatch):
    seen = []
    monkeypatch.setattr(bare_loops, "STEP", 1.0)  # the first reply brings every entry to 0
    monkeypatch.setattr(np, "subtract", lambda *args: (seen.append(np_subtract(*args).copy()), args[2])[1])
    bare_loops.shared_memory_and_pipe(5, 3, 1)
    assert [x.tolist() for x in seen] == [[0.0] * 5] * 3


def test_killed_workers_are_counted():
    rows = {row.name: row for row in engines.deaths(td.Processes(4), 1.0, kills=3, every=0.2)}
    kills = rows["Processes: kills that were noticed"]
    assert kills.value == kills.control_value == 3
    assert rows["Processes: tasks applied once"].ratio == 1.0


@needs_ray
@pytest.mark.ray
def test_killed_actors_are_counted():
    rows = {row.name: row for row in engines.deaths(td.RayCluster(workers=4), 5.0, kills=2, every=0.3)}
    kills = rows["RayCluster: kills that were noticed"]
    assert kills.value == kills.control_value == 2
    assert rows["RayCluster: tasks applied once"].ratio == 1.0


def test_a_short_soak():
    rows = {row.name: row for row in soak.rows(seconds=3.0, kill_every=0.5, dim=100)}
    assert rows["kills that were noticed"].value == rows["kills that were noticed"].control_value >= 1
    assert rows["tasks applied"].ratio == 1.0
    for name in ("tasks applied twice", "processes left", "entries left in /dev/shm"):
        assert rows[name].value == 0
    assert rows["replay has the same bits"].value == 1


def test_a_driver_that_is_killed_goes_on():
    rows = {row.name: row for row in crash.rows(kills=2)}
    assert rows["killed drivers whose folder loads"].value == 2
    assert rows["resumed runs that end in the same bits"].value == 2


def test_the_linear_benchmark_measures_what_it_says_on_small_systems(monkeypatch):
    from tardigrad.benchmarks import linear

    monkeypatch.setattr(linear, "REST", 0.0)
    rows = [
        *linear.dense(2000, 40),
        *linear.outliers(600, 120, 8),
        *linear.sparse(4000, 200, 5),
        *linear.stragglers(400, 20, 0.0005),
        *linear.in_a_file(1000, 20, 300),
    ]
    assert len(rows) == 14
    assert all(row.value > 0 and row.control_value > 0 for row in rows)
    assert {row.unit for row in rows} == {"solves/s", "rows/s", "s", "passes", "GB/s"}


def test_the_benchmark_of_many_clients_on_few():
    from tardigrad.benchmarks import clients

    found = list(clients.rows(n_clients=40, n_updates=100, at_work=5, data=td.datasets.load("digits")))
    assert [row.unit for row in found] == ["updates/s", "updates/s", "MB"]
    assert all(row.value > 0 and row.control_value > 0 for row in found)
    assert found[-1].ratio > 1
