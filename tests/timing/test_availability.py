"""Clients that come and go: a job takes its work and the off times between, and nothing else."""

import json
import pickle
import threading

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.core.streams import Domain, Stream
from tardigrad.timing.availability import PATIENCE, OnOff
from tardigrad.timing.recorded_availability import OnOffTrace
from virtual_runs import simulated

ROWS = [[0, 0.0, 4.0], [1, 1.0, 2.0], [0, 6.0, 7.5], [1, 3.0, 9.0], [0, 8.0, 10.0]]


class Ask(td.Timing):
    """As many seconds of work as `u` says, so that a test can ask for any."""

    def fields(self):
        return {}

    def duration(self, client, start, u):
        return u


MODELS = {
    "light": OnOff(td.Exponential(2.0), td.Exponential(3.0), Ask(), seed=4),
    "heavy": OnOff(td.Exponential(1.0), td.Pareto(2.0, tail=1.2), Ask(), seed=4),
    "regular": OnOff(td.Constant(1.5), td.PerClient([0.5, 4.0, 1.0]), Ask()),
    "growing": OnOff(td.Constant(1.0), td.Growing(1.0, 0.2, clients=[0, 2]), Ask()),
    "rows": OnOffTrace(ROWS, Ask()),
}


def fresh(model):
    """The same model, with nothing laid out."""
    return type(model)(**model.fields())


def by_small_steps(stretches, start, work, dt):
    """The seconds from `start` until `work` is done, moment by moment."""
    moments = start + dt * (np.arange(int((stretches[-1, 1] - start) / dt)) + 0.5)
    on = np.searchsorted(stretches[:, 0], moments, "right") > np.searchsorted(stretches[:, 1], moments, "right")
    done = dt * np.cumsum(on)
    assert done[-1] > work
    return dt * (np.searchsorted(done, work) + 1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("client", [0, 1])
def test_a_duration_is_what_an_integration_in_small_steps_gives(name, client):
    model, rng = MODELS[name], np.random.default_rng(7)
    stretches, dt = model.stretches(client, 1000.0), 2e-3
    for start, work in zip(rng.uniform(0, 60, 30), rng.exponential(5.0, 30), strict=True):
        expected = by_small_steps(stretches, start, work, dt)
        # a moment that is half on is wrong by half of it, at each change
        assert model.duration(client, start, work) == pytest.approx(expected, abs=40 * dt)


@pytest.mark.parametrize("name", MODELS)
def test_the_work_between_start_and_end_is_the_work_asked_for(name):
    model, rng = MODELS[name], np.random.default_rng(8)
    for start, work in zip(rng.uniform(0, 2000, 200), rng.exponential(3.0, 200), strict=True):
        end = start + model.duration(0, start, work)
        stretches = model.stretches(0, end)
        assert np.clip(stretches[:, 1] - np.maximum(stretches[:, 0], start), 0, None).sum() == pytest.approx(work, abs=1e-9)
        # done when the client works, and not a moment later
        assert stretches[-1, 1] == pytest.approx(end, abs=1e-9)


def test_durations_of_a_small_example_by_hand():
    model = OnOffTrace(ROWS, Ask())
    assert model.period == 10.0
    # client 0 is on in [0, 4], [6, 7.5], [8, 10], [10, 14], ...
    cases = [
        (0.0, 4.0, 4.0),  # done at the end of the stretch, not at the beginning of the next
        (0.0, 4.5, 6.5),
        (5.0, 1.0, 2.0),
        (4.0, 1.0, 3.0),
        (6.0, 1.5, 1.5),
        (7.5, 0.5, 1.0),
        (9.0, 2.0, 2.0),  # on beyond the end of the recording
        (9.0, 7.5, 10.0),
        (105.0, 1.0, 2.0),
        (5.0, 75.0, 99.0),  # 3.5 s in this recording, 67.5 s in nine more, 4 s in the next
        (5.0, 0.0, 0.0),
        (5.0, 1e-20, 1.0),  # so little that it does not change the seconds on: it waits all the same
    ]
    for start, work, seconds in cases:
        assert model.duration(0, start, work) == pytest.approx(seconds, abs=1e-12), (start, work)
    # client 1 comes on at 1 s and is off at the end
    assert [model.duration(1, start, 1.0) for start in (0.0, 2.0, 8.5)] == pytest.approx([2.0, 2.0, 3.0])


@pytest.mark.parametrize("base", [td.Exponential(2.0), td.Pareto(1.0, tail=1.3), td.Constant(0.1)], ids=repr)
@pytest.mark.parametrize(
    "always",
    [
        lambda base: OnOff(td.Constant(1e12), td.Constant(1.0), base),
        lambda base: OnOffTrace([[0, 0, 7.0]], base),
        lambda base: OnOffTrace([[0, 3.0, 7.0], [0, 0.0, 3.0], [1, 0.5, 2]], base),
    ],
    ids=["long stretches", "one row", "rows that touch"],
)
def test_who_is_always_on_has_the_base_s_durations_bit_for_bit(base, always):
    model, rng = always(base), np.random.default_rng(1)
    for start, u in zip(rng.uniform(0, 1e6, 300), rng.random(300), strict=True):
        assert model.duration(0, start, u) == base.duration(0, start, u)
    assert model.shares(1, 1e5).tolist() == [1.0]


def test_a_run_of_clients_that_are_always_on_is_the_base_s_run():
    rows = [[client, 0, 5.0] for client in range(4)]
    base = td.Exponential([1.0, 2.0, 3.0, 4.0])
    assert same_bits(simulated(OnOffTrace(rows, base), n=500).table, simulated(base, n=500).table)


@pytest.mark.parametrize("name", ["light", "heavy", "regular", "growing"])
def test_stretches_are_those_of_the_timings_in_turn(name):
    model = MODELS[name]
    for client in (0, 2):
        u = iter(Stream(model.seed, Domain.AVAILABILITY).at(client * 2**32).random(128).tolist())
        now, expected = 0.0, []
        while now < 60:
            on = model.on.duration(client, now, next(u))
            expected.append((now, min(now + on, 60.0)))
            now += on
            now += model.off.duration(client, now, next(u))
        assert np.array_equal(model.stretches(client, 60.0), expected)


@given(st.permutations(range(24)), st.sampled_from(sorted(MODELS)))
def test_the_order_of_the_questions_does_not_matter(order, name):
    rng = np.random.default_rng(2)
    questions = list(zip(rng.integers(0, 2, 24).tolist(), rng.uniform(0, 300, 24), rng.exponential(9.0, 24), strict=True))
    model = fresh(MODELS[name])
    answers = {i: model.duration(*questions[i]) for i in order}
    assert answers == {i: fresh(model).duration(*question) for i, question in enumerate(questions)}


def test_a_client_s_stretches_depend_on_the_seed_and_on_nobody_else():
    def ends(seed, client):
        return OnOff(td.Exponential(1.0), td.Exponential(1.0), seed=seed).stretches(client, 50.0)[:-1, 1].tolist()

    found = {(seed, client): ends(seed, client) for seed in (0, 1) for client in (0, 1, 70_000)}
    assert len({tuple(one) for one in found.values()}) == 6
    assert found[1, 70_000] == ends(1, 70_000)
    flat = [end for one in found.values() for end in one]
    assert len(set(flat)) == len(flat)


def test_the_random_numbers_of_stretches_do_not_repeat():
    model = OnOff(td.Exponential(1.0), td.Exponential(1.0))
    lengths = np.diff(model.stretches(3, 2000.0))[:-1].ravel()
    assert len(lengths) > 500
    assert len(set(lengths.round(12))) == len(lengths)
    assert lengths.mean() == pytest.approx(1.0, abs=0.15)


def test_the_run_s_seed_leaves_the_stretches_alone():
    model = OnOff(td.Exponential(5.0), td.Exponential(5.0), td.Exponential(1.0), seed=3)
    before = model.stretches(0, 500.0)
    first, second = (simulated(model, n=300, seed=seed)["finished"] for seed in (1, 2))
    assert not np.array_equal(first, second)
    assert np.array_equal(model.stretches(0, 500.0), before)


@pytest.mark.parametrize("name", MODELS)
def test_durations_grow_with_the_work_and_nobody_overtakes_himself(name):
    model = fresh(MODELS[name])
    starts, works = np.linspace(0, 100, 60), np.linspace(0.01, 40, 60)
    found = np.array([[model.duration(0, start, work) for work in works] for start in starts])
    assert (np.diff(found, axis=1) > 0).all()
    assert (found >= works).all()
    assert (np.diff(starts[:, None] + found, axis=0) >= -1e-9).all()


@pytest.mark.parametrize("name", MODELS)
def test_threads_that_ask_together_get_the_answers_of_one(name):
    model, rng = fresh(MODELS[name]), np.random.default_rng(3)
    questions = list(zip(rng.integers(0, 2, 2000).tolist(), rng.uniform(0, 5e3, 2000), rng.exponential(9.0, 2000), strict=True))
    expected = [fresh(model).duration(*one) if i % 50 == 0 else None for i, one in enumerate(questions)]
    found, barrier = {}, threading.Barrier(8)

    def ask(number):
        barrier.wait()
        order = np.random.default_rng(number).permutation(len(questions))
        found[number] = {int(i): model.duration(*questions[i]) for i in order}

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == found[0] for number in range(8))
    assert all(found[0][i] == answer for i, answer in enumerate(expected) if answer is not None)


@pytest.mark.parametrize("dump", [pickle, cloudpickle], ids=lambda dump: dump.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_from_a_pickle_without_what_was_laid_out(name, dump):
    model = fresh(MODELS[name])
    small = len(dump.dumps(model))
    expected = model.duration(0, 3000.0, 12.0)
    content = dump.dumps(model)
    assert len(content) == small
    assert pickle.loads(content).duration(0, 3000.0, 12.0) == expected


@pytest.mark.parametrize(
    "model",
    [OnOff(td.Exponential(2.0), td.Pareto(3.0), td.LogNormal(), seed=9), OnOffTrace(ROWS, td.Exponential(2.0))],
    ids=repr,
)
def test_a_model_comes_back_from_json(model):
    arrays = {}
    back = decode(json.loads(json.dumps(encode(model, arrays))), arrays)
    assert same_bits(back, model)
    assert repr(back) == repr(model)
    assert [back.duration(1, t, 0.7) for t in (0.0, 500.0)] == [model.duration(1, t, 0.7) for t in (0.0, 500.0)]


def test_it_is_random_where_its_base_is():
    assert not OnOff(td.Exponential(1.0), td.Exponential(1.0)).random
    assert OnOffTrace(ROWS, td.Exponential(1.0)).random


def test_shares_are_the_seconds_on_by_the_seconds():
    assert OnOffTrace(ROWS).shares(2, 10.0).tolist() == [0.75, 0.7]
    assert OnOffTrace(ROWS).shares(2, 5.0).tolist() == [0.8, 0.6]
    assert OnOffTrace(ROWS).shares(2, 0.5).tolist() == [1.0, 0.0]
    assert OnOff(td.Constant(1.0), td.PerClient([1.0, 3.0])).shares(2, 400.0).tolist() == [0.5, 0.25]
    assert OnOff(td.Exponential(1.0), td.Exponential(3.0)).shares(3, 20_000.0) == pytest.approx(0.25, abs=0.02)


def test_the_recording_repeats():
    model = OnOffTrace(ROWS)
    assert model.stretches(1, 24.0).tolist() == [[1, 2], [3, 9], [11, 12], [13, 19], [21, 22], [23, 24]]
    for start in (0.5, 2.5, 9.5):
        assert model.duration(1, start + 1e6, 0.5) == pytest.approx(model.duration(1, start, 0.5))


def test_long_work_of_a_recording_costs_nothing():
    """A client that is on 2 of 3 seconds: of many repeats nothing is laid out but the first."""
    model = OnOffTrace([[0, 0, 1], [0, 2, 3]], Ask())
    assert [model.duration(0, 0.0, work) for work in (2.0, 2.5, 4.0, 2e9, 2e9 + 1)] == [3.0, 3.5, 6.0, 3e9, 3e9 + 1]
    assert [model.duration(0, 1.5, work) for work in (2.0, 4.0, 5.0)] == [2.5, 5.5, 7.5]
    assert len(model._of[0].ends) < 10
    odd = OnOffTrace([[0, 0.1, 0.4], [0, 0.7, 0.8], [1, 0, 1]], Ask())
    for work in (1e17, 1e100, 1e300):  # no rest can be told there
        assert odd.duration(0, 0.3, work) == pytest.approx(2.5 * work)
    assert len(odd._of[0].ends) < 10


def test_late_times_of_a_recording_cost_nothing():
    model = OnOffTrace(ROWS)
    model.duration(0, 1e12, 0.5)
    assert len(model._line(0).ends) < 10


def test_heavy_tails_of_off_times_have_records_without_a_trend():
    grown = []
    for seed in range(4):
        model = OnOff(td.Exponential(20.0), td.Pareto(20.0, tail=1.3), td.Exponential(1.0), seed=seed)
        found = simulated(model, n_clients=8, n=20_000).growth()
        assert abs(found.exponent) < 0.15
        grown.append(found.record_exponent)
    light = OnOff(td.Exponential(20.0), td.Constant(20.0), td.Exponential(1.0))
    assert simulated(light, n_clients=8, n=20_000).growth().record_exponent < 0.3
    assert np.mean(grown) > 0.4


@pytest.mark.parametrize(("exponent", "scale"), [(0.5, 1.0), (1.0, 0.1)])
def test_off_times_that_grow_make_the_staleness_grow(exponent, scale):
    # three clients are on for less than a job at a time; the others are always there
    off = td.Growing(exponent, scale, rate=5.0, clients=[0, 1, 2], base=td.PerClient([0.1] * 8))
    model = OnOff(td.PerClient([*[0.3] * 3, *[1e9] * 5]), off, td.Exponential(1.0))
    trace = simulated(model, n_clients=8, n=40_000)
    found = trace.growth()
    assert found.client in (0, 1, 2)
    assert found.exponent == pytest.approx(exponent, abs=0.3)
    assert trace.staleness.mean() < 8


def test_off_times_that_grow_for_ever_end_at_some_time():
    # so late that a stretch of 0.3 s does not move the clock
    model = OnOff(td.Constant(0.3), td.Growing(1.5, 0.1, rate=5.0), td.Constant(20.0))
    seconds = model.duration(0, 0.0, 0.5)
    assert 1e17 < seconds < np.inf


@pytest.mark.parametrize("name", ["Threads", "Processes"])
def test_it_can_be_injected_into_real_workers(name, small_problem):
    rows = [[0, 0, 0.3], [1, 0, 0.3], [2, 0, 0.3], [3, 0, 0.01], [3, 0.2, 0.3]]
    for model in (OnOffTrace(rows, td.Constant(0.02)), OnOff(td.Exponential(0.05), td.Exponential(0.05), td.Exponential(0.01))):
        result = td.run(td.AsyncSGD(0.01), small_problem, getattr(td, name)(2, model), stop=td.MaxUpdates(40))
        assert result.status.value == "max_updates"
        trace = result.trace
        assert (trace["finished"] > trace["started"]).all()
        uniform = td.core.streams.Uniforms(result.seed, Domain.TIMING)
        for task, client, start, end in zip(*(trace[c] for c in ("task", "client", "started", "finished")), strict=True):
            u = uniform(int(task)) if model.random else 0.5
            # a job never ends before its client was on for long enough
            assert end - start >= model.duration(int(client), float(start), u) - 1e-9
        back = td.replay(result)
        assert back.identical


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnOff(3600.0, td.Constant(1.0)), r"OnOff\.on must be a timing such as Exponential\(3600\.0\), not 3600\.0"),
        (lambda: OnOff(td.Constant(1.0), None), r"OnOff\.off must be a timing"),
        (
            lambda: OnOff(td.Constant(1.0), td.Constant(1.0), 2.0),
            r"OnOff\.base must be a timing such as Constant\(1\.0\), not 2\.0",
        ),
        (lambda: OnOffTrace(ROWS, 2.0), r"OnOffTrace\.base must be a timing"),
        (lambda: OnOff(td.Constant(1.0), td.Constant(1.0), seed=-1), "seed must be an integer >= 0, not -1"),
        (lambda: OnOffTrace([]), r"rows of client, on, off, at least one, not an array of shape \(0,\)"),
        (lambda: OnOffTrace([[0, 1.0]]), r"not an array of shape \(1, 2\)"),
        (lambda: OnOffTrace("grid"), "needs rows of client, on, off, in seconds, not 'grid'"),
        (lambda: OnOffTrace([[0, 0, 1], [0.5, 0, 1]]), r"OnOffTrace, row 1: a client is an integer from 0, not 0\.5"),
        (lambda: OnOffTrace([[-1, 0, 1]]), "row 0: a client is an integer from 0, not -1"),
        (lambda: OnOffTrace([[np.nan, 0, 1]]), "row 0: a client is an integer from 0, not nan"),
        (lambda: OnOffTrace([[1e300, 0, 1]]), "row 0: a client is an integer from 0, not 1e"),
        (lambda: OnOffTrace([[0, -1, 1]]), "row 0: on must be seconds >= 0, from the beginning of the run, not -1"),
        (lambda: OnOffTrace([[0, np.nan, 1]]), "row 0: on must be seconds >= 0"),
        (lambda: OnOffTrace([[0, 2, 1]]), "row 0: off must be later than on, 2, not 1"),
        (lambda: OnOffTrace([[0, 2, 2]]), "row 0: off must be later than on, 2, not 2"),
        (lambda: OnOffTrace([[0, 2, np.inf]]), "row 0: off must be later than on, 2, not inf"),
        (
            lambda: OnOffTrace([[0, 5, 9], [1, 0, 6], [0, 0, 6]]),
            "row 0: client 0 comes on at 5, but by row 2 it is on until 6: stretches must not overlap",
        ),
        (lambda: OnOffTrace(ROWS).check(3), "has no row for client 2: give each client of the run at least one"),
        (lambda: OnOffTrace(ROWS).stretches(2, 1.0), "has no row for client 2"),
        (lambda: OnOffTrace(ROWS).stretches(0, 0.0), "stretches, seconds, must be a number of seconds > 0"),
        (lambda: OnOffTrace(ROWS).stretches(-1, 1.0), "client must be an integer between 0 and"),
        (lambda: OnOff(td.PerClient([1.0]), td.Constant(1.0)).check(2), "PerClient has 1 durations for 2 clients"),
        (lambda: OnOff(td.Constant(1.0), td.Pareto([1.0])).check(2), "Pareto has 1 means for 2 clients"),
        (lambda: OnOff(td.Constant(1.0), td.Constant(1.0), td.Pareto([1.0])).check(2), "Pareto has 1 means for 2 clients"),
        (lambda: OnOffTrace(ROWS, td.Pareto([1.0])).check(2), "Pareto has 1 means for 2 clients"),
        (lambda: OnOff(Ask(), Ask()), None),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    if message is None:
        make()
        return
    with pytest.raises(InvalidInputError, match=message):
        make()


class Always(td.Timing):
    """Stretches that no timing of the library gives."""

    def __init__(self, seconds):
        self.seconds = seconds

    def fields(self):
        return {"seconds": self.seconds}

    def duration(self, client, start, u):
        return self.seconds


@pytest.mark.parametrize("seconds", [-1.0, np.nan, np.inf])
def test_a_stretch_that_is_no_time_is_refused_each_time(seconds):
    for model, name in (
        (OnOff(Always(seconds), td.Constant(1.0)), "on"),
        (OnOff(td.Constant(1.0), Always(seconds)), "off"),
    ):
        for _ in range(2):
            with pytest.raises(InvalidInputError, match=rf"OnOff\.{name}: a stretch of client 3 must be a finite number"):
                model.duration(3, 5.0, 0.5)


def test_a_client_that_is_never_on_is_refused():
    model = OnOff(Always(0.0), td.Constant(1.0))
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=rf"gave client 1 {PATIENCE} stretches of 0 seconds"):
            model.duration(1, 5.0, 0.5)


def test_stretches_of_no_length_now_and_then_do_no_harm():
    model = OnOff(td.FromTrace([[0, 0.0], [0, 0.0], [0, 1.0]]), td.FromTrace([[0, 0.0], [0, 2.0]]), Ask(), seed=5)
    stretches = model.stretches(0, 500.0)
    assert (np.diff(stretches) == 0).any()
    for start in np.linspace(0, 50, 40):
        end = start + model.duration(0, start, 2.5)
        worked = np.clip(np.minimum(stretches[:, 1], end) - np.maximum(stretches[:, 0], start), 0, None)
        assert worked.sum() == pytest.approx(2.5)


def written(folder, text):
    path = folder / "grid.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_gives_its_rows(tmp_path):
    text = "\ufeffname, off, client ,on\nann,4,0,0\n\nbob, 2,1,1\nann,7.5,0,6\nbob,9,1,3e0\n  \nann,1e1,0,8\n"
    model = OnOffTrace.from_csv(written(tmp_path, text), td.Exponential(2.0))
    assert model.rows.tolist() == ROWS
    assert same_bits(model, OnOffTrace(ROWS, td.Exponential(2.0)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"grid\.csv, line 1: it must name the columns client, on and off, and has no 'client' among \[\]"),
        ("client,on\n0,1\n", r"grid\.csv, line 1: .* has no 'off' among"),
        ("0,1,2\n", r"grid\.csv, line 1: .* has no 'client'"),
        ("client,on,off\n", r"grid\.csv has no lines after its header"),
        ("client,on,off\n\n", r"grid\.csv has no lines after its header"),
        ("client,on,off\n0,0,1\n0,two,3\n", r"grid\.csv, line 3: on must be a number, not 'two'"),
        ("client,on,off\n0,0\n", r"grid\.csv, line 2: off must be a number, not nothing"),
        ("client,on,off\n,0,1\n", r"grid\.csv, line 2: client must be a number, not ''"),
        ("client,on,off\n0,0,1\n\n0,-2,3\n", r"grid\.csv, line 4: on must be seconds >= 0"),
        ("client,on,off\n0,3,3\n", r"grid\.csv, line 2: off must be later than on, 3, not 3"),
        ("client,on,off\n1.5,0,3\n", r"grid\.csv, line 2: a client is an integer from 0, not 1\.5"),
        ("client,on,off\n0,0,5\n1,0,9\n0,4,6\n", r"grid\.csv, line 4: client 0 comes on at 4, but by line 2 it is on until 5"),
        (b"client,on,off\n\xff\xfe", r"grid\.csv is not a CSV file in UTF-8"),
        ("client,on,off\n" + "1" * 200_000 + ",0,1\n", r"grid\.csv is not a CSV file in UTF-8 \(field larger"),
    ],
    ids=range(14),
)
def test_a_file_that_is_no_recording_is_refused_with_its_line(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        OnOffTrace.from_csv(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.csv: No such file or directory"):
        OnOffTrace.from_csv(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        OnOffTrace.from_csv(tmp_path)
