"""Settings under which a rule must equal the textbook method, bit for bit."""

import numpy as np
import pytest

import tardigrad as td
from clients import make_weighted
from conftest import make_problem
from tardigrad.core.streams import Domain, Stream


def one_client(**kwargs):
    problem = make_problem()
    return td.LeastSquares((problem.data.X, problem.data.y), **{"batch": 3, **kwargs})


def textbook(problem, step, momentum, n_updates, seed=0):
    """x <- x - step v, v <- momentum v + g, written out."""
    x, v = problem.x0(), np.zeros(problem.dim)
    stream = Stream(seed, Domain.TASK)
    for n in range(n_updates):
        g = problem.gradient(0, x, problem.sample(0, stream.at(n)))
        v = momentum * v + g if momentum else g
        x = x - (step(n) if callable(step) else step) * v
    return x


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("step", [0.05, td.PowerStep(0.3, 0.75, 2.0)], ids=["constant", "decreasing"])
@pytest.mark.parametrize("make", [td.SyncSGD, td.AsyncSGD])
@pytest.mark.parametrize("engine", [lambda: td.Simulated(td.Exponential(1.0)), lambda: td.Processes(1)], ids=["sim", "proc"])
def test_one_client_without_delay_is_textbook_sgd(make, step, momentum, engine):
    problem = one_client()
    result = td.run(make(step, momentum=momentum), problem, engine(), stop=td.MaxUpdates(50))
    assert result.x.tobytes() == textbook(problem, step, momentum, 50).tobytes()
    assert result.trace.staleness.max() == 0


@pytest.mark.parametrize("next_client", ["answered", "uniform", "shuffled"])
def test_one_client_makes_all_choices_of_the_next_client_equal(next_client):
    problem = one_client()
    result = td.run(td.AsyncSGD(0.05, next_client), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(30))
    assert result.x.tobytes() == textbook(problem, 0.05, 0.0, 30).tobytes()


def test_float32_problem_is_textbook_sgd_in_float32():
    problem = make_problem()
    problem = td.LeastSquares((problem.data.X.astype(np.float32), problem.data.y), batch=3)
    result = td.run(td.AsyncSGD(0.05), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(30))
    expected = textbook(problem, np.float32(0.05), 0.0, 30)
    assert result.x.dtype == np.float32
    assert result.x.tobytes() == expected.astype(np.float32).tobytes()


def test_synchronous_round_is_gradient_descent_on_the_weighted_sum():
    problem = make_weighted(batch=None)
    result = td.run(td.SyncSGD(0.1), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(25))
    x = problem.x0()
    for _ in range(25):
        x = x - 0.1 * problem.full_gradient(x)
    np.testing.assert_allclose(result.x, x, rtol=1e-12, atol=1e-13)


def test_sampling_every_client_is_a_full_round_up_to_rounding():
    problem = make_problem(batch=None)
    runs = [
        td.run(td.SyncSGD(0.1, sample=n), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(25)) for n in (None, 4)
    ]
    np.testing.assert_allclose(runs[0].x, runs[1].x, rtol=1e-11)


def test_round_robin_staleness_is_the_number_of_other_clients():
    result = td.run(td.AsyncSGD(0.01), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(100))
    assert (result.trace.staleness[4:] == 3).all()
    assert result.trace.staleness[:4].tolist() == [0, 1, 2, 3]


def test_delayed_gradient_descent_follows_its_linear_recursion():
    """f = |x|^2 / 2 with delay d: x_{t+1} = x_t - step x_{t-d}, an analytic recursion."""
    problem = td.LeastSquares((np.ones((4, 1)), np.zeros(4)), td.Iid(4))
    result = td.run(
        td.AsyncSGD(0.2), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(60), x0=np.ones(1), snapshot_every=1
    )
    x = [1.0]
    for t in range(60):
        x.append(x[t] - 0.2 * x[max(t - 3, 0) if t >= 3 else 0])
    np.testing.assert_allclose(result.history.x[:, 0], x, rtol=1e-12, atol=1e-14)
    roots = np.roots([1.0, -1.0, 0.0, 0.0, 0.2])  # of gamma^4 - gamma^3 + 0.2
    decay = np.abs(result.history.x[-20:, 0]).max() ** (1 / 50)
    assert decay == pytest.approx(np.abs(roots).max(), rel=0.03)


def test_delay_adaptive_step_divides_by_staleness_beyond_the_tasks_in_flight():
    problem = td.LeastSquares((np.ones((4, 1)), np.zeros(4)), td.Iid(4))
    timing = td.PerClient([1.0, 1.0, 1.0, 8.5])
    result = td.run(
        td.AsyncSGD(0.1, delay_adaptive=True),
        problem,
        td.Simulated(timing),
        stop=td.MaxUpdates(40),
        x0=np.ones(1),
        snapshot_every=1,
    )
    x, staleness = result.history.x[:, 0], result.trace.staleness
    assert staleness.max() > 4
    for t in range(40):
        expected = x[t] - 0.1 * 4 / max(4, staleness[t]) * x[result.trace["version_read"][t]]
        assert x[t + 1] == pytest.approx(expected, rel=1e-12)


def test_one_replica_of_a_sweep_is_the_single_run():
    """Not bit for bit: BLAS multiplies a matrix with other kernels than a vector."""
    problem = make_problem()
    engine = td.Simulated(td.Exponential(1.0))
    sweep = td.run(td.AsyncSGD([0.02, 0.1]), problem, engine, stop=td.MaxUpdates(50), seed=4)
    for i, step in enumerate([0.02, 0.1]):
        single = td.run(td.AsyncSGD(step), problem, engine, stop=td.MaxUpdates(50), seed=4)
        np.testing.assert_allclose(sweep.x[i], single.x, rtol=1e-11)


def test_replicas_have_independent_noise_and_steps_of_a_sweep_share_it():
    problem = make_problem()
    result = td.run(td.AsyncSGD([0.05, 0.05]), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(20), replicas=4)
    assert (result.x[:, 0] == result.x[:, 1]).all()
    assert len({row.tobytes() for row in result.x[:, 0]}) == 4
