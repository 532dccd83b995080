"""The search for violations of variational coherence: what it must find, and that it invents nothing."""

import numpy as np
import pytest

from tardigrad.core.errors import InvalidInputError
from tardigrad.problems.projections import Ball, Box
from tardigrad.problems.test_functions import DoubleWell, Ridges, Rosenbrock
from tardigrad.theory.coherence import check_coherence


def check(problem, **kwargs):
    sample = lambda rng, n: problem.constraint.sample(rng, (n,), problem.dim)  # noqa: E731
    return check_coherence(problem.exact_gradient, sample, problem.constraint.project, problem.minimiser, **kwargs)


def test_it_finds_the_violation_of_rosenbrock_in_two_variables():
    found = check(Rosenbrock(2))
    assert found.violated
    assert found.violations > 100
    assert found.worst_value == pytest.approx(-48, abs=1e-9)
    np.testing.assert_allclose(found.worst_point, [0, 0.5], atol=1e-9)
    assert str(found).startswith("not variationally coherent: <grad f(x), x - x*> = -48 at x = [0. , 0.5]")


def least_of_rosenbrock(dim, n=1001):
    """The least value on a grid: the inner product is a chain of terms of neighbours, so dynamic programming finds it."""
    grid = np.linspace(0, 2, n)
    a, b = grid[:, None], grid[None]
    gap = b - a * a
    term = (-400 * a * gap - 2 * (1 - a)) * (a - 1) + 200 * gap * (b - 1)
    value = np.zeros(n)
    for _ in range(dim - 1):
        value = (value[:, None] + term).min(0)
    return value.min()


@pytest.mark.parametrize("dim", [3, 10, 101])
def test_it_finds_the_worst_point_of_rosenbrock_where_samples_find_none(dim):
    found = check(Rosenbrock(dim))
    least = least_of_rosenbrock(dim)
    assert least * 1.001 < found.worst_value < least  # the grid is coarse, the search is not
    x = found.worst_point
    assert Rosenbrock(dim).exact_gradient(x) @ (x - 1) == pytest.approx(found.worst_value, rel=1e-12)
    if dim == 101:
        assert found.violations == 0
        assert found.violating_searches > 10
        assert found.worst_value == pytest.approx(-1496.17, abs=0.01)


@pytest.mark.parametrize("dim", [1, 10, 100])
def test_it_finds_the_double_wells_violation(dim):
    found = check(DoubleWell(dim))
    u = np.linspace(-1, DoubleWell.BARRIER, 100_001)
    values = (u - 1) ** 2 * (u + 1) * (u - DoubleWell.BARRIER)
    assert found.worst_value == pytest.approx(values.min(), rel=1e-6)
    assert found.worst_point[0] == pytest.approx(u[np.argmin(values)], abs=1e-3)
    assert found.worst_cosine == pytest.approx(-1, abs=1e-3)


def test_the_search_is_not_slow_in_a_narrow_valley():
    scales = 10.0 ** np.arange(6)
    well = DoubleWell(6)
    found = check_coherence(
        lambda x: well.exact_gradient(x) * scales,
        lambda rng, n: rng.uniform(-2, 2, (n, 6)),
        well.constraint.project,
        well.minimiser,
    )
    assert found.worst_value == pytest.approx(-0.501584, rel=1e-3)


@pytest.mark.parametrize(("sharpness", "violated"), [(6.0, True), (600.0, False)])
def test_a_dent_is_found_if_its_slopes_reach_far_enough(sharpness, violated):
    """A bowl with a dent on the ball of radius 3 in five dimensions. The narrow one is missed, and so no proof is claimed."""
    centre = 1.5 * np.array([1, 3, -2, 2, -1]) / np.sqrt(19)

    def gradient(x):
        away = x - centre
        return x + 2.5 * sharpness * away * np.exp(-sharpness * np.sum(away**2, -1, keepdims=True))

    ball = Ball(3.0)
    at = centre * (1 - 0.4 / np.sqrt(sharpness / 3) / 1.5)
    assert gradient(at) @ at < 0
    found = check_coherence(gradient, lambda rng, n: ball.sample(rng, (n,), 5), ball.project, np.zeros(5))
    assert found.violated == violated
    assert ("no proof" in str(found)) != violated


@pytest.mark.parametrize("minimiser", [[0.0, 0.0], [1.0, 0.0]])
def test_it_invents_no_violation(minimiser):
    """A convex quadratic; the second minimiser is on the edge of the box, with a gradient that does not vanish."""
    pull = np.array([3.0, 0.0]) * np.array(minimiser)
    found = check_coherence(
        lambda x: x * [1.0, 100.0] - pull,
        lambda rng, n: rng.uniform(-1, 1, (n, 2)),
        lambda x: np.clip(x, -1, 1),
        minimiser,
        samples=2000,
    )
    assert not found.violated
    assert (found.violations, found.violating_searches) == (0, 0)
    assert 0 < found.worst_cosine < 0.3
    assert "no proof" in str(found)


def test_round_off_is_no_violation():
    """Along a line of minimisers the inner products are 0, give or take."""
    A = np.array([[0.1, 0.7, -0.3]])
    null = np.linalg.svd(A)[2][1:]
    found = check_coherence(
        lambda x: (x - 1 / 3) @ A.T @ A,
        lambda rng, n: 1 / 3 + rng.normal(size=(n, 2)) @ null + (np.arange(n) % 4 == 0)[:, None] * A,
        lambda x: x,
        np.full(3, 1 / 3),
    )
    assert found.worst_value < 0  # so without a threshold there would be one
    assert not found.violated
    assert (found.violations, found.violating_searches) == (0, 0)
    assert found.worst_cosine > -1e-3


def test_the_ridges_pass():
    found = check(Ridges(), samples=50_000)
    assert not found.violated
    assert "no violation of variational coherence found in 50000 samples and 240 searches" in str(found)


def test_the_same_seed_finds_the_same():
    a, b, c = (check(Rosenbrock(5), samples=500, searches=9, seed=seed) for seed in (1, 1, 2))
    assert a.worst_point.tobytes() == b.worst_point.tobytes()
    assert str(a) == str(b)
    assert a.worst_cosine_point.tobytes() != c.worst_cosine_point.tobytes()


def test_without_searches_only_samples_count():
    found = check(Rosenbrock(2), samples=4000, searches=0)
    assert found.searches == found.violating_searches == 0
    assert -48 < found.worst_value < -30
    fewer = check(Rosenbrock(2), samples=3, searches=60)
    assert fewer.searches == 12


def test_every_point_asked_for_is_feasible():
    seen = []
    problem = Rosenbrock(4)

    def gradient(x):
        seen.append(x.copy())
        return problem.exact_gradient(x)

    box = Box(0.0, 2.0)
    check_coherence(gradient, lambda rng, n: box.sample(rng, (n,), 4), box.project, np.ones(4), samples=200, steps=40)
    points = np.concatenate(seen)
    assert points.min() >= -1e-12
    assert points.max() <= 2 + 1e-12


def test_samples_outside_of_the_set_are_no_violations():
    """The double well is coherent right of its barrier: on [0, 2] nothing is wrong, wherever samples come from."""
    well = DoubleWell(1)
    sample = lambda rng, n: rng.uniform(-2, 2, (n, 1))  # noqa: E731
    found = check_coherence(well.exact_gradient, sample, lambda x: np.clip(x, 0, 2), [1.0], samples=400, searches=9)
    assert not found.violated
    assert found.violations == 0
    assert check_coherence(well.exact_gradient, sample, lambda x: np.clip(x, -2, 2), [1.0], samples=400).violations > 20


def test_many_samples_are_looked_at_some_at_a_time(monkeypatch):
    sizes = []
    problem = Rosenbrock(2)

    def gradient(x):
        sizes.append(len(x))
        return problem.exact_gradient(x)

    whole = check(problem, samples=1000, searches=0)
    monkeypatch.setattr("tardigrad.theory.coherence._BLOCK", 600)
    found = check_coherence(
        gradient, lambda rng, n: problem.constraint.sample(rng, (n,), 2), lambda x: x, [1, 1], samples=1000, searches=0
    )
    assert sizes == [300, 300, 300, 100]
    assert (found.worst_value, found.violations) == (whole.worst_value, whole.violations)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minimiser": [3.0, 1.0]}, "not feasible: its projection is 1 away"),
        ({"minimiser": [[1.0, 1.0]]}, "vector of finite numbers"),
        ({"minimiser": [np.nan, 1.0]}, "vector of finite numbers"),
        ({"gradient": lambda x: x[:, 0]}, "must have that shape, not"),
        ({"gradient": lambda x: np.where(x > 1.9, np.nan, x)}, "not finite at x = "),
        ({"sample_points": lambda rng, n: np.ones((n, 3))}, r"must return shape \(50, 2\)"),
        ({"samples": 0}, "samples"),
        ({"tolerance": -1}, "tolerance"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "gradient": lambda x: x - 1,
        "sample_points": lambda rng, n: rng.uniform(0, 2, (n, 2)),
        "project": lambda x: np.clip(x, 0, 2),
        "minimiser": [1.0, 1.0],
        "samples": 50,
    }
    with pytest.raises(InvalidInputError, match=message):
        check_coherence(**(arguments | change))
