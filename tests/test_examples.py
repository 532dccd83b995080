"""Examples run, and what they compute is right; how fast anything is, no test says."""

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest

import tardigrad as td

EXAMPLES = Path(__file__).parents[1] / "examples"
DISC = ((2.0, 0.6, 0.6, 0.1, -0.2, 0.0),)


@pytest.fixture
def tomography(monkeypatch):
    """The example as a module that does not wait, with few and short runs."""
    spec = importlib.util.spec_from_file_location("tomography", EXAMPLES / "tomography.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "tomography", module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "QUIET", 0.0)
    monkeypatch.setattr(module, "ROUNDS", 1)
    return module


def chord(offset, angle, disc=DISC[0]):
    """The integral of a disc along a ray, by Pythagoras."""
    value, radius, _, x, y, _ = disc
    distance = offset - (x * np.cos(angle) + y * np.sin(angle))
    return 2 * value * np.sqrt(np.maximum(radius**2 - distance**2, 0))


def test_projections_of_a_disc_are_chords(tomography):
    angles = np.arange(7)[:, np.newaxis] * np.pi / 7
    expected = chord(tomography.offsets(16, 1), angles)
    np.testing.assert_allclose(tomography.projections(16, 7, DISC, rays=1), expected, atol=1e-12)


def test_a_detector_averages_its_rays(tomography):
    fine = tomography.projections(32, 5, rays=1)
    np.testing.assert_allclose(tomography.projections(16, 5, rays=2), fine.reshape(5, 16, 2).mean(axis=2), atol=1e-12)
    fine = tomography.ray_matrix(8, 5, rays=3)
    one = [tomography._lengths(np.pi / 5, tomography.offsets(8, 3)[k : k + 1], 8) for k in (6, 7, 8)]
    row = np.zeros(64)
    for _, pixel, length in one:
        np.add.at(row, pixel, length / 3)
    np.testing.assert_allclose(fine.toarray()[1 * 8 + 2], row, atol=1e-12)


@pytest.mark.parametrize("angles", [2, 12])  # with 2, rays run along the grid
def test_lengths_of_a_ray_add_up_to_its_chord_of_the_image(tomography, angles):
    size = 10
    A = tomography.ray_matrix(size, angles, rays=1)
    for k in range(angles):
        c, s = np.abs(np.cos(k * np.pi / angles)), np.abs(np.sin(k * np.pi / angles))
        p = np.abs(tomography.offsets(size, 1))
        # the shadow of the square: flat in the middle, falling to zero at its corners
        flat, end = abs(c - s), c + s
        expected = np.clip((end - p) / max(end - flat, 1e-300), 0, 1) * 2 / max(c, s)
        np.testing.assert_allclose(A[k * size : (k + 1) * size].sum(axis=1), expected, atol=1e-12)


def test_lengths_lie_in_the_pixels_that_the_ray_crosses(tomography):
    size, angles = 9, 8
    A = tomography.ray_matrix(size, angles, rays=1).toarray().reshape(angles, size, size, size)
    centres = tomography.offsets(size, 1)
    x, y = centres[np.newaxis, :], -centres[:, np.newaxis]
    for k, angle in enumerate(np.arange(angles) * np.pi / angles):
        for detector, offset in enumerate(centres):
            crossed = A[k, detector] > 0
            far = np.abs(x * np.cos(angle) + y * np.sin(angle) - offset)
            half = (np.abs(np.cos(angle)) + np.abs(np.sin(angle))) / size  # half the shadow of a pixel
            assert not crossed[far > half + 1e-9].any()
            assert crossed[far < half - 1e-9].all()


def test_the_matrix_projects_a_disc_as_the_integrals_say(tomography):
    errors = []
    for size in (32, 128):
        seen = tomography.ray_matrix(size, 9) @ tomography.phantom(size, DISC).ravel()
        exact = tomography.projections(size, 9, DISC).ravel()
        errors.append(np.linalg.norm(seen - exact) / np.linalg.norm(exact))
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 3


def test_a_turned_ellipse_is_the_same_in_image_and_data(tomography):
    ellipse = ((1.0, 0.3, 0.7, -0.15, 0.1, 25.0),)
    seen = tomography.ray_matrix(64, 9) @ tomography.phantom(64, ellipse).ravel()
    exact = tomography.projections(64, 9, ellipse).ravel()
    assert np.linalg.norm(seen - exact) < 0.02 * np.linalg.norm(exact)


def test_iterations_of_lsqr_are_timed_one_by_one(tomography):
    image = tomography.phantom(16)
    A = tomography.ray_matrix(16, 12)
    run = tomography.LsqrRun(A, A @ image.ravel())
    curve = run.curve(image)
    assert len(curve.seconds) == len(curve.errors) == tomography.ITERATIONS + 1
    assert curve.seconds[0] == 0
    assert (np.diff(curve.seconds) > 0).all()
    assert curve.errors[0] == 1
    assert curve.errors[-1] < curve.errors[5] < curve.errors[1] < 1  # the data are exact
    np.testing.assert_allclose(run.operator.transposed.toarray(), A.toarray().T)


def test_a_curve_knows_its_levels(tomography):
    curve = tomography.Curve("a", np.arange(4), np.arange(4.0), np.array([1.0, 0.3, 0.1, 0.2]), np.zeros((4, 1)))
    later = tomography.Curve("b", np.arange(2), np.array([0.0, 9.0]), np.array([1.0, 0.05]), np.zeros((2, 1)))
    assert (curve.first(0.3), curve.first(0.2), curve.first(0.05), curve.best()) == (1, 2, None, 2)
    assert tomography.fastest([later, curve], 0.2) == (curve, 2)
    assert tomography.fastest([later, curve], 0.06) == (later, 1)
    assert tomography.fastest([later, curve], 0.01) is None


def test_the_script_prints_a_table_and_draws(tomography, tmp_path, capsys):
    tomography.main(["--size", "24", "--angles", "30", "--out", str(tmp_path / "new")])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    table = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert [len(row) for row in table] == [len(table[0])] * len(table)
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    levels = [float(row[0]) for row in table[2:]]
    assert levels == sorted(levels, reverse=True)
    assert set(tomography.LEVELS) <= set(levels)
    assert table[0][1].strip() == "lsqr"
    assert table[0][2].strip() == "rows, 1 thread"
    reached = [row for row in table[2:] if "not reached" not in row[1] + row[2]]
    assert reached  # the picture's level at least
    for row in reached:
        seconds = [float(cell.split(" s ")[0]) for cell in row[1:3]]
        assert min(seconds) >= 0
        assert "omega" in row[2]
    assert "Best image of each" in out
    assert "Order of the rows" in out
    assert "matrix 720 x 576" in err
    picture = tmp_path / "new" / "tomography.png"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 10_000


def test_rows_and_lsqr_find_the_same_image_where_data_are_exact(tomography):
    image = tomography.phantom(16)
    A = tomography.ray_matrix(16, 40)
    b = A @ image.ravel()
    rows = tomography.RowsRun(A, b, 1.0, 1).curve(image)
    assert rows.steps[-1] == tomography.PASSES
    assert rows.steps[1] == 0.25
    assert (np.diff(rows.seconds) > 0).all()
    assert rows.errors[0] == 1
    assert rows.errors[-1] < 0.05
    assert tomography.LsqrRun(A, b).curve(image).errors[-1] < 0.05


def test_best_of_keeps_the_smallest_seconds(tomography):
    class Stub:
        times = iter([[0.0, 1.0], [0.0, 3.0], [0.0, 5.0]])  # the first is compilation's

        def curve(self, image):
            return tomography.Curve("stub", np.arange(2), np.array(next(self.times)), np.ones(2), np.zeros((2, 1)))

    (curve,) = tomography.best_of([Stub()], np.ones(1), rounds=2)
    assert curve.seconds.tolist() == [0.0, 3.0]


@pytest.mark.parametrize("wrong", [["--size", "4"], ["--angles", "1"], ["--noise", "nan"], ["--noise", "-1"], ["--size", "x"]])
def test_wrong_options_are_named(tomography, wrong, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        tomography.main([*wrong, "--out", str(tmp_path / "new")])
    assert wrong[0] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.fixture
def volunteer_grid(monkeypatch):
    """The example as a module, with gradients that cost nothing."""
    spec = importlib.util.spec_from_file_location("volunteer_grid", EXAMPLES / "volunteer_grid.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "volunteer_grid", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SCENARIOS", 200)
    cloudpickle.register_pickle_by_value(module)  # workers cannot import it
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    gc.collect()  # results that are parts of a ring keep the memory of their traces open until then


def test_the_best_portfolio_fulfils_its_optimality_conditions(volunteer_grid):
    market = volunteer_grid.Portfolio.random(seed=3)
    x, gradient = market.best, market.covariance @ market.best - market.returns
    assert x.min() >= 0
    assert x.sum() == pytest.approx(1)
    assert 2 < (x > 0).sum() < len(x)  # the constraint matters
    held = x > 1e-9
    assert np.ptp(gradient[held]) < 1e-9
    assert gradient[~held].min() > gradient[held].mean() - 1e-9
    assert market.gap(np.full(len(x), 1 / len(x))) > 0.1


def test_gradients_of_scenarios_are_right_in_the_mean(volunteer_grid):
    market = volunteer_grid.Portfolio.random(seed=3)
    x, rng = np.linspace(0, 0.1, 30), np.random.default_rng(0)
    gradient = market.gradient()
    mean = np.mean([gradient(x, rng) for _ in range(500)], axis=0)
    np.testing.assert_allclose(mean, market.covariance @ x - market.returns, atol=0.02)


def test_volunteers_stop_for_longer_and_longer_and_the_own_worker_never(volunteer_grid):
    timing = volunteer_grid.volunteers(3, 0.1)
    events = list(volunteer_grid._events(timing, 3, 10.0))
    assert {worker for _, worker, _ in events} == {1, 2}
    for worker in (1, 2):
        mine = sorted((seconds, goes_on) for seconds, number, goes_on in events if number == worker)
        assert [goes_on for _, goes_on in mine] == [i % 2 == 1 for i in range(len(mine))]
        stops = volunteer_grid._stops([(seconds, worker, goes_on) for seconds, goes_on in mine], worker, 10.0)
        late = [(begin, length) for begin, length in stops[:-1] if begin > 1]
        assert late
        assert all(length == pytest.approx(0.1 * begin) for begin, length in late)


class Sleepers:
    """Stands for an engine with three processes that only sleep."""

    workers = 3

    def __init__(self):
        self.processes = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(3)]
        self.pids = [process.pid for process in self.processes]

    def states(self):
        return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in self.pids]

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="states of processes are read from /proc")
def test_a_grid_stops_processes_and_lets_all_go_on_at_its_end(volunteer_grid):
    sleepers = Sleepers()
    try:
        # volunteers are stopped at once and for long
        timing = td.OnOff(td.Constant(0.01), td.Constant(1e6))
        grid = volunteer_grid.Grid(sleepers, timing, 50.0)
        grid.observe(SimpleNamespace(seconds=0.0))
        deadline = time.monotonic() + 30
        while sleepers.states()[1:] != ["T", "T"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sleepers.states()[1:] == ["T", "T"]
        assert sleepers.states()[0] != "T"
        grid.close(None, "")
        while "T" in sleepers.states() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "T" not in sleepers.states()
        assert sorted(worker for _, worker, _ in grid.done) == [1, 2]
        grid.end()  # again does no harm
    finally:
        sleepers.close()


def test_the_grid_s_script_prints_a_table_and_draws(volunteer_grid, tmp_path, capsys):
    arguments = ["--seconds", "1.5", "--volunteers", "2", "--out", str(tmp_path / "new")]
    assert volunteer_grid.main(arguments) == 0
    out, err = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["nobody stopped", "grid", "grid, steps that fit"]
    for row in rows[2:]:
        assert float(row[3]) <= 2  # of three tasks in flight
        assert float(row[6]) < 0.2  # from 0.36
        assert row[7] in ("yes", "no")
    assert [row[1] for row in rows[2:]] == ["PowerStep", "PowerStep", "LogStep"]
    picture = tmp_path / "new" / "volunteer-grid.png"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 10_000
    assert "picture:" in err


def test_what_the_observer_warns_of_is_printed(volunteer_grid, tmp_path, capsys, monkeypatch):
    def minimize(*arguments, observers, **kwargs):
        warnings.warn("staleness grows like n^1.20", td.core.errors.TheoryWarning, stacklevel=2)
        return td.minimize(*arguments, observers=observers, **{**kwargs, "engine": "threads", "stop": td.MaxUpdates(30)})

    monkeypatch.setattr(
        volunteer_grid, "td", SimpleNamespace(**{**{n: getattr(td, n) for n in td.__all__}, "minimize": minimize})
    )
    market = volunteer_grid.Portfolio.random(seed=3)
    run = volunteer_grid.solve("one", market, 0.01, 2, 1.0, None)
    assert "n^1.20" in run.warning
    assert volunteer_grid.table([run], market).splitlines()[-1].split("|")[-2].strip() == "yes"


#: the script, whose first run is short, and whose second lasts until it is ended
UNTIL_IT_IS_ENDED = """
import sys

import volunteer_grid as grid

solve = grid.solve


def until_it_is_ended(name, market, steps, workers, seconds, timing):
    return solve(name, market, steps, workers, 0.5 if timing is None else 100.0, timing)


grid.solve = until_it_is_ended
sys.exit(grid.main())
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_the_grid_leaves_no_process_behind_however_it_ends(how, tmp_path):
    """Also where it is killed: the system lets stopped processes go on whose parent is gone, and they end."""
    path = os.pathsep.join([str(EXAMPLES), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "TARDIGRAD_TEST_MARK": str(tmp_path)}
    command = [sys.executable, "-c", UNTIL_IT_IS_ENDED, "--volunteers", "2", "--share", "5", "--out", str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    mark = f"TARDIGRAD_TEST_MARK={tmp_path}".encode()

    def workers():
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if int(folder.name) != process.pid and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
        return {pid: state for pid, state in found.items() if state != "Z"}

    try:
        assert _comes_true(lambda: "T" in workers().values())  # the second run has begun
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
        assert _comes_true(lambda: not workers()), workers()
        if how == signal.SIGINT:
            assert process.returncode == 130, err
            assert "nobody stopped" in out
            assert "interrupted" in err
    finally:
        process.kill()
        process.communicate()


def _comes_true(condition, seconds=40.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
