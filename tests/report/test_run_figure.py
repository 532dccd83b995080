"""Pictures of runs are drawn from any run, and show what it holds."""

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from tardigrad.report.run_figure import MAX_WORKERS


def simulate(rule, n_clients=4, n=60, **kwargs):
    problem = make_problem()
    problem = td.LeastSquares((problem.data.X, problem.data.y), td.Iid(n_clients))
    return td.run(rule, problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(n), snapshot_every=10, **kwargs)


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_a_run_without_measures_shows_staleness_and_timeline(tmp_path):
    result = simulate(td.AsyncSGD(0.1))
    figure = result.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    mean, top = result.trace.staleness.mean(), result.trace.staleness.max()
    assert titles(figure) == [f"staleness: mean {mean:.2f}, max {top}", "who worked when (a bar a task)"]


@pytest.mark.parametrize("rule", [td.SyncSGD(0.1), td.AsyncSGD([0.05, 0.1])], ids=["one", "sweep"])
def test_evaluated_measures_are_drawn(rule):
    result = simulate(rule)
    result.evaluate()
    figure = result.plot()
    assert titles(figure)[:2] == ["loss", "gradient norm"]
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), result.history.seconds)


def test_many_workers_are_cut_off_and_that_is_said():
    figure = simulate(td.AsyncSGD(0.001), n_clients=48, n=200).plot()
    assert titles(figure)[-1] == f"who worked when: the first {MAX_WORKERS} of 48 workers"


def test_a_run_without_replies_can_be_drawn():
    result = simulate(td.AsyncSGD(0.1))
    problem = result.problem
    result = td.run(td.AsyncSGD(0.1), problem, td.Simulated(td.Constant(10.0)), stop=td.MaxSeconds(1.0))
    assert len(result.trace) == 0
    assert titles(result.plot())[0] == "staleness"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(td.RunFileError, match="cannot write"):
        simulate(td.AsyncSGD(0.1)).plot(tmp_path / "missing" / "run.png")
