"""Every sketch against the pseudo-inverse, and what theory says of projections."""

import threading

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from linear_systems import (
    METRICS,
    dense,
    inverse_of,
    make_matrix,
    make_metric,
    make_system,
    matrix_of,
    points,
    projection_step,
    tasks,
)
from tardigrad.problems import block as block_module
from tardigrad.problems import block_steps
from tardigrad.problems.block import Block
from tardigrad.problems.metric import Metric

SKETCHES = [
    *(td.Rows(order) for order in ("shuffled", "uniform", "norms")),
    td.RowBlocks(4),
    td.RowBlocks(4, order="uniform"),
    td.RowBlocks(4, "fixed"),
    td.RowBlocks(9, "fixed", "uniform"),
    td.GaussianSketch(3),
    td.CountSketch(4),
]
all_sketches = pytest.mark.parametrize("sketch", SKETCHES, ids=repr)
all_metrics = pytest.mark.parametrize("metric", METRICS)
both_kinds = pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])


def samples(system, n=6, seed=0):
    stream = tasks(seed)
    return [system.sample(0, stream.at(index)) for index in range(n)]


@all_sketches
@all_metrics
@both_kinds
def test_a_step_is_the_projection_by_the_pseudo_inverse(sketch, metric, sparse):
    system = make_system(sketch=sketch, metric=metric, sparse=sparse)
    for sample in samples(system):
        for lead in [(), (3,), (2, 3)]:
            x = points(system, *lead)
            step = system.gradient(0, x, sample)
            assert step.shape == x.shape
            assert np.allclose(step, projection_step(system, matrix_of(system, sample), x), rtol=1e-10, atol=1e-12)


@all_sketches
@all_metrics
def test_a_full_step_is_idempotent_and_solves_its_equations(sketch, metric):
    system = make_system(sketch=sketch, metric=metric)
    x = points(system, 5)
    for sample in samples(system):
        S = matrix_of(system, sample)
        after = x - system.gradient(0, x, sample)
        assert np.allclose((after @ dense(system).T - system.b) @ S, 0, atol=1e-11)
        assert np.allclose(system.gradient(0, after, sample), 0, atol=1e-12)


@all_sketches
@all_metrics
@both_kinds
def test_steps_stay_in_the_range_of_the_adjoint(sketch, metric, sparse):
    """Lemma 4 of the paper: iterates stay in x0 + Im(B^-1 A')."""
    system = make_system(9, 12, sketch=sketch, metric=metric, sparse=sparse)
    null = np.linalg.svd(dense(system))[2][np.linalg.matrix_rank(dense(system)) :]
    x0 = x = points(system)
    for sample in samples(system, 20):
        x = x - 1.3 * system.gradient(0, x, sample)
    B = np.linalg.inv(inverse_of(system.B, 12))
    assert np.abs(x - x0).max() > 0.1
    assert np.allclose(null @ B @ (x - x0), 0, atol=1e-10)


@all_sketches
@all_metrics
def test_lemma_1_holds(sketch, metric):
    """``|x - x* - omega g|_B^2 = |x - x*|_B^2 - omega (2 - omega) |g|_B^2``, as 2 f_S = |g|_B^2."""
    system = make_system(sketch=sketch, metric=metric)
    solution = np.linalg.lstsq(dense(system), system.b)[0]
    x = points(system)
    for sample in samples(system):
        g = system.gradient(0, x, sample)
        left = system.metric.norm(x - solution - 0.7 * g) ** 2
        right = system.metric.norm(x - solution) ** 2 - 0.7 * 1.3 * system.metric.norm(g) ** 2
        assert left == pytest.approx(right, rel=1e-11)


@all_sketches
@both_kinds
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_replicas_take_steps_of_their_own_and_sweeps_share_them(sketch, sparse, lead):
    system = make_system(sketch=sketch, sparse=sparse)
    stream = tasks(4, replicas=5)
    sample = system.sample(0, stream.at(7))
    assert len(sample) == 5
    x = points(system, 5, *lead)
    steps = system.gradient(0, x, sample)
    assert steps.shape == x.shape
    one_by_one = [system.gradient(0, x[r], sample[r]) for r in range(5)]
    assert np.allclose(steps, one_by_one, rtol=1e-12, atol=1e-13)


@all_sketches
def test_samples_are_pure_and_given_in_bulk(sketch):
    system, other = make_system(sketch=sketch, n_clients=3), make_system(sketch=sketch, n_clients=3)
    stream = tasks(11)
    one_by_one = [system.sample(index % 3, stream.at(index)) for index in range(40)]
    backwards = [other.sample(0, stream.at(index)) for index in reversed(range(40))][::-1]
    bulk = system.rows_at(11, 0, 40)
    assert np.array_equal(one_by_one, bulk)
    assert np.array_equal(backwards, bulk)
    assert np.array_equal(system.rows_at(11, 25, 40), bulk[25:])
    assert not np.array_equal(system.rows_at(12, 0, 40), bulk)
    assert len(system.rows_at(11, 5, 5)) == 0


@all_sketches
def test_a_sample_can_be_used_at_several_points(sketch):
    system = make_system(sketch=sketch)
    x, y = points(system), points(system, seed=6)
    first, second = samples(system, 2)
    here = system.gradient(0, x, first)
    system.gradient(0, y, second)
    assert np.array_equal(system.gradient(0, x, first), here)
    both = system.gradient(0, np.stack([x, y]), first)
    assert np.allclose(both[0] - both[1], system.gradient(0, x, first) - system.gradient(0, y, first), atol=1e-12)


@all_sketches
def test_a_second_sample_of_a_task_differs_from_the_first(sketch):
    system = make_system(200, 6, sketch=sketch)
    stream = tasks()
    pairs = [(system.sample(0, stream.at(k)), system.sample(0, stream)) for k in range(10)]
    assert any(not np.array_equal(a, b) for a, b in pairs)


@all_sketches
def test_a_basic_method_solves_the_system(sketch):
    system = make_system(40, 6, sketch=sketch)
    x, stream = system.x0(), tasks()
    for index in range(3000 if isinstance(sketch, td.Rows) else 400):
        x = x - system.gradient(0, x, system.sample(0, stream.at(index)))
    assert system.residual(x) < 1e-10


# --- expectations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sketch", [td.Rows("uniform"), td.Rows(), td.RowBlocks(4, "fixed"), td.RowBlocks(7, "fixed")], ids=repr
)
@all_metrics
@both_kinds
def test_the_exact_expectation_is_the_mean_over_all_samples(sketch, metric, sparse):
    system = make_system(sketch=sketch, metric=metric, sparse=sparse)
    n = system.n_rows if isinstance(sketch, td.Rows) else system._steps.n_blocks
    for lead in [(), (2, 3)]:
        x = points(system, *lead)
        mean = sum(system.gradient(0, x, k) for k in range(n)) / n
        assert np.allclose(system.gradient(0, x), mean, rtol=1e-11, atol=1e-12)


@all_metrics
@both_kinds
def test_the_expectation_by_norms_weighs_rows_by_their_norms(metric, sparse):
    system = make_system(sketch=td.Rows("norms"), metric=metric, sparse=sparse)
    A, inverse = dense(system), inverse_of(system.B, system.dim)
    squares = np.einsum("ij,jk,ik->i", A, inverse, A)
    x = points(system)
    mean = sum(p * system.gradient(0, x, k) for k, p in enumerate(squares / squares.sum()))
    assert np.allclose(system.gradient(0, x), mean, rtol=1e-11)


@pytest.mark.parametrize("sketch", [td.Rows("uniform"), td.Rows("norms"), td.RowBlocks(2, "fixed", "uniform")], ids=repr)
def test_samples_are_unbiased(sketch):
    system = make_system(12, 4, sketch=sketch)
    x = points(system)
    steps = np.stack([system.gradient(0, x, sample) for sample in system.rows_at(0, 0, 20_000)])
    errors = steps.std(axis=0) / np.sqrt(len(steps))
    assert (np.abs(steps.mean(axis=0) - system.gradient(0, x)) < 4.5 * errors).all()


@pytest.mark.parametrize("order", ["shuffled", "uniform"])
def test_every_row_is_in_a_random_block_equally_often(order):
    system = make_system(10, 4, sketch=td.RowBlocks(3, order=order))
    blocks = system.rows_at(0, 0, 10_000)
    assert (np.diff(blocks, axis=1) > 0).all(), "rows of a block are different, and in order"
    counts = np.bincount(blocks.ravel())
    assert np.abs(counts - 3000).max() < 200
    together = np.count_nonzero((blocks == 1).any(axis=1) & (blocks == 8).any(axis=1))
    assert together == pytest.approx(10_000 * 3 * 2 / (10 * 9), rel=0.12)


def test_shuffled_random_blocks_use_no_row_twice_in_a_pass():
    system = make_system(11, 4, sketch=td.RowBlocks(3))
    passes = system.rows_at(0, 0, 30).reshape(10, 9)
    assert all(len(set(rows)) == 9 for rows in passes.tolist())
    left_out = {(set(range(11)) - set(rows)).pop() for rows in passes.tolist()}
    assert len(left_out) > 2


@pytest.mark.parametrize("sketch", [td.RowBlocks(3), td.GaussianSketch(2), td.CountSketch(2)], ids=repr)
def test_other_expectations_are_refused(sketch):
    system = make_system(sketch=sketch)
    with pytest.raises(td.InvalidInputError, match=r"is not finite work: give a sample, or use RowBlocks"):
        system.gradient(0, system.x0())


def test_gaussian_and_count_matrices_have_their_distribution():
    system = make_system(400, 2, sketch=td.GaussianSketch(50))
    gauss = system._steps.matrix(7, slice(0, 400))
    assert gauss.shape == (50, 400)
    assert abs(gauss.mean()) < 0.03
    assert gauss.std() == pytest.approx(1, abs=0.02)
    system = make_system(400, 2, sketch=td.CountSketch(5))
    count = system._steps.matrix(7, slice(0, 400)).toarray()
    assert (np.abs(count).sum(axis=0) == 1).all()
    assert np.abs(count.sum()) < 70
    assert (np.abs(np.abs(count).sum(axis=1) - 80) < 35).all()


# --- blocks whose rows depend on each other ------------------------------------------------------------------------


def awkward_blocks():
    rng = np.random.default_rng(0)
    M = rng.normal(size=(5, 8))
    yield "the same row twice", np.vstack([M, M[2:3]])
    yield "a multiple of a row", np.vstack([M, -1e6 * M[:1]])
    yield "a sum of rows", np.vstack([M, M[1] + M[3]])
    yield "more rows than unknowns", rng.normal(size=(20, 8))
    yield "a row of zeros", np.vstack([M, np.zeros(8)])
    yield "zeros and the same row", np.vstack([M, np.zeros(8), M[:2]])
    yield "only zeros", np.zeros((2, 8))
    yield "all the same", np.tile(M[0], (4, 1))
    yield "scales far apart", M * np.array([1e-150, 1e-8, 1, 1e8, 1e150])[:, None]
    yield "tiny and huge rows", M * np.array([1e-200, 1e-300, 1, 1e200, 1e300])[:, None]
    yield "almost the same", np.vstack([M, M[0] + 1e-7 * M[1]])


@pytest.mark.parametrize(("name", "M"), list(awkward_blocks()), ids=lambda v: v if isinstance(v, str) else "")
@all_metrics
@both_kinds
def test_a_block_projects_truly_whatever_its_rank(name, M, metric, sparse):
    B = make_metric(metric, 8)
    solution, x = np.random.default_rng(1).normal(size=(2, 8))
    block = Block(sp.csr_array(M) if sparse else M.copy(), M @ solution, Metric(B, 8, np.dtype(float)))
    step = block.step(x[None])[0]
    # independent: rows to unit length, then an orthonormal basis by QR with pivoting
    import scipy.linalg

    largest = np.abs(M).max(axis=1)
    unit = M[largest > 0] / largest[largest > 0][:, None]
    L = np.linalg.cholesky(np.linalg.inv(inverse_of(B, 8)))
    rows = np.linalg.solve(L, unit.T)
    rows /= np.linalg.norm(rows, axis=0)
    if rows.size:
        Q, R, _ = scipy.linalg.qr(rows, mode="economic", pivoting=True)
        Q = Q[:, np.abs(np.diag(R)) > 1e-13]
        expected = np.linalg.solve(L.T, Q @ (Q.T @ (L.T @ (x - solution))))
    else:
        expected = np.zeros(8)
    assert np.allclose(step, expected, rtol=0, atol=1e-7 if name == "almost the same" else 1e-11)


def test_which_factor_is_taken():
    rng = np.random.default_rng(0)
    M, metric = rng.normal(size=(5, 8)), Metric(None, 8, np.dtype(float))
    good = Block(M.copy(), M[:, 0].copy(), metric).factor
    assert (good.kind, good.rank) == ("cholesky", 5)
    twice = np.vstack([M, M[:1]])
    assert (Block(twice.copy(), twice[:, 0].copy(), metric).factor.kind) == "basis"
    assert (Block(twice.copy(), twice[:, 0].copy(), metric).factor.rank) == 5
    zero = np.vstack([M, np.zeros(8)])
    factor = Block(zero.copy(), zero[:, 0].copy(), metric).factor
    assert (factor.kind, factor.rank) == ("cholesky", 5)
    M[0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        lost = Block(M, np.ones(5), metric)
    assert lost.factor.kind == "nonfinite"
    assert np.isnan(lost.step(np.ones((1, 8)))).all()


def test_singular_values_are_found_when_the_fast_algorithm_fails(monkeypatch):
    import scipy.linalg

    svd = scipy.linalg.svd

    def failing(*args, lapack_driver="gesdd", **kwargs):
        if lapack_driver == "gesdd":
            raise np.linalg.LinAlgError("SVD did not converge")
        return svd(*args, lapack_driver=lapack_driver, **kwargs)

    monkeypatch.setattr(block_module.scipy.linalg, "svd", failing)
    block = Block(np.ones((2, 3)), np.ones(2), Metric(None, 3, np.dtype(float)))
    assert np.allclose(block.step(np.zeros((1, 3))), -1 / 3)


@pytest.mark.parametrize(
    "sketch", [td.RowBlocks(6), td.RowBlocks(6, "fixed"), td.GaussianSketch(9), td.CountSketch(9)], ids=repr
)
def test_systems_of_low_rank_are_solved(sketch):
    system = make_system(30, 10, rank=4, sketch=sketch)
    x = system.x0()
    for sample in samples(system, 60):
        x = x - system.gradient(0, x, sample)
    assert system.residual(x) < 1e-12
    assert np.allclose(x, np.linalg.lstsq(dense(system), system.b, rcond=1e-10)[0], atol=1e-10)


# --- what a fixed partition keeps ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_rows", "size", "sizes"), [(12, 4, [4] * 3), (13, 4, [3, 3, 3, 4]), (5, 5, [5]), (5, 1, [1] * 5)])
def test_a_fixed_partition_has_every_row_once(n_rows, size, sizes):
    system = make_system(n_rows, 3, sketch=td.RowBlocks(size, "fixed"))
    blocks = system._steps.blocks
    assert sorted(map(len, blocks)) == sizes
    assert sorted(np.concatenate(blocks).tolist()) == list(range(n_rows))
    other = make_system(n_rows, 3, sketch=td.RowBlocks(size, "fixed", seed=1))._steps.blocks
    if 1 < size < n_rows:
        assert any(a.tolist() != b.tolist() for a, b in zip(blocks, other, strict=True))
    passes = system.rows_at(0, 0, 2 * len(blocks)).reshape(2, -1)
    assert (np.sort(passes, axis=1) == np.arange(len(blocks))).all()


@pytest.mark.parametrize(("budget", "kept"), [(0, (0, 0)), (400, (2, 0)), (1960, (5, 4)), (2**30, (6, 6))])
def test_what_is_kept_changes_no_bit(budget, kept, monkeypatch):
    x = points(make_system())
    fresh = [make_system(sketch=td.RowBlocks(5, "fixed")).gradient(0, x, k) for k in range(6)]
    monkeypatch.setattr(block_steps, "KEPT", budget)
    system = make_system(sketch=td.RowBlocks(5, "fixed"))
    for _ in range(3):
        for k in range(6):
            assert np.array_equal(system.gradient(0, x, k), fresh[k])
    steps = system._steps
    assert steps._bytes <= budget
    assert (len(steps._factors), len(steps._blocks)) == kept


def test_factors_are_computed_once(monkeypatch):
    made = []
    factor = block_module.Factor
    monkeypatch.setattr(block_module, "Factor", lambda *args: made.append(1) or factor(*args))
    system = make_system(sketch=td.RowBlocks(5, "fixed"))
    for sample in system.rows_at(0, 0, 30):
        system.gradient(0, system.x0(), sample)
    assert len(made) == 6


def test_threads_may_share_what_is_kept():
    system = make_system(60, 8, sketch=td.RowBlocks(4, "fixed"))
    x = points(system)
    expected = [make_system(60, 8, sketch=td.RowBlocks(4, "fixed")).gradient(0, x, k) for k in range(15)]
    wrong = []

    def work(k):
        for number in system.rows_at(k, 0, 150).tolist():
            if not np.array_equal(system.gradient(0, x, number), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(system._steps._blocks) == 15


def test_what_is_kept_is_not_part_of_the_problem():
    system = make_system(sketch=td.RowBlocks(5, "fixed"))
    before = system.fingerprint()
    for k in range(6):
        system.gradient(0, system.x0(), k)
    assert system.fingerprint() == before


# --- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: td.RowBlocks(0), "size must be an integer >= 1, not 0"),
        (lambda: td.RowBlocks(2.5), "size must be an integer"),
        (lambda: td.RowBlocks(2, "overlapping"), "partition must be 'random' or 'fixed', not 'overlapping'"),
        (lambda: td.RowBlocks(2, order="norms"), "order must be one of 'shuffled', 'uniform', not 'norms'"),
        (lambda: td.RowBlocks(2, "fixed", seed=-1), "seed must be"),
        (lambda: td.GaussianSketch(0), "size must be an integer"),
        (lambda: td.CountSketch(-2), "size must be an integer"),
        (lambda: make_system(30, 6, sketch=td.RowBlocks(31)), "blocks of 31 rows need as many equations: the system has 30"),
        (lambda: make_system(sketch="rows"), r"sketch must be one such as Rows\(\) or RowBlocks\(64\), not 'rows'"),
    ],
)
def test_wrong_sketches_are_refused(make, message):
    with pytest.raises(td.InvalidInputError, match=message):
        make()


@pytest.mark.parametrize(
    "sketch", [td.RowBlocks(30), td.RowBlocks(30, "fixed"), td.GaussianSketch(40), td.CountSketch(100)], ids=repr
)
def test_a_sketch_of_everything_solves_at_once(sketch):
    system = make_system(30, 6, sketch=sketch)
    x = points(system)
    sample = samples(system, 1)[0]
    assert system.residual(x - system.gradient(0, x, sample)) < (1e-11 if not isinstance(sketch, td.CountSketch) else 1e-9)


def test_zero_matrices_give_no_step_or_an_error():
    for sketch in SKETCHES:
        if isinstance(sketch, (td.GaussianSketch, td.CountSketch)):
            continue
        empty = td.LinearSystem(np.zeros((20, 3)), np.zeros(20), sketch=sketch)
        x = np.ones(3)
        for sample in samples(empty):
            assert not empty.gradient(0, x, sample).any()
        wrong = td.LinearSystem(np.zeros((20, 3)), np.ones(20), sketch=sketch)
        with pytest.raises(td.InvalidInputError, match=r"row \d+ of A is zero but b\[\d+\] is 1"):
            [wrong.gradient(0, x, sample) for sample in samples(wrong)]


@pytest.mark.parametrize("sketch", [td.GaussianSketch(2), td.CountSketch(2)], ids=repr)
def test_zero_matrices_of_combined_rows(sketch):
    empty = td.LinearSystem(np.zeros((20, 3)), np.zeros(20), sketch=sketch)
    assert not empty.gradient(0, np.ones(3), samples(empty, 1)[0]).any()
    wrong = td.LinearSystem(np.zeros((20, 3)), np.arange(1.0, 21.0), sketch=sketch)
    with pytest.raises(td.InvalidInputError, match=r"a combination of equations reads 0 = .*: the system has no solution"):
        wrong.gradient(0, np.ones(3), samples(wrong, 1)[0])


@all_sketches
@both_kinds
def test_float32_is_computed_as_float32(sketch, sparse):
    system = make_system(sketch=sketch, sparse=sparse, dtype=np.float32, metric="matrix")
    x = points(system, 3)
    for sample in samples(system, 3):
        step = system.gradient(0, x, sample)
        assert step.dtype == np.float32
        expected = projection_step(system, matrix_of(system, sample).astype(float), x)
        assert np.allclose(step, expected, rtol=2e-4, atol=2e-4)


def test_large_blocks_agree_with_lstsq():
    A = make_matrix(300, 120)
    system = td.LinearSystem(A, A @ np.ones(120), sketch=td.RowBlocks(60, "fixed"))
    x = points(system)
    for k in range(5):
        rows = system._steps.blocks[k]
        expected = np.linalg.lstsq(A[rows], A[rows] @ x - system.b[rows])[0]  # the shortest correction
        assert np.allclose(system.gradient(0, x, k), expected, atol=1e-11)
