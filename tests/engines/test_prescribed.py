"""Prescribed staleness: runs against recursions written by hand, and against simulations that have the same staleness."""

from dataclasses import dataclass, field

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Task
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines import replay as replay_module
from tardigrad.engines.prescribed import FOR_ALL, FOR_EACH
from tardigrad.engines.reads import GivenVersions

N = 1500  # longer than a block of drawn versions


def one_client(**kwargs):
    problem = make_problem()
    return td.LeastSquares((problem.data.X, problem.data.y), **{"batch": 3, **kwargs})


def function_of(n, rng):
    return rng.integers(n // 3, n + 1)


def function_of_each(n, rng):
    return [n, n // 2, int(rng.integers(n + 1))]


READS = {
    "number": lambda: td.Prescribed(4),
    "constant": lambda: td.Prescribed(td.ConstantDelay(1100)),
    "uniform": lambda: td.Prescribed(td.UniformDelay(0.5)),
    "uniform, up to n": lambda: td.Prescribed(td.UniformDelay(1.0), horizon=N),
    "power": lambda: td.Prescribed(td.PowerDelay(2.0), horizon=N),
    "array": lambda: td.Prescribed(np.arange(N) // 2),
    "list": lambda: td.Prescribed([n // 3 for n in range(N)]),
    "function": lambda: td.Prescribed(function_of, horizon=N),
}

READS_OF_EACH = {
    "constant": lambda: td.Prescribed(td.ConstantDelay([0, 3, 1100])),
    "uniform": lambda: td.Prescribed(td.UniformDelay([0.1, 0.5, 0.5])),
    "power": lambda: td.Prescribed(td.PowerDelay([1.0, 2.0, 3.0]), horizon=N),
    "array": lambda: td.Prescribed(np.stack([np.arange(N), np.arange(N) // 2, np.zeros(N, int)], axis=1)),
    "function": lambda: td.Prescribed(function_of_each, horizon=N),
}


def prescribed_versions(engine, seed):
    """s(0), ..., s(N - 1), drawn here."""
    stream = Stream(seed, Domain.TIMING)
    if callable(engine.read):
        return np.array([engine.read(n, stream.at(n)) for n in range(N)])
    blocks = [np.arange(first, min(first + 1024, N)) for first in range(0, N, 1024)]
    return np.concatenate([engine.read.versions(block, stream.at(i)) for i, block in enumerate(blocks)])


def delayed(problem, versions, step, seed, replicas=None):
    """``x[n+1] = x[n] - step g(x[s(n)])``, written out."""
    x = problem.x0() if replicas is None else np.zeros((replicas, problem.dim))
    iterates = [x]
    stream = Stream(seed, Domain.TASK, replicas)
    for n, version in enumerate(versions):
        point = iterates[version] if replicas is None else np.stack([iterates[v][r] for r, v in enumerate(version)])
        iterates.append(iterates[n] - step * problem.gradient(0, point, problem.sample(0, stream.at(n))))
    return iterates


@pytest.mark.parametrize("name", READS)
def test_run_is_the_delayed_recursion(name):
    problem, engine = one_client(), READS[name]()
    result = td.run(td.AsyncSGD(1e-3), problem, engine, stop=td.MaxUpdates(N), seed=2, snapshot_every=100)
    versions = prescribed_versions(engine, 2)
    iterates = delayed(problem, versions, 1e-3, 2)
    assert result.status is td.Status.MAX_UPDATES
    assert (result.trace["version_read"] == versions).all()
    assert (result.trace.staleness == np.arange(N) - versions).all()
    assert result.x.tobytes() == iterates[N].tobytes()
    for version, x in zip(result.history.version, result.history.x, strict=True):
        assert x.tobytes() == iterates[version].tobytes()


@pytest.mark.parametrize("name", READS_OF_EACH)
def test_replicas_read_their_own_versions(name):
    problem, engine = one_client(), READS_OF_EACH[name]()
    result = td.run(td.AsyncSGD(1e-3), problem, engine, stop=td.MaxUpdates(N), seed=2, replicas=3)
    versions = prescribed_versions(engine, 2)
    assert (result.trace["version_read"] == versions.min(axis=1)).all()
    assert result.x.tobytes() == delayed(problem, versions, 1e-3, 2, replicas=3)[N].tobytes()


def test_a_sweep_of_steps_counts_as_replicas():
    problem = one_client(batch=None)
    result = td.run(td.AsyncSGD([0.01, 0.05]), problem, td.Prescribed(td.ConstantDelay([4, 0])), stop=td.MaxUpdates(50))
    for i, (step, d) in enumerate([(0.01, 4), (0.05, 0)]):
        expected = delayed(problem, np.maximum(np.arange(50) - d, 0), step, 0)[50]
        np.testing.assert_allclose(result.x[i], expected, rtol=1e-10)


def test_all_replicas_read_the_same_version_of_a_sequence_of_numbers():
    problem = one_client(batch=None)
    shared = td.run(td.AsyncSGD(0.05), problem, td.Prescribed(td.UniformDelay(0.5)), stop=td.MaxUpdates(200), replicas=3)
    own = td.run(td.AsyncSGD(0.05), problem, td.Prescribed(td.UniformDelay([0.5] * 3)), stop=td.MaxUpdates(200), replicas=3)
    assert len({row.tobytes() for row in shared.x}) == 1
    assert len({row.tobytes() for row in own.x}) == 3


def test_update_n_asks_the_client_chosen_before_it():
    problem = make_problem()
    result = td.run(td.AsyncSGD(0.02, "uniform"), problem, td.Prescribed(5), stop=td.MaxUpdates(60), seed=1)
    draw = [Stream(1, Domain.START)] + [Stream(1, Domain.SERVER).at(n) for n in range(59)]
    clients = [int(rng.integers(4)) for rng in draw]
    iterates, stream = [problem.x0()], Stream(1, Domain.TASK)
    for n, client in enumerate(clients):
        gradient = problem.gradient(client, iterates[max(0, n - 5)], problem.sample(client, stream.at(n)))
        iterates.append(iterates[n] - 0.02 * gradient * (1 if problem.equal_weights else problem.scale(client)))
    assert result.trace["client"].tolist() == clients
    assert result.x.tobytes() == iterates[-1].tobytes()


def compare(result, simulated):
    assert result.x.tobytes() == simulated.x.tobytes()
    for column in ("task", "client", "version_read", "version_applied"):
        assert (result.trace[column] == simulated.trace[column]).all()


@pytest.mark.parametrize("d", [0, 1, 6])
def test_constant_delay_is_a_queue_of_one_client(d):
    """One client with d + 1 tasks in flight answers each from the point of d updates ago."""
    problem, kept = one_client(), {"stop": td.MaxUpdates(100), "seed": 3}
    simulated = td.run(td.AsyncSGD(0.02), problem, td.Simulated(td.Constant(1.0)), concurrency=d + 1, **kept)
    compare(td.run(td.AsyncSGD(0.02), problem, td.Prescribed(d), **kept), simulated)


@pytest.mark.parametrize("shared", [False, True])
def test_constant_delay_is_a_round_robin_of_equal_clients(shared):
    """d + 1 equally fast clients answer in turn, from the point of d updates ago."""
    data = make_problem().data
    problem, kept = td.LeastSquares(data, td.Shared(4) if shared else td.Iid(4), batch=3), {"stop": td.MaxUpdates(100)}
    rule = td.AsyncSGD(0.02, momentum=0.3, concurrency=4)
    simulated = td.run(rule, problem, td.Simulated(td.Constant(1.0)), **kept)
    compare(td.run(rule, problem, td.Prescribed(3), **kept), simulated)


def test_runs_are_reproducible_and_differ_by_seed():
    problem, kept = one_client(), {"stop": td.MaxUpdates(300)}
    engine = td.Prescribed(td.UniformDelay(0.5))
    first, again, other = (td.run(td.AsyncSGD(0.02), problem, engine, seed=seed, **kept) for seed in (1, 1, 2))
    assert first.trace.table.tobytes() == again.trace.table.tobytes()
    assert first.x.tobytes() == again.x.tobytes()
    assert (first.trace["version_read"] != other.trace["version_read"]).any()


def test_a_horizon_ends_the_run_and_changes_nothing_before():
    problem, rule = one_client(), td.AsyncSGD(0.02)
    whole = td.run(rule, problem, td.Prescribed(td.UniformDelay(0.5)), stop=td.MaxUpdates(120), snapshot_every=1)
    ended = td.run(rule, problem, td.Prescribed(td.UniformDelay(0.5), horizon=70), stop=None)
    assert (ended.status, ended.message) == (td.Status.ENDED, "the prescribed versions end here, after 70 updates")
    assert len(ended.trace) == 70
    assert ended.x.tobytes() == whole.history.x[70].tobytes()


def test_an_array_ends_the_run():
    result = td.run(td.AsyncSGD(0.02), one_client(), td.Prescribed([0, 0, 1, 0]), stop=None)
    assert result.status is td.Status.ENDED
    assert result.trace["version_read"].tolist() == [0, 0, 1, 0]
    shorter = td.run(td.AsyncSGD(0.02), one_client(), td.Prescribed([0, 0, 1, 0], horizon=2), stop=None)
    assert shorter.trace.updates == 2


def test_a_run_without_an_end_needs_a_stop():
    with pytest.raises(td.InvalidInputError, match="stop=None would never end"):
        td.run(td.AsyncSGD(0.02), one_client(), td.Prescribed(3), stop=None)


def test_an_update_takes_a_second():
    result = td.run(td.AsyncSGD(0.02), one_client(), td.Prescribed(3), stop=td.MaxSeconds(10.5))
    assert result.status is td.Status.MAX_SECONDS
    assert result.trace["received"].tolist() == list(range(1, 11))
    assert result.trace["started"].tolist() == list(range(10))


def test_the_trace_says_how_versions_were_prescribed():
    kept = {"stop": td.MaxUpdates(5), "replicas": 2}
    for read, mark in ((3, FOR_ALL), (td.ConstantDelay([3, 3]), FOR_EACH)):
        result = td.run(td.AsyncSGD(0.02), one_client(), td.Prescribed(read), **kept)
        assert set(result.trace["worker"].tolist()) == {mark}


@pytest.mark.parametrize("name", [*READS, *(f"{name}, each" for name in READS_OF_EACH)])
def test_replays_in_memory_and_from_disk(name, tmp_path):
    each = name.endswith(", each")
    engine = READS_OF_EACH[name.removesuffix(", each")]() if each else READS[name]()
    kept = {"stop": td.MaxUpdates(1200), "seed": 4, "replicas": 3 if each else None, "snapshot_every": 50}
    result = td.run(td.AsyncSGD(1e-3), one_client(), engine, **kept)
    td.run(td.AsyncSGD(1e-3), one_client(), engine, **{**kept, "seed": 5})  # a later run leaves the first one's result alone
    assert td.replay(result).identical
    result.save(tmp_path / "run")
    replayed = td.replay(tmp_path / "run")
    assert replayed.identical, replayed.difference
    loaded = td.Result.load(tmp_path / "run").engine
    assert isinstance(loaded, td.Prescribed)
    assert (prescribed_versions(loaded, 4) == prescribed_versions(engine, 4)).all()
    if each:
        with pytest.raises(td.InvalidInputError, match="each replica read a version of its own"):
            td.Replay(result.trace)
        again = td.Replay(result.trace, result.engine)
    else:
        again = td.Replay(result.trace)
    replayed = td.run(result.rule, result.problem, again, stop=None, seed=4, replicas=kept["replicas"])
    assert replayed.x.tobytes() == result.x.tobytes()
    assert replayed.trace.table.tobytes() == result.trace.table.tobytes()


def test_a_replay_of_a_replay_replays(tmp_path):
    result = td.run(td.AsyncSGD(1e-3), one_client(), READS_OF_EACH["uniform"](), stop=td.MaxUpdates(30), replicas=3)
    again = td.replay(result).result
    again.save(tmp_path)
    assert td.replay(tmp_path).identical


def test_a_replay_with_other_versions_is_seen_or_refused():
    result = td.run(td.AsyncSGD(0.02), one_client(), td.Prescribed(3), stop=td.MaxUpdates(40))
    rows = result.trace.table.copy()
    for version, message in ((5, "the iterate differs first"), (31, None)):
        rows["version_read"][30] = version
        result.trace = td.Trace(rows, 40)
        if message:
            assert td.replay(result).difference.startswith(message)
        else:
            with pytest.raises(td.ReplayError, match="update 30 cannot read version 31"):
                td.replay(result)


def test_a_trace_of_versions_of_each_replica_must_fit_them():
    result = td.run(td.AsyncSGD(0.02), one_client(), READS_OF_EACH["constant"](), stop=td.MaxUpdates(40), replicas=3)
    rows = result.trace.table.copy()
    rows["version_read"][30] = 5
    result.trace = td.Trace(rows, 40)
    with pytest.raises(td.ReplayError, match=r"row 30 of the trace .* here it is of client 0 at version 0"):
        td.replay(result)


def test_a_replay_takes_no_other_engine():
    result = td.run(td.AsyncSGD(0.02), one_client(), td.Prescribed(3), stop=td.MaxUpdates(4))
    with pytest.raises(td.InvalidInputError, match=r"Replay takes the Prescribed engine of the run, .* not 3"):
        td.Replay(result.trace, 3)


def test_a_replay_with_another_rule_is_refused():
    problem = make_problem()
    result = td.run(td.AsyncSGD(0.02, "uniform"), problem, td.Prescribed(3), stop=td.MaxUpdates(40))
    with pytest.raises(td.ReplayError, match=r"row \d+ of the trace answers task"):
        td.run(td.AsyncSGD(0.02, "shuffled"), problem, td.Replay(result.trace), stop=None)
    rows = np.concatenate([result.trace.table, result.trace.table[-1:]])
    rows["task"][-1] = 40
    with pytest.raises(td.ReplayError, match="no version is prescribed for update 40"):
        td.run(result.rule, problem, td.Replay(td.Trace(rows, 40)), stop=None)


@pytest.mark.parametrize("engine", [lambda: td.Prescribed(3), lambda: td.Simulated(td.Exponential(1.0))])
def test_a_replay_reads_its_trace_in_blocks(engine, monkeypatch):
    result = td.run(td.AsyncSGD(0.02), make_problem(), engine(), stop=td.MaxUpdates(30))
    for rows in (1, 7, 10, 30, 31):
        monkeypatch.setattr(replay_module, "ROWS", rows)
        assert td.replay(result).identical


def opened(read):
    engine = td.Prescribed(read)
    engine.open(WorkerHalf(td.AsyncSGD(0.1), make_problem(), 0), td.Placement(4, False))
    return engine


def test_tasks_are_answered_in_the_order_of_issue_and_cancelled_ones_never():
    engine = opened(0)
    for number, client in enumerate([3, 1, 3, 0]):
        engine.submit(Task(number, client), 0, (np.zeros(5),))
    engine.cancel(1)
    engine.cancel(99)
    replies = [engine.next(np.inf) for _ in range(3)]
    assert [reply.task.id for reply in replies] == [0, 2, 3]
    assert [reply.submitted for reply in replies] == [0.0] * 3
    engine.submit(Task(4, 0), 0, (np.zeros(5),))
    assert engine.next(0.5) is None
    assert engine.now() == 3.5
    reply = engine.next(1.0)
    assert (reply.task.id, reply.submitted, reply.started, reply.finished) == (4, 3.0, 3.5, 4.5)
    assert engine.next(0.5) is None
    engine.close()
    engine.close()


def test_closing_an_engine_that_was_never_opened():
    td.Prescribed(3).close()


def test_points_are_copied_where_the_rule_updates_in_place():
    problem = td.LeastSquares((np.ones((4, 20_000)), np.ones(4)))
    result = td.run(td.AsyncSGD(1e-6), problem, td.Prescribed(2), stop=td.MaxUpdates(20))
    assert result.x.nbytes > 2**17
    assert result.x.tobytes() == delayed(problem, np.maximum(np.arange(20) - 2, 0), 1e-6, 0)[20].tobytes()


@dataclass(slots=True, kw_only=True)
class PairState(td.State):
    x_prev: np.ndarray
    waiting: list = field(default_factory=list)


@dataclass(frozen=True)
class Buffered(td.Rule):
    """Updates after every second reply, reads two points; issues a task at once or, if `late`, two after the update."""

    late: bool = False
    per_update: int = 1

    def start(self, x0, n_clients, rng):
        state = PairState(x=x0, x_prev=x0 - 1.0)
        return state, [state.task(0), state.task(0)]

    def points(self, state):
        return state.x, state.x_prev

    def receive(self, state, reply, rng):
        state.waiting = [*state.waiting, reply.payload.copy()]
        if len(state.waiting) == 2:
            state.x_prev[...] = state.x
            state.x -= 0.1 * (state.waiting[0] + state.waiting[1])
            state.version += self.per_update
            state.waiting = []
            return state, [state.task(0) for _ in range(2 if self.late else 1)]
        return state, [] if self.late else [state.task(0)]

    def work(self, problem, task, points, rng, cache):
        return 2 * points[0] - points[1]


@pytest.mark.parametrize("late", [False, True])
def test_all_replies_of_an_update_read_its_version_and_all_points_come_from_it(late):
    result = td.run(Buffered(late), one_client(), td.Prescribed(3), stop=td.MaxUpdates(40))
    x = [problem_x0 := one_client().x0()]
    previous = [problem_x0 - 1.0]
    for n in range(40):
        s = max(0, n - 3)
        payload = 2 * x[s] - previous[s]
        x.append(x[n] - 0.1 * (payload + payload))
        previous.append(x[n])
    assert result.x.tobytes() == x[-1].tobytes()
    assert result.trace["version_read"].tolist() == [max(0, n - 3) for n in range(40) for _ in range(2)]
    assert td.replay(result).identical


def test_a_version_without_a_task_cannot_be_read():
    with pytest.raises(td.InvalidInputError, match="update 2 is to read version 1, but no task was issued at that version"):
        td.run(Buffered(per_update=2), one_client(), td.Prescribed(1), stop=td.MaxUpdates(40))
    result = td.run(Buffered(per_update=2), one_client(), td.Prescribed(2), stop=td.MaxUpdates(40))
    assert set(result.trace.staleness.tolist()) == {0, 2}
    assert td.replay(result).identical


def test_synchronous_rules_say_why_they_do_not_run():
    with pytest.raises(td.InvalidInputError, match="SyncSGD does not run on Prescribed: a round waits"):
        td.run(td.SyncSGD(0.1), make_problem(), td.Prescribed(0), stop=td.MaxUpdates(5))


def test_the_wrong_number_of_replicas_is_refused():
    for replicas, shape in ((None, r"\(5,\)"), (2, r"\(2, 5\)")):
        with pytest.raises(td.InvalidInputError, match=rf"versions for 3 replicas, .* have shape {shape}"):
            td.run(
                td.AsyncSGD(0.1),
                make_problem(),
                td.Prescribed(td.ConstantDelay([0, 1, 2])),
                stop=td.MaxUpdates(5),
                replicas=replicas,
            )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: td.Prescribed(-1), "needs a delay >= 0 in updates, .* not -1"),
        (lambda: td.Prescribed(None), "needs a delay >= 0 in updates, .* not None"),
        (lambda: td.Prescribed("5"), "needs a delay >= 0 in updates, .* not '5'"),
        (lambda: td.Prescribed(0.5), "needs a delay >= 0 in updates, .* not 0.5"),
        (lambda: td.Prescribed(td.UniformDelay), "needs a delay >= 0 in updates, .* not <class"),
        (lambda: td.Prescribed([0, 5]), "update 1 cannot read version 5"),
        (lambda: td.Prescribed(3, horizon=0), "horizon must be an integer >= 1, not 0"),
        (lambda: td.Prescribed([0, 0], horizon=3), "horizon=3, but GivenVersions.* has versions for 2 updates only"),
        (lambda: td.Prescribed(td.UniformDelay(1.0)), r"Prescribed\(UniformDelay\(c=1.0\)\) needs a horizon: any of its"),
        (lambda: td.Prescribed(td.UniformDelay([0.5, 1.0])), "needs a horizon"),
        (lambda: td.Prescribed(td.PowerDelay(2)), r"Prescribed\(PowerDelay\(q=2.0\)\) needs a horizon"),
        (lambda: td.Prescribed(function_of), "needs a horizon: versions are drawn before the run, .* Pass horizon=N"),
    ],
)
def test_what_cannot_be_prescribed_is_refused(make, message):
    with pytest.raises(td.InvalidInputError, match=message):
        make()


def test_an_engine_with_a_function_is_saved_as_a_table():
    engine = td.Prescribed(function_of, horizon=30)
    result = td.run(td.AsyncSGD(0.1), make_problem(), engine, stop=td.MaxUpdates(10))
    assert engine.as_run() is result.engine
    assert isinstance(result.engine.read, GivenVersions)
    assert result.engine.read.table.tolist() == prescribed_versions(td.Prescribed(function_of, N), 0)[:30].tolist()
    plain = td.run(td.AsyncSGD(0.1), make_problem(), fixed := td.Prescribed(3), stop=td.MaxUpdates(10))
    assert plain.engine is fixed
