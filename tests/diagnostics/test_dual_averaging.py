"""Diagnosis of runs: against closed forms, and on every kind of engine."""

import dataclasses
import io

import numpy as np
import pytest

import tardigrad as td
from tardigrad.core.streams import noise_shape
from tardigrad.diagnostics.coherence import exact_gradient, problem_coherence
from tardigrad.diagnostics.dual_averaging import diagnose
from tardigrad.problems.test_functions import DoubleWell, Ridges
from tardigrad.report.style import new_figure


@pytest.fixture(scope="module", autouse=True)
def _fonts():
    """Matplotlib keeps the fonts of powers of ten open: before the descriptors of a test are counted."""
    figure = new_figure(1, 1)
    figure.add_subplot().set(xscale="log", yscale="log")
    figure.savefig(io.BytesIO())


class Bowl(td.Problem):
    """f(x) = |x - 1|^2 / 2 in the plane with noise: the flow is known."""

    shared_data = True

    def __init__(self, noise=0.0, n_clients=1):
        self.noise, self.n_clients, self.dim, self.minimiser = noise, n_clients, 2, np.ones(2)

    def fields(self):
        return {"noise": self.noise, "n_clients": self.n_clients}

    def sample(self, client, rng):
        return self.noise * rng.standard_normal((*noise_shape(rng), 2))

    def gradient(self, client, x, sample=None):
        return x - 1 if sample is None else x - 1 + sample


def bowl_run(step, n, delay=0, noise=0.0, constraint=None, **kwargs):
    rule = td.DASGD(step, constraint)
    return td.run(rule, Bowl(noise), td.Prescribed(delay), stop=td.MaxUpdates(n), **kwargs)


def test_a_noiseless_run_on_a_bowl_is_known_in_closed_form():
    h, n = 0.05, 60
    found = diagnose(bowl_run(h, n), starts=4, window=1.0)
    np.testing.assert_array_equal(found.version, np.arange(n + 1))
    np.testing.assert_allclose(found.time, h * np.arange(n + 1), rtol=1e-12)
    np.testing.assert_allclose(found.energy, 2 * (1 - h) ** (2 * np.arange(n + 1)), rtol=1e-9)
    np.testing.assert_allclose(found.flow_energy, 2 * np.exp(-2 * found.time), rtol=1e-5)
    assert (found.bias == 0).all()
    assert (found.staleness == 0).all()
    np.testing.assert_allclose(found.start, np.linspace(0, 2, 4), rtol=1e-12)
    knots = np.arange(21)  # the window of 20 steps from the start
    apart = np.sqrt(2) * np.abs((1 - h) ** knots - np.exp(-h * knots)).max()
    assert found.distance[0] == pytest.approx(apart, rel=2e-3)
    assert (np.diff(found.distance) < 0).all()


def test_the_bias_is_that_of_the_delay():
    """With delay 2 the gradients differ by x[n-2] - x[n]."""
    result = bowl_run(0.1, 40, delay=2, snapshot_every=1)
    found = diagnose(result)
    assert found.window == pytest.approx(0.4)  # a tenth of the time
    x = result.history.x
    read = np.maximum(np.arange(40) - 2, 0)
    np.testing.assert_array_equal(found.staleness, np.arange(40) - read)
    np.testing.assert_allclose(found.bias, np.linalg.norm(x[read] - x[:40], axis=-1), atol=1e-13)


def test_the_energy_remembers_what_lies_outside_of_the_set():
    """The minimiser is on the boundary: y runs on inside of the normal cone, where the energy stays 0."""
    result = td.run(
        td.DASGD(0.5, td.Box(-1.0, 0.5)), Bowl(), td.Prescribed(0), stop=td.MaxUpdates(30), x0=np.array([-3.0, 0.0])
    )
    found = diagnose(result, minimiser=[0.5, 0.5])
    assert found.energy[0] == pytest.approx((1 + 0.5) ** 2 + 2 * 2 * 1.5 + 0.25)
    assert found.energy[-1] == 0
    assert (np.diff(found.energy) <= 0).all()


def test_the_bias_vanishes_where_the_steps_fit_and_stays_where_they_do_not():
    fitting = diagnose(bowl_run(td.PowerStep(1.0, 0.8, 5.0), 5000, delay=4, noise=1.0), points=400)
    constant = diagnose(bowl_run(0.2, 5000, delay=4, noise=1.0), points=400)
    last = fitting.version[:-1] > 3000
    first = (fitting.version[:-1] > 4) & (fitting.version[:-1] < 40)
    assert np.median(fitting.bias[last]) < 0.05 * np.median(fitting.bias[first])
    steady = constant.version[:-1]
    assert np.median(constant.bias[steady > 3000]) > 0.5 * np.median(constant.bias[(steady > 20) & (steady < 1000)])
    assert np.median(fitting.distance[-3:]) < 0.3 * fitting.distance[0]
    assert np.median(constant.distance[-3:]) > 0.3


def test_the_energy_is_never_negative_and_bounds_the_distance():
    problem = Ridges(noise=1.0)
    rule = td.DASGD(td.LogStep(1.0, offset=10), problem.constraint)
    result = td.run(rule, problem, td.Prescribed(td.UniformDelay(0.1)), stop=td.MaxUpdates(400), snapshot_every=1, replicas=3)
    found = diagnose(result)
    assert found.energy.shape == found.flow_energy.shape == (401, 3)
    assert found.bias.shape == (400, 3)
    assert found.distance.shape == (12, 3)
    assert (found.energy >= np.sum(result.history.x**2, -1) - 1e-12).all()
    assert (np.diff(found.flow_energy, axis=0) <= 1e-9).all()
    np.testing.assert_allclose(found.flow_energy[:, 0], found.flow_energy[:, 2])  # all begin at one point
    assert not np.allclose(found.energy[-1, 0], found.energy[-1, 2])


def test_few_points_of_a_long_run_say_the_same():
    result = bowl_run(td.LogStep(2.0, offset=20), 3000, delay=7)
    all_, few = diagnose(result, points=4000), diagnose(result, points=200)
    assert len(all_.version) == 3001
    assert 100 < len(few.version) <= 200
    assert (few.version[0], few.version[-1]) == (0, 3000)
    same = np.isin(all_.version, few.version)
    np.testing.assert_array_equal(all_.energy[same], few.energy)
    np.testing.assert_array_equal(all_.bias[same[:-1]], few.bias)
    np.testing.assert_allclose(few.distance, all_.distance, rtol=0.1, atol=1e-4)


@pytest.mark.parametrize("engine", [td.Threads(3), td.Simulated(td.Exponential(1.0))], ids=lambda e: type(e).__name__)
def test_runs_of_other_engines_are_diagnosed_too(engine):
    problem = Ridges(noise=0.5, n_clients=3)
    rule = td.DASGD(td.LogStep(2.0, offset=50), problem.constraint)
    result = td.run(rule, problem, engine, stop=td.MaxUpdates(300))
    found = diagnose(result)
    np.testing.assert_array_equal(found.staleness, result.trace.staleness)
    p = problem.minimiser
    y = result.state.y
    x = problem.constraint.project(y)
    assert found.energy[-1] == pytest.approx(x @ x + 2 * (y - x) @ (x - p))
    assert (found.energy >= 0).all()


def test_a_saved_run_is_diagnosed(tmp_path):
    problem = DoubleWell(2, noise=0.1)
    rule = td.DAGD(0.05, problem.constraint)
    result = td.run(rule, problem, td.Prescribed(2), stop=td.MaxUpdates(50))
    again = td.Result.load(result.save(tmp_path / "run"))
    np.testing.assert_array_equal(diagnose(again).energy, diagnose(result).energy)


def test_from_the_wrong_side_dual_averaging_ends_in_the_trap():
    problem = DoubleWell(5, noise=0.3)
    x0 = np.full(5, -0.5)
    rule = td.DASGD(td.PowerStep(1.0, 0.75, 20.0), problem.constraint)
    result = td.run(rule, problem, td.Prescribed(td.UniformDelay(0.1)), stop=td.MaxUpdates(4000), x0=x0, replicas=20)
    assert (np.linalg.norm(result.x - problem.trap, axis=-1) < 0.3).all()
    found = diagnose(result, points=300)
    assert (found.energy[-1] > 2).all()
    assert found.flow_energy[-1].min() == pytest.approx(4, abs=0.1)  # the flow ends there too: delays are not to blame
    right = td.run(rule, problem, td.Prescribed(td.UniformDelay(0.1)), stop=td.MaxUpdates(4000), x0=-x0, replicas=20)
    assert (np.linalg.norm(right.x - problem.minimiser, axis=-1) < 0.3).all()


def test_the_picture_has_four_panels(tmp_path):
    for replicas in (None, 3):
        found = diagnose(bowl_run(0.1, 50, delay=3, noise=0.1, replicas=replicas), starts=3)
        figure = found.plot(tmp_path / "run.png")
        assert len(figure.axes) == 4
        assert (tmp_path / "run.png").stat().st_size > 10_000
        assert ("3 replicas" in figure.get_suptitle()) == (replicas == 3)
    assert found.plot().axes[0].get_yscale() == "log"
    diagnose(bowl_run(0.1, 50)).plot(tmp_path / "no_bias.png")  # zeros on no logarithmic axis


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: td.run(td.AsyncSGD(0.1), Bowl(), td.Prescribed(0), stop=td.MaxUpdates(3)), {}, "runs of DASGD and DAGD"),
        (lambda: bowl_run(0.1, 20), {"window": 3.0}, "window must be .* <= 2"),
        (lambda: bowl_run(0.1, 20), {"minimiser": np.ones(3)}, "a vector of 2 finite numbers, not array"),
        (lambda: bowl_run(0.1, 20), {"minimiser": "one"}, "a vector of 2 finite numbers, not 'one'"),
        (lambda: bowl_run(0.1, 20, constraint=td.Box(-1.0, 0.5)), {}, r"a point of the run's feasible set, Box\(low=-1.0"),
        (lambda: bowl_run(0.1, 20), {"points": 2}, "points"),
        (lambda: "run", {}, r"takes the Result of a run, not 'run': of a saved one Result.load\(folder\)"),
        (lambda: bowl_run(np.array([0.1, 0.2]), 20), {}, "a step size for each replica"),
        (lambda: bowl_run(0.1, 20, delay=td.UniformDelay(np.array([0.1, 0.5])), replicas=2), {}, "so it has no one bias"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(make, options, message):
    with pytest.raises(td.InvalidInputError, match=message):
        diagnose(make(), **options)


def test_another_problem_is_noticed():
    result = bowl_run(0.1, 20, noise=0.5)
    with pytest.raises(td.ReplayError, match="ends elsewhere"):
        diagnose(result, problem=Bowl(0.4))


def test_a_run_without_its_problem_needs_one():
    result = dataclasses.replace(bowl_run(0.1, 20), problem=None)
    with pytest.raises(td.RunFileError, match="problem="):
        diagnose(result)
    assert diagnose(result, problem=Bowl()).energy[-1] > 0


def test_the_exact_gradient_weighs_clients():
    X = np.random.default_rng(0).normal(size=(10, 3))
    problem = td.LeastSquares((X, X.sum(1)), td.Iid(3), weights="rows")
    x = np.random.default_rng(1).normal(size=(4, 3))
    np.testing.assert_allclose(exact_gradient(problem)(x), problem.full_gradient(x), rtol=1e-12)
    shared = td.LeastSquares((X, X.sum(1)), td.Shared(3))
    np.testing.assert_allclose(exact_gradient(shared)(x), shared.full_gradient(x), rtol=1e-12)
    asked = []
    shared.gradient = lambda client, x: asked.append(client)
    exact_gradient(shared)(x)
    assert asked == [0]  # one client has all the data


def test_coherence_of_problems():
    X = np.random.default_rng(0).normal(size=(10, 3))
    problem = td.LeastSquares((X, X.sum(1)), td.Iid(2))
    found = problem_coherence(problem, np.ones(3), td.Ball(5.0), samples=500)
    assert not found.violated
    assert problem_coherence(td.Rosenbrock(3), samples=500).violated
    with pytest.raises(td.InvalidInputError, match="knows no minimiser"):
        problem_coherence(problem, constraint=td.Ball(5.0))
    with pytest.raises(td.InvalidInputError, match="no feasible set"):
        problem_coherence(problem, np.ones(3))


@pytest.mark.parametrize("minimiser", [np.ones(3), 1.0, [np.nan, 1.0], "one", [[1.0], [2.0, 3.0]]], ids=repr)
def test_what_is_no_minimiser_is_refused(minimiser):
    with pytest.raises(td.InvalidInputError, match="minimiser must be a vector of 2 finite numbers, not"):
        problem_coherence(td.Rosenbrock(2), minimiser)


def test_a_users_function_has_no_exact_gradient():
    result = td.minimize(
        lambda x, rng: x - rng.normal(size=2), np.ones(2), engine=td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(20)
    )
    with pytest.raises(td.InvalidInputError, match="no exact gradients"):
        diagnose(result, np.zeros(2))


def test_exact_gradients_may_be_passed_for_a_run_of_minimize():
    centre = np.array([0.3, -0.2])
    result = td.minimize(
        lambda x, rng: x - centre + 0.1 * rng.normal(size=2),
        np.zeros(2),
        constraint=td.Ball(1.0),
        engine=td.Simulated(td.Exponential(1.0)),
        stop=td.MaxUpdates(2000),
    )
    found = td.diagnose(result, centre, gradient=lambda x: x - centre)
    assert (found.energy >= 0).all()
    assert found.energy[-1] < found.energy[0] / 100
    assert found.bias[-1] < 0.05
