"""A run that was cut and resumed equals the uninterrupted one in every bit; what would be another run is refused."""

import dataclasses
import shutil
import signal
from dataclasses import dataclass

import catalogue
import numpy as np
import pytest
from odd_rule import OddRule

import tardigrad as td
from conftest import make_problem
from same_runs import assert_same_runs
from tardigrad.core import checkpoint as checkpoints
from tardigrad.core import loop
from tardigrad.core.in_flight import InFlight
from tardigrad.core.plain import same_bits
from tardigrad.core.recorder import Recorder
from tardigrad.testing import AnyOrder

SIMULATED = {name: make for name, make in catalogue.ENGINES.items() if name.startswith("Simulated")}
TOLERANCE = td.Tolerance("loss", at_most=1e-12, every=7)
END = td.MaxUpdates(40) | TOLERANCE


def shared_problem():
    """Data that every worker has."""
    problem = make_problem()
    return td.LeastSquares((problem.data.X, problem.data.y), td.Shared(4), batch=3)


class Many:
    """A rule with more tasks in flight than workers, so that tasks wait."""

    def __new__(cls, concurrency=9):
        return td.AsyncSGD(0.02, "uniform", momentum=0.3, concurrency=concurrency)


def go(folder, rule=None, problem=None, engine=None, stop=END, **kwargs):
    rule, problem = rule or td.AsyncSGD(0.1), problem or make_problem()
    engine = engine or td.Simulated(td.Exponential(1.0))
    kept = None if folder is None else dataclasses.replace(checkpoints.Checkpoint.of(folder), overwrite=True)
    kwargs = {"snapshot_every": 6, "seed": 5, "checkpoint": kept, **kwargs}
    return td.run(rule, problem, engine, stop=stop, **kwargs)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Keeps a copy of every checkpoint that is written."""
    copies, write = [], checkpoints.Keeper.write

    def noted(self, run, rows):
        write(self, run, rows)
        copies.append(tmp_path / f"copy-{len(copies)}")
        shutil.copytree(self.folder, copies[-1])

    monkeypatch.setattr(checkpoints.Keeper, "write", noted)
    return copies


PROBLEMS = {**catalogue.PROBLEMS, "shared": shared_problem}


#: all problems where durations are random; where workers are few or durations fixed, the one that draws samples
PLACES = [(engine, problem) for engine in SIMULATED for problem in PROBLEMS if "random" in engine or problem == "noisy"]


@pytest.mark.parametrize(("engine", "problem"), PLACES)
@pytest.mark.parametrize("rule", [*catalogue.RULES, "many"])
def test_a_run_cut_anywhere_goes_on_to_the_same_bits(rule, engine, problem, tmp_path):
    parts = {"rule": {**catalogue.RULES, "many": Many}[rule](), "problem": PROBLEMS[problem](), "engine": SIMULATED[engine]()}
    measure = "residual" if problem == "linear system" else "loss"
    tolerance = dataclasses.replace(TOLERANCE, measure=measure)
    end = td.MaxUpdates(40) | tolerance
    whole = go(tmp_path / "whole", **parts, stop=end)
    for cut in (1, 23):
        first = go(tmp_path / "cut", **parts, stop=td.MaxUpdates(cut) | tolerance)
        before = dataclasses.replace(first.copy(), in_flight=first.in_flight)
        assert_same_runs(td.resume(first, stop=end), whole)
        assert_same_runs(first, before)  # the result itself is as it was: it can be resumed again
        second = td.resume(first, stop=td.MaxUpdates(30) | tolerance)
        assert_same_runs(td.resume(second, stop=end), whole)
    assert td.replay(td.resume(first, stop=end)).identical


@pytest.mark.parametrize("engine", SIMULATED)
@pytest.mark.parametrize("rule", [*catalogue.RULES, "many"])
def test_every_checkpoint_on_disk_goes_on_to_the_same_bits(rule, engine, tmp_path, kept):
    parts = {"rule": {**catalogue.RULES, "many": Many}[rule](), "engine": SIMULATED[engine]()}
    whole = go(td.Checkpoint(tmp_path / "whole", every_updates=13), **parts)
    copies = list(kept)
    assert len(copies) == 4
    for copy in copies[:-1]:
        loaded = td.Result.load(copy)
        assert (loaded.status, loaded.state.version % 13) == (td.Status.UNFINISHED, 0)
        assert td.replay(copy).result.state.version == loaded.state.version
        resumed = td.resume(copy)
        assert_same_runs(resumed, whole)
        assert_same_runs(td.Result.load(copy), whole)  # the folder holds the whole run
        assert td.replay(copy).identical
    assert_same_runs(td.resume(copies[-1]), whole)  # it has ended


@pytest.mark.parametrize("rule", [*catalogue.RULES, "many"])
@pytest.mark.parametrize("seconds", [0.3, 4.0])
def test_a_run_that_ended_by_its_seconds_goes_on(rule, seconds, tmp_path):
    parts = {"rule": {**catalogue.RULES, "many": Many}[rule](), "engine": td.Simulated(td.Pareto(1.0), workers=2)}
    first = go(tmp_path / "cut", **parts, stop=td.MaxSeconds(seconds) | TOLERANCE)
    assert first.status is td.Status.MAX_SECONDS
    assert_same_runs(td.resume(tmp_path / "cut", stop=END), go(tmp_path / "whole", **parts))


def test_a_run_that_ended_by_its_oracle_calls_goes_on_and_counts_on(tmp_path):
    for calls in (1, 31, 32):
        go(tmp_path / "cut", OddRule(), stop=td.MaxOracleCalls(calls) | TOLERANCE)
        stop = td.MaxOracleCalls(75) | TOLERANCE
        assert_same_runs(td.resume(tmp_path / "cut", stop=stop), go(tmp_path / "whole", OddRule(), stop=stop))


@pytest.mark.parametrize("rule", catalogue.RULES)
@pytest.mark.parametrize("call", [0, 1, 2, 37])
def test_an_exception_in_an_oracle_leaves_a_run_that_goes_on(rule, call, tmp_path, monkeypatch):
    rule = catalogue.RULES[rule]()
    whole = go(tmp_path / "whole", rule)
    gradient, count = td.LeastSquares.gradient, iter(range(1000))

    def failing(self, *args):
        if next(count) == call:
            raise ZeroDivisionError("in the oracle")
        return gradient(self, *args)

    monkeypatch.setattr(td.LeastSquares, "gradient", failing)
    with pytest.raises(ZeroDivisionError) as caught:
        go(tmp_path / "cut", rule)
    monkeypatch.undo()
    assert f"tardigrad resume {tmp_path / 'cut'} goes on" in "\n".join(caught.value.__notes__)
    assert td.Result.load(tmp_path / "cut").message == "ended by ZeroDivisionError: in the oracle"
    assert_same_runs(td.resume(tmp_path / "cut"), whole)


class At(td.Observer):
    """Does something at a version, and notes what it sees."""

    def __init__(self, version, do):
        self.version, self.do, self.seen, self.ends = version, do, [], []

    def observe(self, moment):
        self.seen.append((moment.version, moment.replies, moment.seconds, moment.x.tobytes()))
        if moment.version == self.version:
            self.do()

    def close(self, status, message):
        self.ends.append(status)


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("rule", catalogue.RULES)
@pytest.mark.parametrize("version", [0, 12, 17])
def test_ctrl_c_leaves_a_run_that_goes_on(rule, version, tmp_path):
    rule = catalogue.RULES[rule]()
    whole = go(tmp_path / "whole", rule)
    stopped = go(tmp_path / "cut", rule, observers=At(version, interrupt))
    assert stopped.status is td.Status.INTERRUPTED
    assert_same_runs(td.resume(stopped), whole)
    assert_same_runs(td.resume(tmp_path / "cut"), whole)
    without = go(None, rule, observers=At(version, interrupt))
    assert_same_runs(td.resume(without), whole, in_flight=False)


def fail():
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("version", [0, 12, 17])
def test_an_observer_that_raises_leaves_a_run_that_goes_on(version, tmp_path):
    with pytest.raises(OSError, match="No space left"):
        go(tmp_path / "cut", observers=At(version, fail))
    assert_same_runs(td.resume(tmp_path / "cut"), go(tmp_path / "whole"))


def test_an_observer_that_raises_at_the_very_end_leaves_the_run(tmp_path):
    class Last(At):
        every = 1000

    with pytest.raises(OSError, match="No space left"):
        go(tmp_path / "cut", observers=Last(40, fail))
    assert_same_runs(td.resume(tmp_path / "cut"), go(tmp_path / "whole"))


def test_what_a_rule_left_half_done_is_not_saved(tmp_path):
    @dataclass(frozen=True)
    class Half(td.AsyncSGD):
        def receive(self, state, reply, rng):
            if state.version == 17:
                state.version += 100
                raise ArithmeticError("in the middle")
            return super().receive(state, reply, rng)

    with pytest.raises(ArithmeticError):
        go(td.Checkpoint(tmp_path / "cut", every_updates=5), Half(0.1))
    assert td.Result.load(tmp_path / "cut").state.version == 15
    with pytest.raises(ArithmeticError):
        td.resume(tmp_path / "cut")
    assert td.Result.load(tmp_path / "cut").state.version == 15


@pytest.mark.parametrize("steps", [[0.05, 0.1], [0.1, 1e9, 0.2], [1e9, 0.1]], ids=str)
@pytest.mark.parametrize("replicas", [None, 3])
def test_replicas_go_on_also_masked_ones(steps, replicas, tmp_path):
    parts = {"rule": td.AsyncSGD(steps, momentum=0.5), "problem": make_problem(batch=None if replicas is None else 3)}
    stop = td.MaxUpdates(260) | TOLERANCE
    whole = go(tmp_path / "whole", **parts, stop=stop, replicas=replicas)
    assert whole.diverged.any() == (1e9 in steps)
    for cut in (10, 60, 200):
        go(tmp_path / "cut", **parts, stop=td.MaxUpdates(cut) | TOLERANCE, replicas=replicas)
        assert_same_runs(td.resume(tmp_path / "cut", stop=stop), whole)


def test_a_tolerance_is_met_at_the_same_update(tmp_path):
    stop = td.MaxUpdates(1000) | td.Tolerance("loss", at_most=0.1, every=10) | td.Tolerance("gradient_norm", at_most=0, every=3)
    parts = {"problem": make_problem(batch=None), "stop": stop}
    whole = go(tmp_path / "whole", **parts)
    assert whole.status is td.Status.CONVERGED
    for version in (3, 10, whole.state.version - 1):
        go(tmp_path / "cut", **parts, observers=At(version, interrupt))
        assert_same_runs(td.resume(tmp_path / "cut"), whole)


@pytest.mark.parametrize("snapshot_every", [None, 1, 7])
def test_snapshots_are_those_of_the_uninterrupted_run(snapshot_every, tmp_path):
    whole = go(tmp_path / "whole", snapshot_every=snapshot_every)
    for cut in (1, 7, 20, 39):
        go(tmp_path / "cut", snapshot_every=snapshot_every, stop=td.MaxUpdates(cut) | TOLERANCE)
        assert_same_runs(td.resume(tmp_path / "cut", stop=END), whole)


def test_measures_of_the_part_are_not_those_of_the_whole(tmp_path):
    first = go(tmp_path, stop=td.MaxUpdates(20))
    first.evaluate()
    first.save(tmp_path)
    both = td.resume(tmp_path, stop=END)
    assert both.history.measures == {}
    assert len(both.evaluate()["loss"]) == len(both.history)


def test_an_iterate_that_is_updated_in_place_goes_on(tmp_path):
    X = np.random.default_rng(0).normal(size=(8, 20_000))
    parts = {"problem": td.LeastSquares((X, np.ones(8)), td.Iid(4), batch=1), "snapshot_every": None}
    for rule in (td.AsyncSGD(1e-5, momentum=0.5), td.SyncSGD(1e-5)):
        whole = go(tmp_path / "whole", rule, **parts, stop=td.MaxUpdates(20))
        assert not whole.state.fresh
        first = go(tmp_path / "cut", rule, **parts, stop=td.MaxUpdates(9))
        for run in (first, first, tmp_path / "cut"):
            assert_same_runs(td.resume(run, stop=td.MaxUpdates(20)), whole)


def test_observers_see_what_comes_and_are_closed(tmp_path):
    seen = At(-1, None)
    go(tmp_path / "whole", observers=seen)
    go(tmp_path / "cut", stop=td.MaxUpdates(17) | TOLERANCE)
    later = At(-1, None)
    td.resume(tmp_path / "cut", stop=END, observers=later)
    assert later.seen == seen.seen[17:]
    assert later.ends == [td.Status.MAX_UPDATES]


def test_a_moved_folder_goes_on_where_it_is_now(tmp_path):
    go(td.Checkpoint(tmp_path / "old", every_updates=5), stop=td.MaxUpdates(20) | TOLERANCE)
    shutil.move(tmp_path / "old", tmp_path / "new")
    resumed = td.resume(tmp_path / "new", stop=END)
    assert not (tmp_path / "old").exists()
    assert resumed.checkpoint == td.Checkpoint(tmp_path / "new", every_updates=5, overwrite=True)
    assert_same_runs(td.Result.load(tmp_path / "new"), go(tmp_path / "whole"))


def test_a_saved_result_goes_on_although_it_had_no_checkpoint(tmp_path):
    go(None, observers=At(12, interrupt)).save(tmp_path)
    resumed = td.resume(str(tmp_path))
    assert_same_runs(resumed, go(None), in_flight=False)
    assert_same_runs(td.Result.load(tmp_path), resumed)


def test_a_run_that_has_ended_comes_back_as_it_is(tmp_path):
    whole = go(tmp_path)
    assert_same_runs(td.resume(tmp_path), whole)
    assert_same_runs(td.resume(whole), whole)


@pytest.mark.parametrize(
    "stop", [td.MaxUpdates(20), td.MaxOracleCalls(5), td.MaxOracleCalls(20), td.MaxSeconds(0.01)], ids=repr
)
def test_a_condition_that_already_holds_ends_the_run_at_once(stop, tmp_path):
    first = go(tmp_path, stop=td.MaxUpdates(20) | TOLERANCE)
    again = td.resume(tmp_path, stop=stop | TOLERANCE)
    assert again.status is not td.Status.UNFINISHED
    assert same_bits(again.trace, first.trace)
    assert same_bits(again.state, first.state)
    assert again.in_flight.clock == first.in_flight.clock, "time went back"
    assert (np.diff(again.history.seconds) >= 0).all()
    assert_same_runs(td.resume(tmp_path, stop=END), go(tmp_path / "whole"), in_flight=False)


@pytest.mark.parametrize("problem", ["noisy", "shared"])
def test_another_engine_gets_the_tasks_in_flight(problem, tmp_path):
    first = go(tmp_path, Many(), PROBLEMS[problem](), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(20))
    open_tasks = {task.id for task, _ in first.in_flight.tasks()}
    assert len(open_tasks) == 9
    for engine in (td.Simulated(td.Exponential(2.0), workers=2), td.Threads(2), td.Processes(1)):
        both = td.resume(first, engine=engine, stop=td.MaxUpdates(60))
        assert both.status is td.Status.MAX_UPDATES
        assert set(both.trace["task"].tolist()) > open_tasks
        assert len(set(both.trace["task"].tolist())) == 60
        assert set(both.trace["worker"][20:].tolist()) <= {0, 1}, "workers that the new engine does not have"
        order = {}
        for task, client in zip(both.trace["task"].tolist(), both.trace["client"].tolist(), strict=True):
            assert problem == "shared" or order.get(client, -1) < task
            order[client] = task
        assert type(both.engine) is type(engine)
        assert td.replay(both).identical


@pytest.mark.parametrize("engine", [lambda: td.Threads(2), lambda: td.Processes(2)], ids=["threads", "processes"])
@pytest.mark.parametrize("rule", ["SyncSGD, sample, momentum", "AsyncSGD, shuffled, momentum", "a rule of a user"])
def test_runs_of_real_engines_go_on_and_replay(engine, rule, tmp_path):
    rule = catalogue.RULES[rule]()
    first = go(tmp_path, rule, engine=engine(), stop=td.MaxUpdates(17))
    assert {task.id for task, _ in first.in_flight.tasks()}.isdisjoint(first.trace["task"].tolist())
    both = td.resume(tmp_path, stop=td.MaxUpdates(40))
    assert both.trace.table[: len(first.trace)].tobytes() == first.trace.table.tobytes()
    assert len(set(both.trace["task"].tolist())) == len(both.trace)
    assert both.trace["received"].min() >= 0
    assert (np.diff(both.trace["received"]) >= 0).all(), "the clock goes on"
    assert td.replay(tmp_path).identical
    assert_same_runs(td.Result.load(tmp_path), both)
    thrice = td.resume(
        td.resume(tmp_path, stop=td.MaxUpdates(50)), stop=td.MaxUpdates(60), engine=td.Simulated(td.Constant(1.0))
    )
    assert td.replay(thrice).identical


def test_synchronous_runs_of_real_engines_end_in_the_bits_of_the_simulation(tmp_path):
    rule = td.SyncSGD(0.1, sample=3)
    whole = go(None, rule, stop=td.MaxUpdates(20))
    for engine in (td.Threads(3), td.Processes(2)):
        go(tmp_path, rule, engine=engine, stop=td.MaxUpdates(7))
        assert same_bits(td.resume(tmp_path, stop=td.MaxUpdates(20)).state, whole.state)


REFUSED = [
    ({"rule": td.AsyncSGD(0.2)}, r"made with another rule: its step is 0\.1, not 0\.2"),
    ({"rule": td.AsyncSGD(0.1, momentum=0.5)}, r"made with another rule: its momentum is 0\.0, not 0\.5"),
    ({"rule": td.SyncSGD(0.1)}, "made with another rule: AsyncSGD, not SyncSGD"),
    ({"problem": make_problem(batch=4)}, r"made on another problem.*fingerprint"),
    ({"problem": make_problem(weights="rows")}, r"made on another problem.*fingerprint"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
@pytest.mark.parametrize("where", ["folder", "result", "loaded"])
def test_what_would_be_another_run_is_refused(arguments, message, where, tmp_path):
    first = go(tmp_path, stop=td.MaxUpdates(20))
    run = {"folder": tmp_path, "result": first, "loaded": td.Result.load(tmp_path)}[where]
    with pytest.raises(td.RunFileError, match=message):
        td.resume(run, stop=END, **arguments)
    assert td.resume(run, td.AsyncSGD(0.1), make_problem(), stop=END).state.version == 40


def test_another_version_is_refused_unless_asked_for(tmp_path):
    first = go(tmp_path, stop=td.MaxUpdates(20))
    first.made_with.update(numpy="1.0.0", python="2.7")
    first.save(tmp_path)
    message = r"made with python 2\.7, here 3\.\S+; numpy 1\.0\.0, here \S+: bits may differ.*any_version=True"
    for run in (first, tmp_path):
        with pytest.raises(td.RunFileError, match=message):
            td.resume(run, stop=END)
    assert td.resume(first, stop=END, any_version=True).state.version == 40
    assert td.resume(tmp_path, stop=END, any_version=True).made_with["numpy"] == np.__version__


def test_without_tasks_in_flight_there_is_no_going_on():
    first = go(None, stop=td.MaxUpdates(20))
    with pytest.raises(td.RunFileError, match=r"this result holds no tasks in flight.*make runs with checkpoint=FOLDER"):
        td.resume(first, stop=END)


def test_a_run_that_diverged_or_stalled_does_not_go_on(tmp_path):
    go(tmp_path, td.AsyncSGD(1e9), make_problem(batch=None), stop=td.MaxUpdates(1000))
    assert td.resume(tmp_path).status is td.Status.DIVERGED
    with pytest.raises(td.RunFileError, match="cannot go on: it diverged"):
        td.resume(tmp_path, stop=END)

    @dataclass(frozen=True)
    class Once(td.AsyncSGD):
        def receive(self, state, reply, rng):
            return super().receive(state, reply, rng)[0], []

    go(tmp_path, Once(0.1))
    with pytest.raises(td.RunFileError, match="cannot go on: it stalled"):
        td.resume(tmp_path, stop=END)


def test_a_run_saved_without_its_problem_needs_the_same_one(tmp_path):
    go(td.Checkpoint(tmp_path, every_updates=5, with_problem=False), stop=td.MaxUpdates(20))
    with pytest.raises(td.RunFileError, match=r"saved without its problem: pass it, tardigrad\.resume"):
        td.resume(tmp_path, stop=END)
    with pytest.raises(td.RunFileError, match="made on another problem"):
        td.resume(tmp_path, problem=make_problem(batch=4), stop=END)
    assert td.resume(tmp_path, problem=make_problem(), stop=END).checkpoint.with_problem is False
    assert td.Result.load(tmp_path).problem is None


class NotPlain(td.Problem):
    n_clients, dim = 2, 3

    def gradient(self, client, x, sample=None):
        return x - client


def test_a_problem_that_cannot_be_saved_can_be_passed(tmp_path):
    with pytest.warns(UserWarning, match="saved without the problem") as warned:
        go(td.Checkpoint(tmp_path, every_updates=5), problem=NotPlain(), stop=td.MaxUpdates(20))
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="saved without the problem"):
        both = td.resume(tmp_path, problem=NotPlain(), stop=td.MaxUpdates(40))
    with pytest.warns(UserWarning, match="saved without the problem"):
        assert_same_runs(both, go(tmp_path / "whole", problem=NotPlain(), stop=td.MaxUpdates(40)))


@pytest.mark.parametrize("what", [None, 5, np.ones(2), td.AsyncSGD(0.1)], ids=repr)
def test_what_is_no_run(what):
    with pytest.raises(td.InvalidInputError, match="resume needs the folder of a run or a Result"):
        td.resume(what)


def test_a_rule_that_is_none(tmp_path):
    go(tmp_path, stop=td.MaxUpdates(5))
    with pytest.raises(td.InvalidInputError, match="rule must be a rule such as"):
        td.resume(tmp_path, rule="sgd", stop=END)


def test_an_engine_that_cannot_take_up_leaves_the_folder_alone(tmp_path):
    go(tmp_path, stop=td.MaxUpdates(20) | TOLERANCE)
    for engine in (AnyOrder(), td.Simulated(td.PerClient([1.0]))):
        with pytest.raises(td.TardigradError):
            td.resume(tmp_path, engine=engine, stop=END)
    assert_same_runs(td.resume(tmp_path, stop=END), go(tmp_path / "whole"))


def test_an_interrupt_while_tasks_are_taken_up_leaves_the_checkpoint_as_it_was(tmp_path, monkeypatch):
    go(tmp_path / "cut", stop=td.MaxUpdates(20) | TOLERANCE)
    take_up = td.Simulated.take_up

    def halfway(self, saved):
        take_up(self, InFlight(saved.clock, saved.jobs[:1], saved.kinds, saved.points, saved.submissions))
        raise KeyboardInterrupt

    monkeypatch.setattr(td.Simulated, "take_up", halfway)
    with pytest.raises(KeyboardInterrupt):
        td.resume(tmp_path / "cut", stop=END)
    monkeypatch.undo()
    assert_same_runs(td.resume(tmp_path / "cut", stop=END), go(tmp_path / "whole"))


def test_an_interrupt_before_tasks_are_taken_up_leaves_the_checkpoint_as_it_was(tmp_path, monkeypatch):
    go(tmp_path / "cut", stop=td.MaxUpdates(20) | TOLERANCE)

    class Interrupted(Recorder):
        def __init__(self, earlier=None):
            super().__init__(earlier)
            if earlier is not None:
                raise KeyboardInterrupt

    monkeypatch.setattr(loop, "Recorder", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        td.resume(tmp_path / "cut", stop=END)
    monkeypatch.undo()
    assert_same_runs(td.resume(tmp_path / "cut", stop=END), go(tmp_path / "whole"))


def test_an_interrupt_while_a_reply_is_handed_over_leaves_the_last_whole_checkpoint(tmp_path, monkeypatch):
    hand_over = td.Simulated.next

    def interrupted(self, timeout):
        reply = hand_over(self, timeout)
        if self.now() > 5.0:
            raise KeyboardInterrupt
        return reply

    monkeypatch.setattr(td.Simulated, "next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(td.Checkpoint(tmp_path / "cut", every_updates=2))
    monkeypatch.undo()
    assert_same_runs(td.resume(tmp_path / "cut"), go(tmp_path / "whole"))


def test_a_full_disk_at_the_last_checkpoint_does_not_hide_what_ended_the_run(tmp_path, monkeypatch):
    def full(self, run, rows):
        raise td.RunFileError("cannot write the run: No space left on device")

    monkeypatch.setattr(checkpoints.Keeper, "write", full)
    with pytest.raises(OSError, match="an observer") as caught:
        go(tmp_path, observers=At(12, lambda: (_ for _ in ()).throw(OSError("an observer"))))
    assert caught.value.__notes__ == ["the run up to there could not be saved: cannot write the run: No space left on device"]


def test_a_limit_below_what_was_done_is_refused_and_leaves_the_folder_alone(tmp_path):
    go(tmp_path, stop=td.MaxUpdates(20))
    with pytest.raises(td.InvalidInputError, match="has 20 updates already: a limit of 5 is too low"):
        td.resume(tmp_path, stop=td.MaxUpdates(5))
    assert td.Result.load(tmp_path).stop == td.MaxUpdates(20)


def test_kinds_of_engines_that_a_run_cannot_change_between(tmp_path):
    rule, shared = td.Hogwild(0.05), PROBLEMS["shared"]()
    served = td.run(rule, shared, td.Threads(2), stop=td.MaxUpdates(20), checkpoint=tmp_path / "served")
    free = td.run(rule, shared, td.Threads(2, lock_free=True), stop=td.MaxUpdates(20), checkpoint=tmp_path / "free")
    for run, engine, how in ((served, free.engine, "with a server"), (free, served.engine, "without a server")):
        with pytest.raises(td.RunFileError, match=f"was made {how}.*can only go on so"):
            td.resume(run, engine=engine, stop=END)
    with pytest.raises(td.RunFileError, match=r"cannot go on with Prescribed.* which prescribes it"):
        td.resume(served, engine=td.Prescribed(2), stop=END)
    assert td.replay(tmp_path / "served").identical


def test_a_run_that_began_with_live_points_is_never_said_to_replay(tmp_path):
    rule, problem = td.AsyncSGD(0.05), make_problem()
    live = go(tmp_path, rule, problem, td.Processes(2, points="live"), td.MaxUpdates(10))
    both = td.resume(tmp_path, engine=td.Processes(2), stop=td.MaxUpdates(20))
    assert not live.replayable
    for run in (both, tmp_path):
        with pytest.raises(td.ReplayError, match="cannot be replayed"):
            td.replay(run)


def test_small_problems_go_on_with_live_points(tmp_path):
    go(tmp_path, engine=td.Processes(2, points="live"), stop=td.MaxUpdates(10))
    assert td.resume(tmp_path, stop=td.MaxUpdates(20)).state.version == 20


def test_a_problem_in_the_place_of_the_rule_is_named(tmp_path):
    go(tmp_path, stop=td.MaxUpdates(10))
    with pytest.raises(td.InvalidInputError, match="the second argument of resume is the rule: pass problem="):
        td.resume(tmp_path, make_problem())


def test_one_engine_serves_one_run_at_a_time():
    engine = td.Simulated(td.Constant(1.0))

    class Again(td.Observer):
        def observe(self, moment):
            with pytest.raises(td.InvalidInputError, match=r"Simulated\(timing=Constant\(seconds=1.0\)\) serves a run already"):
                go(None, engine=engine)

    go(None, engine=engine, observers=[Again()], stop=td.MaxUpdates(3))
    go(None, engine=engine, stop=td.MaxUpdates(3))
