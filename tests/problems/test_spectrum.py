"""The spectrum of W and what is said of it, against W written down."""

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from linear_systems import METRICS, dense, inverse_of, make_matrix, make_metric, make_system, matrix_of
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems import spectrum as spectrum_module
from tardigrad.problems.lanczos import lanczos

all_metrics = pytest.mark.parametrize("metric", METRICS)
both_kinds = pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
FINITE = [td.Rows("uniform"), td.Rows("norms"), td.Rows(), td.RowBlocks(4, "fixed"), td.RowBlocks(7, "fixed", "uniform")]


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices are not worth the threads of BLAS, which wait for each other where others compute too."""
    with single_threaded_blas():
        yield


def eigenvalues(system):
    """Of W for rows and fixed partitions, from its definition; ascending."""
    A, inverse = dense(system), inverse_of(system.B, system.dim)
    n = system.n_rows if isinstance(system.sketch, td.Rows) else system._steps.n_blocks
    weights = np.full(n, 1 / n)
    if system.sketch == td.Rows("norms"):
        weights = np.einsum("ij,jk,ik->i", A, inverse, A)
        weights = weights / weights.sum()
    W = 0
    for k in range(n):
        M = matrix_of(system, k).T @ A
        W = W + weights[k] * inverse @ M.T @ np.linalg.pinv(M @ inverse @ M.T, rcond=1e-11, hermitian=True) @ M
    return np.sort(np.linalg.eigvals(W).real)


@pytest.mark.parametrize("sketch", FINITE, ids=repr)
@all_metrics
@both_kinds
def test_the_exact_spectrum_is_that_of_w(sketch, metric, sparse):
    system = make_system(sketch=sketch, metric=metric, sparse=sparse)
    values, found = eigenvalues(system), system.spectrum()
    assert found.exact
    assert found.method == "exact"
    assert not found.lambda_min_is_bound
    assert found.lambda_min == pytest.approx(values[0], rel=1e-8)
    assert found.lambda_max == pytest.approx(values[-1], rel=1e-8)
    assert found.trace == pytest.approx(values.sum(), rel=1e-10)
    assert found.rank == 6
    assert found.lambda_min_interval[0] < found.lambda_min < found.lambda_min_interval[1]
    assert (
        found.lambda_max_interval[0] < found.lambda_max <= found.lambda_max_interval[1] < found.lambda_max_interval[0] + 1e-10
    )


@pytest.mark.parametrize("sketch", FINITE, ids=repr)
@all_metrics
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_smallest_eigenvalue_is_the_smallest_that_is_not_zero(sketch, metric, dtype):
    system = make_system(20, 8, rank=3, sketch=sketch, metric=metric)
    if dtype == np.float32:  # exactly of rank 3 in float32
        A = np.round(np.random.default_rng(0).normal(size=(20, 3)) * 8) @ np.round(
            np.random.default_rng(1).normal(size=(3, 8)) * 8
        )
        system = td.LinearSystem(A.astype(dtype), np.zeros(20), system.B, sketch=sketch)
    found = system.spectrum()
    assert found.rank == 3
    assert found.lambda_min == pytest.approx(eigenvalues(system)[-3], rel=1e-6)
    assert found.lambda_min > 1e-4


def test_single_rows_have_trace_one_and_wide_systems_have_zero_eigenvalues():
    system = make_system(5, 12)
    found = system.spectrum()
    assert (found.rank, found.trace) == (5, pytest.approx(1))
    A = make_matrix(20, 4)
    A[7] = 0
    assert td.LinearSystem(A, np.zeros(20)).spectrum().trace == pytest.approx(19 / 20)


def test_orthogonal_rows_have_equal_eigenvalues():
    Q = np.linalg.qr(make_matrix(12, 12))[0]
    found = td.LinearSystem(Q * np.arange(1, 13)[:, None], np.ones(12)).spectrum()
    assert found.lambda_min == pytest.approx(1 / 12, rel=1e-12)
    assert found.lambda_max == pytest.approx(1 / 12, rel=1e-12)
    found = td.LinearSystem(Q, np.ones(12), sketch=td.RowBlocks(4, "fixed")).spectrum()
    assert found.lambda_min == pytest.approx(1 / 3, rel=1e-12)


def test_a_spectrum_bounds_the_rate_of_the_basic_method():
    """E|x - x*|_B^2 falls by 1 - lambda_min at least, by 1 - lambda_max at most, in one full step."""
    system = make_system(sketch=td.Rows("uniform"), metric="matrix")
    found, solution = system.spectrum(), np.linalg.lstsq(dense(system), system.b)[0]
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = rng.normal(size=6)
        after = np.mean([system.metric.norm(x - system.gradient(0, x, k) - solution) ** 2 for k in range(30)])
        share = after / system.metric.norm(x - solution) ** 2
        assert 1 - found.lambda_max - 1e-12 <= share <= 1 - found.lambda_min + 1e-12


# --- Lanczos -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", FINITE, ids=repr)
@all_metrics
@both_kinds
def test_lanczos_that_ends_by_itself_is_exact(sketch, metric, sparse):
    system = make_system(20, 8, sketch=sketch, metric=metric, sparse=sparse)
    exact, found = system.spectrum(), system.spectrum(exact=False)
    assert found.method == "lanczos"
    assert not found.exact
    assert not found.lambda_min_is_bound
    assert found.lambda_min == pytest.approx(exact.lambda_min, rel=1e-9)
    assert found.lambda_max == pytest.approx(exact.lambda_max, rel=1e-9)
    assert found.lambda_max_interval[0] <= exact.lambda_max <= found.lambda_max_interval[1]
    assert found.lambda_min_interval[0] <= exact.lambda_min <= found.lambda_min_interval[1]
    assert found.trace == pytest.approx(exact.trace, rel=1e-10)


@pytest.mark.parametrize("rank", [3, 6])
def test_lanczos_keeps_out_of_the_null_space(rank):
    system = make_system(20, 12, rank=rank)
    exact, found = system.spectrum(), system.spectrum(exact=False)
    assert not found.lambda_min_is_bound
    assert found.lambda_min == pytest.approx(exact.lambda_min, rel=1e-8)


@both_kinds
@pytest.mark.parametrize("sketch", [td.Rows("uniform"), td.Rows("norms"), td.RowBlocks(50, "fixed")], ids=repr)
@pytest.mark.parametrize("steps", [5, 20, 60])
def test_lanczos_intervals_hold(sketch, sparse, steps):
    system = make_system(400, 150, sketch=sketch, sparse=sparse)
    exact = system.spectrum(exact=True)
    for seed in range(2):
        found = system.spectrum(exact=False, seed=seed, steps=steps)
        assert found.lambda_min_is_bound
        assert found.lambda_max_interval[0] <= exact.lambda_max <= found.lambda_max_interval[1]
        assert found.lambda_min_interval[0] == 0
        assert exact.lambda_min <= found.lambda_min_interval[1]
        assert found.lambda_max <= exact.lambda_max * (1 + 1e-12)
    if steps == 60:
        assert found.lambda_max == pytest.approx(exact.lambda_max, rel=1e-6)
        assert found.lambda_max_interval[1] < 1.02 * exact.lambda_max


def test_lanczos_is_seeded_and_works_in_float32():
    system = make_system(400, 150, dtype=np.float32)
    first = system.spectrum(exact=False, seed=1, steps=10)
    assert system.spectrum(exact=False, seed=1, steps=10) == first
    assert system.spectrum(exact=False, seed=2, steps=10) != first
    exact = system.spectrum()
    found = system.spectrum(exact=False)
    assert found.lambda_max == pytest.approx(exact.lambda_max, rel=1e-4)
    assert found.lambda_max_interval[0] <= exact.lambda_max <= found.lambda_max_interval[1]


def test_large_systems_take_lanczos(monkeypatch):
    monkeypatch.setattr(spectrum_module, "_SMALL", 100)
    system = make_system()
    assert system.spectrum().method == "lanczos"
    assert system.spectrum(exact=True).method == "exact"
    monkeypatch.setattr(spectrum_module, "_LARGEST", 100)
    with pytest.raises(td.InvalidInputError, match=r"all eigenvalues would need a matrix of 180 numbers: use steps of Lanczos"):
        system.spectrum(exact=True)
    with pytest.raises(td.InvalidInputError, match="use fewer sketches"):
        make_system(sketch=td.RowBlocks(3)).spectrum()


@pytest.mark.parametrize("ends", [(1e-3, 1.0), (0.5, 0.51)])
def test_ritz_values_have_an_eigenvalue_within_their_residual(ends):
    rng = np.random.default_rng(0)
    values = np.sort(rng.uniform(*ends, 200))
    Q = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    A = (Q * values) @ Q.T
    for steps in (2, 10, 40):
        found = lanczos(lambda v: A @ v, rng.normal(size=200), steps, 2e-16)
        gaps = np.abs(found.values[:, None] - values).min(axis=1)
        assert (gaps <= found.residuals + 1e-13).all()
        assert (np.diff(found.values) > 0).all()
        assert not found.ended
        assert 1 - found.values[-1] / values[-1] <= found.share_missed(200)


@pytest.mark.parametrize("steps", [30, 60, 90, 120])
def test_rounding_brings_no_null_space_into_the_smallest_value(steps):
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(100), rng.uniform(0.05, 1.0, 100)])
    Q = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    A = (Q * values) @ Q.T
    found = lanczos(lambda v: A @ v, A @ rng.normal(size=200), steps, 2.2e-16)
    smallest = values[values > 0].min()
    assert found.smallest >= smallest * (1 - 1e-6)
    assert found.ended == (steps == 120)
    if found.ended:
        assert found.smallest == pytest.approx(smallest, rel=1e-8)
    if steps == 90:
        assert found.values[0] < 0.9 * smallest, "the test would show nothing"


def test_lanczos_of_nothing_is_zero():
    found = lanczos(lambda v: v, np.zeros(3), 5, 1e-16)
    assert found.ended
    assert found.values.tolist() == [0]


# --- averages over sketches ----------------------------------------------------------------------------------------


def test_gaussian_combinations_of_orthonormal_rows_have_a_known_spectrum():
    # the range of A'S is uniform over subspaces, so E[Z] = size / dim on all of the space
    Q = np.linalg.qr(make_matrix(8, 8))[0]
    system = td.LinearSystem(Q, np.ones(8), sketch=td.GaussianSketch(2))
    found = system.spectrum(n_sketches=2000)
    assert found.method == "sampled"
    assert found.trace == 2
    for low, high in (found.lambda_min_interval, found.lambda_max_interval):
        assert low <= 0.25 <= high
        assert high - low < 0.1
    assert system.spectrum(n_sketches=2000) == found
    assert system.spectrum(n_sketches=2000, seed=1) != found


@all_metrics
@pytest.mark.parametrize("size", [1, 3])
def test_intervals_of_random_blocks_hold(metric, size):
    from itertools import combinations

    A, B = make_matrix(7, 4), make_metric(metric, 4)
    inverse = inverse_of(B, 4)
    W = np.zeros((4, 4))
    chosen = list(combinations(range(7), size))
    for rows in chosen:
        M = A[list(rows)]
        W += inverse @ M.T @ np.linalg.inv(M @ inverse @ M.T) @ M / len(chosen)
    values = np.sort(np.linalg.eigvals(W).real)
    held = 0
    for seed in range(8):
        system = td.LinearSystem(A, np.ones(7), B, sketch=td.RowBlocks(size, order="uniform"))
        found = system.spectrum(seed=seed)
        assert found.rank == 4
        assert found.trace == size
        held += found.lambda_min_interval[0] <= values[0] <= found.lambda_min_interval[1]
        held += found.lambda_max_interval[0] <= values[-1] <= found.lambda_max_interval[1]
        assert found.lambda_min == pytest.approx(values[0], rel=0.5)
        assert found.lambda_max == pytest.approx(values[-1], rel=0.2)
    assert held >= 15


def test_averages_keep_out_of_the_null_space():
    # three equal directions of eight: E[Z] = 2/3 on these and 0 elsewhere
    A = np.linalg.qr(make_matrix(8, 3))[0] @ np.linalg.qr(make_matrix(8, 3, seed=2))[0].T
    found = td.LinearSystem(A, np.zeros(8), sketch=td.GaussianSketch(2)).spectrum(n_sketches=1000)
    assert (found.rank, found.trace) == (3, 2)
    assert found.lambda_min_interval[0] <= 2 / 3 <= found.lambda_min_interval[1]
    assert found.lambda_min == pytest.approx(2 / 3, rel=0.1)


def test_few_sketches_do_not_claim_a_smallest_eigenvalue():
    system = make_system(20, 10, sketch=td.GaussianSketch(2))
    found = system.spectrum(n_sketches=4)
    assert found.rank == 10
    assert found.lambda_min == pytest.approx(0, abs=1e-12)
    assert found.lambda_min_interval[0] == 0
    assert found.lambda_min_interval[1] > 0.05


def test_wrong_requests_are_refused():
    with pytest.raises(td.InvalidInputError, match=r"the average over all CountSketch\(size=2\) is not finite work"):
        make_system(sketch=td.CountSketch(2)).spectrum(exact=True)
    for kwargs in ({"seed": -1}, {"steps": 1}, {"n_sketches": 0}):
        with pytest.raises(td.InvalidInputError, match=next(iter(kwargs))):
            make_system().spectrum(**kwargs)


@pytest.mark.parametrize("sketch", [*FINITE, td.GaussianSketch(2)], ids=repr)
def test_a_zero_matrix_has_no_spectrum(sketch):
    with pytest.raises(td.InvalidInputError, match="A is zero: there is no nonzero eigenvalue"):
        td.LinearSystem(np.zeros((20, 3)), np.zeros(20), sketch=sketch).spectrum()
    if sketch in FINITE:
        with pytest.raises(td.InvalidInputError, match="A is zero: there is no nonzero eigenvalue"):
            td.LinearSystem(np.zeros((20, 3)), np.zeros(20), sketch=sketch).spectrum(exact=False)


# --- how alike the rows are ----------------------------------------------------------------------------------------


@all_metrics
@both_kinds
def test_the_coherence_of_all_rows_is_the_trace_of_w_squared(metric, sparse):
    system = make_system(metric=metric, sparse=sparse)
    found, values = system.row_coherence(30), eigenvalues(system)
    assert found.n_sample == 30
    assert 1 / found.effective_rank == pytest.approx((values**2).sum() / values.sum() ** 2, rel=1e-10)
    assert found.largest == pytest.approx(values[-1], rel=1e-10)


def test_the_coherence_of_some_rows_is_unbiased_with_its_error():
    system = make_system(300, 20)
    exact = system.row_coherence(300).mean_square
    found = [system.row_coherence(40, seed) for seed in range(200)]
    means = np.array([one.mean_square for one in found])
    assert abs(means.mean() - exact) < 4 * means.std() / np.sqrt(200)
    assert np.mean([one.standard_error for one in found]) == pytest.approx(means.std(), rel=0.5)
    assert np.mean([one.largest for one in found]) > system.row_coherence(300).largest


def test_coherence_of_extremes():
    same = td.LinearSystem(np.ones((100, 5)) * np.arange(1, 101)[:, None], np.ones(100)).row_coherence()
    assert same.mean_square == pytest.approx(1)
    assert same.effective_rank == pytest.approx(1)
    assert same.largest == pytest.approx(1)
    orthogonal = td.LinearSystem(sp.eye_array(64), np.ones(64)).row_coherence()
    assert orthogonal.mean_square == 0
    assert orthogonal.effective_rank == pytest.approx(64)
    nothing = td.LinearSystem(np.zeros((4, 4)), np.zeros(4)).row_coherence()
    assert (nothing.mean_square, nothing.effective_rank, nothing.largest) == (0, 0, 0)
    single = td.LinearSystem(np.ones((1, 4)), np.ones(1)).row_coherence()
    assert single.effective_rank == pytest.approx(1)


@pytest.mark.parametrize(("n_rows", "dim", "expected"), [(10, 3, 10), (2000, 3, 32), (20_000, 100, 44), (50_000, 4, 32)])
def test_a_probe_costs_less_than_a_tenth_of_a_pass(n_rows, dim, expected):
    found = make_system(n_rows, dim).row_coherence()
    assert found.n_sample == expected
    if expected > 32:
        assert found.n_sample**2 * dim <= 0.1 * n_rows * dim
