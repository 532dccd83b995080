"""FedBuff: local steps, the buffer, its limiting cases, and what is refused."""

import numpy as np
import pytest

import tardigrad as td
from clients import Names, make_quadratics, make_weighted, replies
from conftest import make_problem
from tardigrad.core.plain import same_bits
from tardigrad.core.task import Task

SLOW_LAST = td.PerClient([2.5, 5.0, 7.5, 10.0])


def simulate(rule, problem, n, engine=None, **kwargs):
    return td.run(rule, problem, engine or td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(n), **kwargs)


def textbook(result, problem, step, local_steps, local_step, buffer):
    """All iterates, from the trace; clients send the sum of their gradients, times the local step."""
    xs, waiting = [result.x0], []
    for _, client, read, rng in replies(result):
        y, total = xs[read], None
        for _ in range(local_steps):
            g = problem.gradient(client, y, problem.sample(client, rng))
            y = y - local_step * g
            total = g if total is None else total + g
        waiting.append(total * local_step * problem.scale(client))
        if len(waiting) == buffer:
            mean = sum(waiting[1:], start=waiting[0]) / buffer
            xs.append(xs[-1] - (step(len(xs) - 1) if callable(step) else step) * mean)
            waiting = []
    return np.array(xs)


CASES = [
    (0.5, 1, 0.1, 1),
    (0.5, 3, 0.1, 1),
    (0.5, 1, 0.1, 4),
    (td.PowerStep(1.0, 0.5), 2, 0.1, 3),
]


@pytest.mark.parametrize("next_client", ["uniform", "answered", "shuffled"])
@pytest.mark.parametrize("make", [make_problem, make_weighted, make_quadratics])
@pytest.mark.parametrize(("step", "local_steps", "local_step", "buffer"), CASES)
def test_every_iterate_is_the_textbooks_bit_for_bit(step, local_steps, local_step, buffer, make, next_client):
    problem, rule = make(), td.FedBuff(step, local_steps, local_step, buffer, next_client)
    result = simulate(rule, problem, 40, snapshot_every=1, seed=3)
    assert same_bits(textbook(result, problem, step, local_steps, local_step, buffer), result.history.x)
    assert len(result.trace) == 40 * buffer
    assert result.oracle_calls == 40 * buffer * local_steps


@pytest.mark.parametrize("buffer", [1, 3])
def test_large_iterates_are_updated_in_place_to_the_same_bits(buffer):
    problem = make_quadratics(dim=20_000)
    result = simulate(td.FedBuff(0.5, 2, 0.1, buffer), problem, 12, snapshot_every=1)
    assert not result.state.fresh
    assert same_bits(textbook(result, problem, 0.5, 2, 0.1, buffer), result.history.x)


@pytest.mark.parametrize("local_step", [0.1, [0.1, 0.2]])
def test_float32_stays(local_step):
    seen, problem = set(), make_quadratics(dtype=np.float32)

    class Watched(type(problem)):
        def gradient(self, client, x, sample=None):
            seen.add(x.dtype)
            return super().gradient(client, x, sample)

    problem = Watched(problem.curvatures, problem.centres)
    rule, x = td.FedBuff(0.5, 2, local_step, 3), np.zeros((*np.shape(local_step), 3), np.float32)
    payload = rule.work(problem, Task(0, 0), (x,), np.random.default_rng(0), None)
    assert payload.dtype == np.float32
    assert seen == {np.dtype(np.float32)}, "of the clients' own iterates"
    result = simulate(td.FedBuff(0.5, 2, local_step, 3), problem, 20, snapshot_every=1)
    assert result.state.x.dtype == result.state.total.dtype == result.history.x.dtype == np.float32
    assert np.isfinite(result.x).all()


@pytest.mark.parametrize("local_step", [None, 1.0])
@pytest.mark.parametrize("step", [0.05, td.PowerStep(0.3, 0.75), [0.02, 0.05]], ids=["constant", "decreasing", "sweep"])
@pytest.mark.parametrize("next_client", ["uniform", "answered", "shuffled"])
@pytest.mark.parametrize("engine", [lambda: td.Simulated(SLOW_LAST), lambda: td.Prescribed(3)], ids=["simulated", "prescribed"])
def test_one_local_step_and_a_buffer_of_one_is_asynchronous_sgd_bit_for_bit(engine, next_client, step, local_step):
    problem = make_problem()
    rules = td.FedBuff(step, local_step=local_step, next_client=next_client), td.AsyncSGD(step, next_client)
    buffered, plain = (simulate(rule, problem, 60, engine=engine()) for rule in rules)
    assert same_bits(buffered.x, plain.x)
    assert same_bits(buffered.trace.table["client"], plain.trace.table["client"])


def test_a_full_buffer_of_clients_that_are_equally_fast_is_a_round_of_gradient_descent():
    """All n tasks read the same version, since they are issued again before the buffer is full: delay 1 from round to round."""
    problem = td.ClientQuadratics.of_paper(1.0)
    rule = td.FedBuff(0.1, buffer=4, next_client="answered")
    x = simulate(rule, problem, 30, engine=td.Simulated(td.Constant(1.0)), snapshot_every=1).history.x
    # of the 4 replies to a round's version the last is issued after the update: three read the version before
    e = x - problem.minimiser
    for t in range(1, 30):
        old, new = e[t - 1], e[t]
        c = problem.curvatures
        z = problem.centres - problem.minimiser
        g = [c[i] * ((old if i < 3 else new) - z[i]) for i in range(4)]
        np.testing.assert_allclose(e[t + 1], e[t] - 0.1 * np.mean(g, axis=0), atol=1e-13)


def test_local_steps_on_a_quadratic_contract_by_their_power():
    """One client, f = c |x|^2 / 2: after Q steps y = (1 - a c)^Q x, and x[1] = x - step (x - y)."""
    problem = td.ClientQuadratics([2.0], [[0.0]])
    result = simulate(td.FedBuff(0.7, 5, 0.1), problem, 3, x0=np.ones(1), concurrency=1)
    assert result.x[0] == pytest.approx((1 - 0.7 * (1 - 0.8**5)) ** 3, rel=1e-13)


def test_local_steps_lead_to_a_known_point_between_the_clients_minimisers():
    """With an equal share of replies the fixed point weighs client i by 1 - (1 - a c_i)^Q instead of by its curvature."""
    problem = td.ClientQuadratics([0.5, 4.0], [[0.0], [1.0]])
    rule = td.FedBuff(0.02, 10, 0.2, buffer=2, next_client="answered")
    result = simulate(rule, problem, 2000, engine=td.Simulated(td.Constant(1.0)))
    weights = 1 - (1 - 0.2 * problem.curvatures) ** 10
    assert result.x[0] == pytest.approx(weights[1] / weights.sum(), rel=1e-6)
    assert abs(result.x[0] - problem.minimiser[0]) > 0.2


def test_every_reply_is_of_the_client_whose_id_the_task_carries():
    result = simulate(td.FedBuff(1.0, 2, 0.5, 3), Names(5), 200, concurrency=7)
    counts = np.bincount(result.trace["client"], minlength=5)
    np.testing.assert_allclose(-result.x, counts / 3, rtol=1e-12)


def test_weights_scale_replies_to_the_weighted_sum():
    weights = [0.1, 0.2, 0.3, 0.4]
    rule = td.FedBuff(1.0, 3, 0.5, buffer=4, next_client="shuffled", concurrency=1)
    result = simulate(rule, Names(4, weights), 5)
    np.testing.assert_allclose(-result.x / 5, 1.5 * np.array(weights), rtol=1e-13)


def test_one_replica_of_a_sweep_of_both_steps_is_the_single_run():
    problem = make_quadratics(noisy=False)
    steps, local = [0.2, 0.5, 1.0], [0.05, 0.1]
    sweep = simulate(td.FedBuff(np.array(steps)[:, None], 3, local, 2), problem, 30, seed=4)
    assert sweep.x.shape == (3, 2, 3)
    for i, step in enumerate(steps):
        for j, local_step in enumerate(local):
            single = simulate(td.FedBuff(step, 3, local_step, 2), problem, 30, seed=4)
            assert same_bits(np.asarray(sweep.x[i, j]), single.x)


def test_a_run_goes_on_from_its_checkpoint_with_what_waits_in_the_buffer(tmp_path):
    problem, engine, rule = make_problem(), td.Simulated(td.Exponential(1.0)), td.FedBuff(0.5, 2, 0.1, 3)
    part = td.run(rule, problem, engine, stop=td.MaxOracleCalls(22), checkpoint=tmp_path)
    assert part.state.waiting == 2
    again = td.resume(tmp_path, stop=td.MaxUpdates(30))
    assert same_bits(simulate(rule, problem, 30).state, again.state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.0}, "step must be a positive number"),
        ({"step": 0.1, "local_steps": 0}, "local_steps must be an integer >= 1"),
        ({"step": 0.1, "local_steps": 2}, "local_steps=2 need their size: pass local_step"),
        ({"step": 0.1, "local_step": -1.0}, "local_step must be a positive number"),
        ({"step": 0.1, "local_step": td.PowerStep(1.0)}, "local_step must be a positive number"),
        ({"step": 0.1, "buffer": 0}, "buffer must be an integer >= 1"),
        ({"step": [0.1, 0.2], "local_step": [0.1, 0.2, 0.3]}, "shapes that broadcast"),
        ({"step": 0.1, "next_client": "fastest"}, "next_client must be one of"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.FedBuff(**arguments)


@pytest.mark.parametrize("buffer", [1, 2])
def test_a_gradient_of_another_shape_is_refused(buffer):
    problem = Names(4)
    problem.dim = 3
    with pytest.raises(td.InvalidInputError, match=r"a gradient has shape \(4,\), the iterates \(3,\)"):
        simulate(td.FedBuff(0.1, buffer=buffer), problem, 1)
