"""DASGD, DAGD and ProjectedSGD against the algorithms written out, and where they differ from each other."""

import numpy as np
import pytest

import tardigrad as td
from clients import make_weighted
from conftest import make_problem
from tardigrad.core.streams import Domain, Stream

#: more than iterates that are made anew at each update
LARGE = 20_000


def project_ball(y, radius):
    return y if np.linalg.norm(y) <= radius else y * (radius / np.linalg.norm(y))


class Quadratic(td.Problem):
    """|x - centre|^2 / 2 with noise; the gradient is the point itself less the centre."""

    shared_data = True

    def __init__(self, centre, noise=0.0, n_clients=1, dtype="float64"):
        self.centre, self.noise, self.n_clients = np.asarray(centre, dtype), noise, n_clients
        self.dim, self.dtype = len(self.centre), np.dtype(dtype)

    def fields(self):
        return {"centre": self.centre, "noise": self.noise, "n_clients": self.n_clients, "dtype": self.dtype.str}

    def sample(self, client, rng):
        return rng.normal(size=self.dim) * self.noise if self.noise else None

    def gradient(self, client, x, sample=None):
        g = x - self.centre
        return g if sample is None else g + sample

    def measures(self, x, names=None):
        return {"distance": np.linalg.norm(x - self.centre, axis=-1)}


def written_out(result, project, lazy=True, exact=False):
    """Algorithm 2 from the versions that the trace says were read; every x, and the last y."""
    problem, step = result.problem, result.rule.step
    stream = Stream(result.seed, Domain.TASK)
    y = result.x0.copy()
    xs = [project(y)]
    if not lazy:
        y = xs[0]
    for n, row in enumerate(result.trace.table):
        sample = None if exact else problem.sample(row["client"], stream.at(int(row["task"])))
        g = problem.gradient(row["client"], xs[row["version_read"]], sample)
        a = step(n) if callable(step) else step
        y = (y if lazy else xs[-1]) - a * g
        xs.append(project(y))
    return xs, y


STEPS = [0.05, td.LogStep(5.0, 20.0), td.LogLogStep(5.0, 20.0)]
ENGINES = {
    "simulated": lambda: td.Simulated(td.Exponential(1.0)),
    "prescribed": lambda: td.Prescribed(td.UniformDelay(0.3)),
    "threads": lambda: td.Threads(2),
}


@pytest.mark.parametrize("step", STEPS, ids=repr)
@pytest.mark.parametrize("engine", ENGINES)
def test_lazy_projection_is_algorithm_2_bit_for_bit(engine, step):
    problem = make_problem()
    rule = td.DASGD(step, td.Box(-0.02, 0.03))
    result = td.run(rule, problem, ENGINES[engine](), stop=td.MaxUpdates(60), x0=np.full(problem.dim, 0.05))
    xs, y = written_out(result, lambda y: np.clip(y, -0.02, 0.03))
    assert result.x.tobytes() == xs[-1].tobytes()
    assert result.state.y.tobytes() == y.tobytes()
    assert not np.array_equal(y, xs[-1])  # the box was active


@pytest.mark.parametrize("engine", ENGINES)
def test_greedy_projection_bit_for_bit(engine):
    problem = make_problem()
    rule = td.ProjectedSGD(0.05, td.Box(-0.02, 0.03))
    result = td.run(rule, problem, ENGINES[engine](), stop=td.MaxUpdates(60), x0=np.full(problem.dim, 0.05))
    xs, _ = written_out(result, lambda y: np.clip(y, -0.02, 0.03), lazy=False)
    assert result.x.tobytes() == xs[-1].tobytes()
    assert result.state.y is None


def test_exact_gradients_are_asked_for_all_data():
    problem = make_problem()
    result = td.run(td.DAGD(0.05, td.Ball(0.3)), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(60))
    xs, _ = written_out(result, lambda y: project_ball(y, 0.3), exact=True)
    np.testing.assert_allclose(result.x, xs[-1], rtol=1e-13)
    other = td.run(td.DASGD(0.05, td.Ball(0.3)), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(60))
    assert not np.allclose(other.x, result.x)


def test_exact_gradients_of_clients_with_unequal_weights():
    problem = td.LeastSquares((np.arange(10.0).reshape(5, 2), np.ones(5)), td.Iid(2), weights="rows")
    result = td.run(td.DAGD(1e-3), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(20))
    x, xs = np.zeros(2), [np.zeros(2)]
    for row in result.trace.table:
        x = x - 1e-3 * problem.scale(row["client"]) * problem.gradient(row["client"], xs[row["version_read"]])
        xs.append(x)
    assert problem.scale(0) != problem.scale(1)
    np.testing.assert_allclose(result.x, x, rtol=1e-12)


def test_exact_gradients_are_weighted():
    problem = make_weighted()
    result = td.run(td.DAGD(0.05), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(40))
    exact = make_weighted(batch=None)
    same = td.run(td.DASGD(0.05), exact, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(40))
    assert result.x.tobytes() == same.x.tobytes()


@pytest.mark.parametrize("make", [td.DASGD, td.ProjectedSGD])
@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
@pytest.mark.parametrize("step", [0.05, td.LogStep([2.0, 5.0], 20.0)], ids=["one", "sweep"])
def test_without_a_constraint_it_is_asynchronous_sgd_bit_for_bit(make, next_client, step):
    problem = make_problem()
    runs = [
        td.run(rule, problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(50))
        for rule in (make(step, next_client=next_client), td.AsyncSGD(step, next_client=next_client))
    ]
    assert runs[0].x.tobytes() == runs[1].x.tobytes()
    assert runs[0].trace.table.tobytes() == runs[1].trace.table.tobytes()


@pytest.mark.parametrize("make", [td.DASGD, td.ProjectedSGD])
@pytest.mark.parametrize("constraint", [None, td.WholeSpace(), td.Ball(1e3)], ids=repr)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("replicas", [None, 2])
def test_large_iterates_are_updated_in_place_and_alike(make, constraint, dtype, replicas):
    dim = 2 * LARGE
    problem = Quadratic(np.linspace(-1, 1, dim), noise=0.1, n_clients=2, dtype=dtype)
    step = td.PowerStep(0.5, 0.75, 2.0)
    runs = [
        td.run(rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(12), replicas=replicas)
        for rule in (make(step, constraint), td.AsyncSGD(step))
    ]
    assert runs[0].x.dtype == dtype
    assert not runs[0].state.fresh
    assert runs[0].x.tobytes() == runs[1].x.tobytes()


def test_large_iterates_under_an_active_constraint():
    dim = LARGE
    problem = Quadratic(np.full(dim, 3.0), noise=0.1)
    for rule, lazy in ((td.DASGD(0.3, td.Box(0.0, 1.0), average=True), True), (td.ProjectedSGD(0.3, td.Box(0.0, 1.0)), False)):
        result = td.run(rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(8), concurrency=3)
        xs, _ = written_out(result, lambda y: np.clip(y, 0.0, 1.0), lazy=lazy)
        assert result.x.tobytes() == xs[-1].tobytes()
        if rule.average:
            np.testing.assert_allclose(result.state.average, np.mean(xs[1:], axis=0), rtol=1e-12)


@pytest.mark.parametrize("delay", [0, 1, 5])
def test_delayed_descent_of_a_quadratic_follows_its_recursion(delay):
    """x[n+1] = x[n] - a[n+1] x[max(0, n - delay)]: an analytic recursion, with the offset as documented."""
    result = td.run(td.DAGD(td.LogStep(3.0, 4.0)), Quadratic([0.0]), td.Prescribed(delay), stop=td.MaxUpdates(50), x0=[1.0])
    xs = [1.0]
    for n in range(50):
        m = n + 4.0
        xs.append(xs[-1] - 3.0 / (m * np.log(m)) * xs[max(0, n - delay)])
    np.testing.assert_allclose(result.x, xs[-1:], rtol=1e-12)


def test_lazy_and_greedy_part_where_the_minimiser_is_outside_and_the_start_far_away():
    """The dual variable has to walk back all the way; the greedy one forgets it at once."""
    problem = Quadratic([2.0, 0.0])
    solution = np.array([1.0, 0.0])
    errors = []
    for make in (td.DASGD, td.ProjectedSGD):
        rule = make(td.PowerStep(1.0, 1.0, 2.0), td.Ball(1.0))
        result = td.run(rule, problem, td.Prescribed(2), stop=td.MaxUpdates(2000), x0=[-100.0, 3.0])
        errors.append(np.linalg.norm(result.x - solution))
    assert errors[0] > 1.9
    assert errors[1] < 1e-6


def test_lazy_and_greedy_agree_where_the_constraint_is_not_active():
    runs = [
        td.run(make(0.1, td.Box(-5.0, 5.0)), make_problem(), td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(60))
        for make in (td.DASGD, td.ProjectedSGD)
    ]
    assert runs[0].x.tobytes() == runs[1].x.tobytes()


@pytest.mark.parametrize("make", [td.DASGD, td.DAGD, td.ProjectedSGD])
@pytest.mark.parametrize("step", [0.1, td.LogStep(5.0, 20.0), td.LogStep([2.0, 5.0], 20.0)], ids=["constant", "log", "sweep"])
def test_the_ergodic_average_is_5_2(make, step):
    problem = make_problem()
    rule = make(step, td.Ball(0.4), average=True)
    result = td.run(rule, problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(80), snapshot_every=1)
    a = np.array([step(n) if callable(step) else step for n in range(80)])  # a[n] belongs to x[n + 1]
    a = a.reshape(80, *(a.shape[1:] or ()), 1)
    expected = (a * result.history.x[1:]).sum(axis=0) / a.sum(axis=0)
    np.testing.assert_allclose(result.state.average, expected, rtol=1e-12)
    np.testing.assert_allclose(result.state.weight, a.sum(axis=0)[..., 0], rtol=1e-13)


def test_the_average_is_kept_only_where_it_is_asked_for():
    result = td.run(td.DASGD(0.1), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(5))
    assert result.state.average is None


@pytest.mark.parametrize("make", [td.DASGD, td.ProjectedSGD])
def test_a_start_outside_is_projected_and_workers_never_see_it(make):
    seen = []

    class Sees(Quadratic):
        def gradient(self, client, x, sample=None):
            seen.append(x.copy())
            return super().gradient(client, x, sample)

    result = td.run(
        make(0.1, td.Ball(1.0)), Sees([0.0, 0.0]), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(30), x0=[30.0, 40.0]
    )
    assert np.allclose(seen[0], [0.6, 0.8])
    assert max(np.linalg.norm(x) for x in seen) <= 1 + 1e-12
    assert result.x0.tolist() == [30.0, 40.0]
    if make is td.DASGD:
        assert np.allclose(result.state.y, np.array([30.0, 40.0]) - 0.1 * sum(seen))


def test_an_average_of_no_updates_is_the_start():
    rule = td.DASGD(0.1, td.Ball(1.0), average=True)
    state, _ = rule.configure(Quadratic([0.0]), 1, None).start(np.array([3.0]), 1, np.random.default_rng(0))
    assert state.average.tolist() == [1.0]
    assert state.weight == 0.0


def test_replicas_have_their_own_noise_and_may_read_versions_of_their_own():
    problem = td.Rosenbrock(dim=3)
    rule = td.DASGD(td.LogStep(0.01, 10.0), problem.constraint, average=True)
    engine = td.Prescribed(td.UniformDelay([0.1, 0.5, 0.5]))
    result = td.run(rule, problem, engine, stop=td.MaxUpdates(200), replicas=3)
    assert len({row.tobytes() for row in result.x}) == 3
    assert result.state.average.shape == (3, 3)


def test_a_replica_that_diverges_is_masked():
    step = np.array([0.1, 1e200])
    result = td.run(td.DASGD(step), Quadratic([1.0, 1.0]), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(50))
    assert result.diverged.tolist() == [False, True]
    assert np.isfinite(result.x).all()


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("make", [td.DASGD, td.ProjectedSGD])
def test_noise_and_delays_that_grow_linearly_do_not_keep_it_from_the_solution(make, inside):
    centre = np.array([0.3, -0.2, 0.1]) * (1 if inside else 10)
    solution = project_ball(centre, 1.0)
    rule = make(td.LogStep(30.0, 100.0), td.Ball(1.0))
    engine = td.Prescribed(td.UniformDelay(0.3))
    result = td.run(rule, Quadratic(centre, noise=0.5), engine, stop=td.MaxUpdates(20_000))
    assert np.linalg.norm(result.x - solution) < 0.02


def test_a_run_is_saved_with_its_constraint_and_replays(tmp_path):
    rule = td.DASGD(td.LogLogStep(5.0, 20.0), td.Box(np.full(5, -0.02), 0.03), average=True)
    result = td.run(rule, make_problem(), td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(60))
    result.save(tmp_path / "run")
    loaded = td.Result.load(tmp_path / "run")
    assert loaded.rule.constraint == rule.constraint
    assert loaded.state.average.tobytes() == result.state.average.tobytes()
    assert td.replay(tmp_path / "run").identical


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: td.DASGD(-1.0), "step must be a positive number"),
        (lambda: td.DASGD(0.1, average=1), "average must be True or False, not 1"),
        (lambda: td.DASGD(0.1, constraint=lambda x: x), "constraint must be a ConvexSet such as Ball"),
        (lambda: td.DASGD(0.1, constraint=td.Ball), "constraint must be a ConvexSet such as Ball"),
        (lambda: td.DAGD(0.1, next_client="slowest"), "next_client must be one of answered"),
        (lambda: td.ProjectedSGD(0.1, concurrency=0), "concurrency must be an integer >= 1"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(td.InvalidInputError, match=message):
        make()


def test_a_constraint_of_another_dimension():
    with pytest.raises(td.InvalidInputError, match="3"):
        td.run(td.DASGD(0.1, td.Box(np.zeros(3), 1.0)), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(1))


def test_a_gradient_of_wrong_shape():
    class Wrong(Quadratic):
        def gradient(self, client, x, sample=None):
            return np.zeros(3)

    with pytest.raises(td.InvalidInputError, match=r"a gradient has shape \(3,\), the iterates \(2,\)"):
        td.run(td.DASGD(0.1), Wrong([0.0, 0.0]), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(1))
