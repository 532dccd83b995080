"""The event loop: how runs start, go on, and end."""

import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from presses import PressSoon
from tardigrad.core.rule import Rule, State
from tardigrad.core.task import Lost
from tardigrad.testing import AnyOrder


def simulate(rule=None, problem=None, stop=None, **kwargs):
    engine = kwargs.pop("engine", td.Simulated(td.Exponential(1.0)))
    problem = make_problem() if problem is None else problem
    return td.run(rule or td.AsyncSGD(0.1), problem, engine, stop=stop or td.MaxUpdates(20), **kwargs)


class Quadratic(td.Problem):
    """|x|^2/2 whose gradient turns into `bad` from the given task of a client on."""

    def __init__(self, bad=np.nan, when=0.5, n_clients=3):
        self.n_clients, self.dim, self.bad, self.when = n_clients, 2, bad, when

    def fields(self):
        return {"bad": self.bad, "when": self.when, "n_clients": self.n_clients}

    def x0(self):
        return np.ones(2)

    def gradient(self, client, x, sample=None):
        return np.where(np.abs(x).max(axis=-1, keepdims=True) < self.when, self.bad, x)


def test_same_seed_same_bits_and_other_seed_other_bits():
    assert simulate(seed=1).x.tobytes() == simulate(seed=1).x.tobytes()
    assert simulate(seed=1).x.tobytes() != simulate(seed=2).x.tobytes()


def test_limit_of_updates():
    result = simulate(stop=td.MaxUpdates(7))
    assert (result.status, result.state.version, len(result.trace)) == (td.Status.MAX_UPDATES, 7, 7)


def test_limit_of_oracle_calls_counts_replies_of_a_round():
    result = simulate(td.SyncSGD(0.1), stop=td.MaxOracleCalls(10))
    assert (result.status, result.oracle_calls, result.state.version) == (td.Status.MAX_ORACLE_CALLS, 10, 2)


def test_limit_of_virtual_seconds_applies_nothing_later():
    result = simulate(stop=td.MaxSeconds(6.0))
    assert result.status is td.Status.MAX_SECONDS
    assert result.trace["received"].max() <= 6.0
    assert result.history.seconds[-1] == pytest.approx(6.0)
    again = simulate(stop=td.MaxUpdates(result.state.version))
    assert again.x.tobytes() == result.x.tobytes()


def test_tolerance_ends_a_run_and_says_the_value():
    stop = td.MaxUpdates(10_000) | td.Tolerance("loss", at_most=0.1, every=10)
    result = simulate(td.AsyncSGD(0.1), make_problem(batch=None), stop=stop)
    assert result.status is td.Status.CONVERGED
    assert result.state.version % 10 == 0
    assert "loss" in result.message
    assert result.measure_seconds > 0


def test_tolerance_from_below():
    problem = td.LogisticRegression((make_problem().data.X, make_problem().data.y > 0), td.Iid(4))
    result = simulate(problem=problem, stop=td.Tolerance("accuracy", at_least=0.9, every=5) | td.MaxUpdates(500))
    assert result.status is td.Status.CONVERGED


def test_the_first_condition_ends_the_run():
    result = simulate(stop=td.MaxUpdates(50) | td.MaxSeconds(1e6) | td.MaxUpdates(8))
    assert result.state.version == 8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_a_payload_that_is_not_finite_ends_the_run_with_the_last_finite_state(bad):
    result = simulate(td.AsyncSGD(0.1), Quadratic(bad), stop=td.MaxUpdates(1000))
    assert result.status is td.Status.DIVERGED
    assert result.diverged
    assert np.isfinite(result.x).all()
    assert 0.2 < np.abs(result.x).max() < 0.5
    assert "smaller step" in result.message
    assert td.replay(result).identical


def test_a_replica_that_diverges_is_masked_and_the_others_go_on():
    problem = make_problem(batch=None)
    steps = [0.1, 1e9, 0.2]
    result = simulate(td.AsyncSGD(steps, momentum=0.5), problem, stop=td.MaxUpdates(300))
    assert result.status is td.Status.MAX_UPDATES
    assert result.diverged.tolist() == [False, True, False]
    assert "1 of 3 replicas" in result.message
    assert np.isfinite(result.x).all()
    alone = simulate(td.AsyncSGD([0.1, 0.2], momentum=0.5), problem, stop=td.MaxUpdates(300))
    np.testing.assert_allclose(result.x[[0, 2]], alone.x, rtol=1e-9)
    assert td.replay(result).identical


def test_all_replicas_diverged_ends_the_run():
    result = simulate(td.AsyncSGD([1e9, 1e10]), make_problem(batch=None), stop=td.MaxUpdates(3000))
    assert result.status is td.Status.DIVERGED
    assert result.diverged.all()
    assert np.isfinite(result.x).all()


@dataclass(frozen=True)
class Finite(Rule[State]):
    """Asks each client once."""

    tasks: int = 4

    def start(self, x0, n_clients, rng):
        state = State(x0)
        return state, [state.task(i) for i in range(self.tasks)]

    def receive(self, state, reply, rng):
        state.version += 1
        return state, []

    def work(self, problem, task, points, rng, cache):
        return points[0]


def test_no_task_in_flight_and_none_issued_is_stalled():
    result = simulate(Finite())
    assert (result.status, len(result.trace)) == (td.Status.STALLED, 4)
    assert simulate(Finite(0)).status is td.Status.STALLED


class Unreliable(AnyOrder):
    """Loses replies, and answers some tasks twice."""

    def open(self, half, placement):
        super().open(half, placement)
        self.lost = set()

    def next(self, timeout):
        task, version, _, _ = self._jobs[0]
        if self._ticks % 3 == 1 and task.id not in self.lost:
            self._ticks += 1
            self.lost.add(task.id)
            self._kept = self._jobs.pop(0)
            return Lost(task, version, "a test")
        if self._ticks % 5 == 4:
            self._ticks += 1
            return self.last
        self.last = super().next(timeout)
        return self.last

    def submit(self, task, version, points, fresh=False):
        if not points:  # submitted again
            assert (task, version) == self._kept[:2]
            self._jobs.append(self._kept)
        else:
            super().submit(task, version, points)


def test_lost_tasks_are_submitted_again_and_second_replies_are_dropped():
    engine = Unreliable(seed=2)
    result = simulate(engine=engine, stop=td.MaxUpdates(60))
    assert len(engine.lost) > 10
    assert len(set(result.trace["task"].tolist())) == len(result.trace) == 60
    assert td.replay(result).identical


class Losing(AnyOrder):
    def next(self, timeout):
        task, version, _, _ = self._jobs[0]
        return Lost(task, version, "its worker was hit by a meteorite")

    def submit(self, task, version, points, fresh=False):
        if points:
            super().submit(task, version, points)


def test_a_task_that_fails_three_times_ends_the_run_with_the_reason():
    with pytest.raises(td.WorkerError, match="task 0 of client 0 failed 3 times: its worker was hit by a meteorite"):
        simulate(engine=Losing())


def test_replayed_trace_of_another_seed_is_refused_at_the_first_difference():
    result = simulate(td.AsyncSGD(0.1, "uniform"), seed=1)
    result.seed = 2
    with pytest.raises(td.ReplayError, match="another rule, problem or seed"):
        td.replay(result)


def test_interrupt_ends_with_a_usable_result():
    result = simulate(stop=td.MaxSeconds(1e9), observers=PressSoon())
    assert result.status is td.Status.INTERRUPTED
    assert "interrupted after" in result.message
    assert td.replay(result).identical
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_interrupt_raises(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, threading, time
        import numpy as np, tardigrad as td
        class Stuck(td.Problem):
            n_clients, dim = 1, 1
            def fields(self): return {}
            def gradient(self, client, x, sample=None):
                print("working", flush=True)
                time.sleep(60)
        td.run(td.AsyncSGD(0.1), Stuck(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(1))
        """)
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors


def test_exception_in_an_oracle_comes_through_and_observers_are_closed():
    closed = []

    class Seen(td.Observer):
        def close(self, status, message):
            closed.append((status, message))

    class Broken(Quadratic):
        def gradient(self, client, x, sample=None):
            raise ZeroDivisionError("in the oracle")

    with pytest.raises(ZeroDivisionError, match="in the oracle") as caught:
        simulate(problem=Broken(), observers=[Seen()])
    assert re.match(r"raised while a worker computed task \d \(gradient\) of client \d", caught.value.__notes__[0])
    assert closed == [(None, "ZeroDivisionError('in the oracle')")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": td.AsyncSGD}, "the class AsyncSGD itself"),
        ({"rule": "sgd"}, "expected a Rule such as"),
        ({"problem": np.ones(3)}, "expected a Problem"),
        ({"engine": "threads"}, "expected an Engine such as"),
        ({"stop": 100}, "stop must be a condition such as MaxUpdates"),
        ({"stop": td.Tolerance("speed", at_most=1)}, "no measure 'speed'; it has loss, gradient_norm"),
        ({"x0": np.ones(4)}, r"x0 must have shape \(..., 5\)"),
        ({"x0": np.full(5, np.nan)}, "x0 has values that are NaN"),
        ({"x0": np.ones((2, 5)), "rule": td.AsyncSGD([0.1, 0.1, 0.1])}, "do not broadcast"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"seed": 1.5}, "seed must be an integer >= 0"),
        ({"concurrency": 0}, "concurrency must be an integer >= 1"),
        ({"replicas": 0}, "replicas must be"),
        ({"snapshot_every": 2.5}, "snapshot_every must be"),
        ({"concurrency": 2}, "2 of the 4 clients would never be asked"),
    ],
)
def test_wrong_arguments_say_what_was_expected(arguments, message):
    with pytest.raises(td.InvalidInputError, match=message):
        simulate(**arguments)


def test_a_rule_that_does_not_suit_an_engine_says_why():
    @dataclass(frozen=True)
    class Picky(Finite):
        unsuited: ClassVar = {"Simulated": "it needs real hardware"}

    with pytest.raises(td.InvalidInputError, match="Picky does not run on Simulated: it needs real hardware"):
        simulate(Picky())


def test_oracle_calls_are_counted_whatever_ends_the_run():
    stops = [td.MaxUpdates(10), td.MaxUpdates(10) | td.MaxOracleCalls(1000), td.MaxOracleCalls(10)]
    assert [simulate(stop=stop).oracle_calls for stop in stops] == [10, 10, 10]


def test_a_tolerance_judges_the_replicas_that_are_alive():
    stop = td.MaxUpdates(3000) | td.Tolerance("loss", at_most=0.1, every=10)
    result = simulate(td.AsyncSGD([0.1, 1e9]), make_problem(batch=None), stop=stop)
    assert result.status is td.Status.CONVERGED
    assert result.diverged.tolist() == [False, True]


def test_measures_are_not_evaluated_unless_somebody_asks():
    class Costly(Quadratic):
        def measures(self, x, names=None):
            raise AssertionError("evaluated")

    assert simulate(problem=Costly(when=0.0)).status is td.Status.MAX_UPDATES


def test_one_observer_need_not_be_in_a_list(tmp_path):
    simulate(observers=td.JSONLines(tmp_path / "log"))
    assert (tmp_path / "log").exists()


def test_the_rule_s_own_concurrency_counts_unless_the_run_says_another():
    rule = td.AsyncSGD(0.1, "uniform", concurrency=7)
    assert simulate(rule).trace.summary().in_flight_max == 7
    assert simulate(rule, concurrency=3).trace.summary().in_flight_max == 3


def test_a_gradient_of_wrong_shape_is_named():
    class Wrong(Quadratic):
        def gradient(self, client, x, sample=None):
            return np.ones((3, 1))

    with pytest.raises(td.InvalidInputError, match=r"a gradient has shape \(3, 1\), the iterates \(2,\)"):
        simulate(problem=Wrong())


@pytest.mark.parametrize("x0", [np.ones(5) * 1j, "start", np.ones((0, 5)), [[1.0], [2.0, 3.0]]], ids=repr)
def test_a_start_that_is_none(x0):
    with pytest.raises(td.InvalidInputError, match="x0"):
        simulate(x0=x0)


def test_a_run_without_an_end_is_refused():
    with pytest.raises(td.InvalidInputError, match="stop=None would never end"):
        td.run(td.AsyncSGD(0.1), make_problem(), td.Simulated(td.Constant(1.0)), stop=None)


@pytest.mark.parametrize("observers", [td.Progress, print, 5])
def test_what_is_no_observer(observers):
    with pytest.raises(td.InvalidInputError, match="observers must be an Observer"):
        simulate(observers=observers)


def test_a_problem_without_its_sizes():
    class NoDim(Quadratic):
        def __init__(self):
            self.n_clients = 2

    with pytest.raises(td.InvalidInputError, match="NoDim has no dim: its __init__ must set n_clients and dim"):
        simulate(problem=NoDim())
