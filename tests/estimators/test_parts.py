"""The parts that estimators are made of: choices, rows, predictions."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.engines.real import cores
from tardigrad.estimators.choices import jobs_of, kernel_of, workers_for
from tardigrad.estimators.prediction import blocks_for, evaluate
from tardigrad.estimators.rows import contradiction, held_out, in_file, same_rows


def test_jobs():
    assert jobs_of(None) == jobs_of(-1) == cores()
    assert jobs_of(-2) == max(1, cores() - 1)
    assert jobs_of(-1000) == 1
    assert jobs_of(np.int64(3)) == 3
    for wrong in (0, True, 2.0, "all"):
        with pytest.raises(ValueError, match="n_jobs must be"):
            jobs_of(wrong)


@pytest.mark.parametrize(
    ("n_rows", "n_jobs", "device", "workers"),
    [
        (3999, 4, None, 1),
        (4000, 4, None, 2),
        (10**6, 4, None, 4),
        (10**6, None, None, cores()),
        (10**6, 4, "cpu", 4),
        (10**6, None, "cuda", 1),
        (10**6, 2, "cuda", 2),
        (10**6, None, ["cuda:0", "cuda:1"], 2),
        (3000, None, ["cuda:0", "cuda:1"], 1),
        (1, 4, None, 1),
    ],
)
def test_workers(n_rows, n_jobs, device, workers):
    assert workers_for(n_rows, n_jobs, device) == workers


def test_kernels_have_their_smoothness():
    assert [kernel_of(f"matern-{n}/2", 1.0).nu for n in (1, 3, 5)] == [0.5, 1.5, 2.5]
    assert kernel_of("gaussian", "auto") == td.Gaussian("auto")


# -- rows


def test_what_lies_in_a_file(tmp_path):
    X = np.ones((4, 3))
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert in_file(mapped)
    assert in_file(mapped[1:])
    assert in_file(np.asarray(mapped)[1:, :2])
    assert not in_file(X)
    assert not in_file(X[1:])
    assert not in_file(mapped[[0, 1]])
    assert not in_file(sp.csr_array(X))


def test_rows_held_out_are_drawn_and_all_rows_are_somewhere():
    fitted, held = held_out(np.zeros((100, 2)), 0.2, 0, None)
    assert len(held) == 20
    assert sorted([*fitted, *held]) == list(range(100))
    assert (np.diff(fitted) > 0).all()
    again = held_out(np.zeros((100, 2)), 0.2, 1, None)[1]
    assert held.tolist() != again.tolist()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30), st.booleans())
def test_the_floor_of_contradictions_is_what_the_means_of_equal_rows_leave(pairs, sparse):
    x, y = np.array(pairs, float).T
    X = x[:, None] * [[1.0, 0.0, -2.0]]
    beside = np.concatenate([y[x == value] - y[x == value].mean() for value in np.unique(x)])
    found = contradiction(sp.csr_array(X) if sparse else X, y[:, None])
    if not np.abs(beside).max() > 1e-9:
        assert found is None
        return
    assert found.floor == pytest.approx(np.mean(beside**2))
    a, b = found.example
    assert x[a] == x[b]
    assert y[a] != y[b]
    assert found.n_rows == sum(np.ptp(y[x == value]) > 0 for value in x)


def test_zeros_of_both_signs_are_equal_and_so_are_those_that_a_sparse_matrix_keeps():
    X = np.array([[0.0, 1.0], [-0.0, 1.0]])
    y = np.array([[1.0], [2.0]])
    assert contradiction(X, y).floor == 0.25
    kept = sp.csr_array((np.array([0.0, 1.0, 1.0]), np.array([0, 1, 1]), np.array([0, 2, 3])), shape=(2, 2))
    assert contradiction(kept, y).floor == 0.25
    assert kept.nnz == 3


def test_the_floor_is_over_all_outputs():
    X = np.zeros((2, 1))
    assert contradiction(X, np.array([[1.0, 5.0], [3.0, 5.0]])).floor == 0.5


def test_same_rows():
    X = np.random.default_rng(0).normal(size=(5000, 2))
    other = X.copy()
    assert same_rows(X, other)
    other[-1, -1] += 1
    assert not same_rows(X, other)
    assert not same_rows(X, X[:-1])
    assert not same_rows(X, sp.csr_array(X))
    assert same_rows(sp.csr_array(X), sp.csr_array(X))
    assert not same_rows(sp.csr_array(X), sp.csr_array(other))


# -- predictions


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_points", [1, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1100])
def test_values_are_the_kernels_times_the_coefficients_however_many_points(n_points, dtype):
    rng = np.random.default_rng(0)
    X, Z, a = rng.normal(size=(70, 3)), rng.normal(size=(n_points, 3)), rng.normal(size=(70, 2)).astype(dtype)
    exact = td.Laplacian(1.0)(Z, X) @ a
    for workers in (1, 3):
        blocks = blocks_for(X, td.Laplacian(1.0), dtype, None, workers)
        found = evaluate(blocks, a, Z)
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_allclose(found, exact, atol=1e-4 if dtype == "float32" else 1e-12)
        assert found.tobytes() == evaluate(blocks[:1], a, Z).tobytes()
        np.testing.assert_allclose(evaluate(blocks, a, sp.csr_array(Z)), exact, atol=1e-4)


def test_a_value_has_the_same_bits_whatever_else_is_asked_for_and_whoever_computes():
    rng = np.random.default_rng(0)
    X, Z, a = (rng.normal(size=shape).astype(np.float32) for shape in ((9000, 2), (600, 2), (9000, 1)))
    blocks = blocks_for(X, td.Laplacian(1.0), "float32", None, 1)
    found = evaluate(blocks, a, Z)
    for few in (1, 100, 300, 513):
        assert evaluate(blocks, a, Z[:few]).tobytes() == found[:few].tobytes()
    assert evaluate(4 * blocks, a, Z).tobytes() == found.tobytes()


def test_every_worker_has_its_blocks():
    class Device:
        def __init__(self, number):
            self.number = number

        def product(self, points, coefficients):
            return np.full((len(points), 1), self.number, np.float32), None

    found = evaluate([Device(0), Device(1)], np.ones((5, 1), np.float32), np.ones((400, 2)))
    assert found[:, 0].tolist() == [0] * 200 + [1] * 200


def test_an_error_on_a_thread_is_raised():
    blocks = blocks_for(np.ones((5, 3)), td.Laplacian(1.0), "float32", None, 2)
    with pytest.raises(ValueError, match="Z has 2 features"):
        evaluate(blocks, np.ones((5, 1), np.float32), np.ones((2000, 2)))


@pytest.mark.parametrize("n_jobs", [0, 1.5, "all", True])
def test_numbers_of_jobs_are_integers(n_jobs):
    with pytest.raises(td.InvalidInputError, match=r"n_jobs must be an integer >= 1, or None or -1 for all cores, not "):
        jobs_of(n_jobs)
