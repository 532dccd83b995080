"""Rennala and Ringmaster: which replies count, which tasks are called off, limiting cases, and what is refused."""

import numpy as np
import pytest

import tardigrad as td
from clients import Names, make_quadratics, make_weighted, replies
from conftest import make_problem
from tardigrad.core.plain import same_bits

SLOW_LAST = td.PerClient([1.0, 1.3, 2.1, 9.7])
STEPS = [0.05, td.PowerStep(0.3, 0.75), [0.02, 0.05]]


def simulate(rule, problem, n, engine=None, **kwargs):
    return td.run(rule, problem, engine or td.Simulated(SLOW_LAST), stop=td.MaxUpdates(n), **kwargs)


def shared_problem(**kwargs):
    problem = make_problem()
    return td.LeastSquares((problem.data.X, problem.data.y), td.Shared(4), **{"batch": 3, **kwargs})


def textbook(result, problem, step, batch, max_delay):
    """All iterates, from the trace: drop what is too old, average batches."""
    xs, kept = [result.x0], []
    for _, client, read, rng in replies(result):
        if len(xs) - 1 - read > max_delay:
            continue
        kept.append(problem.gradient(client, xs[read], problem.sample(client, rng)) * problem.scale(client))
        if len(kept) == batch:
            mean = kept[0] if batch == 1 else sum(kept[1:], start=kept[0]) / batch
            xs.append(xs[-1] - (step(len(xs) - 1) if callable(step) else step) * mean)
            kept = []
    return np.array(xs)


@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
@pytest.mark.parametrize("make", [make_weighted, shared_problem, make_quadratics])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_rennala_is_the_textbooks_bit_for_bit(batch, make, next_client):
    problem = make()
    rule = td.Rennala(0.2, batch, next_client)
    result = simulate(rule, problem, 40, engine=td.Simulated(td.Exponential(1.0)), snapshot_every=1, concurrency=4)
    assert same_bits(textbook(result, problem, 0.2, batch, max_delay=0), result.history.x)
    used = result.trace.staleness == 0
    assert used.sum() == 40 * batch
    assert result.oracle_calls == len(used) > used.sum()


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
@pytest.mark.parametrize("make", [make_weighted, shared_problem, make_quadratics])
@pytest.mark.parametrize("max_delay", [0, 1, 5])
def test_ringmaster_is_the_textbooks_bit_for_bit(max_delay, make, next_client, cancel):
    problem, step = make(), td.PowerStep(0.3, 0.5)
    result = simulate(td.Ringmaster(step, max_delay, cancel, next_client), problem, 60, snapshot_every=1, concurrency=4)
    assert same_bits(textbook(result, problem, step, 1, max_delay), result.history.x)
    assert (result.trace.staleness <= max_delay).sum() == 60
    assert (result.trace.staleness.max() <= max_delay) if cancel else True


@pytest.mark.parametrize("kind", ["Rennala", "Ringmaster"])
def test_large_iterates_are_updated_in_place_to_the_same_bits(kind):
    problem = make_quadratics(dim=20_000)
    rule, batch = (td.Rennala(0.2, 3), 3) if kind == "Rennala" else (td.Ringmaster(0.2, 0), 1)
    result = simulate(rule, problem, 12, snapshot_every=1)
    assert not result.state.fresh
    assert same_bits(textbook(result, problem, 0.2, batch, max_delay=0), result.history.x)


@pytest.mark.parametrize("rule", [td.Rennala(0.2, 3), td.Ringmaster(0.2, 2)])
def test_float32_stays(rule):
    problem = make_quadratics(dtype=np.float32)
    result = simulate(rule, problem, 20, snapshot_every=1)
    batch, max_delay = (3, 0) if isinstance(rule, td.Rennala) else (1, 2)
    assert result.history.x.dtype == np.float32
    assert same_bits(textbook(result, problem, np.float32(0.2), batch, max_delay), result.history.x)


@pytest.mark.parametrize("limit", [{}, {"max_delay": 10**6}, {"max_delay": 10**6, "cancel": True}], ids=str)
@pytest.mark.parametrize("step", STEPS, ids=["constant", "decreasing", "sweep"])
@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
def test_ringmaster_without_a_limit_is_asynchronous_sgd_bit_for_bit(next_client, step, limit):
    rules = td.Ringmaster(step, next_client=next_client, **limit), td.AsyncSGD(step, next_client)
    runs = [simulate(rule, make_problem(), 60) for rule in rules]
    assert same_bits(*(run.x for run in runs))
    assert same_bits(*(run.trace.table for run in runs))
    assert runs[0].trace.staleness.max() > 8


@pytest.mark.parametrize("step", STEPS, ids=["constant", "decreasing", "sweep"])
@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
def test_rennala_with_batch_one_is_ringmaster_without_delay_bit_for_bit(next_client, step):
    rules = td.Rennala(step, 1, next_client), td.Ringmaster(step, 0, next_client=next_client)
    runs = [simulate(rule, make_problem(), 60) for rule in rules]
    assert same_bits(*(run.x for run in runs))
    assert same_bits(*(run.trace.table for run in runs))


@pytest.mark.parametrize("step", STEPS, ids=["constant", "decreasing", "sweep"])
def test_with_one_task_in_flight_batch_one_is_sgd_bit_for_bit(step):
    rules = td.Rennala(step, 1), td.Ringmaster(step, 0), td.Ringmaster(step, 0, cancel=True), td.AsyncSGD(step)
    xs = [simulate(rule, shared_problem(), 60, concurrency=1).x for rule in rules]
    assert all(same_bits(x, xs[0]) for x in xs)


def test_a_worker_that_is_too_slow_is_never_heard_and_does_not_hold_up_the_others():
    result = simulate(td.Ringmaster(0.05, 8), make_problem(), 400)
    late = result.trace.staleness > 8
    assert set(result.trace["client"][late]) == {3}
    assert set(result.trace["client"][~late]) == {0, 1, 2}
    assert late.sum() == result.trace["received"][-1] // 9.7


def test_cancelled_tasks_are_asked_anew_at_the_newest_point():
    """Clients 0, 1, 2 take one second, client 3 takes 9.7: with at most 12 updates' delay it is called off every 5 seconds."""
    engine = td.Simulated(td.PerClient([1.0, 1.0, 1.0, 9.7]))
    result = simulate(td.Ringmaster(0.05, 12, cancel=True), make_problem(), 300, engine=engine)
    assert result.trace.staleness.max() <= 12
    assert 3 not in result.trace["client"]
    answered = set(result.trace["task"].tolist())
    assert result.state.issued - len(answered) - 4 == 300 // 13, "tasks that were called off"
    assert len(result.state.open) == 4
    longer = simulate(td.Ringmaster(0.05, 40, cancel=True), make_problem(), 300, engine=engine)
    assert 3 in longer.trace["client"]
    assert same_bits(longer.x, simulate(td.AsyncSGD(0.05), make_problem(), 300, engine=engine).x)


@pytest.mark.parametrize("rule", [td.Rennala(1.0, 2, "uniform"), td.Ringmaster(1.0, 1, True, "uniform")])
def test_every_reply_is_of_the_client_whose_id_the_task_carries(rule):
    result = simulate(rule, Names(5), 200, engine=td.Simulated(td.Exponential(1.0)), concurrency=6)
    used = result.trace.table[result.trace.staleness <= (0 if isinstance(rule, td.Rennala) else 1)]
    np.testing.assert_allclose(-result.x, np.bincount(used["client"], minlength=5) / getattr(rule, "batch", 1))


def test_weights_scale_gradients():
    weights = [0.1, 0.2, 0.3, 0.4]
    for rule in (td.Rennala(1.0, 4, "shuffled", concurrency=1), td.Ringmaster(0.25, 0, next_client="shuffled", concurrency=1)):
        n = 5 if isinstance(rule, td.Rennala) else 20
        np.testing.assert_allclose(-simulate(rule, Names(4, weights), n).x / 5, weights, rtol=1e-13)


@pytest.mark.parametrize("rule", [td.Rennala(0.05, 2), td.Ringmaster(0.05, 2)])
def test_on_data_that_differ_they_are_biased_to_fast_clients(rule):
    """The slowest client is not heard: the answer is near the others' minimiser, as the documentation warns."""
    problem = td.ClientQuadratics([1.0] * 4, [[0.0], [0.0], [0.0], [4.0]])
    assert problem.minimiser[0] == 1.0
    assert abs(simulate(rule, problem, 2000).x[0]) < 0.3
    fair = type(rule)(0.01, *((2,) if isinstance(rule, td.Rennala) else (None,)), next_client="uniform", concurrency=1)
    assert abs(simulate(fair, problem, 5000).x[0] - 1.0) < 0.5


def test_a_dropped_gradient_does_not_change_what_a_batch_holds():
    """Analytic: equal quadratics, so every batch is the exact gradient whoever is in it."""
    problem = td.ClientQuadratics([2.0] * 4, [[1.0]] * 4)
    result = simulate(td.Rennala(0.1, 3), problem, 30)
    assert result.x[0] == pytest.approx(1 - 0.8**30, rel=1e-12)


@pytest.mark.parametrize("rule", [td.Rennala(0.2, 3), td.Ringmaster(0.1, 3, cancel=True)])
def test_a_run_goes_on_from_its_checkpoint_in_every_bit(rule, tmp_path):
    problem, engine = make_problem(), td.Simulated(SLOW_LAST)
    td.run(rule, problem, engine, stop=td.MaxOracleCalls(31), checkpoint=tmp_path)
    again = td.resume(tmp_path, stop=td.MaxUpdates(60))
    assert same_bits(simulate(rule, problem, 60).state, again.state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: td.Rennala(0.0, 1), "step must be a positive number"),
        (lambda: td.Rennala(0.1, 0), "batch must be an integer >= 1"),
        (lambda: td.Rennala(0.1, 1.5), "batch must be an integer >= 1"),
        (lambda: td.Rennala(0.1, 1, "fastest"), "next_client must be one of"),
        (lambda: td.Ringmaster(-1.0), "step must be a positive number"),
        (lambda: td.Ringmaster(0.1, -1), "max_delay must be an integer >= 0"),
        (lambda: td.Ringmaster(0.1, np.inf), "max_delay must be an integer >= 0"),
        (lambda: td.Ringmaster(0.1, 3, cancel=1), "cancel must be True or False"),
        (lambda: td.Ringmaster(0.1, cancel=True), "cancel=True needs a limit .* pass max_delay"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(td.InvalidInputError, match=message):
        make()


@pytest.mark.parametrize("rule", [td.Rennala(0.1, 2), td.Ringmaster(0.1)])
def test_prescribed_delays_are_refused(rule):
    with pytest.raises(td.InvalidInputError, match="does not run on Prescribed: whether a reply is dropped"):
        simulate(rule, make_problem(), 1, engine=td.Prescribed(2))
