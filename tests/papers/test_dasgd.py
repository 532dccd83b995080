"""Figure 1 of the DASGD paper and what stands beside it: realisations against a loop written out, and what is reported."""

import json

import numpy as np
import pytest

import tardigrad as td
from tardigrad.benchmarks import dasgd as bench
from tardigrad.papers import dasgd, dasgd_constants, dasgd_delays
from tardigrad.papers.at_updates import geometric
from tardigrad.papers.dasgd import CONSTANTS, Constants, figure1, realise, start
from tardigrad.theory.dual_averaging import LogLogStep, LogStep


def written_out(x0, constants, n_updates):
    """Algorithm 2 without noise and delay, and its ergodic average."""
    y, x, total, weight = x0.copy(), x0, np.zeros_like(x0), 0.0
    for n in range(n_updates):
        m = n + constants.offset
        step = constants.scale / (m * np.log(m))
        y = y - step * bench.rosenbrock_gradient(x)
        x = np.clip(y, 0, 2)
        total, weight = total + step * x, weight + step
    return x, total / weight


def test_a_realisation_is_the_algorithm(monkeypatch):
    monkeypatch.setattr(td.Rosenbrock, "sample", lambda self, client, rng: None)
    constants, x0 = Constants(0.2, 200.0), start(5, dim=11)
    found = realise("synchronous", constants, x0[None], 300)
    x, average = written_out(x0, constants, 300)
    problem = td.Rosenbrock(11)
    assert found.updates.tolist() == [0, *geometric(300, points=120)]
    assert found.last[0, 0] == problem.objective(x0)
    assert found.last[-1, 0] == pytest.approx(problem.objective(x), rel=1e-9)
    assert found.ergodic[-1, 0] == pytest.approx(problem.objective(average), rel=1e-9)


def test_the_plain_loop_of_the_benchmark_is_the_algorithm(monkeypatch):
    class Silent:
        def standard_normal(self, n):
            return np.zeros(n)

        def random(self):
            return 0.0

    monkeypatch.setattr(bench.np.random, "default_rng", lambda seed: Silent())
    constants = Constants(0.2, 200.0)
    x0 = np.linspace(0, 2, 11)
    x, _ = written_out(x0, constants, 300)
    assert bench.plain_loop(constants, x0, 300, 0.0, 0) == pytest.approx(float(td.Rosenbrock(11).objective(x)), rel=1e-12)


def test_the_plain_loop_keeps_what_later_updates_read():
    for share in (0.1, 0.9):
        assert np.isfinite(bench.plain_loop(Constants(0.01, 100.0), start(5, 11), 400, share, 0))


@pytest.mark.parametrize("schedule", CONSTANTS)
def test_realisations_differ_in_noise_and_repeat(schedule):
    constants = CONSTANTS[schedule][0]
    x0 = np.tile(start(5), (3, 1))
    found = [realise(schedule, constants, x0, 200) for _ in range(2)]
    assert len(set(found[0].last[-1])) == 3
    assert found[0].last.tobytes() == found[1].last.tobytes()
    assert (np.diff(found[0].updates) > 0).all()


def test_the_start_is_the_one_that_was_named():
    assert start(5).tobytes() == np.random.default_rng(5).uniform(0, 2, 101).tobytes()
    assert 5 not in dasgd.OTHER_STARTS
    assert len(dasgd.OTHER_STARTS) == 20


@pytest.fixture(scope="module")
def short():
    return figure1(n_updates=300, realisations=4, each=2, others=(0, 1, 2))


def test_rows_of_the_figure(short):
    names = ["schedule", "x0_seed", "final_mean", "final_min", "final_max", "final_ergodic", "n_updates", "scale", "offset"]
    assert [list(row)[:9] for row in short.rows] == [names] * 8
    assert [(row["schedule"], row["x0_seed"]) for row in short.rows[:2]] == [("synchronous", 5), ("delayed", 5)]
    assert [row["x0_seed"] for row in short.rows[2:]] == [0, 1, 2] * 2
    assert [row["realisations"] for row in short.rows] == [4, 4] + [2] * 6
    for row in short.rows:
        assert 0 < row["final_min"] <= row["final_mean"] <= row["final_max"]
        assert row["n_updates"] == 300
        assert (row["arrived"] == 1) == (row["final_max"] < 0.1)
    json.dumps(short.to_json())


def test_the_curves_are_in_the_first_rows(short):
    for row in short.rows[:2]:
        assert row["updates"][0] == 0
        assert row["updates"][-1] == 300
        assert {len(row[name]) for name in ("updates", "mean", "min", "max", "sample", "ergodic")} == {len(row["updates"])}
        assert row["mean"][-1] == row["final_mean"]
        assert all(low <= x <= high for low, x, high in zip(row["min"], row["sample"], row["max"], strict=True))
    assert "updates" not in short.rows[2]


def test_each_row_is_of_its_own_start(short):
    last = realise("delayed", CONSTANTS["delayed"][1], np.repeat([start(k) for k in (0, 1, 2)], 2, axis=0), 300, seed=1).last[
        -1
    ]
    for i, row in enumerate(short.rows[5:]):
        assert row["final_max"] == last[2 * i : 2 * i + 2].max()


def test_what_is_said_of_the_figure(short):
    text = short.table()
    assert "all 2 from" in text
    assert "synchronous: the best ergodic average ends at" in text
    assert "30/(m log m), m = n + 10000" in text


def test_the_ergodic_average_is_compared_with_the_worst():
    updates = np.array([0, 1, 2, 3])
    last = np.array([[5.0, 5.0], [3.0, 4.0], [2.0, 1.0], [1.0, 1.0]])
    ergodic = np.array([[5.0, 5.0], [3.5, 9.0], [2.5, 3.0], [1.5, 2.0]])
    one = dasgd.Realisations("delayed", Constants(1.0, 2.0), updates, last, ergodic)
    assert dasgd._compared(one).endswith("ends at 1.5, worse than the worst realisation, 1; so from update 2 on")
    other = dasgd.Realisations("delayed", Constants(1.0, 2.0), updates, last, last)
    assert dasgd._compared(other).endswith("ends at 1, not worse than the worst realisation, 1")


def test_the_figure_is_drawn(short, tmp_path):
    short.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 20_000


def test_an_unknown_schedule():
    with pytest.raises(td.InvalidInputError, match="schedule must be one of synchronous, delayed, not 'late'"):
        realise("late", Constants(1.0, 10.0), start(5)[None], 5)


def test_the_search_for_constants_tries_every_setting_from_every_start():
    found = dasgd_constants.constants(100, {"synchronous": ((100, 1000), (0.1, 0.5)), "delayed": ((200,), (0.1,))})
    assert [found.rows[0][name] for name in ("schedule", "scale", "offset")] == ["delayed", 0.1, 200]
    assert len(found.rows) == 5
    x0 = np.stack([start(k) for k in (5, *dasgd.OTHER_STARTS)])
    problem = td.Rosenbrock()
    row = next(row for row in found.rows if row["scale"] == 0.5 and row["offset"] == 1000)
    rule = td.DASGD(LogStep(0.5, 1000), problem.constraint)
    alone = td.run(rule, problem, td.Prescribed(0), stop=td.MaxUpdates(100), x0=x0, replicas=21, seed=2)
    ends = problem.objective(alone.x)
    assert row["median"] == pytest.approx(float(np.median(ends)), rel=1e-9)
    assert row["start_5"] == pytest.approx(ends[0], rel=1e-9)
    assert row["arrived"] == (ends < 0.1).sum()
    assert "synchronous: best at scale" in found.comment


def test_the_figures_start_arrives_without_delay_and_with_it():
    """A tenth of the figure's updates, a few realisations: both are on their way into the valley's end."""
    for schedule, (constants, _) in CONSTANTS.items():
        end = realise(schedule, constants, np.tile(start(5), (4, 1)), 5000)
        assert end.last[-1].max() < 0.05
        assert end.ergodic[-1].min() > end.last[-1].max()


def test_coherence_is_contradicted():
    found = dasgd.coherence()
    by_dim = {row["dim"]: row for row in found.rows}
    assert by_dim[2]["reproduced"] == pytest.approx(-48, abs=0.01)
    assert by_dim[101]["reproduced"] < -929
    for dim, row in by_dim.items():
        x = np.array(row["worst_point"])
        assert ((x >= 0) & (x <= 2)).all()
        assert td.Rosenbrock(dim).exact_gradient(x) @ (x - 1) == pytest.approx(row["reproduced"])
    assert "violated in 4 of 4 dimensions" in found.comment


@pytest.fixture(scope="module")
def late():
    return dasgd_delays.delays(n_updates=10_000, realisations=8)


def test_steps_that_are_too_large_for_the_delays_fail_and_are_warned_of(late):
    rows = {row["steps"]: row for row in late.rows}
    assert list(rows) == ["1/(n log n log log n)", "the same, proposed", "1/(n log n)", "1/n^(3/4)"]
    assert [row["warned"] for row in late.rows] == [False, False, True, True]
    assert rows["1/n^(3/4)"]["final"] > 2 * rows["1/n^(3/4)"]["at_1000"]
    for fits in ("1/(n log n log log n)", "the same, proposed"):
        assert rows[fits]["final"] < rows[fits]["at_1000"] < rows[fits]["at_100"]
    assert rows["1/(n log n)"]["final"] > rows["1/(n log n log log n)"]["final"]
    assert "LogLogStep" in late.comment
    assert [key for key in late.rows[0] if key.startswith("at_")] == ["at_100", "at_1000", "at_10000"]
    json.dumps(late.to_json())


def test_the_course_is_drawn(late, tmp_path):
    late.draw(tmp_path / "courses.png")
    assert (tmp_path / "courses.png").stat().st_size > 20_000


def test_a_course_is_algorithm_2_under_delays_of_the_square(monkeypatch):
    monkeypatch.setattr(td.Quadratic, "sample", lambda self, client, rng: None)
    found = dasgd_delays.course(LogLogStep(2.0, 10.0), 200, realisations=1)
    problem = td.Quadratic(dasgd_delays.EIGENVALUES)
    step = found.step
    xs = [-2 * problem.minimiser]
    y = xs[0]
    for n in range(200):
        read = max(m for m in range(n + 1) if m + m**2 <= n)
        y = y - step(n) * problem.exact_gradient(xs[read])
        xs.append(y / max(1.0, np.linalg.norm(y)))
    assert found.values[-1, 0] == pytest.approx(problem.objective(xs[-1]), rel=1e-9)
    assert {10, 100, 200} <= set(found.updates.tolist())


def test_proposed_steps_are_of_the_third_kind():
    assert [type(step) for step in dasgd_delays.sequences(1000).values()][:3] == [LogLogStep, LogLogStep, LogStep]


def test_the_benchmark_on_a_small_case(monkeypatch):
    rows = list(bench.rows(n_updates=400, realisations=5, plain=2, dim=11))
    assert [row.unit for row in rows] == ["s", "updates/s"] * 2
    assert all(row.value > 0 and row.control_value > 0 for row in rows)
    with pytest.raises(AssertionError, match="the plain loop ends at"):
        bench.check_same(np.array([1.0, 1.1]), [5.0])
