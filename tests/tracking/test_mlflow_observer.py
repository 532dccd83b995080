"""Runs in MLflow's files, read back with MLflow's own client; and servers that fail."""

import os
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from needs import needs_mlflow
from tardigrad.tracking import mlflow_sender

pytestmark = needs_mlflow


@pytest.fixture(autouse=True)
def _no_reports(monkeypatch):
    """MLflow tells nobody that it is used, and asks for files are put back."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)


def tracked(folder, n=250, rule=None, engine=None, problem=None, every=100, measures="after", **kwargs):
    """A run with a tracker that logs to a folder."""
    tracker = td.MLflow("tests", run_name="a run", tracking_uri=folder, every=every, measures=measures)
    engine = engine or td.Simulated(td.Constant(1.0))
    problem = problem or make_problem()
    kwargs = {"stop": td.MaxUpdates(n), **kwargs}
    result = td.run(rule or td.AsyncSGD(0.05), problem, engine, observers=tracker, **kwargs)
    return tracker, result


def curve(tracker, name):
    """The points of a metric: steps, values, and seconds after the first."""
    points = sorted(tracker.client().get_metric_history(tracker.run_id, name), key=lambda point: point.step)
    begin = min(point.timestamp for point in points)
    return [p.step for p in points], [p.value for p in points], [(p.timestamp - begin) / 1000 for p in points]


def test_a_run_is_there_with_its_parameters_and_its_end(tmp_path):
    tracker, result = tracked(tmp_path, seed=7, concurrency=3, rule=td.AsyncSGD(td.PowerStep(0.1, 0.5), next_client="shuffled"))
    run = tracker.client().get_run(tracker.run_id)
    assert run.info.run_name == "a run"
    assert tracker.client().get_experiment(run.info.experiment_id).name == "tests"
    expected = {
        "rule": "AsyncSGD",
        "rule.step": "PowerStep",
        "rule.step.scale": "0.1",
        "engine": "Simulated",
        "engine.timing": "Constant",
        "problem": "LeastSquares",
        "problem.n_clients": "4",
        "problem.dim": "5",
        "problem.dtype": "float64",
        "seed": "7",
        "concurrency": "3",
        "stop": "MaxUpdates",
        "stop.n": "250",
    }
    assert {name: run.data.params.get(name) for name in expected} == expected
    assert run.info.status == "FINISHED"
    assert run.data.tags["tardigrad.status"] == "max_updates"
    assert run.data.tags["tardigrad.message"] == result.message
    summary = result.trace.summary()
    for name in ("staleness_mean", "staleness_max", "updates_per_s", "in_flight_mean"):
        assert run.data.metrics[f"summary.{name}"] == pytest.approx(getattr(summary, name))
    assert run.data.metrics["summary.staleness_q90"] == summary.staleness_quantiles[0.9]


def test_curves_are_by_updates_and_by_the_engines_seconds(tmp_path):
    tracker, result = tracked(tmp_path, snapshot_every=100)
    steps, seconds, after = curve(tracker, "seconds")
    assert steps == [0, 100, 200, 250]
    assert seconds == result.history.seconds.tolist()
    assert after == pytest.approx(seconds, abs=2e-3)
    assert curve(tracker, "replies")[1] == [0, 100, 200, 250]
    assert curve(tracker, "updates_per_second")[0] == [100, 200, 250]
    assert curve(tracker, "updates_per_second")[1] == pytest.approx([4.0, 4.0, 50 / 13])  # four clients, a second each


@pytest.mark.parametrize("measures", ["after", "live"])
@pytest.mark.parametrize("rule", [td.AsyncSGD(0.05), td.Hogwild(0.05)], ids=["new iterates", "one that is written to"])
def test_measures_are_those_of_the_history(rule, measures, tmp_path):
    tracker, result = tracked(tmp_path, measures=measures, snapshot_every=100, rule=rule)
    expected = result.evaluate()
    assert len(expected) > 1
    for name, values in expected.items():
        steps, found, after = curve(tracker, name)
        assert steps == [0, 100, 200, 250]
        assert found == values.tolist()
        assert after == pytest.approx(result.history.seconds - result.history.seconds[0], abs=2e-3)


def test_measures_are_evaluated_only_when_they_may_be(tmp_path):
    class Counting(td.LeastSquares):
        calls = 0

        def measures(self, x, names=None):
            Counting.calls += 1
            return super().measures(x, names)

    class AtTheEnd(td.Observer):
        every = 50

        def observe(self, moment):
            self.seen = Counting.calls

    given = make_problem()
    for measures, during, total in (("never", 0, 0), ("after", 0, 4), ("live", 3, 4)):  # the last look is after that of `watch`
        Counting.calls, watch = 0, AtTheEnd()
        tracker = td.MLflow(tracking_uri=tmp_path, measures=measures)
        problem = Counting((given.data.X, given.data.y), td.Iid(4))
        td.run(td.AsyncSGD(0.05), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(250), observers=[tracker, watch])
        assert (watch.seen, Counting.calls) == (during, total)
        assert ("loss" in tracker.client().get_run(tracker.run_id).data.metrics) == (total > 0)


def test_replicas_have_their_least_mean_and_largest(tmp_path):
    tracker, result = tracked(tmp_path, n=100, rule=td.AsyncSGD([0.01, 0.05]), replicas=3)
    values = result.evaluate()["loss"][-1]
    assert values.shape == (3, 2)
    for what in ("min", "mean", "max"):
        assert curve(tracker, f"loss.{what}")[1][-1] == pytest.approx(getattr(values, what)())
    assert "loss" not in tracker.client().get_run(tracker.run_id).data.metrics


def test_a_run_that_diverges_has_failed(tmp_path):
    tracker, result = tracked(tmp_path, n=100_000, rule=td.AsyncSGD(1e3))
    assert result.status is td.Status.DIVERGED
    run = tracker.client().get_run(tracker.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["tardigrad.status"] == "diverged"


def test_a_replica_that_diverges_is_counted(tmp_path):
    tracker, result = tracked(tmp_path, n=2000, rule=td.AsyncSGD([0.01, 1e3]), every=1000)
    assert result.diverged.tolist() == [False, True]
    assert curve(tracker, "diverged")[1][-1] == 1
    assert tracker.client().get_run(tracker.run_id).info.status == "FINISHED"


class Breaks(td.LeastSquares):
    """An oracle that fails after a while."""

    calls = 0

    def gradient(self, client, x, sample=None):
        Breaks.calls += 1
        if Breaks.calls > 60:
            raise (KeyboardInterrupt if self.interrupts else ZeroDivisionError)("on purpose")
        return super().gradient(client, x, sample)


@pytest.mark.parametrize(("interrupts", "status"), [(False, "FAILED"), (True, "KILLED")])
def test_a_run_that_ends_with_an_exception_is_marked(interrupts, status, tmp_path):
    given = make_problem()
    problem = Breaks((given.data.X, given.data.y), td.Iid(4))
    problem.interrupts, Breaks.calls = interrupts, 0
    tracker = td.MLflow(tracking_uri=tmp_path, every=10)
    with pytest.raises(BaseException, match="on purpose"):
        td.run(td.AsyncSGD(0.05), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(250), observers=tracker)
    run = tracker.client().get_run(tracker.run_id)
    assert run.info.status == status
    assert run.data.tags["tardigrad.status"] == "failed"
    assert "on purpose" in run.data.tags["tardigrad.message"]
    assert curve(tracker, "replies")[0][-1] >= 40  # what was known is there


def test_an_interrupted_run_was_killed(tmp_path):
    class CtrlC(td.Observer):
        every = 50

        def observe(self, moment):
            if moment.version == 50:
                os.kill(os.getpid(), signal.SIGINT)

    tracker = td.MLflow(tracking_uri=tmp_path)
    engine = td.Simulated(td.Constant(1.0))
    result = td.run(td.AsyncSGD(0.05), make_problem(), engine, stop=td.MaxUpdates(250), observers=[CtrlC(), tracker])
    assert result.status is td.Status.INTERRUPTED
    run = tracker.client().get_run(tracker.run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["tardigrad.status"] == "interrupted"
    assert "loss" in run.data.metrics


@pytest.mark.parametrize(
    "engine",
    [lambda: td.Threads(2), lambda: td.Processes(2), lambda: td.Prescribed(2)],
    ids=["threads", "processes", "prescribed"],
)
def test_other_engines_are_tracked_too(engine, tmp_path):
    tracker, result = tracked(tmp_path, engine=engine())
    run = tracker.client().get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["engine"] == type(result.engine).__name__
    assert run.data.metrics["summary.staleness_max"] == result.trace.summary().staleness_max


def test_a_lock_free_run_has_no_staleness(tmp_path):
    system = td.LinearSystem(np.eye(4), np.ones(4), n_clients=2)
    tracker, _ = tracked(tmp_path, rule=td.RowAction(0.5), problem=system, engine=td.Threads(2, lock_free=True), n=100)
    run = tracker.client().get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert not any(name.startswith("summary.") for name in run.data.metrics)


def test_a_tracked_run_has_the_bits_of_any_other_and_replays(tmp_path):
    _, result = tracked(tmp_path, measures="live", every=1)
    plain = td.run(td.AsyncSGD(0.05), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(250))
    assert result.x.tobytes() == plain.x.tobytes()
    assert td.replay(result).identical


def test_a_tracker_may_follow_several_runs(tmp_path):
    tracker = td.MLflow(tracking_uri=tmp_path)
    runs = []
    for _ in range(2):
        td.run(td.AsyncSGD(0.05), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(20), observers=tracker)
        runs.append(tracker.run_id)
    assert len(set(runs)) == 2
    assert {tracker.client().get_run(each).info.status for each in runs} == {"FINISHED"}


def test_a_resumed_run_is_a_new_one_whose_steps_go_on(tmp_path):
    folder = tmp_path / "run"
    first, _ = tracked(tmp_path / "mlflow", n=100, checkpoint=folder)
    second = td.MLflow(tracking_uri=tmp_path / "mlflow", every=100)
    result = td.resume(folder, stop=td.MaxUpdates(300), observers=second)
    assert first.run_id != second.run_id
    assert curve(second, "replies")[0] == [100, 200, 300]
    metrics = second.client().get_run(second.run_id).data.metrics
    assert metrics["summary.staleness_mean"] == pytest.approx(result.trace.summary().staleness_mean)


def test_many_parameters_and_values_go_in_several_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_sender, "_PARAMETERS", 3)
    monkeypatch.setattr(mlflow_sender, "_METRICS", 7)
    tracker, _ = tracked(tmp_path, every=5)
    assert len(curve(tracker, "loss")[0]) == 51
    assert len(tracker.client().get_run(tracker.run_id).data.params) > 10


# --- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"measures": True}, "measures must be 'after', 'live' or 'never', not True"),
        ({"experiment": ""}, "experiment must be the name of one, not ''"),
        ({"experiment": 3}, "experiment must be the name of one, not 3"),
    ],
)
def test_wrong_arguments_are_named(given, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.MLflow(**given)


def test_a_wrong_interval_is_named(tmp_path):
    with pytest.raises(td.InvalidInputError, match=r"MLflow\.every is an integer >= 1, not 0"):
        tracked(tmp_path, every=0)


def test_without_mlflow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(td.InvalidInputError, match=r"pip install 'tardigrad\[mlflow\]'"):
        td.MLflow()


def test_importing_tardigrad_does_not_import_mlflow():
    code = "import sys, tardigrad as td; td.MLflow; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


# --- servers that fail ---------------------------------------------------------------------------------------------------


class Started(td.Simulated):
    """An engine that must not be opened."""

    def open(self, half, placement):
        raise AssertionError("the run has started")


def refused(uri, match):
    with pytest.raises(td.TrackerError, match=match):
        tracked(uri, engine=Started(td.Constant(1.0)))


def test_a_server_that_is_not_there_is_an_error_before_anything_starts(monkeypatch):
    monkeypatch.setattr(mlflow_sender, "PATIENCE", 0.3)
    refused(
        "http://127.0.0.1:9", r"MLflow at http://127\.0\.0\.1:9 takes no run: it did not answer within 0\.3 s\. Check tracki"
    )


def test_a_server_that_refuses_is_an_error_at_once(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    refused("http://127.0.0.1:9", r"takes no run: MlflowException: .*onnection refused")


def test_a_place_that_mlflow_does_not_know_is_an_error(tmp_path):
    refused("odd://place", "MLflow at odd://place takes no run: ")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "folder", "takes no run: ")


def failing(monkeypatch, fails):
    """Let log_batch fail while `fails()`; what it was called with."""
    client = mlflow_sender.import_mlflow().MlflowClient
    original, calls = client.log_batch, []

    def log_batch(self, run_id, metrics=(), params=(), **kwargs):
        calls.append(len(metrics))
        if metrics and fails():
            raise ConnectionError("the server\nis gone")
        original(self, run_id, metrics=metrics, params=params, **kwargs)

    monkeypatch.setattr(client, "log_batch", log_batch)
    return calls


class WaitFor(td.Observer):
    """Hold the run at a version until something has happened."""

    def __init__(self, version, happened, act=lambda: None):
        self.every, self.version, self.happened, self.act = version, version, happened, act

    def observe(self, moment):
        if moment.version == self.version:
            self.act()
            wait_until(self.happened)


def wait_until(happened):
    event = threading.Event()
    for _ in range(10_000):
        if happened():
            return
        event.wait(0.005)
    raise AssertionError("it did not happen")


def test_a_server_that_goes_away_costs_one_warning_and_comes_back(tmp_path, monkeypatch):
    down = threading.Event()
    down.set()
    calls = failing(monkeypatch, down.is_set)
    tracker = td.MLflow(tracking_uri=tmp_path, every=10)
    failed = WaitFor(50, lambda: tracker._sender.failure is not None)
    back = WaitFor(150, lambda: True, down.clear)
    with pytest.warns(UserWarning, match=r"takes no values \(ConnectionError: the server is gone\); the run goes on") as caught:
        result = td.run(
            td.AsyncSGD(0.05), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(250),
            observers=[failed, back, tracker],
        )  # fmt: skip
    assert len(caught) == 1
    assert result.status is td.Status.MAX_UPDATES
    assert curve(tracker, "replies")[0] == list(range(0, 251, 10))
    assert tracker.client().get_run(tracker.run_id).info.status == "FINISHED"
    assert len(calls) > 2


def test_a_server_that_stays_away_does_not_harm_the_run(tmp_path, monkeypatch):
    failing(monkeypatch, lambda: True)
    with pytest.warns(UserWarning, match="MLflow at") as caught:
        tracker, result = tracked(tmp_path, every=10)
    assert result.status is td.Status.MAX_UPDATES
    lost = [str(each.message) for each in caught if "the end of the run" in str(each.message)]
    assert len(lost) == 1
    assert "did not get to MLflow" in lost[0]
    assert "ConnectionError: the server is gone" in lost[0]
    assert tracker.client().get_run(tracker.run_id).info.status == "RUNNING"


def test_a_silent_server_is_not_waited_for(tmp_path, monkeypatch):
    answers = threading.Event()
    failing(monkeypatch, lambda: not answers.wait(60))
    monkeypatch.setattr(mlflow_sender, "PATIENCE", 60.0)
    tracker = td.MLflow(tracking_uri=tmp_path, every=10)
    seen = []

    class Sees(td.Observer):
        every = 250

        def observe(self, moment):
            seen.append((moment.version, answers.is_set()))

        def close(self, status, message):  # the tracker is closed after this
            monkeypatch.setattr(mlflow_sender, "PATIENCE", 0.2)

    with pytest.warns(UserWarning, match=r"the end of the run, and \d+ values, did not get .* did not answer within 0\.2 s"):
        td.run(
            td.AsyncSGD(0.05),
            make_problem(),
            td.Simulated(td.Constant(1.0)),
            stop=td.MaxUpdates(250),
            observers=[tracker, Sees()],
        )
    assert seen == [(0, False), (250, False)]
    answers.set()


def test_a_run_that_is_made_too_late_is_not_left_as_running(tmp_path, monkeypatch):
    answers = threading.Event()
    client = mlflow_sender.import_mlflow().MlflowClient
    original = client.create_run

    def create_run(self, *args, **kwargs):
        answers.wait(60)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(client, "create_run", create_run)
    monkeypatch.setattr(mlflow_sender, "PATIENCE", 0.5)
    refused(tmp_path, "did not answer within 0.5 s")
    answers.set()
    tracker = td.MLflow("tests", tracking_uri=tmp_path)
    wait_until(lambda: [run.info.status for run in runs_of(tracker)] == ["FAILED"])


def runs_of(tracker):
    client = tracker.client()
    experiment = client.get_experiment_by_name("tests")
    return [] if experiment is None else client.search_runs([experiment.experiment_id])


def test_no_warning_is_given_for_a_server_that_answers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracked(tmp_path, every=1, n=50)
