"""Sigmoid regression: gradients, planted labels, coherence by dense sampling."""

import numpy as np
import pytest

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.core.streams import Domain, Stream
from tardigrad.datasets import load
from tardigrad.diagnostics.coherence import problem_coherence
from tardigrad.problems.data import Dataset
from tardigrad.problems.partition import Iid, Shared
from tardigrad.problems.sigmoid_regression import SigmoidRegression


def cancer():
    data = load("breast_cancer")
    return Dataset((data.X - data.X.mean(0)) / data.X.std(0), data.y)


def planted(seed=0, **kwargs):
    data = cancer()
    return SigmoidRegression(data, minimiser=np.random.default_rng(seed).normal(size=data.X.shape[1]) / 2, **kwargs)


@pytest.mark.parametrize("make", [planted, lambda: SigmoidRegression(cancer())])
def test_the_gradient_is_that_of_the_objective(make):
    problem = make()
    h = 1e-5
    for x in np.random.default_rng(0).normal(size=(4, problem.dim)) / 3:
        steps = h * np.eye(problem.dim)
        differences = (problem.loss(x + steps) - problem.loss(x - steps)) / (2 * h)
        np.testing.assert_allclose(problem.gradient(0, x), differences, atol=1e-8)
        np.testing.assert_allclose(problem.full_gradient(x), problem.gradient(0, x), rtol=1e-12)


def test_the_planted_minimiser_is_one():
    problem = planted()
    measures = problem.measures(problem.minimiser)
    assert set(measures) == {"loss", "objective", "gradient_norm", "distance"}
    assert all(float(value) == pytest.approx(0, abs=1e-15) for value in measures.values())
    assert problem.constraint.contains(problem.minimiser)
    assert "distance" not in SigmoidRegression(cancer()).measures(np.zeros(30))


def test_planted_labels_are_coherent_and_not_convex():
    problem = planted()
    assert np.linalg.matrix_rank(problem.data.X) == problem.dim  # so the minimiser is the only one
    x = problem.constraint.sample(np.random.default_rng(1), (40_000,), problem.dim)
    values = np.sum(problem.gradient(0, x) * (x - problem.minimiser), axis=-1)
    assert (values > 0).all()
    assert not problem_coherence(problem, samples=2000, searches=20, steps=100).violated
    middle = (x[:-1] + x[1:]) / 2
    assert np.mean(problem.loss(middle[:4000]) > (problem.loss(x[:4000]) + problem.loss(x[1:4001])) / 2) > 0.01


def test_real_labels_may_be_incoherent():
    """A gentle row and a steep one that pull apart: once the steep one is flat, descent leaves it."""
    problem = SigmoidRegression((np.array([[1.0], [-8.0], [0.1]]), np.array([1, 1, 0])), radius=20.0)
    grid = np.linspace(-20, 20, 4001)[:, None]
    best = grid[np.argmin(problem.loss(grid))]
    assert np.sum(problem.gradient(0, grid) * (grid - best), axis=-1).min() < -0.01


def test_the_curvature_bounds_the_second_derivative_and_is_attained():
    z = np.linspace(-12, 12, 20_001)
    found = []
    for y in (0.0, 0.3, 1.0):
        slopes = SigmoidRegression((np.eye(2), [0, 1]))._slopes(z, np.full_like(z, y))
        found.append(np.abs(np.gradient(slopes, z)).max())
    assert max(found) <= SigmoidRegression.loss_curvature * (1 + 1e-6)
    assert found[0] == pytest.approx(SigmoidRegression.loss_curvature, rel=1e-4)
    problem = planted()
    a, b = np.random.default_rng(2).normal(size=(2, 500, problem.dim))
    ratio = np.linalg.norm(problem.gradient(0, a) - problem.gradient(0, b), axis=-1) / np.linalg.norm(a - b, axis=-1)
    assert ratio.max() <= problem.smoothness()


def test_batches_are_unbiased_and_replicas_draw_their_own():
    problem = planted(batch=40)
    x = np.full(problem.dim, 0.1)
    stream = Stream(0, Domain.TASK)
    mean = np.mean([problem.gradient(0, x, problem.sample(0, stream.at(i))) for i in range(4000)], axis=0)
    np.testing.assert_allclose(mean, problem.gradient(0, x), atol=0.004)
    points = np.tile(x, (3, 2, 1))
    sample = problem.sample(0, Stream(0, Domain.TASK, replicas=3))
    gradients = problem.gradient(0, points, sample)
    assert not np.allclose(gradients[0], gradients[1])
    np.testing.assert_allclose(gradients[1, 0], problem.gradient(0, x, sample[1]), rtol=1e-12)
    np.testing.assert_array_equal(gradients[:, 0], gradients[:, 1])


def test_clients_share_or_split_the_rows():
    assert planted(partition=Shared(4)).shared_data
    problem = planted(partition=Iid(4))
    x = np.zeros(problem.dim)
    mean = sum(problem.weight(i) * problem.gradient(i, x) for i in range(4))
    np.testing.assert_allclose(mean, problem.full_gradient(x), rtol=1e-12)


def test_it_is_plain_data():
    problem = planted(batch=8, radius=7.0)
    arrays = {}
    again = decode(encode(problem, arrays), arrays)
    assert again.fingerprint() == problem.fingerprint() != planted(seed=1, batch=8, radius=7.0).fingerprint()
    assert same_bits(again.gradient(0, np.ones(30)), problem.gradient(0, np.ones(30)))
    assert again.constraint == problem.constraint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minimiser": np.ones(3)}, "minimiser must be 2 finite numbers"),
        ({"minimiser": [np.nan, 0]}, "minimiser must be 2 finite numbers"),
        ({"minimiser": "best"}, "minimiser must be 2 finite numbers, one a feature, not 'best'"),
        ({"minimiser": [30.0, 40.0]}, "norm 50, outside of the ball: give radius=50"),
        ({"radius": 0}, "radius"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        SigmoidRegression((np.eye(2), [0, 1]), **arguments)


def test_labels_that_are_not_two_classes_are_refused():
    with pytest.raises(InvalidInputError, match="two classes, found 3"):
        SigmoidRegression((np.eye(3), [0, 1, 2]))
