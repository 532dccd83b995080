"""Observers are called when they ask to be, and always closed."""

import json

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from tardigrad.core.json_lines import for_json


class Log(td.Observer):
    def __init__(self, every):
        self.every, self.versions, self.ends = every, [], []

    def observe(self, moment):
        self.versions.append(moment.version)

    def close(self, status, message):
        self.ends.append(status)


def run(*observers, rule=None, n=25, **kwargs):
    engine = td.Simulated(td.Exponential(1.0))
    return td.run(rule or td.AsyncSGD(0.1), make_problem(), engine, stop=td.MaxUpdates(n), observers=observers, **kwargs)


def test_every_so_many_updates_and_at_both_ends():
    log, rare = Log(10), Log(1000)
    run(log, rare)
    assert log.versions == [0, 10, 20, 25]
    assert rare.versions == [0, 25]
    assert log.ends == [td.Status.MAX_UPDATES]


def test_rounds_are_counted_in_updates():
    log = Log(2)
    run(log, rule=td.SyncSGD(0.1), n=5)
    assert log.versions == [0, 2, 4, 5]


def test_history_holds_snapshots_and_their_measures():
    result = run(snapshot_every=10)
    history = result.history
    assert history.version.tolist() == [0, 10, 20, 25]
    assert history.x.shape == (4, 5)
    assert history.x[-1].tobytes() == result.x.tobytes()
    assert (np.diff(history.seconds) > 0).all()
    measures = result.evaluate()
    assert measures["loss"].shape == (4,)
    assert measures["loss"][-1] == result.problem.loss(result.x)
    assert list(result.evaluate(("loss",))) == ["loss"]


def test_json_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    run(td.JSONLines(path, every=10, measures=True))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("version") for line in lines] == [0, 10, 20, 25, None]
    assert lines[1]["loss"] < lines[0]["loss"]
    assert lines[-1] == {"status": "max_updates", "message": "reached the limit of 25 updates"}


def test_json_lines_of_a_run_that_diverges_are_json(tmp_path):
    """Which has no infinity: a reader in another language would stop at it."""
    path = tmp_path / "log.jsonl"
    with np.errstate(over="ignore", invalid="ignore"):
        run(td.JSONLines(path, measures=True), rule=td.AsyncSGD(1e200), n=400)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert lines[-2]["loss"] is None
    assert lines[-1]["status"] == "diverged"


def test_numbers_that_json_has_not_are_null():
    assert for_json(np.array([1.0, np.nan, np.inf])) == [1.0, None, None]
    assert for_json(np.float64(np.nan)) is None
    assert for_json(np.float32(0.5)) == 0.5
    assert for_json(np.array([[1, 2]])) == [[1, 2]]
    assert for_json({0.5: (1, "nan", None, True)}) == {"0.5": [1, "nan", None, True]}


def test_json_lines_to_a_folder_that_is_missing(tmp_path):
    with pytest.raises(td.RunFileError, match="cannot write"):
        run(td.JSONLines(tmp_path / "missing" / "log.jsonl"))


def test_a_full_disk_is_an_error_that_names_the_file():
    with pytest.raises(td.RunFileError, match="cannot write /dev/full: No space left"):
        run(td.JSONLines("/dev/full"))


@pytest.mark.parametrize("stop", [td.MaxUpdates(30), td.MaxSeconds(5.0), td.MaxOracleCalls(30)], ids=repr)
def test_progress_goes_to_standard_error_only(capfd, stop):
    td.run(td.AsyncSGD(0.1), make_problem(), td.Simulated(td.Constant(1.0)), stop=stop, observers=[td.Progress("demo run")])
    out, err = capfd.readouterr()
    assert out == ""
    assert "demo run" in err
    assert "updates/s" in err


def test_progress_counts_updates_and_what_there_are_of_them():
    assert td.Progress().text(12, 40, 2.0) == "12/40 updates 6 updates/s"
    assert td.Progress().text(12, np.inf, 0.5) == "12 updates 24 updates/s"
    assert td.Progress().text(12, 40, 2.0, first=8) == "12/40 updates 2 updates/s"


def test_progress_of_a_run_that_goes_on_counts_only_what_it_makes(tmp_path):
    class Noted(td.Progress):
        def text(self, version, most, seconds, first=0):
            noted.append((version, first))
            return ""

    noted = []
    args = td.AsyncSGD(0.1), make_problem(), td.Simulated(td.Exponential(1.0))
    td.run(*args, stop=td.MaxUpdates(9), checkpoint=str(tmp_path), observers=Noted())
    assert noted[-1] == (9, 0)
    td.resume(str(tmp_path), stop=td.MaxUpdates(30), observers=Noted())
    assert noted[-1] == (30, 9)


def test_progress_does_not_make_free_workers_meet_after_each_update(monkeypatch, capfd):
    slices, run_free = [], td.Threads.run_free
    monkeypatch.setattr(td.Threads, "run_free", lambda *args: slices.append(1) or run_free(*args))
    problem = td.LinearSystem(np.eye(4), np.ones(4), n_clients=2)
    stop = td.MaxUpdates(2000)
    td.run(td.RowAction(0.5), problem, td.Threads(2, lock_free=True), stop=stop, observers=td.Progress())
    assert len(slices) < 100
    assert "2000/2000 updates" in capfd.readouterr().err


class Clocked(td.Observer):
    """Ends the run when it is looked at again after the start."""

    every, every_seconds = 10**15, 0.01

    def observe(self, moment):
        return "time is over" if moment.version else None


@pytest.mark.parametrize(
    ("rule", "engine"),
    [
        (td.AsyncSGD(0.1), td.Simulated(td.Exponential(1.0))),
        (td.AsyncSGD(0.1), td.Threads(2)),
        (td.Hogwild(0.1), td.Threads(2, lock_free=True)),
    ],
)
def test_an_observer_may_look_by_the_clock(rule, engine):
    log = Log(10**15)
    stop = td.MaxUpdates(10**12) | td.MaxSeconds(1e9 if isinstance(engine, td.Simulated) else 60.0)
    result = td.run(rule, make_problem(), engine, stop=stop, observers=[log, Clocked()])
    assert (result.status, result.message) == (td.Status.STOPPED, "time is over")
    assert log.versions == [0, result.state.version]  # the others look at updates only


@pytest.mark.parametrize("seconds", [0, -1.0, np.nan, "1"])
def test_bad_seconds_between_two_looks(seconds):
    observer = Log(1)
    observer.every_seconds = seconds
    with pytest.raises(td.InvalidInputError, match=r"Log.every_seconds must be None or a number of seconds > 0"):
        run(observer)


@pytest.mark.parametrize("every", [0, -1, 2.5])
def test_bad_every(every):
    with pytest.raises(td.InvalidInputError, match="every is an integer >= 1"):
        run(Log(every))


def test_an_observer_that_is_none():
    with pytest.raises(td.InvalidInputError, match="must be Observer objects"):
        run("progress")


class Sees(td.Observer):
    """Keeps what a moment shows of the state and of the trace."""

    every = 10

    def __init__(self):
        self.states, self.rows = [], []

    def observe(self, moment):
        self.states.append((moment.state.version, moment.state.x.tobytes() == moment.x.tobytes()))
        self.rows.append(moment.rows(0, moment.replies))


def test_an_observer_sees_the_state_and_the_trace_so_far():
    sees = Sees()
    result = run(sees)
    assert sees.states == [(0, True), (10, True), (20, True), (25, True)]
    assert [len(rows) for rows in sees.rows] == [0, 10, 20, 25]
    for rows in sees.rows:
        assert rows.tobytes() == result.trace.rows(0, len(rows)).tobytes()


def test_a_lock_free_run_shows_no_rows():
    sees = Sees()
    problem = td.LinearSystem(np.eye(4), np.ones(4), n_clients=2)
    td.run(td.RowAction(0.5), problem, td.Threads(2, lock_free=True), stop=td.MaxUpdates(20), observers=sees)
    assert [len(rows) for rows in sees.rows] == [0] * len(sees.rows)
    assert all(same for _, same in sees.states)


class EndAt(Log):
    def __init__(self, every, version, message="enough"):
        super().__init__(every)
        self.version, self.message = version, message

    def observe(self, moment):
        super().observe(moment)
        return self.message if moment.version >= self.version else None


@pytest.mark.parametrize(
    ("rule", "engine"),
    [(td.AsyncSGD(0.1), td.Simulated(td.Exponential(1.0))), (td.Hogwild(0.1), td.Threads(2, lock_free=True))],
)
def test_an_observer_ends_a_run_and_the_others_still_see_that_moment(rule, engine):
    log, end = Log(5), EndAt(5, 10)
    result = td.run(rule, make_problem(), engine, stop=td.MaxUpdates(100), observers=[end, log])
    assert (result.status, result.message) == (td.Status.STOPPED, "enough")
    assert result.state.version == 10
    assert log.versions == end.versions == [0, 5, 10]
    assert end.ends == [td.Status.STOPPED]


def test_the_first_observer_that_ends_a_run_says_why():
    assert run(EndAt(10, 10, "first"), EndAt(5, 5, "second")).message == "second"
    assert run(EndAt(5, 5, "first"), EndAt(5, 5, "second")).message == "first"


def test_an_observer_can_end_a_run_before_it_begins():
    result = run(EndAt(5, 0))
    assert (result.status, result.state.version) == (td.Status.STOPPED, 0)


def test_a_run_that_an_observer_ended_is_saved_and_read(tmp_path):
    result = run(EndAt(5, 5))
    assert td.Result.load(result.save(tmp_path / "run")).status is td.Status.STOPPED
