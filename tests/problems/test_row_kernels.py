"""Row steps beside NumPy in float64, and beside each other in every bit."""

import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.core.plain import same_bits
from tardigrad.problems.private_copies import copy_kernels
from tardigrad.problems.row_kernels import dense_kernels, sparse_kernels
from tardigrad.rules.row_action import row_steps

PRECISIONS = (np.float64, np.float32)
NOTHING = {dtype: np.ones(0, dtype) for dtype in PRECISIONS}


def make_system(dim, dtype=np.float64, diagonal=False, sparse=False, n_rows=13, seed=0):
    """Random rows, the third of them zero; sparse ones have at most five entries, and some none."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n_rows, dim))
    if sparse:
        A *= rng.random((n_rows, dim)) < min(0.7, 5 / dim)
        A[5] = 0
    A[2] = 0
    b = A @ rng.normal(size=dim)
    B = rng.uniform(0.5, 2.0, dim).astype(dtype) if diagonal else None
    A = A.astype(dtype)
    b = np.where(A.any(axis=1), b, 0).astype(dtype)
    return td.LinearSystem(sp.csr_array(A) if sparse else A, b, B)


def reference(system, rows, omega, x):
    """The steps written out, in float64."""
    A = system.A.toarray() if sp.issparse(system.A) else system.A
    A, b, x = A.astype(np.float64), system.b.astype(np.float64), x.astype(np.float64)
    B = np.ones(system.dim) if system.B is None else system.B.astype(np.float64)
    for i in rows:
        direction = A[i] / B
        norm = A[i] @ direction
        if norm:
            x = x + omega * (b[i] - A[i] @ x) / norm * direction
    return x


def one_by_one(steps, rows, omega, x):
    """Single interpreted steps."""
    x = x.copy()
    for i in rows:
        change, *columns = steps.change(int(i), x, omega)
        x[columns[0] if columns else slice(None)] += change
    return x


def in_pairs(steps, rows, omega, x):
    """Interpreted steps on a dense matrix, two at a time: what the compiled loop does."""
    x, A, b, functions = x.copy(), steps.matrix[0], steps.b, steps.functions
    weights = steps.scale if len(steps.scale) else x.dtype.type(1)
    for k in range(0, len(rows) - 1, 2):
        i, j = rows[k : k + 2]
        c, e, norm, other = functions.pair_coef(A[i], A[j], x, steps.scale, b[i], b[j], omega)
        if norm and other:
            x += x.dtype.type(c) * (A[i] * weights)
            x += x.dtype.type(e) * (A[j] * weights)
        else:
            x = one_by_one(steps, (i, j), omega, x)
    return one_by_one(steps, rows[-1:], omega, x) if len(rows) % 2 else x


def in_place(function, *arguments):
    *others, x = arguments
    x = x.copy()
    function(*others, x)
    return x


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("omega", [1.0, 0.4, 1.7])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 26])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("diagonal", [False, True], ids=["identity", "diagonal"])
@pytest.mark.parametrize("dim", [1, 2, 7, 1000])
def test_steps_are_those_of_numpy_and_their_bits_those_of_interpreted_ones(dim, diagonal, sparse, n, omega, dtype):
    system = make_system(dim, dtype, diagonal, sparse)
    rng = np.random.default_rng(1)
    rows, x = rng.integers(system.n_rows, size=n), rng.normal(size=dim).astype(dtype)
    steps, relaxation = row_steps(system), dtype(omega)
    found = in_place(steps.steps, rows, relaxation, x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, reference(system, rows, omega, x), rtol=0, atol=300 * np.finfo(dtype).eps)
    assert same_bits(found, (one_by_one if sparse else in_pairs)(steps, rows, relaxation, x))
    if n:
        assert same_bits(found, in_place(steps.sweep, rows, n, relaxation, x))
    assert same_bits(in_place(steps.sweep, rows, 1, relaxation, x), one_by_one(steps, rows, relaxation, x))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_sweep_alone_is_the_loop_over_each_tasks_rows_in_every_bit(data):
    dim, length = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 9))
    dtype = data.draw(st.sampled_from(PRECISIONS))
    system = make_system(dim, dtype, data.draw(st.booleans()), seed=data.draw(st.integers(0, 5)))
    rows = np.array(data.draw(st.lists(st.integers(0, system.n_rows - 1), max_size=25)), np.int64)
    steps, omega, x = row_steps(system), dtype(1.1), np.ones(dim, dtype)
    expected = x.copy()
    for low in range(0, len(rows), length):
        steps.steps(rows[low : low + length], omega, expected)
    assert same_bits(in_place(steps.sweep, rows, length, omega, x), expected)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("diagonal", [False, True], ids=["identity", "diagonal"])
def test_after_a_step_the_equation_holds(diagonal, sparse, dtype):
    system = make_system(40, dtype, diagonal, sparse)
    A = system.A.toarray() if sparse else system.A
    x = np.random.default_rng(2).normal(size=40).astype(dtype)
    for count in (1, 2, 3):  # the last of a pair as well
        for row in range(3, system.n_rows):
            rows = np.array([0, 1, row])[-count:]
            after = in_place(row_steps(system).steps, rows, dtype(1), x)
            size = float(np.linalg.norm(A[row]) * np.linalg.norm(after))
            assert A[row] @ after == pytest.approx(system.b[row], abs=10 * size * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("diagonal", [False, True], ids=["identity", "diagonal"])
def test_a_pair_on_one_row_is_two_steps_on_it(diagonal):
    system = make_system(7, diagonal=diagonal)
    for omega in (0.5, 1.0, 1.5):
        x = np.ones(7)
        pair = in_place(row_steps(system).steps, np.array([4, 4]), omega, x)
        np.testing.assert_allclose(pair, reference(system, [4, 4], omega, x), rtol=1e-13)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize(("dtype", "small", "large"), [(np.float64, 1e-200, 1e200), (np.float32, 1e-22, 1e22)])
def test_rows_whose_squares_underflow_or_overflow(dtype, small, large, sparse):
    """Scaling a row and its right-hand side changes no projection; ordinary rows beside it are stepped on too."""
    rng = np.random.default_rng(3)
    A, x = rng.normal(size=(6, 4)), rng.normal(size=4)
    b = A @ rng.normal(size=4)
    factors = np.array([1, small, large, 1, 1, large])
    scaled, right = (A * factors[:, None]).astype(dtype), (b * factors).astype(dtype)
    system = td.LinearSystem(sp.csr_array(scaled) if sparse else scaled, right)
    plain = td.LinearSystem(A, b)
    for rows in ([1], [2], [0, 1], [1, 0], [2, 5], [1, 2], [3, 4, 5, 2, 1, 0]):
        given, expected = x.astype(dtype), reference(plain, rows, 0.8, x)
        tolerance = 50 * np.finfo(dtype).eps
        np.testing.assert_allclose(
            in_place(row_steps(system).steps, np.array(rows), dtype(0.8), given), expected, rtol=0, atol=tolerance
        )
        np.testing.assert_allclose(one_by_one(row_steps(system), rows, dtype(0.8), given), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_zero_rows_are_no_steps_and_those_that_cannot_hold_are_named(sparse):
    A, b = np.ones((5, 3)), np.ones(5)
    A[1] = A[3] = b[1] = 0
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, b)
    steps, x = row_steps(system), np.full(3, 2.0)
    assert same_bits(in_place(steps.steps, np.array([1]), 1.0, x), x)
    assert same_bits(steps.change(1, x, 1.0)[0], np.zeros(0 if sparse else 3))
    for rows in ([3], [0, 3], [3, 0], [1, 3], [3, 1], [0, 2, 3], [3, 3, 2, 4]):
        for function in (steps.steps, lambda rows, omega, x: steps.sweep(rows, 2, omega, x)):
            after = x.copy()
            with pytest.raises(td.InvalidInputError, match=r"row 3 of A is zero but b\[3\] is not"):
                function(np.array(rows), 1.0, after)
            assert np.isfinite(after).all()
    with pytest.raises(td.InvalidInputError, match=r"row 3 of A is zero but b\[3\] is not"):
        steps.change(3, x, 1.0)


@pytest.mark.parametrize("bad", [[np.nan, 0.0, 0.0], [0.0, np.nan, 1.0], [0.0, 0.0, np.nan], [np.nan] * 3, [np.inf, 1.0, 1.0]])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_what_is_not_finite_spreads_instead_of_being_left_out(sparse, bad):
    A = np.ones((3, 3))
    A[1] = bad
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, np.ones(3))
    steps = row_steps(system)
    for rows in ([1], [0, 1], [1, 0], [1, 2, 0]):
        for length in (1, 2, 3):
            after = in_place(steps.sweep, np.array(rows), length, 1.0, np.zeros(3))
            assert not np.isfinite(after @ after), (rows, length)


def agreement(mine, read, x, B=None):
    vectors = [np.array(v, np.float64) for v in (mine, read, x)]
    return copy_kernels(B is not None).agreement(*vectors, NOTHING[np.float64] if B is None else 1 / np.array(B))


def test_agreement_in_limiting_cases():
    read, mine = [1.0, 2.0, 3.0], [2.0, 2.0, 1.0]
    assert agreement(mine, read, read) == 1  # alone
    assert agreement(mine, read, mine) == 0  # others have made the same change
    assert agreement(mine, read, [1.5, 2.0, 2.0]) == 0.5  # half of it
    assert agreement(mine, read, [1.0, 9.0, 3.0]) == 1  # one that is orthogonal
    assert agreement(mine, read, [9.0, 2.0, -13.0]) == 0  # more than that: clipped
    assert agreement(mine, read, [0.0, 2.0, 5.0]) == 1  # the opposite: clipped
    assert agreement(read, read, mine) == 1  # no change of one's own: nothing to merge
    for scale in (1e-170, 1e170):
        assert agreement([scale, 0.0, 0.0], [0.0] * 3, [0.0] * 3) == 1  # alone, though squares under- or overflow
    for odd in (np.nan, np.inf):
        assert np.isnan(agreement([odd, 0.0, 0.0], [0.0] * 3, [1.0] * 3))
    assert np.isnan(agreement([1.0, 0.0, 0.0], [0.0] * 3, [np.nan, 0.0, 0.0]))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_agreement_is_a_projection_in_the_inner_product_of_the_system(seed, diagonal):
    rng = np.random.default_rng(seed)
    B = rng.uniform(0.1, 5.0, 6) if diagonal else np.ones(6)
    read, mine, x = rng.normal(size=(3, 6))
    d, o = mine - read, x - read
    exact = 1 - (d * B) @ o / ((d * B) @ d)
    assert agreement(mine, read, x, B if diagonal else None) == pytest.approx(np.clip(exact, 0, 1), abs=1e-12)


def test_agreement_minimises_the_error_of_what_is_merged():
    """Where a copy took projections, ``<d, e>_B = -|d|_B^2``: no other factor leaves a smaller error."""
    rng = np.random.default_rng(5)
    B = rng.uniform(0.5, 2.0, 6)
    system = td.LinearSystem(rng.normal(size=(4, 6)), np.zeros(4), B)
    read, other = rng.normal(size=(2, 6))
    mine = in_place(row_steps(system).steps, np.array([2]), 1.0, read)
    x = read + 0.3 * (mine - read) + 0.01 * other
    alpha = agreement(mine, read, x, B)
    assert 0.1 < alpha < 0.9
    errors = [((x + a * (mine - read)) ** 2) @ B for a in (alpha - 1e-3, alpha, alpha + 1e-3)]
    assert errors[1] < min(errors[0], errors[2])


def test_a_merge_keeps_what_others_wrote_meanwhile():
    """All rows have one entry, in another column than the one that a second thread writes."""
    A = np.zeros((2, 64))
    A[:, 3] = 1.0
    system = td.LinearSystem(A, np.ones(2))
    steps, x, stop = row_steps(system), np.zeros(64), threading.Event()
    steps.sweep(np.zeros(2, np.int64), 2, 1.0, x.copy())
    rows, calls = np.zeros(20_000, np.int64), [0]

    def sweeps():
        while not stop.is_set():
            steps.sweep(rows, 1000, 0.001, x)
            calls[0] += 1

    thread, kept = threading.Thread(target=sweeps), 0
    thread.start()
    try:
        for value in range(1, 201):
            x[60], seen = value, calls[0]
            while calls[0] < seen + 2:
                time.sleep(1e-5)
            kept += x[60] == value
    finally:
        stop.set()
        thread.join()
    assert kept == 200
    assert 0 < x[3] <= 1


@pytest.mark.parametrize(("sparse", "length"), [(False, 1), (False, 2), (True, 3), (True, 1)])
def test_threads_that_write_to_one_iterate_keep_it_in_the_range_of_the_rows(sparse, length):
    """Four threads, and so few unknowns that they meet all the time; b has no solution, so that no step is small.

    One write lost, and some hundredths of x are outside; where writes are lost, most of it is.
    """
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(6, 3)) @ rng.normal(size=(3, 8)), rng.uniform(0.5, 2.0, 8)
    system = td.LinearSystem(sp.csr_array(A) if sparse else A, rng.normal(size=6), B)
    steps, x, rows = row_steps(system), np.zeros(8), np.tile(np.arange(6), 20_000)
    steps.sweep(rows[:1], length, 1.0, x.copy())
    together = threading.Barrier(4)

    def sweeps():
        together.wait()
        for _ in range(5):
            steps.sweep(rows, length, 1.0, x)

    threads = [threading.Thread(target=sweeps) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outside = np.linalg.svd(A / B)[2][3:]
    assert np.linalg.norm(outside @ x) < 1e-8 * np.linalg.norm(x)  # rounding adds up to some 1e-10


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_merge_alone_leaves_every_bit_of_the_copy(dtype):
    copies, scale = copy_kernels(False), NOTHING[dtype]
    mine = np.array([0.0, -0.0, 0.0, -0.0, 1.0, -1.5, 1e-40, 3.0], dtype)
    x = np.array([-0.0, 0.0, 0.0, -0.0, -0.0, 0.0, 0.0, 3.0], dtype)
    read = x.copy()
    expected = mine.copy()
    copies.merge(x, read, mine, scale)
    for left in (x, read, mine):
        assert same_bits(left, expected)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_merge_adds_to_what_others_made_of_the_iterate(dtype):
    copies, scale = copy_kernels(False), NOTHING[dtype]
    read = np.array([1.0, 2.0, 3.0, 4.0], dtype)
    x, mine = read + dtype([0, 8, 1, -1]), read + dtype([4, 0, 2, 2])
    copies.merge(x, read, mine, scale)  # the changes are orthogonal
    for left in (x, read, mine):
        assert left.tolist() == [5.0, 10.0, 6.0, 5.0]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("diagonal", [False, True], ids=["identity", "diagonal"])
def test_sparse_steps_that_lose_nothing_have_the_same_bits(diagonal, dtype):
    system = make_system(40, dtype, diagonal, sparse=True)
    steps, rows, x = row_steps(system), np.random.default_rng(4).integers(13, size=50), np.ones(40, dtype)
    assert steps.shared is not steps.functions
    assert same_bits(in_place(steps.sweep, rows, 1, dtype(0.7), x), in_place(steps.steps, rows, dtype(0.7), x))


def test_interpreted_code_calls_the_functions_that_loops_call():
    for functions in (dense_kernels(False), sparse_kernels(True)):
        assert functions.coef.targetoptions["nogil"]
        assert functions.steps.targetoptions["nogil"]
        assert not functions.steps.targetoptions.get("fastmath")
