"""Payloads that are not finite never reach a rule's state; a diverged replica does not stop the others."""

import numpy as np
import pytest

from tardigrad.core.guard import Guard
from tardigrad.core.stopping import Status
from tardigrad.core.task import Reply, Task
from tardigrad.testing import arrays_of


@pytest.fixture(autouse=True)
def _as_in_the_loop():
    with np.errstate(over="ignore", invalid="ignore"):
        yield


def reply(payload):
    return Reply(Task(0, 0), 0, payload, 0, 0.0, 0.0, 1.0, 1.0)


def rows(*values, dim=2, dtype=float):
    return np.repeat(np.array(values, dtype)[..., None], dim, axis=-1)


BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "make", [lambda bad: np.array([1.0, bad]), lambda bad: (np.ones(2), np.array([bad, 0.0]))], ids=["array", "tuple"]
)
def test_a_single_run_admits_no_payload_that_is_not_finite(make, bad):
    guard = Guard(())
    assert not guard.admit(reply(make(bad)), np.zeros(2))


@pytest.mark.parametrize("payload", [np.array([1.0, -2.0]), (np.ones(2), np.zeros((2, 3))), np.zeros(0), np.array([1, 2])])
def test_a_finite_payload_is_admitted_untouched(payload):
    guard = Guard(())
    answer = reply(payload)
    assert guard.admit(answer, np.zeros(2))
    assert all(kept is array for kept, array in zip(arrays_of(answer.payload), arrays_of(payload), strict=True))


@pytest.mark.parametrize(("dtype", "fits", "too_large"), [(np.float64, 1e153, 1e155), (np.float32, 1e18, 1e20)])
def test_a_payload_whose_square_overflows_counts_as_not_finite(dtype, fits, too_large):
    guard = Guard(())
    assert guard.admit(reply(np.array([fits, 0], dtype)), np.zeros(2, dtype))
    assert not guard.admit(reply(np.array([too_large, 0], dtype)), np.zeros(2, dtype))


def test_without_divergence_the_iterate_and_the_message_are_passed_through():
    guard = Guard((3,))
    x = rows(1, 2, 3)
    assert guard.admit(reply(rows(1, 1, 1)), x)
    assert guard.answer(x) is x
    assert guard.describe("reached the limit") == "reached the limit"
    assert not guard.mask(Status.MAX_UPDATES).any()


@pytest.mark.parametrize("bad", BAD)
def test_a_replica_that_diverges_is_masked_and_the_others_go_on(bad):
    guard = Guard((3,))
    answer = reply(rows(1, bad, 3))
    assert guard.admit(answer, rows(10, 20, 30))
    assert np.array_equal(answer.payload, rows(1, 0, 3))
    assert guard.mask(Status.MAX_UPDATES).tolist() == [False, True, False]


def test_a_masked_replica_stays_masked_and_keeps_its_last_finite_iterate():
    guard = Guard((3,))
    guard.admit(reply(rows(1, np.nan, 3)), rows(10, 20, 30))
    later = reply(rows(4, 5, 6))
    assert guard.admit(later, rows(11, 21, 31))
    assert np.array_equal(later.payload, rows(4, 0, 6))
    x = rows(12, 22, 32)
    assert np.array_equal(guard.answer(x), rows(12, 20, 32))
    assert np.array_equal(x, rows(12, 22, 32))


def test_each_replica_keeps_the_iterate_of_the_moment_when_it_diverged():
    guard = Guard((3,))
    x = rows(10, 20, 30)
    guard.admit(reply(rows(np.nan, 1, 1)), x)
    x += 1
    guard.admit(reply(rows(np.nan, 1, np.inf)), x)
    x += 1
    assert np.array_equal(guard.answer(x), rows(10, 22, 31))
    assert guard.describe("done") == "done; 2 of 3 replicas diverged and were masked"


def test_the_payload_of_the_worker_is_not_changed_in_place():
    guard = Guard((2,))
    sent = rows(1, np.nan)
    guard.admit(reply(sent), rows(0, 0))
    assert np.isnan(sent[1]).all()


def test_the_run_ends_when_the_last_replica_diverges():
    guard = Guard((2,))
    assert guard.admit(reply(rows(np.nan, 1)), rows(1, 2))
    assert not guard.admit(reply(rows(1, np.nan)), rows(3, 4))
    assert np.array_equal(guard.answer(rows(5, 6)), rows(1, 4))
    assert guard.mask(Status.DIVERGED).all()


def test_a_replica_is_masked_in_every_array_of_a_tuple():
    guard = Guard((2,))
    answer = reply((rows(1, 2), rows(np.inf, 4, dim=3), np.array([5.0, 6.0])))
    assert guard.admit(answer, rows(0, 0))
    assert isinstance(answer.payload, tuple)
    for found, expected in zip(answer.payload, (rows(0, 2), rows(0, 4, dim=3), np.array([0.0, 6.0])), strict=True):
        assert np.array_equal(found, expected)


def test_a_payload_shared_by_all_replicas_ends_all_of_them_when_it_is_not_finite():
    guard = Guard((2,))
    assert not guard.admit(reply((rows(1, 2), np.array([1.0, np.nan, 0.0]))), rows(0, 0))
    assert guard.dead.all()


def test_a_shared_payload_is_left_as_it_is_when_a_replica_is_masked():
    guard = Guard((2,))
    shared = np.array([7.0, 8.0, 9.0])
    answer = reply((rows(np.nan, 2), shared))
    assert guard.admit(answer, rows(0, 0))
    assert np.array_equal(answer.payload[0], rows(0, 2))
    assert np.array_equal(answer.payload[1], shared)


def test_two_leading_axes_are_judged_entry_by_entry():
    guard = Guard((2, 3))
    payload = np.ones((2, 3, 4))
    payload[1, 2, 3] = np.nan
    answer = reply(payload)
    assert guard.admit(answer, np.zeros((2, 3, 4)))
    dead = np.zeros((2, 3), bool)
    dead[1, 2] = True
    assert np.array_equal(guard.mask(Status.MAX_UPDATES), dead)
    assert np.array_equal(answer.payload, np.where(dead[..., None], 0.0, 1.0) * np.ones(4))
    assert guard.describe("m") == "m; 1 of 6 replicas diverged and were masked"


def test_replicas_whose_squares_overflow_only_together_are_all_kept():
    guard = Guard((4,))
    payload = rows(*[1e154 * 0.9] * 4, dim=1)
    answer = reply(payload)
    assert guard.admit(answer, rows(0, 0, 0, 0, dim=1))
    assert not guard.dead.any()
    assert np.array_equal(answer.payload, payload)


def test_masking_keeps_the_precision():
    guard = Guard((2,))
    answer = reply(rows(np.nan, 1, dtype=np.float32))
    assert guard.admit(answer, rows(0, 0, dtype=np.float32))
    assert answer.payload.dtype == np.float32


def test_a_single_run_that_diverges_marks_itself():
    mask = Guard(()).mask(Status.DIVERGED)
    assert mask.shape == ()
    assert mask
    assert not Guard(()).mask(Status.MAX_UPDATES)
