"""The averaged method beside its bound: exact moments against sampling and closed forms, and what is reported."""

import json

import numpy as np
import pytest

import second_moments
import tardigrad as td
from tardigrad.papers import reproduce
from tardigrad.papers.apsgd_moments import exact_second_moment, row_projections
from tardigrad.papers.apsgd_simulation import (
    SCENARIOS,
    check_all,
    check_bound,
    small_system,
)
from tardigrad.theory.delayed_recurrence import recurrence_curve
from tardigrad.theory.sketch_project import recurrence_constants


def units_and_chances(m=9, n=4, seed=0):
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(m, n))
    return U / np.linalg.norm(U, axis=1, keepdims=True), rng.dirichlet(np.ones(m))


VERSIONS = {
    "none": np.arange(40),
    "constant": np.maximum(np.arange(40) - 5, 0),
    "any": np.array([np.random.default_rng(t).integers(0, t + 1) for t in range(40)]),
}


@pytest.mark.parametrize("versions", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize(("omega", "theta"), [(1.0, 1.0), (1.7, 0.4), (3.5, 0.2)])
def test_exact_moments_agree_with_every_cross_covariance(versions, omega, theta):
    U, _ = units_and_chances()
    P = np.einsum("ij,ik->ijk", U, U)
    start = np.random.default_rng(1).normal(size=4)
    expected = second_moments.errors(P, start, 1 - theta, theta, theta * omega, versions)
    found = exact_second_moment(U, np.full(9, 1 / 9), versions, omega, theta, start)
    np.testing.assert_allclose(found, expected / expected[0], rtol=1e-10)


def test_exact_moments_of_the_basic_method_are_powers_for_equal_eigenvalues():
    curve = exact_second_moment(np.eye(3), np.full(3, 1 / 3), np.arange(20), 0.5, 1.0, np.array([1.0, 2.0, -1.0]))
    np.testing.assert_allclose(curve, (1 - 0.5 * 1.5 / 3) ** np.arange(21), rtol=1e-12)


def test_exact_moments_of_a_deterministic_delayed_method():
    """One unknown: x[t+1] = (1 - theta) x[t] + theta (1 - omega) x[s(t)]."""
    versions = VERSIONS["any"]
    x = [1.0]
    for t, s in enumerate(versions):
        x.append(0.6 * x[t] + 0.4 * (1 - 0.7) * x[s])
    curve = exact_second_moment(np.ones((1, 1)), np.ones(1), versions, 0.7, 0.4, np.array([3.0]))
    np.testing.assert_allclose(curve, np.square(x), rtol=1e-10)


@pytest.mark.parametrize("versions", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("bound", ["tight", "paper"])
def test_exact_moments_stay_under_theorem_5_from_every_start(versions, bound):
    U, p = units_and_chances()
    W = (U.T * p) @ U
    lams, V = np.linalg.eigh(W)
    for omega, theta in [(0.8, 0.9), (1.5, 0.5), (2.5, 0.2), (1.9 / lams[-1], 0.1)]:
        K1, K2 = recurrence_constants(lams[0], lams[-1], theta, omega, bound)
        curve = recurrence_curve(K1, K2, versions)
        for start in V.T:
            exact = exact_second_moment(U, p, versions, omega, theta, start)
            assert (exact <= curve * (1 + 1e-12)).all()


@pytest.mark.parametrize("chosen_by", ["paper", "tight"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_replicas_agree_with_the_expectation_which_stays_under_the_bound(scenario, chosen_by):
    found = check_bound(scenario, chosen_by, updates=60, replicas=1500, seed=3)
    assert 0.3 < found.largest_deviation() < 4.5
    assert (found.exact[1:] / found.tight[1:]).max() == found.largest_ratio("tight") <= 1
    assert found.largest_ratio("paper") <= found.largest_ratio("tight") * (1 + 1e-12)
    assert found.slack("tight") > 1
    assert found.exact[0] == found.tight[0] == found.measured[0] == 1
    assert found.omega <= 2 or chosen_by == "tight"


def test_delays_are_those_of_their_names():
    kept = {"updates": 120, "replicas": 2}
    delays = {name: (check.delay_max, check.delay_mean) for name in SCENARIOS for check in [check_bound(name, **kept)]}
    assert delays["no delay"] == (0, 0.0)
    assert delays["delay 7"] == (7, pytest.approx((21 + 113 * 7) / 120))
    assert delays["delays uniform on 0 to 15"][0] == 15
    assert delays["delay 2, every sixteenth 15"] == (15, pytest.approx((0 + 1 + 7 * 15 + 111 * 2) / 120))
    assert delays["4 workers, one 10 times slower"][0] == 30


def test_a_bound_that_promises_nothing_has_no_slack():
    found = check_bound("delay 7", "tight", updates=60, replicas=10)
    assert found.omega > 2
    assert found.rates["paper"] > 1
    assert found.slack("paper") is None
    assert found.to_json()["slack_paper"] is None


def test_what_is_reported_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("tardigrad.papers.apsgd_simulation.check_all", lambda: check_all(updates=40, replicas=20))
    found = reproduce("apsgd-bound")
    rows = json.loads(json.dumps(found.to_json(), allow_nan=False))["rows"]
    assert [(row["scenario"], row["chosen_by"]) for row in rows] == [(s, c) for s in SCENARIOS for c in ("paper", "tight")]
    assert all(len(row[curve]) == 41 for row in rows for curve in ("measured", "standard_error", "exact", "tight", "paper"))
    assert "the bound held in 10 cases" in found.comment
    assert "[" not in found.table()
    found.draw(tmp_path / "bound.png")
    assert (tmp_path / "bound.png").stat().st_size > 10_000


def test_systems_whose_moments_are_not_known_are_refused():
    A, x = np.random.default_rng(0).normal(size=(6, 3)), np.ones(3)
    for system in (
        td.LinearSystem(A, A @ x, sketch=td.Rows("norms")),
        td.LinearSystem(A, A @ x, solution=x),
        td.LinearSystem(A, A @ x, np.eye(3), sketch=td.Rows("norms"), solution=x),
    ):
        with pytest.raises(td.InvalidInputError, match="Rows\\('norms'\\)"):
            check_bound("no delay", system=system)
    with pytest.raises(td.InvalidInputError, match="scenario must be one of 'no delay'"):
        check_bound("delay 8")
    with pytest.raises(td.InvalidInputError, match="chosen_by"):
        check_bound("delay 7", "best")


def test_a_system_with_fewer_equations_than_unknowns_has_its_smallest_nonzero_eigenvalue():
    """The start, 0, is in the image of B^-1 A', so the error has no part where W is zero (Lemma 4)."""
    A = np.random.default_rng(2).normal(size=(4, 6))
    solution = A.T @ np.ones(4)
    found = check_bound(
        "delay 7",
        updates=80,
        replicas=500,
        system=td.LinearSystem(A, A @ solution, sketch=td.Rows("norms"), solution=solution),
    )
    assert found.largest_ratio("tight") <= 1 < found.slack("tight")
    assert found.largest_deviation() < 4.5


def test_projections_are_the_steps_of_the_system():
    system = small_system()
    U, p = row_projections(system)
    root = np.sqrt(system.B)
    x = np.random.default_rng(0).normal(size=system.dim)
    r = root * (x - system.solution)
    steps = np.stack([root * system.gradient(0, x, i) for i in range(system.n_rows)])
    np.testing.assert_allclose(steps, (U @ r)[:, None] * U, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(root * system.gradient(0, x), p @ steps, rtol=1e-9)
