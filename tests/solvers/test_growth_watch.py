"""The observer that warns when staleness outgrows the steps."""

import warnings

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem

POWER, LOG, LOG_LOG = td.PowerStep(0.01, 0.75, 100.0), td.LogStep(0.1, 100.0), td.LogLogStep(0.1, 100.0)


def watched(step, engine, n=8000, seed=0, problem=None):
    """The warnings of a run, and its watch."""
    watch = td.GrowthWatch(step)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problem = problem or make_problem()
        td.run(td.DASGD(step), problem, engine, stop=td.MaxUpdates(n), observers=[watch], seed=seed)
    return [str(warning.message) for warning in caught if warning.category is td.TheoryWarning], watch


ENGINES = {
    "constant": (lambda: td.Prescribed(20), 0.0),
    "n^0.5": (lambda: td.Prescribed(td.PowerDelay(0.5)), 0.5),
    "linear": (lambda: td.Prescribed(td.UniformDelay(0.5)), 1.0),
    "n^2": (lambda: td.Prescribed(td.PowerDelay(2.0), horizon=8000), 2.0),
}


FITTING = {0.5: "PowerStep", 1.0: "LogStep", 2.0: "LogLogStep"}


@pytest.mark.parametrize("step", [0.01, POWER, LOG, LOG_LOG], ids=["0.01", "PowerStep", "LogStep", "LogLogStep"])
@pytest.mark.parametrize("engine", ENGINES)
def test_it_warns_once_where_growth_is_beyond_what_is_proven_and_nowhere_else(engine, step):
    make, exponent = ENGINES[engine]
    messages, watch = watched(step, make())
    limit = step.proven_for if isinstance(step, td.StepSequence) else None
    expected = exponent > 0 if limit is None else not limit.allows(exponent)
    assert len(messages) == expected
    assert watch.growth.exponent == pytest.approx(exponent, abs=0.2)  # as it was when it warned
    if expected:
        assert watch.warning == messages[0]
        number = float(messages[0].partition("n^")[2].partition(",")[0])
        assert number == pytest.approx(exponent, abs=0.2)
        assert f"take {FITTING[exponent]}" in messages[0]
        assert "lipschitz) proposes" in messages[0]  # every update is late: the mean grows too


TIMINGS = [
    td.Constant(1.0),
    td.Exponential(1.0),
    td.Pareto(1.0, tail=1.2),
    td.LogNormal(1.0, 2.0),
    td.PerClient([1.0, 1.0, 1.0, 40.0]),
    td.RandomStragglers(0.01, 200.0),
]


@pytest.mark.parametrize("timing", TIMINGS, ids=lambda timing: type(timing).__name__)
@pytest.mark.parametrize("step", [0.01, POWER], ids=["0.01", "PowerStep"])
def test_stationary_durations_raise_no_alarm(timing, step):
    for seed in range(4):
        messages, _ = watched(step, td.Simulated(timing), n=5000, seed=seed)
        assert not messages


def test_a_client_that_slows_down_is_named():
    problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Shared(4))
    messages, watch = watched(
        POWER, td.Simulated(td.Growing(1.0, scale=0.05, rate=3.0, clients=(2,))), n=20_000, problem=problem
    )
    assert len(messages) == 1
    assert watch.growth.client == 2
    assert "(that of client 2)" in messages[0]
    assert "lipschitz, staleness=3" in messages[0] or "lipschitz, staleness=2." in messages[0]


def test_it_looks_whenever_updates_have_doubled():
    looks = []

    class Watch(td.GrowthWatch):
        def observe(self, moment):
            looks.append(moment.version)
            super().observe(moment)

    watch = Watch(POWER)
    for _ in range(2):  # and serves again
        looks.clear()
        td.run(td.DASGD(POWER), make_problem(), td.Prescribed(1), stop=td.MaxUpdates(9000), observers=[watch])
        assert looks == [0, 1000, 2000, 4000, 8000, 9000]


def test_a_lock_free_run_has_nothing_to_look_at():
    problem = td.LinearSystem(np.eye(4), np.ones(4), n_clients=2)
    watch = td.GrowthWatch(0.1)
    td.run(td.RowAction(0.5), problem, td.Threads(2, lock_free=True), stop=td.MaxUpdates(3000), observers=watch)
    assert watch.growth is None or not watch.growth.replies
    assert not watch.warning


def test_its_argument_is_a_step():
    with pytest.raises(td.InvalidInputError, match="step must be a positive number"):
        td.GrowthWatch("auto")
