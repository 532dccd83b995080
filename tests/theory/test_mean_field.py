"""Energy and mean-field flow, against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tardigrad.core.errors import InvalidInputError
from tardigrad.problems.projections import Ball, Box
from tardigrad.problems.test_functions import DoubleWell, Ridges
from tardigrad.theory.mean_field import energy, flow_distance, interpolate, mean_field

SETS = [Box(-0.5, 1.0), Ball(1.3), Box(0.0, 2.0)]


def whole(y):
    return y


@pytest.mark.parametrize("feasible", SETS, ids=repr)
def test_the_energy_is_the_papers(feasible):
    rng = np.random.default_rng(0)
    y = 3 * rng.normal(size=(50, 4, 3))
    p = feasible.project(rng.normal(size=3))
    x = feasible.project(y)
    paper = p @ p - np.sum(x * x, -1) + 2 * np.sum(y * (x - p), -1)
    np.testing.assert_allclose(energy(y, p, feasible.project), paper, atol=1e-12)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), spread=st.floats(1e-6, 1e6), which=st.sampled_from(SETS))
def test_the_energy_bounds_the_squared_distance(seed, spread, which):
    rng = np.random.default_rng(seed)
    y, p = spread * rng.normal(size=3), which.project(rng.normal(size=3))
    x = which.project(y)
    assert energy(y, p, which.project) >= np.sum((x - p) ** 2) * (1 - 1e-9) - 1e-9 * spread * np.finfo(float).eps


def test_the_energy_vanishes_where_the_projection_is_the_minimiser():
    p = np.array([1.0, -0.5, 1.0])
    y = p + np.array([[0.0, 0.0, 0.0], [3.0, -2.0, 0.5], [1e9, -1e9, 1e9]])
    assert energy(y, p, Box(-0.5, 1.0).project).tolist() == [0, 0, 0]


def test_the_energy_does_not_cancel():
    """Near the minimiser and far from the origin the paper's form loses every digit."""
    p = np.array([1e8, 1e8])
    y = p + np.array([1e-4, 0])
    assert energy(y, p, whole) == pytest.approx(1e-8, rel=1e-3)


def test_the_flow_on_a_quadratic_is_known():
    A = np.array([[2.0, 1.0], [1.0, 5.0]])
    values, vectors = np.linalg.eigh(A)
    y0, times = np.array([1.0, -2.0]), np.array([0.3, 0.5, 2.3])
    exact = [vectors @ np.diag(np.exp(-values * (t - 0.3))) @ vectors.T @ y0 for t in times]
    np.testing.assert_allclose(mean_field(lambda x: x @ A, whole, y0, times), exact, atol=1e-7)


def test_the_flow_under_a_constraint_is_known():
    """(x - 3)^2/2 on [-1, 1] from y = -2: x rests at -1, moves, and rests at 1 while y runs on."""
    times = np.array([0.0, 0.1, 0.25, 0.25 + np.log(2), 2.0])
    y = mean_field(lambda x: x - 3, Box(-1.0, 1.0).project, np.array([-2.0]), times)[:, 0]
    np.testing.assert_allclose(y, [-2, -1.6, -1, 1, 1 + 2 * (2 - 0.25 - np.log(2))], atol=1e-6)


def test_many_flows_are_followed_at_once():
    problem = Ridges()
    y0 = np.random.default_rng(0).normal(size=(2, 3, 2))
    times = np.linspace(0, 1, 5)
    together = mean_field(problem.exact_gradient, problem.constraint.project, y0, times)
    assert together.shape == (5, 2, 3, 2)
    for i, j in np.ndindex(2, 3):
        alone = mean_field(problem.exact_gradient, problem.constraint.project, y0[i, j], times)
        np.testing.assert_allclose(together[:, i, j], alone, atol=1e-5)


def test_the_energy_falls_along_the_flow_at_the_rate_of_lemma_4_2():
    problem = Ridges()
    project, p = problem.constraint.project, problem.minimiser
    times = np.linspace(0, 1.5, 1501)
    y = mean_field(problem.exact_gradient, project, [0.9, 0.7], times, rtol=1e-11, atol=1e-12)
    E = energy(y, p, project)
    assert (np.diff(E) < 0).all()
    x = project(y)
    assert np.linalg.norm(y[0]) > 1 > np.linalg.norm(x[-1])  # from outside of the disc to inside
    rate = -2 * np.sum(problem.exact_gradient(x) * (x - p), axis=-1)
    kink = np.searchsorted(-np.linalg.norm(y, axis=-1), -1)  # the edge of the disc
    smooth = np.abs(np.arange(1, 1500) - kink) > 2
    np.testing.assert_allclose(np.gradient(E, times)[1:-1][smooth], rate[1:-1][smooth], rtol=2e-3, atol=1e-6)


def test_the_energy_rises_where_coherence_fails():
    problem = DoubleWell(2)
    project = problem.constraint.project
    y = mean_field(problem.exact_gradient, project, [-0.3, 0.0], np.linspace(0, 5, 20))
    assert (np.diff(energy(y, problem.minimiser, project)) > 0).all()
    np.testing.assert_allclose(y[-1], problem.trap, atol=0.02)


def test_interpolation_is_affine_and_exact_at_the_knots():
    times, y = np.array([0.0, 0.5, 2.0]), np.arange(12.0).reshape(3, 2, 2) ** 2
    np.testing.assert_array_equal(interpolate(times, y, times), y)
    np.testing.assert_allclose(interpolate(times, y, 1.25), (y[1] + y[2]) / 2)
    assert interpolate(times, y, [[0.1, 0.2, 0.3]]).shape == (1, 3, 2, 2)
    with pytest.raises(InvalidInputError, match="t must lie between 0 and 2"):
        interpolate(times, y, 2.1)


def euler(step, n):
    return step * np.arange(n + 1), ((1 - step) ** np.arange(n + 1.0))[:, None]


def test_the_distance_of_eulers_method_on_a_bowl_is_known():
    times, y = euler(0.1, 20)
    found = flow_distance(whole, whole, times, y, 0.4, 1.2)
    fine = np.linspace(0.4, 1.6, 100_001)
    exact = np.abs(np.interp(fine, times, y[:, 0]) - y[4, 0] * np.exp(-(fine - 0.4)))
    assert found.shape == ()
    assert found == pytest.approx(exact.max(), rel=1e-3)
    between = flow_distance(whole, whole, times, y, 0.43, 0.04)  # within one step, where no iterate is
    assert between == pytest.approx(
        np.abs(interpolate(times, y, 0.47) - interpolate(times, y, 0.43) * np.exp(-0.04))[0], rel=1e-4
    )


def test_the_distance_counts_between_iterates_too():
    """Both iterates lie on the flow exp(-t), and the chord between them does not."""
    distance = flow_distance(lambda x: x, lambda y: y, [0.0, 1.0], [[1.0], [np.exp(-1.0)]], start=0.0, window=1.0)
    assert float(distance) == pytest.approx((1 + np.exp(-1)) / 2 - np.exp(-0.5), rel=1e-5)


def test_the_distance_falls_with_the_step():
    distances = [float(flow_distance(whole, whole, *euler(1 / n, 2 * n), 0.0, 2.0)) for n in (10, 20, 40)]
    assert distances[0] / distances[1] == pytest.approx(2, rel=0.06)
    assert distances[1] / distances[2] == pytest.approx(2, rel=0.04)


def test_the_distance_of_the_flow_itself_is_round_off_and_thinning():
    times = np.linspace(0, 1, 401)
    y = np.exp(-times)[:, None, None] * np.ones((401, 3, 1))
    assert flow_distance(whole, whole, times, y, 0.0, 1.0).shape == (3,)
    assert flow_distance(whole, whole, times, y, 0.0, 1.0).max() < 2e-6
    times, y = euler(0.001, 2000)
    whole_window = flow_distance(whole, whole, times, y, 0.0, 2.0, points=10_000)
    assert flow_distance(whole, whole, times, y, 0.0, 2.0, points=50) == pytest.approx(whole_window, rel=1e-2)
    coarse = flow_distance(whole, whole, times, np.where(times[:, None] == times[1001], 9.0, y), 0.0, 2.0, points=2)
    assert coarse < 0.01  # only the ends are looked at, not the outlier between them


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 1.5}, "the window from 1.5 to 2.5 is not within the times, 0 to 2"),
        ({"start": -0.1}, "not within the times"),
        ({"window": 0}, "window"),
        ({"points": 1}, "points"),
        ({"gradient": lambda x: np.full_like(x, np.nan)}, "not finite at t = 0"),
        ({"rtol": 0}, "rtol"),
    ],
)
def test_bad_windows_are_named(arguments, message):
    times, y = euler(0.1, 20)
    given_ = {"gradient": whole, "project": whole, "times": times, "y": y, "start": 0.0, "window": 1.0} | arguments
    with pytest.raises(InvalidInputError, match=message):
        flow_distance(**given_)


def test_times_must_rise():
    for times in ([], [1.0, 0.0], [[0.0, 1.0]], [0.0, np.inf]):
        with pytest.raises(InvalidInputError, match="times must be a rising vector"):
            mean_field(whole, whole, [1.0], times)
    assert mean_field(whole, whole, [2.0], [3.0, 3.0]).tolist() == [[2.0], [2.0]]


def test_a_gradient_that_jumps_does_not_hang(monkeypatch):
    monkeypatch.setattr("tardigrad.theory.mean_field.MOST_GRADIENTS", 2000)
    with pytest.raises(InvalidInputError, match=r"followed to t = 0.5.* with 2000 gradients: .* not continuous"):
        mean_field(np.sign, whole, [0.5], [0.0, 10.0])


def test_a_time_may_come_twice():
    y = mean_field(whole, whole, [1.0], [0.0, 0.0, 1.0, 1.0, 2.0])[:, 0]
    assert (y[0], y[2]) == (y[1], y[3])
    np.testing.assert_allclose(y[[0, 2, 4]], np.exp([0, -1, -2]), atol=1e-6)
