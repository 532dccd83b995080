"""Replay tells what differs, and refuses what is no recorded run."""

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem


@pytest.fixture
def result(small_problem):
    engine = td.Simulated(td.Exponential(1.0))
    return td.run(td.AsyncSGD(0.1, "uniform"), small_problem, engine, stop=td.MaxUpdates(30), snapshot_every=10)


def test_a_replay_has_the_recorded_times_and_workers(result):
    again = td.replay(result).result
    assert again.trace.table.tobytes() == result.trace.table.tobytes()
    assert again.status is td.Status.ENDED
    assert again.message == "the recorded trace ends here, after 30 replies"


class CutOff(td.Observer):
    every = 5

    def observe(self, moment):
        if moment.version == 25:
            raise ZeroDivisionError("a run that is cut off on purpose")


@pytest.mark.parametrize("snapshot_every", [None, 10, 25])
def test_a_checkpoint_of_a_run_that_was_cut_off_replays(tmp_path, small_problem, snapshot_every):
    engine, stop = td.Simulated(td.Exponential(1.0)), td.MaxUpdates(30)
    kept = {"checkpoint": tmp_path, "snapshot_every": snapshot_every, "observers": CutOff()}
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        td.run(td.AsyncSGD(0.1), small_problem, engine, stop=stop, **kept)
    saved = td.Result.load(tmp_path)
    assert saved.status is td.Status.UNFINISHED
    assert td.replay(saved).difference == ""
    saved.state.x[0] += 1e-9
    assert td.replay(saved).difference == "the final states differ"


def test_another_problem_is_seen_in_the_iterates(result):
    replayed = td.replay(result, problem=make_problem(batch=4))
    assert not replayed.identical
    assert replayed.difference == "the iterate differs first between versions 0 and 10"


def test_a_changed_time_is_taken_over(result):
    result.trace.table["received"][5] += 1e-3
    assert td.replay(result).result.trace["received"][5] == result.trace["received"][5]


def test_a_changed_order_is_refused_or_seen(result):
    rows = result.trace.table.copy()
    rows[[10, 25]] = rows[[25, 10]]
    result.trace = td.Trace(rows, 30)
    with pytest.raises(td.ReplayError, match="row 10 of the trace answers task"):
        td.replay(result)


def test_a_changed_version_is_refused(result):
    result.trace.table["version_read"][12] -= 1
    with pytest.raises(td.ReplayError, match=r"row 12 of the trace answers .* here it is of client \d at version"):
        td.replay(result)


def test_a_changed_client_is_refused(result):
    result.trace.table["client"][12] += 1
    with pytest.raises(td.ReplayError, match=r"row 12 of the trace answers .* here it is of client \d at version"):
        td.replay(result)


def test_a_shortened_trace_gives_another_final_state(result):
    result.trace = td.Trace(result.trace.table[:20].copy(), 20)
    assert td.replay(result).difference == "3 snapshots instead of 4"


def test_a_state_that_was_tampered_with(result):
    result.state.issued += 1
    assert td.replay(result).difference == "the final states differ"


def test_a_divergence_ends_the_replay_before_the_trace(result):
    class Worse(type(result.problem)):
        def gradient(self, client, x, sample=None):
            return super().gradient(client, x, sample) * np.inf

    worse = Worse(result.problem.data, result.problem.partition, batch=3)
    replayed = td.replay(result, problem=worse)
    assert replayed.difference.startswith("the replay ended after 0 of 30 replies: the reply to task")


@pytest.mark.parametrize("wrong", [None, 5, "trace"])
def test_a_replay_engine_needs_a_trace(wrong):
    with pytest.raises(td.InvalidInputError, match=r"Replay needs a trace, such as result\.trace"):
        td.Replay(wrong)


def test_what_is_no_run_is_refused(result):
    with pytest.raises(td.InvalidInputError, match="expected a Result or the folder of a saved run"):
        td.replay(result.trace)


def test_a_result_without_its_problem(result):
    result.problem = None
    with pytest.raises(td.RunFileError, match="saved without its problem"):
        td.replay(result)
    with pytest.raises(td.RunFileError, match="saved without its problem"):
        result.evaluate()
