"""The numerical optima: against closed forms, a fine grid, and exact second moments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from second_moments import ends, errors, row_projections
from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.best_parameters import AveragedParameters, best_parameters, best_upper_bound
from tardigrad.theory.delayed_recurrence import constant_delay, decay
from tardigrad.theory.sketch_project import constants_and_gap, least_upper_bound, omega_star, unit_complexity, upper_bound

SPECTRA = [(0.1, 0.9), (0.5, 0.9), (0.01, 0.4), (0.3, 0.5), (1e-5, 0.02), (0.5, 0.5), (1e-12, 1.0), (1.0, 1.0)]
STRAGGLER = [0, 0, 27, 3] + [0] * 26 + [1]


def grid_decay(low, M, delays, bound):
    found = [0.0]
    for omega in np.concatenate([np.geomspace(0.8, 2 / M, 60), [2.0, omega_star(low, M)]]):
        for theta in np.geomspace(1e-4, 1, 80):
            K1, K2, gap = constants_and_gap(low, M, theta, omega, bound)
            if gap > 0:
                found.append(decay(K1, K2, delays, gap))
    return max(found)


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("bound", ["tight", "paper"])
@pytest.mark.parametrize("delays", [1, 7, STRAGGLER], ids=["1", "7", "straggler"])
def test_no_point_of_a_grid_is_better(low, M, bound, delays):
    found = best_parameters(low, M, delays, bound)
    K1, K2, gap = constants_and_gap(low, M, found.theta, found.omega, bound)
    assert found.decay == decay(K1, K2, delays, gap)
    assert found.rate == pytest.approx(np.exp(-found.decay), rel=1e-15)
    assert found.decay >= grid_decay(low, M, delays, bound) * (1 - 1e-6)


@pytest.mark.parametrize(("low", "M"), SPECTRA)
def test_without_delay_it_is_the_basic_method(low, M):
    expected = AveragedParameters(1.0, 1.0, 1 - low, -np.log1p(-low) if low < 1 else np.inf)
    for delays in (0, 0.0, [3]):
        assert best_parameters(low, M, delays) == expected
    if low < 1:
        assert expected.complexity(1) == pytest.approx(1 / low, rel=1e-12)


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.integers(1, 200))
@settings(max_examples=40)
def test_tight_is_at_least_as_good_and_more_delay_is_worse(a, b, delay):
    low, M = sorted((a, b))
    tight = best_parameters(low, M, delay)
    assert tight.decay >= best_parameters(low, M, delay, "paper").decay * (1 - 1e-9)
    assert tight.decay >= best_parameters(low, M, delay + 1).decay * (1 - 1e-9)
    assert 0 < tight.theta <= 1
    assert tight.omega < 2 / M


@pytest.mark.parametrize("delay", [1, 100_000])
@pytest.mark.parametrize("low", [1e-3, 1e-9, 1e-15])
def test_rates_next_to_1(low, delay):
    found = best_parameters(low, 1e-3, delay)
    assert 0 < found.decay <= low * (1 + low) * 1.001
    assert found.complexity(1) == pytest.approx(1 / found.decay, rel=1e-2)


def test_a_straggler_among_four_costs_a_fraction_of_its_delay():
    """Its delay of 30 in one update of 31: not what 30 for all would cost."""
    mixed, largest, without = (best_parameters(0.01, 0.4, d).decay for d in (STRAGGLER, 30, 3))
    assert 2.5 * largest < mixed < without


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("d", [1.0, 3.5, 8.0, 1000.0])
def test_least_U_over_both_is_the_closed_form_in_the_papers_range(low, M, d):
    value, theta, omega = best_upper_bound(low, M, d, "paper")
    assert value == upper_bound(low, M, theta, omega, d)
    closed = least_upper_bound(low, M, d)
    assert value <= closed * (1 + 1e-9)
    if low + M >= 1:  # Lemma 10: the paper's range is the whole
        assert value == pytest.approx(closed, rel=1e-9)
    assert best_upper_bound(low, M, d)[0] <= value * (1 + 1e-9)


def test_what_relaxation_above_2_is_worth():
    """The paper left (2, omega*] open. With its own K2 nothing is gained there at first; tight, up to k times."""
    low, M, d = 1e-4, 0.05, 1000.0
    value, _, omega = best_upper_bound(low, M, d)
    assert 2 < omega <= omega_star(low, M) * (1 + 1e-9)
    assert value < least_upper_bound(low, M, d) / 3
    assert unit_complexity(low, M, *[getattr(best_parameters(low, M, d - 1), name) for name in ("theta", "omega")], d) < value


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("bound", ["tight", "paper"])
def test_the_rate_holds_for_the_exact_error(block, bound):
    P, W = row_projections(12, 4, seed=block, block=block, scale=[1, 1, 1, 0.4])
    low, M = ends(W)
    slow = np.linalg.eigh(W)[1][:, 0]
    found = best_parameters(low, M, 5, bound)
    for reads in (constant_delay(5, 120), np.maximum(np.arange(120) - np.random.default_rng(0).integers(0, 6, 120), 0)):
        exact = errors(P, slow, 1 - found.theta, found.theta, found.theta * found.omega, reads)
        assert (exact <= found.rate ** np.arange(121) * (1 + 1e-9) + 1e-12).all()


def test_the_rate_of_independent_delays_holds_for_the_exact_error():
    P, W = row_projections(12, 4, seed=5)
    found = best_parameters(*ends(W), STRAGGLER)
    chances = np.array(STRAGGLER) / np.sum(STRAGGLER)
    slow = np.linalg.eigh(W)[1][:, 0]
    exact = errors(P, slow, 1 - found.theta, found.theta, found.theta * found.omega, chances=chances, updates=150)
    assert (exact <= found.rate ** np.arange(151) * (1 + 1e-9)).all()
    assert exact[-1] > found.rate ** (2.5 * 150)  # and is not idle


def test_bad_arguments():
    with pytest.raises(InvalidInputError, match="bound must be"):
        best_parameters(0.1, 0.9, 3, "perron")
    with pytest.raises(InvalidInputError, match="delays must be"):
        best_parameters(0.1, 0.9, [0, -1])
    with pytest.raises(InvalidInputError, match="lambda_min"):
        best_upper_bound(0.0, 0.9, 3)


@pytest.mark.parametrize("delays", [0, 7, [0, 0, 0, 30] + 26 * [0] + [1]])
def test_one_parameter_given_gets_the_best_other_one(delays):
    best = best_parameters(1e-3, 0.3, delays)
    for kept in ({"omega": best.omega}, {"theta": best.theta}):
        found = best_parameters(1e-3, 0.3, delays, **kept)
        assert 0.98 * best.decay <= found.decay <= best.decay * (1 + 1e-9)
        assert {name: getattr(found, name) for name in kept} == kept
    both = best_parameters(1e-3, 0.3, delays, omega=best.omega, theta=best.theta)
    assert both.decay == pytest.approx(best.decay, rel=1e-9)
    plain = best_parameters(1e-3, 0.3, delays, omega=1.0)
    tried = [best_parameters(1e-3, 0.3, delays, omega=1.0, theta=theta).decay for theta in np.linspace(0.02, 1, 50)]
    assert plain.decay >= max(tried) * (1 - 1e-3)


def test_parameters_that_prove_nothing_are_refused():
    with pytest.raises(InvalidInputError, match=r"no convergence is proved with omega = 5.0 and theta = 1.0"):
        best_parameters(1e-3, 1.0, 3, omega=5.0, theta=1.0)
