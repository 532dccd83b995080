"""Kernel machines as a problem: products with the dense matrix, points in files and sparse ones, bad input."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from tardigrad.core.plain import decode, encode, same_bits


def make(n=70, n_outputs=2, dtype="float64", **kwargs):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 4))
    y = rng.normal(size=(n, n_outputs)) if n_outputs else rng.normal(size=n)
    return td.KernelInterpolation(X, y, td.Gaussian(1.5), dtype=dtype, **kwargs)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
@pytest.mark.parametrize("n_outputs", [0, 1, 2])
def test_gradient_predictions_and_measures_are_those_of_the_dense_matrix(n_outputs, leading):
    problem, rng = make(n_outputs=n_outputs), np.random.default_rng(2)
    K, y = problem.kernel(problem.X), problem.targets
    x = rng.normal(size=(*leading, problem.dim))
    alpha = x.reshape(*leading, 70, -1)
    residual = K @ alpha - y
    np.testing.assert_allclose(problem.gradient(0, x), (residual / 70).reshape(x.shape), atol=1e-13)
    rows = np.array([5, 3, 60])
    expected = np.zeros_like(alpha)
    expected[..., rows, :] = residual[..., rows, :] / 3
    np.testing.assert_allclose(problem.gradient(0, x, rows), expected.reshape(x.shape), atol=1e-13)
    Z = rng.normal(size=(9, 4))
    values = problem.kernel(Z, problem.X) @ alpha
    np.testing.assert_allclose(problem.predict(x, Z), values if n_outputs else values[..., 0], atol=1e-12)
    measures = problem.measures(x)
    np.testing.assert_allclose(measures["loss"], np.square(residual).mean(axis=(-1, -2)))
    np.testing.assert_allclose(measures["residual"], np.linalg.norm(residual, axis=(-1, -2)) / np.linalg.norm(y))
    assert list(problem.measures(x, ["residual"])) == ["residual"]
    assert problem.measures(x, []) == {}


def test_the_gradient_is_that_of_the_loss_in_the_space_of_functions():
    problem, rng = make(n_outputs=0), np.random.default_rng(3)
    K = problem.kernel(problem.X)
    x, h = rng.normal(size=(2, problem.dim))
    loss = lambda x: problem.measures(x)["loss"] / 2  # noqa: E731
    slope = (loss(x + 1e-5 * h) - loss(x - 1e-5 * h)) / 2e-5
    assert slope == pytest.approx(h @ K @ problem.gradient(0, x), rel=1e-6)


def test_other_rules_run_on_it():
    problem = make(n_clients=2, batch=10)
    result = td.run(td.AsyncSGD(3.0), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(2000))
    assert problem.measures(result.x)["residual"] < 0.6


def test_sparse_points_and_points_in_a_file_give_the_same(tmp_path):
    dense = make()
    np.save(tmp_path / "X.npy", dense.X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    x = np.random.default_rng(0).normal(size=dense.dim)
    for X in (sp.csr_array(dense.X), mapped):
        problem = td.KernelInterpolation(X, dense.y, dense.kernel, dtype="float64")
        np.testing.assert_allclose(problem.gradient(0, x), dense.gradient(0, x), atol=1e-13)
        np.testing.assert_allclose(problem.predict(x, X[:5]), dense.predict(x, dense.X[:5]), atol=1e-13)


def test_points_in_a_file_are_sent_and_saved_by_their_path(tmp_path):
    dense = make(n=3000)
    np.save(tmp_path / "X.npy", dense.X)
    problem = td.KernelInterpolation(np.load(tmp_path / "X.npy", mmap_mode="r"), dense.y, dense.kernel, 2, dtype="float64")
    sent = pickle.dumps(problem)
    assert len(sent) < dense.X.nbytes
    arrays = {}
    again = decode(encode(problem, arrays), arrays)
    assert sum(array.nbytes for array in arrays.values()) == dense.y.nbytes
    for other in (pickle.loads(sent), again):
        assert isinstance(other.X, np.memmap)
        assert other.fingerprint() == problem.fingerprint()
        assert same_bits(other.gradient(0, np.ones(problem.dim)), problem.gradient(0, np.ones(problem.dim)))


def test_equal_problems_have_equal_fingerprints_wherever_they_compute():
    assert make().fingerprint() == make().fingerprint()
    assert make().fingerprint() != make(n_clients=2).fingerprint()


def test_numbers_of_any_kind_are_computed_in_the_precision_asked_for():
    X = np.arange(20, dtype=np.uint8).reshape(10, 2)
    problem = td.KernelInterpolation(X, np.arange(10), td.Laplacian("auto"))
    assert problem.gradient(0, problem.x0()).dtype == problem.x0().dtype == np.float32
    assert isinstance(problem.kernel.bandwidth, float)


BAD = {
    r"y must have shape \(4,\) or \(4, n_outputs\), not \(3,\)": lambda: td.KernelInterpolation(
        np.eye(4), np.ones(3), td.Laplacian(1.0)
    ),
    r"y\[2\] is not finite": lambda: td.KernelInterpolation(np.eye(3), [1.0, 2.0, np.nan], td.Laplacian(1.0)),
    "y must hold real numbers, not <U1: encode classes": lambda: td.KernelInterpolation(
        np.eye(2), ["a", "b"], td.Laplacian(1.0)
    ),
    "row 1 of X has a value that is not finite": lambda: td.KernelInterpolation(
        [[1.0], [np.inf], [2.0]], np.ones(3), td.Laplacian(1.0)
    ),
    r"X must have shape \(n_rows, n_features\)": lambda: td.KernelInterpolation(np.ones(3), np.ones(3), td.Laplacian(1.0)),
    "kernel must be a KernelFunction such as Laplacian": lambda: td.KernelInterpolation(np.eye(2), np.ones(2), "laplacian"),
    "dtype must be 'float32' or 'float64', not 'int32'": lambda: make(dtype="int32"),
    "batch must be": lambda: make(batch=71),
    "Z has 3 features, X has 4": lambda: make().predict(make().x0(), np.ones((2, 3))),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(td.InvalidInputError, match=message):
        BAD[message]()


def test_a_part_of_a_file_that_does_not_lie_row_after_row_is_sent_as_it_is(tmp_path):
    dense = make()
    np.save(tmp_path / "X.npy", np.hstack([dense.X, dense.X]))
    problem = td.KernelInterpolation(np.load(tmp_path / "X.npy", mmap_mode="r")[:, ::2], dense.y, dense.kernel, dtype="float64")
    again = pickle.loads(pickle.dumps(problem))
    assert same_bits(np.array(again.X), np.array(problem.X))
    assert same_bits(again.gradient(0, np.ones(problem.dim)), problem.gradient(0, np.ones(problem.dim)))


@pytest.mark.parametrize("column", [-1, 99])
def test_sparse_points_with_columns_that_do_not_exist_are_refused(column):
    X = sp.csr_array(make().X)
    X.indices[5] = column
    with pytest.raises(td.InvalidInputError, match=r"X is not a valid CSR matrix .*column numbers"):
        td.KernelInterpolation(X, make().y, td.Gaussian(1.5))
    with pytest.raises(td.InvalidInputError, match="Z is not a valid CSR matrix"):
        td.KernelInterpolation(sp.csr_array(make().X), make().y, td.Gaussian(1.5)).predict(make().x0(), X)
