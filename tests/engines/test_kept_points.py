"""Points are kept while an update to come reads them, and no longer; counted against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tardigrad as td
from conftest import make_problem
from tardigrad.core.streams import Domain, Stream
from tardigrad.engines import kept_points
from tardigrad.engines.kept_points import KeptPoints
from tardigrad.engines.reads import BLOCK, GivenVersions


def table(read, n, seed=0):
    stream = Stream(seed, Domain.TIMING)
    return np.concatenate([read.versions(np.arange(i, i + BLOCK), stream.at(i // BLOCK)) for i in range(0, n, BLOCK)])[:n]


def needed(reads, update):
    """The versions up to that of an update which it or a later one reads."""
    versions = np.unique(reads[update:])
    return set(versions[versions <= update].tolist())


def check(read, horizon, n, reads, shape=(1,)):
    kept, point = KeptPoints(read, horizon, 0), np.zeros(shape)
    for version in range(n):
        kept.offer(version, (point + version,), fresh=False)
        if version % 7 == 0 or n < 100:
            assert set(kept._kept) == needed(reads, version), version
            assert len(kept) == len(needed(reads, version))
        read_now, points = kept.next()
        wanted = reads[version]
        assert read_now == wanted.min()
        assert (points[0] == np.broadcast_to(wanted.reshape(-1, *[1] * (point.ndim - 1)), points[0].shape)).all()


@pytest.mark.parametrize(
    ("read", "horizon", "ahead"),
    [
        (td.ConstantDelay(0), None, 3000),
        (td.ConstantDelay(5), None, 4000),
        (td.ConstantDelay(1500), None, 5000),
        (td.UniformDelay(0.1), None, 4000),
        (td.UniformDelay(0.5), None, 7000),
        (td.UniformDelay(0.5), 2900, 2900),
        (td.UniformDelay(1.0), 4000, 4000),
        (td.PowerDelay(0.5), None, 4000),
        (td.PowerDelay(1), None, 7000),
        (td.PowerDelay(2), 5000, 5000),
    ],
)
def test_kept_are_those_that_are_read_later(read, horizon, ahead):
    check(read, horizon, 2500, table(read, ahead))


@pytest.mark.parametrize("read", [td.ConstantDelay([0, 3, 1200]), td.UniformDelay([0.1, 0.5]), td.PowerDelay([0.5, 1.0])])
def test_kept_are_those_that_any_replica_reads_later(read):
    check(read, None, 1500, table(read, 7000), shape=(read.replicas, 2))


def test_power_delays_need_room_for_the_root_of_the_horizon():
    kept = KeptPoints(td.PowerDelay(2.0), 10_000, 0)
    most = 0
    for version in range(10_000):
        kept.offer(version, (np.zeros(1),), fresh=True)
        most = max(most, len(kept))
    assert most == 91  # at update 99: versions 9 to 99, as s(99) = 9 and s(9999) = 99


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_table_and_any_offers(data):
    n = data.draw(st.integers(1, 30))
    reads = np.array([data.draw(st.integers(0, i)) for i in range(n)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_points, "BLOCK", data.draw(st.sampled_from([1, 2, 5, 64])))
        check(GivenVersions(reads), None, n, reads)
        skipped = data.draw(st.sets(st.integers(1, n)))
        offers = [version for version in range(n) if version not in skipped]
        kept = KeptPoints(GivenVersions(reads), None, 0)
        for version in offers:
            kept.offer(version, (np.full(1, version),), fresh=False)
            assert set(kept._kept) == needed(reads, version) & set(offers)
            if reads[version] in skipped:
                with pytest.raises(td.InvalidInputError, match=f"is to read version {reads[version]}, but no task was issued"):
                    kept.next()
            else:
                assert kept.next()[1][0] == reads[version]


def test_beyond_the_end_nothing_is_kept_or_read():
    for read, horizon in ((GivenVersions([0, 0]), None), (td.ConstantDelay(1), 2)):
        kept = KeptPoints(read, horizon, 0)
        for version in range(2000):
            kept.offer(version, (np.zeros(1),), fresh=True)
            if version < 2:
                kept.next()
            else:
                assert len(kept) == 0
                with pytest.raises(td.InvalidInputError, match=f"no version is prescribed for update {version}: .* that of 1$"):
                    kept.next()


def test_points_that_change_are_copied_and_fresh_ones_are_not():
    x = np.zeros(3)
    for fresh in (False, True):
        kept = KeptPoints(td.ConstantDelay(1), None, 0)
        kept.offer(0, (x,), fresh)
        assert (kept.next()[1][0] is x) == fresh


def test_points_of_every_replica_come_from_its_own_version():
    kept = KeptPoints(GivenVersions([[0, 0, 0], [1, 0, 1], [2, 2, 2]]), None, 0)
    points = [tuple(10 * version + np.arange(3)[:, None] + np.zeros((3, dim)) for dim in (2, 5)) for version in range(3)]
    kept.offer(0, points[0], False)
    kept.next()
    kept.offer(1, points[1], False)
    oldest, mixed = kept.next()
    assert oldest == 0
    for point, dim in zip(mixed, (2, 5), strict=True):
        assert point.tolist() == [[10.0] * dim, [1.0] * dim, [12.0] * dim]
    kept.offer(2, points[2], False)
    assert kept.next()[1] is kept._kept[2]


@pytest.mark.parametrize("shape", [(3,), (5, 3), ()])
def test_another_number_of_replicas_is_refused(shape):
    kept = KeptPoints(td.ConstantDelay([0, 1]), None, 0)
    with pytest.raises(td.InvalidInputError, match=r"ConstantDelay.*has versions for 2 replicas.*must count 2 replicas"):
        kept.offer(0, (np.zeros((2, 3)), np.zeros(shape)), False)


class TooEarly(td.ReadSequence):
    def versions(self, updates, rng):
        return updates + (updates == 1500)

    def last_update(self, version):
        return version


class TooFew(TooEarly):
    def versions(self, updates, rng):
        return updates[:-1]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (TooEarly(), "update 1500 cannot read version 1501"),
        (TooFew(), r"versions of 1024 updates must be an array of integers"),
    ],
)
def test_a_broken_sequence_is_caught(read, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.run(td.AsyncSGD(0.01), make_problem(), td.Prescribed(read), stop=td.MaxUpdates(2000))
