"""Rates of the parallel method: scaling, limits, and the exact operator of a small system."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from second_moments import ends, row_projections
from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.parallel import parallel_complexity, parallel_limit, parallel_omega, parallel_rate, xi

SPECTRA = [(0.1, 0.9), (0.5, 0.9), (0.01, 0.995), (1.0, 1.0), (0.01, 0.4), (0.3, 0.5), (1e-5, 0.02), (0.5, 0.5)]


def spectra():
    return st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 1)).map(sorted)


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("bound", ["paper", "tight"])
def test_one_worker_is_the_basic_method(low, M, bound):
    assert xi(M, 1) == 1
    assert parallel_omega(low, M, 1, bound) == 1
    assert parallel_complexity(low, M, 1, bound=bound) == pytest.approx(1 / low, rel=1e-12)
    assert parallel_rate(low, M, 1, 0.5, bound) == pytest.approx(1 - 0.75 * low, rel=1e-12)


@pytest.mark.parametrize("tau", [1, 2])
@pytest.mark.parametrize("omega", [0.3, 1.0, 1.7, 2.5])
def test_tight_parallel_rate_is_the_exact_operator(tau, omega):
    P, W = row_projections(8, 3, seed=1)
    low, M = ends(W)
    step = [np.eye(3) - omega * sum(chosen) / tau for chosen in itertools.product(P, repeat=tau)]
    exact = np.linalg.eigvalsh(sum(S.T @ S for S in step) / len(step))[-1]
    assert parallel_rate(low, M, tau, omega, "tight") == pytest.approx(exact, rel=1e-12)


@given(spectra(), st.integers(1, 1000))
def test_the_papers_parallel_bound_is_looser_and_both_optima_are_minima(ends_, tau):
    low, M = ends_
    assert parallel_complexity(low, M, tau, bound="tight") <= parallel_complexity(low, M, tau) * (1 + 1e-9)
    for bound in ("paper", "tight"):
        best = parallel_omega(low, M, tau, bound)
        rates = [parallel_rate(low, M, tau, best * factor, bound) for factor in (0.9, 0.999, 1.001, 1.1)]
        assert parallel_rate(low, M, tau, best, bound) <= min(rates)


@pytest.mark.parametrize(("low", "M"), SPECTRA)
@pytest.mark.parametrize("bound", ["paper", "tight"])
def test_parallel_limit(low, M, bound):
    assert parallel_limit(low, M, bound) == pytest.approx(parallel_complexity(low, M, 1e12, bound=bound), rel=1e-6)


def test_relaxation_beyond_the_papers_range():
    with pytest.raises(InvalidInputError, match="at most 2/xi"):
        parallel_rate(0.1, 0.9, 4, 2.5)
    assert parallel_complexity(0.1, 0.9, 4, 2.5, "tight") == np.inf
