"""SARAH: the textbook's recursion, rounds, restarts, and what is refused."""

import copy

import numpy as np
import pytest
import scipy.stats

import tardigrad as td
from clients import Names, make_quadratics, make_weighted
from conftest import make_problem
from tardigrad.core.plain import same_bits
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Reply, Task
from tardigrad.testing import AnyOrder


def simulate(rule, problem, n, engine=None, **kwargs):
    return td.run(rule, problem, engine or td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(n), **kwargs)


def textbook(problem, step, n_updates, sample=1, restart_every=None, seed=0):
    """All iterates, and the clients of the differences, without any trace: from the definition and the seed alone."""
    n, server, noise = problem.n_clients, Stream(seed, Domain.SERVER), Stream(seed, Domain.TASK)
    xs, asked, task = [problem.x0()], [], 0
    previous, m = None, None
    for t in range(n_updates):
        x = xs[-1]
        if t == 0 or (restart_every and t % restart_every == 0):
            m = np.zeros_like(x)
            for i in range(n):
                m = m + problem.gradient(i, x) * problem.weight(i)
            task += n
        else:
            draws = server.at(task - 1)  # the receipt of the last reply of the round before
            chosen = [int(draws.integers(n))] if sample == 1 else draws.choice(n, sample, replace=False).tolist()
            for i in chosen:
                xi = problem.sample(i, noise.at(task))
                g = (problem.gradient(i, x, xi) - problem.gradient(i, previous, xi)) * problem.scale(i)
                m = m + (g if sample == 1 else g * (1 / sample))
                task += 1
            asked += chosen
        previous = x
        xs.append(x - (step(t) if callable(step) else step) * m)
    return np.array(xs), asked


CASES = {
    "one client": {},
    "restarts": {"restart_every": 5},
    "a full gradient at every update": {"restart_every": 1},
    "rounds of three": {"sample": 3, "restart_every": 7},
}


@pytest.mark.parametrize("step", [0.05, td.PowerStep(0.2, 0.75)], ids=["constant", "decreasing"])
@pytest.mark.parametrize("make", [make_problem, make_weighted, make_quadratics])
@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_every_iterate_is_the_textbooks_bit_for_bit(arguments, make, step):
    problem = make()
    expected, asked = textbook(problem, step, 40, seed=3, **arguments)
    for engine in (td.Simulated(td.Exponential(1.0)), AnyOrder(5)):
        result = simulate(td.SARAH(step, **arguments), problem, 40, engine=engine, snapshot_every=1, seed=3)
        assert same_bits(expected, result.history.x)
    if "restart_every" not in arguments:
        table = result.trace.table[np.argsort(result.trace["task"])]
        assert table["client"].tolist() == [0, 1, 2, 3, *asked]


def test_float32_stays_and_is_the_textbook_in_float32():
    problem = make_quadratics(dtype=np.float32)
    result = simulate(td.SARAH(0.05, sample=2), problem, 40, snapshot_every=1)
    expected, _ = textbook(problem, np.float32(0.05), 40, sample=2)
    assert result.history.x.dtype == np.float32
    assert same_bits(expected, result.history.x)


@pytest.mark.parametrize("sample", [1, 2])
def test_large_iterates_are_updated_in_place_to_the_same_bits(sample):
    problem = make_quadratics(dim=20_000)
    result = simulate(td.SARAH(0.05, sample), problem, 12, snapshot_every=1)
    assert not result.state.fresh
    assert same_bits(textbook(problem, 0.05, 12, sample)[0], result.history.x)


def test_a_difference_costs_two_gradients_and_a_full_round_one_each():
    result = simulate(td.SARAH(0.05, restart_every=10), make_problem(), 25, snapshot_every=1)
    assert result.oracle_calls == 3 * 4 + 22 * 2


def test_a_full_gradient_at_every_update_is_gradient_descent():
    problem = make_weighted(batch=None)
    result = simulate(td.SARAH(0.1, restart_every=1), problem, 25)
    x = problem.x0()
    for _ in range(25):
        x = x - 0.1 * problem.full_gradient(x)
    np.testing.assert_allclose(result.x, x, rtol=1e-12, atol=1e-13)


def test_rounds_of_all_clients_keep_m_the_full_gradient():
    problem = make_problem(batch=None)
    every, descent = (simulate(rule, problem, 25).x for rule in (td.SARAH(0.1, sample=4), td.SyncSGD(0.1)))
    np.testing.assert_allclose(every, descent, rtol=1e-12)


def test_errors_do_not_depend_on_how_the_clients_differ():
    start = np.ones(10)
    errors = []
    for zeta in (0.0, 1.0, 1000.0):
        problem = td.ClientQuadratics.of_paper(zeta)
        rule = td.SARAH(0.01, restart_every=500)
        errors.append(simulate(rule, problem, 2000, x0=problem.minimiser + start).x - problem.minimiser)
    np.testing.assert_allclose(errors[1:], [errors[0]] * 2, atol=1e-10)
    assert np.linalg.norm(errors[0]) < 0.1


def test_the_first_update_depends_on_the_client_linearly():
    """One variable: x[2] - x[1] = -step (m0 + c_j (x[1] - x[0])), c_j the curvature of the client that was drawn."""
    problem = td.ClientQuadratics([1.0, 2.0, 3.0], [[1.0], [0.0], [-2.0]])
    result = simulate(td.SARAH(0.1), problem, 2, snapshot_every=1)
    x, client = result.history.x[:, 0], int(result.trace["client"][-1])
    m = (1.0 * -1 + 0 + 3.0 * 2) / 3
    assert x[1] == pytest.approx(-0.1 * m)
    assert x[2] == pytest.approx(x[1] - 0.1 * (m + problem.curvatures[client] * x[1]))


def test_the_difference_is_unbiased_over_clients():
    problem = make_weighted(batch=None)
    rule = td.SARAH(0.1)
    state = simulate(rule, problem, 6).state
    before, found = problem.full_gradient(state.x) - problem.full_gradient(state.x_previous), []
    for client in range(4):
        after, task = copy.deepcopy(state), Task(state.turn, client, "difference")
        payload = rule.work(problem, task, (state.x, state.x_previous), Stream(0, Domain.TASK), None)
        rule.receive(after, Reply(task, 6, payload, 0, 0.0, 0.0, 0.0, 0.0), Stream(0, Domain.SERVER))
        found.append(after.m - state.m)
    np.testing.assert_allclose(np.mean(found, axis=0), before, rtol=1e-10)


class Ticks(Names):
    """Each client's gradient counts, in its own component, what its iterate has moved: differences name their client."""

    def gradient(self, client, x, sample=None):
        return np.eye(self.n_clients)[client] * x


def test_every_difference_is_of_the_client_whose_id_the_task_carries():
    problem = Ticks(5)
    result = simulate(td.SARAH(0.1), problem, 300, x0=np.ones(5), snapshot_every=1)
    x, m = result.history.x, np.full(5, 0.2)
    for t, client in enumerate(result.trace["client"][5:]):
        m = m + np.eye(5)[client] * (x[t + 1] - x[t])
        np.testing.assert_allclose(x[t + 2], x[t + 1] - 0.1 * m, rtol=1e-13)
    assert scipy.stats.chisquare(np.bincount(result.trace["client"][5:], minlength=5)).pvalue > 1e-3


def test_early_replies_of_a_round_are_added_in_the_order_of_issue():
    problem = make_problem()
    runs = [simulate(td.SARAH(0.1, 3, 4), problem, 10, engine=AnyOrder(seed)) for seed in range(4)]
    assert len({run.x.tobytes() for run in runs}) == 1
    assert len({run.trace["task"].tobytes() for run in runs}) == 4


def test_one_replica_of_a_sweep_is_the_single_run():
    problem = make_quadratics(noisy=False)
    sweep = simulate(td.SARAH([0.02, 0.1], 3), problem, 50, seed=4)
    for i, step in enumerate([0.02, 0.1]):
        assert same_bits(sweep.x[i], simulate(td.SARAH(step, 3), problem, 50, seed=4).x)


def test_a_run_goes_on_from_its_checkpoint_in_every_bit(tmp_path):
    problem, engine, rule = make_problem(), td.Simulated(td.Exponential(1.0)), td.SARAH(0.05, 3, 4)
    for calls in (3, 9, 30):
        td.run(rule, problem, engine, stop=td.MaxOracleCalls(calls), checkpoint=tmp_path / str(calls))
        again = td.resume(tmp_path / str(calls), stop=td.MaxUpdates(30))
        assert same_bits(simulate(rule, problem, 30).state, again.state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.0}, "step must be a positive number"),
        ({"step": 0.1, "sample": 0}, "sample must be an integer >= 1"),
        ({"step": 0.1, "sample": None}, "sample must be an integer >= 1"),
        ({"step": 0.1, "restart_every": 0}, "restart_every must be an integer >= 1"),
        ({"step": 0.1, "restart_every": 2.5}, "restart_every must be an integer >= 1"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.SARAH(**arguments)


def test_what_does_not_fit_the_problem_is_refused():
    with pytest.raises(td.InvalidInputError, match="sample must be an integer between 1 and 4, not 5"):
        simulate(td.SARAH(0.1, sample=5), make_problem(), 1)
    with pytest.raises(td.InvalidInputError, match="SARAH does not run on Prescribed"):
        simulate(td.SARAH(0.1), make_problem(), 1, engine=td.Prescribed(2))
    problem = Names(4)
    problem.dim = 3
    with pytest.raises(td.InvalidInputError, match=r"a gradient has shape \(4,\), the iterates \(3,\)"):
        simulate(td.SARAH(0.1), problem, 1)
