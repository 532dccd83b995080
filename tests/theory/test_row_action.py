"""Rates of delayed row steps: against roots, exact second moments, and the proof's own inequality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from second_moments import ends, errors, row_projections
from tardigrad.core.errors import InvalidInputError
from tardigrad.theory import row_action
from tardigrad.theory.delayed_recurrence import constant_delay

SPECTRA = [(0.1, 0.9), (0.01, 0.4), (1e-3, 2e-3), (0.5, 0.5), (1.0, 1.0)]


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("omega", [0.3, 1.0, 1.9])
def test_without_delay_it_is_the_basic_method(low, M, omega):
    assert row_action.rate(low, M, omega, 0) == pytest.approx(1 - low * omega * (2 - omega), rel=1e-12, abs=1e-15)
    assert row_action.best_omega(low, M, 0) == 1.0
    assert row_action.stable_omega(M, 0) == 2.0


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.floats(0.01, 0.99), st.integers(1, 300))
def test_rate_solves_its_equation_and_falls_to_1_at_the_end(a, b, share, delay):
    low, M = sorted((a, b))
    omega = share * row_action.stable_omega(M, delay)
    y = row_action.strong_decay(low, M, omega, delay)
    S = np.exp(y * np.arange(1, delay + 1)).sum()
    paid = omega * (2 - omega - omega * M * (delay + S))
    assert -np.expm1(-y) * (1 / low + omega**2 * M * S**2) == pytest.approx(paid, rel=1e-6)
    assert 0 < y < -np.log1p(-min(low * omega * (2 - omega), 1 - 1e-16)) * (1 + 1e-9)
    assert row_action.strong_decay(low, M, omega, delay + 1) < y if omega < row_action.stable_omega(M, delay + 1) else True


@pytest.mark.parametrize("delay", [1, 10, 100_000])
def test_slow_rates_keep_their_digits(delay):
    M, omega = 1e-6, 0.7
    expected = 1e-17 * omega * (2 - omega * (1 + 2 * M * delay))
    assert row_action.strong_decay(1e-17, M, omega, delay) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("delay", [1, 7, 100])
def test_best_omega_is_a_minimum_near_its_limit(low, M, delay):
    best = row_action.best_omega(low, M, delay)
    limit = 1 / (1 + 2 * M * delay)
    assert 0.5 * limit < best <= limit * (1 + 1e-6)
    grid = row_action.stable_omega(M, delay) * np.linspace(0.02, 0.98, 97)
    assert row_action.rate(low, M, best, delay) <= min(row_action.rate(low, M, omega, delay) for omega in grid) + 1e-12
    assert row_action.best_omega(0, M, delay) == limit
    assert row_action.best_omega(1e-12 * M, M, delay) == pytest.approx(limit, rel=1e-4)


@pytest.mark.parametrize(("rows", "columns", "block", "scale"), [(6, 3, 1, None), (12, 4, 2, None), (12, 4, 1, [1, 1, 1, 0.3])])
@pytest.mark.parametrize("delay", [0, 1, 3, 8])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_expected_errors_stay_below_the_rate(rows, columns, block, scale, delay, share):
    """For constant, varying and two-valued delays, from a random start and along the slowest direction."""
    P, W = row_projections(rows, columns, seed=rows, block=block, scale=scale)
    low, M = ends(W)
    omega, T = share * row_action.stable_omega(M, delay), 90
    bound = row_action.rate(low, M, omega, delay) ** np.arange(T + 1)
    rng = np.random.default_rng(delay)
    some = np.maximum(np.arange(T) - rng.integers(0, delay + 1, T), 0)
    skips = (np.arange(T) // (delay + 1)) * (delay + 1)  # most points are never read: d_t runs from 0 to delay
    for start in (rng.normal(size=columns), np.linalg.eigh(W)[1][:, 0]):
        for reads in (constant_delay(delay, T), some, skips):
            exact = errors(P, start, 1.0, 0.0, omega, reads) / (start @ start)
            assert (exact <= bound * (1 + 1e-9) + 1e-12).all()


def test_how_loose_the_bound_is():
    """Along the slowest direction at best_omega: the error falls at most 3 times as fast as the bound, in logarithms."""
    P, W = row_projections(30, 6, seed=2)
    low, M = ends(W)
    for delay in (1, 5):
        omega = row_action.best_omega(low, M, delay)
        exact = errors(P, np.linalg.eigh(W)[1][:, 0], 1.0, 0.0, omega, constant_delay(delay, 150))
        slack = -np.log(exact[150] / exact[75]) / (75 * row_action.strong_decay(low, M, omega, delay))
        assert 1 < slack < 3


def test_nothing_is_claimed_beyond_stable_omega():
    with pytest.raises(InvalidInputError, match=r"omega must be below stable_omega = 1\.25 for delay 3, not 1\.3"):
        row_action.rate(0.01, 0.1, 1.3, 3)
    with pytest.raises(InvalidInputError, match="delay must be an integer >= 0"):
        row_action.stable_omega(0.1, 1.5)
    with pytest.raises(InvalidInputError, match="omega must be"):
        row_action.rate(0.01, 0.1, 0.0, 3)


# the expectation


@given(st.floats(1e-4, 3.0), st.integers(0, 15))
@settings(max_examples=200)
def test_weak_rate_is_the_largest_root(strength, delay):
    expected = np.abs(np.roots([1, -1, *[0] * (delay - 1), strength] if delay else [1, strength - 1])).max()
    assert row_action.weak_rate(1.0, 1.0, strength, delay) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("delay", [1, 2, 9, 1000])
def test_weak_rate_at_the_double_root(delay):
    critical = delay**delay / (delay + 1) ** (delay + 1) if delay < 100 else (1 - 1 / (delay + 1)) ** delay / (delay + 1)
    for factor in (1 - 1e-15, 1.0, 1 + 1e-15):
        assert row_action.weak_rate(1.0, 1.0, critical * factor, delay) == pytest.approx(delay / (delay + 1), rel=1e-6)


@pytest.mark.parametrize("delay", [0, 1, 2, 30, 100_000])
def test_weak_stability_ends_at_a_rate_of_1(delay):
    end = row_action.weak_stable_omega(0.25, delay)
    assert row_action.weak_rate(0.25, 0.25, end, delay) == pytest.approx(1, abs=1e-9)
    assert row_action.weak_rate(0.25, 0.25, end * 1.001, delay) > 1 > row_action.weak_rate(0.25, 0.25, end * 0.999, delay)
    if delay:
        assert row_action.stable_omega(1.0, delay) < row_action.weak_stable_omega(1.0, delay)


def test_weak_recurrence_has_the_weak_rate():
    low, M, omega, delay = 0.05, 0.3, 0.6, 4
    p = np.ones((2, delay + 1))
    history = [p[:, 0]] * (delay + 1)
    for _ in range(600):
        history.append(history[-1] - omega * np.array([low, M]) * history[-1 - delay])
    rate = max(np.abs(history[-1]) / np.abs(history[-101])) ** 0.01
    assert rate == pytest.approx(row_action.weak_rate(low, M, omega, delay), rel=1e-6)


def test_weak_rate_takes_the_worse_end():
    ends_ = [row_action.weak_rate(lam, lam, 0.6, 4) for lam in (0.05, 0.6)]
    assert row_action.weak_rate(0.05, 0.6, 0.6, 4) == max(ends_)
    assert ends_[1] > ends_[0]
