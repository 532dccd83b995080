"""Traces: columns of facts, their summary, and their file."""

import json
import os
import pickle

import numpy as np
import pytest

import tardigrad as td
from tardigrad.core.delays import DelayFactor, delay_factor
from tardigrad.core.errors import RunFileError
from tardigrad.core.files import FORMAT, pack_arrays
from tardigrad.core.growth import Growth
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.core.recorder import Recorder
from tardigrad.core.trace import COLUMNS, Trace

#: task, client, worker, read, applied, in flight, submitted, started, finished, received
ROWS = [
    (0, 0, 0, 0, 0, 2, 0.0, 0.0, 1.0, 1.5),
    (2, 0, 0, 1, 1, 2, 1.5, 1.5, 2.5, 3.0),
    (1, 1, 4, 0, 2, 2, 0.0, 0.5, 6.5, 7.0),
    (3, 0, 0, 2, 2, 1, 3.0, 3.5, 4.5, 8.0),
]


def header(written):
    """What the first array of a trace file holds."""
    return np.array(json.dumps({"format": written, "updates": 3}))


@pytest.fixture
def trace():
    return Trace.from_rows(ROWS, updates=3)


def saved(tmp_path, **changes):
    """The path of a trace file with some arrays replaced; None leaves one out."""
    columns = {name: np.array([row[i] for row in ROWS], dtype) for i, (name, dtype) in enumerate(COLUMNS.items())}
    arrays = {"header": header(FORMAT), **columns} | changes
    path = tmp_path / "trace.npz"
    path.write_bytes(pack_arrays({name: array for name, array in arrays.items() if array is not None}))
    return path


def test_columns_hold_what_the_rows_said(trace):
    assert len(trace) == 4
    for i, (name, dtype) in enumerate(COLUMNS.items()):
        assert trace[name].dtype == dtype
        assert trace[name].tolist() == [row[i] for row in ROWS]


def test_an_unknown_column_is_an_error(trace):
    with pytest.raises(KeyError, match="a trace has no column 'delay'; it has task, client, worker"):
        trace["delay"]


def test_staleness_is_the_versions_between_read_and_application(trace):
    assert trace.staleness.tolist() == [0, 0, 2, 0]


def test_summary_of_a_small_trace_computed_by_hand(trace):
    summary = trace.summary()
    assert (summary.replies, summary.updates, summary.seconds) == (4, 3, 8.0)
    assert summary.updates_per_s == 3 / 8
    assert (summary.staleness_mean, summary.staleness_max) == (0.5, 2)
    # sorted 0 0 0 2: linear interpolation at place 3 q
    assert summary.staleness_quantiles == pytest.approx({0.5: 0.0, 0.9: 1.4, 0.99: 1.94})
    assert (summary.in_flight_mean, summary.in_flight_max) == (7 / 4, 2)
    assert summary.utilisation == {0: 3 / 8, 4: 6 / 8}
    assert summary.utilisation_mean == 4.5 / 8


def test_a_summary_for_people_says_the_same(trace):
    assert str(trace.summary()) == (
        "4 replies, 3 updates in 8 s (0.375 updates/s)\n"
        "staleness: mean 0.5, max 2, quantiles 0.5: 0, 0.9: 1.4, 0.99: 1.94\n"
        "tasks in flight: mean 1.75, max 2\n"
        "utilisation of 2 workers: mean 56.2 %"
    )


def test_the_summary_of_no_replies_is_nan_and_not_an_error():
    empty = Trace.from_rows([], updates=0)
    assert len(empty) == 0
    assert empty.staleness.tolist() == []
    summary = empty.summary()
    assert (summary.replies, summary.updates, summary.seconds, summary.staleness_max, summary.in_flight_max) == (
        0,
        0,
        0.0,
        0,
        0,
    )
    assert np.isnan([summary.updates_per_s, summary.staleness_mean, summary.in_flight_mean, summary.utilisation_mean]).all()
    assert str(summary).startswith("0 replies, 0 updates in 0 s")


def test_a_run_that_took_no_time_has_no_rate():
    summary = Trace.from_rows([(0, 0, 0, 0, 0, 1, 0.0, 0.0, 0.0, 0.0)], updates=1).summary()
    assert np.isnan(summary.updates_per_s)
    assert np.isnan(summary.utilisation[0])


def test_repr_counts_replies_and_updates(trace):
    assert repr(trace) == "<Trace of 4 replies, 3 updates>"


def test_nothing_can_be_recorded_after_the_trace_was_taken():
    recorder = Recorder()
    recorder.extend(recorder.pack(*ROWS[0]))
    trace = recorder.trace(1)
    with pytest.raises(BufferError):
        recorder.extend(recorder.pack(*ROWS[1]))
    assert len(trace) == 1


@pytest.mark.parametrize("rows", [ROWS, []], ids=["rows", "empty"])
def test_a_saved_trace_is_loaded_with_the_same_bits(rows, tmp_path):
    trace = Trace.from_rows(rows, updates=3)
    trace.save(tmp_path / "t.npz")
    assert os.listdir(tmp_path) == ["t.npz"]
    back = Trace.load(str(tmp_path / "t.npz"))
    assert same_bits(back, trace)
    assert back.updates == 3


def test_a_trace_survives_json_and_pickle(trace):
    arrays = {}
    tree = json.loads(json.dumps(encode(trace, arrays)))
    assert same_bits(decode(tree, arrays), trace)
    assert same_bits(pickle.loads(pickle.dumps(trace)), trace)


def test_a_newer_format_says_to_upgrade(tmp_path):
    with pytest.raises(RunFileError, match=rf"trace\.npz has format {FORMAT + 1}, this version reads up to {FORMAT}: upgrade"):
        Trace.load(saved(tmp_path, header=header(FORMAT + 1)))


@pytest.mark.parametrize("missing", [("header",), ("worker",), ("client", "received")])
def test_missing_columns_are_named(tmp_path, missing):
    with pytest.raises(RunFileError, match=rf"is no trace: it lacks {', '.join(missing)}"):
        Trace.load(saved(tmp_path, **dict.fromkeys(missing)))


def test_a_column_more_is_ignored(trace, tmp_path):
    assert same_bits(Trace.load(saved(tmp_path, mood=np.zeros(4))), trace)


@pytest.mark.parametrize(
    "changes",
    [
        {"header": np.array(["{}", "{}"])},
        {"header": np.array(FORMAT)},
        {"header": np.array("no json")},
        {"worker": np.zeros(3, np.int64)},
        {"worker": np.zeros(1, np.int64)},
        {"worker": np.array(0)},
        {"task": np.array(0)},
        {"worker": np.array(["a", "b", "c", "d"])},
        {"received": np.zeros((4, 1))},
    ],
    ids=lambda changes: " ".join(f"{name} {value.dtype}{value.shape}" for name, value in changes.items()),
)
def test_columns_that_do_not_fit_together_are_an_error_that_names_the_file(tmp_path, changes):
    with pytest.raises(RunFileError, match=r"trace\.npz"):
        Trace.load(saved(tmp_path, **changes))


def test_a_truncated_file_is_named(trace, tmp_path):
    path = tmp_path / "t.npz"
    path.write_bytes(trace.to_bytes()[:-100])
    with pytest.raises(RunFileError, match=r"t\.npz is not a readable npz file"):
        Trace.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunFileError, match=r"cannot read .*none\.npz: No such file"):
        Trace.load(tmp_path / "none.npz")


def test_the_trace_of_a_saved_run_is_loaded_from_its_folder(small_problem, tmp_path):
    result = td.run(td.AsyncSGD(0.1), small_problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(9))
    folder = result.save(tmp_path / "run")
    assert same_bits(Trace.load(folder), result.trace)
    (part,) = folder.glob("trace-*.npz")
    part.write_bytes(Trace.from_rows(ROWS, updates=3).to_bytes())
    with pytest.raises(RunFileError, match=r"trace-0-9-[0-9a-f]+\.npz .* is not the file that run\.json describes"):
        Trace.load(folder)
    with pytest.raises(RunFileError, match="holds no saved run"):
        Trace.load(tmp_path)


def test_a_run_without_its_trace_is_named(small_problem, tmp_path):
    td.run(td.AsyncSGD(0.1), small_problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(9)).save(tmp_path)
    header = json.loads((tmp_path / "run.json").read_text())
    del header["files"]["trace-0-9"]
    (tmp_path / "run.json").write_text(json.dumps(header))
    with pytest.raises(RunFileError, match=r"run\.json does not say which files belong to it \(KeyError\('trace-0-9'\)\)"):
        Trace.load(tmp_path)


def test_measures_of_a_trace_are_those_of_its_columns(trace):
    assert trace.delay_factor() == delay_factor(trace["version_read"], trace["version_applied"], trace["worker"])
    assert trace.delay_factor().delta_a == 3
    assert np.isnan(trace.growth().exponent)
    # the second job of worker 0 was issued at 1.5; worker 4 had nothing else; the last was issued at 3
    assert trace.occupancy().tolist() == [1.5, 1.5, 7.0, 5.0]


def test_measures_for_people():
    found = Growth(0.5, 0.01, 2.0, 0.6, 3, 10, 100)
    assert str(found) == (
        "growth of staleness with the version n: exponent 0.5 +- 0.01 (client 3), at most 2 n^0.5;"
        " the largest so far grows like n^0.6; from 100 replies"
    )
    assert "exponent -0.5 +- 0.01, at most 2 n^0;" in str(Growth(-0.5, 0.01, 2.0, 0.6, None, 10, 100))
    found = DelayFactor(6.25, 25, 4, {0: 24, 1: 1}, 5.0)
    assert (
        str(found)
        == "delay factor: c = 6.25 (25 updates in the slowest delay, 4 workers), 5 for the mean delay of the slowest worker"
    )


def test_a_trace_is_not_saved_below_a_regular_file(trace, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFileError, match=r"cannot write .*t\.npz: .*Choose a folder"):
        trace.save(tmp_path / "file" / "t.npz")
