"""Sketch-and-project rules: limiting cases in every bit, and the moments that theory gives them."""

import numpy as np
import pytest

import tardigrad as td
from row_system import accelerated_moments, random_system
from tardigrad.core.compiled import mix_in
from tardigrad.core.plain import same_bits
from tardigrad.core.streams import Domain, Stream
from tardigrad.rules.gradient_descent import SMALL
from tardigrad.testing import AnyOrder, check_rule
from tardigrad.theory.accelerated import accelerated_parameters

ONE_WORKER = td.Simulated(td.Exponential(1.0))


def run(rule, problem, n, engine=None, **kwargs):
    return td.run(rule, problem, engine or td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(n), **kwargs)


class Wide(td.Problem):
    """f_S(x) = |S x|^2 / 2, S a random half of the entries; as large as needed."""

    shared_data = True

    def __init__(self, dim=SMALL // 8 + 1, n_clients=1, dtype=np.float64):
        self.dim, self.n_clients, self.dtype = dim, n_clients, np.dtype(dtype)

    def fields(self):
        return {"dim": self.dim, "n_clients": self.n_clients, "dtype": self.dtype.str}

    def x0(self):
        return np.linspace(-1.0, 1.0, self.dim).astype(self.dtype)

    def sample(self, client, rng):
        return int(rng.integers(2))

    def gradient(self, client, x, sample=None):
        g = np.zeros_like(x)
        g[..., sample::2] = x[..., sample::2]
        return g


def system(**kwargs):
    return random_system(**kwargs)[0]


PROBLEMS = {
    "small": lambda n=1: system(n_clients=n),
    "B": lambda n=1: system(n_clients=n, B="dense"),
    "float32": lambda n=1: system(n_clients=n, dtype=np.float32),
    "large": lambda n=1: Wide(n_clients=n),
    "large, float32": lambda n=1: Wide(SMALL // 4 + 1, n, np.float32),
}
on_every_problem = pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)


def step_of(problem, task, x, omega, seed=0):
    """phi(x, S) with the sample of a task."""
    omega = problem.dtype.type(omega)
    return x - omega * problem.gradient(0, x, problem.sample(0, Stream(seed, Domain.TASK).at(task)))


def basic(problem, omega, n):
    x = problem.x0()
    for k in range(n):
        x = step_of(problem, k, x, omega)
    return x


# limiting cases, in every bit


@on_every_problem
@pytest.mark.parametrize(
    "rule",
    [
        td.SketchProject(0.7),
        td.ParallelSketchProject(0.7, tau=1),
        td.AcceleratedSketchProject(0.7, gamma=1.0),
        td.AveragedSketchProject(0.7, theta=1.0),
    ],
    ids=["basic", "parallel, tau 1", "accelerated, gamma 1", "averaged, theta 1"],
)
def test_without_delay_and_damping_all_are_the_basic_method(rule, make):
    problem = make()
    expected = basic(problem, 0.7, 30)
    assert run(rule, problem, 30, ONE_WORKER).x.tobytes() == expected.tobytes()
    if not rule.unsuited:
        assert run(rule, problem, 30, td.Prescribed(0)).x.tobytes() == expected.tobytes()


SKETCHES = [td.Rows("shuffled"), td.Rows("norms"), td.RowBlocks(3), td.GaussianSketch(3), td.CountSketch(3)]


def linear_system(sketch, n_clients=1):
    rng = np.random.default_rng(7)
    A, solution = rng.normal(size=(20, 5)), rng.normal(size=5)
    return td.LinearSystem(A, A @ solution, rng.uniform(0.5, 2, 5), sketch=sketch, n_clients=n_clients, solution=solution)


@pytest.mark.parametrize("sketch", SKETCHES, ids=repr)
def test_every_sketch_of_a_linear_system_is_stepped_with_by_every_rule(sketch):
    problem = linear_system(sketch)
    expected = basic(problem, 0.9, 25)
    rules = (td.SketchProject(0.9), td.ParallelSketchProject(0.9, 1), td.AcceleratedSketchProject(0.9, 1.0))
    assert all(run(rule, problem, 25).x.tobytes() == expected.tobytes() for rule in rules)
    assert run(td.AveragedSketchProject(0.9, 1.0), problem, 25, td.Prescribed(0)).x.tobytes() == expected.tobytes()
    shared = linear_system(sketch, n_clients=3)
    for rule in (td.AveragedSketchProject(1.2, 0.5), td.ParallelSketchProject(1.2, 3), td.AcceleratedSketchProject(0.5, 1.1)):
        result = run(rule, shared, 1200, td.Threads(2))
        assert shared.measures(result.x)["error"] < 1e-6
        assert td.replay(result).identical


@on_every_problem
def test_parallel_is_the_written_loop_whatever_the_order_of_replies(make):
    problem, tau = make(4), 3
    x = problem.x0()
    for k in range(12):
        steps = [step_of(problem, k * tau + i, x, 1.3) for i in range(tau)]
        x = (steps[0] + steps[1] + steps[2]) / problem.dtype.type(tau)
    rule = td.ParallelSketchProject(1.3, tau)
    for engine in (td.Simulated(td.Constant(1.0)), td.Simulated(td.PerClient([9.0, 1.0, 5.0, 2.0])), AnyOrder(3)):
        assert run(rule, problem, 12, engine).x.tobytes() == x.tobytes()


@on_every_problem
@pytest.mark.parametrize("delay", [0, 1, 4])
def test_averaged_with_a_prescribed_delay_is_the_written_loop(make, delay):
    problem = make()
    theta, rest = problem.dtype.type(0.4), problem.dtype.type(1.0 - 0.4)
    points = [problem.x0()]
    for k in range(30):
        y = step_of(problem, k, points[max(k - delay, 0)], 1.3)
        points.append(rest * points[-1] + theta * y)
    rule = td.AveragedSketchProject(1.3, 0.4)
    assert run(rule, problem, 30, td.Prescribed(td.ConstantDelay(delay))).x.tobytes() == points[-1].tobytes()


@on_every_problem
def test_accelerated_is_the_written_loop(make):
    problem = make()
    gamma, rest = problem.dtype.type(1.4), problem.dtype.type(1.0 - 1.4)
    x = earlier = step_of(problem, 0, problem.x0(), 0.8)
    for k in range(1, 30):
        z = step_of(problem, k, x, 0.8)
        x, earlier = rest * earlier + gamma * z, z
    assert run(td.AcceleratedSketchProject(0.8, 1.4), problem, 30).x.tobytes() == x.tobytes()


def test_theta_zero_stays_where_it_starts():
    problem = system()
    x0 = np.arange(4.0)
    assert (run(td.AveragedSketchProject(1.0, 0.0), problem, 20, x0=x0).x == x0).all()


@pytest.mark.parametrize("tau", [1, 2, 5])
def test_workers_in_turn_see_delay_tau_minus_one(tau):
    rule, problem = td.AveragedSketchProject(1.2, 0.5), system(n_clients=tau)
    result = run(rule, problem, 60, td.Simulated(td.Constant(1.0)), seed=4)
    staleness = result.trace.staleness
    assert staleness.tolist() == [min(t, tau - 1) for t in range(60)]
    prescribed = run(rule, system(), 60, td.Prescribed(tau - 1), seed=4)
    assert result.x.tobytes() == prescribed.x.tobytes()


RULES = {
    "basic": lambda: td.SketchProject([0.5, 1.0]),
    "parallel": lambda: td.ParallelSketchProject([0.5, 1.0], tau=3),
    "accelerated": lambda: td.AcceleratedSketchProject([0.5, 1.0], [1.1, 1.3]),
    "averaged": lambda: td.AveragedSketchProject([0.5, 1.0], [0.4, 1.0]),
}
SINGLE = {
    "basic": lambda i: td.SketchProject([0.5, 1.0][i]),
    "parallel": lambda i: td.ParallelSketchProject([0.5, 1.0][i], tau=3),
    "accelerated": lambda i: td.AcceleratedSketchProject([0.5, 1.0][i], [1.1, 1.3][i]),
    "averaged": lambda i: td.AveragedSketchProject([0.5, 1.0][i], [0.4, 1.0][i]),
}


@pytest.mark.parametrize("make", [lambda: system(n_clients=3), lambda: Wide(n_clients=3), lambda: Wide(20, 3, np.float32)])
@pytest.mark.parametrize("name", RULES)
def test_each_entry_of_a_sweep_is_its_single_run(name, make):
    problem = make()
    sweep = run(RULES[name](), problem, 25)
    assert sweep.x.shape == (2, problem.dim)
    assert sweep.x.dtype == problem.dtype
    for i in range(2):
        single = run(SINGLE[name](i), problem, 25)
        np.testing.assert_allclose(sweep.x[i], single.x, rtol=1e-4 if problem.dtype == np.float32 else 1e-11)


def test_arrays_of_both_parameters_broadcast():
    rule = td.AveragedSketchProject(np.array([[0.5], [1.0], [1.5]]), [0.3, 0.6])
    assert rule.batch_shape == (3, 2)
    x = run(rule, system(n_clients=3), 40).x
    single = run(td.AveragedSketchProject(1.5, 0.3), system(n_clients=3), 40).x
    np.testing.assert_allclose(x[2, 0], single, rtol=1e-11)


@pytest.mark.parametrize("name", RULES)
def test_a_sweep_over_float32_sends_float32(name):
    problem, rule = Wide(20, dtype=np.float32), RULES[name]()
    points = (np.ones((2, 20), np.float32),)
    payload = rule.work(problem, td.Task(0, 0), points, np.random.default_rng(0), None)
    assert payload.dtype == np.float32


@pytest.mark.parametrize("dim", [20, SMALL])
def test_gradients_of_another_precision_are_mixed_in_that_of_the_iterates(dim):
    class Mixed(Wide):
        def gradient(self, client, x, sample=None):
            return super().gradient(client, x, sample).astype(np.float64)

    mixed, single = (run(td.AveragedSketchProject(0.6, 0.3), make(dim, dtype=np.float32), 20).x for make in (Mixed, Wide))
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, single, rtol=1e-4)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("make", [lambda: system(n_clients=3), lambda: Wide(n_clients=3)], ids=["small", "large"])
def test_rules_keep_their_contract_on_systems(name, make):
    check_rule(SINGLE[name](1), make(), n_replies=30)
    check_rule(RULES[name](), make(), n_replies=30)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("points", ["snapshot", "live"])
def test_large_iterates_on_processes(name, points):
    result = run(SINGLE[name](0), Wide(n_clients=2), 12, td.Processes(2, points=points), snapshot_every=4)
    assert points == "live" or td.replay(result).identical
    if name != "averaged":
        assert same_bits(result.state, run(SINGLE[name](0), Wide(n_clients=2), 12).state)


@pytest.mark.parametrize(
    "rule", [td.SketchProject(1.0), td.ParallelSketchProject(1.0, 2), td.AcceleratedSketchProject(1.0, 1.1)]
)
def test_methods_that_wait_refuse_prescribed_delays(rule):
    with pytest.raises(td.InvalidInputError, match="Prescribed"):
        run(rule, system(), 5, td.Prescribed(1))


def test_weights_of_clients_scale_their_steps():
    problem = td.LeastSquares((np.eye(3), np.ones(3)), td.Given([0, 1, 1]), weights="rows")
    x = problem.x0()
    for k in range(6):
        x = x - 0.5 * (problem.gradient(k % 2, x) * problem.scale(k % 2))
    assert run(td.SketchProject(0.5), problem, 6).x.tobytes() == x.tobytes()


# expected error and mean square error


def window(exact, versions):
    """Values of a recurrence over versions: exact(values, t, read) gives value t + 1."""
    values = [1.0]
    for t, read in enumerate(versions):
        values.append(exact(values, t, read))
    return np.array(values)


@pytest.mark.parametrize("B", [None, "dense"])
def test_expected_error_of_averaged_follows_theorem_2(B):
    problem, solution = random_system(B=B)
    omega, theta, delay, n, replicas = 1.3, 0.5, 3, 24, 4000
    result = run(
        td.AveragedSketchProject(omega, theta), problem, n, td.Prescribed(delay), replicas=replicas, snapshot_every=1, seed=1
    )
    values, U = np.linalg.eigh(problem.W)
    P = (result.history.x - solution) @ problem.root_B() @ U  # (versions, replicas, dim)
    start = P[0, 0]
    for i, lam in enumerate(values):
        q = window(lambda p, t, s, lam=lam: (1 - theta) * p[t] + theta * (1 - omega * lam) * p[s], _reads(delay, n))
        deviation = np.abs(P[:, :, i].mean(axis=1) - q * start[i])
        error = P[:, :, i].std(axis=1) / np.sqrt(replicas)
        assert (deviation <= 4.5 * error + 1e-12).all()


def _reads(delay, n):
    return [max(t - delay, 0) for t in range(n)]


@pytest.mark.parametrize("delay", [0, 2, 5])
@pytest.mark.parametrize(("omega", "theta"), [(1.0, 0.5), (1.6, 0.3), (0.7, 1.0)])
def test_mean_square_error_of_averaged_stays_under_theorem_5(delay, omega, theta):
    problem, solution = random_system(m=8, n=4, B="diagonal")
    n, replicas = 40, 3000
    slowest = np.linalg.solve(problem.root_B(), np.linalg.eigh(problem.W)[1][:, 0])
    rule, engine = td.AveragedSketchProject(omega, theta), td.Prescribed(delay)
    result = run(rule, problem, n, engine, x0=solution + slowest, replicas=replicas, snapshot_every=1, seed=2)
    squares = ((result.history.x - solution) @ problem.root_B()) ** 2
    squares = squares.sum(axis=-1)
    mean, error = squares.mean(axis=1) / squares[0, 0], squares.std(axis=1) / np.sqrt(replicas) / squares[0, 0]
    lams = np.linalg.eigvalsh(problem.W)
    alpha = np.abs(1 - omega * lams).max()
    K1 = (1 - theta) * (1 - theta + theta * alpha)
    K2 = theta * (theta * (1 - omega * (2 - omega) * lams.min()) + (1 - theta) * alpha)
    bound = window(lambda q, t, s: K1 * q[t] + K2 * q[s], _reads(delay, n))
    assert (mean <= bound + 3 * error + 1e-12).all()
    assert mean[-1] > bound[-1] ** 2  # and from the slowest direction it is not much too large


def test_parallel_mean_square_error_stays_under_theorem_1():
    problem, solution = random_system(m=8, n=4)
    tau, n, replicas = 4, 25, 3000
    lams = np.linalg.eigvalsh(problem.W)
    xi = 1 / tau + (1 - 1 / tau) * lams.max()
    result = run(td.ParallelSketchProject(1 / xi, tau), problem, n, replicas=replicas, snapshot_every=1)
    squares = ((result.history.x - solution) ** 2).sum(axis=-1)
    mean, error = squares.mean(axis=1) / squares[0, 0], squares.std(axis=1) / np.sqrt(replicas) / squares[0, 0]
    assert (mean <= (1 - lams.min() / xi) ** np.arange(n + 1) + 3 * error + 1e-12).all()


def weak_curve(omega, gamma, lam, n):
    s = 1 - omega * lam
    p = [1.0, s]
    for _ in range(n - 1):
        p.append(gamma * s * p[-1] + (1 - gamma) * s * p[-2])
    return np.array(p)


@pytest.mark.parametrize(("omega", "gamma"), [(0.5, 1.6), (1.0, 1.3), (0.3, 0.8)])
def test_accelerated_mean_square_error_is_that_of_its_operator(omega, gamma):
    problem, solution = random_system(B="diagonal")
    n, replicas = 30, 4000
    result = run(td.AcceleratedSketchProject(omega, gamma), problem, n, replicas=replicas, snapshot_every=1, seed=6)
    errors = (result.history.x - solution) @ problem.root_B()
    squares = (errors**2).sum(axis=-1) / (errors[0, 0] ** 2).sum()
    exact = accelerated_moments(problem, omega, gamma, errors[0, 0], n)
    assert (np.abs(squares.mean(axis=1) - exact) <= 4.5 * squares.std(axis=1) / np.sqrt(replicas) + 1e-12).all()


def test_accelerated_with_the_best_weak_rate_diverges_in_mean_square_for_single_rows():
    """And converges with a smaller omega, in the example faster than the basic method with its best one."""
    for seed in range(5):
        problem, _ = random_system(m=8, n=6, seed=seed)
        lams = np.linalg.eigvalsh(problem.W)
        best = accelerated_parameters(lams[0], lams[-1])
        assert accelerated_moments(problem, best.omega, best.gamma, np.ones(6), 60)[-1] > 1e6
    basic = min(rate_of(accelerated_moments(problem, omega, 1.0, np.ones(6), 800)) for omega in (1.0, 1.2, 1.4, 1.6))
    smaller = [accelerated_parameters(lams[0], lams[-1], omega) for omega in (0.03, 0.08, 0.2)]
    rates = [rate_of(accelerated_moments(problem, each.omega, each.gamma, np.ones(6), 800)) for each in smaller]
    assert 1.05 < np.log(min(rates)) / np.log(basic) < 3


def rate_of(curve):
    return float((curve[-1] / curve[len(curve) // 2]) ** (1 / (len(curve) - 1 - len(curve) // 2)))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_accelerated_weak_rate_has_a_double_root(share):
    """|E[x_k - x*]| <= (1 + c k) (1 - q)^k for every eigenvalue, and for the smallest no faster."""
    lams = np.array([0.002, 0.01, 0.1, 0.3])
    found = accelerated_parameters(lams.min(), lams.max(), omega=share / lams.max())
    omega, gamma, q = found.omega, found.gamma, 1 - found.rate
    k = np.arange(401)
    for lam in lams:
        roots = np.roots([1.0, -gamma * (1 - omega * lam), -(1 - gamma) * (1 - omega * lam)])
        assert np.abs(roots).max() <= (1 - q) * (1 + 1e-6)
        assert (np.abs(weak_curve(omega, gamma, lam, 400)) <= (1 + k) * (1 - q) ** k * (1 + 1e-6)).all()
    slow = weak_curve(omega, gamma, lams.min(), 400)
    assert slow[400] >= (1 - q) ** 400
    assert slow[400] < (1 - omega * lams.min()) ** 400 / 10  # the basic method's


@pytest.mark.parametrize(("omega", "gamma"), [(1.0, 1.5), (0.8, 1.2), (1.0, 0.7)])
def test_accelerated_expected_error_follows_the_weak_recurrence(omega, gamma):
    problem, solution = random_system(B="dense")
    n, replicas = 15, 20000
    result = run(td.AcceleratedSketchProject(omega, gamma), problem, n, replicas=replicas, snapshot_every=1, seed=3)
    values, U = np.linalg.eigh(problem.W)
    P = (result.history.x - solution) @ problem.root_B() @ U
    for i, lam in enumerate(values):
        expected = weak_curve(omega, gamma, lam, n) * P[0, 0, i]
        error = P[:, :, i].std(axis=1) / np.sqrt(replicas)
        assert (np.abs(P[:, :, i].mean(axis=1) - expected) <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("B", [None, "diagonal", "dense"])
@pytest.mark.parametrize("name", RULES)
def test_iterates_stay_in_x0_plus_the_image_of_the_rows(name, B):
    """Lemma 4, for a system of rank 3 in 6 unknowns: so the limit is the projection of x0 in the B-norm."""
    problem, _ = random_system(m=15, n=6, rank=3, B=B, n_clients=2)
    x0 = np.random.default_rng(5).normal(size=6)
    result = run(SINGLE[name](1), problem, 1500, x0=x0, snapshot_every=10)
    moves = result.history.x - x0
    basis = np.linalg.svd(problem.directions, full_matrices=False)[2][:3]
    np.testing.assert_allclose(moves @ basis.T @ basis, moves, atol=1e-9)
    assert np.linalg.norm(moves[-1]) > 0.1
    G = problem.directions.T  # B^-1 A'
    projected = x0 - G @ np.linalg.lstsq(problem.A @ G, problem.A @ x0 - problem.b, rcond=None)[0]
    np.testing.assert_allclose(result.x, projected, atol=1e-6)


# what is refused


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: td.SketchProject(0.0), "omega"),
        (lambda: td.SketchProject(-1.0), "omega"),
        (lambda: td.SketchProject(np.nan), "omega"),
        (lambda: td.SketchProject("theory"), "omega"),
        (lambda: td.SketchProject(True), "omega"),
        (lambda: td.SketchProject(td.PowerStep(1.0)), "omega"),
        (lambda: td.ParallelSketchProject([1.0, 0.0], 2), "omega"),
        (lambda: td.ParallelSketchProject(1.0, 0), "tau"),
        (lambda: td.ParallelSketchProject(1.0, 2.5), "tau"),
        (lambda: td.AcceleratedSketchProject(1.0, 2.0), "gamma"),
        (lambda: td.AcceleratedSketchProject(1.0, 0.0), "gamma"),
        (lambda: td.AveragedSketchProject(1.0, 1.5), "theta"),
        (lambda: td.AveragedSketchProject(1.0, -0.1), "theta"),
        (lambda: td.AveragedSketchProject(1.0, [0.1, np.nan]), "theta"),
        (lambda: td.AveragedSketchProject(1.0, []), "theta"),
        (lambda: td.AveragedSketchProject(1.0, "auto"), "theta"),
        (lambda: td.AveragedSketchProject(1.0, 0.5, concurrency=0), "concurrency"),
        (lambda: td.AveragedSketchProject([1.0, 2.0], [0.1, 0.2, 0.3]), r"omega \(2,\) and theta \(3,\)"),
        (lambda: td.AcceleratedSketchProject([1.0, 2.0], [1.1, 1.2, 1.3]), r"omega \(2,\) and gamma \(3,\)"),
    ],
)
def test_parameters_out_of_range_are_named(make, name):
    with pytest.raises(td.InvalidInputError, match=name):
        make()


def test_averaged_needs_a_task_for_each_client_with_data_of_its_own():
    problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    with pytest.raises(td.InvalidInputError, match="2 of the 4 clients would never be asked"):
        run(td.AveragedSketchProject(1.0, 0.5), problem, 5, concurrency=2)
    assert run(td.AveragedSketchProject(0.5, 0.5), problem, 5).trace.summary().in_flight_max == 4


def test_nothing_is_compiled_while_a_run_goes_on(monkeypatch):
    compiled = []
    monkeypatch.setattr("tardigrad.rules.gradient_descent.warm_up", lambda dtype, loop: compiled.append((dtype, loop)))
    for rule in (td.AveragedSketchProject(1.0, 0.5), td.AcceleratedSketchProject(1.0, 1.1)):
        for dim in (5, SMALL):
            rule.configure(Wide(dim), 1, None)
    assert compiled == 2 * [(np.dtype(float), mix_in)]


def test_averaged_asks_again_who_answered():
    problem = system(n_clients=3)
    trace = run(td.AveragedSketchProject(1.0, 0.5), problem, 60, td.Simulated(td.PerClient([1.0, 2.5, 7.0]))).trace
    clients = dict(zip(trace["task"].tolist(), trace["client"].tolist(), strict=True))
    for update, answered in enumerate(trace["client"][:50].tolist()):
        assert clients.get(update + 3, answered) == answered  # the task issued in answer to it
    assert np.bincount(trace["client"]).tolist() == sorted(np.bincount(trace["client"]).tolist(), reverse=True)


def test_defaults_fill_the_workers():
    shared, own = system(n_clients=4), td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    averaged = td.AveragedSketchProject(1.0, 0.5)
    assert [averaged.default_concurrency(problem, 2) for problem in (shared, own)] == [2, 4]
    assert td.AveragedSketchProject(1.0, 0.5, concurrency=7).default_concurrency(shared, 2) == 7
    assert td.ParallelSketchProject(1.0, 3).default_concurrency(shared, 2) == 3
    assert td.SketchProject().default_concurrency(shared, 2) == 1
    assert run(td.ParallelSketchProject(1.0, 3), shared, 5).trace["client"].tolist()[:6] == [0, 1, 2, 3, 0, 1]


def test_a_gradient_of_another_shape_is_refused():
    class Wrong(Wide):
        def gradient(self, client, x, sample=None):
            return np.zeros((2, *x.shape))

    for dim in (3, SMALL):
        for rule in (td.SketchProject(), td.ParallelSketchProject(1.0, 2), td.AveragedSketchProject(1.0, 0.5)):
            with pytest.raises(td.InvalidInputError, match="shape"):
                run(rule, Wrong(dim), 5)
