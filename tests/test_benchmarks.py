"""Benchmarks run, are complete, and compare like with like; how fast anything is, no test says."""

import json
import math

import pytest

import tardigrad as td
from tardigrad.benchmarks import harness, simulator


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


def test_jobs_are_run_in_turn_after_a_warm_up():
    calls = []
    harness.in_turn(lambda: calls.append("a"), lambda: calls.append("b"), rounds=2)
    assert calls == ["a", "b"] * 3


def test_an_unknown_benchmark():
    with pytest.raises(td.InvalidInputError, match="unknown benchmark 'engines': choose one of simulator"):
        harness.run_benchmark("engines")
