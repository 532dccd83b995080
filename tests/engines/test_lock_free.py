"""Runs without a server: exactly so many updates, whole blocks, one worker equals the served run in every bit."""

import signal
import time
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse
from block_rule import BlockDescent

import tardigrad as td
from conftest import make_problem
from presses import PressSoon, press_soon
from tardigrad.core.free_loop import LOOK
from tardigrad.core.plain import same_bits
from tardigrad.rules import row_action


def shared(n_workers, **kwargs):
    problem = make_problem()
    return td.LeastSquares((problem.data.X, problem.data.y), td.Shared(n_workers), **{"batch": 3, **kwargs})


def free(rule, problem, workers, n=200, **kwargs):
    engine = td.Threads(workers, lock_free=True)
    return td.run(rule, problem, engine, **{"stop": td.MaxUpdates(n), **kwargs})


def with_a_share_for_all(workers, make, least=2):
    """A run in which each worker did some of the updates: on a busy machine one may sleep through a run that is short."""
    for _ in range(50):
        result = make()
        if min(result.state.counts[:workers]) >= least:
            return result
    raise AssertionError(f"in 50 runs not all workers had {least} updates: {result.state.counts} in the last")


@pytest.mark.parametrize("step", [0.05, td.PowerStep(0.3, 0.75, 2.0)], ids=["constant", "decreasing"])
def test_one_worker_equals_the_served_run_without_delay_in_every_bit(step):
    ours = free(td.Hogwild(step), shared(1), 1, snapshot_every=20)
    served = td.run(td.Hogwild(step), shared(1), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(200), snapshot_every=20)
    assert same_bits(ours.history.x, served.history.x)
    assert ours.state.counts == [200]


def test_served_without_delay_it_is_asynchronous_sgd():
    runs = [
        td.run(rule, make_problem(), td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(100))
        for rule in (td.Hogwild(0.05), td.AsyncSGD(0.05))
    ]
    assert same_bits(runs[0].x, runs[1].x)


def test_large_iterates_are_updated_with_the_same_bits_as_numpy_gives():
    rng = np.random.default_rng(0)
    for dtype in (np.float64, np.float32):
        x, g = rng.normal(size=(2, 100_001)).astype(dtype)
        expected = x - g * dtype(0.3)
        td.Hogwild(0.3).write(x, g, td.Task(0, 0))
        assert same_bits(x, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int16, np.bool_])
def test_gradients_of_another_type_are_mixed_as_numpy_does(dtype):
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=100_001).astype(np.float32), (10 * rng.normal(size=100_001)).astype(dtype)
    expected = x - (g * np.asarray(np.float32(0.3))).astype(np.float32)
    td.Hogwild(0.3).write(x, g, td.Task(0, 0))
    assert same_bits(x, expected)


def test_a_gradient_of_another_shape_is_named():
    with pytest.raises(td.InvalidInputError, match=r"a gradient has shape \(3,\), the iterate \(4,\)"):
        td.Hogwild(0.3).write(np.zeros(4), np.zeros(3), td.Task(0, 0))


def test_one_worker_with_own_blocks_equals_sequential_block_descent():
    problem = make_problem(batch=None)
    result = free(BlockDescent(), problem, 1, n=41)
    x, bounds = problem.x0(), BlockDescent().bounds(problem.dim, problem.n_clients)
    for n in range(41):
        client = n % problem.n_clients
        block = slice(bounds[client], bounds[client + 1])
        gradient = problem.gradient(client, x)[block]
        x = x.copy()
        x[block] -= 0.05 * gradient
    assert same_bits(result.x, x)


class Counting(td.Problem):
    """The gradient is -1 in every entry: with step 1 every entry counts the updates that reached it."""

    shared_data = True

    def __init__(self, n_clients, dim):
        self.n_clients, self.dim = n_clients, dim

    def fields(self):
        return {"n_clients": self.n_clients, "dim": self.dim}

    def gradient(self, client, x, sample=None):
        return np.full(self.dim, -1.0)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_exactly_as_many_updates_as_asked_for(n):
    result = free(BlockDescent(step=1.0), Counting(4, 8), 4, n=n)
    assert result.status is td.Status.MAX_UPDATES
    assert sum(result.state.counts) == result.state.version == result.trace.updates == n
    assert result.x.sum() == 2 * n  # each update adds 1 to the two entries of a block
    assert len(result.trace) == 0


@dataclass(frozen=True)
class Torn(BlockDescent):
    """All entries of a block are equal; a reader that sees half of a write says so."""

    def work(self, problem, task, points, rng, cache):
        for block in points:
            assert (block == block[0]).all(), "torn"
        return np.full(points[task.client].shape, -1.0)

    def write(self, x, payload, task):
        for low in range(0, len(x), 200):  # slowly
            x[low : low + 200] -= payload[low : low + 200]


def test_readers_of_owned_blocks_never_see_half_of_a_write():
    result = free(Torn(step=1.0), Counting(4, 40_000), 4, n=400)
    assert sum(result.state.counts) == 400
    assert result.x.sum() == 400 * 10_000


def test_observers_and_snapshots_come_at_their_versions():
    result = free(td.Hogwild(0.05), shared(3), 3, n=100, snapshot_every=30)
    assert result.history.version.tolist() == [0, 30, 60, 90, 100]


def test_limits_of_time_and_oracle_calls():
    assert free(td.Hogwild(0.05), shared(2), 2, stop=td.MaxOracleCalls(33)).state.version == 33
    result = free(td.Hogwild(0.0001), shared(2), 2, stop=td.MaxSeconds(0.3))
    assert result.status is td.Status.MAX_SECONDS
    assert sum(result.state.counts) == result.state.version > 0
    result = free(td.Hogwild(0.1), shared(2), 2, stop=td.MaxUpdates(10**6) | td.Tolerance("loss", at_most=1e9, every=10))
    assert result.status is td.Status.CONVERGED


def test_divergence_keeps_a_finite_iterate():
    result = free(td.Hogwild(1e200), shared(2), 2, n=100, snapshot_every=5)
    assert result.status is td.Status.DIVERGED
    assert np.isfinite(result.x).all()
    assert "smaller step" in result.message


def test_blocks_that_diverge_before_a_look_leave_those_of_the_last_look():
    x0 = np.arange(1.0, 9.0)
    result = free(BlockDescent(step=1e200), Counting(4, 8), 4, n=8, x0=x0)
    assert result.status is td.Status.DIVERGED
    assert result.x.tolist() == x0.tolist()


def test_resumed_with_one_worker_it_equals_the_uninterrupted_run(tmp_path):
    problem, engine = make_problem(), td.Threads(1, lock_free=True)
    td.run(td.Hogwild(0.05), problem, engine, stop=td.MaxUpdates(37), checkpoint=tmp_path, snapshot_every=10)
    resumed = td.resume(tmp_path, stop=td.MaxUpdates(100))
    whole = td.run(td.Hogwild(0.05), problem, engine, stop=td.MaxUpdates(100), snapshot_every=10)
    assert same_bits(resumed.state, whole.state)
    assert same_bits(resumed.history.x, whole.history.x)
    blocks = free(BlockDescent(), problem, 1, n=20, checkpoint=tmp_path / "blocks")
    assert blocks.in_flight is not None
    assert same_bits(td.resume(tmp_path / "blocks", stop=td.MaxUpdates(41)).x, free(BlockDescent(), problem, 1, n=41).x)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_resumed_with_another_number_of_workers_it_counts_all_updates(tmp_path, workers):
    free(BlockDescent(step=1.0), Counting(4, 8), 3, n=50, checkpoint=tmp_path)
    engine = td.Threads(workers, lock_free=True)
    result = td.resume(tmp_path, problem=Counting(4, 8), engine=engine, stop=td.MaxUpdates(120))
    assert sum(result.state.counts) == result.state.version == result.x.sum() / 2 == 120


class Failing(Counting):
    def gradient(self, client, x, sample=None):
        if x[0] > 20:
            raise ZeroDivisionError("an oracle that fails on purpose")
        return super().gradient(client, x)


def test_a_task_that_fails_three_times_ends_the_run_with_its_traceback():
    with pytest.raises(td.WorkerError, match=r"task \d+ of client \d failed 3 times") as caught:
        free(td.Hogwild(1.0), Failing(2, 3), 2, n=1000)
    assert "an oracle that fails on purpose" in str(caught.value)
    assert caught.value.result.state.version == sum(caught.value.result.state.counts) > 0


def test_interrupt_ends_a_slice():
    result = free(td.Hogwild(1e-6), shared(2), 2, n=10**9, observers=PressSoon())
    assert result.status is td.Status.INTERRUPTED
    assert sum(result.state.counts) == result.state.version


class Slowly(Counting):
    def gradient(self, client, x, sample=None):
        time.sleep(0.05)
        return super().gradient(client, x)


class Twice(td.Threads):
    """Two interrupts while the first slice goes on."""

    def run_free(self, blocks, state, until, look):
        looks = []

        def look_and_interrupt():
            seconds = look()
            looks.append(seconds)
            if len(looks) == 2:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            return seconds

        super().run_free(blocks, state, until, look_and_interrupt)


def test_a_second_interrupt_leaves_a_checkpoint_that_counts_every_update(tmp_path):
    problem, stop = Slowly(4, 8), td.MaxUpdates(10**9)
    with pytest.raises(KeyboardInterrupt) as caught:
        td.run(BlockDescent(step=1.0), problem, Twice(4, lock_free=True), stop=stop, checkpoint=tmp_path)
    assert "the run up to there is in" in caught.value.__notes__[0]
    state = td.Result.load(tmp_path, problem).state
    assert state.x.sum() / 2 == state.version == sum(state.counts) > 0


class Watches(Counting):
    """The second client is slow: it looks whether the first goes on for longer than the time between two looks."""

    def gradient(self, client, x, sample=None):
        if client == 0:
            self.calls = getattr(self, "calls", 0) + 1
            time.sleep(0.001)
        elif not hasattr(self, "goes_on"):
            time.sleep(3 * LOOK)
            before, end = getattr(self, "calls", 0), time.monotonic() + 5.0
            while (calls := getattr(self, "calls", 0)) < before + 3 and time.monotonic() < end:
                time.sleep(0.001)
            self.goes_on = calls >= before + 3
        return super().gradient(client, x)


def test_nobody_waits_for_a_slow_worker_while_nobody_looks():
    problem = Watches(2, 8)
    free(td.Hogwild(1e-6), problem, 2, stop=td.MaxSeconds(4 * LOOK))
    assert problem.goes_on


def test_injected_durations_make_workers_unequal():
    engine = td.Threads(2, timing=td.PerClient([0.001, 0.1]), lock_free=True)
    result = td.run(td.Hogwild(0.01), shared(2), engine, stop=td.MaxUpdates(100))
    assert result.state.counts[0] > 2 * result.state.counts[1] > 0


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(td.InvalidInputError, match=r"needs a rule that workers can apply in place, .* not AsyncSGD"):
        free(td.AsyncSGD(0.1), shared(2), 2)
    with pytest.raises(td.InvalidInputError, match=r"single run, not replicas of shape \(2,\)"):
        free(td.Hogwild([0.1, 0.2]), shared(2), 2)
    with pytest.raises(td.InvalidInputError, match="each of 2 blocks has one owner: 3 workers are too many"):
        free(BlockDescent(), shared(2), 3)
    with pytest.raises(td.InvalidInputError, match="lock-free run has no deadline"):
        td.Threads(2, deadline=1.0, lock_free=True)
    with pytest.raises(td.InvalidInputError, match="Simulated has no lock-free runs"):
        td.Simulated(td.Constant(1.0)).run_free([], None, 1, lambda: 1.0)
    result = free(td.Hogwild(0.05), shared(2), 2)
    with pytest.raises(td.ReplayError, match="cannot be replayed"):
        td.replay(result)
    result.save(tmp_path)
    assert td.Result.load(tmp_path).state.counts == result.state.counts
    assert result.plot() is not None


class Returns(td.Hogwild):
    def write(self, x, payload, task):
        return x - payload


@dataclass(frozen=True)
class Nobody(BlockDescent):
    ownership: str = "mine"


class NoField(td.InPlaceRule):
    def work(self, problem, task, points, rng, cache):
        return points[0]

    def write(self, x, payload, task):
        x -= payload


@pytest.mark.parametrize("engine", [td.Simulated(td.Constant(1.0)), td.Threads(2, lock_free=True)], ids=["served", "free"])
@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Returns(0.1), "write returned ndarray: it must change x in place"),
        (Nobody(), "ownership must be 'racy' or 'disjoint', not 'mine'"),
        (NoField(), "must be a frozen dataclass with a field `concurrency"),
    ],
    ids=["returns", "ownership", "no field"],
)
def test_mistakes_in_a_rule_of_ones_own_are_named(rule, message, engine):
    with pytest.raises((td.InvalidInputError, td.WorkerError), match=message):
        td.run(rule, shared(2), engine, stop=td.MaxUpdates(10))


@pytest.mark.parametrize("name", ["lock_free", "reassign"])
def test_yes_is_no_answer(name):
    with pytest.raises(td.InvalidInputError, match=f"{name} must be True or False, not 'yes'"):
        td.Threads(2, **{name: "yes"}, **({"deadline": 1.0} if name == "reassign" else {}))


@dataclass(frozen=True)
class InSweeps(td.InPlaceRule):
    """Adds 1 to every entry for a task; `sweep` keeps a list of its calls."""

    length: int = 10
    concurrency: int | None = None

    def work(self, problem, task, points, rng, cache):
        return np.ones(problem.dim)

    def write(self, x, payload, task):
        x += payload

    def sweep_length(self, problem):
        return self.length

    def sweep(self, problem, client, tasks, seed, x):
        problem.calls.append((client, tasks, seed))
        time.sleep(0.001)
        x += len(tasks)


class Noting(Counting):
    def __init__(self, n_clients, dim):
        super().__init__(n_clients, dim)
        self.calls = []


@pytest.mark.parametrize("workers", [1, 3, 4])
@pytest.mark.parametrize("n", [1, 10, 101, 999])
def test_sweeps_do_each_task_once_and_no_more_than_asked_for(n, workers):
    problem = Noting(4, 3)
    result = free(InSweeps(), problem, workers, n=n, seed=7)
    assert result.status is td.Status.MAX_UPDATES
    assert sum(result.state.counts) == result.state.version == n
    assert sorted(number for _, tasks, _ in problem.calls for number in tasks) == list(range(n))
    size = min(10, -(-n // (4 * workers)))  # so that each worker has a few draws
    assert {len(tasks) for _, tasks, _ in problem.calls[:-workers]} <= {size}
    assert {seed for *_, seed in problem.calls} == {7}
    if workers == 1:
        assert (result.x == n).all()


def test_sweeps_end_at_the_versions_that_observers_and_checkpoints_want(tmp_path):
    problem = Noting(1, 3)
    result = free(InSweeps(), problem, 1, n=100, snapshot_every=33)
    assert result.history.x[:, 0].tolist() == result.history.version.tolist() == [0, 33, 66, 99, 100]
    free(InSweeps(), Noting(1, 3), 1, n=37, checkpoint=tmp_path)
    problem = Noting(1, 3)
    resumed = td.resume(tmp_path, problem=problem, stop=td.MaxUpdates(101))
    assert sorted(number for _, tasks, _ in problem.calls for number in tasks) == list(range(37, 101))
    assert (resumed.x == 101).all()


@pytest.mark.parametrize("length", [1, 10])
def test_clients_of_a_worker_take_turns_in_sweeps_as_in_single_tasks(length):
    problem = Noting(4, 3)

    def anew():
        problem.calls.clear()
        return free(InSweeps(length), problem, 2, n=400)

    with_a_share_for_all(2, anew, least=2 * length)
    for worker in range(2):
        mine = [client for client, *_ in problem.calls if client % 2 == worker]
        assert abs(mine.count(worker) - mine.count(worker + 2)) <= 1
        assert len(mine) > 1


@dataclass(frozen=True)
class FailsInSweeps(InSweeps):
    def sweep(self, problem, client, tasks, seed, x):
        if tasks.start >= 50:
            raise ZeroDivisionError("a sweep that fails on purpose")
        super().sweep(problem, client, tasks, seed, x)


@dataclass(frozen=True)
class ReturnsFromSweeps(InSweeps):
    def sweep(self, problem, client, tasks, seed, x):
        return x + len(tasks)


@dataclass(frozen=True)
class SweepsOfBlocks(BlockDescent):
    def sweep_length(self, problem):
        return 10


def test_mistakes_in_sweeps_are_named():
    with pytest.raises(td.WorkerError, match=r"task \d+ of client \d could not be done") as caught:
        free(FailsInSweeps(), Noting(2, 3), 2, n=1000)
    assert "a sweep that fails on purpose" in str(caught.value)
    state = caught.value.result.state
    assert state.version == sum(state.counts) == 50
    with pytest.raises(td.WorkerError, match=r"sweep returned ndarray: it must change x in place"):
        free(ReturnsFromSweeps(), Noting(2, 3), 2)
    with pytest.raises(td.InvalidInputError, match=r"SweepsOfBlocks owns blocks: .* sweep_length must be 0"):
        free(SweepsOfBlocks(), Noting(2, 8), 2)


def test_sweeps_with_injected_durations_are_single_tasks_and_everybody_has_a_share():
    problem, timing = Noting(2, 3), td.PerClient([0.0005, 0.1])
    engine = td.Threads(2, timing=timing, lock_free=True)
    result = td.run(InSweeps(10_000), problem, engine, stop=td.MaxUpdates(300))
    assert {len(tasks) for _, tasks, _ in problem.calls} == {1}
    assert result.state.counts[0] > 2 * result.state.counts[1] > 0


@dataclass(frozen=True)
class PressesInSweeps(InSweeps):
    def sweep(self, problem, client, tasks, seed, x):
        super().sweep(problem, client, tasks, seed, x)
        if tasks.start == 0:
            press_soon()


def test_interrupt_ends_the_wait_after_a_sweep():
    problem = Noting(2, 3)
    engine = td.Threads(2, timing=td.Constant(1000.0), lock_free=True)
    result = td.run(PressesInSweeps(), problem, engine, stop=td.MaxUpdates(1000))
    assert result.status is td.Status.INTERRUPTED
    assert 1 <= result.state.version == sum(result.state.counts) <= 2


def rows_of_a_system(n_clients=1, sparse=False, n_rows=300, dim=30, dtype=np.float64):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(n_rows, dim)) * (rng.random((n_rows, dim)) < (0.2 if sparse else 1.0))
    solution = rng.normal(size=dim)
    A, b = A.astype(dtype), (A @ solution).astype(dtype)
    return td.LinearSystem(scipy.sparse.csr_array(A) if sparse else A, b, n_clients=n_clients, solution=solution)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("rows", [1, 4, 700])
@pytest.mark.parametrize(("workers", "n_clients"), [(2, 2), (4, 4), (4, 1), (2, 7)])
def test_row_steps_of_several_threads_converge_and_are_counted(monkeypatch, workers, n_clients, rows, sparse):
    monkeypatch.setattr(row_action, "AT_ONCE", 3000)  # so that all threads have some
    system, n = rows_of_a_system(n_clients, sparse), 1 + 100_000 // rows
    result = with_a_share_for_all(workers, lambda: free(td.RowAction(rows=rows), system, workers, n=n), least=n // 20)
    assert result.status is td.Status.MAX_UPDATES
    assert sum(result.state.counts) == result.state.version == n
    assert result.oracle_calls == n * rows
    assert result.evaluate()["error"][-1] < 1e-10


def test_row_steps_of_more_threads_than_rows():
    system = rows_of_a_system(4, n_rows=3, dim=5)
    result = with_a_share_for_all(3, lambda: free(td.RowAction(), system, 4, n=5000), least=200)
    assert result.evaluate()["residual"][-1] < 1e-10


def test_row_steps_end_by_time_by_calls_and_by_interrupt():
    system = rows_of_a_system(2)
    result = free(td.RowAction(rows=3), system, 2, stop=td.MaxSeconds(0.3))
    assert result.status is td.Status.MAX_SECONDS
    assert sum(result.state.counts) == result.state.version > 0
    assert free(td.RowAction(rows=3), system, 2, stop=td.MaxOracleCalls(100)).state.version == 34
    result = free(td.RowAction(), system, 2, n=10**12, observers=PressSoon())
    assert result.status is td.Status.INTERRUPTED
    assert sum(result.state.counts) == result.state.version > 0


def test_row_steps_with_one_slow_worker():
    engine = td.Threads(2, timing=td.PerClient([0.0005, 0.1]), lock_free=True)
    result = td.run(td.RowAction(), rows_of_a_system(2), engine, stop=td.MaxUpdates(1000))
    assert result.state.counts[0] > 2 * result.state.counts[1] > 0
    assert result.evaluate()["error"][-1] < 0.5
