"""Kernels beside SciPy and scikit-learn, their bandwidths, and how they are saved."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from sklearn.gaussian_process.kernels import Matern
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

import tardigrad as td
from tardigrad.core.errors import InvalidInputError, RunFileError
from tardigrad.core.plain import decode, encode
from tardigrad.problems.kernel_functions import kernel_named, median_distance

ALL = (
    td.Laplacian(1.5),
    td.Gaussian(1.5),
    td.Matern(1.5, nu=0.5),
    td.Matern(1.5, nu=1.5),
    td.Matern(1.5, nu=2.5),
    td.Dispersal(1.5, gamma=0.4),
    td.Dispersal(1.5, gamma=1.0),
    td.Dispersal(1.5, gamma=1.7),
    td.Dispersal(1.5, gamma=2.0),
)
TOLERANCE = {np.float64: 1e-13, np.float32: 1e-6}


def inverse_quadratic(squares):
    return 1 / (1 + squares)


def points(n=40, d=5, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def reference(kernel, X, Z):
    """The formula written out, in float64."""
    r = cdist(X.astype(np.float64), Z.astype(np.float64))
    if isinstance(kernel, td.Laplacian):
        return np.exp(-r / kernel.bandwidth)
    if isinstance(kernel, td.Gaussian):
        return rbf_kernel(X.astype(np.float64), Z.astype(np.float64), gamma=1 / (2 * kernel.bandwidth**2))
    if isinstance(kernel, td.Matern):
        return Matern(kernel.bandwidth, nu=kernel.nu)(X.astype(np.float64), Z.astype(np.float64))
    return np.exp(-((r / kernel.bandwidth) ** kernel.gamma))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kernel", ALL, ids=str)
def test_values_are_those_of_other_libraries(kernel, dtype):
    X, Z = points(dtype=dtype), points(n=23, dtype=dtype, seed=1)
    found = kernel(X, Z)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, reference(kernel, X, Z), rtol=TOLERANCE[dtype] * 10, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kernel", ALL, ids=str)
def test_matrix_of_points_with_themselves(kernel, dtype):
    X = points(dtype=dtype)
    K = kernel(X)
    assert (np.diag(K) == 1).all()
    assert kernel.diagonal == 1
    np.testing.assert_allclose(K, reference(kernel, X, X), atol=TOLERANCE[dtype])
    assert np.linalg.eigvalsh(kernel(X.astype(np.float64))).min() > 0, "positive definite"


def test_one_power_and_one_smoothness_are_the_laplacian_in_every_bit():
    for dtype in (np.float32, np.float64):
        X = points(dtype=dtype)
        laplacian = td.Laplacian(0.7)(X).tobytes()
        assert td.Matern(0.7, nu=0.5)(X).tobytes() == laplacian
        assert td.Dispersal(0.7, gamma=1)(X).tobytes() == laplacian


def test_gamma_2_is_a_gaussian():
    X = points(dtype=np.float32)
    np.testing.assert_allclose(td.Dispersal(np.sqrt(2.0) * 0.9, gamma=2)(X), td.Gaussian(0.9)(X), rtol=1e-6)


@pytest.mark.parametrize("bandwidth", [1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("kernel", [td.Laplacian, td.Gaussian, td.Matern, lambda b: td.Dispersal(b, 0.5)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_extreme_bandwidths_separate_points_or_do_not(kernel, bandwidth, dtype):
    K = kernel(bandwidth)(points(n=5, dtype=dtype))
    if bandwidth < 1:
        assert np.array_equal(K, np.eye(5))
    else:
        np.testing.assert_allclose(K, 1, atol=1e-6)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "Auto", None, True, "1"])
@pytest.mark.parametrize("kernel", [td.Laplacian, td.Gaussian, td.Matern, td.Dispersal])
def test_bandwidth_must_be_positive(kernel, value):
    with pytest.raises(InvalidInputError, match=r"bandwidth must be 'auto' or a finite number > 0, not "):
        kernel(value)


def test_other_parameters_are_checked():
    with pytest.raises(InvalidInputError, match=r"nu must be 0.5, 1.5 or 2.5, not 1"):
        td.Matern(1.0, nu=1)
    for gamma in (0, 2.1, np.nan):
        with pytest.raises(InvalidInputError, match="gamma must be a finite number > 0 and <= 2"):
            td.Dispersal(1.0, gamma=gamma)
    with pytest.raises(InvalidInputError, match="of must be 'squared distances' or 'inner products', not 'r'"):
        td.UserKernel(inverse_quadratic, of="r")
    with pytest.raises(InvalidInputError, match="function must be a function of an array, not 3"):
        td.UserKernel(3)


def test_kernels_by_name():
    assert kernel_named("matern", bandwidth=2.0, nu=2.5) == td.Matern(2.0, nu=2.5)
    assert kernel_named(td.Gaussian(3.0)) == td.Gaussian(3.0)
    with pytest.raises(InvalidInputError, match="one of laplacian, gaussian, matern, dispersal, or a kernel object, not 'rbf'"):
        kernel_named("rbf")
    with pytest.raises(InvalidInputError, match=r"'gaussian' does not take these parameters.*nu"):
        kernel_named("gaussian", nu=1.5)


class TestAuto:
    def test_is_the_median_distance(self):
        X = points(n=300)
        assert td.Laplacian("auto").fitted(X).bandwidth == pytest.approx(np.median(pdist(X)), rel=1e-12)
        assert td.Laplacian().fitted(X.astype(np.float32)).bandwidth == pytest.approx(np.median(pdist(X)), rel=1e-6)
        assert td.Matern("auto", nu=2.5).fitted(X) == td.Matern(median_distance(X), nu=2.5)

    def test_of_many_rows_is_that_of_a_seeded_sample(self):
        X = points(n=3000)
        exact = np.median(pdist(X))
        first = median_distance(X, 0)
        assert first == median_distance(X, 0)
        assert first != median_distance(X, 1)
        assert first == pytest.approx(exact, rel=0.03)

    def test_a_number_stays(self):
        kernel = td.Gaussian(3.0)
        assert kernel.fitted(points()) is kernel
        user = td.UserKernel(inverse_quadratic)
        assert user.fitted(points()) is user

    def test_of_duplicates_mostly_is_the_mean_of_positive_distances(self):
        X = np.zeros((10, 1))
        X[0], X[1] = 3.0, -1.0
        distances = pdist(X)
        assert np.median(distances) == 0
        assert median_distance(X) == pytest.approx(distances[distances > 0].mean())

    @pytest.mark.parametrize("wide", [False, True])
    def test_of_sparse_rows(self, wide):
        d = 3000 if wide else 50
        X = sp.random_array((60, d), density=10 / d, rng=np.random.default_rng(0), format="csr")
        assert median_distance(X) == pytest.approx(np.median(pdist(X.toarray())), rel=1e-12)
        same = sp.csr_array(np.repeat(X[:1].toarray(), 5, axis=0))
        with pytest.raises(InvalidInputError, match="all of the 5 rows looked at are the same: give a number"):
            median_distance(same)

    @pytest.mark.parametrize("X", [np.ones((7, 2)), np.ones((1, 3)), np.full((2000, 1), 5, np.uint8)], ids=["7", "1", "2000"])
    def test_of_constant_data_is_an_error(self, X):
        with pytest.raises(InvalidInputError, match="are the same: give a number"):
            td.Laplacian("auto").fitted(X)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
    def test_of_data_that_are_not_finite_is_an_error(self, bad):
        X = points()
        X[3, 2] = bad
        with pytest.raises(InvalidInputError, match="not finite"):
            median_distance(X)

    def test_has_no_values_before(self):
        with pytest.raises(InvalidInputError, match=r"call kernel.fitted\(X\) first"):
            td.Gaussian("auto").apply(np.ones(3))
        assert td.Gaussian("auto")(points()).shape == (40, 40), "a matrix of points fits it to them"


class TestUserKernel:
    def test_of_squared_distances(self):
        X, Z = points(), points(n=7, seed=1)
        kernel = td.UserKernel(inverse_quadratic)
        np.testing.assert_allclose(kernel(X, Z), 1 / (1 + cdist(X, Z) ** 2), rtol=1e-12)
        assert kernel.diagonal == 1
        assert td.UserKernel(lambda s: 3 - s).diagonal == 3

    def test_of_inner_products(self):
        X, Z = points() + 100, points(n=7, seed=1)
        kernel = td.UserKernel(lambda p: (1 + p) ** 2, of="inner products")
        np.testing.assert_allclose(kernel(X, Z), polynomial_kernel(X, Z, degree=2, gamma=1, coef0=1), rtol=1e-10)
        assert kernel.diagonal is None

    def test_of_another_shape_is_an_error(self):
        with pytest.raises(InvalidInputError, match=r"of the shape that it was given, \(40, 7\), not float64 of shape \(40,\)"):
            td.UserKernel(lambda p: p.sum(axis=1), of="inner products")(points(), points(n=7))
        with pytest.raises(InvalidInputError, match="must return real numbers"):
            td.UserKernel(lambda p: p * 1j, of="inner products")(points())


def saved(kernel):
    arrays = {}
    return decode(json.loads(json.dumps(encode(kernel, arrays))), arrays)


@pytest.mark.parametrize("kernel", [*ALL, td.Laplacian("auto")], ids=str)
def test_kernels_are_plain_data(kernel):
    assert saved(kernel) == kernel
    with pytest.raises(AttributeError):
        kernel.bandwidth = 2.0


def test_a_function_is_saved_by_name(monkeypatch):
    kernel = td.UserKernel(np.square, of="inner products")
    assert saved(kernel) == kernel
    with pytest.raises(TypeError, match="cannot be saved: a function is saved by module and name, so define it with def"):
        saved(td.UserKernel(lambda s: s))
    tree = encode(kernel, {})
    tree["function"] = "a_module_not_loaded:f"
    with pytest.raises((InvalidInputError, RunFileError), match="import that module first"):
        decode(tree, {})


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), st.integers(1, 30), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_symmetric_between_0_and_1_and_falling_with_distance(kernel, n, d, seed):
    X = points(n, d, np.float32, seed)
    K = kernel(X)
    np.testing.assert_allclose(K, K.T, atol=1e-6)
    assert (K >= 0).all()
    assert (K <= 1).all()
    line = kernel(np.linspace(0, 5, 50, dtype=np.float32)[:, None], np.zeros((1, 1), np.float32))[:, 0]
    assert (np.diff(line) <= 1e-6).all()
