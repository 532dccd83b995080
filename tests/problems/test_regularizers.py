"""Regularizers: values, gradients and curvatures agree with each other and with the formulas."""

import numpy as np
import pytest

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode
from tardigrad.problems.regularizers import L2, SmoothNonconvex

X = np.random.default_rng(4).normal(size=(2, 3, 5)) * 2


def gradient(regularizer, x):
    out = np.zeros_like(x)
    regularizer.add_gradient(x, out)
    return out


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        (L2(0.5), 0.25 * (9 + 1 + 0)),
        (SmoothNonconvex(0.5), 0.5 * (9 / 10 + 1 / 2 + 0)),
        (L2(0.0), 0.0),
        (SmoothNonconvex(0.0), 0.0),
    ],
)
def test_value_is_that_of_the_formula(regularizer, expected):
    assert regularizer.value(np.array([3.0, -1.0, 0.0])) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("regularizer", [L2(0.7), SmoothNonconvex(0.7)])
def test_gradient_is_the_derivative_of_the_value(regularizer):
    x, h = X[0, 0], 1e-6
    steps = h * np.eye(len(x))
    differences = (regularizer.value(x + steps) - regularizer.value(x - steps)) / (2 * h)
    assert np.allclose(gradient(regularizer, x), differences, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("regularizer", [L2(0.7), SmoothNonconvex(0.7)])
def test_leading_axes_are_worked_on_at_once(regularizer):
    values, gradients = regularizer.value(X), gradient(regularizer, X)
    assert values.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        assert values[i, j] == pytest.approx(float(regularizer.value(X[i, j])), rel=1e-14)
        assert np.allclose(gradients[i, j], gradient(regularizer, X[i, j]), rtol=1e-14)


@pytest.mark.parametrize("regularizer", [L2(0.7), SmoothNonconvex(0.7), L2(0.0)])
def test_the_gradient_is_added_to_what_is_there_and_the_iterate_is_left_alone(regularizer):
    x, out = X.copy(), np.full_like(X, 10.0)
    regularizer.add_gradient(x, out)
    assert np.allclose(out, 10 + gradient(regularizer, X))
    assert np.array_equal(x, X)


@pytest.mark.parametrize("regularizer", [L2(0.7), SmoothNonconvex(0.7)])
def test_curvature_is_the_largest_second_derivative(regularizer):
    grid, h = np.linspace(-5, 5, 2001)[:, None], 1e-5
    second = (gradient(regularizer, grid + h) - gradient(regularizer, grid - h)) / (2 * h)
    assert np.abs(second).max() == pytest.approx(regularizer.curvature, rel=1e-6)


def test_second_derivatives_of_the_nonconvex_term_reach_down_to_minus_half_rho():
    grid, h = np.linspace(-5, 5, 20_001)[:, None], 1e-5
    second = (gradient(SmoothNonconvex(0.7), grid + h) - gradient(SmoothNonconvex(0.7), grid - h)) / (2 * h)
    assert second.min() == pytest.approx(-0.35, rel=1e-6)


@pytest.mark.parametrize("rho", [0.7, np.float64(0.7)], ids=["float", "numpy float"])
@pytest.mark.parametrize("make", [L2, SmoothNonconvex])
def test_float32_iterates_get_float32_gradients(make, rho):
    x = X.astype(np.float32)
    out = gradient(make(rho), x)
    assert out.dtype == np.float32
    assert np.allclose(out, gradient(make(rho), X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [L2, SmoothNonconvex])
@pytest.mark.parametrize("rho", [-0.1, np.nan, np.inf, "0.1", None])
def test_a_weight_that_is_negative_or_no_finite_number_is_refused(make, rho):
    with pytest.raises(InvalidInputError, match="rho must be a finite number >= 0, not"):
        make(rho)


@pytest.mark.parametrize("regularizer", [L2(0.1), SmoothNonconvex(0.05)])
def test_a_regularizer_comes_back_from_json(regularizer):
    assert decode(encode(regularizer, {}), {}) == regularizer
