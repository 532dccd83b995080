"""`tardigrad.minimize`: what users pass, what comes back, and what is said when something is wrong."""

import os
import threading
import warnings

import numpy as np
import pytest
from scipy.optimize import Bounds

import tardigrad as td
from needs import needs_ray

CENTRE = np.array([0.7, 0.5, -0.1])


def noisy(x, rng):
    """Gradient of |x - CENTRE|^2 / 2 with noise."""
    return x - CENTRE + 0.3 * rng.normal(size=3)


def distance(x):
    return float(np.linalg.norm(x - CENTRE))


SETS = {
    "none": (None, CENTRE),
    "simplex": (td.Simplex(), [0.6, 0.4, 0.0]),
    "ball": (td.Ball(0.5), CENTRE * 0.5 / np.linalg.norm(CENTRE)),
    "box": (td.Box(0.0, 0.6), [0.6, 0.5, 0.0]),
    "bounds": (Bounds([0, 0, 0], [0.6, 1, 1]), [0.6, 0.5, 0.0]),
    "a function": (lambda y: np.maximum(y, 0.0), [0.7, 0.5, 0.0]),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.filterwarnings("ignore::tardigrad.core.errors.TheoryWarning")
def test_it_finds_the_minimiser_with_steps_of_its_own(name):
    constraint, solution = SETS[name]
    found = td.minimize(noisy, np.full(3, 0.2), constraint=constraint, stop=td.MaxUpdates(6000))
    assert found.status is td.Status.MAX_UPDATES
    assert np.abs(found.x - solution).max() < 0.05
    assert isinstance(found.rule.step, td.PowerStep)


@pytest.mark.parametrize(
    "engine",
    [
        "threads",
        "processes",
        pytest.param("ray", marks=(needs_ray, pytest.mark.ray)),
        td.Simulated(td.Exponential(1.0)),
        td.Prescribed(5),
    ],
    ids=str,
)
def test_on_every_engine(engine):
    found = td.minimize(noisy, np.zeros(3), constraint=td.Ball(2.0), engine=engine, workers=2, stop=td.MaxUpdates(800))
    assert np.abs(found.x - CENTRE).max() < 0.2
    assert found.trace.updates == 800


def test_a_run_replays_bit_for_bit():
    for engine in ("threads", "processes"):
        found = td.minimize(noisy, np.zeros(3), constraint=td.Ball(2.0), engine=engine, stop=td.MaxUpdates(300), seed=3)
        assert td.replay(found).identical


def test_seeds():
    engine = td.Simulated(td.Exponential(1.0))
    xs = [td.minimize(noisy, np.zeros(3), engine=engine, steps=0.05, stop=td.MaxUpdates(50), seed=s).x for s in (0, 0, 1)]
    assert xs[0].tobytes() == xs[1].tobytes() != xs[2].tobytes()


def test_workers_are_the_engines_where_it_has_a_number():
    assert td.minimize(noisy, np.zeros(3), stop=td.MaxUpdates(5)).problem.n_clients == 4
    assert td.minimize(noisy, np.zeros(3), stop=td.MaxUpdates(5), workers=2).problem.n_clients == 2
    assert td.minimize(noisy, np.zeros(3), stop=td.MaxUpdates(5), workers=2, engine=td.Threads(3)).problem.n_clients == 3


def test_float32_stays_float32():
    seen = set()

    def gradient(x, rng):
        seen.add(x.dtype)
        return noisy(x, rng)

    found = td.minimize(gradient, np.zeros(3, np.float32), constraint=td.Ball(1.0), stop=td.MaxUpdates(50))
    assert found.x.dtype == np.float32
    assert seen == {np.dtype(np.float32)}


def test_an_objective_is_a_measure():
    found = td.minimize(
        noisy, np.zeros(3), objective=distance, stop=td.MaxUpdates(5000) | td.Tolerance("objective", at_most=0.1, every=10)
    )
    assert found.status is td.Status.CONVERGED
    assert found.evaluate()["objective"][-1] == pytest.approx(distance(found.x))


@pytest.mark.parametrize(("value", "what"), [(lambda x: x, r"an array of float64 \(3,\)"), (lambda x: None, "None")])
def test_an_objective_that_is_no_number(value, what):
    found = td.minimize(noisy, np.zeros(3), objective=value, stop=td.MaxUpdates(10))
    with pytest.raises(td.InvalidInputError, match=rf"objective\(x\) must return a number, not {what}"):
        found.evaluate()


def test_the_average_is_kept_if_asked_for():
    found = td.minimize(noisy, np.zeros(3), constraint=td.Ball(2.0), average=True, stop=td.MaxUpdates(2000))
    assert np.abs(found.state.average - CENTRE).max() < 0.1


def test_observers_are_called():
    class Counts(td.Observer):
        every, n = 100, 0

        def observe(self, moment):
            self.n += 1

    counts = Counts()
    td.minimize(noisy, np.zeros(3), stop=td.MaxUpdates(1000), observers=counts)
    assert counts.n == 11


def test_a_start_outside_is_projected_with_a_note():
    found = td.minimize(noisy, [3.0, 4.0, 0.0], constraint=td.Ball(1.0), stop=td.MaxUpdates(100))
    assert "x0 was outside of the constraint, by 4: the run began at its projection" in found.message
    assert np.allclose(found.history.x[0], [0.6, 0.8, 0.0])
    assert "outside" not in td.minimize(noisy, [0.6, 0.0, 0.0], constraint=td.Ball(1.0), stop=td.MaxUpdates(100)).message


@pytest.mark.parametrize(
    ("constraint", "warns"),
    [(td.AffineSubspace(np.ones((1, 3)), [1.0]), True), (td.Box(0.0, np.inf), True), (td.Ball(1.0), False), (None, False)],
)
def test_a_set_that_is_not_bounded_gives_a_warning_that_names_the_assumption(constraint, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        td.minimize(noisy, np.full(3, 1 / 3), constraint=constraint, stop=td.MaxUpdates(10))
    assert [w.category for w in caught] == [td.TheoryWarning] * warns
    if warns:
        assert "is not bounded, and the theory asks for a compact set (Section 2" in str(caught[0].message)
        assert caught[0].filename == __file__


def clip(y):
    return np.clip(y, 0.0, 1.0)


def test_of_a_users_set_it_is_not_known_whether_it_is_bounded():
    with pytest.warns(
        td.TheoryWarning, match=r"is not known to be bounded, .* if it is, say so: UserSet\(function, bounded=True"
    ):
        td.minimize(noisy, np.full(3, 1 / 3), constraint=clip, stop=td.MaxUpdates(10))
    td.minimize(noisy, np.full(3, 1 / 3), constraint=td.UserSet(clip, bounded=True), stop=td.MaxUpdates(10))


def test_growing_staleness_is_told_once_and_in_the_message():
    with pytest.warns(td.TheoryWarning, match=r"grows like n\^(0.9|1.0).*take LogStep") as caught:
        found = td.minimize(noisy, np.zeros(3), engine=td.Prescribed(td.UniformDelay(0.4)), stop=td.MaxUpdates(5000))
    assert len(caught) == 1
    assert str(caught[0].message) in found.message
    for better in (td.steps_for(found.trace.growth(), lipschitz=1.0), found.trace):
        again = td.minimize(
            noisy, np.zeros(3), steps=better, engine=td.Prescribed(td.UniformDelay(0.4)), stop=td.MaxUpdates(5000)
        )
        assert isinstance(again.rule.step, td.LogStep)
        assert np.abs(again.x - CENTRE).max() < 0.1


def test_steps_from_a_trace_of_few_late_replies_are_not_made_for_the_latest():
    grid = td.Simulated(td.Growing(1.0, scale=0.05, rate=3.0, clients=(3,)))
    with pytest.warns(td.TheoryWarning, match="steps=result.trace"):
        found = td.minimize(noisy, np.zeros(3), engine=grid, stop=td.MaxUpdates(20_000))
    again = td.minimize(noisy, np.zeros(3), engine=grid, stop=td.MaxUpdates(20_000), steps=found.trace)
    assert isinstance(again.rule.step, td.LogStep)
    assert np.abs(again.x - CENTRE).max() < 0.02
    worst = td.steps_for(found.trace.growth(), lipschitz=1.0, horizon=20_000)
    assert again.rule.step(10_000) > 5 * worst(10_000)


def test_a_trace_that_tells_too_little():
    short = td.minimize(noisy, np.zeros(3), stop=td.MaxUpdates(2)).trace
    with pytest.raises(td.InvalidInputError, match="too little is known"):
        td.minimize(noisy, np.zeros(3), steps=short)


@pytest.mark.parametrize("engine", [td.UniformDelay(0.5), td.PowerDelay(1.5)], ids=repr)
def test_the_steps_that_the_warning_proposes_work_as_printed_and_are_better(engine):
    engine, stop = td.Prescribed(engine, horizon=10_000), td.MaxUpdates(10_000)
    with pytest.warns(td.TheoryWarning) as caught:
        result = td.minimize(noisy, np.zeros(3), constraint=td.Ball(2.0), engine=engine, stop=stop)
    call = str(caught[0].message).partition("; ")[2].partition(" proposes one")[0]
    steps = eval(call, {"tardigrad": td, "result": result})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = td.minimize(noisy, np.zeros(3), constraint=td.Ball(2.0), engine=engine, stop=stop, steps=steps)
    assert distance(again.x) < distance(result.x)


@pytest.mark.parametrize(
    ("gradient", "x0", "options", "message"),
    [
        ("x - 1", [0.0], {}, r"gradient must be a function gradient\(x, rng\), not 'x - 1'"),
        (lambda x: x, [0.0], {}, r"a function is called as gradient\(x, rng\), which .* does not take: too many positional"),
        (lambda x, rng, t: x, [0.0], {}, r"a function is called as gradient\(x, rng\), which .* does not take: missing"),
        (noisy, [0.0], {"objective": lambda: 0.0}, r"a function is called as objective\(x\), which"),
        (noisy, [[0.0, 1.0, 2.0]], {}, r"x0 must be a vector \(dim,\) of real numbers, not an array of shape \(1, 3\)"),
        (noisy, np.zeros((3, 1)), {}, r"x0 must be .* shape \(3, 1\); of a matrix pass x0.ravel\(\)"),
        (lambda x, rng: 1e200 * x * rng.normal(), np.ones(3), {}, "so large that no steps can be proposed"),
        (noisy, [], {}, r"x0 must be a vector \(dim,\)"),
        (noisy, ["a", "b"], {}, "x0 must be a vector of real numbers"),
        (noisy, [1j, 0, 0], {}, "x0 must be a vector"),
        (noisy, [0.0, np.nan, 0.0], {}, "x0 has values that are NaN"),
        (noisy, np.zeros(3), {"constraint": td.Box(np.zeros(2), 1.0)}, "2"),
        (noisy, np.zeros(3), {"constraint": "simplex"}, "constraint must be None, a set"),
        (
            noisy,
            np.zeros(3),
            {"steps": "theory"},
            "steps must be 'auto', the trace of a run, a positive number or a StepSequence, not 'theory'",
        ),
        (noisy, np.zeros(3), {"steps": -0.1}, "step must be a positive number"),
        (noisy, np.zeros(3), {"engine": "dask"}, "engine must be 'threads', 'processes', 'ray' or an engine"),
        (noisy, np.zeros(3), {"workers": 0}, "workers must be an integer >= 1, not 0"),
        (noisy, np.zeros(3), {"objective": 3.0}, r"objective must be a function objective\(x\), not 3.0"),
        (
            lambda x, rng: x[:2],
            np.zeros(3),
            {},
            r"must return an array of numbers \(3,\), as x is, not an array of float64 \(2,\)",
        ),
        (lambda x, rng: 1.0, np.zeros(3), {}, r"must return an array of numbers \(3,\), as x is, not 1.0"),
        (
            lambda x, rng: [1, [2, 3], 4],
            np.zeros(3),
            {},
            r"must return an array of numbers \(3,\), as x is, not '\[1, \[2, 3\]",
        ),
        (lambda x, rng: None, np.zeros(3), {}, r"must return an array of numbers \(3,\), as x is, not None"),
        (lambda x, rng: x / 0 * np.nan, np.zeros(3), {}, "is not finite at the start"),
        (
            lambda x, rng: rng.normal(size=3) + np.random.default_rng().normal(size=3),
            np.zeros(3),
            {},
            "gave two different answers",
        ),
        (lambda y, rng: y, np.zeros(3), {"constraint": lambda y: 2 * y}, "project"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
def test_bad_input(gradient, x0, options, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.minimize(gradient, x0, **{"stop": td.MaxUpdates(10), **options})


def test_a_gradient_that_changes_x():
    def gradient(x, rng):
        x -= 1.0
        return x

    with pytest.raises(td.InvalidInputError, match="changed x"):
        td.minimize(gradient, np.zeros(3), stop=td.MaxUpdates(10))


def test_a_gradient_that_fails_later():
    def gradient(x, rng):
        return noisy(x, rng) if x @ x < 0.2 else np.zeros(2)

    with pytest.raises(td.InvalidInputError, match=r"must return an array of numbers \(3,\)"):
        td.minimize(gradient, np.zeros(3), engine=td.Simulated(td.Constant(1.0)), steps=0.1, stop=td.MaxUpdates(500))


def test_nan_gradients_end_the_run_with_the_last_finite_state():
    def gradient(x, rng):
        return noisy(x, rng) if x @ x < 0.2 else np.full(3, np.nan)

    found = td.minimize(gradient, np.zeros(3), steps=0.1, stop=td.MaxUpdates(500))
    assert found.status is td.Status.DIVERGED
    assert np.isfinite(found.x).all()
    assert "not finite" in found.message


def test_a_function_that_cannot_be_sent_to_processes_is_told_clearly():
    lock = threading.Lock()

    def gradient(x, rng):
        with lock:
            return noisy(x, rng)

    assert td.minimize(gradient, np.zeros(3), stop=td.MaxUpdates(50)).trace.updates == 50
    with pytest.raises(td.InvalidInputError, match="cannot be sent to worker processes"):
        td.minimize(gradient, np.zeros(3), engine="processes", stop=td.MaxUpdates(50))


def test_lambdas_are_sent_to_processes():
    home = os.getpid()

    def gradient(x, rng):
        assert os.getpid() != home or x.sum() == x.sum()
        return noisy(x, rng)

    found = td.minimize(gradient, np.zeros(3), engine="processes", steps=0.05, stop=td.MaxUpdates(100))
    assert found.trace.updates == 100


def test_a_linear_objective_goes_to_the_boundary():
    slope = np.array([1.0, 2.0])
    found = td.minimize(lambda x, rng: slope + rng.normal(size=2), np.zeros(2), constraint=td.Ball(1.0))
    assert np.abs(found.x + slope / np.sqrt(5)).max() < 0.05


def test_a_saved_run_is_replayed_with_its_function(tmp_path):
    found = td.minimize(noisy, np.zeros(3), constraint=td.Ball(1.0), stop=td.MaxUpdates(100))
    with pytest.warns(UserWarning, match="saved without the problem"):
        found.save(tmp_path / "run")
    assert td.replay(tmp_path / "run", problem=found.problem).identical


def test_a_sample_serves_at_several_points():
    """Differences of stochastic gradients need the same random numbers at both points."""
    problem = td.UserGradient(noisy, 3)
    for rng in (np.random.default_rng(0), np.random.Generator(np.random.Philox(3))):
        sample = problem.sample(0, rng)
        first = problem.gradient(0, np.zeros(3), sample)
        np.testing.assert_allclose(problem.gradient(0, np.ones(3), sample) - first, 1.0)
        assert problem.gradient(0, np.zeros(3), sample).tobytes() == first.tobytes()
        assert problem.gradient(0, np.zeros(3), problem.sample(0, rng)).tobytes() != first.tobytes()


def test_there_is_no_exact_gradient():
    with pytest.raises(td.InvalidInputError, match="there is no exact one"):
        td.run(td.DAGD(0.1), td.UserGradient(noisy, 3), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(3))


@pytest.mark.parametrize("engine", ["threads", td.Simulated(td.Exponential(1.0)), td.Prescribed(3)], ids=str)
def test_a_function_may_write_to_the_same_array_each_time(engine):
    buffers = threading.local()

    def gradient(x, rng):
        if not hasattr(buffers, "one"):
            buffers.one = np.empty(3)
        buffers.one[:] = noisy(x, rng)
        return buffers.one

    options = {"constraint": td.Ball(2.0), "engine": engine, "workers": 2, "stop": td.MaxUpdates(200)}
    found = td.minimize(gradient, np.zeros(3), **options)
    assert found.rule.step == td.minimize(noisy, np.zeros(3), **options).rule.step
    assert td.replay(found, problem=td.UserGradient(noisy, 3, 2)).identical


def test_what_a_function_returns_is_copied():
    buffer = np.ones(3)
    problem = td.UserGradient(lambda x, rng: buffer, 3)
    sample = problem.sample(0, np.random.default_rng(0))
    first = problem.gradient(0, np.zeros(3), sample)
    buffer += 1.0
    assert first.tolist() == [1.0, 1.0, 1.0]
    x = np.ones(3)
    assert not np.shares_memory(td.UserGradient(lambda x, rng: x, 3).gradient(0, x, sample), x)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6, 1e9, 1e12])
@pytest.mark.parametrize("constraint", [None, td.Ball(1e15)], ids=str)
def test_steps_are_proposed_on_any_scale_of_the_variables(scale, constraint):
    """The start at 0 tells nothing of the scale: a difference of 1e-6 is lost in the rounding of a large gradient."""

    def gradient(x, rng):
        return np.array([1.0, 3.0, 2.0]) * (x - scale * CENTRE)

    found = td.minimize(gradient, np.zeros(3), constraint=constraint, stop=td.MaxUpdates(1000))
    assert np.abs(found.x - scale * CENTRE).max() < 1e-6 * scale
    largest = found.rule.step(0)
    assert 0.5 / 9 < 3 * largest < 1.05 / 9  # 8 delays: nine steps in a window


def test_the_noise_of_the_gradient_decides_the_steps():
    """Where noise is all that limits them, steps fall like 1 / noise; and they are those of the noise that there is."""
    slopes = []
    for noise in (1e3, 1e4):
        found = td.minimize(
            lambda x, rng, noise=noise: x - CENTRE + noise * rng.normal(size=3),
            np.zeros(3),
            constraint=td.Ball(1.0),
            stop=td.MaxUpdates(2000),
            engine=td.Simulated(td.Constant(1.0)),
        )
        slopes.append(found.rule.step(0) * noise)
        best = td.steps_for(0.0, 1.0, delay=8, noise=noise * np.sqrt(3), distance=1.0, horizon=2000)
        assert found.rule.step(0) == pytest.approx(best(0), rel=0.5)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)


def test_delays_longer_than_steps_were_proposed_for_are_told():
    def run(engine, steps="auto"):
        return td.minimize(lambda x, rng: x - CENTRE, np.zeros(3), engine=engine, steps=steps, stop=td.MaxUpdates(500))

    found = run(td.Prescribed(30))
    mean = found.trace.staleness.mean()
    assert f"staleness was {mean:.3g} in the mean, and the steps were proposed for at most 8: they may be too large" in (
        found.message
    )
    assert "staleness" not in run(td.Prescribed(8)).message
    assert "staleness" not in run(td.Prescribed(30), steps=0.01).message
    better = td.steps_for(found.trace.growth(), lipschitz=1.0)
    assert np.abs(run(td.Prescribed(30), steps=better).x - CENTRE).max() < 1e-2


def test_a_first_step_that_would_lead_too_far_is_not_believed():
    """At -20 the curvature of exp(x) - x is 2e-9, where the step of its inverse leads 1e200 or more."""
    found = td.minimize(
        lambda x, rng: np.exp(np.minimum(x, 700)) - 1 + 0.1 * rng.normal(size=3),
        np.full(3, -20.0),
        engine=td.Simulated(td.Exponential(1.0)),
    )
    assert np.abs(found.x).max() < 0.2


def test_a_run_keeps_the_start_that_was_given_and_tries_the_function_at_its_projection():
    """Outside of the set the function need not be defined."""

    def gradient(x, rng):
        return noisy(x, rng) if (x >= 0).all() else np.full(3, np.nan)

    found = td.minimize(gradient, np.full(3, -1.0), constraint=td.Box(0.0, 1.0), stop=td.MaxUpdates(100))
    assert found.x0.tolist() == [-1.0, -1.0, -1.0]
    assert found.status is td.Status.MAX_UPDATES


def test_the_whole_of_a_bounded_set_is_looked_at():
    """At the start the gradient is flat; at other points of the set it is not."""
    steep = td.minimize(lambda x, rng: (x - 5) ** 3, np.full(3, 5.001), constraint=td.Box(4.0, 6.0), stop=td.MaxUpdates(500))
    assert 3 * 0.3**2 < 1 / (9 * steep.rule.step(0)) < 3.3


def test_the_points_that_are_looked_at_follow_from_the_seed():
    steps = [
        td.minimize(lambda x, rng: x**3, np.ones(2), constraint=td.Ball(3.0), stop=td.MaxUpdates(10), seed=s).rule.step
        for s in (0, 0, 1)
    ]
    assert steps[0] == steps[1] != steps[2]


@pytest.mark.parametrize("returned", [np.array([1, 2, 3], object), np.array([True] * 3), np.ones(3, complex)], ids=repr)
def test_what_is_no_array_of_numbers_is_refused(returned):
    with pytest.raises(td.InvalidInputError, match=r"must return an array of numbers \(3,\), as x is, not an array of"):
        td.minimize(lambda x, rng: returned, np.zeros(3), stop=td.MaxUpdates(10))


def test_a_sweep_of_steps():
    steps = np.array([0.02, 0.05])
    engine = td.Simulated(td.Constant(1.0))
    found = td.minimize(noisy, np.zeros(3), steps=steps, engine=engine, workers=1, stop=td.MaxUpdates(50))
    for x, step in zip(found.x, steps, strict=True):
        alone = td.minimize(noisy, np.zeros(3), steps=step, engine=engine, workers=1, stop=td.MaxUpdates(50))
        np.testing.assert_allclose(x, alone.x, rtol=1e-12)


def test_the_objective_is_called_only_where_it_is_wanted():
    problem = td.UserGradient(noisy, 3, objective=lambda x: 1 / 0)
    assert problem.measures(np.zeros(3), ("another",)) == {}


def test_a_linear_objective_of_any_size_has_steps_that_cross_the_set():
    for slope in (1e-3, 1e3):
        found = td.minimize(
            lambda x, rng, s=slope: s * np.ones(2), np.zeros(2), constraint=td.Ball(1.0), stop=td.MaxUpdates(500)
        )
        assert np.abs(found.x + np.sqrt(0.5)).max() < 1e-3


def test_a_gradient_that_is_the_same_everywhere_needs_a_bounded_set():
    with pytest.raises(td.InvalidInputError, match="is the same everywhere, and nothing bounds x: pass a bounded constraint"):
        td.minimize(lambda x, rng: np.ones(2), np.zeros(2))


def test_much_noise_does_not_make_the_minimiser_seem_far():
    found = td.minimize(
        lambda x, rng: x - CENTRE + 100 * rng.normal(size=3), np.zeros(3), engine=td.Simulated(td.Exponential(1.0))
    )
    assert np.linalg.norm(found.x - CENTRE) < 5
