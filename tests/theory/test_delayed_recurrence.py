"""The rate and the curve of ``q[t+1] = K1 q[t] + K2 q[t - delay]``, against roots, high precision and powers of a matrix."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.delayed_recurrence import (
    characteristic_polynomial,
    constant_delay,
    decay,
    delay_distribution,
    positive_root,
    recurrence_curve,
    root_bound,
)

coefficients = st.floats(0.01, 0.9)


def largest_root(K1, K2, delay):
    return np.abs(np.roots([1, -K1, *[0] * (delay - 1), -K2] if delay else [1, -K1 - K2])).max()


@given(coefficients, coefficients, st.integers(0, 12))
def test_positive_root_is_the_largest_root_of_the_polynomial(K1, K2, delay):
    gamma = positive_root(K1, K2, delay)
    assert gamma == pytest.approx(largest_root(K1, K2, delay), rel=1e-9)
    assert characteristic_polynomial(gamma, K1, K2, delay) == pytest.approx(0, abs=1e-12 * max(gamma, 1) ** (delay + 1))


def test_without_delay_the_rate_is_the_sum():
    assert positive_root(0.5, 0.25, 0) == 0.75
    assert positive_root(0.5, 0.25, [7]) == 0.75


@pytest.mark.parametrize("delay", [1, 2, 40, 100_000])
def test_without_a_late_term_the_rate_is_K1_and_without_a_present_one_a_power_of_K2(delay):
    assert positive_root(0.5, 0.0, delay) == 0.5
    assert positive_root(0.0, 0.25, delay) == pytest.approx(0.25 ** (1 / (delay + 1)), rel=1e-14)
    assert positive_root(0.0, 0.0, delay) == 0.0


@pytest.mark.parametrize("gap", ["1e-3", "1e-9", "1e-13", "1e-15", "1e-30"])
@pytest.mark.parametrize("delay", [1, 30, 100_000])
@pytest.mark.parametrize("K2", ["0.5", "0.01", "1e-7"])
def test_decay_near_a_rate_of_1_against_60_digits(gap, delay, K2):
    getcontext().prec = 60
    high, left = Decimal(K2), Decimal(gap)

    def balance(y):
        return (1 - (-y).exp()) - left + high * ((delay * y).exp() - 1)

    found = Decimal(decay(float(1 - high - left), float(K2), delay, gap=float(gap)))
    assert balance(found * (1 - Decimal("1e-13"))) < 0 < balance(found * (1 + Decimal("1e-13")))


def test_a_bound_that_grows_has_a_root_above_1():
    assert positive_root(0.7, 0.4, 3) == pytest.approx(largest_root(0.7, 0.4, 3), rel=1e-12)
    assert positive_root(0.75, 0.25, 3) == 1.0


@given(coefficients, st.floats(0.01, 0.99), st.integers(0, 50))
def test_more_delay_is_slower_and_the_papers_bound_is_above(K1, share, delay):
    K2 = share * (1 - K1)  # Lemmas 5 and 7 need K1 + K2 <= 1
    assert positive_root(K1, K2, delay) <= positive_root(K1, K2, delay + 1) * (1 + 1e-15)
    assert positive_root(K1, K2, delay + 1) <= root_bound(K1, K2, delay + 1) * (1 + 1e-14)


@given(coefficients, st.floats(0.01, 0.99), st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_a_histogram_is_its_share_of_delays(K1, share, counts):
    K2 = share * (1 - K1)
    gamma = positive_root(K1, K2, counts)
    assert gamma == pytest.approx(positive_root(K1, K2, 7 * np.array(counts)), rel=1e-12)
    late, chance = delay_distribution(counts)
    assert gamma == pytest.approx(K1 + K2 * (chance @ gamma**-late), rel=1e-11)
    assert positive_root(K1, K2, late[0]) * (1 - 1e-12) <= gamma <= positive_root(K1, K2, late[-1]) * (1 + 1e-12)
    # Jensen: gamma^-d is convex in d
    assert gamma >= positive_root(K1, K2, float(late @ chance)) * (1 - 1e-12)


def test_a_histogram_with_one_delay_is_that_delay():
    assert decay(0.4, 0.3, [0, 0, 0, 5]) == decay(0.4, 0.3, 3)


def test_a_straggler_costs_little_among_many_and_all_if_it_stands_for_all():
    hist = [0, 0, 0, 30] + [0] * 26 + [1]
    mostly, always, without = (decay(0.6, 0.39, d) for d in (hist, 30, 3))
    assert without > mostly > 0.7 * without
    assert always < 0.4 * without


@given(coefficients, st.floats(0.01, 0.99), st.integers(0, 9), st.data())
def test_whatever_the_delays_the_curve_stays_below_the_rate_of_the_largest(K1, share, largest, data):
    K2 = share * (1 - K1)
    delays = data.draw(st.lists(st.integers(0, largest), min_size=60, max_size=60))
    read = np.maximum(np.arange(60) - delays, 0)
    assert (recurrence_curve(K1, K2, read) <= positive_root(K1, K2, largest) ** np.arange(61) * (1 + 1e-12)).all()


def test_the_product_of_the_rates_of_single_updates_is_no_bound():
    """Lemma 6, (28), for varying delays: 30 updates without delay, then one with delay 30, again and again."""
    delays = np.minimum(np.tile([0] * 30 + [30], 20), np.arange(620))
    curve = recurrence_curve(0.2, 0.4, np.arange(620) - delays)
    product = np.exp(-sum(decay(0.2, 0.4, int(d)) for d in delays))
    assert curve[-1] > 1e100 * product


def test_the_rate_of_random_delays_is_no_bound_for_periodic_ones():
    """They are not independent: the rate is a model of them, close where an update changes little."""
    delays = np.minimum(np.tile([0] * 30 + [30], 20), np.arange(620))
    read, hist = np.arange(620) - delays, np.bincount([0] * 30 + [30])
    shares = []
    for K1, K2 in [(0.2, 0.4), (0.89, 0.1), (0.949, 0.05)]:
        curve = recurrence_curve(K1, K2, read)
        shares.append(-np.log(curve[-1]) / (620 * decay(K1, K2, hist)))
    assert shares[0] < 0.5
    assert 0.9 < shares[1] < shares[2] < 1


def test_curve_is_the_power_of_the_transition_matrix():
    """(19) and (25), from a start that all first tasks read."""
    A = np.zeros((4, 4))
    A[0, 0], A[0, 3] = 0.5, 0.3
    A[1:, :3] += np.eye(3)
    curve = recurrence_curve(0.5, 0.3, constant_delay(3, 40))
    expected = [(np.linalg.matrix_power(A, t) @ np.ones(4))[0] for t in range(41)]
    np.testing.assert_allclose(curve, expected, rtol=1e-13)
    assert -np.log(curve[-1] / curve[-11]) / 10 == pytest.approx(decay(0.5, 0.3, 3), rel=1e-4)


def test_weak_curve_is_the_mean_of_delayed_averaging():
    """(17): with coefficients of either sign."""
    p, theta, omega, lam = [1.0], 0.3, 1.5, 0.9
    read = [0, 0, 1, 1, 0, 5]
    for s in read:
        p.append((1 - theta) * p[-1] + theta * (1 - omega * lam) * p[s])
    np.testing.assert_allclose(recurrence_curve(1 - theta, theta * (1 - omega * lam), read), p, rtol=1e-15)


def test_no_updates_leave_the_start():
    assert recurrence_curve(0.5, 0.3, []).tolist() == [1.0]


@pytest.mark.parametrize("read", [[1], [0, -1], [0.5], [[0]]])
def test_curve_of_versions_that_do_not_exist(read):
    with pytest.raises(InvalidInputError, match="version_read must be"):
        recurrence_curve(0.5, 0.3, read)


@pytest.mark.parametrize("delays", [-1, np.nan, [], [0, 0], [1, -1], [1, np.inf], [[1]], "three"])
def test_delays_that_are_none(delays):
    with pytest.raises(InvalidInputError, match="delays must be"):
        positive_root(0.5, 0.3, delays)


def test_coefficients_that_are_negative():
    with pytest.raises(InvalidInputError, match="K1 must be"):
        positive_root(-0.1, 0.3, 1)
    with pytest.raises(InvalidInputError, match="K2 must be"):
        positive_root(0.1, np.nan, 1)
