"""Durations that grow: the staleness that comes of them is the one that was asked for."""

import json

import numpy as np
import pytest

import tardigrad as td
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.timing.growing import LONGEST, Growing
from virtual_runs import simulated

#: exponent, scale at which a run of 50000 updates has many late replies, and how near the exponent is found
POWERS = [(0.5, 1.0, 0.06), (1.0, 0.3, 0.05), (1.5, 0.1, 0.1), (2.0, 0.01, 0.15)]


def trace_of(exponent, scale, slow=3, quick=4, n=50_000, base=None, seed=0):
    base = base or td.Exponential(1.0)
    timing = Growing(exponent, scale, rate=quick, clients=range(slow), base=base)
    return simulated(timing, slow + quick, n, seed=seed)


@pytest.mark.parametrize(("exponent", "scale", "within"), POWERS)
def test_the_growth_of_a_trace_has_the_exponent_asked_for(exponent, scale, within):
    found = trace_of(exponent, scale).growth()
    assert found.client in (0, 1, 2)
    assert found.exponent == pytest.approx(exponent, abs=within)


@pytest.mark.parametrize(("exponent", "scale", "within"), POWERS)
def test_every_late_reply_has_the_staleness_asked_for(exponent, scale, within):
    quick = 5
    trace = trace_of(exponent, scale, slow=1, quick=quick, base=td.Constant(1.0))
    mine = trace["client"] == 0
    read, late = trace["version_read"][mine].astype(float), trace.staleness[mine]
    # the others' updates come in heaps of five; of the version read, the client's own updates are no measure of time
    fewest = np.maximum(read - np.arange(len(read)) - quick, 0)
    assert (late >= scale * fewest**exponent - quick).all()
    assert (late <= np.maximum(scale * read**exponent, quick) + quick).all()
    assert (late > 10 * quick).sum() >= 3


@pytest.mark.parametrize(("exponent", "scale", "within"), POWERS)
def test_the_largest_staleness_fits_the_constant_with_random_durations(exponent, scale, within):
    trace = trace_of(exponent, scale, slow=1)
    mine = trace["client"] == 0
    read, late = trace["version_read"][mine].astype(float), trace.staleness[mine]
    far = read > 1000
    ratio = late[far] / (scale * read[far] ** exponent)
    assert far.any()
    assert abs(np.median(ratio) - 1) < 0.15


def test_another_rate_keeps_the_exponent_and_scales_as_documented():
    # the others give 8 updates a second where 2 were meant: at exponent 2 the scale is a quarter
    timing = Growing(2.0, 0.01, rate=2.0, clients=[0], base=td.PerClient([1.0, *[0.5] * 4]))
    trace = simulated(timing, 5, 50_000)
    mine = (trace["client"] == 0) & (trace["version_read"] > 500)
    ratio = trace.staleness[mine] / trace["version_read"][mine].astype(float) ** 2
    assert mine.any()
    assert ratio == pytest.approx(0.01 / 4, rel=0.1)


@pytest.mark.parametrize(
    "timing",
    [
        Growing(1.0, 1.0, rate=4.0, clients=[0, 1]),
        Growing(2.0, 0.01, rate=4.0, clients=[0], base=td.Exponential(1.0)),
        td.Pareto(tail=1.2),
        td.PerClient([1e-3, 1.0, 1.0, 1.0, 1.0, 1e3]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("in_flight", [2, 6, 11])
def test_the_mean_staleness_is_below_the_number_of_tasks_in_flight(timing, in_flight):
    trace = simulated(timing, 6, 5000, td.AsyncSGD(1e-9, next_client="uniform"), concurrency=in_flight)
    assert trace.staleness.mean() <= in_flight - 1
    assert trace.staleness.max() > in_flight


def test_a_duration_is_the_base_s_until_the_power_exceeds_it():
    timing = Growing(2.0, 0.5, rate=2.0, clients=[1], base=td.PerClient([1.0, 3.0]))
    # 0.5 * (2 t)^2 / 2 = t^2
    assert [timing.duration(1, t, 0.5) for t in (0.0, 1.0, 1.5, 2.0, 10.0)] == pytest.approx([3.0, 3.0, 3.0, 4.0, 100.0])
    assert {timing.duration(0, t, 0.5) for t in (0.0, 1.0, 1e9)} == {1.0}


def test_durations_stay_finite_at_any_time():
    timing = Growing(3.0, 1.0, rate=1e3)
    assert [timing.duration(0, t, 0.5) for t in (1e60, 1e120, 1e300)] == [LONGEST] * 3
    # rounds wait for the slow client: its time is squared each round
    rounds = simulated(Growing(2.0, 1.0), 2, 30, td.SyncSGD(1e-9))
    assert np.isfinite(rounds["received"]).all()


def test_it_is_random_where_its_base_is():
    assert not Growing().random
    assert Growing(base=td.Exponential()).random


@pytest.mark.parametrize("timing", [Growing(), Growing(1.5, 2.0, 3.0, [4, 1, 4], td.Pareto([1.0] * 6))], ids=repr)
def test_it_comes_back_from_json(timing):
    arrays = {}
    back = decode(json.loads(json.dumps(encode(timing, arrays))), arrays)
    assert back == timing
    assert same_bits(back, timing)
    assert back.duration(1, 50.0, 0.3) == timing.duration(1, 50.0, 0.3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Growing(0), r"Growing\.exponent must be a finite number > 0, not 0"),
        (lambda: Growing(1, -1), r"Growing\.scale must be a finite number > 0, not -1"),
        (lambda: Growing(1, 1, np.inf), r"Growing\.rate must be .*not inf"),
        (lambda: Growing(clients=[]), r"Growing\.clients needs .* not an empty list"),
        (lambda: Growing(clients=0), r"Growing\.clients must be numbers of clients such as \[0\], not 0"),
        (lambda: Growing(clients=[-1]), r"Growing\.clients: each must be an integer >= 0, not -1"),
        (lambda: Growing(base=1.0), r"Growing\.base must be a timing"),
        (lambda: Growing(clients=[0, 5]).check(5), "slows client 5, but there are 5 clients"),
        (lambda: Growing(clients=[0, 1]).check(2), "slows all 2 clients"),
        (lambda: Growing(base=td.PerClient([1.0, 1.0])).check(3), "PerClient has 2 durations for 3 clients"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_an_engine_refuses_clients_that_do_not_exist():
    with pytest.raises(InvalidInputError, match="slows client 7"):
        simulated(Growing(clients=[7]), 3, 10)
