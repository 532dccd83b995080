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


def test_a_run_without_a_server_shows_its_updates_by_worker(small_problem):
    result = td.run(td.Hogwild(0.05), small_problem, td.Threads(2, lock_free=True), stop=td.MaxUpdates(50))
    (axes,) = result.plot().axes
    assert axes.get_title(loc="left") == "updates by worker, without a server"
    assert [bar.get_height() for bar in axes.patches] == result.state.counts


def test_prescribed_versions_show_their_staleness_by_update(small_problem):
    result = td.run(td.AsyncSGD(0.05), small_problem, td.Prescribed(3), stop=td.MaxUpdates(50))
    axes = result.plot().axes[-1]
    assert axes.get_title(loc="left") == "staleness of update n"
    assert axes.lines[0].get_ydata().tolist() == [0, 1, 2] + [3] * 47


def test_the_first_death_is_in_the_picture(small_problem):
    result = td.run(td.AsyncSGD(0.05), small_problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(4000))
    kinds = ("died", 2, 500.0), ("replaced", 2, 510.0), ("slow", 1, 520.0), ("died", 3, 900.0)
    result.incidents = [{"seconds": s, "kind": kind, "worker": w, "task": None, "text": ""} for kind, w, s in kinds]
    axes = result.plot().axes[-1]
    low, high = axes.get_xlim()
    assert low <= 500
    assert 520 <= high < 900
    (marks,) = axes.lines
    assert list(zip(marks.get_xdata(), marks.get_ydata(), strict=True)) == [(500.0, 2), (520.0, 1)]
