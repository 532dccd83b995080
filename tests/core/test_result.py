"""Saving, loading and drawing runs."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from odd_rule import OddRule

import tardigrad as td
from conftest import make_problem
from tardigrad.core.plain import same_bits


def make(rule=None, **kwargs):
    rule = rule or td.AsyncSGD(td.PowerStep(0.1, 0.5), "shuffled", momentum=0.5)
    stop = td.MaxUpdates(30) | td.Tolerance("loss", at_most=1e-9)
    return td.run(rule, make_problem(), td.Simulated(td.Exponential(1.0)), stop=stop, snapshot_every=10, seed=3, **kwargs)


@pytest.mark.parametrize("rule", [None, td.SyncSGD(0.1, sample=2), td.AsyncSGD([0.1, 0.2]), OddRule()], ids=repr)
def test_a_saved_run_comes_back_with_every_bit_and_replays(tmp_path, rule):
    result = make(rule)
    result.evaluate()
    again = td.Result.load(result.save(tmp_path / "run"))
    for name in ("x", "state", "rule", "stop", "x0", "diverged"):
        assert same_bits(getattr(result, name), getattr(again, name)), name
    for name in ("status", "message", "seed", "concurrency", "oracle_calls", "wall_seconds"):
        assert getattr(result, name) == getattr(again, name), name
    assert same_bits(result.trace, again.trace)
    assert same_bits(result.history.x, again.history.x)
    assert same_bits(result.history.measures, again.history.measures)
    assert same_bits(result.engine.fields(), again.engine.fields())
    assert td.replay(tmp_path / "run").identical
    assert td.replay(again).identical


def test_a_replay_can_be_saved_and_replayed(tmp_path):
    replayed = td.replay(make()).result
    replayed.save(tmp_path / "run")
    assert td.replay(tmp_path / "run").identical


def test_replicas_come_back(tmp_path):
    result = make(td.AsyncSGD([0.1, 0.2]), replicas=3)
    result.save(tmp_path)
    assert td.replay(tmp_path).identical


def test_a_run_saved_without_its_problem_needs_it_for_a_replay(tmp_path):
    make().save(tmp_path, with_problem=False)
    assert td.Result.load(tmp_path).problem is None
    with pytest.raises(td.RunFileError, match="saved without its problem: pass it"):
        td.replay(tmp_path)
    assert td.replay(tmp_path, problem=make_problem()).identical
    with pytest.raises(td.RunFileError, match="made on another problem"):
        td.replay(tmp_path, problem=make_problem(batch=4))


def test_saving_twice_replaces_the_run(tmp_path):
    make().save(tmp_path)
    result = make(td.SyncSGD(0.1))
    result.save(tmp_path)
    assert same_bits(td.Result.load(tmp_path).state, result.state)


PARTS = ["arrays", "trace-0-30", "history-0-4", "measures", "problem"]


def saved_file(folder, part):
    """Save a run with measures; the file of a part, or the header."""
    result = make()
    result.evaluate()
    result.save(folder)
    if part == "run.json":
        return folder / part
    (path,) = folder.glob(f"{part}-*.npz")
    return path


def test_a_folder_holds_these_files_and_no_other(tmp_path):
    saved_file(tmp_path, "run.json")
    assert sorted(path.name.rpartition("-")[0] for path in tmp_path.glob("*.npz")) == sorted(PARTS)
    assert len(list(tmp_path.iterdir())) == len(PARTS) + 1


@pytest.mark.parametrize("part", [*PARTS, "run.json"])
def test_a_truncated_file_is_named(tmp_path, part):
    path = saved_file(tmp_path, part)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(td.RunFileError, match=path.name):
        td.replay(tmp_path)


@pytest.mark.parametrize("part", [*PARTS, "run.json"])
def test_a_missing_file_is_named(tmp_path, part):
    path = saved_file(tmp_path, part)
    path.unlink()
    with pytest.raises(td.RunFileError, match=path.name):
        td.Result.load(tmp_path)


@pytest.mark.parametrize("name", ["run", "trace", "history", "status", "made_with", "problem", "updates", "fingerprint"])
def test_a_header_without_one_of_its_entries_is_an_error(tmp_path, name):
    make().save(tmp_path)
    header = json.loads((tmp_path / "run.json").read_text())
    del header[name]
    (tmp_path / "run.json").write_text(json.dumps(header))
    with pytest.raises(td.RunFileError, match=f"not a saved run that this version understands.*{name}"):
        td.Result.load(tmp_path)


def test_a_header_whose_problem_is_not_among_its_files_is_an_error(tmp_path):
    make().save(tmp_path)
    header = json.loads((tmp_path / "run.json").read_text())
    del header["files"]["problem"]
    (tmp_path / "run.json").write_text(json.dumps(header))
    with pytest.raises(td.RunFileError, match="lists no problem, but the run was saved with its problem"):
        td.Result.load(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    make().save(tmp_path)
    header = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**header, "format": 99, "tardigrad": "9.0"}))
    with pytest.raises(td.RunFileError, match=r"format 99, written by tardigrad 9.0.*upgrade tardigrad"):
        td.Result.load(tmp_path)


def test_a_run_of_an_unknown_class_says_what_to_pass(tmp_path):
    make().save(tmp_path)
    header = json.loads((tmp_path / "run.json").read_text())
    header["run"]["rule"]["$type"] = "somewhere:Else"
    (tmp_path / "run.json").write_text(json.dumps(header))
    with pytest.raises(td.RunFileError, match=r"somewhere:Else, which is not a class of tardigrad"):
        td.Result.load(tmp_path)


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(td.RunFileError, match=r"cannot write .*file"):
        make().save(tmp_path / "file" / "run")


def test_no_pickle_is_read(tmp_path):
    make().save(tmp_path)
    for path in tmp_path.glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            assert all(file[name].dtype != object for name in file.files)


def test_repr_says_how_it_ended():
    assert repr(make()).startswith("<Result max_updates: reached the limit of 30 updates; AsyncSGD on Simulated")


class NotPlain(td.Problem):
    n_clients, dim = 2, 3

    def gradient(self, client, x, sample=None):
        return x - client


def test_a_problem_that_cannot_be_rebuilt_is_left_out_with_a_warning(tmp_path):
    result = td.run(td.AsyncSGD(0.1), NotPlain(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(9))
    with pytest.warns(UserWarning, match=r"saved without the problem.*NotPlain is not a dataclass: define fields"):
        result.save(tmp_path)
    assert td.replay(tmp_path, problem=NotPlain()).identical
    result.save(tmp_path, with_problem=False)  # without a warning, which would be an error: it was asked for
    assert td.replay(tmp_path, problem=NotPlain()).identical
    with pytest.raises(td.RunFileError, match="the problem cannot be saved"):
        result.save(tmp_path, with_problem=True)


def test_a_run_of_a_script_replays_where_the_script_is_imported(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "import tardigrad as td\n"
        "class Mine(td.Problem):\n"
        "    n_clients, dim = 2, 3\n"
        "    def fields(self): return {}\n"
        "    def gradient(self, client, x, sample=None): return x - client\n"
        "if __name__ == '__main__':\n"
        "    engine = td.Processes(2)\n"
        "    td.run(td.AsyncSGD(0.1), Mine(), engine, stop=td.MaxUpdates(20)).save('run')\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, cwd=tmp_path, timeout=60)
    for module in ("mine", str(script)):
        command = [sys.executable, "-m", "tardigrad", "replay", "run", "--import", module]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.stdout == "run: 20 replies replayed, every bit is the same\n", done.stderr


def test_a_version_that_is_a_number_of_numpy_is_saved(tmp_path):
    result = make()
    result.state.version = np.int64(result.state.version)
    again = td.Result.load(result.save(tmp_path))
    assert same_bits(again.state, result.state)
    assert again.trace.updates == 30


@dataclasses.dataclass(frozen=True)
class Doubling(td.AsyncSGD):
    """Takes a function as its step, which configure turns into a number."""

    def __post_init__(self):
        pass

    def configure(self, problem, concurrency, max_staleness):
        step = self.step(problem.dim) if callable(self.step) else self.step
        return dataclasses.replace(super().configure(problem, concurrency, max_staleness), step=step)


def test_the_rule_as_given_and_what_was_asked_for_are_kept_by_files_replays_and_resumed_runs(tmp_path):
    rule = td.AsyncSGD(0.1)
    result = make(rule, checkpoint=tmp_path)
    assert (result.given, result.rule.concurrency, result.concurrency_asked) == (rule, 4, None)
    assert make(rule, concurrency=5).concurrency_asked == 5
    read = td.Result.load(tmp_path)
    assert (read.given, read.concurrency_asked) == (rule, None)
    assert td.replay(tmp_path).result.given == rule
    longer = td.resume(tmp_path, stop=td.MaxUpdates(40))
    assert (longer.given, longer.rule.concurrency) == (rule, 4)
    assert td.Result.load(tmp_path).given == rule


def test_a_folder_of_before_the_rule_as_given_was_saved_is_read(tmp_path):
    make(concurrency=5).save(tmp_path)
    header = json.loads((tmp_path / "run.json").read_text())
    for name in ("given", "concurrency_asked"):
        del header["run"][name]
    (tmp_path / "run.json").write_text(json.dumps(header))
    read = td.Result.load(tmp_path)
    assert (read.given, read.concurrency_asked, read.concurrency) == (None, None, 5)
    assert td.replay(tmp_path).identical
    assert td.replay(tmp_path).result.given is None


def test_a_rule_that_configure_makes_plain_is_saved_without_the_one_given(tmp_path):
    result = make(Doubling(lambda dim: 0.5 / dim))
    assert callable(result.given.step)
    read = td.Result.load(result.save(tmp_path))
    assert (read.given, read.rule.step) == (None, 0.1)
