"""IAG and SAGA: the textbook's recursions, the table, its mean, and independence of how the clients differ."""

import copy

import numpy as np
import pytest

import tardigrad as td
from clients import Names, make_quadratics, make_weighted, replies
from tardigrad.core.plain import same_bits
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Reply, Task
from tardigrad.testing import AnyOrder

RULES = [td.IAG, td.SAGA]
SLOW_LAST = td.PerClient([2.5, 5.0, 7.5, 10.0])


def simulate(rule, problem, n, engine=None, **kwargs):
    return td.run(rule, problem, engine or td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(n), **kwargs)


def textbook(kind, step, result, problem):
    """All iterates, from the trace: a table, its mean by difference, and anew every n updates."""
    n, xs = problem.n_clients, [result.x0]
    table, mean = np.zeros((n, problem.dim), problem.dtype), None
    for t, (_, client, read, rng) in enumerate(replies(result)):
        g = problem.gradient(client, xs[read], problem.sample(client, rng)) * problem.scale(client)
        if t < n:
            table[client] = g
            if t == n - 1:
                mean = sum(table[1:], start=table[0].copy()) / n
                xs.append(xs[-1] - step * mean)
            continue
        direction, new = (g - table[client]) + mean, (g - table[client]) / n + mean
        table[client] = g
        version = len(xs) - (kind is td.IAG)  # IAG renews the mean before its step, SAGA after
        mean = sum(table[1:], start=table[0].copy()) / n if version % n == 0 else new
        xs.append(xs[-1] - step * (mean if kind is td.IAG else direction))
    return np.array(xs)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
@pytest.mark.parametrize("kind", RULES)
def test_every_iterate_is_the_textbooks_bit_for_bit(kind, next_client, dtype):
    problem = make_quadratics(dtype=dtype)
    result = simulate(kind(0.05, next_client), problem, 60, snapshot_every=1, seed=3)
    expected = textbook(kind, dtype(0.05), result, problem)
    assert expected.dtype == result.history.x.dtype == dtype
    assert same_bits(expected, result.history.x)
    assert result.trace.staleness.max() > 2


@pytest.mark.parametrize("kind", RULES)
def test_weighted_clients_give_the_textbooks_bits(kind):
    problem = make_weighted()
    result = simulate(kind(0.05, "uniform"), problem, 60, snapshot_every=1, seed=3)
    assert same_bits(textbook(kind, 0.05, result, problem), result.history.x)


@pytest.mark.parametrize("kind", RULES)
def test_large_iterates_are_updated_in_place_to_the_same_bits(kind):
    problem = make_quadratics(dim=20_000)
    result = simulate(kind(0.05, "uniform"), problem, 20, snapshot_every=1)
    assert not result.state.fresh
    assert same_bits(textbook(kind, 0.05, result, problem), result.history.x)


@pytest.mark.parametrize("kind", RULES)
def test_the_first_round_asks_every_client_and_is_a_full_gradient_step(kind):
    problem = make_quadratics(noisy=False)
    runs = [simulate(kind(0.3, "uniform"), problem, 1, engine=AnyOrder(seed), snapshot_every=1) for seed in range(4)]
    assert len({tuple(run.trace["client"]) for run in runs}) > 1
    assert len({run.x.tobytes() for run in runs}) == 1, "the order of the replies must not matter"
    assert sorted(runs[0].trace["client"]) == [0, 1, 2, 3]
    assert (runs[0].trace["version_read"] == 0).all()
    np.testing.assert_allclose(runs[0].x, -0.3 * problem.full_gradient(np.zeros(3)), rtol=1e-14)


@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
@pytest.mark.parametrize("kind", RULES)
def test_every_row_of_the_table_is_the_gradient_of_its_client(kind, next_client):
    result = simulate(kind(1e-3, next_client), Names(5), 200, concurrency=5)
    np.testing.assert_array_equal(result.state.table, np.eye(5))
    np.testing.assert_allclose(result.state.mean, np.full(5, 1 / 5), rtol=1e-14)


@pytest.mark.parametrize("kind", RULES)
def test_weights_scale_gradients_to_the_weighted_sum(kind):
    weights = [0.1, 0.2, 0.3, 0.4]
    result = simulate(kind(1.0), Names(4, weights), 10, concurrency=4)
    np.testing.assert_allclose(-result.x / 10, weights, rtol=1e-13)


@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
@pytest.mark.parametrize("kind", RULES)
def test_constant_steps_reach_the_minimiser_whoever_answers(kind, next_client):
    problem = td.ClientQuadratics.of_paper(100.0)
    result = simulate(kind(0.03, next_client), problem, 3000, engine=td.Simulated(SLOW_LAST))
    assert problem.measures(result.x)["distance"] < 1e-11
    biased = simulate(td.AsyncSGD(0.001), problem, 30_000, engine=td.Simulated(SLOW_LAST))
    assert problem.measures(biased.x)["distance"] > 10, "while asking whoever answered is a bias of asynchronous SGD"


@pytest.mark.parametrize("kind", RULES)
def test_errors_follow_a_linear_recursion_in_which_the_centres_do_not_occur(kind):
    problem = td.ClientQuadratics.of_paper(1000.0)
    start = np.ones(10)
    result = simulate(
        kind(0.03, "uniform"), problem, 400, td.Simulated(SLOW_LAST), x0=problem.minimiser + start, snapshot_every=1
    )
    errors, rows = [start], np.outer(problem.curvatures, start)
    errors.append(start - 0.03 * rows.mean(axis=0))
    for _, client, read, _ in list(replies(result))[4:]:
        new = problem.curvatures[client] * errors[read]
        saga = new - rows[client] + rows.mean(axis=0)
        rows[client] = new
        errors.append(errors[-1] - 0.03 * (saga if kind is td.SAGA else rows.mean(axis=0)))
    np.testing.assert_allclose(result.history.x - problem.minimiser, errors, atol=1e-11)


def test_the_direction_of_saga_is_unbiased_over_clients():
    problem = make_quadratics(noisy=False)
    rule = td.SAGA(0.1, concurrency=1)
    state = simulate(rule, problem, 7).state
    moved = []
    for client in range(4):
        after = copy.deepcopy(state)
        reply = Reply(Task(99, client), after.version, problem.gradient(client, state.x), 0, 0.0, 0.0, 0.0, 0.0)
        rule.receive(after, reply, Stream(0, Domain.SERVER))
        moved.append(state.x - after.x)
    np.testing.assert_allclose(np.mean(moved, axis=0) / 0.1, problem.full_gradient(state.x), rtol=1e-12)
    assert np.std(moved, axis=0).min() > 0


@pytest.mark.parametrize("kind", RULES)
def test_the_mean_is_added_up_anew_and_does_not_drift(kind):
    problem = td.ClientQuadratics.of_paper(1e6)
    for n in (10_000, 10_003):
        state = simulate(kind(0.03, "uniform"), problem, n).state
        exact = (state.table[0] + state.table[1] + state.table[2] + state.table[3]) / 4
        if n % 4 == 0 and kind is td.SAGA:
            assert same_bits(state.mean, exact)
        assert np.abs(state.mean - exact).max() <= 8e-16 * np.abs(state.table).max()


@pytest.mark.parametrize("step", [0.05, td.PowerStep(0.3, 0.75)], ids=["constant", "decreasing"])
def test_with_one_client_iag_is_gradient_descent_bit_for_bit(step):
    problem = make_quadratics(n=1)
    runs = [simulate(rule, problem, 50, concurrency=1).x for rule in (td.IAG(step), td.AsyncSGD(step))]
    assert same_bits(*runs)


def test_with_one_client_saga_is_gradient_descent():
    problem = make_quadratics(n=1)
    runs = [simulate(rule, problem, 50, concurrency=1).x for rule in (td.SAGA(0.05), td.AsyncSGD(0.05))]
    np.testing.assert_allclose(*runs, rtol=1e-12)


@pytest.mark.parametrize("kind", RULES)
def test_one_replica_of_a_sweep_is_the_single_run(kind):
    problem = make_quadratics(noisy=False)
    sweep = simulate(kind([0.02, 0.1], "uniform"), problem, 50, seed=4)
    for i, step in enumerate([0.02, 0.1]):
        assert same_bits(sweep.x[i], simulate(kind(step, "uniform"), problem, 50, seed=4).x)


@pytest.mark.parametrize("kind", RULES)
def test_a_run_goes_on_from_its_checkpoint_in_every_bit(kind, tmp_path):
    problem, engine = make_quadratics(), td.Simulated(td.Exponential(1.0))
    part = td.run(kind(0.05), problem, engine, stop=td.MaxOracleCalls(3), checkpoint=tmp_path)
    assert part.state.missing == 1
    td.resume(tmp_path, stop=td.MaxUpdates(13))
    again = td.resume(tmp_path, stop=td.MaxUpdates(30))
    assert same_bits(simulate(kind(0.05), problem, 30).state, again.state)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.0}, "step must be a positive number"),
        ({"step": "theory"}, "step must be a positive number"),
        ({"step": 0.1, "next_client": "fastest"}, "next_client must be one of"),
        ({"step": 0.1, "concurrency": 0}, "concurrency must be an integer >= 1"),
    ],
)
def test_bad_parameters(kind, arguments, message):
    with pytest.raises(td.InvalidInputError, match=message):
        kind(**arguments)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("shared", [False, True])
def test_clients_that_would_never_be_asked_again_are_refused(kind, shared):
    problem = Names(4)
    problem.shared_data = shared
    with pytest.raises(td.InvalidInputError, match="the gradients of 1 of the 4 clients would stay those of the start"):
        simulate(kind(0.1, "answered"), problem, 1, concurrency=3)
    assert simulate(kind(0.1, "answered"), problem, 9, engine=td.Simulated(td.Constant(1.0), workers=2)).concurrency == 4


@pytest.mark.parametrize("kind", RULES)
def test_a_gradient_of_another_shape_is_refused(kind):
    problem = Names(4)
    problem.dim = 3
    with pytest.raises(td.InvalidInputError, match=r"a gradient has shape \(4,\), the iterates \(3,\)"):
        simulate(kind(0.1), problem, 1)
