"""Virtual iterates of AsyncBC: against their definition, Lemma 2's identities, and Lemma 1's bounds."""

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from tardigrad.core.errors import ReplayError, RunFileError
from tardigrad.diagnostics.async_bc import virtual_iterates


class Quadratics(td.Problem):
    def __init__(self, a, c):
        self.a, self.c = np.asarray(a, float), np.asarray(c, float)
        self.n_clients, self.dim = self.c.shape

    def fields(self):
        return {"a": self.a, "c": self.c}

    def gradient(self, client, x, sample=None):
        return self.a[client] * (x - self.c[client])


def quadratics(n=5, dim=3):
    rng = np.random.default_rng(0)
    return Quadratics(rng.uniform(0.2, 2.0, n), rng.normal(size=(n, dim)))


def simulate(rule, n=60, concurrency=3, timing=None, seed=0, problem=None):
    engine = td.Simulated(timing or td.Exponential(1.0))
    return td.run(
        rule, problem or quadratics(), engine, stop=td.MaxUpdates(n), concurrency=concurrency, seed=seed, snapshot_every=1
    )


def by_definition(result):
    """Algorithm 1 and (3), (4) with everything that is in flight kept by hand."""
    p, x, step, n = result.problem, result.history.x, result.rule.step, result.problem.n_clients
    rows = result.trace.table[n:]
    answered = {int(row["task"]): row for row in rows}

    def g(row):
        s = row["version_read"]
        return p.a[row["client"]] * (x[s] - x[s - 1]) * (1 / result.concurrency if s == 1 else 1.0)

    m = p.a.mean() * x[0] - (p.a[:, None] * p.c).mean(axis=0)
    virtual_m, virtual_x, true_m = [m.copy()], [x[0], x[1]], [m.copy()]
    issued = list(range(n, n + result.concurrency))
    for t, row in enumerate(rows, 1):
        new = issued if t == 1 else [n + result.concurrency + t - 2]
        if not all(task in answered for task in new):
            break
        virtual_m.append(virtual_m[-1] + sum(g(answered[task]) for task in new))
        true_m.append(true_m[-1] + g(row))
        virtual_x.append(virtual_x[-1] - step * virtual_m[-1])
    return np.array(virtual_x), np.array(virtual_m), np.array(true_m)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "timing", [td.Exponential(1.0), td.PerClient([1.0, 1.0, 2.0, 3.0, 30.0])], ids=lambda t: type(t).__name__
)
def test_they_are_what_they_are_defined_to_be(seed, timing):
    result = simulate(td.AsyncBC(0.1), timing=timing, seed=seed)
    found = virtual_iterates(result)
    x, m, true_m = by_definition(result)
    n = len(found.x)
    assert n >= 1
    np.testing.assert_allclose(found.m, m[1 : n + 1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.x, x[1 : n + 1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.momentum_error, np.linalg.norm(true_m - m, axis=1)[1 : n + 1], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(
        found.iterate_error, np.linalg.norm(result.history.x[1 : n + 1] - x[1 : n + 1], axis=1), rtol=1e-8, atol=1e-12
    )


def test_all_of_the_run_is_covered_but_for_what_was_in_flight_at_its_end():
    result = simulate(td.AsyncBC(0.1), n=200, timing=td.Constant(1.0))
    assert 180 < len(virtual_iterates(result).x) < 200


def test_without_delay_they_are_the_iterates():
    found = virtual_iterates(simulate(td.AsyncBC(0.1), concurrency=1))
    assert found.momentum_error.max() < 1e-13
    assert found.iterate_error.max() < 1e-13
    assert found.momentum_bound is None
    assert found.iterate_bound is None


@pytest.mark.parametrize("step", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_bounds_of_lemma_1_hold(step, seed):
    problem = quadratics()
    mean = problem.a.mean()
    delta = np.abs(problem.a - mean).max()
    found = virtual_iterates(simulate(td.AsyncBC(step), n=150, seed=seed), lipschitz=mean, delta=delta)
    assert (found.momentum_error <= found.momentum_bound * (1 + 1e-9)).all()
    assert (found.iterate_error <= found.iterate_bound * (1 + 1e-9) + 1e-13).all()
    assert found.momentum_error.max() > found.momentum_bound.max() / 100  # it says something


def test_of_stochastic_differences_and_threads_too():
    result = td.run(td.AsyncBC(0.05), make_problem(), td.Threads(3), stop=td.MaxUpdates(80), concurrency=3)
    found = virtual_iterates(result)
    assert np.isfinite(found.momentum_error).all()
    assert len(found.x) > 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simulate(td.AsyncSGD(0.1), concurrency=5), "virtual iterates are of runs of AsyncBC, not of AsyncSGD"),
        (lambda: simulate(td.AsyncBC(0.1, restart_every=5)), "without restarts and buffer"),
        (lambda: simulate(td.AsyncBC(0.1, buffer=2)), "without restarts and buffer"),
        (lambda: simulate(td.AsyncBC([0.1, 0.2])), "with one constant step"),
        (lambda: simulate(td.AsyncBC(td.PowerStep(0.1))), "with one constant step"),
        (lambda: simulate(td.AsyncBC(0.1), n=1), "the run of 1 updates is too short"),
        (
            lambda: td.run(td.AsyncBC(0.1), quadratics(), td.Prescribed(1), stop=td.MaxUpdates(20)),
            "engines that do not prescribe versions",
        ),
    ],
)
def test_runs_of_other_kinds_are_refused(make, message):
    with pytest.raises(td.InvalidInputError, match=message):
        virtual_iterates(make())


def test_the_problem_is_needed_and_must_be_the_same():
    result = simulate(td.AsyncBC(0.1))
    other = quadratics()
    other.a = other.a * 1.1
    with pytest.raises(ReplayError, match="the run ends elsewhere"):
        virtual_iterates(result, problem=other)
    result.problem = None
    with pytest.raises(RunFileError, match="saved without its problem"):
        virtual_iterates(result)
    assert len(virtual_iterates(result, problem=quadratics()).x)
