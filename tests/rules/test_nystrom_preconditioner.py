"""EigenPro's preconditioner against dense matrices; odd subsamples; the refined float32 solver against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.rules import nystrom_preconditioner as module
from tardigrad.rules.nystrom_preconditioner import NystromPreconditioner, preconditioner
from tardigrad.theory import eigenpro


def laplacian(X, Z=None, bandwidth=2.0):
    Z = X if Z is None else Z
    return np.exp(-np.linalg.norm(X[:, None] - Z[None], axis=2) / bandwidth)


def points(n, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def dense(made, s):
    """diag(..) of the damped operator I - U diag(scale sigma) U' on the subsample, as a matrix M with P = I - M K."""
    return (made.vectors * made.scale) @ made.vectors.T


@pytest.mark.parametrize("exponent", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("q", [1, 4, 20])
def test_the_preconditioned_spectrum_is_the_promised_one(q, exponent):
    K = laplacian(points(60))
    made = preconditioner(K, None, q, exponent)
    sigma = np.linalg.eigvalsh(K)[::-1]
    P = np.eye(60) - dense(made, 60) @ K
    promised = np.sort(np.r_[sigma[:q] ** (1 - exponent) * sigma[q] ** exponent, sigma[q:]])[::-1]
    found = np.sort(np.linalg.eigvals(P @ K).real)[::-1]
    np.testing.assert_allclose(found, promised, rtol=1e-9, atol=1e-11)
    assert made.top * 60 == pytest.approx(promised[0], rel=1e-12)
    assert made.tail * 60 == pytest.approx(sigma[q], rel=1e-12)
    assert made.beta == pytest.approx(np.diag(K @ P).max(), rel=1e-12)
    assert made.n_damped == q


def test_exponent_1_is_the_papers_matrix_8_with_eigenvalues_that_are_not_normalised():
    K = laplacian(points(30))
    made = preconditioner(K, None, 5, 1.0)
    sigma, vectors = np.linalg.eigh(K)
    E, L, tail = vectors[:, :-6:-1], sigma[:-6:-1], sigma[-6]
    np.testing.assert_allclose(dense(made, 30), E @ np.diag((1 - tail / L) / L) @ E.T, atol=1e-12)
    # the notes' beta
    assert made.beta == pytest.approx(np.max(1 - (E**2) @ (L - tail)), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [1, 3])
def test_correction_is_the_dense_product(dtype, outputs):
    X, batch = points(40), points(7, seed=1)
    made = preconditioner(laplacian(X), None, 6)
    C, g = laplacian(batch, X).astype(dtype), points(7, outputs, seed=2).astype(dtype)
    found = made.correction(made.along(C), g)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, dense(made, 40) @ C.T @ g, rtol=1e-5 if dtype is np.float32 else 1e-12, atol=1e-7)


def test_beta_of_is_the_diagonal_outside_the_subsample():
    X, batch = points(40), np.r_[points(5, seed=1), [[50.0, 0, 0]]]
    made = preconditioner(laplacian(X), 1.0, 6)
    C = laplacian(batch, X)
    entries = 1 - np.einsum("ms,st,mt->m", C, dense(made, 40), C)
    assert made.beta_of(made.along(C), 1.0) == pytest.approx(entries.max(), rel=1e-12) == pytest.approx(1.0, rel=1e-6)
    inside = entries.argmin()
    assert entries[inside] < made.beta == made.beta_of(made.along(C[[inside]]), 1.0)
    assert made.beta_of(made.along(laplacian(X)), 1.0) == pytest.approx(made.beta, rel=1e-12)
    assert made.beta_of(made.along(C.astype(np.float32)), np.ones(6, np.float32)) == pytest.approx(entries.max(), rel=1e-5)


@pytest.mark.parametrize("q", [0, 1])
def test_nothing_damped_is_plain_sgd(q):
    """One direction alone (q = 1 of a flat rest) as well."""
    K = laplacian(points(12)) if q == 0 else np.diag([5.0] + 11 * [1.0])
    made = preconditioner(K, None, q)
    assert made.n_damped == q
    if q == 0:
        assert made.beta == np.diag(K).max()
        assert made.top == made.tail == pytest.approx(np.linalg.eigvalsh(K)[-1] / 12, rel=1e-12)
        assert not made.correction(made.along(K), np.ones((12, 2))).any()
        assert eigenpro.one_worker_step(made.beta, made.top, 1) == 1 / made.beta
    else:
        assert made.tail == pytest.approx(1 / 12)
        np.testing.assert_allclose(dense(made, 12)[1:, 1:], 0, atol=1e-15)


# odd subsamples


@pytest.mark.parametrize("s", [1, 2, 3, 4, 5, 6])
def test_tiny_subsamples(s):
    K = laplacian(points(s))
    made = preconditioner(K)
    assert made.n_damped == min(4, s - 1)
    assert 0 < made.tail <= made.top
    assert 0 < made.beta <= 1
    P = np.eye(s) - dense(made, s) @ K
    assert np.linalg.eigvals(P @ K).real.max() <= made.top * s * (1 + 1e-9)


@pytest.mark.parametrize("q", [None, 0, 3, 39, 40, 1000])
@pytest.mark.parametrize("copies", [2, 5, 40])
def test_duplicate_rows(q, copies):
    """Rank s / copies: what is damped leaves a tail above rounding."""
    X = np.repeat(points(40 // copies), copies, axis=0)
    K = laplacian(X)
    made = preconditioner(K, 1.0, q)
    assert made.n_damped <= 40 // copies - 1
    assert made.tail > 1e-6
    assert np.isfinite(made.scale).all() and (made.scale >= 0).all()  # noqa: PT018
    assert made.beta == pytest.approx(np.diag(K - K @ dense(made, 40) @ K).max(), rel=1e-9)


def test_all_rows_alike_leave_nothing_to_damp():
    made = preconditioner(np.ones((9, 9)), 1.0)
    assert (made.n_damped, made.beta) == (0, pytest.approx(1.0))
    assert made.beta >= made.top  # whatever the rounding: a step's factor relies on it
    assert made.top == made.tail == pytest.approx(1.0)


def test_tiny_negative_eigenvalues_are_no_directions():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    K = (Q * np.r_[5, 3, 2, 1, np.full(16, -1e-17)]) @ Q.T
    made = preconditioner((K + K.T) / 2, None, 19)
    assert made.n_damped == 3
    assert made.tail * 20 == pytest.approx(1.0)


def test_a_flat_spectrum_is_left_alone():
    made = preconditioner(np.eye(50))
    assert made.beta == pytest.approx(1.0)
    assert made.top == made.tail == pytest.approx(1 / 50)
    np.testing.assert_allclose(made.scale, 0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.one_of(st.none(), st.integers(0, 40)), st.floats(0.05, 1), st.floats(0.1, 10))
def test_invariants(s, d, q, exponent, bandwidth):
    K = laplacian(points(s, d, seed=s), bandwidth=bandwidth)
    made = preconditioner(K, 1.0, q, exponent)
    assert made.vectors.shape == (s, made.n_damped)
    assert made.n_damped <= s - 1
    assert (np.diff(made.scale * np.diag(made.vectors.T @ K @ made.vectors)) <= 1e-9).all()  # the larger, the more damped
    assert 0 < made.tail <= made.top * (1 + 1e-12)
    assert made.tail <= made.beta <= 1 + 1e-12
    np.testing.assert_allclose(made.vectors.T @ made.vectors, np.eye(made.n_damped), atol=1e-9)


# the default q and the solver


@pytest.mark.parametrize("s", [40, 600])  # below the size from which only nearly so
@pytest.mark.parametrize("wanted", [None, 1, 100])
def test_the_default_q_is_that_of_the_whole_spectrum(s, wanted):
    K = laplacian(points(s, 6))
    lam = np.linalg.eigvalsh(K)[::-1] / s
    assert preconditioner(K, None, largest_batch=wanted).n_damped == eigenpro.n_damped(lam, s, s if wanted is None else wanted)


@pytest.fixture
def soon(monkeypatch):
    """Iterate from 400 rows on: dense matrices to compare with are quick to come by."""
    monkeypatch.setattr(module, "_ITERATED", 400)


def large_matrices(s=400):
    X = points(s, 4)
    yield "flat", laplacian(X, bandwidth=0.05)
    yield "usual", laplacian(X)
    yield "steep", laplacian(X, bandwidth=100.0)
    yield "gaussian", np.exp(-((X[:, :1] - X[:, :1].T) ** 2) / 8)  # down to rounding
    yield "duplicates", laplacian(np.repeat(X[: s // 20], 20, axis=0))
    yield "blocks", np.kron(np.eye(20), np.ones((s // 20, s // 20))) + 1e-3 * laplacian(X)  # 20 equal eigenvalues


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("name", "K"), list(large_matrices()), ids=lambda item: item if isinstance(item, str) else "")
@pytest.mark.parametrize("q", [None, 0, 5, 40])
def test_the_iterated_solver_leaves_no_more_than_the_promised_top(name, K, q):
    """The exact spectrum of the preconditioned matrix, and the vectors' orthogonality in both senses."""
    s = len(K)
    made = preconditioner(K, 1.0, q)
    U = made.vectors
    sigma = np.einsum("ij,ij->j", U, K @ U)
    np.testing.assert_allclose(U.T @ U, np.eye(made.n_damped), atol=1e-12)
    np.testing.assert_allclose(U.T @ K @ U, np.diag(sigma), atol=1e-10 * s)
    root, turn = np.linalg.eigh(K)
    half = (turn * np.sqrt(np.maximum(root, 0))) @ turn.T
    image = half @ U
    spectrum = np.linalg.eigvalsh(K - half @ (image * made.scale) @ image.T @ half)
    assert spectrum[-1] <= made.top * s * (1.12 if name == "flat" else 1.005) + 1e-7 * root[-1]
    assert spectrum[0] > -1e-9 * s
    assert made.beta == pytest.approx(1 - np.min((K @ U) ** 2 @ made.scale), rel=0.01, abs=1e-4)
    if q in {5, 40} and name != "gaussian":
        assert made.n_damped == min(q, s // 20 - 1 if name == "duplicates" else q)


def test_the_iterated_solver_finds_the_dense_solvers_top_and_nearly_its_q():
    K = laplacian(points(module._ITERATED, 6))
    lam = np.linalg.eigvalsh(K)[::-1] / len(K)
    made = preconditioner(K)
    assert 0.75 * eigenpro.n_damped(lam, len(K), len(K)) < made.n_damped <= eigenpro.n_damped(lam, len(K), len(K))
    fewer = preconditioner(K, n_damped=20)
    assert fewer.tail == pytest.approx(lam[20], rel=1e-3)
    assert fewer.top == pytest.approx(lam[0] ** 0.05 * lam[20] ** 0.95, rel=1e-3)


def test_it_is_the_same_every_time_and_leaves_the_matrix():
    K = laplacian(points(module._ITERATED, 4))
    before = K.copy()
    assert same_bits(preconditioner(K), preconditioner(K))
    np.testing.assert_array_equal(K, before)


def test_small_ones_are_solved_by_lapack(monkeypatch):
    monkeypatch.setattr(module, "_iterated", None)
    assert preconditioner(laplacian(points(module._ITERATED - 1, 4))).n_damped > 4
    assert preconditioner(np.eye(module._ITERATED), n_damped=module._ITERATED // 2).tail > 0  # nor where most are wanted


def test_plain_data():
    made = preconditioner(laplacian(points(20)))
    arrays = {}
    again = decode(encode(made, arrays), arrays)
    assert isinstance(again, NystromPreconditioner)
    assert same_bits(again, made)


# bad input


@pytest.mark.parametrize(
    ("matrix", "diagonal", "message"),
    [
        (np.ones((2, 3)), None, r"K_ss must be a square matrix, not of shape \(2, 3\)"),
        (np.ones(3), None, "square matrix"),
        (np.ones((0, 0)), None, "square matrix"),
        (np.full((3, 3), np.nan), None, "K_ss of a subsample must be finite: look for NaN"),
        (np.diag([1.0, np.inf]), None, "K_ss of a subsample must be finite"),
        (np.zeros((3, 3)), None, "positive diagonal"),
        (np.eye(3), np.ones(2), "diagonal must be one finite number, or one for each of the 3 rows"),
        (np.eye(3), np.nan, "diagonal must be"),
    ],
)
def test_bad_matrices(matrix, diagonal, message):
    with pytest.raises(InvalidInputError, match=message):
        preconditioner(matrix, diagonal)


def test_bad_arguments():
    for arguments, message in [((-1,), "n_damped must"), ((1, 0.0), "exponent must"), ((None, 0.95, 0), "largest_batch must")]:
        with pytest.raises(InvalidInputError, match=message):
            preconditioner(np.eye(3), None, *arguments)
