import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import tardigrad as td
from linear_systems import METRICS, inverse_of, make_metric
from tardigrad.rules import row_action
from tardigrad.solvers import linear_stages
from tardigrad.solvers.linear_choice import METHODS

SOLVERS = METHODS[1:]
EPS = np.finfo(np.float64).eps


def gaussian(n_rows=300, dim=20, seed=0):
    A = np.random.default_rng(seed).normal(size=(n_rows, dim))
    return A, A @ np.ones(dim)


def with_singular_values(n_rows, values, seed=0):
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.normal(size=(n, len(values))))[0] for n in (n_rows, len(values)))
    return (U * values) @ V.T


def virtual():
    return td.Simulated(td.Exponential(1.0))


ENGINES = {
    "threads": lambda: "threads",
    "virtual": virtual,
    "served": lambda: td.Threads(4),
    "injected": lambda: td.Threads(4, timing=td.Exponential(1e-5)),
}


def true_residual(A, b, x):
    A = np.asarray(A.toarray() if sp.issparse(A) else A, np.float64)
    norm = np.linalg.norm(b)
    return np.linalg.norm(b - A @ x.astype(np.float64)) / (norm or 1.0)


def check_solved(found, A, b, tol=1e-6, slack=1e-12):
    assert found.status is td.Status.CONVERGED, found.message
    true = true_residual(A, b, found.x)
    assert true <= tol + slack
    assert found.residual_norm == pytest.approx(true, rel=1e-3, abs=slack)
    assert found.passes > 0


@pytest.fixture(params=["dense", "csr", "file"])
def kept_as(request, tmp_path):
    def keep(A):
        if request.param == "csr":
            return sp.csr_array(A)
        if request.param == "file":
            np.save(tmp_path / "A.npy", A)
            return tmp_path / "A.npy"
        return A

    return keep


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_engine_solves_every_kind_of_matrix(method, engine, kept_as):
    A, b = gaussian()
    found = td.linsolve(kept_as(A), b, method=method, engine=ENGINES[engine]())
    check_solved(found, A, b)
    np.testing.assert_allclose(found.x, 1.0, atol=1e-5)
    assert found.method in SOLVERS
    assert method in ("auto", found.method)
    assert found.parameters["omega"] > 0
    assert 0 <= found.judging_share <= 1


@pytest.mark.parametrize("method", ["auto", "averaged"])
def test_on_processes(method, kept_as):
    A, b = gaussian()
    check_solved(td.linsolve(kept_as(A), b, method=method, engine="processes", workers=2), A, b)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", METHODS)
def test_of_all_solutions_it_finds_the_nearest_to_the_start_in_the_norm_of_B(method, metric):
    rng = np.random.default_rng(1)
    A, B, x0 = rng.normal(size=(8, 30)), make_metric(metric, 30), rng.normal(size=30)
    b = A @ rng.normal(size=30)
    if method == "row-action" and metric == "matrix":
        with pytest.raises(td.InvalidInputError, match="B to be the identity or diagonal"):
            td.linsolve(A, b, method=method, B=B)
        return
    inverse = inverse_of(B, 30)
    for start in (None, x0):
        origin = np.zeros(30) if start is None else start
        nearest = origin + inverse @ A.T @ np.linalg.solve(A @ inverse @ A.T, b - A @ origin)
        found = td.linsolve(A, b, method=method, B=B, x0=start, tol=1e-10)
        check_solved(found, A, b, 1e-10)
        np.testing.assert_allclose(found.x, nearest, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_rank_deficient_systems_give_the_solution_of_least_norm(method):
    rng = np.random.default_rng(2)
    A = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 12))
    A[7] = A[8] = A[300]
    b = A @ rng.normal(size=12)
    found = td.linsolve(A, b, method=method, tol=1e-10)
    check_solved(found, A, b, 1e-10)
    np.testing.assert_allclose(found.x, np.linalg.pinv(A) @ b, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("A", "b"),
    [([[2.0]], [4.0]), ([[1, 2, 3]], [4]), ([[1], [2], [3]], [1, 2, 3]), ([[0, 2], [0, 0], [1, 1]], [2, 0, 2])],
    ids=["1 x 1", "row", "column", "zero row"],
)
def test_tiny_systems_with_more_workers_than_rows(method, A, b):
    found = td.linsolve(A, b, method=method, workers=9)
    check_solved(found, np.array(A), np.array(b))
    np.testing.assert_allclose(found.x, np.linalg.pinv(A) @ b, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_zero_right_hand_sides(method):
    A, _ = gaussian()
    found = td.linsolve(A, np.zeros(300), method=method)
    assert (found.status, found.residual_norm, found.passes) == (td.Status.CONVERGED, 0.0, 0.0)
    assert not found.x.any()
    assert not td.linsolve(np.zeros((500, 30)), np.zeros(500), method=method).x.any()
    found = td.linsolve(A, np.zeros(300), method=method, x0=np.ones(20))
    assert found.status is td.Status.CONVERGED
    assert np.linalg.norm(found.x) < 1e-6  # the residual is absolute where b is zero


def test_a_start_that_solves_it_is_given_back():
    A, b = gaussian()
    for method in METHODS:
        found = td.linsolve(A, b, method=method, x0=[1] * 20)
        assert found.status is td.Status.CONVERGED
        np.testing.assert_array_equal(found.x, np.ones(20))
        found.x[0] = 2.0  # the user's own


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("method", METHODS)
def test_precisions(method, dtype):
    A = np.random.default_rng(0).integers(-5, 6, size=(300, 20)).astype(dtype)
    b = A.astype(np.float64) @ np.ones(20)
    found = td.linsolve(A, b, method=method, tol=1e-17)
    assert found.x.dtype == (np.float32 if dtype == np.float32 else np.float64)
    allowed = 20 * np.finfo(found.x.dtype).eps
    assert f"tol was raised from 1e-17 to {allowed:.1e}, what {found.x.dtype} allows" in found.message
    check_solved(found, A, b, allowed, slack=1e-6 if dtype == np.float32 else 1e-14)
    assert "tol was raised" not in td.linsolve(A, b, method=method, tol=1e-5).message


def test_a_residual_that_the_number_format_does_not_allow_ends_as_precision():
    rng = np.random.default_rng(0)
    first = rng.normal(size=600)
    A = np.stack([first, first + 1e-3 * rng.normal(size=600)], axis=1).astype(np.float32)
    b = A.astype(np.float64) @ [1e4, -1e4]  # 1e-3 of its two parts
    found = td.linsolve(A, b, method="basic", sketch=td.RowBlocks(300))
    assert found.status is td.Status.PRECISION, found.message
    assert "as small as float32 allows" in found.message
    assert 20 * np.finfo(np.float32).eps < found.residual_norm < 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-150, 1e150, 1e200, 1e300])
def test_matrices_of_any_size(method, scale):
    A, b = gaussian()
    found = td.linsolve(A * scale, b * scale, method=method)
    assert found.status is td.Status.CONVERGED
    np.testing.assert_allclose(found.x, 1.0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
def test_float32_matrices_of_any_size(method, scale):
    A = (gaussian()[0] * scale).astype(np.float32)
    found = td.linsolve(A, A.astype(np.float64) @ np.ones(20), method=method)
    assert found.status is td.Status.CONVERGED
    np.testing.assert_allclose(found.x, 1.0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("method", METHODS)
def test_an_inconsistent_system_is_known_at_any_size(method, scale):
    A, b = gaussian()
    b = b + np.random.default_rng(5).normal(size=300)
    assert td.linsolve(A * scale, b * scale, method=method).status is td.Status.INCONSISTENT
    if scale < 1:
        assert td.linsolve(A, b * scale, method=method).status is td.Status.INCONSISTENT


def test_kinds_of_arrays():
    A, b = gaussian()
    read_only = A.copy()
    read_only.flags.writeable = False
    for given in (A.tolist(), np.asfortranarray(A), read_only, A[::-1][::-1], np.repeat(A, 2, axis=1)[:, ::2]):
        check_solved(td.linsolve(given, b.tolist()), A, b)
    np.testing.assert_array_equal(A, gaussian()[0])


def test_sparse_matrices_with_unsorted_and_duplicate_entries_count_duplicates_together():
    A, b = gaussian()
    whole = sp.csr_array(A)
    data = np.repeat(whole.data, 2) / 2
    indices = np.repeat(whole.indices, 2).reshape(300, 40)[:, ::-1].ravel()
    given = sp.csr_array((data.reshape(300, 40)[:, ::-1].ravel(), indices, whole.indptr * 2), shape=A.shape)
    for method in METHODS:
        check_solved(td.linsolve(given, b, method=method), A, b)
        check_solved(td.linsolve(sp.coo_array(A), b, method=method), A, b)
    assert given.nnz == 12000


def test_data_frames_are_taken_if_they_hold_numbers():
    pandas = pytest.importorskip("pandas")
    A, b = gaussian()
    frame = pandas.DataFrame(A)
    check_solved(td.linsolve(frame, pandas.Series(b)), A, b)
    with pytest.raises(td.InvalidInputError, match=r"A must hold real numbers, not object$"):
        td.linsolve(frame.assign(name="a"), b)


def test_a_linear_operator_is_refused_with_the_reason():
    A, b = gaussian()
    with pytest.raises(td.InvalidInputError, match="single rows are read, which a linear operator does not give"):
        td.linsolve(sp.linalg.aslinearoperator(A), b)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("row", [0, 7])
@pytest.mark.parametrize("method", METHODS)
def test_an_equation_that_cannot_hold_is_named(method, engine, row, capfd):
    A, b = gaussian()
    A[row] = 0
    found = td.linsolve(A, b, method=method, engine=ENGINES[engine]())
    assert found.status is td.Status.INCONSISTENT
    assert f"row {row} of A is zero but b[{row}] is not" in found.message
    assert found.residual_norm == pytest.approx(true_residual(A, b, found.x), rel=1e-6)
    assert found.residual_norm <= 1.0
    b[row] = 0
    check_solved(td.linsolve(A, b, method=method, engine=ENGINES[engine]()), A, b)


def test_an_equation_that_cannot_hold_is_named_on_processes_and_for_zero_matrices(capfd):
    A, b = gaussian()
    A[7] = 0
    assert "row 7 of A is zero" in td.linsolve(A, b, engine="processes", workers=2).message
    for method in METHODS:
        for zero in (np.zeros((500, 30)), sp.csr_array((500, 30)), np.zeros((1, 1))):
            found = td.linsolve(zero, np.ones(zero.shape[0]), method=method)
            assert found.status is td.Status.INCONSISTENT
            assert "row 0 of A is zero" in found.message
            assert not found.x.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("engine", ["threads", "virtual"])
@pytest.mark.parametrize("method", METHODS)
def test_an_entry_that_is_not_finite_is_named(method, engine, bad, kept_as):
    A, b = gaussian()
    A[37, 3] = bad
    with pytest.raises(td.InvalidInputError, match=rf"A\[37, 3\] is {bad}"):
        td.linsolve(kept_as(A), b, method=method, engine=ENGINES[engine]())


@pytest.mark.parametrize("method", METHODS)
def test_an_entry_that_no_step_met_is_named_where_the_residual_meets_it(method):
    A, b = gaussian(3000)
    A[2999, 19] = np.nan
    with pytest.raises(td.InvalidInputError, match=r"A\[2999, 19\] is nan"):
        td.linsolve(A, b, method=method, max_passes=1e-3)


def test_bad_input_is_refused_in_words():
    A, b = gaussian()
    refused = {
        r"b must have shape \(300,\)": {"b": b[:-1]},
        r"pass b.ravel\(\)": {"b": b[:, None]},
        r"b\[0\] is nan": {"b": b * np.nan},
        "b must hold real numbers": {"b": b * 1j},
        r"B is not positive definite: B\[0\] is -1": {"B": -np.ones(20)},
        "B is not positive definite: its smallest eigenvalue": {"B": np.diag(np.r_[-1.0, np.ones(19)])},
        "method must be one of": {"method": "lsqr"},
        "sketch must be": {"sketch": "rows"},
        "'row-action' takes single rows": {"method": "row-action", "sketch": td.RowBlocks(4)},
        "blocks of 400 rows": {"sketch": td.RowBlocks(400)},
        "workers must be": {"workers": 0},
        "engine must be": {"engine": "thread"},
        "lock-free run needs a rule": {"engine": td.Threads(4, lock_free=True), "method": "basic"},
        "tol must be": {"tol": 0.0},
        "max_passes must be": {"max_passes": -1},
        "seed must be": {"seed": -1},
        "omega must be a number or 'auto'": {"omega": "best"},
        "omega must be below 2": {"omega": 2.0, "method": "row-action"},
        "theta must be": {"theta": 0},
        "callback must be a function": {"callback": 3},
        r"x0 must have shape \(20,\)": {"x0": np.ones((2, 20))},
        r"x0\[3\] is nan": {"x0": np.where(np.arange(20) == 3, np.nan, 0)},
        "x0 must hold real numbers": {"x0": "zero"},
        "has 2 durations for 4 clients": {"engine": td.Simulated(td.PerClient([1.0, 2.0]))},
    }
    threads = threading.active_count()
    for text, given in refused.items():
        methods = (given["method"],) if "method" in given else METHODS if "x0" in given else ("auto",)
        for method in methods:
            with pytest.raises(td.InvalidInputError, match=text):
                td.linsolve(A, **{"b": b, **given, "method": method})
    assert threading.active_count() == threads


@pytest.mark.parametrize("method", ["row-action", "basic"])
def test_the_limit_of_passes(method):
    A, b = gaussian(4000, 50)
    for limit in (0.01, 0.5, 3):
        found = td.linsolve(A, b, method=method, max_passes=limit, tol=1e-13, engine=virtual())
        steps = found.oracle_calls if method == "row-action" else found.oracle_calls * found.sketch.size
        block = 1 if method == "row-action" else found.sketch.size
        assert steps <= max(limit * 4000 + 4 * 10, block) + block  # whole blocks
        if found.status is not td.Status.CONVERGED:
            assert found.status is td.Status.MAX_PASSES
            assert "raise max_passes" in found.message
            assert f"relative residual {found.residual_norm:.2g} after" in found.message
    assert found.status is td.Status.CONVERGED


@pytest.mark.parametrize("method", ["averaged", "accelerated"])
def test_pilots_keep_to_the_limit_of_passes(method):
    A = with_singular_values(200, np.geomspace(1, 1e-6, 50))
    found = td.linsolve(A, A @ np.ones(50), method=method, max_passes=2, sketch=td.RowBlocks(20), engine=virtual())
    assert found.status is td.Status.MAX_PASSES
    assert found.oracle_calls <= 4 * (2 * 10 + 1)
    assert float(found.message.split(" passes")[0].split()[-1]) <= 2.2


@pytest.mark.parametrize("engine", ["threads", "virtual"])
@pytest.mark.parametrize("method", SOLVERS)
def test_seeds_reproduce(method, engine):
    A, b = gaussian()
    b = b + np.random.default_rng(2).normal(size=300)  # so that it takes more than one stage
    workers = 1 if engine == "threads" else 4
    x, again, other = (
        td.linsolve(A, b, method=method, workers=workers, engine=ENGINES[engine](), seed=seed).x for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(x, again)
    assert not np.array_equal(x, other)


@pytest.mark.parametrize("engine", ["threads", "virtual", "processes"])
@pytest.mark.parametrize("method", ["row-action", "averaged"])
def test_callbacks_get_copies_and_their_errors_come_through(method, engine):
    A, b = gaussian()
    made = ENGINES.get(engine, lambda: engine)
    seen = []

    def spoil(x):
        seen.append(x.copy())
        x[:] = np.nan

    check_solved(td.linsolve(A, b, method=method, engine=made(), workers=2, callback=spoil), A, b)
    assert len(seen) >= 2
    assert all(np.isfinite(x).all() for x in seen)

    class OfTheUser(Exception):
        pass

    def fail(x):
        raise OfTheUser

    with pytest.raises(OfTheUser):
        td.linsolve(A, b, method=method, engine=made(), workers=2, callback=fail)


SLOW = """
import sys, time, numpy as np, tardigrad as td
A = np.random.default_rng(0).normal(size=(2000, 300)) * np.geomspace(1, 1e-5, 300)
calls = []
def callback(x):
    calls.append(1)
    if len(calls) == 2:
        print("go", flush=True)
engine = "threads" if sys.argv[2] == "threads" else td.Threads(2, timing=td.Exponential(0.03))
found = td.linsolve(
    A, A @ np.ones(300), method=sys.argv[1], workers=2, callback=callback, max_passes=1e7, engine=engine
)
true = np.linalg.norm(A @ np.ones(300) - A @ found.x) / np.linalg.norm(A @ np.ones(300))
print(found.status.value, abs(true - found.residual_norm) < 1e-9, found.residual_norm <= 1)
"""


@pytest.mark.parametrize(("method", "engine"), [("row-action", "threads"), ("averaged", "injected")])
def test_ctrl_c_gives_the_best_x(method, engine):
    # of "averaged", the second call of the callback is within the pilot
    process = subprocess.Popen([sys.executable, "-c", SLOW, method, engine], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "go\n"
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert out.split() == ["interrupted", "True", "True"]


def test_ctrl_c_between_two_stages_gives_the_best_x(monkeypatch):
    A, b = gaussian()
    b = b + np.random.default_rng(2).normal(size=300)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(linear_stages, "probe_consistency", interrupted)
    found = td.linsolve(A, b, engine=virtual())
    assert found.status is td.Status.INTERRUPTED
    assert found.residual_norm == pytest.approx(true_residual(A, b, found.x), rel=1e-9)
    assert found.residual_norm < 0.5


@pytest.mark.parametrize(("condition", "level"), [(2, 1e-4), (2, 1e-2), (2, 1.0), (5, 1e-2), (5, 1.0)])
@pytest.mark.parametrize("method", SOLVERS)
def test_noisy_systems_are_called_inconsistent(method, condition, level):
    A = with_singular_values(800, np.linspace(1, condition, 100))
    rng = np.random.default_rng(4)
    b = A @ rng.normal(size=100)
    noise = rng.normal(size=800)
    b += level * np.linalg.norm(b) / np.linalg.norm(noise) * noise
    found = td.linsolve(A, b, method=method, engine=virtual())
    assert found.status is td.Status.INCONSISTENT, found.message
    assert "scipy.sparse.linalg.lsqr" in found.message
    least = true_residual(A, b, np.linalg.lstsq(A, b, rcond=None)[0])
    assert least * (1 - 1e-9) <= found.residual_norm <= 4 * least
    assert condition > 2 or method == "accelerated" or found.passes < 80


def ill_conditioned():
    rng = np.random.default_rng(6)
    grid = np.linspace(0, 1, 200)
    yield from ((f"hilbert {n}", scipy.linalg.hilbert(n)) for n in (20, 50, 200))
    for decades in (2, 4, 6):
        yield f"geometric 1e{decades}", with_singular_values(200, np.geomspace(1, 10.0**-decades, 150))
        yield f"outlying 1e{decades}", with_singular_values(600, np.r_[3 * [10.0**decades], np.ones(197)])
        yield f"small 1e{decades}", with_singular_values(300, np.r_[3 * [10.0**-decades], np.ones(97)])
    yield "polynomials", np.vander(grid, 12)
    yield "blurred", np.exp(-((grid[:, None] - grid[:150]) ** 2) * 300)
    yield "rows of other sizes", rng.normal(size=(300, 60)) * np.geomspace(1, 1e-6, 300)[:, None]
    yield "columns in other units", rng.normal(size=(300, 60)) * np.where(np.arange(60) < 3, 1e-7, 1.0)
    yield "nearly parallel rows", rng.normal(size=(300, 1)) + 1e-3 * rng.normal(size=(300, 60))


ILL_CONDITIONED = dict(ill_conditioned())


@pytest.mark.parametrize("system", ILL_CONDITIONED)
@pytest.mark.parametrize("method", ["row-action", "basic"])
def test_consistent_systems_are_never_called_inconsistent(method, system):
    A = ILL_CONDITIONED[system]
    n = A.shape[1]
    sizes = np.linalg.norm(A, axis=0)
    solutions = {"ones": np.ones(n), "random": np.random.default_rng(1).normal(size=n), "signs": (-1.0) ** np.arange(n)}
    for name, x in solutions.items():
        b = A @ (x * sizes.max() / sizes if system == "columns in other units" else x)
        found = td.linsolve(A, b, method=method, max_passes=60, engine=virtual())
        ends = (td.Status.CONVERGED, td.Status.PRECISION, td.Status.MAX_PASSES)
        assert found.status in ends, (name, found.message)
        assert found.residual_norm == pytest.approx(true_residual(A, b, found.x), rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_best_x_comes_back_where_steps_make_it_worse(method):
    A, b = gaussian()
    b = b + np.random.default_rng(2).normal(size=300)
    best = np.linalg.lstsq(A, b, rcond=None)[0]
    found = td.linsolve(A, b, method=method, x0=best, engine=virtual())
    assert found.status is td.Status.INCONSISTENT
    np.testing.assert_array_equal(found.x, best)
    assert found.residual_norm == pytest.approx(true_residual(A, b, best), rel=1e-12)


def test_a_solve_that_diverges_gives_back_its_start():
    A, b = gaussian()
    found = td.linsolve(A, b, method="basic", omega=5.0, engine=virtual(), max_passes=0.2)
    assert found.status in (td.Status.DIVERGED, td.Status.MAX_PASSES)
    assert "smaller omega" in found.message or found.status is td.Status.DIVERGED
    assert found.residual_norm == 1.0
    assert not found.x.any()


def test_what_lsqr_solves_while_it_tells_why_steps_are_stuck_is_given_back_and_said():
    A, b = gaussian()
    found = td.linsolve(A, b, method="basic", omega=5.0, engine=virtual())
    assert found.status is td.Status.CONVERGED
    assert "by the steps of lsqr" in found.message
    assert true_residual(A, b, found.x) <= 1e-6


def test_parameters_of_other_methods_are_refused():
    with pytest.raises(td.InvalidInputError, match=r"theta is a parameter of method='averaged', not of 'basic'"):
        td.linsolve(*gaussian(), method="basic", theta=0.5)


def test_an_engine_keeps_its_own_number_of_workers():
    found = td.linsolve(*gaussian(), method="averaged", workers=2, engine=td.Threads(3))
    assert found.concurrency == 3


def test_a_result_that_is_loaded_is_that_of_a_run(tmp_path):
    found = td.linsolve(*gaussian(), method="basic", engine=virtual())
    loaded = td.LinearResult.load(found.save(tmp_path))
    assert type(loaded) is td.Result
    assert np.array_equal(loaded.x, found.x)


@pytest.mark.parametrize("method", ["basic", "row-action", "averaged"])
def test_passes_count_the_rows_that_steps_read(method, monkeypatch):
    read = []
    A, b = gaussian(3000, 40)
    if method == "row-action":
        whole = row_action.CompiledRows.steps

        def steps(self, rows, omega, x):
            read.append(len(rows))
            return whole(self, rows, omega, x)

        monkeypatch.setattr(row_action.CompiledRows, "steps", steps)
    found = td.linsolve(A, b, method=method, engine=virtual(), workers=2)
    if method != "row-action":
        read = [found.sketch.size] * found.oracle_calls
    # rows in flight when it ended were read too; looks are whole passes
    assert found.passes >= 0.8 * sum(read) / 3000
    assert found.passes <= sum(read) / 3000 + 8


@pytest.mark.parametrize("engine", ["virtual", "served"])
@pytest.mark.parametrize("method", SOLVERS)
def test_a_result_is_shown_in_a_line_saved_and_replayed(method, engine, tmp_path):
    A, b = gaussian()
    found = td.linsolve(A, b, method=method, engine=ENGINES[engine]())
    assert repr(found).startswith("<Result converged: relative residual")
    assert len(repr(found)) < 500
    assert found.trace.updates > 0
    loaded = td.Result.load(found.save(tmp_path / "run"))
    np.testing.assert_array_equal(loaded.x, found.x)
    assert loaded.status is td.Status.CONVERGED
    again = td.run(loaded.rule, loaded.problem, td.Replay(loaded.trace), stop=None, x0=loaded.x0, seed=loaded.seed)
    np.testing.assert_array_equal(again.x, found.state.x)


def test_nothing_is_left_of_solves_that_fail():
    A, b = gaussian()
    before = threading.active_count()
    A[37, 3] = np.nan
    for engine in ("threads", "processes", td.Threads(4)):
        with pytest.raises(td.InvalidInputError), warnings.catch_warnings():
            td.linsolve(A, b, engine=engine, workers=2)
    assert threading.active_count() == before
