"""Test functions: gradients, noise, minimisers, and what is known of their coherence."""

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.core.streams import Domain, Stream
from tardigrad.problems.test_functions import DoubleWell, Quadratic, Ridges, Rosenbrock

MAKERS = {
    "quadratic": lambda **kwargs: Quadratic([1.0, 0.5, 3.0], radius=2.0, **kwargs),
    "rosenbrock": lambda **kwargs: Rosenbrock(5, **kwargs),
    "ridges": Ridges,
    "wells": lambda **kwargs: DoubleWell(3, **kwargs),
}


def problems():
    return [pytest.param(make, id=name) for name, make in MAKERS.items()]


def points(problem, shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.7, 1.6, (*shape, problem.dim))


@pytest.mark.parametrize("dim", [2, 3, 101])
def test_rosenbrock_is_scipys(dim):
    x = np.random.default_rng(0).uniform(0, 2, (4, 3, dim))
    problem = Rosenbrock(dim)
    flat = x.reshape(-1, dim)
    np.testing.assert_allclose(problem.objective(x).ravel(), [rosen(row) for row in flat], rtol=1e-13)
    expected = np.array([rosen_der(row) for row in flat])
    np.testing.assert_allclose(problem.exact_gradient(x).reshape(-1, dim), expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("make", problems())
def test_the_gradient_is_that_of_the_objective(make):
    problem = make()
    h = 1e-5
    for x in points(problem, (5,)):
        steps = h * np.eye(problem.dim)
        differences = (problem.objective(x + steps) - problem.objective(x - steps)) / (2 * h)
        np.testing.assert_allclose(problem.exact_gradient(x), differences, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("make", problems())
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 4)])
def test_every_replica_gets_the_bits_it_would_get_alone(make, shape):
    problem = make()
    x = points(problem, shape)
    gradient, objective = problem.exact_gradient(x), problem.objective(x)
    assert gradient.shape == x.shape
    assert objective.shape == shape
    for index in np.ndindex(shape):
        assert same_bits(gradient[index], problem.exact_gradient(x[index]))
        np.testing.assert_allclose(objective[index], problem.objective(x[index]), rtol=1e-14)


@pytest.mark.parametrize("make", problems())
def test_a_gradient_neither_changes_its_point_nor_shares_memory(make):
    problem = make()
    x = points(problem, (3,))
    before = x.copy()
    sample = problem.sample(0, np.random.default_rng(0))
    kept = sample.copy()
    for found in (problem.gradient(0, x), problem.gradient(0, x, sample), problem.gradient(0, x.T.copy().T)):
        assert not np.shares_memory(found, x)
    assert same_bits(x, before)
    assert same_bits(sample, kept)
    assert same_bits(problem.gradient(0, x), problem.gradient(0, np.asfortranarray(x)))


def test_a_replica_that_diverged_leaves_the_others_alone():
    problem = Rosenbrock(4)
    x = points(problem, (3,))
    expected = problem.exact_gradient(x)
    x[1] = np.nan
    assert same_bits(problem.exact_gradient(x)[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("make", problems())
def test_the_minimiser_is_feasible_stationary_and_of_value_zero(make):
    problem = make(noise=0.0)
    p = problem.minimiser
    assert p.shape == (problem.dim,)
    assert problem.constraint.contains(p)
    np.testing.assert_allclose(problem.gradient(0, p), 0, atol=1e-12)
    measures = problem.measures(p)
    assert {name: float(value) for name, value in measures.items()} == pytest.approx(
        {"objective": 0, "distance": 0, "gradient_norm": 0}, abs=1e-12
    )
    others = problem.constraint.sample(np.random.default_rng(1), (20_000,), problem.dim)
    assert problem.objective(others).min() > 0
    assert list(problem.measures(p, ["distance"])) == ["distance"]


@pytest.mark.parametrize("make", problems())
def test_noise_is_gaussian_of_the_given_size(make):
    problem = make(noise=0.5)
    values = problem.sample(0, Stream(3, Domain.TASK, replicas=40_000))
    assert values.shape == (40_000, problem.dim)
    np.testing.assert_allclose(values.mean(0), 0, atol=5 * 0.5 / 200)
    np.testing.assert_allclose(np.cov(values.T), 0.25 * np.eye(problem.dim), atol=0.01)
    x = problem.x0()
    assert same_bits(problem.gradient(0, x, values[0]), problem.exact_gradient(x) + values[0])
    assert make(noise=0.0).sample(0, Stream(3, Domain.TASK)) is None


@pytest.mark.parametrize("make", problems())
def test_replicas_have_noise_of_their_own_and_sweeps_share_it(make):
    problem = make()
    x = np.zeros((3, 2, problem.dim))
    sample = problem.sample(0, Stream(0, Domain.TASK, replicas=3))
    noise = problem.gradient(0, x, sample) - problem.exact_gradient(x)
    assert not np.allclose(noise[0], noise[1])
    np.testing.assert_array_equal(noise[:, 0], noise[:, 1])
    alone = problem.sample(0, Stream(0, Domain.TASK))
    np.testing.assert_array_equal(problem.gradient(0, x, alone)[2, 1], problem.gradient(0, x[2, 1], alone))


@pytest.mark.parametrize("make", problems())
def test_problems_are_plain_data(make):
    problem = make(noise=0.25, n_clients=3)
    arrays = {}
    again = decode(encode(problem, arrays), arrays)
    assert again.fingerprint() == problem.fingerprint() != make(noise=0.5, n_clients=3).fingerprint()
    x = points(problem, (2,))
    assert same_bits(again.gradient(0, x), problem.gradient(0, x))
    assert (again.n_clients, again.noise) == (3, 0.25)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rosenbrock(1), "dim must be an integer >= 2"),
        (lambda: Rosenbrock(2.5), "dim"),
        (lambda: Rosenbrock(5, noise=-1), "noise must be a finite number >= 0"),
        (lambda: Rosenbrock(5, noise=np.inf), "noise"),
        (lambda: Rosenbrock(5, n_clients=0), "n_clients"),
        (lambda: Ridges(noise="1"), "noise"),
        (lambda: DoubleWell(0), "dim must be an integer >= 1"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def inner_products(problem, n):
    x = problem.constraint.sample(np.random.default_rng(7), (n,), problem.dim)
    x = x[np.linalg.norm(x - problem.minimiser, axis=-1) > 1e-6]
    return np.sum(problem.exact_gradient(x) * (x - problem.minimiser), axis=-1), x


def test_ridges_are_coherent_but_not_convex():
    problem = Ridges()
    values, x = inner_products(problem, 400_000)
    assert (values >= np.sum(x * x, axis=-1) / 3 * (1 - 1e-12)).all()  # the bound of the proof
    a, b = x[:-1], x[1:]
    chord = (problem.objective(a) + problem.objective(b)) / 2
    assert np.mean(problem.objective((a + b) / 2) > chord + 0.01) > 0.05


def test_rosenbrock_is_not_coherent():
    value = Rosenbrock(2).exact_gradient(np.array([0.0, 0.5])) @ np.array([-1.0, -0.5])
    assert value == -48.0
    x = np.zeros(101)
    for i in range(100):
        x[i + 1] = x[i] ** 2 + (1 - x[i]) ** 2 / 2
    assert Rosenbrock(101).exact_gradient(x) @ (x - 1) == pytest.approx(-929, abs=0.5)


def test_the_trap_is_a_minimiser_of_its_neighbourhood_and_not_the_best():
    problem = DoubleWell(4)
    assert problem.objective(problem.trap) > problem.objective(problem.minimiser) == 0
    near = problem.trap + 0.3 * np.random.default_rng(0).uniform(-1, 1, (1000, 4))
    assert (problem.objective(near) > problem.objective(problem.trap)).all()
    values, x = inner_products(problem, 20_000)
    assert values.min() < 0
    assert ((x[values < 0, 0] > -1) & (x[values < 0, 0] < problem.BARRIER)).all()


def test_the_start_of_the_ridges_is_feasible():
    assert Ridges().constraint.contains(Ridges().x0())


def test_a_quadratic_of_given_minimiser():
    problem = Quadratic([1.0, 4.0], minimiser=[0.6, 0.0], radius=1.5)
    assert problem.minimiser.tolist() == [0.6, 0.0]
    assert float(problem.objective(np.zeros(2))) == pytest.approx(0.18)
    assert Quadratic([1.0, 2.0, 2.0], radius=3.0).minimiser == pytest.approx(np.full(3, 1.5 / np.sqrt(3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quadratic([]), "eigenvalues must be a vector of finite numbers"),
        (lambda: Quadratic([1.0, np.inf]), "eigenvalues must be a vector of finite numbers"),
        (lambda: Quadratic("ab"), "eigenvalues must be a vector of finite numbers"),
        (lambda: Quadratic([1.0, 0.0]), "eigenvalues must be positive, not 0"),
        (lambda: Quadratic([1.0, 1.0], minimiser=[0.0]), "minimiser must be 2 numbers within the ball of radius 1"),
        (lambda: Quadratic([1.0, 1.0], minimiser=[1.0, 1.0]), "minimiser must be 2 numbers within the ball of radius 1"),
    ],
)
def test_bad_quadratics(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()
