"""The number of workers from which the asynchronous bound is better, against a search one by one."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.best_parameters import best_parameters, least_excess
from tardigrad.theory.delayed_recurrence import decay
from tardigrad.theory.min_processors import ASYNC_BOUNDS, _paper_excess, _wins, min_processors
from tardigrad.theory.parallel import parallel_complexity
from tardigrad.theory.sketch_project import constants_and_gap, least_upper_bound, omega_star

CASES = [
    (0.1, 0.9, 1.0),
    (0.2, 0.8, 1.5),
    (0.01, 0.4, 1.0),
    (0.01, 0.3, 1.5),
    (0.05, 0.31, 3.0),
    (0.6, 0.9, 1.2),
    (0.3, 0.3, 2.0),
]


def complexity(low, M, d, bound):
    """Minimised by number: over theta for the exact root with the paper's constants, by `best_parameters` if tight."""
    if bound == "corrected":
        return least_upper_bound(low, M, d)
    if bound == "tight":
        return best_parameters(low, M, d - 1).complexity(d)
    omega = min(2.0, omega_star(low, M))

    def slowness(log_theta):
        K1, K2, gap = constants_and_gap(low, M, np.exp(log_theta), omega)
        return -decay(K1, K2, d, gap)

    found = minimize_scalar(slowness, bounds=(-12, 0), method="bounded", options={"xatol": 1e-9})
    return -1 / np.expm1(d * found.fun)


@pytest.mark.parametrize(("low", "M", "c"), CASES)
@pytest.mark.parametrize("bound", ASYNC_BOUNDS[1:])
@pytest.mark.parametrize("sync", ["paper", "tight"])
def test_one_by_one(low, M, c, bound, sync):
    wins = _wins(low, M, c, np.arange(2.0, 41), bound, sync)
    for tau, win in zip(range(2, 41), wins, strict=True):
        ratio = complexity(low, M, c * tau, bound) / parallel_complexity(low, M, tau, bound=sync)
        if abs(ratio - 1) > 1e-5:
            assert win == (ratio < 1), (tau, ratio)
    found = min_processors(low, M, c, bound, sync, cap=40)
    assert found == (2 + int(np.argmax(wins)) if wins.any() else None)


def test_blocks_do_not_matter():
    """9905, found in the eighth block, is the first in one array too."""
    wins = _wins(0.01, 0.26, 1.0, np.arange(2.0, 20001), "paper", "paper")
    assert 2 + np.argmax(wins) == 9905 == min_processors(0.01, 0.26, 1)


def test_the_cap():
    assert min_processors(0.01, 0.26, 1, cap=9905) == 9905
    assert min_processors(0.01, 0.26, 1, cap=9904) is None
    assert min_processors(0.1, 0.9, 1, "tight", "tight") is None


def test_the_largest_omega_of_the_papers_range_is_the_best():
    """What `least_upper_bound` and the perron column rest on; compared with every omega up to 2."""
    P = np.geomspace(1e-6, 10, 30)
    for low, M in itertools.product([0.01, 0.3], [0.3, 0.69, 0.9]):
        closed = _paper_excess(low, M, P)
        for omega in np.linspace(1, min(2, omega_star(low, M)), 9):
            for theta in np.linspace(0.01, 1, 60):
                _, K2, gap = constants_and_gap(low, M, theta, omega)
                assert (P * K2 - gap >= closed - 1e-12).all()


def test_excess_is_attained_where_it_says():
    P = np.geomspace(1e-5, 1e-2, 12)
    for bound in ("paper", "tight"):
        value, theta, omega = least_excess(0.02, 0.4, P, bound)
        for p, v, t, w in zip(P, value, theta, omega, strict=True):
            _, K2, gap = constants_and_gap(0.02, 0.4, t, w, bound)
            assert v == pytest.approx(p * K2 - gap, rel=1e-9, abs=1e-15)


def test_the_straggler_is_what_speaks_for_asynchrony():
    """Tight against tight, k = 1: workers must be about 3 times uneven."""
    found = [min_processors(0.1, 0.9, c, "tight", "tight", cap=500) for c in (1, 2, 4)]
    assert found == [None, None, 2]


def test_bad_arguments():
    with pytest.raises(InvalidInputError, match="bound must be 'paper' or 'corrected' or 'perron' or 'tight', not 'exact'"):
        min_processors(0.1, 0.9, 1, "exact")
    with pytest.raises(InvalidInputError, match="sync must be"):
        min_processors(0.1, 0.9, 1, sync="perron")
    with pytest.raises(InvalidInputError, match=r"c must be a finite number >= 1, not 0\.5"):
        min_processors(0.1, 0.9, 0.5)
    with pytest.raises(InvalidInputError, match="cap must be"):
        min_processors(0.1, 0.9, 1, cap=1)
