"""Rates of sketch-and-project methods: scaling, limits, the slips in print, and exact second moments of small systems."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from second_moments import ends, errors, row_projections
from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.delayed_recurrence import constant_delay, decay, recurrence_curve
from tardigrad.theory.min_processors import corrected_complexity, printed_complexity
from tardigrad.theory.parallel import parallel_limit
from tardigrad.theory.sketch_project import (
    averaged_limit,
    best_theta,
    constants_and_gap,
    least_upper_bound,
    omega_star,
    recurrence_constants,
    round_robin_delay,
    theta_1,
    theta_2,
    theta_omega_star,
    unit_complexity,
    upper_bound,
)

CASE_1 = [(0.1, 0.9), (0.5, 0.9), (0.9, 0.9), (0.01, 0.995), (1.0, 1.0)]
CASE_2 = [(0.01, 0.4), (0.3, 0.5), (1e-5, 0.02), (0.5, 0.5)]
SPECTRA = CASE_1 + CASE_2
UPDATES = [1.0, 1.5, 5.0, 16.0, 300.0]


def spectra():
    return st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 1)).map(sorted)


def least_over_theta(low, M, omega, d, bound="paper"):
    """U by its definition (37), minimised without the closed form."""
    found = minimize_scalar(
        lambda y: upper_bound(low, M, np.exp(-y), omega, d, bound), bounds=(0, 20), method="bounded", options={"xatol": 1e-11}
    )
    return min(found.fun, upper_bound(low, M, 1.0, omega, d, bound))


# K1 and K2


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 7.0])
@pytest.mark.parametrize("theta", [0.0, 0.3, 1.0])
def test_constants_of_theorem_5(low, M, omega, theta):
    alpha = 1 - omega * low if omega <= 2 / (low + M) else omega * M - 1
    shrunk = 1 - omega * (2 - omega) * (low if omega <= 2 else M)
    now, old, gap = constants_and_gap(low, M, theta, omega)
    assert now == pytest.approx((1 - theta) * (1 - theta + theta * alpha), rel=1e-12)
    assert old == pytest.approx(theta * (theta * shrunk + (1 - theta) * alpha), abs=1e-12)
    assert gap == pytest.approx(1 - now - old, abs=1e-12)
    assert recurrence_constants(low, M, theta, omega) == (now, old)


@given(spectra(), st.floats(0, 1), st.floats(0, 30))
def test_tight_K2_is_the_largest_over_the_whole_spectrum_and_below_the_papers(ends_, theta, omega):
    low, M = ends_
    lam = np.linspace(low, M, 51)
    whole = theta**2 * (1 - omega * (2 - omega) * lam) + theta * (1 - theta) * np.abs(1 - omega * lam)
    now, old = recurrence_constants(low, M, theta, omega, "tight")
    assert old == pytest.approx(whole.max(), rel=1e-9, abs=1e-12)
    assert now == recurrence_constants(low, M, theta, omega)[0]
    assert old <= recurrence_constants(low, M, theta, omega)[1] * (1 + 1e-9) + 1e-12


def test_the_gap_keeps_its_digits():
    assert constants_and_gap(1e-18, 0.3, 0.5, 2.0)[2] == pytest.approx(0.5 * 2 * (2 - 1) * 1e-18, rel=1e-14)


# U and its minima


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("d", UPDATES)
def test_upper_bound_is_40_in_the_papers_range(low, M, d):
    for omega in np.linspace(1, min(2, omega_star(low, M)), 4):
        for theta in (0.05, 0.5, 0.9):
            expected = (theta * (1 + (1 - theta) * omega * low) + 1 / d) / (theta * omega * (2 - theta * omega) * low)
            assert upper_bound(low, M, theta, omega, d) == pytest.approx(expected, rel=1e-9)


def test_derivatives_41_and_44():
    low, M, d, theta, omega, h = 0.1, 0.8, 5.0, 0.4, 1.4, 1e-6
    by_theta = (upper_bound(low, M, theta + h, omega, d) - upper_bound(low, M, theta - h, omega, d)) / (2 * h)
    by_omega = (upper_bound(low, M, theta, omega + h, d) - upper_bound(low, M, theta, omega - h, d)) / (2 * h)
    t, w = theta, omega
    below = d * (2 - t * w) ** 2 * low
    assert by_theta == pytest.approx((t**2 * w * d * (1 + (w - 2) * low) + 2 * (t * w - 1)) / (t**2 * w * below), rel=1e-6)
    top = 2 * d * t * (t * w - 1) + d * t**2 * w**2 * (1 - t) * low + 2 * (t * w - 1)
    assert by_omega == pytest.approx(top / (t * w**2 * below), rel=1e-6)


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("d", UPDATES)
def test_the_closed_form_is_the_minimum(low, M, d):
    for omega in np.linspace(1, min(2, omega_star(low, M)), 4):
        value = least_upper_bound(low, M, d, omega)
        assert value == pytest.approx(least_over_theta(low, M, omega, d), rel=1e-9)
        assert value == pytest.approx(upper_bound(low, M, best_theta(low, M, omega, d), omega, d), rel=1e-12)
        assert least_upper_bound(low, M, d) <= value * (1 + 1e-12)


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("d", UPDATES)
def test_slips_in_print_at_omega_1(low, M, d):
    """(53), (59): printed 3/4 + (..)/(4d); (52) is right."""
    root = np.sqrt(1 + 2 * d * (1 - low))
    assert low * least_upper_bound(low, M, d, 1.0) == pytest.approx((1 + low) / 2 + (1 + root) / (2 * d), rel=1e-12)
    printed = 3 / 4 + (1 + root) / (4 * d)
    assert low * least_over_theta(low, M, 1.0, d) != pytest.approx(printed, rel=1e-3) or abs(low - 1) < 1e-3
    if low < 1:
        assert theta_1(low, d) == pytest.approx((root - 1) / (d * (1 - low)), rel=1e-12)


@pytest.mark.parametrize("low", [0.01, 0.2, 0.5])
def test_omega_1_beats_the_basic_method_from_4_over_1_minus_lambda_min(low):
    """The paper says from delta_a = 4."""
    d = 4 / (1 - low)
    assert low * least_upper_bound(low, 0.99, d * (1 + 1e-9), 1.0) < 1 < low * least_upper_bound(low, 0.99, d * (1 - 1e-9), 1.0)


@pytest.mark.parametrize(("low", "M"), [ends_ for ends_ in CASE_1 if sum(ends_) < 2])
@pytest.mark.parametrize("d", UPDATES)
def test_slips_in_print_at_omega_star(low, M, d):
    """(54): printed 2 - k; (55), (56): a factor 2 too many."""
    k = low + M
    mu = k + 2 * low * (1 - k)
    root = np.sqrt(1 + d * mu)
    assert theta_omega_star(low, M, d) == pytest.approx(k * (root - 1) / (d * mu), rel=1e-9)
    assert low * least_upper_bound(low, M, d) == pytest.approx((3 * low + M) / 4 + (1 + root) / (2 * d), rel=1e-9)
    if k > 1:
        printed = k * (np.sqrt(1 + d * (2 - k)) - 1) / (d * (2 - k))
        assert theta_omega_star(low, M, d) != pytest.approx(printed, rel=1e-4)
    assert corrected_complexity(low, M, d) == pytest.approx(low * least_upper_bound(low, M, d), rel=1e-12)
    at_star = (3 * low + M) / 4 + (np.sqrt(1 + d * (2 - k)) + 2 * (d + 1 + d * (1 - k) * low)) / (
        2 * d * np.sqrt(1 + d * (2 - k))
    )
    assert at_star > 1.003 * low * least_upper_bound(low, M, d)


@pytest.mark.parametrize(("low", "M"), CASE_2)
@pytest.mark.parametrize("d", UPDATES)
def test_60_and_61_are_right(low, M, d):
    assert theta_2(d) == pytest.approx((np.sqrt(d + 1) - 1) / d, rel=1e-12)
    assert best_theta(low, M, 2.0, d) == pytest.approx(theta_2(d), rel=1e-9)
    right = 1 / 4 + low / 2 + (1 + np.sqrt(d + 1)) / (2 * d)
    assert low * least_upper_bound(low, M, d) == pytest.approx(right, rel=1e-9)
    if low + M < 1:
        assert printed_complexity(low, M, d) == pytest.approx(right, rel=1e-12)


def test_the_closed_form_has_a_range():
    with pytest.raises(InvalidInputError, match=r"omega must be in the closed form's range, >= 1 and <= 2"):
        best_theta(0.01, 0.4, 2.5, 8)
    with pytest.raises(InvalidInputError, match="omega must be"):
        least_upper_bound(0.5, 0.9, 8, 1.9)


@pytest.mark.parametrize(("low", "M"), SPECTRA)
def test_limits_of_endlessly_many_updates(low, M):
    """(67), (69); at omega = 1 the limit is (1+l)/(2l), where table 1 prints 4l/3."""
    assert least_upper_bound(low, M, 1e14) == pytest.approx(averaged_limit(low, M), rel=1e-5)
    assert least_upper_bound(low, M, 1e14, 1.0) == pytest.approx((1 + low) / (2 * low), rel=1e-5)


@pytest.mark.parametrize(("low", "M"), [(0.01, 0.2), (0.1, 0.28)])
def test_synchronous_is_not_always_better_where_the_paper_says_so(low, M):
    """1/4 + l/2 > M, but U at omega* falls to (3l+M)/(4l) < M/l."""
    assert 1 / 4 + low / 2 > M
    at_star = least_over_theta(low, M, omega_star(low, M), 1e8, "tight")
    assert at_star == pytest.approx((3 * low + M) / (4 * low), rel=1e-2)
    assert at_star < parallel_limit(low, M)


# the delay of round robin


@pytest.mark.parametrize(("low", "M"), SPECTRA)
def test_one_worker_in_turn_is_the_basic_method(low, M):
    assert round_robin_delay(1) == 0
    assert unit_complexity(low, M, 1.0, 1.0, 1) == pytest.approx(1 / low, rel=1e-12)
    assert upper_bound(low, M, 1.0, 1.0, 1) == pytest.approx(2 / low, rel=1e-12)  # what the paper's delay of 1 makes of it


@pytest.mark.parametrize("d", [2, 8, 33])
def test_workers_in_turn_see_one_less_than_their_number(d):
    low, M, theta, omega = 0.01, 0.4, 0.3, 2.0
    K1, K2, gap = constants_and_gap(low, M, theta, omega, "tight")
    reads = constant_delay(round_robin_delay(d), 200 * d)
    curve = recurrence_curve(K1, K2, reads)
    per_interval = curve[-1] / curve[-1 - d]
    assert 1 / (1 - per_interval) == pytest.approx(unit_complexity(low, M, theta, omega, d), rel=1e-6)
    assert unit_complexity(low, M, theta, omega, d, "paper") < upper_bound(low, M, theta, omega, d)
    assert per_interval == pytest.approx(np.exp(-d * decay(K1, K2, d - 1, gap)), rel=1e-6)


# the bounds, against exact second moments


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("delay", [0, 1, 4])
@pytest.mark.parametrize(("theta", "omega"), [(1.0, 1.0), (0.5, 1.0), (0.3, 2.0), (0.1, 2.4)])
def test_expected_errors_stay_below_the_recurrence(block, delay, theta, omega):
    P, W = row_projections(8, 4, seed=block, block=block)
    low, M = ends(W)
    rng = np.random.default_rng(delay)
    slow = np.linalg.eigh(W)[1][:, 0]
    varying = np.maximum(np.arange(60) - rng.integers(0, delay + 1, 60), 0)
    for start, reads in itertools.product((slow, rng.normal(size=4)), (constant_delay(delay, 60), varying)):
        exact = errors(P, start, 1 - theta, theta, theta * omega, reads) / (start @ start)
        for bound in ("tight", "paper"):
            curve = recurrence_curve(*recurrence_constants(low, M, theta, omega, bound), reads)
            assert (exact <= curve * (1 + 1e-9) + 1e-12).all()


def test_without_delay_and_along_the_slowest_direction_the_first_step_is_exact():
    P, W = row_projections(8, 4, seed=3)
    slow = np.linalg.eigh(W)[1][:, 0]
    exact = errors(P, slow, 0.0, 1.0, 1.0, [0])
    assert exact[1] == pytest.approx(recurrence_constants(*ends(W), 1.0, 1.0)[1], rel=1e-12)


def test_iterates_stay_in_their_affine_subspace():
    """Lemma 4: what the rows do not see stays, what they see goes on as in a system of full rank."""
    P, _ = row_projections(6, 3, seed=0)
    wide = np.zeros((6, 5, 5))
    wide[:, :3, :3] = P
    start = np.array([1.0, -2, 0.5, 3, 4])
    seen = errors(P, start[:3], 0.7, 0.3, 0.6, constant_delay(2, 30))
    np.testing.assert_allclose(errors(wide, start, 0.7, 0.3, 0.6, constant_delay(2, 30)), seen + 25, rtol=1e-12)


# bad input


@pytest.mark.parametrize(("low", "M"), [(0.0, 0.5), (-0.1, 0.5), (0.5, 0.4), (0.5, 1.1), (np.nan, 0.5), (0.5, np.inf)])
def test_spectra_that_are_none(low, M):
    with pytest.raises(InvalidInputError, match="lambda_m"):
        recurrence_constants(low, M, 0.5, 1.0)


def test_rounding_above_1_is_1():
    assert recurrence_constants(1 + 1e-15, 1 + 1e-15, 0.5, 1.0) == recurrence_constants(1.0, 1.0, 0.5, 1.0)


def test_bad_arguments():
    for bad, message in [((0.1, 0.5, 1.5, 1.0), "theta"), ((0.1, 0.5, 0.5, -1.0), "omega")]:
        with pytest.raises(InvalidInputError, match=f"{message} must be"):
            recurrence_constants(*bad)
    with pytest.raises(InvalidInputError, match="bound must be 'paper' or 'tight', not 'loose'"):
        recurrence_constants(0.1, 0.5, 0.5, 1.0, "loose")
    with pytest.raises(InvalidInputError, match="delta_a must be"):
        upper_bound(0.1, 0.5, 0.5, 1.0, 0)
