"""Entries changed in one step, by one thread and by several."""

import threading

import numba
import numpy as np
import pytest

from tardigrad.core.plain import same_bits
from tardigrad.problems.atomic import atomic

PRECISIONS = (np.float64, np.float32)


@pytest.fixture(scope="module")
def compiled():
    load, replace = atomic().load, atomic().replace

    @numba.njit
    def read(x, i):
        return load(x, i)

    @numba.njit
    def write(x, i, old, new):
        return replace(x, i, old, new)

    @numba.njit(nogil=True)
    def count(x, n):
        for k in range(n):
            i = k % x.size
            found = load(x, i)
            while not replace(x, i, found, found + 1):
                found = load(x, i)

    return read, write, count


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_an_entry_is_replaced_where_it_has_the_bits_of_the_old_one(compiled, dtype):
    read, write, _ = compiled
    x = np.array([1.0, 2.0, 0.0, np.nan], dtype)
    assert read(x, 1) == 2
    assert write(x, 1, dtype(2), dtype(5))
    assert not write(x, 1, dtype(2), dtype(7))
    assert not write(x, 2, dtype(-0.0), dtype(7))  # equal, but not in every bit
    assert write(x, 3, x[3], dtype(-0.0))
    assert same_bits(x, np.array([1.0, 5.0, 0.0, -0.0], dtype))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_arrays_with_strides(compiled, dtype):
    read, write, _ = compiled
    x = np.arange(9, dtype=dtype)
    assert read(x[1::3], 2) == 7
    assert write(x[1::3], 2, dtype(7), dtype(70))
    assert x.tolist() == [0, 1, 2, 3, 4, 5, 6, 70, 8]


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_no_change_of_any_thread_is_lost(compiled, dtype):
    *_, count = compiled
    x = np.zeros(3, dtype)
    count(x.copy(), 1)
    threads = [threading.Thread(target=count, args=(x, 300_000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert x.tolist() == [400_000] * 3
