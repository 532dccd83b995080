"""The compiled loops in float32 beside float64: accuracy over the whole range, special values, vector instructions."""

import platform
import re

import numpy as np
import pytest

from tardigrad.problems.kernel_loops import KINDS, gather_loop, tile_loop

NOTHING = np.empty((1, 0), np.float32)


def values_of(kind, squares, scale=1.0, power=1.0):
    """Kernel values of squared distances, exactly these: ``|z|^2 + |x|^2 - 2 z.x`` with norms 0."""
    values = (np.asarray(squares, np.float32) * np.float32(-0.5)).reshape(1, -1)
    zeros = np.zeros(values.shape[1], np.float32)
    tile_loop(kind, np.dtype(np.float32))(values, zeros[:1], zeros, NOTHING, NOTHING, scale, power)
    return values[0]


def units(found, exact):
    """Errors in units in the last place of float32."""
    return np.abs(found.astype(np.float64) - exact) / np.spacing(exact.astype(np.float32)).astype(np.float64)


def grid():
    """Arguments of the exponential: dense everywhere, from the smallest to where it is 0."""
    every = np.concatenate([np.linspace(0, 110, 2_000_001), np.logspace(-44, 2.04, 500_001)])
    return np.unique(every.astype(np.float32))


def test_exponential_is_off_by_less_than_one_unit_in_the_last_place():
    y = grid()
    found, exact = values_of("exp(-r^2)", y), np.exp(-y.astype(np.float64))
    normal = exact >= 2.0**-126
    assert units(found, exact)[normal].max() < 1.0
    assert (found[~normal] <= 2.0**-126).all()
    assert (found[y > 87.7] == 0).all()
    assert found[0] == 1
    assert (np.diff(found) <= 2.0**-23).all(), "it hardly rises anywhere"
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("exp(-r)", lambda y: np.exp(-y)),
        ("matern 3/2", lambda y: (1 + y) * np.exp(-y)),
        ("matern 5/2", lambda y: (1 + y + y * y / 3) * np.exp(-y)),
    ],
)
def test_functions_of_the_distance(kind, formula):
    """Their argument y is rounded to float32, so a relative error y 2^-24 is in the nature of things."""
    y = grid()
    y = y[(y > 1e-18) & (y < 80)]  # whose squares are normal numbers
    squares, scale = (y.astype(np.float64) ** 2).astype(np.float32), 0.37
    found, exact = values_of(kind, squares, scale), formula(np.sqrt(squares.astype(np.float64)) * np.float64(np.float32(scale)))
    assert (units(found, exact) < 4 + 2 * np.sqrt(squares) * scale).all()
    root = np.float32(1.0) / np.arange(1, 30, dtype=np.float32)
    root = root[(root.astype(np.float64) ** 2).astype(np.float32) == root.astype(np.float64) ** 2]
    assert units(values_of(kind, root**2), formula(root.astype(np.float64))).max() < 4, "exact arguments"


@pytest.mark.parametrize("gamma", [0.01, 0.3, 0.5, 1.3, 1.9, 1.999])
@pytest.mark.parametrize("bandwidth", [1e-3, 1.0, 700.0])
def test_powers_of_the_distance(gamma, bandwidth):
    squares = np.logspace(-35, 35, 300_001).astype(np.float32)
    with np.errstate(over="ignore"):
        y = (squares.astype(np.float64) / bandwidth**2) ** (gamma / 2)
    found, exact = values_of("exp(-r^gamma)", squares, -2 * np.log2(bandwidth), gamma / 2), np.exp(-y)
    normal = exact >= 2.0**-125
    assert (units(found, exact)[normal] < 4 + y[normal]).all()
    assert (found[~normal] <= 2.0**-124).all()


@pytest.mark.parametrize("kind", KINDS)
def test_special_values(kind):
    squares = np.array([0.0, -0.0, np.nan, np.inf, 1e38, 1e-45, 3.4e38], np.float32)
    for repeats in (1, 9):  # alone, and in vectors
        found = values_of(kind, np.repeat(squares, repeats), 0.5, 0.35)[::repeats]
        assert found[0] == found[1] == found[5] == 1
        assert np.isnan(found[2])
        assert found[3] == found[4] == found[6] == 0
    assert values_of("exp(-r^gamma)", np.full(9, np.inf), 0.0, 0.005).tolist() == [0.0] * 9


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_points_are_computed_from_the_points(dtype):
    rng = np.random.default_rng(0)
    Z = (3 + rng.normal(size=(6, 50))).astype(dtype)
    X = np.concatenate([Z, Z + 1e-3 * rng.normal(size=Z.shape).astype(dtype), rng.normal(size=(5, 50)).astype(dtype)])
    norms = [np.einsum("ij,ij->i", A, A, dtype=np.float64).astype(dtype) for A in (Z, X)]
    values = Z @ X.T
    tile_loop(None, np.dtype(dtype))(values, *norms, Z, X, 1.0, 1.0)
    exact = ((Z[:, None].astype(np.float64) - X) ** 2).sum(axis=2)
    precision = np.finfo(dtype).eps
    assert (np.diag(values) == 0).all()
    np.testing.assert_allclose(np.diag(values[:, 6:]), np.diag(exact[:, 6:]), rtol=20 * precision)
    np.testing.assert_allclose(values, exact, rtol=2000 * precision)
    plain = norms[0][:, None] + norms[1] - 2 * (Z @ X.T)
    assert np.abs(np.diag(plain[:, 6:]) / np.diag(exact[:, 6:]) - 1).max() > 1000 * precision, "it made a difference"


def test_columns_are_gathered():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    out = np.full((5, 4), -1, np.float32)
    gather_loop(np.dtype(np.float32))(values, np.array([10, 13]), 10, out, 1, 2)
    assert out[2:4, 1:].tolist() == [[0, 4, 8], [3, 7, 11]]
    assert (out == -1).sum() == 14


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for the registers of x86-64 processors")
@pytest.mark.parametrize("kind", KINDS)
def test_loops_use_vector_instructions(kind):
    (code,) = tile_loop(kind, np.dtype(np.float32)).inspect_asm().values()
    vectors = len(re.findall(r"\b(?:vf\w+ps|vmulps|vaddps|mulps|addps|vf\w+pd)\b[^\n]*%[xyz]mm", code))
    assert vectors > 20
    if kind not in ("exp(-r^2)", "exp(-r^gamma)"):
        assert re.search(r"sqrtps\s", code)
