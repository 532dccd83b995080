"""Clients' quadratics: gradients, minimiser, constants, and what is refused."""

import numpy as np
import pytest

import tardigrad as td
from tardigrad.core.plain import decode, encode, same_bits


def make(n=5, dim=3, seed=2, dtype=float):
    rng = np.random.default_rng(seed)
    return td.ClientQuadratics(rng.uniform(-0.2, 3.0, n), rng.normal(size=(n, dim)).astype(dtype))


def objective(problem, x):
    """Written out from the definition."""
    return np.mean([c / 2 * np.sum((x - z) ** 2) for c, z in zip(problem.curvatures, problem.centres, strict=True)])


def test_the_mean_of_gradients_is_that_of_the_objective():
    problem, h = make(), 1e-5
    x = np.random.default_rng(0).normal(size=3)
    steps = h * np.eye(3)
    expected = [(objective(problem, x + step) - objective(problem, x - step)) / (2 * h) for step in steps]
    mean = np.mean([problem.gradient(i, x) for i in range(5)], axis=0)
    np.testing.assert_allclose(mean, expected, rtol=1e-8)
    np.testing.assert_allclose(problem.full_gradient(x), mean, rtol=1e-13)
    for i in range(5):
        np.testing.assert_allclose(problem.gradient(i, x), problem.curvatures[i] * (x - problem.centres[i]), rtol=1e-15)


def test_the_minimiser_is_where_the_gradient_vanishes_and_the_objective_is_its_minimum():
    problem = make()
    mean = np.mean([problem.gradient(i, problem.minimiser) for i in range(5)], axis=0)
    assert np.abs(mean).max() < 1e-15
    assert problem.minimum == pytest.approx(objective(problem, problem.minimiser), rel=1e-14)


def test_measures_are_those_of_the_definition_on_any_leading_axes():
    problem = make()
    x = np.random.default_rng(1).normal(size=(4, 2, 3))
    found = problem.measures(x)
    assert list(found) == ["objective", "distance", "gradient_norm"]
    for index in np.ndindex(4, 2):
        gradient = np.mean([problem.gradient(i, x[index]) for i in range(5)], axis=0)
        assert found["objective"][index] == pytest.approx(objective(problem, x[index]), rel=1e-13)
        assert found["gradient_norm"][index] == pytest.approx(np.linalg.norm(gradient), rel=1e-12)
        assert found["distance"][index] == pytest.approx(np.linalg.norm(x[index] - problem.minimiser), rel=1e-14)
    assert list(problem.measures(x, ["distance"])) == ["distance"]


def test_constants_are_attained():
    problem = make()
    x, y = np.random.default_rng(3).normal(size=(2, 3))
    distance = np.linalg.norm(x - y)
    full = problem.full_gradient(x) - problem.full_gradient(y)
    own = [problem.gradient(i, x) - problem.gradient(i, y) for i in range(5)]
    assert np.linalg.norm(full) / distance == pytest.approx(problem.L, rel=1e-13)
    assert problem.delta == pytest.approx(max(np.linalg.norm(g - full) for g in own) / distance, rel=1e-13)
    assert problem.ell == pytest.approx(max(np.linalg.norm(g) for g in own) / distance, rel=1e-13)


def test_constants_count_clients_on_either_side_of_the_mean():
    low, high = (td.ClientQuadratics(curvatures, np.zeros((3, 1))) for curvatures in ([-1.5, 3.0, 3.0], [0.0, 0.0, 3.0]))
    assert (low.L, low.delta, low.ell) == (1.5, 3.0, 3.0)
    assert (high.L, high.delta, high.ell) == (1.0, 2.0, 3.0)
    assert td.ClientQuadratics([-4.0, 3.0, 3.0], np.zeros((3, 1))).ell == 4.0


def test_the_papers_quadratics():
    problem = td.ClientQuadratics.of_paper(10.0, n=4, dim=200_000)
    np.testing.assert_array_equal(problem.curvatures, [1 / 4, 1, 9 / 4, 4])
    b = problem.centres * np.arange(1, 5)[:, None] / 2  # A_i = i / sqrt(n)
    np.testing.assert_allclose(b.std(axis=1), 10.0 / np.arange(1, 5), rtol=0.01)
    np.testing.assert_allclose(b.mean(axis=1), 0, atol=0.1)
    x = np.random.default_rng(0).normal(size=200_000)
    for i in range(4):
        A = (i + 1) / 2
        np.testing.assert_allclose(problem.gradient(i, x), A * (A * x - b[i]), rtol=1e-8, atol=1e-9)


def test_problems_of_different_zeta_are_scaled_copies_and_seeds_differ():
    one, ten = (td.ClientQuadratics.of_paper(zeta, seed=4) for zeta in (1.0, 10.0))
    np.testing.assert_allclose(ten.centres, 10 * one.centres, rtol=1e-14)
    np.testing.assert_allclose(ten.minimiser, 10 * one.minimiser, rtol=1e-13)
    assert (td.ClientQuadratics.of_paper(1.0, seed=5).centres != one.centres).all()
    assert not td.ClientQuadratics.of_paper(0.0).centres.any()


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_leading_axes_give_the_bits_of_single_points_in_the_type_of_the_centres(shape, dtype):
    problem = make(dtype=dtype)
    x = np.random.default_rng(0).normal(size=(*shape, 3)).astype(dtype)
    before = x.copy()
    gradient = problem.gradient(2, x)
    assert gradient.dtype == problem.minimiser.dtype == problem.x0().dtype == dtype
    assert same_bits(gradient, (x - problem.centres[2]) * dtype(problem.curvatures[2]))
    assert not np.shares_memory(gradient, x)
    assert same_bits(x, before)
    for index in np.ndindex(shape):
        assert same_bits(np.asarray(gradient[index]), problem.gradient(2, x[index]))


def test_it_can_be_saved():
    problem, arrays = make(dtype=np.float32), {}
    again = decode(encode(problem, arrays), arrays)
    assert same_bits(problem, again)
    assert again.fingerprint() == problem.fingerprint()
    assert again.dtype == np.float32


@pytest.mark.parametrize(
    ("curvatures", "centres", "message"),
    [
        ([1.0, 2.0], [[0.0]], "one number for each of the 1 rows of centres, not 2"),
        ([[1.0]], [[0.0]], r"curvatures must be an array \(n,\)"),
        ([1.0], [0.0], r"centres must be an array \(n, dim\)"),
        ([np.nan], [[0.0]], "curvatures must be"),
        ([1.0], [[np.inf]], "centres must be"),
        (["a"], [[0.0]], "curvatures must be"),
        ([], np.zeros((0, 2)), "curvatures must be"),
        ([1.0, -1.0], [[0.0], [1.0]], "the mean of curvatures must be positive, not 0"),
    ],
)
def test_bad_input(curvatures, centres, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.ClientQuadratics(curvatures, centres)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"zeta": -1.0}, "zeta must be"), ({"zeta": 1.0, "n": 0}, "n must be"), ({"zeta": 1.0, "dim": 2.5}, "dim must be")],
)
def test_bad_arguments_of_the_papers_quadratics(arguments, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.ClientQuadratics.of_paper(**arguments)
