"""Sizes and steps of EigenPro: published formulas, exact second moments, and the counterexample to Theorem 1."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.eigenpro import (
    critical_batch,
    largest_batch,
    largest_step,
    n_damped,
    n_subsample,
    one_worker_step,
    preconditioner_bytes,
    shared_batch,
    step,
)
from tardigrad.theory.eigenpro_bound import corollary_1, corollary_2, theorem_1_bound, theorem_1_step

levels = st.floats(1e-6, 1.0)
batches = st.integers(1, 5000)


# sizes


@pytest.mark.parametrize(
    ("n", "memory", "workers", "expected"),
    [
        (10, 1e9, 1, 10),
        (1999, 1e9, 1, 1999),
        (99_999, 1e9, 1, 2000),
        (100_000, 1e12, 1, 12_000),
        (100_000, 1e12, 10, 10_000),  # a worker's rows
        (10_000, 1e9, 16, 625),
        (3, 1e9, 8, 1),
        (10**7, 1e9, 4, 3952),
        (10_000, 1.0, 1, 1),  # hardly any memory
    ],
)
def test_subsample_is_eigenpro_2s_as_far_as_rows_and_memory_reach(n, memory, workers, expected):
    assert n_subsample(n, memory, workers) == expected


@given(st.integers(1, 10**9), st.floats(1e3, 1e13), st.integers(1, 64))
def test_subsample_never_exceeds_a_workers_share(n, memory, workers):
    s = n_subsample(n, memory, workers)
    assert 1 <= s <= max(1, n // workers)
    assert s == 1 or preconditioner_bytes(s) <= memory / workers


@given(st.integers(1, 10**6), st.integers(1, 4000), st.integers(1, 20), st.floats(1e8, 1e12), st.integers(1, 16))
def test_largest_batch_is_the_largest_that_fits(n, d, c, memory, workers):
    m = largest_batch(n, d, c, memory, workers, itemsize=8)
    row = (n + d + 2 * c) * 8
    assert m * row <= memory / workers < (m + 1) * row


def test_no_row_fits():
    with pytest.raises(
        InvalidInputError, match="memory_bytes must be at least 16080 for a batch of one row for each of 4 workers"
    ):
        largest_batch(1000, 3, 1, 16_000, n_workers=4)


# the number of damped directions


def eigenpro_2(lam, s, m_max, a):
    """EigenPro 2's code, line by line."""
    most = min(max(s // 5, m_max), s)
    top_q = np.sum(np.power(1 / lam, a) < most) - 1
    top_q = max(top_q, 5)
    return top_q - 1, lam[top_q - 1]


@pytest.mark.parametrize("s", [100, 1000])
@pytest.mark.parametrize("wanted", [1, 50, 250, 5000])
@pytest.mark.parametrize("decay", [0.5, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("a", [0.95, 1.0, 0.7])
def test_n_damped_is_eigenpro_2s(s, wanted, decay, a):
    lam = np.arange(1, s + 1.0) ** -decay
    lam /= lam.sum()
    q, tail = eigenpro_2(lam, s, wanted, a)
    assert n_damped(lam, s, wanted, a) == q
    assert lam[q] == tail


@pytest.mark.parametrize(
    ("lam", "s", "expected"),
    [
        ([1.0], 1, 0),
        ([0.6, 0.4], 2, 1),
        ([0.5, 0.3, 0.2], 3, 2),
        ([0.5, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0], 8, 2),  # rank 3: a positive tail is left
        ([1.0, 0.0, -1e-17], 3, 0),
        ([0.3, 0.2, 0.2, 0.1, 0.1, 0.1], 6, 4),
    ],
)
def test_n_damped_leaves_a_positive_tail(lam, s, expected):
    assert n_damped(lam, s, 100) == expected


@given(st.lists(st.floats(-1e-18, 1.0), min_size=1, max_size=40), batches, batches)
def test_more_memory_never_damps_less(values, a, b):
    lam = sorted(values, reverse=True)
    low, high = sorted([n_damped(lam, len(lam), a), n_damped(lam, len(lam), b)])
    assert n_damped(lam, len(lam), min(a, b)) == low
    assert high == 0 or lam[high] > 0


# steps


@given(levels, levels, batches)
def test_one_workers_step_has_the_published_branches(beta, top, m):
    gamma = one_worker_step(beta, top, m)
    if m * top < beta + top * (1 - 1e-9):
        assert gamma == 1 / beta
    elif m * top > beta + top * (1 + 1e-9):
        assert gamma == pytest.approx(0.99 * 2 / (beta + (m - 1) * top), rel=1e-12)
    assert gamma < 2 / (beta + (m - 1) * top) * (1 + 1e-12) or m == 1


def test_the_critical_batch_is_where_the_branch_changes():
    beta, top = 0.7, 0.013
    m = critical_batch(beta, top)
    assert m == math.floor(beta / top + 1) == 54
    assert one_worker_step(beta, top, m) == 1 / beta
    assert one_worker_step(beta, top, m + 1) < 1 / beta
    assert one_worker_step(beta, top, m) == pytest.approx(2 * theorem_1_step(beta, top, m), rel=0.02)
    assert critical_batch(1.0, 0.0) == critical_batch(1.0, 1e-300) == 2**62


def test_a_flat_spectrum_and_a_batch_of_one_are_plain_sgd():
    assert step(0.5, 0.0, 700, in_flight=16) == 2.0 == one_worker_step(0.5, 0.0, 700)
    assert step(0.5, 0.2, 1, in_flight=1) == 2.0 == one_worker_step(0.5, 0.2, 1) == theorem_1_step(0.5, 0.2, 1)


@given(levels, levels, batches, st.integers(1, 64))
def test_only_the_samples_in_flight_count(beta, top, m, workers):
    together = step(beta, top, m * workers, 1)
    assert step(beta, top, m, workers) == together
    assert together <= 1 / beta
    assert step(beta, top, m, workers + 1) <= together


@given(levels, levels, st.integers(1, 64), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_shared_batch_keeps_half_of_the_longest_step(beta, top, workers, rows, memory):
    m = shared_batch(beta, top, workers, rows, memory)
    assert 1 <= m <= min(rows, memory)
    assert m == 1 or 0.5 / beta <= step(beta, top, m, workers) * (1 + 1e-12)


def test_the_least_batch_gives_way_to_rows_and_memory():
    assert shared_batch(1.0, 0.01, 4, rows=1000, largest_batch=1000) == 25
    assert shared_batch(1.0, 0.01, 4, rows=1000, largest_batch=1000, least=64) == 64
    assert shared_batch(1.0, 0.01, 4, rows=50, largest_batch=1000, least=64) == 50
    assert shared_batch(1.0, 0.01, 4, rows=50, largest_batch=7, least=64) == 7
    assert shared_batch(1.0, 0.0, 4, rows=50, largest_batch=70) == 50


# the largest stable step of the model


@given(levels, levels, batches)
def test_without_delay_the_model_is_sgds_exact_limit(beta, share, m):
    lam = beta * share
    assert largest_step(beta, lam, m, 0) == pytest.approx(2 / (beta + (m - 1) * lam), rel=1e-9)


def second_moment_radius(gamma, beta, lam, m, delay):
    """Largest eigenvalue of the recursion of E z z', z the last delay + 1 values of x."""
    a, late = gamma * m * lam, np.zeros((delay + 1, delay + 1))
    shift = np.eye(delay + 1, k=-1)
    shift[0, 0] += 1
    shift[0, -1] -= a
    late[0, -1] = gamma * math.sqrt(m * lam * (beta - lam))
    return max(abs(np.linalg.eigvals(np.kron(shift, shift) + np.kron(late, late))))


@pytest.mark.parametrize("delay", [0, 1, 3, 7])
@pytest.mark.parametrize(
    ("beta", "lam", "m"), [(1.0, 0.01, 5), (1.0, 0.01, 100), (0.6, 0.003, 2000), (1.0, 0.4, 30), (2.0, 2.0, 3)]
)
def test_the_model_against_exact_second_moments(delay, beta, lam, m):
    limit = largest_step(beta, lam, m, delay)
    assert (
        second_moment_radius(0.995 * limit, beta, lam, m, delay) < 1 < second_moment_radius(1.005 * limit, beta, lam, m, delay)
    )


@given(levels, levels, batches, st.integers(0, 40))
def test_a_factor_of_one_and_a_half_is_within_the_model(beta, share, m, delay):
    lam = beta * share
    assert 1.5 * step(beta, lam, m, delay + 1) < largest_step(beta, lam, m, delay)


def test_the_models_limits():
    assert largest_step(1.0, 0.0, 100, 9) == 2.0
    factor = largest_step(1.0, 1e-3, 10**6, 200) * (1 + (201 * 10**6 - 1) * 1e-3)
    assert factor == pytest.approx(math.pi / 2, rel=0.01)


# Theorem 1


def rounds(workers, gamma, updates=200, rows=4, spread=0.1):
    """Errors of the method without preconditioner: every worker's batch is all its rows, workers in turn.

    K has one large direction. A task is computed when it starts, and applied after those of all others.
    """
    n = workers * rows
    K = (1 - spread) * np.ones((n, n)) + spread * np.eye(n)
    alpha, errors = np.ones(n), []
    own = [slice(r * rows, (r + 1) * rows) for r in range(workers)]
    waiting = [K[block] @ alpha for block in own]
    for t in range(updates):
        r = t % workers
        alpha[own[r]] -= gamma * waiting[r]
        waiting[r] = K[own[r]] @ alpha
        errors.append(np.linalg.norm(K @ alpha))
    return np.array(errors), np.linalg.eigvalsh(K) / n


@pytest.mark.parametrize("workers", [3, 4, 8])
def test_theorem_1_is_not_sufficient_with_stale_reads(workers):
    """Its step diverges while its bound falls; the rule for as many batches in flight converges."""
    _, lam = rounds(workers, 0.1)
    allowed = theorem_1_step(1.0, lam[-1], 4)
    grown, _ = rounds(workers, allowed)
    assert grown[-1] > 1e6 * grown[0]
    K_norm, start = workers * 4 * lam[-1], workers * 4.0
    curve = [theorem_1_bound(t, allowed, 4, workers - 1, lam[0], start, start * K_norm**2) for t in (0, 200)]
    assert curve[1] < 1e6 * curve[0]
    fallen, _ = rounds(workers, step(1.0, lam[-1], 4, workers))
    assert fallen[-1] < 1e-2 * fallen[0]


def test_with_one_worker_its_step_holds():
    _, lam = rounds(1, 0.1)
    errors, _ = rounds(1, theorem_1_step(1.0, lam[-1], 4))
    assert errors[-1] < 1e-6 * errors[0]


def test_bound_14():
    eta, slow = 100 * 0.002, 100 * 0.002 * 0.01 / 2
    expected = (1 - slow) ** 50 * 3.0 + 2 * eta**2 * 7 * 0.4 / 100 * (1 - (1 - slow) ** 50)
    assert theorem_1_bound(50, 0.002, 100, 7, 0.01, 3.0, 0.4) == pytest.approx(expected, rel=1e-12)
    assert theorem_1_bound(1e9, 0.002, 100, 0, 0.01, 3.0, 0.4) == 0.0
    assert theorem_1_bound(50, 0.002, 100, 7, 0.0, 3.0, 0.4) == 3.0


def test_corollary_1_makes_both_terms_half_of_the_error():
    error, m, delay, smallest, distance, loss = 1e-3, 64, 5, 1e-2, 2.0, 0.3
    T = corollary_1(error, m, delay, smallest, distance, loss)
    gamma = math.sqrt(m * error / (4 * delay * loss)) / m
    assert corollary_2(error, gamma, m, loss) == pytest.approx(delay, rel=1e-12)
    bound = theorem_1_bound(T, gamma, m, delay, smallest, distance, loss)
    assert error / 2 < bound <= error
    order = math.sqrt(delay * loss / (m * error)) * math.log(2 * distance / error) / smallest
    assert T / (4 * order) == pytest.approx(1, rel=1e-12)


def test_corollary_1_heeds_the_largest_step():
    assert corollary_1(1e-3, 64, 5, 1e-2, 2.0, 0.3, 1e-9) == pytest.approx(2 * math.log(4e3) / (64e-9 * 1e-2), rel=1e-9)
    assert corollary_1(1e-3, 64, 0, 1e-2, 2.0, 0.3, 0.5) < math.inf
    assert corollary_1(5.0, 64, 5, 1e-2, 2.0, 0.3) == 0.0
    with pytest.raises(InvalidInputError, match="largest_step must be a number > 0 where delay"):
        corollary_1(1e-3, 64, 0, 1e-2, 2.0, 0.3)


# bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: n_subsample(0, 1e9), "n must be"),
        (lambda: n_subsample(10, 0.0), "memory_bytes must be"),
        (lambda: n_subsample(10, 1e9, 0), "n_workers must be"),
        (lambda: n_damped([0.1, 0.2], 2, 5), "largest first"),
        (lambda: n_damped([np.nan], 2, 5), "eigenvalues must be"),
        (lambda: n_damped([0.2, 0.1], 2, 5, 0.0), "exponent must be"),
        (lambda: critical_batch(0.0, 0.1), "beta must be"),
        (lambda: critical_batch(1.0, -0.1), "top must be"),
        (lambda: step(1.0, 0.1, 10, 0.5), "in_flight must be"),
        (lambda: largest_step(1.0, 1.1, 10, 1), "lam must be"),
        (lambda: largest_step(1.0, 0.1, 10, -1), "delay must be"),
        (lambda: theorem_1_bound(1, 10.0, 100, 1, 0.1, 1.0, 1.0), "must be at most 2"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
