"""Examples run, and what they compute is right; how fast anything is, no test says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

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
