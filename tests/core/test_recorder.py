"""The rows of a growing trace: in memory, then in a file, whatever happens to the disk."""

import os

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from same_runs import assert_same_runs
from tardigrad.core import loop, recorder
from tardigrad.core.plain import same_bits
from tardigrad.core.recorder import Recorder
from tardigrad.core.trace import ROW, Trace

ROWS = [(i, i % 3, i % 2, i, i + 1, 4, i / 3, i / 7, np.nan if i == 5 else i / 11, -0.0) for i in range(40)]
TABLE = Trace.from_rows(ROWS, 40).table


def record(n=40, tidy_every=1, earlier=None):
    rows = Recorder(earlier)
    for i in range(0 if earlier is None else len(earlier), n):
        rows.extend(rows.pack(*ROWS[i]))
        if i % tidy_every == 0:
            rows.tidy()
    return rows


@pytest.fixture(params=[1, 7, 40, 1000])
def in_memory(request, monkeypatch):
    monkeypatch.setattr(recorder, "IN_MEMORY", request.param)
    return request.param


def check(rows, n=40):
    assert len(rows) == n
    for begin in range(0, n + 1, 3):
        for end in range(begin, n + 1, 2):
            assert same_bits(rows.rows(begin, end), TABLE[begin:end])
    trace = rows.trace(n)
    assert same_bits(trace.table, TABLE[:n])
    assert trace.updates == n
    trace.table["task"][0] = 7  # it can be written to, as any other
    assert trace["task"][0] == 7


@pytest.mark.parametrize("tidy_every", [1, 3, 13])
@pytest.mark.parametrize("earlier", [None, 0, 1, 12, 40])
def test_rows_come_back_from_wherever_they_are(in_memory, tidy_every, earlier):
    rows = record(tidy_every=tidy_every, earlier=None if earlier is None else TABLE[:earlier])
    if in_memory == 1:
        assert (rows._file is not None) == (earlier != 40)
    if in_memory == 1000:
        assert rows._file is None
    check(rows)


def test_the_rows_given_are_not_changed():
    earlier = TABLE[:5].copy()
    rows = record(7, earlier=earlier)
    rows.trace(7).table["task"][:] = -1
    assert same_bits(earlier, TABLE[:5])


def test_no_rows_are_a_trace_too(in_memory):
    assert len(Recorder()) == 0
    assert len(Recorder().rows(0, 0)) == 0
    assert len(Recorder(np.empty(0, ROW)).trace(0)) == 0


def test_memory_does_not_grow(monkeypatch):
    monkeypatch.setattr(recorder, "IN_MEMORY", 4)
    rows = Recorder()
    for row in ROWS * 20:
        rows.extend(rows.pack(*row))
        rows.tidy()
        assert len(rows._rows) < 4 * ROW.itemsize
    assert len(rows) == 800
    rows.trace(1)


@pytest.mark.parametrize("writes", [0, 1, 3])
@pytest.mark.parametrize("part", [0, 1, 100])
@pytest.mark.parametrize("again", [True, False], ids=["stays full", "room again"])
def test_a_full_disk_leaves_the_rows_in_memory(monkeypatch, writes, part, again):
    """After some writes and a part of one more."""
    monkeypatch.setattr(recorder, "IN_MEMORY", 7)
    pwrite, left = os.pwrite, iter([None] * writes + [part])

    def filling(descriptor, content, place):
        room = next(left, 0)
        if room == 0:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, content if room is None else content[:room], place)

    monkeypatch.setattr(recorder.os, "pwrite", filling)
    rows = record()
    assert rows._full
    if not again:
        monkeypatch.setattr(recorder.os, "pwrite", pwrite)
    check(rows)


def test_no_temporary_file_at_all(monkeypatch):
    def fail(**kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(recorder, "IN_MEMORY", 7)
    monkeypatch.setattr(recorder.tempfile, "TemporaryFile", fail)
    check(record())


def test_no_memory_map(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(19, "No such device")

    monkeypatch.setattr(recorder, "IN_MEMORY", 7)
    monkeypatch.setattr(recorder.mmap, "mmap", fail)
    check(record())


def test_reads_and_writes_that_do_a_part_are_completed(monkeypatch):
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(recorder, "IN_MEMORY", 7)
    monkeypatch.setattr(recorder.os, "pread", lambda fd, n, place: pread(fd, min(n, 33), place))
    monkeypatch.setattr(recorder.os, "pwrite", lambda fd, content, place: pwrite(fd, content[:41], place))
    check(record())


def test_a_file_that_was_cut_is_an_error(monkeypatch):
    monkeypatch.setattr(recorder, "IN_MEMORY", 7)
    rows = record()
    rows._file.truncate(100)
    with pytest.raises(OSError, match="cut short"):
        rows.rows(0, 20)


@pytest.mark.parametrize("disk", ["fine", "full"])
def test_a_run_with_its_trace_on_disk_is_the_same_and_can_be_resumed(monkeypatch, tmp_path, disk):
    def run(folder, n=60):
        rule, engine = td.AsyncSGD(0.1, "uniform"), td.Simulated(td.Exponential(1.0))
        checkpoint = td.Checkpoint(tmp_path / folder, every_updates=9)
        return td.run(rule, make_problem(), engine, stop=td.MaxUpdates(n), checkpoint=checkpoint)

    whole = run("whole")
    monkeypatch.setattr(recorder, "IN_MEMORY", 10)
    monkeypatch.setattr(loop, "TIDY", 0x3)
    if disk == "full":
        pwrite, left = os.pwrite, iter(range(2))
        monkeypatch.setattr(recorder.os, "pwrite", lambda *args: pwrite(*args) if next(left, -1) >= 0 else pwrite(-1, b"", 0))
    assert_same_runs(run("on disk"), whole)
    assert_same_runs(td.Result.load(tmp_path / "on disk"), whole)
    run("cut", 31)
    assert_same_runs(td.resume(tmp_path / "cut", stop=td.MaxUpdates(60)), whole)
    assert td.replay(tmp_path / "cut").identical
