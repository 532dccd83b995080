"""Step sizes and bounds of AsyncBC: the conditions of the proofs, the false theorem, and runs that keep to the bounds."""

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.async_bc import (
    full_gradient_bound,
    full_gradient_step,
    mean_square_bound,
    printed_full_gradient_step,
    stochastic_bound,
    stochastic_step,
)
from tardigrad.theory.async_bc_orders import asgrad_order, async_bc_order, async_gd_order, printed_async_bc_order

RUNS = [(1, 0, 1), (1, 0, 2500), (1, 1, 2500), (4, 7, 1), (4, 7, 900), (64, 300, 10**6)]
CONSTANTS = [(1.0, 0.0), (1.0, 1.0), (3.0, 0.1), (1e-4, 1.0), (2.0, 4.0)]


def constants():
    return st.tuples(st.floats(1e-6, 1e6), st.floats(0, 1e6))


def runs():
    return st.tuples(st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 10**7))


def two_clients_mean_squares(L, delta, step, n_updates):
    """Exact E|grad f(x[t])|^2 over the first's, t < n_updates: two clients with Hessians L +- delta, one task in flight.

    ``x' = x - step m`` and ``m' = (1 - step h) m``, h a fair draw of L + delta and L - delta.
    """
    x2, xm, m2 = 1.0, L, L * L
    keep, grow = 1 - step * L, (1 - step * L) ** 2 + (step * delta) ** 2
    found = np.empty(n_updates)
    for t in range(n_updates):
        found[t] = x2
        x2, xm, m2 = x2 - 2 * step * xm + step**2 * m2, keep * (xm - step * m2), grow * m2
    return found


def simulate(hessians, x0, step, concurrency, n_updates, seconds, seed, batch=False):
    """Algorithm 1 on f_i = h_i |x|^2 / 2 with queues at busy clients: squared gradients of f and the largest delay.

    With batch, a client's Hessian is a fair draw from ``hessians[i]``, the same one at both points (Algorithm 2).
    """
    rng = np.random.default_rng(seed)
    mean = hessians.mean()
    x, before = x0 - step * mean * x0, x0
    m = mean * x0
    squares = [mean**2 * x0 @ x0]
    flight, free, now, number = [], np.zeros(len(hessians)), 0.0, itertools.count()

    def issue(client, version, weight):
        h = hessians[client][rng.integers(hessians.shape[1])] if batch else hessians[client].mean()
        free[client] = max(free[client], now) + seconds[client] * rng.exponential()
        heapq.heappush(flight, (free[client], next(number), version, weight * h * (x - before)))

    for client in rng.choice(len(hessians), concurrency, replace=False):
        issue(client, 1, 1 / concurrency)
    longest = 0
    for t in range(1, n_updates):
        squares.append(mean**2 * x @ x)
        now, _, version, difference = heapq.heappop(flight)
        longest = max(longest, t - version)
        m = m + difference
        before, x = x, x - step * m
        issue(int(rng.integers(len(hessians))), t + 1, 1.0)
    return np.array(squares), longest


# the conditions of the proofs


@given(constants(), runs())
def test_the_full_gradient_step_meets_every_condition_of_the_proof(smooth, run):
    (L, delta), (tasks, late, T) = smooth, run
    step = full_gradient_step(L, delta, tasks, late, T)
    assert step <= 1 / (4 * L) * (1 + 1e-12)
    A = step**2 * tasks * late * (delta**2 + L**2) / 4
    B = step**2 * delta**2 * T / 2
    C = 2 * step**4 * L**2 * (delta**2 + L**2) * late**2 * (T - 1) ** 2
    assert A <= 1 / 144 * (1 + 1e-9)
    assert B <= 1 / 200 * (1 + 1e-9)
    assert C <= 2 / 12**4 * (1 + 1e-9)
    assert step <= printed_full_gradient_step(L, delta, tasks, late, T) * (1 + 1e-12)


@given(constants(), runs())
def test_the_stochastic_step_meets_every_condition_of_the_proof(smooth, run):
    (L, more), (tasks, late, T) = smooth, run
    ell = L + more
    step = stochastic_step(L, ell, tasks, late, T)
    assert step <= 1 / (4 * L) * (1 + 1e-12)
    A = step**2 * tasks * late * ell**2 / 8
    B = step**2 * ell**2 * T / 2
    C = step**4 * L**2 * ell**2 * late**2 * (T - 1) ** 2
    assert A <= 1 / 48 * (1 + 1e-9)
    assert B <= 1 / 200 * (1 + 1e-9)
    assert C <= 1 / 64 * (1 + 1e-9)
    assert A + B + C <= 1 / 16


@given(constants(), runs(), st.sampled_from([full_gradient_step, stochastic_step]), st.floats(0.01, 100))
def test_steps_scale_as_one_over_the_constants(smooth, run, step_of, factor):
    L, other = smooth[0], smooth[0] + smooth[1]
    assert step_of(factor * L, factor * other, *run) == pytest.approx(step_of(L, other, *run) / factor, rel=1e-9)


@pytest.mark.parametrize("step_of", [full_gradient_step, stochastic_step])
@pytest.mark.parametrize("place", [2, 3, 4])
def test_steps_do_not_grow_with_concurrency_delay_or_horizon(step_of, place):
    previous = np.inf
    for value in (1, 2, 5, 40, 1000, 10**6):
        arguments = [1.0, 1.5, 3, 5, 1000]
        arguments[place] = value
        assert step_of(*arguments) <= previous
        previous = step_of(*arguments)
    assert previous < step_of(1.0, 1.5, 3, 5, 1000)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1.0, 2.0, 4, 9, 1), 1 / (6 * 3 * 6)),
        ((1.0, 0.5, 1, 100, 10**6), 1 / (12 * np.sqrt(1.5 * 10**8))),
        ((1e-4, 1.0, 1, 1, 2500), 1 / 500),
        ((2.0, 0.0, 7, 0, 900), 1 / 8),
    ],
    ids=["concurrency", "delay", "delta", "smooth"],
)
def test_each_condition_of_the_full_gradient_step_binds_somewhere(arguments, expected):
    assert full_gradient_step(*arguments) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1.0, 2.0, 64, 100, 4), 1 / (2 * np.sqrt(6 * 6400))),
        ((1.0, 2.0, 1, 0, 100), 1 / 200),
        ((1.0, 1.0, 1, 50, 10**4 + 1), 1 / (2 * np.sqrt(2 * 50 * 10**4))),
    ],
    ids=["concurrency", "horizon", "delay"],
)
def test_each_condition_of_the_stochastic_step_binds_somewhere(arguments, expected):
    assert stochastic_step(*arguments) == pytest.approx(expected, rel=1e-12)


# Theorem 1 as printed


def test_theorem_1_as_printed_is_false():
    L, delta, T = 1e-4, 1.0, 2500
    step = printed_full_gradient_step(L, delta, 1, 1, T)
    measured = two_clients_mean_squares(L, delta, step, T).mean()
    gap = L / 2 / L**2  # f(x0) over |grad f(x0)|^2
    printed = 12 * (delta + L) / T * gap + 24 * np.sqrt(L * (delta + L) / T) * gap
    assert measured == pytest.approx(5.37e21, rel=1e-3)
    assert printed == pytest.approx(48.0, rel=1e-3)
    assert mean_square_bound(step, T, gap) == pytest.approx(24.0, rel=1e-3)


def test_no_constant_saves_the_printed_theorem():
    # its bound falls with the horizon while L horizon is kept, the mean square grows exponentially
    found = []
    for T in (1000, 2000, 4000, 8000):
        L = 0.25 / T
        step = printed_full_gradient_step(L, 1.0, 1, 1, T)
        ratio = two_clients_mean_squares(L, 1.0, step, T).mean() / mean_square_bound(step, T, 0.5 / L)
        found.append(np.log(ratio) / T)
    assert 0.005 < found[0] < found[-1] < np.log(1 + 1 / 36)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize(("L", "delta"), [(1e-4, 1.0), (0.01, 1.0), (1.0, 1.0), (1.0, 0.1), (1.0, 0.0)])
@pytest.mark.parametrize("T", [1, 10, 2500, 20000])
@pytest.mark.parametrize("late", [0, 1])
def test_the_corrected_step_keeps_to_the_bound_on_the_counterexample(L, delta, T, late):
    step = full_gradient_step(L, delta, 1, late, T)
    measured = two_clients_mean_squares(L, delta, step, T)
    bound = full_gradient_bound(L, delta, 1, late, T, 0.5 / L)
    assert measured.mean() <= bound
    assert measured.max() <= 1 + 1e-12
    means = np.cumsum(measured) / np.arange(1, T + 1)
    assert (means <= mean_square_bound(step, np.arange(1, T + 1), 0.5 / L)).all()


def test_the_exact_mean_squares_are_those_of_simulated_runs():
    L, delta, step, T = 0.5, 1.0, 0.3, 12
    paths = []
    for signs in itertools.product([-1, 1], repeat=T - 1):
        x, m, path = 1.0, L, []
        for sign in (*signs, 0):
            path.append(x * x)
            moved = x - step * m
            m += (L + sign * delta) * (moved - x)
            x = moved
        paths.append(path)
    assert np.allclose(np.mean(paths, axis=0), two_clients_mean_squares(L, delta, step, T), rtol=1e-12)


# the bounds hold


@pytest.mark.parametrize("concurrency", [1, 2, 4])
@pytest.mark.parametrize("T", [30, 400])
def test_runs_with_full_gradients_keep_to_the_corrected_bound(concurrency, T):
    hessians = np.array([[0.2], [0.5], [1.0], [4.0]])
    L = hessians.mean()
    delta = np.abs(hessians - L).max()
    found = [simulate(hessians, np.ones(1), 1e-3, concurrency, T, [1, 1, 3, 10], seed)[1] for seed in range(20)]
    late = max(found)
    assert (late == 0) == (concurrency == 1)
    step = full_gradient_step(L, delta, concurrency, late, T)
    squares = [simulate(hessians, np.ones(1), step, concurrency, T, [1, 1, 3, 10], seed)[0] for seed in range(20)]
    bound = full_gradient_bound(L, delta, concurrency, late, T, L / 2)
    assert np.mean(squares) <= bound
    assert np.mean(squares) >= bound / 1e4  # and is not idle


@pytest.mark.parametrize("concurrency", [1, 3])
def test_runs_with_samples_keep_to_the_bound(concurrency):
    hessians, T = np.array([[0.1, 0.3], [0.0, 1.0], [5.0, 3.0]]), 300
    L, ell = hessians.mean(), np.sqrt((hessians**2).mean(1).max())
    late = max(simulate(hessians, np.ones(1), 1e-3, concurrency, T, [1, 2, 9], seed, True)[1] for seed in range(20))
    step = stochastic_step(L, ell, concurrency, late, T)
    squares = [simulate(hessians, np.ones(1), step, concurrency, T, [1, 2, 9], seed, True)[0] for seed in range(20)]
    assert np.mean(squares) <= stochastic_bound(L, ell, concurrency, late, T, L / 2)


# curves and orders


@pytest.mark.parametrize(("L", "delta"), CONSTANTS)
@pytest.mark.parametrize("run", RUNS)
def test_the_bound_is_two_gaps_over_the_way_gone(L, delta, run):
    concurrency, late, T = run
    terms = [
        12 * (delta + L) * np.sqrt(concurrency * late) / T,
        24 * np.sqrt(L * (delta + L) * late / T),
        20 * delta / np.sqrt(T),
        8 * L / T,
    ]
    assert full_gradient_bound(L, delta, *run, 3.0) == pytest.approx(3 * max(terms), rel=1e-12)
    step = full_gradient_step(L, delta, *run)
    assert full_gradient_bound(L, delta, *run, 3.0) == pytest.approx(float(mean_square_bound(step, T, 3.0)), rel=1e-12)
    ell = L + delta
    terms = [
        2 * ell * np.sqrt(6 * concurrency * late) / T,
        20 * ell / np.sqrt(T),
        4 * np.sqrt(2 * L * ell * late * (T - 1)) / T,
    ]
    assert stochastic_bound(L, ell, *run, 3.0) == pytest.approx(3 * max(terms), rel=1e-12)


def test_curves_have_the_shape_of_the_horizons():
    horizons = np.array([[1, 10], [100, 1000]])
    for bound in (full_gradient_bound, stochastic_bound):
        curve = bound(1.0, 2.0, 4, 9, horizons, 1.0)
        assert curve.shape == (2, 2)
        assert curve[1, 0] == bound(1.0, 2.0, 4, 9, 100, 1.0)
        assert bound(1.0, 2.0, 4, 9, 7, 0.0) == 0
    assert mean_square_bound(0.1, [1, 2, 4], 1.0).tolist() == [20.0, 10.0, 5.0]


def test_orders_of_table_1_term_by_term():
    T = np.array([100, 10**4])
    assert async_gd_order(2.0, 0.0, 4, 9, T, 3.0) == pytest.approx(36 / T)
    assert async_gd_order(2.0, 5.0, 4, 0, T, 3.0) == pytest.approx(5 * np.sqrt(6 / T) + (120 / T) ** (2 / 3))
    assert asgrad_order(2.0, 0.0, 0.0, 4, T, 3.0) == pytest.approx(24 / T)
    assert asgrad_order(2.0, 5.0, 7.0, 4, T, 3.0) == pytest.approx(24 / T + 5 * np.sqrt(6 / T) + (168 / T) ** (2 / 3))
    assert printed_async_bc_order(0.5, 2.0, 4, 9, T, 3.0) == pytest.approx(36 / T + 9 / np.sqrt(T))
    assert async_bc_order(0.5, 2.0, 4, 9, T, 3.0) == pytest.approx(36 / T + 15 / np.sqrt(T))


def test_the_corrected_order_is_that_of_the_bound():
    # delta = L_max: their ratio stays between constants over all T and delays
    found = [
        full_gradient_bound(L, 1.0, 8, late, T, 1.0) / async_bc_order(L, 1.0, 8, late, T, 1.0)
        for L, late, T in itertools.product([1e-4, 0.1, 1.0], [0, 1, 100], [10, 10**4, 10**8])
    ]
    assert 1 < min(found) < max(found) < 60


# bad input

STEPS = [full_gradient_step, stochastic_step, printed_full_gradient_step]


@pytest.mark.parametrize("step_of", STEPS)
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 0.0, "L must be a finite number > 0, not 0.0"),
        (0, np.nan, "L must be"),
        (1, -1.0, r"(delta|ell) must be a finite number >=? 0, not -1.0"),
        (2, 0, "concurrency must be an integer >= 1, not 0"),
        (3, -1, "max_delay must be an integer >= 0, not -1"),
        (3, 1.5, "max_delay must be an integer"),
        (4, 0, "horizon must be an integer >= 1, not 0"),
    ],
)
def test_bad_arguments_are_named(step_of, place, value, message):
    arguments = [1.0, 2.0, 4, 9, 100]
    arguments[place] = value
    with pytest.raises(InvalidInputError, match=message):
        step_of(*arguments)


def test_mean_squared_smoothness_below_smoothness_is_refused():
    with pytest.raises(InvalidInputError, match=r"ell must be at least L, not 1.0 against 2.0"):
        stochastic_step(2.0, 1.0, 4, 9, 100)
    stochastic_step(2.0, 2.0 * (1 - 1e-15), 4, 9, 100)


@pytest.mark.parametrize("horizon", [0, 1.0, [], [3, 0], "7", True])
def test_bad_horizons_are_named(horizon):
    with pytest.raises(InvalidInputError, match="horizon must be an integer >= 1 or an array of them"):
        full_gradient_bound(1.0, 1.0, 4, 9, horizon, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: full_gradient_bound(1.0, 1.0, 4, 9, 10, -1.0), "gap"),
        (lambda: mean_square_bound(0.0, 10, 1.0), "step"),
        (lambda: mean_square_bound(0.1, 0, 1.0), "n_updates"),
        (lambda: async_gd_order(1.0, -1.0, 4, 9, 10, 1.0), "zeta"),
        (lambda: asgrad_order(1.0, 1.0, -1.0, 4, 10, 1.0), "G must"),
        (lambda: async_bc_order(0.0, 1.0, 4, 9, 10, 1.0), "L must"),
        (lambda: async_bc_order(1.0, 0.0, 4, 9, 10, 1.0), "L_max"),
    ],
)
def test_bad_numbers_of_bounds_and_orders_are_named(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
