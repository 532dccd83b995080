import pickle
import threading
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from linear_systems import METRICS, dense, inverse_of, make_matrix, make_metric, make_system, points, tasks
from tardigrad.problems import residuals, system_matrix
from tardigrad.problems.matrix_file import MatrixFile
from tardigrad.problems.metric import Metric

all_metrics = pytest.mark.parametrize("metric", METRICS)
both_kinds = pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
A34 = np.arange(1.0, 13.0).reshape(3, 4)


def refused(message):
    return pytest.raises(td.InvalidInputError, match=message)


# --- what is taken -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.int64, np.float64),
        (np.uint8, np.float64),
        (np.bool_, np.float64),
        (np.float16, np.float64),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.dtype(">f4"), np.float32),
        (np.dtype(">f8"), np.float64),
    ],
)
@both_kinds
def test_precision_is_that_of_the_matrix(given, dtype, sparse):
    if sparse and given in (np.float16, np.dtype(">f4"), np.dtype(">f8")):
        pytest.skip("scipy makes no such CSR matrix")
    A = np.array([[1, 0], [0, 1], [1, 1]]).astype(given)
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, [1, 2, 3], [2, 1], solution=[1, 2])
    assert {system.dtype, system.A.dtype, system.b.dtype, system.B.dtype, system.solution.dtype} == {np.dtype(dtype)}
    assert system.x0().dtype == system.gradient(0, system.x0(), 1).dtype == dtype
    assert system.residual(np.array([1, 2], dtype)) == 0


def test_a_matrix_is_not_copied_and_only_read():
    A = make_matrix()
    system = td.LinearSystem(A, np.ones(30))
    assert np.shares_memory(A, system.A)
    assert not system.A.flags.writeable
    assert A.flags.writeable, "the user's array stays as it is"
    with pytest.raises(ValueError, match="read-only"):
        system.b[0] = 1
    fortran = td.LinearSystem(np.asfortranarray(A), np.ones(30))
    assert fortran.A.flags.c_contiguous
    assert np.array_equal(fortran.A, A)
    nested = td.LinearSystem([[1, 2], [3, 4]], [1, 2])
    assert nested.A.tolist() == [[1, 2], [3, 4]]


def test_right_hand_sides_are_copied():
    b, B, solution = np.ones(30), np.ones(6), np.ones(6)
    system = td.LinearSystem(make_matrix(), b, B, solution=solution)
    b[:], B[:], solution[:] = 7, 7, 7
    assert system.b.max() == system.B.max() == system.solution.max() == 1


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "matrix"])
def test_every_sparse_format_becomes_csr(form):
    A = make_matrix(density=0.4)
    given = sp.csr_matrix(A) if form == "matrix" else sp.csr_array(A).asformat(form)
    system = td.LinearSystem(given, A @ np.ones(6))
    assert system.A.format == "csr"
    assert np.array_equal(system.A.toarray(), A)
    assert system.residual(np.ones(6)) < 1e-15


def odd_csr():
    """Unsorted indices, one of them twice, an empty row, an explicit zero: [[5, 0, 3], [0, 0, 0], [0, 0, 1]]."""
    data, indices, indptr = np.array([3.0, 4.0, 1.0, 0.0, 1.0]), np.array([2, 0, 0, 1, 2]), np.array([0, 3, 3, 5])
    return sp.csr_array((data, indices, indptr), shape=(3, 3))


@all_metrics
@pytest.mark.parametrize("flags", [False, True], ids=["honest flags", "stale flags"])
def test_unsorted_and_duplicate_indices(metric, flags):
    given = odd_csr()
    if flags:  # as after a change of the index arrays in place
        given.has_sorted_indices = True
        given.has_canonical_format = True
    system = td.LinearSystem(given, [8.0, 0.0, 1.0], make_metric(metric, 3))
    plain = td.LinearSystem([[5, 0, 3], [0, 0, 0], [0, 0, 1]], [8.0, 0.0, 1.0], make_metric(metric, 3))
    assert system.A.has_canonical_format
    assert (np.diff(system.A.indices[: system.A.indptr[1]]) > 0).all()
    x = points(system, 4)
    for row in range(3):
        assert np.allclose(system.gradient(0, x, row), plain.gradient(0, x, row), rtol=1e-14, atol=1e-15)
    assert np.allclose(system.residual(x), plain.residual(x), rtol=1e-14)
    assert given.indices.tolist() == [2, 0, 0, 1, 2], "the user's matrix stays as it is"


def test_canonical_csr_is_not_copied():
    A = sp.csr_array(make_matrix(density=0.4))
    assert np.shares_memory(td.LinearSystem(A, np.ones(30)).A.data, A.data)


@pytest.mark.parametrize("index", [-1, 3, 10**6])
def test_csr_columns_out_of_range_are_refused(index):
    A = odd_csr()
    A.indices[1] = index
    with refused("A is not a valid CSR matrix"):
        td.LinearSystem(A, np.ones(3))


def test_csr_pointers_out_of_range_are_refused():
    A = odd_csr()
    A.indptr[1] = 4  # beyond the next one
    with refused("A is not a valid CSR matrix"):
        td.LinearSystem(A, np.ones(3))


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (np.ones(3), r"A must have shape \(n_rows, dim\) .* not \(3,\); a single equation is A\[None, :\]"),
        (np.ones((2, 2, 2)), r"not \(2, 2, 2\)"),
        (np.ones((0, 3)), r"not \(0, 3\)"),
        (np.ones((3, 0)), r"not \(3, 0\)"),
        (5.0, r"not \(\)"),
        ([[1, 2], [3]], "its rows have different lengths"),
        (np.ones((2, 2)) * 1j, "A must hold real numbers, not complex128"),
        (np.array([["a"]]), "A must hold real numbers, not <U1"),
        (np.array([[None]]), "A must hold real numbers, not object"),
        (sp.csr_array((2, 2), dtype=complex), "A must hold real numbers, not complex128"),
    ],
)
def test_wrong_matrices_are_refused(A, message):
    with refused(message):
        td.LinearSystem(A, np.ones(2))


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (np.ones(4), r"b must have shape \(3,\), a number for each equation, not \(4,\)"),
        (np.ones((3, 1)), r"not \(3, 1\): pass b.ravel\(\)"),
        (np.ones((1, 3)), r"not \(1, 3\): pass b.ravel\(\)"),
        (np.ones((3, 2)), r"not \(3, 2\)$"),
        (1.0, r"not \(\)"),
        ([1, 2, np.nan], r"b\[2\] is nan: b must be finite in float64"),
        ([1, np.inf, 2], r"b\[1\] is inf"),
        (np.ones(3) * 1j, "b must hold real numbers, one for each equation"),
        (["a", "b", "c"], "b must hold real numbers"),
        ([1, [2], 3], "b must hold real numbers"),
        (None, "b must hold real numbers"),
        (sp.csr_array(np.ones((3, 1))), r"b must be a dense vector: pass b.toarray\(\).ravel\(\)"),
    ],
)
def test_wrong_right_hand_sides_are_refused(b, message):
    with refused(message):
        td.LinearSystem(A34, b)


def test_a_right_hand_side_beyond_float32_is_refused():
    with refused(r"b\[1\] is 1e\+50: b must be finite in float32, the type of A"):
        td.LinearSystem(A34.astype(np.float32), [1.0, 1e50, 2.0])


@pytest.mark.parametrize(
    ("B", "message"),
    [
        (np.ones(3), r"B must have shape \(4,\), its diagonal, or \(4, 4\), not \(3,\)"),
        (np.eye(3), r"not \(3, 3\)"),
        (2.0, r"not \(\)"),
        ([1, 2, 0, 4], r"B is not positive definite: B\[2\] is 0"),
        ([1, -2, 3, 4], r"B\[1\] is -2"),
        ([1, 2, np.nan, 4], r"B\[2\] is nan: B must be finite in float64"),
        (np.eye(4) + np.diag([1.0, 0, 0], 1), r"B is not symmetric: B\[0, 1\] is 1 and B\[1, 0\] is 0"),
        (np.diag([1.0, 2.0, -3.0, 4.0]), "B is not positive definite: its smallest eigenvalue is -3"),
        (np.ones((4, 4)), "B is not positive definite: its smallest eigenvalue is"),
        (np.full((4, 4), np.inf), r"B\[0, 0\] is inf"),
        (np.eye(4) * 1j, "B must hold real numbers"),
        ("identity", "B must hold real numbers"),
        (sp.eye_array(4), r"pass B.toarray\(\) or its diagonal"),
    ],
)
def test_wrong_metrics_are_refused(B, message):
    with refused(message):
        td.LinearSystem(A34, np.ones(3), B)


def test_a_metric_may_be_asymmetric_by_rounding():
    B = make_metric("matrix", 4)
    B[0, 1] *= 1 + 1e-15
    td.LinearSystem(A34, np.ones(3), B)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_clients": 0}, "n_clients must be an integer >= 1, not 0"),
        ({"n_clients": 2.0}, "n_clients must be an integer"),
        ({"solution": np.ones(3)}, r"solution must have shape \(4,\), a number for each unknown, not \(3,\)"),
        ({"solution": [1, 2, 3, np.nan]}, r"solution\[3\] is nan"),
        ({"tol": 0}, "tol must be a finite number > 0"),
        ({"tol": "small"}, "tol must be"),
    ],
)
def test_wrong_keywords_are_refused(kwargs, message):
    with refused(message):
        td.LinearSystem(A34, np.ones(3), **kwargs)


# --- metric --------------------------------------------------------------------------------------------------------


@all_metrics
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_products_in_the_metric(metric, lead):
    system = make_system(metric=metric)
    inverse = inverse_of(system.B, 6)
    B = np.linalg.inv(inverse)
    v, m = points(system, *lead), system.metric
    assert np.allclose(system.solve_B(v), v @ inverse)
    assert np.allclose(m.norm(v), np.sqrt(np.einsum("...i,ij,...j->...", v, B, v)))
    assert np.allclose((m.whiten(v) ** 2).sum(-1), np.einsum("...i,ij,...j->...", v, inverse, v))
    assert np.allclose((m.weigh(v) ** 2).sum(-1), m.norm(v) ** 2)
    assert np.allclose(m.unwhiten(m.weigh(v)), v)
    assert np.allclose(m.unwhiten(m.whiten(v)), system.solve_B(v))


def test_solve_b_of_the_identity_is_no_copy():
    system, v = make_system(), np.ones(6)
    assert system.solve_B(v) is v


# --- single rows that are awkward ----------------------------------------------------------------------------------


@both_kinds
@all_metrics
@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_rows_of_any_size_are_projected_onto(sparse, metric, scale):
    A = make_matrix(density=0.6) * scale
    A, b = (sp.csr_array(A) if sparse else A), A @ np.ones(6)
    system = td.LinearSystem(A, b, make_metric(metric, 6))
    plain = td.LinearSystem(dense(system) / scale, b / scale, make_metric(metric, 6))
    for lead in [(), (2, 3)]:
        x = points(system, *lead)
        for row in range(5):
            assert np.allclose(system.gradient(0, x, row), plain.gradient(0, x, row), rtol=1e-12)
    x, rows = points(system, 4), np.arange(4)
    assert np.allclose(system.residual(x), plain.residual(x), rtol=1e-12)
    assert np.allclose(system.estimated_residual(x, 9), plain.estimated_residual(x, 9), rtol=1e-12)
    assert np.allclose(system.gradient(0, x, rows), plain.gradient(0, x, rows), rtol=1e-12)


@both_kinds
def test_zero_rows_are_skipped_or_named(sparse):
    A = make_matrix()
    A[3] = 0
    b = A @ np.ones(6)
    x = np.random.default_rng(0).normal(size=(2, 6))
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, b)
    assert not system.gradient(0, x, 3).any()
    assert not system.gradient(0, x, np.array([3, 0]))[0].any()
    b[3] = 0.5
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, b, sketch=td.Rows("norms"))
    with refused(r"row 3 of A is zero but b\[3\] is 0.5: the system has no solution"):
        system.gradient(0, x, 3)
    with refused("row 3 of A is zero"):
        system.gradient(0, x, np.array([0, 3]))
    with refused("row 3 of A is zero"):
        system.sample(0, tasks().at(0))
    with refused("row 3 of A is zero"):
        system.gradient(0, x)
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, b, sketch=td.RowBlocks(30))
    with refused("row 3 of A is zero"):
        system.gradient(0, x, np.arange(30))


@both_kinds
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_entry_that_is_not_finite_is_named(sparse, bad, monkeypatch):
    A = make_matrix()
    assert td.LinearSystem(sp.csr_array(A) if sparse else A, np.ones(30)).explain_nonfinite() is None
    A[17, 4] = A[17, 5] = A[20, 0] = bad
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, np.ones(30))
    assert system.explain_nonfinite() == f"A[17, 4] is {bad}: remove that equation or fill it in"
    monkeypatch.setattr(system_matrix, "PART", 100)
    assert system.explain_nonfinite() == f"A[17, 4] is {bad}: remove that equation or fill it in"
    assert np.isnan(system.gradient(0, np.ones(6), 17)).any()
    for sketch in (td.RowBlocks(30), td.RowBlocks(30, "fixed")):
        blocks = td.LinearSystem(system.A, system.b, sketch=sketch)
        assert not np.isfinite(blocks.gradient(0, np.ones(6), blocks.rows_at(0, 0, 1)[0])).any()
    norms = td.LinearSystem(system.A, system.b, sketch=td.Rows("norms"))
    with refused(r"A\[17, 4\] is"):
        norms.rows_at(0, 0, 1)


def test_squares_that_overflow_are_named():
    A = make_matrix()
    A[2] *= 1e200
    with refused("row 2 of A is too large to be squared: scale A and b"):
        td.LinearSystem(A, np.ones(30), sketch=td.Rows("norms")).rows_at(0, 0, 1)


def test_a_run_on_nan_diverges():
    A = make_matrix()
    A[3, 3] = np.nan
    system = td.LinearSystem(A, np.ones(30), n_clients=2)
    result = td.run(td.AsyncSGD(step=1.0), system, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(100))
    assert result.status is td.Status.DIVERGED


def test_more_clients_than_rows():
    system = make_system(3, 2, n_clients=8)
    result = td.run(td.AsyncSGD(step=0.2), system, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(4000))
    assert system.residual(result.x) < 1e-6


# --- measures ------------------------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_the_residual_is_relative(sparse, lead):
    system = make_system(sparse=sparse)
    x = points(system, *lead)
    expected = np.linalg.norm(x @ dense(system).T - system.b, axis=-1) / np.linalg.norm(system.b)
    found = system.residual(x)
    assert found.shape == lead
    assert np.allclose(found, expected, rtol=1e-13)
    assert np.allclose(system.measures(x)["residual"], expected, rtol=1e-13)


@both_kinds
def test_the_residual_of_large_systems_is_split_over_threads(sparse, monkeypatch):
    system = make_system(40_000, 12, sparse=sparse)
    for lead in [(), (3,)]:
        x = points(system, *lead)
        expected = np.linalg.norm(x @ dense(system).T - system.b, axis=-1) / np.linalg.norm(system.b)
        assert np.allclose(system.residual(x), expected, rtol=1e-12)
    with td.core.worker.single_threaded_blas():
        used = set()
        pieces = system.passes.each(lambda rows, A: used.add(threading.get_ident()) or rows)
        assert [rows.start for rows in pieces[1:]] == [rows.stop for rows in pieces[:-1]]
        assert (pieces[0].start, pieces[-1].stop) == (0, 40_000)
        whole = system.residual(x)
        monkeypatch.setattr(system_matrix, "_cores", lambda: 1)
        assert np.array_equal(system.residual(x), whole), "the number of cores changes no bit"


def test_results_for_many_points_stay_small(monkeypatch):
    monkeypatch.setattr(system_matrix, "_NUMBERS", 50)
    system = make_system()
    pieces = system.passes.each(lambda rows, A: len(A), width=10)
    assert pieces == [5] * 6
    x = points(system, 10)
    assert np.allclose(system.residual(x), make_system().residual(x), rtol=1e-13)
    assert np.allclose(system.gradient(0, x), make_system().gradient(0, x), rtol=1e-13)


def test_an_error_in_a_thread_is_raised():
    system = make_system(40_000, 14)
    with td.core.worker.single_threaded_blas():

        def work(rows, A):
            if rows.start:
                raise ValueError("in a part")

        with pytest.raises(ValueError, match="in a part"):
            system.passes.each(work)


def test_zero_right_hand_sides_have_absolute_residuals():
    system = td.LinearSystem(A34, np.zeros(3), solution=np.zeros(4))
    x = np.array([3.0, 4.0, 0.0, 0.0])
    assert system.residual(x) == pytest.approx(np.linalg.norm(A34 @ x))
    assert system.measures(x)["error"] == pytest.approx(5.0)
    assert system.residual(np.zeros(4)) == 0


@all_metrics
def test_the_error_is_that_in_the_metric_beside_that_of_zero(metric):
    solution = np.arange(1.0, 7.0)
    system = make_system(metric=metric, solution=solution)
    B = np.linalg.inv(inverse_of(system.B, 6))
    x = points(system, 3)
    norm = lambda v: np.sqrt(np.einsum("...i,ij,...j->...", v, B, v))  # noqa: E731
    assert np.allclose(system.measures(x, ["error"])["error"], norm(x - solution) / norm(solution))
    assert system.measures(system.x0(), ["error"]) == {"error": 1.0}
    assert list(make_system().measures(x)) == ["residual", "checked_residual"]


@both_kinds
def test_the_square_of_an_estimate_is_unbiased(sparse):
    system = make_system(200, 6, sparse=sparse)
    x = points(system, 2)
    squares = np.stack([system.estimated_residual(x, 20, seed) ** 2 for seed in range(2000)])
    errors = squares.std(axis=0) / np.sqrt(2000)
    assert (np.abs(squares.mean(axis=0) - system.residual(x) ** 2) < 4 * errors).all()
    assert np.array_equal(system.estimated_residual(x, 20, 7), make_system(200, 6, sparse=sparse).estimated_residual(x, 20, 7))
    assert np.allclose(system.estimated_residual(x, 200), system.residual(x), rtol=1e-13)
    assert np.allclose(system.estimated_residual(x, 10**6), system.residual(x), rtol=1e-13)
    with refused("n_sample must be an integer >= 1"):
        system.estimated_residual(x, 0)


def test_a_checked_residual_is_exact_near_the_tolerance(monkeypatch):
    exact = []
    real = residuals.Residuals.exact
    monkeypatch.setattr(residuals.Residuals, "exact", lambda self, x: exact.append(x.shape) or real(self, x))
    system = make_system(2000, 6, tol=1e-3)
    solution = np.linalg.lstsq(system.A, system.b)[0]
    far, near = solution + 1, solution + 1e-4
    assert system.checked_residual(far) == system.estimated_residual(far, residuals.SAMPLE)
    assert exact == []
    assert system.checked_residual(near) == real(system._residuals, near)
    assert exact == [(1, 6)]
    both = system.checked_residual(np.stack([[far, near], [near, far]]))
    assert exact[1] == (2, 6)
    assert np.allclose(both[0], both[1][::-1], rtol=1e-13)
    assert np.isnan(system.checked_residual(np.full(6, np.nan)))
    assert np.array_equal(system.measures(far)["checked_residual"], system.checked_residual(far))


def test_a_checked_residual_of_few_rows_is_exact():
    system = make_system(2 * residuals.SAMPLE, 6)
    x = points(system)
    assert system.checked_residual(x) == system.residual(x)


def test_runs_stop_at_a_checked_residual():
    system = make_system(2000, 6, n_clients=4, tol=1e-8)
    stop = td.Tolerance("checked_residual", at_most=1e-8, every=50) | td.MaxUpdates(20_000)
    result = td.run(td.AsyncSGD(step=1.0), system, td.Simulated(td.Constant(1.0)), stop=stop)
    assert result.status is td.Status.CONVERGED
    assert system.residual(result.x) <= 1e-8


def test_float32_residuals_reach_what_is_stated():
    system = make_system(2000, 100, dtype=np.float32, sketch=td.RowBlocks(50))
    x, stream = system.x0(), tasks()
    for index in range(400):
        x = x - system.gradient(0, x, system.sample(0, stream.at(index)))
    assert x.dtype == np.float32
    assert system.residual(x) < 2e-6


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def npy(tmp_path):
    path = tmp_path / "A.npy"
    np.save(path, make_matrix(500, 6))
    return path


def on_file(path, **kwargs):
    return td.LinearSystem(path, make_matrix(500, 6) @ np.arange(6.0), **kwargs)


@pytest.mark.parametrize("how", ["path", "string", "load", "memmap"])
@pytest.mark.parametrize("sketch", [td.Rows("uniform"), td.RowBlocks(4), td.RowBlocks(4, "fixed"), td.CountSketch(3)], ids=repr)
def test_a_file_is_the_same_problem(npy, how, sketch):
    given = {
        "path": npy,
        "string": str(npy),
        "load": np.load(npy, mmap_mode="r"),
        "memmap": np.memmap(npy, np.float64, "r", 128, (500, 6)),
    }[how]
    A, b = make_matrix(500, 6), make_matrix(500, 6) @ np.arange(6.0)
    system, plain = (td.LinearSystem(M, b, sketch=sketch, solution=np.arange(6.0)) for M in (given, A))
    assert system.is_file
    assert not plain.is_file
    assert isinstance(system.A, np.memmap)
    x = points(system, 3)
    for name, value in plain.measures(x).items():
        assert np.array_equal(system.measures(x)[name], value)
    assert np.array_equal(system.rows_at(3, 0, 20), plain.rows_at(3, 0, 20))
    for sample in plain.rows_at(3, 0, 5):
        assert np.array_equal(system.gradient(0, x, sample), plain.gradient(0, x, sample))
    assert type(system.gradient(0, x[0], 1 if sketch == td.Rows("uniform") else sample)) is np.ndarray


def test_rows_of_a_file_are_shuffled_in_stretches(npy, monkeypatch):
    from tardigrad.problems import row_steps

    monkeypatch.setattr(row_steps, "PART", 50 * 6 * 8)
    system = on_file(npy)
    rows = system.rows_at(0, 0, 1000).reshape(2, 500)
    assert (np.sort(rows, axis=1) == np.arange(500)).all()
    stretches = rows.reshape(20, 50) // 50
    assert (stretches == stretches[:, :1]).all()
    assert (np.diff(rows[0][:50]) < 0).any()
    plain = make_system(500, 6).rows_at(0, 0, 500).reshape(10, 50) // 50
    assert not (plain == plain[:, :1]).all(axis=1).any()


def test_workers_are_sent_the_path_and_not_the_entries(npy):
    system = on_file(npy, sketch=td.RowBlocks(10, "fixed"))
    system.gradient(0, system.x0(), 3)
    sent = pickle.dumps(system)
    assert len(sent) < 12_000  # b alone has 4000 bytes
    received = pickle.loads(sent)
    assert isinstance(received.A, np.memmap)
    x = points(system)
    assert np.array_equal(received.gradient(0, x, 3), system.gradient(0, x, 3))
    assert received.fingerprint() == system.fingerprint()


@pytest.mark.parametrize("part", [slice(100, 300), slice(0, 500), slice(499, 500)])
def test_some_rows_of_a_file(npy, part):
    A = make_matrix(500, 6)
    system = td.LinearSystem(np.load(npy, mmap_mode="r")[part], A[part] @ np.ones(6))
    received = pickle.loads(pickle.dumps(system))
    assert np.array_equal(system.A, A[part])
    assert np.array_equal(received.A, A[part])
    assert received.residual(np.ones(6)) < 1e-15


def test_a_system_in_memory_survives_being_sent():
    for sparse in (False, True):
        system = make_system(sparse=sparse, metric="matrix", sketch=td.RowBlocks(4, "fixed"), n_clients=3, tol=1e-4)
        system.gradient(0, system.x0(), 2)
        received = pickle.loads(pickle.dumps(system))
        x = points(system, 2)
        assert np.array_equal(received.gradient(0, x, 2), system.gradient(0, x, 2))
        assert np.array_equal(received.residual(x), system.residual(x))
        assert (received.n_clients, received.tol, received.sketch) == (3, 1e-4, td.RowBlocks(4, "fixed"))


@pytest.mark.parametrize("engine", [lambda: td.Threads(2), lambda: td.Processes(2)], ids=["threads", "processes"])
def test_runs_on_real_engines_replay(npy, engine):
    system = on_file(npy, sketch=td.RowBlocks(4), n_clients=3)
    result = td.run(td.AsyncSGD(step=0.5), system, engine(), stop=td.MaxUpdates(400))
    assert td.replay(result).identical
    assert system.residual(result.x) < 1e-2


def test_a_run_is_saved_by_the_path_of_its_matrix(npy, tmp_path):
    system = on_file(npy, n_clients=2)
    result = td.run(td.AsyncSGD(step=0.5), system, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(50))
    result.save(tmp_path / "run")
    assert sum(file.stat().st_size for file in (tmp_path / "run").iterdir()) < 24_000  # the matrix has as many
    loaded = td.Result.load(tmp_path / "run")
    assert isinstance(loaded.problem.A, np.memmap)
    assert td.replay(loaded).identical
    moved = npy.rename(npy.with_name("moved.npy"))
    with pytest.raises(td.DataError, match=r"cannot open .*A.npy, the file of the matrix \(No such file"):
        td.Result.load(tmp_path / "run")
    assert td.replay(td.Result.load(tmp_path / "run", on_file(moved, n_clients=2))).identical
    other = td.LinearSystem(make_matrix(500, 6), system.b, n_clients=2)
    with pytest.raises(td.RunFileError, match="another problem"):
        td.Result.load(tmp_path / "run", other)


def test_a_file_that_changed_is_noticed(npy, tmp_path):
    system = on_file(npy)
    td.run(td.AsyncSGD(step=0.5), system, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(5)).save(tmp_path / "run")
    before = system.fingerprint()
    changed = np.load(npy)
    changed[-1, -1] += 1
    np.save(npy, changed)
    assert on_file(npy).fingerprint() != before
    with pytest.raises(td.DataError, match=r"is not the file that the matrix was in \(hash"):
        td.Result.load(tmp_path / "run")
    np.save(npy, changed[:100])
    with pytest.raises(td.DataError, match=r"has \d+ bytes, but the matrix \(500, 6\) needs \d+: it was cut short"):
        td.Result.load(tmp_path / "run")


def test_a_file_is_never_read_as_a_whole(tmp_path):
    path, shape = tmp_path / "large.npy", (20_000, 400)  # 64 MB
    A = np.lib.format.open_memmap(path, "w+", np.float64, shape)
    for low in range(0, shape[0], 2000):
        A[low : low + 2000] = np.random.default_rng(low).normal(size=(2000, 400))
    A.flush()
    b = np.concatenate([A[low : low + 2000] @ np.ones(400) for low in range(0, shape[0], 2000)])
    del A
    tracemalloc.start()
    system = td.LinearSystem(path, b)
    pickle.dumps(system)
    system.fingerprint()
    assert tracemalloc.get_traced_memory()[1] < 1e6
    x = np.zeros(400)
    for row in system.rows_at(0, 0, 2000):
        x -= system.gradient(0, x, row)
    assert system.residual(x) < 0.9
    system.gradient(0, x)
    system.explain_nonfinite()
    system.row_coherence()
    system.checked_residual(x)
    assert tracemalloc.get_traced_memory()[1] < 12e6
    tracemalloc.stop()


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(td.DataError, match=r"cannot open .*none.npy, the file of A: No such file"):
        td.LinearSystem(tmp_path / "none.npy", np.ones(3))
    (tmp_path / "text.npy").write_text("1 2 3")
    with refused(r"text.npy is not a .npy file of numbers"):
        td.LinearSystem(tmp_path / "text.npy", np.ones(3))
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    with refused(r"objects.npy is not a .npy file of numbers"):
        td.LinearSystem(tmp_path / "objects.npy", np.ones(3))
    np.savez(tmp_path / "several.npz", a=A34)
    with refused(r"several.npz is not a .npy file of one matrix"):
        td.LinearSystem(tmp_path / "several.npz", np.ones(3))
    for name, array, message in [
        ("vector", np.ones(3), r"not \(3,\)"),
        ("integers", np.ones((3, 4), int), "A is a file of int64: .* it must hold float32 or float64"),
        ("swapped", A34.astype(">f8"), "A is a file of >f8"),
        ("columns", np.asfortranarray(A34), "not stored row by row"),
    ]:
        np.save(tmp_path / f"{name}.npy", array)
        with refused(message):
            td.LinearSystem(str(tmp_path / f"{name}.npy"), np.ones(3))
    np.save(tmp_path / "good.npy", A34)
    with refused("not stored row by row"):
        td.LinearSystem(np.load(tmp_path / "good.npy", mmap_mode="r")[:, ::2], np.ones(3))


def test_memory_maps_that_are_not_their_file_are_taken_as_arrays(tmp_path):
    np.save(tmp_path / "good.npy", A34)
    changed = np.load(tmp_path / "good.npy", mmap_mode="c")
    changed[0, 0] = 7.0
    for given in (changed, np.load(tmp_path / "good.npy", mmap_mode="r").copy()):
        system = td.LinearSystem(given, np.ones(3))
        assert not system.is_file
        assert np.array_equal(pickle.loads(pickle.dumps(system)).A, given)


def test_rows_copied_out_of_a_file_are_no_file(npy):
    chosen = np.load(npy, mmap_mode="r")[[3, 1, 2]]
    system = td.LinearSystem(chosen, np.ones(3))
    assert not system.is_file
    assert np.array_equal(pickle.loads(pickle.dumps(system)).A, make_matrix(500, 6)[[3, 1, 2]])


def test_a_matrix_file_is_plain_data(npy):
    file = MatrixFile.of(np.load(npy, mmap_mode="r")).marked()
    again = MatrixFile(**file.fields())
    assert again.fields() == file.fields()
    assert np.array_equal(again.open(), make_matrix(500, 6))


# --- saved and replayed --------------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize(
    "sketch", [td.Rows("norms"), td.RowBlocks(3, "fixed", seed=4), td.GaussianSketch(2), td.CountSketch(2)], ids=repr
)
def test_a_system_is_saved_with_its_run(sketch, sparse, tmp_path):
    system = make_system(sketch=sketch, sparse=sparse, metric="diagonal", n_clients=2, solution=np.ones(6), tol=1e-5)
    result = td.run(td.AsyncSGD(step=0.5), system, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(30))
    result.save(tmp_path)
    loaded = td.Result.load(tmp_path)
    assert loaded.problem.sketch == sketch
    assert loaded.problem.fingerprint() == system.fingerprint()
    assert td.replay(loaded).identical


def test_fingerprints_tell_systems_apart():
    known = {"base": make_system().fingerprint()}
    for name, other in {
        "matrix": make_system(seed=2),
        "metric": make_system(metric="diagonal"),
        "sketch": make_system(sketch=td.Rows("uniform")),
        "clients": make_system(n_clients=2),
        "solution": make_system(solution=np.ones(6)),
        "precision": make_system(dtype=np.float32),
        "sparse": make_system(sparse=True),
        "tol": make_system(tol=1e-3),
    }.items():
        known[name] = other.fingerprint()
    assert len(set(known.values())) == len(known)
    assert make_system().fingerprint() == known["base"]


@pytest.mark.parametrize("sketch", [td.Rows(), td.RowBlocks(3), td.RowBlocks(3, "fixed"), td.CountSketch(3)], ids=repr)
def test_replicas_have_noise_of_their_own_in_a_run(sketch):
    system = make_system(sketch=sketch)
    run = lambda: td.run(  # noqa: E731
        td.AsyncSGD(step=0.9), system, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(5), x0=np.zeros((3, 6)), replicas=3
    )
    result = run()
    assert result.x.shape == (3, 6)
    assert len({row.tobytes() for row in result.x}) == 3
    assert np.array_equal(run().x, result.x)


def test_metric_objects_refuse_what_systems_refuse():
    with refused("B must have shape"):
        Metric(np.ones(2), 3, np.dtype(float))
