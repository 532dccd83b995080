"""Checkpoints: when they are written, that a folder always holds one whole run, and what they cost."""

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from same_runs import assert_same_runs
from tardigrad.core import checkpoint as checkpoints
from tardigrad.core import files
from tardigrad.core.checkpoint import Keeper
from tardigrad.core.files import RunFolder, read_header
from tardigrad.testing import AnyOrder

#: drivers that are killed in the test below
KILLS = 8


def go(checkpoint, n=40, rule=None, **kwargs):
    engine = kwargs.pop("engine", td.Simulated(td.Exponential(1.0)))
    rule = rule or td.AsyncSGD(0.1, "uniform", momentum=0.5)
    kwargs = {"snapshot_every": 6, "stop": td.MaxUpdates(n), **kwargs}
    return td.run(rule, make_problem(), engine, checkpoint=checkpoint, **kwargs)


@pytest.fixture
def written(monkeypatch):
    """The versions at which checkpoints are written."""
    versions, write = [], Keeper.write

    def noted(self, run, rows):
        versions.append((run.state.version, run.status.value))
        write(self, run, rows)

    monkeypatch.setattr(Keeper, "write", noted)
    return versions


def test_every_so_many_updates_and_at_the_end(tmp_path, written):
    go(td.Checkpoint(tmp_path, every_updates=13))
    assert written == [(13, "unfinished"), (26, "unfinished"), (39, "unfinished"), (40, "max_updates")]


def test_rounds_are_counted_in_updates(tmp_path, written):
    go(td.Checkpoint(tmp_path, every_updates=2), 5, td.SyncSGD(0.1))
    assert [version for version, _ in written] == [2, 4, 5]


def test_after_a_resume_they_go_on_from_there(tmp_path, written):
    go(td.Checkpoint(tmp_path, every_updates=13), 20)
    td.resume(tmp_path, stop=td.MaxUpdates(50))
    assert [version for version, _ in written] == [13, 20, 33, 46, 50]


@pytest.mark.parametrize("folder", [str, Path])
def test_a_path_means_every_minute(tmp_path, written, folder):
    result = go(folder(tmp_path))
    assert result.checkpoint == td.Checkpoint(str(tmp_path), every_seconds=60.0)
    assert written == [(40, "max_updates")]


def saved_at(monkeypatch, tmp_path, seconds, n=100, **settings):
    """Versions at which a keeper writes that is shown every version, each so many seconds after the last."""
    now, found = [1000.0], []
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    keeper = checkpoints.Keeper(td.Checkpoint(tmp_path, **settings))
    keeper.write = lambda run, rows: found.append(run)
    for version in range(n):
        keeper.look(version, lambda version=version: (version, None))
        now[0] += seconds
    keeper.close()
    return found


@pytest.mark.parametrize(("seconds", "every"), [(1.0, 5.0), (0.25, 5.0), (7.0, 5.0)])
def test_every_so_many_seconds(tmp_path, monkeypatch, seconds, every):
    gaps = np.diff([0, *saved_at(monkeypatch, tmp_path, seconds, every_seconds=every)]) * seconds
    assert len(gaps) > 3
    assert (gaps == max(seconds, every)).all()


def test_with_both_whichever_comes_first(tmp_path, monkeypatch):
    assert saved_at(monkeypatch, tmp_path, 1.0, 10, every_updates=3, every_seconds=5.0) == [3, 6, 9]
    assert saved_at(monkeypatch, tmp_path, 1.0, 16, every_updates=30, every_seconds=5.0) == [5, 10, 15]


class SlowsDown(td.Problem):
    """A thousand quick gradients, then slow ones."""

    n_clients, dim, shared_data, calls = 2, 3, True, 0

    def fields(self):
        return {}

    def gradient(self, client, x, sample=None):
        self.calls += 1
        if self.calls > 1000:
            time.sleep(0.02)
        return x


@pytest.mark.parametrize("lock_free", [False, True])
def test_a_run_that_slows_down_is_saved_as_often(tmp_path, written, lock_free):
    rule, engine = (td.Hogwild(0.1) if lock_free else td.AsyncSGD(0.1)), td.Threads(2, lock_free=lock_free)
    kept = td.Checkpoint(tmp_path, every_seconds=0.1)
    td.run(rule, SlowsDown(), engine, stop=td.MaxUpdates(1100), checkpoint=kept)
    assert len([version for version, _ in written if 1000 < version < 1100]) >= 3


def test_a_new_run_does_not_replace_one_that_could_go_on(tmp_path):
    go(tmp_path, 20)
    with pytest.raises(td.RunFileError, match=r"holds a run already: go on with it .*overwrite=True"):
        go(tmp_path, 5)
    assert td.Result.load(tmp_path).state.version == 20
    go(td.Checkpoint(tmp_path, overwrite=True), 5)
    assert td.Result.load(tmp_path).state.version == 5


def test_a_checkpoint_that_fails_is_tried_again_later_and_the_last_one_leaves_the_run(tmp_path, monkeypatch, caplog):
    write, full = RunFolder.put, [False]

    def put(self, name, arrays):
        if full[0]:
            raise td.RunFileError("cannot write: no space")
        return write(self, name, arrays)

    class Disk(td.Observer):
        every = 1

        def observe(self, moment):
            full[0] = moment.version < 15 or moment.version > 30

    monkeypatch.setattr(RunFolder, "put", put)
    with pytest.raises(td.RunFileError, match="no space") as caught:
        go(td.Checkpoint(tmp_path / "run", every_updates=10), 40, observers=[Disk()])
    assert "no checkpoint after 10 updates: cannot write: no space" in caplog.text
    assert td.Result.load(tmp_path / "run").state.version == 30
    full[0] = False
    caught.value.result.save(tmp_path / "elsewhere")
    assert td.resume(tmp_path / "elsewhere", stop=td.MaxUpdates(50)).state.version == 50
    assert td.resume(tmp_path / "run", stop=td.MaxUpdates(50)).state.version == 50


def test_one_writer_a_folder(tmp_path):
    class Look(td.Observer):
        every = 10

        def observe(self, moment):
            if moment.version == 10:
                with pytest.raises(td.RunFileError, match="is being written by another run: give each run a folder of its own"):
                    go(td.Checkpoint(tmp_path, overwrite=True), 5)
                again = f"import tardigrad as td; td.Result.load({str(tmp_path / 'old')!r}).save({str(tmp_path)!r})"
                done = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True)
                assert "is being written by another run" in done.stderr

    go(None, 5).save(tmp_path / "old")
    result = go(td.Checkpoint(tmp_path, every_updates=5), 40, observers=[Look()])
    result.save(tmp_path)  # the run has ended
    assert td.resume(tmp_path, stop=td.MaxUpdates(50)).state.version == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folder": ""}, "Checkpoint needs the folder to write to, not ''"),
        ({"folder": None}, "Checkpoint needs the folder"),
        ({"folder": 3}, "Checkpoint needs the folder"),
        ({"every_updates": 0}, r"Checkpoint\.every_updates must be"),
        ({"every_updates": 1.5}, r"Checkpoint\.every_updates must be"),
        ({"every_seconds": 0}, r"Checkpoint\.every_seconds must be"),
        ({"every_seconds": -1.0}, r"Checkpoint\.every_seconds must be"),
        ({"every_seconds": float("nan")}, r"Checkpoint\.every_seconds must be"),
        ({"every_seconds": "10"}, r"Checkpoint\.every_seconds must be"),
    ],
)
def test_wrong_arguments_say_what_was_expected(arguments, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.Checkpoint(**{"folder": "run", **arguments})


@pytest.mark.parametrize("given", [5, True, ["run"], print])
def test_what_is_no_checkpoint(given):
    with pytest.raises(td.InvalidInputError, match=r"checkpoint must be a folder, or one such as Checkpoint\('my-run'\)"):
        go(given)


def test_a_folder_that_cannot_be_written_is_named_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")

    class Never(td.Observer):
        def open(self, problem, stop):
            raise AssertionError("the run has begun")

    with pytest.raises(td.RunFileError, match=r"cannot write .*file.run"):
        go(tmp_path / "file" / "run", observers=[Never()])


def test_an_engine_that_cannot_say_what_is_in_flight_takes_no_checkpoint(tmp_path):
    with pytest.raises(td.RunFileError, match="runs on AnyOrder take no checkpoint: it does not define in_flight"):
        go(tmp_path, engine=AnyOrder())


def test_a_folder_is_loadable_at_any_time_of_a_run(tmp_path):
    go(tmp_path, 3)
    stop, found, problems = threading.Event(), [], []

    def read():
        while not stop.is_set():
            try:
                result = td.Result.load(tmp_path)
                assert len(result.trace) == result.state.version == result.trace.updates
                assert len(result.in_flight.jobs) == result.concurrency
                found.append(result.state.version)
            except Exception as error:
                problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        go(td.Checkpoint(tmp_path, every_updates=1, overwrite=True), 80)
    finally:
        stop.set()
        reader.join()
    assert problems == []
    assert found == sorted(found) or found[0] == 3
    assert len(set(found)) > 3


class Killed(BaseException):
    pass


class Ending:
    """From the n-th use of the disk on nothing happens any more, as for a process that was killed."""

    def __init__(self, monkeypatch, n):
        self.left = n
        for owner, name in ((Path, "unlink"), (Path, "replace"), (Path, "mkdir"), (os, "fsync"), (os, "open")):
            monkeypatch.setattr(owner, name, self.limited(getattr(owner, name)))
        monkeypatch.setattr(Path, "open", self.opened(Path.open))

    def use(self):
        self.left -= 1
        if self.left < 0:
            raise Killed

    def limited(self, function):
        def limited(*args, **kwargs):
            self.use()
            return function(*args, **kwargs)

        return limited

    def opened(self, function):
        def opened(*args, **kwargs):
            self.use()
            return Partly(function(*args, **kwargs), self)

        return opened


class Partly:
    """A file of which a half is written at the end."""

    def __init__(self, file, ending):
        self.file, self.ending = file, ending

    def write(self, content):
        try:
            self.ending.use()
        except Killed:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            raise
        return self.file.write(content)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_writer_that_is_killed_anywhere_leaves_the_old_run_or_the_new_one(tmp_path, monkeypatch):
    old, new = go(tmp_path / "a", 20), go(tmp_path / "b", 23)
    seen, n, whole = [], 0, go(tmp_path / "c", 30)
    while True:
        old.save(tmp_path / "run")
        before = set(os.listdir(tmp_path / "run"))
        with monkeypatch.context() as patched:
            ending = Ending(patched, n)
            with contextlib.suppress(Killed):
                new.save(tmp_path / "run")
        found = td.Result.load(tmp_path / "run")
        assert_same_runs(found, old if found.state.version == 20 else new)
        assert_same_runs(td.resume(tmp_path / "run", stop=td.MaxUpdates(30)), whole)
        seen.append(found.state.version)
        if ending.left > 0:
            break
        n += 1
    assert seen == sorted(seen)
    assert len(seen) > 30
    old.save(tmp_path / "run")
    assert set(os.listdir(tmp_path / "run")) == before, "something was left behind"


@pytest.mark.parametrize("every", [1, 3])
def test_a_row_is_written_a_few_times_and_files_are_few(tmp_path, monkeypatch, every):
    rows, counts = {"trace": 0, "history": 0}, []
    put, commit, n = RunFolder.put, RunFolder.commit, 400

    def counted(self, name, arrays):
        kind, _, span = name.partition("-")
        if span:
            begin, end = map(int, span.split("-"))
            assert all(len(array) == end - begin for array in arrays.values())
            rows[kind] += end - begin
        return put(self, name, arrays)

    def listed(self, *args):
        commit(self, *args)
        counts.append(len(os.listdir(self.path)))
        assert read_header(self.path)["files"].keys() == set(self._parts)

    monkeypatch.setattr(RunFolder, "put", counted)
    monkeypatch.setattr(RunFolder, "commit", listed)
    monkeypatch.setattr(files.os, "fsync", lambda fd: None)
    go(td.Checkpoint(tmp_path, every_updates=every), n, snapshot_every=1)
    checkpoint_count = n // every
    assert len(counts) == (n - 1) // every + 1
    most = math.log2(checkpoint_count) + 2
    assert n < rows["trace"] <= n * most
    assert n < rows["history"] <= n * most
    assert max(counts) <= 2 * most + 4


DRIVER = """
import sys
from pathlib import Path
import numpy as np
import tardigrad as td

class Started(td.Observer):
    every = 1_000_000
    def observe(self, moment):
        print("started", flush=True)

folder = Path(sys.argv[1])
X = np.random.default_rng(0).normal(size=(40, 6))
problem = td.LeastSquares((X, X @ np.ones(6)), td.Iid(5), batch=2)
if (folder / "run.json").exists():
    td.resume(folder, observers=[Started()])
else:
    rule, engine = td.AsyncSGD(0.02, "shuffled", momentum=0.5), td.Simulated(td.Exponential(1.0), workers=3)
    checkpoint = td.Checkpoint(folder, every_updates=7)
    stop = td.MaxUpdates(int(sys.argv[2])) | td.Tolerance("loss", at_most=0, every=11)
    td.run(rule, problem, engine, stop=stop, snapshot_every=50, seed=8, checkpoint=checkpoint, observers=[Started()])
"""


def test_a_driver_killed_at_random_moments_ends_in_the_same_bits(tmp_path):
    script, n = tmp_path / "driver.py", 2000
    script.write_text(textwrap.dedent(DRIVER))
    subprocess.run([sys.executable, str(script), tmp_path / "whole", str(n)], check=True, timeout=60, capture_output=True)
    moments, killed, folder = random.Random(4), 0, tmp_path / "cut"
    versions = [0]
    while True:
        process = subprocess.Popen([sys.executable, str(script), folder, str(n)], stdout=subprocess.PIPE)
        process.stdout.readline()
        if killed < KILLS:
            time.sleep(moments.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate(timeout=60)
        if (folder / "run.json").exists():
            found = td.Result.load(folder)
            versions.append(found.state.version)
            if found.status is td.Status.UNFINISHED:
                assert found.state.version % 7 == 0 or len(versions) > 2
                assert td.replay(folder).result.state.version == found.state.version
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert versions == sorted(versions)
    assert len(set(versions)) > 2
    assert_same_runs(td.Result.load(folder), td.Result.load(tmp_path / "whole"))
    listed = {part["file"] for part in read_header(folder)["files"].values()}
    assert set(os.listdir(folder)) == {"run.json", *listed}, "something was left behind"
