import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import tardigrad as td
from tardigrad.solvers.linear_result import FAR, probe_consistency


def gaussian(noise=0.0, scale=1.0, make=np.array, n_rows=400, dim=30, dtype=np.float64):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(n_rows, dim)).astype(dtype)
    b = A @ np.ones(dim, dtype) + noise * rng.normal(size=n_rows)
    return td.LinearSystem(make(A * scale), b * scale)


def least_squares(system):
    A = system.A.toarray() if sp.issparse(system.A) else system.A
    x = np.linalg.lstsq(A, system.b, rcond=None)[0]
    return x, np.linalg.norm(system.b - A @ x) / np.linalg.norm(system.b)


@pytest.mark.parametrize("make", [np.array, sp.csr_array])
@pytest.mark.parametrize("start", ["zero", "far", "least squares"])
def test_noise_is_known_wherever_the_probe_starts(make, start):
    system = gaussian(0.1, make=make)
    best, left = least_squares(system)
    x = {"zero": np.zeros(30), "far": np.full(30, 50.0), "least squares": best}[start]
    probe = probe_consistency(system, x, 1e-6, 40)
    assert probe.inconsistent
    assert probe.residual == pytest.approx(left, rel=1e-3)


@pytest.mark.parametrize("start", ["zero", "far"])
def test_a_consistent_system_is_solved_by_the_probe(start):
    system = gaussian()
    probe = probe_consistency(system, np.full(30, 0.0 if start == "zero" else 50.0), 1e-6, 60)
    assert not probe.inconsistent
    assert probe.residual <= 1.01e-6


def test_with_too_few_iterations_nothing_is_said():
    assert not probe_consistency(gaussian(0.1), np.zeros(30), 1e-6, 1).inconsistent


def test_what_a_larger_tolerance_allows_is_not_called_inconsistent():
    system = gaussian(0.1)
    left = least_squares(system)[1]
    assert not probe_consistency(system, np.zeros(30), 1.1 * left, 60).inconsistent
    assert probe_consistency(system, np.zeros(30), 0.9 * left, 60).inconsistent


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_sizes_of_numbers_do_not_matter(scale):
    plain, scaled = gaussian(0.1), gaussian(0.1, scale)
    x = np.full(30, 0.5)
    ours, theirs = (probe_consistency(system, x, 1e-6, 40) for system in (plain, scaled))
    assert ours.inconsistent
    assert theirs.inconsistent
    assert theirs.residual == pytest.approx(ours.residual, rel=1e-9)
    assert theirs.rounding == pytest.approx(ours.rounding, rel=1e-9)


def test_units_of_unknowns_do_not_matter():
    rng = np.random.default_rng(1)
    units = 10.0 ** rng.integers(-6, 7, size=30)
    plain = gaussian(0.1)
    other = td.LinearSystem(plain.A * units, plain.b)
    ours, theirs = (probe_consistency(system, np.zeros(30), 1e-6, 40) for system in (plain, other))
    assert theirs.inconsistent
    assert theirs.residual == pytest.approx(ours.residual, rel=1e-6)
    rows = np.linspace(0, 1, 30)
    consistent = td.LinearSystem(plain.A * units, plain.A @ rows)
    assert not probe_consistency(consistent, np.zeros(30), 1e-6, 5).inconsistent


@pytest.mark.parametrize("iterations", [1, 3, 10, 30, 100])
@pytest.mark.parametrize("n", [10, 50, 200])
def test_no_consistent_hilbert_system_is_called_inconsistent(n, iterations):
    H = scipy.linalg.hilbert(n)
    for x in (np.ones(n), (-1.0) ** np.arange(n), np.random.default_rng(n).normal(size=n)):
        system = td.LinearSystem(H, H @ x)
        for start in (np.zeros(n), 0.9 * x):
            assert not probe_consistency(system, start, 1e-9, iterations).inconsistent


@pytest.mark.parametrize(("apart", "inconsistent"), [(1e-2, False), (1e-3, False), (1e-6, True), (1e-8, True)])
def test_where_the_limit_lies(apart, inconsistent):
    """Columns that differ by `apart`, b a difference of them: a solution is 1 / apart times as long as b."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(300, 1)) + apart * rng.normal(size=(300, 60))
    system = td.LinearSystem(A, A @ (-1.0) ** np.arange(60))
    for iterations in (1,) if inconsistent else (1, 2, 5, 10):  # more of them find where it is
        assert probe_consistency(system, np.zeros(60), 1e-6, iterations).inconsistent is inconsistent
    assert 1e-3 > 1 / FAR > 1e-6


def test_rounding_of_float32():
    system = gaussian(dtype=np.float32)
    probe = probe_consistency(system, np.ones(30, np.float32), 1e-9, 40)
    eps = float(np.finfo(np.float32).eps)
    assert 0.1 * eps < probe.rounding < 1000 * eps
    big = probe_consistency(system, np.full(30, 1000, np.float32), 1e-9, 40)
    assert big.rounding == pytest.approx(1000 * probe.rounding, rel=1e-6)


def test_columns_and_right_hand_sides_of_zeros():
    system = gaussian(0.1)
    A = system.A.copy()
    A[:, 3] = 0
    assert probe_consistency(td.LinearSystem(A, system.b), np.zeros(30), 1e-6, 40).inconsistent
    found = probe_consistency(td.LinearSystem(A, np.zeros(400)), np.ones(30), 1e-6, 60)
    assert not found.inconsistent
    assert found.residual <= 1e-6


def test_all_of_a_result_is_there():
    A = np.random.default_rng(0).normal(size=(300, 5))
    found = td.linsolve(A, A @ np.ones(5), method="averaged")
    assert found.parameters.keys() >= {"omega", "theta"}
    assert isinstance(found.sketch, td.RowBlocks)
    assert 0 <= found.measure_seconds <= found.wall_seconds
    assert f"method averaged with {found.sketch!r}" in found.message
