"""What is recomputed of the AsyncBC paper, in small: against recursions written out, and what is reported."""

import json

import numpy as np
import pytest

import tardigrad as td
from needs import needs_data
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Task
from tardigrad.datasets import load
from tardigrad.papers import PAPERS, async_bc, async_bc_images, async_bc_noise, async_bc_rates
from tardigrad.papers.async_bc import GRID, STARTS, Method, course, figure1, hopeful, quadratics, simulate

STEPS = np.array([0.002, 0.01])


def as_recursion(kind, zeta, start, seed, steps, n_updates):
    """The updates written out, on clients and versions that the trace of a run says were read."""
    problem, x0 = quadratics(zeta, start, seed)
    rule = {"AsyncBC": td.AsyncBC, "Async-GD": lambda step: td.AsyncSGD(step, "uniform")}[kind](steps)
    engine = td.Simulated(td.PerClient([2.5, 5.0, 7.5, 10.0]))
    result = td.run(rule, problem, engine, stop=td.MaxUpdates(n_updates), x0=np.tile(x0, (len(steps), 1)), seed=seed)
    clients, read = result.trace["client"], result.trace["version_read"]
    a = np.arange(1, 5) ** 2 / 4
    c = problem.centres
    step = steps[:, None]
    xs = [np.tile(x0, (len(steps), 1))]
    if kind == "Async-GD":
        for client, version in zip(clients, read, strict=True):
            xs.append(xs[-1] - step * a[client] * (xs[version] - c[client]))
        return problem, np.array(xs)
    m = sum(a[i] * (xs[0] - c[i]) for i in range(4)) / 4
    xs.append(xs[0] - step * m)
    for client, version in zip(clients[4:], read[4:], strict=True):
        m = m + a[client] * (xs[version] - xs[version - 1]) * (0.25 if version == 1 else 1.0)
        xs.append(xs[-1] - step * m)
    return problem, np.array(xs)


@pytest.mark.parametrize("kind", ["AsyncBC", "Async-GD"])
@pytest.mark.parametrize("start", STARTS)
def test_curves_are_the_methods(kind, start):
    problem, xs = as_recursion(kind, 3.0, start, 2, STEPS, 300)
    rule = next(method for method in async_bc.METHODS if method.name == kind).rule(STEPS)
    found = simulate(rule, problem, xs[0], 300, 2)
    expected = ((xs - problem.minimiser) ** 2).sum(axis=-1) * 1.875**2
    assert found.squared_norms.shape == (301, 2)
    np.testing.assert_allclose(found.squared_norms, expected, rtol=1e-9)
    assert found.replies[0] == 0
    assert (np.diff(found.replies[1:]) == 1).all()


def test_summaries_are_those_of_the_curves(monkeypatch):
    monkeypatch.setattr(async_bc, "hopeful", lambda *args: STEPS)
    found = course(Method("Async-GD", lambda step: td.AsyncSGD(step, "uniform"), {1.0: 1200}), 1.0, STARTS[0], seeds=3)
    for seed in range(3):
        problem, xs = as_recursion("Async-GD", 1.0, STARTS[0], seed, STEPS, 1200)
        norms = ((xs - problem.minimiser) ** 2).sum(axis=-1) * 1.875**2
        for k in range(2):
            first = next((t for t in range(19, 1201) if norms[t - 19 : t + 1, k].mean() <= 0.01), np.inf)
            assert found.reached[seed, k] == first
            assert found.last[seed, k] == pytest.approx(norms[-1, k], rel=1e-9)
            assert found.curves[seed, -1, k] == pytest.approx(norms[-20:, k].mean(), rel=1e-9)
    assert np.isfinite(found.reached).any()


def test_the_best_step():
    def one(reached, last):
        reached = np.array(reached, float)
        return async_bc.Course(np.arange(reached.shape[1]), reached, np.arange(2), np.zeros((1, 2, 1)), reached, np.array(last))

    inf = np.inf
    assert one([[5, 3, 9], [5, 4, 1], [5, 30, inf]], [[1, 1, 1]] * 3).best() == 1
    assert one([[inf, inf], [inf, 7], [inf, inf]], [[0.1, 2]] * 3).best() == 1
    assert one([[inf, inf]], [[0.2, 0.1]]).best() == 1


def test_steps_that_cannot_be_in_time_are_left_out():
    assert GRID[[0, 1, -2, -1]].tolist() == [1e-10, 5e-10, 5e-2, 1e-1]
    assert len(GRID) == 19
    first = 1.875**2 * 10
    for updates in (400, 25_000):
        kept = hopeful(updates, first)
        for step in GRID:
            arrives = first * (1 - step * 1.875) ** (2 * updates) <= 0.01
            assert (step in kept) or not arrives


def test_the_trajectory_does_not_depend_on_zeta():
    norms = []
    for zeta in (0.0, 1.0, 10.0, 1000.0):
        problem, x0 = quadratics(zeta, STARTS[0], 0)
        norms.append(np.sqrt(simulate(td.AsyncBC(STEPS), problem, np.tile(x0, (2, 1)), 10_000, 0).squared_norms))
    for other in norms[1:]:
        assert np.abs(other - norms[0]).max() <= 1e-9 * norms[0][0, 0]


def test_asking_whoever_answered_ends_elsewhere():
    problem, x0 = quadratics(7.0, STARTS[0], 0)
    norms = simulate(td.AsyncBC(1e-3, "answered"), problem, x0, 8000, 0).squared_norms
    assert np.sqrt(norms[-1] / norms[0]) == pytest.approx(0.5625, abs=0.005)


@pytest.fixture(scope="module")
def small():
    updates = dict.fromkeys((0.0, 10.0, 1000.0), 900)
    methods = [Method(one.name, one.rule, updates) for one in async_bc.METHODS[:2]]
    return figure1(seeds=3, methods=methods)


def test_rows_of_figure_1(small):
    assert [(row["fixed"], row["method"], row["zeta"]) for row in small.rows] == [
        (start, name, zeta) for start in STARTS for name in ("AsyncBC", "Async-GD") for zeta in (0.0, 10.0, 1000.0)
    ]
    for row in small.rows:
        lengths = {len(row[key]) for key in ("updates", "squared_norm", "squared_norm_low", "squared_norm_high")}
        assert lengths == {len(row["updates"])}
        assert row["updates"][0] == 0
        assert row["updates"][-1] == row["n_updates"] == 900
        assert 0 <= row["share_at_end"] <= row["share"] <= 1
        assert len(row["steps"]) == len(row["medians"]) == len(row["shares"])
        assert row["step"] in row["steps"]
        assert (row["median_updates"] is None) == (row["share"] < 0.5)
    json.dumps(small.to_json(), allow_nan=False)


def test_what_is_said_of_figure_1(small):
    ours = [row for row in small.rows if (row["method"], row["fixed"]) == ("AsyncBC", "x0 - x*")]
    assert len({row["median_updates"] for row in ours}) == 1
    theirs = [row for row in small.rows if (row["method"], row["fixed"]) == ("Async-GD", "x0 - x*")]
    assert theirs[0]["median_updates"] < 100
    assert theirs[2]["median_updates"] is None
    text = small.table()
    assert "At zeta = 0 Async-GD is published as the faster: so it is." in text
    assert "(zeta 1000); the same; share" in text


def test_figure_1_is_drawn(small, tmp_path):
    small.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 20_000


# figure 3


def test_noise_of_a_difference():
    problem, x0 = quadratics(0.0, STARTS[0], 0)
    x = np.tile(x0, (3, 1)), np.tile(0.5 * x0, (3, 1))
    column = np.array([[0.1], [0.0], [0.0]])
    rule = async_bc_noise.NoisyDifferences(np.full(3, 0.1), independent=column, shared=column[[1, 0, 2]])
    stream, task = Stream(0, Domain.TASK), Task(id=0, client=1, kind="difference", setup=0, weight=1.0)
    found = np.array([rule.work(problem, task, x, stream.at(i), None) for i in range(4000)]) - 0.5
    assert found[:, 0].std() == pytest.approx(0.1, rel=0.03)
    assert abs(found[:, 0].mean()) < 0.003
    assert np.abs(found[:, 1:]).max() < 1e-15
    full = Task(id=0, client=1, kind="full", setup=0, weight=1.0)
    assert (rule.work(problem, full, x, stream.at(0), None) == 0.25 * problem.gradient(1, x[0])).all()


@pytest.fixture(scope="module")
def noisy():
    return async_bc_noise.figure3(n_updates=30_000)


def test_no_step_converges_under_independent_noise(noisy):
    rows = {row["step"]: row for row in noisy.rows}
    assert list(rows) == [1e-2, 1e-4, 1e-6, 1e-8, 1e-10]
    for row in noisy.rows:
        assert row["end_independent"] > 0.5
        assert row["end_shared"] == pytest.approx(row["end_none"], rel=1e-9)
        assert row["independent"][-1] == row["end_independent"]
        assert len(row["updates"]) == len(row["independent"]) == len(row["none"]) == len(row["shared"])
    assert 0.2 < rows[1e-2]["end_independent"] / (10 * 0.01 * 30_000) < 3
    for step in (1e-8, 1e-10):
        assert rows[step]["end_independent"] == pytest.approx(rows[step]["start"], rel=0.05)
    assert rows[1e-4]["end_none"] < 0.05
    assert "Measured after 30000 updates: so it is" in noisy.comment
    json.dumps(noisy.to_json(), allow_nan=False)


def test_figure_3_is_drawn(noisy, tmp_path):
    noisy.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 20_000


# table 1


def test_the_work_for_a_target():
    rule = next(method for method in async_bc_rates.METHODS if method.name == "AsyncBC").rule
    problem, xs = as_recursion("AsyncBC", 1.0, STARTS[0], 0, STEPS, 900)
    norms = ((xs - problem.minimiser) ** 2).sum(axis=-1) * 1.875**2
    means = np.cumsum(norms, axis=0) / np.arange(1, 902)[:, None]
    for target in (5.0, 1e-9):
        ((work, step),) = async_bc_rates.needed(rule, 1.0, 900, (target,), 1, STEPS)
        firsts = [next((t for t in range(901) if means[t, k] <= target), np.inf) for k in range(2)]
        assert work == min(firsts)
        assert step == STEPS[np.argmin(firsts)] if np.isfinite(work) else np.isnan(step)


def test_full_gradients_of_restarts_are_counted():
    def restarts(step):
        return td.AsyncBC(step, restart_every=6)

    ((work, _),) = async_bc_rates.needed(restarts, 0.0, 400, (3.0,), 1)
    problem, x0 = quadratics(0.0, STARTS[0], 0)
    steps = async_bc_rates.STEPS
    norms = simulate(restarts(steps), problem, np.tile(x0, (len(steps), 1)), 400, 0).squared_norms
    means = np.cumsum(norms, axis=0) / np.arange(1, 402)[:, None]
    assert work > 1.2 * (means <= 3.0).any(axis=1).argmax()


def test_exponents():
    assert async_bc_rates.exponent([1, 10, 100], [3.0, 300.0, 30_000.0]) == pytest.approx(2)
    assert np.isnan(async_bc_rates.exponent([1, 10], [1.0, np.inf]))
    found = async_bc_rates.predicted(lambda zeta, T: zeta / np.sqrt(T), 3.0, 0.03)
    assert found == pytest.approx(10_000, rel=0.01)


def test_rows_of_table_1():
    chosen = [async_bc_rates.METHODS[i] for i in (2, 3, 5)]
    found = async_bc_rates.table1(seeds=2, methods=chosen)
    by = {row["method"]: row for row in found.rows}
    assert list(by) == ["AsyncBC", "SAGA", "AsyncBC, restarts"]
    for row in found.rows:
        assert row["zeta"] == pytest.approx(0, abs=1e-9)
        assert None not in row["steps_eps"]
    for name in ("SAGA", "AsyncBC, restarts"):
        assert by[name]["eps^-1"] == pytest.approx(1, abs=0.1)
    assert by["AsyncBC"]["eps^-1"] > 1.15
    assert by["AsyncBC"]["order_eps"] == pytest.approx(2, abs=0.1)
    assert by["AsyncBC"]["order_zeta"] == pytest.approx(0, abs=1e-9)
    assert "AsyncBC, restarts: not in the paper; measured eps^-" in found.comment
    json.dumps(found.to_json(), allow_nan=False)


def test_verdicts():
    assert async_bc_rates._verdict(1.85, 2) == "as claimed"
    assert async_bc_rates._verdict(1.5, 2) == "less than claimed"
    assert async_bc_rates._verdict(0.5, 0) == "more than claimed"


# figure 2


def ten_classes(n_rows, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % 10
    return td.Dataset((np.eye(12)[y] + 0.3 * rng.standard_normal((n_rows, 12))).astype(np.float32), y)


@pytest.fixture(scope="module")
def images():
    methods = async_bc_images.METHODS
    return async_bc_images.figure2(
        n_updates=1200,
        seeds=2,
        alphas=(0.1, 0.01),
        methods=methods,
        train=ten_classes(503, 0),
        test=ten_classes(100, 1),
        n_clients=8,
    )


def test_rows_of_figure_2(images):
    names = [method.name for method in async_bc_images.METHODS]
    assert [(row["alpha"], row["grid"], row["method"]) for row in images.rows] == [
        (alpha, grid, name) for alpha in (0.1, 0.01) for grid in ("paper's", "finer") for name in names
    ]
    for row in images.rows:
        assert row["grid"] == "finer" or row["step"] in async_bc_images.PAPER_GRID
        assert row["accuracy"] == pytest.approx(np.mean(row["accuracy_mean"][-10:]))
        assert len(row["updates"]) == len(row["accuracy_mean"]) == len(row["accuracy_low"]) == len(row["accuracy_high"])
        assert 0.5 < row["accuracy"] <= 1
        assert row["accuracy"] == pytest.approx(np.mean(row["accuracies"]))
        assert row["accuracy_sd"] == pytest.approx(np.std(row["accuracies"], ddof=1))
    ratios = [row["variation_ratio"] for row in images.rows if row["method"] == "Async-SGD"]
    assert ratios == [1.0] * 4
    counts = {row["method"]: row["n_updates"] for row in images.rows}
    assert counts == dict(zip(names, (1200, 1200, 18, 300, 1200), strict=True))
    for paper, finer in zip(images.rows[:5], images.rows[5:10], strict=True):
        assert finer["accuracy"] >= paper["accuracy"]
    assert images.comment.count("\n") == 4
    json.dumps(images.to_json(), allow_nan=False)


def test_accuracies_are_those_of_a_run():
    problem = async_bc_images.clients(ten_classes(503, 0), 0.1, 0, n_clients=8)
    method = async_bc_images.METHODS[0]
    tests = ten_classes(100, 1)
    found = async_bc_images.accuracies(method, [problem], tests, 200)
    x = td.run(
        td.AsyncBC(async_bc_images.STEPS),
        problem,
        td.Simulated(td.PerClient([50 * (i + 1) / 8 for i in range(8)])),
        stop=td.MaxUpdates(200),
        snapshot_every=10,
    ).history.x
    rows = problem.test
    expected = np.array([[((rows.X @ one > 0) == rows.y).mean() for one in at] for at in x])
    np.testing.assert_array_equal(found.accuracies[0], expected)
    assert found.tested[0, 3] == ((tests.X @ x[-1, 3] > 0) == (tests.y < 5)).mean()
    norms = [np.linalg.norm(problem.full_gradient(one)) for one in (x[-1, 3], x[0, 3])]
    assert found.gradients[0, 3] == pytest.approx(norms[0] / norms[1], rel=1e-4)


def test_a_fifth_of_the_rows_is_for_validation_and_clients_are_equal():
    data = ten_classes(503, 0)
    problems = [async_bc_images.clients(data, 0.001, seed, n_clients=8) for seed in (0, 1)]
    for problem in problems:
        assert {problem.n_rows_of(i) for i in range(8)} == {50}
        assert len(problem.test) == 103
        assert not {row.tobytes() for row in problem.data.X} & {row.tobytes() for row in problem.test.X}
    assert not np.array_equal(problems[0].test.X, problems[1].test.X)


def test_the_step_is_chosen_by_the_last_evaluations_of_those_allowed():
    accuracies = np.zeros((2, 30, 3))
    accuracies[:, -10:] = [0.7, 0.8, 0.9]
    accuracies[:, :20, 0] = 1.0
    found = async_bc_images.Found(np.arange(30), accuracies, accuracies[:, 0], accuracies[:, 0])
    assert found.best(np.array([True, True, True])) == 2
    assert found.best(np.array([True, True, False])) == 1


def test_better_and_worse_are_beyond_the_spread():
    def row(*accuracies):
        return {"accuracies": list(accuracies)}

    assert async_bc_images._against(row(0.9, 0.88, 0.91), row(0.89, 0.9, 0.9)) == "is level with"
    assert async_bc_images._against(row(0.9, 0.8, 0.7), row(0.89, 0.79, 0.689)) == "is better than"
    assert async_bc_images._against(row(0.88, 0.78), row(0.89, 0.791)) == "is worse than"
    assert async_bc_images._against(row(0.88), row(0.87)) == "is better than"


def test_figure_2_is_drawn(images, tmp_path):
    images.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 20_000


def test_without_the_data_the_error_says_where_they_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("TARDIGRAD_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(td.DataError, match="TARDIGRAD_DATA"):
        async_bc_images.figure2()


@needs_data("fashion-mnist")
def test_the_papers_clients():
    problem = async_bc_images.clients(load("fashion-mnist"), 0.01, 0)
    assert problem.n_clients == 64
    assert {problem.n_rows_of(i) for i in range(64)} == {750}
    assert (problem.batch, problem.dim, problem.dtype, len(problem.test)) == (32, 784, np.float32, 12_000)


def test_all_have_a_name():
    known = {name: place[:2] for name, place in PAPERS.items() if name.startswith("async-bc")}
    assert {
        name: getattr(__import__(module, fromlist=["x"]), function).__name__ for name, (module, function) in known.items()
    } == {f"async-bc-{what}": what for what in ("figure1", "figure2", "figure3", "table1")}
