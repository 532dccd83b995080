"""Traces for other programs: what a viewer, a spreadsheet and pandas are given."""

import csv
import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tardigrad as td
from needs import needs_pandas
from tardigrad.benchmarks.simulator import Identity
from tardigrad.core import trace_export
from tardigrad.core.errors import RunFileError
from tardigrad.core.trace import COLUMNS, Trace

#: task, client, worker, read, applied, in flight, submitted, started, finished, received
ROWS = [
    (0, 7, 0, 0, 0, 2, 0.0, 0.25, 1.0, 1.5),
    (1, 8, 4, 0, 1, 2, 0.0, 0.5, 2.0, 2.25),
    (2, 7, 0, 1, 2, 2, 1.5, 1.75, 3.0, 3.0),
    (3, 8, 4, 2, 3, 1, 2.25, 2.25, 4.0, 4.0),
]


@pytest.fixture
def trace():
    return Trace.from_rows(ROWS, updates=4)


def events_of(trace):
    content = json.loads(b"".join(trace_export.chrome_events(trace)))
    assert set(content) == {"displayTimeUnit", "otherData", "traceEvents"}
    return content["traceEvents"]


def slices(events, cat="job"):
    return [event for event in events if event["ph"] == "X" and event["cat"] == cat]


def nanoseconds(event):
    begin = round(event["ts"] * 1000)
    return begin, begin + round(event["dur"] * 1000)


def test_every_event_has_what_the_format_asks_for(trace):
    required = {"M": {"args"}, "X": {"ts", "dur", "tid", "cat", "args"}, "C": {"ts", "args"}}
    events = events_of(trace)
    for event in events:
        assert {"name", "ph", "pid"} | required[event["ph"]] <= set(event)
        assert isinstance(event["pid"], int)
        assert event.get("dur", 0) >= 0
    assert {event["ph"] for event in events} == {"M", "X", "C"}


def test_jobs_have_their_facts_and_times_in_microseconds(trace):
    jobs = slices(events_of(trace))
    assert [job["name"] for job in jobs] == ["client 7", "client 8", "client 7", "client 8"]
    assert jobs[2]["args"] == {
        "task": 2,
        "client": 7,
        "version_read": 1,
        "version_applied": 2,
        "staleness": 1,
        "wait_us": 250_000,
    }
    # submitted 0 to received 1.5 s; after that from the reception of the last job
    assert [(job["ts"], job["dur"]) for job in jobs] == [(0, 1.5e6), (0, 2.25e6), (1.5e6, 1.5e6), (2.25e6, 1.75e6)]


def test_the_computation_is_inside_unless_it_is_all(trace):
    inner = slices(events_of(trace), "compute")
    assert [(one["args"]["task"], one["ts"], one["dur"]) for one in inner] == [
        (0, 0.25e6, 0.75e6),
        (1, 0.5e6, 1.5e6),
        (2, 1.75e6, 1.25e6),
    ]


def test_a_worker_is_a_track_with_its_name(trace):
    events = events_of(trace)
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert sorted(names.values()) == ["worker 0", "worker 4"]
    assert [names[job["tid"]] for job in slices(events)] == ["worker 0", "worker 4", "worker 0", "worker 4"]
    order = {event["tid"]: event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"}
    assert {names[tid]: place for tid, place in order.items()} == {"worker 0": 0, "worker 4": 4}
    assert 0 not in names  # the idle thread
    assert names.keys().isdisjoint({event["pid"] for event in events})  # a main thread is listed apart


def test_counters_speak_when_their_value_changes(trace):
    events = [event for event in events_of(trace) if event["ph"] == "C"]
    staleness = [(event["ts"], event["args"]) for event in events if event["name"] == "staleness"]
    assert staleness == [(1.5e6, {"staleness": 0}), (2.25e6, {"staleness": 1})]
    in_flight = [(event["ts"], event["args"]) for event in events if event["name"] == "tasks in flight"]
    assert in_flight == [(1.5e6, {"tasks in flight": 2}), (4e6, {"tasks in flight": 1})]


def test_a_job_on_the_virtual_clock_is_one_slice():
    trace = td.run(td.AsyncSGD(1e-9), Identity(3, 1), td.Simulated(td.Exponential()), stop=td.MaxUpdates(50)).trace
    events = events_of(trace)
    assert len(slices(events)) == 50
    assert slices(events, "compute") == []


def assert_nested(events):
    """Slices of a track contain each other or do not meet, in whole nanoseconds."""
    tracks = {}
    for event in events:
        if event["ph"] == "X":
            tracks.setdefault(event["tid"], []).append(nanoseconds(event))
    for spans in tracks.values():
        around = []
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while around and around[-1] <= begin:
                around.pop()
            assert not around or end <= around[-1]
            around.append(end)


seconds = st.floats(0, 100, allow_nan=False)


@given(st.lists(st.tuples(st.integers(0, 2), seconds, seconds, seconds, seconds), max_size=25))
def test_slices_never_cross_whatever_the_times(jobs):
    # also where one worker has two jobs at a time
    rows = [(i, w, w, 0, i, 1, *sorted(times)) for i, (w, *times) in enumerate(jobs)]
    rows.sort(key=lambda row: row[-1])
    events = events_of(Trace.from_rows(rows, updates=len(rows)))
    assert_nested(events)
    assert sorted(job["args"]["task"] for job in slices(events)) == list(range(len(rows)))
    for job in slices(events):
        begin, end = nanoseconds(job)
        row = next(row for row in rows if row[0] == job["args"]["task"])
        assert end == round(row[9] * 1e9)
        assert round(row[6] * 1e9) <= begin <= round(row[7] * 1e9)


def test_slices_of_processes_nest():
    engine = td.Processes(2, td.Exponential(0.001))
    trace = td.run(td.AsyncSGD(1e-9), Identity(4, 1000), engine, stop=td.MaxUpdates(100)).trace
    events = events_of(trace)
    assert_nested(events)
    assert len(slices(events)) == len(slices(events, "compute")) == 100
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert set(names) <= {"worker 0", "worker 1"}  # no job overlapped another one


def test_jobs_that_overlap_on_a_worker_get_a_track_of_their_own():
    rows = [
        (0, 0, 0, 0, 0, 2, 0.0, 0.0, 2.0, 2.0),
        (1, 1, 0, 0, 1, 2, 0.0, 1.0, 3.0, 3.0),
        (2, 1, 0, 0, 2, 2, 2.0, 2.0, 4.0, 4.0),
    ]
    events = events_of(Trace.from_rows(rows, updates=3))
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert [names[job["tid"]] for job in slices(events)] == ["worker 0", "worker 0 (2)", "worker 0"]


def test_an_empty_trace_is_a_file_without_jobs():
    events = events_of(Trace.from_rows([], updates=0))
    assert [event["ph"] for event in events] == ["M"]


def test_the_size_of_the_pieces_changes_nothing(trace, monkeypatch):
    whole = [b"".join(make(trace)) for make in (trace_export.chrome_events, trace_export.csv_lines)]
    monkeypatch.setattr(trace_export, "PIECE", 3)
    pieces = [list(make(trace)) for make in (trace_export.chrome_events, trace_export.csv_lines)]
    assert [len(some) for some in pieces] == [5, 3]
    assert [b"".join(some) for some in pieces] == whole


def test_files_are_written_whole_or_not_at_all(trace, tmp_path, monkeypatch):
    trace.to_chrome(tmp_path / "run.json")
    trace.to_csv(str(tmp_path / "run.csv"))
    assert (tmp_path / "run.json").read_bytes() == b"".join(trace_export.chrome_events(trace))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(trace, begin):
        yield from list(rows(trace, begin))[:1]
        raise RuntimeError("the machine is gone")

    rows = trace_export._rows
    monkeypatch.setattr(trace_export, "_rows", broken)
    for write, name in ((trace.to_chrome, "run.json"), (trace.to_csv, "run.csv")):
        with pytest.raises(RuntimeError, match="gone"):
            write(tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("write", [Trace.to_chrome, Trace.to_csv])
def test_a_file_that_cannot_be_written_is_named(trace, write):
    with pytest.raises(RunFileError, match=r"cannot write /dev/null/x"):
        write(trace, "/dev/null/x")


def test_csv_has_every_bit_of_every_column(tmp_path):
    trace = td.run(td.AsyncSGD(1e-9), Identity(3, 1), td.Simulated(td.Exponential()), stop=td.MaxUpdates(40)).trace
    trace.to_csv(tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert os.listdir(tmp_path) == ["t.csv"]
    assert list(rows[0]) == [*COLUMNS, "staleness"]
    for name, dtype in COLUMNS.items():
        assert np.array_equal(np.array([row[name] for row in rows]).astype(dtype), trace[name])
    assert [int(row["staleness"]) for row in rows] == trace.staleness.tolist()


@needs_pandas
def test_a_frame_has_the_columns_with_their_types_and_the_staleness(trace):
    frame = trace.to_pandas()
    assert list(frame.columns) == [*COLUMNS, "staleness"]
    for name, dtype in COLUMNS.items():
        assert frame[name].dtype == dtype
        assert frame[name].tolist() == trace[name].tolist()
    assert frame["staleness"].tolist() == [0, 1, 1, 1]
    assert len(Trace.from_rows([], updates=0).to_pandas()) == 0


def test_without_pandas_the_message_says_what_to_install(trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_pandas needs pandas, which is not installed: pip install pandas"):
        trace.to_pandas()
