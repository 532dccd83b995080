"""Which version is read: the sequences by themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import tardigrad as td
from tardigrad.core.streams import Domain, Stream
from tardigrad.engines.reads import BLOCK, GivenVersions, tabulate
from tardigrad.testing import round_trip


def versions(read, n, seed=0):
    """s(0), ..., s(n - 1), drawn block by block."""
    stream = Stream(seed, Domain.TIMING)
    blocks = [np.arange(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK)]
    return np.concatenate([read.versions(block, stream.at(i)) for i, block in enumerate(blocks)])


SEQUENCES = {
    "constant": td.ConstantDelay(7),
    "constant, each": td.ConstantDelay([0, 3, 2000]),
    "uniform": td.UniformDelay(0.5),
    "uniform, each": td.UniformDelay([0.1, 0.5, 0.9]),
    "uniform up to n": td.UniformDelay(1.0),
    "power 0.5": td.PowerDelay(0.5),
    "power 1": td.PowerDelay(1),
    "power, each": td.PowerDelay([0.3, 1.0, 2.5]),
    "given": GivenVersions(np.arange(3000) // 3),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_versions_are_never_in_the_future_and_their_last_update_is_bounded(name):
    read = SEQUENCES[name]
    found = versions(read, 3000)
    assert found.dtype == np.int64
    assert found.shape == ((3000,) if read.replicas is None else (3000, read.replicas))
    updates = np.arange(3000).reshape(-1, *[1] * (found.ndim - 1))
    assert (found >= 0).all()
    assert (found <= updates).all()
    bounds = [read.last_update(v) for v in range(3000)]
    if bounds[0] is not None:
        assert (np.diff(bounds) >= 0).all()
        assert (updates <= np.array(bounds)[found]).all()


@pytest.mark.parametrize("name", SEQUENCES)
def test_fewer_updates_have_the_same_versions(name):
    read = SEQUENCES[name]
    assert (versions(read, 1500) == versions(read, 3000)[:1500]).all()


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_comes_back_from_plain_data(name):
    again = round_trip(SEQUENCES[name])
    assert (versions(again, 1500, seed=3) == versions(SEQUENCES[name], 1500, seed=3)).all()


@pytest.mark.parametrize("d", [0, 1, 5000])
def test_constant_delay(d):
    assert versions(td.ConstantDelay(d), 3000).tolist() == [max(0, n - d) for n in range(3000)]


def test_uniform_delay_is_uniform_at_every_update_and_independent():
    """Chi-squared tests for single n over 4000 replicas, and no correlation from update to update or replica to replica."""
    found = versions(td.UniformDelay(np.full(4000, 0.5)), 104)
    delays = np.arange(104)[:, np.newaxis] - found
    for n in (0, 1, 2, 3, 50, 103):
        counts = np.bincount(delays[n], minlength=n // 2 + 1)
        assert len(counts) == n // 2 + 1
        if n > 1:
            assert stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(delays[100], delays[101])[0, 1]) < 4 / np.sqrt(4000)
    assert abs(np.corrcoef(delays[100, 1:], delays[100, :-1])[0, 1]) < 4 / np.sqrt(4000)


def test_uniform_delay_of_a_number_is_uniform_along_the_updates():
    found = versions(td.UniformDelay(0.2), 200_000)
    n = np.arange(1000, 200_000)
    share = (n - found[1000:]) / np.floor(0.2 * n)
    assert share.max() == 1.0
    assert stats.kstest(share, "uniform").pvalue > 1e-3


def test_uniform_delay_depends_on_the_seed_alone():
    read = td.UniformDelay(0.5)
    assert (versions(read, 2000, seed=1) == versions(read, 2000, seed=1)).all()
    assert (versions(read, 2000, seed=1) != versions(read, 2000, seed=2)).mean() > 0.9
    assert (versions(read, 2 * BLOCK)[BLOCK:] - BLOCK != versions(read, BLOCK)).mean() > 0.9


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 4.0), st.integers(0, 5000), st.integers(1, 40))
def test_power_delay_is_the_latest_request_that_has_come(q, first, count):
    updates = np.arange(first, first + count)
    found = td.PowerDelay(q).versions(updates, np.random.default_rng())
    arrivals = [m + int(float(m) ** q) for m in range(first + count + 1)]
    assert found.tolist() == [max(m for m in range(n + 1) if arrivals[m] <= n) for n in updates]


def test_power_delay_has_the_order_that_the_paper_needs():
    """d_m = m^q at the request is s(n) of order n^(1/q)."""
    n = np.arange(10**9, 10**9 + 5)
    for q in (1.5, 2.0, 3.0):
        found = td.PowerDelay(q).versions(n, np.random.default_rng())
        assert found / n ** (1 / q) == pytest.approx(1.0, rel=0.01)
    assert (td.PowerDelay(1).versions(n, np.random.default_rng()) == n // 2).all()
    assert td.PowerDelay(5000.0).versions(n, np.random.default_rng()).tolist() == [1] * 5


def test_each_replica_has_its_own_parameter():
    found = versions(td.PowerDelay([0.5, 2.0]), 2000)
    for i, q in enumerate([0.5, 2.0]):
        assert (found[:, i] == versions(td.PowerDelay(q), 2000)).all()


def test_a_function_is_tabulated_with_random_numbers_of_seed_and_update():
    def read(n, rng):
        return rng.integers(n + 1)

    table = tabulate(read, 3, 50).table
    stream = Stream(3, Domain.TIMING)
    assert table.tolist() == [int(stream.at(n).integers(n + 1)) for n in range(50)]
    assert (tabulate(read, 3, 20).table == table[:20]).all()
    assert (tabulate(read, 4, 50).table != table).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: td.ConstantDelay(-1), "ConstantDelay must be an integer >= 0, not -1"),
        (lambda: td.ConstantDelay(2.5), "ConstantDelay must be an integer >= 0, not 2.5"),
        (lambda: td.ConstantDelay([1, -2]), "ConstantDelay, replica 1, must be an integer >= 0, not -2"),
        (lambda: td.ConstantDelay([[1], [2]]), r"must be a number or an array of one for each replica, not \[\[1\], \[2\]\]"),
        (lambda: td.ConstantDelay([[1], [2, 3]]), "must be a number or an array of one for each replica"),
        (lambda: td.ConstantDelay([]), r"must be a number or an array of one for each replica, not \[\]"),
        (lambda: td.UniformDelay(0), "UniformDelay must be a finite number > 0 and <= 1, not 0"),
        (lambda: td.UniformDelay(1.5), "UniformDelay must be a finite number > 0 and <= 1, not 1.5"),
        (lambda: td.UniformDelay([0.5, np.nan]), "UniformDelay, replica 1, must be .* not nan"),
        (lambda: td.UniformDelay("0.5"), "UniformDelay must be .* not '0.5'"),
        (lambda: td.PowerDelay(0.0), "PowerDelay must be a finite number > 0, not 0.0"),
        (lambda: td.PowerDelay(None), "PowerDelay must be a number or an array of one for each replica, not None"),
        (lambda: GivenVersions([0, 2]), "update 1 cannot read version 2: there are only versions 0 to 1 by then"),
        (lambda: GivenVersions([0, -1]), "update 1 cannot read version -1"),
        (lambda: GivenVersions([[0, 0], [1, 2]]), "update 1 of replica 1 cannot read version 2"),
        (lambda: GivenVersions([0.0, 1.0]), r"must be an array of integers, .* not float64\(2,\)"),
        (lambda: GivenVersions([[0], [0, 1]]), r"must be an array of integers, .* not \[\[0\], \[0, 1\]\]"),
        (lambda: GivenVersions(np.zeros((2, 2, 2), int)), r"must be an array of integers, .* not int64\(2, 2, 2\)"),
        (lambda: GivenVersions([]), "must be an array of integers"),
        (
            lambda: tabulate(lambda n, rng: None, 0, 3),
            r"read\(0, rng\) must return an integer, or one for each replica, not None",
        ),
        (lambda: tabulate(lambda n, rng: n / 2, 0, 3), r"read\(0, rng\) must return an integer, .* not 0.0"),
        (lambda: tabulate(lambda n, rng: True, 0, 3), r"read\(0, rng\) must return an integer, .* not True"),
        (
            lambda: tabulate(lambda n, rng: [0] * (n + 1), 0, 3),
            r"read\(1, rng\) .* as for the updates before, \(1,\), not \[0, 0\]",
        ),
        (lambda: tabulate(lambda n, rng: n + n // 2, 0, 3), "update 2 cannot read version 3"),
        (lambda: tabulate(lambda n, rng: [[0], [0, 0]], 0, 3), "must return an integer"),
    ],
)
def test_what_is_no_sequence_is_refused(make, message):
    with pytest.raises(td.InvalidInputError, match=message):
        make()
