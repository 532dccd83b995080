"""SyncSGD and AsyncSGD: who is asked, how replies are weighed, and what is refused."""

import re

import numpy as np
import pytest
import scipy.stats

import tardigrad as td
from clients import Names
from conftest import make_problem
from tardigrad.testing import AnyOrder


def simulate(rule, problem, n, **kwargs):
    engine = kwargs.pop("engine", td.Simulated(td.Exponential(1.0)))
    return td.run(rule, problem, engine, stop=td.MaxUpdates(n), **kwargs)


def test_uniform_sampling_passes_a_chi_square_test_with_busy_clients_queueing():
    engine = td.Simulated(td.PerClient([1.0] * 9 + [30.0]))
    result = simulate(td.AsyncSGD(1e-3, "uniform"), Names(10), 5000, engine=engine, concurrency=200)
    issued = np.bincount(result.trace["client"], minlength=10)[:9]  # the slow one's tasks still wait in its line
    assert scipy.stats.chisquare(issued).pvalue > 1e-3
    assert result.trace.summary().in_flight_max == 200


def test_shuffled_passes_ask_every_client_once():
    result = simulate(td.AsyncSGD(1e-3, "shuffled"), Names(7), 70, engine=td.Simulated(td.Constant(1.0)), concurrency=1)
    passes = result.trace["client"].reshape(10, 7)
    assert all(sorted(row) == list(range(7)) for row in passes.tolist())
    assert len({tuple(row) for row in passes.tolist()}) > 1


@pytest.mark.parametrize("rule", [td.SyncSGD(0.1), td.SyncSGD(0.1, sample=2), td.AsyncSGD(0.1), td.AsyncBC(0.1)], ids=repr)
@pytest.mark.parametrize("shape", [(1,), (3, 4), (4,)])
def test_a_gradient_of_another_shape_is_an_error_that_names_both(rule, shape):
    class Wrong(td.ClientQuadratics):
        def gradient(self, client, x, sample=None):
            return np.ones(shape)

    problem = Wrong(np.ones(4), np.zeros((4, 3)))
    with pytest.raises(td.InvalidInputError, match=re.escape(f"a gradient has shape {shape}, the iterates (3,): they must")):
        simulate(rule, problem, 5)


def test_the_client_that_answered_is_asked_again():
    result = simulate(td.AsyncSGD(1e-3), Names(5), 100)
    trace = result.trace.table[np.argsort(result.trace["task"])]
    answered = {int(row["task"]): int(row["client"]) for row in trace}
    by_reply = result.trace["client"]
    for task, client in answered.items():
        assert client == (task if task < 5 else by_reply[task - 5])


def test_a_round_samples_without_replacement_and_uniformly():
    result = simulate(td.SyncSGD(1e-3, sample=3), Names(8), 800)
    rounds = result.trace.table[np.argsort(result.trace["task"])]["client"].reshape(-1, 3)
    assert all(len(set(row)) == 3 for row in rounds.tolist())
    assert scipy.stats.chisquare(np.bincount(rounds.ravel(), minlength=8)).pvalue > 1e-3


@pytest.mark.parametrize("rule", [td.SyncSGD(1.0), td.AsyncSGD(1.0, "shuffled", concurrency=1)], ids=["sync", "async"])
def test_weights_scale_gradients_to_the_weighted_sum(rule):
    weights = [0.1, 0.2, 0.3, 0.4]
    n = 1 if isinstance(rule, td.SyncSGD) else 4
    result = simulate(rule, Names(4, weights), n)
    np.testing.assert_allclose(-result.x / n, weights)


def test_sampled_rounds_are_unbiased_for_unequal_weights():
    weights = [0.1, 0.2, 0.3, 0.4]
    result = simulate(td.SyncSGD(1.0, sample=2), Names(4, weights), 4000)
    np.testing.assert_allclose(-result.x / 4000, weights, rtol=0.05)


def test_momentum_is_a_heavy_ball():
    result = simulate(td.AsyncSGD(1.0, momentum=0.5), Names(1), 4)
    np.testing.assert_allclose(result.x, -(1 + 1.5 + 1.75 + 1.875))


def test_early_replies_of_a_round_are_added_in_the_order_of_issue():
    problem = make_problem()
    runs = [simulate(td.SyncSGD(0.1), problem, 10, engine=AnyOrder(seed)) for seed in range(4)]
    assert len({run.x.tobytes() for run in runs}) == 1
    assert len({run.trace["task"].tobytes() for run in runs}) == 4


@pytest.mark.parametrize("make", [td.SyncSGD, td.AsyncSGD])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.0}, "step must be a positive number"),
        ({"step": -1}, "step must be a positive number"),
        ({"step": [0.1, np.nan]}, "step must be a positive number"),
        ({"step": "theory"}, "step must be a positive number"),
        ({"step": None}, "step must be a positive number"),
        ({"step": lambda n: 1 / n}, "step must be a positive number, an array of them or a StepSequence"),
        ({"step": 0.1, "momentum": 1.0}, "momentum must be a finite number >= 0 and < 1"),
        ({"step": 0.1, "momentum": "heavy"}, "momentum must be"),
    ],
)
def test_bad_parameters(make, arguments, message):
    with pytest.raises(td.InvalidInputError, match=message):
        make(**arguments)


@pytest.mark.parametrize("sample", [0, -1, 2.0, True, "2"])
def test_bad_sample(sample):
    with pytest.raises(td.InvalidInputError, match="sample must be an integer"):
        td.SyncSGD(0.1, sample=sample)


def test_a_sample_larger_than_the_number_of_clients():
    with pytest.raises(td.InvalidInputError, match="sample must be an integer between 1 and 4, not 5"):
        simulate(td.SyncSGD(0.1, sample=5), make_problem(), 1)


def test_an_unknown_next_client():
    with pytest.raises(td.InvalidInputError, match="next_client must be one of answered, uniform, shuffled, not 'fastest'"):
        td.AsyncSGD(0.1, next_client="fastest")


def test_numpy_scalars_do_not_change_the_precision_of_a_saved_run(tmp_path):
    problem = make_problem()
    problem = td.LeastSquares((problem.data.X.astype(np.float32), problem.data.y), td.Iid(4), batch=3)
    rule = td.AsyncSGD(td.PowerStep(np.float64(0.1), np.float32(0.5)), momentum=np.float64(0.9))
    result = simulate(rule, problem, 40)
    result.save(tmp_path)
    assert td.replay(tmp_path).identical
