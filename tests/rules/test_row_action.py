"""Delayed row steps: limiting cases in every bit, the written-out method, its theory, and bad input."""

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from conftest import make_problem
from same_runs import assert_same_runs
from tardigrad.core.plain import same_bits
from tardigrad.rules.row_action import row_steps
from tardigrad.testing import check_rule
from tardigrad.theory import row_action as theory


def make_system(n_rows=60, dim=8, n_clients=1, sparse=False, dtype=np.float64, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n_rows, dim))
    if sparse:
        A *= rng.random((n_rows, dim)) < 0.4
    A = A.astype(dtype)
    solution = rng.normal(size=dim).astype(dtype)
    b = A @ solution
    return td.LinearSystem(sp.csr_array(A) if sparse else A, b, n_clients=n_clients, solution=solution, **kwargs)


KINDS = {
    "dense": make_system,
    "diagonal B": lambda **kw: make_system(B=np.linspace(0.5, 2.0, 8), **kw),
    "float32": lambda **kw: make_system(dtype=np.float32, **kw),
    "sparse": lambda **kw: make_system(sparse=True, **kw),
    "by norms": lambda **kw: make_system(sketch=td.Rows("norms"), **kw),
}


def alone(rule, system, engine, n=150, **kwargs):
    return td.run(rule, system, engine, **{"stop": td.MaxUpdates(n), "snapshot_every": 40, "seed": 3, **kwargs})


def free(workers=1, **kwargs):
    return td.Threads(workers, lock_free=True, **kwargs)


@pytest.mark.parametrize("omega", [1.0, 0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_single_steps_of_one_worker_have_the_same_bits_served_and_lock_free(kind, omega):
    engines = td.Simulated(td.Constant(1.0)), td.Threads(1), free(), td.Prescribed(0)
    histories = [alone(td.RowAction(omega), KINDS[kind](), engine).history.x for engine in engines]
    for history in histories[1:]:
        assert same_bits(history, histories[0])
    system = KINDS[kind]()
    steps, x = row_steps(system), system.x0()
    for row in system.rows_at(3, 0, 150):  # interpreted
        change, *columns = steps.change(int(row), x, x.dtype.type(omega))
        x[columns[0] if columns else slice(None)] += change
    assert same_bits(x, histories[0][-1])


@pytest.mark.parametrize("rows", [2, 5, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_a_task_are_the_compiled_loop_lock_free_and_that_up_to_rounding_served(kind, rows):
    system = KINDS[kind]()
    result = alone(td.RowAction(rows=rows), system, free(), n=30)
    assert result.oracle_calls == 30 * rows
    x, all_rows = system.x0(), system.rows_at(3, 0, 30 * rows)
    for task in range(30):
        row_steps(system).steps(all_rows[task * rows : (task + 1) * rows], x.dtype.type(1), x)
    assert same_bits(result.x, x)
    served = [
        alone(td.RowAction(rows=rows), system, engine, n=30).x for engine in (td.Simulated(td.Constant(1.0)), td.Threads(1))
    ]
    assert same_bits(*served)
    np.testing.assert_allclose(served[0], x, rtol=0, atol=100 * np.finfo(x.dtype).eps)


def test_float32_runs_stay_in_float32():
    for engine in (free(2), td.Threads(2)):
        result = alone(td.RowAction(rows=2), make_system(dtype=np.float32), engine, n=400)
        assert result.x.dtype == np.float32
        assert result.evaluate()["error"][-1] < 1e-4


@pytest.mark.parametrize("rule", [td.RowAction(0.9), td.RowAction(rows=4), td.RowAction([0.5, 1.5])], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", [td.Threads(3), td.Simulated(td.Exponential(1.0))], ids=lambda e: type(e).__name__)
def test_served_runs_replay_in_every_bit(kind, rule, engine):
    result = alone(rule, KINDS[kind](n_clients=3), engine)
    replayed = td.replay(result)
    assert replayed.identical, replayed.difference


@pytest.mark.parametrize(("kind", "rows"), [("dense", 1), ("diagonal B", 4), ("sparse", 1), ("sparse", 4)])
def test_processes_replay_in_every_bit(kind, rows):
    replayed = td.replay(alone(td.RowAction(rows=rows), KINDS[kind](n_clients=2), td.Processes(2)))
    assert replayed.identical, replayed.difference


@pytest.mark.parametrize("rule", [td.RowAction(0.9), td.RowAction(0.9, rows=3), td.RowAction([0.5, 0.9])], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_keeps_its_contract(kind, rule):
    check_rule(rule, KINDS[kind](n_clients=3))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_lock_free_with_one_worker_it_equals_the_uninterrupted_run(tmp_path, kind, rows):
    system, rule = KINDS[kind](), td.RowAction(rows=rows)
    alone(rule, system, free(), n=37, checkpoint=tmp_path)
    resumed = td.resume(tmp_path, stop=td.MaxUpdates(100))
    whole = alone(rule, system, free(), n=100)
    assert same_bits(resumed.state, whole.state)
    assert same_bits(resumed.x, whole.x)


def test_resumed_served_it_equals_the_uninterrupted_run(tmp_path):
    engine = td.Simulated(td.Exponential(1.0))
    system = make_system(n_clients=4, sparse=True)
    td.run(td.RowAction(), system, engine, stop=td.MaxUpdates(37), checkpoint=tmp_path)
    resumed = td.resume(tmp_path, stop=td.MaxUpdates(100))
    assert_same_runs(resumed, td.run(td.RowAction(), system, engine, stop=td.MaxUpdates(100)), in_flight=False)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("delay", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_delayed_it_is_the_written_out_loop(kind, delay, rows):
    system, omega, n = KINDS[kind](), 0.8, 80
    engine = td.Prescribed(delay)
    result = td.run(td.RowAction(omega, rows=rows), system, engine, stop=td.MaxUpdates(n), seed=3, snapshot_every=1)
    A = system.A.toarray() if sp.issparse(system.A) else system.A
    B = np.ones(system.dim) if system.B is None else system.B
    points = [system.x0().astype(np.float64)]
    order = system.rows_at(3, 0, n * rows)
    for t in range(n):
        copy = points[max(0, t - delay)].copy()
        for i in order[t * rows : (t + 1) * rows]:
            if norm := A[i] @ (A[i] / B):
                copy += omega * (system.b[i] - A[i] @ copy) / norm * A[i] / B
        points.append(points[-1] + copy - points[max(0, t - delay)])
    # the error of rounding grows where a delay is too long for the step
    scale = max(1.0, np.abs(points).max())
    np.testing.assert_allclose(result.history.x, points, rtol=0, atol=1e3 * np.finfo(system.dtype).eps * scale)


def test_a_sweep_of_omega_and_replicas():
    system, engine = make_system(n_clients=2), td.Simulated(td.Exponential(1.0))
    sweep = alone(td.RowAction([0.5, 1.0, 1.9]), system, engine)
    assert sweep.x.shape == (3, 8)
    for omega, x in zip([0.5, 1.0, 1.9], sweep.x, strict=True):
        np.testing.assert_allclose(alone(td.RowAction(omega), system, engine).x, x, rtol=0, atol=1e-12)
    assert same_bits(alone(td.RowAction([1.0, 1.0]), system, engine).x[0], alone(td.RowAction([1.0, 1.0]), system, engine).x[1])
    both = alone(td.RowAction([0.5, 1.0]), system, engine, replicas=4)
    assert both.x.shape == (4, 2, 8)
    assert len({x.tobytes() for x in both.x[:, 0]}) == 4
    assert td.replay(both).identical


@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("omega", [1.0, 0.6])
def test_the_expected_error_follows_its_recursion(omega, delay):
    """``p[t+1] = p[t] - omega lam p[t-delay]`` along each eigenvector of W, beside the mean of many replicas."""
    system, n, replicas = make_system(20, 4, sketch=td.Rows("uniform"), B=np.array([0.5, 1.0, 1.5, 2.0])), 30, 20_000
    root = np.sqrt(system.B)
    rows = system.A / root
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(rows.T @ rows / 20)
    engine = td.Prescribed(delay)
    result = td.run(td.RowAction(omega), system, engine, stop=td.MaxUpdates(n), replicas=replicas, snapshot_every=1)
    errors = ((result.history.x - system.solution) * root) @ vectors
    p = [errors[0].mean(axis=0)]
    for t in range(n):
        p.append(p[t] - omega * values * p[max(0, t - delay)])
    spread = errors.std(axis=1) / np.sqrt(replicas)
    assert (np.abs(errors.mean(axis=1) - p) < 5 * spread + 1e-12).all()
    assert (spread[-1] < 0.05 * np.abs(p[0]).max()).all()


@pytest.mark.parametrize("delay", [0, 2, 5])
def test_the_expected_square_stays_under_its_bound(delay):
    system, n, replicas = make_system(40, 6, sketch=td.Rows("norms")), 120, 3000
    values = np.linalg.eigvalsh(system.A.T @ system.A / np.linalg.norm(system.A) ** 2)
    omega = theory.best_omega(values[0], values[-1], delay)
    engine = td.Prescribed(delay)
    result = td.run(td.RowAction(omega), system, engine, stop=td.MaxUpdates(n), replicas=replicas, snapshot_every=10)
    squares = ((result.history.x - system.solution) ** 2).sum(axis=-1)
    mean, spread = squares.mean(axis=1), squares.std(axis=1) / np.sqrt(replicas)
    bound = theory.rate(values[0], values[-1], omega, delay) ** result.history.version * mean[0]
    assert (mean <= bound + 5 * spread).all()
    weak = theory.weak_rate(values[0], values[-1], omega, delay)
    assert mean[-1] / mean[0] > 0.01 * weak ** (2 * n)  # a square of a mean is no larger than the mean of squares


def test_delays_that_cost_nothing_and_one_that_makes_it_diverge():
    system = make_system(400, 50)
    runs = [td.run(td.RowAction(), system, td.Prescribed(d), stop=td.MaxUpdates(4000)).evaluate()["error"][-1] for d in (0, 7)]
    assert max(runs) < 1e-9  # the notes' case: 1.5e-13 at delay 7
    far = td.run(td.RowAction(1.9), make_system(60, 4), td.Prescribed(40), stop=td.MaxUpdates(4000))
    assert far.evaluate()["error"][-1] > 1e3 or far.status is td.Status.DIVERGED


#: processes once: each of them compiles
EVERYWHERE = [
    *(
        (engine, rows, sparse)
        for engine in (free(2), td.Threads(2), td.Simulated(td.Constant(1.0)))
        for rows in (1, 3)
        for sparse in (False, True)
    ),
    (td.Processes(1), 3, False),
]


@pytest.mark.parametrize(("engine", "rows", "sparse"), EVERYWHERE)
def test_a_row_that_cannot_hold_is_named(engine, rows, sparse):
    A, b = np.ones((30, 3)), np.ones(30)
    A[17] = 0
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, b, n_clients=2)
    with pytest.raises((td.WorkerError, td.InvalidInputError), match=r"row 17 of A is zero but b\[17\] is (not|1)"):
        td.run(td.RowAction(rows=rows), system, engine, stop=td.MaxUpdates(60))


@pytest.mark.parametrize(("engine", "rows", "sparse"), EVERYWHERE)
def test_nan_in_the_matrix_ends_the_run_as_diverged(engine, rows, sparse):
    A = np.ones((30, 3))
    A[17, 1] = np.nan
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, np.ones(30), n_clients=2)
    result = td.run(td.RowAction(rows=rows), system, engine, stop=td.MaxUpdates(60))
    assert result.status is td.Status.DIVERGED
    assert np.isfinite(result.x).all()


@pytest.mark.parametrize(
    "omega", [0, -1.0, 2, 2.5, np.nan, np.inf, True, "a", [1.0, 2.0], [[1.0], [-1.0]], td.PowerStep(0.3, 0.5)]
)
def test_omega_that_does_not_contract_is_refused(omega):
    with pytest.raises(td.InvalidInputError, match="omega"):
        td.RowAction(omega)


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, "1"])
def test_rows_must_be_a_number_of_rows(rows):
    with pytest.raises(td.InvalidInputError, match="rows must be an integer >= 1"):
        td.RowAction(rows=rows)


def test_what_does_not_go_together_is_refused():
    system, engine, stop = make_system(n_clients=2), td.Simulated(td.Constant(1.0)), td.MaxUpdates(10)
    with pytest.raises(td.InvalidInputError, match="sweep of omega takes one row step a task"):
        td.RowAction([0.5, 1.0], rows=2)
    with pytest.raises(td.InvalidInputError, match="replicas take one row step a task"):
        td.run(td.RowAction(rows=2), system, engine, stop=stop, replicas=2)
    for workers in (engine, free(2)):
        with pytest.raises(td.InvalidInputError, match="needs a LinearSystem with a Rows sketch, not LeastSquares"):
            td.run(td.RowAction(), make_problem(), workers, stop=stop)
        with pytest.raises(td.InvalidInputError, match=r"with a Rows sketch, not sketch RowBlocks"):
            td.run(td.RowAction(), make_system(sketch=td.RowBlocks(4)), workers, stop=stop)
        with pytest.raises(td.InvalidInputError, match="B to be the identity or diagonal"):
            td.run(td.RowAction(), make_system(B=np.eye(8)), workers, stop=stop)
    with pytest.raises(td.InvalidInputError, match=r"single run, not replicas of shape \(2,\)"):
        td.run(td.RowAction([0.5, 1.0]), system, free(2), stop=stop)


def test_more_rows_a_task_than_the_system_has():
    system = make_system(n_clients=2)
    for engine in (free(1), td.Threads(1)):  # two workers may each add all of the solution
        assert alone(td.RowAction(rows=1000), system, engine, n=4).evaluate()["error"][-1] < 1e-10


@pytest.mark.parametrize("rows", [1, 3])
def test_a_matrix_in_a_file_gives_the_bits_of_the_same_rows_in_memory_and_is_not_copied(tmp_path, rows):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(300, 5))
    np.save(tmp_path / "A.npy", A)
    b = A @ rng.normal(size=5)
    mapped = td.LinearSystem(np.load(tmp_path / "A.npy", mmap_mode="r"), b, n_clients=2)
    matrix = row_steps(mapped).matrix[0]
    assert np.shares_memory(matrix, mapped.A)
    assert type(matrix) is np.ndarray
    in_memory = td.LinearSystem(A, b, n_clients=2)
    assert mapped.is_file
    assert not in_memory.is_file
    assert same_bits(mapped.rows_at(0, 0, 300), in_memory.rows_at(0, 0, 300))  # one stretch: the same order
    for make in (free, td.Threads):
        runs = [alone(td.RowAction(rows=rows), system, make(1), n=100) for system in (mapped, in_memory)]
        assert same_bits(runs[0].x, runs[1].x)
    processes = alone(td.RowAction(rows=rows), mapped, td.Processes(1), n=100)  # these open the file
    assert same_bits(processes.x, runs[0].x)
    assert td.replay(processes).identical


def test_a_file_is_not_sent_to_workers(tmp_path):
    """The worker's half is small, though the matrix is not."""
    import pickle

    from tardigrad.core.worker import WorkerHalf

    np.save(tmp_path / "A.npy", np.ones((1000, 100)))
    system = td.LinearSystem(np.load(tmp_path / "A.npy", mmap_mode="r"), np.ones(1000))
    row_steps(system)
    assert len(pickle.dumps(WorkerHalf(td.RowAction(), system, 0))) < 20_000
