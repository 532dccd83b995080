"""Stopping conditions: plain data that the loop asks for its limits once."""

import json
from math import inf, nan

import numpy as np
import pytest

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode
from tardigrad.core.stopping import AnyOf, MaxOracleCalls, MaxSeconds, MaxUpdates, Status, Stop, Tolerance, limits

LOSS = Tolerance("loss", at_most=0.5)
ACCURACY = Tolerance("accuracy", at_least=0.9, every=10)


class Never(Stop):
    """A condition that the loop does not know."""


def test_no_condition_never_ends_a_run():
    none = limits(None)
    assert (none.updates, none.seconds, none.oracle_calls, none.tolerances) == (inf, inf, inf, ())


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (MaxUpdates(7), (7, inf, inf, ())),
        (MaxSeconds(1.5), (inf, 1.5, inf, ())),
        (MaxOracleCalls(3), (inf, inf, 3, ())),
        (LOSS, (inf, inf, inf, (LOSS,))),
        (MaxUpdates(7) | MaxUpdates(5) | MaxUpdates(9), (5, inf, inf, ())),
        (MaxSeconds(2) | LOSS | MaxUpdates(4) | ACCURACY | MaxSeconds(1) | MaxOracleCalls(8), (4, 1, 8, (LOSS, ACCURACY))),
    ],
)
def test_limits_are_the_smallest_of_each_kind_and_all_tolerances(stop, expected):
    found = limits(stop)
    assert (found.updates, found.seconds, found.oracle_calls, found.tolerances) == expected


def test_joining_flattens_and_keeps_the_order():
    left = (MaxUpdates(1) | MaxSeconds(2)) | (LOSS | MaxOracleCalls(3))
    assert left == AnyOf((MaxUpdates(1), MaxSeconds(2), LOSS, MaxOracleCalls(3)))
    assert MaxUpdates(1) | (MaxSeconds(2) | (LOSS | MaxOracleCalls(3))) == left


@pytest.mark.parametrize("other", [3, None, "loss", MaxUpdates])
def test_a_condition_joins_with_conditions_only(other):
    with pytest.raises(TypeError, match="unsupported operand"):
        MaxUpdates(1) | other


COUNTS = pytest.mark.parametrize(
    ("make", "name"),
    [
        (MaxUpdates, "MaxUpdates"),
        (MaxOracleCalls, "MaxOracleCalls"),
        (lambda value: Tolerance("loss", at_most=1.0, every=value), r"Tolerance\.every"),
    ],
)


@COUNTS
@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, nan, inf, True, "10", None, 1j])
def test_a_count_that_is_no_integer_from_1_is_refused(make, name, value):
    with pytest.raises(InvalidInputError, match=f"{name} must be an integer >= 1, not"):
        make(value)


@COUNTS
def test_numpy_integers_are_kept_as_plain_ones(make, name):
    stop = make(np.int32(5))
    count = stop.every if isinstance(stop, Tolerance) else stop.n
    assert (type(count), count) == (int, 5), name


@pytest.mark.parametrize("value", [0, -1.0, nan, inf, True, "10", None, 1j, 10**400])
def test_seconds_are_positive_and_finite(value):
    with pytest.raises(InvalidInputError, match="MaxSeconds must be a finite number > 0, not"):
        MaxSeconds(value)


@pytest.mark.parametrize("bounds", [{}, {"at_most": 1.0, "at_least": 0.0}])
def test_a_tolerance_has_exactly_one_bound(bounds):
    with pytest.raises(InvalidInputError, match=r"Tolerance\('loss'\) needs one of at_most and at_least"):
        Tolerance("loss", **bounds)


@pytest.mark.parametrize("bounds", [{"at_most": nan}, {"at_least": nan}, {"at_most": "small"}])
def test_a_bound_that_can_never_be_met_is_refused(bounds):
    with pytest.raises(InvalidInputError, match=r"Tolerance\.at_(most|least) must be a finite number, not"):
        Tolerance("loss", **bounds)


@pytest.mark.parametrize("bound", [0.0, -1.0])
def test_a_tolerance_may_be_zero_or_negative(bound):
    assert Tolerance("loss", at_most=bound).at_most == bound
    assert Tolerance("margin", at_least=bound).at_least == bound


@pytest.mark.parametrize("stop", [100, "max_updates", MaxUpdates, [MaxUpdates(1)], lambda: True])
def test_what_is_no_condition_is_refused(stop):
    with pytest.raises(InvalidInputError, match=r"stop must be a condition such as MaxUpdates\(1000\), not"):
        limits(stop)


@pytest.mark.parametrize("stop", [Never(), MaxUpdates(1) | Never(), AnyOf((MaxUpdates(1), "loss"))])
def test_a_condition_that_the_loop_does_not_know_is_refused(stop):
    with pytest.raises(InvalidInputError, match=r"must be made of MaxUpdates.*joined with \|"):
        limits(stop)


@pytest.mark.parametrize("stop", [MaxUpdates(5), ACCURACY, MaxUpdates(5) | MaxSeconds(0.1) | LOSS])
def test_a_condition_comes_back_from_json(stop):
    assert decode(json.loads(json.dumps(encode(stop, {}))), {}) == stop


def test_a_status_is_its_word():
    assert Status("max_updates") is Status.MAX_UPDATES
    assert json.dumps(Status.STALLED) == '"stalled"'
